r"""Projection onto a general polyhedron: a dual active-set method in the space of the constraints.

Problem. With rows normalised and reduced as in :mod:`hsref.sets.working_rows`,

.. math:: \min \tfrac12 \|y - x\|^2 \quad \text{s.t.} \quad C y \le d,\ B y = b,\ l \le y \le u .

Goldfarb and Idnani's method starts from the projection onto the equalities, and keeps a working set
K of independent inequalities with multipliers :math:`\lambda_K \ge 0` for which y is the projection
onto {rows of K hold with equality}. While some constraint p is violated it raises the multiplier of
p along :math:`r = (M_K M_K^T)^{-1} M_K c_p`, dropping the rows of K whose multiplier reaches 0,
until p holds; then p joins K. Every such step raises the dual objective, so no K recurs: finite,
without a rule against cycling and without an assumption of independence. If p depends on K and
nothing blocks, :math:`c_p - M_K^T r = 0` is a Farkas certificate.

Two passes.

1. *Fast*: y never appears. The slacks at the current multipliers are the slacks at the start minus
   a combination of rows of the Gram matrix, which the batch shares; they are recomputed from the
   start at each step, so nothing drifts. A step costs k (m + k) operations.
2. *Polish*: y is formed, slacks are recomputed from y, the residual of K is corrected with its
   factor (y moves by the correction alone, so the error of a far-away x is not made anew), and the
   same method continues with explicit y where a constraint is still violated. It ends when the
   recomputed slacks are at round-off; usually it finds nothing to do.

Multipliers are stored signed (negative: a lower bound), which makes a bound one row, not two. The
factor is that of :mod:`hsref.sets.packed_factor`; where a new row is nearly dependent on K the
distance is computed from the row itself, orthogonalised twice, not from the Gram matrix.

At the end active rows are decided once, and the factor is ordered so that its prefixes serve the
three selections: positive multipliers, then working rows with multiplier 0, then further active
rows that are independent of those before.

References: Goldfarb and Idnani, "A numerically stable dual method for solving strictly convex
quadratic programs", Math. Program. 27 (1983). Gill, Golub, Murray and Saunders, "Methods for
modifying matrix factorizations", Math. Comp. 28 (1974).
"""

from __future__ import annotations

import math

import numpy as np

from .._codes import MAX_STEPS, PRIMAL_INFEASIBLE, SOLVED
from .._jit import device_function
from .packed_factor import (
    factor_append,
    factor_delete,
    factor_times,
    factor_transpose_times,
)
from .working_rows import (
    gram_column,
    load_row,
    normalised_slacks,
    products_with_working,
    remove_equality_part,
    subtract_rows,
    subtract_working,
)

PIVOT_TOL = 1e-10
"""A unit row closer than this to the span of the working rows counts as dependent on them."""
GRAM_PIVOT = 1e-4
"""Squared distances below this are not taken from the Gram matrix, where they cancel."""
CONSISTENT_TOL = 1e-12
"""Relative mismatch up to which dependent right-hand sides count as consistent."""
FAST_TOL = 2e-14
"""Violation the fast pass leaves, relative to its start; the polish ends at its own tolerance."""
PRIMAL_TOL = 1e-13
"""Violation, relative to right-hand side and largest entry of y, at which the polish ends."""
GIVE_UP_TOL = 1e-9
"""Relative violation above which a solve that cannot make progress is reported as not solved."""
RESIDUAL_TOL = 4e-15
"""Relative residual of the working rows above which y is corrected."""
EPS = 2.220446049250313e-16


