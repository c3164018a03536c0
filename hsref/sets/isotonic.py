r"""The isotonic cone {y : y_1 <= ... <= y_n}, with bounds common to all entries if wanted.

.. math:: C = \{ y \in R^n : y_1 \le y_2 \le \dots \le y_n,\ lower \le y_j \le upper \}

Projection. Without bounds it is isotonic regression: *pool adjacent violators* keeps a stack of
blocks with their means, appends one entry at a time, and merges the last two blocks while their
means are out of order; each entry is merged once, so the cost is O(n). With bounds that are the
same for all entries

.. math:: y = \min(\max(\mathrm{PAV}(x), lower), upper).

Proof: clipping keeps the order. Let v = PAV(x); on a block of v the partial sums of x - v are
non-negative with total 0, which are the multipliers of the rows y_j - y_{j+1} <= 0. On blocks with
v < lower the entry's remaining residual v - lower is negative, minus the multiplier of its lower
bound; likewise above. All optimality conditions hold. (Bounds that differ break this: clipping
would change a block's mean.)

HS-Jacobian. The rows e_j - e_{j+1} that hold with equality say that y is constant on *runs*; a run
at a bound is held, so V averages g over each run strictly inside the bounds and is 0 on the others:
averaging is the projector onto the vectors that are constant on a run. The same rule with the
selected rows alone gives V_K for every K.

Working set. On a run at its lower bound both the ties and the bounds are active, 2k - 1 rows in k
dimensions. The multipliers reported there are built from the left, entry by entry: what the
partial sum of x - y leaves is carried to the right by the tie if it is positive, else taken by the
bound. So every entry uses one row at most, and the rows used are triangular, hence independent.

Sources: Ayer, Brunk, Ewing, Reid & Silverman, "An empirical distribution function for sampling with
incomplete information", Ann. Math. Statist. 26 (1955); Best & Chakravarti, "Active set algorithms
for isotonic regression", Math. Program. 47 (1990).
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
    INFO_STEPS,
    INFO_WEAK,
    MASK_ACTIVE,
    MASK_SUPPORT,
    MASK_WORKING,
    PRIMAL_INFEASIBLE,
    SOLVED,
    SUPPORT_LOWER,
    SUPPORT_UPPER,
    WORKING_LOWER,
    WORKING_UPPER,
)
from .._jit import device_function
from .base import DataField, InfeasibleError, PolyhedralSet, Rows, as_count, as_parameter
from .one_row import ROUNDING, largest
from .polyhedron import Polyhedron

_PUSHED_LOWER = WORKING_LOWER | SUPPORT_LOWER
_PUSHED_UPPER = WORKING_UPPER | SUPPORT_UPPER


@device_function
def pool_adjacent(z, sums, counts):
    """Pool adjacent violators of increasing order; writes sums, counts; returns the blocks."""
    blocks = 0
    for j in range(z.shape[0]):
        total = z[j]
        size = 1
        # Strict: equal means are left apart here; whether runs touch is decided from y.
        while blocks > 0 and sums[blocks - 1] * size > total * counts[blocks - 1]:
            blocks -= 1
            total += sums[blocks]
            size += counts[blocks]
        sums[blocks] = total
        counts[blocks] = size
        blocks += 1
    return blocks


@device_function
def isotonic_rank(code, n, mask):
    """Return the number of runs, under the selected ties, that no selected bound holds."""
    rank = 0
    held = False
    for j in range(n):
        held = held or (code[n - 1 + j] & mask) != 0
        if j == n - 1 or (code[j] & mask) == 0:
            rank += 0 if held else 1
            held = False
    return rank


@device_function
def isotonic_project(x, data, shared, active_tol, y, code, dual, info, margin, work, iwork):
    """y = clip(PAV(x), lower, upper), data = [lower, upper]; scratch work[0:n], iwork[0:n]."""
    n = x.shape[0]
    lower = data[0]
    upper = data[1]
    if not (lower <= upper and lower < np.inf and upper > -np.inf):
        return PRIMAL_INFEASIBLE
    blocks = pool_adjacent(x, work[:n], iwork[:n])
    at = 0
    low_end = 0
    up_begin = n
    for b in range(blocks):
        mean = work[b] / iwork[b]
        value = min(max(mean, lower), upper)
        begin = at
        at += iwork[b]
        if mean < lower:
            low_end = at
        elif mean > upper:
            up_begin = min(up_begin, begin)
        carried = 0.0
        size = 0.0
        for j in range(begin, at):
            # A block of one is its entry, bit for bit.
            y[j] = value if iwork[b] > 1 or value != mean else x[j]
            carried += x[j] - y[j]
            size += abs(x[j]) + abs(y[j])
            if j < n - 1:
                dual[j] = carried if j < at - 1 and carried > ROUNDING * size else 0.0
        for j in range(begin, at):
            code[n - 1 + j] = 0
    # On the runs at a bound the multipliers are built again, from the end that is held.
    carried = 0.0
    size = 0.0
    for j in range(low_end):
        carried += x[j] - lower
        size += abs(x[j]) + abs(lower)
        if carried > 0.0 and j < low_end - 1:
            dual[j] = carried if carried > ROUNDING * size else 0.0
        else:
            if j < n - 1:
                dual[j] = 0.0
            code[n - 1 + j] = _PUSHED_LOWER if -carried > ROUNDING * size else 0
            carried = 0.0
            size = 0.0
    carried = 0.0
    size = 0.0
    for j in range(n - 1, up_begin - 1, -1):
        carried -= x[j] - upper
        size += abs(x[j]) + abs(upper)
        if carried > 0.0 and j > up_begin:
            dual[j - 1] = carried if carried > ROUNDING * size else 0.0
        else:
            if j > 0 and j > up_begin:
                dual[j - 1] = 0.0
            code[n - 1 + j] = _PUSHED_UPPER if -carried > ROUNDING * size else 0
            carried = 0.0
            size = 0.0
    y_size = largest(y)
    reach = max(largest(x), y_size)
    unit = 1.0 / reach if reach > 0.0 else 1.0
    # A mean is only as exact as the entries it is taken of.
    tolerance = max(active_tol * y_size, ROUNDING * reach)
    slack = np.inf
    least = np.inf
    weak = 0
    before = 0.0
    for j in range(n):
        if j < n - 1:
            gap = y[j + 1] - y[j]
            code[j] = 0
            if dual[j] > 0.0:
                code[j] = ACTIVE_UPPER | _PUSHED_UPPER
                least = min(least, dual[j])
            elif gap <= tolerance:
                code[j] = ACTIVE_UPPER
                weak += 1
            else:
                slack = min(slack, gap)
        after = dual[j] if j < n - 1 else 0.0
        bits = code[n - 1 + j]
        if bits != 0:
            least = min(least, abs(x[j] - y[j] - after + before))
        before = after
        if y[j] - lower <= tolerance:
            weak += 0 if (bits & SUPPORT_LOWER) != 0 else 1
            bits |= ACTIVE_LOWER
        else:
            slack = min(slack, y[j] - lower)
        if upper - y[j] <= tolerance:
            weak += 0 if (bits & SUPPORT_UPPER) != 0 else 1
            bits |= ACTIVE_UPPER
        else:
            slack = min(slack, upper - y[j])
        code[n - 1 + j] = bits
    info[INFO_STEPS] = n - blocks
    info[INFO_RANK_ACTIVE] = isotonic_rank(code, n, MASK_ACTIVE)
    info[INFO_RANK_SUPPORT] = isotonic_rank(code, n, MASK_SUPPORT)
    info[INFO_RANK_WORKING] = info[INFO_RANK_SUPPORT]
    info[INFO_WEAK] = weak
    margin[0] = slack * unit
    margin[1] = least * unit
    return SOLVED


@device_function
def isotonic_hs(g, y, code, tape_f, tape_i, data, shared, mask, out, work, iwork):
    """out = mean of g over each run, 0 on runs held by a bound."""
    n = g.shape[0]
    begin = 0
    total = 0.0
    held = False
    for j in range(n):
        total += g[j]
        held = held or (code[n - 1 + j] & mask) != 0
        if j == n - 1 or (code[j] & mask) == 0:
            size = j + 1 - begin
            mean = g[j] if size == 1 else total / size
            for k in range(begin, j + 1):
                out[k] = 0.0 if held else mean
            begin = j + 1
            total = 0.0
            held = False


class IsotonicCone(PolyhedralSet):
    r"""Vectors whose entries do not decrease, optionally between two bounds.

    .. math:: C = \{ y \in R^n : y_1 \le y_2 \le \dots \le y_n,\ lower \le y_j \le upper \}

    Parameters
    ----------
    n : int
        Length of a point, at least 1.
    lower, upper : float, optional
        Bounds common to all entries; none by default. May be replaced at the call.

    Raises
    ------
    ValueError
        ``n`` is no positive integer, or a bound is no single number.
    InfeasibleError
        ``lower`` exceeds ``upper``.

    Notes
    -----
    O(n) forward (pool adjacent violators) and backward (averages over runs of equal entries).
    With the full active set touching runs are averaged together and runs at a bound get 0.

    References
    ----------
    Best and Chakravarti, "Active set algorithms for isotonic regression; a unifying framework",
    Math. Program. 47 (1990).

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import IsotonicCone, project
    >>> project(np.array([3.0, 1.0, 2.0, 5.0]), IsotonicCone(4, upper=4.0))
    array([2., 2., 2., 4.])
    """

    forward_cost = "O(n)"
    backward_cost = "O(n)"

    def __init__(self, n: int, lower: float | None = None, upper: float | None = None) -> None:
        self.n = as_count(n, "n")
        low = -np.inf if lower is None else lower
        up = np.inf if upper is None else upper
        fields = (
            DataField("lower", (), as_parameter(low, "lower", (), finite=False)),
            DataField("upper", (), as_parameter(up, "upper", (), finite=False)),
        )
        self._check_data({f.name: f.value for f in fields})
        self._freeze(shape=(self.n,), fields=fields)

    @classmethod
    def examples(cls) -> tuple[IsotonicCone, ...]:
        """Return a cone, bounded ones, the line, and a single point."""
        return cls(5), cls(6, -0.5, 1.0), cls(4, lower=0.0), cls(1), cls(3, 2.0, 2.0)

    @property
    def lower(self) -> float:
        """The lower bound, -inf if there is none."""
        return float(self._fields[0].value)

    @property
    def upper(self) -> float:
        """The upper bound, inf if there is none."""
        return float(self._fields[1].value)

    def _check_data(self, data: Mapping[str, np.ndarray]) -> None:
        lower, upper = data["lower"], data["upper"]
        if np.ndim(lower) or np.ndim(upper):
            return
        if lower > upper or lower == np.inf or upper == -np.inf:
            raise InfeasibleError(
                f"IsotonicCone is empty: lower = {float(lower)} leaves nothing below "
                f"upper = {float(upper)}."
            )

    def _make_kernel(self) -> Kernel:
        n = self.n
        return Kernel(
            "IsotonicCone", isotonic_project, isotonic_hs, size=n, code_size=2 * n - 1,
            dual_size=n - 1, work_size=n, iwork_size=n + 1, hs_work_size=0, hs_iwork_size=0,
            shared=(), methods=("pool adjacent violators",), cost=30.0 * n, hs_cost=6.0 * n,
        )  # fmt: skip

    @property
    def _ties(self) -> np.ndarray:
        return self._cached("ties", lambda: np.eye(self.n)[:-1] - np.eye(self.n)[1:])

    def to_polyhedron(self) -> Polyhedron:
        """Return the rows y_j - y_{j+1} <= 0, in order, and the bounds of every entry."""
        return self._with_data({})

    def _with_data(self, data: Mapping[str, Any]) -> Polyhedron:
        lower = float(data.get("lower", self.lower))
        upper = float(data.get("upper", self.upper))
        return Polyhedron(
            A_ub=self._ties if self.n > 1 else None,
            b_ub=np.zeros(self.n - 1) if self.n > 1 else None,
            lower=None if lower == -np.inf else lower,
            upper=None if upper == np.inf else upper,
            n=self.n,
        )

    def _row_counts(self) -> tuple[int, int]:
        return self.n - 1, 0

    def _rows_transpose(self, ub: np.ndarray, eq: np.ndarray) -> np.ndarray:
        out = np.zeros((*ub.shape[:-1], self.n))
        out[..., :-1] += ub
        out[..., 1:] -= ub
        return out

    def _residual_rows(self, data: Mapping[str, np.ndarray]) -> Rows:
        lower = np.asarray(data.get("lower", self.lower))[..., None]
        upper = np.asarray(data.get("upper", self.upper))[..., None]
        return Rows(self._ties, np.zeros(self.n - 1), None, None, lower, upper)

    def _check_data_rule(self, names: tuple[str, ...]) -> None:
        pass

    def _held(self, code: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which entries lie in runs held by the lower, and by the upper bound, (B, n)."""
        n = self.n
        batch = len(code)

        def reached(ties: np.ndarray, marks: np.ndarray) -> np.ndarray:
            """Spread marks over the runs that the ties make."""
            run = np.zeros((batch, n), np.int64)
            run[:, 1:] = np.cumsum(~ties, axis=1)
            cell = run + np.arange(batch)[:, None] * n
            hit = np.zeros(batch * n, bool)
            hit[cell[marks]] = True
            return hit[cell]

        ties, bits = code[:, : n - 1], code[:, n - 1 :]
        working = ties & MASK_WORKING != 0
        # A bound that carries a multiplier speaks for its run; where both bounds are active and
        # neither does, the lower one.
        low = reached(working, bits & WORKING_LOWER != 0)
        up = reached(working, bits & WORKING_UPPER != 0) & ~low
        active = ties & MASK_ACTIVE != 0
        lower = reached(active, low | (bits & ACTIVE_LOWER != 0))
        upper = reached(active, up | (bits & ACTIVE_UPPER != 0))
        return (lower & ~up) | low, (upper & ~lower) | up

    def _data_pull(
        self, raw: RawRecord, data: Mapping[str, Any], g: np.ndarray, names: tuple[str, ...]
    ) -> dict[str, np.ndarray]:
        sides = zip(("lower", "upper"), self._held(raw.code), strict=True)
        return {name: np.einsum("lbj,bj->lb", g, held * 1.0) for name, held in sides}

    def _data_push(
        self, raw: RawRecord, data: Mapping[str, Any], tangents: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        moves = [np.asarray(tangents.get(name, 0.0))[..., None] for name in ("lower", "upper")]
        lower, upper = self._held(raw.code)
        return np.where(lower, moves[0], 0.0) + np.where(upper, moves[1], 0.0)

    def _certificate(
        self, record: Any, sample: int, data: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        # Only crossed bounds make the set empty: those of the first entry are proof enough.
        first = np.zeros(self.n)
        first[0] = 1.0
        return np.zeros(self.n - 1), np.zeros(0), first, first.copy()

    def _find_interior(self) -> tuple[np.ndarray, int]:
        low, up, n = self.lower, self.upper, self.n
        if low == up:
            return np.full(n, low), 0
        low = (up - n - 1.0 if up < np.inf else -0.5 * (n + 1)) if low == -np.inf else low
        up = low + n + 1.0 if up == np.inf else up
        return low + (up - low) * np.arange(1, n + 1) / (n + 1), n
