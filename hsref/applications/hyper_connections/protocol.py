"""The part of the report that says what was done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._report import number, table
from .config import ARMS
from .figures import LABELS
from .text import PARTS

if TYPE_CHECKING:
    from . import HyperResult


def protocol(result: HyperResult, command: str = "") -> str:
    """Return the settings of a run as a list, the tuning table and the command."""
    problem, config, text = result.problem, result.problem.config, result.problem.text
    n = config.streams
    sizes = ", ".join(
        f"{part} {len(text.positions[part])} characters of {len(text.topics[part])} topics"
        for part in PARTS
    )
    widths = {arm: result.runs[arm, config.depth][0].parameters for arm in ARMS}
    passes = config.steps * config.batch_size / len(text.positions["train"])
    points = [
        f"Text: {problem.source}, digest {text.key}; it differs between versions of Python. {sizes}"
        ". Topics that share lines (some sections occur in several topics) were put on one side "
        f"together, then groups were dealt at random. {text.size} symbols.",
        f"Task: the next character from the {config.context} before it. Losses are measured on "
        f"{config.scored} evenly spread windows of a part (all, where there are fewer).",
        f"Network: characters as {config.embedding} numbers, the window mapped linearly to "
        f"{config.width}; {config.depth} blocks of a rectified layer of {config.hidden}, each "
        "after a root-mean-square norm. The plain residual network has wider blocks, so that it "
        f"has as many parameters: {', '.join(f'{LABELS[a]} {w}' for a, w in widths.items())}.",
        f"Connections: {n} streams, copies of the input at the start; gates and mixing matrix "
        "depend on the normalised streams through one linear map with a learned factor that "
        f"starts at {config.alpha:g}. Gates of block k start turned towards stream k mod {n}. "
        "Streams are equal before the first block and averaged after the last, so a doubly "
        "stochastic matrix there changes nothing and gets no gradient; those between do. "
        "All arms of a seed share initial values, but the permutation arm, whose linear map is "
        "larger, draws others for it.",
        f"Start of the mixing matrices, the same for every arm: {1 - config.epsilon:g} I + "
        f"{config.epsilon:g}/{n} 11ᵀ, inside the polytope (asserted for the training windows "
        "before the first step). The logits of every arm are scaled so that they move their "
        "matrix alike, to first order, at the start: the norm of each map's Jacobian there is "
        f"{n - 1}, that of the projection. Published Sinkhorn and permutation arms have no such "
        "scale and start closer to the identity, which is a vertex, where a Euclidean projection "
        "could not learn.",
        f"Sinkhorn: exp, then {config.iterations} rounds of columns and rows, differentiated "
        "exactly; the reverse pass computes the iterates again. Projection: "
        f'`hsref.project` onto `hsref.Birkhoff({n})`, element "active" of the HS-Jacobian. '
        f"Permutations: softmax weights of all {n}! matrices.",
        f"Training: Adam (β = {config.beta1:g}, {config.beta2:g}), {config.steps} steps of "
        f"{config.batch_size} random windows ({passes:.2f} "
        f"times the training text), step size up over {config.warmup} steps and down along a "
        f"cosine, gradients clipped at norm {config.clip:g}, float64. Seeds {list(config.seeds)} "
        f"at {config.depth} blocks, {list(config.depth_seeds)} at {list(config.depths)}.",
        "Learning rate of each arm: least loss on the tuning topics over the seeds "
        f"{list(config.tuning_seeds)}, from one grid, at {config.depth} blocks. The validation "
        "topics chose nothing. Between "
        f"neighbouring rates of close losses the choice is partly luck, with "
        f"{len(config.tuning_seeds)} tuning seed{'s' * (len(config.tuning_seeds) > 1)}.",
    ]
    least, most = min(config.learning_rates), max(config.learning_rates)
    edge = [
        LABELS[arm]
        for arm in ARMS
        if len(config.learning_rates) > 1
        and result.runs[arm, config.depth][0].task.learning_rate in (least, most)
    ]
    points.append(f"Chosen at an end of the grid: {', '.join(edge) or 'none'}.")
    diverged = [
        f"{LABELS[arm]} at {depth} blocks, seed {run.task.seed}"
        for (arm, depth), runs in result.runs.items()
        for run in runs
        if run.diverged
    ]
    points.append(f"Diverged runs: {'; '.join(diverged) or 'none'}.")
    rows = [
        [
            LABELS[arm],
            *(number(losses[rate], 4) for rate in sorted(losses)),
            f"{min(losses, key=lambda rate: (losses[rate], rate)):g}",
        ]
        for arm, losses in result.tuning.items()
    ]
    header = ["tuning loss", *(f"{r:g}" for r in sorted(config.learning_rates)), "chosen"]
    text_of = "\n".join(f"- {point}" for point in points) + "\n\n" + table(header, rows)
    return text_of + (f"\n\nCommand: `{command}`" if command else "")