@device_function
def direction(row, k, explicit, rows, at):
    """Coordinates l = T M c, r = T'l of row c in the working rows; returns its squared distance.

    z, the part of c orthogonal to the working rows, is written if ``explicit`` is 1 or the
    distance is small; it is then orthogonalised twice and l and r are improved with it.
    """
    l, r, g, z = at.l, at.r, at.g, at.z
    gram_column(row, k, at.ids, rows.gram, rows.basis, rows.coord_inv, g)
    factor_times(at.T, k, g, l)
    factor_transpose_times(at.T, k, l, r)
    square = 1.0
    for a in range(k):
        square -= l[a] * l[a]
    if explicit == 0 and square >= GRAM_PIVOT:
        return square
    load_row(row, rows.reduced, rows.basis, rows.coord_inv, z)
    if k == 0:
        return 1.0
    subtract_working(k, r, z, rows, at)
    for _ in range(3):
        before = 0.0
        for j in range(z.shape[0]):
            before += z[j] * z[j]
        products_with_working(k, at.ids, rows.reduced, rows.coord_inv, z, g)
        factor_times(at.T, k, g, at.lost)
        for a in range(k):
            l[a] += at.lost[a]
        factor_transpose_times(at.T, k, at.lost, g)
        for a in range(k):
            r[a] += g[a]
        subtract_working(k, g, z, rows, at)
        remove_equality_part(rows.basis, z, at.inner)
        square = 0.0
        for j in range(z.shape[0]):
            square += z[j] * z[j]
        # Twice is enough (Kahan) unless this pass still removed most of z.
        if square > 0.25 * before:
            break
    return square


@device_function
def drop(k, gone, at):
    """Take position ``gone`` out of the working set; returns the coefficient of l lost with it."""
    value = factor_delete(at.T, k, gone, at.l, at.lost)
    for a in range(gone, k - 1):
        at.ids[a] = at.ids[a + 1]
        at.nu[a] = at.nu[a + 1]
        at.sign[a] = at.sign[a + 1]
        # From here on positions count without the dropped row.
        at.lost[a] = at.lost[a + 1]
    return value


@device_function
def append(row, sign, multiplier, k, square, at):
    """Add a row, whose combination r and squared distance are known, to the working set."""
    factor_append(at.T, k, at.r, math.sqrt(square))
    at.ids[k] = row
    at.nu[k] = multiplier
    at.sign[k] = sign


@device_function
def bring_in(row, sign, violation, k, explicit, y, rows, at):
    """Raise the multiplier of a violated row until it holds, dropping rows that block.

    Writes the working set, its multipliers and factor, and y if ``explicit`` is 1. Returns
    (new k, steps, added). added = 0 means that the row depends on the working rows and nothing
    blocks, so that its multiplier could grow for ever; r then holds the combination.
    """
    nu, r, z = at.nu, at.r, at.z
    square = direction(row, k, explicit, rows, at)
    raised = 0.0
    steps = 0
    while True:
        steps += 1
        dependent = k >= at.most or square <= PIVOT_TOL * PIVOT_TOL
        least = 0.0
        if dependent:
            # An entry of r at round-off would allow a huge step that means nothing.
            least = 1.0
            for a in range(k):
                least = max(least, abs(r[a]))
            least *= 1e-9
        step = np.inf
        gone = -1
        for a in range(k):
            pull = sign * at.sign[a] * r[a]
            if pull > least:
                size = max(at.sign[a] * nu[a], 0.0)
                if size < step * pull:
                    step = size / pull
                    gone = a
        if dependent and gone < 0:
            return k, steps, 0
        if not dependent and violation <= step * square:
            step = violation / square
            gone = -1
        move = sign * step
        raised += step
        for a in range(k):
            nu[a] -= move * r[a]
        if explicit == 1 and not dependent:
            for j in range(y.shape[0]):
                y[j] -= move * z[j]
        if gone < 0:
            append(row, sign, sign * raised, k, square, at)
            return k + 1, steps, 1
        if not dependent:
            violation -= step * square
        # l belongs to the row, so the coefficient lost updates r and the distance.
        value = drop(k, gone, at)
        for a in range(gone, k - 1):
            r[a] = r[a + 1]
        k -= 1
        for a in range(k):
            r[a] -= at.lost[a] * value
        square += value * value
        if explicit == 1 or square < GRAM_PIVOT:
            square = direction(row, k, 1, rows, at)


