r"""Per-point routines of a polyhedron with bounds and few or sparse rows.

The bounds are eliminated: only the rows have multipliers nu to be found, and
y = clip(x - C' nu, lower, upper). A few sweeps and Newton's method on the dual
(:mod:`hsref.sets.dual_newton`) come close, a finite active-set method
(:mod:`hsref.sets.dual_finish`) ends in round-off, and :mod:`hsref.sets.basic_multipliers` makes the
working set independent. Rows stay sparse throughout.

Data row: ``b_ub`` (m), ``b_eq`` (p), ``lower`` (n), ``upper`` (n). Constraint numbers are those of
:mod:`hsref.sets.polyhedron_kernel`, and so is the tape of an infeasible sample.

Tape of a solved sample. A selection of the HS-Jacobian is a set F of coordinates (those without a
bound in it) and independent rows R (the kept equalities among them), with the factor T of C_RF:

- integers: for support, working, active: the number of rows, where the factor starts among the
  floats, where the rows start among the integers; then the rows, counted among the kept ones;
- floats: the factors. Selections that agree share theirs.

``dual`` holds the multipliers of the rows as given, those of A_ub first.

HS-Jacobian: V g = 0 off F, and on F

.. math:: V g = g - C_{RF}^T T^T T C_{RF} g ,

at the cost of the entries of C plus k^2 for k rows.
"""

from __future__ import annotations

import numpy as np

from .._codes import (
    ACTIVE_LOWER,
    ACTIVE_UPPER,
    INFO_RANK_ACTIVE,
    INFO_RANK_SUPPORT,
    INFO_RANK_WORKING,
    INFO_SKIP_RECORD,
    INFO_STEPS,
    INFO_TAPE_FLOATS,
    INFO_TAPE_INTS,
    INFO_WEAK,
    MASK_ACTIVE,
    MASK_SUPPORT,
    MASK_WORKING,
    PRIMAL_INFEASIBLE,
    SINGULAR,
    SOLVED,
    SUPPORT_LOWER,
    SUPPORT_UPPER,
    WORKING_LOWER,
    WORKING_UPPER,
)
from .._jit import device_function
from .activity import count_active, mark_bounds, mark_row
from .basic_multipliers import make_basic
from .contradiction import CONSISTENT_TOL, implied_contradiction
from .dual_finish import EPS, GIVE_UP_TOL, finish
from .dual_newton import CONVERGED, EMPTY, newton, sweep
from .free_rows import bounds_of_round_off, factor_rows
from .packed_factor import FLAT_FACTOR, factor_times, factor_transpose_times
from .sparse_rows import (
    BASE,
    CERTIFICATE,
    EQS,
    FACTORS,
    FLOATS,
    GRAD,
    HEADER,
    HIGH,
    IN_SET,
    INEQS,
    INTS,
    LIST,
    LOW,
    NU,
    ROWS,
    SIDE,
    SIZE,
    STATE,
    SWEEPS,
    H,
    T,
    W,
    Y,
    Z,
    add_rows,
    normal_matrix,
)

FAR = 1e3
"""Terms of x - A' nu beyond this many times the size of x and y: their rounding is in y."""


@device_function
def crossed(lay, work):
    """Tell whether a lower bound exceeds its upper bound by more than rounding."""
    low, high = work[lay[LOW] : lay[HIGH]], work[lay[HIGH] : lay[CERTIFICATE]]
    for j in range(low.shape[0]):
        if low[j] - high[j] > CONSISTENT_TOL * (abs(low[j]) + abs(high[j])):
            return 1
    return 0


