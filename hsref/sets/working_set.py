r"""The working set of the dual active-set method: its scratch, and rows entering and leaving.

A solve keeps everything in two caller-owned arrays, ``work`` (floats) and ``iwork`` (int32). Where
each vector starts is worked out once a set by :func:`make_layout` and handed around as the integer
array ``lay``; the names below index it. Vector V occupies ``work[lay[V] : lay[V + 1]]``.

The working set has k rows, numbered as in :mod:`hsref.sets.working_rows`; ``ids``, ``nu`` (signed
multipliers, negative for a lower bound), ``sign`` and the packed inverse factor T run in step.
Flags that would be literal integers at a call are passed as floats or computed: Numba compiles a
callee anew for every literal integer.
"""

from __future__ import annotations

import math

import numpy as np

from .._jit import device_function
from .packed_factor import (
    factor_append,
    factor_delete,
    factor_times,
    factor_transpose_times,
)
from .working_rows import (
    gram_column,
    load_row,
    products_with_working,
    remove_equality_part,
    subtract_working,
)

# Sizes; SWEEPS is 0 where the set does not begin with the block active set.
BOUNDED, MOST, ROWS, EQS, SIZE, RANK_EQ, SWEEPS = 0, 1, 2, 3, 4, 5, 6
# Float vectors: over working rows (T packed, with room for multipliers behind it, down to WEIGHT),
# over rows wanted by a warm start, over rows of A_ub, over coordinates, over equalities; and the
# Farkas certificate.
T, NU, SIGN, L, R, G, LOST, WEIGHT, WANTED_SIGN = 7, 8, 9, 10, 11, 12, 13, 14, 15
S0, S, RHS, Y0, Y, Z, INNER, RHS_EQ, CERTIFICATE, FLOATS = 16, 17, 18, 19, 20, 21, 22, 23, 24, 25
# Integer vectors: warm start on entry and tape on return, row numbers.
TAPE, IDS, PACKED, WANTED, INTS = 26, 27, 28, 29, 30

PIVOT_TOL = 1e-10
"""A unit row closer than this to the span of the working rows counts as dependent on them."""
GRAM_PIVOT = 1e-4
"""Squared distances below this are not taken from the Gram matrix, where they cancel."""
EXPLICIT = 2.0
"""In place of GRAM_PIVOT: never trust the Gram matrix, and move y at every step."""


