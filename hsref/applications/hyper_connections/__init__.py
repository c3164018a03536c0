"""Hyper-connections: residual streams mixed by doubly stochastic matrices, five ways.

A deep residual network carries n parallel streams; in every block a matrix that depends on the
input mixes them. Where the matrices are doubly stochastic, so are their products over depth, and
signals neither explode nor vanish. A character-level language model on the text of Python's own
help is trained with the following arms.

=================  =============================================================================
arm                the mixing matrix
=================  =============================================================================
``projection``     Euclidean projection onto the doubly stochastic matrices, HS-Jacobian backward
``permutations``   softmax weights of all n! permutation matrices (as in mHC-lite)
``sinkhorn``       20 rounds of Sinkhorn's iteration (as in mHC)
``unconstrained``  whatever the network computes (hyper-connections)
``residual``       none: one stream, a plain residual network of as many parameters
=================  =============================================================================

Examples
--------
>>> from hsref.applications import hyper_connections
>>> config = hyper_connections.HyperConfig(depth=4, depths=(2,), steps=200)
>>> config.streams, config.seeds
(4, (0, 1, 2, 3, 4))

``hyper_connections.train(config)`` then trains (minutes) and returns a :class:`HyperResult`; its
``save(folder)`` writes report, pictures and numbers.

References
----------
Zhu et al., "Hyper-connections", 2024. Xie et al., "mHC: manifold-constrained hyper-connections",
arXiv 2512.24880.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .._common import mean_and_error, versions
from .._training import Progress, Task, best_rate, sweep
from .config import ARMS, CONSTRAINED, HyperConfig, Problem, make_problem

__all__ = ["ARMS", "CONSTRAINED", "HyperConfig", "HyperResult", "train"]

PACKAGES = ("hsref", "numpy", "scipy", "numba", "autograd", "matplotlib")

LARGEST = ("row_error", "column_error", "negative", "gain_max")
"""Figures of which an arm's is the largest of any seed; of the others it is the mean."""


