r"""Per-point routines of the general polyhedron: projection, its record, and the HS product.

The projection is computed by :mod:`hsref.sets.dual_active_set`; this module lays out the scratch,
takes the equalities out of the problem, decides which rows are active, and writes the tape.

Data row: ``b_ub`` (m), ``b_eq`` (p), then ``lower`` (n) and ``upper`` (n) if the set has bounds.

Constraint numbers: 0..m-1 rows of A_ub, m..m+p-1 rows of A_eq, m+p+j the lower and m+p+n+j the
upper bound of coordinate j.

Tape of a solved sample, with k the three selections' sizes and ka the largest of them:

- integers: k_support, k_working, k_active, then ka constraint numbers, in the factor's order;
- floats: the packed inverse factor of those reduced rows, ka (ka + 1) / 2 numbers, then the
  k_working signed multipliers of the reduced rows.

Equalities are in none of these lists: the basis of their row space belongs to the set. Tape of an
infeasible sample: m + p + n floats, the Farkas vector, signed for the coordinates (negative: the
lower bound), for the constraints as given.

HS-Jacobian. With V_E = I - Q'Q the projector along the equalities, M the reduced rows of the
selection and T their factor (T M has orthonormal rows),

.. math:: V g = V_E g - M^T T^T T M V_E g .

Cost k (2 n + k) + 4 n k_e; bounds only pick entries.
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
    INFO_TAPE_FLOATS,
    INFO_TAPE_INTS,
    INFO_WEAK,
    MASK_SUPPORT,
    MASK_WORKING,
    PRIMAL_INFEASIBLE,
    SOLVED,
    SUPPORT_LOWER,
    SUPPORT_UPPER,
    WORKING_LOWER,
    WORKING_UPPER,
)
from .._jit import device_function
from .dual_active_set import (
    CONSISTENT_TOL,
    EPS,
    PIVOT_TOL,
    append,
    direction,
    drop,
    farkas,
    fast_pass,
    polish,
    solve_working,
    start_from,
)
from .packed_factor import factor_times, factor_transpose_times
from .working_rows import (
    RowData,
    Scratch,
    normalised_slacks,
    remove_equality_part,
    subtract_rows,
)

FLAT_FACTOR = 30.0
"""Largest diagonal entry of T up to which one application of V is orthogonal to round-off."""


IGNORED = 16
"""How many contradictions below rounding a solve puts aside before it gives up."""


def work_sizes(m: int, p: int, n: int, k_e: int, most: int) -> tuple[int, int]:
    """Return the float64 and int32 scratch sizes of :func:`polyhedron_project`."""
    floats = most * (most + 1) // 2 + 8 * most + 3 * m + 2 * n + 2 * k_e
    floats += (m + 2 * n) + (m + p + n)
    return floats, (m + p + 2 * n + 4) + 2 * most + (m + 2 * n) + IGNORED


@device_function
def scale_sides(data, m, row_inv, eq_ids, eq_inv, rhs, rhs_eq):
    """Write the right-hand sides of the normalised rows and of the equality basis."""
    for i in range(m):
        rhs[i] = data[i] * row_inv[0, i]
    for e in range(rhs_eq.shape[0]):
        rhs_eq[e] = data[m + eq_ids[e]] * eq_inv[e]


@device_function
def contradiction(data, rows, at, implied, combos):
    """Check what the equalities imply; 1 and a certificate if some of it cannot hold.

    Constraint ``implied[t]`` has the left-hand side ``combos[t] . (basis rows)``, hence the value
    combos[t] . rhs_eq at every point. ``implied`` numbers equalities by their place in eq_ids.
    """
    m = rows.gram.shape[1]
    n = at.z.shape[0]
    p = rows.eq_ids.shape[0]
    size = rows.basis.shape[0]
    for t in range(implied.shape[0]):
        i = implied[t]
        value = 0.0
        terms = 0.0
        for e in range(size):
            value += combos[t, e] * at.rhs_eq[e]
            terms += abs(combos[t, e] * at.rhs_eq[e])
        # sign > 0: the value is above its upper limit; < 0: below its lower one.
        sign = 0.0
        weight = 1.0
        number = i
        if i < m:
            weight = rows.row_inv[0, i]
            if value - at.rhs[i] > CONSISTENT_TOL * (terms + abs(at.rhs[i])):
                sign = 1.0
        elif i < m + p:
            number = m + rows.eq_ids[i - m]
            weight = rows.eq_inv[i - m]
            side = data[number] * weight
            if abs(value - side) > CONSISTENT_TOL * (terms + abs(side)):
                sign = 1.0 if value > side else -1.0
        elif rows.bounded == 1:
            j = i - m - p
            if value - rows.upper[j] > CONSISTENT_TOL * (terms + abs(rows.upper[j])):
                sign = 1.0
            if rows.lower[j] - value > CONSISTENT_TOL * (terms + abs(rows.lower[j])):
                sign = -1.0
        if sign != 0.0:
            for c in range(m + p + n):
                at.certificate[c] = 0.0
            at.certificate[number] = sign * weight
            for e in range(size):
                at.certificate[m + rows.eq_ids[e]] = -sign * combos[t, e] * rows.eq_inv[e]
            return 1
    return 0


@device_function
def read_start(iwork, m, p, n, rows, at):
    """Read the warm-start constraint numbers iwork[1:1+iwork[0]] into at.wanted; their count."""
    count = 0
    total = min(iwork[0], m + p + 2 * n)
    for c in range(total):
        i = iwork[1 + c]
        row = -1
        sign = 1.0
        if 0 <= i < m:
            row = i
        elif rows.bounded == 1 and m + p <= i < m + p + n:
            row = i - p
            sign = -1.0
        elif rows.bounded == 1 and m + p + n <= i < m + p + 2 * n:
            row = i - p - n
        usable = False
        if 0 <= row < m:
            usable = at.rhs[row] < np.inf and rows.row_inv[1, row] > 0.0
        elif row >= m:
            bound = rows.upper[row - m] if sign > 0.0 else rows.lower[row - m]
            usable = abs(bound) < np.inf and rows.coord_inv[row - m] > 0.0
        if usable:
            at.wanted[count] = row
            at.wanted_sign[count] = sign
            count += 1
    return count


@device_function
def polyhedron_project(x, data, shared, active_tol, y, code, dual, info, margin, work, iwork):
    """y = the nearest point of the polyhedron; writes y, code, info, margin and the tape."""
    n = x.shape[0]
    columns = shared[1]
    m = columns.shape[1]
    basis = shared[6]
    k_e = basis.shape[0]
    p = shared[9].shape[0]
    bounded = shared[0][0]
    most = shared[0][1]
    bounds_at = m + p if bounded == 1 else 0
    width = n if bounded == 1 else 0
    rows = RowData(
        columns, shared[2], shared[3], shared[4], shared[5], basis, shared[7], shared[8],
        shared[9], shared[10], data[bounds_at : bounds_at + width],
        data[bounds_at + width : bounds_at + 2 * width], bounded,
    )  # fmt: skip
    c = most * (most + 1) // 2 + most
    f = c + 7 * most
    i = m + p + 2 * n + 4
    w = i + 2 * most + m + 2 * n
    h = f + 3 * m + 2 * n
    v = h + 2 * k_e
    at = Scratch(
        work[0:c], work[c : c + most], work[c + most : c + 2 * most],
        work[c + 2 * most : c + 3 * most], work[c + 3 * most : c + 4 * most],
        work[c + 4 * most : c + 5 * most], work[c + 5 * most : c + 6 * most],
        work[c + 6 * most : f],
        work[f : f + m], work[f + 3 * m : f + 3 * m + n], work[f + m : f + 2 * m],
        work[f + 2 * m : f + 3 * m], work[f + 3 * m + n : h],
        work[h : h + k_e], work[h + k_e : v], work[v : v + m + 2 * n],
        iwork[i : i + most], iwork[i + most : i + 2 * most], iwork[i + 2 * most : w],
        iwork[w : w + IGNORED], work[v + m + 2 * n : v + 2 * m + p + 3 * n], most,
    )  # fmt: skip
    scale_sides(data, m, rows.row_inv, rows.eq_ids, rows.eq_inv, at.rhs, at.rhs_eq)
    if contradiction(data, rows, at, shared[11], shared[12]) == 1:
        return report_empty(m + p + n, at, info, work)

    x_size = 0.0
    for j in range(n):
        at.y0[j] = x[j]
        x_size = max(x_size, abs(x[j]))
    if k_e > 0:
        move_onto_equalities(rows, at)
    normalised_slacks(columns, at.y0, at.rhs, at.s0)
    for j in range(m):
        # Rows that the equalities imply were checked above and never move again.
        at.s0[j] = at.s0[j] * rows.row_inv[1, j] if rows.row_inv[1, j] > 0.0 else -np.inf

    k = 0
    if iwork[0] > 0:
        k = start_from(read_start(iwork, m, p, n, rows, at), 0, rows, at)
        k = solve_working(k, rows, at)
    k, steps, row, sign = fast_pass(k, 50 + 10 * most, y, rows, at)
    if row >= 0:
        if farkas(row, sign, k, rows, at) == 1:
            info[INFO_STEPS] = steps
            return report_empty(m + p + n, at, info, work)
        k = solve_working(k, rows, at)
    k, more, status = polish(k, x_size, y, rows, at)
    info[INFO_STEPS] = steps + more
    if status == PRIMAL_INFEASIBLE:
        return report_empty(m + p + n, at, info, work)
    if status == SOLVED:
        write_record(k, x_size, active_tol, p, y, code, info, margin, work, iwork, rows, at)
    return status


@device_function
def move_onto_equalities(rows, at):
    """y0 += Q' (eq_inverse b - Q y0): the projection onto the equalities."""
    n = at.y0.shape[0]
    size = rows.basis.shape[0]
    for e in range(size):
        total = 0.0
        for j in range(n):
            total -= rows.basis[e, j] * at.y0[j]
        for c in range(e + 1):
            total += rows.eq_inverse[e, c] * at.rhs_eq[c]
        at.inner[e] = total
    for e in range(size):
        total = at.inner[e]
        for j in range(n):
            at.y0[j] += total * rows.basis[e, j]


