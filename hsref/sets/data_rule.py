r"""The derivative of any set in its parameters, from the rows of its H-description.

A parameter enters the right-hand sides c of the rows as an affine function, c = c_0 + R theta. Let
K be the working set of a sample, extended to a basis of its active rows. Then

.. math:: dy = M_K^+ R_K\, d\theta, \qquad \bar\theta = R_K^T (M_K^+)^T g .

The rows of K that are bounds are taken out first: they fix coordinates, and what is left is a small
dense problem in the others. Samples with the same K are treated together.

R is found by probing the rows with unit vectors, once a set, and is kept sparse. This serves every
set whose codes and ``to_polyhedron()`` speak of the same rows; sets with a closed form, or whose
record is compact, declare their own rule in their own file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._batch import RawRecord
from .._codes import MASK_ACTIVE, MASK_WORKING, SOLVED

if TYPE_CHECKING:
    from .base import PolyhedralSet

INDEPENDENT = 1e-10
"""A unit row closer than this to the span of the rows before it depends on them."""
PROBES = 1 << 22
"""Numbers in one block of probes."""


class Basis(NamedTuple):
    """Samples with the same K, and K in a form ready for products.

    Attributes
    ----------
    samples : (s,)
        Which samples.
    free : (f,)
        Coordinates that no bound of K fixes.
    lower, upper : (., )
        Coordinates fixed at that bound.
    rows : (k,)
        Rows of K in [A_eq; A_ub].
    matrix : (k, n)
        These rows.
    Q, R : (f, k), (k, k)
        Their part on the free coordinates is R' Q'.
    """

    samples: np.ndarray
    free: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    rows: np.ndarray
    matrix: np.ndarray
    Q: np.ndarray
    R: np.ndarray


def check_rule(C: PolyhedralSet, names: tuple[str, ...]) -> None:
    """Raise a sentence for the first of the parameters that the rows tell nothing about."""
    for name in names:
        if getattr(C, "compact_record", False):
            raise TypeError(
                f"{type(C).__name__} declares no derivative in {name}: pass the value of {name}, "
                "without gradients."
            )
        _sensitivity(C, name)


def pull_through_rows(
    C: PolyhedralSet, raw: RawRecord, g: np.ndarray, names: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Return the cotangents of the parameters `names`, (L, B, *shape) each, for g (L, B, n)."""
    lead, batch, n = g.shape
    m, p = C._row_counts()
    w = np.zeros((lead, batch, p + m + 2 * n))
    for part in bases(C, raw):
        mine = g[:, part.samples]
        carried = _solve_lower(part.R, np.einsum("lsf,fk->lsk", mine[..., part.free], part.Q))
        rest = mine - np.einsum("lsk,kn->lsn", carried, part.matrix)
        at = part.samples[:, None]
        w[:, at, part.rows] = carried
        w[:, at, p + m + part.lower] = rest[..., part.lower]
        w[:, at, p + m + n + part.upper] = rest[..., part.upper]
    flat = w.reshape(lead * batch, w.shape[-1])
    return {
        f.name: np.asarray((_sensitivity(C, f.name).T @ flat.T).T).reshape((lead, batch, *f.shape))
        for f in C._fields
        if f.name in names
    }


