"""Where the time of some kernels goes, stage by stage, beside what the machine can do at best.

``python -m benchmarks.stages`` takes the kernels whose figures are the hardest to reach: the
simplex (W4), forward and HS product, and the HS products of Birkhoff 4x4 (W5) and 30x30 (W6).
Each is run on one thread over the batch of its workload, cut off after its first stage, then after
its second, and so on; the difference of two times is a stage. Beside it the time of copying the
batch, what any kernel has to read and write at least. Writes ``RESULTS/stages.md``.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hsref._codes import INFO_SIZE, INFO_SKIP_RECORD, MASK_ACTIVE
from hsref._jit import device_function
from hsref.sets.simplex import (
    simplex_candidates,
    simplex_extremes,
    simplex_hs,
    simplex_project,
    simplex_threshold,
)
from hsref.sets.transport_hs import (
    compact,
    hs_floats,
    hs_ints,
    hs_product,
    hs_sizes,
    list_free,
    peel_leaves,
)
from hsref.sets.transport_laplacian import BALANCED, Factor, Graph, factorise
from hsref.sets.transport_small import small_routines
from hsref.sets.transport_small_hs import small_peel

from . import measure
from .workloads import CASES

RESULTS = Path(__file__).parent / "results"

SIMPLEX = (
    "copy the point, look for NaN",
    "largest and smallest entry",
    "candidates",
    "Newton on the threshold",
    "shift, classify, margins, clamp (with the record)",
    "copy the answer, look for overflow",
)
SMALL = ("free entries as bits, leaves peeled", "4x4 Laplacian, factor, solve, scatter")
SIMPLEX_HS = ("sum over the free entries", "subtract the mean from them")
BIRKHOFF = (
    "list the free entries from the codes",
    "peel leaves",
    "number what is left",
    "Schur complement and its factor",
    "two solves, gather and scatter",
)


@device_function
def simplex_stages(stop, x, total, y, code, dual, info, margin, xw, yw, work, iwork):
    """Run the first ``stop`` stages of the simplex for every row of x; returns a checksum."""
    n = x.shape[1]
    found = 0.0
    for i in range(x.shape[0]):
        check = 0.0
        for j in range(n):
            xw[j] = x[i, j]
            check += 0.0 * xw[j]
        found += check
        if stop == 1:
            continue
        if stop < 5:
            top, size = simplex_extremes(xw)
            found += top + size
            if stop > 2:
                count = simplex_candidates(xw, top, total[0], yw)
                found += count
                if stop > 3:
                    tau, passes = simplex_threshold(yw[0:count], total[0])
                    found += tau + passes
            continue
        for j in range(info.shape[1]):
            info[i, j] = 0
        simplex_project(
            xw, total, total, 1e-12, yw, code[i], dual[i], info[i], margin[i], work, iwork
        )
        if stop == 5:
            continue
        check = 0.0
        for j in range(n):
            y[i, j] = yw[j]
            check += 0.0 * y[i, j]
        found += check
    return found


@device_function
def simplex_hs_stages(stop, g, code, mask, out, work, iwork):
    """Run the first ``stop`` stages of the HS product for every row of g; returns a checksum."""
    n = g.shape[1]
    found = 0.0
    for i in range(g.shape[0]):
        if stop == 1:
            size = 0
            for j in range(n):
                free = (code[i, 1 + j] & mask) == 0
                found += g[i, j] if free else 0.0
                size += 1 if free else 0
            found += size
        else:
            simplex_hs(g[i], g[i], code[i], work, iwork, work, work, mask, out[i], work, iwork)
    return found


@device_function
def small_stages(stop, g, code, head, mask, out, work, iwork):
    """Run the first ``stop`` stages of the HS product of 4x4 matrices; returns a checksum."""
    found = 0
    for i in range(g.shape[0]):
        if stop == 1:
            found += small_peel(4, code[i], mask, iwork)
        else:
            small_product(
                g[i], g[i], code[i], work, iwork, work, (head,), mask, out[i], work, iwork
            )
    return found


@device_function
def birkhoff_stages(stop, g, code, head, mask, out, work, iwork):
    """Run the first ``stop`` stages of the HS product for every row of g; returns a checksum."""
    m = head[1]
    n = head[2]
    found = 0.0
    for i in range(g.shape[0]):
        if stop == 5:
            hs_product(g[i], g[i], code[i], work, iwork, work, (head,), mask, out[i], work, iwork)
            continue
        idx, mapped, ptr, keep_r, keep_c, number, degree, edges, stack = hs_ints(m, n, iwork)
        for k in range(m * n):
            out[i, k] = 0.0
        list_free(head[0], m, n, False, code[i], mask, ptr, idx, keep_r, keep_c)
        found += ptr[m]
        if stop == 1:
            continue
        left = peel_leaves(head[0], m, n, ptr, idx, mapped, keep_r, keep_c, degree, edges, stack)
        found += left
        if stop == 2 or left == 0:
            continue
        used = compact(head[0], m, n, ptr, idx, mapped, keep_c, degree, number)
        found += used
        if stop == 3:
            continue
        h, rest_r, rest_c, du, dv, deg_r, deg_c, weight, marked, s = hs_floats(m, used, n, work)
        for j in range(used + 1):
            marked[j] = 0.0
        graph = Graph(head[0], m, used, ptr, mapped, keep_r, keep_c)
        factorise(graph, Factor(deg_r, deg_c, weight, s), marked)
        found += deg_r[0]
    return found


small_product = small_routines(4)[2]


def least(call: Callable[[], Any], budget: float = 1.0) -> float:
    """Return the shortest time of a call, in seconds: other work on the machine only adds."""
    call()
    best, end = np.inf, time.perf_counter() + budget
    while time.perf_counter() < end:
        began = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - began)
    return best


def simplex_times() -> tuple[list[float], dict[str, Any]]:
    """Return seconds up to each stage of W4 with the record, and what they are made of."""
    x = np.ascontiguousarray(CASES["W4"].build(0).x)
    batch, n = x.shape
    y, code = np.empty_like(x), np.zeros((batch, n + 1), np.int8)
    info = np.zeros((batch, INFO_SIZE), np.int32)
    args = (
        x, np.ones(1), y, code, np.zeros((batch, 1)), info, np.zeros((batch, 2)),
        np.empty(n), np.empty(n), np.empty(1), np.empty(1, np.int32),
    )  # fmt: skip
    times = [
        least(lambda stop=stop: simplex_stages(np.int64(stop), *args))
        for stop in range(1, len(SIMPLEX) + 1)
    ]
    assert not info[:, INFO_SKIP_RECORD].any()
    return times, {"batch": batch, "copy": least(lambda: np.copyto(y, x))}


def _record(case: str) -> tuple[Any, Any, np.ndarray]:
    """Return the set of a case, the record of its points and cotangents for them."""
    import hsref

    problem = CASES[case].build(0)
    C = problem.special_set()
    record = hsref.projection(problem.x.reshape(-1, *C.shape), C, n_threads=1)
    return C, record, np.random.default_rng(1).standard_normal(problem.x.shape)


def simplex_hs_times() -> tuple[list[float], dict[str, Any]]:
    """Return seconds up to each stage of the HS product of W4, and what they are made of."""
    _, record, g = _record("W4")
    out = np.empty_like(g)
    args = (g, record._raw.code, np.int64(MASK_ACTIVE), out, np.empty(1), np.empty(1, np.int32))
    times = [
        least(lambda stop=stop: simplex_hs_stages(np.int64(stop), *args))
        for stop in range(1, len(SIMPLEX_HS) + 1)
    ]
    np.testing.assert_array_equal(out, record.jacobian() @ g)
    return times, {"batch": len(g), "copy": least(lambda: np.copyto(out, g))}


def birkhoff_times(
    case: str, driver: Any, stages: tuple[str, ...]
) -> tuple[list[float], dict[str, Any]]:
    """Return seconds up to each stage of the HS product of a case, and what they are made of."""
    C, record, g = _record(case)
    raw = record._raw
    head = C.kernel.shared[0]
    floats, ints = hs_sizes(*C.shape)
    out, work, iwork = np.empty_like(g), np.empty(floats), np.zeros(ints, np.int32)
    assert head[0] == BALANCED
    args = (g, raw.code, head, np.int64(MASK_ACTIVE), out, work, iwork)
    times = [
        least(lambda stop=stop: driver(np.int64(stop), *args)) for stop in range(1, len(stages) + 1)
    ]
    np.testing.assert_array_equal(out.reshape(record.y.shape), record.jacobian() @ g.reshape(
        record.y.shape
    ))  # fmt: skip
    return times, {
        "batch": len(g),
        "copy": least(lambda: np.copyto(out, g)),
        "free": float((record.y > 0).sum() / len(g)),
    }


def table(title: str, stages: tuple[str, ...], times: list[float], about: dict[str, Any]) -> str:
    """Return one kernel's stages as Markdown."""
    lines = [
        f"## {title}", "", "| stage | ns a sample | share |", "|---|---:|---:|",
    ]  # fmt: skip
    before = 0.0
    for name, until in zip(stages, times, strict=True):
        lines.append(
            f"| {name} | {(until - before) / about['batch'] * 1e9:.0f} "
            f"| {100.0 * (until - before) / times[-1]:.0f} % |"
        )
        before = until
    lines.append(f"| all | {times[-1] / about['batch'] * 1e9:.0f} | |")
    lines.append(
        f"| floor: copying the batch | {about['copy'] / about['batch'] * 1e9:.0f} "
        f"| {100.0 * about['copy'] / times[-1]:.0f} % |"
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure the kernels and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS)
    out = parser.parse_args().out
    machine = measure.machine()
    parts = [
        ("Simplex of n = 1000, forward with the record (W4)", SIMPLEX, *simplex_times()),
        ("Simplex of n = 1000, HS product (W4)", SIMPLEX_HS, *simplex_hs_times()),
    ]
    for case, side, driver, names in (
        ("W5", 4, small_stages, SMALL), ("W6", 30, birkhoff_stages, BIRKHOFF),
    ):  # fmt: skip
        times, about = birkhoff_times(case, driver, names)
        title = f"Birkhoff {side}x{side}, HS product ({case}; {about['free']:.1f} free entries)"
        parts.append((title, names, times, about))
    text = "\n".join([
        "# Stages of some kernels", "",
        "`python -m benchmarks.stages`: each kernel on one thread, cut off after each of its "
        "stages; shortest of the runs of a second. The last copy of the driver and the compiler's "
        "freedom across stages are in the differences, so a stage is good to about a tenth.", "",
        f"{machine['cpu']}, Python {platform.python_version()}, NumPy {np.__version__}.", "",
        *(table(*part) for part in parts),
    ])  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    measure.write_atomically(out / "stages.md", text)
    print(text)


if __name__ == "__main__":
    main()
