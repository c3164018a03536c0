"""The compiled part of the turnover set; the mathematics stands in :mod:`hsref.sets.turnover`."""

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
    MASK_ACTIVE,
    MASK_LOWER,
    MASK_SUPPORT,
    MAX_STEPS,
    PRIMAL_INFEASIBLE,
    SOLVED,
    SUPPORT_LOWER,
    SUPPORT_UPPER,
    WORKING_LOWER,
    WORKING_UPPER,
)
from .._jit import device_function
from .one_row import CONSISTENT_TOL, ROOT_STEPS, ROUNDING, largest, row_root, threshold_root

_ROW = ACTIVE_UPPER | WORKING_UPPER | SUPPORT_UPPER
_AT_ZERO = WORKING_LOWER | SUPPORT_LOWER
_AT_KINK = WORKING_UPPER | SUPPORT_UPPER
SOLD = 64
"""Code bit of an entry on the selling side."""


@device_function
def trade_root(t, lower, upper, ones, total):
    """Shift t so that clip(t, lower, upper) sums to `total`; return (shift, passes, verdict)."""
    lam = 0.0
    passes = 0
    verdict = 0
    for _ in range(2):
        step, more, verdict = row_root(t, ones, lower, upper, total, 0.0, -np.inf, np.inf)
        if verdict == ROOT_STEPS:
            return lam, passes, verdict
        for j in range(t.shape[0]):
            t[j] -= step
        lam += step
        passes += more
    return lam, passes, verdict


@device_function
def trade_release(t, lower, upper, noise, wanted):
    """Shift a threshold that holds every entry by `wanted`, or to where it releases one."""
    shift = wanted
    which = -1
    for j in range(t.shape[0]):
        if lower[j] < upper[j]:
            below = t[j] <= lower[j] + noise
            above = t[j] >= upper[j] - noise
            if not below and not above:
                return 0.0
            # A smaller threshold raises t and releases entries held below; a larger one, above.
            if below and wanted < 0.0 and max(lower[j] - t[j], 0.0) <= -shift:
                shift = -max(lower[j] - t[j], 0.0)
                which = j
            elif above and wanted > 0.0 and max(t[j] - upper[j], 0.0) <= shift:
                shift = max(t[j] - upper[j], 0.0)
                which = j
    for j in range(t.shape[0]):
        # Rounding must not loosen an entry that stays held.
        if t[j] - lower[j] <= upper[j] - t[j]:
            t[j] = min(t[j] - shift, lower[j])
        else:
            t[j] = max(t[j] - shift, upper[j])
    if which >= 0:
        t[which] = lower[which] if wanted < 0.0 else upper[which]
    return shift


@device_function
def turnover_rank(code, n, mask):
    """Return the rank of V under `mask`."""
    near = (code[n + 1] & mask) != 0
    mask = mask if near else mask & MASK_LOWER
    bought = 0
    sold = 0
    for j in range(n):
        if (code[j] & mask) == 0:
            if near and (code[j] & SOLD) != 0:
                sold += 1
            else:
                bought += 1
    return max(bought - 1, 0) + max(sold - 1, 0)


