"""Scratch in registers: kernels for sets whose size the compiler knows.

The grid kernels of :mod:`hsref._cuda.kernels` keep the scratch of a thread in global memory, which
an unrolled routine need not have: indexed by constants alone, its arrays become registers, and a
sample costs the traffic of x, y and its record. A projection attempts every sample in this way and
lists those that it leaves; a second launch gives these to the general routine (nothing is copied
to the host in between, and with none left it ends at once). The answers are those of the grid
kernels, up to the rounding of sums that one compiler joins and another does not.
"""

from __future__ import annotations

import numpy as np

from .._batch import Kernel
from .._codes import INFO_SIZE, INFO_SKIP_RECORD, SOLVED, UNSETTLED
from .._jit import DeviceFunction, device_function, specialise
from .compat import cuda
from .kernels import hs_point

FLOAT = np.dtype(np.float64)
INT = np.dtype(np.int32)

MOST_FLOATS = 320
"""Longest scratch of an attempt. About 100 numbers fit a thread's registers; the rest is spilled,
and every card reserves that for as many threads as it can hold."""

ENTRIES = FLOATS = INTS = 1
"""Lengths of a point and of its scratch; replaced when a kernel is specialised."""


@device_function
def attempt_point(x, room, shared, active_tol, y, code, dual, info, margin, work, iwork):
    """Stand for the attempt of a set; replaced when a kernel is specialised."""
    return UNSETTLED


def forget_grid(listed):
    """Empty the list."""
    if cuda.grid(1) == 0:
        listed[0] = 0


def attempt_grid(
    x, shared, active_tol, keep, y, status, code, dual, info, margin, room, iroom, todo, listed
):  # fmt: skip
    """Attempt every sample; list in ``todo`` what is not settled, not finite, or overflows."""
    thread = cuda.grid(1)
    threads = room.shape[1]
    if thread >= threads:
        return
    for i in range(thread, x.shape[0], threads):
        xw = cuda.local.array(ENTRIES, FLOAT)
        yw = cuda.local.array(ENTRIES, FLOAT)
        work = cuda.local.array(FLOATS, FLOAT)
        facts = cuda.local.array(INFO_SIZE, INT)
        k = i if keep == 1 else thread
        check = 0.0
        for j in range(ENTRIES):
            value = x[i, j]
            xw[j] = value
            check += 0.0 * value
        settled = check == 0.0
        if settled:
            for j in range(INFO_SIZE):
                facts[j] = 0
            facts[INFO_SKIP_RECORD] = 1 - keep
            state = attempt_point(
                xw, room[:, thread], shared, active_tol, yw, code[k], dual[k], facts, margin[k],
                work, iroom[:, thread],
            )  # fmt: skip
            settled = state == SOLVED
        if settled:
            check = 0.0
            for j in range(ENTRIES):
                y[i, j] = yw[j]
                check += 0.0 * y[i, j]
            settled = check == 0.0
        if settled:
            status[i] = SOLVED
            if keep == 1:
                for j in range(INFO_SIZE):
                    info[i, j] = facts[j]
        else:
            todo[cuda.atomic.add(listed, 0, 1)] = i


def hs_own_grid(g, y, status, code, tape_f, tape_i, data, data_step, shared, mask, out):
    """Apply V to every row of ``g``; row t belongs to sample t modulo the batch."""
    samples = y.shape[0]
    for t in range(cuda.grid(1), g.shape[0], cuda.gridsize(1)):
        gw = cuda.local.array(ENTRIES, FLOAT)
        ow = cuda.local.array(ENTRIES, FLOAT)
        work = cuda.local.array(FLOATS, FLOAT)
        iwork = cuda.local.array(INTS, INT)
        i = t % samples
        for j in range(ENTRIES):
            gw[j] = g[t, j]
        if status[i] == SOLVED:
            hs_point(
                gw, y[i], code[i], tape_f, tape_i, data[i * data_step], shared, mask, ow, work,
                iwork,
            )  # fmt: skip
        else:
            for j in range(ENTRIES):
                ow[j] = 0.0
        for j in range(ENTRIES):
            out[t, j] = ow[j]


def attempts(kernel: Kernel) -> bool:
    """Tell whether a projection begins with an attempt in registers."""
    own = kernel.unrolled
    return own is not None and own.work_size <= MOST_FLOATS


def rest_of(kernel: Kernel) -> DeviceFunction:
    """Return the routine of the grid kernel: the general one where a set has an unrolled one too.

    What an attempt leaves is for that; and an attempt that does not fit the registers would gain
    nothing over it.
    """
    return kernel.project_point if kernel.unrolled is None else kernel.unrolled.rest


def attempt_kernel(kernel: Kernel) -> DeviceFunction:
    """Return :func:`attempt_grid` for the size of a set."""
    own = kernel.unrolled
    assert own is not None
    return specialise(
        attempt_grid, kernel.name, attempt_point=own.attempt, ENTRIES=kernel.size,
        FLOATS=own.work_size,
    )  # fmt: skip


def product_kernel(kernel: Kernel) -> DeviceFunction:
    """Return :func:`hs_own_grid` for the size of a set."""
    own = kernel.unrolled
    assert own is not None
    return specialise(
        hs_own_grid, kernel.name, hs_point=kernel.hs_point, ENTRIES=kernel.size,
        FLOATS=own.hs_work_size, INTS=own.hs_iwork_size,
    )  # fmt: skip
