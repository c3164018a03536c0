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

Multipliers are stored signed (negative: a lower bound), which makes the two bounds of a coordinate
one row. The factor is that of :mod:`hsref.sets.packed_factor`; where a new row is nearly dependent
on K the distance is computed from the row itself, orthogonalised twice, not from the Gram matrix.

References: Goldfarb and Idnani, "A numerically stable dual method for solving strictly convex
quadratic programs", Math. Program. 27 (1983). Gill, Golub, Murray and Saunders, "Methods for
modifying matrix factorizations", Math. Comp. 28 (1974).
"""

from __future__ import annotations

import math

import numpy as np

from .._codes import MAX_STEPS, PRIMAL_INFEASIBLE, SOLVED
from .._jit import device_function
from .contradiction import farkas, relax
from .packed_factor import factor_times, factor_transpose_times
from .working_rows import (
    matrix_times,
    normalised_slacks,
    subtract_combination,
    subtract_rows,
    subtract_working,
)
from .working_set import (
    BOUNDED,
    CERTIFICATE,
    EQS,
    EXPLICIT,
    GRAM_PIVOT,
    IDS,
    INNER,
    LOST,
    MOST,
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
    WEIGHT,
    Y0,
    G,
    L,
    R,
    S,
    Y,
    Z,
    bound_at,
    bring_in,
    drop,
    start_from,
)

FAST_TOL = 2e-14
"""Violation the fast pass leaves, relative to its start; the polish ends at its own tolerance."""
PRIMAL_TOL = 1e-13
"""Violation, relative to right-hand side and largest entry of y, at which the polish ends."""
GIVE_UP_TOL = 1e-9
"""Relative violation above which a solve that cannot make progress is reported as not solved."""
RESIDUAL_TOL = 4e-15
"""Relative residual of the working rows above which y is corrected; more for long rows."""
EPS = 2.220446049250313e-16


@device_function
def fast_pass(k, data, work, iwork, lay, reduced, gram, coord_inv, basis):
    """Run the dual method on the Gram matrix until no slack is above FAST_TOL.

    Returns (k, steps). Stops early where a row depends on the working rows with nothing to block;
    the polish then looks at it again. Writes s, and y as scratch if there are bounds.
    """
    ids, nu = iwork[lay[IDS] : lay[PACKED]], work[lay[NU] : lay[SIGN]]
    s0, s = work[lay[S0] : lay[S]], work[lay[S] : lay[RHS]]
    y0, y = work[lay[Y0] : lay[Y]], work[lay[Y] : lay[Z]]
    m = s.shape[0]
    n = y.shape[0]
    # Not a literal: Numba would compile callees anew for each literal.
    none = m + n
    size = 0.0
    for j in range(n):
        size += y0[j] * y0[j]
    size = math.sqrt(size)
    tol = -1.0
    steps = 0
    while True:
        for i in range(m):
            s[i] = s0[i]
        subtract_rows(gram, ids, nu, k, s)
        best = max(tol, 0.0)
        row = none
        sign = 1.0
        for i in range(m):
            if s[i] > best:
                best = s[i]
                row = i
        if lay[BOUNDED] == 1:
            lower = data[lay[ROWS] + lay[EQS] : lay[ROWS] + lay[EQS] + n]
            upper = data[lay[ROWS] + lay[EQS] + n : lay[ROWS] + lay[EQS] + 2 * n]
            for j in range(n):
                y[j] = y0[j]
            subtract_working(
                k, ids, nu, y, reduced, coord_inv, basis, iwork[lay[PACKED] : lay[WANTED]],
                work[lay[WEIGHT] : lay[WANTED_SIGN]], work[lay[INNER] : lay[RHS_EQ]],
            )  # fmt: skip
            for j in range(n):
                above = (y[j] - upper[j]) * coord_inv[j]
                below = (lower[j] - y[j]) * coord_inv[j]
                if above > best:
                    best = above
                    row = m + j
                    sign = 1.0
                if below > best:
                    best = below
                    row = m + j
                    sign = -1.0
        if tol < 0.0:
            tol = FAST_TOL * (size + best)
        if row == none or best <= tol or steps > 50 + 10 * lay[MOST]:
            return k, steps
        k, more, added = bring_in(
            row, sign, best, k, GRAM_PIVOT, work, iwork, lay, reduced, gram, coord_inv, basis
        )
        steps += more
        if added == 0:
            return k, steps


@device_function
def restore_equalities(y, rhs_eq, inner, eq_rows, eq_inverse, basis):
    """y -= Q' eq_inverse (B y - b): back onto the equalities; scratch inner[0:k_e]."""
    size = basis.shape[0]
    matrix_times(eq_rows, y, inner)
    # Lower triangular: from the last entry up, the product can overwrite its factor.
    for e in range(size - 1, -1, -1):
        total = 0.0
        for c in range(e + 1):
            total += eq_inverse[e, c] * (inner[c] - rhs_eq[c])
        inner[e] = total
    subtract_combination(basis, inner, y)


