"""Run every kernel of every set on a few samples, for compute-sanitizer to watch.

``compute-sanitizer --error-exitcode 9 python tests/cuda_sanitized.py``; ``... Simplex Box`` runs
those sets only. Batches end within a block, so that threads without a sample are there too.
"""

from __future__ import annotations

import sys

import numpy as np

import hsref
from hsref._codes import SELECTION_MASK
from hsref._cuda.compat import cuda
from hsref.sets import REGISTRY


def main(names: list[str]) -> int:
    rng = np.random.default_rng(0)
    chosen = [kind for name, kind in REGISTRY.items() if not names or name in names]
    for kind in chosen:
        for C in kind.examples():
            for dtype in (np.float64, np.float32):
                x = cuda.to_device(rng.normal(size=(5, *C.shape)).astype(dtype))
                record = hsref.projection(x, C)
                for selection in SELECTION_MASK:
                    (record.jacobian(selection) @ x).copy_to_host()
                record.to_host()
                hsref.project(x, C).copy_to_host()
                hsref.project(x.copy_to_host(), C, device="cuda")
    print(f"{len(chosen)} sets done")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
