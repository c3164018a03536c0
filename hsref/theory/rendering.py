"""The report of a verification: Markdown to read, JSON to compare, pictures to look at."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .reports import write_text
from .rows_table import Row
from .statements import STATEMENTS

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#888888"


def write_report(
    folder: Path, request: dict[str, Any], rows: Sequence[Row], spent: dict[str, Any]
) -> None:
    """Write ``report.md``, ``report.json`` and, with matplotlib, the pictures.

    ``report.json`` holds ``request``, ``rows`` and ``verdict``, which do not depend on the
    executor, and ``run`` (command, time, versions), which does.
    """
    verdict = all(row.verdict for row in rows)
    run = {**spent, "versions": _versions()}
    content = {
        "request": request,
        "verdict": verdict,
        "rows": [{**asdict(row), "verdict": row.verdict} for row in rows],
        "pending": {s.id: s.pending for s in _pending(request)},
        "run": run,
    }
    write_text(folder / "report.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    pictures = _pictures(folder, rows)
    lines = [
        *_head(request, rows, run, verdict),
        *_statements(request, rows),
        *_matrix(rows),
        *pictures,
        *_limits(rows),
        *_failures(rows),
        *_all_rows(rows),
    ]
    write_text(folder / "report.md", "\n".join(lines) + "\n")


def _versions() -> dict[str, str]:
    import numba
    import scipy

    import hsref

    return {
        "hsref": hsref.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "numba": numba.__version__,
    }


def _pending(request: dict[str, Any]) -> list[Any]:
    return [STATEMENTS[k] for k in request["statements"] if STATEMENTS[k].check is None]


def _head(
    request: dict[str, Any], rows: Sequence[Row], run: dict[str, Any], verdict: bool
) -> list[str]:
    cases = sum(r.cases for r in rows)
    failing = sum(not r.verdict for r in rows)
    versions = ", ".join(f"{k} {v}" for k, v in run["versions"].items())
    return [
        "# Verification report",
        "",
        f"**{'Every statement holds' if verdict else f'{failing} of {len(rows)} rows fail'}**: "
        f"{len(rows)} rows, {cases:,} cases, {request['points']:,} points for each statement and "
        f"set, seed {request['seed']}.",
        "",
        f"- command: `{run['command'] or 'hsref.theory.verify.run(...)'}`",
        f"- {run['seconds']:.0f} s ({run['task seconds']:.0f} s of computing) with executor "
        f"{run['executor']}; {run['resumed']} tasks were taken over from an earlier run",
        f"- {versions}",
        "",
        "Residuals are relative to 1 + the largest entry of x and of the right-hand sides, rows "
        "having unit norm, unless they concern matrices. A case is a point, a path or a run.",
        "",
    ]


def _statements(request: dict[str, Any], rows: Sequence[Row]) -> list[str]:
    lines = [
        "## Statements",
        "",
        "| id | claim | tolerance | cases | left out | worst residual | verdict |",
        "|---|---|---|---:|---:|---:|---|",
    ]
    for name in request["statements"]:
        s = STATEMENTS[name]
        mine = [r for r in rows if r.statement == name]
        claim = f"{s.title}: {s.formula}".replace("|", "\\|")
        if s.check is None:
            lines.append(f"| {name} | {claim} | {s.tolerance} | | | | pending: {s.pending} |")
            continue
        if not mine:
            continue
        bad = sum(not r.verdict for r in mine)
        worst = max(mine, key=lambda r: r.residual / r.tolerance)
        lines.append(
            f"| {name} | {claim} | {s.tolerance} | {sum(r.cases for r in mine):,} | "
            f"{sum(r.excluded for r in mine):,} | {worst.residual:.1e} | "
            f"{f'**{bad} rows fail**' if bad else 'holds'} |"
        )
    return [*lines, "", "Proofs: `hsref verify --list`.", ""]


def _matrix(rows: Sequence[Row]) -> list[str]:
    """Return worst residual over tolerance, statement by set."""
    about = [r for r in rows if not STATEMENTS[r.statement].kinds]
    names, ids = _unique(r.set for r in about), _unique(r.statement for r in about)
    if not names:
        return []
    lines = [
        "## Worst residual over tolerance",
        "",
        "At most 1 where the statement holds; ✗ marks a failure.",
        "",
        "| set | " + " | ".join(ids) + " |",
        "|---|" + "---:|" * len(ids),
    ]
    for name in names:
        cells = []
        for s in ids:
            mine = [r for r in about if (r.set, r.statement) == (name, s)]
            if not mine:
                cells.append("")
                continue
            ratio = max(r.residual / r.tolerance for r in mine)
            cells.append(f"{ratio:.0e}" + ("" if all(r.verdict for r in mine) else " ✗"))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _unique(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))


def _limits(rows: Sequence[Row]) -> list[str]:
    """Return what the theorem does not promise: flat faces, and uncovered runs."""
    lines: list[str] = []
    starts = [r for r in rows if r.statement == "D1"]
    if starts:
        lines += [
            "## What convergence means, and what not",
            "",
            "Runs on ½‖Π_Δ(θ) - t‖², t = (.4, .3, .2, .1), by gradient descent with 3000 steps of "
            "size 2/(k + 4)^0.6, 400 runs a row. Every limit is critical for the conservative "
            "field; only some are the minimiser. The shares depend on the steps.",
            "",
            "| starts | reach the target | end at a vertex | start at a vertex |",
            "|---|---:|---:|---:|",
        ]
        for r in starts:
            shares = list(r.notes.values())
            lines.append(f"| {r.kind}·N(0, I) | " + " | ".join(f"{v:.0%}" for v in shares) + " |")
        lines.append("")
    if any(r.statement in ("P1", "P2", "P3", "P4", "P5") for r in rows):
        lines += [
            "Which runs of P1 to P5 the convergence theorem covers (what cannot be read off the "
            "schedules, bounded iterates and definability, is granted):",
            "",
            "| algorithm | verdict | broken hypotheses |",
            "|---|---|---|",
        ]
        for name, verdict, broken in _covered():
            lines.append(f"| {name} | {verdict} | {broken} |")
        lines.append("")
    return lines


def _covered() -> list[tuple[str, str, str]]:
    from hsref.optim import check_conditions

    from .checks.beyond import conditions

    out = []
    for name, keywords in conditions().items():
        report = check_conditions(**keywords, bounded_iterates=True, definable=True, unbiased=True)
        broken = "; ".join(f"{c.hypothesis} ({c.why})" for c in report.broken)
        out.append((name, report.verdict, broken or "none"))
    return out


def _failures(rows: Sequence[Row]) -> list[str]:
    bad = [r for r in rows if not r.verdict]
    if not bad:
        return []
    lines = ["## Failures", ""]
    for r in bad:
        saved = ", ".join(f"`{c}`" for c in r.counterexamples)
        lines.append(f"- {r}" + (f" (saved: {saved})" if saved else ""))
    lines += ["", "Run one again with `hsref.theory.verify.reproduce(path)`.", ""]
    return lines


def _all_rows(rows: Sequence[Row]) -> list[str]:
    lines = ["## All rows", ""]
    for name in _unique(r.set for r in rows):
        mine = [r for r in rows if r.set == name]
        title = name if name != "–" else "statements about no set"
        lines += [
            f"<details><summary>{title}: {len(mine)} rows</summary>",
            "",
            "| statement | kind | cases | left out | worst residual | tolerance | of | verdict |",
            "|---|---|---:|---:|---:|---:|---|---|",
        ]
        for r in sorted(mine, key=lambda r: list(STATEMENTS).index(r.statement)):
            notes = "; ".join(
                f"{k}: {v:,}" if isinstance(v, int) else f"{k}: {v:.2g}" for k, v in r.notes.items()
            )
            of = r.error.replace("|", "\\|") or r.part
            lines.append(
                f"| {r.statement} | {r.kind} | {r.cases:,} | {r.excluded:,} | {r.residual:.1e} | "
                f"{r.tolerance:.0e} | {of}{f' ({notes})' if notes else ''} | "
                f"{'holds' if r.verdict else '**fails**'} |"
            )
        lines += ["", "</details>", ""]
    return lines


def _pictures(folder: Path, rows: Sequence[Row]) -> list[str]:
    """Draw the pictures and return their Markdown; without matplotlib say so."""
    try:
        import matplotlib
    except ImportError:
        return ["Pictures need matplotlib: `pip install 'hsref[apps]'`.", ""]
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False,
                                "axes.spines.right": False}):  # fmt: skip
        drawn = [_draw_margins(Figure, folder, rows), _draw_starts(Figure, folder, rows)]
    return [line for lines in drawn for line in lines]


def _save(figure: Any, path: Path) -> None:
    partial = path.with_suffix(".part.png")
    figure.savefig(partial, dpi=130, bbox_inches="tight", metadata={"Software": None})
    partial.replace(path)


def _draw_margins(Figure: Any, folder: Path, rows: Sequence[Row]) -> list[str]:
    """Every row as a point: residual over tolerance, by statement."""
    ids = _unique(
        r.statement for r in sorted(rows, key=lambda r: list(STATEMENTS).index(r.statement))
    )
    if not ids:
        return []
    figure = Figure(figsize=(8.0, 3.6))
    axes = figure.subplots()
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
    axes.set_xticks(range(len(ids)), ids)
    axes.set_xlim(-0.6, len(ids) - 0.4)
    axes.set_ylabel("worst residual / tolerance")
    axes.set_title("Each point is one row: a statement on a set at one kind of degeneracy")
    if not all(r.verdict for r in rows):
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    _save(figure, folder / "residuals.png")
    return ["![worst residual over tolerance of every row](residuals.png)", ""]


def _draw_starts(Figure: Any, folder: Path, rows: Sequence[Row]) -> list[str]:
    """Shares of runs that reach the target or end at a vertex, by the spread of the starts."""
    starts = [r for r in rows if r.statement == "D1" and not r.error]
    if not starts:
        return []
    figure = Figure(figsize=(6.0, 2.6))
    axes = figure.subplots()
    width, place = 0.38, np.arange(len(starts))
    for k, (key, color) in enumerate(
        (("share that reaches the target", BLUE), ("share that ends at a vertex", ORANGE))
    ):
        share = [100.0 * r.notes[key] for r in starts]
        bars = axes.barh(place + (k - 0.5) * width, share, width, color=color, label=key[11:])
        axes.bar_label(bars, fmt="%.0f %%", padding=2)
    axes.set_yticks(place, [f"starts {r.kind}·N(0, I)" for r in starts])
    axes.invert_yaxis()
    axes.set_xlim(0, 115)
    axes.set_xlabel("share of 400 runs, %")
    axes.set_title("Every limit is critical, few wide starts reach the minimiser")
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.25), ncols=2, frameon=False)
    _save(figure, folder / "dead_starts.png")
    return ["![where runs end, by the spread of their starts](dead_starts.png)", ""]
