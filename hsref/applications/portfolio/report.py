"""The report of a portfolio run: who wins, by how much, how sure, at what cost."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._common import check_folder, mean_and_error, write_json, write_text
from .._report import number, paired, power, signed, table, with_error
from .config import ARMS
from .figures import LABELS, save_all

if TYPE_CHECKING:
    from . import PortfolioResult

EXACT = 1e-12
"""The largest violation that counts as none."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Projection minus another arm, in test Sharpe ratio.

    Attributes
    ----------
    arm : str
    mean : float
        Difference over all test windows and seeds.
    seed_error : float
        Standard error of the mean difference over seeds.
    period_mean, period_error : float
        The same over test periods that share no day, after averaging over seeds.
    seeds_clear, periods_clear : bool
        Whether the 95 % t-interval excludes zero.
    """

    arm: str
    mean: float
    seed_error: float
    period_mean: float
    period_error: float
    seeds_clear: bool
    periods_clear: bool

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


def compare(result: PortfolioResult, arm: str) -> Comparison:
    """Compare projection with another arm, paired by seed and by period."""
    ours = result.seeds["projection"]
    if arm in result.seeds:
        theirs = [run.test["sharpe"] for run in result.seeds[arm]]
    else:
        theirs = [result.references[arm]["test"]["sharpe"]] * len(ours)
    mean, error, clear = paired([run.test["sharpe"] for run in ours], theirs)
    rows = result.independent()
    periods = paired(result.test_ratios("projection")[rows], result.test_ratios(arm)[rows])
    return Comparison(arm, mean, error, periods[0], periods[1], clear, periods[2])


def save(result: PortfolioResult, folder: str | os.PathLike[str], command: str = "") -> Path:
    """Write all files; see :meth:`PortfolioResult.save`."""
    target = check_folder(folder)
    pictures = save_all(result, target)
    write_json(target / "results.json", result.results(command))
    write_json(target / "details.json", details(result))
    # The report comes last: where it stands, everything it speaks of stands too.
    write_text(target / "report.md", report(result, pictures, command))
    return target


def details(result: PortfolioResult) -> dict[str, Any]:
    """Return the settings, the data and the comparisons behind the report."""
    problem = result.problem
    return {
        "config": dataclasses.asdict(problem.config),
        "data": {
            "source": problem.source,
            "tickers": problem.tickers,
            "group": [problem.tickers[i] for i in problem.group],
            "first_day": problem.dates[0],
            "first_test_day": problem.dates[int(problem.split.right[0])],
            "last_day": problem.dates[-1],
            "training_windows": len(problem.split.left),
            "test_windows": len(problem.split.right),
            "independent_test_periods": len(result.independent()),
        },
        "validation_sharpe": result.tuning,
        "equal_weight_projected": {
            side: result.references["equal_weight_projected"][side] for side in ("train", "test")
        },
        "comparisons": [
            dataclasses.asdict(compare(result, arm)) for arm in ARMS if arm != "projection"
        ],
        "seconds": result.seconds,
    }


def report(result: PortfolioResult, pictures: list[tuple[str, str]], command: str = "") -> str:
    """Return the report as Markdown."""
    sections = [
        "# Portfolios with exact constraints",
        _answer(result),
        "## All arms",
        _arms(result),
        *(f"![{caption}]({name})" for name, caption in pictures),
        "## How sure",
        _sure(result),
        "## Protocol",
        _protocol(result, command),
    ]
    return "\n\n".join(sections) + "\n"


def _answer(result: PortfolioResult) -> str:
    """Return the first lines: who wins, by how much, how sure, at what cost."""
    arms = {name: result.arm(name) for name in ARMS}
    ours = arms["projection"]
    ranked = sorted(ARMS, key=lambda name: -arms[name]["test"]["sharpe"])
    place = ranked.index("projection") + 1
    feasible = [name for name in ranked if arms[name]["test"]["violation"] <= 1e-6]
    best = ranked[0] if ranked[0] != "projection" else ranked[1]

    def earned(name: str) -> str:
        test = arms[name]["test"]
        return f"{LABELS[name]} {with_error(test['sharpe'], test.get('sharpe_se'))}"

    if place == 1:
        first = (
            f"**Who wins.** Projection trained through the HS-Jacobian has the highest mean test "
            f"Sharpe ratio: {earned('projection')}, before {earned(best)}."
        )
    else:
        broken = arms[best]["test"]["violation"]
        aside = f" (which breaks the constraints by up to {power(broken)})" if broken > 1e-6 else ""
        first = (
            "**Who wins.** Not projection: its mean test Sharpe ratio, "
            f"{with_error(ours['test']['sharpe'], ours['test']['sharpe_se'])}, is number {place} "
            f"of {len(ARMS)}; the highest is that of {earned(best)}{aside}."
        )
    if feasible[0] == "projection":
        among = "Among the arms that hold the constraints it is first"
    else:
        among = f"Among the arms that hold the constraints {earned(feasible[0])} is first"
    lines = [first + f" {among} ({', '.join(earned(name) for name in feasible)})."]

    lines.append("**By how much, and how sure.** Projection minus the other, in test Sharpe ratio:")
    for name in ("train_then_project", "softmax", "softmax_penalty", "linsat"):
        found = compare(result, name)
        lines[-1] += (
            f"\n- {signed(found.mean, found.seed_error)} over seeds, "
            f"{signed(found.period_mean, found.period_error)} over {len(result.independent())} "
            f"separate test periods: {found.verdict()}."
        )
    worst = {
        name: arms[name]["test"]["violation"] for name in ("softmax", "softmax_penalty", "linsat")
    }
    exact = ours["test"]["violation"]
    lines.append(
        f"**Feasibility.** The largest violation on any test window and seed is {power(exact)} for "
        f"projection ({'within' if exact <= EXACT else 'NOT within'} the promised {EXACT:g}), "
        f"{power(worst['softmax_penalty'])} for softmax + penalty, {power(worst['softmax'])} for "
        f"softmax, {power(worst['linsat'])} for the LinSAT-style layer."
    )
    seconds, base = ours["train"]["seconds"], arms["softmax"]["train"]["seconds"]
    lines.append(
        f"**What it cost.** {seconds:.1f} s of processor time a seed in training steps, against "
        f"{base:.1f} s for "
        f"softmax ({seconds / base if base else math.nan:.1f} times) and "
        f"{arms['linsat']['train']['seconds']:.1f} s for the LinSAT-style layer; the whole run, "
        "tuning and "
        f"evaluation included, took {result.seconds:.0f} s."
    )
    dead = ours["train"]["dead_fraction"]
    lines.append(
        f"**Gradients.** After training {100 * dead:.1f} % of the training windows are projected "
        f"to a vertex (dead: no gradient passes), {100 * ours['train']['boundary_fraction']:.0f} % "
        f"to the relative boundary; mean rank of the HS-Jacobian {ours['train']['mean_rank']:.1f} "
        f"of {result.problem.n - 1}."
    )
    control = result.references["equal_weight_projected"]["test"]["sharpe"]
    plain = arms["equal_weight"]["test"]["sharpe"]
    learned = compare(result, "equal_weight_projected")
    lines.append(
        f"**The constraint itself.** Equal weight, which learns nothing, earns {number(plain)}; "
        f"moved into the constraints by one projection it earns {number(control)}. What the "
        f"preferred group adds or costs on these days ({signed(control - plain, math.nan)}) is no "
        "merit or fault of any way of training. Against this control, which holds the same "
        f"constraints, training earns projection {signed(learned.mean, learned.seed_error)} over "
        f"seeds and {signed(learned.period_mean, learned.period_error)} over periods: "
        f"{learned.verdict()}."
    )
    return "\n\n".join(lines)


def _arms(result: PortfolioResult) -> str:
    rows = []
    for name in ARMS:
        entry = result.arm(name)
        before, after = entry["train"], entry["test"]
        rows.append(
            [
                LABELS[name],
                with_error(before["sharpe"], before.get("sharpe_se")),
                with_error(after["sharpe"], after.get("sharpe_se")),
                power(after["violation"]),
                power(after["violation_mean"]),
                number(after.get("dead_fraction")),
                number(after.get("mean_rank"), 1),
                number(before["seconds"], 1) if entry["seeds"] else "–",
            ]
        )
    header = [
        "arm",
        "train Sharpe",
        "test Sharpe",
        "largest violation (test)",
        "mean violation",
        "dead fraction (test)",
        "mean rank (test)",
        "processor seconds a seed",
    ]
    return (
        table(header, rows)
        + f"\n\nMeans over {len(result.seeds['projection'])} seeds ± standard error of the mean. "
        "Violation is the largest of (required share − share of the group)₊, |Σw − 1|, (−w)₊ and "
        "what exceeds the cap. Dead fraction and rank concern the projections of the arms that "
        "have one. The training figures of mean–variance "
        "are of every fifth window."
    )


def _sure(result: PortfolioResult) -> str:
    rows = []
    for name in ARMS[1:]:
        found = compare(result, name)
        rows.append(
            [
                LABELS[name],
                signed(found.mean, found.seed_error),
                "yes" if found.seeds_clear else "no",
                signed(found.period_mean, found.period_error),
                "yes" if found.periods_clear else "no",
            ]
        )
    header = [
        "projection minus",
        "all windows ± error over seeds",
        "clear",
        "separate periods ± error over periods",
        "clear",
    ]
    problem = result.problem
    windows, periods = len(problem.split.right), len(result.independent())
    train_days = problem.split.boundary - problem.config.past
    level, spread = mean_and_error(result.test_ratios("projection")[result.independent()])
    return (
        table(header, rows)
        + f"\n\nThe {windows} test windows overlap: only {periods} of them share no day of their "
        f"targets, and the training days hold {train_days // problem.config.future} such periods. "
        "The error over seeds says how much the answer depends on initial weights and on the order "
        "of the minibatches. It does **not** cover the luck of the market in these years, nor the "
        "choice of stocks, group and protocol. The error over periods covers the luck of the "
        f"market as far as {periods} periods can: for projection alone the level is "
        f'{with_error(level, spread)}. Differences are paired, and "clear" means that the 95 % '
        "t-interval excludes zero; no correction is made for looking at several arms. The stocks "
        "were chosen by people who knew which companies had lasted, so the level of every arm is "
        "flattered; costs of trading are not charged."
    )


def _protocol(result: PortfolioResult, command: str) -> str:
    problem, config = result.problem, result.problem.config
    first_test = int(problem.split.right[0])
    group = ", ".join(problem.tickers[i] for i in problem.group)
    cap = "" if config.cap is None else f", w ≤ {config.cap:g}"
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
        f"Constraints: w ≥ 0, Σw = 1, weight of {{{group}}} ≥ {config.at_least:g}{cap}.",
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
        f"{config.penalty:g} × shortfall; that price is fixed, not tuned. The LinSAT-style layer "
        f"takes {config.iterations} iterations and is differentiated through them.",
        "Start: the same initial network for every arm of a seed. Projection, softmax + penalty "
        "and the LinSAT-style layer start near one portfolio in the relative interior of the "
        "constraints, softmax near equal weight.",
        f"Training: Adam, cosine steps, {config.epochs} epochs, batches of {config.batch_size}. "
        "Learning rate of each arm: best mean validation score (Sharpe of the weights it would "
        "hold; minus the price of shortfall where there is one) over the seeds "
        f"{list(config.tuning_seeds)} on the last {100 * config.validation_fraction:g} % of the "
        f"training days, from the same grid; then trained afresh on all training days with the "
        f"seeds {list(config.seeds)}.",
        "Mean–variance: the portfolio that meets the constraints and had the largest Sharpe ratio "
        f"in the last {config.past} days (smallest variance where no excess return was positive).",
    ]
    text = "\n".join(f"- {point}" for point in points) + "\n\n" + table(header, rates)
    return text + (f"\n\nCommand: `{command}`" if command else "")
