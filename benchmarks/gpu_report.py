"""The table of ``benchmarks.gpu``: nothing is measured here, and what was not measured is empty."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .measure import write_atomically, write_json
from .report import ACCURATE, milliseconds

RESULTS = Path(__file__).parent / "results"
EMPTY = "–"


def versions() -> dict[str, str]:
    """Return the versions of what takes part, where installed."""
    found = {}
    for name in ("hsref", "numba", "numba-cuda", "torch", "jax", "qpth", "pinet-hcnn"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class Goal:
    """A figure to reach on an H200, and how it is read off what was measured."""

    text: str
    wanted: float
    unit: str
    read: Callable[[dict[str, Any]], float | None]


def _row(content: dict[str, Any], work: str, peer: str) -> dict[str, Any] | None:
    for row in content["works"].get(work, {}).get("results", ()):
        if row["peer"] == peer and "failed" not in row and "missing" not in row:
            return row
    return None


def _share(work: str, part: str) -> Callable[[dict[str, Any]], float | None]:
    """Return a reader of the share of the copy speed."""

    def read(content: dict[str, Any]) -> float | None:
        row = _row(content, work, "hsref")
        if row is None:
            return None
        return 100.0 * row["parts"][part]["bytes_per_second"] / content["card"]["bytes_per_second"]

    return read


def _ratio(work: str, peer: str) -> Callable[[dict[str, Any]], float | None]:
    """Return a reader of a peer's time a sample over hsref's, both keeping what backward needs."""

    def read(content: dict[str, Any]) -> float | None:
        ours, theirs = _row(content, work, "hsref"), _row(content, work, peer)
        if ours is None or theirs is None:
            return None
        key = "microseconds_a_sample"
        return theirs["parts"]["projection"][key] / ours["parts"]["projection"][key]

    return read


def _error(work: str) -> Callable[[dict[str, Any]], float | None]:
    def read(content: dict[str, Any]) -> float | None:
        row = _row(content, work, "hsref")
        return None if row is None else row["error"]

    return read


GOALS = (
    Goal("simplex, `project`: share of copy speed", 50.0, "%", _share("simplex", "project")),
    Goal("Birkhoff, `project`: share of copy speed", 50.0, "%", _share("birkhoff", "project")),
    Goal("Birkhoff: fused Sinkhorn-20 over hsref", 1.0, "×",
         _ratio("birkhoff", "sinkhorn20_fused")),
    Goal("general: largest error", 1e-10, "", _error("general")),
    Goal("general: qpth over hsref", 20.0, "×", _ratio("general", "qpth")),
    Goal("general: pinet over hsref", 10.0, "×", _ratio("general", "pinet")),
    Goal("simplex, HS product: share of copy speed", 60.0, "%", _share("simplex", "HS product")),
    Goal("Birkhoff, HS product: share of copy speed", 60.0, "%", _share("birkhoff", "HS product")),
    Goal("general, HS product: share of copy speed", 60.0, "%", _share("general", "HS product")),
)  # fmt: skip


def write(folder: Path, content: dict[str, Any]) -> None:
    """Write ``gpu.json`` and ``gpu.md``; what a simulator said does not go to the results."""
    if content["simulated"] and folder.resolve() == RESULTS.resolve():
        raise ValueError("what the simulator says is no result; choose another folder.")
    write_json(folder / "gpu.json", content)
    write_atomically(folder / "gpu.md", markdown(content))


def markdown(content: dict[str, Any]) -> str:
    """Return the whole table as text."""
    lines = ["# On a card", ""]
    if content["simulated"]:
        lines += [
            "**Simulator, not a measurement: every time below is that of an interpreter.**",
            "",
        ]
    elif content["tiny"]:
        lines += ["**Tiny sizes: a test of the path, not a measurement.**", ""]
    lines += [*_header(content), ""]
    for work in content["works"].values():
        lines += [*_work(content, work), ""]
    lines += [*_goals(content), ""]
    return "\n".join(lines)


def _header(content: dict[str, Any]) -> list[str]:
    card, machine = content["card"], content["machine"]
    rates = card["flops_per_second"]
    said = ", ".join(
        f"{name} {card[name]}"
        for name in ("device", "driver", "compute capability", "memory", "multiprocessors")
        if name in card
    )
    matrix = ", ".join(f"{k} {1e-12 * v:.3g} Tflop/s" for k, v in rates.items())
    return [
        f"{said}. Host: {machine['cpu']}, {machine['usable']} processors. "
        + ", ".join(f"{k} {v}" for k, v in content["versions"].items())
        + f". {machine['when']} UTC. Regenerate: `python -m benchmarks.gpu`.",
        "",
        f"Measured on this card: copy {1e-9 * card['bytes_per_second']:.4g} GB/s (read plus "
        f"written), matrix product {matrix or EMPTY + ' (PyTorch with CUDA is not there)'}.",
        "",
        "Median time of a call between CUDA events, after warm-up; *share* is of the copy speed, "
        "for the bytes that any method must move, and of the matrix rate, for the flops that any "
        "must do. *Error* and *gradient* are the largest against a certified reference on the "
        f"first samples; † marks an answer off by more than {ACCURATE:.0e}, or another map. "
        "`project` gives y alone, `projection` keeps what the backward needs, as the peers do; "
        "*kernel alone* leaves out allocation and the one flag that returns to the host. "
        "`hsref_block` gives a block of threads to each sample (`HSREF_CUDA_COOPERATIVE=1`); it is "
        "off by default, and this table is to decide whether it stays so. A peer that did not fit "
        "was given the batch shown.",
    ]  # fmt: skip


def _work(content: dict[str, Any], work: dict[str, Any]) -> list[str]:
    speed = content["card"]["bytes_per_second"]
    rate = content["card"]["flops_per_second"].get(work["dtype"])
    lines = [
        f"## {work['title']}, batch {work['batch']:,}, {work['dtype']}", "",
        "| who | what | batch | ms | spread | µs a sample | GB/s | share | Gflop/s | share | error "
        "| gradient |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]  # fmt: skip
    for row in work["results"]:
        if "missing" in row or "failed" in row:
            why = row.get("missing") or row["failed"]
            lines.append(f"| {row['peer']} | {why} |" + " |" * 10)
            continue
        wrong = row["promise"] == "surrogate" or not row["error"] <= ACCURATE
        who = row["peer"] + (" †" if wrong else "")
        for name, t in row["parts"].items():
            of = f"{100 * t['flops_per_second'] / rate:.2g} %" if rate else EMPTY
            lines.append(
                f"| {who} | {name} | {row['batch']:,} | {milliseconds(t['seconds'])} | "
                f"{100 * t['spread']:.0f} % | {t['microseconds_a_sample']:.3g} | "
                f"{1e-9 * t['bytes_per_second']:.4g} | "
                f"{100 * t['bytes_per_second'] / speed:.3g} % | "
                f"{1e-9 * t['flops_per_second']:.4g} | {of} | {row['error']:.0e} | "
                + (EMPTY if row["gradient_error"] is None else f"{row['gradient_error']:.0e}")
                + " |"
            )
    lines += [
        "", "`project` against the batch, ms (arrays on the device; host arrays sent and fetched):",
        "", "| batch | CPU, all threads | device | host → device → host |", "|--:|--:|--:|--:|",
    ]  # fmt: skip
    for row in work["crossover"]:
        cells = (milliseconds(row.get(k)) for k in ("cpu", "device", "there_and_back"))
        lines.append(f"| {row['batch']:,} | " + " | ".join(cells) + " |")
    lines.append("")
    for key, words in (("device", "on the device"), ("there_and_back", "with both transfers")):
        lines.append(f"Faster than the CPU {words}: {first_faster(work['crossover'], key)}.")
    return lines


def first_faster(rows: list[dict[str, Any]], key: str) -> str:
    """Return in words from which of the measured batches on a road is faster than the CPU."""
    if not rows:
        return "not measured"
    found = None
    for row in rows:
        if "cpu" not in row:
            break
        if row[key] < row["cpu"]:
            found = row["batch"] if found is None else found
        else:
            found = None
    return "at no batch measured on both" if found is None else f"from batch {found:,} on"


def _goals(content: dict[str, Any]) -> list[str]:
    lines = [
        "## Goals (set for an H200)", "",
        "| goal | wanted | measured | met |", "|---|--:|--:|---|",
    ]  # fmt: skip
    for goal in GOALS:
        # Sizes of a test say nothing about a goal.
        value = None if content["simulated"] or content["tiny"] else goal.read(content)
        sign = "≤" if goal.unit == "" else "≥"
        wanted = f"{sign} {goal.wanted:g} {goal.unit}".rstrip()
        if value is None:
            lines.append(f"| {goal.text} | {wanted} | {EMPTY} | {EMPTY} |")
            continue
        met = value <= goal.wanted if goal.unit == "" else value >= goal.wanted
        lines.append(
            f"| {goal.text} | {wanted} | {value:.3g} {goal.unit} | {'yes' if met else 'no'} |"
        )
    return lines
