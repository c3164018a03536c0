"""Run every set's CUDA kernels in Numba's simulator and compare them with the CPU.

A script, because the simulator must be chosen before Numba is imported:
``NUMBA_ENABLE_CUDASIM=1 python tests/cuda_simulator.py``. Exits with 1 on a disagreement.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # Never by a mere import: the whole importing process would take the simulator for a device.
    os.environ["NUMBA_ENABLE_CUDASIM"] = "1"

import numpy as np

import hsref
from hsref._codes import SELECTION_MASK
from hsref._cuda.compat import cuda
from hsref.sets import REGISTRY


def points(C: hsref.PolyhedralSet) -> np.ndarray:
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=C.shape), 3.0 * rng.normal(size=C.shape), np.zeros(C.shape)]
    rows.append(rng.integers(-2, 3, C.shape).astype(float))
    return np.stack(rows)


def disagreement(C: hsref.PolyhedralSet, dtype: type) -> str | None:
    """Return what differs between the CPU and the simulator, or None."""
    x = points(C).astype(dtype)
    eps = np.finfo(dtype).eps
    scale = 1.0 + float(np.abs(x).max())
    here = hsref.projection(x, C)
    there = hsref.projection(x, C, device="cuda")
    if there.y.dtype != dtype or np.abs(here.y - there.y).max() > 50 * eps * scale:
        return f"y differs by {np.abs(here.y - there.y).max():.2g}"
    if not np.array_equal(here._raw.code, there._raw.code):
        return "active sets differ"
    if not np.array_equal(here.rank, there.rank):
        return "ranks differ"
    resident = hsref.projection(cuda.to_device(x), C)
    for selection in SELECTION_MASK:
        wanted = here.jacobian(selection) @ x
        got = (resident.jacobian(selection) @ cuda.to_device(x)).copy_to_host()
        if np.abs(wanted - got).max() > 200 * eps * scale:
            return f"V v ({selection}) differs by {np.abs(wanted - got).max():.2g}"
    y = hsref.project(cuda.to_device(x), C).copy_to_host()
    if not np.array_equal(y, there.y):
        return "project and projection differ"
    return None


def main() -> int:
    failures = 0
    for name, kind in REGISTRY.items():
        for k, C in enumerate(kind.examples()):
            for dtype in (np.float64, np.float32):
                problem = disagreement(C, dtype)
                if problem:
                    failures += 1
                    print(f"{name}-{k} {np.dtype(dtype)}: {problem}")
    print(f"{failures} disagreements")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
