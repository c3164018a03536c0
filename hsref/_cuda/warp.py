"""Warp-cooperative variants: 32 threads share one sample, its entries in their registers.

With one thread a sample the threads of a warp read addresses a whole row apart, so a long row costs
a memory transaction an entry. Here a warp reads a row side by side, once, and the passes of the
threshold search run on registers. The arithmetic is that of the per-point routine, which stays the
reference; sums are taken in another order, so results agree to rounding.
"""

from __future__ import annotations

import types
from typing import Any

import numba
import numpy as np

from .._codes import (
    ACTIVE_LOWER,
    ACTIVE_UPPER,
    INFO_RANK_ACTIVE,
    INFO_RANK_SUPPORT,
    INFO_RANK_WORKING,
    INFO_SIZE,
    INFO_STEPS,
    INFO_WEAK,
    MAX_STEPS,
    NONFINITE,
    PRIMAL_INFEASIBLE,
    SOLVED,
    SUPPORT_LOWER,
    SUPPORT_UPPER,
    WORKING_LOWER,
    WORKING_UPPER,
)
from .._jit import DeviceFunction
from ..sets.simplex import simplex_hs, simplex_project
from .compat import cuda, simulated
from .kernels import FAILED

FULL = 0xFFFFFFFF
LANES = 32
SMALLEST = 64
"""Shorter rows leave too many lanes idle."""
LARGEST = 2048
"""Longer rows do not fit the registers of a warp."""

_EQ = ACTIVE_UPPER | WORKING_UPPER | SUPPORT_UPPER
_BINDING = ACTIVE_LOWER | WORKING_LOWER | SUPPORT_LOWER

# Bound anew for every row length and precision (see `cooperative`).
HELD = 1
REAL = numba.float64


def warp_sum(value):
    """Return the sum over the lanes of a warp, in every lane."""
    offset = 16
    while offset > 0:
        value += cuda.shfl_xor_sync(FULL, value, offset)
        offset //= 2
    return value


def warp_max(value):
    """Return the maximum over the lanes of a warp, in every lane."""
    offset = 16
    while offset > 0:
        value = max(value, cuda.shfl_xor_sync(FULL, value, offset))
        offset //= 2
    return value


def simplex_project_warp(
    x, data, data_step, active_tol, keep, y, status, code, dual, info, margin, flag
):
    """One warp a row: y = max(x - tau, 0); records are written when ``keep`` is 1."""
    lane = cuda.laneid
    warp = cuda.grid(1) // LANES
    warps = cuda.gridsize(1) // LANES
    n = x.shape[1]
    held = cuda.local.array(HELD, REAL)
    for i in range(warp, x.shape[0], warps):
        total = data[i * data_step, 0]
        check = 0.0
        top = -np.inf
        size = 0.0
        for k in range(HELD):
            j = lane + LANES * k
            if j < n:
                value = x[i, j]
                held[k] = value
                check += 0.0 * value
                top = max(top, float(value))
                size = max(size, abs(float(value)))
            else:
                # Never above a threshold, so the passes need no test for the end of the row.
                held[k] = -np.inf
        check = warp_sum(check)
        top = warp_max(top)
        size = warp_max(size)
        outcome = SOLVED
        if not (check == 0.0):
            outcome = NONFINITE
        elif not total >= 0.0:
            outcome = PRIMAL_INFEASIBLE
        tau = -total
        passes = 0
        if outcome == SOLVED and total > 0.0:
            count = n
            outcome = MAX_STEPS
            for attempt in range(n + 2):
                above = 0.0
                number = 0
                for k in range(HELD):
                    z = float(held[k]) - top
                    if z > tau:
                        above += z
                        number += 1
                above = warp_sum(above)
                number = warp_sum(number)
                if number == count and attempt > 0:
                    passes = attempt
                    outcome = SOLVED
                    break
                count = number
                tau = (above - total) / number
        elif outcome == SOLVED:
            tau = 0.0
        if lane == 0:
            status[i] = outcome
            if outcome != SOLVED:
                flag[0] = FAILED
        if outcome != SOLVED:
            for k in range(HELD):
                j = lane + LANES * k
                if j < n:
                    y[i, j] = np.nan
            continue
        # With total = 0 every entry is on its bound; the first largest one stays out of the
        # working set, where its row would be dependent on the others and the sum.
        tolerance = active_tol * total
        first = n
        free = 0
        pushed = 0
        slack = np.inf
        least = np.inf
        for k in range(HELD):
            j = lane + LANES * k
            if j < n:
                gap = (float(held[k]) - top) - tau
                value = max(gap, 0.0) if total > 0.0 else 0.0
                y[i, j] = value
                if gap < 0.0:
                    pushed += 1
                    least = min(least, -gap)
                elif value > tolerance:
                    free += 1
                    slack = min(slack, value)
                else:
                    first = min(first, j)
        if keep == 1:
            free = warp_sum(free)
            pushed = warp_sum(pushed)
            slack = -warp_max(-slack)
            least = -warp_max(-least)
            first = -warp_max(-first)
            for k in range(HELD):
                j = lane + LANES * k
                if j < n:
                    gap = (float(held[k]) - top) - tau
                    if gap < 0.0:
                        code[i, 1 + j] = _BINDING
                    elif total > 0.0 and gap > tolerance:
                        code[i, 1 + j] = 0
                    elif total > 0.0 or j == first:
                        code[i, 1 + j] = ACTIVE_LOWER
                    else:
                        code[i, 1 + j] = ACTIVE_LOWER | WORKING_LOWER
            if lane == 0:
                scale = max(total, size)
                unit = 1.0 / scale if scale > 0.0 else 1.0
                code[i, 0] = _EQ
                dual[i, 0] = tau + top
                for j in range(INFO_SIZE):
                    info[i, j] = 0
                info[i, INFO_STEPS] = passes
                info[i, INFO_WEAK] = n - pushed - free
                if total > 0.0:
                    info[i, INFO_RANK_ACTIVE] = free - 1
                    info[i, INFO_RANK_WORKING] = n - pushed - 1
                else:
                    info[i, INFO_RANK_ACTIVE] = 0
                    info[i, INFO_RANK_WORKING] = 0
                info[i, INFO_RANK_SUPPORT] = n - pushed - 1
                margin[i, 0] = slack * unit
                margin[i, 1] = least * unit


