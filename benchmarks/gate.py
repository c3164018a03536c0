"""Regression gate: step counts exactly, time only loosely and only against a neighbour.

``python -m benchmarks.gate`` solves fixed problems and compares the solver's steps, sample for
sample in total and at most, with ``steps.json``: an algorithm that begins to work harder shows at
once, however noisy the machine. Then it asks that the simplex stays ahead of a NumPy sort measured
in the same process. ``--write`` stores the present counts, with the reason in the commit.

Counts depend on rounding where a decision is close; the file names the processor and the compiler
they were taken with, and elsewhere differences of a few parts in a thousand are let pass.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

from . import measure, peers
from .workloads import CASES

STEPS = Path(__file__).parent / "steps.json"
SEED = 5
SAMPLES = {"W1": 200, "W2": 16, "W3": 1, "W4": 50, "W5": 500, "W6": 4, "W8": 8, "W9": 4, "G200": 2}
ELSEWHERE = 5e-3
"""Relative difference in total steps let pass on another processor or with another compiler."""
LEAD = 1.5
"""The simplex must be this many times as fast as NumPy's sort (it is far more)."""


def kind() -> str:
    """Return what decides the last bits: the processor that code is made for, and by what."""
    import llvmlite
    from llvmlite.binding import get_host_cpu_name

    return f"{platform.machine()} {get_host_cpu_name()}, llvmlite {llvmlite.__version__}"


def count_steps() -> dict[str, list[int]]:
    """Return [total, most] steps of every workload whose set is there."""
    counts = {}
    for name, samples in SAMPLES.items():
        problem = CASES[name].build(SEED, samples)
        try:
            peer = peers.HsrefPeer(problem, 1)
        except AttributeError:
            continue
        peer.load(problem)
        peer.forward()
        counts[name] = list(peer.steps())
    return counts


def compare(stored: dict[str, list[int]], now: dict[str, list[int]], same: bool) -> list[str]:
    """Return a sentence for every workload whose counts moved."""
    moved = []
    for name, before in stored.items():
        if name not in now:
            moved.append(f"{name}: counted before ({before[0]} steps), missing now")
        elif same and list(now[name]) != list(before):
            moved.append(f"{name}: steps {before} before, {now[name]} now")
        elif abs(now[name][0] - before[0]) > ELSEWHERE * before[0] + 1:
            moved.append(f"{name}: {before[0]} steps before, {now[name][0]} now")
    return moved


def simplex_lead(budget: float = 0.5) -> float:
    """Return how many times as fast as a NumPy sort the simplex is, on one thread."""
    problem = CASES["W4"].build(SEED, 200)
    seconds = {}
    for name in ("hsref", "numpy_sort"):
        peer = peers.PEERS[name](problem, 1)
        peer.load(problem)
        seconds[name] = measure.median_time(peer.forward, budget)["seconds"]
    return seconds["numpy_sort"] / seconds["hsref"]


def main(arguments: list[str] | None = None) -> int:
    """Compare with the stored counts; 1 if something moved."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description=__doc__)
    parser.add_argument("--write", action="store_true", help="store the present counts")
    options = parser.parse_args(arguments)
    now = count_steps()
    if options.write:
        measure.write_json(STEPS, {"machine": kind(), "seed": SEED, "steps": now})
        print(f"wrote {STEPS.name}: {now}")
        return 0
    if not STEPS.exists():
        print(f"no {STEPS.name} yet: python -m benchmarks.gate --write")
        return 1
    stored = json.loads(STEPS.read_text())
    moved = compare(stored["steps"], now, stored["machine"] == kind())
    lead = simplex_lead()
    if lead < LEAD:
        moved.append(f"the simplex is only {lead:.2f} times as fast as a NumPy sort")
    print("\n".join(moved) if moved else f"steps unchanged; simplex {lead:.1f} x NumPy sort")
    return 1 if moved else 0


if __name__ == "__main__":
    raise SystemExit(main())
