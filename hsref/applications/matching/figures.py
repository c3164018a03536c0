"""Pictures of a matching run, one message each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._report import COLOURS, band, figure, panels, save_figure
from .config import ARMS, TRAINED, WORLDS
from .problem import data_of
from .regions import TEST

if TYPE_CHECKING:
    from . import MatchingResult

LABELS = {
    "projection": "projection",
    "substochastic": "projection, k unknown",
    "softmax": "softmax rows",
    "sinkhorn": "Sinkhorn with dustbin",
    "linsat": "LinSAT-style",
    "mutual_nearest": "mutual nearest, ratio test",
    "descriptor_hungarian": "Hungarian on descriptors",
}
STYLES = {
    "projection": (COLOURS["blue"], "-", "o"),
    "substochastic": (COLOURS["sky"], "--", "s"),
    "softmax": (COLOURS["orange"], "-.", "^"),
    "sinkhorn": (COLOURS["green"], "--", "v"),
    "linsat": (COLOURS["vermilion"], ":", "D"),
    "mutual_nearest": (COLOURS["purple"], ":", "P"),
    "descriptor_hungarian": (COLOURS["grey"], ":", "X"),
}
TITLES = {"images": "Image regions", "graphs": "Random geometric graphs"}


def save_all(result: MatchingResult, folder: Path) -> list[tuple[str, str]]:
    """Write all pictures to `folder`; return (file name, caption) pairs."""
    pictures = [
        ("f1.png", draw_f1, "F1 on test instances; a dot is a seed."),
        (
            "matches.png",
            draw_matches,
            "Matches in test regions, left view above right view: an untrained matcher, then ours.",
        ),
        ("sweeps.png", draw_sweeps, "F1 on random graphs against noise and against outliers."),
        ("loss.png", draw_loss, "Training loss; every arm has the same network and loss."),
        ("rank.png", draw_rank, "How many directions the projections still learn in."),
    ]
    for name, draw, _ in pictures:
        save_figure(draw(result), folder / name)
    return [(name, caption) for name, _, caption in pictures]


def draw_f1(result: MatchingResult) -> Any:
    """Draw the test F1 of each arm in both worlds: seeds as dots, mean and standard error."""
    drawing, found = panels([TITLES[world] for world in WORLDS], width=10.4, height=4.4)
    arms = list(reversed(ARMS))
    for axes, world in zip(found, WORLDS):
        for height, arm in enumerate(arms):
            entry, (colour, _, _) = result.arm(world, arm), STYLES[arm]
            values = [row["test"]["f1"] for row in entry["seeds"]]
            if values:
                axes.plot(values, [height] * len(values), "o", color=colour, alpha=0.4)
            error = entry["test"].get("f1_se", np.nan)
            broken = entry["test"]["violation"] > 1e-6
            axes.errorbar(
                entry["test"]["f1"],
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
        labels = [LABELS[arm] for arm in arms] if world == WORLDS[0] else [""] * len(arms)
        axes.set_yticks(range(len(arms)), labels, fontsize=10)
        axes.set_ylim(-0.6, len(arms) - 0.4)
        axes.grid(axis="x", color="#E3E3E3", linewidth=0.8)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("mean test F1 ± standard error over seeds")
    found[1].text(
        1.0, -0.2, "hollow: the output layer breaks the constraints", ha="right", fontsize=9,
        color=COLOURS["grey"], transform=found[1].transAxes,
    )  # fmt: skip
    return drawing


def _condition_scores(result: MatchingResult, arm: str) -> np.ndarray:
    """Return the mean F1 of each test condition of the graphs, one row a seed."""
    scores = result.instance_scores("graphs", arm)
    sizes = [len(group) for group in data_of(result.problems["graphs"]).test.groups]
    return np.stack(
        [part.mean(axis=1) for part in np.split(scores, np.cumsum(sizes)[:-1], axis=1)], axis=1
    )


def draw_sweeps(result: MatchingResult) -> Any:
    """Draw F1 on graphs against noise and against outliers, mean and error over seeds."""
    config = result.config
    conditions = result.problems["graphs"].conditions()
    drawing, (left, right) = panels(
        [
            f"Noise ({config.outliers} outliers a side)",
            f"Outliers (noise {config.noise:g})",
        ],
        height=4.6,
    )
    sweeps = (
        (left, lambda one: one.noise, lambda one: one.outliers_left == config.outliers),
        (right, lambda one: one.outliers_left, lambda one: one.noise == config.noise),
    )
    for axes, value, belongs in sweeps:
        chosen = [place for place, one in enumerate(conditions) if belongs(one)]
        chosen.sort(key=lambda place: value(conditions[place]))
        x = [value(conditions[place]) for place in chosen]
        for arm in ARMS:
            colour, line, marker = STYLES[arm]
            values = _condition_scores(result, arm)[:, chosen]
            band(axes, x, values, colour, linestyle=line, marker=marker, label=LABELS[arm])
        axes.set_ylim(0.0, 1.02)
        axes.set_ylabel("F1 (mean of seeds ± standard error)")
    left.set_xlabel("standard deviation of the noise, in sides of the square")
    right.set_xlabel(f"outliers on each side, beside {config.inliers} inliers")
    left.legend(frameon=False, fontsize=8.5, loc="lower left")
    return drawing


def _history(result: MatchingResult, world: str, arm: str, key: str) -> np.ndarray:
    return np.array([[epoch[key] for epoch in run.history] for run in result.runs[world, arm]])


def draw_loss(result: MatchingResult) -> Any:
    """Draw the training loss against the epoch."""
    drawing, found = panels([TITLES[world] for world in WORLDS])
    for axes, world in zip(found, WORLDS):
        for arm in TRAINED:
            values = _history(result, world, arm, "train_loss")
            colour, line, _ = STYLES[arm]
            rate = result.runs[world, arm][0].task.learning_rate
            label = f"{LABELS[arm]} (first step {rate:g})"
            band(axes, np.arange(values.shape[1]), values, colour, linestyle=line, label=label)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylim(bottom=0.0)
        axes.legend(frameon=False, fontsize=9)
    found[0].set_ylabel("training loss (mean of seeds ± error)")
    return drawing


def draw_rank(result: MatchingResult) -> Any:
    """Draw the mean rank of the HS-Jacobian on test instances against the epoch."""
    drawing, axes = figure("Rank of the HS-Jacobian falls as matchings become definite")
    lines = {"images": "-", "graphs": "--"}
    for arm in ("projection", "substochastic"):
        for world in WORLDS:
            values = _history(result, world, arm, "test_mean_rank")
            dead = 100.0 * _history(result, world, arm, "test_dead_fraction")[:, -1].mean()
            band(
                axes, np.arange(values.shape[1]), values, STYLES[arm][0], linestyle=lines[world],
                label=f"{LABELS[arm]}, {world} (dead at the end: {dead:.1f} %)",
            )  # fmt: skip
    axes.set_yscale("symlog", linthresh=1.0)
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylabel("mean rank, test instances")
    axes.legend(frameon=False, fontsize=9)
    return drawing


def draw_matches(result: MatchingResult) -> Any:
    """Draw right, wrong and missed matches of one test region a block: left view above right."""
    problem = result.problems["images"]
    scene, group = problem.scene, data_of(problem).test.groups[0]
    assert scene is not None
    # the first region of every block: blocks share no left keypoint
    shown = np.array([np.flatnonzero(group.block == one)[0] for one in np.unique(group.block)])
    height, width = result.pair.left.shape
    edges = np.clip(np.rint(scene.edges), 0, height).astype(int)
    strips = [(edges[band], edges[band + 1]) for band in TEST]
    gap = width // 16
    # a panel shows both views of a band, the gap between them, and its share of the title
    tall = sum(2 * (bottom - top) + gap for top, bottom in strips) / width
    drawing = panels([""], width=10.4, height=2 * 9.6 * tall + 2.4)[0]
    drawing.clf()
    shares = [2 * (bottom - top) + gap for top, bottom in strips]
    grid = drawing.add_gridspec(2 * len(strips), 1, height_ratios=shares * 2)
    arms = (
        ("mutual_nearest", result.untrained["images", "mutual_nearest"][1].chosen[0]),
        ("projection", result.runs["images", "projection"][0].test.chosen[0]),
    )
    for place, (arm, chosen) in enumerate(arms):
        truth = group.truth[shown] > 0.0
        counts = (chosen[shown] & truth, chosen[shown] & ~truth, truth & ~chosen[shown])
        right, wrong, missed = (int(one.sum()) for one in counts)
        for row, (top, bottom) in enumerate(strips):
            axes = drawing.add_subplot(grid[place * len(strips) + row])
            size = bottom - top
            canvas = np.ones((2 * size + gap, width))
            canvas[:size] = 0.35 + 0.65 * result.pair.left[top:bottom]
            canvas[size + gap :] = 0.35 + 0.65 * result.pair.right[top:bottom]
            axes.imshow(canvas, cmap="gray", vmin=0.0, vmax=1.0)
            axes.set_axis_off()
            for k in shown:
                row_of = scene.left.place[group.where[k, 0], 0]
                if top <= row_of < bottom:
                    _draw_region(axes, scene, group, chosen[k], k, top, size + gap)
            if row == 0:
                axes.set_title(
                    f"{LABELS[arm]}: {right} right (blue), {wrong} wrong (orange, dashed), "
                    f"{missed} missed (black, dotted)",
                    loc="left",
                    fontsize=10.5,
                    fontweight="bold",
                )
    return drawing


def _draw_region(
    axes: Any, scene: Any, group: Any, chosen: np.ndarray, k: int, top: int, shift: int
) -> None:
    """Draw the keypoints and matches of region k, moved up by `top`, right ones down by `shift`."""
    m, _ = group.shape
    ours = scene.left.place[group.where[k, :m]] - [top, 0]
    theirs = scene.right.place[group.where[k, m:]] - [top - shift, 0]
    for points in (ours, theirs):
        axes.plot(points[:, 1], points[:, 0], ".", color="black", markersize=2.5)
    truth = group.truth[k] > 0.0
    for colour, line, pairs in (
        (COLOURS["blue"], "-", chosen & truth),
        (COLOURS["vermilion"], "--", chosen & ~truth),
        ("black", ":", truth & ~chosen),
    ):
        for i, j in np.argwhere(pairs):
            ends = np.stack([ours[i], theirs[j]])
            axes.plot(ends[:, 1], ends[:, 0], line, color=colour, linewidth=1.1, alpha=0.9)
