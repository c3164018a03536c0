r"""Derivatives of one row over a box in its right-hand side and bounds, for a whole batch at once.

With F the entries not held by a bound, the rows e_j off F and (while it is active) w, restricted to
F, give

.. math:: dy_j = d\,bound_j \ (j \notin F), \qquad
          dy_F = w_F\, \frac{d\,total - \sum_{j \notin F} w_j\, d\,bound_j}{\|w_F\|^2} .

Where no entry of F carries weight the rows are dependent. The working set then leaves out one bound
(its multiplier vanished) and that entry follows the total; if the working set leaves out the row,
the total does not move y.

Arrays: g and tangents have axes (L, B, ...), codes (B, 1 + n) with the row first.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .._codes import ACTIVE_LOWER, MASK_ACTIVE, MASK_WORKING, WORKING_LOWER, WORKING_UPPER


def held_sides(bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which active entries are held by their lower, and which by their upper bound.

    Where both bounds are active the one in the working set counts, else the lower.
    """
    active = bits & MASK_ACTIVE != 0
    lower = (bits & WORKING_LOWER != 0) | ((bits & ACTIVE_LOWER != 0) & (bits & WORKING_UPPER == 0))
    return active & lower, active & ~lower


class OneRow(NamedTuple):
    """An independent basis of the active rows, sample by sample.

    Attributes
    ----------
    free : (B, n)
        Entries that no bound of the basis holds.
    lower, upper : (B, n)
        Entries held by that bound.
    along : (B, n)
        w_F / |w_F|^2 on the free entries, 0 elsewhere and where the row is not in the basis.
    """

    free: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    along: np.ndarray


def one_row_basis(code: np.ndarray, weights: np.ndarray) -> OneRow:
    """Read the basis off the codes."""
    bits = code[:, 1:]
    free = bits & MASK_ACTIVE == 0
    row = code[:, 0] & MASK_ACTIVE != 0
    weighted = weights != 0.0
    stuck = np.flatnonzero(row & ~(free & weighted).any(axis=1))
    if stuck.size:
        spare = (bits[stuck] & MASK_WORKING == 0) & weighted
        which = spare.argmax(axis=1)
        use = spare.any(axis=1) & (code[stuck, 0] & MASK_WORKING != 0)
        free[stuck[use], which[use]] = True
        row[stuck[~use]] = False
    part = np.where(free, weights, 0.0)
    square = np.einsum("bj,bj->b", part, part)
    along = part * (row / np.where(square > 0.0, square, 1.0))[:, None]
    lower, upper = held_sides(bits)
    return OneRow(free, lower & ~free, upper & ~free, along)


def one_row_pull(
    basis: OneRow, weights: np.ndarray, g: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the cotangents of (total, lower, upper)."""
    total = np.einsum("lbj,bj->lb", g, basis.along)
    rest = g - weights * total[..., None]
    return total, np.where(basis.lower, rest, 0.0), np.where(basis.upper, rest, 0.0)


def one_row_push(
    basis: OneRow,
    weights: np.ndarray,
    total: np.ndarray | float,
    lower: np.ndarray | float = 0.0,
    upper: np.ndarray | float = 0.0,
) -> np.ndarray:
    """Return dy for tangents of the right-hand side (L, B) and the bounds (L, B, n)."""
    held = np.where(basis.lower, lower, np.where(basis.upper, upper, 0.0))
    gap = total - np.einsum("...j,j->...", held, weights)
    return held + basis.along * gap[..., None]
