"""The pictures of a verification; matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .checks.beyond import IMPOSTOR_ERROR, LAYER_ERROR, LEAST_ERROR
from .reports import replacing
from .rows_table import Row
from .statements import STATEMENTS

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#666666"
"""Colours that stay apart for colour-blind readers; shapes and labels say the same."""

LEAST = 1e-17
"""Exact zeros are drawn here."""


def draw(folder: Path, rows: Sequence[Row]) -> dict[str, list[str]]:
    """Draw the pictures and return their Markdown by name; without matplotlib say so."""
    try:
        import matplotlib
    except ImportError:
        return {"residuals": ["Pictures need matplotlib: `pip install 'hsref[apps]'`.", ""]}
    style: dict[Any, Any] = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(style):
        return {
            "residuals": _draw_margins(folder, rows),
            "impostors": _draw_impostors(folder, rows),
            "dead_starts": _draw_starts(folder, rows),
        }


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    return figure, figure.subplots()


def _save(figure: Any, path: Path) -> None:
    with replacing(path) as stream:
        figure.savefig(
            stream, format="png", dpi=130, bbox_inches="tight", metadata={"Software": None}
        )


def unique(items: Iterable[str]) -> list[str]:
    """Return the distinct items in the order in which they first occur."""
    return list(dict.fromkeys(items))


def _draw_margins(folder: Path, rows: Sequence[Row]) -> list[str]:
    """Every row as a point: residual over tolerance, by statement."""
    order = list(STATEMENTS)
    ids = unique(r.statement for r in sorted(rows, key=lambda r: order.index(r.statement)))
    if not ids:
        return []
    figure, axes = _figure(max(4.0, 0.3 * len(ids) + 1.6), 3.6)
    rng = np.random.default_rng(0)
    for holds, color, marker in ((True, BLUE, "o"), (False, ORANGE, "X")):
        mine = [r for r in rows if r.verdict == holds]
        if not mine:
            continue
        at = [ids.index(r.statement) + rng.uniform(-0.25, 0.25) for r in mine]
        # a bound for display: exact zeros and infinities lie on the edges of the picture
        height = [min(max(r.residual / r.tolerance, 1e-9), 1e9) for r in mine]
        label = "holds" if holds else "fails"
        axes.scatter(at, height, s=10 if holds else 36, c=color, marker=marker, alpha=0.6,
                     linewidths=0, label=label)  # fmt: skip
    axes.axhline(1.0, color=GREY, lw=1)
    axes.text(len(ids) - 0.5, 1.0, " tolerance", va="center", color=GREY)
    axes.set_yscale("log")
    axes.set_xticks(range(len(ids)), ids, rotation=90 if len(ids) > 12 else 0)
    axes.set_xlim(-0.6, len(ids) - 0.4)
    axes.set_ylabel("worst residual / tolerance")
    bad = sum(not r.verdict for r in rows)
    axes.set_title(f"{bad} of {len(rows)} rows exceed their tolerance" if bad else
                   f"All {len(rows)} rows stay below their tolerance", loc="left")  # fmt: skip
    if bad:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    _save(figure, folder / "residuals.png")
    caption = "A point is one statement on one set at one kind of degeneracy; zeros lie at 1e-9."
    return [f"![Worst residual over tolerance of every row.](residuals.png)\n\n{caption}", ""]


def _draw_impostors(folder: Path, rows: Sequence[Row]) -> list[str]:
    """The error of the chain rule for each wrong field, and for the layer on the same paths."""
    found = [r for r in rows if r.statement == "N1" and IMPOSTOR_ERROR in r.notes]
    if not found:
        return []
    figure, axes = _figure(6.4, 0.34 * len(found) + 1.2)
    place = np.arange(len(found))
    for key, color, marker, label in (
        (LAYER_ERROR, BLUE, "o", "the layer"), (IMPOSTOR_ERROR, ORANGE, "X", "the wrong field"),
    ):  # fmt: skip
        value = [max(r.notes[key], LEAST) for r in found]
        axes.scatter(value, place, s=46, c=color, marker=marker, linewidths=0)
        axes.text(value[0], -0.62, label, color=color, ha="center", va="center")
    axes.axvline(LEAST_ERROR, color=GREY, lw=1)
    axes.text(LEAST_ERROR, len(found) - 0.55, "caught above 1e-2 ", ha="right", va="bottom",
              color=GREY)  # fmt: skip
    axes.set_xscale("log")
    axes.set_yticks(place, [r.kind for r in found])
    axes.set_ylim(len(found) - 0.5, -1.1)
    axes.set_xlim(LEAST / 3, 10.0)
    axes.set_xlabel("largest error of the chain rule along the paths, relative")
    axes.set_title("The check that the layer passes finds every wrong field", loc="left")
    _save(figure, folder / "impostors.png")
    return ["![Error of the chain rule for wrong fields and for the layer.](impostors.png)", ""]


def _draw_starts(folder: Path, rows: Sequence[Row]) -> list[str]:
    """Shares of runs that end at a vertex or reach the target, by the scale of the starts."""
    starts = [r for r in rows if r.statement == "D1" and not r.error]
    if len(starts) < 2:
        return []
    starts.sort(key=lambda r: float(r.kind))
    scale = [float(r.kind) for r in starts]
    figure, axes = _figure(5.6, 3.0)
    for key, color, marker, style in (
        ("share that reaches the target", BLUE, "o", "-"),
        ("share that ends at a vertex", ORANGE, "X", "--"),
    ):
        share = [100.0 * r.notes[key] for r in starts]
        axes.plot(scale, share, style, color=color, marker=marker, ms=6, clip_on=False)
        axes.text(1.12 * scale[-1], share[-1], key.removeprefix("share that ").replace(
            "reaches", "reach").replace("ends", "end"), color=color, va="center")  # fmt: skip
    axes.set_xscale("log")
    axes.set_xticks(scale, [r.kind for r in starts])
    axes.minorticks_off()
    axes.set_ylim(0, 100)
    axes.set_xlabel("σ of the starts, θ₀ = σ·N(0, I)")
    axes.set_ylabel("share of 400 runs, %")
    axes.set_title("The wider the starts, the more runs end at a vertex", loc="left")
    _save(figure, folder / "dead_starts.png")
    return ["![Where runs end, by the scale of their starts.](dead_starts.png)", ""]
