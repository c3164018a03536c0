r"""What is computed once for the rows of a polyhedron, and shared by all samples.

Rows are scaled to norm 1. Pivoted Gram-Schmidt finds independent equality rows B and an orthonormal
basis Q of their span, with :math:`B = L Q`. The part of every inequality that the equalities leave
free, scaled to norm 1 again, is its reduced row; where nothing is left the inequality is *implied*:
its left-hand side is a fixed combination of the right-hand sides of B.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import scipy.sparse as sp

from .sparse_rows import SparseRows
from .sparse_rows import make_layout as make_sparse_layout
from .working_set import PIVOT_TOL, make_layout

if TYPE_CHECKING:
    from .polyhedron import Polyhedron


DENSE_SWEEPS, SPARSE_SWEEPS = 8, 2
"""Dual sweeps before Newton's method, for rows that are mostly filled and for others."""

BLOCK_ROWS, BLOCK_SWEEPS = 48, 16
"""Inequalities from which on the block active set pays, and the sweeps before it."""
CROWD = 1.25
"""Inequalities for each dimension that the equalities leave, up to which it is tried."""
SMALLEST = float(np.finfo(np.float64).tiny)
"""Smallest norm of a row: smaller ones are not normal numbers, and their inverse may overflow."""
PARALLEL_TOL = 1e-6


class Reduction(NamedTuple):
    """What the solver needs to know of the rows: the arrays that all samples share, in this order.

    Attributes
    ----------
    layout : (30,)
        Sizes and places of scratch vectors; see :mod:`hsref.sets.working_set`.
    columns : (n, m)
        Rows of A_ub scaled to norm 1, transposed.
    reduced : (m, n)
        Their reduced rows; zero where the equalities imply the left-hand side.
    gram : (m, m) or (m + n, m)
        Products of the reduced rows; with the coordinates below if there are bounds.
    row_inv : (2, m)
        1 / norm of the row as given; 1 / rho (0 for implied rows).
    coord_inv : (n,)
        1 / rho of each coordinate (0 for coordinates fixed by the equalities).
    basis : (k_e, n)
        Q, orthonormal rows.
    eq_rows : (k_e, n)
        Independent equality rows B, scaled to norm 1.
    eq_inverse : (k_e, k_e)
        The lower triangular matrix with Q = eq_inverse B.
    eq_ids : (p,)
        Constraint numbers of the rows of A_eq: the basis in its order, then the dependent ones.
    eq_inv : (p,)
        1 / norm of those rows, in that order.
    implied, implied_inv : (t,)
        Constraints whose left-hand side the equalities fix (rows of A_ub, then m + row of A_eq,
        then m + p + coordinate), and 1 / norm of their rows as given.
    combos : (t, k_e)
        Those left-hand sides, scaled to norm 1, as combinations of the rows of B.
    """

    layout: np.ndarray
    columns: np.ndarray
    reduced: np.ndarray
    gram: np.ndarray
    row_inv: np.ndarray
    coord_inv: np.ndarray
    basis: np.ndarray
    eq_rows: np.ndarray
    eq_inverse: np.ndarray
    eq_ids: np.ndarray
    eq_inv: np.ndarray
    implied: np.ndarray
    combos: np.ndarray
    implied_inv: np.ndarray


