"""The part of the report that says what was done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._report import number, table
from .figures import LABELS

if TYPE_CHECKING:
    from .result import PortfolioResult

RIVALS = {
    "linsat": "The LinSAT-style layer takes {config.iterations} iterations, compiled, and is "
    "differentiated through them exactly.",
    "scaled_trade": "Scaled trade shortens the trade that a softmax proposes to the bound; a "
    "LinSAT-style layer takes sums with positive coefficients only, which a turnover bound is not.",
}
"""What each mandate's own layer does."""


def protocol(result: PortfolioResult, command: str = "") -> str:
    """Return the settings of a run as a list, the tuning table and the command."""
    problem, config = result.problem, result.problem.config
    first_test = int(problem.split.right[0])
    rates = [
        [
            LABELS[arm],
            *(number(scores[rate]) for rate in sorted(scores)),
            f"{max(scores, key=lambda r: (scores[r], -r)):g}",
        ]
        for arm, scores in result.tuning.items()
    ]
    header = [
        "validation score",
        *(f"{rate:g}" for rate in sorted(config.learning_rates)),
        "chosen",
    ]
    points = [
        f"Data: {problem.source}, {problem.n} stocks, {problem.dates[0]} to {problem.dates[-1]}, "
        "simple daily returns.",
        f"Constraints: {problem.mandate.sentence(problem.tickers)}.",
        f"Windows: {config.past} days in, {config.future} days out, one a day"
        + ("" if config.stride == 1 else f" (for training, one in {config.stride})")
        + ": "
        f"{len(problem.split.left)} for training, {len(problem.split.right)} for testing. Training "
        f"targets end before {problem.dates[first_test]}, test targets start on it; test inputs "
        "may reach back over it, for those days are known by then. Inputs are scaled by training "
        "days only.",
        "Score: annualised Sharpe ratio of the realised target window, (252·mean return − "
        f"{config.risk_free:g}) / √(252·variance + {config.epsilon:g}), averaged over windows.",
        f"Network: {config.past} days × {problem.n} stocks, standardised, summed over "
        f"{config.pool} days, hidden layers {list(config.hidden)}, two heads: scores and a "
        "forecast of each stock's mean return. Loss: −Sharpe + "
        f"{config.forecast_weight:g} × mean squared error of the forecast (in units of the "
        "deviation a mean of independent days would have). softmax + penalty adds "
        f"{result.penalty:g} × shortfall, a price chosen from {list(config.penalties)} together "
        f"with its step. {RIVALS[problem.mandate.rival].format(config=config)}",
        "Start: the same initial network for every arm of a seed. All but softmax know the "
        "constraints and start near one portfolio in their relative interior"
        + (" (that held before)" if problem.mandate.rival == "scaled_trade" else "")
        + ", softmax near equal weight.",
        f"Training: Adam, cosine steps, {config.epochs} epochs, batches of {config.batch_size}. "
        "Learning rate of each arm: best mean validation score (Sharpe of the weights it would "
        f"hold; for softmax + penalty minus {config.penalty:g} × shortfall) over the seeds "
        f"{list(config.tuning_seeds)} on the last {100 * config.validation_fraction:g} % of the "
        f"training days, from the same grid; then trained afresh on all training days with the "
        f"seeds {list(config.seeds)}.",
        "Mean–variance: the portfolio that meets the constraints and had the largest Sharpe ratio "
        f"in the last {config.past} days (smallest variance where no excess return was positive).",
    ]
    least, most = min(config.learning_rates), max(config.learning_rates)
    edge = [
        LABELS[arm]
        for arm, scores in result.tuning.items()
        if max(scores, key=lambda r: (scores[r], -r)) in (least, most)
    ]
    points.append(f"Chosen at an end of the grid of steps: {', '.join(edge) or 'none'}.")
    prices = "; ".join(
        f"{price:g}: {number(max(scores.values()))}" for price, scores in result.penalties.items()
    )
    points.append(f"Best validation score of softmax + penalty by price: {prices}.")
    text = "\n".join(f"- {point}" for point in points) + "\n\n" + table(header, rates)
    return text + (f"\n\nCommand: `{command}`" if command else "")
