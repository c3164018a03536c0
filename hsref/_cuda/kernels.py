"""Grid kernels: the CUDA counterparts of the loops in :mod:`hsref._batch`.

One thread works on one sample at a time and calls the same per-point routine as the CPU, built for
CUDA from the same code object. Scratch is laid out with the thread index last, so that the threads
of a warp touch neighbouring addresses. All arithmetic runs in the precision of the scratch
(float64); input and output are cast on load and store.
"""

from __future__ import annotations

import numpy as np

from .._batch import hs_point, project_point
from .._codes import (
    INFO_SIZE,
    INFO_SKIP_RECORD,
    INFO_TAPE_FLOATS,
    INFO_TAPE_INTS,
    NONFINITE,
    SINGULAR,
    SOLVED,
)
from .compat import cuda

FAILED = 1
"""Value of the flag a kernel raises when any sample was not solved."""


def project_grid(
    x, data, data_step, shared, active_tol, keep,
    y, status, code, dual, info, margin, tape_f, tape_i, most_f, most_i,
    xw, yw, work, iwork, flag, todo, listed,
):  # fmt: skip
    """Project every sample; record rows belong to samples (``keep``) or to threads.

    Where ``listed[0]`` is not negative, only the samples that ``todo`` begins with, so many.
    """
    thread = cuda.grid(1)
    threads = xw.shape[1]
    if thread >= threads:
        return
    n = x.shape[1]
    some = listed[0] >= 0
    samples = listed[0] if some else x.shape[0]
    for t in range(thread, samples, threads):
        i = todo[t] if some else t
        k = i if keep == 1 else thread
        check = 0.0
        for j in range(n):
            value = x[i, j]
            xw[j, thread] = value
            check += 0.0 * value
        for j in range(INFO_SIZE):
            info[k, j] = 0
        info[k, INFO_SKIP_RECORD] = 1 - keep
        margin[k, 0] = np.inf
        margin[k, 1] = np.inf
        if not (check == 0.0):
            status[i] = NONFINITE
            flag[0] = FAILED
            continue
        iwork[0, thread] = 0
        for j in range(dual.shape[1]):
            dual[k, j] = 0.0
        for j in range(code.shape[1]):
            code[k, j] = 0
        status[i] = project_point(
            xw[:, thread], data[i * data_step], shared, active_tol, yw[:, thread], code[k],
            dual[k], info[k], margin[k], work[:, thread], iwork[:, thread],
        )  # fmt: skip
        if status[i] == SOLVED:
            check = 0.0
            for j in range(n):
                y[i, j] = yw[j, thread]
                check += 0.0 * y[i, j]
            if not (check == 0.0):
                # Something overflowed on the way, or does so in the precision of x.
                status[i] = SINGULAR
        if status[i] != SOLVED:
            flag[0] = FAILED
            for j in range(n):
                y[i, j] = np.nan
        if keep == 1:
            for j in range(info[k, INFO_TAPE_FLOATS]):
                tape_f[i * most_f + j] = work[j, thread]
            for j in range(info[k, INFO_TAPE_INTS]):
                tape_i[i * most_i + j] = iwork[j, thread]


def hs_grid(
    g, y, status, code, tape_f, tape_i, most_f, most_i, data, data_step, shared, mask,
    out, gw, ow, work, iwork,
):  # fmt: skip
    """Apply V to every row of ``g``; row t belongs to sample t modulo the batch."""
    thread = cuda.grid(1)
    threads = gw.shape[1]
    if thread >= threads:
        return
    samples = y.shape[0]
    n = g.shape[1]
    for t in range(thread, g.shape[0], threads):
        i = t % samples
        if status[i] != SOLVED:
            for j in range(n):
                out[t, j] = 0.0
            continue
        for j in range(n):
            gw[j, thread] = g[t, j]
        hs_point(
            gw[:, thread], y[i], code[i], tape_f[i * most_f : (i + 1) * most_f],
            tape_i[i * most_i : (i + 1) * most_i], data[i * data_step], shared, mask,
            ow[:, thread], work[:, thread], iwork[:, thread],
        )  # fmt: skip
        for j in range(n):
            out[t, j] = ow[j, thread]


__all__ = ["FAILED", "hs_grid", "hs_point", "project_grid", "project_point"]
