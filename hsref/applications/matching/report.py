"""The report of a matching run: where the projection wins, where it loses, how sure, what cost."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._report import number, paired, power, save_report, signed, table, with_error
from .config import ARMS, TRAINED, WORLDS
from .figures import LABELS, save_all
from .layers import ENTROPIC
from .problem import data_of

if TYPE_CHECKING:
    from . import MatchingResult

ROUND_OFF = 1e-12
"""The largest violation that counts as none."""

CLAIMED = ("projection", *ENTROPIC)
"""The arms that the claims are about."""

NOUNS = {"images": "regions", "graphs": "graphs"}
"""What an instance of each world is."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Projection minus another arm, in test F1.

    Attributes
    ----------
    world, arm : str
    mean : float
        Difference over all test instances and seeds.
    seed_error : float
        Standard error of the mean difference over seeds.
    block_mean, block_error : float
        The same over blocks of test instances that share nothing, after averaging over seeds.
    seeds_clear, blocks_clear : bool
        Whether the 95 % t-interval excludes zero.
    """

    world: str
    arm: str
    mean: float
    seed_error: float
    block_mean: float
    block_error: float
    seeds_clear: bool
    blocks_clear: bool

    def outcome(self) -> str:
        """Return "wins", "loses" or "undecided"; the first two only where both errors allow it."""
        if self.seeds_clear and self.blocks_clear and self.mean * self.block_mean > 0:
            return "wins" if self.mean > 0 else "loses"
        return "undecided"


def compare(result: MatchingResult, world: str, arm: str) -> Comparison:
    """Compare projection with another arm, paired by seed and by block of test instances."""
    ours = result.instance_scores(world, "projection").mean(axis=1)
    theirs = result.instance_scores(world, arm).mean(axis=1)
    theirs = np.broadcast_to(theirs, ours.shape)
    mean, error, clear = paired(ours, theirs)
    blocks = (result.block_scores(world, one) for one in ("projection", arm))
    block_mean, block_error, block_clear = paired(*blocks)
    return Comparison(world, arm, mean, error, block_mean, block_error, clear, block_clear)


def save(result: MatchingResult, folder: str | os.PathLike[str], command: str = "") -> Path:
    """Write report, pictures and numbers; return the folder."""
    return save_report(
        folder,
        lambda target: save_all(result, target),
        {"results.json": result.results(command), "details.json": details(result)},
        lambda pictures: report(result, pictures, command),
    )


def details(result: MatchingResult) -> dict[str, Any]:
    """Return what the report rests on beside ``results.json``."""
    from .figures import _condition_scores

    return {
        "config": dataclasses.asdict(result.config),
        "validation_f1": {
            f"{world} {arm}": scores for (world, arm), scores in result.tuning.items()
        },
        "comparisons": [
            dataclasses.asdict(compare(result, world, arm)) for world in WORLDS for arm in ARMS[1:]
        ],
        "claims": [dataclasses.asdict(one) for one in claims(result)],
        "graph_conditions": [
            dataclasses.asdict(one) for one in result.problems["graphs"].conditions()
        ],
        "graph_condition_f1": {arm: _condition_scores(result, arm) for arm in ARMS},
        "seconds": result.seconds,
    }


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim, what speaks for it, and what against.

    Attributes
    ----------
    claim : str
    verdict : {"supported", "not supported", "mixed"}
    evidence : str
    """

    claim: str
    verdict: str
    evidence: str


def _verdict(outcomes: list[bool]) -> str:
    if all(outcomes):
        return "supported"
    return "mixed" if any(outcomes) else "not supported"


