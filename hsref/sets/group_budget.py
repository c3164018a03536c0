r"""Budgets with limits on disjoint groups: what portfolio constraints look like.

.. math:: C = \{ y : 0 \le y \le cap,\ 1^T y = total,\
          lower_g \le \textstyle\sum_{i \in g} y_i \le upper_g \}

Projection. Let nu be the multiplier of the total and mu_g the difference of the two multipliers of
group g. Stationarity gives y_i = clip(x_i - nu - mu_g, 0, cap_i): each group has a threshold
tau_g = nu + mu_g of its own, and complementarity says which. The group total
T_g(tau) = sum clip(x_i - tau, 0, cap_i) never increases. If lower_g <= T_g(nu) <= upper_g then
mu_g = 0; if T_g(nu) is above upper_g the total must be upper_g, which takes a larger threshold,
mu_g > 0; likewise below. So group g contributes clip(T_g(nu), lower_g, upper_g) to the total, the
sum of these is monotone and piecewise linear in nu alone, and its root is found first
(:mod:`hsref.sets.group_root`); then each group at a limit is a small capped simplex of its own.
The two levels are solved one after the other, not nested, and both are finite.

HS-Jacobian. Let F be the entries strictly between their bounds. Modulo the e_j off F the active
rows are 1_{F and g} for the groups at a limit, and 1_F; subtracting the former from the latter
leaves 1_{F and rest}. These have disjoint supports, so V subtracts from g its mean over F and g for
each group at a limit, and its mean over the rest of F; it is 0 off F.

Working set. Where all entries of a group at a limit are at bounds, mu_g is one of an interval; its
end next to 0 is taken, where one entry's multiplier (or mu_g itself) vanishes. The same is then
done for nu and the rest, so that the rows that carry a multiplier are independent.

Sources: the two-level structure is that of nested resource allocation; see Katoh, Shioura and
Ibaraki, "Resource allocation problems", Handbook of Combinatorial Optimization (2013).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._batch import Kernel
from .base import DataField, InfeasibleError, PolyhedralSet, Rows, as_count, as_parameter
from .group_point import group_hs, group_project
from .one_row import CONSISTENT_TOL
from .polyhedron import Polyhedron, crossed_bounds


class GroupBudget(PolyhedralSet):
    r"""Non-negative vectors with a given sum, a cap on entries and limits on group totals.

    .. math:: C = \{ y \in R^n : 0 \le y \le cap,\ 1^T y = total,\
              lower_g \le \textstyle\sum_{i \in g} y_i \le upper_g \}

    Parameters
    ----------
    n : int
        Length of a point, at least 1.
    groups : array_like of int, shape (n,), or of bool, shape (G, n)
        The group of each entry, counted from 0, and -1 for none; or the membership of each group.
    lower, upper : float or array_like, shape (G,)
        Limits of the group totals, ±inf for none. May be replaced at the call.
    total : float
        The sum of all entries. May be replaced at the call.
    cap : float or array_like, shape (n,), optional
        Largest value of an entry; none by default. May be replaced at the call, by something of
        the same shape.

    Raises
    ------
    ValueError
        The groups overlap or are no labels, a number is NaN, or shapes disagree.
    InfeasibleError
        The caps, limits and total leave no point.

    Notes
    -----
    Forward: about ten passes over x for the total and a few over each group at a limit, no sort.
    Backward: two passes. The rows of ``multipliers.ub`` are the upper limits, then the lower ones.

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import GroupBudget, project
    >>> C = GroupBudget(4, [0, 0, 1, -1], lower=[0.0, 0.3], upper=[0.5, 1.0])
    >>> project(np.array([0.9, 0.5, 0.0, 0.0]), C).round(12)
    array([0.45, 0.05, 0.3 , 0.2 ])
    """

    n: int
    groups: np.ndarray
    forward_cost = "O(n), about ten passes, plus a few over each group at a limit"
    backward_cost = "O(n)"

    def __init__(
        self, n: int, groups: Any, lower: Any, upper: Any, total: float = 1.0, cap: Any = None
    ) -> None:
        self.n = as_count(n, "n")
        self.groups = _as_labels(groups, self.n)
        sizes = [np.shape(v)[0] for v in (lower, upper) if np.ndim(v) == 1]
        count = max([int(self.groups.max(initial=-1)) + 1, *sizes])
        most = np.inf if cap is None else cap
        cap_shape = () if np.ndim(most) == 0 else (self.n,)
        fields = (
            DataField("lower", (count,), as_parameter(lower, "lower", (count,), finite=False)),
            DataField("upper", (count,), as_parameter(upper, "upper", (count,), finite=False)),
            DataField("total", (), as_parameter(total, "total", ())),
            DataField("cap", cap_shape, as_parameter(most, "cap", cap_shape, finite=False)),
        )
        self._check_feasible(*(f.value for f in fields))
        self._freeze(shape=(self.n,), fields=fields)

    @classmethod
    def examples(cls) -> tuple[GroupBudget, ...]:
        """Return a portfolio, one without free entries, one without groups, and single points."""
        return (
            cls(7, [0, 1, 0, -1, 1, 2, 2], [0.0, 0.5, -np.inf], [0.25, 1.0, 0.125], 1.0, 0.5),
            cls(5, [0, 0, 1, 1, 1], [0.25, 0.5], [0.5, 0.75], 1.0),
            cls(3, [-1, -1, -1], 0.0, 1.0, 2.0, [1.0, np.inf, 0.5]),
            cls(4, [0, 0, 1, 1], [1.0, 0.0], [1.0, 0.0], 1.0, 0.5),
            cls(2, [0, -1], [0.0], [0.0], 0.0),
            cls(1, [0], [0.5], [2.0], 1.0),
        )

    lower = property(lambda self: self._fields[0].value, doc="The lower limits, read-only.")
    upper = property(lambda self: self._fields[1].value, doc="The upper limits, read-only.")
    total = property(lambda self: float(self._fields[2].value), doc="The sum of the entries.")
    cap = property(lambda self: self._fields[3].value, doc="The caps, read-only.")

    def _check_feasible(
        self, lower: np.ndarray, upper: np.ndarray, total: np.ndarray, cap: np.ndarray
    ) -> None:
        """Raise the sentence that says why the set is empty, if it is."""
        count = lower.size
        caps = np.broadcast_to(cap, (self.n,))
        if (caps < 0.0).any():
            j = int(np.flatnonzero(caps < 0.0)[0])
            raise InfeasibleError(f"GroupBudget is empty: cap = {caps[j]} for entry {j}.")
        room = np.array([caps[self.groups == g].sum() for g in range(count)])
        for g in range(count):
            if lower[g] > upper[g] or upper[g] < 0.0:
                raise InfeasibleError(
                    f"GroupBudget is empty: group {g} has lower = {lower[g]} and "
                    f"upper = {upper[g]}, and totals are at least 0."
                )
            if lower[g] > room[g] + CONSISTENT_TOL * (room[g] + abs(lower[g])):
                raise InfeasibleError(
                    f"GroupBudget is empty: lower = {lower[g]} of group {g} is more than its caps "
                    f"allow, {room[g]:g}."
                )
        least = np.maximum(lower, 0.0).sum()
        most = np.minimum(upper, room).sum() + caps[self.groups < 0].sum()
        if total < least - CONSISTENT_TOL * (abs(total) + least):
            raise InfeasibleError(
                f"GroupBudget is empty: total = {float(total)} is less than the sum of the lower "
                f"limits, {least:g}."
            )
        if total > most + CONSISTENT_TOL * (abs(total) + most):
            raise InfeasibleError(
                f"GroupBudget is empty: total = {float(total)} is more than the caps and upper "
                f"limits allow, {most:g}."
            )

    def _make_kernel(self) -> Kernel:
        n, count = self.n, self.lower.size
        order = np.argsort(self.groups, kind="stable")
        edges = np.searchsorted(self.groups[order], np.arange(-1, count + 1))
        return Kernel(
            "GroupBudget", group_project, group_hs, size=n, code_size=2 * count + 1 + n,
            dual_size=2 * count + 1, work_size=4 * n + count + 1, iwork_size=1,
            hs_work_size=count + 1, hs_iwork_size=2 * count + 2,
            shared=(
                order.astype(np.int32), edges.astype(np.int32), np.ones(n), np.zeros(n),
            ),
            methods=("Newton on two levels of multipliers",), cost=30.0 * n, hs_cost=8.0 * n,
        )  # fmt: skip

    @property
    def _members(self) -> np.ndarray:
        def make() -> np.ndarray:
            rows = (self.groups[None] == np.arange(self.lower.size)[:, None]).astype(np.float64)
            return np.vstack([rows, -rows])

        return self._cached("members", make)

    def to_polyhedron(self) -> Polyhedron:
        """Return the rows: upper limits, lower limits; then the total, and the bounds."""
        return self._with_data({})

    def _with_data(self, data: Mapping[str, Any]) -> Polyhedron:
        lower, upper, total, cap = (
            data.get(name, getattr(self, name)) for name in ("lower", "upper", "total", "cap")
        )
        some = self.lower.size > 0
        caps = np.broadcast_to(cap, (self.n,))
        return Polyhedron(
            A_ub=self._members if some else None,
            b_ub=np.concatenate([upper, -np.asarray(lower)]) if some else None,
            A_eq=np.ones((1, self.n)),
            b_eq=[float(total)],
            lower=np.zeros(self.n),
            upper=caps if np.isfinite(caps).any() else None,
        )

    def _row_counts(self) -> tuple[int, int]:
        return 2 * self.lower.size, 1

    def _rows_transpose(self, ub: np.ndarray, eq: np.ndarray) -> np.ndarray:
        count = self.lower.size
        # The column put last, of zeros, is that of entries in no group: index -1.
        push = ub[..., :count] - ub[..., count:]
        push = np.concatenate([push, np.zeros((*push.shape[:-1], 1))], axis=-1)
        return eq + push[..., self.groups]

    def _residual_rows(self, data: Mapping[str, np.ndarray]) -> Rows:
        lower, upper, total, cap = (
            np.asarray(data.get(name, getattr(self, name)))
            for name in ("lower", "upper", "total", "cap")
        )
        shape = np.broadcast_shapes(lower.shape, upper.shape)
        sides = [np.broadcast_to(upper, shape), -np.broadcast_to(lower, shape)]
        if not (cap.ndim and cap.shape[-1:] == (self.n,) and self._fields[3].shape):
            cap = cap[..., None]
        return Rows(
            self._members, np.concatenate(sides, axis=-1), np.ones((1, self.n)),
            total[..., None], np.zeros(self.n), cap,
        )  # fmt: skip

    def _certificate(
        self, record: Any, sample: int, data: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        cap = data["cap"][sample % len(data["cap"])] if "cap" in data else self.cap
        crossed = crossed_bounds(np.zeros(self.n), np.broadcast_to(cap, (self.n,)))
        if crossed is None:
            return super()._certificate(record, sample, data)
        return np.zeros(2 * self.lower.size), np.zeros(1), crossed, crossed.copy()


def _as_labels(groups: Any, n: int) -> np.ndarray:
    """Return one group number an entry, -1 for none, or raise a sentence."""
    array = np.asarray(groups)
    if array.dtype == bool and array.ndim == 2 and array.shape[1] == n:
        shared = np.flatnonzero(array.sum(axis=0) > 1)
        if shared.size:
            j = int(shared[0])
            raise ValueError(
                f"groups overlap: entry {j} is in groups {np.flatnonzero(array[:, j]).tolist()}; "
                "they must be disjoint (use a Polyhedron otherwise)."
            )
        return np.where(array.any(axis=0), array.argmax(axis=0), -1)
    if array.shape != (n,):
        raise ValueError(
            f"groups must be one label an entry, shape {(n,)}, or a boolean membership table of "
            f"shape (G, {n}); got shape {array.shape} of {array.dtype}."
        )
    labels = array.astype(np.int64) if array.dtype.kind in "iuf" else None
    if labels is None or (labels != array).any() or (labels < -1).any():
        raise ValueError(
            "groups must be whole numbers from 0, or -1 for entries in no group; got "
            f"{array[:8].tolist()}."
        )
    return labels