@device_function
def correct(k, dual_tol, work, iwork, lay, reduced, coord_inv, basis):
    """Move y by the correction r = T'T g of the working residual g, multipliers with it.

    Stops where a multiplier reaches 0 and drops that row. Returns the new k.
    """
    along, r = work[lay[L] : lay[R]], work[lay[R] : lay[G]]
    nu, sign = work[lay[NU] : lay[SIGN]], work[lay[SIGN] : lay[L]]
    factor_times(work[0 : lay[NU]], k, work[lay[G] : lay[LOST]], along)
    factor_transpose_times(work[0 : lay[NU]], k, along, r)
    part = 1.0
    gone = k
    for a in range(k):
        now = max(sign[a] * nu[a], 0.0)
        change = sign[a] * r[a]
        if now + change < -dual_tol and now < -part * change:
            part = now / -change
            gone = a
    for a in range(k):
        r[a] *= part
        nu[a] += r[a]
        if sign[a] * nu[a] < 0.0:
            nu[a] = 0.0
    subtract_working(
        k, iwork[lay[IDS] : lay[PACKED]], r, work[lay[Y] : lay[Z]], reduced, coord_inv, basis,
        iwork[lay[PACKED] : lay[WANTED]], work[lay[WEIGHT] : lay[WANTED_SIGN]],
        work[lay[INNER] : lay[RHS_EQ]],
    )  # fmt: skip
    if gone < k:
        drop(k, gone, work, iwork, lay)
        return k - 1
    return k


@device_function
def most_violated(tol, floor, size, data, work, iwork, lay, row_inv, coord_inv):
    """Return (row, sign, violation) of the largest reduced violation above tolerance.

    s holds the slacks of the normalised rows at y; ``size`` is the largest entry of y. row is
    m + n if there is none.
    """
    s, rhs = work[lay[S] : lay[RHS]], work[lay[RHS] : lay[Y0]]
    y = work[lay[Y] : lay[Z]]
    m = lay[ROWS]
    n = lay[SIZE]
    best = 0.0
    row = m + n
    sign = 1.0
    for i in range(m):
        if s[i] > tol * (abs(rhs[i]) + size) + floor:
            excess = s[i] * row_inv[1, i]
            if excess > best:
                best = excess
                row = i
    if lay[BOUNDED] == 1:
        for j in range(n):
            upper = data[bound_at(j, 1.0, lay)]
            lower = data[bound_at(j, -1.0, lay)]
            side = 1.0 if y[j] > upper else -1.0
            excess = y[j] - upper if y[j] > upper else lower - y[j]
            bound = upper if y[j] > upper else lower
            if excess > 0.0 and excess > tol * (abs(bound) + size) + floor:
                excess *= coord_inv[j]
                if excess > best:
                    best = excess
                    row = m + j
                    sign = side
    return row, sign, best


@device_function
def stationary(k, force, work, iwork, lay, reduced, coord_inv, basis):
    """Return 1 if y is what the multipliers of the working rows make of y0, else 0.

    Corrections of rows that are all but dependent can drive y away, to a point that is feasible
    and yet no projection. Scratch z and what `subtract_working` takes.
    """
    y0, y, z = work[lay[Y0] : lay[Y]], work[lay[Y] : lay[Z]], work[lay[Z] : lay[INNER]]
    nu = work[lay[NU] : lay[SIGN]]
    for j in range(y.shape[0]):
        z[j] = y0[j]
    subtract_working(
        k, iwork[lay[IDS] : lay[PACKED]], nu, z, reduced, coord_inv, basis,
        iwork[lay[PACKED] : lay[WANTED]], work[lay[WEIGHT] : lay[WANTED_SIGN]],
        work[lay[INNER] : lay[RHS_EQ]],
    )  # fmt: skip
    for j in range(y.shape[0]):
        if not (abs(z[j] - y[j]) <= GIVE_UP_TOL * force):
            return 0
    return 1


@device_function
def broken(size, floor, data, columns, work, lay, row_inv):
    """Return 1 if y violates a row as it was given, else 0.

    Right-hand sides are relaxed in proportion to y, which may have been far away by then.
    """
    rhs, y = work[lay[RHS] : lay[Y0]], work[lay[Y] : lay[Z]]
    for i in range(lay[ROWS]):
        given = data[i] * row_inv[0, i]
        if rhs[i] != given:
            over = -given
            for j in range(y.shape[0]):
                over += columns[j, i] * y[j]
            # Written so that NaN fails.
            if not (over <= GIVE_UP_TOL * (abs(given) + size) + floor):
                return 1
    return 0


