r"""Empty polyhedra: Farkas certificates, and contradictions that are only rounding.

A certificate is a vector of signed numbers for the constraints as given, in the order rows of A_ub
(>= 0), rows of A_eq, coordinates (> 0 for the upper bound, < 0 for the lower), whose combination of
left-hand sides is 0 and of right-hand sides negative:

.. math:: A_{ub}^T \lambda + A_{eq}^T \mu + \beta^+ - \beta^- = 0, \qquad
          b_{ub}^T \lambda + b_{eq}^T \mu + upper^T \beta^+ - lower^T \beta^- < 0 .

It speaks of the data alone, so that no verdict contradicts another, whatever point was projected.
"""

from __future__ import annotations

import numpy as np

from .._jit import device_function
from .working_rows import matrix_times, remove_equality_part
from .working_set import (
    CERTIFICATE,
    EQS,
    FLOATS,
    IDS,
    INNER,
    RHS,
    RHS_EQ,
    ROWS,
    S0,
    SIGN,
    SIZE,
    Y0,
    R,
    S,
    Y,
    Z,
    bound_at,
)

CONSISTENT_TOL = 1e-12
"""Relative mismatch up to which dependent right-hand sides count as consistent."""
TINIEST = 5e-324
LEFT_TOL = 2e-14
"""What rounding may leave of a combination of rows that should be 0, relative to its weights."""


@device_function
def implied_contradiction(
    data, rhs_eq, eq_ids, eq_inv, implied, implied_inv, combos, certificate, m, p, n
):
    """Check what the equalities imply; 1 and a certificate if some of it cannot hold.

    Constraint ``implied[t]``, times ``implied_inv[t]``, has the left-hand side
    ``combos[t] . (basis rows)``, hence the value combos[t] . rhs_eq at every point. Basis row e is
    constraint ``eq_ids[e]`` times ``eq_inv[e]``.
    """
    # Below the normal numbers each of the terms is rounded by as much, whatever its size.
    coarse = 8.0 * (1.0 + rhs_eq.shape[0]) * TINIEST
    for t in range(implied.shape[0]):
        i = implied[t]
        most = 0.0
        for e in range(rhs_eq.shape[0]):
            most = max(most, abs(combos[t, e]))
        value = 0.0
        terms = 0.0
        for e in range(rhs_eq.shape[0]):
            value += combos[t, e] * rhs_eq[e]
            # A coefficient that should be 0 is round-off of the largest: it may not set the scale.
            terms += (abs(combos[t, e]) + 0.1 * most) * abs(rhs_eq[e])
        weight = implied_inv[t]
        # Of a coordinate the data hold the lower bounds, then the upper ones.
        upper = data[i if i < m + p else i + n] * weight
        lower = -np.inf
        if i >= m:
            lower = data[i] * weight
        sign = 0.0
        if value - upper > CONSISTENT_TOL * (terms + abs(upper)) + coarse:
            sign = 1.0
        if lower - value > CONSISTENT_TOL * (terms + abs(lower)) + coarse:
            sign = -1.0
        if sign != 0.0:
            for c in range(certificate.shape[0]):
                certificate[c] = 0.0
            certificate[i] = sign * weight
            for e in range(rhs_eq.shape[0]):
                certificate[eq_ids[e]] = -sign * combos[t, e] * eq_inv[e]
            return 1
    return 0


@device_function
def farkas(row, sign, k, data, shared, work, iwork):
    """Write the certificate "c_row = M_K' r, nothing blocks"; returns 1 if it is valid.

    Entries are signed numbers for the constraints as given: rows of A_ub (>= 0), rows of A_eq,
    coordinates (> 0 for the upper bound, < 0 for the lower). Valid means that the combined
    right-hand side is negative beyond the rounding of its terms, and that what is left of the
    combined rows does not matter: rows that are all but opposite contradict each other only near
    the origin.
    """
    lay, columns, row_inv, coord_inv, basis = shared[0], shared[1], shared[4], shared[5], shared[6]
    eq_inverse, eq_ids, eq_inv = shared[8], shared[9], shared[10]
    cert, w = work[lay[CERTIFICATE] : lay[FLOATS]], work[lay[Z] : lay[INNER]]
    inner, rhs_eq = work[lay[INNER] : lay[RHS_EQ]], work[lay[RHS_EQ] : lay[CERTIFICATE]]
    m = lay[ROWS]
    n = w.shape[0]
    for i in range(cert.shape[0]):
        cert[i] = 0.0
    for j in range(n):
        w[j] = 0.0
    value = 0.0
    terms = 0.0
    reach = 0.0
    weights = 0.0
    for a in range(k + 1):
        i = row
        weight = sign
        if a < k:
            i = np.int64(iwork[lay[IDS] + a])
            weight = -sign * work[lay[R] + a]
            if weight * work[lay[SIGN] + a] <= 0.0:
                continue
        if i < m:
            weight *= row_inv[1, i]
            cert[i] = weight * row_inv[0, i]
            side = work[lay[RHS] + i]
            for j in range(n):
                w[j] += weight * columns[j, i]
        else:
            j = i - m
            weight *= coord_inv[j]
            cert[m + lay[EQS] + j] = weight
            side = data[bound_at(j, weight, lay)]
            w[j] += weight
        value += weight * side
        terms += abs(weight * side)
        reach = max(reach, abs(side))
        weights += abs(weight)
    size = basis.shape[0]
    matrix_times(basis, w, inner)
    for e in range(size):
        total = 0.0
        for c in range(e, size):
            total -= eq_inverse[c, e] * inner[c]
        cert[eq_ids[e]] = total * eq_inv[e]
        value += total * rhs_eq[e]
        terms += abs(total * rhs_eq[e])
        reach = max(reach, abs(rhs_eq[e]))
    remove_equality_part(basis, w, inner)
    left = 0.0
    for j in range(n):
        # More than rounding proves only that no point is nearer than some distance.
        if abs(w[j]) > LEFT_TOL * weights:
            return 0
        left += abs(w[j])
    coarse = 8.0 * (k + 1.0 + size) * TINIEST
    return 1 if value < -(CONSISTENT_TOL * terms + left * reach + coarse) else 0


@device_function
def relax(row, sign, k, amount, work, iwork, lay, row_inv):
    """Move outwards, by a relative ``amount``, the rows of A_ub that take part in a contradiction.

    For contradictions too small to be more than the rounding of the right-hand sides, blown up by
    nearly dependent rows. Writes rhs and s0.
    """
    rhs, s0 = work[lay[RHS] : lay[Y0]], work[lay[S0] : lay[S]]
    size = 0.0
    for j in range(lay[SIZE]):
        size = max(size, abs(work[lay[Y] + j]))
    for a in range(k + 1):
        i = row
        if a < k:
            i = np.int64(iwork[lay[IDS] + a])
            if sign * work[lay[R] + a] * work[lay[SIGN] + a] >= 0.0:
                continue
        if i < lay[ROWS]:
            change = amount * (abs(rhs[i]) + size)
            rhs[i] += change
            s0[i] -= change * row_inv[1, i]
