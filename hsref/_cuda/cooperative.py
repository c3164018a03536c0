"""A block of threads for each sample: kernels for long points, off until a card has been measured.

The grid kernels of :mod:`hsref._cuda.kernels` read a row by one thread, and keep scratch in global
memory. Here a block reads the row side by side, keeps it in shared memory, and sums in a tree. The
answers are the same up to the order of those sums, which depends on nothing but the size of the
block: a sample still has the same bits in every batch. ``HSREF_CUDA_COOPERATIVE=1`` (or
:func:`enabled`) turns them on where there is one; today that is the simplex.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .._batch import Kernel
from .._codes import (
    ACTIVE_LOWER,
    INFO_RANK_ACTIVE,
    INFO_RANK_SUPPORT,
    INFO_RANK_WORKING,
    INFO_SIZE,
    INFO_STEPS,
    INFO_WEAK,
    MAX_STEPS,
    NONFINITE,
    PRIMAL_INFEASIBLE,
    SINGULAR,
    SOLVED,
)
from .._jit import device_function
from ..sets.simplex import _BINDING, _EQ, simplex_of_zero, simplex_project
from .compat import cuda, processors
from .kernels import FAILED

FLOAT = np.dtype(np.float64)
"""As an object, which the simulator asks for, and not as a class."""
THREADS = 128
"""Threads of a block; a power of two, and at most ROOM."""
ROOM = 256
BLOCKS_PER_PROCESSOR = 32
SHARED_BYTES = 40_960
"""Most shared memory that a row may take, so that every card since 2016 can run it."""

_on = [os.environ.get("HSREF_CUDA_COOPERATIVE", "") == "1"]


@contextmanager
def enabled(on: bool = True) -> Iterator[None]:
    """Use these kernels inside of the block, or do not."""
    before, _on[0] = _on[0], on
    try:
        yield
    finally:
        _on[0] = before


@device_function
def add_all(a, b):
    """Replace a[0] and b[0] by the sums over the block; everybody waits before and after."""
    thread = cuda.threadIdx.x
    step = cuda.blockDim.x // 2
    cuda.syncthreads()
    while step > 0:
        if thread < step:
            a[thread] += a[thread + step]
            b[thread] += b[thread + step]
        cuda.syncthreads()
        step //= 2


@device_function
def greatest_of_all(a, b):
    """Replace a[0] and b[0] by the largest over the block."""
    thread = cuda.threadIdx.x
    step = cuda.blockDim.x // 2
    cuda.syncthreads()
    while step > 0:
        if thread < step:
            a[thread] = max(a[thread], a[thread + step])
            b[thread] = max(b[thread], b[thread + step])
        cuda.syncthreads()
        step //= 2


def simplex_rows(
    x, data, data_step, active_tol, keep, y, status, code, dual, info, margin, flag
):  # fmt: skip
    """Project onto the simplex, a block a row; the method is that of ``simplex_project``."""
    a = cuda.shared.array(ROOM, FLOAT)
    b = cuda.shared.array(ROOM, FLOAT)
    row = cuda.shared.array(0, FLOAT)
    thread = cuda.threadIdx.x
    threads = cuda.blockDim.x
    n = x.shape[1]
    for i in range(cuda.blockIdx.x, x.shape[0], cuda.gridDim.x):
        top = -np.inf
        low = np.inf
        check = 0.0
        for j in range(thread, n, threads):
            value = np.float64(x[i, j])
            row[j] = value
            top = max(top, value)
            low = min(low, value)
            check += 0.0 * value
        cuda.syncthreads()
        a[thread] = check
        b[thread] = 0.0
        add_all(a, b)
        finite = a[0] == 0.0
        cuda.syncthreads()
        a[thread] = top
        b[thread] = -low
        greatest_of_all(a, b)
        top = a[0]
        scale = max(top, b[0])
        total = data[i * data_step, 0]
        if keep == 1 and thread == 0:
            for j in range(INFO_SIZE):
                info[i, j] = 0
            margin[i, 0] = np.inf
            margin[i, 1] = np.inf
            code[i, 0] = _EQ
            dual[i, 0] = top
        state = SOLVED
        if not finite:
            state = NONFINITE
        elif not total >= 0.0:
            state = PRIMAL_INFEASIBLE
        tau = 0.0
        passes = 0
        if state == SOLVED:
            scale = max(scale, total)
        if state == SOLVED and total > 0.0:
            for j in range(thread, n, threads):
                row[j] -= top
            state = MAX_STEPS
            tau = -total
            count = np.float64(n)
            while passes < n + 2:
                excess = 0.0
                size = 0.0
                for j in range(thread, n, threads):
                    excess += max(row[j] - tau, 0.0)
                    size += 1.0 if row[j] > tau else 0.0
                cuda.syncthreads()
                a[thread] = excess
                b[thread] = size
                add_all(a, b)
                excess = a[0]
                size = b[0]
                if size > 0.0:
                    tau += (excess - total) / size
                if (size >= count and passes > 0) or size == 0.0:
                    state = SOLVED
                    break
                count = size
                passes += 1
        if state == SOLVED:
            check = 0.0
            for j in range(thread, n, threads):
                y[i, j] = max(row[j] - tau, 0.0) if total > 0.0 else 0.0
                check += 0.0 * y[i, j]
            cuda.syncthreads()
            a[thread] = check
            b[thread] = 0.0
            add_all(a, b)
            if not (a[0] == 0.0):
                # Beyond the precision of x.
                state = SINGULAR
        if state != SOLVED:
            for j in range(thread, n, threads):
                y[i, j] = np.nan
        if thread == 0:
            status[i] = state
            if state != SOLVED:
                flag[0] = FAILED
        if keep == 1 and state == SOLVED:
            unit = 1.0 / scale if scale > 0.0 else 1.0
            if total == 0.0:
                cuda.syncthreads()
                if thread == 0:
                    simplex_of_zero(row, top, unit, y[i], code[i], info[i], margin[i])
            else:
                tolerance = active_tol * total
                free = 0.0
                positive = 0.0
                slack = np.inf
                least = np.inf
                for j in range(thread, n, threads):
                    gap = row[j] - tau
                    if gap > tolerance:
                        free += 1.0
                        code[i, 1 + j] = 0
                        slack = min(slack, gap)
                    elif gap >= 0.0:
                        code[i, 1 + j] = ACTIVE_LOWER
                    else:
                        code[i, 1 + j] = _BINDING
                        least = min(least, -gap)
                    positive += 1.0 if gap >= 0.0 else 0.0
                cuda.syncthreads()
                a[thread] = free
                b[thread] = positive
                add_all(a, b)
                free = a[0]
                positive = b[0]
                cuda.syncthreads()
                a[thread] = -slack
                b[thread] = -least
                greatest_of_all(a, b)
                if thread == 0:
                    dual[i, 0] = tau + top
                    info[i, INFO_STEPS] = passes
                    info[i, INFO_RANK_ACTIVE] = int(free) - 1
                    info[i, INFO_RANK_WORKING] = int(positive) - 1
                    info[i, INFO_RANK_SUPPORT] = int(positive) - 1
                    info[i, INFO_WEAK] = int(positive - free)
                    margin[i, 0] = -a[0] * unit
                    margin[i, 1] = -b[0] * unit
        cuda.syncthreads()


def simplex_products(g, samples, status, code, mask, out):
    """Subtract the mean over the free entries, a block a row."""
    a = cuda.shared.array(ROOM, FLOAT)
    b = cuda.shared.array(ROOM, FLOAT)
    thread = cuda.threadIdx.x
    threads = cuda.blockDim.x
    n = g.shape[1]
    for t in range(cuda.blockIdx.x, g.shape[0], cuda.gridDim.x):
        i = t % samples
        total = 0.0
        size = 0.0
        for j in range(thread, n, threads):
            if (code[i, 1 + j] & mask) == 0:
                total += g[t, j]
                size += 1.0
        a[thread] = total
        b[thread] = size
        add_all(a, b)
        size = b[0]
        mean = a[0] / size if size > 0.0 else 0.0
        # A single free entry is fixed by the sum; a sample that was not solved has no gradient.
        alive = size > 1.0 and status[i] == SOLVED
        for j in range(thread, n, threads):
            free = alive and (code[i, 1 + j] & mask) == 0
            out[t, j] = g[t, j] - mean if free else 0.0
        cuda.syncthreads()


KERNELS = {simplex_project: (simplex_rows, simplex_products)}
"""(projection, product) by the routine of a set that they stand in for."""


def stand_in(kernel: Kernel, slot: int) -> Any:
    """Return the kernel (0: projection, 1: product) that replaces a set's, or None."""
    if not _on[0] or 8 * kernel.size > SHARED_BYTES:
        return None
    found = KERNELS.get(kernel.project_point)
    return None if found is None else found[slot]


def configuration(samples: int, stream: Any, shared: int) -> tuple[Any, ...]:
    """Return (blocks, threads, stream, bytes of shared memory)."""
    blocks = max(1, min(samples, BLOCKS_PER_PROCESSOR * processors()))
    return blocks, THREADS, stream, shared