def claims(result: MatchingResult) -> list[Claim]:
    """Judge the claims on this data: projection against each entropic layer, in both worlds."""
    found = []
    cells = [(world, arm) for world in WORLDS for arm in ENTROPIC]

    for claim, key, what, digits in (
        ("lower training loss", "loss", "final training loss", 4),
        ("less time", "seconds", "processor seconds a seed", 1),
    ):
        outcomes, parts = [], []
        for world, arm in cells:
            ours, theirs = (
                [run.seconds if key == "seconds" else run.train[key] for run in runs]
                for runs in (result.runs[world, "projection"], result.runs[world, arm])
            )
            mean, error, clear = paired(ours, theirs)
            outcomes.append(clear and mean < 0)
            doubt = "" if clear else " (not clear)"
            parts.append(f"{world}, {LABELS[arm]}: {signed(mean, error, digits)}{doubt}")
        text = f"{what}, projection minus the other: " + "; ".join(parts)
        found.append(Claim(claim, _verdict(outcomes), text))

    outcomes, parts = [], []
    for world, arm in cells:
        # softmax and Sinkhorn are not told the total, and do not answer for it
        key = "violation" if arm == "linsat" else "marginal_violation"
        ours, theirs = (result.arm(world, one)["test"][key] for one in ("projection", arm))
        outcomes.append(theirs > max(ours, ROUND_OFF))
        parts.append(f"{world}, {LABELS[arm]}: {power(ours)} against {power(theirs)}")
    text = "largest violation of rows and columns, and of the total where the other is told it: "
    found.append(Claim("smaller violation", _verdict(outcomes), text + "; ".join(parts)))

    outcomes, parts = [], []
    for world in WORLDS:
        values = {arm: result.arm(world, arm)["train"]["memory"] for arm in CLAIMED}
        # less by a hundredth is not less
        outcomes += [values["projection"] < 0.99 * values[arm] for arm in ENTROPIC]
        shown = (f"{LABELS[arm]} {number(value, 1)}" for arm, value in values.items())
        parts.append(f"{world}: " + ", ".join(shown))
    text = "MiB at the peak of one gradient, " + "; ".join(parts)
    found.append(Claim("less memory", _verdict(outcomes), text))
    return found


def at_the_edge(tuning: dict[Any, dict[float, float]]) -> str:
    """Return a sentence about arms whose learning rate is the largest or smallest of the grid.

    Examples
    --------
    >>> at_the_edge({"a": {0.1: 0.5, 0.2: 0.6, 0.3: 0.4}})
    ''
    >>> at_the_edge({"a": {0.1: 0.5, 0.2: 0.6}, "b": {0.1: 0.5, 0.2: 0.4}})[:47]
    'The chosen learning rate is the largest of the '
    """
    if not all(len(scores) > 1 for scores in tuning.values()):
        return ""
    best = [max(scores, key=lambda rate: (scores[rate], -rate)) for scores in tuning.values()]
    sentences = []
    for word, pick in (("largest", max), ("smallest", min)):
        count = sum(rate == pick(scores) for rate, scores in zip(best, tuning.values()))
        if count:
            sentences.append(
                f"The chosen learning rate is the {word} of the grid for {count} of the "
                f"{len(best)} trained networks: a wider grid, or more epochs, might improve them "
                "and change the order."
            )
    return " ".join(sentences)


def report(result: MatchingResult, pictures: list[tuple[str, str]], command: str = "") -> str:
    """Return the report as Markdown."""
    sections = ["# Partial matching with exact constraints", _answer(result)]
    for world in WORLDS:
        sections += [f"## All arms: {world}", _arms(result, world)]
    sections += [f"![{caption}]({name})" for name, caption in pictures]
    sections += ["## How sure", _sure(result), "## Protocol", _protocol(result, command)]
    return "\n\n".join(sections) + "\n"


def _score(result: MatchingResult, world: str, arm: str) -> str:
    test = result.arm(world, arm)["test"]
    return f"{LABELS[arm]} {with_error(test['f1'], test.get('f1_se'))}"


def _against(found: list[Comparison]) -> str:
    return ", ".join(
        f"{LABELS[one.arm]} ({signed(one.mean, one.seed_error)} over seeds, "
        f"{signed(one.block_mean, one.block_error)} over blocks)"
        for one in found
    )


