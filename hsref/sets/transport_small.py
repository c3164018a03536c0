r"""Doubly stochastic matrices of a few rows: the same algorithm with every loop unrolled.

For n <= 8 the general code spends its time on overhead. Here the side is a compile-time constant
(``SIDE`` is bound to n by :func:`hsref._jit.specialise`), so that the compiler unrolls and
vectorises; supports are rows of bits. The projection is an attempt: sweeps, then Newton steps on
the support until it repeats. It keeps the result only if that is beyond doubt - every free entry
and every multiplier well away from zero - and leaves everything else to the general routine.
Nothing depends on the attempt but the time. A GPU keeps it in registers and gathers what it leaves
(:mod:`hsref._cuda.registers`).

Supports are random bits: a branch on one is mispredicted half of the time, at the price of a dozen
additions. Comparisons are therefore multiplied with, not branched on.
"""

from __future__ import annotations

import functools
import math
from dataclasses import replace

from .._batch import Kernel, Unrolled
from .._codes import (
    ACTIVE_LOWER,
    ACTIVE_UPPER,
    INFO_METHOD,
    INFO_RANK_ACTIVE,
    INFO_RANK_SUPPORT,
    INFO_RANK_WORKING,
    INFO_SKIP_RECORD,
    INFO_STEPS,
    INFO_WEAK,
    SOLVED,
    SUPPORT_LOWER,
    SUPPORT_UPPER,
    UNSETTLED,
    WORKING_LOWER,
    WORKING_UPPER,
)
from .._jit import DeviceFunction, device_function, specialise
from .transport_finish import EPS
from .transport_small_hs import small_hs
from .transport_solve import solve_point

SIDE = 4
SWEEPS = 4
ATTEMPTS = 6
ZERO = 1e-14
FAR = 1e9
"""Beyond any entry or multiplier in reach; added instead of branched to."""
PLAIN = 4.0
REACH = 256.0
"""Larger entries go to the general routine at once."""
SMALL_SIDES = range(4, 9)
"""Sides that are unrolled; below, there is little to gain, above, the code grows too long."""

_EQ = ACTIVE_UPPER | WORKING_UPPER | SUPPORT_UPPER
_BINDING = ACTIVE_LOWER | WORKING_LOWER | SUPPORT_LOWER


def small_work_size(n: int) -> int:
    """Return the float scratch of both routines."""
    return 5 * n * n + 12 * n


@device_function
def small_connect(work, mask, u, v, far, iwork, code, slip, n):
    """Join the components of the support by a shortest-path tree, as transport_certify does.

    Moves the potentials, takes the tree's entries out of the working set and entries without
    multiplier out of the support. Returns (components, weak entries, smallest multiplier). iwork
    receives the supports of the rows as bits, and where each column was reached from.
    """
    for i in range(n):
        bits = 0
        for j in range(n):
            bits |= int(work[mask + i * n + j]) << j
        iwork[i] = bits
        iwork[n + i] = 0
        work[far + i] = math.inf
    every = (1 << n) - 1
    done = 0
    parts = 1
    distance = 0.0
    here = iwork[0]
    while True:
        # The columns and rows of the component that holds the columns `here`.
        grown = 0
        while grown != here:
            grown = here
            for i in range(n):
                if iwork[i] & here:
                    here |= iwork[i]
        done |= here
        for i in range(n):
            if iwork[i] & here == 0:
                continue
            for j in range(n):
                reach = distance + work[u + i] + work[v + j] - work[i * n + j]
                if (done >> j) & 1 == 0 and reach < work[far + j]:
                    work[far + j] = reach
                    iwork[n + j] = i
            # Nothing reads this row's potential again.
            work[u + i] += distance
        for j in range(n):
            if (here >> j) & 1:
                work[v + j] -= distance
        if done == every:
            break
        nearest = -1
        for j in range(n):
            if (done >> j) & 1 == 0 and (nearest < 0 or work[far + j] < work[far + nearest]):
                nearest = j
        distance = work[far + nearest]
        here = 1 << nearest
        code[2 * n + iwork[n + nearest] * n + nearest] = ACTIVE_LOWER
        parts += 1
    weak = 0
    push = math.inf
    for i in range(n):
        for j in range(n):
            k = i * n + j
            if code[2 * n + k] == ACTIVE_LOWER:
                weak += 1
            elif work[mask + k] == 0.0:
                z = work[u + i] + work[v + j] - work[k]
                if z > slip:
                    push = min(push, z)
                else:
                    weak += 1
                    code[2 * n + k] = ACTIVE_LOWER | WORKING_LOWER
    return parts, weak, push


@device_function
def connect(work, data, mask, u, v, far, iwork, code, slip, n):
    """Connect the support where its scratch is in memory."""
    return small_connect(work, mask, u, v, far, iwork, code, slip, n)


