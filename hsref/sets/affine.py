r"""The solutions of linear equations, {y : A y = b}.

The rows may be dependent. When the set is built, a QR factorisation with pivoting picks
independent rows B and an orthonormal basis Q of their span, A_B = R' Q; every other row is a
combination A_i = t_i' A_B. A right-hand side b is consistent iff b_i = t_i' b_B (all rows scaled
to norm 1), and

.. math:: y = x - Q^T (Q x - R^{-T} b_B), \qquad V = I - Q^T Q,

because y differs from x by an element of the row space and Q y = R^{-T} A_B y. The multipliers are
R^{-1}(Q x - R^{-T} b_B) on the rows B, 0 on the others. Cost O(n rank) a sample; the projection is
applied twice, the second time to its own result, which removes the rounding of large x.
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
    PRIMAL_INFEASIBLE,
    SINGULAR,
    SOLVED,
    SUPPORT_UPPER,
    WORKING_UPPER,
)
from .._jit import device_function
from .base import DataField, InfeasibleError, PolyhedralSet, Rows, as_parameter
from .one_row import CONSISTENT_TOL
from .polyhedron import Polyhedron
from .row_reduction import check_row_sizes, unit_rows

_ROW = ACTIVE_UPPER | WORKING_UPPER | SUPPORT_UPPER
_PIVOT_TOL = 1e-11
"""Below this part of a unit row left over, the row depends on those before it."""
_EPS = 2.220446049250313e-16
_DUAL_TOL = 1e-9
"""Rounding of the combination of rows against x, y and x - y; a sample above is refused."""


@device_function
def rows_explain(x, y, dual, rows, norms):
    """Return whether x - y is the combination of rows that the multipliers say, to _DUAL_TOL.

    The multipliers of nearly dependent rows are large and cancel: their last digits alone may be
    more than x - y. That is bounded, not measured: what is measured depends on the order in which
    it is summed.
    """
    terms = 0.0
    for i in range(rows.shape[0]):
        terms += abs(dual[rows[i]]) * norms[rows[i]]
    size = 0.0
    moved = 0.0
    for j in range(x.shape[0]):
        size = max(size, max(abs(x[j]), abs(y[j])))
        moved = max(moved, abs(x[j] - y[j]))
    return _EPS * terms <= _DUAL_TOL * (size + moved)


@device_function
def affine_project(x, data, shared, active_tol, y, code, dual, info, margin, work, iwork):
    """y = x - Q'(Qx - R^-T b_B), data = b, shared = (Q, R, T, rows, norms); scratch work[0:2r]."""
    basis, triangle, combine, rows, norms = shared
    n = x.shape[0]
    r = triangle.shape[0]
    p = data.shape[0] if rows.shape[0] > 0 else 0
    target = work[:r]
    rest = work[r : 2 * r]
    # R' target = b_B, R upper triangular with unit rows behind it.
    for i in range(r):
        value = data[rows[i]] / norms[rows[i]]
        for k in range(i):
            value -= triangle[k, i] * target[k]
        target[i] = value / triangle[i, i]
    for i in range(r, p):
        side = data[rows[i]] / norms[rows[i]]
        got = 0.0
        size = 0.0
        largest_weight = 0.0
        for k in range(r):
            given = data[rows[k]] / norms[rows[k]]
            got += combine[i - r, k] * given
            size += abs(given)
            largest_weight = max(largest_weight, abs(combine[i - r, k]))
        # A weight that ought to be 0 is rounding of the largest one.
        if not abs(got - side) <= CONSISTENT_TOL * (abs(side) + largest_weight * size):
            return PRIMAL_INFEASIBLE
    for j in range(n):
        y[j] = x[j]
    for i in range(p):
        dual[i] = 0.0
        code[i] = ACTIVE_UPPER
    for _ in range(2):
        for i in range(r):
            value = -target[i]
            for j in range(n):
                value += basis[i, j] * y[j]
            rest[i] = value
        for i in range(r):
            value = rest[i]
            for j in range(n):
                y[j] -= value * basis[i, j]
        # R nu = rest gives what this round adds to the multipliers.
        for back in range(r):
            i = r - 1 - back
            value = rest[i]
            for k in range(i + 1, r):
                value -= triangle[i, k] * rest[k]
            rest[i] = value / triangle[i, i]
            dual[rows[i]] += rest[i] / norms[rows[i]]
    if not rows_explain(x, y, dual, rows[:r], norms):
        return SINGULAR
    for i in range(r):
        code[rows[i]] = _ROW
    info[INFO_RANK_ACTIVE] = n - r
    info[INFO_RANK_WORKING] = n - r
    info[INFO_RANK_SUPPORT] = n - r
    return SOLVED


