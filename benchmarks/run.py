"""Measure hsref and its peers and write the tables: ``python -m benchmarks.run``.

Every row (a workload at a number of threads, a batch curve, the memory rows, the cold start) runs
in a process of its own and leaves one JSON file in ``RESULTS/rows``; a row whose file is there is
not measured again unless ``--again`` says so, so an interrupted run continues where it stopped.
``python -m benchmarks.run --report`` only rewrites the tables from the files.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import footprint, measure, report
from .workloads import CASES, select

RESULTS = Path(__file__).parent / "results"
SEED = 20261123
CURVE_BATCHES = (1, 100, 10_000)
CURVES = [name for name, case in CASES.items() if case.curve]
MEMORY = {
    "W1": ("hsref", "proxqp", "qpth"),
    "W3": ("hsref", "proxqp"),
    "W5": ("hsref", "jaxopt_birkhoff", "sinkhorn20_f32"),
    "W8": ("hsref", "hsref_plain", "cvxpylayers"),
    "B1000": ("hsref", "jaxopt_birkhoff"),
}


@dataclass(frozen=True)
class Row:
    """One unit of work: what to measure and on how many threads."""

    kind: str
    name: str
    threads: int

    @property
    def label(self) -> str:
        """Name on the command line and of the file."""
        prefix = "" if self.kind == "case" else f"{self.kind}-"
        return f"{prefix}{self.name}-t{self.threads}"


def all_rows(threads: list[int], sizes: bool) -> list[Row]:
    """Return every row of a full run, the widest thread count first."""
    wide = max(threads)
    rows = [Row("case", c.name, t) for t in sorted(threads, reverse=True)
            for c in select(None, sizes)]  # fmt: skip
    rows += [Row("curve", name, t) for name in CURVES for t in sorted(threads)]
    rows += [Row("memory", name, wide) for name in MEMORY]
    rows.append(Row("cold", "start", wide))
    return rows


def wanted(patterns: list[str], rows: list[Row]) -> list[Row]:
    """Return the rows that a pattern names: a label, a workload, or a kind."""
    if not patterns:
        return rows
    picked = [r for r in rows if any(p in (r.label, r.name, r.kind) for p in patterns)]
    for p in patterns:
        if not any(p in (r.label, r.name, r.kind) for r in rows):
            raise SystemExit(f"no row {p!r}; there are: {', '.join(r.label for r in rows)}")
    return picked


# -- in the child process -------------------------------------------------------------------------


def single_thread_peers(case: Any) -> list[str]:
    """Return the competitors of the one-thread rows: those a figure is set against."""
    return ["hsref", *dict.fromkeys(t.peer for t in case.targets)]


def measure_row(row: Row, options: argparse.Namespace) -> Any:
    """Measure one row in this process."""
    if row.kind == "cold":
        return footprint.cold_start(row.label, _say)
    measure.keep_to(row.threads)
    case = select([row.name])[0]
    if row.kind == "case":
        only = options.peers.split(",") if options.peers else None
        if only is None and row.threads == 1:
            only = single_thread_peers(case)
        return measure.run_case(
            case, row.threads, options.seed, options.budget, only, say=_say,
            save=lambda content: measure.write_json(Path(options.target), content),
            compare=32 if row.threads > 1 else 0,
        )  # fmt: skip
    if row.kind == "curve":
        points = []
        for batch in CURVE_BATCHES:
            _say(f"batch {batch}")
            problem = case.build(options.seed, batch)
            points.append(
                measure.run_case(case, row.threads, options.seed, options.budget / 2,
                                 list(case.curve), problem, _say, compare=0)
            )  # fmt: skip
        return {"row": row.label, "threads": row.threads, "title": case.title, "points": points}
    raise ValueError(row.kind)


def memory_row(row: Row, options: argparse.Namespace) -> dict[str, Any]:
    """Measure the memory of every competitor of a case, each in a process of its own."""
    found = []
    for name in MEMORY[row.name]:
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "row.json"
            code = _child(["--memory-of", name, "--child", row.label, "--target", str(target)],
                          row.threads, options)  # fmt: skip
            if code == 0:
                found.append(json.loads(target.read_text()))
                _say(f"{name}: {found[-1]}")
            else:
                found.append({"peer": name, "failed": f"exit {code}"})
    return {"row": row.label, "name": row.name, "threads": row.threads, "results": found}


# -- in the parent --------------------------------------------------------------------------------


def _say(line: str) -> None:
    print(f"    {line}", flush=True)


def is_complete(path: Path) -> bool:
    """Tell whether a row's file is there and the row ran to its end."""
    return path.exists() and not json.loads(path.read_text()).get("incomplete", False)


def _child(arguments: list[str], threads: int, options: argparse.Namespace) -> int:
    command = [
        sys.executable, "-W", "ignore", "-m", "benchmarks.run", *arguments,
        "--seed", str(options.seed), "--budget", str(options.budget), "--threads", str(threads),
    ]  # fmt: skip
    if options.peers:
        command += ["--peers", options.peers]
    settings = {**os.environ, **measure.thread_settings(threads)}
    root = Path(__file__).resolve().parent.parent
    try:
        return subprocess.run(
            command, env=settings, cwd=root, timeout=options.timeout, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        return 124


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("rows", nargs="*", help="workloads (W1), rows (W1-t2) or kinds "
                        "(case, curve, memory, cold); all by default")  # fmt: skip
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sizes", action="store_true", help="the other sizes of each family too")
    parser.add_argument("--peers", help="only these adapters, separated by commas")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument(
        "--budget", type=float, default=1.5, help="seconds a peer may take per part"
    )
    parser.add_argument("--timeout", type=float, default=240.0, help="seconds a row may take")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--again", action="store_true", help="measure rows that are there already")
    parser.add_argument("--list", action="store_true", help="print the rows and stop")
    parser.add_argument("--report", action="store_true", help="rewrite the tables and stop")
    for hidden in ("--child", "--target", "--memory-of"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the rows asked for, then write the tables; 1 if a row failed."""
    options = parse(arguments)
    if options.child:
        row = next(r for r in all_rows(options.threads, True) if r.label == options.child)
        if options.memory_of:
            case = select([row.name])[0]
            content = footprint.peak_memory(case, options.memory_of, options.seed, row.threads)
        else:
            content = measure_row(row, options)
        measure.write_json(Path(options.target), content)
        return 0
    rows = wanted(options.rows, all_rows(options.threads, options.sizes or bool(options.rows)))
    if options.list:
        print("\n".join(r.label for r in rows))
        return 0
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if busy > 0.5 and not options.report:
        print(f"the load average is {busy:.1f}: other work here makes the times unfit to publish")
    failed = 0
    begun = time.perf_counter()
    for row in [] if options.report else rows:
        target = options.out / "rows" / f"{row.label}.json"
        if not options.again and is_complete(target):
            continue
        print(f"{row.label} ({time.perf_counter() - begun:.0f} s so far)", flush=True)
        if row.kind == "memory":
            measure.write_json(target, memory_row(row, options))
            continue
        code = _child(["--child", row.label, "--target", str(target)], row.threads, options)
        if code:
            failed += 1
            _say(f"failed: exit {code}" + (" (over --timeout)" if code == 124 else ""))
    report.write(options.out)
    print(f"tables in {options.out} after {time.perf_counter() - begun:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
