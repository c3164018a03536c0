"""The settings of a portfolio run: arms, training runs, configuration."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from .._common import InputError, check_inside, check_runs, check_whole
from .._training import Task

TRAINED = ("projection", "softmax", "softmax_penalty", "linsat")
"""The arms whose networks are trained under a covering constraint.

Under a turnover bound ``scaled_trade`` takes the place of ``linsat``.
"""

STUDY = "study"
"""The stage of runs that vary the temperature and the initial scale of projection."""


@dataclass(frozen=True)
class PortfolioTask(Task):
    """One training run of this application.

    Attributes
    ----------
    penalty : float
        Price of one unit of shortfall in the loss, for the arm ``softmax_penalty``.
    temperature, scale : float
        Of the arm ``projection``: of its scores, in units of the number of stocks, and of the
        initial weights of its last layer.
    """

    penalty: float = 0.0
    temperature: float = 1.0
    scale: float = 1.0


def arms_of(trained: tuple[str, ...]) -> tuple[str, ...]:
    """Return all arms, in the order of the report; those that learn nothing come last."""
    return (*trained, "train_then_project", "equal_weight", "mean_variance")


ARMS = arms_of(TRAINED)
"""All arms under a covering constraint; ``train_then_project`` uses the network of ``softmax``."""


@dataclass(frozen=True, kw_only=True)
class PortfolioConfig:
    """Everything that decides a portfolio run, apart from the prices themselves.

    Attributes
    ----------
    group : tuple of str or None
        Tickers of the preferred group S. None takes AAPL, AMD and MSFT where the prices have
        them, else the first quarter of the columns.
    at_least : float
        Smallest total weight of the group, in [0, 1].
    cap : float or None
        Largest weight of a single stock, in (0, 1].
    sector_cap : float or None
        Largest weight of a sector, in (0, 1], not counting its stocks in the preferred group.
    turnover : float or None
        Largest ‖w − w_prev‖₁, in (0, 2], where w_prev was bought `past` days before in equal
        parts. It is a mandate of its own: group, share and caps do not apply.
    past, future : int
        Days read and days scored.
    stride : int
        Days from one training window to the next; test windows start on every day.
    train_fraction : float
        Part of the days, from the first, that may be trained on.
    validation_fraction : float
        Last part of the training days, on which learning rates are chosen.
    seeds, tuning_seeds : tuple of int
        Of the reported runs, and of the runs that choose the learning rate. Disjoint.
    learning_rates : tuple of float
        The grid, the same for every arm.
    epochs, batch_size : int
        Passes over the training windows, and windows a step.
    hidden : tuple of int
        Widths of the hidden layers.
    pool : int
        Days summed into one input of the network; divides `past`.
    penalty : float
        Price of one unit of shortfall when learning rates and prices of ``softmax_penalty`` are
        chosen.
    penalties : tuple of float
        Prices that this arm may train with; the best one is chosen together with its step.
    iterations : int
        Of the arm ``linsat``.
    forecast_weight : float
        Weight of the forecast's mean squared error in the loss.
    risk_free : float
        Annual rate r_f.
    epsilon : float
        Added to the annual variance under the root.
    study : bool
        Whether to train projection with other temperatures and initial scales, too.
    temperatures, scales, study_seeds : tuple
        Of those runs.
    """

    group: tuple[str, ...] | None = None
    at_least: float = 0.5
    cap: float | None = None
    sector_cap: float | None = None
    turnover: float | None = None
    past: int = 120
    future: int = 120
    stride: int = 1
    train_fraction: float = 0.75
    validation_fraction: float = 0.2
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    tuning_seeds: tuple[int, ...] = (1000, 1001)
    learning_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2)
    epochs: int = 10
    batch_size: int = 256
    hidden: tuple[int, ...] = (32,)
    pool: int = 5
    penalty: float = 10.0
    penalties: tuple[float, ...] = (1.0, 10.0, 100.0)
    iterations: int = 20
    forecast_weight: float = 1.0
    risk_free: float = 0.03
    epsilon: float = 1e-8
    study: bool = False
    temperatures: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0)
    scales: tuple[float, ...] = (1.0, 10.0, 100.0)
    study_seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self) -> None:
        for name, least in (
            ("past", 2),
            ("future", 2),
            ("stride", 1),
            ("epochs", 1),
            ("batch_size", 1),
            ("pool", 1),
            ("iterations", 1),
        ):
            check_whole(name, getattr(self, name), least)
        check_inside("at_least", self.at_least, 0.0, 1.0)
        for name, most in (("cap", 1.0), ("sector_cap", 1.0), ("turnover", 2.0)):
            if getattr(self, name) is not None:
                check_inside(name, getattr(self, name), 0.0, most, open_below=True)
        if self.turnover is not None and (self.group, self.cap, self.sector_cap) != (None,) * 3:
            raise InputError(
                "a turnover bound is a mandate of its own; leave out the group and the caps."
            )
        for name in ("penalties", "temperatures", "scales"):
            values = getattr(self, name)
            if not values or any(not (0.0 < value < math.inf) for value in values):
                raise InputError(f"{name} must hold positive numbers; got {values}.")
        for name in ("train_fraction", "validation_fraction"):
            check_inside(name, getattr(self, name), 0.0, 1.0, open_below=True, open_above=True)
        for name in ("penalty", "forecast_weight", "epsilon"):
            check_inside(name, getattr(self, name), 0.0, math.inf)
        if self.past % self.pool:
            raise InputError(
                f"pool must divide past; {self.past} days are no multiple of {self.pool}."
            )
        check_runs(self.seeds, self.tuning_seeds, self.learning_rates)
        if not self.hidden or any(int(width) != width or width < 1 for width in self.hidden):
            raise InputError(f"hidden must hold positive whole numbers; got {self.hidden}.")

    def quick(self) -> PortfolioConfig:
        """Return the same protocol with fewer seeds, rates and windows: a look, not a result."""
        return dataclasses.replace(
            self,
            seeds=self.seeds[:2],
            tuning_seeds=self.tuning_seeds[:1],
            learning_rates=self.learning_rates[-2:],
            penalties=self.penalties[-2:-1] or self.penalties,
            study_seeds=self.study_seeds[:1],
            stride=5 * self.stride,
        )

    def wide(self) -> PortfolioConfig:
        """Return the same protocol for hundreds of stocks: coarser inputs, fewer windows a step.

        Windows a day apart share all days but one, so one in four loses little.
        """
        return dataclasses.replace(self, pool=20, stride=4, batch_size=128, epochs=15)