@device_function
def working_bound(a, m, at, lower, upper):
    """Return the bound that the working row at position a, a bound, holds its coordinate at."""
    j = at.ids[a] - m
    return upper[j] if at.sign[a] > 0.0 else lower[j]


@device_function
def solve_working(k, rows, at):
    """Set the multipliers so that K holds with equality, dropping rows until none is negative.

    Slacks are those of the start (s0, y0). Returns the new k. The dual method may go on from any
    independent K treated in this way.
    """
    m = rows.gram.shape[1]
    for a in range(k):
        if at.ids[a] < m:
            at.g[a] = at.s0[at.ids[a]]
        else:
            j = at.ids[a] - m
            gap = at.y0[j] - working_bound(a, m, at, rows.lower, rows.upper)
            at.g[a] = gap * rows.coord_inv[j]
    factor_times(at.T, k, at.g, at.l)
    factor_transpose_times(at.T, k, at.l, at.nu)
    while True:
        gone = -1
        worst = 0.0
        for a in range(k):
            if at.sign[a] * at.nu[a] < worst:
                worst = at.sign[a] * at.nu[a]
                gone = a
        if gone < 0:
            return k
        value = drop(k, gone, at)
        k -= 1
        for a in range(k):
            at.nu[a] -= at.lost[a] * value


@device_function
def start_from(count, explicit, rows, at):
    """Build the factor of the rows wanted[0:count], skipping dependent ones; returns k.

    Multipliers are left at 0.
    """
    k = 0
    for c in range(count):
        if k >= at.most:
            break
        square = direction(at.wanted[c], k, explicit, rows, at)
        if square > PIVOT_TOL * PIVOT_TOL:
            append(at.wanted[c], at.wanted_sign[c], 0.0, k, square, at)
            k += 1
    return k


@device_function
def fast_pass(k, limit, y, rows, at):
    """Run the dual method on the Gram matrix until no slack is above FAST_TOL; y is scratch.

    Returns (k, steps, row, sign). row >= 0: that row depends on the working rows, its
    multiplier is unbounded, and r holds the combination.
    """
    m = rows.gram.shape[1]
    n = y.shape[0]
    size = 0.0
    for j in range(n):
        size += at.y0[j] * at.y0[j]
        y[j] = at.y0[j]
    tol = -1.0
    steps = 0
    while True:
        for i in range(m):
            at.s[i] = at.s0[i]
        subtract_rows(rows.gram, at.ids, at.nu, k, at.s)
        best = max(tol, 0.0)
        row = -1
        sign = 1.0
        for i in range(m):
            if at.s[i] > best:
                best = at.s[i]
                row = i
        if rows.bounded == 1:
            if k > 0:
                for j in range(n):
                    y[j] = at.y0[j]
                subtract_working(k, at.nu, y, rows, at)
            for j in range(n):
                excess = (y[j] - rows.upper[j]) * rows.coord_inv[j]
                if excess > best:
                    best = excess
                    row = m + j
                    sign = 1.0
                excess = (rows.lower[j] - y[j]) * rows.coord_inv[j]
                if excess > best:
                    best = excess
                    row = m + j
                    sign = -1.0
        if row < 0:
            return k, steps, -1, sign
        if tol < 0.0:
            tol = FAST_TOL * (math.sqrt(size) + best)
            if best <= tol:
                return k, steps, -1, sign
        k, more, added = bring_in(row, sign, best, k, 0, y, rows, at)
        steps += more
        if added == 0:
            return k, steps, row, sign
        if steps > limit:
            return k, steps, -1, sign