@device_function
def polish(k, x_size, data, shared, work, iwork):
    """Form y, correct the working residual, and go on while a recomputed slack is violated.

    On return s holds the slacks of the normalised rows at y. Returns (k, steps, status).
    """
    lay, columns, reduced, gram, row_inv = shared[0], shared[1], shared[2], shared[3], shared[4]
    coord_inv, basis, eq_rows, eq_inverse = shared[5], shared[6], shared[7], shared[8]
    ids, nu = iwork[lay[IDS] : lay[PACKED]], work[lay[NU] : lay[SIGN]]
    sign = work[lay[SIGN] : lay[L]]
    s, rhs, g = work[lay[S] : lay[RHS]], work[lay[RHS] : lay[Y0]], work[lay[G] : lay[LOST]]
    y, y0 = work[lay[Y] : lay[Z]], work[lay[Y0] : lay[Y]]
    m = s.shape[0]
    n = y.shape[0]
    # At the apex of a cone y is pure rounding: nothing below this fraction of it is meant.
    floor = 1e-6 * EPS * x_size
    tol = PRIMAL_TOL
    # Rounding in a sum of n terms: below it, corrections only replace one error by another.
    good = RESIDUAL_TOL * math.sqrt(1.0 + n / 64.0)
    patience = 50 + 4 * lay[MOST]
    limit = patience
    slackening = 8.0 * EPS
    steps = 0
    corrections = 0
    before = np.inf
    # The factor is built anew, from the rows themselves, where it turns out inaccurate.
    rebuilt = False
    rebuild = False
    from_start = True
    while True:
        if rebuild:
            for a in range(k):
                iwork[lay[WANTED] + a] = ids[a]
                work[lay[WANTED_SIGN] + a] = sign[a]
            k = start_from(k, EXPLICIT, data, work, iwork, lay, reduced, gram, coord_inv, basis)
            rebuilt = True
            rebuild = False
            from_start = True
        if from_start:
            for j in range(n):
                y[j] = y0[j]
            subtract_working(
                k, ids, nu, y, reduced, coord_inv, basis, iwork[lay[PACKED] : lay[WANTED]],
                work[lay[WEIGHT] : lay[WANTED_SIGN]], work[lay[INNER] : lay[RHS_EQ]],
            )  # fmt: skip
            from_start = False
            corrections = 0
            before = np.inf
        restore_equalities(
            y, work[lay[RHS_EQ] : lay[CERTIFICATE]], work[lay[INNER] : lay[RHS_EQ]],
            eq_rows, eq_inverse, basis,
        )  # fmt: skip
        normalised_slacks(columns, y, rhs, s)
        size = 0.0
        for j in range(n):
            size = max(size, abs(y[j]))
        worst = 0.0
        slip = 0.0
        for a in range(k):
            i = ids[a]
            if i < m:
                slip = max(slip, abs(s[i]))
                g[a] = s[i] * row_inv[1, i]
                worst = max(worst, abs(s[i]) / (abs(rhs[i]) + size + floor))
            else:
                bound = data[bound_at(i - m, sign[a], lay)]
                g[a] = (y[i - m] - bound) * coord_inv[i - m]
                slip = max(slip, abs(y[i - m] - bound))
                worst = max(worst, abs(y[i - m] - bound) / (abs(bound) + size + floor))
        if worst > good and corrections < 4 and worst < 0.5 * before:
            corrections += 1
            before = worst
            left = correct(k, 16.0 * EPS * x_size, work, iwork, lay, reduced, coord_inv, basis)
            if left < k:
                k = left
                steps += 1
                corrections = 0
                before = np.inf
            continue
        if worst > 10.0 * tol and not rebuilt:
            rebuild = True
            continue
        for a in range(k):
            if ids[a] >= m:
                y[ids[a] - m] = data[bound_at(ids[a] - m, sign[a], lay)]
        row, side, violation = most_violated(
            tol, floor, size, data, work, iwork, lay, row_inv, coord_inv
        )
        if row == m + n:
            # Near an apex y may vanish; round-off of x itself is then all that is left.
            holds = worst <= GIVE_UP_TOL or slip <= 64.0 * EPS * x_size
            if stationary(k, x_size + size, work, iwork, lay, reduced, coord_inv, basis) == 0:
                holds = False
            if broken(size, 64.0 * EPS * x_size, data, columns, work, lay, row_inv) == 1:
                holds = False
            return k, steps, SOLVED if holds else MAX_STEPS
        if steps > limit:
            # Round-off of nearly dependent rows keeps it busy: accept a little more each time.
            tol *= 10.0
            limit += patience
            if tol > GIVE_UP_TOL:
                return k, steps, MAX_STEPS
        k, more, added = bring_in(
            row, side, violation, k, EXPLICIT, work, iwork, lay, reduced, gram, coord_inv, basis
        )
        steps += more
        corrections = 0
        before = np.inf
        if added == 0:
            if farkas(row, side, k, data, shared, work, iwork) == 1:
                return k, steps, PRIMAL_INFEASIBLE
            # The contradiction is within rounding: let its rows hold as well as they can.
            relax(row, side, k, slackening, work, iwork, lay, row_inv)
            slackening *= 8.0
            tol *= 4.0
            if tol > GIVE_UP_TOL:
                return k, steps, MAX_STEPS
            rebuild = True
