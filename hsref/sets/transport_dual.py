r"""The dual of projection onto transport-like sets: sweeps, then Newton's method.

With the bounds eliminated, a point is determined by its potentials,

.. math:: y_{ij} = \max(a_{ij} - U_i - V_j, 0),

and the row and column equations say that the marginals of y are met. The multipliers are
u_i = U_i - U_m and v_j = V_j - V_n, where U_m and V_n are the potentials of the merged nodes of
rows and columns whose inequality is slack (:mod:`.transport_laplacian`); w = U_m + V_n is the
multiplier of the total. In balanced sets U_m = V_n = 0.

The dual is concave, piecewise quadratic and smooth. Its maximisation takes

1. a few *sweeps*: each row, then each column, then the total, is moved to (nearly) its own root, a
   monotone piecewise linear equation solved by Newton's method from the left;
2. *Newton* steps on the current piece. The step solves the small quadratic program whose
   constraint keeps the multipliers of inequalities non-negative, by block pivoting; it ends in an
   exact line search on a monotone piecewise linear function;
3. a finite active-set finish (:mod:`.transport_finish`) that starts from wherever this ends, so
   that nothing here needs to be exact, or even to converge.

The rows are the larger side; the caller transposes if need be.
"""

from __future__ import annotations

from collections import namedtuple

from .._jit import device_function
from .transport_laplacian import BALANCED, TOTALLED, factorise, laplacian_solve

Problem = namedtuple("Problem", "kind m n a r c total size goal")
"""Data: entries a (m*n), row and column marginals, total; the sizes of entries of a and of y."""
Dual = namedtuple("Dual", "pu pv du dv sum_r sum_c rest_r rest_c fix_r fix_c")
"""Potentials, their step, sums of y, residuals, and steps fixed by block pivoting; m+1 or n+1."""

NEWTON_STEPS = 60
PIVOT_PASSES = 12
LINE_STEPS = 24
LOOSE = 1.0


@device_function
def row_reach(row, other, shift):
    """Return the sum and the number of the positive entries of row - other - shift."""
    above = 0.0
    count = 0.0
    for j in range(row.shape[0]):
        t = row[j] - other[j] - shift
        # Multiplied, not branched on: signs are random, and mispredictions cost more than sums.
        on = (t > 0.0) * 1.0
        above += on * t
        count += on
    return above, count


@device_function
def row_top(row, other):
    """Return the largest entry of row - other."""
    top = row[0] - other[0]
    for j in range(1, row.shape[0]):
        top = max(top, row[j] - other[j])
    return top


@device_function
def add_reach(row, other, shift, above, count):
    """Add the positive part of row - other - shift to above, and its indicator to count."""
    for j in range(row.shape[0]):
        t = row[j] - other[j] - shift
        on = (t > 0.0) * 1.0
        above[j] += on * t
        count[j] += on


@device_function
def add_positive(row, other, shift, above):
    """Add the positive part of row - other - shift to above; return its sum."""
    whole = 0.0
    for j in range(row.shape[0]):
        t = row[j] - other[j] - shift
        t *= (t > 0.0) * 1.0
        whole += t
        above[j] += t
    return whole


@device_function
def sweep_rows(problem, dual):
    """Move each row's potential by a Newton step to the root of its own equation.

    The equation is convex and decreasing in the potential, so that from the second sweep on the
    step stays on the left of the root and never empties the row. Inequalities keep their
    multiplier non-negative.
    """
    kind, m, n, a, r, c, total, size, goal = problem
    pu = dual.pu
    pv = dual.pv
    for i in range(m):
        row = a[i * n : (i + 1) * n]
        above, count = row_reach(row, pv, pu[i])
        if count > 0.0:
            shift = pu[i] + (above - r[i]) / count
        else:
            shift = row_top(row, pv) - r[i]
        pu[i] = shift if kind == BALANCED else max(shift, pu[m])


