"""Portfolios of real stocks whose weights hold linear constraints exactly.

A network reads 120 days of prices and returns the weights held over the next 120 days. Its output
layer is the Euclidean projection onto {w ≥ 0, Σw = 1, Σ_S w ≥ 0.5} for a preferred group S, and
it is trained through the HS-Jacobian of that projection, beside the ways people use instead.

======================  ========================================================================
arm                     what it is
======================  ========================================================================
``projection``          network → projection, trained end to end
``softmax``             network → softmax; does not know the constraint on the group
``softmax_penalty``     network → softmax; pays for shortfall during training
``linsat``              network → Sinkhorn's iterations extended to these constraints
``train_then_project``  the network of ``softmax``; its weights are projected when used
``equal_weight``        1/n in every stock; learns nothing
``mean_variance``       largest past Sharpe ratio under the constraints; learns nothing
======================  ========================================================================

Examples
--------
>>> from hsref.applications import portfolio
>>> config = portfolio.PortfolioConfig(seeds=(0, 1, 2), at_least=0.4)
>>> config.group is None, config.seeds
(True, (0, 1, 2))

``portfolio.train(config)`` then trains (a minute or two) and returns a
:class:`PortfolioResult`; its ``save(folder)`` writes report, pictures and numbers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .._common import over_seeds, versions
from .._training import Progress, Task, best_rate, sweep
from .config import ARMS, TRAINED, PortfolioConfig
from .problem import Problem, make_problem
from .prices import Prices, load_prices, prices_from_frame
from .windows import disjoint

__all__ = [
    "ARMS",
    "PortfolioConfig",
    "PortfolioResult",
    "Prices",
    "SeedResult",
    "load_prices",
    "prices_from_frame",
    "train",
]

REFERENCE_STRIDE = 5
"""Every how many training windows mean–variance is solved for; each is a quadratic program."""

PACKAGES = (
    "hsref",
    "numpy",
    "scipy",
    "numba",
    "autograd",
    "pandas",
    "skfolio",
    "clarabel",
    "matplotlib",
)


@dataclass(frozen=True)
class SeedResult:
    """One reported training run of one arm.

    Attributes
    ----------
    seed : int
    learning_rate : float
    seconds : float
        Processor seconds of the training steps, without evaluation.
    train, test : dict of str to float
        Figures of the trained network on all windows of that side.
    history : list of dict
        One entry an epoch.
    ratios, weights : ndarray, shapes (k,) and (k, n)
        Sharpe ratio and portfolio of each test window.
    """

    seed: int
    learning_rate: float
    seconds: float
    train: dict[str, float]
    test: dict[str, float]
    history: list[dict[str, float]] = field(repr=False)
    ratios: np.ndarray = field(repr=False)
    weights: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class PortfolioResult:
    """What :func:`train` returns.

    Attributes
    ----------
    problem : Problem
        Configuration, returns, split.
    seeds : dict of str to list of SeedResult
        Reported runs of each trained arm, in the order of ``config.seeds``.
    references : dict of str to dict
        ``train`` and ``test`` figures, ``ratios`` and ``weights`` of the test windows, ``seconds``
        for the arms that learn nothing, and for ``equal_weight_projected``, a control.
    tuning : dict of str to dict
        Mean validation score of each learning rate of each arm.
    seconds : float
        Wall time of the whole call.
    """

    problem: Problem
    seeds: dict[str, list[SeedResult]]
    references: dict[str, dict[str, Any]]
    tuning: dict[str, dict[float, float]]
    seconds: float

    def arm(self, name: str) -> dict[str, Any]:
        """Return the entry of one arm in ``results.json``.

        Means over seeds, with ``sharpe_se`` the standard error of the mean; ``violation`` is the
        largest of any seed.
        """
        if name in self.references:
            found = self.references[name]
            train, test = dict(found["train"]), dict(found["test"])
            return {"train": train | {"seconds": found["seconds"]}, "test": test, "seeds": []}
        runs = self.seeds[name]
        sides = [
            over_seeds([getattr(run, side) for run in runs], ("violation",), ("sharpe", "loss"))
            for side in ("train", "test")
        ]
        sides[0]["seconds"] = float(np.mean([run.seconds for run in runs]))
        rows = [
            {
                "seed": run.seed,
                "learning_rate": run.learning_rate,
                "seconds": run.seconds,
                "train": run.train,
                "test": run.test,
                "history": run.history,
            }
            for run in runs
        ]
        return {"train": sides[0], "test": sides[1], "seeds": rows}

    def results(self, command: str = "") -> dict[str, Any]:
        """Return what goes into ``results.json``."""
        return {
            "command": command,
            "versions": versions(*PACKAGES),
            "arms": {name: self.arm(name) for name in ARMS},
        }

    def test_ratios(self, arm: str) -> np.ndarray:
        """Return the Sharpe ratio of each test window, averaged over seeds, shape (k,)."""
        if arm in self.references:
            return self.references[arm]["ratios"]
        return np.mean([run.ratios for run in self.seeds[arm]], axis=0)

    def independent(self) -> np.ndarray:
        """Return the positions of test windows whose targets share no day."""
        return disjoint(self.problem.split.right, self.problem.config.future)

    def save(self, folder: str | os.PathLike[str], command: str = "") -> Path:
        """Write ``report.md``, the pictures, ``results.json`` and ``details.json``.

        Parameters
        ----------
        folder : path-like
            Made if need be; files of the same names are replaced.
        command : str
            How this result was made, for the report.

        Returns
        -------
        pathlib.Path
            The folder.
        """
        from .report import save

        return save(self, folder, command)


def train(
    config: PortfolioConfig | None = None,
    prices: Prices | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
    executor: Executor | None = None,
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

    Returns
    -------
    PortfolioResult
        Depends on `config` and `prices` alone (times apart), bit by bit on one machine.

    Raises
    ------
    InputError
        Where prices and configuration do not go together, in one sentence.
    MissingExtraError
        If a package of the ``apps`` extra is missing.

    Notes
    -----
    The learning rate of each arm is the one, of a common grid, with the best mean score over
    ``tuning_seeds`` on the last part of the training days. Then every arm is trained afresh on
    all training days with ``seeds``. Test days are looked at only to draw curves and to report.
    """
    from . import model

    begun = time.perf_counter()
    config = config or PortfolioConfig()
    problem = make_problem(config, prices or load_prices())
    references = _references(problem)

    tuned = [
        Task(arm, "tune", seed, rate)
        for arm in TRAINED
        for rate in config.learning_rates
        for seed in config.tuning_seeds
    ]
    # a first guess: more if train_then_project prefers another learning rate than softmax
    count = [0, len(tuned) + len(TRAINED) * len(config.seeds)]

    def ended(task: Task) -> None:
        count[0] += 1
        if progress is not None:
            progress(Progress(count[0], count[1], task, time.perf_counter() - begun))

    scored = sweep(model.run, problem, tuned, executor, ended)
    tuning, rates = {}, {}
    for arm in (*TRAINED, "train_then_project"):
        network = "softmax" if arm == "train_then_project" else arm
        scores = [run.scores.get(arm, -np.inf) for run in scored]
        rates[arm], tuning[arm] = best_rate(tuned, scores, network)

    final = {
        (network, rate): [Task(network, "final", seed, rate) for seed in config.seeds]
        for network, rate in dict.fromkeys(
            ("softmax" if arm == "train_then_project" else arm, rate) for arm, rate in rates.items()
        )
    }
    tasks = [task for group in final.values() for task in group]
    count[1] = len(tuned) + len(tasks)
    found = dict(zip(tasks, sweep(model.run, problem, tasks, executor, ended)))
    seeds = {}
    for arm, rate in rates.items():
        network = "softmax" if arm == "train_then_project" else arm
        seeds[arm] = [_seed_result(found[task], arm) for task in final[network, rate]]
    return PortfolioResult(problem, seeds, references, tuning, time.perf_counter() - begun)


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


def _references(problem: Problem) -> dict[str, dict[str, Any]]:
    """Return the arms that learn nothing, and equal weight moved into the constraints."""
    import hsref

    from .model import score
    from .references import equal_weight, mean_variance

    left, right = problem.examples("final")

    def moved(problem: Problem, starts: np.ndarray) -> np.ndarray:
        return hsref.project(equal_weight(problem, starts), problem.constraints())

    found = {}
    for name, make in (
        ("equal_weight", equal_weight),
        ("mean_variance", mean_variance),
        ("equal_weight_projected", moved),
    ):
        begun = time.perf_counter()
        rows = np.arange(0, len(left), REFERENCE_STRIDE if name == "mean_variance" else 1)
        before = score(make(problem, problem.split.left[rows]), left.take(rows), problem)
        after = score(make(problem, problem.split.right), right, problem)
        found[name] = {
            "train": before.figures,
            "test": after.figures,
            "ratios": after.ratios,
            "weights": after.weights,
            "seconds": time.perf_counter() - begun,
        }
    return found
