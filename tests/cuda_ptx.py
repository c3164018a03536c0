"""Compile every CUDA kernel of every set to PTX, float32 and float64, without a driver.

The simulator checks no types; this does. Exit code 77 means that no PTX compiler is installed.
"""

from __future__ import annotations

import sys
import types
from typing import Any

import numba
import numpy as np
from numba.core import types as nt

from hsref._cuda.compat import compile_device, cuda
from hsref._cuda.kernels import hs_grid, project_grid
from hsref._jit import specialise
from hsref.sets import REGISTRY

SKIP = 77
CAPABILITY = (8, 0)


def array(dtype: Any, ndim: int) -> nt.Array:
    return nt.Array(numba.from_dtype(np.dtype(dtype)), ndim, "C")


def signatures(kernel: Any, dtype: type) -> dict[str, tuple]:
    f8, i4, i1 = np.float64, np.int32, np.int8
    shared = nt.BaseTuple.from_types(tuple(array(a.dtype, a.ndim) for a in kernel.shared))
    x, f1, f2, ints = array(dtype, 2), array(f8, 1), array(f8, 2), nt.int64
    record = (x, array(i1, 1), array(i1, 2))
    scratch = (f2, f2, f2, array(i4, 2))
    return {
        "project_point": (
            x, f2, ints, shared, nt.float64, ints, *record, f2, array(i4, 2), f2, f1, array(i4, 1),
            ints, ints, *scratch, array(i4, 1),
        ),
        "hs_point": (
            x, *record, f1, array(i4, 1), ints, ints, f2, ints, shared, ints, x, *scratch,
        ),
    }  # fmt: skip


def main() -> int:
    if getattr(cuda, "implementation", "") != "NVIDIA":
        # The compiler that the extras install; Numba's own, deprecated, is not what users get.
        return SKIP
    import numba.cuda.dispatcher as dispatcher

    # Device functions ask the driver for its compute capability; answer for it.
    dispatcher.get_current_device = lambda: types.SimpleNamespace(compute_capability=CAPABILITY)
    seen = set()
    for name, kind in REGISTRY.items():
        for C in kind.examples():
            kernel = C.kernel
            for dtype in (np.float64, np.float32):
                for slot, signature in signatures(kernel, dtype).items():
                    routine = getattr(kernel, slot)
                    key = (slot, routine, signature)
                    if key in seen:
                        continue
                    seen.add(key)
                    template = project_grid if slot == "project_point" else hs_grid
                    bound = specialise(template, kernel.name, **{slot: routine})
                    try:
                        ptx, _ = cuda.compile_ptx(
                            bound._rebind("cuda", compile_device), nt.void(*signature),
                            cc=CAPABILITY,
                        )  # fmt: skip
                    except Exception as problem:
                        text = f"{type(problem).__name__}: {problem}"
                        if "NvvmSupportError" in text or "nvvm" in text.lower():
                            print(text)
                            return SKIP
                        print(f"{name} {slot} {np.dtype(dtype)}: {text[:2000]}")
                        return 1
                    print(f"{name} {slot} {np.dtype(dtype)}: {len(ptx)} bytes of PTX")
    return 0


if __name__ == "__main__":
    sys.exit(main())
