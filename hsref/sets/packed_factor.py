r"""The packed inverse factor of a growing and shrinking set of rows.

Let M hold k independent rows. Gram-Schmidt on them in order gives orthonormal rows

.. math:: Q = T M, \qquad T \text{ lower triangular with positive diagonal},

so that T = L^{-1} for the Cholesky factor L of :math:`M M^T`, and
:math:`(M M^T)^{-1} = T^T T`. T is kept instead of L because both halves of a solve are then
matrix-vector products, whose entries do not wait for each other as those of a triangular solve do;
at the sizes met here (k up to a few dozen) that is worth a factor of two.

Storage: row i of T has i + 1 entries and starts at i (i + 1) / 2, so the leading part of the array
is the factor of the leading rows, and a record needs k (k + 1) / 2 numbers.

All routines are device functions over caller-owned arrays; indices are positions in the working
set, never row numbers of the polyhedron.
"""

from __future__ import annotations

import math

from .._jit import device_function

FLAT_FACTOR = 30.0
"""Largest diagonal entry of T up to which one application of V is orthogonal to round-off."""


@device_function
def factor_times(T, k, g, out):
    """out = T g; writes out[0:k]."""
    at = 0
    for i in range(k):
        total = 0.0
        for j in range(i + 1):
            total += T[at + j] * g[j]
        out[i] = total
        at += i + 1


@device_function
def factor_transpose_times(T, k, g, out):
    """out = T' g; writes out[0:k], which must not be g.

    Four rows at a time: the loads and stores of ``out`` cost more than the products.
    """
    for j in range(k):
        out[j] = 0.0
    at = 0
    whole = k - k % 4
    for i in range(0, whole, 4):
        first = T[at : at + i + 1]
        second = T[at + i + 1 : at + 2 * i + 3]
        third = T[at + 2 * i + 3 : at + 3 * i + 6]
        fourth = T[at + 3 * i + 6 : at + 4 * i + 10]
        a = g[i]
        b = g[i + 1]
        c = g[i + 2]
        d = g[i + 3]
        for j in range(i + 1):
            out[j] += a * first[j] + b * second[j] + c * third[j] + d * fourth[j]
        out[i + 1] = b * second[i + 1] + c * third[i + 1] + d * fourth[i + 1]
        out[i + 2] = c * third[i + 2] + d * fourth[i + 2]
        out[i + 3] = d * fourth[i + 3]
        at += 4 * i + 10
    for i in range(whole, k):
        weight = g[i]
        for j in range(i + 1):
            out[j] += T[at + j] * weight
        at += i + 1


@device_function
def cholesky(T, begin, k, pivot_tol):
    """Replace rows begin..k-1 of a packed matrix by those of its Cholesky factor L.

    The rows before must be those of L. Returns the first row without a pivot, k if there is none.
    Four rows of L at a time, so that a row is loaded once for four dot products.
    """
    at = begin * (begin + 1) // 2
    for i in range(begin, k):
        row = T[at : at + i + 1]
        whole = i - i % 4
        for j in range(0, whole, 4):
            first = T[j * (j + 1) // 2 : j * (j + 1) // 2 + j + 1]
            second = T[(j + 1) * (j + 2) // 2 : (j + 1) * (j + 2) // 2 + j + 2]
            third = T[(j + 2) * (j + 3) // 2 : (j + 2) * (j + 3) // 2 + j + 3]
            fourth = T[(j + 3) * (j + 4) // 2 : (j + 3) * (j + 4) // 2 + j + 4]
            a = 0.0
            b = 0.0
            c = 0.0
            d = 0.0
            for q in range(j):
                a += row[q] * first[q]
                b += row[q] * second[q]
                c += row[q] * third[q]
                d += row[q] * fourth[q]
            a = (row[j] - a) / first[j]
            b = (row[j + 1] - b - a * second[j]) / second[j + 1]
            c = (row[j + 2] - c - a * third[j] - b * third[j + 1]) / third[j + 2]
            d = row[j + 3] - d - a * fourth[j] - b * fourth[j + 1] - c * fourth[j + 2]
            row[j] = a
            row[j + 1] = b
            row[j + 2] = c
            row[j + 3] = d / fourth[j + 3]
        for j in range(whole, i):
            behind = j * (j + 1) // 2
            total = row[j]
            for q in range(j):
                total -= row[q] * T[behind + q]
            row[j] = total / T[behind + j]
        pivot = row[i]
        own = pivot
        for q in range(i):
            pivot -= row[q] * row[q]
        if not (pivot > pivot_tol * own):
            return i
        row[i] = math.sqrt(pivot)
        at += i + 1
    return k


@device_function
def cholesky_solve(T, k, v):
    """v = (L L')^{-1} v for the packed factor L."""
    at = 0
    for i in range(k):
        total = v[i]
        for j in range(i):
            total -= T[at + j] * v[j]
        v[i] = total / T[at + i]
        at += i + 1
    for i in range(k - 1, -1, -1):
        at -= i + 1
        v[i] /= T[at + i]
        value = v[i]
        for j in range(i):
            v[j] -= T[at + j] * value


@device_function
def invert_factor(T, k, row, r):
    """Replace the packed factor L by T = L^{-1}; scratch row[0:k], r[0:k]."""
    at = 0
    for i in range(k):
        for j in range(i):
            row[j] = T[at + j]
        norm = T[at + i]
        factor_transpose_times(T, i, row, r)
        factor_append(T, i, r, norm)
        at += i + 1


@device_function
def factor_append(T, k, r, norm):
    """Append a row c with r = (M M')^{-1} M c and norm = |c - M' r| > 0; writes row k of T."""
    at = k * (k + 1) // 2
    scale = 1.0 / norm
    for j in range(k):
        T[at + j] = -r[j] * scale
    T[at + k] = scale


@device_function
def factor_delete(T, k, gone, coeff, lost):
    """Remove row `gone` of M from T, and from coeff = T g; returns the lost coefficient.

    Plane rotations push the part of the basis that needs row `gone` into one direction, which is
    dropped. On return ``lost[0:k]`` holds that direction in terms of the k old rows and the value
    returned is its product with the vector that coeff belongs to. With r = T' coeff, dropping
    leaves r - lost * value (in old positions). Writes T, coeff[0:k-1], lost.
    """
    at = gone * (gone + 1) // 2
    for j in range(gone + 1):
        lost[j] = T[at + j]
    value = coeff[gone]
    to = at
    at += gone + 1
    for i in range(gone + 1, k):
        old = T[at : at + i + 1]
        new = T[to : to + i]
        mine = old[gone]
        other = lost[gone]
        radius = math.sqrt(mine * mine + other * other)
        cosine = other / radius
        sine = mine / radius
        for j in range(gone):
            entry = old[j]
            new[j] = cosine * entry - sine * lost[j]
            lost[j] = sine * entry + cosine * lost[j]
        lost[gone] = radius
        for j in range(gone + 1, i):
            entry = old[j]
            new[j - 1] = cosine * entry - sine * lost[j]
            lost[j] = sine * entry + cosine * lost[j]
        new[i - 1] = cosine * old[i]
        lost[i] = sine * old[i]
        entry = coeff[i]
        coeff[i - 1] = cosine * entry - sine * value
        value = sine * entry + cosine * value
        to += i
        at += i + 1
    return value