@device_function
def report_empty(size, at, info, work):
    """Put the certificate on the tape."""
    for c in range(size):
        work[c] = at.certificate[c]
    info[INFO_TAPE_FLOATS] = size
    info[INFO_TAPE_INTS] = 0
    return PRIMAL_INFEASIBLE


@device_function
def separate_support(k, force, at, rows):
    """Move working rows whose multiplier is round-off to the end of the factor.

    Returns (k_support, k_working).
    """
    tol = 64.0 * EPS * force
    count = 0
    for a in range(k - 1, -1, -1):
        if at.sign[a] * at.nu[a] <= tol:
            at.wanted[count] = at.ids[a]
            at.wanted_sign[count] = at.sign[a]
            count += 1
            drop(k, a, at)
            k -= 1
    support = k
    for c in range(count - 1, -1, -1):
        square = direction(at.wanted[c], k, 0, rows, at)
        if square > PIVOT_TOL * PIVOT_TOL:
            append(at.wanted[c], at.wanted_sign[c], 0.0, k, square, at)
            k += 1
    return support, k


@device_function
def extend(row, sign, k, rows, at):
    """Append an active row if it is independent of the factor's rows; returns the new k."""
    if k >= at.most:
        return k
    square = direction(row, k, 0, rows, at)
    if square <= PIVOT_TOL * PIVOT_TOL:
        return k
    append(row, sign, 0.0, k, square, at)
    return k + 1


