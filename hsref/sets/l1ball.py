r"""The l1 ball {y : |y_1| + ... + |y_n| <= radius}.

Projection. If the norm of x is at most the radius, y = x. Otherwise, by symmetry, y has the signs
of x and its absolute values are the projection of |x| onto the simplex with that total:

.. math:: y_j = \mathrm{sign}(x_j) \max(|x_j| - \theta, 0), \qquad
          \sum_j \max(|x_j| - \theta, 0) = radius,

with the threshold theta > 0 found as for :class:`~hsref.Simplex`; theta is the multiplier of the
norm, x - y = theta s with s a subgradient of the norm at y.

HS-Jacobian. The ball is cut out by the 2^n rows sigma'y <= radius, sigma a vector of signs. At y
with norm = radius and S = {j : y_j != 0} the active ones are those with sigma_S = sign(y_S), any
signs elsewhere; their differences span the e_j off S, and modulo those one row is left, sign(y_S):

.. math:: (V g)_S = g_S - \sigma_S \frac{\sigma_S^T g_S}{|S|}, \qquad (V g)_j = 0 \text{ off } S,

and V = I inside. With the multiplier support alone an entry with y_j = 0 and |x_j| = theta passes
too: theta s then needs only rows with the sign of x_j there, so e_j is not in their span.

Code of a sample: one byte an entry (the bits say "held at 0", upper bits only; bit 64 marks a
negative sign), then one for the norm, whose bits are those of a row.
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
    INFO_WEAK,
    MASK_ACTIVE,
    MASK_WORKING,
    PRIMAL_INFEASIBLE,
    SOLVED,
    SUPPORT_UPPER,
    WORKING_UPPER,
)
from .._jit import device_function
from .base import (
    ConstraintFlags,
    DataField,
    InfeasibleError,
    Multipliers,
    PolyhedralSet,
    as_count,
    as_parameter,
)
from .one_row import ROUNDING, largest, threshold_root
from .polyhedron import Polyhedron

_HELD = ACTIVE_UPPER | WORKING_UPPER | SUPPORT_UPPER
NEGATIVE = 64
"""Code bit of an entry whose sign, in the rows that count, is minus."""


@device_function
def l1_project(x, data, shared, active_tol, y, code, dual, info, margin, work, iwork):
    """y = sign(x) max(|x| - theta, 0), data = [radius]; writes the record, no scratch."""
    n = x.shape[0]
    radius = data[0]
    if not radius >= 0.0:
        return PRIMAL_INFEASIBLE
    norm = 0.0
    for j in range(n):
        norm += abs(x[j])
    top = largest(x)
    unit = 1.0 / top if top > 0.0 else 1.0
    tolerance = active_tol * radius
    tau = -top
    outside = norm > radius
    if outside:
        tau = 0.0
        # Shifted by the largest entry, so that nothing cancels when x is large.
        for j in range(n):
            y[j] = abs(x[j]) - top
        if radius > 0.0:
            tau, info[INFO_STEPS] = threshold_root(y, radius)
    theta = tau + top
    pushing = outside and theta > ROUNDING * top
    slack = np.inf
    least = theta if pushing else np.inf
    free = 0
    passing = 0
    for j in range(n):
        bits = NEGATIVE if x[j] < 0.0 else 0
        if outside:
            gap = y[j] - tau
            value = max(gap, 0.0)
            y[j] = -value if x[j] < 0.0 else value
        else:
            y[j] = x[j]
            value = abs(x[j])
            gap = value
        if value > tolerance:
            free += 1
            passing += 1
            slack = min(slack, value)
        elif pushing and -gap > ROUNDING * top:
            bits |= _HELD
            least = min(least, -gap)
        else:
            bits |= ACTIVE_UPPER
            passing += 1
        code[j] = bits
    row = 0
    if pushing:
        row = _HELD
        info[INFO_WEAK] = passing - free
    elif radius - norm <= tolerance:
        row = ACTIVE_UPPER
        info[INFO_WEAK] = 1 + n - free
    code[n] = row
    dual[0] = theta if pushing else 0.0
    info[INFO_RANK_ACTIVE] = (max(free - 1, 0)) if row != 0 else n
    info[INFO_RANK_WORKING] = passing - 1 if pushing else n
    info[INFO_RANK_SUPPORT] = passing - 1 if pushing else n
    if row == 0:
        slack = radius - norm
    elif not pushing and radius == 0.0:
        slack = np.inf
    margin[0] = slack * unit
    margin[1] = least * unit
    return SOLVED


@device_function
def l1_hs(g, y, code, tape_f, tape_i, data, shared, mask, out, work, iwork):
    """out = g - sigma mean(sigma g) over free entries if the norm is selected, else g."""
    n = g.shape[0]
    if (code[n] & mask) == 0:
        for j in range(n):
            out[j] = g[j]
        return
    total = 0.0
    size = 0
    for j in range(n):
        signed = -g[j] if (code[j] & NEGATIVE) != 0 else g[j]
        free = (code[j] & mask) == 0
        total += signed if free else 0.0
        size += 1 if free else 0
    mean = total / size if size > 0 else 0.0
    # A single free entry is fixed by the norm: exactly 0, not a rounded difference.
    alive = size > 1
    for j in range(n):
        shift = -mean if (code[j] & NEGATIVE) != 0 else mean
        out[j] = g[j] - shift if alive and (code[j] & mask) == 0 else 0.0


class L1Ball(PolyhedralSet):
    r"""Vectors whose absolute values sum to at most the radius.

    .. math:: C = \{ y \in R^n : \|y\|_1 \le radius \}

    Parameters
    ----------
    n : int
        Length of a point, at least 1.
    radius : float
        At least 0. May be replaced at the call, one value a sample.

    Raises
    ------
    ValueError
        ``n`` is no positive integer, or the radius is not finite.
    InfeasibleError
        The radius is negative: no vector has a negative norm.

    Notes
    -----
    Forward: sort-free, finite, about log(n) passes. Backward: two passes. The ball has 2^n rows,
    so its record is compact: ``multipliers.ub`` holds the one multiplier theta of the norm, with
    x - y = theta s, s a subgradient of the norm at y; in the flags, ``ub`` is the norm and
    ``lower`` and ``upper`` both say "held at 0".

    References
    ----------
    Duchi, Shalev-Shwartz, Singer and Chandra, "Efficient projections onto the l1-ball for learning
    in high dimensions", ICML 2008.

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import L1Ball, project
    >>> project(np.array([1.5, -1.0, 0.25]), L1Ball(3))
    array([ 0.75, -0.25,  0.  ])
    """

    compact_record = True
    forward_cost = "O(n), about log n passes"
    backward_cost = "O(n)"

    def __init__(self, n: int, radius: float = 1.0) -> None:
        self.n = as_count(n, "n")
        field = DataField("radius", (), as_parameter(radius, "radius", ()))
        if field.value < 0.0:
            raise InfeasibleError(
                f"L1Ball is empty: radius must be at least 0; got {float(field.value)}."
            )
        self._freeze(shape=(self.n,), fields=(field,))

    @classmethod
    def examples(cls) -> tuple[L1Ball, ...]:
        """Return a ball, a segment, and a single point."""
        return cls(5), cls(1, 2.0), cls(3, 0.0)

    @property
    def radius(self) -> float:
        """The largest norm of a point."""
        return float(self._fields[0].value)

    def _make_kernel(self) -> Kernel:
        return Kernel(
            "L1Ball", l1_project, l1_hs, size=self.n, code_size=1 + self.n, dual_size=1,
            work_size=0, iwork_size=1, hs_work_size=0, hs_iwork_size=0, shared=(),
            methods=("Newton on the threshold",), cost=12.0 * self.n, hs_cost=4.0 * self.n,
        )  # fmt: skip

    def to_polyhedron(self) -> Polyhedron:
        """Return the 2^n rows sigma'y <= radius; only for n <= 10.

        Raises
        ------
        ValueError
            ``n`` exceeds 10.
        """
        return self._with_data({})

    def _with_data(self, data: Mapping[str, Any]) -> Polyhedron:
        if self.n > 10:
            raise ValueError(
                f"an L1Ball has 2**n rows; to_polyhedron() writes them out up to n = 10, "
                f"and here n = {self.n}."
            )
        rows = np.array(list(itertools.product((1.0, -1.0), repeat=self.n)))
        return Polyhedron(A_ub=rows, b_ub=np.full(len(rows), data.get("radius", self.radius)))

    def _find_interior(self) -> tuple[np.ndarray, int]:
        return np.zeros(self.n), self.n if self.radius > 0.0 else 0

    # -- the compact record ---------------------------------------------------------------------

    def _row_counts(self) -> tuple[int, int]:
        return 1, 0

    def _flags(self, code: np.ndarray, mask: int) -> ConstraintFlags:
        norm = code[:, self.n :] & mask != 0
        # Entries are held only through the rows of the norm.
        held = (code[:, : self.n] & mask != 0) & norm
        return ConstraintFlags(norm, held, held.copy())

    def _multipliers(self, record: Any, x: np.ndarray, data: Mapping[str, Any]) -> Multipliers:
        zero = np.zeros((len(record.dual), self.n))
        return Multipliers(record.dual, np.zeros((len(zero), 0)), zero, zero.copy())

    def _check_data_rule(self, names: tuple[str, ...]) -> None:
        pass

    def _along(self, code: np.ndarray) -> np.ndarray:
        """Return dy / d radius, (B, n): sign(y_S) / |S| while the norm is active, else 0."""
        norm = code[:, self.n] & MASK_ACTIVE != 0
        bits = code[:, : self.n]
        free = bits & MASK_ACTIVE == 0
        # A single point: the rows are dependent, and an entry that the working set leaves out of
        # the bounds follows the radius.
        stuck = np.flatnonzero(norm & ~free.any(axis=1))
        spare = bits[stuck] & MASK_WORKING == 0
        free[stuck, spare.argmax(axis=1)] = spare.any(axis=1)
        size = np.maximum(free.sum(axis=1, keepdims=True), 1)
        return np.where(free & norm[:, None], np.where(bits & NEGATIVE != 0, -1.0, 1.0), 0.0) / size

    def _data_pull(
        self, raw: RawRecord, data: Mapping[str, Any], g: np.ndarray, names: tuple[str, ...]
    ) -> dict[str, np.ndarray]:
        return {"radius": np.einsum("lbj,bj->lb", g, self._along(raw.code))}

    def _data_push(
        self, raw: RawRecord, data: Mapping[str, Any], tangents: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        return tangents["radius"][..., None] * self._along(raw.code)

    def _residuals(
        self, x: np.ndarray, y: np.ndarray, found: Multipliers, data: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        size = np.maximum(np.abs(x).max(axis=-1), np.abs(y).max(axis=-1))
        force = np.where(size > 0.0, size, 1.0)
        theta = found.ub[:, 0]
        # Where y_j = 0 any number between -theta and theta is theta times a subgradient.
        carried = np.where(y != 0.0, found.ub * np.sign(y), np.clip(x - y, -found.ub, found.ub))
        dual = np.abs(x - y - carried).max(axis=-1) / force
        radius = np.asarray(data.get("radius", self.radius))
        slack = np.abs(radius - np.abs(y).sum(axis=-1))
        reach = np.abs(radius) + np.sqrt(self.n) * size
        complementarity = theta / force * slack / np.where(reach > 0.0, reach, 1.0)
        return self._violation(y, data, size), dual, complementarity

    def _violation(
        self,
        y: np.ndarray,
        data: Mapping[str, np.ndarray],
        scale: np.ndarray | float = 0.0,
    ) -> np.ndarray:
        radius = np.asarray(data.get("radius", self.radius))
        size = np.maximum(np.abs(y).max(axis=-1), scale)
        reach = np.abs(radius) + np.sqrt(self.n) * size
        excess = np.abs(y).sum(axis=-1) - radius
        ratio = np.maximum(excess, 0.0) / np.where(reach > 0.0, reach, 1.0)
        return np.where(np.isnan(excess), np.nan, ratio)

    def _certificate(
        self, record: Any, sample: int, data: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        # Two opposite rows of the norm add up to 0 <= 2 radius, which a negative radius denies.
        zero = np.zeros(self.n)
        return np.ones(1), np.zeros(0), zero, zero.copy()
