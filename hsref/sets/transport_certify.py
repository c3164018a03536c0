r"""From the end of a transport solve to its record: y, codes, multipliers, ranks, margins.

Where the free entries connect the graph and nothing is weakly active, the zero entries and the
kept rows are independent, they are the active set, the working set and the support at once, and
there is nothing to decide.

Otherwise (a vertex, whose free entries form a forest of several trees; an entry at zero without
multiplier) an independent working set is constructed. Add to the graph the slacks of inequality
rows and columns as edges to two further nodes: the one that receives what rows leave over, and the
one that supplies what columns lack. In this graph every constraint is an equality of a node, every
bound (of an entry or a slack) belongs to an edge, and a set of bounds is independent exactly if
the other edges connect the graph. The components that the positive edges leave are joined by a
shortest-path tree: with z >= 0 the multipliers of the edges as lengths, moving each component by
its distance from the first keeps all multipliers non-negative and brings those of the tree to
zero. The tree's edges leave the working set, which is then independent and carries the new
multipliers: they are a vertex of the multiplier polyhedron.
"""

from __future__ import annotations

import math

from .._codes import (
    ACTIVE_LOWER,
    ACTIVE_UPPER,
    INFO_RANK_ACTIVE,
    INFO_RANK_SUPPORT,
    INFO_RANK_WORKING,
    INFO_WEAK,
    SUPPORT_LOWER,
    SUPPORT_UPPER,
    WORKING_LOWER,
    WORKING_UPPER,
)
from .._jit import device_function
from .transport_laplacian import BALANCED, GROUNDED, TOTALLED

FAR = math.inf


