"""Times on a card: hsref's kernels against its own copy speed, the CPU, PyTorch and JAX.

``python -m benchmarks.gpu`` writes ``results/gpu.md`` and ``gpu.json``; it needs ``hsref[cuda]`` or
``hsref[cuda12]`` and a card, and compares with the peers that are installed. ``--tiny`` with
``NUMBA_ENABLE_CUDASIM=1`` runs all of it in Numba's simulator, for the test suite: those times mean
nothing, are marked so, and never go to ``results``.

A time is the median of at least five calls between two CUDA events, after two warm-up calls (JAX
shows no events: there it is the host's clock around a call whose answer is waited for). Bytes and
flops are the least that any method must move and compute, so a share of 100 % cannot be passed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from . import gpu_report, measure
from .workloads import Case, Problem, describe

CALLS, MOST_CALLS, WARM_UP = 5, 60, 2
BLOCK = 16_384
"""Distinct samples; a larger batch repeats them."""
JUDGED = 64
"""Samples whose answers are held against a certified reference."""
CPU_PATIENCE = 20.0
"""Seconds a call on the CPU may take before the crossover is looked for no further."""


@dataclass(frozen=True)
class Work:
    """A work class: its case, the precision of x, and the peers that are asked."""

    case: Case
    dtype: Any
    peers: tuple[str, ...]


WORKS = {
    "simplex": Work(
        Case("simplex", "simplex, n = 1000", "simplex", {"n": 1000}, 10**6, (), ({"n": 6}, 5)),
        np.float32, ("hsref_block", "torch_sort", "jax_sort"),
    ),
    "birkhoff": Work(
        Case("birkhoff", "Birkhoff 4×4", "birkhoff", {"n": 4}, 10**7, (), ({"n": 4}, 4)),
        np.float32, ("sinkhorn20", "sinkhorn20_fused"),
    ),
    "general": Work(
        Case(
            "general", "general polyhedron: n = 100, 100 inequalities, 20 equalities", "general",
            {"n": 100, "m": 100, "p": 20}, 10**5, (), ({"n": 5, "m": 4, "p": 1}, 3),
        ),
        np.float64, ("qpth", "pinet"),
    ),
}  # fmt: skip


def median_of(
    seconds: Callable[[Any], float], call: Callable[[], Any], budget: float
) -> dict[str, Any]:
    """Warm a call up, then time it until the budget is spent; at least CALLS times.

    Once and once where there is no budget: that is a test of the path.
    """
    for _ in range(WARM_UP if budget > 0 else 1):
        call()
    times: list[float] = []
    while len(times) < _calls(budget) or (sum(times) < budget and len(times) < MOST_CALLS):
        times.append(seconds(call))
    middle = statistics.median(times)
    quarters = np.percentile(times, [25, 75])
    return {
        "seconds": middle, "fastest": min(times), "calls": len(times),
        "spread": float((quarters[1] - quarters[0]) / middle) if middle > 0 else 0.0,
    }  # fmt: skip


def _calls(budget: float) -> int:
    return CALLS if budget > 0 else 1


def round_to(problem: Problem, dtype: Any) -> Problem:
    """Return the problem with points that the given precision holds exactly."""
    x, v = (a.astype(dtype).astype(np.float64) for a in (problem.x, problem.v))
    return replace(problem, x=x, v=v)


def card(device: str, tiny: bool, budget: float) -> dict[str, Any]:
    """Return the card's names, and its copy speed and matrix rates as measured here."""
    from hsref._cuda.compat import cuda, describe, simulated

    out: dict[str, Any] = dict(describe())
    size = 10**3 if tiny else 2**28
    source, target = (cuda.device_array(size, np.float32) for _ in range(2))
    source.copy_to_device(np.zeros(size, np.float32))

    def seconds(call: Callable[[], Any]) -> float:
        from . import gpu_peers

        if simulated():
            return gpu_peers.wall_seconds(call)
        begin, end = cuda.event(timing=True), cuda.event(timing=True)
        begin.record()
        call()
        end.record()
        end.synchronize()
        return 1e-3 * begin.elapsed_time(end)

    copied = median_of(seconds, lambda: target.copy_to_device(source), budget)
    out["bytes_per_second"] = 2.0 * 4 * size / copied["seconds"]
    out["flops_per_second"] = _matrix_rates(device, 64 if tiny else 8192, seconds, budget)
    return out


