"""Tables and pictures from the row files: nothing is measured here.

A ratio is the peer's time over hsref's in the same process. Beside it stand what the peer's answer
is off by and how far it leaves the set, and a peer whose answer is off by more than
:data:`ACCURATE` is marked and never counts as the fastest: a fast wrong answer cannot win.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .measure import write_atomically, write_json
from .workloads import select

ACCURATE = 1e-6
"""Largest error, and largest violation, relative to the data, of an answer worth comparing."""
ACCURATE_GRADIENT = 1e-4


def read_rows(folder: Path) -> dict[str, Any]:
    """Return the contents of every row file, by label."""
    return {p.stem: json.loads(p.read_text()) for p in sorted((folder / "rows").glob("*.json"))}


def write(folder: Path) -> None:
    """Write ``benchmarks.json``, ``benchmarks.md`` and the pictures from the row files."""
    rows = read_rows(folder)
    if not rows:
        return
    write_json(folder / "benchmarks.json", rows)
    write_atomically(folder / "benchmarks.md", markdown(rows))
    curves = {k: r for k, r in rows.items() if k.startswith("curve-")}
    if curves:
        plot_curves(curves, folder / "batch-curves.png")


def number(value: Any) -> float | None:
    """Return a JSON number, also where infinity or NaN had to be written as text."""
    return None if value is None else float(value)


def accurate(row: dict[str, Any]) -> bool:
    """Tell whether a peer's answer is the projection, to ACCURATE."""
    error, outside = number(row.get("error")), number(row.get("infeasibility"))
    if error is None or outside is None or row.get("unsolved"):
        return False
    return error <= ACCURATE and outside <= ACCURATE


def milliseconds(seconds: float | None) -> str:
    """Return a time with three figures."""
    if seconds is None:
        return "–"
    value = 1e3 * seconds
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def small(value: Any) -> str:
    """Return an error with one figure."""
    value = number(value)
    return "–" if value is None else f"{value:.0e}"


def markdown(rows: dict[str, Any]) -> str:
    """Return the whole report."""
    cases = {k: r for k, r in rows.items() if "results" in r and "floor" in r}
    order = {c.name: i for i, c in enumerate(select(None, sizes=True))}
    lines = ["# Benchmarks", ""]
    if cases:
        box = next(iter(cases.values()))["machine"]
        loads = [r["machine"]["load"][0] for r in cases.values() if r["machine"]["load"]]
        lines += [
            f"{box['cpu']}, {box['processors']} processors, {box['system']}, Python "
            f"{box['python']}, NumPy {box['numpy']}; {box['when']} UTC; load average during the "
            f"rows {min(loads, default=0):.1f}–{max(loads, default=0):.1f}.", "",
            "Versions: " + ", ".join(versions(cases)) + ".", "",
            "Regenerate: `python -m benchmarks.run --again`. Times are medians of at least five "
            "calls in ms for the whole batch, float64 unless said; × is the peer's time over "
            "hsref's of the same process (above 1: hsref is faster). *error*: largest distance "
            "to the certified reference over 1 + max |x| (for hsref, which supplies it, to the "
            "other exact solvers); *outside*: largest violation relative "
            "to row and data; *gradient*: largest error of the vector-Jacobian product on "
            "strictly complementary samples. † marks an answer that is not the projection "
            f"to {ACCURATE:.0e} (or a gradient off by more than {ACCURATE_GRADIENT:.0e}): its time "
            "buys less, and it never counts as the fastest. "
            "The forward of hsref is `projection` (with its record); `project` alone is listed "
            "beside it and is what figures and × of the forward refer to.", "",
        ]  # fmt: skip
        lines += targets_table(cases, order)
    for key in sorted(cases, key=lambda k: (order.get(cases[k]["row"], 99), -cases[k]["threads"])):
        lines += case_table(cases[key])
    lines += curve_tables({k: r for k, r in rows.items() if k.startswith("curve-")})
    lines += memory_table([r for k, r in rows.items() if k.startswith("memory-")])
    for k, r in rows.items():
        if k.startswith("cold-"):
            lines += cold_table(r)
    return "\n".join(lines).rstrip() + "\n"


def versions(cases: dict[str, Any]) -> list[str]:
    """Return every package with its version, once."""
    seen = {r["package"]: r["version"] for c in cases.values() for r in c["results"]
            if r.get("version")}  # fmt: skip
    return [f"{name} {version}" for name, version in sorted(seen.items())]


def seconds_of(case: dict[str, Any], peer: str, part: str) -> float | None:
    """Return the median of one part of one peer; hsref's forward is ``project``."""
    for row in case["results"]:
        if row["peer"] == peer:
            timing = row.get("forward_only") if part == "forward" else None
            timing = timing or row.get(part)
            return None if timing is None else timing["seconds"]
    return None


