r"""Portfolios near a previous one: {y >= 0, sum(y) = 1, |y - previous|_1 <= limit}.

Projection. Write p for the previous point, d = x - p, and y - p = a - b with a what is bought and b
what is sold. If the projection of x onto the simplex obeys the limit, it is the answer. Otherwise
the limit holds with equality, and with the multipliers nu of the sum and theta > 0 of the distance

.. math:: y_j = \max(0,\ p_j + \mathrm{soft}(d_j - \nu, \theta)),

which buys where d_j > alpha := nu + theta and sells where d_j < beta := nu - theta. The two
equations sum(a) - sum(b) = 1 - sum(p) and sum(a) + sum(b) = limit fix both totals, so the problem
falls apart into two that each have one unknown:

.. math:: \sum_j \max(d_j - \alpha,\ (-p_j)_+) = \tfrac12 (limit + 1 - 1^T p), \qquad
          \sum_j \min(\max(\beta - d_j, 0), (p_j)_+) = \tfrac12 (limit - 1 + 1^T p) .

Both are knapsacks with unit weights (:mod:`hsref.sets.one_row`), solved exactly in finitely many
passes. The previous point need not lie in the simplex: where p_j < 0, at least -p_j is bought.

HS-Jacobian. The distance is cut out by 2^n rows s'(y - p) <= limit, s a vector of signs. While it
is active, the rows that hold at y are those with s_j = sign(y_j - p_j), any sign where y_j = p_j;
these span the e_j of such *kinks*, and modulo the e_j of kinks and of zeros there remain 1 and
s, or: the indicator of what is bought and that of what is sold. So V subtracts from g its mean
over the bought entries and its mean over the sold ones (those that are neither zero nor at a
kink), and is 0 elsewhere. While the limit is slack it is the V of the simplex.

Code of a sample: one byte an entry (lower bits "held at 0", upper bits "held at the kink", bit 64
"sold"), then one byte for the sum and one for the distance.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._batch import Kernel, RawRecord
from .._codes import (
    ACTIVE_LOWER,
    ACTIVE_UPPER,
    MASK_ACTIVE,
    MASK_LOWER,
    MASK_UPPER,
    MASK_WORKING,
    WORKING_LOWER,
)
from .base import (
    ConstraintFlags,
    DataField,
    InfeasibleError,
    Multipliers,
    PolyhedralSet,
    as_parameter,
)
from .one_row import CONSISTENT_TOL
from .polyhedron import Polyhedron
from .trade import SOLD, turnover_hs, turnover_project


class Turnover(PolyhedralSet):
    r"""Portfolios (non-negative, summing to 1) within a given l1 distance of a previous one.

    .. math:: C = \{ y \in R^n : y \ge 0,\ 1^T y = 1,\ \|y - previous\|_1 \le limit \}

    Parameters
    ----------
    previous : array_like, shape (n,)
        The point to stay near; it need not lie in the simplex. May be replaced at the call.
    limit : float
        Largest distance, counting what is bought and what is sold. May be replaced at the call.

    Raises
    ------
    ValueError
        ``previous`` is no vector of finite numbers, or the limit is not finite.
    InfeasibleError
        The limit is negative, or no portfolio is that near.

    Notes
    -----
    Forward: one simplex projection and, where that is too far, two knapsacks with one unknown
    each, all sort-free and finite. Backward: two passes. The distance has 2^n rows, so the record
    is compact: ``multipliers.ub`` holds the one multiplier theta of the distance, ``eq`` that of
    the sum, ``lower`` those of y >= 0, and x - y = theta s + eq - lower with s a subgradient of the
    distance at y; in the flags ``ub`` is the distance, ``lower`` the bounds, ``upper`` the entries
    that stay at their previous value.

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import Turnover, project
    >>> project(np.array([0.9, 0.2, 0.1]), Turnover([0.25, 0.25, 0.5], 0.5)).round(12)
    array([0.5 , 0.25, 0.25])
    """

    n: int
    compact_record = True
    forward_cost = "O(n), about twenty passes"
    backward_cost = "O(n)"

    def __init__(self, previous: Any, limit: float) -> None:
        if np.ndim(previous) != 1 or np.size(previous) == 0:
            raise ValueError(f"previous must be a vector; got shape {np.shape(previous)}.")
        self.n = np.size(previous)
        fields = (
            DataField("previous", (self.n,), as_parameter(previous, "previous", (self.n,))),
            DataField("limit", (), as_parameter(limit, "limit", ())),
        )
        self._check_data({f.name: f.value for f in fields})
        self._freeze(shape=(self.n,), fields=fields)

    @classmethod
    def examples(cls) -> tuple[Turnover, ...]:
        """Return ordinary limits, one that never binds, previous points outside, single points."""
        return (
            cls([0.25, 0.25, 0.0, 0.5, 0.0], 0.5),
            cls([0.5, 0.5, 0.0], 2.0),
            cls([0.75, 0.5, -0.25, 0.25], 1.0),
            cls([0.25, 0.125, 0.125], 0.5),
            cls([0.5, 0.25, 0.25], 0.0),
            cls([1.0], 0.0),
        )

    @property
    def previous(self) -> np.ndarray:
        """The point to stay near, read-only."""
        return self._fields[0].value

    @property
    def limit(self) -> float:
        """The largest distance from it."""
        return float(self._fields[1].value)

    def _check_data(self, data: Mapping[str, np.ndarray]) -> None:
        p, limit = data["previous"], data["limit"]
        if p.ndim > 1 or limit.ndim > 0:
            return
        least = _distance_to_simplex(p)
        if limit < 0.0 or limit < least - CONSISTENT_TOL * (1.0 + np.abs(p).sum()):
            raise InfeasibleError(
                f"Turnover is empty: limit = {float(limit)}, and the portfolio nearest to the "
                f"previous point is {least:g} away."
            )

    def _make_kernel(self) -> Kernel:
        n = self.n
        return Kernel(
            "Turnover", turnover_project, turnover_hs, size=n, code_size=n + 2, dual_size=2,
            work_size=5 * n, iwork_size=1, hs_work_size=0, hs_iwork_size=0,
            shared=(np.ones(n),), methods=("Newton on two multipliers",), cost=60.0 * n,
            hs_cost=6.0 * n,
        )  # fmt: skip

    def to_polyhedron(self) -> Polyhedron:
        """Return the 2^n rows of the distance, the sum and the bounds; only for n <= 10.

        Raises
        ------
        ValueError
            ``n`` exceeds 10.
        """
        return self._with_data({})

    def _with_data(self, data: Mapping[str, Any]) -> Polyhedron:
        if self.n > 10:
            raise ValueError(
                f"a Turnover has 2**n rows; to_polyhedron() writes them out up to n = 10, and "
                f"here n = {self.n}."
            )
        rows = np.array(list(itertools.product((1.0, -1.0), repeat=self.n)))
        p = np.asarray(data.get("previous", self.previous))
        return Polyhedron(
            A_ub=rows, b_ub=data.get("limit", self.limit) + rows @ p,
            A_eq=np.ones((1, self.n)), b_eq=[1.0], lower=np.zeros(self.n),
        )  # fmt: skip

    def _find_interior(self) -> tuple[np.ndarray, int]:
        p, n = self.previous, self.n
        kept = np.maximum(p, 0.0)
        total = kept.sum()
        # A portfolio nearest to p: buy evenly, or sell in proportion.
        nearest = kept + (1.0 - total) / n if total <= 1.0 else kept / total
        least = _distance_to_simplex(p)
        room = self.limit - least
        slack = CONSISTENT_TOL * (1.0 + np.abs(p).sum())
        if room > slack:
            even = np.full(n, 1.0 / n)
            further = np.abs(even - p).sum() - least
            share = min(1.0, 0.5 * room / further) if further > slack else 1.0
            return nearest + share * (even - nearest), n - 1
        # Only the nearest portfolios are left: nothing is sold, or no more bought than needed.
        if total < 1.0 - slack:
            return nearest, n - 1
        return nearest, max(int(np.sum(p > 0.0)) - 1, 0) if total > 1.0 + slack else 0

    # -- the compact record ---------------------------------------------------------------------

    def _row_counts(self) -> tuple[int, int]:
        return 1, 1

    def _flags(self, code: np.ndarray, mask: int) -> ConstraintFlags:
        near = code[:, self.n + 1 :] & mask != 0
        entries = code[:, : self.n]
        kinks = (entries & (mask & MASK_UPPER) != 0) & near
        return ConstraintFlags(near, entries & (mask & MASK_LOWER) != 0, kinks)

    def _multipliers(self, record: Any, x: np.ndarray, data: Mapping[str, Any]) -> Multipliers:
        nu, theta = record.dual[:, :1], record.dual[:, 1:]
        y = record.y.astype(np.float64)
        p = np.asarray(data.get("previous", self.previous))
        # At zero the distance pulls with -theta if sold, with +theta if bought, and with anything
        # between at a kink, where the bound takes only what lies below -theta.
        pull = np.where(y < p, -theta, np.where(y > p, theta, -theta))
        below = np.maximum(nu + pull - (x - y), 0.0)
        lower = np.where(record.code[:, : self.n] & ACTIVE_LOWER != 0, below, 0.0)
        return Multipliers(theta, nu, lower, np.zeros_like(lower))

    def _check_data_rule(self, names: tuple[str, ...]) -> None:
        pass

    def _sides(self, raw: RawRecord, data: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
        """Return (bought, sold, kink, slope): an independent basis of the active rows, (B, n) each.

        bought and sold hold 1 / size of their set on its entries; at kinks y_j = previous_j; slope
        is the derivative of |y_j - previous_j| in previous_j where y_j does not follow it. All are
        0 where the limit is not active: y does not depend on the data there.
        """
        n = self.n
        bits = raw.code[:, :n]
        near = (raw.code[:, n + 1] & MASK_ACTIVE != 0)[:, None]
        p = np.broadcast_to(np.asarray(data.get("previous", self.previous)), bits.shape)
        side = bits & SOLD != 0
        free = bits & MASK_ACTIVE == 0
        sets = [free & ~side, free & side]
        spare = (bits & MASK_WORKING == 0) & ~free
        pushing = raw.code[:, n + 1] & MASK_WORKING != 0
        for k, right in enumerate((~side, side)):
            # A side without a free entry: its rows are dependent, and the entry that the working
            # set released follows its total.
            stuck = np.flatnonzero(pushing & ~sets[k].any(axis=1))
            choice = spare[stuck] & right[stuck]
            sets[k][stuck, choice.argmax(axis=1)] = choice.any(axis=1)
        bought, sold = sets
        held = ~bought & ~sold
        at_zero = (bits & WORKING_LOWER != 0) | (
            (bits & ACTIVE_LOWER != 0) & (bits & ACTIVE_UPPER == 0)
        )
        kink = held & ~at_zero & (bits & ACTIVE_UPPER != 0)
        zero = held & ~kink
        slope = np.where(bought, -1.0, np.where(sold, 1.0, np.where(zero, np.sign(p), 0.0)))
        parts = []
        for one in sets:
            parts.append(np.where(one & near, 1.0 / np.maximum(one.sum(1, keepdims=True), 1), 0.0))
        return parts[0], parts[1], kink & near, np.where(near, slope, 0.0)

    def _data_pull(
        self, raw: RawRecord, data: Mapping[str, Any], g: np.ndarray, names: tuple[str, ...]
    ) -> dict[str, np.ndarray]:
        bought, sold, kink, slope = self._sides(raw, data)
        a = 0.5 * np.einsum("lbj,bj->lb", g, bought)[..., None]
        b = 0.5 * np.einsum("lbj,bj->lb", g, sold)[..., None]
        # The totals: bought (1 - kinks + limit - sum slope p) / 2, sold with the other sign.
        return {
            "limit": (a - b)[..., 0],
            "previous": np.where(kink, g - (a + b), 0.0) - slope * (a - b),
        }

    def _data_push(
        self, raw: RawRecord, data: Mapping[str, Any], tangents: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        bought, sold, kink, slope = self._sides(raw, data)
        dp = tangents.get("previous", np.zeros(self.n))
        kinks = np.where(kink, dp, 0.0)
        change = tangents.get("limit", 0.0) - (slope * dp).sum(axis=-1)
        total = kinks.sum(axis=-1)
        a, b = 0.5 * (change - total)[..., None], 0.5 * (-change - total)[..., None]
        return kinks + bought * a + sold * b

    def _residuals(
        self, x: np.ndarray, y: np.ndarray, found: Multipliers, data: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        p = np.asarray(data.get("previous", self.previous))
        size = np.maximum(np.abs(x).max(axis=-1), np.abs(y).max(axis=-1))
        force = np.where(size > 0.0, size, 1.0) + np.abs(found.eq[:, 0])
        rest = x - y - found.eq + found.lower
        carried = np.where(
            np.abs(y - p) > CONSISTENT_TOL * (np.abs(y) + np.abs(p)),
            found.ub * np.sign(y - p), np.clip(rest, -found.ub, found.ub),
        )  # fmt: skip
        dual = np.abs(rest - carried).max(axis=-1) / force
        limit = np.asarray(data.get("limit", self.limit))
        slack = np.abs(limit - np.abs(y - p).sum(axis=-1))
        reach = np.abs(limit) + np.sqrt(self.n) * (size + np.abs(p).max(axis=-1))
        near = found.ub[:, 0] * slack / reach
        bound = (found.lower * y).max(axis=-1) / np.where(size > 0.0, size, 1.0)
        return self._violation(y, data, size), dual, np.maximum(near, bound) / force

    def _violation(
        self,
        y: np.ndarray,
        data: Mapping[str, np.ndarray],
        scale: np.ndarray | float = 0.0,
    ) -> np.ndarray:
        p = np.asarray(data.get("previous", self.previous))
        limit = np.asarray(data.get("limit", self.limit))
        size = np.maximum(np.abs(y).max(axis=-1), scale)
        root = np.sqrt(self.n)
        far = (np.abs(y - p).sum(axis=-1) - limit) / (
            np.abs(limit) + np.abs(p).sum(axis=-1) + root * size
        )
        total = np.abs(y.sum(axis=-1) - 1.0) / (1.0 + root * size)
        below = -y.min(axis=-1) / np.where(size > 0.0, size, 1.0)
        worst = np.maximum(np.maximum(far, total), np.maximum(below, 0.0))
        return np.where(np.isnan(y).any(axis=-1), np.nan, worst)

    def _certificate(
        self, record: Any, sample: int, data: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        one = {k: v[sample % len(v)] for k, v in data.items()}
        p, limit = one.get("previous", self.previous), one.get("limit", self.limit)
        negative = p < 0.0
        # With signs s = 1 where p < 0 and -1 elsewhere (or -1 everywhere), s'(y - p) <= limit plus
        # the sum minus twice y >= 0 where s = 1 reads 0 <= limit + s'p + 1.
        forced = limit < 2.0 * np.maximum(-p, 0.0).sum() - 1.0 + p.sum()
        lower = np.where(negative & forced, 2.0, 0.0)
        total = 0.0 if limit < 0.0 else 1.0
        return np.ones(1), np.array([total]), lower * total, np.zeros(self.n)


def _distance_to_simplex(p: np.ndarray) -> float:
    """Return the least l1 distance of a portfolio from p."""
    forced = np.maximum(-p, 0.0).sum()
    return float(max(1.0 - p.sum(), 2.0 * forced - 1.0 + p.sum()))