@device_function
def farkas(row, sign, k, rows, at):
    """Write the certificate "c_row = M_K' r, r blocked" into at.certificate; 1 if it is valid.

    Entries are signed numbers for the constraints as given: rows of A_ub (>= 0), rows of A_eq,
    coordinates (> 0 for the upper bound, < 0 for the lower). Valid means that the combined
    right-hand side is negative beyond the rounding of its terms.
    """
    m = rows.gram.shape[1]
    n = at.z.shape[0]
    p = rows.eq_ids.shape[0]
    cert, w = at.certificate, at.z
    for i in range(m + p + n):
        cert[i] = 0.0
    for j in range(n):
        w[j] = 0.0
    value = 0.0
    terms = 0.0
    reach = 0.0
    for a in range(-1, k):
        if a < 0:
            i = row
            weight = sign
        else:
            i = at.ids[a]
            weight = -sign * at.r[a]
            if weight * at.sign[a] <= 0.0:
                continue
        if i < m:
            weight *= rows.row_inv[1, i]
            cert[i] = weight * rows.row_inv[0, i]
            side = at.rhs[i]
            for j in range(n):
                w[j] += weight * rows.columns[j, i]
        else:
            j = i - m
            weight *= rows.coord_inv[j]
            cert[m + p + j] = weight
            side = rows.upper[j] if weight > 0.0 else rows.lower[j]
            w[j] += weight
        value += weight * side
        terms += abs(weight * side)
        reach = max(reach, abs(side))
    size = rows.basis.shape[0]
    for e in range(size):
        total = 0.0
        for j in range(n):
            total += rows.basis[e, j] * w[j]
        at.inner[e] = total
    for e in range(size):
        total = 0.0
        for c in range(e, size):
            total -= rows.eq_inverse[c, e] * at.inner[c]
        cert[m + rows.eq_ids[e]] = total * rows.eq_inv[e]
        value += total * at.rhs_eq[e]
        terms += abs(total * at.rhs_eq[e])
        reach = max(reach, abs(at.rhs_eq[e]))
    remove_equality_part(rows.basis, w, at.inner)
    left = 0.0
    for j in range(n):
        left += abs(w[j])
    return 1 if value < -(CONSISTENT_TOL * terms + left * reach) else 0


@device_function
def restore_equalities(y, rows, at):
    """y -= Q' (eq_inverse (B y - b)): back onto the equalities; scratch inner, outer."""
    size = rows.basis.shape[0]
    n = y.shape[0]
    for e in range(size):
        total = -at.rhs_eq[e]
        for j in range(n):
            total += rows.eq_rows[e, j] * y[j]
        at.inner[e] = total
    for e in range(size):
        total = 0.0
        for c in range(e + 1):
            total += rows.eq_inverse[e, c] * at.inner[c]
        for j in range(n):
            y[j] -= total * rows.basis[e, j]


@device_function
def correct(k, dual_tol, y, rows, at):
    """Move y by the correction r = T'T g of the working residual g, multipliers with it.

    Stops where a multiplier reaches 0 and drops that row. Returns the new k.
    """
    factor_times(at.T, k, at.g, at.l)
    factor_transpose_times(at.T, k, at.l, at.r)
    part = 1.0
    gone = -1
    for a in range(k):
        now = max(at.sign[a] * at.nu[a], 0.0)
        change = at.sign[a] * at.r[a]
        if now + change < -dual_tol and now < -part * change:
            part = now / -change
            gone = a
    for a in range(k):
        at.r[a] *= part
        at.nu[a] += at.r[a]
        if at.sign[a] * at.nu[a] < 0.0:
            at.nu[a] = 0.0
    subtract_working(k, at.r, y, rows, at)
    if gone >= 0:
        drop(k, gone, at)
        return k - 1
    return k


@device_function
def is_ignored(row, count, ignored):
    """1 if row is among ignored[0:count]."""
    for c in range(count):
        if ignored[c] == row:
            return 1
    return 0


@device_function
def point_from_start(k, y, rows, at):
    """y = y0 - sum of nu times the working rows."""
    for j in range(y.shape[0]):
        y[j] = at.y0[j]
    subtract_working(k, at.nu, y, rows, at)