@device_function
def stationary(x, x_size, lay, shared, work, iwork):
    """Return 1 if y is what the multipliers make of x, within GIVE_UP_TOL, else 0; scratch w.

    Rows that are dependent but for noise can lose the multipliers they carried.
    """
    z, y = work[lay[W] : lay[Z]], work[lay[Y] : lay[W]]
    low, high = work[lay[LOW] : lay[HIGH]], work[lay[HIGH] : lay[CERTIFICATE]]
    state = iwork[lay[STATE] : lay[INTS]]
    force = x_size
    for j in range(z.shape[0]):
        z[j] = x[j]
        force = max(force, abs(y[j]))
    add_rows(-1.0, work[lay[NU] : lay[GRAD]], shared, z)
    for j in range(z.shape[0]):
        push = z[j] - y[j]
        off = abs(push)
        if state[j] != 0 and low[j] >= high[j]:
            off = 0.0
        elif state[j] != 0:
            off = -push if state[j] > 0 else push
        # Written so that NaN fails.
        if not (off <= GIVE_UP_TOL * force):
            return 0
    return 1


@device_function
def drowned(x, x_size, lay, shared, work):
    """Tell whether the multipliers are so large that their rounding shows in y; scratch z.

    Where the constraints leave no interior the multipliers are not bounded, and Newton's method
    may run far along a direction in which nothing but them changes.
    """
    room, y = work[lay[Z] : lay[LOW]], work[lay[Y] : lay[W]]
    force = x_size
    for j in range(y.shape[0]):
        force = max(force, abs(y[j]))
    bounds_of_round_off(x, work[lay[NU] : lay[GRAD]], shared, room)
    for j in range(y.shape[0]):
        # Written so that NaN counts.
        if not (room[j] <= FAR * force):
            return True
    return False


@device_function
def eliminated_project(x, data, shared, active_tol, y, code, dual, info, margin, work, iwork):
    """y = the nearest point of the polyhedron; writes y, code, dual, info, margin and the tape."""
    lay, ids, inv = shared[0], shared[7], shared[8]
    side, nu = work[lay[SIDE] : lay[NU]], work[lay[NU] : lay[GRAD]]
    t, point = work[lay[T] : lay[Y]], work[lay[Y] : lay[W]]
    q = lay[INEQS]
    n = lay[SIZE]
    skip = lay[ROWS] + lay[EQS]
    wanted = info[INFO_SKIP_RECORD] == 0
    x_size = 0.0
    for j in range(n):
        t[j] = x[j]
        x_size = max(x_size, abs(x[j]))
        work[lay[LOW] + j] = data[skip + j]
        work[lay[HIGH] + j] = data[skip + n + j]
    for i in range(side.shape[0]):
        side[i] = data[ids[i]] * inv[i]
        nu[i] = 0.0
    status = SOLVED
    if crossed(lay, work) == 1:
        # The proof is the coordinate itself; the set finds it from the bounds.
        for c in range(lay[FLOATS] - lay[CERTIFICATE]):
            work[lay[CERTIFICATE] + c] = 0.0
        status = PRIMAL_INFEASIBLE
    elif implied_contradiction(
        data, side[q:], ids[q:], inv[q:], shared[9], shared[10], shared[11],
        work[lay[CERTIFICATE] : lay[FLOATS]], lay[ROWS], lay[EQS], n,
    ) == 1:  # fmt: skip
        status = PRIMAL_INFEASIBLE
    else:
        sweep(lay[SWEEPS], lay, shared, work)
        steps, outcome = newton(x_size, lay, shared, work, iwork)
        if outcome == EMPTY:
            status = PRIMAL_INFEASIBLE
        else:
            k = n - n
            left = n - n
            for attempt in range(2):
                if outcome != CONVERGED or attempt == 1:
                    for i in range(nu.shape[0]):
                        nu[i] = 0.0
                k, left, steps, status = finish(x, x_size, steps, lay, shared, work, iwork)
                if status == PRIMAL_INFEASIBLE or outcome != CONVERGED:
                    break
                # Once more from 0, from where multipliers grow no more than they must.
                if status == SOLVED and not drowned(x, x_size, lay, shared, work):
                    break
            if status == SOLVED:
                for j in range(n):
                    y[j] = point[j]
                if wanted:
                    changed = make_basic(k, left, lay, shared, work, iwork)
                    write_codes(x_size, active_tol, code, dual, info, margin, data, shared, work,
                                iwork)  # fmt: skip
                    if stationary(x, x_size, lay, shared, work, iwork) == 0:
                        status = SINGULAR
                    else:
                        write_tape(k, changed, code, info, shared, work, iwork)
        info[INFO_STEPS] = steps
    if status == PRIMAL_INFEASIBLE:
        # The certificate lies behind the place of the tape, so a forward copy is safe.
        for c in range(lay[FLOATS] - lay[CERTIFICATE]):
            work[c] = work[lay[CERTIFICATE] + c]
        info[INFO_TAPE_FLOATS] = lay[FLOATS] - lay[CERTIFICATE]
    return status


