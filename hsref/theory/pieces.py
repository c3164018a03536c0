r"""Where the projection changes direction along a segment, in closed form.

On a segment the projection is piecewise affine. From a point of the segment each admissible K stays
admissible on an interval that a ratio test on slacks and multipliers gives, because the set C_K is
a polyhedron (:mod:`hsref.theory.exactness`); finitely many such intervals cover the segment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .linear import blocks, sharing
from .local import MAX_SUBSETS, EnumerationError, Kept, LocalRows, local_rows
from .rows import HRows, rows_of
from .subject import images

SHORTEST = 1e-12
"""Intervals of the unit interval below this length are left out: they hold no measure."""


@dataclass(frozen=True)
class Pieces:
    """Segments cut into intervals on which the projection is affine.

    Attributes
    ----------
    segment : ndarray of int, shape (k,)
        Which segment an interval belongs to.
    start, end, inside : ndarray, shape (k,)
        The interval in [0, 1] and a parameter strictly inside it.
    velocity : ndarray, shape (k, n)
        The derivative of the projection along the segment there, from the affine formula.
    rest : ndarray, shape (P,)
        Length of each segment that was left over.
    skipped : ndarray of bool, shape (P,)
        Segments that were given up because they met more active rows than can be enumerated.
    """

    segment: np.ndarray
    start: np.ndarray
    end: np.ndarray
    inside: np.ndarray
    velocity: np.ndarray
    rest: np.ndarray
    skipped: np.ndarray


class LocalCache:
    """Enumerations of active sets, for those that were met last.

    Parameters
    ----------
    rows : HRows
        The set.
    limit : int
        Largest number of subsets of one active set to look at.
    """

    def __init__(self, rows: HRows, limit: int = MAX_SUBSETS) -> None:
        self.rows, self.limit = rows, limit
        self.kept: Kept[LocalRows] = Kept()

    def at(self, mask: np.ndarray) -> LocalRows:
        """Return the enumeration for an active set given as a mask."""
        return self.kept.get(mask, lambda: local_rows(self.rows, mask, self.limit))

    def groups(self, masks: np.ndarray) -> Iterator[tuple[LocalRows, np.ndarray]]:
        """Yield (enumeration, points that share it) for each distinct active set."""
        for mask, at in sharing(masks):
            yield self.at(mask), at


def affine_pieces(
    C: Any,
    x0: np.ndarray,
    x1: np.ndarray,
    *,
    max_rounds: int = 200,
    cache: LocalCache | None = None,
    skip: bool = False,
) -> Pieces:
    """Cut segments where their projections change direction.

    Parameters
    ----------
    C : set
        The set.
    x0, x1 : ndarray, shape (P, n)
        Ends of the segments.
    max_rounds : int
        Rounds of at most one projection for each open interval.
    cache : LocalCache, optional
        Enumerations to share between calls.
    skip : bool
        Give up a segment that meets more active rows than can be enumerated, in place of raising.

    Returns
    -------
    Pieces

    Raises
    ------
    EnumerationError
        A segment meets more active rows than can be enumerated, and `skip` is not set.

    Notes
    -----
    From a point inside an open interval, each admissible K extends to the interval on which the
    segment stays in C_K, by a ratio test on slacks and multipliers; the longest is taken and what
    remains on both sides stays open. A segment that runs inside a kink is no exception: some C_K
    contains a stretch of it.
    """
    rows = rows_of(C)
    cache = LocalCache(rows) if cache is None else cache
    P = len(x0)
    step = x1 - x0
    seg, a, b = np.arange(P), np.zeros(P), np.ones(P)
    done: list[tuple[np.ndarray, ...]] = []
    skipped = np.zeros(P, dtype=bool)
    for _ in range(max_rounds):
        if not len(seg):
            break
        # off the middle, where segments between lattice points like to have their kinks
        t = a + 0.4823 * (b - a)
        x = x0[seg] + t[:, None] * step[seg]
        y = images(C, x)
        active = rows.active(y)
        low, high = np.zeros(len(seg)), np.zeros(len(seg))
        velocity = np.zeros_like(x)
        lost = np.zeros(len(seg), dtype=bool)
        for mask, at in sharing(active):
            try:
                local = cache.at(mask)
            except EnumerationError:
                if not skip:
                    raise
                lost[at] = True
                continue
            lo, hi, v = _longest_cell(local, x[at] - y[at], y[at], step[seg[at]], active[at])
            low[at], high[at], velocity[at] = lo, hi, v
        left, right = np.maximum(a, t + low), np.minimum(b, t + high)
        # no K extends by a measurable length: halve, and look from elsewhere
        stuck = right - left <= SHORTEST
        skipped[seg[lost]] = True
        good = ~stuck & ~lost
        middle = 0.5 * (left + right)
        done.append((seg[good], left[good], right[good], middle[good], velocity[good]))
        left, right = np.where(stuck, t, left), np.where(stuck, t, right)
        seg = np.concatenate([seg, seg])
        a, b = np.concatenate([a, right]), np.concatenate([left, b])
        keep = (b - a > SHORTEST) & ~skipped[seg]
        seg, a, b = seg[keep], a[keep], b[keep]
    rest = np.zeros(P)
    np.add.at(rest, seg, b - a)
    parts = [np.concatenate(p) for p in zip(*done)]
    return Pieces(parts[0], parts[1], parts[2], parts[3], parts[4], rest, skipped)


def _longest_cell(
    local: LocalRows, r: np.ndarray, y: np.ndarray, step: np.ndarray, active: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return how far the motion x + s step stays in the best C_K, for s below and above 0."""
    rows = local.rows
    P, (S, n, k) = len(r), local.pinv.shape
    low, high, velocity = np.zeros(P), np.zeros(P), np.zeros((P, n))
    ok = local.admissible(r)
    slack = np.where(active, 0.0, np.maximum(rows.slack(y), 0.0))
    rest, rest_rate = rows.off_equalities(r), rows.off_equalities(step)
    size = 1e-11 * (1.0 + np.linalg.norm(step, axis=1))
    for at in blocks(P, S * n * max(n, k)):
        # pairs of a point and an admissible K, few of all that there are
        p, s = np.nonzero(ok[at])
        if not len(p):
            continue
        point = p + at.start
        move = np.einsum("qij,qj->qi", local.V[s], step[point])
        pinv, small, member = local.pinv[s], size[point, None], local.masks[s]
        lam = np.maximum(np.einsum("qn,qnk->qk", rest[point], pinv), 0.0)
        lam_rate = np.einsum("qn,qnk->qk", rest_rate[point], pinv)
        # rows of K keep slack 0, multipliers outside K keep 0: their rates are round-off
        fall = move @ rows.G.T
        lo1, hi1 = _span_of(slack[point], -np.where(np.abs(fall) <= small, 0.0, fall))
        lo2, hi2 = _span_of(
            np.where(member, lam, 1.0), np.where(member & (np.abs(lam_rate) > small), lam_rate, 0.0)
        )
        lo, hi = np.maximum(lo1, lo2), np.minimum(hi1, hi2)
        length = np.minimum(hi, 1.0) - np.maximum(lo, -1.0)
        # the longest of each point, the first one among equals
        order = np.lexsort((s, -length, p))
        order = order[np.flatnonzero(np.diff(p[order], prepend=-1))]
        chosen = point[order]
        low[chosen], high[chosen], velocity[chosen] = lo[order], hi[order], move[order]
    return low, high, velocity


def _span_of(value: np.ndarray, rate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the interval of s on which value + s rate stays non-negative, over the last axis."""
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.where(rate != 0.0, -value / rate, 0.0)
    low = np.max(np.where(rate > 0.0, root, -np.inf), axis=-1, initial=-np.inf)
    high = np.min(np.where(rate < 0.0, root, np.inf), axis=-1, initial=np.inf)
    return low, high
