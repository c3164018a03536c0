"""What the numbers of a portfolio run carry: paired comparisons, and the claims judged by them."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np

from .._report import paired, power, signed
from .figures import LABELS

if TYPE_CHECKING:
    from .result import PortfolioResult

EXACT = 1e-12
"""The largest violation that counts as none."""
SAME = {"step_seconds": 0.1, "step_bytes": 0.02}
"""Times and sizes within this part of each other count as equal."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Projection minus another arm.

    Attributes
    ----------
    arm : str
    mean, seed_error : float
        Difference in test Sharpe ratio over all test windows and seeds, with its standard error
        over seeds.
    period_mean, period_error : float
        The same over test periods that share no day, after averaging over seeds.
    seeds_clear, periods_clear : bool
        Whether the 95 % t-interval excludes zero.
    seeds, periods : int
        How many of each.
    loss_mean, loss_error : float
        Difference in training loss without penalty, over seeds; NaN for arms that learn nothing.
    loss_clear : bool
    """

    arm: str
    mean: float
    seed_error: float
    period_mean: float
    period_error: float
    seeds_clear: bool
    periods_clear: bool
    seeds: int = 0
    periods: int = 0
    loss_mean: float = math.nan
    loss_error: float = math.nan
    loss_clear: bool = False

    def verdict(self) -> str:
        """Return one clause that claims no more than the numbers carry."""
        word = "ahead of" if self.mean > 0 else "behind"
        name = f"**{LABELS[self.arm]}**"
        agree = self.mean * self.period_mean > 0
        if self.periods_clear and self.seeds_clear and agree:
            return f"projection is {word} {name}, clearly over seeds and over periods"
        if self.seeds_clear:
            return (
                f"projection is {word} {name} whatever the seed, but the test periods are too few "
                "to say that it would be on other days"
            )
        return f"no difference to {name} can be claimed"


def half_width(error: float, count: int) -> float:
    """Return half the width of the 95 % t-interval of a mean over `count` values.

    Examples
    --------
    >>> round(half_width(1.0, 10), 3), half_width(float("nan"), 1)
    (2.262, nan)
    """
    from scipy.stats import t

    return float(t.ppf(0.975, count - 1) * error) if count > 1 else math.nan


def compare(result: PortfolioResult, arm: str) -> Comparison:
    """Compare projection with another arm, paired by seed and by period."""
    ours = result.seeds["projection"]
    loss: tuple[float, float, bool] = (math.nan, math.nan, False)
    if arm in result.seeds:
        mine = [run.test["sharpe"] for run in ours]
        theirs = [run.test["sharpe"] for run in result.seeds[arm]]
        loss = paired(
            [run.train["loss"] for run in ours], [run.train["loss"] for run in result.seeds[arm]]
        )
    else:
        # some references are computed for a part of the windows only
        ratios = result.references[arm]["ratios"]
        known = np.isfinite(ratios)
        mine = [run.ratios[known].mean() for run in ours]
        theirs = [ratios[known].mean()] * len(ours)
    mean, error, clear = paired(mine, theirs)
    rows = result.independent()
    periods = paired(result.test_ratios("projection")[rows], result.test_ratios(arm)[rows])
    return Comparison(
        arm, mean, error, periods[0], periods[1], clear, periods[2], len(ours), len(rows), *loss
    )


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim about projection with the HS-Jacobian, and what the numbers say to it.

    Attributes
    ----------
    claim : str
    verdict : str
        "supported" (against every alternative), "mixed" (against some) or "not supported".
    evidence : str
    holds, fails : tuple of str
        Alternatives against which it holds, and does not.
    """

    claim: str
    verdict: str
    evidence: str
    holds: tuple[str, ...]
    fails: tuple[str, ...]


def judged(claim: str, better: dict[str, bool], evidence: str) -> Claim:
    """Return the claim with the verdict that `better`, one entry an alternative, makes.

    Examples
    --------
    >>> judged("less time", {"linsat": True, "softmax_penalty": False}, "").verdict
    'mixed'
    """
    wins = tuple(arm for arm, one in better.items() if one)
    rest = tuple(arm for arm in better if arm not in wins)
    word = "supported" if not rest else "mixed" if wins else "not supported"
    return Claim(claim, word, evidence, wins, rest)


def claims(result: PortfolioResult) -> list[Claim]:
    """Judge the claims on this data, against the alternatives that know the constraints."""
    rival = result.problem.mandate.rival
    others, conic = (rival, "softmax_penalty"), result.conic
    found = {arm: compare(result, arm) for arm in others}
    better = {arm: one.loss_clear and one.loss_mean < 0 for arm, one in found.items()}
    text = "; ".join(
        f"{signed(one.loss_mean, one.loss_error)} to {LABELS[arm]}"
        f"{'' if one.loss_clear else ' (not clear)'}"
        for arm, one in found.items()
    )
    verdicts = [judged("lower training loss", better, text)]

    ours = result.arm("projection")["test"]["violation"]
    theirs = {arm: result.arm(arm)["test"]["violation"] for arm in others}
    if conic is not None:
        theirs["cvxpylayers"] = conic["cvxpylayers"]["violation"]
    better = {arm: value > max(EXACT, ours) for arm, value in theirs.items()}
    text = f"{power(ours)} against " + ", ".join(
        f"{power(value)} for {LABELS[arm]}" for arm, value in theirs.items()
    )
    verdicts.append(judged("smaller violation", better, text))

    for claim, key, conic_key, scale, unit in (
        ("less time", "step_seconds", "step_seconds", 1e3, "ms"),
        ("less memory", "step_bytes", "bytes", 2.0**-20, "MiB"),
    ):
        costs = result.costs.arms
        mine = costs["projection"][key]
        better = {arm: mine < (1.0 - SAME[key]) * costs[arm][key] for arm in others}
        text = f"a step of {result.costs.batch} windows {mine * scale:.1f} {unit} against " + (
            ", ".join(f"{costs[arm][key] * scale:.1f} for {LABELS[arm]}" for arm in others)
        )
        if conic is not None:
            pair = [conic[name][conic_key] for name in ("projection", "cvxpylayers")]
            better["cvxpylayers"] = pair[0] < (1.0 - SAME[key]) * pair[1]
            text += (
                f"; a step of {conic['windows']} windows {pair[0] * scale:.1f} {unit} against "
                f"{pair[1] * scale:.1f} for cvxpylayers"
            )
        verdicts.append(judged(claim, better, text))
    return verdicts