def _matrix_rates(
    device: str, size: int, seconds: Callable[[Any], float], budget: float
) -> dict[str, float]:
    """Return flops per second of a matrix product, by dtype; empty without a library to ask."""
    try:
        import torch
    except ImportError:
        return {}
    if device == "cuda" and not torch.cuda.is_available():
        return {}
    # Full float32, not the 19 bits that tensor cores may put in its place.
    torch.backends.cuda.matmul.allow_tf32 = False
    rates = {}
    for name in ("float32", "float64"):
        a = torch.ones((size, size), dtype=getattr(torch, name), device=device)
        # PyTorch's default stream is the one on which our events are.
        timing = median_of(seconds, lambda a=a: a @ a, budget)
        rates[name] = 2.0 * size**3 / timing["seconds"]
    return rates


def run_adapter(
    make: Callable[[], Any],
    block: Problem,
    reference: Any,
    batch: int,
    floor: dict[str, dict[str, float]],
    budget: float,
) -> dict[str, Any]:
    """Time every part of one adapter; a smaller batch where the whole does not fit."""
    from . import accuracy
    from .gpu_peers import is_out_of_memory

    adapter = make()
    row: dict[str, Any] = {"peer": adapter.name, "note": adapter.note, "promise": adapter.promise}
    count = batch
    while True:
        problem_: Exception | None = None
        row |= {"batch": count, "parts": {}}
        try:
            adapter.load(block)
            adapter.spread(count)
            for name, call in adapter.parts().items():
                row["parts"][name] = median_of(adapter.seconds, call, budget)
                getattr(call, "release", lambda: None)()
            judged = min(JUDGED, count, len(block.x))
            y, g = adapter.answer()[:judged], adapter.gradient()[:judged]
            some = block.take(judged)
            row["error"] = accuracy.distance(some, y, reference.y)
            row["infeasibility"] = float(accuracy.infeasibility(some, y).max())
            row["gradient_error"] = accuracy.gradient_error(reference, g)
        except Exception as problem:
            problem_ = problem
        # Outside of the handler: a traceback would keep the arrays of the failed attempt alive.
        adapter.free()
        if problem_ is None:
            break
        if not is_out_of_memory(problem_) or count <= JUDGED:
            row["failed"] = f"{type(problem_).__name__}: {str(problem_).splitlines()[0][:200]}"
            return row
        count = max(count // 4, 1)
    for name, timing in row["parts"].items():
        least = floor["backward" if name.startswith("HS") else "forward"]
        timing["bytes_per_second"] = least["bytes"] / batch * count / timing["seconds"]
        timing["flops_per_second"] = least["flops"] / batch * count / timing["seconds"]
        timing["microseconds_a_sample"] = 1e6 * timing["seconds"] / count
    return row


def crossover(work: Work, block: Problem, most: int, budget: float) -> list[dict[str, Any]]:
    """Time ``project`` against the batch: on the CPU, on the device, and there and back."""
    import hsref

    from .gpu_peers import HsrefOnDevice, build

    rows: list[dict[str, Any]] = []
    adapter = build(HsrefOnDevice, block, work.dtype, "cuda")
    adapter.load(block)
    C, patience = adapter.set, CPU_PATIENCE
    batch = 1
    while batch <= most:
        x = np.resize(adapter.host_x, (batch, *C.shape))
        row: dict[str, Any] = {"batch": batch}
        if patience > 0:
            timing = measure.median_time(lambda x=x: hsref.project(x, C), budget, _calls(budget))
            row["cpu"] = timing["seconds"]
            # The next batch takes about ten times as long.
            patience = CPU_PATIENCE - 10.0 * timing["seconds"]
        adapter.spread(batch)
        row["device"] = median_of(adapter.seconds, adapter.project, budget)["seconds"]
        there = measure.median_time(
            lambda x=x: hsref.project(x, C, device="cuda"), budget, _calls(budget)
        )
        row["there_and_back"] = there["seconds"]
        adapter.free()
        rows.append(row)
        batch *= 10
    return rows


def run_work(
    name: str, device: str, tiny: bool, seed: int, budget: float, save: Callable[[Any], None]
) -> None:
    """Measure one work class; hand what is there to `save` after every row."""
    from . import accuracy, gpu_peers

    work = WORKS[name]
    case = work.case
    batch = case.smoke[1] if tiny else case.batch
    whole = case.build_smoke(seed) if tiny else case.build(seed, min(BLOCK, batch))
    block = round_to(whole, work.dtype)
    reference = accuracy.certify(block.take(JUDGED), 0)
    itemsize = np.dtype(work.dtype).itemsize
    floor = replace(block, x=block.x[:1], v=block.v[:1]).floor(reference.working)
    for part in floor.values():
        # Of one float64 sample; a byte a row of the record stands in the backward's.
        words, rest = divmod(part["bytes"], 16.0 * block.n)
        part["bytes"] = batch * (words * 2.0 * itemsize * block.n + rest)
        part["flops"] *= batch
    content: dict[str, Any] = {
        "title": f"{case.family}: {describe(block.sizes)}" if tiny else case.title,
        "batch": batch, "n": block.n, "dtype": np.dtype(work.dtype).name,
        "seed": seed, "reference": reference.source, "residuals": reference.residuals,
        "working_rows": reference.working, "floor": floor, "results": [], "crossover": [],
    }  # fmt: skip

    def run(kind: Any) -> None:
        _say(f"{name}: {kind.name}")
        make = lambda: gpu_peers.build(kind, block, work.dtype, device)  # noqa: E731
        content["results"].append(run_adapter(make, block, reference, batch, floor, budget))
        save(content)

    run(gpu_peers.HsrefOnDevice)
    content["crossover"] = crossover(work, block, batch, budget)
    save(content)
    for peer in work.peers:
        kind = gpu_peers.PEERS[peer]
        reason = gpu_peers.missing(kind, device)
        if reason is None:
            run(kind)
        else:
            content["results"].append({"peer": peer, "missing": reason})
    save(content)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("works", nargs="*", metavar="WORK", help=", ".join(WORKS))
    parser.add_argument("--tiny", action="store_true", help="the test suite's sizes")
    parser.add_argument("--budget", type=float, default=2.0, help="seconds behind a median")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, metavar="DIR", help="in place of results/")
    options = parser.parse_args(arguments)
    for name in options.works:
        if name not in WORKS:
            parser.error(f"no work class {name!r}; there are {', '.join(WORKS)}")
    from hsref._cuda.compat import CudaUnavailableError, require_device, simulated

    try:
        require_device()
    except CudaUnavailableError as problem:
        print(problem)
        return 2
    if simulated() and not options.tiny:
        print("The simulator is no device to measure: add --tiny to run the path, or use a card.")
        return 2
    device = "cpu" if simulated() else "cuda"
    os.environ["JAX_PLATFORMS"] = "cpu" if simulated() else ""
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    budget = 0.0 if options.tiny else options.budget
    where = options.out
    if where is None and not options.tiny:
        where = gpu_report.RESULTS
    content: dict[str, Any] = {
        "simulated": simulated(), "tiny": options.tiny, "machine": measure.machine(),
        "card": card(device, options.tiny, budget), "versions": gpu_report.versions(), "works": {},
    }  # fmt: skip
    for name in options.works or WORKS:

        def save(part: dict[str, Any], name: str = name) -> None:
            content["works"][name] = part
            if where is not None:
                gpu_report.write(where, content)

        run_work(name, device, options.tiny, options.seed, budget, save)
    print(gpu_report.markdown(content))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
