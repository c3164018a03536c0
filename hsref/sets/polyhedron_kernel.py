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
    INFO_SKIP_RECORD,
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
from .activity import count_active, mark_bounds, mark_row
from .block_active_set import block_active_set
from .contradiction import CONSISTENT_TOL, implied_contradiction
from .dual_active_set import EPS, fast_pass, polish
from .packed_factor import FLAT_FACTOR, factor_times, factor_transpose_times
from .working_rows import (
    matrix_times,
    normalised_slacks,
    remove_equality_part,
    row_products,
    subtract_combination,
    subtract_rows,
)
from .working_set import (
    BOUNDED,
    CERTIFICATE,
    EQS,
    FLOATS,
    GRAM_PIVOT,
    IDS,
    INNER,
    NU,
    PACKED,
    RHS,
    RHS_EQ,
    ROWS,
    S0,
    SIGN,
    SIZE,
    WANTED,
    WANTED_SIGN,
    Y0,
    L,
    S,
    Y,
    Z,
    bound_at,
    drop,
    start_from,
    try_append,
)


@device_function
def move_onto_equalities(y0, rhs_eq, inner, eq_inverse, basis):
    """y0 += Q' (eq_inverse b - Q y0): the projection onto the equalities; scratch inner."""
    matrix_times(basis, y0, inner)
    for e in range(basis.shape[0]):
        total = inner[e]
        for c in range(e + 1):
            total -= eq_inverse[e, c] * rhs_eq[c]
        inner[e] = total
    subtract_combination(basis, inner, y0)


@device_function
def read_start(data, work, iwork, lay, row_inv, coord_inv):
    """Copy the warm start iwork[1 : 1 + iwork[0]] to the wanted rows; returns their count."""
    m = lay[ROWS]
    p = lay[EQS]
    n = lay[SIZE]
    count = m - m
    for c in range(min(np.int64(iwork[0]), m + p + 2 * n)):
        i = np.int64(iwork[1 + c])
        row = m + n
        sign = 1.0
        # A row that is void, or has become void in other data, cannot be worked with.
        usable = False
        if 0 <= i < m:
            row = i
            usable = work[lay[RHS] + i] < np.inf and row_inv[1, i] > 0.0
        elif lay[BOUNDED] == 1 and m + p <= i < m + p + 2 * n:
            j = (i - m - p) % n
            row = m + j
            sign = -1.0 if i < m + p + n else 1.0
            usable = abs(data[bound_at(j, sign, lay)]) < np.inf and coord_inv[j] > 0.0
        if usable:
            iwork[lay[WANTED] + count] = row
            work[lay[WANTED_SIGN] + count] = sign
            count += 1
    return count


@device_function
def polyhedron_project(x, data, shared, active_tol, y, code, dual, info, margin, work, iwork):
    """y = the nearest point of the polyhedron; writes y, code, info, margin and the tape."""
    lay, columns, reduced, gram, row_inv = shared[0], shared[1], shared[2], shared[3], shared[4]
    coord_inv, basis, eq_inverse, eq_ids = shared[5], shared[6], shared[8], shared[9]
    y0, rhs, s0 = work[lay[Y0] : lay[Y]], work[lay[RHS] : lay[Y0]], work[lay[S0] : lay[S]]
    rhs_eq = work[lay[RHS_EQ] : lay[CERTIFICATE]]
    m = rhs.shape[0]
    for i in range(m):
        rhs[i] = data[i] * row_inv[0, i]
    for e in range(rhs_eq.shape[0]):
        rhs_eq[e] = data[eq_ids[e]] * shared[10][e]
    status = SOLVED
    if implied_contradiction(
        data, rhs_eq, eq_ids, shared[10], shared[11], shared[13], shared[12],
        work[lay[CERTIFICATE] : lay[FLOATS]], m, lay[EQS], lay[SIZE],
    ) == 1:  # fmt: skip
        status = PRIMAL_INFEASIBLE
    else:
        x_size = 0.0
        for j in range(x.shape[0]):
            y0[j] = x[j]
            x_size = max(x_size, abs(y0[j]))
        move_onto_equalities(y0, rhs_eq, work[lay[INNER] : lay[RHS_EQ]], eq_inverse, basis)
        normalised_slacks(columns, y0, rhs, s0)
        for i in range(m):
            # Rows that the equalities imply were checked above and never move again.
            s0[i] = s0[i] * row_inv[1, i] if row_inv[1, i] > 0.0 else -np.inf
        wanted = read_start(data, work, iwork, lay, row_inv, coord_inv)
        k, steps = block_active_set(wanted, work, iwork, lay, gram)
        if k == 0:
            k = start_from(
                wanted, GRAM_PIVOT, data, work, iwork, lay, reduced, gram, coord_inv, basis
            )
            k, more = fast_pass(k, data, work, iwork, lay, reduced, gram, coord_inv, basis)
            steps += more
        k, more, status = polish(k, x_size, data, shared, work, iwork)
        info[INFO_STEPS] = steps + more
        if status == SOLVED:
            for j in range(x.shape[0]):
                y[j] = work[lay[Y] + j]
        if status == SOLVED and info[INFO_SKIP_RECORD] == 0:
            write_record(k, x_size, active_tol, code, info, margin, data, shared, work, iwork)
    if status == PRIMAL_INFEASIBLE:
        # The certificate lies behind the place of the tape, so a forward copy is safe.
        for c in range(lay[FLOATS] - lay[CERTIFICATE]):
            work[c] = work[lay[CERTIFICATE] + c]
        info[INFO_TAPE_FLOATS] = lay[FLOATS] - lay[CERTIFICATE]
    return status