def reduce_rows(C: Polyhedron) -> Reduction:
    """Scale rows, find a basis of the equalities, and take it out of the inequalities."""
    n = C.size
    bounded = C.lower is not None or C.upper is not None
    rows, row_norm = unit_rows(C.A_ub, n)
    eq, eq_norm = unit_rows(C.A_eq, n)
    m, p = len(rows), len(eq)
    chosen, basis = orthonormal_basis(eq)
    others = np.setdiff1d(np.arange(p), chosen)
    eq_ids = np.concatenate([chosen, others]).astype(np.int64)
    lower_factor = product(eq[chosen], basis.T)
    eq_inverse = inverse_of_lower(lower_factor)
    reduced, distance = off_basis(basis, rows)
    units, coord_distance = off_basis(basis, np.eye(n)) if bounded else (None, np.zeros(0))
    free = distance > PIVOT_TOL
    coord_free = coord_distance > PIVOT_TOL
    implied_rows, implied_coords = np.flatnonzero(~free), np.flatnonzero(~coord_free)
    implied = np.concatenate([implied_rows, m + others, m + p + implied_coords]).astype(np.int64)
    fixed = np.concatenate([rows[implied_rows], eq[others], np.eye(n)[implied_coords]])
    reduced[~free] = 0.0
    coord_inv = np.divide(1.0, coord_distance, out=np.zeros_like(coord_distance), where=coord_free)
    gram = product(reduced, reduced.T)
    if bounded:
        gram = np.vstack([gram, (reduced * coord_inv).T])
    row_inv = np.zeros((2, m))
    row_inv[0] = 1.0 / row_norm
    row_inv[1, free] = 1.0 / distance[free]
    most = min(n - len(chosen), int(free.sum()) + int(coord_free.sum()))
    block = not bounded and m >= BLOCK_ROWS
    if block:
        block = in_general_position(gram[np.ix_(free, free)], n - len(chosen))
    parts = Reduction(
        layout=make_layout(bounded, most, m, p, n, len(chosen), BLOCK_SWEEPS if block else 0),
        columns=rows.T,
        reduced=reduced,
        gram=gram,
        row_inv=row_inv,
        coord_inv=coord_inv if bounded else np.ones(n),
        basis=basis,
        eq_rows=eq[chosen],
        eq_inverse=eq_inverse,
        eq_ids=m + eq_ids,
        eq_inv=1.0 / eq_norm[eq_ids],
        implied=implied,
        combos=product(product(fixed, basis.T), eq_inverse),
        implied_inv=np.concatenate(
            [1.0 / row_norm[implied_rows], 1.0 / eq_norm[others], np.ones(len(implied_coords))]
        ),
    )
    return Reduction(*(np.ascontiguousarray(part) for part in parts))


def sparse_rows(C: Polyhedron) -> SparseRows:
    """Scale rows, keep a basis of the equalities and the inequalities it does not imply."""
    n = C.size
    rows, row_norm = unit_rows(C.A_ub, n)
    eq, eq_norm = unit_rows(C.A_eq, n)
    m, p = len(rows), len(eq)
    chosen, basis = orthonormal_basis(eq)
    others = np.setdiff1d(np.arange(p), chosen)
    eq_inverse = inverse_of_lower(product(eq[chosen], basis.T))
    free = off_basis(basis, rows)[1] > PIVOT_TOL
    kept_rows, implied_rows = np.flatnonzero(free), np.flatnonzero(~free)
    kept = np.concatenate([rows[kept_rows], eq[chosen]])
    by_row, by_column = sp.csr_array(kept), sp.csc_array(kept)
    fixed = np.concatenate([rows[implied_rows], eq[others]])
    r, q = len(kept), len(kept_rows)
    dense = by_row.nnz > 0.5 * r * n and r > 1
    parts = SparseRows(
        layout=make_sparse_layout(m, p, n, r, q, DENSE_SWEEPS if dense else SPARSE_SWEEPS),
        row_at=by_row.indptr.astype(np.int64),
        row_col=by_row.indices.astype(np.int64),
        row_val=by_row.data,
        col_at=by_column.indptr.astype(np.int64),
        col_row=by_column.indices.astype(np.int64),
        col_val=by_column.data,
        ids=np.concatenate([kept_rows, m + chosen]).astype(np.int64),
        inv=np.concatenate([1.0 / row_norm[kept_rows], 1.0 / eq_norm[chosen]]),
        implied=np.concatenate([implied_rows, m + others]).astype(np.int64),
        implied_inv=np.concatenate([1.0 / row_norm[implied_rows], 1.0 / eq_norm[others]]),
        combos=product(product(fixed, basis.T), eq_inverse),
    )
    return SparseRows(*(np.ascontiguousarray(part) for part in parts))


