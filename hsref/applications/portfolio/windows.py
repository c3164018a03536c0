"""Windows of daily returns: past in, future out, split in time so that no target leaks."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

DAYS_A_YEAR = 252
"""Trading days a year, by which daily means and covariances are annualised."""


@dataclass(frozen=True)
class Split:
    """First days of the target windows on each side of a boundary in time.

    A window with target start ``t`` reads the days ``t − past, ..., t − 1`` and is scored on the
    days ``t, ..., t + future − 1``. Every target on the left ends before ``boundary``, every
    target on the right starts at or after it: no day is a target on both sides. The inputs on the
    right may reach back over the boundary, for at that time those days are known.

    Attributes
    ----------
    left, right : ndarray of int64, shape (k,)
        Target starts, in order of time.
    boundary : int
        First day (row of the returns) that belongs to the right.
    """

    left: np.ndarray
    right: np.ndarray
    boundary: int

    def thinned(self, stride: int) -> Split:
        """Return the same split with every `stride`-th window on the left."""
        return Split(self.left[::stride], self.right, self.boundary)


def split_windows(days: int, past: int, future: int, fraction: float) -> Split:
    """Split the windows of `days` days of returns at ``floor(fraction * days)``.

    Parameters
    ----------
    days, past, future : int
        Rows of returns; length of the input and of the target, in days.
    fraction : float in (0, 1)
        Part of the days that belongs to the left.

    Returns
    -------
    Split
        One window a day; either side is empty where the history is too short.

    Examples
    --------
    >>> split = split_windows(days=12, past=3, future=2, fraction=0.75)
    >>> split.left.tolist(), split.right.tolist(), split.boundary
    ([3, 4, 5, 6, 7], [9, 10], 9)
    """
    boundary = int(np.floor(fraction * days))
    left = np.arange(past, max(past, boundary - future + 1))
    first = max(past, boundary)
    right = np.arange(first, max(first, days - future + 1))
    return Split(left, right, boundary)


def disjoint(starts: np.ndarray, future: int) -> np.ndarray:
    """Return positions in `starts` of targets that share no day, the first one included.

    Examples
    --------
    >>> disjoint(np.array([9, 10, 11, 12, 13, 14]), future=3).tolist()
    [0, 3]
    """
    chosen: list[int] = []
    free_from = -1
    for position, start in enumerate(starts.tolist()):
        if start >= free_from:
            chosen.append(position)
            free_from = start + future
    return np.array(chosen, dtype=np.int64)


@dataclass(frozen=True)
class Scaler:
    """Mean and standard deviation of each stock's daily return, from training days only.

    Attributes
    ----------
    mean, std : ndarray, shape (n,)
        Per day.
    """

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def fit(cls, returns: np.ndarray) -> Scaler:
        """Measure `returns`, shape (days, n)."""
        std = returns.std(axis=0)
        return cls(returns.mean(axis=0), np.where(std > 0.0, std, 1.0))


@dataclass(frozen=True)
class Examples:
    """What a network reads and what it is scored on, one window an entry of `starts`.

    The days are kept once, for all windows; inputs are gathered when asked for.

    Attributes
    ----------
    starts : ndarray of int64, shape (k,)
        First days of the targets.
    market : ndarray, shape (n, days)
        Daily returns, one row a stock.
    pooled : ndarray, shape (days − pool + 1, n)
        Standardised returns, summed over the `pool` days from each on and divided by √pool.
    past, future, pool : int
        Days in the input and in the target, and days summed into one input.
    forecast : ndarray, shape (k, n)
        What the forecast head is asked for: the target's mean daily return of each stock, in
        units of the standard deviation such a mean has when days are independent.
    """

    starts: np.ndarray
    market: np.ndarray
    pooled: np.ndarray
    past: int
    future: int
    pool: int
    forecast: np.ndarray

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.starts)

    @property
    def inputs(self) -> np.ndarray:
        """Return what a network reads, shape (k, past // pool * n)."""
        blocks = np.arange(self.past // self.pool) * self.pool
        rows = (self.starts - self.past)[:, None] + blocks
        return self.pooled[rows].reshape(len(self.starts), -1)

    def take(self, rows: np.ndarray) -> Examples:
        """Return the windows `rows`."""
        return dataclasses.replace(self, starts=self.starts[rows], forecast=self.forecast[rows])


def make_examples(
    returns: np.ndarray, starts: np.ndarray, past: int, future: int, pool: int, scaler: Scaler
) -> Examples:
    """Return the windows whose targets start on the days `starts`.

    Parameters
    ----------
    returns : ndarray, shape (days, n)
        Daily returns. Not modified.
    starts : ndarray of int, shape (k,)
        First days of the targets.
    past, future : int
        Days in the input and in the target.
    pool : int
        Days summed into one input; divides `past`.
    scaler : Scaler
        From training days only.

    Returns
    -------
    :class:`Examples`
        One row a window.
    """
    scaled = (returns - scaler.mean) / scaler.std
    pooled = np.lib.stride_tricks.sliding_window_view(scaled, pool, axis=0).sum(axis=-1)
    # sums over all earlier days, so that a mean over any window is a difference
    before = np.concatenate([np.zeros((1, scaled.shape[1])), np.cumsum(scaled, axis=0)])
    forecast = (before[starts + future] - before[starts]) / np.sqrt(future)
    market = np.ascontiguousarray(returns.T)
    return Examples(starts, market, pooled / np.sqrt(pool), past, future, pool, forecast)