@device_function
def write_codes(x_size, active_tol, code, dual, info, margin, data, shared, work, iwork):
    """Decide which constraints are active, working, supporting; write code, dual and margin."""
    lay, row_at, row_col, row_val = shared[0], shared[1], shared[2], shared[3]
    ids, inv, implied, implied_inv, combos = shared[7], shared[8], shared[9], shared[10], shared[11]
    side, nu = work[lay[SIDE] : lay[NU]], work[lay[NU] : lay[GRAD]]
    t, y = work[lay[T] : lay[Y]], work[lay[Y] : lay[W]]
    low, high = work[lay[LOW] : lay[HIGH]], work[lay[HIGH] : lay[CERTIFICATE]]
    in_set, state = iwork[lay[IN_SET] : lay[STATE]], iwork[lay[STATE] : lay[INTS]]
    m = lay[ROWS]
    p = lay[EQS]
    q = lay[INEQS]
    skip = m + p
    size = 0.0
    for j in range(y.shape[0]):
        size = max(size, abs(y[j]))
    floor = 64.0 * EPS * x_size
    force = x_size + size
    for i in range(m, skip):
        code[i] = ACTIVE_UPPER
    slack = mark_bounds(y, low, high, size, active_tol, floor, code[skip:])
    for c in range(implied.shape[0]):
        if implied[c] < m:
            rhs = data[implied[c]] * implied_inv[c]
            for e in range(combos.shape[1]):
                rhs -= combos[c, e] * side[q + e]
            bits, gap = mark_row(rhs, data[implied[c]] * implied_inv[c], size, active_tol, floor)
            code[implied[c]] = bits
            slack = min(slack, gap)
    least = np.inf
    support = m - m
    for i in range(side.shape[0]):
        dual[ids[i]] = nu[i] * inv[i]
        if i >= q:
            code[ids[i]] = ACTIVE_UPPER | WORKING_UPPER | SUPPORT_UPPER
            continue
        gap = side[i]
        if gap < np.inf:
            for e in range(row_at[i], row_at[i + 1]):
                gap -= row_val[e] * y[row_col[e]]
        bits, gap = mark_row(gap, side[i], size, active_tol, floor)
        if in_set[i] == 1:
            bits = ACTIVE_UPPER | WORKING_UPPER
            gap = np.inf
            # Round-off of a multiplier grows with the condition of the rows.
            if nu[i] > CONSISTENT_TOL * force:
                bits |= SUPPORT_UPPER
                support += 1
                least = min(least, nu[i])
        code[ids[i]] = bits
        slack = min(slack, gap)
    for j in range(y.shape[0]):
        if state[j] != 0:
            push = t[j] - high[j] if state[j] > 0 else t[j] - low[j]
            above = state[j] > 0
            # Equal bounds: the sign of the multiplier says which of the two works.
            if low[j] >= high[j] and push != 0.0:
                above = push > 0.0
            code[skip + j] |= (
                ACTIVE_UPPER | WORKING_UPPER if above else ACTIVE_LOWER | WORKING_LOWER
            )
            if abs(push) > CONSISTENT_TOL * force:
                code[skip + j] |= SUPPORT_UPPER if above else SUPPORT_LOWER
                support += 1
                least = min(least, abs(push))
    margin[0] = slack
    margin[1] = least / force if support > 0 else np.inf
    info[INFO_WEAK] = count_active(code, m, p) - support


