"""Partial matching of points in two views, with rows, columns and the number of matches exact.

A network scores the pairs of m left and n right points; its output layer makes a partial matching
of them. Two worlds: regions of a real stereo pair, with keypoints detected in each view on its own,
so that the outliers are real; and random geometric graphs, where noise and outliers can be turned
up. The output layer of this package is a Euclidean projection, trained through its HS-Jacobian,
beside the layers people use instead.

========================  ======================================================================
arm                       what it is
========================  ======================================================================
``projection``            projection onto partial matchings with k matches, trained end to end
``substochastic``         projection onto rows and columns ≤ 1; not told k
``softmax``               rows of a softmax with "no partner"; not told k
``sinkhorn``              Sinkhorn with a row and a column for "no partner"; not told k
``linsat``                Sinkhorn extended to several constraints, told k
``mutual_nearest``        mutual nearest descriptors with a ratio test; learns one number
``descriptor_hungarian``  assignment of least descriptor distance, told k; learns nothing
========================  ======================================================================

Examples
--------
>>> from hsref.applications import matching
>>> matching.MatchingConfig(seeds=(0, 1), m=12, n=12).loss
'bce'

``matching.train(config)`` then trains and returns a :class:`MatchingResult`; its ``save(folder)``
writes report, pictures and numbers.
"""

from __future__ import annotations

import functools
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
from .config import ARMS, TRAINED, UNTRAINED, WORLDS, MatchingConfig
from .pairs import ImagePair, checked_pair, load_pair
from .problem import Problem, data_of, graph_problem, image_problem

__all__ = [
    "ARMS",
    "ImagePair",
    "MatchingConfig",
    "MatchingResult",
    "TRAINED",
    "checked_pair",
    "load_pair",
    "train",
]

PACKAGES = ("hsref", "numpy", "scipy", "numba", "autograd", "scikit-image", "matplotlib")

LARGEST = ("violation", "marginal_violation", "memory")
"""Figures of which the largest over seeds is reported, not the mean."""


@dataclass(frozen=True)
class MatchingResult:
    """What :func:`train` returns.

    Attributes
    ----------
    problems : dict of str to Problem
        By world.
    pair : ImagePair
    runs : dict of (str, str) to list of Run
        Reported runs by world and arm, in the order of ``config.seeds``.
    untrained : dict of (str, str) to (Evaluation, Evaluation)
        Train and test evaluation of the arms that are not trained.
    tuning : dict of (str, str) to dict
        Mean validation F1 of each learning rate; empty where there is one rate, which is taken.
    seconds : float
        Wall time of this call.
    """

    problems: dict[str, Problem]
    pair: ImagePair = field(repr=False)
    runs: dict[tuple[str, str], list[Any]] = field(repr=False)
    untrained: dict[tuple[str, str], tuple[Any, Any]] = field(repr=False)
    tuning: dict[tuple[str, str], dict[float, float]]
    seconds: float

    @property
    def config(self) -> MatchingConfig:
        """Return the configuration."""
        return self.problems["images"].config

    def arm(self, world: str, name: str) -> dict[str, Any]:
        """Return the entry of one arm in ``results.json``.

        Means over seeds, with ``f1_se`` and ``loss_se`` the standard errors of the mean; violations
        and ``memory`` (MiB) are the largest of any seed.
        """
        if name in UNTRAINED:
            train, test = (dict(one.figures) for one in self.untrained[world, name])
            return {"train": train, "test": test, "seeds": []}
        runs = self.runs[world, name]
        train, test = (
            over_seeds(figures, LARGEST, ("f1", "loss", "seconds"))
            for figures in (
                [run.train | {"seconds": run.seconds, "memory": run.memory} for run in runs],
                [run.test.figures for run in runs],
            )
        )
        rows = [
            {
                "seed": run.task.seed,
                "learning_rate": run.task.learning_rate,
                "seconds": run.seconds,
                "memory": run.memory,
                "train": run.train,
                "test": run.test.figures,
                "history": run.history,
            }
            for run in runs
        ]
        return {"train": train, "test": test, "seeds": rows}

    def results(self, command: str = "") -> dict[str, Any]:
        """Return what goes into ``results.json``: arms on images, and on graphs as graphs-ARM."""
        arms = {labelled(world, name): self.arm(world, name) for world in WORLDS for name in ARMS}
        return {"command": command, "versions": versions(*PACKAGES), "arms": arms}

    def instance_scores(self, world: str, arm: str) -> np.ndarray:
        """Return the F1 of each test instance, one row a seed, shape (seeds, k)."""
        if arm in UNTRAINED:
            return self.untrained[world, arm][1].scores[None, :]
        return np.stack([run.test.scores for run in self.runs[world, arm]])

    def block_scores(self, world: str, arm: str) -> np.ndarray:
        """Return the mean F1 of each block of test instances, over its instances and all seeds."""
        scores = self.instance_scores(world, arm).mean(axis=0)
        blocks = np.concatenate(
            [group.block for group in data_of(self.problems[world]).test.groups]
        )
        return np.array([scores[blocks == block].mean() for block in np.unique(blocks)])

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


