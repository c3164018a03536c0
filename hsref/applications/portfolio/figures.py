"""The pictures of a portfolio run, one message each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._report import COLOURS, band, figure, panels, save_figure
from .mandate import Trade

if TYPE_CHECKING:
    from .result import PortfolioResult

LABELS = {
    "projection": "projection",
    "softmax": "softmax",
    "softmax_penalty": "softmax + penalty",
    "linsat": "LinSAT-style",
    "scaled_trade": "scaled trade",
    "cvxpylayers": "cvxpylayers",
    "train_then_project": "softmax, projected when used",
    "equal_weight": "equal weight",
    "mean_variance": "mean–variance",
    "equal_weight_projected": "equal weight, projected",
}
STYLES = {
    "projection": (COLOURS["blue"], "-"),
    "softmax": (COLOURS["orange"], "--"),
    "softmax_penalty": (COLOURS["vermilion"], "-."),
    "linsat": (COLOURS["sky"], (0, (3, 1, 1, 1, 1, 1))),
    "scaled_trade": (COLOURS["sky"], (0, (3, 1, 1, 1, 1, 1))),
    "train_then_project": (COLOURS["green"], ":"),
    "equal_weight": (COLOURS["grey"], ":"),
    "mean_variance": (COLOURS["purple"], ":"),
}
FLOOR = 1e-17
"""Where a violation of exactly zero is drawn on a logarithmic axis."""


def save_all(result: PortfolioResult, folder: Path) -> list[tuple[str, str]]:
    """Write all pictures to `folder`; return (file name, caption) pairs."""
    pictures = [
        ("sharpe.png", draw_sharpe, "Test Sharpe ratio of every arm; a dot is a seed."),
        (
            "violation.png",
            draw_violation,
            "Largest constraint violation on every fifth test window.",
        ),
        (
            "loss.png",
            draw_loss,
            "Training loss without the penalty; each arm with its own step.",
        ),
    ]
    if isinstance(result.problem.mandate, Trade):
        pictures.append(
            ("turnover.png", draw_turnover, "Traded on each test day, first seed of each arm.")
        )
    else:
        caption = "Weights over the test days, first seed of projection."
        pictures.append(("weights.png", draw_weights, caption))
    if result.study:
        caption = "Dead projections, rank and Sharpe ratio against temperature and initial scale."
        pictures.append(("dead.png", draw_dead, caption))
    for name, draw, _ in pictures:
        save_figure(draw(result), folder / name)
    return [(name, caption) for name, _, caption in pictures]


def _band(axes: Any, result: PortfolioResult, arm: str, key: str) -> None:
    """Draw the mean over seeds of one figure of the history, with its standard error."""
    values = [[epoch[key] for epoch in run.history] for run in result.seeds[arm]]
    colour, line = STYLES[arm]
    label = f"{LABELS[arm]} (first step {result.seeds[arm][0].learning_rate:g})"
    band(axes, np.arange(len(values[0])), values, colour, linestyle=line, label=label)


def _epochs(axes: Any) -> None:
    """Label the horizontal axis with whole epochs."""
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)


def draw_loss(result: PortfolioResult) -> Any:
    """Draw −Sharpe + forecast error on training windows against the epoch."""
    drawing, axes = figure("Training loss: −Sharpe + forecast error")
    for arm in result.problem.trained:
        _band(axes, result, arm, "train_loss")
    _epochs(axes)
    axes.set_ylabel("loss (mean of seeds ± standard error)")
    axes.legend(frameon=False, fontsize=9.5)
    return drawing


def draw_violation(result: PortfolioResult) -> Any:
    """Draw the largest violation on test windows against the epoch, on a logarithmic axis."""
    drawing, axes = figure("Violation of the constraints on test windows")
    for arm in result.problem.trained:
        runs = np.array(
            [[epoch["test_violation"] for epoch in run.history] for run in result.seeds[arm]]
        )
        worst = np.maximum(runs.max(axis=0), FLOOR)
        colour, line = STYLES[arm]
        axes.semilogy(
            np.arange(len(worst)), worst, color=colour, linestyle=line, linewidth=2.2,
            label=LABELS[arm],
        )  # fmt: skip
    axes.legend(frameon=False, fontsize=9.5, loc="center right", bbox_to_anchor=(1.0, 0.58))
    axes.set_ylim(FLOOR / 3, 10.0)
    axes.axhline(1e-12, color=COLOURS["grey"], linewidth=1.0, linestyle=(0, (1, 2)))
    axes.text(
        0.99,
        1.6e-12,
        "promised by hsref: 1e-12",
        color=COLOURS["grey"],
        fontsize=9,
        ha="right",
        transform=axes.get_yaxis_transform(),
    )
    _epochs(axes)
    axes.set_ylabel("largest violation, any window and seed")
    return drawing


def draw_sharpe(result: PortfolioResult) -> Any:
    """Draw the test Sharpe ratio of each arm: seeds as dots, mean and standard error."""
    drawing, axes = figure("Sharpe ratio on days no arm has seen")
    arms = list(reversed(result.problem.arms))
    for height, arm in enumerate(arms):
        entry, colour = result.arm(arm), STYLES[arm][0]
        values = [row["test"]["sharpe"] for row in entry["seeds"]]
        broken = entry["test"]["violation"] > 1e-6
        if values:
            axes.plot(values, [height] * len(values), "o", color=colour, alpha=0.35, markersize=6)
        error = entry["test"].get("sharpe_se", np.nan)
        axes.errorbar(
            entry["test"]["sharpe"],
            height,
            xerr=error if np.isfinite(error) else None,
            fmt="D",
            color=colour,
            markerfacecolor="white" if broken else colour,
            markersize=8,
            markeredgewidth=2,
            capsize=5,
            linewidth=2.2,
        )
    axes.set_yticks(range(len(arms)), [LABELS[arm] for arm in arms], fontsize=10)
    axes.set_ylim(-0.6, len(arms) - 0.4)
    axes.grid(axis="x", color="#E3E3E3", linewidth=0.8)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(
        "mean test Sharpe ratio ± standard error over seeds\n(hollow: breaks the constraints)"
    )
    return drawing


def draw_weights(result: PortfolioResult) -> Any:
    """Draw the portfolio of each test day as a stack, the preferred group at the bottom."""
    problem = result.problem
    share = problem.config.at_least
    weights = result.seeds["projection"][0].weights
    held = weights[:, list(problem.group)].sum(axis=1).min() >= share - 1e-12
    claim = "never holds" if held else "should not hold"
    drawing, axes = figure(f"The preferred group {claim} less than {100 * share:g} %", width=8.6)
    days = np.array([problem.dates[start] for start in problem.split.right], dtype="datetime64[D]")
    inside = list(problem.group)[:6]
    order = np.argsort(-weights.mean(axis=0))
    outside = [int(i) for i in order if i not in problem.group][:4]
    rest = [i for i in range(problem.n) if i not in inside and i not in outside]
    in_group = [i for i in rest if i in problem.group]
    beyond = [i for i in rest if i not in problem.group]
    blues = ["#08306B", "#2171B5", "#6BAED6", "#9ECAE1", "#C6DBEF", "#DEEBF7"]
    warm = ["#A63603", "#E6550D", "#FD8D3C", "#FDBE85"]
    parts = [(problem.tickers[i], weights[:, i], blues[k]) for k, i in enumerate(inside)]
    if in_group:
        parts.append(
            (f"{len(in_group)} more of group", weights[:, in_group].sum(axis=1), "#EFF3FF")
        )
    parts += [(problem.tickers[i], weights[:, i], warm[k]) for k, i in enumerate(outside)]
    if beyond:
        parts.append((f"{len(beyond)} others", weights[:, beyond].sum(axis=1), "#DADADA"))
    axes.stackplot(
        days,
        [part[1] for part in parts],
        labels=[part[0] for part in parts],
        colors=[part[2] for part in parts],
        linewidth=0,
    )
    axes.axhline(share, color="black", linewidth=1.6, linestyle="--")
    axes.set_xlim(days[0], days[-1])
    axes.set_ylim(0.0, 1.0)
    axes.set_ylabel("weight (group in blue)")
    axes.set_xlabel("day on which the weights are chosen")
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles[::-1],
        labels[::-1],
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        frameon=False,
        fontsize=9.5,
    )
    return drawing


def draw_turnover(result: PortfolioResult) -> Any:
    """Draw what each trained arm would trade on each test day, against the bound."""
    problem, mandate = result.problem, result.problem.mandate
    drawing, axes = figure("Projection never trades more than the bound", width=8.6)
    starts = problem.split.right
    days = np.array([problem.dates[start] for start in starts], dtype="datetime64[D]")
    previous = mandate.previous(starts)
    for arm in ("softmax", "softmax_penalty", mandate.rival, "projection"):
        traded = np.abs(result.seeds[arm][0].weights - previous).sum(axis=1)
        colour, line = STYLES[arm]
        axes.plot(days, traded, color=colour, linewidth=1.2, label=LABELS[arm])
    axes.axhline(mandate.limit, color="black", linewidth=1.6, linestyle="--")
    axes.set_xlim(days[0], days[-1])
    axes.set_ylim(bottom=0.0)
    axes.set_ylabel("‖w − w_prev‖₁")
    axes.set_xlabel("day on which the weights are chosen")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9.5)
    return drawing


def draw_dead(result: PortfolioResult) -> Any:
    """Draw dead projections, rank and Sharpe ratio against temperature, one line a scale."""
    titles = ["Dead after training", "Rank after training", "Test Sharpe ratio"]
    drawing, axes = panels(titles, width=11.4, height=3.8)
    scales = list(dict.fromkeys(scale for _, scale, _ in result.study))
    colours = [COLOURS[name] for name in ("blue", "orange", "vermilion", "purple", "green")]
    for k, scale in enumerate(scales):
        cells = [(t, runs) for t, s, runs in result.study if s == scale]
        temperatures = [t for t, _ in cells]
        for one, key in zip(axes, ("dead", "rank", "test_sharpe")):
            values = np.array([[run[key] for run in runs] for _, runs in cells]).T
            band(
                one, temperatures, values, colours[k % len(colours)], marker="os^Dv"[k % 5],
                label=f"initial scale {scale:g}",
            )  # fmt: skip
    for one in axes:
        one.set_xscale("log")
        one.set_xlabel("temperature / n")
    for one in axes[:2]:
        one.set_ylim(bottom=0.0)
    axes[0].set_ylabel("fraction of training windows")
    axes[1].axhline(result.problem.constraints().dim, color=COLOURS["grey"], linestyle=":")
    axes[1].set_ylabel("mean rank (dotted: dimension of the set)")
    axes[0].legend(frameon=False, fontsize=9.5)
    return drawing
