r"""Independent rows among the free coordinates: factor, combinations, and the null space.

For a set F of free coordinates and a list of rows, the factor T of :mod:`hsref.sets.packed_factor`
is built from the normal matrix H = C_F C_F', row by row: with M the factored rows on F, a new row c
has the combination r = (M M')^{-1} M c and the squared distance |c - M' r|^2 from their span. Where
that distance is small it is not taken from H, in which it cancels, but from the row itself,
orthogonalised twice; a row whose distance is rounding is *dependent* and left out.

With the unit rows of the coordinates outside F, the factored rows are independent: this is what the
three selections of the HS-Jacobian are made of.
"""

from __future__ import annotations

import math

from .._jit import device_function
from .packed_factor import factor_append, factor_times, factor_transpose_times
from .sparse_rows import (
    ALONG,
    BASE,
    COMBO,
    IN_SET,
    INEQS,
    INTS,
    LIST,
    LOST,
    LOW,
    OTHER,
    SIDE,
    STATE,
    H,
    T,
    Z,
)
from .working_set import PIVOT_TOL

GRAM_PIVOT = 1e-4
"""Squared distances below this part of the row's own are computed from the row itself."""


@device_function
def take_off_rows(k, out, lay, shared, work, iwork):
    """out_F -= C_F' r for the factored rows, r in ``combo``."""
    row_at, row_col, row_val = shared[1], shared[2], shared[3]
    r, base = work[lay[COMBO] : lay[LOST]], iwork[lay[BASE] : lay[LIST]]
    state = iwork[lay[STATE] : lay[INTS]]
    for a in range(k):
        if r[a] != 0.0:
            for e in range(row_at[base[a]], row_at[base[a] + 1]):
                j = row_col[e]
                if state[j] == 0:
                    out[j] -= r[a] * row_val[e]


@device_function
def combination(i, k, at, lay, shared, work, iwork):
    """Write r into ``combo`` for row i, factor at work[at:]; returns the squared distance."""
    row_at, row_col, row_val = shared[1], shared[2], shared[3]
    factor, normal = work[at : lay[H]], work[lay[H] : lay[SIDE]]
    along, r, lost = (
        work[lay[ALONG] : lay[COMBO]],
        work[lay[COMBO] : lay[LOST]],
        work[lay[LOST] : lay[OTHER]],
    )
    g, z = work[lay[OTHER] : lay[T]], work[lay[Z] : lay[LOW]]
    base, state = iwork[lay[BASE] : lay[LIST]], iwork[lay[STATE] : lay[INTS]]
    size = r.shape[0]
    own = normal[i * size + i]
    square = own
    for a in range(k):
        g[a] = normal[max(i, base[a]) * size + min(i, base[a])]
    factor_times(factor, k, g, along)
    factor_transpose_times(factor, k, along, r)
    for a in range(k):
        square -= along[a] * along[a]
    if square > GRAM_PIVOT * own or own <= PIVOT_TOL * PIVOT_TOL:
        return square
    for j in range(z.shape[0]):
        z[j] = 0.0
    for e in range(row_at[i], row_at[i + 1]):
        if state[row_col[e]] == 0:
            z[row_col[e]] = row_val[e]
    before = own
    for a in range(k):
        lost[a] = r[a]
    for trial in range(4):
        # ``combo`` holds what this pass takes off, ``lost`` the sum of all passes.
        take_off_rows(k, z, lay, shared, work, iwork)
        square = 0.0
        for j in range(z.shape[0]):
            square += z[j] * z[j]
        if trial > 0 and square > 0.25 * before:
            break
        before = square
        for a in range(k):
            total = 0.0
            for e in range(row_at[base[a]], row_at[base[a] + 1]):
                # z is 0 outside F.
                total += row_val[e] * z[row_col[e]]
            g[a] = total
        factor_times(factor, k, g, along)
        factor_transpose_times(factor, k, along, r)
        for a in range(k):
            lost[a] += r[a]
    for a in range(k):
        r[a] = lost[a]
    return square


@device_function
def factor_rows(at, lay, shared, work, iwork):
    """Factor the rows flagged in the set, equalities first; returns (k, dependent rows).

    H must be that of the free coordinates. Writes the factor to work[at:], ``base``, and the list
    of the rest.
    """
    base, rest = iwork[lay[BASE] : lay[LIST]], iwork[lay[LIST] : lay[IN_SET]]
    in_set = iwork[lay[IN_SET] : lay[STATE]]
    r = in_set.shape[0]
    k = r - r
    left = r - r
    for c in range(r):
        i = c + lay[INEQS]
        if i >= r:
            i -= r
        if in_set[i] == 1:
            square = combination(i, k, at, lay, shared, work, iwork)
            if square > PIVOT_TOL * PIVOT_TOL:
                factor_append(work[at : lay[H]], k, work[lay[COMBO] : lay[LOST]], math.sqrt(square))
                base[k] = i
                k += 1
            else:
                rest[left] = i
                left += 1
    return k, left


@device_function
def bounds_of_round_off(x, nu, shared, out):
    """out_j = |x_j| + sum of |C_ij nu_i|: what rounding in t_j is relative to."""
    row_at, row_col, row_val = shared[1], shared[2], shared[3]
    for j in range(out.shape[0]):
        out[j] = abs(x[j])
    for i in range(nu.shape[0]):
        if nu[i] != 0.0:
            for e in range(row_at[i], row_at[i + 1]):
                out[row_col[e]] += abs(nu[i] * row_val[e])
