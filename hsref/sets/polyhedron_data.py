r"""Derivatives of the general polyhedron in its right-hand sides and bounds, from the record.

The rows K used are those of the tape: the working set, extended to a basis of the active rows, and
the basis B of the equalities. With Q = L^{-1} B orthonormal, C_K the unit rows of K, rho the norms
of what the equalities leave of them, :math:`\hat C` the reduced rows and T their factor (T times
:math:`\hat C` has orthonormal rows), a point on all of these rows obeys

.. math:: Q y = L^{-1} b, \qquad \hat C y = (c - C_K Q^T L^{-1} b) / \rho ,

so that the shortest change of y for changes db, dc of the right-hand sides is

.. math:: dy = Q^T e + \hat C^T T^T T\, (dc - C_K Q^T e) / \rho, \qquad e = L^{-1} db .

:func:`polyhedron_push` computes this and :func:`polyhedron_pull` its transpose. Both have the
layout of the data row: ``b_ub``, ``b_eq``, ``lower``, ``upper``. Rows outside K get 0. Cost
k (2 n + k) + 4 n k_e, as for an HS product.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._batch import RawRecord, readonly
from .._codes import SOLVED
from .._jit import DeviceFunction, device_function, specialise
from .._scratch import scratch
from .._threads import run_chunks
from .packed_factor import FLAT_FACTOR, factor_times, factor_transpose_times
from .working_rows import (
    matrix_times,
    remove_equality_part,
    row_products,
    subtract_combination,
    subtract_rows,
)
from .working_set import SIZE


@device_function
def reduced_products(k, h, shared, tape_i, c, packed, weight):
    """c = (reduced rows of the tape) h, for h without equality part; returns nothing."""
    reduced, coord_inv = shared[2], shared[5]
    m = reduced.shape[0]
    n = reduced.shape[1]
    skip = m + shared[9].shape[0]
    # Not a literal 0: Numba would compile callees anew for a literal integer.
    count = k - k
    for a in range(k):
        if tape_i[3 + a] < m:
            packed[count] = tape_i[3 + a]
            count += 1
    row_products(reduced, packed, count, h, weight)
    count = k - k
    for a in range(k):
        i = tape_i[3 + a]
        if i < m:
            c[a] = weight[count]
            count += 1
        else:
            j = (i - skip) % n
            c[a] = h[j] * coord_inv[j]


@device_function
def subtract_reduced(k, c, h, shared, tape_i, packed, weight, inner):
    """h -= (reduced rows of the tape)' c."""
    reduced, coord_inv, basis = shared[2], shared[5], shared[6]
    m = reduced.shape[0]
    n = reduced.shape[1]
    skip = m + shared[9].shape[0]
    count = k - k
    for a in range(k):
        i = tape_i[3 + a]
        if i < m:
            packed[count] = i
            weight[count] = c[a]
            count += 1
        else:
            j = (i - skip) % n
            h[j] -= c[a] * coord_inv[j]
    subtract_rows(reduced, packed, weight, count, h)
    remove_equality_part(basis, h, inner)


