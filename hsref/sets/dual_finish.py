r"""The finite end of a projection with eliminated bounds: an active-set method on the dual.

State: multipliers nu with lambda >= 0; K, the equalities and the rows with lambda > 0; F, the free
coordinates, where y = t = x - C' nu; the others sit at a bound, and z = t - bound has the sign of a
multiplier.

- *Inner*: a factor of the independent rows of C_KF (:mod:`hsref.sets.free_rows`) gives the step to
  C_K y = c_K, or, where a dependent row contradicts the others, the direction along which the dual
  falls for ever. The step stops where a multiplier reaches 0: its row leaves K, or its coordinate
  joins F. If nothing stops a direction of infinite descent, it is a Farkas certificate.
- *Outer*: coordinates of F outside their bounds are put at them; or else one violated row joins K.

Inner steps only take away, so they end; an outer step ends at the minimum of its working set, below
the one before: no set recurs, whatever depends on what. In floating point this rests on the
tolerance with which a coordinate counts as outside. It starts at round-off of y, so that y is
precise however far x is away, and widens to round-off of x if the method does not end.

*Basic multipliers.* Rows of K may still depend on each other where F is small, as at every vertex
of a transport polytope. Moving nu along the null space of (C_KF)' changes neither y nor optimality;
it is moved until multipliers vanish, one for each dependent row (Carathéodory), so that what is
left, with the bounds, is independent.
"""

from __future__ import annotations

import numpy as np

from .._codes import MAX_STEPS, PRIMAL_INFEASIBLE, SOLVED
from .._jit import device_function
from .contradiction import CONSISTENT_TOL
from .free_rows import bounds_of_round_off, combination, factor_rows, take_off_rows
from .packed_factor import factor_times, factor_transpose_times
from .sparse_rows import (
    ALONG,
    BASE,
    CERTIFICATE,
    COMBO,
    FACTORS,
    GRAD,
    HIGH,
    IN_SET,
    INEQS,
    INTS,
    LIST,
    LOST,
    LOW,
    NU,
    OTHER,
    SCALE,
    SIDE,
    STATE,
    STEP,
    H,
    T,
    W,
    Y,
    Z,
    add_rows,
    farkas_value,
    normal_matrix,
    row_gaps,
)

PRIMAL_TOL = 1e-13
"""Violation of a row, relative to its terms, at which the method ends."""
BOUND_TOL = 1e-14
"""The same for a coordinate and its bounds."""
GIVE_UP_TOL = 1e-9
"""Relative violation above which a solve is reported as not solved."""
NULL_TOL = 1e-11
"""Entries of a null direction below this fraction of the largest are rounding."""
PATIENCE = 24
"""Outer steps after which round-off of x counts as round-off of y."""
EPS = 2.220446049250313e-16


@device_function
def restart(x, lay, shared, work, iwork):
    """Make t, F and K from the multipliers nu."""
    nu, t = work[lay[NU] : lay[GRAD]], work[lay[T] : lay[Y]]
    low, high = work[lay[LOW] : lay[HIGH]], work[lay[HIGH] : lay[CERTIFICATE]]
    in_set, state = iwork[lay[IN_SET] : lay[STATE]], iwork[lay[STATE] : lay[INTS]]
    for j in range(t.shape[0]):
        t[j] = x[j]
    add_rows(-1.0, nu, shared, t)
    for j in range(t.shape[0]):
        state[j] = 0
        if t[j] >= high[j]:
            state[j] = 1
        if t[j] <= low[j]:
            state[j] = -1
    for i in range(nu.shape[0]):
        in_set[i] = 1 if i >= lay[INEQS] or nu[i] > 0.0 else 0


@device_function
def form_point(lay, work, iwork):
    """Write y: t where free, the bound elsewhere."""
    t, y = work[lay[T] : lay[Y]], work[lay[Y] : lay[W]]
    state = iwork[lay[STATE] : lay[INTS]]
    for j in range(t.shape[0]):
        if state[j] == 0:
            y[j] = t[j]
        elif state[j] < 0:
            y[j] = work[lay[LOW] + j]
        else:
            y[j] = work[lay[HIGH] + j]


