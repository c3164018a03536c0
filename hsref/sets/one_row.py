r"""The root of one linear row over a box: what every knapsack-like set comes down to.

For weights c, bounds l <= u and a multiplier lambda let y(lambda) = clip(x - lambda c, l, u). Then

.. math:: S(\lambda) = c^T y(\lambda)

is piecewise linear and never increasing. :func:`row_root` finds lambda with S(lambda) = total in
finitely many passes over x, without sorting and without a tolerance. It keeps a bracket
(lo, hi) with S(lo) > total > S(hi), at first infinite, and takes two kinds of step.

*Newton.* On the piece that holds lambda, S is (A - lambda D) with D the sum of c_j^2 over the free
entries (those strictly between their bounds, or just touching one) and A the sum of c_j x_j over
them plus c_j times the bound over the others; the step is the root of that piece, (A - total) / D.
The numbers A and D depend on the pieces alone, so the step returns the very same floating point
number when, and only when, it has landed on the piece it solved: that is the end.

*Relaxed step.* When Newton leaves the bracket (S is neither convex nor concave) hold only those
entries at a bound which are there on the whole bracket, and free all others. The linear function R
so obtained has R(lo) >= S(lo) > total > S(hi) >= R(hi), so its root lies inside the bracket; and if
it does not solve S, then some entry freed by R is beyond a bound there, whose breakpoint leaves the
bracket for good. As there are 2n breakpoints, the search is finite. Started from the infinite
bracket it is the variable-fixing method of Bitran and Hax.

Sources: Bitran & Hax, "Disaggregation and resource allocation using convex knapsack problems with
bounded variables", Management Science 27 (1981); Cominetti, Mascarenhas & Silva, "A Newton's method
for the continuous quadratic knapsack problem", Math. Program. Comput. 6 (2014).
"""

from __future__ import annotations

import numpy as np

from .._codes import (
    ACTIVE_LOWER,
    ACTIVE_UPPER,
    INFO_RANK_ACTIVE,
    INFO_RANK_SUPPORT,
    INFO_RANK_WORKING,
    INFO_STEPS,
    INFO_WEAK,
    MAX_STEPS,
    PRIMAL_INFEASIBLE,
    SOLVED,
    SUPPORT_LOWER,
    SUPPORT_UPPER,
    WORKING_LOWER,
    WORKING_UPPER,
)
from .._jit import device_function

CONSISTENT_TOL = 1e-12
"""A total this close to the largest or smallest possible one, relatively, counts as equal to it."""
ROUNDING = 4e-15
"""A multiplier below this, relative to the numbers it is the difference of, is rounding."""

_ROW = ACTIVE_UPPER | WORKING_UPPER | SUPPORT_UPPER
_PUSHED_LOWER = WORKING_LOWER | SUPPORT_LOWER
_PUSHED_UPPER = WORKING_UPPER | SUPPORT_UPPER

ROOT_FOUND = 0
ROOT_AT_END = 1
ROOT_NONE = 2
ROOT_STEPS = 3


@device_function
def row_piece(x, c, lower, upper, lam):
    """Return (A, D) of the linear piece of S that holds `lam`."""
    level = 0.0
    slope = 0.0
    for j in range(x.shape[0]):
        w = c[j]
        v = x[j]
        t = v - lam * w
        y = min(max(t, lower[j]), upper[j])
        level += w * (v if y == t else y)
        slope += w * w if y == t else 0.0
    return level, slope


@device_function
def row_relaxed(x, c, lower, upper, lo, hi):
    """Return (A, D) when only entries held on the whole bracket are held."""
    level = 0.0
    slope = 0.0
    for j in range(x.shape[0]):
        w = c[j]
        v = x[j]
        low = lower[j]
        up = upper[j]
        # A zero weight makes nan of an infinite end; no comparison below then holds it.
        at_lo = v - lo * w
        at_hi = v - hi * w
        most = max(at_lo, at_hi)
        least = min(at_lo, at_hi)
        held = 0.0
        if most <= low:
            v = low
            held = 1.0
        if least >= up:
            v = up
            held = 1.0
        level += w * v
        slope += w * w * (1.0 - held)
    return level, slope


@device_function
def row_reach(c, lower, upper, total):
    """Return ROOT_FOUND if S takes the value `total`, ROOT_AT_END if barely so, else ROOT_NONE."""
    least = 0.0
    most = 0.0
    least_size = abs(total)
    most_size = abs(total)
    for j in range(c.shape[0]):
        w = c[j]
        if w != 0.0:
            a = w * lower[j]
            b = w * upper[j]
            least += min(a, b)
            most += max(a, b)
            least_size += abs(min(a, b))
            most_size += abs(max(a, b))
    # An infinite end leaves inf - inf or inf - finite here: no comparison then refuses.
    if total < least - CONSISTENT_TOL * least_size or total > most + CONSISTENT_TOL * most_size:
        return ROOT_NONE
    if total <= least or total >= most:
        return ROOT_AT_END
    return ROOT_FOUND


