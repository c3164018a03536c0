"""The table of the bridges: set × dtype × batch shape, each with its reference in NumPy."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import cycle
from typing import Any

import numpy as np
import pytest

import hsref
from hsref.sets import REGISTRY

BATCHES = [(), (3,), (2, 3), (0,), (1,)]
DTYPES = [np.float64, np.float32]


@dataclass
class Case:
    """One row: points, a cotangent, and what NumPy says about them."""

    C: Any
    dtype: Any
    batch: tuple[int, ...]
    keywords: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    @cached_property
    def x(self) -> np.ndarray:
        return self.draw(self.seed, 2.0)

    @cached_property
    def g(self) -> np.ndarray:
        return self.draw(self.seed + 1, 1.0)

    @cached_property
    def u(self) -> np.ndarray:
        return self.draw(self.seed + 2, 1.0)

    @cached_property
    def record(self) -> hsref.Projection:
        return hsref.projection(self.x, self.C, **self.keywords)

    @property
    def y(self) -> np.ndarray:
        return self.record.y

    def product(self, v: np.ndarray) -> np.ndarray:
        return self.record.jacobian() @ v

    def second_order(self) -> np.ndarray:
        """Return d/dx ⟨u, V g⟩ of the loss Σ sin(y): V (-sin(y) * V u), V being constant."""
        return self.product(-np.sin(self.y) * self.product(self.u))

    def draw(self, seed: int, spread: float) -> np.ndarray:
        shape = (*self.batch, *self.C.shape)
        return (spread * np.random.default_rng(seed).normal(size=shape)).astype(self.dtype)


def table() -> list[Any]:
    """Return every set with float64 and float32, the batch shapes taking turns."""
    batches = cycle(BATCHES)
    rows = []
    for name, kind in REGISTRY.items():
        examples = kind.examples()
        for k, dtype in enumerate(DTYPES):
            C, batch = examples[min(k, len(examples) - 1)], next(batches)
            label = f"{name}-{np.dtype(dtype)}-{'x'.join(map(str, batch)) or 'one'}"
            rows.append(pytest.param(Case(C, dtype, batch, seed=len(rows)), id=label))
    return rows


SIMPLEX = hsref.Simplex(3)
ROWS = hsref.Polyhedron(
    A_ub=[[1.0, 2.0, -1.0]], b_ub=[0.3], A_eq=[[1.0, 1.0, 1.0]], b_eq=[1.0], lower=-0.5
)
SMOOTH = [pytest.param(SIMPLEX, id="Simplex"), pytest.param(ROWS, id="rows")]


def smooth_points(C: Any, count: int, through: Any = None) -> np.ndarray:
    """Return points whose projection (after the map `through`) is clearly away from a kink."""
    x = 2.0 * np.random.default_rng(7).normal(size=(400, *C.shape))
    inner = x if through is None else through(x)
    return x[hsref.projection(inner, C).margin > 1e-2][:count]


# -- PiNet's triangle -----------------------------------------------------------------------------
# Vertices (0, 0), (1, 0), (0, 1). One point in each region of the plane in which the projection is
# one affine map, with the Jacobian that a ruler and a pencil give.
TRIANGLE = hsref.Polyhedron(A_ub=[[1.0, 1.0]], b_ub=[1.0], lower=0.0, n=2)
ALONG = [[0.5, -0.5], [-0.5, 0.5]]
REGIONS = [
    pytest.param([0.2, 0.3], [[1.0, 0.0], [0.0, 1.0]], id="inside"),
    pytest.param([0.4, -2.0], [[1.0, 0.0], [0.0, 0.0]], id="below the base"),
    pytest.param([-2.0, 0.4], [[0.0, 0.0], [0.0, 1.0]], id="left of the side"),
    pytest.param([1.0, 1.2], ALONG, id="beyond the hypotenuse"),
    pytest.param([-1.0, -1.0], [[0.0, 0.0], [0.0, 0.0]], id="corner at the origin"),
    pytest.param([3.0, -0.5], [[0.0, 0.0], [0.0, 0.0]], id="right corner"),
    pytest.param([-0.5, 3.0], [[0.0, 0.0], [0.0, 0.0]], id="upper corner"),
]