@device_function
def steepest_of(k, T):
    """Return the largest diagonal entry of the packed factor."""
    steepest = 0.0
    for a in range(k):
        steepest = max(steepest, T[a * (a + 1) // 2 + a])
    return steepest


@device_function
def polyhedron_pull(g, tape_f, tape_i, shared, out, work, iwork):
    """out = (M^+)' g in the layout of the data row; scratch 6 n + 2 k_e floats, n integers."""
    columns, row_inv, coord_inv = shared[1], shared[4], shared[5]
    basis, eq_inverse, eq_ids, eq_inv = shared[6], shared[8], shared[9], shared[10]
    n = columns.shape[0]
    m = columns.shape[1]
    p = eq_ids.shape[0]
    k_e = basis.shape[0]
    k = tape_i[2]
    h, c, v = work[0:n], work[n : 2 * n], work[2 * n : 3 * n]
    weight, u, s = work[3 * n : 4 * n], work[4 * n : 5 * n], work[5 * n : 6 * n]
    inner, e = work[6 * n : 6 * n + k_e], work[6 * n + k_e : 6 * n + 2 * k_e]
    for i in range(out.shape[0]):
        out[i] = 0.0
    for j in range(n):
        h[j] = g[j]
        s[j] = g[j]
    for a in range(k):
        u[a] = 0.0
    remove_equality_part(basis, h, inner)
    steepest = steepest_of(k, tape_f)
    while k > 0:
        reduced_products(k, h, shared, tape_i, c, iwork, weight)
        factor_times(tape_f, k, c, v)
        factor_transpose_times(tape_f, k, v, c)
        for a in range(k):
            u[a] += c[a]
        # As in the HS product: each pass shrinks what the condition of the rows left over.
        if steepest <= FLAT_FACTOR:
            break
        steepest *= 0.01
        subtract_reduced(k, c, h, shared, tape_i, iwork, weight, inner)
    for a in range(k):
        i = tape_i[3 + a]
        if i < m:
            value = u[a] * row_inv[1, i]
            out[i] = value * row_inv[0, i]
            if k_e > 0:
                for j in range(n):
                    s[j] -= value * columns[j, i]
        else:
            j = (i - m - p) % n
            value = u[a] * coord_inv[j]
            out[i] = value
            s[j] -= value
    matrix_times(basis, s, inner)
    for q in range(k_e):
        e[q] = 0.0
    for q in range(k_e):
        for r in range(q + 1):
            e[r] += eq_inverse[q, r] * inner[q]
    for q in range(k_e):
        out[eq_ids[q]] = e[q] * eq_inv[q]


@device_function
def polyhedron_push(g, tape_f, tape_i, shared, out, work, iwork):
    """out = M^+ g, g in the layout of the data row; the same scratch."""
    columns, row_inv, coord_inv = shared[1], shared[4], shared[5]
    basis, eq_inverse, eq_ids, eq_inv = shared[6], shared[8], shared[9], shared[10]
    n = columns.shape[0]
    m = columns.shape[1]
    p = eq_ids.shape[0]
    k_e = basis.shape[0]
    k = tape_i[2]
    h, c, v = work[0:n], work[n : 2 * n], work[2 * n : 3 * n]
    weight, rhs, got = work[3 * n : 4 * n], work[4 * n : 5 * n], work[5 * n : 6 * n]
    inner, e = work[6 * n : 6 * n + k_e], work[6 * n + k_e : 6 * n + 2 * k_e]
    for q in range(k_e):
        total = 0.0
        for r in range(q + 1):
            total -= eq_inverse[q, r] * g[eq_ids[r]] * eq_inv[r]
        e[q] = total
    for j in range(n):
        out[j] = 0.0
        h[j] = 0.0
    subtract_combination(basis, e, out)
    for a in range(k):
        i = tape_i[3 + a]
        if i < m:
            total = g[i] * row_inv[0, i]
            if k_e > 0:
                for j in range(n):
                    total -= columns[j, i] * out[j]
            rhs[a] = total * row_inv[1, i]
        else:
            j = (i - m - p) % n
            rhs[a] = (g[i] - out[j]) * coord_inv[j]
        c[a] = rhs[a]
    steepest = steepest_of(k, tape_f)
    while k > 0:
        factor_times(tape_f, k, c, v)
        factor_transpose_times(tape_f, k, v, c)
        subtract_reduced(k, c, h, shared, tape_i, iwork, weight, inner)
        if steepest <= FLAT_FACTOR:
            break
        steepest *= 0.01
        # h is minus the change so far.
        reduced_products(k, h, shared, tape_i, got, iwork, weight)
        for a in range(k):
            c[a] = rhs[a] + got[a]
    for j in range(n):
        out[j] -= h[j]
    for a in range(k):
        # The bounds of K hold exactly.
        i = tape_i[3 + a]
        if i >= m:
            out[(i - m - p) % n] = g[i]


@device_function
def rhs_point(g, tape_f, tape_i, shared, out, work, iwork):
    """Stand for one of the two routines; replaced when the driver is specialised."""


def rhs_batch(
    g, status, tape_f, tape_i, at_f, at_i, shared, out, gw, ow, work, iwork, begin, end
):  # fmt: skip
    """Treat rows begin..end-1 of ``g``; row t belongs to sample t modulo the batch."""
    samples = status.shape[0]
    for t in range(begin, end):
        i = t % samples
        for j in range(out.shape[1]):
            out[t, j] = 0.0
        # A sample that was not solved has no derivative.
        if status[i] == SOLVED:
            for j in range(g.shape[1]):
                gw[j] = g[t, j]
            rhs_point(
                gw, tape_f[at_f[i] : at_f[i + 1]], tape_i[at_i[i] : at_i[i + 1]], shared, ow,
                work, iwork,
            )  # fmt: skip
            for j in range(out.shape[1]):
                out[t, j] = ow[j]


PULL: DeviceFunction = specialise(rhs_batch, "pull", rhs_point=polyhedron_pull)
PUSH: DeviceFunction = specialise(rhs_batch, "push", rhs_point=polyhedron_push)


def run_rhs(
    driver: DeviceFunction,
    shared: tuple[np.ndarray, ...],
    raw: RawRecord,
    g: np.ndarray,
    width: int,
    cost: float,
) -> np.ndarray:
    """Apply PULL or PUSH to the rows of ``g``, shape (R * B, ...); returns (R * B, width)."""
    rows = len(g)
    out = np.empty((rows, width))
    layout = shared[0]
    n, k_e = int(layout[SIZE]), len(shared[6])
    read: list[Any] = [
        readonly(np.ascontiguousarray(a))
        for a in (g, raw.status, raw.tape_f, raw.tape_i, raw.at_f, raw.at_i)
    ]

    def chunk(begin: int, end: int) -> None:
        own = scratch((g.shape[1], float), (width, float), (6 * n + 2 * k_e, float), (n, np.int32))
        driver.cpu(*read, shared, out, *own, begin, end)

    run_chunks(chunk, rows, cost, None)
    return out
