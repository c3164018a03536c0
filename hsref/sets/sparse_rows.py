r"""Arithmetic with the sparse rows of a polyhedron whose bounds are eliminated.

The kept rows C (inequalities first, then a basis of the equalities, each scaled to norm 1) are
stored by rows and by columns. They are never made dense: products cost one visit of the entries,
and the matrix of the normal equations is gathered column by column,

.. math:: H = \sum_{j \text{ free}} C_j C_j^T ,

at the cost of the squares of the columns' lengths. Scratch is laid out by :func:`make_layout`;
vector V occupies ``work[lay[V] : lay[V + 1]]``, as in :mod:`hsref.sets.working_set`.

Row i of C is constraint ``ids[i]`` of the set as given; its right-hand side is c_i. A right-hand
side of infinity makes the row void: its multiplier stays 0 and it enters no sum.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .._jit import device_function
from .contradiction import CONSISTENT_TOL

# Sizes: rows and equalities as given, coordinates, kept rows, kept inequalities; dual sweeps.
ROWS, EQS, SIZE, KEPT, INEQS, SWEEPS = 0, 1, 2, 3, 4, 5
# Float vectors: three factors (the tape), the normal matrix; over kept rows (ALONG to OTHER are
# scratch of the factor); over coordinates; and the Farkas certificate.
FACTORS, H, SIDE, NU, GRAD, STEP, SCALE = 6, 7, 8, 9, 10, 11, 12
ALONG, COMBO, LOST, OTHER = 13, 14, 15, 16
T, Y, W, Z, LOW, HIGH, CERTIFICATE, FLOATS = 17, 18, 19, 20, 21, 22, 23, 24
# Integer vectors: warm start on entry and tape on return; the rows of the factor, and a list of
# rows; a flag for each row and each coordinate.
TAPE, BASE, LIST, IN_SET, STATE, INTS = 25, 26, 27, 28, 29, 30

ROUND_OFF = 1e-13
"""Entries of C' q below this fraction of the largest entry of q are rounding."""
HEADER = 9
"""Integers at the head of a tape: for each selection (rows, first float, first integer)."""


class SparseRows(NamedTuple):
    """The arrays that all samples share, in this order.

    Attributes
    ----------
    layout : (31,)
        Sizes and places of scratch vectors.
    row_at, row_col, row_val : (r + 1,), (nnz,), (nnz,)
        Kept rows, scaled to norm 1: row i holds ``row_val[row_at[i]:row_at[i + 1]]``.
    col_at, col_row, col_val : (n + 1,), (nnz,), (nnz,)
        The same entries by columns, rows ascending.
    ids, inv : (r,), (r,)
        Constraint number of each kept row, and 1 / norm of the row as given.
    implied, implied_inv, combos : (t,), (t,), (t, k_e)
        Rows that the kept equalities imply, 1 / their norm, and their left-hand sides as
        combinations of the kept equalities.
    """

    layout: np.ndarray
    row_at: np.ndarray
    row_col: np.ndarray
    row_val: np.ndarray
    col_at: np.ndarray
    col_row: np.ndarray
    col_val: np.ndarray
    ids: np.ndarray
    inv: np.ndarray
    implied: np.ndarray
    implied_inv: np.ndarray
    combos: np.ndarray


