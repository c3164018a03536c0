r"""The simplex {y : y >= 0, sum(y) = total}.

Projection. With the multiplier tau of the sum, the optimality conditions give

.. math:: y_j = \max(x_j - \tau, 0), \qquad \sum_j \max(x_j - \tau, 0) = total .

The left side is convex, piecewise linear and decreasing in tau, so Newton's method started on its
left increases tau monotonically and ends after finitely many steps, at the exact root: each step
solves the linear piece of the entries still above tau. No sort is needed; a pass costs n and
about log n passes are met in practice (n in the worst case).

HS-Jacobian. With F = {j : y_j > 0} the active rows are e_j for j outside F, and 1. If F is not
empty, V g = g_F - mean(g_F) on F and 0 elsewhere: subtracting the mean is the projector off 1_F.
If F is empty (total = 0) the rows e_j span everything and V = 0.

Sources: the threshold form is classical (Held, Wolfe & Crowder, 1974); Condat, "Fast projection
onto the simplex and the l1 ball", Math. Program. 158 (2016), surveys sort-free methods.
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
    INFO_STEPS,
    INFO_WEAK,
    MAX_STEPS,
    PRIMAL_INFEASIBLE,
    SOLVED,
    SUPPORT_LOWER,
    SUPPORT_UPPER,
    WORKING_LOWER,
    WORKING_UPPER,
)
from .._jit import device_function
from .base import DataField, InfeasibleError, PolyhedralSet, Rows, as_count, as_parameter
from .one_row_data import one_row_basis, one_row_pull, one_row_push
from .polyhedron import Polyhedron

_EQ = ACTIVE_UPPER | WORKING_UPPER | SUPPORT_UPPER
_BINDING = ACTIVE_LOWER | WORKING_LOWER | SUPPORT_LOWER


@device_function
def simplex_extremes(x):
    """Return (max(x), max|x|); four independent chains, because a maximum does not vectorise."""
    n = x.shape[0]
    top0 = top1 = top2 = top3 = x[0]
    low0 = low1 = low2 = low3 = x[0]
    for q in range(n // 4):
        v0 = x[4 * q]
        v1 = x[4 * q + 1]
        v2 = x[4 * q + 2]
        v3 = x[4 * q + 3]
        top0 = v0 if v0 > top0 else top0
        top1 = v1 if v1 > top1 else top1
        top2 = v2 if v2 > top2 else top2
        top3 = v3 if v3 > top3 else top3
        low0 = v0 if v0 < low0 else low0
        low1 = v1 if v1 < low1 else low1
        low2 = v2 if v2 < low2 else low2
        low3 = v3 if v3 < low3 else low3
    for j in range(4 * (n // 4), n):
        top0 = max(top0, x[j])
        low0 = min(low0, x[j])
    top = max(max(top0, top1), max(top2, top3))
    low = min(min(low0, low1), min(low2, low3))
    return top, max(top, -low)


@device_function
def simplex_excess(z, tau):
    """Return (sum(max(z - tau, 0)), the number of entries above tau)."""
    excess = 0.0
    size = 0
    for j in range(z.shape[0]):
        excess += max(z[j] - tau, 0.0)
        size += 1 if z[j] > tau else 0
    return excess, size


@device_function
def simplex_threshold(z, total):
    """Return (tau, passes): the root of sum(max(z - tau, 0)) = total > 0, for max(z) = 0."""
    n = z.shape[0]
    tau = -total
    count = n
    for passes in range(n + 2):
        excess, size = simplex_excess(z, tau)
        # Newton from the left never oversteps the root, so the support can only shrink; when it
        # no longer does, the piece that holds the root has been solved, and what is left is
        # rounding. It grows only when an entry lies within rounding of tau, which is then as good
        # as solved.
        if size > 0:
            tau += (excess - total) / size
        if size >= count and passes > 0:
            return tau, passes
        if size == 0:
            # tau rounded up to the largest entry: the total is lost beside it.
            return tau, passes
        count = size
    return tau, -1


@device_function
def simplex_candidates(x, top, total, z):
    """Write the entries of x - top above -total to the front of z; return their number.

    Only they can be positive in the projection, and where x varies by more than the total they are
    few, so that the passes of Newton's method over them cost next to nothing.
    """
    count = 0
    for j in range(x.shape[0]):
        value = x[j] - top
        z[count] = value
        count += 1 if value > -total else 0
    return count


@device_function
def simplex_margins(z, tau, tolerance):
    """Return the least z - tau above tolerance and the least tau - z above 0; inf without one.

    Four chains, as for the extremes, and one comparison a selection.
    """
    n = z.shape[0]
    least0 = least1 = least2 = least3 = np.inf
    most0 = most1 = most2 = most3 = -np.inf
    for q in range(n // 4):
        g0 = z[4 * q] - tau
        g1 = z[4 * q + 1] - tau
        g2 = z[4 * q + 2] - tau
        g3 = z[4 * q + 3] - tau
        over0 = g0 if g0 > tolerance else np.inf
        over1 = g1 if g1 > tolerance else np.inf
        over2 = g2 if g2 > tolerance else np.inf
        over3 = g3 if g3 > tolerance else np.inf
        least0 = over0 if over0 < least0 else least0
        least1 = over1 if over1 < least1 else least1
        least2 = over2 if over2 < least2 else least2
        least3 = over3 if over3 < least3 else least3
        under0 = g0 if g0 < 0.0 else -np.inf
        under1 = g1 if g1 < 0.0 else -np.inf
        under2 = g2 if g2 < 0.0 else -np.inf
        under3 = g3 if g3 < 0.0 else -np.inf
        most0 = under0 if under0 > most0 else most0
        most1 = under1 if under1 > most1 else most1
        most2 = under2 if under2 > most2 else most2
        most3 = under3 if under3 > most3 else most3
    for j in range(4 * (n // 4), n):
        gap = z[j] - tau
        if tolerance < gap < least0:
            least0 = gap
        if most0 < gap < 0.0:
            most0 = gap
    slack = min(min(least0, least1), min(least2, least3))
    return slack, -max(max(most0, most1), max(most2, most3))


@device_function
def simplex_classify(z, tau, tolerance, unit, code, info, margin):
    """Write code, ranks and margins of the entries from z - tau; z is not changed.

    Within the tolerance of its bound and with no multiplier: active, decided here for good. One
    small loop a purpose, none in place: each of them vectorises.
    """
    n = z.shape[0]
    free = 0
    weak = 0
    for j in range(n):
        gap = z[j] - tau
        free += 1 if gap > tolerance else 0
        weak += 1 if gap >= 0.0 else 0
    weak -= free
    for j in range(n):
        gap = z[j] - tau
        bits = ACTIVE_LOWER if gap >= 0.0 else _BINDING
        code[1 + j] = 0 if gap > tolerance else bits
    slack, least = simplex_margins(z, tau, tolerance)
    info[INFO_RANK_ACTIVE] = free - 1
    info[INFO_RANK_WORKING] = free - 1 + weak
    info[INFO_RANK_SUPPORT] = free - 1 + weak
    info[INFO_WEAK] = weak
    margin[0] = slack * unit
    margin[1] = least * unit


@device_function
def simplex_project(x, data, shared, active_tol, y, code, dual, info, margin, work, iwork):
    """y = max(x - tau, 0); writes y, code, dual, info, margin; no scratch."""
    n = x.shape[0]
    total = data[0]
    if not total >= 0.0:
        return PRIMAL_INFEASIBLE
    top, size = simplex_extremes(x)
    scale = max(total, size)
    unit = 1.0 / scale if scale > 0.0 else 1.0
    code[0] = _EQ
    if total == 0.0:
        simplex_of_zero(x, top, unit, y, code, info, margin)
        dual[0] = top
        return SOLVED
    tau, passes = simplex_threshold(y[0 : simplex_candidates(x, top, total, y)], total)
    if passes < 0:
        return MAX_STEPS
    # Shifted by the largest entry, so that nothing cancels when x is large. Stored, because the
    # compiler may reassociate (x - top) - tau into x - (top + tau) but not across memory.
    for j in range(n):
        y[j] = x[j] - top
    info[INFO_STEPS] = passes
    if info[INFO_SKIP_RECORD] == 0:
        simplex_classify(y, tau, active_tol * total, unit, code, info, margin)
    for j in range(n):
        y[j] = max(y[j] - tau, 0.0)
    dual[0] = tau + top
    return SOLVED


@device_function
def simplex_of_zero(x, top, unit, y, code, info, margin):
    """y = 0, the only point of the simplex of total 0; writes all but the multiplier max(x)."""
    # Every bound is active; the multiplier of the sum leaves the bound of a largest entry without
    # one, and dropping it makes the rows independent.
    n = x.shape[0]
    free = -1
    support = 0
    least = np.inf
    for j in range(n):
        y[j] = 0.0
        push = top - x[j]
        if push > 0.0:
            code[1 + j] = _BINDING
            support += 1
            least = min(least, push)
        elif free < 0:
            free = j
            code[1 + j] = ACTIVE_LOWER
        else:
            code[1 + j] = ACTIVE_LOWER | WORKING_LOWER
    info[INFO_RANK_ACTIVE] = 0
    info[INFO_RANK_WORKING] = 0
    info[INFO_RANK_SUPPORT] = n - 1 - support
    info[INFO_WEAK] = n - support
    margin[0] = np.inf
    margin[1] = least * unit


@device_function
def simplex_hs(g, y, code, tape_f, tape_i, data, shared, mask, out, work, iwork):
    """out = g - mean(g over free entries) there, 0 elsewhere."""
    n = g.shape[0]
    total = 0.0
    size = 0
    for j in range(n):
        free = (code[1 + j] & mask) == 0
        total += g[j] if free else 0.0
        size += 1 if free else 0
    mean = total / size if size > 0 else 0.0
    # A single free entry is fixed by the sum: exactly 0, not a rounded difference.
    alive = size > 1
    for j in range(n):
        out[j] = g[j] - mean if alive and (code[1 + j] & mask) == 0 else 0.0


class Simplex(PolyhedralSet):
    r"""The simplex of vectors with non-negative entries and a given sum.

    .. math:: C = \{ y \in R^n : y \ge 0,\ 1^T y = total \}

    Parameters
    ----------
    n : int
        Length of a point, at least 1.
    total : float
        The sum, at least 0. May be replaced at the call, one value a sample.

    Raises
    ------
    ValueError
        ``n`` is no positive integer, or ``total`` is not finite.
    InfeasibleError
        ``total`` is negative: no non-negative vector has that sum.

    Notes
    -----
    Forward: sort-free, finite, about log(n) passes over x. Backward: two passes, nothing stored
    but one byte an entry. At a vertex (one positive entry) V = 0; with ``total=0`` the set is a
    single point and V = 0.

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import Simplex, project
    >>> project(np.array([0.5, 0.9, -1.0]), Simplex(3)).round(12)
    array([0.3, 0.7, 0. ])
    """

    forward_cost = "O(n), about log n passes"
    backward_cost = "O(n)"

    def __init__(self, n: int, total: float = 1.0) -> None:
        self.n = as_count(n, "n")
        field = DataField("total", (), as_parameter(total, "total", ()))
        self._check_data({"total": field.value})
        self._freeze(shape=(self.n,), fields=(field,))

    @classmethod
    def examples(cls) -> tuple[Simplex, ...]:
        """Return an ordinary simplex, a segment, and the two single points."""
        return cls(5), cls(2, 3.0), cls(1), cls(3, 0.0)

    @property
    def total(self) -> float:
        """The sum of the entries of a point."""
        return float(self._fields[0].value)

    def _check_data(self, data: Mapping[str, np.ndarray]) -> None:
        if "total" in data and np.ndim(data["total"]) == 0 and data["total"] < 0:
            raise InfeasibleError(
                f"Simplex is empty: total must be at least 0; got {float(data['total'])}."
            )

    def _make_kernel(self) -> Kernel:
        return Kernel(
            "Simplex", simplex_project, simplex_hs, size=self.n, code_size=1 + self.n,
            dual_size=1, work_size=0, iwork_size=1, hs_work_size=0, hs_iwork_size=0, shared=(),
            methods=("Newton on the threshold",), cost=4.0 * self.n, hs_cost=4.0 * self.n,
        )  # fmt: skip

    def to_polyhedron(self) -> Polyhedron:
        """Return {A_eq y = total, y >= 0} with A_eq one row of ones."""
        return Polyhedron(A_eq=np.ones((1, self.n)), b_eq=[self.total], lower=np.zeros(self.n))

    def _with_data(self, data: Mapping[str, Any]) -> Polyhedron:
        return Polyhedron(A_eq=np.ones((1, self.n)), b_eq=[data["total"]], lower=np.zeros(self.n))

    def _row_counts(self) -> tuple[int, int]:
        return 0, 1

    def _rows_transpose(self, ub: np.ndarray, eq: np.ndarray) -> np.ndarray:
        return np.broadcast_to(eq, (*eq.shape[:-1], self.n))

    def _residual_rows(self, data: Mapping[str, np.ndarray]) -> Rows:
        total = np.asarray(data.get("total", self.total))[..., None]
        return Rows(None, None, np.ones((1, self.n)), total, np.zeros(self.n), None)

    def _check_data_rule(self, names: tuple[str, ...]) -> None:
        pass

    def _data_pull(
        self, raw: RawRecord, data: Mapping[str, Any], g: np.ndarray, names: tuple[str, ...]
    ) -> dict[str, np.ndarray]:
        ones = np.ones(self.n)
        return {"total": one_row_pull(one_row_basis(raw.code, ones), ones, g)[0]}

    def _data_push(
        self, raw: RawRecord, data: Mapping[str, Any], tangents: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        ones = np.ones(self.n)
        return one_row_push(one_row_basis(raw.code, ones), ones, tangents["total"])

    def _find_interior(self) -> tuple[np.ndarray, int]:
        dim = self.n - 1 if self.total > 0.0 else 0
        return np.full(self.n, self.total / self.n), dim