def _answer(result: MatchingResult) -> str:
    """Return the first lines: where it wins, where it loses, how sure, at what cost."""
    everything = {
        world: [compare(result, world, arm) for arm in ARMS if arm != "projection"]
        for world in WORLDS
    }
    lines = []
    for outcome, head in (
        (
            "wins",
            "**Where it wins.** Test F1 of projection minus the other, clear on both counts: ",
        ),
        ("loses", "**Where it loses.** Clear on both counts: "),
        ("undecided", "**What stays open.** No clear difference to: "),
    ):
        parts = []
        for world in WORLDS:
            found = [one for one in everything[world] if one.outcome() == outcome]
            if found:
                parts.append(f"on {world}, {_against(found)}")
        lines.append(head + ("; ".join(parts) if parts else "nowhere") + ".")
    best = {
        world: max(ARMS, key=lambda arm: result.arm(world, arm)["test"]["f1"]) for world in WORLDS
    }
    lines.append(
        "**The highest mean F1.** "
        + "; ".join(
            f"on {world}, {_score(result, world, best[world])}"
            + (
                ""
                if best[world] == "projection"
                else f", before {_score(result, world, 'projection')}"
            )
            for world in WORLDS
        )
        + "."
    )
    blocks = {world: len(result.block_scores(world, "projection")) for world in WORLDS}
    lines.append(
        f"**How sure.** {len(result.config.seeds)} seeds; {blocks['images']} blocks of image "
        f"regions that share no left keypoint, from a single pair of images, and "
        f"{blocks['graphs']} independent graphs. Clear means that the 95 % t-intervals of the "
        "paired differences over seeds and over blocks both exclude zero; no correction is made "
        f"for looking at several arms. {at_the_edge(result.tuning)}".rstrip()
    )
    costs = []
    for world in WORLDS:
        entries = {arm: result.arm(world, arm)["train"] for arm in TRAINED}
        costs.append(
            f"on {world} "
            + ", ".join(
                f"{LABELS[arm]} {number(one['seconds'], 1)} s and {number(one['memory'], 1)} MiB"
                for arm, one in entries.items()
            )
        )
    lines.append(
        "**What it cost.** Processor seconds of a seed's training steps, and peak memory of one "
        "gradient: " + "; ".join(costs) + f". The whole run took {result.seconds:.0f} s."
    )
    dead = {world: result.arm(world, "projection")["train"] for world in WORLDS}
    lines.append(
        "**Gradients.** After training "
        + " and ".join(
            f"{100 * one['dead_fraction']:.1f} % of the training {NOUNS[world]}"
            for world, one in dead.items()
        )
        + " are projected to a vertex (dead: no gradient passes); mean rank of the HS-Jacobian "
        + " and ".join(number(one["mean_rank"], 1) for one in dead.values())
        + "."
    )
    lines.append(
        "**Claims, on this data.**\n"
        + "\n".join(
            f"- *{one.claim}*: **{one.verdict}** ({one.evidence})." for one in claims(result)
        )
    )
    return "\n\n".join(lines)


def _arms(result: MatchingResult, world: str) -> str:
    rows = []
    for name in ARMS:
        entry = result.arm(world, name)
        before, after = entry["train"], entry["test"]
        rows.append(
            [
                LABELS[name],
                with_error(before.get("loss"), before.get("loss_se"), 4),
                number(before["f1"]),
                with_error(after["f1"], after.get("f1_se")),
                number(after.get("f1_topk")),
                number(after.get("f1_open")),
                power(after["violation"]),
                power(after["marginal_violation"]),
                number(after.get("dead_fraction")),
                number(before.get("seconds"), 1),
                number(before.get("memory"), 1),
            ]
        )
    header = [
        "arm",
        "train loss",
        "train F1",
        "test F1",
        "top-k alone",
        "k unknown",
        "violation",
        "without total",
        "dead",
        "seconds",
        "MiB",
    ]
    text = table(header, rows)
    if world == WORLDS[0]:
        text += (
            "\n\nMeans over seeds ± standard error of the mean. Test F1 decodes by the Hungarian "
            "method and keeps the k largest entries (mutual nearest neighbours are taken as they "
            "are); top-k alone keeps the k largest entries without it; k unknown keeps the "
            "assigned entries above one half. Violation is the largest, over test instances and "
            "seeds, of (row sum − 1)₊, (column sum − 1)₊, (−X)₊ and |ΣX − k|; the next column "
            "leaves out the last of these, which softmax, Sinkhorn and the projection with k "
            "unknown are not told. Dead is the share of test instances at a vertex. Seconds are "
            "processor seconds of one seed's training steps, MiB the peak of one gradient of a "
            "minibatch as Python and NumPy allocate it, without what the compiler keeps."
        )
    return text


def _sure(result: MatchingResult) -> str:
    rows = []
    for world in WORLDS:
        for arm in ARMS[1:]:
            found = compare(result, world, arm)
            rows.append(
                [
                    f"{world}: {LABELS[arm]}",
                    signed(found.mean, found.seed_error),
                    "yes" if found.seeds_clear else "no",
                    signed(found.block_mean, found.block_error),
                    "yes" if found.blocks_clear else "no",
                ]
            )
    header = [
        "projection minus",
        "all instances ± error over seeds",
        "clear",
        "blocks ± error over blocks",
        "clear",
    ]
    return (
        table(header, rows)
        + "\n\nThe error over seeds says how much the answer depends on initial weights and on the "
        "order of the minibatches. The error over blocks says how much it depends on which regions "
        "or graphs were tested. Neither covers other scenes: the images are one pair, and what "
        "holds on it need not hold on another. Regions of one block overlap; blocks share no left "
        "keypoint, though neighbouring ones may share right keypoints that are outliers to one of "
        "them."
    )


