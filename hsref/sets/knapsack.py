r"""One linear row over a box: the knapsack, and with unit weights the capped simplex.

.. math:: C = \{ y \in R^n : lower \le y \le upper,\ w^T y = total \}
          \quad\text{or}\quad w^T y \le total

Projection. With the multiplier lambda of the row, stationarity in each entry gives

.. math:: y_j = \min(\max(x_j - \lambda w_j, lower_j), upper_j),

so one number is left to find: the root of the monotone, piecewise linear S(lambda) = w'y(lambda) =
total (:mod:`hsref.sets.one_row`). For an inequality lambda = 0 if S(0) <= total, else the same
root, which is then positive. The root is found twice, the second time for x - lambda w in place
of x: near the answer those differences are small, so that what cancelled in the first search is
recovered and the row holds to the precision of y even where x is larger by many orders.

HS-Jacobian. Let F be the entries strictly inside their bounds. The active rows are e_j off F and,
if the row is active, w; modulo the e_j only w_F counts, so V is the projector off w_F on F:

.. math:: (V g)_F = g_F - w_F \frac{w_F^T g_F}{\|w_F\|^2}, \qquad (V g)_j = 0 \text{ off } F,

with V g = g_F where w_F = 0 or the row is slack. With unit weights: subtract the mean over F.

Where every entry with a weight is at a bound, the rows are dependent and lambda is one of an
interval. Its end next to the root found is taken: there one bound has multiplier zero, and leaving
it out makes the working set independent.

Weights of either sign, and zero weights (such entries are merely clipped), are allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._batch import Kernel, RawRecord
from .._jit import device_function
from .base import DataField, InfeasibleError, PolyhedralSet, Rows, as_count, as_parameter
from .one_row import CONSISTENT_TOL, row_project
from .one_row_data import one_row_basis, one_row_pull, one_row_push
from .polyhedron import Polyhedron, crossed_bounds
from .simplex import simplex_hs


@device_function
def knapsack_project(x, data, shared, active_tol, y, code, dual, info, margin, work, iwork):
    """y = clip(x - lambda w, lower, upper), shared = (w,), equality; writes the record."""
    n = x.shape[0]
    return row_project(
        x, shared[0], data[1 : 1 + n], data[1 + n : 1 + 2 * n], data[0], True, active_tol,
        y, code, dual, info, margin, work,
    )  # fmt: skip


@device_function
def budget_project(x, data, shared, active_tol, y, code, dual, info, margin, work, iwork):
    """The same with w'y <= total; writes the record."""
    n = x.shape[0]
    return row_project(
        x, shared[0], data[1 : 1 + n], data[1 + n : 1 + 2 * n], data[0], False, active_tol,
        y, code, dual, info, margin, work,
    )  # fmt: skip


@device_function
def knapsack_hs(g, y, code, tape_f, tape_i, data, shared, mask, out, work, iwork):
    """out = g - w (w'g)/(w'w) over free entries if the row is selected, g if not, 0 elsewhere."""
    w = shared[0]
    n = g.shape[0]
    dot = 0.0
    square = 0.0
    count = 0
    for j in range(n):
        v = w[j] if (code[1 + j] & mask) == 0 else 0.0
        dot += v * g[j]
        square += v * v
        count += 1 if v != 0.0 else 0
    along = 0.0
    if (code[0] & mask) != 0 and square > 0.0:
        along = dot / square
    # A single free entry with a weight is fixed by the row: exactly 0, not a rounded difference.
    fixed = (code[0] & mask) != 0 and count == 1
    for j in range(n):
        free = (code[1 + j] & mask) == 0 and not (fixed and w[j] != 0.0)
        out[j] = g[j] - w[j] * along if free else 0.0