@device_function
def null_direction(i, k, lay, shared, work, iwork):
    """step = e_i - (its combination of the k factored rows); w = C' step, exactly 0 on F."""
    d, w = work[lay[STEP] : lay[SCALE]], work[lay[W] : lay[Z]]
    r, base = work[lay[COMBO] : lay[LOST]], iwork[lay[BASE] : lay[LIST]]
    state = iwork[lay[STATE] : lay[INTS]]
    combination(i, k, lay[FACTORS], lay, shared, work, iwork)
    for c in range(d.shape[0]):
        d[c] = 0.0
    d[i] = 1.0
    for a in range(k):
        d[base[a]] = -r[a]
    for j in range(w.shape[0]):
        w[j] = 0.0
    add_rows(1.0, d, shared, w)
    most = 1.0
    for c in range(d.shape[0]):
        most = max(most, abs(d[c]))
    for j in range(w.shape[0]):
        if state[j] == 0 or abs(w[j]) <= NULL_TOL * most:
            w[j] = 0.0
    for c in range(d.shape[0]):
        if abs(d[c]) <= NULL_TOL * most:
            d[c] = 0.0


@device_function
def contradiction(lay, work, iwork):
    """Return the rate of descent along a null direction, 0 where that is within rounding."""
    d, w, y = work[lay[STEP] : lay[SCALE]], work[lay[W] : lay[Z]], work[lay[Y] : lay[W]]
    side = work[lay[SIDE] : lay[NU]]
    rate = 0.0
    terms = 0.0
    for i in range(d.shape[0]):
        if d[i] != 0.0:
            rate -= d[i] * side[i]
            terms += abs(d[i] * side[i])
    for j in range(w.shape[0]):
        if w[j] != 0.0:
            rate += w[j] * y[j]
            terms += abs(w[j] * y[j])
    return rate if abs(rate) > CONSISTENT_TOL * terms else 0.0


@device_function
def nearest_block(toward, full, pinned, lay, work, iwork):
    """Return (step, event) along toward * step: event i a row, r + j a coordinate, r + n none.

    Coordinates with equal bounds, whose multiplier has any sign, block only if ``pinned`` > 0.
    """
    d, w = work[lay[STEP] : lay[SCALE]], work[lay[W] : lay[Z]]
    nu, t = work[lay[NU] : lay[GRAD]], work[lay[T] : lay[Y]]
    low, high = work[lay[LOW] : lay[HIGH]], work[lay[HIGH] : lay[CERTIFICATE]]
    in_set, state = iwork[lay[IN_SET] : lay[STATE]], iwork[lay[STATE] : lay[INTS]]
    r = d.shape[0]
    n = w.shape[0]
    step = full
    event = r + n
    for i in range(lay[INEQS]):
        fall = -toward * d[i]
        if in_set[i] == 1 and fall > 0.0 and nu[i] < step * fall:
            step = nu[i] / fall
            event = i
    for j in range(n):
        if state[j] != 0 and w[j] != 0.0:
            gap = t[j] - high[j] if state[j] > 0 else t[j] - low[j]
            fall = toward * w[j]
            if low[j] < high[j]:
                gap *= state[j]
                fall *= state[j]
            elif pinned > 0.0:
                if gap < 0.0 or (gap == 0.0 and fall < 0.0):
                    gap = -gap
                    fall = -fall
            else:
                continue
            if fall > 0.0 and gap < step * fall:
                step = max(gap, 0.0) / fall
                event = r + j
    return step, event


@device_function
def move(toward, step, event, lay, work, iwork):
    """Take the step, and take the row or bound that blocked it out of the working set."""
    d, w = work[lay[STEP] : lay[SCALE]], work[lay[W] : lay[Z]]
    nu, t = work[lay[NU] : lay[GRAD]], work[lay[T] : lay[Y]]
    in_set, state = iwork[lay[IN_SET] : lay[STATE]], iwork[lay[STATE] : lay[INTS]]
    r = d.shape[0]
    for i in range(r):
        nu[i] += toward * step * d[i]
        if i < lay[INEQS] and nu[i] < 0.0:
            nu[i] = 0.0
    for j in range(w.shape[0]):
        t[j] -= toward * step * w[j]
    if event < r:
        nu[event] = 0.0
        in_set[event] = 0
    elif event < r + t.shape[0]:
        j = event - r
        t[j] = work[lay[HIGH] + j] if state[j] > 0 else work[lay[LOW] + j]
        state[j] = 0