@device_function
def row_best_end(x, c, lower, upper, total, lam, lo, hi):
    """Return whichever of `lam` and the finite ends of the bracket comes nearest to the total."""
    best = lam
    least = np.inf
    for end in (lam, lo, hi):
        if abs(end) < np.inf:
            level = 0.0
            for j in range(x.shape[0]):
                level += c[j] * min(max(x[j] - end * c[j], lower[j]), upper[j])
            if abs(level - total) < least:
                least = abs(level - total)
                best = end
    return best


@device_function
def row_root(x, c, lower, upper, total, lam, lo, hi):
    """Return (lambda, passes, verdict) with S(lambda) = total, started at `lam` in (lo, hi)."""
    for passes in range(1, 8 * x.shape[0] + 100):
        level, slope = row_piece(x, c, lower, upper, lam)
        excess = level - total
        new = lam
        if slope > 0.0:
            new = excess / slope
            if new == lam:
                return lam, passes, ROOT_FOUND
            if new > lam:
                lo = lam
            else:
                hi = lam
        elif excess > 0.0:
            lo = lam
        elif excess < 0.0:
            hi = lam
        else:
            return lam, passes, ROOT_FOUND
        if slope <= 0.0 or not (lo < new < hi):
            level, slope = row_relaxed(x, c, lower, upper, lo, hi)
            if slope <= 0.0:
                # No entry can move on: an end of the range of S, or as near as rounding lets us.
                lam = row_best_end(x, c, lower, upper, total, lam, lo, hi)
                return lam, passes, row_reach(c, lower, upper, total)
            new = (level - total) / slope
            if not (lo < new < hi):
                # The bracket is as narrow as rounding lets it be, or one of its ends is the root:
                # at an end of the range of S its sign is that of a rounding error.
                lam = row_best_end(x, c, lower, upper, total, lam, lo, hi)
                return lam, passes, ROOT_FOUND
        lam = new
    return lam, passes, ROOT_STEPS


@device_function
def bounds_are_in_order(lower, upper):
    """Return whether every lower bound leaves room below its upper bound."""
    wrong = 0.0
    for j in range(lower.shape[0]):
        wrong += 0.0 if lower[j] <= upper[j] else 1.0
        wrong += 1.0 if lower[j] == np.inf else 0.0
        wrong += 1.0 if upper[j] == -np.inf else 0.0
    return wrong == 0.0


@device_function
def nearest_release(x, w, held, lam):
    """Return (lambda, j): the breakpoint next to `lam` where an entry leaves the bound held_j."""
    # From the breakpoints themselves, not as a step from `lam`: that may be so large that all that
    # counts is lost in the difference.
    below = -np.inf
    above = np.inf
    last = -1
    first = -1
    for j in range(x.shape[0]):
        if w[j] != 0.0:
            at = (x[j] - held[j]) / w[j]
            if below < at <= lam:
                below = at
                last = j
            if lam <= at < above:
                above = at
                first = j
    if first < 0 or (last >= 0 and lam - below <= above - lam):
        return below, last
    return above, first


@device_function
def threshold_root(z, total):
    """Return (tau, passes): the root of sum(max(z - tau, 0)) = total > 0, for max(z) = 0."""
    # The sum is convex and falling in tau: Newton from the left never oversteps, tau can only
    # rise. Rounding at a tie may bring an entry back in and lower it: that too is the end.
    tau = -total
    passes = 0
    while passes < z.shape[0] + 2:
        passes += 1
        above = 0.0
        size = 0.0
        for j in range(z.shape[0]):
            v = z[j]
            above += v if v > tau else 0.0
            size += 1.0 if v > tau else 0.0
        new = (above - total) / size
        if not new > tau:
            break
        tau = new
    return tau, passes


@device_function
def largest(v):
    """Return max |v_j|, by four chains of comparisons that do not wait for one another."""
    n = v.shape[0]
    whole = n - n % 4
    a = 0.0
    b = 0.0
    c = 0.0
    d = 0.0
    for j in range(0, whole, 4):
        a = max(a, abs(v[j]))
        b = max(b, abs(v[j + 1]))
        c = max(c, abs(v[j + 2]))
        d = max(d, abs(v[j + 3]))
    for j in range(whole, n):
        a = max(a, abs(v[j]))
    return max(max(a, b), max(c, d))


@device_function
def smallest(v):
    """Return min v_j, inf for an empty vector; four chains again."""
    n = v.shape[0]
    whole = n - n % 4
    a = np.inf
    b = np.inf
    c = np.inf
    d = np.inf
    for j in range(0, whole, 4):
        a = min(a, v[j])
        b = min(b, v[j + 1])
        c = min(c, v[j + 2])
        d = min(d, v[j + 3])
    for j in range(whole, n):
        a = min(a, v[j])
    return min(min(a, b), min(c, d))


