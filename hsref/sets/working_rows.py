r"""Arithmetic with the reduced rows of a polyhedron: Gram entries, combinations, slacks.

The equalities are taken out once, when a set is built: with Q an orthonormal basis of their row
space, every inequality c is replaced by its *reduced row*

.. math:: \hat c = (I - Q^T Q) c / \rho, \qquad \rho = \|(I - Q^T Q) c\|,

a unit vector along which the inequality moves a point that stays on the equalities. Rows of
``A_ub`` have row numbers 0..m-1, the bounds of coordinate j the row number m + j; a bound's reduced
row is never stored, only ``coord_inv[j]`` = 1 / rho (1 without equalities). ``gram`` holds the
products of every row with the m rows of A_ub, so its first m rows are a symmetric matrix and its
row m + j is column j of the reduced rows times ``coord_inv[j]``.

All loops over a long axis are contiguous, and sums over several rows take four rows at a time:
that halves the traffic and lets the compiler vectorise without horizontal sums.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .._jit import device_function


class RowData(NamedTuple):
    """Arrays of one polyhedron, shared by all samples, and one sample's bounds.

    Attributes
    ----------
    columns : (n, m)
        Rows of A_ub scaled to norm 1, transposed.
    reduced : (m, n)
        Their reduced rows; zero where the equalities imply the left-hand side.
    gram : (m, m) or (m + n, m)
        Products of the reduced rows; with the n bounds below when there are any.
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
        Rows of A_eq: those of the basis in its order, then the dependent ones.
    eq_inv : (p,)
        1 / norm of those rows, in that order.
    lower, upper : (n,)
        Bounds of this sample.
    bounded : int
        1 if the polyhedron has bounds.
    """

    columns: Any
    reduced: Any
    gram: Any
    row_inv: Any
    coord_inv: Any
    basis: Any
    eq_rows: Any
    eq_inverse: Any
    eq_ids: Any
    eq_inv: Any
    lower: Any
    upper: Any
    bounded: int


class Scratch(NamedTuple):
    """Working set and temporary vectors of one solve.

    Attributes
    ----------
    T : packed inverse factor of the working rows
    nu, sign : signed multipliers and +1 or -1 (-1: a lower bound)
    l, r, g, lost, weight : vectors over the working set
    s0, y0 : slacks and point at the start, on the equalities
    s, rhs : current slacks; right-hand sides of the normalised rows
    z : vector over the coordinates
    inner, rhs_eq : vectors over the equalities
    wanted_sign : signs of the rows asked for by a warm start
    ids, packed, wanted, ignored : row numbers; those of the working set come first
    certificate : signed numbers for rows of A_ub, rows of A_eq, coordinates
    most : largest possible size of a working set
    """

    T: Any
    nu: Any
    sign: Any
    l: Any
    r: Any
    g: Any
    lost: Any
    weight: Any
    s0: Any
    y0: Any
    s: Any
    rhs: Any
    z: Any
    inner: Any
    rhs_eq: Any
    wanted_sign: Any
    ids: Any
    packed: Any
    wanted: Any
    ignored: Any
    certificate: Any
    most: int


@device_function
def normalised_slacks(columns, y, rhs, out):
    """out = C y - rhs, columns = C'; writes out[0:m]."""
    n = columns.shape[0]
    m = columns.shape[1]
    for i in range(m):
        out[i] = -rhs[i]
    whole = n - n % 4
    for j in range(0, whole, 4):
        a = y[j]
        b = y[j + 1]
        c = y[j + 2]
        d = y[j + 3]
        for i in range(m):
            out[i] += (
                a * columns[j, i] + b * columns[j + 1, i]
                + c * columns[j + 2, i] + d * columns[j + 3, i]
            )  # fmt: skip
    for j in range(whole, n):
        a = y[j]
        for i in range(m):
            out[i] += a * columns[j, i]


