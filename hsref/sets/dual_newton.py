r"""Newton's method on the dual of a projection whose bounds have been eliminated.

With multipliers nu = (lambda >= 0, mu) of the rows C y (<=, =) c the projection is
y = clip(x - C' nu, lower, upper), and the negative of the dual function,

.. math:: \theta(\nu) = c^T \nu - \min_{l \le y \le u} \left[ \tfrac12\|y - x\|^2
          + \nu^T C y \right] + \text{const},

is convex and piecewise quadratic with gradient g = c - C y and, where no entry of t = x - C' nu
sits on a bound, Hessian H = C_F C_F', F the entries strictly between their bounds.

A few sweeps that minimise along one multiplier after another come first. Then each step d solves

.. math:: \min \tfrac12 d^T H d + g^T d \quad \text{s.t.} \quad \lambda + d \ge 0

by block pivoting (rows that leave may come back: without that it stalls), and the line search is
exact up to a factor. Where the method diverges along a direction, that direction may be a Farkas
certificate. It need not converge: :mod:`hsref.sets.dual_finish` is the finite method that ends
every solve, from here if this went well, from nu = 0 otherwise.
"""

from __future__ import annotations

import math

import numpy as np

from .._jit import device_function
from .sparse_rows import (
    ALONG,
    BASE,
    CERTIFICATE,
    COMBO,
    FACTORS,
    FLOATS,
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
    line_root,
    normal_matrix,
    row_gaps,
)

NEWTON_TOL = 1e-10
"""Relative gradient at which Newton's method hands over."""
SETTLED_TOL = 1e-8
"""The same, if the step before changed neither the free entries nor the rows."""
MOST_STEPS = 60
PASSES = 12
"""Block pivots within one step."""
RIDGE = 1e-9
"""Added to the diagonal of H, relative to its largest entry."""
LINE_TOL = 0.3
"""Part of the slope that the line search may leave."""
SWEEP_TOL = 1e-3
"""The same in a sweep, which pays only while it is cheap."""
HUGE = 1e100
"""A step beyond this runs to infinity."""
CONVERGED, STALLED, EMPTY = 0, 1, 2


@device_function
def sweep(count, lay, shared, work):
    """Minimise the dual along each multiplier in turn, ``count`` times; writes nu and t."""
    row_at, row_col, row_val = shared[1], shared[2], shared[3]
    side, nu, t = work[lay[SIDE] : lay[NU]], work[lay[NU] : lay[GRAD]], work[lay[T] : lay[Y]]
    low, high = work[lay[LOW] : lay[HIGH]], work[lay[HIGH] : lay[CERTIFICATE]]
    # The entries of a row are gathered, so that the root finding runs along arrays.
    w, at = work[lay[W] : lay[Z]], work[lay[Z] : lay[LOW]]
    below, above = work[lay[Y] : lay[W]], work[lay[CERTIFICATE] : lay[FLOATS]]
    for _ in range(count):
        for i in range(side.shape[0]):
            if side[i] == np.inf:
                continue
            first = row_at[i]
            length = row_at[i + 1] - first
            total = 0.0
            for e in range(length):
                j = row_col[first + e]
                w[e] = row_val[first + e]
                at[e] = t[j]
                below[e] = low[j]
                above[e] = high[j]
                total += w[e] * min(max(at[e], below[e]), above[e])
            if total == side[i]:
                continue
            sign = 1.0
            limit = np.inf
            if total < side[i]:
                sign = -1.0
                if i < lay[INEQS]:
                    limit = nu[i]
                    if limit == 0.0:
                        continue
                for e in range(length):
                    w[e] = -w[e]
            s = line_root(sign * side[i], 0.0, limit, SWEEP_TOL, length, w, at, below, above)
            # A row that cannot be met would send its multiplier to infinity.
            if s < HUGE:
                nu[i] += sign * s
                for e in range(length):
                    t[row_col[first + e]] -= s * w[e]


