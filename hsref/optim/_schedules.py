"""Step-size schedules: callables that take the step number k = 0, 1, … to a step size.

A schedule is any callable.  The ones built here are frozen, print themselves, and know their
`exponent` q, where the values behave as k**(-q) for large k: 0 for a constant, infinity for one
that ends at zero.  A schedule of your own may carry an attribute `exponent`, and
`check_conditions` will believe it; without one its rows read "unknown".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def _positive(name: str, value: float) -> float:
    value = float(value)
    if not (value > 0.0 and math.isfinite(value)):
        raise ValueError(f"{name} must be a positive finite number; got {value!r}.")
    return value


@dataclass(frozen=True)
class ConstantSchedule:
    """The same value at every step; see `constant`."""

    value: float
    exponent = 0.0

    def __call__(self, k: Any) -> float:
        return self.value


@dataclass(frozen=True)
class PowerDecay:
    """``c * (k + k0) ** -q``; see `power_decay`."""

    c: float
    k0: float
    q: float

    @property
    def exponent(self) -> float:
        return self.q

    def __call__(self, k: Any) -> Any:
        return self.c * (k + self.k0) ** -self.q


@dataclass(frozen=True)
class CosineSchedule:
    """Half a cosine from ``start`` to ``end`` in ``steps`` steps; see `cosine`."""

    start: float
    steps: int
    end: float

    @property
    def exponent(self) -> float:
        return 0.0 if self.end > 0.0 else math.inf

    def __call__(self, k: Any) -> Any:
        done = (k + self.steps - abs(k - self.steps)) / (2 * self.steps)  # min(k, steps) / steps
        # cos(pi t) is the real part of (-1)**t: plain arithmetic, so a traced k works too.
        half_wave = (complex(-1.0, 0.0) ** done).real
        return self.end + (self.start - self.end) * (1.0 + half_wave) / 2.0


def constant(value: float) -> ConstantSchedule:
    """Keep one step size for ever.

    Parameters
    ----------
    value : float
        The step size, positive.

    Raises
    ------
    ValueError
        ``value must be a positive finite number; got -1.0.``

    Examples
    --------
    >>> constant(0.1)(1000)
    0.1
    """
    return ConstantSchedule(_positive("value", value))


def power_decay(c: float, k0: float = 1.0, q: float = 0.75) -> PowerDecay:
    r"""Decay like a power of the step number.

    .. math:: \eta_k = c\,(k + k_0)^{-q}

    The sum diverges for :math:`q \le 1`, the squares are summable for :math:`q > 1/2`, and
    :math:`\eta_k \log k \to 0` for every :math:`q > 0`.

    Parameters
    ----------
    c : float
        Scale, positive.  The first value is ``c * k0 ** -q``.
    k0 : float
        Offset, positive; roughly the number of steps before the decay is felt.
    q : float
        Exponent, positive.

    Raises
    ------
    ValueError
        ``q must be a positive finite number; got 0.0.`` (likewise ``c`` and ``k0``)

    Examples
    --------
    >>> schedule = power_decay(1.0, k0=4.0, q=0.5)
    >>> schedule(0), schedule(12)
    (0.5, 0.25)
    """
    return PowerDecay(_positive("c", c), _positive("k0", k0), _positive("q", q))


def cosine(start: float, steps: int, end: float = 0.0) -> CosineSchedule:
    r"""Fall from ``start`` to ``end`` along half a cosine, then stay at ``end``.

    .. math:: \eta_k = e + (s - e)\,\tfrac12\bigl(1 + \cos(\pi \min(k, n)/n)\bigr)

    Parameters
    ----------
    start : float
        First value s, positive.
    steps : int
        Number n of steps until ``end`` is reached, positive.
    end : float
        Last value e, between 0 and ``start``.

    Raises
    ------
    ValueError
        ``steps must be a positive integer; got 0.``,
        ``end must lie between 0 and start; got 2.0 with start 1.0.``

    Notes
    -----
    The sum is finite when ``end`` is 0 and the steps do not vanish when it is positive, so neither
    case meets the hypotheses of `check_conditions`.

    Examples
    --------
    >>> schedule = cosine(1.0, steps=100, end=0.2)
    >>> [round(schedule(k), 6) for k in (0, 50, 100, 1000)]
    [1.0, 0.6, 0.2, 0.2]
    """
    start, end = _positive("start", start), float(end)
    if int(steps) != steps or steps < 1:
        raise ValueError(f"steps must be a positive integer; got {steps!r}.")
    if not 0.0 <= end <= start:
        raise ValueError(f"end must lie between 0 and start; got {end!r} with start {start!r}.")
    return CosineSchedule(start, int(steps), end)


def as_schedule(name: str, value: float | Callable) -> Callable:
    """Wrap a number as a constant schedule; leave a callable as it is."""
    return value if callable(value) else ConstantSchedule(_positive(name, value))


def plain(value: Any) -> Any:
    """Turn a NumPy float64 scalar into a Python float, which never promotes float32 arrays."""
    # np.float64 is a subclass of float; traced and differentiated values pass through untouched.
    return float(value) if isinstance(value, float) else value


def at(schedule: Callable, k: Any) -> Any:
    """Evaluate a schedule at step k without promoting anything it is multiplied with."""
    return plain(schedule(k))
