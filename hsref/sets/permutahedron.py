r"""The permutahedron: the convex hull of all rearrangements of a vector w.

.. math:: C = \mathrm{conv}\{ w_\pi \} = \Big\{ y : \sum_{i \in S} y_i \le
          \sum_{k \le |S|} w_k \text{ for all } S,\ 1^T y = 1^T w \Big\},
          \qquad w_1 \ge \dots \ge w_n .

Projection. C is invariant under permutations, so y is ordered like x; let x be sorted decreasingly.
Only the rows of the prefixes S = {1..k} can then carry multipliers lambda_k, and x - y = v with
v_k = lambda_k + ... + lambda_n decreasing. Complementarity (lambda_k > 0 only where the prefix sums
of y and w agree) makes v the isotonic (decreasing) regression of x - w:

.. math:: y = x - \mathrm{PAV}_{\downarrow}(x - w),

a sort and a pass of pooling; within a block y is x moved so that its mean is that of w.

HS-Jacobian. A set S is *tight* when its row holds with equality; a tight S holds |S| largest
entries of y. If all tight sets of a size k were not the same prefix, then y_k = y_{k+1}, and

.. math:: w_{k+1} \ge y_{k+1} = y_k \ge w_k \ge w_{k+1},

because the prefix sums of y stay below those of w and touch them at k; so all are equal, the
prefixes k - 1 and k + 1 are tight too, and the differences e_i - e_j of such sets lie in the span
of the prefixes. Hence the rows of the tight prefixes span all active rows. They are nested, so V
subtracts from g its mean over each *block* between neighbouring tight prefixes. Blocks come from
tight prefixes and not from merged pools: for w = (1, 1, 0), x = (5, 5, -5) every entry is a block
of its own and V = 0.

Code of a sample: one byte for each prefix of x sorted decreasingly (ties by position), then one
for the sum; the order of the entries is kept beside it.

Sources: Rado, "An inequality", J. London Math. Soc. 27 (1952), for the description by rows;
Negrinho and Martins, "Orbit regularization", NeurIPS 2014, for the projection by regression.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._batch import Kernel, RawRecord
from .._codes import (
    ACTIVE_UPPER,
    INFO_RANK_ACTIVE,
    INFO_RANK_SUPPORT,
    INFO_RANK_WORKING,
    INFO_STEPS,
    INFO_TAPE_INTS,
    INFO_WEAK,
    MASK_ACTIVE,
    SOLVED,
    SUPPORT_UPPER,
    WORKING_UPPER,
)
from .._jit import device_function
from .base import (
    ConstraintFlags,
    DataField,
    Multipliers,
    PolyhedralSet,
    as_parameter,
)
from .isotonic import pool_adjacent
from .one_row import ROUNDING, largest
from .polyhedron import Polyhedron

_ROW = ACTIVE_UPPER | WORKING_UPPER | SUPPORT_UPPER
_RUN = 16


@device_function
def argsort_decreasing(x, order, spare):
    """Write the stable order of decreasing x; insertion in runs of 16, then merging; scratch."""
    n = x.shape[0]
    for begin in range(0, n, _RUN):
        end = min(begin + _RUN, n)
        for j in range(begin, end):
            at = j
            while at > begin and x[order[at - 1]] < x[j]:
                order[at] = order[at - 1]
                at -= 1
            order[at] = j
    width = _RUN
    while width < n:
        for begin in range(0, n, 2 * width):
            middle = min(begin + width, n)
            end = min(begin + 2 * width, n)
            left = begin
            right = middle
            for k in range(begin, end):
                take_left = right >= end
                if left < middle and not take_left:
                    take_left = x[order[left]] >= x[order[right]]
                if take_left:
                    spare[k] = order[left]
                    left += 1
                else:
                    spare[k] = order[right]
                    right += 1
        for k in range(n):
            order[k] = spare[k]
        width *= 2


@device_function
def permutahedron_project(
    x, data, shared, active_tol, y, code, dual, info, margin, work, iwork
):  # fmt: skip
    """y = x - PAV(x - w), sorted; data = w; scratch work[0:3n], iwork[0:3n]; tape: the order."""
    n = x.shape[0]
    w = work[:n]
    gap = work[n : 2 * n]
    sums = work[2 * n : 3 * n]
    order = iwork[:n]
    counts = iwork[n : 2 * n]
    spare = iwork[2 * n : 3 * n]
    argsort_decreasing(data[:n], order, spare)
    for k in range(n):
        w[k] = data[order[k]]
    argsort_decreasing(x, order, spare)
    for k in range(n):
        gap[k] = w[k] - x[order[k]]
    blocks = pool_adjacent(gap, sums, counts)
    reach = max(largest(x), largest(w))
    noise = ROUNDING * reach
    tolerance = active_tol * largest(w)
    unit = 1.0 / reach if reach > 0.0 else 1.0
    slack = np.inf
    least = np.inf
    weak = 0
    held = 0
    pushed = 0
    before = 0.0
    at = 0
    # Differences first: they are small where x is large, and nothing cancels. Stored in a loop of
    # their own, because across memory the compiler cannot reassociate them away.
    for b in range(blocks):
        first = x[order[at]]
        for k in range(at, at + counts[b]):
            gap[k] = x[order[k]] - first
        at += counts[b]
    at = 0
    for b in range(blocks):
        begin = at
        size = counts[b]
        at += size
        first = x[order[begin]]
        level = 0.0
        mean = 0.0
        for k in range(begin, at):
            level += gap[k]
            mean += w[k]
        level /= size
        mean /= size
        push = first + level - mean
        if b > 0:
            dual[begin - 1] = before - push
        before = push
        room = 0.0
        for k in range(begin, at):
            value = mean + (gap[k] - level)
            y[order[k]] = value
            room += w[k] - value
            bits = 0
            if k == at - 1:
                bits = ACTIVE_UPPER
            else:
                dual[k] = 0.0
                if room <= tolerance:
                    bits = ACTIVE_UPPER
                else:
                    slack = min(slack, room)
            code[k] = bits
    for k in range(n - 1):
        if dual[k] > noise:
            code[k] = _ROW
            least = min(least, dual[k])
            pushed += 1
        else:
            dual[k] = 0.0
            weak += 1 if code[k] != 0 else 0
        held += 1 if code[k] != 0 else 0
    code[n - 1] = _ROW
    dual[n - 1] = before
    info[INFO_STEPS] = n - blocks
    info[INFO_RANK_ACTIVE] = n - 1 - held
    info[INFO_RANK_WORKING] = n - 1 - pushed
    info[INFO_RANK_SUPPORT] = n - 1 - pushed
    info[INFO_WEAK] = weak
    info[INFO_TAPE_INTS] = n
    margin[0] = slack * unit
    margin[1] = least * unit
    return SOLVED


@device_function
def permutahedron_hs(g, y, code, tape_f, tape_i, data, shared, mask, out, work, iwork):
    """out = g minus its mean over each block between selected prefixes; tape: order."""
    n = g.shape[0]
    begin = 0
    total = 0.0
    for k in range(n):
        total += g[tape_i[k]]
        if k == n - 1 or (code[k] & mask) != 0:
            size = k + 1 - begin
            mean = total / size
            for i in range(begin, k + 1):
                # A block of one is fixed: exactly 0, not a rounded difference.
                out[tape_i[i]] = g[tape_i[i]] - mean if size > 1 else 0.0
            begin = k + 1
            total = 0.0


class Permutahedron(PolyhedralSet):
    r"""The convex hull of all rearrangements of a vector.

    .. math:: C = \mathrm{conv}\{ (w_{\pi(1)}, \dots, w_{\pi(n)}) : \pi \text{ a permutation} \}

    Projections of theta / eps onto it are soft ranks (w = n..1) and soft sorts.

    Parameters
    ----------
    w : array_like, shape (n,)
        In any order. May be replaced at the call.

    Raises
    ------
    ValueError
        ``w`` is no vector of finite numbers.

    Notes
    -----
    Forward: two sorts and pool adjacent violators, O(n log n). Backward: O(n). At a vertex V = 0.
    The set has 2^n - 2 rows, of which only those of the prefixes of x, sorted decreasingly with
    ties in order of position, can carry multipliers; the record is compact: entry k of
    ``multipliers.ub`` and of the flags ``ub`` belongs to the sum of the k + 1 largest entries.

    References
    ----------
    Blondel, Teboul, Berthet and Djolonga, "Fast differentiable sorting and ranking", ICML 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import Permutahedron, project
    >>> project(np.array([0.5, 2.9, 0.1, 3.0]), Permutahedron([4, 3, 2, 1])).round(12)
    array([1.7 , 3.45, 1.3 , 3.55])
    """

    n: int
    compact_record = True
    forward_cost = "O(n log n)"
    backward_cost = "O(n)"

    def __init__(self, w: Any) -> None:
        if np.ndim(w) != 1 or np.size(w) == 0:
            raise ValueError(f"w must be a vector; got shape {np.shape(w)}.")
        self.n = np.size(w)
        field = DataField("w", (self.n,), as_parameter(w, "w", (self.n,)))
        self._freeze(shape=(self.n,), fields=(field,))

    @classmethod
    def examples(cls) -> tuple[Permutahedron, ...]:
        """Return ranks, repeated values in no order, a top-k polytope, and single points."""
        several = [4, 3, 2, 1], [0.5, -1.0, 0.5, 2.0, 2.0], [0, 1, 1], [2, 2], [3]
        return tuple(cls(w) for w in several)

    @property
    def w(self) -> np.ndarray:
        """The vector whose rearrangements are the vertices, read-only."""
        return self._fields[0].value

    def _make_kernel(self) -> Kernel:
        n = self.n
        log = 4.0 + np.log2(n)
        return Kernel(
            "Permutahedron", permutahedron_project, permutahedron_hs, size=n, code_size=n,
            dual_size=n, work_size=3 * n, iwork_size=3 * n, hs_work_size=0, hs_iwork_size=0,
            shared=(), methods=("sort and pool adjacent violators",), tape_ints=n,
            cost=12.0 * n * log, hs_cost=6.0 * n,
        )  # fmt: skip

    def to_polyhedron(self) -> Polyhedron:
        """Return the 2^n - 2 rows of the sums over subsets, and the total; only for n <= 10.

        Raises
        ------
        ValueError
            ``n`` exceeds 10.
        """
        return self._with_data({})

    def _with_data(self, data: Mapping[str, Any]) -> Polyhedron:
        if self.n > 10:
            raise ValueError(
                f"a Permutahedron has 2**n - 2 rows; to_polyhedron() writes them out up to n = 10, "
                f"and here n = {self.n}."
            )
        sums = np.cumsum(np.sort(np.asarray(data.get("w", self.w)))[::-1])
        every = np.array(list(itertools.product((1.0, 0.0), repeat=self.n)))
        size = every.sum(axis=1).astype(int)
        proper = (size > 0) & (size < self.n)
        return Polyhedron(
            A_ub=every[proper] if self.n > 1 else None,
            b_ub=sums[size[proper] - 1] if self.n > 1 else None,
            A_eq=np.ones((1, self.n)), b_eq=sums[-1:],
        )  # fmt: skip

    def _find_interior(self) -> tuple[np.ndarray, int]:
        return np.full(self.n, self.w.mean()), self.n - 1 if np.ptp(self.w) > 0.0 else 0

    # -- the compact record ---------------------------------------------------------------------

    def _row_counts(self) -> tuple[int, int]:
        return self.n - 1, 1

    def _flags(self, code: np.ndarray, mask: int) -> ConstraintFlags:
        none = np.zeros((len(code), self.n), bool)
        return ConstraintFlags(code[:, : self.n - 1] & mask != 0, none, none.copy())

    def _multipliers(self, record: Any, x: np.ndarray, data: Mapping[str, Any]) -> Multipliers:
        none = np.zeros((len(x), self.n))
        split = self.n - 1
        return Multipliers(record.dual[:, :split], record.dual[:, split:], none, none.copy())

    def _check_data_rule(self, names: tuple[str, ...]) -> None:
        pass

    def _average(self, raw: RawRecord, v: np.ndarray, data: Mapping[str, Any], back: bool) -> Any:
        """Return the means of v over the blocks, carried from w to y, or back from y to w.

        The sum of y over a block is that of the same places of w, both sorted decreasingly, and a
        change of it is shared evenly.
        """
        n, batch = self.n, len(raw.status)
        has = raw.info[:, INFO_TAPE_INTS] == n
        by_x = np.broadcast_to(np.arange(n), (batch, n)).copy()
        by_x[has] = raw.tape_i[raw.at_i[:-1][has, None] + np.arange(n)]
        w = np.broadcast_to(np.asarray(data.get("w", self.w[None])), (batch, n))
        by_w = np.argsort(-w, axis=1, kind="stable")
        take, put = (by_x, by_w) if back else (by_w, by_x)
        ends = raw.code[:, :n] & MASK_ACTIVE != 0
        block = np.cumsum(ends, axis=1) - ends
        cell = np.arange(batch)[:, None] * n + block
        size = np.bincount(cell.reshape(-1), minlength=batch * n)
        out = np.empty_like(v)
        rows = np.arange(batch)[:, None]
        for one, into in zip(v, out, strict=True):
            total = np.bincount(cell.reshape(-1), one[rows, take].reshape(-1), batch * n)
            into[rows, put] = (total / np.maximum(size, 1))[cell]
        return out

    def _data_pull(
        self, raw: RawRecord, data: Mapping[str, Any], g: np.ndarray, names: tuple[str, ...]
    ) -> dict[str, np.ndarray]:
        return {"w": self._average(raw, g, data, True)}

    def _data_push(
        self, raw: RawRecord, data: Mapping[str, Any], tangents: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        return self._average(raw, tangents["w"], data, False)

    def _sums(self, data: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the largest possible sums of 1, 2, ..., n entries."""
        w = np.asarray(data.get("w", self.w))
        return np.cumsum(np.sort(w, axis=-1)[..., ::-1], axis=-1)

    def _residuals(
        self, x: np.ndarray, y: np.ndarray, found: Multipliers, data: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        size = np.maximum(np.abs(x).max(axis=-1), np.abs(y).max(axis=-1))
        force = np.where(size > 0.0, size, 1.0)
        order = np.argsort(-x, axis=-1, kind="stable")
        all_of_them = np.concatenate([found.ub, found.eq], axis=-1)
        carried = np.cumsum(all_of_them[:, ::-1], axis=-1)[:, ::-1]
        rest = np.take_along_axis(x - y, order, axis=-1) - carried
        room = self._sums(data) - np.cumsum(np.take_along_axis(y, order, axis=-1), axis=-1)
        product = (found.ub * np.abs(room[:, :-1])).max(axis=-1, initial=0.0) / force**2
        return self._violation(y, data, size), np.abs(rest).max(axis=-1) / force, product

    def _violation(
        self,
        y: np.ndarray,
        data: Mapping[str, np.ndarray],
        scale: np.ndarray | float = 0.0,
    ) -> np.ndarray:
        sums = self._sums(data)
        excess = np.cumsum(np.sort(y, axis=-1)[..., ::-1], axis=-1) - sums
        size = np.maximum(np.abs(y).max(axis=-1), scale)[..., None]
        reach = np.abs(sums) + np.sqrt(np.arange(1, self.n + 1)) * size
        ratio = np.maximum(excess, 0.0)
        ratio[..., -1] = np.abs(excess[..., -1])
        worst = (ratio / np.where(reach > 0.0, reach, 1.0)).max(axis=-1)
        return np.where(np.isnan(y).any(axis=-1), np.nan, worst)
