"""The evidence behind every promise of robustness, in one table.

``python -m benchmarks.trust`` runs the tests that the promises rest on and the measurements that
are too long for a test suite, keeps what they found in ``results/trust.json``, and writes
``results/trust.md``. ``python -m benchmarks.trust memory kills`` runs only those again, and
``--report`` only writes the table. The figures of ``benchmarks.fuzz`` and ``benchmarks.run`` are
taken from their own files.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from . import measure, trust_faults, trust_memory, trust_versions
from .trust_promises import PROMISES, Promise

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

MEASUREMENTS: dict[str, Callable[[], dict[str, Any]]] = {
    "interrupts": trust_faults.interrupts,
    "kills": trust_faults.kills,
    "damage": trust_faults.damage,
    "race": trust_faults.race,
    "memory": trust_memory.run,
    "versions": trust_versions.run,
}
ELSEWHERE = {
    "fuzz": "python -m benchmarks.fuzz --problems 1000000",
    "run": "python -m benchmarks.run",
}
"""What has a command and a report of its own."""


def run_tests() -> dict[str, Any]:
    """Run every test of the table once; return the counts by target."""
    targets = sorted({test for promise in PROMISES for test in promise.tests})
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "junit.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *targets]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, check=False)
        counts = {one: {"passed": 0, "failed": 0, "skipped": 0, "seconds": 0.0} for one in targets}
        for case in ElementTree.parse(report).iter("testcase"):
            file = case.get("classname", "").replace(".", "/") + ".py"
            name = case.get("name", "").partition("[")[0]
            below = {child.tag for child in case}
            state = "failed" if below & {"failure", "error"} else "passed"
            state = "skipped" if "skipped" in below else state
            for target in (file, f"{file}::{name}"):
                if target in counts:
                    counts[target][state] += 1
                    counts[target]["seconds"] += float(case.get("time", 0.0))
    bad = [one for one, count in counts.items() if count["failed"] or not count["passed"]]
    return {
        "targets": counts,
        "holds": not bad,
        "figure": f"{sum(c['passed'] for c in counts.values())} tests passed"
        + (f"; not: {', '.join(bad)}" if bad else ""),
    }


def _figure_elsewhere(name: str) -> tuple[str, bool | None]:
    """Return the figure of a report that another command writes, and whether it holds."""
    path = RESULTS / ("fuzz.json" if name == "fuzz" else "benchmarks.json")
    if not path.exists():
        return f"not measured: `{ELSEWHERE[name]}`", None
    content = json.loads(path.read_text())
    if name == "run":
        return f"{len(content)} rows in [benchmarks.md](benchmarks.md)", None
    outcomes = ("certified", "certified empty", "refused", "WRONG", "crash", "hang")
    tally = dict.fromkeys(outcomes, 0)
    for row in content["counts"]:
        for key in tally:
            tally[key] += row.get(key, 0)
    said = ", ".join(f"{count:,} {key}" for key, count in tally.items())
    holds = not (tally["WRONG"] or tally["crash"] or tally["hang"])
    return f"{said} ([fuzz.md](fuzz.md), `{content['command']}`)", holds


def _row(promise: Promise, found: dict[str, Any]) -> str:
    states, figures, evidence = [], [], []
    counts = found.get("tests", {}).get("targets", {})
    passed = skipped = 0
    for test in promise.tests:
        count = counts.get(test)
        if count is None:
            states.append(None)
            continue
        passed, skipped = passed + count["passed"], skipped + count["skipped"]
        states.append(not count["failed"] and count["passed"] > 0)
    evidence += [f"`{test.removeprefix('tests/')}`" for test in promise.tests]
    if passed or skipped:
        figures.append(f"{passed} tests pass" + (f", {skipped} skipped" if skipped else ""))
    if promise.measured in ELSEWHERE:
        figure, state = _figure_elsewhere(promise.measured)
        figures.append(figure)
        states.append(state if state is not None else True)
        evidence.append(f"`{ELSEWHERE[promise.measured]}`")
    elif promise.measured:
        one = found.get(promise.measured)
        figures.append(one["figure"] if one else "not measured yet")
        states.append(one["holds"] if one else None)
        evidence.append(f"`python -m benchmarks.trust {promise.measured}`")
    verdict = "**no**" if False in states else "not yet run" if None in states else "yes"
    return f"| {promise.text} | {verdict} | {'; '.join(figures)} | {'<br>'.join(evidence)} |"


def markdown(found: dict[str, Any]) -> str:
    """Return the table of promises."""
    lines = ["# Trust", "", "What is promised, whether it holds, and what shows it.", ""]
    lines.append(
        "`python -m benchmarks.trust` regenerates this table: it runs the tests that are named "
        "(`pytest tests/NAME` runs one) and the measurements (each has its command)."
    )
    lines.append("")
    for name in ("tests", *MEASUREMENTS):
        if name in found:
            about = found[name]["about"]
            lines.append(
                f"- {name}: hsref {about['hsref']}, Python {about['python']}, NumPy "
                f"{about['numpy']}, Numba {about['numba']}, {about['cpu']}, {about['when']} UTC, "
                f"load {about['load'][0]:.1f}, {about['seconds']:.0f} s"
            )
    section = ""
    for promise in PROMISES:
        if promise.section != section:
            section = promise.section
            lines += ["", f"## {section}", "", "| promise | holds | figure | shown by |"]
            lines.append("|---|---|---|---|")
        lines.append(_row(promise, found))
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for, write the table; 1 if a promise is broken."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trust", description=__doc__)
    names = ("tests", *MEASUREMENTS)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--report", action="store_true", help="only write the table")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of trust.json, trust.md")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in names]
    if unknown:
        parser.error(f"there is no {unknown[0]!r}; there are {', '.join(names)}.")
    stored = options.out / "trust.json"
    found: dict[str, Any] = json.loads(stored.read_text()) if stored.exists() else {}
    for name in () if options.report else options.names or names:
        print(f"{name} ...", flush=True)
        about, started = measure.machine(), time.perf_counter()
        result = run_tests() if name == "tests" else MEASUREMENTS[name]()
        about |= {k: importlib.metadata.version(k) for k in ("hsref", "numba")}
        found[name] = result | {"about": about | {"seconds": time.perf_counter() - started}}
        print(f"{name}: {'holds' if result['holds'] else 'DOES NOT HOLD'}: {result['figure']}")
        measure.write_json(stored, found)
    measure.write_atomically(options.out / "trust.md", markdown(found))
    return 0 if all(one["holds"] for one in found.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
