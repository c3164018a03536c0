"""The H-description every check works on: unit rows, the equalities factored, nothing else.

The theory rooms never look inside a solver. They need the rows of a set, a point and its claimed
projection, and this module turns ``C.to_polyhedron()`` into that: bounds become rows, rows get unit
norm, rows that bind nothing (zero rows, infinite right-hand sides) are dropped, and the range of
the equality rows gets an orthonormal basis with its rank revealed.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np

ACTIVE_TOL = 1e-9
"""A row is active when its slack is at most this, relative to 1 + right-hand side + point."""

RANK_TOL = 1e-10
"""Singular values below this, relative to unit rows, count as zero."""

_CACHE: weakref.WeakKeyDictionary[Any, HRows] = weakref.WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class HRows:
    """{y : G y <= h, E y = e} with unit rows.

    Attributes
    ----------
    G, h : ndarray, shapes (m, n), (m,)
        Inequality rows of norm 1, bounds included, and their right-hand sides.
    ids : tuple of (str, int)
        Where each row of G came from: ``("ub", i)``, ``("lower", j)`` or ``("upper", j)``.
    norms : ndarray, shape (m,)
        The norms the rows had; a multiplier of the given row is that of the unit row over it.
    E, e : ndarray, shapes (p, n), (p,)
        Equality rows of norm 1 and their right-hand sides.
    eq_ids : tuple of int
        Index of each row of E among the rows given.
    eq_norms : ndarray, shape (p,)
        The norms these had.
    Q : ndarray, shape (n, q)
        Orthonormal basis of the span of the equality rows.
    impossible : bool
        True when a row of zeros already has no solution.
    """

    G: np.ndarray
    h: np.ndarray
    ids: tuple[tuple[str, int], ...]
    norms: np.ndarray
    E: np.ndarray
    e: np.ndarray
    eq_ids: tuple[int, ...]
    eq_norms: np.ndarray
    Q: np.ndarray
    impossible: bool = False

    @property
    def n(self) -> int:
        """Number of coordinates."""
        return self.G.shape[1]

    @property
    def m(self) -> int:
        """Number of inequality rows."""
        return self.G.shape[0]

    def scale(self, x: np.ndarray) -> np.ndarray:
        """Return 1 + max|x| + max|h| + max|e|, one number a point; x has shape (..., n)."""
        reach = max(np.max(np.abs(self.h), initial=0.0), np.max(np.abs(self.e), initial=0.0))
        return 1.0 + reach + np.max(np.abs(x), axis=-1, initial=0.0)

    def slack(self, y: np.ndarray) -> np.ndarray:
        """Return h - G y, shape (..., m)."""
        return self.h - y @ self.G.T

    def active(self, y: np.ndarray, tol: float = ACTIVE_TOL) -> np.ndarray:
        """Return I(x) as booleans, shape (..., m), from the projections y alone."""
        size = 1.0 + np.abs(self.h) + np.max(np.abs(y), axis=-1, initial=0.0)[..., None]
        return self.slack(y) <= tol * size

    def violation(self, y: np.ndarray) -> np.ndarray:
        """Return the largest violation of any row, absolute, shape (...)."""
        inside = np.max(-self.slack(y), axis=-1, initial=0.0)
        return np.maximum(inside, np.max(np.abs(y @ self.E.T - self.e), axis=-1, initial=0.0))

    def off_equalities(self, v: np.ndarray) -> np.ndarray:
        """Return v minus its part in the span of the equality rows; v has shape (..., n)."""
        return v - (v @ self.Q) @ self.Q.T

    def name(self, mask: np.ndarray) -> frozenset[tuple[str, int]]:
        """Return a boolean mask over the rows as a set of (field, index) pairs."""
        return frozenset(self.ids[int(i)] for i in np.flatnonzero(mask))

    def mask(self, K: Any) -> np.ndarray:
        """Return a collection of (field, index) pairs as a boolean mask; the inverse of `name`."""
        wanted = set(K)
        unknown = sorted(wanted - set(self.ids))
        if unknown:
            raise ValueError(f"the set has no inequality row {unknown[0]!r}.")
        return np.array([i in wanted for i in self.ids], dtype=bool)


def rows_of(C: Any, **data: np.ndarray) -> HRows:
    """Return the H-description of a set with unit rows.

    Parameters
    ----------
    C : set or HRows
        Anything with ``to_polyhedron()``, or with the attributes ``A_ub, b_ub, A_eq, b_eq, lower,
        upper`` themselves. An `HRows` is returned as it is.
    **data : ndarray
        Any of these six by name, replacing what the set holds (one sample, no batch axis).

    Returns
    -------
    HRows
        Remembered for as long as the set lives, unless data was replaced.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> R = rows_of(SimpleNamespace(A_ub=[[3.0, 4.0]], b_ub=[10.0], A_eq=None, b_eq=None,
    ...                             lower=[0.0, -float("inf")], upper=None))
    >>> R.ids
    (('ub', 0), ('lower', 0))
    >>> R.G.tolist(), R.h.tolist()
    ([[0.6, 0.8], [-1.0, -0.0]], [2.0, -0.0])
    """
    if isinstance(C, HRows):
        return C
    if data:
        return _build(C, data)
    try:
        known = _CACHE.get(C)
    except TypeError:  # a description that cannot be hashed is simply built again
        return _build(C, {})
    if known is None:
        known = _CACHE[C] = _build(C, {})
    return known


def _build(C: Any, data: dict[str, np.ndarray]) -> HRows:
    source = C.to_polyhedron() if hasattr(C, "to_polyhedron") else C

    def get(name: str) -> np.ndarray | None:
        value = data.get(name, getattr(source, name, None))
        return None if value is None else np.asarray(value, dtype=np.float64)

    A, b, B, c, lower, upper = map(get, ("A_ub", "b_ub", "A_eq", "b_eq", "lower", "upper"))
    n = _dimension(source, A, B, lower, upper)
    blocks: list[tuple[np.ndarray, np.ndarray, list[tuple[str, int]]]] = []
    if A is not None and b is not None:
        rhs = np.broadcast_to(b, A.shape[:1])
        blocks.append((A, rhs, [("ub", i) for i in range(len(A))]))
    for bound, sign, field in ((lower, -1.0, "lower"), (upper, 1.0, "upper")):
        if bound is not None:
            rhs = sign * np.broadcast_to(bound, (n,))
            blocks.append((sign * np.eye(n), rhs, [(field, j) for j in range(n)]))
    rows = np.vstack([np.zeros((0, n)), *(k[0] for k in blocks)])
    rhs = np.concatenate([np.zeros(0), *(k[1] for k in blocks)])
    ids = [i for k in blocks for i in k[2]]
    norms = np.linalg.norm(rows, axis=1)
    impossible = bool(np.any((norms == 0.0) & (rhs < 0.0)) or np.any(rhs == -np.inf))
    keep = (norms > 0.0) & np.isfinite(rhs)
    E = np.zeros((0, n)) if B is None else B
    e = np.zeros(0) if c is None else np.broadcast_to(c, E.shape[:1])
    eq_norms = np.linalg.norm(E, axis=1)
    keep_eq = eq_norms > 0.0
    impossible |= bool(np.any(~keep_eq & (e != 0.0)))
    unit_eq = E[keep_eq] / eq_norms[keep_eq, None]
    return HRows(
        G=rows[keep] / norms[keep, None],
        h=rhs[keep] / norms[keep],
        ids=tuple(i for i, k in zip(ids, keep) if k),
        norms=norms[keep],
        E=unit_eq,
        e=e[keep_eq] / eq_norms[keep_eq],
        eq_ids=tuple(int(i) for i in np.flatnonzero(keep_eq)),
        eq_norms=eq_norms[keep_eq],
        Q=span(unit_eq),
        impossible=impossible,
    )


def _dimension(source: Any, *parts: np.ndarray | None) -> int:
    for part in parts:
        if part is not None and part.ndim:
            return part.shape[-1]
    size = getattr(source, "size", None) or getattr(source, "n", None)
    if size is None:
        raise ValueError("the description holds no array from which its dimension could be read.")
    return int(size)


def span(M: np.ndarray, tol: float = RANK_TOL) -> np.ndarray:
    """Return an orthonormal basis of the span of the rows of M, shape (n, rank)."""
    if not M.size:
        return np.zeros((M.shape[1], 0))
    _, size, Vt = np.linalg.svd(M, full_matrices=False)
    return Vt[size > tol * max(1.0, size[0])].T
