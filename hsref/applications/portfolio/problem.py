"""The checked problem that prices and settings lead to."""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._checkpoint import Checkpoint
from .._common import InputError
from .._training import Task
from .config import PortfolioConfig, arms_of
from .mandate import Budget, Mandate, Trade
from .prices import Prices
from .windows import Examples, Scaler, Split, make_examples, split_windows

DEFAULT_GROUP = ("AAPL", "AMD", "MSFT")
"""The technology stocks of the default prices."""


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
    mandate : Budget or Trade
        What the weights must meet.
    split, tuning_split : Split
        Training against test days; fitting against validation days.
    key : str
        Digest of all of the above, by which problems compare and hash.
    checkpoints : str or None
        Folder where runs keep their state.
    """

    config: PortfolioConfig = field(compare=False)
    returns: np.ndarray = field(compare=False, repr=False)
    dates: tuple[str, ...] = field(compare=False, repr=False)
    tickers: tuple[str, ...] = field(compare=False)
    source: str = field(compare=False)
    mandate: Mandate = field(compare=False, repr=False)
    split: Split = field(compare=False, repr=False)
    tuning_split: Split = field(compare=False, repr=False)
    key: str
    checkpoints: str | None = field(default=None, compare=False)

    @property
    def n(self) -> int:
        """Number of stocks."""
        return len(self.tickers)

    @property
    def trained(self) -> tuple[str, ...]:
        """The arms whose networks are trained."""
        return self.mandate.trained

    @property
    def arms(self) -> tuple[str, ...]:
        """All arms, in the order of the report."""
        return arms_of(self.trained)

    @property
    def group(self) -> tuple[int, ...]:
        """Columns of the preferred group; none under a turnover bound."""
        members = self.mandate.group if isinstance(self.mandate, Budget) else ()
        return tuple(int(i) for i in np.flatnonzero(members))

    def constraints(self) -> Any:
        """Return the set that is projected onto, with the data of no window in particular."""
        return self.mandate.set

    def checkpoint(self, task: Task) -> Checkpoint | None:
        """Return where the run `task` keeps its state, if anywhere."""
        if self.checkpoints is None:
            return None
        return Checkpoint.of(self.checkpoints, self.key, task)

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


def make_problem(
    config: PortfolioConfig, prices: Prices, checkpoints: str | os.PathLike[str] | None = None
) -> Problem:
    """Check that `prices` and `config` go together.

    Parameters
    ----------
    config : PortfolioConfig
    prices : Prices
    checkpoints : path-like or None
        Where training runs keep their state.

    Returns
    -------
    Problem

    Raises
    ------
    InputError
        For an unknown ticker in the group, constraints that no portfolio meets, sector caps
        without sectors, or a history too short for one window of training, validation and test
        each.
    """
    group = () if config.turnover is not None else _group(config, prices)
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
    if config.turnover is not None:
        growth = np.concatenate([np.ones((1, returns.shape[1])), np.cumprod(1.0 + returns, axis=0)])
        mandate: Mandate = Trade(growth, config.past, config.turnover)
    else:
        mandate = _budget(config, prices, group)
    parts = (config, prices.tickers, prices.dates, prices.sectors, group)
    digest = hashlib.sha256(repr(parts).encode())
    digest.update(np.ascontiguousarray(returns).tobytes())
    return Problem(
        config,
        returns,
        prices.dates[1:],
        prices.tickers,
        prices.source,
        mandate,
        split,
        tuning,
        digest.hexdigest(),
        None if checkpoints is None else str(checkpoints),
    )


def _budget(config: PortfolioConfig, prices: Prices, group: tuple[int, ...]) -> Budget:
    """Return the covering constraint with its caps; raise where no portfolio meets them."""
    n, inside, cap = len(prices.tickers), len(group), config.cap or math.inf
    # round-off must not refuse cap = 1/n, the one portfolio that meets it
    if cap * n < 1.0 - 1e-12:
        raise InputError(
            f"no portfolio meets the constraints: {n} stocks capped at {cap:g} hold at most "
            f"{cap * n:g}, not 1."
        )
    if cap * inside < config.at_least - 1e-12:
        raise InputError(
            f"no portfolio meets the constraints: the {inside} stocks of the group capped at "
            f"{cap:g} hold at most {cap * inside:g}, not {config.at_least:g}."
        )
    mask = np.zeros(n, dtype=bool)
    mask[list(group)] = True
    labels, names = np.full(n, -1, dtype=np.int64), ()
    if config.sector_cap is not None:
        if prices.sectors is None:
            raise InputError(
                f"a cap on sectors needs the sector of every stock, and {prices.source} has none; "
                "hand in a file of them (--sectors FILE.csv, load_sectors)."
            )
        of = prices.sectors
        names = tuple(dict.fromkeys(of[j] for j in range(n) if not mask[j]))
        labels = np.array([-1 if mask[j] else names.index(of[j]) for j in range(n)])
        rooms = [min(config.sector_cap, cap * int((labels == k).sum())) for k in range(len(names))]
        if sum(rooms) + cap * inside < 1.0 - 1e-12:
            raise InputError(
                f"no portfolio meets the constraints: {len(names)} sectors capped at "
                f"{config.sector_cap:g} and the group's {inside} stocks capped at {cap:g} hold at "
                f"most {sum(rooms) + cap * inside:g}, not 1."
            )
    return Budget(mask, config.at_least, config.cap, labels, config.sector_cap, names)


def _group(config: PortfolioConfig, prices: Prices) -> tuple[int, ...]:
    """Return the columns of the preferred group."""
    tickers = prices.tickers
    if config.group is None:
        names: tuple[str, ...] = prices.favoured or DEFAULT_GROUP
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
