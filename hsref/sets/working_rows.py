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

from .._jit import device_function


@device_function
def normalised_slacks(columns, y, rhs, out):
    """out = C y - rhs, columns = C'; writes out[0:m]."""
    m = columns.shape[1]
    for i in range(m):
        out[i] = rhs[i]
    subtract_combination(columns, y, out)
    for i in range(m):
        out[i] = -out[i]


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
def row_products(matrix, ids, k, z, out):
    """out[a] = matrix[ids[a]] . z for a < k."""
    n = matrix.shape[1]
    whole = k - k % 4
    for q in range(0, whole, 4):
        i = ids[q]
        j = ids[q + 1]
        s = ids[q + 2]
        t = ids[q + 3]
        a = 0.0
        b = 0.0
        c = 0.0
        d = 0.0
        for col in range(n):
            a += matrix[i, col] * z[col]
            b += matrix[j, col] * z[col]
            c += matrix[s, col] * z[col]
            d += matrix[t, col] * z[col]
        out[q] = a
        out[q + 1] = b
        out[q + 2] = c
        out[q + 3] = d
    for q in range(whole, k):
        i = ids[q]
        a = 0.0
        for col in range(n):
            a += matrix[i, col] * z[col]
        out[q] = a


@device_function
def matrix_times(matrix, z, out):
    """out = matrix z."""
    k = matrix.shape[0]
    n = matrix.shape[1]
    whole = k - k % 4
    for q in range(0, whole, 4):
        a = 0.0
        b = 0.0
        c = 0.0
        d = 0.0
        for col in range(n):
            a += matrix[q, col] * z[col]
            b += matrix[q + 1, col] * z[col]
            c += matrix[q + 2, col] * z[col]
            d += matrix[q + 3, col] * z[col]
        out[q] = a
        out[q + 1] = b
        out[q + 2] = c
        out[q + 3] = d
    for q in range(whole, k):
        a = 0.0
        for col in range(n):
            a += matrix[q, col] * z[col]
        out[q] = a


@device_function
def subtract_combination(matrix, coeff, out):
    """out -= matrix' coeff."""
    k = matrix.shape[0]
    n = matrix.shape[1]
    whole = k - k % 4
    for q in range(0, whole, 4):
        a = coeff[q]
        b = coeff[q + 1]
        c = coeff[q + 2]
        d = coeff[q + 3]
        for col in range(n):
            out[col] -= (
                a * matrix[q, col] + b * matrix[q + 1, col]
                + c * matrix[q + 2, col] + d * matrix[q + 3, col]
            )  # fmt: skip
    for q in range(whole, k):
        a = coeff[q]
        for col in range(n):
            out[col] -= a * matrix[q, col]


@device_function
def remove_equality_part(basis, z, inner):
    """z -= Q' Q z; scratch inner[0:k_e]."""
    matrix_times(basis, z, inner)
    subtract_combination(basis, inner, z)


@device_function
def subtract_working(k, ids, coeff, out, reduced, coord_inv, basis, packed, weight, inner):
    """out -= sum over a < k of coeff[a] * (reduced row ids[a]).

    Rows of A_ub are gathered so that they are summed four at a time; bounds are unit vectors whose
    equality part is taken off once for all of them. Scratch packed, weight[0:k], inner[0:k_e].
    """
    m = reduced.shape[0]
    # Not a literal 0: Numba would compile callees anew for a literal integer.
    count = k - k
    for a in range(k):
        if ids[a] < m:
            packed[count] = ids[a]
            weight[count] = coeff[a]
            count += 1
    subtract_rows(reduced, packed, weight, count, out)
    if count == k:
        return
    for e in range(basis.shape[0]):
        inner[e] = 0.0
    for a in range(k):
        if ids[a] >= m:
            j = ids[a] - m
            entry = coeff[a] * coord_inv[j]
            out[j] -= entry
            for e in range(basis.shape[0]):
                inner[e] -= entry * basis[e, j]
    subtract_combination(basis, inner, out)


@device_function
def gram_column(row, k, ids, gram, basis, coord_inv, out):
    """out[a] = (reduced row ids[a]) . (reduced row `row`) for a < k."""
    m = gram.shape[1]
    for a in range(k):
        other = ids[a]
        if other < m:
            out[a] = gram[row, other]
        elif row < m:
            out[a] = gram[other, row]
        else:
            total = 1.0 if other == row else 0.0
            for e in range(basis.shape[0]):
                total -= basis[e, row - m] * basis[e, other - m]
            out[a] = total * coord_inv[row - m] * coord_inv[other - m]


@device_function
def load_row(row, reduced, basis, coord_inv, out):
    """out = reduced row `row`, dense."""
    m = reduced.shape[0]
    n = reduced.shape[1]
    if row < m:
        for j in range(n):
            out[j] = reduced[row, j]
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
def products_with_working(k, ids, reduced, coord_inv, z, out):
    """out[a] = (reduced row ids[a]) . z for a < k, where z has no equality part."""
    m = reduced.shape[0]
    for a in range(k):
        row = ids[a]
        if row < m:
            total = 0.0
            for j in range(reduced.shape[1]):
                total += reduced[row, j] * z[j]
            out[a] = total
        else:
            out[a] = z[row - m] * coord_inv[row - m]
