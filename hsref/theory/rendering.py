"""The report of a verification: Markdown to read, JSON to compare, pictures to look at."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .checks.beyond import IMPOSTOR_ERROR, LAYER_ERROR
from .fields import NON_CONSERVATIVE
from .pictures import draw, unique
from .reports import write_text
from .rows_table import Row
from .statements import STATEMENTS


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
    pictures = draw(folder, rows)
    lines = [
        *_head(request, rows, run, verdict),
        *_statements(request, rows),
        *_matrix(rows),
        *pictures.get("residuals", []),
        *_impostors(rows, pictures.get("impostors", [])),
        *_limits(rows, pictures.get("dead_starts", [])),
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
    names, ids = unique(r.set for r in about), unique(r.statement for r in about)
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


def _impostors(rows: Sequence[Row], picture: list[str]) -> list[str]:
    """Return what the check finds when the field is not conservative."""
    found = [r for r in rows if r.statement == "N1" and IMPOSTOR_ERROR in r.notes]
    if not found:
        return []
    lines = [
        "## Fields that are not conservative",
        "",
        "A check that nothing fails shows nothing. Each field below is a plausible mistake; along "
        "the paths its integral, or its product with the velocity, misses the difference of the "
        "projection by the error shown, relative to the data.",
        "",
        "| field | what is wrong | found on | its error | the layer's |",
        "|---|---|---|---:|---:|",
    ]
    for r in found:
        wrong = NON_CONSERVATIVE[r.kind]
        lines.append(
            f"| {r.kind} | {wrong.why} | {wrong.caught_by} | {r.notes[IMPOSTOR_ERROR]:.1e} | "
            f"{r.notes[LAYER_ERROR]:.1e} |"
        )
    return [*lines, "", *picture]


def _limits(rows: Sequence[Row], picture: list[str]) -> list[str]:
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
        lines += ["", *picture]
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
    for name in unique(r.set for r in rows):
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
