"""A synthetic market of many stocks: a factor model with calm and turbulent regimes.

Made where no redistributable prices of several hundred stocks exist. Nothing it shows says
anything about real markets; it has their size, their factor structure and their heavy tails.
"""

from __future__ import annotations

import numpy as np

from .._common import check_whole
from .prices import Prices

DAYS = 5040
"""Twenty years of trading days."""
STYLES = 6
"""Factors besides the market and the sectors."""
SECTORS = 11
FAVOURED = 5
"""Stocks in the preferred group: the first ones, in several sectors."""
MIXED = 20
"""Fewest stocks; below it a sector would hold one or none."""


def synthetic_prices(n: int, days: int = DAYS, seed: int = 0) -> Prices:
    r"""Return prices of n invented stocks.

    .. math::
        r_{td} = a_j + \beta_j m_d + \textstyle\sum_k b_{jk} f_{kd} + \gamma_j s_{\sigma(j) d}
        + \varepsilon_{jd}

    with a market m, styles f, sectors s and own noise ε. A two-state Markov chain switches between
    calm days and turbulent ones (on average one day in six, in spells of 40), when the market falls
    a little and everything moves about twice as much; noise is Student's t with 5 degrees of
    freedom.

    Parameters
    ----------
    n : int
        Stocks, at least 20.
    days : int
        Days of prices.
    seed : int

    Returns
    -------
    Prices
        With sectors; tickers S001, S002, ... Depends on the arguments alone.

    Raises
    ------
    InputError
        For too few stocks or days.

    Examples
    --------
    >>> made = synthetic_prices(20, days=300)
    >>> made.values.shape, made.tickers[:2], made.source[:9]
    ((300, 20), ('S001', 'S002'), 'synthetic')
    """
    check_whole("assets", n, MIXED)
    check_whole("days", days, 2)
    rng = np.random.default_rng([seed, 7])
    sector = rng.permutation(np.arange(n) % SECTORS)
    beta = rng.normal(1.0, 0.3, n)
    loadings = rng.normal(0.0, 1.0, (n, STYLES))
    gamma = rng.uniform(0.5, 1.5, n)
    own = rng.uniform(0.008, 0.02, n)
    # what a stock is paid for besides its factors: small beside what it moves by
    alpha = rng.normal(0.0, 0.03, n) / 252.0

    turbulent = np.empty(days, dtype=bool)
    draws, state = rng.random(days), False
    for d in range(days):
        state = draws[d] < (1.0 - 1.0 / 40.0 if state else 1.0 / 200.0)
        turbulent[d] = state
    scale = np.where(turbulent, 2.0, 1.0)[:, None]
    drift = np.where(turbulent, -0.10, 0.14) / 252.0
    market = drift + 0.008 * scale[:, 0] * rng.standard_normal(days)
    premium = rng.normal(0.0, 0.01, STYLES) / 252.0
    styles = premium + 0.0025 * scale * rng.standard_normal((days, STYLES))
    sectors = 0.004 * scale * rng.standard_normal((days, SECTORS))
    noise = rng.standard_t(5.0, (days, n)) * np.sqrt(3.0 / 5.0)
    returns = (
        alpha + market[:, None] * beta + styles @ loadings.T + sectors[:, sector] * gamma
        + own * np.sqrt(scale) * noise
    )  # fmt: skip
    # prices stay positive whatever the tails do
    values = 100.0 * np.cumprod(1.0 + np.maximum(returns, -0.9), axis=0)
    values.setflags(write=False)
    first = np.datetime64("2001-01-01")
    dates = np.busday_offset(first, np.arange(days), roll="forward").astype(str)
    tickers = tuple(f"S{j + 1:03d}" for j in range(n))
    return Prices(
        values,
        tickers,
        tuple(dates.tolist()),
        f"synthetic (factor model with regimes, seed {seed}; invented dates)",
        tuple(f"sector {k + 1}" for k in sector),
        tickers[:FAVOURED],
    )
