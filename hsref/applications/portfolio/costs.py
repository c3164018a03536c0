"""What one training step of each arm takes: processor time and memory, measured in turn."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from autograd import grad, make_vjp

from hsref import optim

from .._common import one_blas_thread
from .model import Model
from .problem import Problem

REPEATS = 30
"""Steps timed an arm; the least counts, for other work on the machine only adds to it."""


@dataclass(frozen=True)
class Costs:
    """Costs of every trained arm.

    Attributes
    ----------
    steps : int
        Steps of one epoch.
    batch : int
        Windows a step.
    arms : dict of str to dict
        ``step_seconds`` (least processor time of gradient and update), ``epoch_seconds``
        (that, times the steps), ``layer_seconds`` (least of the output layer alone, forward and
        back), ``step_bytes`` and ``layer_bytes`` (largest amount allocated meanwhile).
    """

    steps: int
    batch: int
    arms: dict[str, dict[str, float]]


def allocated(action: Callable[[], Any]) -> int:
    """Return the largest number of bytes that NumPy and Python allocate during `action`."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def actions(problem: Problem, arm: str, rows: np.ndarray) -> tuple[Callable, Callable]:
    """Return a training step and a pass through the output layer and back, on windows `rows`."""
    left, _ = problem.examples("final")
    examples, model = left.take(rows), Model(problem, arm, problem.config.penalty)
    params = model.init(0)
    init, update = optim.adam(1e-3)
    state, gradient = init(params), grad(model.loss)
    # scores at which the layers have something to do, the same for every arm
    scores = 2.0 * np.random.default_rng(0).standard_normal((len(rows), problem.n))

    def step() -> None:
        update(params, gradient(params, examples), state)

    def layer() -> None:
        pull, weights = make_vjp(lambda s: model.output(s, examples.starts))(scores)
        pull(np.ones_like(weights))

    return step, layer


def measure_costs(problem: Problem, repeats: int = REPEATS) -> Costs:
    """Time steps and output layers of all trained arms, the arms taking turns."""
    count, size = len(problem.split.left), problem.config.batch_size
    steps = max(1, round(count / size))
    rows = np.linspace(0, count - 1, min(size, count)).astype(np.int64)
    found = {arm: actions(problem, arm, rows) for arm in problem.trained}
    taken: dict[str, tuple[list[float], list[float]]] = {arm: ([], []) for arm in found}
    arms = {}
    with one_blas_thread():
        for arm, pair in found.items():
            for action in pair:
                action()  # may compile; the clock is off
            arms[arm] = {
                "step_bytes": float(allocated(pair[0])), "layer_bytes": float(allocated(pair[1]))
            }  # fmt: skip
        for _ in range(repeats):
            for arm, pair in found.items():
                for action, seconds in zip(pair, taken[arm]):
                    begun = time.thread_time()
                    action()
                    seconds.append(time.thread_time() - begun)
    for arm, (whole, layers) in taken.items():
        step = min(whole)
        arms[arm] |= {
            "step_seconds": step,
            "epoch_seconds": steps * step,
            "layer_seconds": min(layers),
        }
    return Costs(steps, len(rows), arms)
