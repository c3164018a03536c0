"""Tune every arm, train it with every seed, measure it: :func:`train`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np

import hsref

from .._training import Progress, Task, best_rate, sweep
from . import running
from .config import STUDY, PortfolioConfig, PortfolioTask
from .conic import measure_conic
from .costs import measure_costs
from .model import score
from .prices import Prices, load_prices
from .problem import Problem, make_problem
from .references import equal_weight, mean_variance
from .result import PortfolioResult, SeedResult, study_row
from .windows import disjoint

REFERENCE_STRIDE, WIDE_STRIDE = 5, 20
"""Every how many windows mean–variance is solved for; each is a quadratic program."""
MANY = 100
"""Stocks up to which the first of these strides is affordable."""


def train(
    config: PortfolioConfig | None = None,
    prices: Prices | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
    executor: Executor | None = None,
    checkpoints: str | os.PathLike[str] | None = None,
) -> PortfolioResult:
    """Train every arm with every seed, and measure them on days none of them has seen.

    Parameters
    ----------
    config : PortfolioConfig or None
        None takes the defaults.
    prices : Prices or None
        From :func:`load_prices` or :func:`prices_from_frame`. None takes the 20 stocks that come
        with skfolio.
    progress : callable or None
        Called with a :class:`~hsref.applications._training.Progress` after each training run.
    executor : concurrent.futures.Executor or None
        Where training runs are computed; None computes them one after the other, here. The
        numbers do not depend on it.
    checkpoints : path-like or None
        Folder where runs keep their state; a call that finds it there goes on from it.

    Returns
    -------
    PortfolioResult
        Depends on `config` and `prices` alone (times and memory apart), bit by bit on one
        machine.

    Raises
    ------
    InputError
        Where prices and configuration do not go together, in one sentence, or where a checkpoint
        is damaged.
    MissingExtraError
        If a package of the ``apps`` extra is missing.

    Notes
    -----
    The learning rate of each arm is the one, of a common grid, with the best mean score over
    ``tuning_seeds`` on the last part of the training days; ``softmax_penalty`` chooses its price
    together with it, from a grid of its own. Then every arm is trained afresh on
    all training days with ``seeds``. Test days are looked at only to draw curves and to report.
    """
    begun = time.perf_counter()
    config = config or PortfolioConfig()
    problem = make_problem(config, prices or load_prices(), checkpoints)
    references = find_references(problem)

    tuned = tuning_tasks(problem)
    cells = [
        (temperature, scale)
        for temperature in config.temperatures
        for scale in config.scales
        if config.study
    ]
    known = (1.0, 1.0)  # the reported arm itself, where the seeds agree
    # a first guess: more if train_then_project prefers another learning rate than softmax
    count = [0, len(tuned) + len(problem.trained) * len(config.seeds)]
    count[1] += len(cells) * len(config.study_seeds)

    def ended(task: Task) -> None:
        count[0] += 1
        if progress is not None:
            progress(Progress(count[0], count[1], task, time.perf_counter() - begun))

    scored = sweep(running.run, problem, tuned, executor, ended)
    chosen = choose(problem, tuned, scored)

    final = {
        one: [PortfolioTask(one.arm, "final", seed, one.rate, one.penalty) for seed in config.seeds]
        for one in dict.fromkeys(chosen.networks.values())
    }
    studied = [
        PortfolioTask(
            "projection", STUDY, seed, chosen.networks["projection"].rate, 0.0, temperature, scale
        )
        for temperature, scale in cells
        for seed in config.study_seeds
        if (temperature, scale) != known or seed not in config.seeds
    ]
    reported = [task for group in final.values() for task in group]
    count[1] = len(tuned) + len(reported) + len(studied)
    runs = sweep(running.run, problem, [*reported, *studied], executor, ended)
    found = dict(zip([*reported, *studied], runs))

    seeds = {
        arm: [_seed_result(found[task], arm) for task in final[network]]
        for arm, network in chosen.networks.items()
    }
    ours = {task.seed: found[task] for task in final[chosen.networks["projection"]]}
    study = [
        (temperature, scale, [
            study_row(ours[seed]) for seed in config.study_seeds
            if (temperature, scale) == known and seed in ours
        ] + [
            study_row(found[task]) for task in studied
            if (task.temperature, task.scale) == (temperature, scale)
        ])
        for temperature, scale in cells
    ]  # fmt: skip
    return PortfolioResult(
        problem,
        seeds,
        references,
        chosen.tuning,
        chosen.penalties,
        chosen.networks["softmax_penalty"].penalty,
        study,
        measure_costs(problem),
        measure_conic(problem, chosen.networks["projection"].rate),
        max(run.memory for run in (*scored, *runs)),
        time.perf_counter() - begun,
        sum(run.seconds for run in (*scored, *runs)),
    )


@dataclass(frozen=True)
class Network:
    """A network to train: its arm, first step and, where it pays one, price of shortfall."""

    arm: str
    rate: float
    penalty: float = 0.0


@dataclass(frozen=True)
class Chosen:
    """What the validation days chose.

    Attributes
    ----------
    networks : dict of str to Network
        The network behind each arm.
    tuning, penalties : dict
        As in :class:`~hsref.applications.portfolio.result.PortfolioResult`.
    """

    networks: dict[str, Network]
    tuning: dict[str, dict[float, float]]
    penalties: dict[float, dict[float, float]]


def tuning_tasks(problem: Problem) -> list[PortfolioTask]:
    """Return the runs that choose learning rates and the price of ``softmax_penalty``."""
    config = problem.config
    return [
        PortfolioTask(arm, "tune", seed, rate, penalty)
        for arm in problem.trained
        for penalty in (config.penalties if arm == "softmax_penalty" else (0.0,))
        for rate in config.learning_rates
        for seed in config.tuning_seeds
    ]


def choose(problem: Problem, tuned: list[PortfolioTask], scored: list[Any]) -> Chosen:
    """Return the best learning rate, and price, of each arm."""
    networks, tuning, penalties = {}, {}, {}
    for arm in (*problem.trained, "train_then_project"):
        name = "softmax" if arm == "train_then_project" else arm
        scores = [run.scores.get(arm, -np.inf) for run in scored]
        best = -np.inf, Network(name, 0.0)
        for penalty in dict.fromkeys(task.penalty for task in tuned if task.arm == name):
            rows = [i for i, task in enumerate(tuned) if task.penalty == penalty]
            rate, means = best_rate([tuned[i] for i in rows], [scores[i] for i in rows], name)
            if arm == "softmax_penalty":
                penalties[penalty] = means
            if means[rate] > best[0] or not best[1].rate:
                best = means[rate], Network(name, rate, penalty)
                tuning[arm] = means
        networks[arm] = best[1]
    return Chosen(networks, tuning, penalties)


def _seed_result(run: Any, arm: str) -> SeedResult:
    test = run.test[arm]
    # The curves of a network are those of its own output, not of what is done to it afterwards.
    history = [] if arm == "train_then_project" else run.history
    return SeedResult(
        run.task.seed,
        run.task.learning_rate,
        run.seconds,
        run.train[arm],
        test.figures,
        history,
        test.ratios,
        test.weights,
    )


def find_references(problem: Problem) -> dict[str, dict[str, Any]]:
    """Return the arms that learn nothing, and equal weight moved into the constraints."""
    left, right = problem.examples("final")

    def moved(problem: Problem, starts: np.ndarray) -> np.ndarray:
        return hsref.project(
            equal_weight(problem, starts), problem.constraints(), **problem.mandate.data(starts)
        )

    found = {}
    for name, make in (
        ("equal_weight", equal_weight),
        ("mean_variance", mean_variance),
        ("equal_weight_projected", moved),
    ):
        begun = time.perf_counter()
        ours = range(len(left)), range(len(right))
        if name == "mean_variance":
            stride = REFERENCE_STRIDE if problem.n <= MANY else WIDE_STRIDE
            # the periods that share no day are among the rows
            alone = disjoint(problem.split.right, problem.config.future)
            ours = ours[0][::stride], np.union1d(ours[1][::stride], alone)
        rows = [np.array(one) for one in ours]
        before = score(make(problem, problem.split.left[rows[0]]), left.take(rows[0]), problem)
        after = score(make(problem, problem.split.right[rows[1]]), right.take(rows[1]), problem)
        ratios = np.full(len(right), np.nan)
        ratios[rows[1]] = after.ratios
        found[name] = {
            "train": before.figures,
            "test": after.figures,
            "ratios": ratios,
            "weights": after.weights,
            "seconds": time.perf_counter() - begun,
        }
    return found
