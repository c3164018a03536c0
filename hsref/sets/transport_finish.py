r"""The finite end of projection onto transport-like sets: an active set on the dual.

State: potentials (U, V), the free entries E (compressed rows) and the kept inequalities K. Entries
outside E are at zero with multiplier z = U + V - a >= 0, rows outside K have multiplier zero.

*Inner*: maximise the dual over the potentials for fixed E and K, one Laplacian solve. A component
of the graph whose marginals do not balance has no maximum: it moves as a whole, along a direction
of zero curvature. Either way the first multiplier to reach zero stops the move: its entry joins E,
its row leaves K. *Outer*: at a maximum, all entries of E that came out negative leave it together;
when there are none, the worst violated row joins K; when there is none either, this is the
projection.

It ends. Inner moves only enlarge E and shrink K; each outer exchange lowers the objective
strictly, so that no pair (E, K) recurs. In floating point this rests on two tolerances: an entry
leaves E when it is negative by more than the rounding of the marginals, and joins it when its
multiplier is negative by more than the rounding of the entries of a.

At the end y is corrected twice within E by the factor at hand, which meets the marginals to their
last bits however large a is.
"""

from __future__ import annotations

from .._codes import MAX_STEPS, PRIMAL_INFEASIBLE, SOLVED
from .._jit import device_function
from .transport_dual import mark_kept, residuals
from .transport_laplacian import BALANCED, TOTALLED, factor_rank, factorise, laplacian_solve

EPS = 2.220446049250313e-16
REFINEMENTS = 2


@device_function
def free_sums(problem, dual, graph, value):
    """Row and column sums of the free entries `value`; writes sum_r, sum_c."""
    sum_r = dual.sum_r
    sum_c = dual.sum_c
    ptr = graph.ptr
    idx = graph.idx
    for j in range(problem.n):
        sum_c[j] = 0.0
    for i in range(problem.m):
        whole = 0.0
        for p in range(ptr[i], ptr[i + 1]):
            whole += value[p]
            sum_c[idx[p]] += value[p]
        sum_r[i] = whole


@device_function
def free_values(problem, dual, graph, value):
    """value = a - U - V on the free entries."""
    ptr = graph.ptr
    idx = graph.idx
    n = problem.n
    for i in range(problem.m):
        row = problem.a[i * n : (i + 1) * n]
        own = dual.pu[i]
        for p in range(ptr[i], ptr[i + 1]):
            value[p] = row[idx[p]] - dual.pv[idx[p]] - own


@device_function
def refine(problem, dual, graph, factor, value):
    """Correct `value` within the free entries until the marginals of K are met; uses du, dv."""
    ptr = graph.ptr
    idx = graph.idx
    du = dual.du
    dv = dual.dv
    for _ in range(REFINEMENTS):
        free_sums(problem, dual, graph, value)
        residuals(problem, dual, graph)
        laplacian_solve(graph, factor, dual.rest_r, dual.rest_c, 1.0, 0.0, 0.0, du, dv)
        for i in range(problem.m):
            own = du[i]
            for p in range(ptr[i], ptr[i + 1]):
                value[p] -= own + dv[idx[p]]


@device_function
def blocking_step(problem, dual, graph, limit, slip):
    """Largest step <= limit that keeps z >= -slip outside E and multipliers of K >= 0."""
    kind, m, n, a, r, c, total, size, goal = problem
    pu, pv, du, dv, sum_r, sum_c, rest_r, rest_c, fix_r, fix_c = dual
    ptr = graph.ptr
    idx = graph.idx
    step = limit
    if kind != BALANCED:
        for i in range(m):
            move = du[i] - du[m]
            held = pu[i] - pu[m]
            if graph.keep_r[i] != 0 and held + step * move < 0.0:
                step = held / -move
        for j in range(n):
            move = dv[j] - dv[n]
            held = pv[j] - pv[n]
            if graph.keep_c[j] != 0 and held + step * move < 0.0:
                step = held / -move
    for i in range(m):
        row = a[i * n : (i + 1) * n]
        p = ptr[i]
        for j in range(n):
            if p < ptr[i + 1] and idx[p] == j:
                p += 1
                continue
            move = du[i] + dv[j]
            if move < 0.0:
                held = max(pu[i] + pv[j] - row[j], 0.0)
                if held + step * move < -slip:
                    step = held / -move
    return step


@device_function
def absorb_blocked(problem, dual, graph, slip):
    """After a blocked move: entries whose multiplier has reached zero join E, such rows leave K.

    Returns the number of changes. The compressed rows are rebuilt from the end, in place.
    """
    kind, m, n, a, r, c, total, size, goal = problem
    pu, pv, du, dv, sum_r, sum_c, rest_r, rest_c, fix_r, fix_c = dual
    ptr = graph.ptr
    idx = graph.idx
    changes = 0
    if kind != BALANCED:
        for i in range(m):
            if graph.keep_r[i] != 0 and du[i] < du[m] and pu[i] - pu[m] <= slip:
                graph.keep_r[i] = 0
                pu[i] = pu[m]
                changes += 1
        for j in range(n):
            if graph.keep_c[j] != 0 and dv[j] < dv[n] and pv[j] - pv[n] <= slip:
                graph.keep_c[j] = 0
                pv[j] = pv[n]
                changes += 1
    joining = 0
    for i in range(m):
        row = a[i * n : (i + 1) * n]
        p = ptr[i]
        for j in range(n):
            if p < ptr[i + 1] and idx[p] == j:
                p += 1
            elif du[i] + dv[j] < 0.0 and pu[i] + pv[j] - row[j] <= slip:
                joining += 1
    changes += joining
    end = ptr[m]
    ptr[m] = end + joining
    for i in range(m - 1, -1, -1):
        if joining == 0:
            break
        row = a[i * n : (i + 1) * n]
        p = end - 1
        end = ptr[i]
        for j in range(n - 1, -1, -1):
            if p >= end and idx[p] == j:
                idx[p + joining] = j
                p -= 1
            elif du[i] + dv[j] < 0.0 and pu[i] + pv[j] - row[j] <= slip:
                idx[p + joining] = j
                joining -= 1
        ptr[i] = end + joining
    return changes


