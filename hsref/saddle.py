r"""The linear system behind every derivative of a projection, for whole batches, dense.

With K an independent set of active rows, M its matrix and H a metric (the identity for Euclidean
projections), a point y and its multipliers nu obey

.. math:: \begin{pmatrix} H & M^T \\ M & 0 \end{pmatrix}
          \begin{pmatrix} y \\ \nu \end{pmatrix} = \begin{pmatrix} q \\ c \end{pmatrix} .

Differentiated, the same matrix meets -(dH y + dM' nu, dM y) on the right. So one routine gives the
derivatives in q, c, M and H, and, being symmetric, their transposes; see
:mod:`hsref.matrix_primitives` for the rules. Bounds in K fix coordinates and are taken out.

Where active rows are dependent the multipliers are not unique and y need not be differentiable in
the rows: :class:`DegenerateDataGradientError`, or, if asked for, the pseudo-inverse.

Cost a sample: O(n k^2) for k rows, plus O(n^3) where H is a full matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ._codes import MASK_ACTIVE, MASK_WORKING, SELECTION_MASK, SOLVED
from .record import Projection

CHUNK = 1 << 21
"""Numbers in the matrices of one block of samples."""
DEGENERATE = ("raise", "minimum_norm")


class DegenerateDataGradientError(ValueError):
    """Active rows are dependent, so the projection has no derivative in them.

    Attributes
    ----------
    index : tuple of int
        Batch index of the first such sample.
    """

    def __init__(self, message: str, index: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.index = index

    def __reduce__(self) -> Any:
        return (type(self), (self.args[0], self.index))


class Held(NamedTuple):
    """Which rows make up K, sample by sample; rows are those of [A_eq; A_ub].

    Attributes
    ----------
    rows : (B, p + m) bool
        Rows of K.
    lower, upper : (B, n) bool
        Coordinates fixed at that bound.
    dependent : (B,) bool
        Where the pseudo-inverse of all active rows is used.
    solved : (B,) bool
        Samples with a derivative at all.
    """

    rows: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    dependent: np.ndarray
    solved: np.ndarray

    @property
    def fixed(self) -> np.ndarray:
        """Coordinates fixed at a bound, (B, n)."""
        return self.lower | self.upper


def held_rows(
    record: Projection, selection: str, degenerate: str = "raise", *, matrices: bool = True
) -> Held:
    """Read K off a record of a general polyhedron, or refuse.

    Parameters
    ----------
    record : Projection
        Onto a general polyhedron, in any metric.
    selection : {"active", "working", "support"}
        Which active rows: an independent basis of them all, or those of the selection.
    degenerate : {"raise", "minimum_norm"}
        What to do where active rows are dependent and `matrices` asks for unique multipliers.
    matrices : bool
        Whether derivatives in the rows are wanted. Those in the metric and in right-hand sides
        need no unique multipliers.

    Raises
    ------
    DegenerateDataGradientError
        `matrices`, active rows of a sample are dependent, and `degenerate` is ``"raise"``.
    """
    if degenerate not in DEGENERATE:
        raise ValueError(f"degenerate_data must be 'raise' or 'minimum_norm'; got {degenerate!r}.")
    raw, C = record._raw, record.set
    n = C.size
    solved = raw.status == SOLVED
    eq, basis = C._basis_flags(raw)
    active, working = C._flags(raw.code, MASK_ACTIVE), C._flags(raw.code, MASK_WORKING)
    count = eq.shape[1] + active.ub.sum(axis=1) + (active.lower | active.upper).sum(axis=1)
    independent = n - np.asarray(record._rank("active")).reshape(-1)
    dependent = solved & (count > independent) & matrices
    if degenerate == "raise" and dependent.any():
        first = int(np.flatnonzero(dependent)[0])
        index = tuple(int(k) for k in np.unravel_index(first, record.batch_shape))
        where = f" of sample {index}" if index else ""
        raise DegenerateDataGradientError(
            f"{int(count[first])} constraints{where} are active and only "
            f"{int(independent[first])} of them are independent: the projection has no derivative "
            "in the matrices there. Remove redundant rows, move the point, or pass "
            "degenerate_data='minimum_norm' for the pseudo-inverse's choice.",
            index,
        )
    some = basis if selection == "active" else C._flags(raw.code, SELECTION_MASK[selection])
    ub, on_lower, on_upper = (
        np.where(dependent[:, None], all_of_them, picked)
        for all_of_them, picked in zip(active, some, strict=True)
    )
    # Where both bounds are active the one that works counts, else the lower.
    upper = on_upper & (working.upper | ~(on_lower | working.lower))
    rows = np.concatenate([eq | dependent[:, None], ub], axis=1)
    return Held(rows & solved[:, None], on_lower & ~upper, upper, dependent, solved)


def saddle_solve(
    H: np.ndarray | None,
    A: np.ndarray,
    held: Held,
    p: np.ndarray,
    q: np.ndarray,
    bound: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Return (u, v) with H u + A' v = p off the fixed coordinates, A u = q on K, u = bound fixed.

    Parameters
    ----------
    H : ndarray, shape (1 or B, n) or (1 or B, n, n), or None
        The metric, positive definite; None for the identity, vectors for diagonals.
    A : ndarray, shape (1 or B, r, n)
        All rows, [A_eq; A_ub].
    held : Held
        K.
    p, bound : ndarray, shape (B, n)
        Right-hand sides; `bound` counts at fixed coordinates only.
    q : ndarray, shape (B, r)
        Counts on K only.

    Returns
    -------
    u : ndarray, shape (B, n)
    v : ndarray, shape (B, r)
        0 off K. Both are 0 for samples that were not solved.
    """
    batch, n = p.shape
    u, v = np.zeros((batch, n)), np.zeros((batch, A.shape[-2]))
    for at, ids, present in _blocks(held, n):
        own = at[:, None]
        rows = A[0][ids] if len(A) == 1 else A[own, ids]
        M = np.where(present[..., None], rows, 0.0)
        side = np.where(present, q[own, ids], 0.0)
        metric = None if H is None else (H if len(H) == 1 else H[at])
        solve = _minimum_norm if held.dependent[at[0]] else _independent
        u[at], found = solve(metric, M, present, held.fixed[at], p[at], side, bound[at])
        v[own, ids] = found
    return u, v


