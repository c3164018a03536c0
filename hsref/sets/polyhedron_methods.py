"""Which algorithm projects onto a polyhedron, and how its records are read.

The choice is made by the set alone, once, so that a sample never depends on its neighbours. Each
method is a pair of per-point routines, the kernel that carries them, and the decoding of what they
write.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._batch import Kernel, RawRecord
from .._codes import INFO_TAPE_INTS, WORKING_LOWER, WORKING_UPPER
from .base import ConstraintFlags, Multipliers
from .data_rule import basis_of_rows
from .eliminated_bounds import eliminated_hs, eliminated_project
from .polyhedron_kernel import polyhedron_hs, polyhedron_project
from .row_reduction import Reduction, reduce_rows, sparse_rows
from .sparse_rows import FLOATS as SPARSE_FLOATS
from .sparse_rows import HEADER, KEPT
from .sparse_rows import INTS as SPARSE_INTS
from .working_set import FLOATS, INTS, MOST, SWEEPS

if TYPE_CHECKING:
    from .polyhedron import Polyhedron

FEW_ROWS = 0.2
"""Rows for each coordinate up to which dense rows count as few: a set with 12 rows and n = 50 took
three quarters of the time of the dual active set, one with 60 and n = 200 twice that time."""
SPARSE_ROWS, SPARSE_COLUMN = 0.55, 6.5
"""The same for sparse rows, and the entries of a column, on average, up to which they are sparse:
half as many rows as coordinates took half of the time of the dual active set (n = 100, 200); as
many rows as coordinates took fifty times as long, because too few coordinates are then free."""


class Method(NamedTuple):
    """One algorithm: its name in records, its kernel, and the reading of its records."""

    name: str
    kernel: Callable[[Any], Kernel]
    multipliers: Callable[[Any, RawRecord, np.ndarray], Multipliers]
    warm_start: Callable[[RawRecord], tuple[np.ndarray, np.ndarray] | None]
    basis_flags: Callable[[Any, RawRecord], tuple[np.ndarray, ConstraintFlags]]


def choose_method(C: Polyhedron) -> Method:
    """Return the method for a set; it depends on the rows and on whether there are bounds."""
    if C.lower is not None or C.upper is not None:
        rows = sum(len(a) for a in (C.A_ub, C.A_eq) if a is not None)
        entries = sum(int(np.count_nonzero(a)) for a in (C.A_ub, C.A_eq) if a is not None)
        few = rows <= FEW_ROWS * C.size
        sparse = rows <= SPARSE_ROWS * C.size and entries <= SPARSE_COLUMN * C.size
        if few or sparse:
            return ELIMINATED
    elif reduction_of(C).layout[SWEEPS]:
        return BLOCK_ACTIVE_SET
    return DUAL_ACTIVE_SET


def reduction_of(C: Polyhedron) -> Reduction:
    """Return what the dense methods share, computed once a set."""
    return C._cached("reduction", lambda: reduce_rows(C))


def row_counts(C: Polyhedron) -> tuple[int, int]:
    """Return (m, p)."""
    return 0 if C.A_ub is None else len(C.A_ub), 0 if C.A_eq is None else len(C.A_eq)


# -- bounds eliminated ----------------------------------------------------------------------------


def _eliminated_kernel(C: Polyhedron) -> Kernel:
    m, p = row_counts(C)
    n = C.size
    shared = sparse_rows(C)
    lay = shared.layout
    r, entries = int(lay[KEPT]), len(shared.row_val)
    return Kernel(
        "Polyhedron",
        eliminated_project,
        eliminated_hs,
        size=n,
        code_size=m + p + n,
        dual_size=m + p,
        work_size=int(lay[SPARSE_FLOATS]),
        iwork_size=int(lay[SPARSE_INTS]),
        hs_work_size=3 * r,
        hs_iwork_size=0,
        shared=tuple(shared),
        methods=(C._method.name,),
        tape_floats=max(3 * (r * (r + 1) // 2), m + p + n),
        tape_ints=HEADER + 3 * r,
        cost=100.0 * n + 60.0 * entries + 2.0 * r**3,
        hs_cost=4.0 * n + 4.0 * entries + 1.0 * r * r,
    )


def _eliminated_multipliers(C: Polyhedron, record: RawRecord, x: np.ndarray) -> Multipliers:
    m, p = row_counts(C)
    ub, eq = record.dual[:, :m], record.dual[:, m:]
    rest = x.astype(np.float64) - record.y - C._rows_transpose(ub, eq)
    bounds = record.code[:, m + p :]
    return Multipliers(
        ub,
        eq,
        np.where(bounds & WORKING_LOWER, np.maximum(-rest, 0.0), 0.0),
        np.where(bounds & WORKING_UPPER, np.maximum(rest, 0.0), 0.0),
    )


ELIMINATED = Method(
    "bounds eliminated", _eliminated_kernel, _eliminated_multipliers, lambda record: None,
    basis_of_rows,
)  # fmt: skip


# -- dual active set ------------------------------------------------------------------------------


def _active_set_kernel(C: Polyhedron) -> Kernel:
    m, p = row_counts(C)
    n = C.size
    reduction = reduction_of(C)
    k_e = len(reduction.basis)
    most, sweeps = int(reduction.layout[MOST]), int(reduction.layout[SWEEPS])
    # One row a step, or a few sweeps and factorisations of about half the rows.
    steps = 0.5 * most * most * (m + most) if not sweeps else sweeps * m * m + most**3 / 12
    return Kernel(
        "Polyhedron",
        polyhedron_project,
        polyhedron_hs,
        size=n,
        code_size=m + p + n,
        dual_size=0,
        work_size=int(reduction.layout[FLOATS]),
        iwork_size=int(reduction.layout[INTS]),
        hs_work_size=3 * n + k_e,
        hs_iwork_size=n,
        shared=tuple(reduction),
        methods=(C._method.name,),
        tape_floats=max(most * (most + 1) // 2 + most, m + p + n),
        tape_ints=3 + most,
        cost=2.0 * (m + p) * n + steps,
        hs_cost=2.0 * n * (most + k_e) + 1.0 * most * most,
    )


def _active_set_multipliers(C: Polyhedron, record: RawRecord, x: np.ndarray) -> Multipliers:
    m, p = row_counts(C)
    n, batch = C.size, len(record.status)
    reduction = reduction_of(C)
    signed = np.zeros((batch, m + n))
    has = np.flatnonzero(record.info[:, INFO_TAPE_INTS] >= 3)
    first = record.at_i[:-1][has]
    working = record.tape_i[first + 1].astype(np.int64)
    sample = np.repeat(has, working)
    place = np.arange(working.sum()) - np.repeat(np.cumsum(working) - working, working)
    number = record.tape_i[np.repeat(first + 3, working) + place]
    # The multipliers are the last numbers of a sample's tape.
    value = record.tape_f[np.repeat(record.at_f[1:][has] - working, working) + place]
    row = np.where(number < m, number, m + (number - m - p) % n)
    scale = np.concatenate([reduction.row_inv[1], reduction.coord_inv[:n]])
    signed[sample, row] = value * scale[row]
    normalised, bounds = signed[:, :m], signed[:, m:]
    ub = normalised * reduction.row_inv[0]
    # What is left of x - y is a combination of the equality rows; its coefficients follow from
    # the orthonormal basis of their row space.
    rest = x.astype(np.float64) - record.y - normalised @ reduction.columns.T - bounds
    eq = np.zeros((batch, p))
    k_e = len(reduction.basis)
    weights = (rest @ reduction.basis.T) @ reduction.eq_inverse
    eq[:, reduction.eq_ids[:k_e] - m] = weights * reduction.eq_inv[:k_e]
    return Multipliers(ub, eq, np.maximum(-bounds, 0.0), np.maximum(bounds, 0.0))


def _active_set_start(record: RawRecord) -> tuple[np.ndarray, np.ndarray]:
    counts = np.zeros(len(record.status), np.int64)
    has = record.info[:, INFO_TAPE_INTS] >= 3
    first = record.at_i[:-1]
    counts[has] = record.tape_i[first[has] + 1]
    offsets = np.concatenate(([0], np.cumsum(counts)))
    take = np.repeat(first + 3 - offsets[:-1], counts) + np.arange(offsets[-1])
    return offsets, record.tape_i[take]


def _active_set_basis(C: Polyhedron, raw: RawRecord) -> tuple[np.ndarray, ConstraintFlags]:
    m, p = row_counts(C)
    n, batch = C.size, len(raw.status)
    flags = np.zeros((batch, m + p + 2 * n), bool)
    has = np.flatnonzero(raw.info[:, INFO_TAPE_INTS] >= 3)
    first = raw.at_i[:-1][has]
    count = raw.tape_i[first + 2].astype(np.int64)
    place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    flags[np.repeat(has, count), raw.tape_i[np.repeat(first + 3, count) + place]] = True
    reduction = reduction_of(C)
    flags[:, reduction.eq_ids[: len(reduction.basis)]] = True
    ub, eq, lower, upper = np.split(flags, (m, m + p, m + p + n), axis=1)
    return eq, ConstraintFlags(ub, lower, upper)


DUAL_ACTIVE_SET = Method(
    "dual active set", _active_set_kernel, _active_set_multipliers, _active_set_start,
    _active_set_basis,
)  # fmt: skip
# The same routines: where the layout holds a number of sweeps they begin with block exchanges.
BLOCK_ACTIVE_SET = DUAL_ACTIVE_SET._replace(name="block active set")
