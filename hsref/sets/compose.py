"""Compiled routines of composite sets, as templates: scaling, shifting, blocks.

A template is a per-point routine that calls a global name such as ``inner_project``. For each
combination of sets :mod:`hsref.sets.assemble` makes a copy in which that name is bound to the
routine of the set inside, so that a composite set is compiled, batched and run on every device
like any other. Sizes are read from arrays, so instances that differ in size share compiled code.
"""

from __future__ import annotations

import numpy as np

from .._codes import (
    INFO_RANK_ACTIVE,
    INFO_RANK_SUPPORT,
    INFO_RANK_WORKING,
    INFO_SIZE,
    INFO_STEPS,
    INFO_TAPE_FLOATS,
    INFO_TAPE_INTS,
    INFO_WEAK,
    SOLVED,
)
from .._jit import device_function

HEAD_SHARED = 1
"""End of the first block's arrays in ``shared``; bound anew for each pair."""


@device_function
def inner_project(x, data, shared, active_tol, y, code, dual, info, margin, work, iwork):
    """Stand for the projection of the set inside; replaced when a template is specialised."""
    return SOLVED


@device_function
def inner_hs(g, y, code, tape_f, tape_i, data, shared, mask, out, work, iwork):
    """Stand for the HS product of the set inside."""


@device_function
def tail_project(x, data, shared, active_tol, y, code, dual, info, margin, work, iwork):
    """Stand for the projection of what follows the first block of a product."""
    return SOLVED


@device_function
def tail_hs(g, y, code, tape_f, tape_i, data, shared, mask, out, work, iwork):
    """Stand for the HS product of what follows the first block of a product."""


# -- images: y in factor * C, y in C + offset -----------------------------------------------------


def scaled_project(x, data, shared, active_tol, y, code, dual, info, margin, work, iwork):
    """y = f P(x / f), data = [inner data, f]; scratch after the inner one: work[-n:]."""
    n = x.shape[0]
    last = data.shape[0] - 1
    own = work.shape[0] - n
    factor = data[last]
    z = work[own:]
    for j in range(n):
        z[j] = x[j] / factor
    status = inner_project(
        z, data[:last], shared, active_tol, y, code, dual, info, margin, work[:own], iwork
    )
    for j in range(n):
        # An entry left alone is returned bit for bit.
        y[j] = x[j] if y[j] == z[j] else factor * y[j]
    for i in range(dual.shape[0]):
        dual[i] *= factor
    return status


def scaled_hs(g, y, code, tape_f, tape_i, data, shared, mask, out, work, iwork):
    """out = V g of the set inside at y / f."""
    n = g.shape[0]
    last = data.shape[0] - 1
    own = work.shape[0] - n
    z = work[own:]
    for j in range(n):
        z[j] = y[j] / data[last]
    inner_hs(g, z, code, tape_f, tape_i, data[:last], shared, mask, out, work[:own], iwork)


def shifted_project(x, data, shared, active_tol, y, code, dual, info, margin, work, iwork):
    """y = P(x - c) + c, data = [inner data, c]; scratch after the inner one: work[-n:]."""
    n = x.shape[0]
    first = data.shape[0] - n
    own = work.shape[0] - n
    z = work[own:]
    for j in range(n):
        z[j] = x[j] - data[first + j]
    status = inner_project(
        z, data[:first], shared, active_tol, y, code, dual, info, margin, work[:own], iwork
    )
    for j in range(n):
        y[j] = x[j] if y[j] == z[j] else y[j] + data[first + j]
    return status


def shifted_hs(g, y, code, tape_f, tape_i, data, shared, mask, out, work, iwork):
    """out = V g of the set inside at y - c."""
    n = g.shape[0]
    first = data.shape[0] - n
    own = work.shape[0] - n
    z = work[own:]
    for j in range(n):
        z[j] = y[j] - data[first + j]
    inner_hs(g, z, code, tape_f, tape_i, data[:first], shared, mask, out, work[:own], iwork)


# -- products -------------------------------------------------------------------------------------
# The tape of a product is [floats and ints of each block: two numbers a block | the blocks' ints]
# and the blocks' floats one after another; empty when no block has one. Behind it lie a block's
# info and margin, then the scratch that blocks take turns in.


@device_function
def clear_block(info, margin, iwork):
    """Prepare the record of one block: no steps, no margin, no previous working set."""
    for k in range(INFO_SIZE):
        info[k] = 0
    margin[0] = np.inf
    margin[1] = np.inf
    iwork[0] = 0


@device_function
def add_block(total, totals, info, margin):
    """Add one block's info and margin to those of the product."""
    total[INFO_STEPS] += info[INFO_STEPS]
    total[INFO_RANK_ACTIVE] += info[INFO_RANK_ACTIVE]
    total[INFO_RANK_WORKING] += info[INFO_RANK_WORKING]
    total[INFO_RANK_SUPPORT] += info[INFO_RANK_SUPPORT]
    total[INFO_WEAK] += info[INFO_WEAK]
    totals[0] = min(totals[0], margin[0])
    totals[1] = min(totals[1], margin[1])


@device_function
def keep_tape(info, at_f, at_i, from_f, from_i, work, iwork):
    """Move one block's tape from the scratch into the product's."""
    for k in range(info[INFO_TAPE_FLOATS]):
        work[at_f + k] = work[from_f + k]
    for k in range(info[INFO_TAPE_INTS]):
        iwork[at_i + k] = iwork[from_i + k]


