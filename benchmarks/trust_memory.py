"""Does a process that calls for ever grow? Resident memory over a million calls, by kind."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
WARM = 0.1
"""Share of the calls after which memory is looked at for the first time: by then every cache and
arena has its size."""
ALLOWED = 2**20
"""Bytes a kind of call may add between then and its end: allocators breathe by a few pages."""


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def kinds() -> dict[str, tuple[float, Callable[[int], None]]]:
    """Return, by name, the share of the calls and one call (given its number)."""
    from autograd import grad

    import hsref

    rng = np.random.default_rng(0)
    rows = hsref.Polyhedron(A_ub=rng.normal(size=(6, 4)), b_ub=np.ones(6))
    ready: list[Any] = [
        hsref.Simplex(8), hsref.Box(-1.0, 1.0, n=8), hsref.L1Ball(8), hsref.IsotonicCone(8),
        hsref.CappedSimplex(8, 3), hsref.Birkhoff(3), rows,
    ]  # fmt: skip
    points = [3.0 * rng.normal(size=(50, *C.shape)) for C in ready]

    def both(C: Any, x: np.ndarray) -> Callable[[int], None]:
        def call(k: int) -> None:
            one = x[k % 50]
            hsref.projection(one, C).jacobian() @ one

        return call

    def forward(k: int) -> None:
        which = k % len(ready)
        hsref.project(points[which][k % 50], ready[which])

    slope = grad(lambda z: (hsref.project(z, ready[0]) ** 2).sum())

    def threads(k: int) -> None:
        hsref.project(points[0], ready[0], n_threads=2)

    def new_set(k: int) -> None:
        hsref.project(points[0][k % 50], hsref.Simplex(8, total=1.0 + k % 7))

    def refused(k: int) -> None:
        try:
            hsref.project(np.full(8, np.nan), ready[0])
        except ValueError:
            return
        raise AssertionError("NaN passed")

    calls: dict[str, tuple[float, Callable[[int], None]]] = {
        f"forward and backward, {type(C).__name__}": (0.08, both(C, x))
        for C, x in zip(ready, points)
    }
    return calls | {
        "forward, all these sets in turn": (0.30, forward),
        "autograd, Simplex": (0.04, lambda k: slope(points[0][k % 50])),
        "batches of 50 on two threads, Simplex": (0.03, threads),
        "a new set for each call, Simplex": (0.04, new_set),
        "refused input (NaN)": (0.03, refused),
    }


def measure(calls: int) -> dict[str, Any]:
    """Make that many calls in this process; return the growth of each kind and of all."""
    import hsref._threads

    hsref._threads.SERIAL_COST = 0.0  # small batches go to the pool as well
    rows, started = [], time.perf_counter()
    warm_all = None
    for name, (share, call) in kinds().items():
        count = max(20, int(calls * share))
        begin = time.perf_counter()
        first = int(count * WARM)
        for k in range(first):
            call(k)
        before = resident()
        warm_all = before if warm_all is None else warm_all
        for k in range(first, count):
            call(k)
        rows.append(
            {
                "kind": name, "calls": count, "growth_bytes": resident() - before,
                "microseconds": 1e6 * (time.perf_counter() - begin) / count,
            }
        )  # fmt: skip
        print(rows[-1], file=sys.stderr, flush=True)
    return {
        "calls": sum(row["calls"] for row in rows),
        "seconds": time.perf_counter() - started,
        "resident_bytes": resident(),
        "rows": rows,
    }


def run(calls: int = 1_000_000) -> dict[str, Any]:
    """Measure in a fresh process; says whether the promise holds, and its figure."""
    command = [sys.executable, "-m", "benchmarks.trust_memory", str(calls)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    worst = max(found["rows"], key=lambda row: row["growth_bytes"])
    grown = sum(row["growth_bytes"] for row in found["rows"])
    return found | {
        "holds": worst["growth_bytes"] <= ALLOWED,
        "figure": f"{found['calls']:,} calls of {len(found['rows'])} kinds: resident memory grew "
        f"by {grown / 1024:,.0f} KiB in all, by at most {worst['growth_bytes'] / 1024:,.0f} KiB "
        f"in one kind ({worst['kind']}), of {found['resident_bytes'] / 2**20:,.0f} MiB",
    }


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