@device_function
def row_finish(
    x, w, lower, upper, lam, shift, equality, row_active, active_tol, y, code, info, margin, work
):  # fmt: skip
    """Write y, code, info, margin from y = x - lam w on entry; return the final multiplier.

    `shift` is the correction of `lam`. Scratch work[0:2n].
    """
    n = x.shape[0]
    value = work[:n]
    spare = work[n : 2 * n]
    slope = 0.0
    for j in range(n):
        t = y[j] - shift * w[j]
        clipped = min(max(t, lower[j]), upper[j])
        y[j] = t
        value[j] = clipped
        noise = ROUNDING * (abs(x[j]) + abs(lam * w[j]))
        slope += w[j] * w[j] if abs(t - clipped) <= noise else 0.0
    lam += shift
    size = largest(value)
    reach = max(largest(x), size)
    steepest = largest(w)
    pushing = equality or lam * steepest > ROUNDING * reach
    if pushing and slope == 0.0:
        new, released = nearest_release(x, w, value, lam)
        if not equality and new <= 0.0:
            # The row itself loses its multiplier first.
            new = 0.0
            released = -1
            pushing = False
        if released >= 0 or not pushing:
            lam = new
            for j in range(n):
                y[j] = x[j] - lam * w[j]
        if released >= 0:
            y[released] = value[released]
    if not pushing:
        lam = 0.0
    tolerance = active_tol * size
    inside = 0.0
    inside_weighted = 0.0
    passing = 0.0
    weak = 0.0
    # Selections instead of branches, and minima in passes of their own: this loop vectorises.
    for j in range(n):
        t = y[j]
        v = value[j]
        low = lower[j]
        to_lower = v - low
        to_upper = upper[j] - v
        push = abs(t - v)
        noise = ROUNDING * (abs(x[j]) + abs(lam * w[j]))
        on_lower = 1.0 if to_lower <= tolerance else 0.0
        on_upper = 1.0 if to_upper <= tolerance else 0.0
        active = max(on_lower, on_upper)
        held = 1.0 if push > noise else 0.0
        weighted = 1.0 if w[j] != 0.0 else 0.0
        side = _PUSHED_LOWER if t < low else _PUSHED_UPPER
        code[1 + j] = int(ACTIVE_LOWER * on_lower + ACTIVE_UPPER * on_upper + held * side)
        gap_lower = to_lower if to_lower > tolerance else np.inf
        gap_upper = to_upper if to_upper > tolerance else np.inf
        y[j] = v
        value[j] = min(gap_lower, gap_upper)
        spare[j] = push if push > noise else np.inf
        inside += 1.0 - active
        inside_weighted += (1.0 - active) * weighted
        passing += 1.0 - held
        weak += active * (1.0 - held)
    row = 0
    if pushing:
        row = _ROW
    elif equality or row_active:
        row = ACTIVE_UPPER
        weak += 1.0
    code[0] = row
    least = smallest(spare)
    if pushing and not equality:
        least = min(least, lam * steepest)
    unit = 1.0 / reach if reach > 0.0 else 1.0
    info[INFO_RANK_ACTIVE] = int(inside) - (1 if row != 0 and inside_weighted > 0.0 else 0)
    info[INFO_RANK_WORKING] = int(passing) - (1 if pushing else 0)
    info[INFO_RANK_SUPPORT] = int(passing) - (1 if pushing else 0)
    info[INFO_WEAK] = int(weak)
    margin[0] = smallest(value) * unit
    margin[1] = least * unit
    return lam


@device_function
def row_project(
    x, w, lower, upper, total, equality, active_tol, y, code, dual, info, margin, work
):  # fmt: skip
    """y = clip(x - lambda w, lower, upper) with w'y = total (or <=); scratch work[0:2n]."""
    n = x.shape[0]
    if not bounds_are_in_order(lower, upper):
        return PRIMAL_INFEASIBLE
    lam = 0.0
    shift = 0.0
    passes = 0
    row_active = True
    row_slack = np.inf
    solve = True
    if not equality:
        level = 0.0
        size = abs(total)
        for j in range(n):
            value = min(max(x[j], lower[j]), upper[j])
            y[j] = x[j]
            level += w[j] * value
            size += abs(w[j] * value)
        solve = level > total
        if not solve:
            row_slack = (total - level) / size if size > 0.0 else 0.0
            row_active = row_slack <= active_tol
    if solve:
        square = 0.0
        level = 0.0
        for j in range(n):
            level += w[j] * x[j]
            square += w[j] * w[j]
        lam = (level - total) / square
        lo = -np.inf
        if not equality:
            lo = 0.0
            lam = max(lam, 0.0)
        lam, passes, verdict = row_root(x, w, lower, upper, total, lam, lo, np.inf)
        if verdict == ROOT_STEPS:
            return MAX_STEPS
        if verdict == ROOT_NONE:
            return PRIMAL_INFEASIBLE
        # Stored: across memory the compiler cannot undo the subtraction that makes it exact.
        for j in range(n):
            y[j] = x[j] - lam * w[j]
        shift, more, verdict = row_root(y, w, lower, upper, total, 0.0, -np.inf, np.inf)
        passes += more
        if verdict == ROOT_STEPS:
            return MAX_STEPS
    info[INFO_STEPS] = passes
    dual[0] = row_finish(
        x, w, lower, upper, lam, shift, equality, row_active, active_tol, y, code, info, margin,
        work,
    )  # fmt: skip
    if not row_active:
        margin[0] = min(margin[0], row_slack)
    return SOLVED
