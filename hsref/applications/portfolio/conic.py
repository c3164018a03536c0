"""The projection as a layer of cvxpylayers, on a part of the windows, where it is installed.

It computes the same weights as the arm ``projection``, by a conic solver for each window, and
differentiates the solver's optimality conditions: a peer in cost, not in kind.
"""

from __future__ import annotations

import importlib.util
import time
import warnings
from typing import Any

import numpy as np
from autograd import grad
from autograd.extend import defvjp, primitive

from hsref import optim

from .._common import one_blas_thread
from .costs import allocated
from .model import Model
from .problem import Problem

STEPS = 10
"""Training steps that both layers take."""


def installed() -> bool:
    """Tell whether cvxpylayers and PyTorch can be imported."""
    return all(importlib.util.find_spec(name) for name in ("torch", "cvxpy", "cvxpylayers"))


class ConicLayer:
    """argmin ‖w − x‖² over the mandate, by cvxpylayers, as a function for autograd.

    Parameters
    ----------
    problem : Problem
    """

    def __init__(self, problem: Problem) -> None:
        import cvxpy
        import torch
        from cvxpylayers.torch import CvxpyLayer

        n = problem.n
        w, x, previous = cvxpy.Variable(n), cvxpy.Parameter(n), cvxpy.Parameter(n)
        rules = problem.mandate.rules(cvxpy, w, previous)
        program = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(w - x)), rules)
        self.extra = any(one is previous for one in program.parameters())
        arguments = {"solve_method": "Clarabel", "n_jobs_forward": 1, "n_jobs_backward": 1}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.layer = CvxpyLayer(
                program,
                parameters=[x, previous] if self.extra else [x],
                variables=[w],
                solver_args=arguments,
            )
        self.torch, self.mandate, self.last = torch, problem.mandate, (None, None)
        self.apply = primitive(self._forward)
        defvjp(self.apply, lambda ans, x, starts: lambda g: self._backward(g), argnums=(0,))

    def _forward(self, x: np.ndarray, starts: np.ndarray) -> np.ndarray:
        given = self.torch.tensor(x, requires_grad=True)
        more = [self.torch.tensor(self.mandate.data(starts)["previous"])] if self.extra else []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (w,) = self.layer(given, *more)
        self.last = given, w
        return w.detach().numpy().copy()

    def _backward(self, g: np.ndarray) -> np.ndarray:
        given, w = self.last
        assert given is not None
        assert w is not None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            w.backward(self.torch.tensor(np.ascontiguousarray(g)))
        return given.grad.numpy().copy()


class ConicModel(Model):
    """The arm ``projection``, with its layer made by cvxpylayers."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem, "projection")
        self.layer = ConicLayer(problem)

    def output(self, scores: Any, starts: np.ndarray) -> Any:
        """Return portfolio weights from scores."""
        return self.layer.apply(self.given(scores, starts), starts)


def measure_conic(problem: Problem, rate: float, steps: int = STEPS) -> dict[str, Any] | None:
    """Take the same training steps with both layers; return what they took and how they agree.

    Parameters
    ----------
    problem : Problem
    rate : float
        Learning rate of both.
    steps : int
        Each on a fresh batch, of 64 windows up to 100 stocks and of 8 beyond.

    Returns
    -------
    dict or None
        None where cvxpylayers is not installed.
    """
    if not installed():
        return None
    left, right = problem.examples("final")
    size = min(64 if problem.n <= 100 else 8, len(left))
    order = np.random.default_rng(0).permutation(len(left))
    batches = [np.take(order, np.arange(size) + k * size, mode="wrap") for k in range(steps)]
    tests = right.take(np.linspace(0, len(right) - 1, size).astype(np.int64))
    found: dict[str, Any] = {"windows": size, "steps": steps}
    weights = {}
    for name, model in (("projection", Model(problem, "projection")), ("cvxpylayers", None)):
        model = model or ConicModel(problem)
        params, (init, update) = model.init(0), optim.adam(rate)
        state, gradient, taken = init(params), grad(model.loss), []
        with one_blas_thread():
            gradient(params, left.take(batches[0]))  # may compile; the clock is off
            peak = allocated(lambda g=gradient, p=params: g(p, left.take(batches[0])))
            for rows in batches:
                begun = time.process_time()
                params, state = update(params, gradient(params, left.take(rows)), state)
                taken.append(time.process_time() - begun)
            scores, _ = model.scores(params, tests.inputs)
            weights[name] = model.output(scores, tests.starts)
            loss = float(model.loss(params, left.take(batches[0])))
        broken = problem.mandate.violation(weights[name], tests.starts)
        found[name] = {
            "step_seconds": min(taken),
            "bytes": float(peak),
            "loss": loss,
            "violation": float(broken.max()),
        }
    found["difference"] = float(np.abs(weights["projection"] - weights["cvxpylayers"]).max())
    return found
