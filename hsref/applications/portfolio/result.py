"""What a portfolio run returns, and what goes into its files."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._common import over_seeds, versions
from .problem import Problem
from .windows import disjoint

if TYPE_CHECKING:
    from .costs import Costs

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
    "torch",
    "cvxpy",
    "cvxpylayers",
    "diffcp",
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
        Configuration, returns, split, mandate.
    seeds : dict of str to list of SeedResult
        Reported runs of each trained arm, in the order of ``config.seeds``.
    references : dict of str to dict
        ``train`` and ``test`` figures, ``ratios`` and ``weights`` of the test windows, ``seconds``
        for the arms that learn nothing, and for ``equal_weight_projected``, a control.
    tuning : dict of str to dict
        Mean validation score of each learning rate of each arm; for ``softmax_penalty`` at the
        price that was chosen.
    penalties : dict of float to dict
        The same for each price of ``softmax_penalty``.
    penalty : float
        The price chosen.
    study : list of (float, float, list of dict)
        Temperature, scale and the figures of each seed (:func:`study_row`); empty without a study.
    costs : Costs
        Time and memory of one step of every arm, measured in turn.
    conic : dict or None
        What a conic-programming layer took on a part of the windows; None where none is installed.
    memory : int
        Most bytes held by any process that trained.
    seconds : float
        Wall time of this call; of its last part, if it was interrupted.
    processor_seconds : float
        In the training steps of all runs, tuning and earlier calls included.
    """

    problem: Problem
    seeds: dict[str, list[SeedResult]]
    references: dict[str, dict[str, Any]]
    tuning: dict[str, dict[float, float]]
    penalties: dict[float, dict[float, float]]
    penalty: float
    study: list[tuple[float, float, list[dict[str, float]]]]
    costs: Costs
    conic: dict[str, Any] | None
    memory: int
    seconds: float
    processor_seconds: float

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
        arms = {name: self.arm(name) for name in self.problem.arms}
        for name, cost in self.costs.arms.items():
            arms[name]["cost"] = cost
        return {"command": command, "versions": versions(*PACKAGES), "arms": arms}

    def test_ratios(self, arm: str) -> np.ndarray:
        """Return the Sharpe ratio of each test window, averaged over seeds, shape (k,).

        NaN for windows that a reference was not computed for.
        """
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


def study_row(run: Any) -> dict[str, float]:
    """Return what the study keeps of one run of projection."""
    first, train, test = run.history[0], run.train["projection"], run.test["projection"].figures
    return {
        "seed": run.task.seed,
        "start_dead": first["train_dead_fraction"],
        "start_rank": first["train_mean_rank"],
        "dead": train["dead_fraction"],
        "rank": train["mean_rank"],
        "test_dead": test["dead_fraction"],
        "train_sharpe": train["sharpe"],
        "test_sharpe": test["sharpe"],
        "violation": test["violation"],
    }