def _blocks(held: Held, n: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield (samples, row numbers (s, k), which of them count): samples of similar k together."""
    counts = held.rows.sum(axis=1)
    for dependent in (False, True):
        mine = np.flatnonzero(held.solved & (held.dependent == dependent))
        mine = mine[np.argsort(counts[mine], kind="stable")]
        begin = 0
        while begin < len(mine):
            # Sizes grow, so the last sample of a block has the largest.
            step = max(1, CHUNK // (n * max(int(counts[mine[begin]]), 1)))
            at = mine[begin : begin + step]
            most = int(counts[at[-1]])
            ids = np.argsort(~held.rows[at], axis=1, kind="stable")[:, :most]
            yield at, ids, np.take_along_axis(held.rows[at], ids, axis=1)
            begin += step


def _independent(
    H: np.ndarray | None, M: np.ndarray, present: np.ndarray, fixed: np.ndarray,
    p: np.ndarray, q: np.ndarray, bound: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Solve by a QR factorisation of the rows in the metric; absent rows are zero rows."""
    at_bound = np.where(fixed, bound, 0.0)
    q = q - np.einsum("skn,sn->sk", M, at_bound)
    M = np.where(fixed[:, None], 0.0, M)
    if H is None:
        inverse: Any = None
        p = np.where(fixed, 0.0, p)
    elif H.ndim == 2:
        inverse = np.where(fixed, 0.0, 1.0 / np.sqrt(H))
        p = p * inverse
        M = M * inverse[:, None]
    else:
        p = np.where(fixed, 0.0, p - np.einsum("...ij,...j->...i", H, at_bound))
        free = ~fixed
        inside = free[:, :, None] & free[:, None, :]
        inverse = np.linalg.inv(np.linalg.cholesky(np.where(inside, H, np.eye(fixed.shape[1]))))
        p = np.einsum("sij,sj->si", inverse, p)
        M = np.einsum("skj,sij->ski", M, inverse)
    Q, R = np.linalg.qr(np.swapaxes(M, 1, 2))
    k = R.shape[1]
    # An absent row leaves a zero row and column of R: a 1 there solves to 0.
    here = present[:, :k]
    R = np.where(here[:, :, None] & present[:, None, :k], R[:, :, :k], np.eye(k))
    Q = np.where(here[:, None], Q, 0.0)
    along = np.einsum("snk,sn->sk", Q, p)
    wanted = np.linalg.solve(np.swapaxes(R, 1, 2), q[:, :k, None])[..., 0] if k else q[:, :0]
    part = along - wanted
    v = np.zeros_like(q)
    if k:
        v[:, :k] = np.linalg.solve(R, part[..., None])[..., 0]
    u = p - np.einsum("snk,sk->sn", Q, part)
    if H is not None:
        u = u * inverse if H.ndim == 2 else np.einsum("sij,si->sj", inverse, u)
    return np.where(fixed, bound, u), np.where(present, v, 0.0)


def _minimum_norm(
    H: np.ndarray | None, M: np.ndarray, present: np.ndarray, fixed: np.ndarray,
    p: np.ndarray, q: np.ndarray, bound: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Solve with pseudo-inverses of all active rows, bounds among them; one sample at a time."""
    u, v = np.zeros_like(p), np.zeros_like(q)
    n = p.shape[1]
    for s in range(len(p)):
        at = np.flatnonzero(fixed[s])
        rows = np.concatenate([M[s], np.eye(n)[at]])
        sides = np.concatenate([q[s], bound[s, at]])
        root = np.eye(n)
        if H is not None:
            own = H[0] if len(H) == 1 else H[s]
            root = np.diag(1.0 / np.sqrt(own)) if H.ndim == 2 else np.linalg.inv(
                np.linalg.cholesky(own)
            )  # fmt: skip
        rows = rows @ root.T
        target = root @ p[s]
        inverse = np.linalg.pinv(rows, rcond=1e-10)
        found = target - inverse @ (rows @ target - sides)
        u[s] = root.T @ found
        v[s] = (inverse.T @ (target - inverse @ sides))[: q.shape[1]]
    return u, np.where(present, v, 0.0)