def make_layout(m: int, p: int, n: int, r: int, q: int, sweeps: int) -> np.ndarray:
    """Return ``lay`` for m + p rows as given, of which r are kept, q of them inequalities."""
    floats = [3 * (r * (r + 1) // 2), r * r, *[r] * 9, *[n] * 6, m + p + n]
    ints = [max(HEADER + 3 * r, m + p + 2 * n + 4), r, r, r, n]
    return np.array(
        [m, p, n, r, q, sweeps]
        + [sum(floats[:c]) for c in range(len(floats) + 1)]
        + [sum(ints[:c]) for c in range(len(ints) + 1)],
        np.int64,
    )


@device_function
def add_rows(factor, coeff, shared, out):
    """out += factor * C' coeff; rows with a coefficient of 0 are not visited."""
    row_at, row_col, row_val = shared[1], shared[2], shared[3]
    for i in range(coeff.shape[0]):
        if coeff[i] != 0.0:
            weight = factor * coeff[i]
            for e in range(row_at[i], row_at[i + 1]):
                out[row_col[e]] += weight * row_val[e]


@device_function
def row_gaps(y, side, shared, out, scale):
    """out = c - C y (0 for void rows), scale = |c| + sum of |C_ij y_j|."""
    row_at, row_col, row_val = shared[1], shared[2], shared[3]
    for i in range(side.shape[0]):
        total = 0.0
        size = 0.0
        if side[i] < np.inf:
            for e in range(row_at[i], row_at[i + 1]):
                term = row_val[e] * y[row_col[e]]
                total += term
                size += abs(term)
            total = side[i] - total
            size += abs(side[i])
        out[i] = total
        scale[i] = size


@device_function
def normal_matrix(state, shared, H):
    """H = sum of C_j C_j' over coordinates with state 0; writes the lower triangle, r x r flat."""
    col_at, col_row, col_val = shared[4], shared[5], shared[6]
    r = shared[7].shape[0]
    for i in range(r * r):
        H[i] = 0.0
    for j in range(state.shape[0]):
        if state[j] == 0:
            first = col_at[j]
            for e in range(first, col_at[j + 1]):
                at = col_row[e] * r
                value = col_val[e]
                for f in range(first, e + 1):
                    H[at + col_row[f]] += value * col_val[f]


@device_function
def line_value(s, count, w, t, low, high):
    """Return (w . clip(t - s w), sum of w_j^2 over the free j), of the first ``count`` entries."""
    total = 0.0
    slope = 0.0
    for j in range(count):
        at = t[j] - s * w[j]
        inside = min(max(at, low[j]), high[j])
        total += w[j] * inside
        slope += w[j] * w[j] if low[j] < at < high[j] else 0.0
    return total, slope


@device_function
def next_free(s, count, w, t, low, high):
    """Return the smallest step beyond s at which a coordinate leaves a bound, inf if none does."""
    nearest = np.inf
    for j in range(count):
        at = t[j] - s * w[j]
        if w[j] > 0.0 and at >= high[j]:
            nearest = min(nearest, s + (at - high[j]) / w[j])
        elif w[j] < 0.0 and at <= low[j]:
            nearest = min(nearest, s + (at - low[j]) / w[j])
    return nearest


@device_function
def line_root(rise, start, limit, good, count, w, t, low, high):
    """Return s in [0, limit] with rise = w . clip(t - s w) up to ``good``; ``limit`` if none.

    rise - w . clip(t) must be negative. This is the derivative of the dual along a line: monotone
    and piecewise linear, so Newton's method in a bracket finds its root.
    """
    total, slope = line_value(0.0, count, w, t, low, high)
    steepness = abs(rise - total)
    s = start
    if s <= 0.0:
        s = steepness / slope if slope > 0.0 else 0.0
    s = min(s, limit)
    below = 0.0
    above = np.inf
    for _ in range(60):
        total, slope = line_value(s, count, w, t, low, high)
        h = rise - total
        if h <= 0.0:
            below = s
        else:
            above = s
        if abs(h) <= good * steepness or (h < 0.0 and s >= limit):
            return s
        if slope > 0.0:
            new = s - h / slope
        elif h < 0.0:
            new = next_free(s, count, w, t, low, high)
            if new == np.inf:
                return limit
            # Beyond the breakpoint, not on it: there the slope would still be 0.
            new = new * (1.0 + 1e-9) + 1e-300
        else:
            new = below
        if not (below < new < above):
            new = 0.5 * (below + above) if above < np.inf else 2.0 * s + 1e-300
        s = min(new, limit)
    return below


@device_function
def farkas_value(q, w, lay, shared, work):
    """Tell whether multipliers q (>= 0 for inequalities) with w = C' q prove the set empty.

    Every point y has w . y <= q . c, and w . y is at least its least value over the bounds. Writes
    the certificate, for the constraints as given, when it does.
    """
    ids, inv = shared[7], shared[8]
    side, found = work[lay[SIDE] : lay[NU]], work[lay[CERTIFICATE] : lay[FLOATS]]
    low, high = work[lay[LOW] : lay[HIGH]], work[lay[HIGH] : lay[CERTIFICATE]]
    size = 0.0
    least = 0.0
    terms = 0.0
    reach = 0.0
    left = 0.0
    for i in range(q.shape[0]):
        size = max(size, abs(q[i]))
        if q[i] != 0.0:
            least -= q[i] * side[i]
            terms += abs(q[i] * side[i])
            reach = max(reach, abs(side[i]))
    for j in range(w.shape[0]):
        bound = low[j] if w[j] > 0.0 else high[j]
        if abs(bound) < np.inf:
            least += w[j] * bound
            terms += abs(w[j] * bound)
            reach = max(reach, abs(bound))
        elif abs(w[j]) > ROUND_OFF * size:
            return 0
        else:
            left += abs(w[j])
    if not (least > CONSISTENT_TOL * terms + left * reach) or size == 0.0 or size == np.inf:
        return 0
    for i in range(found.shape[0]):
        found[i] = 0.0
    for i in range(q.shape[0]):
        found[ids[i]] = q[i] / size * inv[i]
    first = lay[ROWS] + lay[EQS]
    for j in range(w.shape[0]):
        bound = low[j] if w[j] > 0.0 else high[j]
        if abs(bound) < np.inf:
            found[first + j] = -w[j] / size
    return 1