@device_function
def order_factor(k, force, active, code, work, iwork, shared):
    """Order the factor: support, working rows with multiplier 0, further active rows.

    Returns (k_support, k_working, k_active). ``code`` must hold the active bits; rows already in
    the working set are recognised as dependent.
    """
    lay, reduced, gram, row_inv = shared[0], shared[2], shared[3], shared[4]
    coord_inv, basis = shared[5], shared[6]
    ids, nu = iwork[lay[IDS] : lay[PACKED]], work[lay[NU] : lay[SIGN]]
    sign = work[lay[SIGN] : lay[L]]
    wanted, wanted_sign = iwork[lay[WANTED] :], work[lay[WANTED_SIGN] : lay[S0]]
    m = lay[ROWS]
    n = lay[SIZE]
    support = k
    count = 0
    for a in range(k - 1, -1, -1):
        # Round-off of a multiplier grows with the condition of the rows: a few hundred ulps of the
        # force were seen on small integer rows.
        if sign[a] * nu[a] <= CONSISTENT_TOL * force:
            wanted[count] = ids[a]
            wanted_sign[count] = sign[a]
            count += 1
            drop(support, a, work, iwork, lay)
            support -= 1
    zeros = count
    if active > support:
        for i in range(m):
            if code[i] != 0 and row_inv[1, i] > 0.0:
                wanted[count] = i
                wanted_sign[count] = 1.0
                count += 1
        for j in range(n):
            bits = code[m + lay[EQS] + j]
            if bits != 0 and coord_inv[j] > 0.0:
                wanted[count] = m + j
                wanted_sign[count] = -1.0 if bits == ACTIVE_LOWER else 1.0
                count += 1
    working = support
    total = support
    for c in range(count):
        # The rows that were working come first, in their old order, and are independent.
        q = zeros - 1 - c if c < zeros else c
        total = try_append(
            np.int64(wanted[q]), wanted_sign[q], total, GRAM_PIVOT, work, iwork, lay,
            reduced, gram, coord_inv, basis,
        )  # fmt: skip
        if c < zeros:
            working = total
    return support, working, total