@device_function
def sweep_columns(problem, dual):
    """Do the same for all columns side by side."""
    kind, m, n, a, r, c, total, size, goal = problem
    pu = dual.pu
    pv = dual.pv
    above = dual.sum_c
    count = dual.rest_c
    for j in range(n):
        above[j] = 0.0
        count[j] = 0.0
    for i in range(m):
        add_reach(a[i * n : (i + 1) * n], pv, pu[i], above, count)
    for j in range(n):
        if count[j] > 0.0:
            pv[j] += (above[j] - c[j]) / count[j]
        else:
            top = a[j] - pu[0]
            for i in range(1, m):
                top = max(top, a[i * n + j] - pu[i])
            pv[j] = top - c[j]
    if kind != BALANCED:
        for j in range(n):
            pv[j] = max(pv[j], pv[n])


@device_function
def sweep_total(problem, dual):
    """Shift all row potentials together by a Newton step for the equation of the total."""
    kind, m, n, a, r, c, total, size, goal = problem
    pu = dual.pu
    pv = dual.pv
    above = 0.0
    count = 0.0
    for i in range(m):
        one, two = row_reach(a[i * n : (i + 1) * n], pv, pu[i])
        above += one
        count += two
    if count > 0.0:
        shift = (above - total) / count
    else:
        shift = row_top(a[0:n], pv) - pu[0]
        for i in range(m):
            shift = max(shift, row_top(a[i * n : (i + 1) * n], pv) - pu[i])
        shift -= total
    for i in range(m + 1):
        pu[i] += shift


@device_function
def entry_sums(problem, dual, step):
    """Row and column sums of y at the potentials moved by `step`; writes sum_r, sum_c."""
    kind, m, n, a, r, c, total, size, goal = problem
    pu, pv, du, dv, sum_r, sum_c, rest_r, rest_c, fix_r, fix_c = dual
    # rest_c serves as the moved column potentials: it is rebuilt before it is read again.
    for j in range(n):
        rest_c[j] = pv[j] + step * dv[j]
        sum_c[j] = 0.0
    for i in range(m):
        sum_r[i] = add_positive(a[i * n : (i + 1) * n], rest_c, pu[i] + step * du[i], sum_c)


@device_function
def collect_support(problem, dual, graph):
    """Free entries {a > U + V} by rows into graph; returns 1 if they are those listed before."""
    kind, m, n, a, r, c, total, size, goal = problem
    ptr = graph.ptr
    idx = graph.idx
    pu = dual.pu
    pv = dual.pv
    same = 1
    k = 0
    for i in range(m):
        if ptr[i] != k:
            same = 0
        ptr[i] = k
        row = a[i * n : (i + 1) * n]
        own = pu[i]
        for j in range(n):
            on = int(row[j] - pv[j] - own > 0.0)
            old = idx[k]
            same &= 1 - (on & int(old != j))
            idx[k] = old + on * (j - old)
            k += on
    if ptr[m] != k:
        same = 0
    ptr[m] = k
    return same


@device_function
def residuals(problem, dual, graph):
    """Sums minus marginals into rest_r, rest_c (merged nodes included); returns the largest.

    Only violations count on inequalities outside K.
    """
    kind, m, n, a, r, c, total, size, goal = problem
    pu, pv, du, dv, sum_r, sum_c, rest_r, rest_c, fix_r, fix_c = dual
    keep_r = graph.keep_r
    keep_c = graph.keep_c
    worst = 0.0
    rest_r[m] = 0.0
    rest_c[n] = 0.0
    left_r = -total
    left_c = -total
    sum_all = 0.0
    for i in range(m):
        rest_r[i] = sum_r[i] - r[i]
        sum_all += sum_r[i]
        if kind == BALANCED or keep_r[i] != 0:
            worst = max(worst, abs(rest_r[i]))
            left_r += r[i]
        else:
            left_r += sum_r[i]
            worst = max(worst, rest_r[i])
    for j in range(n):
        rest_c[j] = sum_c[j] - c[j]
        if kind == BALANCED or keep_c[j] != 0:
            worst = max(worst, abs(rest_c[j]))
            left_c += c[j]
        else:
            left_c += sum_c[j]
            worst = max(worst, rest_c[j])
    if kind == TOTALLED:
        rest_r[m] = left_r
        rest_c[n] = left_c
        worst = max(worst, abs(sum_all - total))
    return worst


