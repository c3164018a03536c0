"""Compile every CUDA kernel of every set to PTX, float32 and float64, without a driver.

The simulator checks no types; this does. Exit code 77 means that no PTX compiler is installed.
``python tests/cuda_ptx.py Simplex Box`` compiles those sets only.
"""

from __future__ import annotations

import sys

from hsref._cuda.offline import NoCompilerError, compile_ptx, distinct, every_set
from hsref.sets import REGISTRY

SKIP = 77


def main(names: list[str]) -> int:
    chosen = [kind for name, kind in REGISTRY.items() if not names or name in names]
    failures = 0
    for name, slot, dtype, kernel in distinct(every_set(chosen)):
        try:
            ptx = compile_ptx(kernel, slot, dtype)
        except NoCompilerError as problem:
            print(problem)
            return SKIP
        except Exception as problem:
            failures += 1
            print(f"{name} {slot} {dtype}: {type(problem).__name__}: {problem}"[:2000])
            continue
        print(f"{name} {slot} {dtype}: {len(ptx)} bytes of PTX", flush=True)
    print(f"{failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
