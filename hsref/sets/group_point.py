"""The point routines of the group budget; the mathematics stands in its module.

See :mod:`hsref.sets.group_budget`, and :mod:`hsref.sets.group_root` for the search that is used.
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
from .group_root import group_root, groups_are_feasible
from .one_row import ROOT_FOUND, ROOT_STEPS, ROUNDING, largest, row_root, smallest

GIVE_UP_TOL = 1e-9
"""Relative distance from the total above which a sample is refused."""
TINIEST = 5e-324
_ROW = ACTIVE_UPPER | WORKING_UPPER | SUPPORT_UPPER
_PUSHED_LOWER = WORKING_LOWER | SUPPORT_LOWER
_PUSHED_UPPER = WORKING_UPPER | SUPPORT_UPPER


@device_function
def shift_held(t, cap, begin, end, step):
    """Shift entries that are all held, and stay held: rounding must not let one come loose."""
    for k in range(begin, end):
        if t[k] <= 0.0:
            t[k] = min(t[k] - step, 0.0)
        else:
            t[k] = max(t[k] - step, cap[k])


@device_function
def release_group(t, cap, begin, end, push):
    """Return how far a group's multiplier `push` can go towards 0 before an entry is released.

    Entries t of the segment are shifted with it; the one released sits on its bound exactly.
    """
    step = -push
    which = -1
    for k in range(begin, end):
        over = t[k] - min(max(t[k], 0.0), cap[k])
        # Less push lifts the entries: those held at 0 are released. More, those at the cap.
        # Signs are compared, not a product: that of two small numbers is 0.
        if over != 0.0 and (over > 0.0) == (push < 0.0) and abs(over) < abs(step):
            step = over
            which = k
    shift_held(t, cap, begin, end, step)
    if which >= 0:
        t[which] = 0.0 if push > 0.0 else cap[which]
    return push + step if which >= 0 else 0.0


@device_function
def release_rest(t, cap, starts, push):
    """Return the smallest step of nu that releases an entry or a group; applies it to t, push."""
    best = np.inf
    step = 0.0
    entry = -1
    group = -1
    for g in range(starts.shape[0] - 1):
        if push[g] != 0.0:
            if abs(push[g]) < best:
                best = abs(push[g])
                step = push[g]
                group = g
                entry = -1
            continue
        for k in range(starts[g], starts[g + 1]):
            over = t[k] - min(max(t[k], 0.0), cap[k])
            if abs(over) < best:
                best = abs(over)
                step = over
                entry = k
                group = -1
    for g in range(starts.shape[0] - 1):
        if push[g] != 0.0:
            push[g] -= step
        else:
            shift_held(t, cap, starts[g], starts[g + 1], step)
    if group >= 0:
        push[group] = 0.0
    if entry >= 0:
        t[entry] = 0.0 if step < 0.0 else cap[entry]
    return step


@device_function
def group_slots(code, groups, mask, slot):
    """Write for each group its number if its total is held under `mask`, else 0: the rest."""
    slot[0] = 0
    for g in range(1, groups + 1):
        held = ((code[g - 1] | code[groups + g - 1]) & mask) != 0
        slot[g] = g if held else 0


@device_function
def group_solve(t, cap, starts, lower, upper, total, push, ones, zeros):
    """Turn sorted t = x into x - nu - push_g; writes t, push; returns (nu, steps, verdict)."""
    n = t.shape[0]
    mean = 0.0
    for k in range(n):
        mean += t[k]
    nu, steps, verdict = group_root(t, cap, starts, lower, upper, total, (mean - total) / n)
    if verdict == ROOT_STEPS:
        return nu, steps, verdict
    # Twice, the second time near 0: what cancelled in the first search is recovered.
    for k in range(n):
        t[k] -= nu
    shift, more, verdict = group_root(t, cap, starts, lower, upper, total, 0.0)
    if verdict == ROOT_STEPS:
        return nu, steps, verdict
    for k in range(n):
        t[k] -= shift
    nu += shift
    steps += more
    push[0] = 0.0
    for g in range(1, starts.shape[0] - 1):
        push[g] = 0.0
        begin = starts[g]
        end = starts[g + 1]
        got = 0.0
        for k in range(begin, end):
            got += min(max(t[k], 0.0), cap[k])
        target = min(max(got, lower[g - 1]), upper[g - 1])
        if target != got:
            for _ in range(2):
                shift, more, verdict = row_root(
                    t[begin:end], ones[begin:end], zeros[begin:end], cap[begin:end], target, 0.0,
                    -np.inf, np.inf,
                )  # fmt: skip
                if verdict == ROOT_STEPS:
                    return nu, steps, verdict
                for k in range(begin, end):
                    t[k] -= shift
                push[g] += shift
                steps += more
    return nu, steps, ROOT_FOUND


@device_function
def group_independent(t, cap, starts, push, noise):
    """Move multipliers so that the rows with one are independent; writes t, push; returns step."""
    rest = 0
    for g in range(starts.shape[0] - 1):
        if abs(push[g]) <= noise:
            push[g] = 0.0
        free = 0
        for k in range(starts[g], starts[g + 1]):
            over = t[k] - min(max(t[k], 0.0), cap[k])
            free += 1 if abs(over) <= noise else 0
        if push[g] != 0.0 and free == 0:
            push[g] = release_group(t, cap, starts[g], starts[g + 1], push[g])
        if push[g] == 0.0:
            rest += free
    return release_rest(t, cap, starts, push) if rest == 0 else 0.0


@device_function
def group_project(x, data, shared, active_tol, y, code, dual, info, margin, work, iwork):
    """y = clip(x - nu - push_g, 0, cap); scratch work[0:4n + G + 1]."""
    order, starts, ones, zeros = shared
    n = x.shape[0]
    groups = starts.shape[0] - 2
    lower = data[:groups]
    upper = data[groups : 2 * groups]
    total = data[2 * groups]
    one_cap = data.shape[0] == 2 * groups + 2
    t = work[:n]
    cap = work[n : 2 * n]
    push = work[2 * n : 2 * n + groups + 1]
    for k in range(n):
        t[k] = x[order[k]]
        cap[k] = data[2 * groups + 1 + (0 if one_cap else order[k])]
    if not groups_are_feasible(cap, starts, lower, upper, total):
        return PRIMAL_INFEASIBLE
    reach = largest(x)
    nu, steps, verdict = group_solve(t, cap, starts, lower, upper, total, push, ones, zeros)
    if verdict == ROOT_STEPS:
        return MAX_STEPS
    noise = ROUNDING * (reach + abs(nu))
    nu += group_independent(t, cap, starts, push, noise)
    info[INFO_STEPS] = steps
    whole, size = group_finish(
        t, cap, order, starts, lower, upper, push, nu, noise, reach, active_tol, y, code, dual,
        info, margin, work[2 * n + groups + 1 :],
    )  # fmt: skip
    # No search is trusted to have met the total.
    reached = abs(whole - total) <= GIVE_UP_TOL * (abs(total) + size) + n * TINIEST
    return SOLVED if reached else MAX_STEPS


@device_function
def group_finish(
    t, cap, order, starts, lower, upper, push, nu, noise, reach, active_tol, y, code, dual,
    info, margin, work,
):  # fmt: skip
    """Write the record from t = x - nu - push_g, sorted; returns (sum y, max y).

    Scratch work[0:2n].
    """
    n = t.shape[0]
    groups = lower.shape[0]
    base = 2 * groups + 1
    flag = work[:n]
    gap = work[n : 2 * n]
    for k in range(n):
        flag[k] = min(max(t[k], 0.0), cap[k])
    size = largest(flag)
    reach = max(reach, size)
    tolerance = active_tol * size
    weak = 0.0
    # Selections instead of branches, so that this loop vectorises; scattered afterwards.
    for k in range(n):
        v = flag[k]
        over = t[k] - v
        above = cap[k] - v
        push_size = abs(over)
        on_lower = 1.0 if v <= tolerance else 0.0
        on_upper = 1.0 if above <= tolerance else 0.0
        active = max(on_lower, on_upper)
        held = 1.0 if push_size > noise else 0.0
        side = _PUSHED_LOWER if over < 0.0 else _PUSHED_UPPER
        gap_lower = v if v > tolerance else np.inf
        gap_upper = above if above > tolerance else np.inf
        gap[k] = min(gap_lower, gap_upper)
        cap[k] = push_size if push_size > noise else np.inf
        t[k] = v
        flag[k] = ACTIVE_LOWER * on_lower + ACTIVE_UPPER * on_upper + held * side
        weak += active * (1.0 - held)
    for k in range(n):
        y[order[k]] = t[k]
        code[base + order[k]] = int(flag[k])
    slack = smallest(gap)
    least = smallest(cap)
    code[base - 1] = _ROW
    dual[base - 1] = nu
    whole = 0.0
    rest_inside = 0.0
    rest_passing = 0.0
    rank_active = 0.0
    rank_support = 0.0
    for g in range(groups + 1):
        got = 0.0
        inside = 0.0
        passing = 0.0
        for k in range(starts[g], starts[g + 1]):
            got += t[k]
            inside += 1.0 if flag[k] == 0.0 else 0.0
            passing += 1.0 if flag[k] < WORKING_LOWER else 0.0
        whole += got
        near = False
        pushed = False
        if g > 0:
            for low in range(2):
                side = lower[g - 1] if low == 1 else upper[g - 1]
                force = -push[g] if low == 1 else push[g]
                room = got - side if low == 1 else side - got
                row = (groups if low == 1 else 0) + g - 1
                bits = 0
                if force > 0.0:
                    bits = _ROW
                    least = min(least, force)
                    pushed = True
                elif room < np.inf and room <= active_tol * (abs(side) + size):
                    bits = ACTIVE_UPPER
                    weak += 1.0
                else:
                    slack = min(slack, room)
                near = near or bits != 0
                code[row] = bits
                dual[row] = max(force, 0.0)
        if near:
            rank_active += max(inside - 1.0, 0.0)
        else:
            rest_inside += inside
        if pushed:
            rank_support += max(passing - 1.0, 0.0)
        else:
            rest_passing += passing
    unit = 1.0 / reach if reach > 0.0 else 1.0
    info[INFO_RANK_ACTIVE] = int(rank_active + max(rest_inside - 1.0, 0.0))
    info[INFO_RANK_SUPPORT] = int(rank_support + max(rest_passing - 1.0, 0.0))
    info[INFO_RANK_WORKING] = info[INFO_RANK_SUPPORT]
    info[INFO_WEAK] = int(weak)
    margin[0] = slack * unit
    margin[1] = least * unit
    return whole, size


@device_function
def group_hs(g, y, code, tape_f, tape_i, data, shared, mask, out, work, iwork):
    """out = g minus its mean over each held group's free entries, and over those of the rest."""
    order = shared[0]
    starts = shared[1]
    groups = starts.shape[0] - 2
    base = 2 * groups + 1
    slot = iwork[: groups + 1]
    count = iwork[groups + 1 : 2 * groups + 2]
    group_slots(code, groups, mask, slot)
    for s in range(groups + 1):
        work[s] = 0.0
        count[s] = 0
    for s in range(groups + 1):
        # Summed in a register, segment by segment: adding to memory would wait for each store.
        total = 0.0
        size = 0
        for k in range(starts[s], starts[s + 1]):
            v = g[order[k]]
            free = (code[base + order[k]] & mask) == 0
            total += v if free else 0.0
            size += 1 if free else 0
        work[slot[s]] += total
        count[slot[s]] += size
    for s in range(groups + 1):
        size = count[slot[s]]
        # A single free entry is fixed by its sum: exactly 0, not a rounded difference.
        alive = size > 1
        mean = work[slot[s]] / size if alive else 0.0
        for k in range(starts[s], starts[s + 1]):
            v = g[order[k]] - mean
            free = (code[base + order[k]] & mask) == 0
            out[order[k]] = v if alive & free else 0.0
