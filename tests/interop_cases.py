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

    def pull(self, v: np.ndarray) -> np.ndarray:
        return self.record.jacobian().T @ v

    def second_order(self) -> np.ndarray:
        """Return the Hessian of Σ sin(y) times u: V' (-sin(y) * V u), V being constant."""
        return self.pull(-np.sin(self.y) * self.product(self.u))

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


def data_case(batched: bool) -> tuple[Any, ...]:
    """Return set, x, cotangent, data, cotangents of everything, and dy for tangents = data.

    Some parameters are shared by the batch, others have one value a sample.
    """
    rng = np.random.default_rng(8)
    batch = (4,) if batched else ()
    x, g = rng.normal(size=(2, *batch, 3))
    data = {
        "b_ub": np.array([0.3]),
        "b_eq": rng.uniform(0.8, 1.2, size=(*batch, 1)),
        "lower": np.array(-0.5),
        "A_ub": np.array([[1.0, 2.0, -1.0]]) + 0.1 * rng.normal(size=(*batch, 1, 3)),
    }
    _, pull = hsref.vjp(x, ROWS, wrt=("x", *data), **data)
    _, moved = hsref.jvp(x, None, ROWS, tangents=data, **data)
    return ROWS, x, g, data, pull(g), moved


# -- peers' own examples --------------------------------------------------------------------------


@dataclass
class Example:
    """A small problem with its answer and cotangents worked out without any solver of ours."""

    solve: Any
    values: tuple[np.ndarray, ...]
    y: np.ndarray
    g: np.ndarray
    cotangents: tuple[np.ndarray, ...]


def kkt_example(H, q, A, b, G, h, active, g, solve, order) -> Example:
    """Differentiate ½y'Hy − q'y over Gy ≤ h, Ay = b by its optimality system, K being known.

    Equations (10) and (11) of OptNet's derivation: one linear system for the answer, its transpose
    for the cotangents.
    """
    M, c = np.vstack([A, G[active]]), np.concatenate([b, h[active]])
    n, k, p = len(q), len(c), len(b)
    K = np.block([[H, M.T], [M, np.zeros((k, k))]])
    z = np.linalg.solve(K, np.concatenate([q, c]))
    y, nu = z[:n], z[n:]
    slack = h - G @ y
    assert np.all(slack >= -1e-12)
    assert np.all(nu[p:] > 0)
    adjoint = np.linalg.solve(K, np.concatenate([g, np.zeros(k)]))
    s, w = adjoint[:n], adjoint[n:]
    rows = -(np.outer(w, y) + np.outer(nu, s))
    h_bar, G_bar = np.zeros_like(h), np.zeros_like(G)
    h_bar[active], G_bar[active] = w[p:], rows[p:]
    named = {
        "q": (q, s), "H": (H, -0.5 * (np.outer(s, y) + np.outer(y, s))), "A": (A, rows[:p]),
        "b": (b, w[:p]), "G": (G, G_bar), "h": (h, h_bar),
    }  # fmt: skip
    return Example(
        solve, tuple(named[name][0] for name in order), y, g,
        tuple(named[name][1] for name in order),
    )  # fmt: skip


def optnet() -> Example:
    """OptNet's layer: a quadratic program whose every parameter is trained, Q = LL' + εI."""
    L = np.array([[1.0, 0.0, 0.0], [0.5, 1.0, 0.0], [-0.25, 0.5, 1.0]])
    H, q = L @ L.T + 1e-4 * np.eye(3), np.array([1.0, 2.0, -0.5])
    A, b = np.array([[1.0, 1.0, 1.0]]), np.array([0.5])
    G, h = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, -1.0]]), np.array([0.3, 3.0])
    C = hsref.Polyhedron(A_ub=G, b_ub=h, A_eq=A, b_eq=b)

    def solve(q, H, G, h, A, b):
        return hsref.quadratic_program(q, H, C, A_ub=G, b_ub=h, A_eq=A, b_eq=b)

    g = np.array([1.0, -2.0, 0.5])
    return kkt_example(H, q, A, b, G, h, [0], g, solve, ("q", "H", "G", "h", "A", "b"))


def cvxpylayers() -> Example:
    """The differentiable projection of cvxpylayers' tutorial: ½‖x − y‖² subject to Gy ≤ h."""
    G = np.array([[1.0, 1.0], [-1.0, 2.0], [0.0, -1.0]])
    h, x = np.array([1.0, 1.0, 2.0]), np.array([0.8, 1.7])
    C = hsref.Polyhedron(A_ub=G, b_ub=h)

    def solve(x, G, h):
        return hsref.project(x, C, A_ub=G, b_ub=h)

    none = np.zeros((0, 2)), np.zeros(0)
    g = np.array([0.5, 2.0])
    return kkt_example(np.eye(2), x, *none, G, h, [0, 1], g, solve, ("q", "G", "h"))


def linsat() -> Example:
    """LinSATNet's quick example: a 3 by 3 matrix made doubly stochastic, here by projection.

    Rows and columns of the answer sum to one; with no entry at zero the projection and its
    derivative only remove the means of rows and columns.
    """
    W = np.array([[0.5, 0.1, 0.3], [0.2, 0.4, 0.1], [0.1, 0.3, 0.4]])

    def centre(M):
        return M - M.mean(0) - M.mean(1, keepdims=True) + M.mean()

    g = np.array([[1.0, 0.0, 0.0], [0.0, -2.0, 0.0], [0.5, 0.0, 3.0]])
    y = centre(W) + 1.0 / 3.0
    assert y.min() > 0.05
    C = hsref.Birkhoff(3)
    return Example(lambda W: hsref.project(W, C), (W,), y, g, (centre(g),))


PEERS = [optnet, cvxpylayers, linsat]


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
