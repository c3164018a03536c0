"""The report of a portfolio run: who wins, by how much, how sure, at what cost."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._common import mean_and_error
from .._report import number, power, save_report, signed, table, with_error
from .claims import EXACT, claims, compare, half_width
from .costs import REPEATS
from .figures import LABELS, save_all
from .protocol import protocol

if TYPE_CHECKING:
    from .result import PortfolioResult


def save(result: PortfolioResult, folder: str | os.PathLike[str], command: str = "") -> Path:
    """Write all files; see :meth:`PortfolioResult.save`."""
    return save_report(
        folder,
        lambda target: save_all(result, target),
        {"results.json": result.results(command), "details.json": details(result)},
        lambda pictures: report(result, pictures, command),
    )


def details(result: PortfolioResult) -> dict[str, Any]:
    """Return the settings, the data and the comparisons behind the report."""
    problem = result.problem
    return {
        "config": dataclasses.asdict(problem.config),
        "data": {
            "source": problem.source,
            "tickers": problem.tickers,
            "mandate": problem.mandate.sentence(problem.tickers),
            "group": [problem.tickers[i] for i in problem.group],
            "first_day": problem.dates[0],
            "first_test_day": problem.dates[int(problem.split.right[0])],
            "last_day": problem.dates[-1],
            "training_windows": len(problem.split.left),
            "test_windows": len(problem.split.right),
            "independent_test_periods": len(result.independent()),
        },
        "validation_sharpe": result.tuning,
        "validation_by_price": result.penalties,
        "equal_weight_projected": {
            side: result.references["equal_weight_projected"][side] for side in ("train", "test")
        },
        "comparisons": [
            dataclasses.asdict(compare(result, arm)) for arm in problem.arms if arm != "projection"
        ],
        "claims": [dataclasses.asdict(one) for one in claims(result)],
        "costs": dataclasses.asdict(result.costs),
        "cvxpylayers": result.conic,
        "study": [
            {"temperature": temperature, "scale": scale, "seeds": rows}
            for temperature, scale, rows in result.study
        ],
        "memory": result.memory,
        "seconds": result.seconds,
        "processor_seconds": result.processor_seconds,
    }


def report(result: PortfolioResult, pictures: list[tuple[str, str]], command: str = "") -> str:
    """Return the report as Markdown."""
    shown = [f"![{caption}]({name})" for name, caption in pictures if name != "dead.png"]
    sections = [
        f"# Portfolios with exact constraints: {result.problem.n} stocks"
        + (", synthetic" if result.problem.source.startswith("synthetic") else ""),
        _answer(result),
        "## The claims, on this data",
        _claims(result),
        "## All arms",
        _arms(result),
        *shown,
        "## How sure",
        _sure(result),
        "## What it cost",
        _costs(result),
        *(_study(result, pictures) if result.study else []),
        "## Protocol",
        protocol(result, command),
    ]
    return "\n\n".join(sections) + "\n"


def _answer(result: PortfolioResult) -> str:
    """Return the first lines: who wins, by how much, how sure, at what cost."""
    names, rival = result.problem.arms, result.problem.mandate.rival
    arms = {name: result.arm(name) for name in names}
    ours = arms["projection"]
    ranked = sorted(names, key=lambda name: -arms[name]["test"]["sharpe"])
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
            f"of {len(names)}; the highest is that of {earned(best)}{aside}."
        )
    if feasible[0] == "projection":
        among = "Among the arms that hold the constraints it is first"
    else:
        among = f"Among the arms that hold the constraints {earned(feasible[0])} is first"
    lines = [first + f" {among} ({', '.join(earned(name) for name in feasible)})."]

    lines.append("**By how much, and how sure.** Projection minus the other, in test Sharpe ratio:")
    for name in ("train_then_project", "softmax", "softmax_penalty", rival):
        found = compare(result, name)
        lines[-1] += (
            f"\n- {signed(found.mean, found.seed_error)} over seeds, "
            f"{signed(found.period_mean, found.period_error)} over {len(result.independent())} "
            f"separate test periods: {found.verdict()}."
        )
    worst = ", ".join(
        f"{power(arms[name]['test']['violation'])} for {LABELS[name]}"
        for name in ("softmax_penalty", "softmax", rival)
    )
    exact = ours["test"]["violation"]
    lines.append(
        f"**Feasibility.** The largest violation on any test window and seed is {power(exact)} for "
        f"projection ({'within' if exact <= EXACT else 'NOT within'} the promised {EXACT:g}), "
        f"{worst}."
    )
    sides = []
    for side in ("holds", "fails"):
        parts = [
            f"{one.claim} than {', '.join(LABELS[arm] for arm in getattr(one, side))}"
            for one in claims(result)
            if getattr(one, side)
        ]
        sides.append("; ".join(parts) or "nothing")
    lines.append(
        "**Where it wins, where it does not**, against the alternatives that know the constraints. "
        f"It wins: {sides[0]}. It does not win: {sides[1]}. Numbers and verdicts on the claims are "
        "in the next section."
    )
    costs = result.costs.arms
    epoch = {name: f"{one['epoch_seconds']:.2f}" for name, one in costs.items()}
    lines.append(
        f"**What it cost.** {epoch['projection']} s of processor time an epoch, against "
        + ", ".join(f"{epoch[name]} for {LABELS[name]}" for name in epoch if name != "projection")
        + f"; the largest process held {result.memory / 2**30:.2f} GiB. The steps of all runs, "
        f"tuning included, took {result.processor_seconds:.0f} s of processor time; this call took "
        f"{result.seconds:.0f} s, less where an earlier call had done a part."
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
        f"constraints add or cost on these days ({signed(control - plain, math.nan)}) is no "
        "merit or fault of any way of training. Against this control, which holds the same "
        f"constraints, training earns projection {signed(learned.mean, learned.seed_error)} over "
        f"seeds and {signed(learned.period_mean, learned.period_error)} over periods: "
        f"{learned.verdict()}."
    )
    return "\n\n".join(lines)


def _arms(result: PortfolioResult) -> str:
    rows = []
    for name in result.problem.arms:
        entry = result.arm(name)
        before, after = entry["train"], entry["test"]
        count = len(entry["seeds"])
        rows.append(
            [
                LABELS[name],
                _minus(with_error(before.get("loss"), before.get("loss_se"))),
                _minus(with_error(before["sharpe"], before.get("sharpe_se"))),
                _minus(with_error(after["sharpe"], after.get("sharpe_se"))),
                _interval(after["sharpe"], after.get("sharpe_se", math.nan), count, ""),
                power(after["violation"]),
                power(after["violation_mean"]),
                number(after.get("dead_fraction")),
                number(after.get("mean_rank"), 1),
            ]
        )
    header = [
        "arm",
        "training loss",
        "train Sharpe",
        "test Sharpe",
        "95 % interval over seeds",
        "largest violation (test)",
        "mean violation",
        "dead fraction (test)",
        "mean rank (test)",
    ]
    return (
        table(header, rows)
        + f"\n\nMeans over {len(result.seeds['projection'])} seeds ± standard error of the mean. "
        "Training loss is −Sharpe + forecast error, without any penalty. Violation is the largest "
        f"of {result.problem.mandate.measure}. Dead fraction and rank concern the projections of "
        "the arms that have one. The training figures of mean–variance are of every few windows."
    )


def _minus(text: str) -> str:
    """Return a number as text with a true minus sign."""
    return text.replace("-", "−")


def _interval(mean: float, error: float, count: int, sign: str = "+") -> str:
    """Return the 95 % t-interval of a mean as text."""
    half = half_width(error, count)
    if not math.isfinite(half):
        return "–"
    return _minus(f"{mean - half:{sign}.3f} to {mean + half:{sign}.3f}")


def _claims(result: PortfolioResult) -> str:
    rows = [[one.claim, f"**{one.verdict}**", one.evidence] for one in claims(result)]
    text = (
        "Claims made for projection with the HS-Jacobian, judged against the alternatives that "
        f"know the constraints: {LABELS[result.problem.mandate.rival]}, softmax + penalty"
        + (" and cvxpylayers" if result.conic is not None else "")
        + ". Supported if it holds against all of them, mixed if against some. A loss is lower if "
        f"the 95 % t-interval over seeds says so; a violation of at most {EXACT:g} counts as none; "
        "times within 10 % and sizes within 2 % count as equal."
    )
    return text + "\n\n" + table(["claim", "verdict", "what was measured"], rows)


def _costs(result: PortfolioResult) -> str:
    costs, conic = result.costs, result.conic
    rows = [
        [
            LABELS[name],
            number(1e3 * one["step_seconds"], 1),
            number(one["epoch_seconds"], 2),
            number(1e3 * one["layer_seconds"], 2),
            number(one["step_bytes"] / 2**20, 2),
            number(one["layer_bytes"] / 2**20, 2),
            number(result.arm(name)["train"]["seconds"], 1),
        ]
        for name, one in costs.arms.items()
    ]
    header = [
        "arm",
        "ms a step",
        "s an epoch",
        "ms in the output layer",
        "peak MiB of a step",
        "of the output layer",
        "processor seconds a seed",
    ]
    text = table(header, rows) + (
        f"\n\nSteps of {costs.batch} windows, {costs.steps} an epoch. Times are processor time, "
        f"the least of {REPEATS}, the arms taking turns in one process; the last column is that of "
        "the reported runs themselves, which shared the machine. The output layer is timed "
        "forward and back, on random scores. Memory is what NumPy and Python allocate at most, "
        f"beyond parameters and data; the largest process held {result.memory / 2**20:.0f} MiB in "
        "all."
    )
    if conic is None:
        return text + (
            "\n\ncvxpylayers is not installed, so the projection as a conic-programming layer was "
            "not measured."
        )
    ours, theirs = conic["projection"], conic["cvxpylayers"]
    left, right = (_minus(f"{one['loss']:.6f}") for one in (theirs, ours))
    return text + (
        f"\n\n**cvxpylayers**, on a part: the same network took {conic['steps']} steps of "
        f"{conic['windows']} windows with either layer. {1e3 * theirs['step_seconds']:.0f} ms a "
        f"step against {1e3 * ours['step_seconds']:.1f} ms for hsref "
        f"({theirs['step_seconds'] / ours['step_seconds']:.0f} times), peak "
        f"{theirs['bytes'] / 2**20:.1f} MiB against {ours['bytes'] / 2**20:.1f} (that of "
        "cvxpylayers without what its compiled solver and PyTorch allocate), largest violation "
        f"{power(theirs['violation'])} against {power(ours['violation'])}, loss afterwards "
        f"{left} against {right}; the weights differ by at most "
        f"{power(conic['difference'])}."
    )


def _study(result: PortfolioResult, pictures: list[tuple[str, str]]) -> list[str]:
    """Return the section on temperature and initial scale."""
    rows = []
    for temperature, scale, runs in result.study:
        mean = {key: mean_and_error([run[key] for run in runs]) for key in runs[0]}
        rows.append(
            [
                f"{temperature:g} n",
                f"{scale:g}",
                *(number(mean[key][0]) for key in ("start_dead",)),
                number(mean["start_rank"][0], 1),
                number(mean["dead"][0]),
                number(mean["test_dead"][0]),
                number(mean["rank"][0], 1),
                with_error(*mean["train_sharpe"]),
                with_error(*mean["test_sharpe"]),
                power(max(run["violation"] for run in runs)),
            ]
        )
    header = [
        "temperature",
        "initial scale",
        "dead at the start",
        "rank at the start",
        "dead after training",
        "dead on test days",
        "rank after training",
        "train Sharpe",
        "test Sharpe",
        "largest violation",
    ]
    dim, count = result.problem.constraints().dim, len(result.study[0][2])
    rate = result.seeds["projection"][0].learning_rate
    text = (
        "The projection of scores over a temperature τ, with the initial weights of its last layer "
        "multiplied by a scale. Scale 1 starts inside of the set at every temperature; larger ones "
        "start on its boundary. A projection that ends at a vertex is dead: the HS-Jacobian is 0 "
        f"there. All with the learning rate {rate:g} that was chosen at temperature n and scale 1, "
        "so that a colder projection also takes longer steps; none was tuned for itself.\n\n"
        + table(header, rows)
        + f"\n\nMeans over {count} seeds ± standard error; the set has dimension {dim}, and n = "
        f"{result.problem.n}."
    )
    shown = [f"![{caption}]({name})" for name, caption in pictures if name == "dead.png"]
    return ["## Dead projections", text, *shown]


def _sure(result: PortfolioResult) -> str:
    rows = []
    for name in result.problem.arms[1:]:
        found = compare(result, name)
        rows.append(
            [
                LABELS[name],
                signed(found.mean, found.seed_error),
                _interval(found.mean, found.seed_error, found.seeds),
                "yes" if found.seeds_clear else "no",
                signed(found.period_mean, found.period_error),
                _interval(found.period_mean, found.period_error, found.periods),
                "yes" if found.periods_clear else "no",
            ]
        )
    header = [
        "projection minus",
        "all windows ± error over seeds",
        "95 % interval",
        "clear",
        "separate periods ± error over periods",
        "95 % interval",
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
        "t-interval excludes zero; no correction is made for looking at several arms. "
        + (
            "The market is invented: nothing here says what any arm would earn on a real one. "
            if problem.source.startswith("synthetic")
            else "Stocks that are still listed at the end flatter the level of every arm. "
        )
        + "Costs of trading are not charged."
    )