@device_function
def write_record(k, x_size, active_tol, p, y, code, info, margin, work, iwork, rows, at):
    """Decide which rows are active, order the factor, and write code, info, margin and tape."""
    n = y.shape[0]
    m = rows.gram.shape[1]
    y_size = 0.0
    for j in range(n):
        y_size = max(y_size, abs(y[j]))
    support, working = separate_support(k, x_size + y_size, at, rows)
    least = np.inf
    for a in range(support):
        least = min(least, abs(at.nu[a]))
    margin[1] = least / (x_size + y_size) if support > 0 else np.inf

    floor = 64.0 * EPS * x_size
    slack = np.inf
    active = 0
    for i in range(m):
        code[i] = 0
        if at.rhs[i] < np.inf:
            scale = abs(at.rhs[i]) + y_size + floor
            if -at.s[i] <= active_tol * scale + floor:
                code[i] = ACTIVE_UPPER
                active += 1
            else:
                slack = min(slack, -at.s[i] / scale)
    for i in range(m, m + p):
        code[i] = ACTIVE_UPPER
    for e in range(rows.basis.shape[0]):
        code[m + rows.eq_ids[e]] = ACTIVE_UPPER | WORKING_UPPER | SUPPORT_UPPER
    for j in range(n):
        bits = 0
        if rows.bounded == 1:
            for side in range(2):
                bound = rows.lower[j] if side == 0 else rows.upper[j]
                if abs(bound) < np.inf:
                    scale = abs(bound) + y_size + floor
                    gap = y[j] - bound if side == 0 else bound - y[j]
                    if gap <= active_tol * scale + floor:
                        bits |= ACTIVE_LOWER if side == 0 else ACTIVE_UPPER
                        active += 1
                    else:
                        slack = min(slack, gap / scale)
        code[m + p + j] = bits
    margin[0] = slack

    total = working
    for a in range(working):
        bits = WORKING_UPPER if at.sign[a] > 0.0 else WORKING_LOWER
        if a < support:
            bits |= SUPPORT_UPPER if at.sign[a] > 0.0 else SUPPORT_LOWER
        i = at.ids[a] if at.ids[a] < m else at.ids[a] + p
        now = ACTIVE_UPPER if at.sign[a] > 0.0 else ACTIVE_LOWER
        if code[i] & now == 0:
            active += 1
        code[i] |= bits | now
    if active > working:
        for i in range(m):
            if code[i] == ACTIVE_UPPER and rows.row_inv[1, i] > 0.0:
                total = extend(i, 1.0, total, rows, at)
        if rows.bounded == 1:
            for j in range(n):
                bits = code[m + p + j]
                if bits != 0 and bits & MASK_WORKING == 0 and rows.coord_inv[j] > 0.0:
                    sign = -1.0 if bits & ACTIVE_LOWER != 0 else 1.0
                    total = extend(m + j, sign, total, rows, at)

    free = n - rows.basis.shape[0]
    info[INFO_RANK_SUPPORT] = free - support
    info[INFO_RANK_WORKING] = free - working
    info[INFO_RANK_ACTIVE] = free - total
    info[INFO_WEAK] = active - support
    first = total * (total + 1) // 2
    for a in range(working):
        work[first + a] = at.nu[a]
    iwork[0] = support
    iwork[1] = working
    iwork[2] = total
    for a in range(total):
        i = at.ids[a]
        if i >= m:
            i += p if at.sign[a] < 0.0 else p + n
        iwork[3 + a] = i
    info[INFO_TAPE_FLOATS] = first + working
    info[INFO_TAPE_INTS] = 3 + total


