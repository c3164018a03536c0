"""Per-point projection onto transport-like sets, put together from its parts.

Generic in the kind of set (:mod:`.transport_laplacian`); the sets bind the kind and the marginals.
The side with more nodes plays the rows: a wide matrix is transposed on the way in and out.
"""

from __future__ import annotations

import numpy as np

from .._codes import INFO_METHOD, INFO_STEPS, PRIMAL_INFEASIBLE, SINGULAR, SOLVED
from .._jit import device_function
from .transport_certify import certify
from .transport_dual import (
    NEWTON_STEPS,
    Dual,
    Problem,
    newton,
    sweep_columns,
    sweep_rows,
    sweep_total,
)
from .transport_finish import EPS, finish
from .transport_laplacian import (
    BALANCED,
    GROUNDED,
    TOTALLED,
    Factor,
    Graph,
)

SWEEPS = 8
FAR_SPREAD = 16.0
START_SPREAD = 8.0
STAGE_FACTOR = 8.0
STAGE_STEPS = 12
LEAST_SCALE = 1e-18
FAR_SIZE = 2.0**250
BALANCE_TOL = 1e-12
BALANCE_TOL_32 = 1e-6
METHODS = ("dual sweeps, Newton, finite active set",)


def work_sizes(rows: int, cols: int) -> tuple[int, int]:
    """Return the float and int scratch of :func:`solve_point`."""
    m, n = max(rows, cols), min(rows, cols)
    return 2 * m * n + 8 * (m + 1) + 10 * (n + 1) + (n + 1) ** 2, m * n + 5 * (m + n + 2)


def layout(kind: int, rows: int, cols: int, r_at: int, c_at: int, total_at: int) -> np.ndarray:
    """Return the integers that tell :func:`solve_point` which set to project onto.

    ``r_at``, ``c_at`` and ``total_at`` are offsets into a sample's data; -1 stands for marginals of
    ones, and for no total.
    """
    return np.array([kind, rows, cols, r_at, c_at, total_at], np.int64)


@device_function
def load(x, flip, m, n, lift, a):
    """Copy the matrix x, times `lift`, into a, transposed if `flip`."""
    if flip:
        for i in range(m):
            row = a[i * n : (i + 1) * n]
            for j in range(n):
                row[j] = lift * x[j * m + i]
    else:
        for i in range(m * n):
            a[i] = lift * x[i]