def push_through_rows(
    C: PolyhedralSet, raw: RawRecord, tangents: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Return dy, (L, B, n), for tangents (L, B, *shape) of the parameters."""
    lead, batch = next(iter(tangents.values())).shape[:2]
    n = C.size
    m, p = C._row_counts()
    dc = np.zeros((lead * batch, p + m + 2 * n))
    for name, tangent in tangents.items():
        dc += np.asarray(
            (
                _sensitivity(C, name)
                @ tangent.reshape(lead * batch, math.prod(tangent.shape[2:])).T
            ).T
        )
    dc = dc.reshape(lead, batch, dc.shape[-1])
    out = np.zeros((lead, batch, n))
    for part in bases(C, raw):
        dy = np.zeros((lead, part.samples.size, n))
        mine = dc[:, part.samples]
        dy[..., part.lower] = mine[..., p + m + part.lower]
        dy[..., part.upper] = mine[..., p + m + n + part.upper]
        gap = mine[..., part.rows] - np.einsum("lsn,kn->lsk", dy, part.matrix)
        dy[..., part.free] = np.einsum("lsk,fk->lsf", _solve_upper(part.R, gap), part.Q)
        out[:, part.samples] = dy
    return out


def _solve_lower(R: np.ndarray, rhs: np.ndarray) -> np.ndarray:
    """Return R^{-1} rhs along the last axis."""
    out = np.zeros_like(rhs)
    for a in range(len(R) - 1, -1, -1):
        out[..., a] = rhs[..., a] - np.einsum("...k,k->...", out[..., a + 1 :], R[a, a + 1 :])
        out[..., a] /= R[a, a]
    return out


def _solve_upper(R: np.ndarray, rhs: np.ndarray) -> np.ndarray:
    """Return R^{-T} rhs along the last axis."""
    out = np.zeros_like(rhs)
    for a in range(len(R)):
        out[..., a] = (rhs[..., a] - np.einsum("...k,k->...", out[..., :a], R[:a, a])) / R[a, a]
    return out


# -- an independent basis of the active rows ------------------------------------------------------


def bases(C: PolyhedralSet, raw: RawRecord) -> Iterator[Basis]:
    """Yield the solved samples, grouped by their active and working rows."""
    solved = np.flatnonzero(raw.status == SOLVED)
    if not solved.size:
        return
    active = C._flags(raw.code[solved], MASK_ACTIVE)
    working = C._flags(raw.code[solved], MASK_WORKING)
    pattern = np.concatenate([*active, *working], axis=1)
    packed = np.packbits(pattern, axis=1)
    _, first, which = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    which = which.reshape(-1)
    order = np.argsort(which, kind="stable")
    ends = np.searchsorted(which[order], np.arange(len(first) + 1))
    rows = C._polyhedron
    none = np.zeros((0, C.size))
    matrix = np.concatenate([
        none if rows.A_eq is None else rows.A_eq, none if rows.A_ub is None else rows.A_ub
    ])  # fmt: skip
    p = 0 if rows.A_eq is None else len(rows.A_eq)
    for q, i in enumerate(first):
        yield _basis(
            solved[order[ends[q] : ends[q + 1]]], matrix, p,
            tuple(f[i] for f in active), tuple(f[i] for f in working),
        )  # fmt: skip


def _basis(
    samples: np.ndarray, matrix: np.ndarray, p: int, active: tuple[Any, ...],
    working: tuple[Any, ...],
) -> Basis:  # fmt: skip
    size = np.linalg.norm(matrix, axis=1)
    unit = matrix / np.where(size > 0.0, size, 1.0)[:, None]
    on_upper = working[2] | (active[2] & ~working[1] & ~active[1])
    on_lower = (working[1] | active[1]) & ~on_upper
    fixed = working[1] | working[2]
    weak = np.flatnonzero((on_lower | on_upper) & ~fixed)
    rows = _independent(unit, np.concatenate([np.arange(p), p + np.flatnonzero(working[0])]), fixed)
    everything = fixed.copy()
    everything[weak] = True
    if len(_independent(unit, rows, everything)) == len(rows):
        fixed = everything
    else:
        for j in weak:
            fixed[j] = True
            if len(_independent(unit, rows, fixed)) < len(rows):
                fixed[j] = False
    more = p + np.flatnonzero(active[0] & ~working[0])
    rows = _independent(unit, np.concatenate([rows, more]), fixed)
    free = np.flatnonzero(~fixed)
    Q, R = np.linalg.qr(matrix[rows][:, free].T)
    return Basis(
        samples, free, np.flatnonzero(fixed & on_lower), np.flatnonzero(fixed & on_upper), rows,
        matrix[rows], Q, R,
    )  # fmt: skip


def _independent(unit: np.ndarray, rows: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Return those of the rows, in order, that are independent off the fixed coordinates."""
    part = unit[rows][:, ~fixed]
    basis = np.zeros((min(part.shape), part.shape[1]))
    kept = []
    for a in range(len(rows)):
        if len(kept) == len(basis):
            break
        new = part[a]
        for _ in range(2):
            new = new - basis[: len(kept)].T @ (basis[: len(kept)] @ new)
        norm = np.sqrt(new @ new)
        if norm > INDEPENDENT:
            basis[len(kept)] = new / norm
            kept.append(rows[a])
    return np.array(kept, np.int64)


# -- how the parameters enter the right-hand sides ------------------------------------------------


def _sensitivity(C: PolyhedralSet, name: str) -> Any:
    """Return R of one parameter, sparse (p + m + 2 n, size), in the order eq, ub, lower, upper."""
    return C._cached(f"sensitivity of {name}", lambda: _probe(C, name))


def _probe(C: PolyhedralSet, name: str) -> Any:
    from scipy.sparse import csc_array, hstack

    field = next(f for f in C._fields if f.name == name)
    base = np.where(np.isfinite(field.value), field.value, 0.0).reshape(1, field.size)
    m, p = C._row_counts()
    size, width = field.size, p + m + 2 * C.size

    def sides(theta: np.ndarray) -> np.ndarray:
        rows = C._residual_rows({name: theta.reshape((len(theta), *field.shape))})
        parts = []
        for value, count in (
            (rows.b_eq, p), (rows.b_ub, m), (rows.lower, C.size), (rows.upper, C.size)
        ):  # fmt: skip
            value = np.zeros(count) if value is None else np.asarray(value)
            parts.append(np.broadcast_to(value, (len(theta), count)))
        return np.concatenate(parts, axis=1)

    def change(theta: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            moved = sides(theta) - at_base
        # An infinite side that stays infinite does not move.
        return np.where(np.isfinite(moved), moved, 0.0)

    at_base = sides(base)
    blocks = []
    step = max(1, PROBES // max(width, 1))
    for begin in range(0, size, step):
        units = np.eye(size)[begin : begin + step]
        moved = change(base + units)
        # A power of two times a unit step tells an affine function from another one exactly.
        if np.abs(change(base + 4.0 * units) - 4.0 * moved).max(initial=0.0) > 1e-9 * (
            1.0 + np.abs(at_base[np.isfinite(at_base)]).max(initial=0.0)
        ):
            raise TypeError(
                f"the right-hand sides of {type(C).__name__} are no affine function of {name}, "
                "and the set declares no derivative of its own in it: pass the value of "
                f"{name}, without gradients."
            )
        moved[np.abs(moved) < 1e-9 * np.abs(moved).max(initial=0.0)] = 0.0
        blocks.append(csc_array(moved.T))
    return hstack(blocks, format="csc") if blocks else csc_array((width, 0))
