"""Five pictures of a run with hyper-connections, one message each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._common import mean_and_error
from .._report import COLOURS, band, figure, save_figure
from .config import ARMS

if TYPE_CHECKING:
    from . import HyperResult

LABELS = {
    "projection": "projection",
    "permutations": "permutations (mHC-lite)",
    "sinkhorn": "Sinkhorn (mHC)",
    "unconstrained": "unconstrained",
    "residual": "plain residual",
}
STYLES = {
    "projection": (COLOURS["blue"], "-", "o"),
    "permutations": (COLOURS["green"], "--", "s"),
    "sinkhorn": (COLOURS["orange"], "-.", "^"),
    "unconstrained": (COLOURS["vermilion"], ":", "v"),
    "residual": (COLOURS["grey"], ":", "D"),
}


def save_all(result: HyperResult, folder: Path) -> list[tuple[str, str]]:
    """Write all pictures to `folder`; return (file name, caption) pairs."""
    pictures = [
        ("loss.png", draw_loss, "Validation loss of every arm; a dot is a seed."),
        ("training.png", draw_training, "Training loss relative to the plain residual network."),
        ("gain.png", draw_gain, "Composite gain after each block, validation windows."),
        ("rank.png", draw_rank, "Rank of the HS-Jacobian and dead projections during training."),
    ]
    if result.problem.config.depths:
        pictures.append(("depth.png", draw_depth, "Validation loss against depth."))
    for name, draw, _ in pictures:
        save_figure(draw(result), folder / name)
    return [(name, caption) for name, _, caption in pictures]


def _runs(result: HyperResult, arm: str) -> list[Any]:
    """Return the arm's runs at the main depth that did not diverge."""
    return [run for run in result.runs[arm, result.problem.config.depth] if not run.diverged]


def _curve(axes: Any, arm: str, x: Any, values: np.ndarray) -> None:
    """Draw the mean of the rows of `values`, with its standard error where there are several."""
    colour, line, _ = STYLES[arm]
    band(axes, x, values, colour, linestyle=line, label=LABELS[arm])


def draw_loss(result: HyperResult) -> Any:
    """Draw the validation loss of each arm: seeds as dots, mean and standard error."""
    depth = result.problem.config.depth
    drawing, axes = figure(f"Loss on topics no arm has seen, {depth} blocks")
    arms = list(reversed(ARMS))
    for height, arm in enumerate(arms):
        values = result.losses(arm)
        values = values[np.isfinite(values)]
        if not values.size:
            continue
        colour, _, marker = STYLES[arm]
        mean, error = mean_and_error(values)
        axes.plot(values, [height] * len(values), "o", color=colour, alpha=0.35, markersize=6)
        axes.errorbar(
            mean, height, xerr=error if np.isfinite(error) else None, fmt=marker, color=colour,
            markersize=9, capsize=5, linewidth=2.2,
        )  # fmt: skip
    axes.set_yticks(range(len(arms)), [LABELS[arm] for arm in arms], fontsize=10)
    axes.set_ylim(-0.6, len(arms) - 0.4)
    axes.grid(axis="x", color="#E3E3E3", linewidth=0.8)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("validation loss, nats a character (mean ± standard error over seeds)")
    return drawing


def draw_training(result: HyperResult) -> Any:
    """Draw the training loss minus that of the residual network, same seed, same windows."""
    drawing, axes = figure("Training loss, minus that of the plain residual network")
    bases = {run.task.seed: run for run in _runs(result, "residual")}
    for arm in ARMS[:-1]:
        rows = [
            [one["loss"] - two["loss"] for one, two in zip(run.history, bases[seed].history)]
            for run in _runs(result, arm)
            if (seed := run.task.seed) in bases
        ]
        if rows:
            steps = [entry["step"] for entry in _runs(result, arm)[0].history]
            _curve(axes, arm, steps, np.array(rows))
    axes.axhline(0.0, color=COLOURS["grey"], linewidth=1.2)
    axes.set_xlabel("step")
    axes.set_ylabel("difference, nats a character\n(mean of seeds ± standard error)")
    axes.legend(frameon=False, fontsize=9.5)
    return drawing