@device_function
def select(mask, code, lay, ids, iwork):
    """Make the flags of rows and coordinates those of a selection; returns (changed, free)."""
    in_set, state = iwork[lay[IN_SET] : lay[STATE]], iwork[lay[STATE] : lay[INTS]]
    skip = lay[ROWS] + lay[EQS]
    changed = 0
    free = skip - skip
    for i in range(in_set.shape[0]):
        now = 1 if i >= lay[INEQS] or code[ids[i]] & mask != 0 else 0
        if now != in_set[i]:
            changed = 1
            in_set[i] = now
    for j in range(state.shape[0]):
        now = 1 if code[skip + j] & mask != 0 else 0
        free += 1 - now
        if now != abs(state[j]):
            changed = 1
            state[j] = now
    return changed, free


@device_function
def write_tape(k, changed, code, info, shared, work, iwork):
    """Write the factors of the three selections; the first factor is that of the solve."""
    lay, ids = shared[0], shared[7]
    base = iwork[lay[BASE] : lay[LIST]]
    at_f = lay[FACTORS]
    at_i = HEADER + k - k
    start_f = lay[FACTORS]
    start_i = at_i
    for turn in range(3):
        # Working first: it is what the solve ended with.
        slot = 1 if turn == 0 else 2 * (turn - 1)
        mask = MASK_WORKING if turn == 0 else (MASK_SUPPORT if turn == 1 else MASK_ACTIVE)
        other, free = select(mask, code, lay, ids, iwork)
        if other == 1 or (turn == 0 and changed == 1):
            normal_matrix(iwork[lay[STATE] : lay[INTS]], shared, work[lay[H] : lay[SIDE]])
            k, left = factor_rows(at_f, lay, shared, work, iwork)
            other = 1
        if other == 1 or turn == 0:
            start_f = at_f
            start_i = at_i
            for a in range(k):
                iwork[at_i + a] = base[a]
            at_f += k * (k + 1) // 2
            at_i += k
        iwork[3 * slot] = k
        iwork[3 * slot + 1] = start_f
        iwork[3 * slot + 2] = start_i
        rank = free - k
        if slot == 0:
            info[INFO_RANK_SUPPORT] = rank
        elif slot == 1:
            info[INFO_RANK_WORKING] = rank
        else:
            info[INFO_RANK_ACTIVE] = rank
    info[INFO_TAPE_FLOATS] = at_f
    info[INFO_TAPE_INTS] = at_i


@device_function
def eliminated_hs(g, y, code, tape_f, tape_i, data, shared, mask, out, work, iwork):
    """out = V g for the selection ``mask``; scratch n floats and 3 k more."""
    lay, row_at, row_col, row_val = shared[0], shared[1], shared[2], shared[3]
    n = g.shape[0]
    skip = lay[ROWS] + lay[EQS]
    slot = 2
    if mask == MASK_SUPPORT:
        slot = 0
    elif mask == MASK_WORKING:
        slot = 1
    k = np.int64(tape_i[3 * slot])
    first = np.int64(tape_i[3 * slot + 2])
    factor = tape_f[np.int64(tape_i[3 * slot + 1]) :]
    r = lay[NU] - lay[SIDE]
    c, v, weight = work[0:r], work[r : 2 * r], work[2 * r : 3 * r]
    free = n - n
    for j in range(n):
        out[j] = 0.0
        if code[skip + j] & mask == 0:
            out[j] = g[j]
            free += 1
    if free <= k:
        for j in range(n):
            out[j] = 0.0
        return
    steepest = 0.0
    for a in range(k):
        steepest = max(steepest, factor[a * (a + 3) // 2])
    while k > 0:
        for a in range(k):
            i = tape_i[first + a]
            total = 0.0
            for e in range(row_at[i], row_at[i + 1]):
                total += row_val[e] * out[row_col[e]]
            c[a] = total
        factor_times(factor, k, c, v)
        factor_transpose_times(factor, k, v, weight)
        for a in range(k):
            i = tape_i[first + a]
            for e in range(row_at[i], row_at[i + 1]):
                j = row_col[e]
                if code[skip + j] & mask == 0:
                    out[j] -= weight[a] * row_val[e]
        # One pass is orthogonal up to the condition of the rows: more where they are worse.
        if steepest <= FLAT_FACTOR:
            break
        steepest *= 0.01