@device_function
def solve_point(x, data, shared, active_tol, y, code, dual_out, info, margin, work, iwork):
    """y = argmin |y - x| over the set that shared[0] lays out; writes the record."""
    form = shared[0]
    kind = form[0]
    rows = form[1]
    cols = form[2]
    r_at = form[3]
    c_at = form[4]
    total = data[form[5]] if form[5] >= 0 else 0.0
    flip = rows < cols
    m = cols if flip else rows
    n = rows if flip else cols
    k = m * n
    a = work[0:k]
    value = work[k : 2 * k]
    k *= 2
    pu = work[k : k + m + 1]
    k += m + 1
    pv = work[k : k + n + 1]
    k += n + 1
    du = work[k : k + m + 1]
    k += m + 1
    dv = work[k : k + n + 1]
    k += n + 1
    sum_r = work[k : k + m + 1]
    k += m + 1
    sum_c = work[k : k + n + 1]
    k += n + 1
    rest_r = work[k : k + m + 1]
    k += m + 1
    rest_c = work[k : k + n + 1]
    k += n + 1
    move = work[k : k + m + n + 2]
    fix_r = work[k : k + m + 1]
    k += m + 1
    fix_c = work[k : k + n + 1]
    k += n + 1
    deg_r = work[k : k + m + 1]
    k += m + 1
    deg_c = work[k : k + n + 1]
    k += n + 1
    goal_r = work[k : k + m + 1]
    k += m + 1
    goal_c = work[k : k + n + 1]
    k += n + 1
    weight = work[k : k + n + 1]
    k += n + 1
    mark = work[k : k + n + 1]
    k += n + 1
    s = work[k : k + (n + 1) * (n + 1)]
    idx = iwork[0 : m * n]
    k = m * n
    ptr = iwork[k : k + m + 1]
    k += m + 1
    keep_r = iwork[k : k + m + 1]
    k += m + 1
    keep_c = iwork[k : k + n + 1]
    k += n + 1
    label = iwork[k : k + m + n + 2]
    k += m + n + 2
    done = iwork[k : k + m + n + 2]
    k += m + n + 2
    via = iwork[k : k + m + n + 2]

    # Data in the solver's orientation.
    size = 0.0
    for i in range(m * n):
        size = max(size, abs(x[i]))
    goal = 0.0
    for i in range(m):
        goal_r[i] = 1.0
        if r_at >= 0:
            goal_r[i] = data[c_at + i] if flip else data[r_at + i]
        if not goal_r[i] >= 0.0:
            return PRIMAL_INFEASIBLE
        goal = max(goal, goal_r[i])
        pu[i] = 0.0
        ptr[i] = -1
    for j in range(n):
        goal_c[j] = 1.0
        if r_at >= 0:
            goal_c[j] = data[r_at + j] if flip else data[c_at + j]
        if not goal_c[j] >= 0.0:
            return PRIMAL_INFEASIBLE
        goal = max(goal, goal_c[j])
        pv[j] = 0.0
        mark[j] = 0.0
    pu[m] = 0.0
    pv[n] = 0.0
    if kind == TOTALLED and total > 0.0:
        goal = min(goal, total)

    # Products of tiny or huge data would leave the range of numbers (and so would the tolerances
    # relative to subnormal data): solve a copy of another size. A power of 2 rounds nothing on the
    # way in, and on the way out only what is subnormal.
    lift = 1.0
    while 0.0 < lift * max(size, goal) < 1.0 / FAR_SIZE:
        lift *= FAR_SIZE
    while lift * max(size, goal) > FAR_SIZE:
        lift /= FAR_SIZE
    size *= lift
    goal *= lift
    total *= lift
    load(x, flip, m, n, lift, a)
    mass_r = 0.0
    mass_c = 0.0
    for i in range(m):
        goal_r[i] *= lift
        mass_r += goal_r[i]
    for j in range(n):
        goal_c[j] *= lift
        mass_c += goal_c[j]
    mass = total
    # Sums that a caller rounded to float32 agree no better than that.
    loose = BALANCE_TOL if active_tol < 1e-7 else BALANCE_TOL_32
    loose += EPS * (m + n)
    if kind == BALANCED:
        if not abs(mass_r - mass_c) <= loose * max(mass_r, mass_c):
            return PRIMAL_INFEASIBLE
        if mass_r != mass_c:
            # Balance what counts as balanced, so that no component is left with a remainder.
            for j in range(n):
                goal_c[j] *= mass_r / mass_c
    elif kind == TOTALLED:
        room = min(mass_r, mass_c)
        if not (total >= 0.0 and total <= room * (1.0 + loose)):
            return PRIMAL_INFEASIBLE
        mass = min(total, room)

    problem = Problem(kind, m, n, a, goal_r, goal_c, mass, size, goal)
    dual = Dual(pu, pv, du, dv, sum_r, sum_c, rest_r, rest_c, fix_r, fix_c)
    graph = Graph(kind, m, n, ptr, idx, keep_r, keep_c)
    factor = Factor(deg_r, deg_c, weight, s)
    for i in range(m + 1):
        keep_r[i] = 0
    for j in range(n + 1):
        keep_c[j] = 0
    # Entries far larger than the marginals make the dual nearly an assignment problem, whose
    # corners Newton's method meets one by one: approach it through smaller multiples of a.
    scale = 1.0
    if goal > 0.0 and size > FAR_SPREAD * goal:
        scale = max(START_SPREAD * goal / size, LEAST_SCALE)
    newton_steps = 0
    fresh = -1
    while True:
        if scale < 1.0:
            for i in range(m * n):
                a[i] *= scale
        if fresh < 0:
            if kind == TOTALLED:
                for _ in range(3):
                    sweep_total(problem, dual)
            for _ in range(SWEEPS):
                sweep_rows(problem, dual)
                sweep_columns(problem, dual)
                if kind == TOTALLED:
                    sweep_total(problem, dual)
        most = STAGE_STEPS if scale < 1.0 else NEWTON_STEPS
        steps, fresh = newton(problem, dual, graph, factor, mark, most)
        newton_steps += steps
        if scale == 1.0:
            break
        ahead = min(1.0, scale * STAGE_FACTOR)
        for i in range(m + 1):
            pu[i] *= ahead / scale
        for j in range(n + 1):
            pv[j] *= ahead / scale
        scale = ahead
        load(x, flip, m, n, lift, a)
    reach = size
    for i in range(m + 1):
        reach = max(reach, abs(pu[i]))
    for j in range(n + 1):
        reach = max(reach, abs(pv[j]))
    status, steps, rank, joined = finish(
        problem, dual, graph, factor, mark, value, fresh, EPS * reach
    )
    info[INFO_STEPS] = newton_steps + steps
    info[INFO_METHOD] = 0
    if status == PRIMAL_INFEASIBLE:
        # Whether the set is empty was settled above, from the sums alone: a direction without end
        # can only be rounding.
        status = SINGULAR
    if status != SOLVED:
        return status
    peak = 0.0
    for k in range(ptr[m]):
        peak = max(peak, value[k])
    # Limits that nothing comes near say nothing about the size of an entry.
    weight_y = min(goal, m * peak) if kind == GROUNDED else goal
    floor = 64.0 * EPS * weight_y
    # On a cycle of free entries y carries the rounding of a: no slack below that is told from 0.
    noise = floor + min(32.0 * EPS * reach, 1e-6 * weight_y)
    certify(
        problem, dual, graph, value, rank, joined, flip, active_tol * peak + noise,
        active_tol * goal + noise, floor, 256.0 * EPS * reach, y, code, dual_out, info, margin,
        move, label, done, via,
    )  # fmt: skip
    if lift != 1.0:
        for k in range(m * n):
            y[k] /= lift
        for k in range(dual_out.shape[0]):
            dual_out[k] /= lift
    unit = max(goal, size)
    unit = 1.0 / unit if unit > 0.0 else 1.0
    margin[0] *= unit
    margin[1] *= unit
    return SOLVED