@device_function
def solve_kept(k, ridge, lay, work, first, kept):
    """Solve (H + ridge) d = rhs for the rows kept[0:k]; rhs in ``other``, d in ``combo``.

    Cholesky by rows within the envelope: rows that share no free entry leave leading zeros, which
    are skipped. A pivot that rounding made too small is replaced by the ridge.
    """
    L, normal = work[lay[FACTORS] : lay[H]], work[lay[H] : lay[SIDE]]
    rhs, out = work[lay[OTHER] : lay[T]], work[lay[COMBO] : lay[LOST]]
    r = out.shape[0]
    at = 0
    for a in range(k):
        row = np.int64(kept[a]) * r
        start = a
        for b in range(a):
            value = normal[row + kept[b]]
            L[at + b] = value
            if value != 0.0 and b < start:
                start = b
        first[a] = start
        total = rhs[a]
        pivot = normal[row + kept[a]] + ridge
        for b in range(start, a):
            begin = max(start, first[b])
            behind = b * (b + 1) // 2
            value = L[at + b]
            for c in range(begin, b):
                value -= L[at + c] * L[behind + c]
            value /= L[behind + b]
            L[at + b] = value
            pivot -= value * value
            total -= value * out[b]
        pivot = math.sqrt(max(pivot, ridge))
        L[at + a] = pivot
        out[a] = total / pivot
        at += a + 1
    for a in range(k - 1, -1, -1):
        at = a * (a + 1) // 2
        out[a] /= L[at + a]
        value = out[a]
        for b in range(first[a], a):
            out[b] -= L[at + b] * value


@device_function
def newton_step(lay, shared, work, iwork):
    """Write the step d into ``step``: the small quadratic program, by block pivoting."""
    normal, side = work[lay[H] : lay[SIDE]], work[lay[SIDE] : lay[NU]]
    nu, g, d = work[lay[NU] : lay[GRAD]], work[lay[GRAD] : lay[STEP]], work[lay[STEP] : lay[SCALE]]
    rhs, out = work[lay[OTHER] : lay[T]], work[lay[COMBO] : lay[LOST]]
    kept, keep = iwork[lay[LIST] : lay[IN_SET]], iwork[lay[IN_SET] : lay[STATE]]
    first = iwork[lay[BASE] : lay[LIST]]
    r = side.shape[0]
    inequalities = lay[INEQS]
    largest = 0.0
    for i in range(r):
        largest = max(largest, normal[i * r + i])
        usable = side[i] < np.inf
        keep[i] = 1 if usable and (i >= inequalities or nu[i] > 0.0 or g[i] < 0.0) else 0
    ridge = RIDGE * largest if largest > 0.0 else 1.0
    k = r - r
    pushed = False
    for _ in range(PASSES):
        k = r - r
        for i in range(r):
            d[i] = 0.0
            if keep[i] == 1:
                kept[k] = i
                k += 1
            elif i < inequalities:
                d[i] = -nu[i]
                pushed = pushed or nu[i] > 0.0
        for a in range(k):
            i = kept[a]
            total = -g[i]
            if pushed:
                for c in range(inequalities):
                    if d[c] != 0.0:
                        total -= normal[max(i, c) * r + min(i, c)] * d[c]
            rhs[a] = total
        solve_kept(k, ridge, lay, work, first, kept)
        for a in range(k):
            d[kept[a]] = out[a]
        changed = False
        for i in range(inequalities):
            if keep[i] == 1:
                if nu[i] + d[i] < 0.0:
                    keep[i] = 0
                    changed = True
            elif side[i] < np.inf:
                total = g[i]
                for c in range(r):
                    if d[c] != 0.0:
                        total += normal[max(i, c) * r + min(i, c)] * d[c]
                total += ridge * d[i]
                if total < 0.0:
                    keep[i] = 1
                    changed = True
        if not changed:
            return k
    # Pivoting goes round: a plain step on the rows that matter, cut at the first block.
    k = r - r
    for i in range(r):
        d[i] = 0.0
        if side[i] < np.inf and (i >= inequalities or nu[i] > 0.0 or g[i] < 0.0):
            kept[k] = i
            rhs[k] = -g[i]
            k += 1
    solve_kept(k, ridge, lay, work, first, kept)
    for a in range(k):
        d[kept[a]] = out[a]
    return k