@device_function
def polish(k, x_size, y, rows, at):
    """Form y, correct the working residual, and go on while a recomputed slack is violated.

    On return s holds the slacks of the normalised rows at y. Returns (k, steps, status).
    """
    m = rows.gram.shape[1]
    n = y.shape[0]
    # At the apex of a cone y is pure rounding: nothing below this fraction of it is meant.
    floor = 1e-6 * EPS * x_size
    tol = PRIMAL_TOL
    ignored = 0
    corrections = 0
    rebuilt = 0
    steps = 0
    limit = 50 + 4 * at.most
    before = np.inf
    point_from_start(k, y, rows, at)
    while True:
        restore_equalities(y, rows, at)
        normalised_slacks(rows.columns, y, at.rhs, at.s)
        size = 0.0
        for j in range(n):
            size = max(size, abs(y[j]))
        worst = 0.0
        for a in range(k):
            i = at.ids[a]
            if i < m:
                at.g[a] = at.s[i] * rows.row_inv[1, i]
                worst = max(worst, abs(at.s[i]) / (abs(at.rhs[i]) + size + floor))
            else:
                bound = working_bound(a, m, at, rows.lower, rows.upper)
                gap = y[i - m] - bound
                at.g[a] = gap * rows.coord_inv[i - m]
                worst = max(worst, abs(gap) / (abs(bound) + size + floor))
        if worst > RESIDUAL_TOL and corrections < 4 and worst < 0.5 * before:
            corrections += 1
            before = worst
            left = correct(k, 16.0 * EPS * x_size, y, rows, at)
            if left < k:
                k = left
                steps += 1
                corrections = 0
                before = np.inf
            continue
        if worst > 10.0 * tol and rebuilt == 0:
            # The factor has lost its accuracy: build it anew from the rows themselves.
            rebuilt = 1
            for a in range(k):
                at.wanted[a] = at.ids[a]
                at.wanted_sign[a] = at.sign[a]
            k = solve_working(start_from(k, 1, rows, at), rows, at)
            point_from_start(k, y, rows, at)
            corrections = 0
            before = np.inf
            continue
        for a in range(k):
            if at.ids[a] >= m:
                y[at.ids[a] - m] = working_bound(a, m, at, rows.lower, rows.upper)
        best = 0.0
        row = -1
        sign = 1.0
        for i in range(m):
            if at.s[i] > 0.0:
                excess = at.s[i] * rows.row_inv[1, i]
                allowed = tol * (abs(at.rhs[i]) + size) + floor
                if excess > best and at.s[i] > allowed and is_ignored(i, ignored, at.ignored) == 0:
                    best = excess
                    row = i
        if rows.bounded == 1:
            for j in range(n):
                excess = y[j] - rows.upper[j]
                side = 1.0
                bound = rows.upper[j]
                if rows.lower[j] - y[j] > excess:
                    excess = rows.lower[j] - y[j]
                    side = -1.0
                    bound = rows.lower[j]
                if excess > tol * (abs(bound) + size) + floor:
                    excess *= rows.coord_inv[j]
                    if excess > best and is_ignored(m + j, ignored, at.ignored) == 0:
                        best = excess
                        row = m + j
                        sign = side
        if row < 0:
            return k, steps, SOLVED if worst <= GIVE_UP_TOL else MAX_STEPS
        if steps > limit:
            # Round-off of nearly dependent rows keeps it busy: accept a little more each time.
            tol *= 10.0
            limit += 50 + 4 * at.most
            if tol > GIVE_UP_TOL:
                return k, steps, MAX_STEPS
        k, more, added = bring_in(row, sign, best, k, 1, y, rows, at)
        steps += more
        corrections = 0
        before = np.inf
        if added == 0:
            if farkas(row, sign, k, rows, at) == 1:
                return k, steps, PRIMAL_INFEASIBLE
            if ignored >= at.ignored.shape[0]:
                return k, steps, MAX_STEPS
            # The contradiction is within rounding: the row holds as well as it can.
            at.ignored[ignored] = row
            ignored += 1
            k = solve_working(k, rows, at)
            point_from_start(k, y, rows, at)