@device_function
def affine_hs(g, y, code, tape_f, tape_i, data, shared, mask, out, work, iwork):
    """out = g - Q'(Qg); scratch work[0:r]."""
    basis = shared[0]
    n = g.shape[0]
    r = shared[1].shape[0]
    for i in range(r):
        value = 0.0
        for j in range(n):
            value += basis[i, j] * g[j]
        work[i] = value
    for j in range(n):
        # Equations that leave one point: exactly 0, not a rounded difference.
        out[j] = g[j] if r < n else 0.0
    if r < n:
        for i in range(r):
            value = work[i]
            for j in range(n):
                out[j] -= value * basis[i, j]


class AffineSubspace(PolyhedralSet):
    r"""The solutions of linear equations.

    .. math:: C = \{ y \in R^n : A_{eq}\, y = b_{eq} \}

    Parameters
    ----------
    A_eq : array_like, shape (p, n)
        Rows; dependent and zero rows are allowed.
    b_eq : array_like, shape (p,)
        May be replaced at the call, one vector a sample.

    Raises
    ------
    ValueError
        Shapes disagree, or a number is not finite.
    InfeasibleError
        The equations contradict each other (by more than 1e-12, relatively).

    Notes
    -----
    O(n rank) forward and backward a sample, after one pivoted QR factorisation of the rows.
    V is the same everywhere. A row of which less than 1e-11 is independent of the others counts as
    dependent. Where a little more is, the multipliers are huge and cancel; a sample that they do
    not explain to 1e-9 any more is refused (``SINGULAR``).

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import AffineSubspace, project
    >>> C = AffineSubspace([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 1.0]], [1.0, 2.0, 3.0])
    >>> project(np.array([1.0, 1.0, 1.0]), C).round(12)
    array([0.5, 0.5, 2. ])
    """

    n: int
    A_eq: np.ndarray
    forward_cost = "O(n rank)"
    backward_cost = "O(n rank)"

    def __init__(self, A_eq: Any, b_eq: Any) -> None:
        if np.ndim(A_eq) != 2 or np.shape(A_eq)[1] == 0:
            raise ValueError(f"A_eq must have shape (p, n) with n >= 1; got {np.shape(A_eq)}.")
        p, self.n = np.shape(A_eq)
        self.A_eq = as_parameter(A_eq, "A_eq", (p, self.n))
        check_row_sizes(self.A_eq, "A_eq")
        if np.shape(b_eq) != (p,):
            raise ValueError(
                f"b_eq must have one entry a row of A_eq, shape {(p,)}; got {np.shape(b_eq)}."
            )
        field = DataField("b_eq", (p,), as_parameter(b_eq, "b_eq", (p,)))
        self._freeze(shape=(self.n,), fields=(field,))
        self._check_data({"b_eq": field.value})

    @classmethod
    def examples(cls) -> tuple[AffineSubspace, ...]:
        """Return a plane, dependent and zero rows, a single point, and the whole space."""
        rows = np.array([[1.0, 2.0, 0.0, -1.0], [0.0, 1.0, 1.0, 3.0]])
        return (
            cls(rows, [1.0, -1.0]),
            cls(np.vstack([rows, 1e6 * rows[0] - rows[1], 0.0 * rows[0]]), [1.0, -1.0, 1000001, 0]),
            cls(np.eye(3)[::-1], [1.0, 2.0, 3.0]),
            cls(np.zeros((1, 2)), [0.0]),
        )

    @property
    def b_eq(self) -> np.ndarray:
        """The right-hand sides, read-only."""
        return self._fields[0].value

    @property
    def _factor(self) -> tuple[np.ndarray, ...]:
        return self._cached("factor", lambda: _factorise(self.A_eq))

    def _check_data(self, data: Mapping[str, np.ndarray]) -> None:
        b = data["b_eq"]
        if b.ndim > 1:
            return
        _, triangle, combine, rows, _ = self._factor
        r = len(triangle)
        side = b / self._factor[-1]
        given, dependent = side[rows[:r]], side[rows[r:]]
        gap = np.abs(combine @ given - dependent)
        # A weight that ought to be 0 is rounding of the largest one.
        size = np.abs(combine).max(axis=1, initial=0.0) * np.abs(given).sum() + np.abs(dependent)
        wrong = np.flatnonzero(gap > CONSISTENT_TOL * size)
        if wrong.size:
            raise InfeasibleError(
                f"AffineSubspace is empty: equation {int(rows[r + wrong[0]])} depends on the "
                f"others and contradicts them by {gap[wrong[0]]:g} (as a row of norm 1)."
            )

    def _make_kernel(self) -> Kernel:
        p, r = len(self.A_eq), len(self._factor[1])
        return Kernel(
            "AffineSubspace", affine_project, affine_hs, size=self.n, code_size=p + self.n,
            dual_size=p, work_size=2 * r, iwork_size=1, hs_work_size=r, hs_iwork_size=0,
            shared=self._factor, methods=("orthonormal rows",),
            cost=8.0 * self.n * (r + 1), hs_cost=4.0 * self.n * (r + 1),
        )  # fmt: skip

    def to_polyhedron(self) -> Polyhedron:
        """Return the same equations as a general polyhedron."""
        return self._with_data({})

    def _with_data(self, data: Mapping[str, Any]) -> Polyhedron:
        return Polyhedron(A_eq=self.A_eq, b_eq=data.get("b_eq", self.b_eq), n=self.n)

    def _row_counts(self) -> tuple[int, int]:
        return 0, len(self.A_eq)

    def _rows_transpose(self, ub: np.ndarray, eq: np.ndarray) -> np.ndarray:
        return eq @ self.A_eq

    def _check_data_rule(self, names: tuple[str, ...]) -> None:
        pass

    def _data_pull(
        self, raw: RawRecord, data: Mapping[str, Any], g: np.ndarray, names: tuple[str, ...]
    ) -> dict[str, np.ndarray]:
        basis, triangle, _, rows, norms = self._factor
        r = len(triangle)
        chosen = rows[:r]
        out = np.zeros((*g.shape[:2], len(norms)))
        # dy = Q' R^{-T} db on the independent rows
        pulled = np.einsum("lbj,kj->lbk", g, _inverse(triangle) @ basis)
        out[..., chosen] = pulled / norms[chosen]
        return {"b_eq": out}

    def _data_push(
        self, raw: RawRecord, data: Mapping[str, Any], tangents: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        basis, triangle, _, rows, norms = self._factor
        chosen = rows[: len(triangle)]
        side = tangents["b_eq"][..., chosen] / norms[chosen]
        return np.einsum("lbk,kj->lbj", side, _inverse(triangle) @ basis)

    def _residual_rows(self, data: Mapping[str, np.ndarray]) -> Rows:
        return Rows(None, None, self.A_eq, data.get("b_eq", self.b_eq), None, None)

    def _find_interior(self) -> tuple[np.ndarray, int]:
        basis, triangle, _, rows, norms = self._factor
        r = len(triangle)
        side = (self.b_eq[rows] / norms[rows])[:r]
        return np.linalg.solve(triangle.T, side) @ basis, self.n - r


def _inverse(triangle: np.ndarray) -> np.ndarray:
    """Return R^{-1}."""
    from scipy.linalg import solve_triangular

    return solve_triangular(triangle, np.eye(len(triangle))) if len(triangle) else triangle


def _factorise(A: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return (Q, R, T, rows, norms): rows of norm 1 are R'Q, and T times those."""
    from scipy.linalg import qr, solve_triangular

    p, n = A.shape
    unit, norms = unit_rows(A, n)
    if p == 0:
        return (
            np.zeros((0, n)), np.zeros((0, 0)), np.zeros((0, 0)), np.zeros(0, np.int64), norms
        )  # fmt: skip
    factors: Any = qr(unit.T, mode="economic", pivoting=True)
    Q, R, order = factors
    r = int(np.sum(np.abs(np.diag(R)) > _PIVOT_TOL))
    combine = solve_triangular(R[:r, :r], R[:r, r:]).T if r else np.zeros((p - r, 0))
    return (
        np.ascontiguousarray(Q[:, :r].T), np.ascontiguousarray(R[:r, :r]),
        np.ascontiguousarray(combine), order.astype(np.int64), norms,
    )  # fmt: skip