@device_function
def first_block(lay, work):
    """Return the largest step along ``step`` that keeps lambda >= 0."""
    nu, d = work[lay[NU] : lay[GRAD]], work[lay[STEP] : lay[SCALE]]
    limit = np.inf
    for i in range(lay[INEQS]):
        if d[i] < 0.0 and nu[i] + limit * d[i] < 0.0:
            limit = nu[i] / -d[i]
    return limit


@device_function
def proves_empty(source, lay, shared, work):
    """Test multipliers (clipped to >= 0 for inequalities) as a Farkas certificate; scratch z."""
    q, w = work[lay[OTHER] : lay[T]], work[lay[Z] : lay[LOW]]
    for i in range(q.shape[0]):
        q[i] = source[i]
        if i < lay[INEQS]:
            q[i] = max(q[i], 0.0)
    for j in range(w.shape[0]):
        w[j] = 0.0
    add_rows(1.0, q, shared, w)
    return farkas_value(q, w, lay, shared, work)


@device_function
def newton(x_size, lay, shared, work, iwork):
    """Run Newton's method from nu, t; returns (steps, CONVERGED, STALLED or EMPTY)."""
    side, nu, g = work[lay[SIDE] : lay[NU]], work[lay[NU] : lay[GRAD]], work[lay[GRAD] : lay[STEP]]
    d, scale = work[lay[STEP] : lay[SCALE]], work[lay[SCALE] : lay[ALONG]]
    t, y, w = work[lay[T] : lay[Y]], work[lay[Y] : lay[W]], work[lay[W] : lay[Z]]
    low, high = work[lay[LOW] : lay[HIGH]], work[lay[HIGH] : lay[CERTIFICATE]]
    state = iwork[lay[STATE] : lay[INTS]]
    r = side.shape[0]
    n = t.shape[0]
    settled = False
    for step in range(MOST_STEPS):
        same = step > 0
        for j in range(n):
            now = 0
            if t[j] <= low[j]:
                now = -1
                y[j] = low[j]
            elif t[j] >= high[j]:
                now = 1
                y[j] = high[j]
            else:
                y[j] = t[j]
            if now != state[j]:
                same = False
                state[j] = now
        row_gaps(y, side, shared, g, scale)
        worst = 0.0
        for i in range(r):
            if i >= lay[INEQS] or nu[i] > 0.0 or g[i] < 0.0:
                worst = max(worst, abs(g[i]) / (scale[i] + 1e-4 * x_size + 1e-300))
        if worst <= NEWTON_TOL or (settled and same and worst <= SETTLED_TOL):
            return step, CONVERGED
        normal_matrix(state, shared, work[lay[H] : lay[SIDE]])
        newton_step(lay, shared, work, iwork)
        slope = 0.0
        rise = 0.0
        for i in range(r):
            if d[i] != 0.0:
                slope += g[i] * d[i]
                rise += side[i] * d[i]
        if not (slope < 0.0):
            return step, CONVERGED if worst <= 1e-7 else STALLED
        for j in range(n):
            w[j] = 0.0
        add_rows(1.0, d, shared, w)
        limit = first_block(lay, work)
        s = line_root(rise, 1.0, limit, LINE_TOL, n, w, t, low, high)
        far = not (s <= 4.0)
        if (far or step % 8 == 7) and (
            proves_empty(d, lay, shared, work) == 1 or proves_empty(nu, lay, shared, work) == 1
        ):
            return step, EMPTY
        if not (s < HUGE):
            return step, STALLED
        settled = s == 1.0
        for i in range(r):
            if d[i] != 0.0:
                nu[i] += s * d[i]
                if i < lay[INEQS] and nu[i] < 0.0:
                    nu[i] = 0.0
        for j in range(n):
            t[j] -= s * w[j]
    return n - n + MOST_STEPS, STALLED
