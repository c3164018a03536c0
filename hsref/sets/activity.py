"""Which constraints are active at a point: decided once, in the forward pass, and written to code.

Slacks are relative to the right-hand side and the largest entry of y, with a floor at the rounding
that a far-away x leaves.
"""

from __future__ import annotations

import numpy as np

from .._codes import ACTIVE_LOWER, ACTIVE_UPPER
from .._jit import device_function


@device_function
def mark_row(slack, rhs, size, active_tol, floor):
    """Return (bits, relative slack) of a unit row: the slack is inf where the row is active."""
    reach = abs(rhs) + size + floor
    if rhs < np.inf and slack <= active_tol * reach + floor:
        return ACTIVE_UPPER, np.inf
    return 0, slack / reach if rhs < np.inf else np.inf


@device_function
def mark_bounds(y, lower, upper, size, active_tol, floor, code):
    """Write the active bits of all bounds; returns the smallest relative slack of the others."""
    least = np.inf
    for j in range(y.shape[0]):
        bits = 0
        reach = abs(lower[j]) + size + floor
        if lower[j] > -np.inf:
            if y[j] - lower[j] <= active_tol * reach + floor:
                bits = ACTIVE_LOWER
            else:
                least = min(least, (y[j] - lower[j]) / reach)
        reach = abs(upper[j]) + size + floor
        if upper[j] < np.inf:
            if upper[j] - y[j] <= active_tol * reach + floor:
                bits |= ACTIVE_UPPER
            else:
                least = min(least, (upper[j] - y[j]) / reach)
        code[j] = bits
    return least


@device_function
def count_active(code, m, p):
    """Return the number of active inequalities: rows 0..m-1, and bounds behind the p equalities."""
    # Not a literal 0: Numba would compile callees anew for a literal integer.
    active = m - m
    for i in range(code.shape[0]):
        if i < m or i >= m + p:
            active += (code[i] & ACTIVE_LOWER) // ACTIVE_LOWER
            active += (code[i] & ACTIVE_UPPER) // ACTIVE_UPPER
    return active
