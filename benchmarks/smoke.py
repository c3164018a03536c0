"""Tiny runs of everything here, called by the test suite so that the benchmarks cannot rot.

Nothing is asserted about time. Peers that are not installed are passed over.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import accuracy, measure, peers, report, scaling
from .workloads import CASES, Problem

SEED = 3
TOLERANCES = {"exact": 1e-9, "iterative": 1e-3}
"""Largest error of a peer's answer at the tiny sizes, by what it promises."""
LIGHT = ("hsref", "hsref_plain", "hsref_f32", "copy", "numpy_sort", "daqp", "clarabel", "proxqp",
         "piqp", "osqp")  # fmt: skip
"""Adapters without a framework behind them: their import is cheap."""


def problem(name: str) -> Problem:
    """Return the tiny problem of a case."""
    return CASES[name].build_smoke(SEED)


def certified(name: str) -> accuracy.Reference:
    """Return the certified reference of a tiny problem, and check what it claims."""
    reference = accuracy.certify(problem(name))
    for kind, size in reference.residuals.items():
        assert size <= 1e-9, f"{name}: {kind} residual {size:.1e} from {reference.source}"
    for other, gap in reference.agreement.items():
        assert gap <= 1e-7, f"{name}: {reference.source} and {other} differ by {gap:.1e}"
    return reference


def check_peer(name: str, peer: str, reference: accuracy.Reference) -> str:
    """Run one adapter on a tiny problem; return "ok" or why it did not run."""
    kind = peers.load_all()[peer] if peer not in peers.PEERS else peers.PEERS[peer]
    if kind.version() is None:
        return "not installed"
    q = problem(name)
    if kind.families and q.family not in kind.families:
        return "another family"
    row = measure.run_peer(kind, q, reference, 1, 0.01)
    if "failed" in row:
        return row["failed"]
    assert row["forward"]["calls"] >= measure.CALLS
    if kind.promise in TOLERANCES:
        worst = 1e-6 if kind.dtype != q.x.dtype else TOLERANCES[kind.promise]
        assert row["error"] <= worst, f"{peer} on {name}: error {row['error']:.1e}"
        gradient = row.get("gradient_error")
        if kind.promise == "exact" and gradient is not None:
            assert gradient <= max(worst, 1e-7), f"{peer} on {name}: gradient {gradient:.1e}"
    return "ok"


def whole_report(folder: Path, names: list[str]) -> str:
    """Measure tiny rows with the light adapters, write the report, and return its text."""
    for name in names:
        case = CASES[name]
        only = [p for p in LIGHT if p.startswith("hsref") or p in case.peers]
        content = measure.run_case(case, 1, SEED, 0.01, only, problem(name), compare=2)
        measure.write_json(folder / "rows" / f"{name}-t1.json", content)
    report.write(folder)
    return (folder / "benchmarks.md").read_text()


def tiny_scaling(folder: Path, label: str) -> dict[str, Any]:
    """Time one set at its smallest sizes and write the report."""
    content = scaling.run_set(label, SEED, 0.001, most=8)
    measure.write_json(folder / "rows" / "scaling-one.json", content)
    scaling.write_report(folder)
    return content
