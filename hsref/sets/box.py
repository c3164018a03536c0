r"""The box {y : lower <= y <= upper}.

Projection. The constraints separate, so

.. math:: y_j = \min(\max(x_j, lower_j), upper_j) .

HS-Jacobian. The active rows are unit vectors, so V is the diagonal 0/1 matrix that keeps the
entries strictly inside their bounds. With the full active set an entry that sits on a bound is
held (as ReLU does at 0); with the multiplier support it passes unless it is pushed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._batch import Kernel, RawRecord
from .._codes import (
    ACTIVE_LOWER,
    ACTIVE_UPPER,
    INFO_RANK_ACTIVE,
    INFO_RANK_SUPPORT,
    INFO_RANK_WORKING,
    INFO_SKIP_RECORD,
    INFO_WEAK,
    PRIMAL_INFEASIBLE,
    SOLVED,
    SUPPORT_LOWER,
    SUPPORT_UPPER,
    WORKING_LOWER,
    WORKING_UPPER,
)
from .._jit import device_function
from .base import DataField, InfeasibleError, PolyhedralSet, Rows, as_count, as_parameter
from .one_row_data import held_sides
from .polyhedron import Polyhedron, crossed_bounds


@device_function
def box_classify(x, y, data, active_tol, code, info):
    """Write code and ranks of the entries of y = clip(x, lower, upper), data = [lower, upper].

    A small loop a purpose, and masks that are multiplied or selected instead of branched on: each
    loop vectorises.
    """
    n = x.shape[0]
    for j in range(n):
        lower = data[j]
        upper = data[n + j]
        near = active_tol * abs(y[j])
        # An infinite bound is never active, although its gap and its reach compare as equal.
        low = (y[j] - lower <= near + active_tol * abs(lower)) & (lower > -np.inf)
        high = (upper - y[j] <= near + active_tol * abs(upper)) & (upper < np.inf)
        bits = (ACTIVE_LOWER if low else 0) | (ACTIVE_UPPER if high else 0)
        bits |= WORKING_LOWER | SUPPORT_LOWER if x[j] < lower else 0
        code[j] = bits | (WORKING_UPPER | SUPPORT_UPPER if x[j] > upper else 0)
    fixed = 0
    held = 0
    for j in range(n):
        fixed += 1 if code[j] != 0 else 0
        held += 1 if (code[j] & (WORKING_LOWER | WORKING_UPPER)) != 0 else 0
    info[INFO_RANK_ACTIVE] = n - fixed
    info[INFO_RANK_WORKING] = n - held
    info[INFO_RANK_SUPPORT] = n - held
    info[INFO_WEAK] = fixed - held


@device_function
def least_of(v):
    """Return the smallest entry that is not NaN, inf without one.

    Four chains: a minimum waits for the one before it.
    """
    n = v.shape[0]
    least0 = least1 = least2 = least3 = np.inf
    for q in range(n // 4):
        least0 = v[4 * q] if v[4 * q] < least0 else least0
        least1 = v[4 * q + 1] if v[4 * q + 1] < least1 else least1
        least2 = v[4 * q + 2] if v[4 * q + 2] < least2 else least2
        least3 = v[4 * q + 3] if v[4 * q + 3] < least3 else least3
    for j in range(4 * (n // 4), n):
        least0 = v[j] if v[j] < least0 else least0
    return min(min(least0, least1), min(least2, least3))


@device_function
def box_margins(x, y, data, code, ratio):
    """Return the least relative slack of a bound that is not active, and the least push.

    The ratios are stored first, because divisions vectorise and a minimum does not.
    """
    n = x.shape[0]
    for j in range(n):
        value = y[j]
        lower = data[j]
        upper = data[n + j]
        # The quotient of two infinities is NaN, and no NaN is less than anything.
        to_lower = (value - lower) / (abs(value) + abs(lower))
        to_upper = (upper - value) / (abs(value) + abs(upper))
        to_lower = to_lower if (code[j] & ACTIVE_LOWER) == 0 else np.inf
        to_upper = to_upper if (code[j] & ACTIVE_UPPER) == 0 else np.inf
        ratio[j] = to_lower if to_lower < np.inf else np.inf
        ratio[j] = to_upper if to_upper < ratio[j] else ratio[j]
    slack = least_of(ratio)
    for j in range(n):
        push = abs(x[j] - y[j]) / (abs(x[j]) + abs(y[j]))
        ratio[j] = push if x[j] != y[j] else np.inf
    return slack, least_of(ratio)


@device_function
def box_project(x, data, shared, active_tol, y, code, dual, info, margin, work, iwork):
    """y = clip(x, lower, upper), data = [lower, upper]; writes y, code, info, margin."""
    n = x.shape[0]
    crossed = 0
    for j in range(n):
        crossed += 0 if data[j] <= data[n + j] else 1
    if crossed > 0:
        return PRIMAL_INFEASIBLE
    for j in range(n):
        raised = x[j] if x[j] > data[j] else data[j]
        y[j] = raised if raised < data[n + j] else data[n + j]
    if info[INFO_SKIP_RECORD] == 0:
        box_classify(x, y, data, active_tol, code, info)
        margin[0], margin[1] = box_margins(x, y, data, code, work[0:n])
    return SOLVED


@device_function
def box_hs(g, y, code, tape_f, tape_i, data, shared, mask, out, work, iwork):
    """out = g where the entry is free, 0 elsewhere."""
    for j in range(g.shape[0]):
        out[j] = g[j] if (code[j] & mask) == 0 else 0.0


class Box(PolyhedralSet):
    r"""The box of vectors between two bounds.

    .. math:: C = \{ y \in R^n : lower \le y \le upper \}

    Parameters
    ----------
    lower, upper : float or array_like, shape (n,)
        Bounds, ±inf allowed, ``lower == upper`` allowed. May be replaced at the call.
    n : int, optional
        Length of a point; needed when both bounds are scalars.

    Raises
    ------
    ValueError
        A bound is NaN, the shapes disagree, or `n` is missing.
    InfeasibleError
        Some ``lower`` exceeds its ``upper``.

    Notes
    -----
    Forward and backward cost one pass. An entry on its bound with no multiplier is active (held)
    under ``selection="active"`` and free under ``"working"`` and ``"support"``.

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import Box, project
    >>> project(np.array([-2.0, 0.25, 7.0]), Box(0.0, 1.0, n=3))
    array([0.  , 0.25, 1.  ])
    """

    forward_cost = "O(n)"
    backward_cost = "O(n)"

    def __init__(self, lower: Any, upper: Any, *, n: int | None = None) -> None:
        shapes = {np.shape(v)[0] for v in (lower, upper) if np.ndim(v) == 1}
        if n is None and not shapes:
            raise ValueError(
                "Box needs n=..., the length of a point, when both bounds are scalars."
            )
        self.n = as_count(n if n is not None else max(shapes), "n")
        fields = tuple(
            DataField(name, (self.n,), as_parameter(value, name, (self.n,), finite=False))
            for name, value in (("lower", lower), ("upper", upper))
        )
        self._check_data({f.name: f.value for f in fields})
        self._freeze(shape=(self.n,), fields=fields)

    @classmethod
    def examples(cls) -> tuple[Box, ...]:
        """Return a cube, mixed and infinite bounds, a point, and the whole line."""
        mixed = cls([0.0, -np.inf, 1.0, -1.0], [1.0, 2.0, 1.0, np.inf])
        return cls(0.0, 1.0, n=4), mixed, cls(2.0, 2.0, n=2), cls(-np.inf, np.inf, n=1)

    @property
    def lower(self) -> np.ndarray:
        """The lower bounds, read-only."""
        return self._fields[0].value

    @property
    def upper(self) -> np.ndarray:
        """The upper bounds, read-only."""
        return self._fields[1].value

    def _check_data(self, data: Mapping[str, np.ndarray]) -> None:
        if data["lower"].ndim > 1 or data["upper"].ndim > 1:
            # Data of a call: crossed bounds make one sample empty, which its solve reports.
            for name, void in (("lower", np.inf), ("upper", -np.inf)):
                if np.any(data[name] == void):
                    where = tuple(int(k) for k in np.argwhere(data[name] == void)[0])
                    raise ValueError(
                        f"{name} must not be {void}, which no point satisfies; it is at index "
                        f"{where}."
                    )
            return
        wrong = np.flatnonzero(
            (data["lower"] > data["upper"]) | (data["lower"] == np.inf) | (data["upper"] == -np.inf)
        )
        if wrong.size:
            j = int(wrong[0])
            raise InfeasibleError(
                f"Box is empty: lower[{j}] = {data['lower'][j]} leaves nothing below "
                f"upper[{j}] = {data['upper'][j]}."
            )

    def _make_kernel(self) -> Kernel:
        return Kernel(
            "Box", box_project, box_hs, size=self.n, code_size=self.n, dual_size=0,
            work_size=self.n, iwork_size=1, hs_work_size=0, hs_iwork_size=0, shared=(),
            methods=("clip",), cost=8.0 * self.n, hs_cost=2.0 * self.n,
        )  # fmt: skip

    def to_polyhedron(self) -> Polyhedron:
        """Return the same bounds as a general polyhedron without rows."""
        return Polyhedron(lower=self.lower, upper=self.upper)

    def _with_data(self, data: Mapping[str, Any]) -> Polyhedron:
        return Polyhedron(lower=data.get("lower", self.lower), upper=data.get("upper", self.upper))

    def _row_counts(self) -> tuple[int, int]:
        return 0, 0

    def _rows_transpose(self, ub: np.ndarray, eq: np.ndarray) -> np.ndarray:
        return np.zeros((*ub.shape[:-1], self.n))

    def _check_data_rule(self, names: tuple[str, ...]) -> None:
        pass

    def _data_pull(
        self, raw: RawRecord, data: Mapping[str, Any], g: np.ndarray, names: tuple[str, ...]
    ) -> dict[str, np.ndarray]:
        sides = zip(("lower", "upper"), held_sides(raw.code), strict=True)
        return {name: np.where(held, g, 0.0) for name, held in sides}

    def _data_push(
        self, raw: RawRecord, data: Mapping[str, Any], tangents: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        lower, upper = held_sides(raw.code)
        moved = np.where(lower, tangents.get("lower", 0.0), 0.0)
        return moved + np.where(upper, tangents.get("upper", 0.0), 0.0)

    def _residual_rows(self, data: Mapping[str, np.ndarray]) -> Rows:
        return Rows(
            None, None, None, None, data.get("lower", self.lower), data.get("upper", self.upper)
        )

    def _certificate(
        self, record: Any, sample: int, data: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        crossed = crossed_bounds(
            *(data[f.name][sample % len(data[f.name])] if f.name in data else f.value
              for f in self._fields)
        )  # fmt: skip
        assert crossed is not None
        return np.zeros(0), np.zeros(0), crossed, crossed.copy()

    def _find_interior(self) -> tuple[np.ndarray, int]:
        lower, upper = self.lower, self.upper
        one_sided = np.where(
            np.isfinite(lower), lower + 1.0, np.where(np.isfinite(upper), upper - 1.0, 0.0)
        )
        both = np.isfinite(lower) & np.isfinite(upper)
        middle = 0.5 * np.where(both, lower, 0.0) + 0.5 * np.where(both, upper, 0.0)
        return np.where(both, middle, one_sided), int(np.sum(lower < upper))
