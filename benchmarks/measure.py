"""One row of the benchmark: a problem, every peer that is installed, time beside accuracy.

A row is measured in a process of its own, whose thread settings are made before any library is
imported; peers and hsref share that process, its data and its hour. Times are medians of at least
five calls after a warm-up, with the garbage collector off, scaled to the whole batch where a peer
was given a part of it.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import platform
import signal
import statistics
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import accuracy, peers
from .workloads import Case, Problem

CALLS = 5
"""Fewest timed calls behind a median."""
MOST_CALLS = 60
PATIENCE = 25.0
"""A peer is given up after this many budgets."""

THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS",
    "HSREF_NUM_THREADS", "RAYON_NUM_THREADS",
)  # fmt: skip


def thread_settings(threads: int) -> dict[str, str]:
    """Return the environment in which every library keeps to `threads` threads."""
    settings = dict.fromkeys(THREAD_VARIABLES, str(threads))
    settings["JAX_PLATFORMS"] = "cpu"
    if threads == 1:
        settings["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    return settings


def keep_to(threads: int) -> None:
    """Tie the process to as many processors as it has threads, where the system allows it."""
    if hasattr(os, "sched_setaffinity"):
        usable = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, usable[-threads:])


def machine() -> dict[str, Any]:
    """Return what a reader needs to judge the times."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = found[0].split(":", 1)[1].strip() if found else model
    return {
        "cpu": model,
        "processors": os.cpu_count(),
        "usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "system": platform.system(),
        "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "when": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
    }


def capacity() -> dict[str, float]:
    """Measure, in this process, how fast memory is copied and a matrix product runs.

    Returns bytes per second (read and written bytes counted once each) and flops per second; the
    floors of a row are its bytes and flops over these.
    """
    big = np.ones(1 << 23)
    other = np.empty_like(big)
    A = np.ones((768, 768))
    seconds_copy = median_time(lambda: np.copyto(other, big), 0.2)["seconds"]
    seconds_product = median_time(lambda: A @ A, 0.2)["seconds"]
    return {
        "bytes_per_second": 2.0 * big.nbytes / seconds_copy,
        "flops_per_second": 2.0 * 768**3 / seconds_product,
    }


def median_time(call: Callable[[], Any], budget: float, calls: int = CALLS) -> dict[str, Any]:
    """Time a call: warm it up once, then take the median of at least `calls` runs.

    Returns
    -------
    dict
        ``seconds`` (median), ``fastest``, ``spread`` (interquartile range over the median) and
        ``calls``.
    """
    start = time.perf_counter()
    call()
    estimate = max(time.perf_counter() - start, 1e-7)
    count = int(min(max(calls, budget / estimate), MOST_CALLS))
    seconds = []
    collecting = gc.isenabled()
    gc.disable()
    try:
        while len(seconds) < count:
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
            if len(seconds) >= calls and sum(seconds) > budget:
                break
    finally:
        if collecting:
            gc.enable()
    middle = statistics.median(seconds)
    quarters = np.percentile(seconds, [25, 75])
    return {
        "seconds": middle,
        "fastest": min(seconds),
        "spread": float((quarters[1] - quarters[0]) / middle),
        "calls": len(seconds),
    }


@dataclass(frozen=True)
class Plan:
    """How many samples to time, and what a few of them cost, to extrapolate from."""

    samples: int
    few: int
    seconds: dict[str, float]

    def whole(self, part: str, timing: dict[str, Any], batch: int) -> dict[str, Any]:
        """Return the timing of the whole batch: the part timed plus its slope times the rest.

        An affine model: layers have a fixed cost a call, which a plain rescaling would multiply.
        """
        if self.samples == batch:
            return timing
        few = self.seconds.get(part, 0.0)
        measured = timing["seconds"]
        if self.samples > 2 * self.few and measured > few:
            slope = (measured - few) / (self.samples - self.few)
        else:
            slope = measured / self.samples
        total = measured + slope * (batch - self.samples)
        return timing | {"seconds": total, "fastest": timing["fastest"] * total / measured}