@device_function
def remove_selected(k, h, shared, p, T, tape_i, c, v, packed, weight, inner):
    """h -= M' T'T M h for the first k rows of the tape, then the equality part of the change."""
    n = h.shape[0]
    reduced, coord_inv, basis = shared[2], shared[5], shared[6]
    m = reduced.shape[0]
    count = 0
    for a in range(k):
        i = tape_i[3 + a]
        if i < m:
            total = 0.0
            for j in range(n):
                total += reduced[i, j] * h[j]
            c[a] = total
        else:
            j = (i - m - p) % n
            c[a] = h[j] * coord_inv[j]
    factor_times(T, k, c, v)
    factor_transpose_times(T, k, v, c)
    for a in range(k):
        i = tape_i[3 + a]
        if i < m:
            packed[count] = i
            weight[count] = c[a]
            count += 1
        else:
            j = (i - m - p) % n
            h[j] -= c[a] * coord_inv[j]
    subtract_rows(reduced, packed, weight, count, h)
    if count < k and basis.shape[0] > 0:
        remove_equality_part(basis, h, inner)


@device_function
def polyhedron_hs(g, y, code, tape_f, tape_i, data, shared, mask, out, work, iwork):
    """out = V g for the selection ``mask``; scratch 3 n + k_e floats, n integers."""
    n = g.shape[0]
    m = shared[1].shape[1]
    p = shared[9].shape[0]
    k_e = shared[6].shape[0]
    k = tape_i[2]
    if mask == MASK_SUPPORT:
        k = tape_i[0]
    elif mask == MASK_WORKING:
        k = tape_i[1]
    if k + k_e >= n:
        for j in range(n):
            out[j] = 0.0
        return
    for j in range(n):
        out[j] = g[j]
    inner = work[3 * n : 3 * n + k_e]
    if k_e > 0:
        remove_equality_part(shared[6], out, inner)
    if k > 0:
        c, v, weight = work[0:n], work[n : 2 * n], work[2 * n : 3 * n]
        steepest = 0.0
        for a in range(k):
            steepest = max(steepest, tape_f[a * (a + 1) // 2 + a])
        remove_selected(k, out, shared, p, tape_f, tape_i, c, v, iwork, weight, inner)
        if steepest > FLAT_FACTOR:
            # T M is orthonormal only up to its condition; a second pass squares the error.
            remove_selected(k, out, shared, p, tape_f, tape_i, c, v, iwork, weight, inner)
    if shared[0][0] == 1:
        for j in range(n):
            if code[m + p + j] & mask != 0 or shared[5][j] == 0.0:
                out[j] = 0.0
