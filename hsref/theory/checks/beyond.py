"""Checks that belong to no single set: counterexamples, impostors, training problems, Adam."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ..bsub import b_subdifferential
from ..conservativity import layer, path_errors
from ..counterexamples import pinv_in_right_hand_side, pyramid_apex, redundant_row, spurious_zero
from ..criticality import distance_to_critical
from ..fields import NON_CONSERVATIVE
from ..hs_set import hs_elements, least_element
from ..planted import Cases, degenerate_cases, points
from ..problems import PROBLEMS, Problem, dead_starts, p1, p2, train
from ..subject import images, observe
from ._outcome import Outcome, cache_of, largest
from .paths import kinks

COUNTEREXAMPLES = ("redundant row", "pyramid apex", "pseudo-inverse", "spurious zero")
IMPOSTOR_ERROR, LAYER_ERROR = "error of the impostor", "error of the layer on the same paths"
LEAST_ERROR = 1e-2
"""An impostor is caught when some path is wrong by more than this."""


def _matrices(found: Any) -> list[list[float]]:
    return sorted(np.round(e.V, 9).ravel().tolist() for e in found)


def counterexample(kind: str, rng: np.random.Generator) -> Outcome:
    """X1: the exact HS-sets, B-subdifferentials and derivatives of the four counterexamples."""
    out = Outcome()
    if kind == "redundant row":
        half = np.array([[0.5, -0.5], [-0.5, 0.5]])
        corner = [np.diag([s, t]) for s in (0.0, 1.0) for t in (0.0, 1.0)]
        _expect(out, "at 0", redundant_row(), [*corner, half], corner)
        _expect(out, "at (-1, -1)", redundant_row((-1.0, -1.0)), [np.zeros((2, 2)), half],
                [np.zeros((2, 2))])  # fmt: skip
    elif kind == "pyramid apex":
        e1, e2 = np.diag([1.0, 0.0, 0.0]), np.diag([0.0, 1.0, 0.0])
        zero = np.zeros((3, 3))
        _expect(out, "at the apex", pyramid_apex(), [zero, e1, e2], [zero])
    elif kind == "pseudo-inverse":
        _right_hand_side(out)
    else:
        _spurious(out, rng)
    return out


def _expect(out: Outcome, name: str, witness: Any, hs: Any, limits: Any) -> None:
    """Compare the enumerations with the sets known in closed form."""
    C, x, y = witness
    for label, found, want in (
        ("HS", hs_elements(x, C), hs),
        ("∂_B", b_subdifferential(x, C), limits),
    ):
        same = _matrices(found) == sorted(np.round(w, 9).ravel().tolist() for w in want)
        out.add(f"{label} {name}", np.array(0.0 if same else 1.0), 0.5)
    V = observe(C, x[None]).elements()[0]
    out.add(f"V₀ {name}", np.max(np.abs(V - least_element(x, C, y=y))), 1e-12)


def _right_hand_side(out: Outcome) -> None:
    """Move the right-hand side: independent rows give the derivative, the pseudo-inverse not."""
    from hsref import Polyhedron

    w = pinv_in_right_hand_side()
    rng = np.random.default_rng(0)
    A = np.asarray(w.C.A_ub)
    worst, best = 0.0, np.inf
    for _ in range(20):
        da = 1e-3 * rng.normal(size=3)
        moved = images(Polyhedron(A_ub=A, b_ub=da), w.x[None])[0] - w.y
        # y₁ = a₁ for all data nearby: the first row of every Jacobian is (1, 0, 0)
        worst = max(worst, abs(moved[0] - w.by_independent_rows[0] @ da))
        best = min(best, abs(moved[0] - w.by_pseudo_inverse[0] @ da))
    out.add("y₁ = a₁ near the point", np.array(worst), 1e-12)
    out.add("the pseudo-inverse misses it", np.array(float(best < 1e-6)), 0.5)
    # along data on which all three rows stay active both are right
    da = np.array([1.0, 2.0, 3.0]) * 1e-3
    moved = images(Polyhedron(A_ub=A, b_ub=da), w.x[None])[0] - w.y
    for name, J in (("pinv", w.by_pseudo_inverse), ("independent", w.by_independent_rows)):
        out.add(f"{name} along a + t(1, 2, 3)", np.max(np.abs(moved - J @ da)), 1e-12)


def _spurious(out: Outcome, rng: np.random.Generator) -> None:
    s = spurious_zero()
    t = np.array([[s.theta]])

    def slope(theta: np.ndarray) -> np.ndarray:
        one = np.ones_like(theta)
        return (observe(s.nonnegative, theta).product(one)
                + observe(s.nonpositive, theta).product(one))  # fmt: skip

    out.add("automatic derivative at 0 is 0", np.abs(slope(t) - s.automatic).max(), 1e-15)
    other = rng.normal(size=(100, 1))
    out.add("and 1 elsewhere", np.abs(slope(other) - s.true).max(), 1e-15)
    total = images(s.nonnegative, other) + images(s.nonpositive, other)
    out.add("φ(t) = t", np.abs(total - other).max(), 1e-15)


def impostor(kind: str, rng: np.random.Generator) -> Outcome:
    """N1: a field that is not conservative fails the chain rule; the same check passes the layer.

    The residual is how far the worst error of the impostor falls short of `LEAST_ERROR`.
    """
    out = Outcome()
    found = right = 0.0
    which = NON_CONSERVATIVE[kind]
    for case in _impostor_cases(which.caught_by, rng):
        if which.caught_by == "segment":
            other = case.x[rng.permutation(len(case.x))]
            cache = cache_of(case.C, case.rows).local
            total, _, _ = path_errors(case.C, case.x, other, which.field, cache)
            found = max(found, float(total.max(initial=0.0)))
            honest, _, _ = path_errors(case.C, case.x, other, layer(), cache)
            right = max(right, float(honest.max(initial=0.0)))
            out.add("the layer passes", honest, 1e-9)
        else:
            wrong, honest = (_kink_error(case, field, rng) for field in (which.field, layer()))
            found, right = max(found, wrong), max(right, honest)
            out.add("the layer passes", np.array(honest), 1e-9)
            every = kinks(case, rng).ratio()
            out.add("every element passes", np.max(every, initial=0.0), 1.0)
            # no ordinary segment notices it
            other = case.x + rng.normal(size=case.x.shape)
            start = other[rng.permutation(len(other))]
            cache = cache_of(case.C, case.rows).local
            total, _, _ = path_errors(case.C, start, other, which.field, cache)
            out.add("ordinary segments do not notice", total, 1e-9)
    out.add("caught", np.array(max(0.0, 1.0 - found / LEAST_ERROR)), 0.0 + 1e-12)
    out.notes[IMPOSTOR_ERROR], out.notes[LAYER_ERROR] = found, right
    return out


def _impostor_cases(caught_by: str, rng: np.random.Generator) -> list[Cases]:
    from hsref import Box, Simplex

    if caught_by == "segment":
        return [degenerate_cases(k, 24, rng) for k in ("independent rows", "bounds and rows")]
    # Where active rows are dependent some multiplier is zero at ordinary points too, which is no
    # sign of a kink. The rows of these two sets are independent wherever they meet.
    found = (points(C, "boundary", 24, rng) for C in (Box(0.0, 1.0, n=3), Simplex(4)))
    return [cases for cases in found if cases is not None]


def _kink_error(case: Cases, field: Any, rng: np.random.Generator) -> float:
    from ..conservativity import degenerate_paths

    y = images(case.C, case.x)
    path = degenerate_paths(case.rows, case.x, y, cache_of(case.C, case.rows).local, rng)
    move = path.x1 - path.x0
    V = field(path.x0 + 0.37 * move, case.C)
    error = np.einsum("pij,pj->pi", V, move) - path.velocity
    return float((largest(error) / case.rows.scale(case.x)).max(initial=0.0))


# -- training -------------------------------------------------------------------------------------

TRAINING_TOL = 2e-2
NOISE, NOISY_TOL = 0.1, 0.15
ALGORITHMS = ("one timescale", "two timescales", "noisy", "usual constants")


def conditions() -> dict[str, dict[str, Any]]:
    """Return the constants of each algorithm as :func:`hsref.optim.check_conditions` takes them."""
    from hsref.optim import power_decay

    steps = power_decay(1.0, k0=30.0, q=0.6)
    one = {"step_size": steps, "tau1": 4.0, "tau2": 0.5, "eps": 1e-4}
    two = {
        "step_size": steps, "tau2": 0.5, "eps": 1e-4, "momentum": power_decay(2.0, k0=16.0, q=0.25),
    }  # fmt: skip
    usual = {"step_size": power_decay(0.5, k0=10.0, q=0.75), "beta1": 0.9, "beta2": 0.999}
    return dict(zip(ALGORITHMS, (one, two, one, usual)))


def _optimizer(kind: str) -> Any:
    from hsref.optim import adam, convergent_adam

    keywords = conditions()[kind]
    return (adam if "beta1" in keywords else convergent_adam)(**keywords)


def _starts(problem: Problem, count: int, rng: np.random.Generator) -> np.ndarray:
    spread = np.repeat([0.2, 1.0], (count + 1) // 2)[:count, None]
    theta = spread * rng.normal(size=(count, problem.size))
    if problem.name == "P3":
        theta[0] = 0.0
    return theta


def training(kind: str, rng: np.random.Generator, problem: str, steps: int = 2000) -> Outcome:
    """P1 to P5: runs of the provable Adam end at points that are critical for the field."""
    out = Outcome()
    noisy = kind == "noisy"
    task = PROBLEMS[problem]()
    optimizer = _optimizer(kind)
    count = 8 if problem == "P4" else 32
    start = _starts(task, count, rng)
    run = train(task, start, optimizer, steps, noise=NOISE if noisy else 0.0, rng=rng, every=steps)
    # where the loss has a kink at its minimum the runs end within a step of it
    out.add("distance from critical", run.gap, NOISY_TOL if noisy else TRAINING_TOL)
    if problem == "P3" and not noisy:
        stays = abs(float(run.theta[0, 0]))
        out.add("0 is never left", np.array(stays), 1e-15)
        out.add("others reach -1", np.abs(run.theta[1:, 0] + 1.0), TRAINING_TOL)
    out.notes["largest distance"] = float(run.gap.max())
    return out


ENERGIES = ("P1, τ₂ = 2τ₁", "P1, τ₂ = 4τ₁", "P2, τ₂ = 4τ₁")


def energy(kind: str, rng: np.random.Generator) -> Outcome:
    """L1: h = φ + Σm²/(2τ₁√(v+ε)) does not increase, up to the second order of the step.

    In the one step that crosses a kink the two halves have different gradients, so there the
    increase is of first order.
    """
    from hsref.optim import constant, convergent_adam

    out = Outcome()
    tau1, eps = 2.0, 1e-2
    tau2 = 2.0 * tau1 if kind == ENERGIES[0] else 4.0 * tau1
    task = p2() if kind == ENERGIES[2] else p1()
    rises = []
    for eta in (4e-3, 2e-3, 1e-3):
        optimizer = convergent_adam(constant(eta), tau1=tau1, tau2=tau2, eps=eps)
        start = 0.3 * np.random.default_rng(1).normal(size=(24, task.size)) + (
            0.25 if task.size > 1 else 0.0
        )
        run = train(task, start, optimizer, round(2.0 / eta), every=1, energy=(tau1, eps))
        rise = np.diff(run.energy, axis=0).max(axis=0)
        rises.append(float(rise.max()))
        out.add("rise of h, over the step", rise / eta, 2.0)
        total = run.energy[-1] - run.energy[0]
        out.add("h at the end minus h at the start", np.maximum(total, 0.0), 1e-9)
    out.notes["largest rise of h at steps of 0.001"] = rises[-1]
    growth = max(0.0, rises[-1]) - 0.75 * max(0.0, rises[0])
    out.add("the rise falls with the step", np.array(max(0.0, growth)), 1e-12)
    return out


def hull(kind: str, rng: np.random.Generator) -> Outcome:
    """C1: the least element of a hull, against its optimality conditions."""
    out = Outcome()
    worst = np.zeros(40)
    for i in range(40):
        k, d = int(rng.integers(1, 9)), int(rng.integers(1, 6))
        v = rng.integers(-3, 4, size=(k, d)).astype(np.float64)
        found = distance_to_critical(v)
        w = found.weights
        point = w @ v
        short = max(0.0, float(point @ point - (v @ point).min()))
        worst[i] = max(short, abs(w.sum() - 1.0), -w.min()) / 20.0
    out.add("no element is nearer to 0", worst, 1e-10)
    return out


def dead_start(kind: str, rng: np.random.Generator) -> Outcome:
    """D1: whatever share of starts ends at vertices, every limit is critical for the field."""
    out = Outcome(cases=400)
    table = dead_starts((float(kind),), seed=int(rng.integers(2**31)))
    out.add("distance from critical", np.array(table.worst_gap), 1e-6)
    out.notes["share that reaches the target"] = table.reached[0]
    out.notes["share that ends at a vertex"] = table.at_vertex[0]
    out.notes["share that starts at a vertex"] = table.born_at_vertex[0]
    return out


P_CHECKS = {name: partial(training, problem=name) for name in PROBLEMS}
__all__ = [
    "ALGORITHMS",
    "COUNTEREXAMPLES",
    "ENERGIES",
    "P_CHECKS",
    "conditions",
    "counterexample",
    "dead_start",
    "energy",
    "hull",
    "impostor",
    "training",
]
