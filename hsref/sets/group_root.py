r"""The compiled part of the group budget; the mathematics stands in :mod:`hsref.sets.group_budget`.

Entries are sorted by group once, when a set is built: segment 0 holds those in no group, segment g
those of group g - 1. All routines below work on sorted entries. With a threshold nu common to all,
group g contributes

.. math:: S_g(\nu) = \min(\max(T_g(\nu), lower_g), upper_g), \qquad
          T_g(\nu) = \sum_{i \in g} \min(\max(x_i - \nu, 0), cap_i),

and the sum of all S_g is piecewise linear and never increasing, so its root is found as in
:mod:`hsref.sets.one_row`: Newton steps on the piece at hand, and when one leaves the bracket a
relaxed step, which holds only the entries and the groups held on the whole bracket.
"""

from __future__ import annotations

import numpy as np

from .._jit import device_function
from .one_row import CONSISTENT_TOL, ROOT_FOUND, ROOT_STEPS


@device_function
def group_piece(x, cap, starts, lower, upper, nu):
    """Return (A, D): the sum of all S_g near `nu` is A - D nu."""
    level = 0.0
    slope = 0.0
    for g in range(starts.shape[0] - 1):
        held = 0.0
        free = 0.0
        for k in range(starts[g], starts[g + 1]):
            v = x[k]
            t = v - nu
            y = min(max(t, 0.0), cap[k])
            held += v if y == t else y
            free += 1.0 if y == t else 0.0
        if g > 0:
            total = held - nu * free
            if total > upper[g - 1]:
                held = upper[g - 1]
                free = 0.0
            elif total < lower[g - 1]:
                held = lower[g - 1]
                free = 0.0
        level += held
        slope += free
    return level, slope


@device_function
def group_relaxed(x, cap, starts, lower, upper, lo, hi):
    """Return (A, D) when only entries and groups held on the whole bracket are held."""
    level = 0.0
    slope = 0.0
    for g in range(starts.shape[0] - 1):
        held = 0.0
        free = 0.0
        most = 0.0
        least = 0.0
        for k in range(starts[g], starts[g + 1]):
            v = x[k]
            at_lo = v - lo
            at_hi = v - hi
            most += min(max(at_lo, 0.0), cap[k])
            least += min(max(at_hi, 0.0), cap[k])
            fixed = 0.0
            if at_lo <= 0.0:
                v = 0.0
                fixed = 1.0
            if at_hi >= cap[k]:
                v = cap[k]
                fixed = 1.0
            held += v
            free += 1.0 - fixed
        if g > 0 and least >= upper[g - 1]:
            held = upper[g - 1]
            free = 0.0
        elif g > 0 and most <= lower[g - 1]:
            held = lower[g - 1]
            free = 0.0
        level += held
        slope += free
    return level, slope


@device_function
def group_best_end(x, cap, starts, lower, upper, total, nu, lo, hi):
    """Return whichever of `nu` and the finite ends of the bracket comes nearest to the total."""
    best = nu
    least = np.inf
    for end in (nu, lo, hi):
        if abs(end) < np.inf:
            level = 0.0
            for g in range(starts.shape[0] - 1):
                got = 0.0
                for k in range(starts[g], starts[g + 1]):
                    got += min(max(x[k] - end, 0.0), cap[k])
                if g > 0:
                    got = min(max(got, lower[g - 1]), upper[g - 1])
                level += got
            if abs(level - total) < least:
                least = abs(level - total)
                best = end
    return best


@device_function
def group_root(x, cap, starts, lower, upper, total, nu):
    """Return (nu, passes, verdict): where the S_g sum to a `total` known to be reached."""
    lo = -np.inf
    hi = np.inf
    for passes in range(1, 8 * x.shape[0] + 8 * lower.shape[0] + 100):
        level, slope = group_piece(x, cap, starts, lower, upper, nu)
        excess = level - total
        new = nu
        if slope > 0.0:
            new = excess / slope
            if new == nu:
                return nu, passes, ROOT_FOUND
            if new > nu:
                lo = nu
            else:
                hi = nu
        elif excess > 0.0:
            lo = nu
        elif excess < 0.0:
            hi = nu
        else:
            return nu, passes, ROOT_FOUND
        if slope <= 0.0 or not (lo < new < hi):
            level, slope = group_relaxed(x, cap, starts, lower, upper, lo, hi)
            new = (level - total) / slope if slope > 0.0 else nu
            if slope <= 0.0 or not (lo < new < hi):
                # The bracket is as narrow as rounding lets it be, or an end that was left behind is
                # the root: where the sum bends its sign is that of a rounding error.
                nu = group_best_end(x, cap, starts, lower, upper, total, nu, lo, hi)
                return nu, passes, ROOT_FOUND
        nu = new
    return nu, passes, ROOT_STEPS


@device_function
def groups_are_feasible(cap, starts, lower, upper, total):
    """Return whether the caps, the limits of the groups and the total leave a point."""
    least = 0.0
    most = 0.0
    size = abs(total)
    for g in range(starts.shape[0] - 1):
        room = 0.0
        wrong = 0.0
        for k in range(starts[g], starts[g + 1]):
            room += cap[k]
            wrong += 0.0 if cap[k] >= 0.0 else 1.0
        if wrong > 0.0:
            return False
        if g > 0:
            low = lower[g - 1]
            up = upper[g - 1]
            if not low <= up or up < 0.0 or low > room + CONSISTENT_TOL * (room + abs(low)):
                return False
            room = min(room, up)
            least += max(low, 0.0)
        most += room
    slack = CONSISTENT_TOL * (abs(total) + least)
    return total >= least - slack and total <= most + CONSISTENT_TOL * (size + most)
