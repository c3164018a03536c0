"""Device memory: what a call needs, what is free, and the scratch that calls reuse."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._batch import Kernel
from .._codes import INFO_SIZE
from ..sets.base import PolyhedralSet
from .compat import (
    cuda,
    device_number,
    free_bytes,
    processors,
    release_pending,
    stream_handle,
)
from .registers import attempts

BLOCK = 128
THREADS_PER_PROCESSOR = 1024
MEMORY_SHARE = 0.8
"""Part of the free device memory that a piece of a host batch may take."""
SCRATCH_SHARE = 0.25
"""Part of the free device memory that scratch may take."""
WORKSPACES = 16
"""Workspaces a set keeps (one a stream and size) before it starts over."""


def workspace(
    C: PolyhedralSet, floats: int, ints: int, samples: int, stream: Any
) -> tuple[tuple[Any, ...], int]:
    """Return (xw, yw, work, iwork) with one column a thread, and how many threads to launch.

    Kept with the set, one a stream, and reused by every later batch, larger or smaller: it is
    replaced only by one that holds many more threads.
    """
    # Launches on one stream follow each other and may share scratch; on two they may overlap.
    floats, ints = max(floats, 1), max(ints, 1)
    spaces = C._cached(f"cuda_spaces {device_number()}", dict)
    key = (floats, ints, stream_handle(stream))
    each = bytes_a_thread(C.size, floats, ints)
    columns = spaces[key][0][0].shape[1] if key in spaces else 0
    wanted = _threads(samples, each, columns * each)
    # A memory that fills up must not make the next call start over for a few threads less or more.
    if columns == 0 or 4 * wanted > 5 * columns:
        if len(spaces) >= WORKSPACES:
            spaces.clear()
        spaces.pop(key, None)
        columns = wanted
        arrays = (
            cuda.device_array((C.size, columns), np.float64),
            cuda.device_array((C.size, columns), np.float64),
            cuda.device_array((floats, columns), np.float64),
            cuda.device_array((ints, columns), np.int32),
        )
        # The stream is kept too: a new one must not get its number while the scratch is in use.
        spaces[key] = (arrays, stream)
    return spaces[key][0], max(1, min(samples, columns))


def threads_for(samples: int) -> int:
    """Return how many threads to launch where scratch does not limit them."""
    return max(1, min(samples, processors() * THREADS_PER_PROCESSOR))


def _threads(samples: int, each: int, held: int) -> int:
    """Return how many threads to give scratch to, when `held` bytes of it are there already."""
    wanted = threads_for(samples)
    free = free_bytes()
    if free is not None:
        # Scratch is a cost a thread, not a sample: fewer threads in flight when it is large.
        wanted = min(wanted, max(BLOCK, int(SCRATCH_SHARE * (free + held) / each)))
    return max(1, wanted)


def bytes_a_thread(size: int, floats: int, ints: int) -> int:
    """Return the scratch of one thread for points of `size` entries."""
    return 8 * (2 * size + max(floats, 1)) + 4 * max(ints, 1)


def _bytes_a_row(kernel: Kernel, keep: bool) -> int:
    """Return what a sample leaves on the device beside x and y."""
    record = max(kernel.code_size, 1) + 8 * max(kernel.dual_size, 1) + 4 * INFO_SIZE + 16
    tape = 8 * kernel.tape_floats + 4 * kernel.tape_ints
    listed = 4 if attempts(kernel) else 0
    return 1 + listed + (record + tape if keep else 0)


def _scratch(kernel: Kernel, samples: int) -> int:
    each = bytes_a_thread(kernel.size, kernel.work_size, kernel.iwork_size)
    return each * _threads(samples, each, 0)


def samples_that_fit(kernel: Kernel, itemsize: int, keep: bool, batch: int) -> int:
    """Return how many host samples to send at once; raise when not even one fits."""
    each = 2 * itemsize * kernel.size + _bytes_a_row(kernel, keep)
    free = free_bytes()
    if free is None:
        return batch
    if each * batch + _scratch(kernel, batch) > MEMORY_SHARE * free:
        free = release_pending()
    fits = int((MEMORY_SHARE * free - _scratch(kernel, batch)) / each)
    if fits < 1:
        need = each + _scratch(kernel, 1)
        raise MemoryError(
            f"one sample of {kernel.name} with N={kernel.size} needs {need:,} bytes on the device, "
            f"which has {free:,} free (and {int((1 - MEMORY_SHARE) * free):,} of them are kept "
            "for others): free some, or use device='cpu'."
        )
    return min(fits, batch)


def require_projection(C: PolyhedralSet, itemsize: int, keep: bool, batch: int) -> None:
    """Raise, before anything is allocated, when a batch of device arrays cannot fit."""
    kernel = C.kernel
    need = batch * (itemsize * kernel.size + _bytes_a_row(kernel, keep))
    if not keep:
        # One row a thread is written in place of a record.
        need += _bytes_a_row(kernel, True) * min(batch, processors() * THREADS_PER_PROCESSOR)
    _require(need, f"projecting {batch:,} device samples of {kernel.name} with N={kernel.size}")


def require_product(C: PolyhedralSet, nbytes: int, rows: int) -> None:
    """Raise, before anything is allocated, when V v cannot fit."""
    name = f"J @ v for {rows:,} device vectors of {C.kernel.name} with N={C.size}"
    _require(nbytes, name)


def _require(need: int, what: str) -> None:
    free = free_bytes()
    if free is None or need <= free:
        return
    free = release_pending()
    if need > free:
        raise MemoryError(
            f"{what} needs {need:,} bytes and the device has {free:,} free: split the batch."
        )
