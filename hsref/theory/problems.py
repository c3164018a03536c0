r"""Training problems whose critical points are known, and runs of Adam on them.

P1  ½‖Π_Δ(θ) - t‖² on the simplex. Critical iff Π(θ) = y_F := Proj_{aff F}(t) ∈ ri F for a face F:
    the gradient is V₀(Π(θ) - t), V₀ projects onto par F for the face F of Π(θ), and it vanishes iff
    Π(θ) is the point of aff F nearest to t. ∎ All 2ⁿ - 1 faces qualify for t = (.4, .3, .2, .1).
P2  |Π_{[-1,1]}(θ) - ½|: critical at θ = ½ and for |θ| ≥ 1, where the projection is constant.
P3  Π_{≥0}(θ) + Π_{≤0}(θ) + ½θ² = θ + ½θ²: one true critical point, -1. Automatic differentiation
    started at exactly 0 stays there, because it finds the derivative 0 at the kink (see
    :func:`hsref.theory.counterexamples.spurious_zero`); from anywhere else it goes to -1.
P4  teacher and student: mean ‖Π_P(W u) - Π_P(W* u)‖² over fixed inputs u.
P5  ⟨c, Π_P(θ)⟩ + ½ρ‖θ‖²: critical iff θ = -V̄c/ρ with V̄ ∈ conv HS(θ).

The table of dead starts (P1 from random starts of different spread) shows what the convergence
theorem promises and what it does not: every limit is critical, and many are vertices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from .criticality import check_criticality, distance_to_critical, near_elements
from .subject import images, observe

STEP = 1e-2
"""How far from a kink the elements on its other side are gathered: a run with steps of this size
stays that far from a critical point that lies on a kink."""

TARGET = np.array([0.4, 0.3, 0.2, 0.1])


@dataclass(frozen=True)
class Problem:
    """A loss over batches of parameters, its automatic gradient, its critical points.

    Attributes
    ----------
    name, sentence : str
        Identifier and statement.
    size : int
        Number of parameters of one run.
    value : callable
        (R, size) ↦ (R,).
    gradient : callable
        (R, size) ↦ (R, size): the element that automatic differentiation with V₀ gives.
    gap : callable
        (R, size) ↦ (R,): distance from being critical for the field.
    """

    name: str
    sentence: str
    size: int
    value: Callable[[np.ndarray], np.ndarray]
    gradient: Callable[[np.ndarray], np.ndarray]
    gap: Callable[[np.ndarray], np.ndarray]


def _simplex(n: int) -> Any:
    from hsref import Simplex

    return Simplex(n)


def nearest_on_faces(target: np.ndarray) -> np.ndarray:
    """Return the points y_F of the simplex that lie in the relative interior of their face.

    Examples
    --------
    >>> len(nearest_on_faces(np.array([0.4, 0.3, 0.2, 0.1])))
    15
    """
    n = len(target)
    found = []
    for size in range(1, n + 1):
        for F in map(list, combinations(range(n), size)):
            y = np.zeros(n)
            y[F] = target[F] + (1.0 - target[F].sum()) / size
            if (y[F] > 0.0).all():
                found.append(y)
    return np.array(found)


def p1(target: np.ndarray = TARGET) -> Problem:
    """Return P1, a target on the simplex."""
    C, stops = _simplex(len(target)), nearest_on_faces(target)

    def gradient(theta: np.ndarray) -> np.ndarray:
        seen = observe(C, theta)
        return seen.product(seen.y - target)

    def value(theta: np.ndarray) -> np.ndarray:
        return 0.5 * ((images(C, theta) - target) ** 2).sum(axis=1)

    def gap(theta: np.ndarray) -> np.ndarray:
        return np.linalg.norm(images(C, theta)[:, None] - stops, axis=2).min(axis=1)

    return Problem("P1", SENTENCES["P1"], len(target), value, gradient, gap)


def p2() -> Problem:
    """Return P2, an absolute value on a box."""
    from hsref import Box

    C = Box(-1.0, 1.0, n=1)

    def gradient(theta: np.ndarray) -> np.ndarray:
        seen = observe(C, theta)
        return seen.product(np.sign(seen.y - 0.5))

    def value(theta: np.ndarray) -> np.ndarray:
        return np.abs(images(C, theta) - 0.5)[:, 0]

    def gap(theta: np.ndarray) -> np.ndarray:
        return np.minimum(np.abs(theta - 0.5), np.maximum(1.0 - np.abs(theta), 0.0))[:, 0]

    return Problem("P2", SENTENCES["P2"], 1, value, gradient, gap)


def p3() -> Problem:
    """Return P3, whose only true critical point is -1 and whose spurious one is 0."""
    from .counterexamples import spurious_zero

    w = spurious_zero()

    def gradient(theta: np.ndarray) -> np.ndarray:
        one = np.ones_like(theta)
        up, down = observe(w.nonnegative, theta), observe(w.nonpositive, theta)
        return up.product(one) + down.product(one) + theta

    def value(theta: np.ndarray) -> np.ndarray:
        return (images(w.nonnegative, theta) + images(w.nonpositive, theta) + 0.5 * theta**2)[:, 0]

    def gap(theta: np.ndarray) -> np.ndarray:
        return np.minimum(np.abs(theta + 1.0), np.abs(theta))[:, 0]

    return Problem("P3", SENTENCES["P3"], 1, value, gradient, gap)


def p4(n: int = 3, inputs: int = 12, seed: int = 0) -> Problem:
    """Return P4, a linear student of a linear teacher behind the same projection."""
    rng = np.random.default_rng(seed)
    C = _simplex(n)
    u = rng.normal(size=(inputs, n))
    taught = images(C, u @ rng.normal(size=(n, n)).T * 0.5)

    def forward(theta: np.ndarray) -> np.ndarray:
        W = theta.reshape(-1, n, n)
        return np.einsum("rij,kj->rki", W, u)

    def gradient(theta: np.ndarray) -> np.ndarray:
        x = forward(theta)
        seen = observe(C, x.reshape(-1, n))
        error = 2.0 * (seen.y.reshape(x.shape) - taught) / inputs
        back = seen.product(error.reshape(-1, n)).reshape(x.shape)
        return np.einsum("rki,kj->rij", back, u).reshape(theta.shape)

    def value(theta: np.ndarray) -> np.ndarray:
        y = images(C, forward(theta).reshape(-1, n)).reshape(len(theta), inputs, n)
        return ((y - taught) ** 2).sum(axis=(1, 2)) / inputs

    def gap(theta: np.ndarray) -> np.ndarray:
        # one sample at a kink gives several elements: all combinations of near elements
        out = np.empty(len(theta))
        for r, x in enumerate(forward(theta)):
            y = images(C, x)
            hull = np.zeros((1, n * n))
            for k in range(inputs):
                V = near_elements(x[k], C, y=y[k], tol=STEP)[:8]
                part = V @ (2.0 * (y[k] - taught[k]) / inputs)
                grads = np.einsum("gi,j->gij", part, u[k]).reshape(len(V), -1)
                hull = (hull[:, None] + grads[None]).reshape(-1, n * n)[:512]
            out[r] = distance_to_critical(hull).residual
        return out

    return Problem("P4", SENTENCES["P4"], n * n, value, gradient, gap)


def p5(n: int = 4, rho: float = 0.5, seed: int = 0) -> Problem:
    """Return P5, a linear loss with a quadratic penalty on the input."""
    c = np.round(np.random.default_rng(seed).normal(size=n), 1)
    C = _simplex(n)

    def gradient(theta: np.ndarray) -> np.ndarray:
        seen = observe(C, theta)
        return seen.product(np.tile(c, (len(theta), 1))) + rho * theta

    def value(theta: np.ndarray) -> np.ndarray:
        return images(C, theta) @ c + 0.5 * rho * (theta**2).sum(axis=1)

    def gap(theta: np.ndarray) -> np.ndarray:
        return np.array(
            [check_criticality(t, C, c, extra=rho * t, tol=STEP).residual for t in theta]
        )

    return Problem("P5", SENTENCES["P5"], n, value, gradient, gap)


SENTENCES = {
    "P1": "½‖Π_Δ(θ) - t‖²",
    "P2": "|Π_[-1,1](θ) - ½|",
    "P3": "Π_≥0(θ) + Π_≤0(θ) + ½θ²",
    "P4": "mean ‖Π_Δ(Wu) - Π_Δ(W*u)‖²",
    "P5": "⟨c, Π_Δ(θ)⟩ + ½ρ‖θ‖²",
}
PROBLEMS: dict[str, Callable[[], Problem]] = {"P1": p1, "P2": p2, "P3": p3, "P4": p4, "P5": p5}
"""Makers of the problems, by name."""


@dataclass(frozen=True)
class Run:
    """Many runs of one optimiser on one problem, side by side.

    Attributes
    ----------
    theta : ndarray, shape (R, size)
        Where the runs ended.
    gap : ndarray, shape (R,)
        Distance from being critical there.
    values : ndarray, shape (K + 1, R)
        Loss along the runs, at every `every`-th step.
    energy : ndarray, shape (K + 1, R)
        The Lyapunov function; empty when it was not asked for.
    """

    theta: np.ndarray
    gap: np.ndarray
    values: np.ndarray
    energy: np.ndarray


def train(
    problem: Problem,
    theta: np.ndarray,
    optimizer: Any,
    steps: int,
    *,
    noise: float = 0.0,
    rng: np.random.Generator | None = None,
    every: int = 10,
    energy: tuple[float, float] | None = None,
) -> Run:
    """Run an optimiser of :mod:`hsref.optim` on many starting points at once.

    Parameters
    ----------
    problem : Problem
        The problem.
    theta : ndarray, shape (R, size)
        Starts; every run has its own row and the optimiser acts entrywise.
    optimizer : (init, update)
        From :mod:`hsref.optim`.
    steps : int
        Number of steps.
    noise : float
        Standard deviation of noise added to the gradients.
    rng : Generator, optional
        Draws the noise.
    every : int
        How often the loss is recorded.
    energy : (tau1, eps), optional
        Record the Lyapunov function with these constants.
    """
    init, update = optimizer
    theta = np.array(theta, dtype=np.float64)
    state = init(theta)
    values: list[np.ndarray] = []
    energies: list[np.ndarray] = []

    def keep() -> None:
        values.append(problem.value(theta))
        if energy is not None:
            tau1, eps = energy
            kinetic = (state.m**2 / np.sqrt(state.v + eps)).sum(axis=1) / (2.0 * tau1)
            energies.append(values[-1] + kinetic)

    for k in range(steps):
        if k % every == 0:
            keep()
        g = problem.gradient(theta)
        if noise and rng is not None:
            g = g + noise * rng.normal(size=g.shape)
        theta, state = update(theta, g, state)
    keep()
    return Run(theta, problem.gap(theta), np.array(values), np.array(energies))


@dataclass(frozen=True)
class DeadStarts:
    """Where runs of P1 end, by the spread of their starts.

    Attributes
    ----------
    spread : tuple of float
        Standard deviations of the starts.
    reached, at_vertex, born_at_vertex : tuple of float
        Shares of runs that end at the target, that end at a vertex, and that start there.
    worst_gap : float
        Largest distance of a limit from the critical set.
    protocol : str
        Optimiser, steps and step sizes: the shares depend on them.
    """

    spread: tuple[float, ...]
    reached: tuple[float, ...]
    at_vertex: tuple[float, ...]
    born_at_vertex: tuple[float, ...]
    worst_gap: float
    protocol: str

    def table(self) -> str:
        """Return the table in Markdown."""
        lines = [
            "| starts | reach the target | end at a vertex | start at a vertex |",
            "|---|---|---|---|",
        ]
        for s, a, b, c in zip(self.spread, self.reached, self.at_vertex, self.born_at_vertex):
            lines.append(f"| {s:g}·N(0, I) | {a:.0%} | {b:.0%} | {c:.0%} |")
        return "\n".join(lines)


def dead_starts(
    spreads: tuple[float, ...] = (1.5, 0.3, 0.05), runs: int = 400, seed: int = 0, steps: int = 3000
) -> DeadStarts:
    """Run P1 from random starts and count where the runs end.

    Gradients of P1 lie in par F, so the support of Π(θ) seldom grows: a start whose projection is a
    vertex never moves, and a start near a small face is drawn to that face's own nearest point.
    Every limit is critical for the field all the same.

    Parameters
    ----------
    spreads : tuple of float
        Standard deviations of the starts.
    runs : int
        Runs for each.
    seed : int
        Seed of the starts.
    steps : int
        Gradient steps, of size 2/(k + 4) ** 0.6.
    """
    from hsref.optim import power_decay, sgd

    problem, C = p1(), _simplex(len(TARGET))
    rng = np.random.default_rng(seed)
    reached, vertex, born, worst = [], [], [], 0.0
    for spread in spreads:
        start = spread * rng.normal(size=(runs, problem.size))
        end = train(problem, start, sgd(power_decay(2.0, k0=4.0, q=0.6)), steps, every=steps)
        y = images(C, end.theta)
        reached.append(float((np.abs(y - TARGET).max(axis=1) <= 1e-6).mean()))
        vertex.append(float((y.max(axis=1) == 1.0).mean()))
        born.append(float((images(C, start).max(axis=1) == 1.0).mean()))
        worst = max(worst, float(end.gap.max()))
    protocol = f"gradient descent, {steps} steps of size 2/(k + 4)^0.6, {runs} runs a row"
    return DeadStarts(spreads, tuple(reached), tuple(vertex), tuple(born), worst, protocol)
