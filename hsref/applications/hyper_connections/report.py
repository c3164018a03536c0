"""The report of a run with hyper-connections: who wins, by how much, how sure, at what cost."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._common import mean_and_error
from .._report import number, paired, power, save_report, signed, table, with_error
from .config import ARMS, CONSTRAINED
from .figures import LABELS, save_all
from .text import PARTS

if TYPE_CHECKING:
    from . import HyperResult

EXACT = 1e-12
"""The largest error of a row or column sum that counts as none."""

SAME = 0.02
"""Relative difference of times or sizes below which two arms count as equal."""

OTHERS = ("permutations", "sinkhorn")
"""The other ways to a doubly stochastic matrix, which claims about projection are judged by."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Projection minus another arm, in loss at the main depth.

    Attributes
    ----------
    arm : str
    mean, error : float
        Validation loss: mean difference over seeds, and its standard error.
    clear : bool
        Whether the 95 % t-interval over seeds excludes zero.
    topic_mean, topic_error : float
        The same over validation topics, every topic counting alike, after averaging over seeds.
    topics_clear : bool
    train_mean, train_error : float
        Training loss, over seeds.
    train_clear : bool
    """

    arm: str
    mean: float
    error: float
    clear: bool
    topic_mean: float
    topic_error: float
    topics_clear: bool
    train_mean: float
    train_error: float
    train_clear: bool

    def verdict(self) -> str:
        """Return one clause that claims no more than the numbers carry."""
        word = "lower" if self.mean < 0 else "higher"
        if not np.isfinite(self.mean):
            return "a run of one of them diverged, so no mean can be compared"
        if not self.clear:
            return "no difference can be claimed"
        if self.topics_clear and self.mean * self.topic_mean > 0:
            return f"{word} with projection, clearly over seeds and over topics"
        return (
            f"{word} with projection whatever the seed, but the topics are too few or too "
            "different to say that it would be on other text"
        )


def _by_topic(result: HyperResult, arm: str) -> np.ndarray:
    runs = result.runs[arm, result.problem.config.depth]
    empty = [np.inf] * len(result.problem.text.topics["validation"])
    return np.mean([run.figures["validation"].get("loss_by_topic", empty) for run in runs], axis=0)


def compare(result: HyperResult, arm: str) -> Comparison:
    """Compare projection with another arm, paired by seed and by topic."""
    pairs = [
        (result.losses("projection"), result.losses(arm)),
        (_by_topic(result, "projection"), _by_topic(result, arm)),
        (result.losses("projection", part="train"), result.losses(arm, part="train")),
    ]
    found: list[Any] = []
    for ours, theirs in pairs:
        whole = np.isfinite(ours).all() and np.isfinite(theirs).all()
        found += paired(ours, theirs) if whole else (np.nan, np.nan, False)
    return Comparison(arm, *found)


def violation(result: HyperResult, arm: str, depth: int | None = None) -> float:
    """Return the largest error of a row or column sum, or negative entry, of any seed."""
    figures = result.arm(arm, depth)["validation"]
    names = ("row_error", "column_error", "negative")
    return max(figures.get(name, np.inf) for name in names)


def claims(result: HyperResult) -> list[tuple[str, str, str]]:
    """Return (claim, verdict, reason) for each claim about projection and the `OTHERS`."""
    found = {arm: compare(result, arm) for arm in OTHERS}
    costs, ours = result.costs, result.costs.get("projection")

    def judge(better: dict[str, bool]) -> str:
        if all(better.values()):
            return "supported"
        return "mixed" if any(better.values()) else "not supported"

    lines = [
        (
            "lower training loss",
            judge({arm: one.train_clear and one.train_mean < 0 for arm, one in found.items()}),
            "; ".join(
                f"{signed(one.train_mean, one.train_error, 4)} to {LABELS[arm]}"
                f"{'' if one.train_clear else ' (not clear)'}"
                for arm, one in found.items()
            ),
        ),
        (
            "smaller violation",
            judge(
                {
                    arm: violation(result, arm) > max(EXACT, violation(result, "projection"))
                    for arm in OTHERS
                }
            ),
            f"{power(violation(result, 'projection'))} against "
            + ", ".join(f"{power(violation(result, arm))} for {LABELS[arm]}" for arm in OTHERS),
        ),
    ]
    for name, key, scale, unit, digits in (
        ("less time", "seconds", 1e3, "ms a step", 1),
        ("less memory", "peak_bytes", 2.0**-20, "MiB in a gradient", 2),
    ):
        known = {arm: getattr(costs[arm], key) for arm in OTHERS if arm in costs}
        if ours is None or len(known) < len(OTHERS):
            lines.append((name, "not measured", "a run diverged"))
            continue
        mine = getattr(ours, key)
        lines.append(
            (
                name,
                judge({arm: mine < (1.0 - SAME) * value for arm, value in known.items()}),
                f"{mine * scale:.{digits}f} {unit} against "
                + ", ".join(
                    f"{v * scale:.{digits}f} for {LABELS[arm]}" for arm, v in known.items()
                ),
            )
        )
    return lines


def save(result: HyperResult, folder: str | os.PathLike[str], command: str = "") -> Path:
    """Write all files; see :meth:`HyperResult.save`."""
    return save_report(
        folder,
        lambda target: save_all(result, target),
        {"results.json": result.results(command), "details.json": details(result)},
        lambda pictures: report(result, pictures, command),
    )


def details(result: HyperResult) -> dict[str, Any]:
    """Return the settings, the data and the comparisons behind the report."""
    problem = result.problem
    return {
        "config": dataclasses.asdict(problem.config),
        "data": {
            "source": problem.source,
            "digest": problem.text.key,
            "symbols": problem.text.size,
            "topics": problem.text.topics,
            "characters": {part: len(problem.text.positions[part]) for part in PARTS},
        },
        "tuning_loss": result.tuning,
        "comparisons": [
            dataclasses.asdict(compare(result, arm)) for arm in ARMS if arm != "projection"
        ],
        "claims": claims(result),
        "costs": {arm: cost.as_dict() for arm, cost in result.costs.items()},
        "seconds": result.seconds,
        "resumed": result.resumed,
        "processor_seconds": result.processor_seconds,
    }


def report(result: HyperResult, pictures: list[tuple[str, str]], command: str = "") -> str:
    """Return the report as Markdown."""
    from .protocol import protocol

    sections = [
        "# Hyper-connections with exactly doubly stochastic mixing",
        _answer(result),
        "## The claims, on this data",
        _claims(result),
        "## All arms",
        _arms(result),
        *(f"![{caption}]({name})" for name, caption in pictures),
        "## How sure",
        _sure(result),
        *(["## Depth", _depths(result)] if result.problem.config.depths else []),
        "## Protocol",
        protocol(result, command),
    ]
    return "\n\n".join(sections) + "\n"


def _answer(result: HyperResult) -> str:
    """Return the first lines: where projection wins and loses, how sure, at what cost."""
    means = {arm: float(np.mean(result.losses(arm))) for arm in ARMS}
    ranked = sorted(ARMS, key=lambda arm: means[arm])
    best = next(arm for arm in ranked if arm != "projection")

    def earned(arm: str) -> str:
        return f"{LABELS[arm]} {with_error(*mean_and_error(result.losses(arm)), 4)}"

    place = ranked.index("projection") + 1
    ours = with_error(*mean_and_error(result.losses("projection")), 4)
    among = sorted(CONSTRAINED, key=lambda arm: means[arm])
    lines = [
        f"**Loss.** With a validation loss of {ours} "
        f"nats a character, projection is number {place} of {len(ARMS)}"
        + (
            f", before {earned(best)}."
            if place == 1
            else f"; the lowest is that of {earned(ranked[0])}."
        )
        + " Among the three ways to a doubly stochastic matrix the order is "
        + ", ".join(earned(arm) for arm in among)
        + ". Projection minus the other:"
    ]
    for arm in ARMS[1:]:
        found = compare(result, arm)
        lines[0] += (
            f"\n- **{LABELS[arm]}**: {signed(found.mean, found.error, 4)} over seeds, "
            f"{signed(found.topic_mean, found.topic_error, 4)} over "
            f"{len(result.problem.text.topics['validation'])} topics: {found.verdict()}."
        )
    wins = [f"{name} ({reason})" for name, verdict, reason in claims(result)
            if verdict == "supported"]  # fmt: skip
    rest = [f"{name} ({verdict}: {reason})" for name, verdict, reason in claims(result)
            if verdict != "supported"]  # fmt: skip
    lines.append(
        "**Where it wins, where it does not**, against the other two ways to a doubly stochastic "
        f"matrix. Wins: {'; '.join(wins) or 'nothing'}. Does not win: "
        f"{'; '.join(rest) or 'nothing'}."
    )
    entry = result.arm("projection")["validation"]
    if "mean_rank" in entry:
        full = (result.problem.config.streams - 1) ** 2
        lines.append(
            f"**Gradients.** After training {100 * entry['dead_fraction']:.2f} % of the "
            f"projections end at a vertex (dead: no gradient passes), "
            f"{100 * entry['boundary_fraction']:.1f} % on the boundary; mean rank of the "
            f"HS-Jacobian {entry['mean_rank']:.2f} of {full}; by block "
            f"{', '.join(f'{rank:.2f}' for rank in entry['rank_by_block'])}. The first and the "
            "last block's matrices are inert by construction and stay inside (see the protocol), "
            "so what matters is the blocks between: where their rank is near 0, training has "
            "turned the mixing into fixed permutations."
        )
    gains = ", ".join(f"{LABELS[arm]} {_gain(result.arm(arm)['validation'])}" for arm in ARMS[:-1])
    lines.append(f"**Composite gain**, worst window, direction and seed: {gains}.")
    if result.problem.config.depths:
        lines.append(_depth_line(result))
    if "projection" in result.costs:
        costs = ", ".join(
            f"{LABELS[arm]} {1e3 * cost.seconds:.1f} ms" for arm, cost in result.costs.items()
        )
        lines.append(
            f"**What it cost.** One training step: {costs}. All runs together took "
            f"{result.processor_seconds:.0f} s of processor time in training steps. This call took "
            f"{result.seconds:.0f} s"
            + (
                f"; {result.resumed} of its runs an earlier call had finished."
                if result.resumed
                else "."
            )
        )
    return "\n\n".join(lines)


def _depth_line(result: HyperResult) -> str:
    """Return who is first at which depth, and whether depth paid at all."""
    config = result.problem.config
    depths = sorted({config.depth, *config.depths})
    means = {
        (arm, depth): float(np.mean(result.losses(arm, depth))) for arm in ARMS for depth in depths
    }
    parts = []
    for depth in depths:
        first = min(ARMS, key=lambda arm, depth=depth: means[arm, depth])
        ours = (
            "" if first == "projection" else f", projection {number(means['projection', depth], 4)}"
        )
        parts.append(f"{depth} blocks {LABELS[first]} {number(means[first, depth], 4)}{ours}")
    ours_at = [f"{number(means['projection', depth], 4)}" for depth in depths]
    arm, depth = min(means, key=lambda key: means[key])
    return (
        f"**Depth.** Lowest mean validation loss at each depth: {'; '.join(parts)}. The lowest of "
        f"all is that of {LABELS[arm]} with {depth} blocks; plain residual networks have "
        + ", ".join(f"{number(means['residual', d], 4)} at {d}" for d in depths)
        + " blocks, projection "
        + ", ".join(ours_at)
        + "."
    )


def _gain(figures: dict[str, Any]) -> str:
    """Return the worst gain with three digits, for what matters is how far from 1 it is."""
    return f"{figures['gain_max']:.3g}" if "gain_max" in figures else "–"


def _claims(result: HyperResult) -> str:
    rows = "\n".join(
        f"| {claim} | {verdict} | {reason} |" for claim, verdict, reason in claims(result)
    )
    return (
        "Claims made for projection with HS-Jacobian, judged against "
        f"{' and '.join(LABELS[arm] for arm in OTHERS)}: supported if it holds against both, mixed "
        "if against one. A loss is lower if the 95 % t-interval over seeds says so; a violation of "
        f"at most {EXACT:g} counts as none; times and sizes within {100 * SAME:g} % count as "
        "equal.\n\n| claim | verdict | what was measured |\n|---|---|---|\n" + rows
    )


def _arms(result: HyperResult) -> str:
    rows = []
    for arm in ARMS:
        entry, cost = result.arm(arm), result.costs.get(arm)
        before, after = entry["train"], entry["validation"]
        streams = arm != "residual"
        rows.append(
            [
                LABELS[arm],
                f"{before['parameters']}",
                with_error(before["loss"], before["loss_se"], 4),
                with_error(after["loss"], after["loss_se"], 4),
                number(after.get("gain"), 3) if streams else "–",
                _gain(after) if streams else "–",
                power(after.get("row_error", np.inf)) if streams else "–",
                power(after.get("column_error", np.inf)) if streams else "–",
                number(before["gradient_norm"], 3),
                number(after.get("dead_fraction"), 4),
                number(after.get("mean_rank"), 2),
                f"{1e3 * cost.seconds:.1f}" if cost else "–",
                f"{1e3 * cost.mixing_seconds:.2f}" if cost and streams else "–",
                f"{cost.peak_bytes / 2**20:.2f}" if cost else "–",
            ]
        )
    header = [
        "arm", "parameters", "training loss", "validation loss", "gain", "worst gain",
        "row-sum error", "column-sum error", "gradient norm", "dead fraction", "mean rank",
        "ms a step", "ms for mixing, one block", "peak MiB of a gradient",
    ]  # fmt: skip
    config = result.problem.config
    return (
        table(header, rows)
        + f"\n\n{config.depth} blocks, means over {len(config.seeds)} seeds ± standard error of "
        "the mean; losses in nats a character. Gain: largest row sum of the product of all blocks' "
        "matrices, entries taken absolutely, mean over windows; worst gain: largest row or column "
        "sum, window and seed. Errors of sums are the largest of any window, block and seed. "
        f"Gradient norm: mean over the last {config.every} steps, before clipping. Times are "
        "processor time of a step with trained parameters, the arms taking turns in one process, "
        "medians; Sinkhorn and projection are compiled, permutations are two matrix products. "
        "Memory is what one gradient allocates beyond parameters and data, at its peak."
    )


def _sure(result: HyperResult) -> str:
    rows = []
    for arm in ARMS[1:]:
        found = compare(result, arm)
        rows.append(
            [
                LABELS[arm],
                signed(found.train_mean, found.train_error, 4),
                "yes" if found.train_clear else "no",
                signed(found.mean, found.error, 4),
                "yes" if found.clear else "no",
                signed(found.topic_mean, found.topic_error, 4),
                "yes" if found.topics_clear else "no",
            ]
        )
    header = [
        "projection minus", "training loss ± error over seeds", "clear",
        "validation loss ± error over seeds", "clear", "by topic ± error over topics", "clear",
    ]  # fmt: skip
    return (
        table(header, rows)
        + "\n\nDifferences are paired: the runs of a seed share their initial network (but for the "
        'connections) and their windows. "Clear" means that the 95 % t-interval excludes zero; no '
        "correction is made for looking at several arms. The error over seeds says nothing about "
        "other text; the error over topics does, as far as a few topics of one manual can, every "
        "topic counting alike however short. Neither covers other sizes, schedules or tasks: these "
        "networks are tiny, are trained for minutes, and read a window without attention."
    )


def _depths(result: HyperResult) -> str:
    config = result.problem.config
    rows = []
    for depth in sorted({config.depth, *config.depths}):
        for arm in ARMS:
            entry = result.arm(arm, depth)
            after = entry["validation"]
            ours, theirs = result.losses("projection", depth), result.losses(arm, depth)
            whole = np.isfinite(ours).all() and np.isfinite(theirs).all()
            difference = paired(ours, theirs) if whole else (np.nan, np.nan)
            rows.append(
                [
                    f"{depth} blocks, {LABELS[arm]}",
                    f"{len(entry['seeds'])}",
                    with_error(after["loss"], after["loss_se"], 4),
                    "–" if arm == "projection" else signed(*difference[:2], 4),
                    number(entry["train"]["gradient_norm"], 3),
                    _gain(after) if arm != "residual" else "–",
                    number(after.get("dead_fraction"), 4),
                    number(after.get("mean_rank"), 2),
                    f"{1e3 * entry['train']['step_seconds']:.1f}",
                ]
            )
    header = [
        "depth and arm", "seeds", "validation loss", "projection minus it", "gradient norm",
        "worst gain", "dead fraction", "mean rank", "ms a step in training",
    ]  # fmt: skip
    return (
        table(header, rows)
        + f"\n\nThe learning rate of every arm is the one tuned at {config.depth} blocks. With "
        "2 blocks no doubly stochastic matrix has any effect (see the protocol): differences "
        "there come from the learning rate, the other connections and chance. Two "
        "seeds carry no interval worth the name; their differences are shown, and prove nothing."
    )
