"""CUDA kernels against the card's own copy bandwidth, the CPU and torch, in one table.

    python benchmarks/gpu.py [--out DIR] [--quick]

Every row is checked against the CPU before it is timed; times are medians of device events after a
warm-up, over inputs larger than the cache. "floor" is the fewest bytes the work must move (input
read once, output written once) over the measured device-to-device copy rate.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import numba
import numpy as np

import hsref
from hsref._codes import SELECTION_MASK
from hsref._cuda import compat
from hsref._cuda.run import hs_device, project_device

cuda = compat.cuda
MASK = SELECTION_MASK["active"]


def timed(work: Any, repeat: int = 9) -> float:
    """Return the median milliseconds of `work` on the default stream."""
    work()
    cuda.synchronize()
    times = []
    for _ in range(repeat):
        begin, end = cuda.event(), cuda.event()
        begin.record()
        work()
        end.record()
        end.synchronize()
        times.append(cuda.event_elapsed_time(begin, end))
    return float(np.median(times))


def copy_rate() -> float:
    """Return the measured device-to-device copy rate in bytes per second, read plus write."""
    a = cuda.device_array(2**28, np.float64)
    b = cuda.device_array_like(a)
    return 2 * a.nbytes / (timed(lambda: b.copy_to_device(a)) * 1e-3)


def agreement(C: hsref.PolyhedralSet, x: np.ndarray) -> float:
    """Return the largest difference between device and CPU on some samples of a batch."""
    some = x[:: max(1, len(x) // 2000)]
    return float(np.abs(hsref.project(some, C) - hsref.project(some, C, device="cuda")).max())


def rows(C: hsref.PolyhedralSet, x: np.ndarray, label: str, rate: float) -> list[dict]:
    """Time projection (value alone, value and record) and HS product of one set."""
    d = cuda.to_device(x.reshape(len(x), -1))
    tol = 1e-9 if x.dtype == np.float64 else 1e-6
    error = agreement(C, x)
    moved = 2 * d.nbytes
    out = []

    def row(work: str, ms: float, bytes_: float) -> None:
        floor = bytes_ / rate * 1e3
        out.append(
            {
                "set": label, "work": work, "dtype": str(x.dtype), "batch": len(x), "ms": ms,
                "floor_ms": floor, "share_of_copy": floor / ms, "cpu_difference": error,
            }
        )  # fmt: skip
        print(f"{label:34s} {work:22s} {ms:9.3f} ms  {100 * floor / ms:5.1f} % of copy", flush=True)

    row("project", timed(lambda: project_device(C, d, C._data_row, tol, keep=False)), moved)
    record = project_device(C, d, C._data_row, tol, keep=True)
    small = C.kernel.tape_floats * 8 * len(x) < 2**33
    if small:
        ms = timed(lambda: project_device(C, d, C._data_row, tol, keep=True), 5)
        row("project with record", ms, moved + len(x) * C.kernel.code_size)
    ms = timed(lambda: hs_device(C, record, C._data_row, MASK, d))
    row("HS product", ms, moved + len(x) * C.kernel.code_size)
    return out


def cpu_crossover(C: hsref.PolyhedralSet, sizes: list[int]) -> list[dict]:
    """Time host arrays on the CPU and through the device, transfers included."""
    rng = np.random.default_rng(3)
    out = []
    for batch in sizes:
        x = rng.normal(size=(batch, *C.shape))
        pair = {}
        for device in ("cpu", "cuda"):
            hsref.project(x, C, device=device)
            times = []
            for _ in range(5):
                begin = time.perf_counter()
                hsref.project(x, C, device=device)
                times.append(time.perf_counter() - begin)
            pair[device] = float(np.median(times)) * 1e3
        out.append({"set": repr(C), "batch": batch, **pair})
    return out


def torch_peers(quick: bool) -> list[dict]:
    """Time the sort-based simplex projection and 20 Sinkhorn steps in torch, if it is there."""
    try:
        import torch
    except ImportError:
        return []

    def sort_simplex(x: Any) -> Any:
        u, _ = torch.sort(x, dim=-1, descending=True)
        css = u.cumsum(-1) - 1.0
        k = torch.arange(1, x.shape[-1] + 1, device=x.device)
        last = (u - css / k > 0).sum(-1, keepdim=True)
        return torch.clamp(x - css.gather(-1, last - 1) / last, min=0.0)

    def sinkhorn(x: Any) -> Any:
        p = torch.exp(x)
        for _ in range(20):
            p = p / p.sum(-1, keepdim=True)
            p = p / p.sum(-2, keepdim=True)
        return p

    out = []
    cases = [("sort simplex n=1000", sort_simplex, (10**5 if quick else 10**6, 1000))]
    cases.append(("Sinkhorn-20 4x4", sinkhorn, (10**6 if quick else 10**7, 4, 4)))
    for label, function, shape in cases:
        x = torch.randn(*shape, device="cuda", dtype=torch.float32)
        variants = [("eager", function)]
        try:
            compiled = torch.compile(function)
            compiled(x[:8])
            variants.append(("compiled", compiled))
        except Exception as problem:
            print(f"torch.compile: {type(problem).__name__}")
        for name, run in variants:
            for _ in range(3):
                run(x)
            torch.cuda.synchronize()
            times = []
            for _ in range(7):
                begin, end = torch.cuda.Event(True), torch.cuda.Event(True)
                begin.record()
                run(x)
                end.record()
                end.synchronize()
                times.append(begin.elapsed_time(end))
            ms = float(np.median(times))
            out.append({"peer": f"torch {name}", "work": label, "batch": shape[0], "ms": ms})
            print(f"torch {name:9s} {label:22s} {ms:9.3f} ms", flush=True)
        del x
        torch.cuda.empty_cache()
    return out


def general(n: int, m: int, p: int) -> hsref.PolyhedralSet:
    rng = np.random.default_rng(1)
    A, B = rng.normal(size=(m, n)), rng.normal(size=(p, n))
    inside = rng.normal(size=n)
    return hsref.Polyhedron(A, A @ inside + rng.random(m), B, B @ inside)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--quick", action="store_true", help="a tenth of each batch")
    args = parser.parse_args()
    compat.require_device()
    scale = 10 if args.quick else 1
    rate = copy_rate()
    print(f"copy {rate / 1e12:.2f} TB/s")
    rng = np.random.default_rng(0)
    table: list[dict] = []
    names = hsref.sets.REGISTRY
    work = [
        (hsref.Simplex(1000), (10**6 // scale, 1000), np.float32, "Simplex(1000)"),
        (hsref.Simplex(1000), (10**5 // scale, 1000), np.float64, "Simplex(1000)"),
        (hsref.Simplex(16), (10**7 // scale, 16), np.float32, "Simplex(16)"),
        (hsref.Box(0.0, 1.0, n=64), (10**6 // scale, 64), np.float32, "Box(64)"),
        (general(20, 30, 5), (10**6 // scale, 20), np.float64, "Polyhedron n=20, 30 ub, 5 eq"),
        (general(100, 100, 20), (10**5 // scale, 100), np.float64, "Polyhedron n=100, 100, 20"),
    ]
    if "Birkhoff" in names:
        shape = (10**7 // scale, 4, 4)
        work.append((hsref.Birkhoff(4), shape, np.float32, "Birkhoff(4)"))
    for C, shape, dtype, label in work:
        x = rng.standard_normal(shape, dtype=np.float32).astype(dtype)
        table += rows(C, x, label, rate)
        del x
    crossover = cpu_crossover(hsref.Simplex(100), [1, 100, 10_000, 10**6 // scale])
    crossover += cpu_crossover(general(20, 30, 5), [1, 100, 10_000, 10**5])
    peers = torch_peers(args.quick)
    facts = {
        "device": compat.describe(), "copy_bytes_per_second": rate, "numba": numba.__version__,
        "numpy": np.__version__, "python": platform.python_version(),
        "command": "python benchmarks/gpu.py" + (" --quick" if args.quick else ""),
    }  # fmt: skip
    args.out.mkdir(parents=True, exist_ok=True)
    result = {"facts": facts, "rows": table, "crossover": crossover, "peers": peers}
    (args.out / "gpu.json").write_text(json.dumps(result, indent=1))
    (args.out / "gpu.md").write_text(markdown(result))
    print(markdown(result))


def markdown(result: dict) -> str:
    facts = result["facts"]
    lines = [
        "# CUDA", "", f"`{facts['command']}` on {facts['device']['device']}; copy "
        f"{facts['copy_bytes_per_second'] / 1e12:.2f} TB/s (read plus write), numba "
        f"{facts['numba']}, Python {facts['python']}.", "",
        "| set | work | dtype | batch | ms | floor ms | share of copy rate | largest difference "
        "from the CPU |", "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    lines += [
        f"| {r['set']} | {r['work']} | {r['dtype']} | {r['batch']:,} | {r['ms']:.3f} | "
        f"{r['floor_ms']:.3f} | {100 * r['share_of_copy']:.0f} % | {r['cpu_difference']:.1e} |"
        for r in result["rows"]
    ]
    lines += ["", "Host arrays, transfers included:", "", "| set | batch | CPU ms | CUDA ms |"]
    lines += ["|---|---|---|---|"]
    lines += [
        f"| {r['set']} | {r['batch']:,} | {r['cpu']:.3f} | {r['cuda']:.3f} |"
        for r in result["crossover"]
    ]
    if result["peers"]:
        lines += ["", "| peer | work | batch | ms |", "|---|---|---|---|"]
        lines += [
            f"| {r['peer']} | {r['work']} | {r['batch']:,} | {r['ms']:.3f} |"
            for r in result["peers"]
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