def simplex_hs_warp(g, status, code, mask, out):
    """One warp a row: out = g - mean(g over free entries) there, 0 elsewhere."""
    lane = cuda.laneid
    warp = cuda.grid(1) // LANES
    warps = cuda.gridsize(1) // LANES
    n = g.shape[1]
    samples = status.shape[0]
    held = cuda.local.array(HELD, REAL)
    for t in range(warp, g.shape[0], warps):
        i = t % samples
        total = 0.0
        size = 0
        for k in range(HELD):
            j = lane + LANES * k
            held[k] = 0.0
            if j < n and (code[i, 1 + j] & mask) == 0:
                held[k] = g[t, j]
                total += float(held[k])
                size += 1
        total = warp_sum(total)
        size = warp_sum(size)
        alive = size > 1 and status[i] == SOLVED
        mean = total / size if size > 0 else 0.0
        for k in range(HELD):
            j = lane + LANES * k
            if j < n:
                free = alive and (code[i, 1 + j] & mask) == 0
                out[t, j] = float(held[k]) - mean if free else 0.0


VARIANTS: dict[DeviceFunction, Any] = {
    simplex_project: simplex_project_warp,
    simplex_hs: simplex_hs_warp,
}
"""Cooperative kernels by the per-point routine they stand in for."""

_BUILT: dict[tuple[Any, int, str], Any] = {}


def cooperative(routine: DeviceFunction, n: int, dtype: Any) -> Any:
    """Return the warp kernel that stands in for `routine` on rows of length n, or None."""
    template = VARIANTS.get(routine)
    if template is None or simulated() or not SMALLEST <= n <= LARGEST:
        return None
    held = 1 << (-(-n // LANES) - 1).bit_length()
    key = (template, held, np.dtype(dtype).name)
    if key not in _BUILT:
        # Register arrays need their length when compiled: bind it like any other global.
        scope = {
            **template.__globals__,
            "HELD": held,
            "REAL": numba.from_dtype(np.dtype(dtype)),
            "warp_sum": cuda.jit(device=True)(warp_sum),
            "warp_max": cuda.jit(device=True)(warp_max),
        }
        clone = types.FunctionType(template.__code__, scope, template.__name__)
        clone.__module__ = template.__module__
        _BUILT[key] = cuda.jit(clone)
    return _BUILT[key]