@device_function
def release_negative(problem, graph, value, least):
    """Drop the free entries below -least; returns how many."""
    ptr = graph.ptr
    idx = graph.idx
    k = 0
    begin = 0
    for i in range(problem.m):
        end = ptr[i + 1]
        for p in range(begin, end):
            if value[p] >= -least:
                idx[k] = idx[p]
                value[k] = value[p]
                k += 1
        begin = end
        ptr[i + 1] = k
    return begin - k


@device_function
def keep_worst(problem, dual, graph, slack_tol):
    """Put the row or column outside K that sum_r, sum_c violate most into K; returns 1 if any."""
    kind, m, n, a, r, c, total, size, goal = problem
    worst = slack_tol
    at = -1
    for i in range(m):
        if graph.keep_r[i] == 0 and dual.sum_r[i] - r[i] > worst:
            worst = dual.sum_r[i] - r[i]
            at = i
    for j in range(n):
        if graph.keep_c[j] == 0 and dual.sum_c[j] - c[j] > worst:
            worst = dual.sum_c[j] - c[j]
            at = m + j
    if at < 0:
        return 0
    if at < m:
        graph.keep_r[at] = 1
    else:
        graph.keep_c[at - m] = 1
    return 1


@device_function
def kept_nodes(graph):
    """Number of nodes of the contracted graph, and how many zero pivots it has if connected."""
    kind, m, n, ptr, idx, keep_r, keep_c = graph
    if kind == BALANCED:
        return m + n, 1
    count = 0
    for i in range(m):
        count += keep_r[i]
    for j in range(n):
        count += keep_c[j]
    if kind == TOTALLED:
        return count + 2, 1
    return count, 0


@device_function
def finish(problem, dual, graph, factor, mark, value, fresh, rounding):
    """Run the active set to its end; returns (status, steps, rank, joined).

    Writes E (graph.ptr, graph.idx), y on it (value), K, the potentials; `rank` is that of the kept
    rows restricted to E, `joined` tells whether E connects the graph. `fresh` tells that
    factor belongs to the support and K at hand; `rounding` is the size of a rounding error of an
    entry of a - U - V.
    """
    kind, m, n, a, r, c, total, size, goal = problem
    pu, pv, du, dv, sum_r, sum_c, rest_r, rest_c, fix_r, fix_c = dual
    current = fresh * mark_kept(problem, dual, graph)
    mass = total
    for i in range(m):
        mass += r[i]
    slip = 16.0 * rounding
    least = 64.0 * EPS * goal
    most = 1000 + 200 * (m + n)
    for steps in range(most):
        if current == 0 or steps > 0:
            factorise(graph, factor, mark)
        rank = factor_rank(graph, factor)
        nodes, whole = kept_nodes(graph)
        limit = 1.0
        if nodes - rank > whole:
            # The imbalance of a component is a sum of marginals: taken from them alone, it is
            # free of the rounding of a. y = 0 has the sums 0.
            for i in range(m):
                sum_r[i] = 0.0
            for j in range(n):
                sum_c[j] = 0.0
            residuals(problem, dual, graph)
            off = laplacian_solve(
                graph, factor, rest_r, rest_c, 0.0, 1.0, 256.0 * EPS * mass, du, dv
            )
            if off > 256.0 * EPS * mass:
                limit = 1e300
        if limit == 1.0:
            free_values(problem, dual, graph, value)
            free_sums(problem, dual, graph, value)
            residuals(problem, dual, graph)
            laplacian_solve(graph, factor, rest_r, rest_c, 1.0, 0.0, 0.0, du, dv)
        step = blocking_step(problem, dual, graph, limit, slip)
        if step >= 1e300:
            return PRIMAL_INFEASIBLE, steps, rank, 0
        for i in range(m + 1):
            pu[i] += step * du[i]
        for j in range(n + 1):
            pv[j] += step * dv[j]
        if step < limit:
            absorb_blocked(problem, dual, graph, slip)
            continue
        free_values(problem, dual, graph, value)
        refine(problem, dual, graph, factor, value)
        if release_negative(problem, graph, value, least) > 0:
            continue
        if kind != BALANCED:
            free_sums(problem, dual, graph, value)
            if keep_worst(problem, dual, graph, least) != 0:
                continue
        return SOLVED, steps, rank, 1 if nodes - rank == whole else 0
    return MAX_STEPS, most, 0, 0
