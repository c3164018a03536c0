r"""Multipliers whose rows are independent, from any multipliers: Carathéodory's argument.

Let x - y = C_K' nu + z, with z on the coordinates outside F. If the rows of C_KF depend on each
other there are null vectors q with (C_KF)' q = 0, and nu - s q, z + s C' q carry the same x - y for
every s. Along each q, s grows until a multiplier (of a row, or of a bound) reaches 0; that row or
bound is taken out, and the other null vectors are reduced by q so that they do not touch it. One
null vector goes with each event: what is left is independent, and its multipliers have their signs.

A vertex at which many bounds are active (every permutation matrix is one of the Birkhoff polytope)
needs this: equalities alone are then dependent on the bounds.
"""

from __future__ import annotations

import numpy as np

from .._jit import device_function
from .dual_finish import NULL_TOL, move, nearest_block, null_direction
from .sparse_rows import (
    FACTORS,
    GRAD,
    IN_SET,
    INEQS,
    INTS,
    LIST,
    NU,
    SCALE,
    STATE,
    STEP,
    W,
    Z,
    add_rows,
)


@device_function
def column_product(j, at, shared, work):
    """Return column j of the rows times the vector at work[at:]."""
    col_at, col_row, col_val = shared[4], shared[5], shared[6]
    total = 0.0
    for e in range(col_at[j], col_at[j + 1]):
        total += col_val[e] * work[at + col_row[e]]
    return total


@device_function
def make_basic(k, left, lay, shared, work, iwork):
    """Move nu, and take rows and bounds out, until the rest is independent; 1 if F or K changed.

    The null vectors lie behind the first factor, which must be that of the rows and of F.
    """
    d, w, nu = work[lay[STEP] : lay[SCALE]], work[lay[W] : lay[Z]], work[lay[NU] : lay[GRAD]]
    rest, in_set = iwork[lay[LIST] : lay[IN_SET]], iwork[lay[IN_SET] : lay[STATE]]
    state = iwork[lay[STATE] : lay[INTS]]
    r = d.shape[0]
    first = lay[FACTORS] + r * (r + 1) // 2
    count = k - k
    changed = 0
    for q in range(left):
        i = np.int64(rest[q])
        if i < lay[INEQS] and nu[i] == 0.0:
            in_set[i] = 0
            changed = 1
        elif in_set[i] == 1:
            null_direction(i, k, lay, shared, work, iwork)
            for c in range(r):
                work[first + count * r + c] = d[c]
            count += 1
    while count > 0:
        own = first + (count - 1) * r
        most = 0.0
        for c in range(r):
            d[c] = work[own + c]
            most = max(most, abs(d[c]))
        for c in range(r):
            d[c] = d[c] / most if abs(d[c]) > NULL_TOL * most else 0.0
            work[own + c] = d[c]
        for j in range(w.shape[0]):
            w[j] = 0.0
        add_rows(1.0, d, shared, w)
        for j in range(w.shape[0]):
            if state[j] == 0 or abs(w[j]) <= NULL_TOL:
                w[j] = 0.0
        toward = 1.0
        step, event = nearest_block(1.0, np.inf, 1.0, lay, work, iwork)
        other, instead = nearest_block(-1.0, np.inf, 1.0, lay, work, iwork)
        if other < step:
            toward = -1.0
            step = other
            event = instead
        if event == r + w.shape[0]:
            # Dependent within rounding only, on nothing that could leave.
            count -= 1
            continue
        move(toward, step, event, lay, work, iwork)
        changed = 1
        best = own
        largest = 0.0
        for v in range(count):
            at = first + v * r
            value = work[at + event] if event < r else column_product(event - r, at, shared, work)
            if abs(value) > abs(largest):
                largest = value
                best = at
        for c in range(r):
            value = work[best + c]
            work[best + c] = work[own + c]
            work[own + c] = value
        count -= 1
        for v in range(count):
            at = first + v * r
            value = work[at + event] if event < r else column_product(event - r, at, shared, work)
            if value != 0.0:
                for c in range(r):
                    work[at + c] -= value / largest * work[own + c]
                if event < r:
                    work[at + event] = 0.0
    return changed