@device_function
def find_root(parent, node):
    """Representative of the component of `node`, halving the path on the way."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@device_function
def join(parent, one, two):
    """Merge two components under the smaller root; returns 1 if they were apart."""
    one = find_root(parent, one)
    two = find_root(parent, two)
    if one == two:
        return 0
    if one < two:
        parent[two] = one
    else:
        parent[one] = two
    return 1


@device_function
def label_components(problem, graph, value, slack_r, slack_c, tiny, near, parent):
    """Components joined by entries above tiny and slacks above near. Returns (edges, components).

    Nodes: rows, columns, then the receiver m+n of row slacks and the supplier m+n+1 of column
    slacks; the two coincide in grounded sets and do not exist in balanced ones.
    """
    kind = problem.kind
    m = problem.m
    n = problem.n
    nodes = m + n if kind == BALANCED else m + n + 2
    for k in range(m + n + 2):
        parent[k] = k
    edges = 0
    apart = nodes
    for i in range(m):
        for p in range(graph.ptr[i], graph.ptr[i + 1]):
            if value[p] > tiny:
                edges += 1
                apart -= join(parent, i, m + graph.idx[p])
    if kind != BALANCED:
        for i in range(m):
            if slack_r[i] > near:
                edges += 1
                apart -= join(parent, i, m + n)
        for j in range(n):
            if slack_c[j] > near:
                edges += 1
                apart -= join(parent, m + j, m + n + 1)
        if kind == GROUNDED:
            edges += 1
            apart -= join(parent, m + n, m + n + 1)
    for k in range(m + n + 2):
        parent[k] = find_root(parent, k)
    return edges, apart


@device_function
def relax_row(problem, dual, label, far, via, done, node, moved):
    """Offer every column-like node the path that ends with an edge from this row-like node."""
    kind, m, n, a, r, c, total, size, goal = problem
    pu = dual.pu
    pv = dual.pv
    if node < m:
        row = a[node * n : (node + 1) * n]
        own = pu[node]
        for j in range(n):
            offer = moved + max(own + pv[j] - row[j], 0.0)
            if offer < far[j] and done[label[m + j]] == 0:
                far[j] = offer
                via[j] = node
        if kind != BALANCED:
            offer = moved + max(own - pu[m], 0.0)
            if offer < far[n] and done[label[m + n]] == 0:
                far[n] = offer
                via[n] = node
    else:
        for j in range(n):
            offer = moved + max(pv[j] - pv[n], 0.0)
            if offer < far[j] and done[label[m + j]] == 0:
                far[j] = offer
                via[j] = node


@device_function
def connect(problem, dual, label, done, far, via, move):
    """Shortest-path tree over the components from the first row's; moves the potentials.

    `via` lists the tree: via[j] is the row-like node that reached column-like node j (n: the
    receiver), or -1; via[n+1+i] likewise for a row-like node i (m: the supplier) that no column
    shares a component with. Scratch: done, far (n+1), move (per node).
    """
    kind, m, n, a, r, c, total, size, goal = problem
    pu = dual.pu
    pv = dual.pv
    nodes = m + n + 2
    last = n if kind == BALANCED else n + 1
    for k in range(nodes):
        done[k] = 0
        move[k] = 0.0
    for j in range(n + 1):
        far[j] = FAR
        via[j] = -1
    for i in range(m + 1):
        via[n + 1 + i] = -1
    here = label[0]
    distance = 0.0
    while True:
        done[here] = 1
        move[here] = distance
        for i in range(m):
            if label[i] == here:
                relax_row(problem, dual, label, far, via, done, i, distance)
        if kind != BALANCED and label[m + n + 1] == here:
            relax_row(problem, dual, label, far, via, done, m + n + 1, distance)
        nearest = -1
        for j in range(last):
            if done[label[m + j]] == 0 and (nearest < 0 or far[j] < far[nearest]):
                nearest = j
        if nearest < 0:
            break
        here = label[m + nearest]
        distance = far[nearest]
        for j in range(last):
            # Only the edge that reached the component belongs to the tree.
            if label[m + j] == here and j != nearest:
                via[j] = -1
    # Row-like nodes alone in their component: no path leads to them, so that they may follow
    # until their first multiplier vanishes.
    for i in range(m):
        if done[label[i]] == 0:
            row = a[i * n : (i + 1) * n]
            for j in range(n):
                reach = move[label[m + j]] - max(pu[i] + pv[j] - row[j], 0.0)
                if via[n + 1 + i] < 0 or reach > move[i]:
                    move[i] = reach
                    via[n + 1 + i] = j
            if kind != BALANCED:
                reach = move[label[m + n]] - max(pu[i] - pu[m], 0.0)
                if reach > move[i]:
                    move[i] = reach
                    via[n + 1 + i] = n
    if kind == TOTALLED and done[label[m + n + 1]] == 0:
        for j in range(n):
            reach = move[label[m + j]] - max(pv[j] - pv[n], 0.0)
            if via[n + 1 + m] < 0 or reach > move[m + n + 1]:
                move[m + n + 1] = reach
                via[n + 1 + m] = j
    shift_r = 0.0
    shift_c = 0.0
    if kind != BALANCED:
        shift_r = move[label[m + n]]
        shift_c = move[label[m + n + 1]]
    for i in range(m):
        pu[i] += move[label[i]] - (shift_r if kind == GROUNDED else 0.0)
    for j in range(n):
        pv[j] -= move[label[m + j]] - (shift_r if kind == GROUNDED else 0.0)
    if kind == TOTALLED:
        # The receiver is a column-like node with potential -U_m, the supplier row-like with -V_n.
        pu[m] += shift_r
        pv[n] -= shift_c


@device_function
def write_entries(problem, dual, graph, value, flip, tiny, slip, y, code, at, margin):
    """Write y and the codes of its bounds; returns (free, weak, supported).

    margin receives the smallest positive entry and the smallest positive multiplier seen.
    """
    kind, m, n, a, r, c, total, size, goal = problem
    ptr = graph.ptr
    idx = graph.idx
    pv = dual.pv
    free = 0
    weak = 0
    supported = 0
    slack = FAR
    push = FAR
    for i in range(m):
        row = a[i * n : (i + 1) * n]
        own = dual.pu[i]
        p = ptr[i]
        end = ptr[i + 1]
        for j in range(n):
            spot = j * m + i if flip else i * n + j
            gap = own + pv[j] - row[j]
            entry = 0.0
            if p < end and idx[p] == j:
                entry = max(value[p], 0.0)
                p += 1
            y[spot] = entry
            if entry > tiny:
                free += 1
                slack = min(slack, entry)
                code[at + spot] = 0
            elif gap + entry > slip:
                push = min(push, gap + entry)
                supported += 1
                code[at + spot] = ACTIVE_LOWER | WORKING_LOWER | SUPPORT_LOWER
            else:
                weak += 1
                code[at + spot] = ACTIVE_LOWER | WORKING_LOWER
    margin[0] = slack
    margin[1] = push
    return free, weak, supported


@device_function
def write_nodes(pots, merged, slack, tiny, slip, code, dual_out, at, count, margin):
    """Write codes and multipliers of inequality rows (or columns); returns (weak, supported)."""
    weak = 0
    supported = 0
    for i in range(count):
        push = max(pots[i] - merged, 0.0)
        dual_out[at + i] = push
        if slack[i] > tiny:
            margin[0] = min(margin[0], slack[i])
            code[at + i] = 0
        elif push > slip:
            margin[1] = min(margin[1], push)
            supported += 1
            code[at + i] = ACTIVE_UPPER | WORKING_UPPER | SUPPORT_UPPER
        else:
            weak += 1
            code[at + i] = ACTIVE_UPPER | WORKING_UPPER
    return weak, supported


@device_function
def leave_working(code, spot):
    """Keep only the active bits of a code; returns 1 if it had been in the support."""
    had = 1 if code[spot] & (SUPPORT_LOWER | SUPPORT_UPPER) else 0
    code[spot] &= ACTIVE_LOWER | ACTIVE_UPPER
    return had


@device_function
def release_tree(problem, via, flip, code, at_r, at_c, at, parent):
    """Take the edges of the tree out of the working set; returns how many were in the support.

    Joins the components they connect in `parent`.
    """
    m = problem.m
    n = problem.n
    had = 0
    for k in range(m + n + 2):
        if via[k] < 0:
            continue
        # Row-like and column-like end; the receiver is column n, the supplier row m.
        i = via[k] if k <= n else k - n - 1
        j = k if k <= n else via[k]
        i = m if i == m + n + 1 else i
        join(parent, m + n + 1 if i == m else i, m + j)
        if j == n:
            had += leave_working(code, at_r + i)
        elif i == m:
            had += leave_working(code, at_c + j)
        else:
            had += leave_working(code, at + (j * m + i if flip else i * n + j))
    return had


@device_function
def release_weak(
    problem, graph, value, slack_r, slack_c, flip, floor, tiny, near, code, at_r, at_c, at, parent
):
    """Take weak edges (positive, but active) that still join components out of the working set.

    The rest of them stay: the working set becomes a basis of the active rows.
    """
    m = problem.m
    n = problem.n
    for i in range(m):
        for p in range(graph.ptr[i], graph.ptr[i + 1]):
            j = graph.idx[p]
            if value[p] > floor and value[p] <= tiny and join(parent, i, m + j) != 0:
                leave_working(code, at + (j * m + i if flip else i * n + j))
    if problem.kind != BALANCED:
        for i in range(m):
            if slack_r[i] > floor and slack_r[i] <= near and join(parent, i, m + n) != 0:
                leave_working(code, at_r + i)
        for j in range(n):
            if slack_c[j] > floor and slack_c[j] <= near and join(parent, m + j, m + n + 1) != 0:
                leave_working(code, at_c + j)


@device_function
def write_equalities(problem, dual, flip, code, dual_out, at_r, at_c):
    """Codes and multipliers of balanced sets; the last column is the redundant equation."""
    m = problem.m
    n = problem.n
    shift = -dual.pu[m - 1] if flip else dual.pv[n - 1]
    for i in range(m):
        dual_out[at_r + i] = dual.pu[i] + shift
        code[at_r + i] = ACTIVE_UPPER | WORKING_UPPER | SUPPORT_UPPER
    for j in range(n):
        dual_out[at_c + j] = dual.pv[j] - shift
        code[at_c + j] = ACTIVE_UPPER | WORKING_UPPER | SUPPORT_UPPER
    code[m + n - 1] = ACTIVE_UPPER


@device_function
def write_all(problem, dual, graph, value, flip, tiny, near, slip, y, code, dual_out, margin):
    """Write y, codes, multipliers and margins; returns (free, weak, supported)."""
    kind = problem.kind
    m = problem.m
    n = problem.n
    at_r = n if flip else 0
    at_c = 0 if flip else m
    at = m + n + (1 if kind == TOTALLED else 0)
    free, weak, supported = write_entries(
        problem, dual, graph, value, flip, tiny, slip, y, code, at, margin
    )
    if kind == BALANCED:
        write_equalities(problem, dual, flip, code, dual_out, at_r, at_c)
        return free, weak, supported
    one, two = write_nodes(
        dual.pu, dual.pu[m], dual.rest_r, near, slip, code, dual_out, at_r, m, margin
    )
    three, four = write_nodes(
        dual.pv, dual.pv[n], dual.rest_c, near, slip, code, dual_out, at_c, n, margin
    )
    if kind == TOTALLED:
        dual_out[m + n] = dual.pu[m] + dual.pv[n]
        code[m + n] = ACTIVE_UPPER | WORKING_UPPER | SUPPORT_UPPER
    return free, weak + one + three, supported + two + four


@device_function
def certify(problem, dual, graph, value, rank, joined, flip, tiny, near, floor, slip, y, code,
            dual_out, info, margin, move, label, done, via):  # fmt: skip
    """Write the record of a finished solve; `rank` and `joined` (connected) are the finish's.

    Entries up to `tiny` and slacks up to `near` are active; those above `floor` are nevertheless
    real, and their multipliers must stay zero. Multipliers up to `slip` count as zero. Scratch:
    move, label, done, via (m+n+2 each); dual's steps and residuals are overwritten.
    """
    kind, m, n, a, r, c, total, size, goal = problem
    slack_r = dual.rest_r
    slack_c = dual.rest_c
    if kind != BALANCED:
        for i in range(m):
            slack_r[i] = r[i] - dual.sum_r[i]
        for j in range(n):
            slack_c[j] = c[j] - dual.sum_c[j]
    free, weak, supported = write_all(
        problem, dual, graph, value, flip, tiny, near, slip, y, code, dual_out, margin
    )
    info[INFO_RANK_ACTIVE] = free - rank
    info[INFO_RANK_WORKING] = free - rank
    info[INFO_RANK_SUPPORT] = free - rank
    if joined != 0 and weak == 0:
        return
    at_r = n if flip else 0
    at_c = 0 if flip else m
    at = m + n + (1 if kind == TOTALLED else 0)
    edges, parts = label_components(problem, graph, value, slack_r, slack_c, floor, floor, label)
    apart = parts > 1
    if apart:
        connect(problem, dual, label, done, dual.dv, via, move)
        free, weak, supported = write_all(
            problem, dual, graph, value, flip, tiny, near, slip, y, code, dual_out, margin
        )
    edges, parts = label_components(problem, graph, value, slack_r, slack_c, tiny, near, label)
    if apart:
        had = release_tree(problem, via, flip, code, at_r, at_c, at, label)
        weak += had
        supported -= had
    release_weak(
        problem, graph, value, slack_r, slack_c, flip, floor, tiny, near, code, at_r, at_c, at,
        label,
    )  # fmt: skip
    nodes = m + n if kind == BALANCED else m + n + 2
    every = m * n
    if kind != BALANCED:
        every += m + n + (1 if kind == GROUNDED else 0)
    info[INFO_RANK_ACTIVE] = edges - nodes + parts
    info[INFO_RANK_WORKING] = edges - nodes + parts
    info[INFO_RANK_SUPPORT] = every - supported - nodes + 1
    info[INFO_WEAK] = weak
