r"""The derivative of any set in its parameters, from the rows of its H-description.

A parameter enters the right-hand sides c of the rows as an affine function, c = c_0 + R theta. Let
K be the working set of a sample, extended to a basis of its active rows. Then

.. math:: dy = M_K^+ R_K\, d\theta, \qquad \bar\theta = R_K^T (M_K^+)^T g .

The rows of K that are bounds fix coordinates; what is left is a small dense problem in the others,
solved for each sample by :mod:`hsref.sets.basis_rows`.

R is found by probing the rows with unit vectors, once a set, and is kept sparse. This serves every
set whose codes and ``to_polyhedron()`` speak of the same rows; sets with a closed form, or whose
record is compact, declare their own rule in their own file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .._batch import RawRecord
from .._codes import MASK_ACTIVE, MASK_WORKING, SOLVED
from .base import ConstraintFlags
from .basis_rows import run_basis

if TYPE_CHECKING:
    from .base import PolyhedralSet

PROBES = 1 << 22
"""Numbers in one block of probes."""


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
    w = _run(C, raw, "pull", g, sum(C._row_counts()) + 2 * n)
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
    width = sum(C._row_counts()) + 2 * C.size
    dc = np.zeros((lead * batch, width))
    for name, tangent in tangents.items():
        flat = tangent.reshape(lead * batch, math.prod(tangent.shape[2:]))
        dc += np.asarray((_sensitivity(C, name) @ flat.T).T)
    return _run(C, raw, "push", dc.reshape(lead, batch, width), C.size)


def basis_of_rows(C: PolyhedralSet, raw: RawRecord) -> tuple[np.ndarray, ConstraintFlags]:
    """Return the basis used here: equalities (B, p), and the other constraints."""
    m, p = C._row_counts()
    n, batch = C.size, len(raw.status)
    marks = _run(C, raw, "mark", np.zeros((1, batch, 0)), p + m + 2 * n)[0] != 0.0
    eq, ub, lower, upper = np.split(marks, (p, p + m, p + m + n), axis=1)
    return eq, ConstraintFlags(ub, lower, upper)


def _run(C: PolyhedralSet, raw: RawRecord, name: str, g: np.ndarray, width: int) -> np.ndarray:
    """Run a routine of :mod:`hsref.sets.basis_rows` on the active rows of a record."""
    active, working = C._flags(raw.code, MASK_ACTIVE), C._flags(raw.code, MASK_WORKING)
    rows = np.where(working.ub, 2, active.ub)
    # Where both bounds are active the one that works counts, else the lower.
    upper = working.upper | (active.upper & ~working.lower & ~active.lower)
    lower = (active.lower | working.lower) & ~upper
    works = working.lower | working.upper
    bounds = (upper * np.int8(1) - lower) * (1 + works)
    return run_basis(
        name, g, width, raw.status == SOLVED, C._cached("rows [A_eq; A_ub]", lambda: _dense(C)),
        C._row_counts()[1], rows, bounds,
    )  # fmt: skip


def _dense(C: PolyhedralSet) -> np.ndarray:
    rows = C._polyhedron
    none = np.zeros((0, C.size))
    return np.concatenate([none if a is None else a for a in (rows.A_eq, rows.A_ub)])


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