class _OneRow(PolyhedralSet):
    """What the sets of this file share: the data [total, lower, upper] and the weights."""

    n: int
    weights: np.ndarray
    equality = True

    def _build(self, n: int, weights: Any, total: Any, lower: Any, upper: Any) -> None:
        self.n = n
        self.weights = weights
        fields = (
            DataField("total", (), as_parameter(total, "total", ())),
            DataField("lower", (n,), as_parameter(lower, "lower", (n,), finite=False)),
            DataField("upper", (n,), as_parameter(upper, "upper", (n,), finite=False)),
        )
        self._check_data({f.name: f.value for f in fields})
        self._freeze(shape=(n,), fields=fields)

    @property
    def total(self) -> float:
        """The right-hand side of the row."""
        return float(self._fields[0].value)

    @property
    def lower(self) -> np.ndarray:
        """The lower bounds, read-only."""
        return self._fields[1].value

    @property
    def upper(self) -> np.ndarray:
        """The upper bounds, read-only."""
        return self._fields[2].value

    def _check_data(self, data: Mapping[str, np.ndarray]) -> None:
        total, lower, upper = data["total"], data["lower"], data["upper"]
        if np.ndim(total) > 0 or np.ndim(lower) > 1 or np.ndim(upper) > 1:
            return
        name = type(self).__name__
        wrong = np.flatnonzero((lower > upper) | (lower == np.inf) | (upper == -np.inf))
        if wrong.size:
            j = int(wrong[0])
            raise InfeasibleError(
                f"{name} is empty: lower[{j}] = {lower[j]} leaves nothing below "
                f"upper[{j}] = {upper[j]}."
            )
        least, most = self._reach(lower, upper)
        row = "the sum of the entries" if np.all(self.weights == 1.0) else "weights @ y"
        if total < least.sum() - CONSISTENT_TOL * (abs(total) + np.abs(least).sum()):
            raise InfeasibleError(
                f"{name} is empty: total = {float(total)} is less than {least.sum():g}, the "
                f"smallest value of {row} within the bounds."
            )
        if self.equality and total > most.sum() + CONSISTENT_TOL * (
            abs(total) + np.abs(most).sum()
        ):
            raise InfeasibleError(
                f"{name} is empty: total = {float(total)} is more than {most.sum():g}, the "
                f"largest value of {row} within the bounds."
            )

    def _reach(self, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the smallest and largest term of the row, entry by entry."""
        w = self.weights
        # 0 * inf: an entry without weight adds nothing whatever its bounds.
        at_lower = np.multiply(w, lower, where=w != 0.0, out=np.zeros(self.n))
        at_upper = np.multiply(w, upper, where=w != 0.0, out=np.zeros(self.n))
        return np.minimum(at_lower, at_upper), np.maximum(at_lower, at_upper)

    def _make_kernel(self) -> Kernel:
        unit = bool(np.all(self.weights == 1.0))
        return Kernel(
            type(self).__name__, knapsack_project if self.equality else budget_project,
            simplex_hs if unit and self.equality else knapsack_hs, size=self.n,
            code_size=1 + self.n, dual_size=1, work_size=2 * self.n, iwork_size=1,
            hs_work_size=0, hs_iwork_size=0, shared=(np.array(self.weights),),
            methods=("Newton on the multiplier",), cost=20.0 * self.n, hs_cost=5.0 * self.n,
        )  # fmt: skip

    def to_polyhedron(self) -> Polyhedron:
        """Return the row and the bounds as a general polyhedron."""
        return self._with_data({})

    def _with_data(self, data: Mapping[str, Any]) -> Polyhedron:
        rows, side = self.weights[None], [float(data.get("total", self.total))]
        bounds = {
            "lower": data.get("lower", self.lower),
            "upper": data.get("upper", self.upper),
        }
        if self.equality:
            return Polyhedron(A_eq=rows, b_eq=side, **bounds)
        return Polyhedron(A_ub=rows, b_ub=side, **bounds)

    def _row_counts(self) -> tuple[int, int]:
        return (0, 1) if self.equality else (1, 0)

    def _rows_transpose(self, ub: np.ndarray, eq: np.ndarray) -> np.ndarray:
        return (eq if self.equality else ub) * self.weights

    def _check_data_rule(self, names: tuple[str, ...]) -> None:
        pass

    def _data_pull(
        self, raw: RawRecord, data: Mapping[str, Any], g: np.ndarray, names: tuple[str, ...]
    ) -> dict[str, np.ndarray]:
        basis = one_row_basis(raw.code, self.weights)
        found = one_row_pull(basis, self.weights, g)
        return dict(zip(("total", "lower", "upper"), found, strict=True))

    def _data_push(
        self, raw: RawRecord, data: Mapping[str, Any], tangents: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        basis = one_row_basis(raw.code, self.weights)
        moves = (tangents.get(name, 0.0) for name in ("total", "lower", "upper"))
        return one_row_push(basis, self.weights, *moves)

    def _residual_rows(self, data: Mapping[str, np.ndarray]) -> Rows:
        side = np.asarray(data.get("total", self.total))[..., None]
        bounds = data.get("lower", self.lower), data.get("upper", self.upper)
        if self.equality:
            return Rows(None, None, self.weights[None], side, *bounds)
        return Rows(self.weights[None], side, None, None, *bounds)

    def _certificate(
        self, record: Any, sample: int, data: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        lower, upper = (
            data[f.name][sample % len(data[f.name])] if f.name in data else f.value
            for f in self._fields[1:]
        )
        crossed = crossed_bounds(lower, upper)
        if crossed is None:
            return super()._certificate(record, sample, data)
        m, p = self._row_counts()
        return np.zeros(m), np.zeros(p), crossed, crossed.copy()

    def _find_interior(self) -> tuple[np.ndarray, int]:
        lower, upper, w = self.lower, self.upper, self.weights
        if not (np.isfinite(lower).all() and np.isfinite(upper).all()):
            return super()._find_interior()
        least, most = self._reach(lower, upper)
        room = most.sum() - least.sum()
        above = self.total - least.sum()
        share = above / room if room > 0.0 else 0.0
        free = lower < upper
        dim = int(np.sum(free))
        # At an end of its range the row holds every entry it weighs.
        pinned = above <= CONSISTENT_TOL * (abs(self.total) + np.abs(least).sum())
        if self.equality:
            pinned |= -CONSISTENT_TOL * room <= room - above <= CONSISTENT_TOL * room
            dim -= 1
        else:
            share = 0.5 * min(share, 1.0)
        if pinned:
            share = min(max(round(share), 0.0), 1.0)
            dim = int(np.sum(free & (w == 0.0)))
        low, high = np.where(w > 0.0, lower, upper), np.where(w > 0.0, upper, lower)
        point = np.where(w == 0.0, 0.5 * lower + 0.5 * upper, low + share * (high - low))
        return np.clip(point, lower, upper), dim


class CappedSimplex(_OneRow):
    r"""Vectors between two bounds with a given sum.

    .. math:: C = \{ y \in R^n : lower \le y \le upper,\ 1^T y = total \}

    With the default bounds and an integer total k it is the top-k polytope, whose vertices are the
    indicators of the sets of k coordinates.

    Parameters
    ----------
    n : int
        Length of a point, at least 1.
    total : float
        The sum. May be replaced at the call, as the bounds may.
    lower, upper : float or array_like, shape (n,)
        Bounds; ±inf and ``lower == upper`` are allowed.

    Raises
    ------
    ValueError
        ``n`` is no positive integer, a number is NaN, or shapes disagree.
    InfeasibleError
        Some ``lower`` exceeds its ``upper``, or no point within the bounds has that sum.

    Notes
    -----
    Forward: a finite search over the multiplier of the sum, about ten vectorised passes over x and
    no sort. Backward: two passes. At a vertex V = 0.

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import CappedSimplex, project
    >>> project(np.array([0.9, 0.8, 0.1, -1.0]), CappedSimplex(4, 2))
    array([0.96666667, 0.86666667, 0.16666667, 0.        ])
    """

    forward_cost = "O(n), about ten passes"
    backward_cost = "O(n)"

    def __init__(self, n: int, total: float, lower: Any = 0.0, upper: Any = 1.0) -> None:
        n = as_count(n, "n")
        self._build(n, np.ones(n), total, lower, upper)

    @classmethod
    def examples(cls) -> tuple[CappedSimplex, ...]:
        """Return a top-k polytope, one without upper bounds, one with a fixed entry, points."""
        return (
            cls(6, 2),
            cls(4, 1.0, -1.0, [np.inf, 2.0, np.inf, 0.5]),
            cls(4, 1.0, [0.0, 0.25, 0.0, 0.0], [1.0, 0.25, 0.5, 1.0]),
            cls(3, 3.0),
            cls(1, 0.0),
        )


class Knapsack(_OneRow):
    r"""Vectors between two bounds with a given, or a limited, weighted sum.

    .. math:: C = \{ y : lower \le y \le upper,\ weights^T y = total \}
              \quad\text{or, with equality=False,}\quad weights^T y \le total

    Parameters
    ----------
    weights : array_like, shape (n,)
        Weights of either sign; zeros are allowed, but not all zeros.
    total : float
        Right-hand side of the row. May be replaced at the call, as the bounds may.
    lower, upper : float or array_like, shape (n,)
        Bounds; ±inf and ``lower == upper`` are allowed.
    equality : bool
        Whether the row is an equality (the default) or an upper limit.

    Raises
    ------
    ValueError
        The weights are no vector of finite numbers or all zero, a number is NaN, or shapes
        disagree.
    InfeasibleError
        Some ``lower`` exceeds its ``upper``, or no point within the bounds meets the row.

    Notes
    -----
    Forward: a finite search over the multiplier of the row, about ten vectorised passes over x.
    Backward: two passes. Where the row is slack, V is that of the box.

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import Knapsack, project
    >>> C = Knapsack([1.0, 2.0], 2.0, 0.0, np.inf, equality=False)
    >>> project(np.array([[1.0, 2.0], [0.5, -1.0]]), C)
    array([[0.4, 0.8],
           [0.5, 0. ]])
    """

    forward_cost = "O(n), about ten passes"
    backward_cost = "O(n)"

    def __init__(
        self, weights: Any, total: float, lower: Any, upper: Any, equality: bool = True
    ) -> None:
        given = as_normal(weights, "weights", "Knapsack")
        self.equality = bool(equality)
        self._build(given.size, given, total, lower, upper)

    @classmethod
    def examples(cls) -> tuple[Knapsack, ...]:
        """Return budgets and equalities with weights of all signs, and single points."""
        return (
            cls([1.0, 2.0, 3.0, 0.5], 2.0, 0.0, np.inf, equality=False),
            cls([1.0, -2.0, 0.0, 1.0, 3.0], 1.0, -1.0, [1.0, 1.0, 0.5, np.inf, 2.0]),
            cls([2.0, 1.0, -1.0], -1.0, 0.0, 1.0),
            cls([1.0, 1.0, 2.0], 0.0, 0.0, 1.0, equality=False),
            cls([-3.0], 6.0, -np.inf, np.inf),
        )


def as_normal(value: Any, name: str, owner: str) -> np.ndarray:
    """Return a non-zero vector of float64, or raise a sentence."""
    if np.ndim(value) != 1 or np.size(value) == 0:
        raise ValueError(f"{name} must be a vector; got shape {np.shape(value)}.")
    normal = as_parameter(value, name, np.shape(value))
    top = np.abs(normal).max()
    if not 1e-150 < top < 1e150:
        raise ValueError(
            f"{name} of a {owner} must not be zero, nor so small or large that its square is not "
            f"a number; its largest entry is {top:g}."
        )
    return normal