def make_layout(
    bounded: bool, most: int, m: int, p: int, n: int, k_e: int, sweeps: int = 0
) -> np.ndarray:
    """Return ``lay``; ``lay[FLOATS]`` and ``lay[INTS]`` are the sizes of work and iwork."""
    wanted = m + 2 * n
    floats = [most * (most + 1) // 2 + most, *[most] * 7, wanted, *[m] * 3, *[n] * 3, k_e, k_e]
    floats.append(m + p + n)
    ints = [m + p + 2 * n + 4, most, most, wanted]
    return np.array(
        [int(bounded), most, m, p, n, k_e, sweeps]
        + [sum(floats[:c]) for c in range(len(floats) + 1)]
        + [sum(ints[:c]) for c in range(len(ints) + 1)],
        np.int64,
    )


@device_function
def direction(row, k, trust, work, iwork, lay, reduced, gram, coord_inv, basis):
    """Write along = T M c and r = T' along for row c; returns its squared distance from K's span.

    Below ``trust`` the squared distance is taken from z, the part of c orthogonal to the working
    rows, which is then written, orthogonalised twice; ``along`` and ``r`` are improved with it.
    """
    factor, ids = work[0 : lay[NU]], iwork[lay[IDS] : lay[PACKED]]
    along, r, g = work[lay[L] : lay[R]], work[lay[R] : lay[G]], work[lay[G] : lay[LOST]]
    gram_column(row, k, ids, gram, basis, coord_inv, g)
    factor_times(factor, k, g, along)
    factor_transpose_times(factor, k, along, r)
    square = 1.0
    steepest = 1.0
    for a in range(k):
        square -= along[a] * along[a]
        steepest = max(steepest, factor[a * (a + 3) // 2])
    # Rounding in `along` grows with the factor, and in the difference of squares with 1 / square.
    if square >= trust * steepest:
        return square
    z, inner = work[lay[Z] : lay[INNER]], work[lay[INNER] : lay[RHS_EQ]]
    packed = iwork[lay[PACKED] : lay[WANTED]]
    lost, weight = work[lay[LOST] : lay[WEIGHT]], work[lay[WEIGHT] : lay[WANTED_SIGN]]
    load_row(row, reduced, basis, coord_inv, z)
    if k == 0:
        return 1.0
    # The first pass takes off r itself, the others what is left of the working rows in z.
    for a in range(k):
        g[a] = r[a]
    before = 1.0
    for sweep in range(4):
        subtract_working(k, ids, g, z, reduced, coord_inv, basis, packed, weight, inner)
        remove_equality_part(basis, z, inner)
        square = 0.0
        for j in range(z.shape[0]):
            square += z[j] * z[j]
        # Twice is enough (Kahan) unless the pass still removed most of z.
        if sweep > 0 and square > 0.25 * before:
            break
        before = square
        products_with_working(k, ids, reduced, coord_inv, z, g)
        factor_times(factor, k, g, lost)
        factor_transpose_times(factor, k, lost, g)
        for a in range(k):
            along[a] += lost[a]
            r[a] += g[a]
    return square


@device_function
def drop(k, gone, work, iwork, lay):
    """Take position ``gone`` out of the working set; returns what ``along`` loses with it."""
    lost = work[lay[LOST] : lay[WEIGHT]]
    nu, sign = work[lay[NU] : lay[SIGN]], work[lay[SIGN] : lay[L]]
    ids = iwork[lay[IDS] : lay[PACKED]]
    value = factor_delete(work[0 : lay[NU]], k, gone, work[lay[L] : lay[R]], lost)
    for a in range(gone, k - 1):
        ids[a] = ids[a + 1]
        nu[a] = nu[a + 1]
        sign[a] = sign[a + 1]
        # From here on positions count without the dropped row.
        lost[a] = lost[a + 1]
    return value


@device_function
def append(row, sign, multiplier, k, square, work, iwork, lay):
    """Add a row, whose combination r and squared distance are known, to the working set."""
    factor_append(work[0 : lay[NU]], k, work[lay[R] : lay[G]], math.sqrt(square))
    iwork[lay[IDS] + k] = row
    work[lay[NU] + k] = multiplier
    work[lay[SIGN] + k] = sign


@device_function
def try_append(row, sign, k, trust, work, iwork, lay, reduced, gram, coord_inv, basis):
    """Append a row with multiplier 0 if it is independent of the working rows; the new k."""
    if k >= lay[MOST]:
        return k
    square = direction(row, k, trust, work, iwork, lay, reduced, gram, coord_inv, basis)
    if square <= PIVOT_TOL * PIVOT_TOL:
        return k
    append(row, sign, 0.0, k, square, work, iwork, lay)
    return k + 1


@device_function
def bring_in(row, sign, violation, k, trust, work, iwork, lay, reduced, gram, coord_inv, basis):
    """Raise the multiplier of a violated row until it holds, dropping rows that block.

    Writes the working set, its multipliers and factor, and y if ``trust`` is EXPLICIT. Returns
    (new k, steps, added). added = 0 means that the row depends on the working rows and nothing
    blocks, so that its multiplier could grow for ever; r then holds the combination.
    """
    nu, signs = work[lay[NU] : lay[SIGN]], work[lay[SIGN] : lay[L]]
    r, lost = work[lay[R] : lay[G]], work[lay[LOST] : lay[WEIGHT]]
    raised = 0.0
    steps = 0
    square = 0.0
    known = False
    while True:
        steps += 1
        if not known:
            square = direction(row, k, trust, work, iwork, lay, reduced, gram, coord_inv, basis)
        dependent = k >= lay[MOST] or square <= PIVOT_TOL * PIVOT_TOL
        least = 0.0
        if dependent:
            # An entry of r at round-off would allow a huge step that means nothing.
            least = 1.0
            for a in range(k):
                least = max(least, abs(r[a]))
            least *= 1e-11
        step = np.inf
        # Not -1: Numba would compile callees anew for a literal integer.
        gone = k
        for a in range(k):
            pull = sign * signs[a] * r[a]
            if pull > least:
                size = max(signs[a] * nu[a], 0.0)
                if size < step * pull:
                    step = size / pull
                    gone = a
        if dependent and gone == k:
            return k, steps, 0
        if not dependent and violation <= step * square:
            step = violation / square
            gone = k
        move = sign * step
        raised += step
        for a in range(k):
            nu[a] -= move * r[a]
        if trust > 1.0 and not dependent:
            y, z = work[lay[Y] : lay[Z]], work[lay[Z] : lay[INNER]]
            for j in range(y.shape[0]):
                y[j] -= move * z[j]
        if gone == k:
            append(row, sign, sign * raised, k, square, work, iwork, lay)
            return k + 1, steps, 1
        if not dependent:
            violation -= step * square
        # `along` belongs to the row, so what it loses updates r and the distance.
        value = drop(k, gone, work, iwork, lay)
        k -= 1
        for a in range(gone, k):
            r[a] = r[a + 1]
        for a in range(k):
            r[a] -= lost[a] * value
        square += value * value
        known = square >= trust


@device_function
def start_from(count, trust, data, work, iwork, lay, reduced, gram, coord_inv, basis):
    """Make the rows wanted[0:count] the working set, as far as the dual method can go on from it.

    Skips dependent rows, sets the multipliers so that the others hold with equality (slacks are
    those of the start, s0 and y0), and drops rows until no multiplier is negative. Returns k.
    """
    k = count - count
    for c in range(count):
        row = np.int64(iwork[lay[WANTED] + c])
        side = work[lay[WANTED_SIGN] + c]
        k = try_append(row, side, k, trust, work, iwork, lay, reduced, gram, coord_inv, basis)
    ids, sign = iwork[lay[IDS] : lay[PACKED]], work[lay[SIGN] : lay[L]]
    g, nu = work[lay[G] : lay[LOST]], work[lay[NU] : lay[SIGN]]
    along, lost = work[lay[L] : lay[R]], work[lay[LOST] : lay[WEIGHT]]
    for a in range(k):
        if ids[a] < lay[ROWS]:
            g[a] = work[lay[S0] + ids[a]]
        else:
            j = ids[a] - lay[ROWS]
            g[a] = (work[lay[Y0] + j] - data[bound_at(j, sign[a], lay)]) * coord_inv[j]
    factor_times(work[0 : lay[NU]], k, g, along)
    factor_transpose_times(work[0 : lay[NU]], k, along, nu)
    while True:
        gone = k
        worst = 0.0
        for a in range(k):
            if sign[a] * nu[a] < worst:
                worst = sign[a] * nu[a]
                gone = a
        if gone == k:
            return k
        value = drop(k, gone, work, iwork, lay)
        k -= 1
        for a in range(k):
            nu[a] -= lost[a] * value


@device_function
def bound_at(j, sign, lay):
    """Return where the data row holds the upper (sign > 0) or lower bound of coordinate j."""
    return lay[ROWS] + lay[EQS] + j + (lay[SIZE] if sign > 0.0 else 0)
