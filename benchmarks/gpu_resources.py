"""Registers, stack and spills of every CUDA kernel, from the assembler, without a device.

``python -m benchmarks.gpu_resources`` compiles each kernel to PTX (needs ``hsref[cuda]`` or
``hsref[cuda12]``) and assembles it with ``ptxas -v`` (on the path, or from the package
``nvidia-cuda-nvcc``); the table goes to ``results/gpu-resources.md`` and ``.json``. A row that is
there already is kept unless its kernel changed. ``--sets Simplex Box`` does only these.

*Occupancy* is the share of a multiprocessor's threads that its 65 536 registers can hold in blocks
of 128, an upper limit: no launch can do better, and memory may ask for less.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from . import measure

RESULTS = Path(__file__).parent / "results"
ARCHITECTURES = {"sm_80": 2048, "sm_90": 2048}
"""Threads that a multiprocessor can hold, by architecture."""
REGISTERS = 65_536
GRANULE = 8
"""Registers a thread are handed out in multiples of this."""
BLOCK = 128


def find_assembler() -> str | None:
    """Return the path of ptxas: that of the compiler's own packages before that of the system."""
    spec = importlib.util.find_spec("nvidia")
    for root in spec.submodule_search_locations or [] if spec else []:
        for found in sorted(Path(root).glob("**/bin/ptxas*")):
            return str(found)
    return shutil.which("ptxas")


def occupancy(registers: int, threads: int) -> float:
    """Return the share of `threads` that the register file holds, in whole blocks."""
    each = -(-registers // GRANULE) * GRANULE * BLOCK
    return min(1.0, REGISTERS // each * BLOCK / threads)


def assemble(assembler: str, ptx: str, architecture: str) -> dict[str, int]:
    """Return what ptxas says of one kernel."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        done = subprocess.run(
            [assembler, "-v", f"-arch={architecture}", str(source), "-o", "/dev/null"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    patterns = {
        "registers": r"Used (\d+) registers",
        "stack": r"(\d+) bytes stack frame",
        "spill_stores": r"(\d+) bytes spill stores",
        "spill_loads": r"(\d+) bytes spill loads",
    }
    # Calls that were not inlined are listed apart: the entry's registers hold for all, stacks add.
    found = {k: [int(v) for v in re.findall(p, done.stderr)] for k, p in patterns.items()}
    if not found["registers"]:
        raise RuntimeError(f"ptxas said nothing about registers: {done.stderr[:500]}")
    return {k: max(v, default=0) for k, v in found.items()}


def labelled(kinds: Any) -> Iterator[tuple[str, str, Any, Any]]:
    """Yield (label, slot, dtype, kernel) of every kernel; a repeated name gets a number."""
    from hsref._cuda.offline import distinct, every_set

    counted: dict[str, int] = {}
    for name, slot, dtype, kernel in distinct(every_set(kinds)):
        base = f"{name} {slot.removesuffix('_point')} {dtype}"
        counted[base] = counted.get(base, 0) + 1
        label = base if counted[base] == 1 else f"{base} #{counted[base]}"
        yield label, slot, dtype, kernel


def collect(sets: list[str], folder: Path) -> dict[str, Any]:
    """Compile and assemble; return all rows, old ones included."""
    from hsref._cuda.offline import compile_ptx, every_set
    from hsref.sets import REGISTRY

    assembler = find_assembler()
    if assembler is None:
        raise SystemExit("no ptxas here: pip install nvidia-cuda-nvcc, or a CUDA toolkit")
    path = folder / "gpu-resources.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else {}
    chosen = [kind for name, kind in REGISTRY.items() if not sets or name in sets]
    names = {C.kernel.name for C in every_set(chosen)}
    # Always all of them, so that a label means the same kernel whichever sets are asked for.
    kernels = list(labelled(REGISTRY.values()))
    rows = {label: rows[label] for label, *_ in kernels if label in rows}
    with ThreadPoolExecutor(2) as pool:
        for label, slot, dtype, kernel in kernels:
            if kernel.name not in names:
                continue
            ptx = compile_ptx(kernel, slot, dtype)
            mark = hashlib.sha256(re.sub(r"//.*", "", ptx).encode()).hexdigest()[:12]
            if rows.get(label, {}).get("mark") == mark:
                continue
            said = dict(zip(ARCHITECTURES, pool.map(
                lambda a, text=ptx: assemble(assembler, text, a), ARCHITECTURES)))  # fmt: skip
            rows[label] = {"mark": mark, "ptx_bytes": len(ptx), **said}
            print(label, said["sm_90"], flush=True)
            write(rows, folder, assembler)
    write(rows, folder, assembler)
    return rows


def write(rows: dict[str, Any], folder: Path, assembler: str) -> None:
    """Write the JSON and the Markdown table."""
    said = subprocess.run([assembler, "--version"], capture_output=True, text=True, check=True)
    release = re.search(r"release ([\d.]+)", said.stdout)
    import hsref
    from hsref.sets import REGISTRY

    versions = {p: importlib.metadata.version(p) for p in ("numba", "numba-cuda")}
    versions["hsref"] = hsref.__version__
    versions["ptxas"] = release.group(1) if release else "unknown"
    measure.write_json(folder / "gpu-resources.json", {"versions": versions, "rows": rows})
    lines = [
        "# What every CUDA kernel asks of a multiprocessor", "",
        "Assembled without a device, "
        + ", ".join(f"{k} {v}" for k, v in versions.items())
        + ". Regenerate: `python -m benchmarks.gpu_resources`.", "",
        "One thread works on one sample. *Stack* and *spills* are bytes of local memory a thread; "
        "*occupancy* is the most that the registers allow in blocks of "
        f"{BLOCK} threads. Kernels named *block* give a block to each sample, keep its row in "
        "shared memory, which may allow fewer threads still, and are off by default; no other "
        "uses shared memory. Kernels named *attempt* and *hs_own* keep the scratch of a sample in "
        "registers (and on the stack, where it is too long), the others in global memory. Times "
        "need a device, and none was at hand.", "",
        "| kernel | PTX kB | " + " | ".join(
            f"{a} registers | stack | spill stores / loads | occupancy" for a in ARCHITECTURES
        ) + " |",
        "|---|--:|" + "--:|--:|--:|--:|" * len(ARCHITECTURES),
    ]  # fmt: skip
    for label, row in sorted(rows.items()):
        cells = [f"{row['ptx_bytes'] / 1000:.0f}"]
        for name, threads in ARCHITECTURES.items():
            use = row[name]
            cells += [
                str(use["registers"]), str(use["stack"]),
                f"{use['spill_stores']} / {use['spill_loads']}",
                f"{100 * occupancy(use['registers'], threads):.0f} %",
            ]  # fmt: skip
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    absent = [label for label, *_ in labelled(REGISTRY.values()) if label not in rows]
    if absent:
        lines += ["", f"Not assembled yet: {', '.join(absent)}."]
    measure.write_atomically(folder / "gpu-resources.md", "\n".join([*lines, ""]))


def main(arguments: list[str] | None = None) -> int:
    """Write the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_resources", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--sets", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR")
    options = parser.parse_args(arguments)
    collect(options.sets, options.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