def power_project(x, data, shared, active_tol, y, code, dual, info, margin, work, iwork):
    """Project equal blocks one after another; shared = (layout, arrays of the block)."""
    layout = shared[0]
    count = layout[0]
    n = layout[1]
    p = layout[2]
    q = layout[3]
    d = layout[4]
    floats = count * layout[5]
    ints = 2 * count + count * layout[6] if layout[5] + layout[6] > 0 else 0
    at_f = 0
    at_i = 2 * count
    margin[0] = np.inf
    margin[1] = np.inf
    for b in range(count):
        clear_block(iwork[ints : ints + INFO_SIZE], work[floats:], iwork[ints + INFO_SIZE :])
        status = inner_project(
            x[b * n : (b + 1) * n], data[b * p : (b + 1) * p], shared[1:], active_tol,
            y[b * n : (b + 1) * n], code[b * q : (b + 1) * q], dual[b * d : (b + 1) * d],
            iwork[ints : ints + INFO_SIZE], work[floats : floats + 2], work[floats + 2 :],
            iwork[ints + INFO_SIZE :],
        )  # fmt: skip
        if status != SOLVED:
            return status
        add_block(info, margin, iwork[ints:], work[floats:])
        if ints > 0:
            iwork[2 * b] = iwork[ints + INFO_TAPE_FLOATS]
            iwork[2 * b + 1] = iwork[ints + INFO_TAPE_INTS]
            keep_tape(iwork[ints:], at_f, at_i, floats + 2, ints + INFO_SIZE, work, iwork)
            at_f += iwork[2 * b]
            at_i += iwork[2 * b + 1]
    if ints > 0:
        info[INFO_TAPE_FLOATS] = at_f
        info[INFO_TAPE_INTS] = at_i
    return SOLVED


def power_hs(g, y, code, tape_f, tape_i, data, shared, mask, out, work, iwork):
    """Apply the V of each of the equal blocks."""
    layout = shared[0]
    count = layout[0]
    n = layout[1]
    p = layout[2]
    q = layout[3]
    taped = layout[5] + layout[6] > 0
    at_f = 0
    at_i = 2 * count if taped else 0
    for b in range(count):
        end_f = at_f + tape_i[2 * b] if taped else 0
        end_i = at_i + tape_i[2 * b + 1] if taped else 0
        inner_hs(
            g[b * n : (b + 1) * n], y[b * n : (b + 1) * n], code[b * q : (b + 1) * q],
            tape_f[at_f:end_f], tape_i[at_i:end_i], data[b * p : (b + 1) * p], shared[1:], mask,
            out[b * n : (b + 1) * n], work, iwork,
        )  # fmt: skip
        at_f = end_f
        at_i = end_i


def pair_project(x, data, shared, active_tol, y, code, dual, info, margin, work, iwork):
    """Project a first block, then the rest; shared = (layout, arrays of one, of the other)."""
    layout = shared[0]
    n = layout[1]
    p = layout[2]
    q = layout[3]
    d = layout[4]
    floats = layout[5]
    ints = layout[6]
    clear_block(iwork[ints : ints + INFO_SIZE], work[floats:], iwork[ints + INFO_SIZE :])
    status = inner_project(
        x[:n], data[:p], shared[1:HEAD_SHARED], active_tol, y[:n], code[:q], dual[:d],
        iwork[ints : ints + INFO_SIZE], work[floats : floats + 2], work[floats + 2 :],
        iwork[ints + INFO_SIZE :],
    )  # fmt: skip
    if status != SOLVED:
        return status
    margin[0] = np.inf
    margin[1] = np.inf
    add_block(info, margin, iwork[ints:], work[floats:])
    at_f = 0
    at_i = 4
    if ints > 0:
        iwork[0] = iwork[ints + INFO_TAPE_FLOATS]
        iwork[1] = iwork[ints + INFO_TAPE_INTS]
        keep_tape(iwork[ints:], at_f, at_i, floats + 2, ints + INFO_SIZE, work, iwork)
        at_f += iwork[0]
        at_i += iwork[1]
    clear_block(iwork[ints : ints + INFO_SIZE], work[floats:], iwork[ints + INFO_SIZE :])
    status = tail_project(
        x[n:], data[p:], shared[HEAD_SHARED:], active_tol, y[n:], code[q:], dual[d:],
        iwork[ints : ints + INFO_SIZE], work[floats : floats + 2], work[floats + 2 :],
        iwork[ints + INFO_SIZE :],
    )  # fmt: skip
    if status != SOLVED:
        return status
    add_block(info, margin, iwork[ints:], work[floats:])
    if ints > 0:
        iwork[2] = iwork[ints + INFO_TAPE_FLOATS]
        iwork[3] = iwork[ints + INFO_TAPE_INTS]
        keep_tape(iwork[ints:], at_f, at_i, floats + 2, ints + INFO_SIZE, work, iwork)
        info[INFO_TAPE_FLOATS] = at_f + iwork[2]
        info[INFO_TAPE_INTS] = at_i + iwork[3]
    return SOLVED


def pair_hs(g, y, code, tape_f, tape_i, data, shared, mask, out, work, iwork):
    """Apply the V of a first block, then that of the rest."""
    layout = shared[0]
    n = layout[1]
    p = layout[2]
    q = layout[3]
    first_f = 0
    begin_i = 0
    first_i = 0
    if layout[6] > 0:
        first_f = tape_i[0]
        begin_i = 4
        first_i = 4 + tape_i[1]
    inner_hs(
        g[:n], y[:n], code[:q], tape_f[:first_f], tape_i[begin_i:first_i], data[:p],
        shared[1:HEAD_SHARED], mask, out[:n], work, iwork,
    )  # fmt: skip
    tail_hs(
        g[n:], y[n:], code[q:], tape_f[first_f:], tape_i[first_i:], data[p:],
        shared[HEAD_SHARED:], mask, out[n:], work, iwork,
    )  # fmt: skip