def labelled(world: str, arm: str) -> str:
    """Return the name under which an arm trains and is reported."""
    return arm if world == "images" else f"{world}-{arm}"


def train(
    config: MatchingConfig | None = None,
    pair: ImagePair | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
    executor: Executor | None = None,
    checkpoints: str | os.PathLike[str] | None = None,
) -> MatchingResult:
    """Train every arm with every seed in both worlds, and measure them on what none has seen.

    Parameters
    ----------
    config : MatchingConfig or None
        None takes the defaults.
    pair : ImagePair or None
        From :func:`load_pair` or :func:`checked_pair`. None takes the motorcycle that comes with
        scikit-image.
    progress : callable or None
        Called with a :class:`~hsref.applications._training.Progress` after each training run.
    executor : concurrent.futures.Executor or None
        Where training runs are computed; None computes them one after the other, here. The
        numbers do not depend on it.
    checkpoints : path-like or None
        Folder where runs keep their state; a call that finds it there goes on from it.

    Returns
    -------
    MatchingResult
        Depends on `config` and `pair` alone (times apart), bit by bit on one machine.

    Raises
    ------
    InputError
        Where pair and configuration do not go together, in one sentence, or where a checkpoint is
        damaged.
    MissingExtraError
        If a package of the ``apps`` extra is missing.

    Notes
    -----
    The learning rate of each arm is the one, of a common grid, with the best mean F1 on validation
    instances over ``tuning_seeds``; a single rate is taken as it is, and nothing is trained to
    choose it. The reported runs train afresh on all training instances; test instances are looked
    at only to draw curves and to report.
    """
    from . import model

    begun = time.perf_counter()
    config = config or MatchingConfig()
    pair = pair or load_pair()
    problems = {"images": image_problem(config, pair), "graphs": graph_problem(config)}
    arms = [(world, arm) for world in WORLDS for arm in TRAINED]
    rates = config.learning_rates
    tuned = [
        Task(labelled(world, arm), "tune", seed, rate)
        for world, arm in arms
        for rate in rates
        for seed in config.tuning_seeds
        if len(rates) > 1
    ]
    total = len(tuned) + len(arms) * len(config.seeds)
    done = [0]

    def ended(task: Task) -> None:
        done[0] += 1
        if progress is not None:
            progress(Progress(done[0], total, task, time.perf_counter() - begun))

    run = functools.partial(
        model.run, checkpoints=None if checkpoints is None else os.fspath(checkpoints)
    )
    scored = [one.score for one in sweep(run, problems, tuned, executor, ended)]
    tuning: dict[tuple[str, str], dict[float, float]] = {}
    tasks = []
    for world, arm in arms:
        name = labelled(world, arm)
        rate, tuning[world, arm] = best_rate(tuned, scored, name) if tuned else (rates[0], {})
        tasks += [Task(name, "final", seed, rate) for seed in config.seeds]
    found = dict(zip(tasks, sweep(run, problems, tasks, executor, ended)))
    runs = {
        (world, arm): [found[task] for task in tasks if task.arm == labelled(world, arm)]
        for world, arm in arms
    }
    untrained = {
        (world, arm): sides
        for world in WORLDS
        for arm, sides in model.untrained(problems[world]).items()
    }
    return MatchingResult(problems, pair, runs, untrained, tuning, time.perf_counter() - begun)
