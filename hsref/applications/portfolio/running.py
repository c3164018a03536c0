"""One training run: steps, history, checkpoints, and what is measured at the end."""

from __future__ import annotations

import contextlib
import importlib
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from autograd import grad

from hsref import optim

from .._common import one_blas_thread
from .._training import fit
from .config import STUDY, PortfolioTask
from .model import Evaluation, Model, evaluate
from .problem import Problem
from .windows import Examples

CURVE_STRIDE = 5
"""Every how many windows the curves over the epochs look at; final figures look at all."""


@dataclass(frozen=True)
class Run:
    """What one training run hands back; small enough to travel between processes.

    Attributes
    ----------
    task : PortfolioTask
    scores : dict of str to float
        Validation score of each arm this network serves (``"tune"`` only).
    train : dict of str to dict
        Figures on all training windows, by arm; for reported runs and those of the study.
    test : dict of str to Evaluation
        The same on the test windows.
    history : list of dict
        One entry an epoch, epoch 0 before the first step.
    seconds : float
        Processor seconds of the steps.
    memory : int
        Most bytes this process has held so far; 0 where the system does not say.
    """

    task: PortfolioTask
    scores: dict[str, float]
    train: dict[str, dict[str, float]]
    test: dict[str, Evaluation]
    history: list[dict[str, float]]
    seconds: float
    memory: int


def peak_memory() -> int:
    """Return the most bytes this process has held so far; 0 where the system does not say."""
    with contextlib.suppress(ImportError):
        resource = importlib.import_module("resource")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak
    return 0


_EXAMPLES: dict[tuple[str, str], tuple[Examples, Examples]] = {}


def _examples(problem: Problem, stage: str) -> tuple[Examples, Examples]:
    """Return the windows of a stage, kept for the next run of this process."""
    key = (problem.key, stage)
    if key not in _EXAMPLES:
        if len(_EXAMPLES) >= 2:
            _EXAMPLES.clear()
        _EXAMPLES[key] = problem.examples(stage)
    return _EXAMPLES[key]


def run(problem: Problem, task: PortfolioTask) -> Run:
    """Train one network and evaluate it; goes on from a checkpoint where there is one.

    Parameters
    ----------
    problem : Problem
    task : PortfolioTask
        ``"tune"`` trains on the fitting days and scores the validation days by the arm's own aim
        (Sharpe, minus the price of shortfall where the arm pays one); ``"final"`` and ``"study"``
        train on all training days and evaluate training and test windows.

    Returns
    -------
    Run
        Depends on `problem` and `task` alone (times and memory apart), bit by bit on one machine,
        however often it was interrupted.
    """
    with one_blas_thread():
        return _run(problem, task)


def _run(problem: Problem, task: PortfolioTask) -> Run:
    config = problem.config
    fitting, scoring = _examples(problem, "tune" if task.stage == "tune" else "final")
    model = Model(problem, task.arm, task.penalty, task.temperature, task.scale)
    # The same seed gives every arm the same initial network and the same order of the windows.
    params = model.init(task.seed)
    rng = np.random.default_rng([task.seed, 1])
    gradient = grad(lambda params, rows: model.loss(params, fitting.take(rows)))
    steps = config.epochs * max(1, round(len(fitting) / config.batch_size))
    thin, thin_test = (
        side.take(np.arange(0, len(side), CURVE_STRIDE)) for side in (fitting, scoring)
    )

    def after_epoch(epoch: int, params: Any) -> dict[str, float]:
        figures = {"epoch": float(epoch)}
        for side, examples in (("train", thin), ("test", thin_test)):
            if task.stage == STUDY and side == "test":
                continue
            found = evaluate(model, params, examples).figures
            figures |= {f"{side}_{name}": value for name, value in found.items()}
        return figures

    fitted = fit(
        gradient,
        params,
        optim.adam(optim.cosine(task.learning_rate, steps)),
        count=len(fitting),
        batch_size=config.batch_size,
        epochs=config.epochs,
        rng=rng,
        after_epoch=None if task.stage == "tune" else after_epoch,
        checkpoint=problem.checkpoint(task),
    )
    served = ["softmax", "train_then_project"] if task.arm == "softmax" else [task.arm]
    after = {
        arm: evaluate(model, fitted.params, scoring, arm == "train_then_project") for arm in served
    }
    if task.stage == "tune":
        scores = {arm: result.figures["sharpe"] for arm, result in after.items()}
        if task.arm == "softmax_penalty":
            broken = problem.mandate.shortfall(after[task.arm].weights, scoring.starts)
            scores[task.arm] -= config.penalty * float(np.mean(broken))
        return Run(task, scores, {}, {}, [], fitted.seconds, peak_memory())
    before = {
        arm: evaluate(model, fitted.params, fitting, arm == "train_then_project").figures
        for arm in served
    }
    if task.stage == STUDY:
        nothing = np.empty((0, problem.n))
        after = {arm: Evaluation(one.figures, one.ratios, nothing) for arm, one in after.items()}
    return Run(task, {}, before, after, fitted.history, fitted.seconds, peak_memory())
