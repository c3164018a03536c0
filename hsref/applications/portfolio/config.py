"""The settings of a portfolio run and the checked problem they lead to."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._common import InputError, check_inside, check_runs, check_whole
from .prices import Prices
from .windows import Examples, Scaler, Split, make_examples, split_windows

DEFAULT_GROUP = ("AAPL", "AMD", "MSFT")
"""The technology stocks of the default prices."""

ARMS = (
    "projection",
    "softmax",
    "softmax_penalty",
    "linsat",
    "train_then_project",
    "equal_weight",
    "mean_variance",
)
"""All arms, in the order of the report."""

TRAINED = ("projection", "softmax", "softmax_penalty", "linsat")
"""The arms whose networks are trained; ``train_then_project`` reuses the network of ``softmax``."""


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
        Price of one unit of shortfall in the arm ``softmax_penalty``.
    iterations : int
        Of the arm ``linsat``.
    forecast_weight : float
        Weight of the forecast's mean squared error in the loss.
    risk_free : float
        Annual rate r_f.
    epsilon : float
        Added to the annual variance under the root.
    """

    group: tuple[str, ...] | None = None
    at_least: float = 0.5
    cap: float | None = None
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
    iterations: int = 20
    forecast_weight: float = 1.0
    risk_free: float = 0.03
    epsilon: float = 1e-8

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
        if self.cap is not None:
            check_inside("cap", self.cap, 0.0, 1.0, open_below=True)
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
            stride=5 * self.stride,
        )


@dataclass(frozen=True)
class Problem:
    """A configuration together with checked returns; what a training run needs to know.

    Attributes
    ----------
    config : PortfolioConfig
    returns : ndarray, shape (days, n)
        Simple daily returns. ``returns[d]`` belongs to ``dates[d]``.
    dates : tuple of str
    tickers : tuple of str
    source : str
    group : tuple of int
        Columns of the preferred group.
    split, tuning_split : Split
        Training against test days; fitting against validation days.
    key : str
        Digest of all of the above, by which problems compare and hash.
    """

    config: PortfolioConfig = field(compare=False)
    returns: np.ndarray = field(compare=False, repr=False)
    dates: tuple[str, ...] = field(compare=False, repr=False)
    tickers: tuple[str, ...] = field(compare=False)
    source: str = field(compare=False)
    group: tuple[int, ...] = field(compare=False)
    split: Split = field(compare=False, repr=False)
    tuning_split: Split = field(compare=False, repr=False)
    key: str

    @property
    def n(self) -> int:
        """Number of stocks."""
        return len(self.tickers)

    @property
    def group_mask(self) -> np.ndarray:
        """Return which stocks belong to the group, bool, shape (n,)."""
        mask = np.zeros(self.n, dtype=bool)
        mask[list(self.group)] = True
        return mask

    def constraints(self) -> Any:
        """Return {w ≥ 0, Σw = 1, Σ_S w ≥ at_least, w ≤ cap} as a :class:`hsref.GroupBudget`."""
        import hsref

        return hsref.GroupBudget(
            self.n,
            np.where(self.group_mask, 0, -1),
            lower=[self.config.at_least],
            upper=[np.inf],
            cap=self.config.cap,
        )

    def examples(self, stage: str) -> tuple[Examples, Examples]:
        """Return the windows to fit and those to score, for the stage ``"tune"`` or ``"final"``.

        Inputs are scaled by the days before the stage's own boundary only.
        """
        split = self.tuning_split if stage == "tune" else self.split
        scaler = Scaler.fit(self.returns[: split.boundary])
        config = self.config
        left, right = (
            make_examples(self.returns, starts, config.past, config.future, config.pool, scaler)
            for starts in (split.left, split.right)
        )
        return left, right


def make_problem(config: PortfolioConfig, prices: Prices) -> Problem:
    """Check that `prices` and `config` go together.

    Parameters
    ----------
    config : PortfolioConfig
    prices : Prices

    Returns
    -------
    Problem

    Raises
    ------
    InputError
        For an unknown ticker in the group, constraints that no portfolio meets, or a history too
        short for one window of training, validation and test each.
    """
    group = _group(config, prices.tickers)
    n, inside = len(prices.tickers), len(group)
    if config.cap is not None:
        # round-off must not refuse cap = 1/n, the one portfolio that meets it
        if config.cap * n < 1.0 - 1e-12:
            raise InputError(
                f"no portfolio meets the constraints: {n} stocks capped at {config.cap:g} hold at "
                f"most {config.cap * n:g}, not 1."
            )
        if config.cap * inside < config.at_least - 1e-12:
            raise InputError(
                f"no portfolio meets the constraints: the {inside} stocks of the group capped at "
                f"{config.cap:g} hold at most {config.cap * inside:g}, not {config.at_least:g}."
            )

    returns = prices.returns()
    days = len(returns)
    split, tuning = _splits(config, days)
    for name, starts in (
        ("training", tuning.left),
        ("validation", tuning.right),
        ("test", split.right),
    ):
        if starts.size == 0:
            need = _shortest_history(config)
            raise InputError(
                f"{prices.source} has {days + 1} days of prices, too few for a {name} window of "
                f"{config.past} + {config.future} days; at least {need} are needed."
            )
    flat = np.flatnonzero(returns[: tuning.boundary].std(axis=0) == 0.0)
    if flat.size:
        raise InputError(
            f"the price of {prices.tickers[int(flat[0])]} never changes during the training days "
            f"(to {prices.dates[tuning.boundary]}); leave it out."
        )
    digest = hashlib.sha256(repr((config, prices.tickers, prices.dates, group)).encode())
    digest.update(np.ascontiguousarray(returns).tobytes())
    return Problem(
        config,
        returns,
        prices.dates[1:],
        prices.tickers,
        prices.source,
        group,
        split,
        tuning,
        digest.hexdigest(),
    )


def _group(config: PortfolioConfig, tickers: tuple[str, ...]) -> tuple[int, ...]:
    """Return the columns of the preferred group."""
    if config.group is None:
        names: tuple[str, ...] = DEFAULT_GROUP
        if not set(names) <= set(tickers):
            names = tickers[: max(1, len(tickers) // 4)]
    else:
        names = config.group
    if not names:
        raise InputError("the preferred group is empty; name at least one ticker.")
    for name in names:
        if name not in tickers:
            shown = ", ".join(tickers[:30]) + (", ..." if len(tickers) > 30 else "")
            raise InputError(f"the group names {name}, which is not among the tickers {shown}.")
    return tuple(sorted({tickers.index(name) for name in names}))


def _splits(config: PortfolioConfig, days: int) -> tuple[Split, Split]:
    """Return the split into training and test, and that of the training days for tuning."""
    past, future, step = config.past, config.future, config.stride
    split = split_windows(days, past, future, config.train_fraction)
    tuning = split_windows(split.boundary, past, future, 1.0 - config.validation_fraction)
    return split.thinned(step), tuning.thinned(step)


def _shortest_history(config: PortfolioConfig) -> int:
    """Return the smallest number of days of prices that leaves a window for every use."""
    days = config.past + config.future
    while True:
        split, tuning = _splits(config, days)
        if tuning.left.size and tuning.right.size and split.right.size:
            return days + 1
        days += 1