@device_function
def subtract_rows(matrix, ids, coeff, k, out):
    """out -= sum over a < k of coeff[a] * matrix[ids[a]]."""
    n = matrix.shape[1]
    whole = k - k % 4
    for q in range(0, whole, 4):
        i = ids[q]
        j = ids[q + 1]
        s = ids[q + 2]
        t = ids[q + 3]
        a = coeff[q]
        b = coeff[q + 1]
        c = coeff[q + 2]
        d = coeff[q + 3]
        for col in range(n):
            out[col] -= (
                a * matrix[i, col] + b * matrix[j, col] + c * matrix[s, col] + d * matrix[t, col]
            )
    for q in range(whole, k):
        i = ids[q]
        a = coeff[q]
        for col in range(n):
            out[col] -= a * matrix[i, col]


@device_function
def remove_equality_part(basis, z, inner):
    """z -= Q' Q z; scratch inner[0:k_e]."""
    size = basis.shape[0]
    n = basis.shape[1]
    for e in range(size):
        total = 0.0
        for j in range(n):
            total += basis[e, j] * z[j]
        inner[e] = total
    for e in range(size):
        total = inner[e]
        for j in range(n):
            z[j] -= total * basis[e, j]


@device_function
def subtract_working(k, coeff, out, rows, at):
    """out -= sum over a < k of coeff[a] * (reduced row ids[a]); scratch weight, packed, inner.

    Rows of A_ub are gathered so that they are summed four at a time; bounds are unit vectors whose
    equality part is taken off once for all of them.
    """
    ids, basis, inner = at.ids, rows.basis, at.inner
    m = rows.reduced.shape[0]
    n = out.shape[0]
    count = 0
    for a in range(k):
        if ids[a] < m:
            at.packed[count] = ids[a]
            at.weight[count] = coeff[a]
            count += 1
    subtract_rows(rows.reduced, at.packed, at.weight, count, out)
    if count == k:
        return
    for e in range(basis.shape[0]):
        inner[e] = 0.0
    for a in range(k):
        if ids[a] >= m:
            j = ids[a] - m
            entry = coeff[a] * rows.coord_inv[j]
            out[j] -= entry
            for e in range(basis.shape[0]):
                inner[e] += entry * basis[e, j]
    for e in range(basis.shape[0]):
        entry = inner[e]
        for j in range(n):
            out[j] += entry * basis[e, j]


@device_function
def gram_column(row, k, ids, gram, basis, coord_inv, out):
    """out[a] = (reduced row ids[a]) . (reduced row `row`) for a < k."""
    m = gram.shape[1]
    for a in range(k):
        other = ids[a]
        if other < m:
            if row < m:
                out[a] = gram[other, row]
            else:
                out[a] = gram[row, other]
        elif row < m:
            out[a] = gram[other, row]
        else:
            total = 1.0 if other == row else 0.0
            for e in range(basis.shape[0]):
                total -= basis[e, row - m] * basis[e, other - m]
            out[a] = total * coord_inv[row - m] * coord_inv[other - m]


@device_function
def load_row(row, rows, basis, coord_inv, out):
    """out = reduced row `row`, dense."""
    m = rows.shape[0]
    n = out.shape[0]
    if row < m:
        for j in range(n):
            out[j] = rows[row, j]
        return
    scale = coord_inv[row - m]
    for j in range(n):
        out[j] = 0.0
    for e in range(basis.shape[0]):
        entry = scale * basis[e, row - m]
        for j in range(n):
            out[j] -= entry * basis[e, j]
    out[row - m] += scale


@device_function
def products_with_working(k, ids, rows, coord_inv, z, out):
    """out[a] = (reduced row ids[a]) . z for a < k, where z has no equality part."""
    m = rows.shape[0]
    for a in range(k):
        row = ids[a]
        if row < m:
            total = 0.0
            for j in range(z.shape[0]):
                total += rows[row, j] * z[j]
            out[a] = total
        else:
            out[a] = z[row - m] * coord_inv[row - m]
