r"""A set in one file outside the package: {y : low <= mean(y) <= high}.

Shifting all entries by the same number moves the mean and changes y least, so

.. math:: y = x - t 1, \qquad t = mean(x) - \mathrm{clip}(mean(x), low, high) .

The rows are 1'y/n <= high and -1'y/n <= -low. While either is active V subtracts the mean; with
low = high both are, and they are dependent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hsref._batch import Kernel
from hsref._codes import (
    ACTIVE_UPPER,
    INFO_RANK_ACTIVE,
    INFO_RANK_SUPPORT,
    INFO_RANK_WORKING,
    INFO_WEAK,
    PRIMAL_INFEASIBLE,
    SOLVED,
    SUPPORT_UPPER,
    WORKING_UPPER,
)
from hsref._jit import device_function
from hsref.sets import REGISTRY
from hsref.sets.base import DataField, PolyhedralSet, as_count, as_parameter
from hsref.sets.polyhedron import Polyhedron

EPS = 2.0**-52
CARRIES = ACTIVE_UPPER | WORKING_UPPER | SUPPORT_UPPER


@device_function
def mean_band_project(x, data, shared, active_tol, y, code, dual, info, margin, work, iwork):
    """y = x - t with t the distance of the mean from [low, high]; data = [low, high]."""
    n = x.shape[0]
    low = data[0]
    high = data[1]
    if low > high:
        return PRIMAL_INFEASIBLE
    size = max(abs(low), abs(high))
    for j in range(n):
        y[j] = x[j]
        size = max(size, abs(x[j]))
    moved = 0.0
    mean = 0.0
    # twice: the second pass removes the rounding of large x
    for _ in range(2):
        mean = 0.0
        for j in range(n):
            mean += y[j] / n
        shift = mean - min(max(mean, low), high)
        for j in range(n):
            y[j] -= shift
        moved += shift
        mean -= shift
    floor = 64.0 * EPS * size
    active = active_tol * max(abs(low), abs(high)) + floor
    code[0] = ACTIVE_UPPER if high - mean <= active else 0
    code[1] = ACTIVE_UPPER if mean - low <= active else 0
    dual[0] = n * moved if moved > 0.0 else 0.0
    dual[1] = -n * moved if moved < 0.0 else 0.0
    if moved > 0.0:
        code[0] = CARRIES
    elif moved < 0.0:
        code[1] = CARRIES
    rows = 0
    for i in range(2):
        rows += 1 if code[i] != 0 else 0
    carried = 1 if moved != 0.0 else 0
    info[INFO_RANK_ACTIVE] = n - min(rows, 1)
    info[INFO_RANK_WORKING] = n - carried
    info[INFO_RANK_SUPPORT] = n - carried
    info[INFO_WEAK] = rows - carried
    unit = 1.0 / size if size > 0.0 else 1.0
    margin[0] = min(
        high - mean if code[0] == 0 else np.inf, mean - low if code[1] == 0 else np.inf
    ) * unit  # fmt: skip
    margin[1] = abs(n * moved) * unit if carried == 1 else np.inf
    return SOLVED


@device_function
def mean_band_hs(g, y, code, tape_f, tape_i, data, shared, mask, out, work, iwork):
    """out = g, minus its mean while a row is selected."""
    n = g.shape[0]
    mean = 0.0
    for j in range(n):
        mean += g[j] / n
    selected = ((code[0] | code[1]) & mask) != 0
    # a single entry is fixed by its mean: exactly 0
    for j in range(n):
        out[j] = g[j]
        if selected:
            out[j] = g[j] - mean if n > 1 else 0.0


class MeanBand(PolyhedralSet):
    """The vectors whose mean lies between two numbers."""

    forward_cost = "O(n)"
    backward_cost = "O(n)"

    def __init__(self, n: int, low: float, high: float) -> None:
        self.n = as_count(n, "n")
        self._freeze(
            shape=(self.n,),
            fields=(
                DataField("low", (), as_parameter(low, "low", ())),
                DataField("high", (), as_parameter(high, "high", ())),
            ),
        )

    @classmethod
    def examples(cls) -> tuple[MeanBand, ...]:
        """Return a band with an interior, one without, and an interval."""
        return cls(4, -0.5, 0.25), cls(3, 1.0, 1.0), cls(1, 0.0, 1.0)

    def _make_kernel(self) -> Kernel:
        return Kernel(
            "MeanBand", mean_band_project, mean_band_hs, size=self.n, code_size=2 + self.n,
            dual_size=2, work_size=0, iwork_size=1, hs_work_size=0, hs_iwork_size=0, shared=(),
        )  # fmt: skip

    def to_polyhedron(self) -> Polyhedron:
        """Return the two rows."""
        return self._with_data({})

    def _with_data(self, data: Mapping[str, Any]) -> Polyhedron:
        low, high = (float(data.get(f.name, f.value)) for f in self._fields)
        row = np.full((1, self.n), 1.0 / self.n)
        return Polyhedron(np.vstack([row, -row]), [high, -low])


REGISTRY["MeanBand"] = MeanBand