@device_function
def write_record(k, x_size, active_tol, code, info, margin, data, shared, work, iwork):
    """Decide which rows are active, order the factor, and write code, info, margin and tape."""
    lay, eq_ids = shared[0], shared[9]
    k_e = shared[6].shape[0]
    s, rhs, point = work[lay[S] : lay[RHS]], work[lay[RHS] : lay[Y0]], work[lay[Y] : lay[Z]]
    ids, nu = iwork[lay[IDS] : lay[PACKED]], work[lay[NU] : lay[SIGN]]
    sign = work[lay[SIGN] : lay[L]]
    m = lay[ROWS]
    p = lay[EQS]
    n = lay[SIZE]
    size = 0.0
    for j in range(n):
        size = max(size, abs(point[j]))
    floor = 64.0 * EPS * x_size
    slack = np.inf
    for i in range(m):
        code[i], gap = mark_row(-s[i], rhs[i], size, active_tol, floor)
        slack = min(slack, gap)
    if lay[BOUNDED] == 1:
        first = m + p
        slack = min(slack, mark_bounds(
            point, data[first : first + n], data[first + n : first + 2 * n], size, active_tol,
            floor, code[first:],
        ))  # fmt: skip
    else:
        for j in range(n):
            code[m + p + j] = 0
    for a in range(k):
        # A working row is active by construction.
        i = np.int64(ids[a])
        code[i if i < m else i + p] |= ACTIVE_UPPER if sign[a] > 0.0 else ACTIVE_LOWER
    active = count_active(code, m, p)

    support, working, total = order_factor(k, x_size + size, active, code, work, iwork, shared)
    least = np.inf
    for a in range(working):
        i = np.int64(ids[a])
        bits = WORKING_UPPER if sign[a] > 0.0 else WORKING_LOWER
        if a < support:
            bits |= SUPPORT_UPPER if sign[a] > 0.0 else SUPPORT_LOWER
            least = min(least, abs(nu[a]))
        code[i if i < m else i + p] |= bits
    for i in range(m, m + p):
        code[i] = ACTIVE_UPPER
    for e in range(k_e):
        code[eq_ids[e]] = ACTIVE_UPPER | WORKING_UPPER | SUPPORT_UPPER
    margin[0] = slack
    margin[1] = least / (x_size + size) if support > 0 else np.inf

    info[INFO_RANK_SUPPORT] = n - k_e - support
    info[INFO_RANK_WORKING] = n - k_e - working
    info[INFO_RANK_ACTIVE] = n - k_e - total
    info[INFO_WEAK] = active - support
    first = total * (total + 1) // 2
    for a in range(working):
        work[first + a] = nu[a]
    iwork[0] = support
    iwork[1] = working
    iwork[2] = total
    for a in range(total):
        i = np.int64(ids[a])
        if i >= m:
            i += p if sign[a] < 0.0 else p + n
        iwork[3 + a] = i
    info[INFO_TAPE_FLOATS] = first + working
    info[INFO_TAPE_INTS] = 3 + total


@device_function
def remove_selected(k, h, shared, T, tape_i, c, v, packed, weight, inner):
    """h -= M' T'T M h for the first k rows of the tape, then the equality part of the change."""
    reduced, coord_inv, basis = shared[2], shared[5], shared[6]
    m = reduced.shape[0]
    n = reduced.shape[1]
    skip = m + shared[9].shape[0]
    # Not a literal 0: Numba would compile callees anew for a literal integer.
    count = k - k
    for a in range(k):
        i = tape_i[3 + a]
        if i < m:
            packed[count] = i
            count += 1
    row_products(reduced, packed, count, h, weight)
    count = k - k
    for a in range(k):
        i = tape_i[3 + a]
        if i < m:
            c[a] = weight[count]
            count += 1
        else:
            j = (i - skip) % n
            c[a] = h[j] * coord_inv[j]
    factor_times(T, k, c, v)
    factor_transpose_times(T, k, v, c)
    count = k - k
    for a in range(k):
        i = tape_i[3 + a]
        if i < m:
            weight[count] = c[a]
            count += 1
        else:
            j = (i - skip) % n
            h[j] -= c[a] * coord_inv[j]
    subtract_rows(reduced, packed, weight, count, h)
    if count < k:
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
        while True:
            remove_selected(k, out, shared, tape_f, tape_i, c, v, iwork, weight, inner)
            # T M is orthonormal only up to its condition: each pass squares or at least shrinks
            # what is left, and more passes are needed the worse it is.
            if steepest <= FLAT_FACTOR:
                break
            steepest *= 0.01
    if shared[0][BOUNDED] == 1:
        for j in range(n):
            if code[m + p + j] & mask != 0 or shared[5][j] == 0.0:
                out[j] = 0.0