@device_function
def settle(x, k, lay, shared, work, iwork):
    """After a full step: t afresh from x and nu, signs kept; then y corrected to C_K y = c_K."""
    nu, t, y = work[lay[NU] : lay[GRAD]], work[lay[T] : lay[Y]], work[lay[Y] : lay[W]]
    low, high = work[lay[LOW] : lay[HIGH]], work[lay[HIGH] : lay[CERTIFICATE]]
    g, r, along = (
        work[lay[GRAD] : lay[STEP]],
        work[lay[COMBO] : lay[LOST]],
        work[lay[ALONG] : lay[COMBO]],
    )
    rhs, base = work[lay[OTHER] : lay[T]], iwork[lay[BASE] : lay[LIST]]
    state = iwork[lay[STATE] : lay[INTS]]
    for j in range(t.shape[0]):
        t[j] = x[j]
    add_rows(-1.0, nu, shared, t)
    for j in range(t.shape[0]):
        if low[j] < high[j]:
            if state[j] > 0:
                t[j] = max(t[j], high[j])
            elif state[j] < 0:
                t[j] = min(t[j], low[j])
    form_point(lay, work, iwork)
    for _ in range(3):
        row_gaps(y, work[lay[SIDE] : lay[NU]], shared, g, work[lay[SCALE] : lay[ALONG]])
        worst = 0.0
        for a in range(k):
            rhs[a] = -g[base[a]]
            worst = max(worst, abs(rhs[a]) - EPS * work[lay[SCALE] + base[a]])
        if worst <= 0.0:
            break
        factor_times(work[lay[FACTORS] : lay[H]], k, rhs, along)
        factor_transpose_times(work[lay[FACTORS] : lay[H]], k, along, r)
        take_off_rows(k, y, lay, shared, work, iwork)
        for a in range(k):
            i = base[a]
            nu[i] += r[a]
            if i < lay[INEQS] and nu[i] < 0.0:
                nu[i] = 0.0
    for j in range(t.shape[0]):
        if state[j] == 0:
            t[j] = y[j]


@device_function
def inner(x, steps, limit, lay, shared, work, iwork):
    """Go to the minimum over the working set; returns (k, left, steps, status)."""
    side, nu, g = work[lay[SIDE] : lay[NU]], work[lay[NU] : lay[GRAD]], work[lay[GRAD] : lay[STEP]]
    d, w = work[lay[STEP] : lay[SCALE]], work[lay[W] : lay[Z]]
    along, r, rhs = (
        work[lay[ALONG] : lay[COMBO]],
        work[lay[COMBO] : lay[LOST]],
        work[lay[OTHER] : lay[T]],
    )
    base, rest = iwork[lay[BASE] : lay[LIST]], iwork[lay[LIST] : lay[IN_SET]]
    state = iwork[lay[STATE] : lay[INTS]]
    last = side.shape[0] + w.shape[0]
    while True:
        steps += 1
        form_point(lay, work, iwork)
        normal_matrix(state, shared, work[lay[H] : lay[SIDE]])
        k, left = factor_rows(lay[FACTORS], lay, shared, work, iwork)
        full = 1.0
        toward = 1.0
        for q in range(left):
            null_direction(rest[q], k, lay, shared, work, iwork)
            rate = contradiction(lay, work, iwork)
            if rate != 0.0:
                toward = 1.0 if rate > 0.0 else -1.0
                if rest[q] < lay[INEQS] and toward < 0.0 and nu[rest[q]] <= 0.0:
                    # A row that holds with slack, and without a multiplier to give up.
                    iwork[lay[IN_SET] + rest[q]] = 0
                    continue
                step, event = nearest_block(toward, np.inf, 0.0, lay, work, iwork)
                if event < last:
                    full = np.inf
                    move(toward, step, event, lay, work, iwork)
                    break
                # The direction is 0 up to NULL_TOL, which is coarser than a proof may be.
                for c in range(d.shape[0]):
                    d[c] *= toward
                for j in range(w.shape[0]):
                    w[j] = 0.0
                add_rows(1.0, d, shared, w)
                if farkas_value(d, w, lay, shared, work) == 1:
                    return k, left, steps, PRIMAL_INFEASIBLE
        if steps > limit:
            return k, left, steps, MAX_STEPS
        if full == np.inf:
            continue
        row_gaps(work[lay[Y] : lay[W]], side, shared, g, work[lay[SCALE] : lay[ALONG]])
        for a in range(k):
            # Rounding is no reason to move: a coordinate within rounding of its bound would be let
            # go and caught again for ever.
            within = abs(g[base[a]]) <= EPS * work[lay[SCALE] + base[a]]
            rhs[a] = 0.0 if within else -g[base[a]]
        factor_times(work[lay[FACTORS] : lay[H]], k, rhs, along)
        factor_transpose_times(work[lay[FACTORS] : lay[H]], k, along, r)
        for c in range(d.shape[0]):
            d[c] = 0.0
        for a in range(k):
            d[base[a]] = r[a]
        for j in range(w.shape[0]):
            w[j] = 0.0
        add_rows(1.0, d, shared, w)
        step, event = nearest_block(1.0, 1.0, 0.0, lay, work, iwork)
        move(1.0, step, event, lay, work, iwork)
        if event == last:
            settle(x, k, lay, shared, work, iwork)
            return k, left, steps, SOLVED


