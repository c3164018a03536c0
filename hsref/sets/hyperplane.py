r"""One linear row without bounds: the hyperplane and the half-space.

Hyperplane {y : c'y = s} and half-space {y : c'y <= s}:

.. math:: y = x - c\, \frac{c^T x - s}{\|c\|^2}

(for the half-space only where c'x > s, else y = x), applied twice, the second time to its own
result, which removes the rounding of large x. V = I - cc'/|c|^2 while the row is active, else I:
the row c is the only one, and the projector off it is that matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._batch import Kernel, RawRecord
from .._codes import (
    ACTIVE_UPPER,
    INFO_RANK_ACTIVE,
    INFO_RANK_SUPPORT,
    INFO_RANK_WORKING,
    INFO_WEAK,
    SOLVED,
    SUPPORT_UPPER,
    WORKING_UPPER,
)
from .._jit import device_function
from .base import DataField, PolyhedralSet, Rows, as_parameter
from .knapsack import as_normal, knapsack_hs
from .one_row import ROUNDING, largest
from .one_row_data import one_row_basis, one_row_pull, one_row_push
from .polyhedron import Polyhedron

_ROW = ACTIVE_UPPER | WORKING_UPPER | SUPPORT_UPPER


@device_function
def hyperplane_project(x, data, shared, active_tol, y, code, dual, info, margin, work, iwork):
    """y = x - c (c'x - s)/(c'c), data = [s], shared = (c,); writes y, code, dual, info, margin."""
    c = shared[0]
    n = x.shape[0]
    square = 0.0
    for j in range(n):
        y[j] = x[j]
        square += c[j] * c[j]
    lam = 0.0
    for _ in range(2):
        level = 0.0
        for j in range(n):
            level += c[j] * y[j]
        step = (level - data[0]) / square
        for j in range(n):
            y[j] -= step * c[j]
        lam += step
    code[0] = _ROW
    dual[0] = lam
    info[INFO_RANK_ACTIVE] = n - 1
    info[INFO_RANK_WORKING] = n - 1
    info[INFO_RANK_SUPPORT] = n - 1
    return SOLVED


@device_function
def halfspace_project(x, data, shared, active_tol, y, code, dual, info, margin, work, iwork):
    """y = x - c max(c'x - s, 0)/(c'c), data = [s]; writes y, code, dual, info, margin."""
    c = shared[0]
    n = x.shape[0]
    offset = data[0]
    level = 0.0
    size = abs(offset)
    square = 0.0
    for j in range(n):
        y[j] = x[j]
        level += c[j] * x[j]
        size += abs(c[j] * x[j])
        square += c[j] * c[j]
    reach = largest(x)
    unit = 1.0 / reach if reach > 0.0 else 1.0
    lam = 0.0
    if level > offset:
        for _ in range(2):
            level = 0.0
            for j in range(n):
                level += c[j] * y[j]
            step = (level - offset) / square
            for j in range(n):
                y[j] -= step * c[j]
            lam += step
    row = 0
    weight = lam * largest(c)
    slack = (offset - level) / size if size > 0.0 else 0.0
    if weight > ROUNDING * reach:
        row = _ROW
        margin[1] = weight * unit
    else:
        lam = 0.0
        if slack <= active_tol:
            row = ACTIVE_UPPER
            info[INFO_WEAK] = 1
        else:
            margin[0] = slack
    code[0] = row
    dual[0] = lam
    info[INFO_RANK_ACTIVE] = n - (1 if row != 0 else 0)
    info[INFO_RANK_WORKING] = n - (1 if row == _ROW else 0)
    info[INFO_RANK_SUPPORT] = n - (1 if row == _ROW else 0)
    return SOLVED


class _OneNormal(PolyhedralSet):
    """A hyperplane or half-space: one normal, one offset."""

    n: int
    normal: np.ndarray
    equality = True
    forward_cost = "O(n)"
    backward_cost = "O(n)"

    def __init__(self, normal: Any, offset: float) -> None:
        self.normal = as_normal(normal, "normal", type(self).__name__)
        self.n = self.normal.size
        field = DataField("offset", (), as_parameter(offset, "offset", ()))
        self._freeze(shape=(self.n,), fields=(field,))

    @classmethod
    def examples(cls) -> tuple[PolyhedralSet, ...]:
        """Return one in space, one with zero entries in the normal, one on the line."""
        return cls([1.0, 2.0, -2.0], 3.0), cls([0.0, 0.0, 4.0, 0.0], -1.0), cls([-2.0], 0.0)

    @property
    def offset(self) -> float:
        """The right-hand side."""
        return float(self._fields[0].value)

    def _make_kernel(self) -> Kernel:
        return Kernel(
            type(self).__name__, hyperplane_project if self.equality else halfspace_project,
            knapsack_hs, size=self.n, code_size=1 + self.n, dual_size=1, work_size=0,
            iwork_size=1, hs_work_size=0, hs_iwork_size=0, shared=(np.array(self.normal),),
            cost=5.0 * self.n, hs_cost=5.0 * self.n,
        )  # fmt: skip

    def to_polyhedron(self) -> Polyhedron:
        """Return the same row as a general polyhedron."""
        return self._with_data({})

    def _with_data(self, data: Mapping[str, Any]) -> Polyhedron:
        row, side = self.normal[None], [float(data.get("offset", self.offset))]
        if self.equality:
            return Polyhedron(A_eq=row, b_eq=side)
        return Polyhedron(A_ub=row, b_ub=side)

    def _row_counts(self) -> tuple[int, int]:
        return (0, 1) if self.equality else (1, 0)

    def _rows_transpose(self, ub: np.ndarray, eq: np.ndarray) -> np.ndarray:
        return (eq if self.equality else ub) * self.normal

    def _check_data_rule(self, names: tuple[str, ...]) -> None:
        pass

    def _data_pull(
        self, raw: RawRecord, data: Mapping[str, Any], g: np.ndarray, names: tuple[str, ...]
    ) -> dict[str, np.ndarray]:
        basis = one_row_basis(raw.code, self.normal)
        return {"offset": one_row_pull(basis, self.normal, g)[0]}

    def _data_push(
        self, raw: RawRecord, data: Mapping[str, Any], tangents: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        return one_row_push(one_row_basis(raw.code, self.normal), self.normal, tangents["offset"])

    def _residual_rows(self, data: Mapping[str, np.ndarray]) -> Rows:
        side = np.asarray(data.get("offset", self.offset))[..., None]
        if self.equality:
            return Rows(None, None, self.normal[None], side, None, None)
        return Rows(self.normal[None], side, None, None, None, None)


class Hyperplane(_OneNormal):
    r"""The points with a given inner product with a vector.

    .. math:: C = \{ y \in R^n : normal^T y = offset \}

    Parameters
    ----------
    normal : array_like, shape (n,)
        Not zero.
    offset : float
        May be replaced at the call, one value a sample.

    Raises
    ------
    ValueError
        The normal is no vector of finite numbers, or zero; the offset is not finite.

    Notes
    -----
    Two passes forward, two backward. V = I - normal normal' / |normal|^2 everywhere.

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import Hyperplane, project
    >>> project(np.array([2.0, 3.0]), Hyperplane([1.0, 1.0], 1.0))
    array([0., 1.])
    """

    def _find_interior(self) -> tuple[np.ndarray, int]:
        return self.normal * (self.offset / (self.normal @ self.normal)) + 0.0, self.n - 1


class Halfspace(_OneNormal):
    r"""The points whose inner product with a vector has an upper limit.

    .. math:: C = \{ y \in R^n : normal^T y \le offset \}

    Parameters
    ----------
    normal : array_like, shape (n,)
        Not zero; it points out of the set.
    offset : float
        May be replaced at the call, one value a sample.

    Raises
    ------
    ValueError
        The normal is no vector of finite numbers, or zero; the offset is not finite.

    Notes
    -----
    Inside, y = x bit for bit and V = I; outside as for :class:`Hyperplane`. On the boundary the
    row is active without a multiplier: it belongs to ``selection="active"`` alone.

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import Halfspace, project
    >>> project(np.array([[2.0, 3.0], [0.0, -4.0]]), Halfspace([1.0, 1.0], 1.0))
    array([[ 0.,  1.],
           [ 0., -4.]])
    """

    equality = False

    def _find_interior(self) -> tuple[np.ndarray, int]:
        square = self.normal @ self.normal
        below = self.offset - max(abs(self.offset), np.sqrt(square))
        return self.normal * (below / square) + 0.0, self.n