@device_function
def connect_apart(work, data, mask, u, v, far, iwork, code, slip, n):
    """Connect the support in `data`, because `work` is registers."""
    for k in range(n * n):
        data[k] = work[k]
        data[mask + k] = work[mask + k]
    for i in range(n):
        data[u + i] = work[u + i]
        data[v + i] = work[v + i]
    found = small_connect(data, mask, u, v, far, iwork, code, slip, n)
    for i in range(n):
        work[u + i] = data[u + i]
        work[v + i] = data[v + i]
    return found


@device_function
def leave(x, data, shared, active_tol, y, code, dual, info, margin, work, iwork):
    """Stand for the general routine in an attempt."""
    return UNSETTLED


def small_project(x, data, shared, active_tol, y, code, dual, info, margin, work, iwork):
    """y = projection of x onto the doubly stochastic SIDE x SIDE matrices.

    All places of `work` that are used here are known to the compiler, so that it can be registers.
    These sets have no data: an attempt in registers is handed scratch in memory in its place.
    """
    n = SIDE
    nn = n * n
    across = nn
    mask = 2 * nn
    s = 3 * nn
    value = 4 * nn
    u = 5 * nn
    v = u + n
    far = v + n
    rest_r = far + n
    rest_c = rest_r + n
    deg_r = rest_c + n
    du = deg_r + n
    dv = du + n
    size = 0.0
    for i in range(n):
        for j in range(n):
            work[i * n + j] = x[i * n + j]
            work[across + j * n + i] = x[i * n + j]
            size = max(size, abs(x[i * n + j]))
    if size > REACH:
        return solve_point(x, data, shared, active_tol, y, code, dual, info, margin, work, iwork)
    # Full support: from its solution on, rows and columns lie on the left of their roots.
    for i in range(n):
        work[u + i] = -1.0
        work[v + i] = -1.0
    for j in range(n):
        for i in range(n):
            work[u + i] += work[across + j * n + i]
    for i in range(n):
        work[u + i] *= 1.0 / n
    for i in range(n):
        for j in range(n):
            work[v + j] += work[i * n + j] - work[u + i]
    for j in range(n):
        work[v + j] *= 1.0 / n
    # Beyond that the rounding of x shows in the marginals: they are met by a second solve.
    solves = 1 if size <= PLAIN else 2
    tiny = active_tol + 32.0 * EPS * (1.0 + size)
    slip = 256.0 * EPS * (1.0 + size)
    settled = False
    steps = 0
    least = 0.0
    push = 0.0
    free = 0.0
    known = 0.0
    parts = 0
    for trial in range(ATTEMPTS):
        for _ in range(SWEEPS):
            for i in range(n):
                above = -1.0
                count = 0.0
                for j in range(n):
                    t = work[across + j * n + i] - work[v + j] - work[u + i]
                    on = (t > 0.0) * 1.0
                    above += on * t
                    count += on
                work[u + i] += above / max(count, 1.0)
            for j in range(n):
                above = -1.0
                count = 0.0
                for i in range(n):
                    t = work[i * n + j] - work[u + i] - work[v + j]
                    on = (t > 0.0) * 1.0
                    above += on * t
                    count += on
                work[v + j] += above / max(count, 1.0)
        # Support, its sums and degrees at the current potentials.
        for j in range(n):
            work[rest_c + j] = -1.0
        for i in range(n):
            whole = 0.0
            degree = 0.0
            for j in range(n):
                t = work[i * n + j] - work[u + i] - work[v + j]
                on = (t > 0.0) * 1.0
                work[mask + i * n + j] = on
                t *= on
                whole += t
                degree += on
                work[rest_c + j] += t
            work[rest_r + i] = whole - 1.0
            work[deg_r + i] = 1.0 / max(degree, 1.0)
        # Schur complement on the columns; a column without pivot grounds its component.
        for j in range(n):
            for k in range(j + 1):
                work[s + j * n + k] = 0.0
        for i in range(n):
            inverse = work[deg_r + i]
            for j in range(n):
                on = work[mask + i * n + j]
                work[s + j * n + j] += on
                part = on * inverse
                for k in range(j + 1):
                    work[s + j * n + k] -= part * work[mask + i * n + k]
        parts = 0
        for j in range(n):
            pivot = work[s + j * n + j]
            for k in range(j):
                pivot -= work[s + j * n + k] * work[s + j * n + k]
            # 0 or at least 1/(number of nodes): see transport_laplacian.
            kept = pivot > 0.5 / (2 * n)
            inverse = 1.0 / math.sqrt(pivot) if kept else 0.0
            work[s + j * n + j] = inverse
            for i in range(j + 1, n):
                part = work[s + i * n + j]
                for k in range(j):
                    part -= work[s + i * n + k] * work[s + j * n + k]
                work[s + i * n + j] = part * inverse
            parts += 0 if kept else 1
        balanced = True
        for solve in range(solves):
            for j in range(n):
                work[dv + j] = work[rest_c + j]
            for i in range(n):
                share = work[rest_r + i] * work[deg_r + i]
                for j in range(n):
                    work[dv + j] -= work[mask + i * n + j] * share
            for j in range(n):
                part = work[dv + j]
                for k in range(j):
                    part -= work[s + j * n + k] * work[dv + k]
                work[dv + j] = part * work[s + j * n + j]
                # What a component has too much is a difference of numbers of rows and columns.
                balanced = balanced and (work[s + j * n + j] > 0.0 or abs(part) < 0.5)
            for back in range(n):
                j = n - 1 - back
                part = work[dv + j]
                for k in range(j + 1, n):
                    part -= work[s + k * n + j] * work[dv + k]
                work[dv + j] = part * work[s + j * n + j]
            for i in range(n):
                part = work[rest_r + i]
                for j in range(n):
                    part -= work[mask + i * n + j] * work[dv + j]
                work[du + i] = part * work[deg_r + i]
            if not balanced:
                break
            if solve == 0:
                push = math.inf
                for i in range(n):
                    work[u + i] += work[du + i]
                    work[v + i] += work[dv + i]
                    work[rest_c + i] = -1.0
                for i in range(n):
                    whole = 0.0
                    for j in range(n):
                        t = work[i * n + j] - work[u + i] - work[v + j]
                        on = work[mask + i * n + j]
                        push = min(push, on * FAR - t)
                        t *= on
                        work[value + i * n + j] = t
                        whole += t
                        work[rest_c + j] += t
                    work[rest_r + i] = whole - 1.0
            else:
                for i in range(n):
                    for j in range(n):
                        work[value + i * n + j] -= work[mask + i * n + j] * (
                            work[du + i] + work[dv + j]
                        )
        if not balanced:
            continue
        # The step solved the piece of this support: has it kept the support?
        steps = trial + 1
        least = math.inf
        free = 0.0
        known = 0.0
        for k in range(nn):
            on = work[mask + k]
            t = work[value + k]
            known += on
            # A free entry that comes out as zero is none: its row and column do without it.
            on *= (abs(t) > ZERO) * 1.0
            work[mask + k] = on
            work[value + k] = t * on
            free += on
            least = min(least, t + (1.0 - on) * FAR)
        if least > tiny and push >= -0.1 * slip:
            settled = True
            break
    if not settled:
        return solve_point(x, data, shared, active_tol, y, code, dual, info, margin, work, iwork)
    for k in range(nn):
        y[k] = work[value + k]
    if info[INFO_SKIP_RECORD] == 1:
        return SOLVED
    for k in range(nn):
        code[2 * n + k] = (1 - int(work[mask + k])) * _BINDING
    weak = 0
    supported = nn - int(free)
    if parts > 1 or free < known or push <= slip:
        parts, weak, push = connect(work, data, mask, u, v, far, iwork, code, slip, n)
        supported -= weak
    shift = work[v + n - 1]
    for i in range(n):
        dual[i] = work[u + i] + shift
        dual[n + i] = work[v + i] - shift
        code[i] = _EQ
        code[n + i] = _EQ
    code[2 * n - 1] = ACTIVE_UPPER
    rank = int(free) - 2 * n + parts
    info[INFO_STEPS] = steps
    info[INFO_METHOD] = 0
    info[INFO_WEAK] = weak
    info[INFO_RANK_ACTIVE] = rank
    info[INFO_RANK_WORKING] = rank
    info[INFO_RANK_SUPPORT] = nn - supported - 2 * n + 1
    unit = 1.0 / max(size, 1.0)
    margin[0] = least * unit
    margin[1] = push * unit if push < 0.5 * FAR else math.inf
    return SOLVED


@functools.cache
def small_routines(n: int) -> tuple[DeviceFunction, DeviceFunction, DeviceFunction]:
    """Return attempt (for targets with registers), projection, HS product unrolled for side n."""
    owner = f"birkhoff{n}"
    return (
        specialise(small_project, owner, SIDE=n, connect=connect_apart, solve_point=leave),
        specialise(small_project, owner, SIDE=n),
        specialise(small_hs, owner, SIDE=n),
    )


def small_kernel(kernel: Kernel, n: int) -> Kernel:
    """Return the kernel with its routines replaced by those unrolled for side n."""
    attempt, project, product = small_routines(n)
    least = small_work_size(n)
    unrolled = Unrolled(attempt, kernel.project_point, least, 2 * n * n + 3 * n, n)
    return replace(
        kernel, name=f"Birkhoff{n}", project_point=project, hs_point=product, unrolled=unrolled,
        work_size=max(kernel.work_size, least), hs_work_size=max(kernel.hs_work_size, least),
        cost=40.0 * n * n, hs_cost=15.0 * n * n,
    )  # fmt: skip