@device_function
def mark_kept(problem, dual, graph):
    """K = rows and columns with a positive multiplier; returns 1 if K is what the flags said."""
    kind, m, n, a, r, c, total, size, goal = problem
    if kind == BALANCED:
        return 1
    same = 1
    for i in range(m):
        keep = 1 if dual.pu[i] > dual.pu[m] else 0
        if keep != graph.keep_r[i]:
            graph.keep_r[i] = keep
            same = 0
    for j in range(n):
        keep = 1 if dual.pv[j] > dual.pv[n] else 0
        if keep != graph.keep_c[j]:
            graph.keep_c[j] = keep
            same = 0
    return same


@device_function
def pivot_step(problem, dual, graph, factor, mark, least):
    """Step of the quadratic model with non-negative multipliers, by block pivoting.

    K starts as equalities and positive multipliers (the flags), and violated rows. Kept nodes
    whose multiplier would turn negative leave (their step is fixed at minus the multiplier); nodes
    outside whose row the step would violate come in. Writes du, dv, keep_r, keep_c, factor;
    scratch rest, fix. Returns 1 if the passes ran out before the factor caught up with K.
    """
    kind, m, n, a, r, c, total, size, goal = problem
    pu, pv, du, dv, sum_r, sum_c, rest_r, rest_c, fix_r, fix_c = dual
    ptr = graph.ptr
    idx = graph.idx
    keep_r = graph.keep_r
    keep_c = graph.keep_c
    for i in range(m):
        if sum_r[i] > r[i]:
            keep_r[i] = 1
        fix_r[i] = 0.0
    for j in range(n):
        if sum_c[j] > c[j]:
            keep_c[j] = 1
        fix_c[j] = 0.0
    changed = 0
    for passes in range(PIVOT_PASSES):
        # Residuals of the model after the fixed steps.
        left_r = -total
        left_c = -total
        for i in range(m):
            rest_r[i] = sum_r[i] - r[i]
        for j in range(n):
            rest_c[j] = sum_c[j] - c[j]
        if passes > 0:
            for i in range(m):
                for p in range(ptr[i], ptr[i + 1]):
                    moved = fix_r[i] + fix_c[idx[p]]
                    rest_r[i] -= moved
                    rest_c[idx[p]] -= moved
        for i in range(m):
            left_r += r[i] if keep_r[i] != 0 else rest_r[i] + r[i]
        for j in range(n):
            left_c += c[j] if keep_c[j] != 0 else rest_c[j] + c[j]
        rest_r[m] = left_r if kind == TOTALLED else 0.0
        rest_c[n] = left_c if kind == TOTALLED else 0.0
        factorise(graph, factor, mark)
        laplacian_solve(graph, factor, rest_r, rest_c, 1.0, LOOSE, least, du, dv)
        # What the step leaves of the residuals, to see which rows it would violate.
        for i in range(m):
            own = du[i]
            for p in range(ptr[i], ptr[i + 1]):
                moved = own + dv[idx[p]]
                rest_r[i] -= moved
                rest_c[idx[p]] -= moved
        changed = 0
        last = passes == PIVOT_PASSES - 1
        for i in range(m):
            held = pu[i] - pu[m]
            if keep_r[i] != 0:
                if held + du[i] - du[m] < 0.0:
                    keep_r[i] = 0
                    fix_r[i] = -held
                    changed = 1
            elif rest_r[i] > 1e-13 * r[i] and not last:
                keep_r[i] = 1
                fix_r[i] = 0.0
                changed = 1
        for j in range(n):
            held = pv[j] - pv[n]
            if keep_c[j] != 0:
                if held + dv[j] - dv[n] < 0.0:
                    keep_c[j] = 0
                    fix_c[j] = -held
                    changed = 1
            elif rest_c[j] > 1e-13 * c[j] and not last:
                keep_c[j] = 1
                fix_c[j] = 0.0
                changed = 1
        if changed == 0:
            break
    for i in range(m):
        du[i] += fix_r[i]
    for j in range(n):
        dv[j] += fix_c[j]
    return changed


@device_function
def longest_step(problem, dual):
    """Largest step that keeps the multipliers of inequalities non-negative."""
    kind, m, n, a, r, c, total, size, goal = problem
    pu, pv, du, dv, sum_r, sum_c, rest_r, rest_c, fix_r, fix_c = dual
    longest = 1e30
    if kind == BALANCED:
        return longest
    for i in range(m):
        move = du[i] - du[m]
        if move < 0.0 and pu[i] - pu[m] + longest * move < 0.0:
            longest = (pu[i] - pu[m]) / -move
    for j in range(n):
        move = dv[j] - dv[n]
        if move < 0.0 and pv[j] - pv[n] + longest * move < 0.0:
            longest = (pv[j] - pv[n]) / -move
    return longest


