"""A small portfolio problem on random walks, and what its tests share."""

from __future__ import annotations

import numpy as np
import pandas

from hsref.applications import portfolio

TICKERS = ("AA", "BB", "CC", "DD", "EE", "FF")
SMALL = portfolio.PortfolioConfig(
    group=("BB", "CC"),
    past=20,
    future=10,
    seeds=(0, 1),
    tuning_seeds=(7,),
    learning_rates=(1e-3, 1e-2),
    penalties=(1.0, 10.0),
    epochs=2,
    batch_size=64,
    hidden=(8,),
)


def walk(days: int = 260, n: int = len(TICKERS), seed: int = 0) -> np.ndarray:
    """Return prices of n stocks: a geometric random walk with drift."""
    rng = np.random.default_rng(seed)
    steps = 0.0005 * np.arange(n) + 0.01 * rng.standard_normal((days, n))
    return 50.0 * np.exp(np.cumsum(steps, axis=0))


def frame(values: np.ndarray | None = None, tickers=TICKERS):
    values = walk() if values is None else values
    return pandas.DataFrame(
        values, index=pandas.bdate_range("2001-01-01", periods=len(values)), columns=list(tickers)
    )


def assert_one_sentence(error: Exception) -> None:
    text = str(error)
    assert "\n" not in text
    assert text.endswith(".")