def targets_table(cases: dict[str, Any], order: dict[str, int]) -> list[str]:
    """Return the figures to reach and what was reached, on the widest thread count."""
    wide = max(c["threads"] for c in cases.values())
    lines = ["## Figures to reach", "",
             "| row | part | against | wanted | reached | with the record | |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    found = False
    for case in select(None):
        measured = cases.get(f"{case.name}-t{wide}")
        if measured is None:
            continue
        for target in case.targets:
            theirs = seconds_of(measured, target.peer, target.part)
            ours = seconds_of(measured, target.ours, target.part)
            if theirs is None or ours is None:
                continue
            found = True
            kept = next(r for r in measured["results"] if r["peer"] == target.ours)["forward"]
            with_record = f"{theirs / kept['seconds']:.3g}" if target.part == "forward" else ""
            ours_name = "" if target.ours == "hsref" else f" ({target.ours})"
            reached = theirs / ours
            lines.append(
                f"| {case.name}{ours_name} | {target.part} | {target.peer} | ≥ {target.ratio:g} | "
                f"{reached:.3g} | {with_record} | {'yes' if reached >= target.ratio else 'no'} |"
            )
    lines += [
        "", "[stages.md](stages.md) (`python -m benchmarks.stages`) takes the kernels of W4, W5 "
        "and W6 apart, the hardest: the time of each stage beside that of copying the batch. "
        "The floor of every row stands in its section.",
    ]  # fmt: skip
    return [*lines, ""] if found else []


def _threads(count: int) -> str:
    return "one thread" if count == 1 else f"{count} threads"


def case_table(case: dict[str, Any]) -> list[str]:
    """Return the table of one workload."""
    reference, floor, capacity = case["reference"], case["floor"], case["capacity"]
    base = {part: seconds_of(case, "hsref", part) for part in ("forward", "backward")}
    agreement = ", ".join(f"{k} agrees to {small(v)}" for k, v in reference["agreement"].items())
    limits = {
        part: max(
            floor[part]["bytes"] / capacity["bytes_per_second"],
            floor[part]["flops"] / capacity["flops_per_second"],
        )
        for part in floor
    }
    threads = _threads(case["threads"])
    lines = [
        f"## {case['row']}, {threads}: {case['title']}", "",
        f"Reference: {reference['source']}, KKT residuals recomputed from the rows: primal "
        f"{small(reference['residuals']['primal'])}, dual {small(reference['residuals']['dual'])},"
        f" complementarity {small(reference['residuals']['complementarity'])}"
        + (f"; {agreement}" if agreement else "")
        + f". Gradients checked on {reference['gradient_samples']} samples.", "",
        f"Floor on this machine ({capacity['bytes_per_second'] / 1e9:.1f} GB/s, "
        f"{capacity['flops_per_second'] / 1e9:.0f} Gflop/s in this process): "
        + "; ".join(
            f"{part} {floor[part]['bytes'] / 1e6:.3g} MB, {floor[part]['flops'] / 1e6:.3g} Mflop, "
            f"{milliseconds(limits[part])} ms" for part in floor
        )
        + (f". hsref again after the peers: ×{case['drift']:.2f}." if case.get("drift") else "."),
        "",
        "| | forward | × | backward | × | error | outside | gradient | note |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in case["results"]:
        lines.append(_peer_line(row, base, case["batch"], reference))
    if case.get("incomplete"):
        lines += ["", "The row ran out of time: the peers after these were not measured."]
    return [*lines, ""]


def _peer_line(
    row: dict[str, Any], base: dict[str, float | None], batch: int, reference: dict[str, Any]
) -> str:
    name = row["peer"]
    if row.get("missing"):
        return f"| {name} | | | | | | | | not installed |"
    if "failed" in row:
        return f"| {name} | | | | | | | | {row['failed'].replace('|', '/')} |"
    forward = row["forward"]["seconds"]
    backward = row.get("backward", {}).get("seconds")
    notes = [row["note"]] if row["note"] else []
    if "forward_only" in row:
        notes.insert(0, f"`project` {milliseconds(row['forward_only']['seconds'])} ms")
        if "steps_total" in row:
            notes.append(f"steps {row['steps_total'] / row['samples']:.2f} mean, "
                         f"{row['steps_most']} most")  # fmt: skip
    if row["samples"] < batch:
        notes.append(f"timed on {row['samples']} samples")
    if row.get("unsolved"):
        notes.append(f"{row['unsolved']} unsolved")
    if row.get("backward_failed"):
        notes.append(f"no backward: {row['backward_failed']}")
    wrong = "" if accurate(row) or name == "copy" else "†"
    gradient = number(row.get("gradient_error"))
    off = "†" if gradient is not None and gradient > ACCURATE_GRADIENT and name != "copy" else ""
    ours = name == "hsref"

    def ratio(time: float | None, of: float | None) -> str:
        return "" if time is None or not of or ours else f"{time / of:.3g}"

    fair = row["forward_only"]["seconds"] if "forward_only" in row else forward
    errors = (small(row.get("error")), small(row.get("infeasibility")))
    if name == "copy":
        errors = ("", "")
    elif ours and reference["source"].startswith("hsref"):
        # The reference is its own point: its distance to the other exact solvers says more.
        others = [float(gap) for gap in reference["agreement"].values()]
        errors = (small(max(others)) if others else "reference", errors[1])
    return (
        f"| {name}{wrong} | {milliseconds(forward)} | {ratio(fair, base['forward'])} | "
        f"{milliseconds(backward)} | {ratio(backward, base['backward'])} | {errors[0]} | "
        f"{errors[1]} | {'' if name == 'copy' else small(gradient) + off} | {'; '.join(notes)} |"
    )


def curve_tables(curves: dict[str, Any]) -> list[str]:
    """Return microseconds a sample against the batch size."""
    lines: list[str] = []
    for key, curve in sorted(curves.items()):
        batches = [p["batch"] for p in curve["points"]]
        if not lines:
            lines = ["## Batch curves", "", "Microseconds a sample, forward / backward.", ""]
        lines += [
            f"**{key}** ({curve['title'].split(', batch')[0]})", "",
            "| | " + " | ".join(f"batch {b}" for b in batches) + " |",
            "|---" * (len(batches) + 1) + "|",
        ]  # fmt: skip
        for name in [r["peer"] for r in curve["points"][0]["results"]]:
            cells = []
            for point in curve["points"]:
                pair = [seconds_of(point, name, part) for part in ("forward", "backward")]
                cells.append(" / ".join("–" if s is None else f"{1e6 * s / point['batch']:.3g}"
                                        for s in pair))  # fmt: skip
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("")
    return lines


def memory_table(rows: list[dict[str, Any]]) -> list[str]:
    """Return peak memory beside the size of the input."""
    if not rows:
        return []
    lines = ["## Peak memory", "",
             "What one forward and backward add to the process at their peak, in MB (answer, "
             "record, gradient and scratch included), and as a multiple of the input.", "",
             "| row | | forward | forward and backward | input | multiple |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for row in rows:
        for r in row["results"]:
            if "forward_bytes" not in r:
                lines.append(
                    f"| {row['name']} | {r['peer']} | {r.get('failed', 'missing')} | | | |"
                )
                continue
            peak = r.get("both_bytes", r["forward_bytes"])
            lines.append(
                f"| {row['name']} | {r['peer']} | {r['forward_bytes'] / 1e6:.3g} | "
                f"{peak / 1e6:.3g} | {r['input_bytes'] / 1e6:.3g} | "
                f"{peak / r['input_bytes']:.3g} |"
            )
    return [*lines, ""]


def cold_table(row: dict[str, Any]) -> list[str]:
    """Return the cold start."""
    states = [k for k in ("empty_cache", "filled_cache", "filled_cache_again") if k in row]
    parts = [k for k in row[states[0]] if k.endswith("_seconds")]
    lines = ["## Cold start", "",
             "Seconds in a fresh process: importing hsref after NumPy, then the first projection "
             "and Jacobian product of each set, with an empty and with a filled compiler cache "
             f"({row['cache_bytes'] / 1e6:.1f} MB).", "",
             "| | " + " | ".join(s.replace("_", " ") for s in states) + " |",
             "|---" * (len(states) + 1) + "|"]  # fmt: skip
    for part in parts:
        cells = [f"{row[s][part]:.3f}" if part in row[s] else "failed" for s in states]
        lines.append(f"| {part.removesuffix('_seconds')} | " + " | ".join(cells) + " |")
    return [*lines, ""]


COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
"""Told apart without seeing red and green."""


def plot_curves(curves: dict[str, Any], path: Path) -> None:
    """Draw microseconds a sample against the batch size, one panel a workload."""
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = sorted({c["title"] for c in curves.values()})
    figure, axes = plt.subplots(
        1, len(names), figsize=(4.2 * len(names), 3.8), squeeze=False, layout="constrained"
    )
    most = max(curve["threads"] for curve in curves.values())
    for axis, title in zip(axes[0], names, strict=True):
        named: set[str] = set()
        for curve in [c for c in curves.values() if c["title"] == title]:
            style = "-" if curve["threads"] > 1 else "--"
            for i, name in enumerate(r["peer"] for r in curve["points"][0]["results"]):
                pairs = [(p["batch"], seconds_of(p, name, "forward")) for p in curve["points"]]
                pairs = [(b, 1e6 * s / b) for b, s in pairs if s is not None]
                if pairs:
                    # one entry a name in the legend: the dashes are explained once for all panels
                    axis.loglog(*zip(*pairs, strict=True), style, marker="o",
                                color=COLOURS[i % len(COLOURS)], markersize=4,
                                label=None if name in named else name)  # fmt: skip
                    named.add(name)
        axis.set_title(title.split(", batch")[0], fontsize=8)
        axis.set_xlabel("batch")
        axis.set_ylabel("µs a sample, forward")
        axis.grid(True, which="both", alpha=0.2)
        axis.legend(fontsize=7, framealpha=0.6)
    figure.suptitle(f"Solid: {_threads(most)}; dashed: one thread", fontsize=9)
    figure.savefig(path, dpi=130)
    plt.close(figure)
