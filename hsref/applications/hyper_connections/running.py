"""One training run: steps, history, checkpoints, and what is measured at the end."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from autograd import value_and_grad

from hsref import optim

from .._common import one_blas_thread
from .config import DepthTask, HyperConfig, Problem
from .model import Model, look_inside, losses

INSIDE = 512
"""Windows whose mixing matrices are looked at."""


@dataclass(frozen=True)
class Run:
    """What one training run hands back; small enough to travel between processes.

    Attributes
    ----------
    task : DepthTask
    figures : dict of str to dict
        By part: ``"tuning"`` for a run that chooses a learning rate, ``"train"`` and
        ``"validation"`` for a reported one.
    history : list of dict
        One entry every few steps.
    step_seconds : float
        Processor seconds of a step: median over the history's stretches of their means.
    parameters : int
    diverged : bool
        Whether a gradient was not finite; training ended there, and losses are infinite.
    params : ndarray or None
        Trained parameters of a reported run.
    resumed : bool
        Whether an earlier call had finished it.
    """

    task: DepthTask
    figures: dict[str, dict[str, Any]]
    history: list[dict[str, float]] = field(repr=False)
    step_seconds: float
    parameters: int
    diverged: bool
    params: Any = field(repr=False, default=None)
    resumed: bool = False

    @property
    def score(self) -> float:
        """What learning rates are chosen by: minus the loss on the tuning topics."""
        return -self.figures["tuning"]["loss"]


@dataclass(frozen=True)
class WarmCosine:
    """A straight rise to `top` over `warmup` steps, then half a cosine to zero."""

    top: float
    warmup: int
    steps: int

    def __call__(self, k: int) -> float:
        """Return the step size of step k."""
        if k < self.warmup:
            return self.top * (k + 1) / self.warmup
        part = (k - self.warmup) / (self.steps - self.warmup)
        return self.top * 0.5 * (1.0 + math.cos(math.pi * min(part, 1.0)))


def make_optimizer(config: HyperConfig, rate: float) -> optim.Optimizer:
    """Return Adam with the schedule of `config`."""
    schedule = WarmCosine(rate, config.warmup, config.steps)
    return optim.adam(schedule, config.beta1, config.beta2)


def run(problem: Problem, task: DepthTask) -> Run:
    """Train one network and measure it; goes on from a checkpoint where there is one.

    Returns
    -------
    Run
        Depends on `problem` and `task` alone, times apart, bit by bit on one machine, however
        often it was interrupted.
    """
    with one_blas_thread():
        return _run(problem, task)


def _run(problem: Problem, task: DepthTask) -> Run:
    config, text = problem.config, problem.text
    model = Model(config, task.arm, text.size, task.depth)
    # The same seed gives every arm the same network but for the connections, and the same windows.
    params = model.init(task.seed)
    size = params.size
    rng = np.random.default_rng([task.seed, 1])
    init, update = make_optimizer(config, task.learning_rate)
    state, history, step, diverged = init(params), [], 0, False

    checkpoint = problem.checkpoint(task)
    saved = None if checkpoint is None else checkpoint.load((params, state))
    if saved is not None:
        meta, (params, state) = saved
        history, step, diverged = meta["history"], meta["step"], meta["diverged"]
        rng.bit_generator.state = meta["rng"]
        if "figures" in meta:
            return _finished(task, meta["figures"], history, size, diverged, params, True)

    gradient = value_and_grad(model.loss)
    places = text.positions["train"]
    if step == 0:
        windows, targets = text.windows("train", text.spread("train", 2 * config.batch_size))
        model.check_start(params, windows)
    gradient(params, *text.windows("train", places[:2]))  # may compile; the clock is off

    while step < config.steps and not diverged:
        losses, norms, begun = [], [], time.thread_time()
        stretch = min(config.every, config.steps - step)
        for _ in range(stretch):
            windows, targets = text.windows(
                "train", places[rng.integers(0, len(places), config.batch_size)]
            )
            loss, slope = gradient(params, windows, targets)
            norm = float(optim.global_norm(slope))
            if not (math.isfinite(norm) and math.isfinite(loss)):
                diverged = True
                break
            losses.append(float(loss))
            norms.append(norm)
            slope = optim.clip_by_global_norm(slope, config.clip)
            params, state = update(params, slope, state)
            step += 1
        seconds = time.thread_time() - begun
        history.append(
            {
                "step": step,
                "loss": float(np.mean(losses)) if losses else math.inf,
                "gradient_norm": float(np.mean(norms)) if norms else math.inf,
                "gradient_norm_max": float(np.max(norms)) if norms else math.inf,
                "step_seconds": seconds / max(1, len(losses)),
                **(_glance(model, params, problem) if task.stage == "final" else {}),
            }
        )
        if checkpoint is not None:
            checkpoint.save(_meta(step, history, diverged, rng), (params, state))

    figures = _measure(model, params, problem, task, diverged)
    if checkpoint is not None:
        meta = _meta(step, history, diverged, rng) | {"figures": figures}
        checkpoint.save(meta, (params, state))
    return _finished(task, figures, history, size, diverged, params)


def _meta(step: int, history: list, diverged: bool, rng: np.random.Generator) -> dict[str, Any]:
    state = rng.bit_generator.state
    return {"step": step, "history": history, "diverged": diverged, "rng": state}


def _finished(
    task: DepthTask,
    figures: dict,
    history: list,
    size: int,
    diverged: bool,
    params: Any,
    resumed: bool = False,
) -> Run:
    seconds = float(np.median([entry["step_seconds"] for entry in history]))
    kept = params if task.stage == "final" else None
    return Run(task, figures, history, seconds, size, diverged, kept, resumed)


def _glance(model: Model, params: Any, problem: Problem) -> dict[str, float]:
    """Return what the history says about the mixing matrices, from a few windows."""
    text = problem.text
    windows, _ = text.windows("train", text.spread("train", problem.config.batch_size))
    inside = look_inside(model, params, windows)
    names = ("gain", "gain_max", "dead_fraction", "mean_rank", "boundary_fraction")
    return {name: inside[name] for name in names if name in inside}


def _measure(
    model: Model, params: Any, problem: Problem, task: DepthTask, diverged: bool
) -> dict[str, dict[str, Any]]:
    config, text = problem.config, problem.text
    parts = ("tuning",) if task.stage == "tune" else ("train", "validation")
    if diverged:
        return {part: {"loss": math.inf} for part in parts}
    figures = {}
    for part in parts:
        positions = text.spread(part, config.scored)
        each = losses(model, params, *text.windows(part, positions))
        figures[part] = {"loss": float(each.mean())}
        if part == "validation":
            topic = text.topic_of(part, positions)
            sums, counts = np.bincount(topic, each), np.bincount(topic)
            figures[part]["loss_by_topic"] = [
                float(total / max(1, k)) for total, k in zip(sums, counts)
            ]
        if part != "tuning":
            windows, _ = text.windows(part, text.spread(part, INSIDE))
            figures[part] |= look_inside(model, params, windows)
    return figures


@dataclass(frozen=True)
class Cost:
    """What one training step takes, measured for all arms in turn in one process.

    Attributes
    ----------
    seconds : float
        Median processor seconds of a gradient and an update.
    seconds_least : float
        The least.
    mixing_seconds : float
        Median processor seconds of one block's mixing matrices, forward and back, batch of a
        step.
    peak_bytes : int
        Largest amount of memory allocated during one gradient, beyond parameters and data.
    """

    seconds: float
    seconds_least: float
    mixing_seconds: float
    peak_bytes: int

    def as_dict(self) -> dict[str, float]:
        """Return the numbers by name."""
        return dataclasses.asdict(self)


def measure_costs(problem: Problem, trained: dict[str, Any], repeats: int = 30) -> dict[str, Cost]:
    """Time training steps of trained networks at ``config.depth``, the arms taking turns.

    Parameters
    ----------
    problem : Problem
    trained : dict of str to params
        Of each arm, at the main depth.
    repeats : int
        Steps timed an arm.
    """
    import tracemalloc

    config, text = problem.config, problem.text
    windows, targets = text.windows("train", text.spread("train", config.batch_size))
    steps, mixes, peaks = {}, {}, {}
    for arm, params in trained.items():
        model = Model(config, arm, text.size, config.depth)
        gradient = value_and_grad(model.loss)
        init, update = make_optimizer(config, 1e-3)
        state = init(params)

        def step(gradient=gradient, update=update, params=params, state=state) -> None:
            update(params, gradient(params, windows, targets)[1], state)

        steps[arm], mixes[arm] = step, _mixing_pass(model, params, windows)
        step()
        tracemalloc.start()
        try:
            gradient(params, windows, targets)
            peaks[arm] = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    taken: dict[str, list[list[float]]] = {arm: [[], []] for arm in trained}
    with one_blas_thread():
        for _ in range(repeats):
            for arm in trained:
                for kind, action in enumerate((steps[arm], mixes[arm])):
                    begun = time.thread_time()
                    action()
                    taken[arm][kind].append(time.thread_time() - begun)
    return {
        arm: Cost(
            float(np.median(whole)), float(np.min(whole)), float(np.median(mixing)), peaks[arm]
        )
        for arm, (whole, mixing) in taken.items()
    }


def _mixing_pass(model: Model, params: Any, windows: np.ndarray) -> Any:
    """Return a function that makes one block's matrices and takes a gradient back through them."""
    from autograd import make_vjp

    from .model import Seen

    if model.mixing is None:
        return lambda: None
    seen = Seen()
    model.apply(params, windows, seen)
    logits, g = seen.logits[model.depth // 2], np.ones_like(seen.mixing[0])

    def action() -> None:
        pull, _ = make_vjp(model.mixing.map)(logits)
        pull(g)

    return action