@device_function
def line_slope(problem, dual, step):
    """Derivative of the dual along the step, up to sign: <d, sums(step)> - <d, marginals>."""
    kind, m, n, a, r, c, total, size, goal = problem
    entry_sums(problem, dual, step)
    slope = -total * (dual.du[m] + dual.dv[n]) if kind == TOTALLED else 0.0
    for i in range(m):
        slope += dual.du[i] * (dual.sum_r[i] - r[i]) + r[i] * dual.du[m]
    for j in range(n):
        slope += dual.dv[j] * (dual.sum_c[j] - c[j]) + c[j] * dual.dv[n]
    return slope


@device_function
def line_search(problem, dual, slope0):
    """Step at which the slope has fallen to a third: bracketed regula falsi from step 1."""
    longest = longest_step(problem, dual)
    low = 0.0
    low_slope = slope0
    high = -1.0
    high_slope = 0.0
    step = min(1.0, longest)
    for trial in range(LINE_STEPS):
        slope = line_slope(problem, dual, step)
        if abs(slope) <= 0.3 * slope0 or trial == LINE_STEPS - 1:
            break
        if slope > 0.0:
            if step >= longest:
                break
            gain = low_slope - slope
            ahead = step + slope * (step - low) / gain if gain > 0.0 else 8.0 * step
            low = step
            low_slope = slope
            if high < 0.0:
                step = min(min(max(ahead, 2.0 * step), 8.0 * step), longest)
                continue
            high_slope *= 0.5
        else:
            low_slope *= 0.5 if high >= 0.0 else 1.0
            high = step
            high_slope = slope
        step = low + (high - low) * low_slope / (low_slope - high_slope)
    return step


@device_function
def newton(problem, dual, graph, factor, mark, most):
    """Maximise the dual from the given potentials; returns (steps, whether factor is current).

    Leaves the potentials, the graph of their support, and the factor of the last step.
    """
    kind, m, n, a, r, c, total, size, goal = problem
    pu, pv, du, dv, sum_r, sum_c, rest_r, rest_c, fix_r, fix_c = dual
    for k in range(m + 1):
        du[k] = 0.0
    for k in range(n + 1):
        dv[k] = 0.0
    entry_sums(problem, dual, 0.0)
    graph.ptr[m] = -1
    # An imbalance at rounding level is none: its direction leaves the dual unchanged, and a line
    # search along it would wander off.
    least = 1e-12 * (goal + size)
    same = 0
    stale = 0
    for steps in range(most):
        same = collect_support(problem, dual, graph)
        same *= mark_kept(problem, dual, graph) * (1 - stale)
        worst = residuals(problem, dual, graph)
        if worst <= 1e-14 * (goal + size) or (same == 1 and worst <= 1e-9 * goal):
            return steps, same
        if kind == BALANCED:
            if same == 0:
                factorise(graph, factor, mark)
            laplacian_solve(graph, factor, rest_r, rest_c, 1.0, LOOSE, least, du, dv)
        else:
            stale = pivot_step(problem, dual, graph, factor, mark, least)
        slope0 = 0.0
        if kind == TOTALLED:
            slope0 = -total * (du[m] + dv[n])
        for i in range(m):
            slope0 += du[i] * (sum_r[i] - r[i]) + r[i] * du[m]
        for j in range(n):
            slope0 += dv[j] * (sum_c[j] - c[j]) + c[j] * dv[n]
        if not slope0 > 0.0:
            return steps, same
        step = line_search(problem, dual, slope0)
        for k in range(m + 1):
            pu[k] += step * du[k]
        for k in range(n + 1):
            pv[k] += step * dv[k]
        if kind != BALANCED:
            # Rounding must not turn a multiplier that reached zero into a tiny negative one.
            for i in range(m):
                pu[i] = max(pu[i], pu[m])
            for j in range(n):
                pv[j] = max(pv[j], pv[n])
    collect_support(problem, dual, graph)
    return most, 0
