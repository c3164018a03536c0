r"""A start for the dual active-set method that changes many rows at a time.

Without bounds the multipliers of the reduced rows M, with G = M M', solve

.. math:: \min_{\lambda \ge 0} \tfrac12 \lambda^T G \lambda - s_0^T \lambda ,

s_0 the slacks (negative: satisfied) at the projection onto the equalities. Sweeps of projected
Gauss-Seidel (Hildreth's method) guess which multipliers are positive; then a block method takes
that set, solves for its multipliers, moves out all that are negative and in all rows that are
violated, and repeats while the number of such rows falls. Where it ends, working set and
multipliers are those of the solution, and :func:`hsref.sets.dual_active_set.polish` checks and
corrects them as it does for its own. Where it stalls, or meets dependent rows, the dual active-set
method starts from nothing, which is finite in any case. So the choice of this start, made by
:func:`hsref.sets.row_reduction.in_general_position` for a set, is about time only.

The bits of a sample cannot depend on its neighbours: products with G go row by row, sample by
sample, and no BLAS is called.

References: Portugal, Judice and Vicente, "A comparison of block pivoting and interior-point
algorithms for linear least squares problems with nonnegative variables", Math. Comp. 63 (1994).
Hildreth, "A quadratic programming procedure", Naval Research Logistics Quarterly 4 (1957).
"""

from __future__ import annotations

from .._jit import device_function
from .packed_factor import cholesky, cholesky_solve, invert_factor
from .working_rows import subtract_rows
from .working_set import (
    IDS,
    MOST,
    NU,
    PACKED,
    RHS,
    S0,
    SIGN,
    SWEEPS,
    WANTED_SIGN,
    G,
    L,
    R,
    S,
)

EXCHANGES = 12
"""Block exchanges after which the start is given up."""
PATIENCE = 4
"""Exchanges in a row that may fail to lower the number of wrong rows."""
BLOCK_TOL = 2e-14
"""Violation, relative to the largest slack at the start, that counts as none."""
SURE = 0.05
"""Multipliers above this part of the largest are taken for positive."""
PIVOT = 1e-10
"""Pivot of the Gram matrix, relative to the row's own, below which the start is given up."""


@device_function
def hildreth(sweeps, lam, s0, s, gram):
    """Sweep over the rows, lam_i = max(0, lam_i + s_i); s = s0 - gram lam is kept up to date."""
    m = s.shape[0]
    for _ in range(sweeps):
        for i in range(m):
            change = max(s[i], -lam[i])
            # Rows that are void or implied have a slack of -inf and stay out.
            if change != 0.0:
                lam[i] += change
                for j in range(m):
                    s[j] -= change * gram[i, j]


@device_function
def block_active_set(wanted, work, iwork, lay, gram):
    """Find the working rows by block exchanges; returns (k, steps), k = 0 if it was not used.

    Writes ids, signs, multipliers and factor. A warm start is a better one: then it is not used.
    """
    none = wanted - wanted
    if lay[SWEEPS] == 0 or wanted > 0:
        return none, none
    ids, nu, sign = (
        iwork[lay[IDS] : lay[PACKED]],
        work[lay[NU] : lay[SIGN]],
        work[lay[SIGN] : lay[L]],
    )
    s0, s, lam = work[lay[S0] : lay[S]], work[lay[S] : lay[RHS]], work[lay[WANTED_SIGN] : lay[S0]]
    factor = work[0 : lay[NU]]
    m = s.shape[0]
    largest = 0.0
    for i in range(m):
        s[i] = s0[i]
        lam[i] = 0.0
        largest = max(largest, s0[i])
    if largest <= 0.0:
        return none, none
    hildreth(lay[SWEEPS], lam, s0, s, gram)
    tol = BLOCK_TOL * largest
    # Rows with large multipliers are likely to stay: first in the factor, they are factored once.
    typical = 0.0
    for i in range(m):
        typical = max(typical, lam[i])
    k = none
    for part in range(2):
        for i in range(m):
            sure = lam[i] > SURE * typical
            if sure == (part == 0) and (lam[i] > 0.0 or s[i] > tol):
                if k == lay[MOST]:
                    return none, none
                ids[k] = i
                k += 1
    fewest = 2 * m
    patience = PATIENCE
    begin = none
    for step in range(EXCHANGES):
        at = begin * (begin + 1) // 2
        for a in range(begin, k):
            for b in range(a + 1):
                factor[at] = gram[ids[a], ids[b]]
                at += 1
        if cholesky(factor, begin, k, PIVOT) < k:
            return none, none
        for a in range(k):
            nu[a] = s0[ids[a]]
        cholesky_solve(factor, k, nu)
        for i in range(m):
            s[i] = s0[i]
        subtract_rows(gram, ids, nu, k, s)
        wrong = none
        begin = k
        left = none
        for a in range(k):
            # Round-off of the solve is no slack.
            s[ids[a]] = 0.0
            if nu[a] < 0.0:
                wrong += 1
                begin = min(begin, a)
            else:
                ids[left] = ids[a]
                left += 1
        for i in range(m):
            if s[i] > tol:
                wrong += 1
                if left == lay[MOST]:
                    return none, none
                ids[left] = i
                left += 1
        if wrong == 0:
            for a in range(k):
                sign[a] = 1.0
            invert_factor(factor, k, work[lay[L] : lay[R]], work[lay[R] : lay[G]])
            return k, step + 1
        k = left
        if wrong < fewest:
            fewest = wrong
            patience = PATIENCE
        else:
            patience -= 1
            if patience == 0:
                return none, none
    return none, none
