"""What a call costs besides time: peak memory, import and first calls."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import measure, peers
from .workloads import Case


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {field} in /proc/self/status")


def peak_memory(case: Case, name: str, seed: int, threads: int) -> dict[str, Any]:
    """Return the bytes one forward and backward add to the process at their peak.

    The point and the cotangent are there before; what is counted is the answer, the gradient, the
    record between them and all scratch. Compilation is warmed up on one sample first.
    """
    problem = case.build(seed)
    kind = peers.load_all()[name]
    row: dict[str, Any] = {"row": case.name, "peer": name, "version": kind.version()}
    if row["version"] is None:
        return row | {"missing": True}
    peer = kind(problem, threads)
    peer.load(problem.take(1))
    peer.forward()
    if kind.differentiable:
        peer.backward()
    peer.load(problem)
    gc.collect()
    before = _status("VmRSS")
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    except OSError:
        return row | {"failed": "the system does not let a process reset its high-water mark"}
    marks = {}
    peer.forward()
    marks["forward_bytes"] = _status("VmHWM") - before
    if kind.differentiable:
        peer.backward()
        marks["both_bytes"] = _status("VmHWM") - before
    marks["input_bytes"] = int(problem.x.nbytes)
    return row | marks | {"batch": problem.batch, "n": problem.n}


COLD_SCRIPT = """
import json, sys, time
import numpy as np
t0 = time.perf_counter()
import hsref
t1 = time.perf_counter()
out = {"import_seconds": t1 - t0, "numba_imported": "numba" in sys.modules}
rng = np.random.default_rng(0)
def first(C, batch):
    x = rng.standard_normal((batch, *C.shape))
    start = time.perf_counter()
    hsref.projection(x, C).jacobian() @ x
    return time.perf_counter() - start
out["simplex_seconds"] = first(hsref.Simplex(10), 2)
A = rng.standard_normal((6, 4))
out["polyhedron_seconds"] = first(hsref.Polyhedron(A_ub=A, b_ub=np.ones(6)), 2)
if hasattr(hsref, "Birkhoff"):
    out["birkhoff_seconds"] = first(hsref.Birkhoff(4), 2)
print(json.dumps(out))
"""
"""Import, then the first projection and Jacobian product of three sets, in a fresh process."""


def cold_start(label: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Time import and first calls with an empty and with a filled compiler cache."""
    out: dict[str, Any] = {"row": label, "machine": measure.machine()}
    with tempfile.TemporaryDirectory() as folder:
        settings = {**os.environ, "NUMBA_CACHE_DIR": folder}
        for state in ("empty_cache", "filled_cache", "filled_cache_again"):
            done = subprocess.run(
                [sys.executable, "-c", COLD_SCRIPT], env=settings, capture_output=True,
                text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                out[state] = {"failed": done.stderr[-500:]}
            else:
                out[state] = json.loads(done.stdout)
            say(f"{state}: {out[state]}")
        out["cache_bytes"] = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())
    return out