def plan(peer: peers.Peer, problem: Problem, budget: float) -> Plan:
    """Choose how many samples to time, so that a part takes about the budget."""
    if peer.whole or problem.batch == 1:
        return Plan(problem.batch, problem.batch, {})
    few = min(problem.batch, max(4, problem.batch // 50))
    first = _once(peer, problem, few)
    linear = sum(first.values()) / few
    count = int(min(problem.batch, max(few, budget / (CALLS + 1) / linear)))
    if peer.loop or count in (few, problem.batch):
        return Plan(count, few, first)
    # A layer with a fixed cost a call may afford the whole batch after all.
    second = sum(_once(peer, problem, count).values())
    slope = max(second - sum(first.values()), 0.0) / (count - few)
    if (second + slope * (problem.batch - count)) * (CALLS + 1) <= 3.0 * budget:
        return Plan(problem.batch, few, first)
    return Plan(count, few, first)


def _once(peer: peers.Peer, problem: Problem, count: int) -> dict[str, float]:
    """Time one forward and one backward of a few samples, after one of each."""
    peer.load(problem.take(count))
    seconds = {}
    for part in ("forward", "backward"):
        if part == "backward" and not peer.differentiable:
            continue
        call = getattr(peer, part)
        try:
            call()
        except peers.Failed:
            continue
        start = time.perf_counter()
        call()
        seconds[part] = time.perf_counter() - start
    return seconds


@contextlib.contextmanager
def limit(seconds: float, *, processor: bool = False) -> Iterator[None]:
    """Raise TimeoutError in the block when it has taken `seconds` (where there are signals).

    These are seconds of the clock, or of processor time, which other programs do not add to.
    """
    if (
        not hasattr(signal, "setitimer")
        or threading.current_thread() is not threading.main_thread()
    ):
        yield
        return

    def ring(number: int, frame: Any) -> None:
        raise TimeoutError(f"took longer than {seconds:.0f} s")

    timer, number = (
        (signal.ITIMER_PROF, signal.SIGPROF) if processor else (signal.ITIMER_REAL, signal.SIGALRM)
    )
    before = signal.signal(number, ring)
    signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        signal.setitimer(timer, 0.0)
        signal.signal(number, before)


def run_peer(
    kind: type[peers.Peer],
    problem: Problem,
    reference: accuracy.Reference,
    threads: int,
    budget: float,
) -> dict[str, Any]:
    """Measure one peer on one problem; a failure is recorded, not raised."""
    row: dict[str, Any] = {
        "peer": kind.name, "version": kind.version(), "package": kind.package,
        "promise": kind.promise, "note": kind.note, "threaded": kind.threaded,
    }  # fmt: skip
    if row["version"] is None:
        return row | {"missing": True}
    try:
        # A library that compiles may find its cache empty: that is not what is measured.
        with limit(PATIENCE * max(budget, 1.5) * (4.0 if kind.package == "hsref" else 1.0)):
            _measure_peer(row, kind, problem, reference, threads, budget)
    except Exception as problem_:  # one peer's crash must not cost the row
        row["failed"] = f"{type(problem_).__name__}: {str(problem_).splitlines()[0][:200]}"
        row["traceback"] = traceback.format_exc()[-1500:]
    return row


def _measure_peer(
    row: dict[str, Any],
    kind: type[peers.Peer],
    problem: Problem,
    reference: accuracy.Reference,
    threads: int,
    budget: float,
) -> None:
    start = time.perf_counter()
    peer = kind(problem, threads)
    row["setup_seconds"] = time.perf_counter() - start
    how = plan(peer, problem, budget)
    peer.load(problem.take(how.samples))
    row["samples"] = how.samples
    if hasattr(peer, "forward_only"):
        row["forward_only"] = median_time(peer.forward_only, budget / 2)
    timing = median_time(peer.forward, budget / 2)
    row["forward"] = how.whole("forward", timing, problem.batch)
    row |= _judge(problem.take(how.samples), reference, peer.answer())
    if hasattr(peer, "steps"):
        row["steps_total"], row["steps_most"] = peer.steps()
    if kind.differentiable:
        try:
            timing = median_time(peer.backward, budget / 2)
            row["backward"] = how.whole("backward", timing, problem.batch)
            row["gradient_error"] = accuracy.gradient_error(reference, peer.gradient())
        except peers.Failed as problem_:
            row["backward_failed"] = str(problem_)


def _judge(problem: Problem, reference: accuracy.Reference, y: np.ndarray) -> dict[str, Any]:
    solved = np.isfinite(y).all(axis=1)
    out: dict[str, Any] = {"unsolved": int((~solved).sum())}
    if solved.any():
        some = np.flatnonzero(solved)
        scale = 1.0 + np.abs(problem.x).max()
        gap = np.abs(y[some].astype(np.float64) - reference.y[some]).max()
        out["error"] = float(gap / scale)
        out["infeasibility"] = float(accuracy.infeasibility(problem, y)[some].max())
    return out


def run_case(
    case: Case,
    threads: int,
    seed: int,
    budget: float,
    only: list[str] | None = None,
    problem: Problem | None = None,
    say: Callable[[str], None] = lambda line: None,
    save: Callable[[dict[str, Any]], None] = lambda content: None,
    compare: int = 32,
) -> dict[str, Any]:
    """Measure one case: reference, floor, hsref, the peers, and hsref once more.

    The second look at hsref, after the peers, shows how far the machine drifted meanwhile. What is
    there after each peer is handed to `save`, marked incomplete, so that a row that runs out of
    time is not lost.
    """
    started = time.perf_counter()
    table = peers.load_all()
    problem = case.build(seed) if problem is None else problem
    reference = accuracy.certify(problem, compare)
    say(f"reference {reference.source}, residuals {_brief(reference.residuals)}")
    results: list[dict[str, Any]] = []
    content = {
        "row": case.name, "title": case.title, "threads": threads, "seed": seed,
        "family": problem.family, "sizes": problem.sizes, "batch": problem.batch, "n": problem.n,
        "rows": problem.rows, "machine": machine(), "capacity": capacity(),
        "floor": problem.floor(reference.working),
        "reference": {
            "source": reference.source, "residuals": reference.residuals,
            "agreement": reference.agreement, "working_rows": reference.working,
            "strict_share": float(reference.strict.mean()),
            "gradient_samples": len(reference.samples),
        },
        "results": results, "drift": None, "incomplete": True,
    }  # fmt: skip
    names = ["hsref", "hsref_plain", "hsref_f32", *case.peers] if only is None else list(only)
    for name in names:
        kind = table[name]
        if kind.families and problem.family not in kind.families:
            continue
        if name == "hsref_plain" and problem.rows * problem.n > 1e6:
            continue
        results.append(run_peer(kind, problem, reference, threads, budget))
        say(_line(results[-1]))
        save(content)
    if len(names) > 1 and "hsref" in names and "forward" in results[0]:
        again = run_peer(table["hsref"], problem, reference, threads, budget / 2)
        if "forward" in again:
            content["drift"] = again["forward"]["seconds"] / results[0]["forward"]["seconds"]
    content["incomplete"] = False
    content["seconds"] = time.perf_counter() - started
    return content


def _brief(numbers: dict[str, float]) -> str:
    return ", ".join(f"{k} {v:.0e}" for k, v in numbers.items())


def _line(row: dict[str, Any]) -> str:
    if row.get("missing"):
        return f"{row['peer']:18s} not installed"
    if "failed" in row:
        return f"{row['peer']:18s} {row['failed']}"
    back = row.get("backward", {}).get("seconds")
    back_text = "     -   " if back is None else f"{1e3 * back:9.3f}"
    gradient = row.get("gradient_error")
    return (
        f"{row['peer']:18s} forward {1e3 * row['forward']['seconds']:9.3f} ms, backward {back_text}"
        f" ms, error {row.get('error', float('nan')):.0e}, "
        f"gradient {'-' if gradient is None else f'{gradient:.0e}'}, {row['samples']} samples"
    )


def write_atomically(path: Path, text: str) -> None:
    """Replace a file in one step, so that an interrupted run leaves the old one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.chmod(name, 0o644)
    os.replace(name, path)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically; infinities and NaN as strings, which JSON has no numbers for."""
    write_atomically(path, json.dumps(_plain(content), indent=1, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (np.integer, np.bool_)):
        return value.item()
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else str(float(value))
    return value