@device_function
def turnover_project(x, data, shared, active_tol, y, code, dual, info, margin, work, iwork):
    """y = max(0, p + soft(x - p - nu, theta)), data = [p, limit]; scratch work[0:5n]."""
    n = x.shape[0]
    p = data[:n]
    limit = data[n]
    ones = shared[0]
    buy = work[:n]
    sell = work[n : 2 * n]
    least_buy = work[2 * n : 3 * n]
    most_sell = work[3 * n : 4 * n]
    bound = work[4 * n : 5 * n]
    held = 0.0
    forced = 0.0
    size = 1.0 + abs(limit)
    for j in range(n):
        held += p[j]
        size += abs(p[j])
        least_buy[j] = max(-p[j], 0.0)
        most_sell[j] = max(p[j], 0.0)
        forced += least_buy[j]
    bought = 0.5 * (limit + 1.0 - held)
    sold = 0.5 * (limit - 1.0 + held)
    slack = CONSISTENT_TOL * size
    if not (limit >= 0.0 and bought >= forced - slack and sold >= -slack):
        return PRIMAL_INFEASIBLE
    # First without the limit.
    top = x[0]
    for j in range(n):
        top = max(top, x[j])
    for j in range(n):
        y[j] = x[j] - top
    tau, passes = threshold_root(y, 1.0)
    distance = 0.0
    for j in range(n):
        y[j] -= tau
        distance += abs(max(y[j], 0.0) - p[j])
    reach = max(largest(x), largest(p))
    noise = ROUNDING * reach
    nu = tau + top
    theta = 0.0
    if distance > limit:
        for j in range(n):
            buy[j] = x[j] - p[j]
            sell[j] = p[j] - x[j]
            bound[j] = np.inf
        alpha, more, verdict = trade_root(buy, least_buy, bound, ones, max(bought, forced))
        passes += more
        if verdict == ROOT_STEPS:
            return MAX_STEPS
        for j in range(n):
            bound[j] = 0.0
        minus_beta, more, verdict = trade_root(sell, bound, most_sell, ones, max(sold, 0.0))
        passes += more
        if verdict == ROOT_STEPS:
            return MAX_STEPS
        for j in range(n):
            bound[j] = np.inf
        # A side without a free entry has an interval of thresholds. Go to its end next to where
        # the two meet (theta = 0): it releases an entry, so that the rows with multipliers are
        # independent. Rounding alone can make them pass each other; the same step mends that.
        alpha += trade_release(buy, least_buy, bound, noise, -(alpha + minus_beta))
        for j in range(n):
            bound[j] = 0.0
        minus_beta += trade_release(sell, bound, most_sell, noise, -(alpha + minus_beta))
        nu = 0.5 * (alpha - minus_beta)
        theta = 0.5 * (alpha + minus_beta)
    pushing = theta > noise
    theta = theta if pushing else 0.0
    gap = np.inf
    least = theta if pushing else np.inf
    weak = 0
    biggest = 0.0
    for j in range(n):
        if distance > limit:
            a = max(buy[j], least_buy[j])
            b = min(max(sell[j], 0.0), most_sell[j])
            value = p[j] + a - b
            if pushing:
                push = 0.0
                bits = 0
                if buy[j] >= least_buy[j] - noise:
                    bits = 0
                elif p[j] < 0.0:
                    bits = _AT_ZERO
                    push = least_buy[j] - buy[j]
                elif p[j] == 0.0 or sell[j] < -noise:
                    bits = _AT_KINK
                    push = min(-buy[j], -sell[j] if p[j] > 0.0 else np.inf)
                else:
                    bits = SOLD
                    if sell[j] > most_sell[j] + noise:
                        bits |= _AT_ZERO
                        push = sell[j] - most_sell[j]
                code[j] = bits
            else:
                push = nu - x[j] if value <= 0.0 else 0.0
                code[j] = _AT_ZERO if push > noise else 0
        else:
            value = max(y[j], 0.0)
            push = -y[j] if y[j] < 0.0 else 0.0
            code[j] = _AT_ZERO if push > noise else 0
        least = min(least, push if push > noise else np.inf)
        y[j] = value
        biggest = max(biggest, max(value, abs(p[j])))
    tolerance = active_tol * biggest
    near = pushing or limit - distance <= active_tol * size
    if not near:
        gap = limit - distance
    for j in range(n):
        bits = code[j]
        away = abs(y[j] - p[j])
        if not pushing and y[j] < p[j]:
            bits |= SOLD
        if y[j] <= tolerance:
            bits |= ACTIVE_LOWER
        else:
            gap = min(gap, y[j])
        if near and away <= tolerance:
            bits |= ACTIVE_UPPER
        elif near:
            gap = min(gap, away)
        weak += 1 if (bits & MASK_ACTIVE) != 0 and (bits & MASK_SUPPORT) == 0 else 0
        code[j] = bits
    code[n] = _ROW
    code[n + 1] = _ROW if pushing else (ACTIVE_UPPER if near else 0)
    dual[0] = nu
    dual[1] = theta
    unit = 1.0 / reach if reach > 0.0 else 1.0
    info[INFO_STEPS] = passes
    info[INFO_RANK_ACTIVE] = turnover_rank(code, n, MASK_ACTIVE)
    info[INFO_RANK_SUPPORT] = turnover_rank(code, n, MASK_SUPPORT)
    info[INFO_RANK_WORKING] = info[INFO_RANK_SUPPORT]
    info[INFO_WEAK] = weak + (1 if near and not pushing else 0)
    margin[0] = gap * unit
    margin[1] = least * unit
    return SOLVED


@device_function
def turnover_hs(g, y, code, tape_f, tape_i, data, shared, mask, out, work, iwork):
    """out = g minus its mean over what is bought, and over what is sold; 0 where held."""
    n = g.shape[0]
    near = (code[n + 1] & mask) != 0
    mask = mask if near else mask & MASK_LOWER
    bought = 0.0
    sold = 0.0
    buys = 0
    sells = 0
    for j in range(n):
        free = (code[j] & mask) == 0
        side = near and (code[j] & SOLD) != 0
        bought += g[j] if free and not side else 0.0
        buys += 1 if free and not side else 0
        sold += g[j] if free and side else 0.0
        sells += 1 if free and side else 0
    # A single free entry is fixed by its total: exactly 0, not a rounded difference.
    bought = bought / buys if buys > 1 else 0.0
    sold = sold / sells if sells > 1 else 0.0
    for j in range(n):
        side = near and (code[j] & SOLD) != 0
        alive = (code[j] & mask) == 0 and (sells if side else buys) > 1
        out[j] = g[j] - (sold if side else bought) if alive else 0.0