@dataclass(frozen=True)
class HyperResult:
    """What :func:`train` returns.

    Attributes
    ----------
    problem : Problem
        Configuration and text.
    runs : dict of (str, int) to list of Run
        Reported runs by arm and depth, in the order of the seeds.
    tuning : dict of str to dict
        Mean loss on the tuning topics at each learning rate, by arm.
    costs : dict of str to Cost
        What one step takes, by arm.
    seconds : float
        Wall time of this call; of its last part, if it was interrupted.
    resumed : int
        Runs that an earlier call had finished.
    processor_seconds : float
        In the training steps of all runs, tuning and earlier calls included.
    """

    problem: Problem
    runs: dict[tuple[str, int], list[Any]] = field(repr=False)
    tuning: dict[str, dict[float, float]]
    costs: dict[str, Any]
    seconds: float
    resumed: int = 0
    processor_seconds: float = 0.0

    def losses(self, arm: str, depth: int | None = None, part: str = "validation") -> np.ndarray:
        """Return the loss of each seed, nats a character, shape (k,)."""
        runs = self.runs[arm, self.problem.config.depth if depth is None else depth]
        return np.array([run.figures[part]["loss"] for run in runs])

    def arm(self, name: str, depth: int | None = None) -> dict[str, Any]:
        """Return the entry of one arm in ``results.json``.

        Means over seeds, with ``loss_se`` the standard error of the mean; errors of sums and
        ``gain_max`` are the largest of any seed.
        """
        runs = self.runs[name, self.problem.config.depth if depth is None else depth]
        entry: dict[str, Any] = {}
        for part in ("train", "validation"):
            figures = [run.figures[part] for run in runs]
            merged: dict[str, Any] = {}
            for key in dict.fromkeys(key for one in figures for key in one):
                values = [one[key] for one in figures if key in one]
                merged[key] = max(values) if key in LARGEST else np.mean(values, axis=0).tolist()
            merged["loss_se"] = mean_and_error([one["loss"] for one in figures])[1]
            entry[part] = merged
        last = [run.history[-1] for run in runs]
        entry["train"]["gradient_norm"] = float(np.mean([one["gradient_norm"] for one in last]))
        entry["train"]["gradient_norm_max"] = float(
            max(max(one["gradient_norm_max"] for one in run.history) for run in runs)
        )
        entry["train"]["step_seconds"] = float(np.mean([run.step_seconds for run in runs]))
        entry["train"]["parameters"] = runs[0].parameters
        entry["train"]["diverged"] = sum(run.diverged for run in runs)
        entry["seeds"] = [
            {
                "seed": run.task.seed,
                "learning_rate": run.task.learning_rate,
                "step_seconds": run.step_seconds,
                "diverged": run.diverged,
                "train": run.figures["train"],
                "validation": run.figures["validation"],
                "history": run.history,
            }
            for run in runs
        ]
        return entry

    def results(self, command: str = "") -> dict[str, Any]:
        """Return what goes into ``results.json``."""
        arms = {}
        for name in ARMS:
            arms[name] = self.arm(name)
            if name in self.costs:
                arms[name]["cost"] = self.costs[name].as_dict()
            arms[name]["depths"] = {
                str(depth): self.arm(name, depth) for depth in self.problem.config.depths
            }
        return {"command": command, "versions": versions(*PACKAGES), "arms": arms}

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
    config: HyperConfig | None = None,
    topics: Mapping[str, str] | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
    executor: Executor | None = None,
    checkpoints: str | os.PathLike[str] | None = None,
) -> HyperResult:
    """Train every arm with every seed and depth, and measure them on topics none has seen.

    Parameters
    ----------
    config : HyperConfig or None
        None takes the defaults.
    topics : mapping of str to str or None
        Texts by name; None takes the topics of Python's help.
    progress : callable or None
        Called with a :class:`~hsref.applications._training.Progress` after each training run.
    executor : concurrent.futures.Executor or None
        Where training runs are computed; None computes them one after the other, here. The
        numbers do not depend on it.
    checkpoints : path-like or None
        Folder where runs keep their state; a call that finds it there goes on from it.

    Returns
    -------
    HyperResult
        Depends on `config` and `topics` alone (times apart), bit by bit on one machine.

    Raises
    ------
    InputError
        Where text and configuration do not go together, in one sentence, or where a checkpoint is
        damaged.

    Notes
    -----
    The learning rate of each arm is the one, of a common grid, with the least mean loss on the
    tuning topics over ``tuning_seeds``. The reported runs train on the same topics as those, and
    their loss is that on the validation topics, which nothing was chosen by.
    """
    from . import running

    begun = time.perf_counter()
    problem = make_problem(config or HyperConfig(), topics, checkpoints)
    config = problem.config
    tuned = problem.tasks()
    total = len(tuned) + len(problem.reported(dict.fromkeys(ARMS, 0.0)))
    done = [0]

    def ended(task: Task) -> None:
        done[0] += 1
        if progress is not None:
            progress(Progress(done[0], total, task, time.perf_counter() - begun))

    scored = sweep(running.run, problem, tuned, executor, ended)
    tuning, rates = {}, {}
    for arm in ARMS:
        rates[arm], scores = best_rate(tuned, [run.score for run in scored], arm)
        tuning[arm] = {rate: -score for rate, score in scores.items()}

    tasks = problem.reported(rates)
    found = sweep(running.run, problem, tasks, executor, ended)
    runs: dict[tuple[str, int], list[Any]] = {}
    for task, run in zip(tasks, found):
        runs.setdefault((task.arm, task.depth), []).append(run)
    trained = {
        arm: runs[arm, config.depth][0].params
        for arm in ARMS
        if not runs[arm, config.depth][0].diverged
    }
    costs = running.measure_costs(problem, trained)
    every = (*scored, *found)
    return HyperResult(
        problem,
        runs,
        tuning,
        costs,
        seconds=time.perf_counter() - begun,
        resumed=sum(run.resumed for run in every),
        processor_seconds=sum(run.step_seconds * run.history[-1]["step"] for run in every),
    )