def in_general_position(gram: np.ndarray, dimension: int) -> bool:
    """Tell whether unit rows are such that sets of working rows are likely independent.

    Not too many for their dimension, and no two of them parallel: a block active set that meets
    dependent rows is given up, so this decides about time and nothing else.
    """
    apart = np.abs(gram - np.eye(len(gram))).max(initial=0.0) < 1.0 - PARALLEL_TOL
    return bool(len(gram) <= CROWD * dimension and apart)


def unit_rows(matrix: np.ndarray | None, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of norm 1 and the norms; a zero row stays zero and has norm 1."""
    if matrix is None:
        return np.zeros((0, n)), np.zeros(0)
    # Squares of entries beyond 1e154 would overflow.
    largest = np.max(np.abs(matrix), axis=1, initial=0.0)
    largest[largest == 0.0] = 1.0
    scaled = matrix / largest[:, None]
    norm = np.linalg.norm(scaled, axis=1)
    norm[norm == 0.0] = 1.0
    with np.errstate(over="ignore"):
        return scaled / norm[:, None], largest * norm


def check_row_sizes(matrix: np.ndarray | None, name: str) -> None:
    """Raise a sentence for a row so small or large that the inverse of its norm is no number."""
    if matrix is None:
        return
    norm = unit_rows(matrix, matrix.shape[1])[1]
    bad = np.flatnonzero((norm < SMALLEST) | (norm > 1.0 / SMALLEST))
    if bad.size:
        raise ValueError(
            f"row {int(bad[0])} of {name} must be zero or of a norm from {SMALLEST:g} to "
            f"{1.0 / SMALLEST:g}; it is {norm[bad[0]]:g}. Multiply the row and its right-hand side "
            "by the same number."
        )


def orthonormal_basis(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of independent rows, and an orthonormal basis of their span, in step.

    Gram-Schmidt takes the row farthest from the span so far, so that those left out are the most
    dependent ones; each new vector is orthogonalised twice.
    """
    left = rows.copy()
    chosen: list[int] = []
    basis = np.zeros((0, rows.shape[1]))
    while len(chosen) < min(rows.shape):
        norms = np.linalg.norm(left, axis=1)
        i = int(np.argmax(norms))
        if norms[i] <= PIVOT_TOL:
            break
        new = left[i] / norms[i]
        for _ in range(2):
            new -= product(basis.T, product(basis, new[:, None]))[:, 0]
            new /= np.sqrt(np.sum(new * new))
        chosen.append(i)
        basis = np.vstack([basis, new])
        left -= product(left, new[:, None]) * new
        left[chosen] = 0.0
    return np.array(chosen, np.int64), basis


def off_basis(basis: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the parts of unit rows orthogonal to the basis, scaled to norm 1, and their norms."""
    part = rows
    for _ in range(2):
        part = part - product(product(part, basis.T), basis)
    distance = np.linalg.norm(part, axis=1)
    part = part / np.where(distance > PIVOT_TOL, distance, 1.0)[:, None]
    if len(basis):
        # Scaling up a short remainder scales up what rounding left of the basis in it.
        part = part - product(product(part, basis.T), basis)
        norm = np.linalg.norm(part, axis=1)
        part = part / np.where(norm > 0.0, norm, 1.0)[:, None]
    return part, distance


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the matrix product, summed in one fixed order.

    BLAS may split a sum over its threads, so that a set built in another process, or while
    threads are limited, would differ in its last bits, and every projection onto it too.
    """
    return np.einsum("ij,jk->ik", a, b)


def inverse_of_lower(lower: np.ndarray) -> np.ndarray:
    """Return the inverse of a lower triangular matrix by forward substitution."""
    inverse = np.zeros_like(lower)
    for i in range(len(lower)):
        inverse[i, i] = 1.0
        inverse[i] -= product(lower[i : i + 1, :i], inverse[:i])[0]
        inverse[i] /= lower[i, i]
    return inverse