@device_function
def finish(x, x_size, steps, lay, shared, work, iwork):
    """Solve from the multipliers nu; returns (k, left, steps, status), writes y, K and F."""
    side, nu, g = work[lay[SIDE] : lay[NU]], work[lay[NU] : lay[GRAD]], work[lay[GRAD] : lay[STEP]]
    scale, y, t = work[lay[SCALE] : lay[ALONG]], work[lay[Y] : lay[W]], work[lay[T] : lay[Y]]
    low, high = work[lay[LOW] : lay[HIGH]], work[lay[HIGH] : lay[CERTIFICATE]]
    room = work[lay[Z] : lay[LOW]]
    in_set, state = iwork[lay[IN_SET] : lay[STATE]], iwork[lay[STATE] : lay[INTS]]
    restart(x, lay, shared, work, iwork)
    limit = steps + 100 + 4 * (side.shape[0] + t.shape[0])
    # At the apex of a cone y is pure rounding: nothing below this fraction of x is meant.
    floor = 1e-6 * EPS * x_size
    tol = PRIMAL_TOL
    outer = 0
    while True:
        outer += 1
        k, left, steps, status = inner(x, steps, limit, lay, shared, work, iwork)
        if status != SOLVED:
            return k, left, steps, status
        slack = 0.0
        if outer > PATIENCE:
            slack = 16.0 * EPS
            bounds_of_round_off(x, nu, shared, room)
        if outer % PATIENCE == 0:
            tol = min(10.0 * tol, GIVE_UP_TOL)
        outside = False
        size = 0.0
        for j in range(t.shape[0]):
            size = max(size, abs(y[j]))
            if state[j] == 0:
                bound = high[j] if y[j] > high[j] else low[j]
                over = y[j] - high[j] if y[j] > high[j] else low[j] - y[j]
                if over > 0.0:
                    allowed = BOUND_TOL * (abs(y[j]) + abs(bound)) + floor
                    if slack > 0.0:
                        allowed += slack * room[j]
                    if over > allowed:
                        outside = True
                        state[j] = 1 if y[j] > high[j] else -1
        if outside:
            continue
        for j in range(t.shape[0]):
            y[j] = min(max(y[j], low[j]), high[j])
        row_gaps(y, side, shared, g, scale)
        worst = 1.0
        row = side.shape[0]
        off = 0.0
        for i in range(side.shape[0]):
            reach = abs(side[i]) + size
            if in_set[i] == 1:
                # Near an apex y may vanish; round-off of x itself is then all that is left.
                if abs(g[i]) > 64.0 * EPS * x_size:
                    off = max(off, abs(g[i]) / reach)
            elif side[i] < np.inf and -g[i] > worst * (tol * (reach + scale[i]) + floor):
                worst = -g[i] / (tol * (reach + scale[i]) + floor)
                row = i
        if row == side.shape[0]:
            return k, left, steps, SOLVED if off <= GIVE_UP_TOL else MAX_STEPS
        in_set[row] = 1