def draw_gain(result: HyperResult) -> Any:
    """Draw the largest row sum of the product of the first k mixing matrices against k."""
    drawing, axes = figure(r"Composite gain: the largest row sum of $|H_k \cdots H_1|$")
    for arm in ARMS[:-1]:
        runs = _runs(result, arm)
        if runs:
            gains = np.array([run.figures["validation"]["gain_by_block"] for run in runs])
            blocks, (colour, line, marker) = np.arange(1, gains.shape[1] + 1), STYLES[arm]
            # hollow marks of different shapes: arms that hold the constraint lie on one line
            axes.plot(
                blocks, np.median(gains, axis=0), line, color=colour, linewidth=2.0,
                marker=marker, markersize=9, markerfacecolor="none", label=LABELS[arm],
            )  # fmt: skip
            axes.fill_between(
                blocks, gains.min(axis=0), gains.max(axis=0), color=colour, alpha=0.15, linewidth=0
            )
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.8), max(high, 1.25))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("block k")
    axes.set_ylabel("gain, mean over windows\n(median, least and largest of seeds)")
    axes.legend(frameon=False, fontsize=9.5)
    return drawing


def draw_rank(result: HyperResult) -> Any:
    """Draw mean rank and dead fraction of the projections against the step."""
    drawing, axes = figure("How freely the projections can learn")
    full = (result.problem.config.streams - 1) ** 2
    runs = _runs(result, "projection")
    if runs:
        steps = [entry["step"] for entry in runs[0].history]
        for key, scale, line, colour, label in (
            ("mean_rank", full, "-", COLOURS["blue"], f"mean rank of V / {full}"),
            ("boundary_fraction", 1, "--", COLOURS["sky"], "on the boundary (rank V < full)"),
            ("dead_fraction", 1, ":", COLOURS["vermilion"], "dead (rank V = 0)"),
        ):
            values = np.array([[entry[key] / scale for entry in run.history] for run in runs])
            axes.plot(steps, values.mean(axis=0), line, color=colour, linewidth=2.4, label=label)
            axes.fill_between(
                steps, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2, linewidth=0
            )
    axes.set_ylim(-0.03, 1.15)
    axes.set_xlabel("step")
    axes.set_ylabel("fraction (mean, least and largest of seeds)")
    axes.legend(frameon=False, fontsize=9.5, loc="upper center", ncol=3)
    return drawing


def draw_depth(result: HyperResult) -> Any:
    """Draw the validation loss of each arm against the number of blocks."""
    drawing, axes = figure("Deeper networks: loss on unseen topics")
    config = result.problem.config
    depths = sorted({config.depth, *config.depths})
    for shift, arm in enumerate(ARMS):
        colour, line, marker = STYLES[arm]
        losses = [result.losses(arm, depth) for depth in depths]
        means = [float(np.mean(one)) if np.isfinite(one).all() else np.nan for one in losses]
        errors = [mean_and_error(one)[1] if np.isfinite(one).all() else np.nan for one in losses]
        # side by side, so that no error bar hides another
        places = np.arange(len(depths)) + 0.06 * (shift - 2)
        axes.errorbar(
            places, means, yerr=np.nan_to_num(errors), fmt=line, marker=marker, color=colour,
            label=LABELS[arm], linewidth=1.8, markersize=6, capsize=3,
        )  # fmt: skip
    axes.set_xticks(range(len(depths)), [str(depth) for depth in depths])
    axes.set_xlabel("blocks")
    axes.set_ylabel("validation loss, nats a character\n(mean ± standard error over seeds)")
    axes.legend(frameon=False, fontsize=9.5)
    return drawing
