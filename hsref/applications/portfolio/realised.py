"""What portfolios earned on the days that followed, from the daily returns themselves.

A window is scored by the mean and the variance of its portfolio's own daily returns. No covariance
matrix of the stocks is formed, so the memory of a batch grows with its days, not with the square
of the number of stocks.
"""

from __future__ import annotations

from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.extend import defvjp, primitive

from hsref._jit import device_function

from .windows import DAYS_A_YEAR


@device_function
def earned(weights, market, starts, out):
    """Write to `out` (k, h) the sum over stocks of weights (k, n) times market (n, days)."""
    count, n = weights.shape
    length = out.shape[1]
    for b in range(count):
        for d in range(length):
            out[b, d] = 0.0
        for j in range(n):
            w = weights[b, j]
            if w != 0.0:
                for d in range(length):
                    out[b, d] += w * market[j, starts[b] + d]


@device_function
def earned_reverse(g, market, starts, out):
    """Write to `out` (k, n) the product of g (k, h) with the transpose of :func:`earned`."""
    count, n = out.shape
    length = g.shape[1]
    for b in range(count):
        for j in range(n):
            total = 0.0
            for d in range(length):
                total += g[b, d] * market[j, starts[b] + d]
            out[b, j] = total


@primitive
def daily_returns(weights: Any, market: np.ndarray, starts: np.ndarray, length: int) -> Any:
    r"""Return what each portfolio earned on each of its days.

    .. math:: p_{kd} = \sum_j w_{kj}\, r_{j, t_k + d}, \qquad d = 0, \dots, h - 1

    Parameters
    ----------
    weights : array, shape (k, n)
    market : ndarray, shape (n, days)
        Daily returns, one row a stock.
    starts : ndarray of int64, shape (k,)
        First days t.
    length : int
        Days h.

    Returns
    -------
    array, shape (k, h)
        Differentiable by autograd in the weights, once, in reverse mode. Costs O(k n h) time and
        O(k h) memory.

    Examples
    --------
    >>> market = np.array([[0.0, 0.1, 0.2], [0.0, -0.1, 0.0]])
    >>> daily_returns(np.array([[0.5, 0.5]]), market, np.array([1]), 2).round(12).tolist()
    [[0.0, 0.1]]
    """
    out = np.empty((len(weights), length))
    earned(np.ascontiguousarray(weights), market, starts, out)
    return out


def _reverse(g: Any, market: np.ndarray, starts: np.ndarray) -> np.ndarray:
    out = np.empty((len(g), len(market)))
    earned_reverse(np.ascontiguousarray(g), market, starts, out)
    return out


defvjp(
    daily_returns,
    lambda ans, weights, market, starts, length: lambda g: _reverse(g, market, starts),
    argnums=(0,),
)


def sharpe(
    weights: Any,
    market: np.ndarray,
    starts: np.ndarray,
    length: int,
    risk_free: float,
    epsilon: float,
) -> Any:
    r"""Return the annualised Sharpe ratio of each window.

    .. math::
        \frac{252\,\bar p - r_f}{\sqrt{252\, s^2 + \varepsilon}}, \qquad
        s^2 = \frac{1}{h-1} \sum_d (p_d - \bar p)^2

    with p the daily returns of the portfolio, held at constant weights. This is
    :math:`(\mu^\top w - r_f) / \sqrt{w^\top \Sigma w + \varepsilon}` with the annualised sample
    moments of the window.

    Parameters
    ----------
    weights, market, starts, length
        As for :func:`daily_returns`.
    risk_free, epsilon : float
        Annual rate; added under the root.

    Returns
    -------
    array, shape (k,)
        Differentiable by autograd.

    Examples
    --------
    >>> market = np.array([[0.001, 0.003]])
    >>> one = sharpe(np.array([[1.0]]), market, np.array([0]), 2, 0.0, 0.0)
    >>> bool(np.isclose(one[0], 252 * 0.002 / np.sqrt(252 * 2e-6)))
    True
    """
    days = daily_returns(weights, market, starts, length)
    mean = anp.mean(days, axis=1)
    variance = anp.sum((days - mean[:, None]) ** 2, axis=1) / (length - 1)
    return (DAYS_A_YEAR * mean - risk_free) / anp.sqrt(DAYS_A_YEAR * variance + epsilon)