def _protocol(result: MatchingResult, command: str) -> str:
    config, problem = result.config, result.problems["images"]
    data, graphs = data_of(problem), data_of(result.problems["graphs"])
    scene = problem.scene
    assert scene is not None
    rates = [
        [
            f"{world}: {LABELS[arm]}",
            *(number(scores[rate]) for rate in sorted(scores)),
            f"{max(scores, key=lambda rate: (scores[rate], -rate)):g}",
        ]
        for (world, arm), scores in result.tuning.items()
        if scores
    ]
    header = ["validation F1", *(f"{rate:g}" for rate in sorted(config.learning_rates)), "chosen"]
    true = data.test.groups[0].truth.sum(axis=(1, 2))
    told = "the true number of matches" if config.matches is None else f"{config.matches}"
    points = [
        f"Images: {problem.source}, {len(scene.left)} ORB keypoints on the left and "
        f"{len(scene.right)} on the right, detected in each view on its own and at least 4 pixels "
        f"apart; {int((scene.partner >= 0).sum())} true matches, each the other's nearest to "
        f"within {config.tolerance:g} pixels of the place that the known disparity sends it to, "
        "and not hidden. Everything else is a real outlier.",
        f"Regions: the {config.m} left keypoints nearest to a random one, and the {config.n} right "
        "ones nearest to the centre moved by the region's median disparity and by chance. The "
        "rows of the image are cut into five bands with as many left keypoints each, 8 rows left "
        "out at either side: two bands test "
        f"({len(data.test)} regions, {true.mean():.1f} matches each on average), three train "
        f"({len(data.fit)} regions), the middle one of which chooses learning rates. Partners "
        "lie on the same row, so the split holds in both views.",
        "Pair features: Hamming distance of the binary descriptors and likeness of grey patches, "
        "each with its margin to the best other candidate of row and column, orientation, scale, "
        "strength. Positions enter only as displacements within a view: the network is not told "
        "that the views are rectified.",
        f"Graphs (synthetic): {config.inliers} inliers in the unit square, rotated at random, with "
        f"Gaussian noise, and outliers drawn for each side; training graphs have three sizes, "
        f"unequal outliers and noise up to the loudest ({len(graphs.fit)} graphs), test graphs "
        f"sweep noise over {list(config.noises)} at {config.outliers} outliers a side and outliers "
        f"over {list(config.outlier_counts)} at noise {config.noise:g}, {config.test_graphs} "
        "graphs each. Descriptors are histograms of distances and the nearest distances.",
        f"Network, the same for every arm: perceptron on pair features ({config.hidden} wide), one "
        "round of messages on the association graph, perceptron to one score. Loss: "
        + (
            f"binary cross-entropy smoothed by {config.delta:g}"
            if config.loss == "bce"
            else "squared Frobenius distance"
        )
        + ", the same for every arm. Same initial network for every arm of a seed, its outputs in "
        "the relative interior of the constraints.",
        f"Layers: projections of scores divided by max(m, n); Sinkhorn and LinSAT-style with "
        f"{config.iterations} iterations, differentiated through them; softmax and Sinkhorn with a "
        f"learned score of having no partner. Told k: {told} (projection, LinSAT-style, and every "
        "decoder but those of mutual nearest neighbours and of the column k unknown).",
        f"Training: Adam, cosine steps, {config.epochs} epochs, batches of {config.batch_size}. "
        + (
            "Learning rate of each arm: best mean validation F1 over the seeds "
            f"{list(config.tuning_seeds)} from the same grid; then trained afresh"
            if rates
            else f"Learning rate of every arm: {config.learning_rates[0]:g}, given, not chosen; "
            "trained"
        )
        + f" with the seeds {list(config.seeds)}. The ratio of the mutual nearest neighbours is "
        "the best on training instances: "
        + ", ".join(
            f"{result.untrained[world, 'mutual_nearest'][1].figures['ratio']:g} on {world}"
            for world in WORLDS
        )
        + ". The iterative layers' number of iterations and the temperature are fixed, not tuned.",
    ]
    text = "\n".join(f"- {point}" for point in points)
    if rates:
        text += "\n\n" + table(header, rates)
    return text + (f"\n\nCommand: `{command}`" if command else "")
