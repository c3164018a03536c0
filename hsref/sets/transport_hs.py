r"""HS product of the transport-like sets.

.. math:: (V g)_{ij} = g_{ij} - u_i - v_j - w \text{ on the free entries, } 0 \text{ elsewhere,}

with (u, v, w) from the Laplacian of :mod:`.transport_laplacian`. Free entries are those whose bound
is not in the selected K.

Leaves first: a node with a single free entry fixes that entry, so that V is exactly 0 there and the
entry can be dropped, which may leave another leaf. What remains is the part of the graph that has
cycles; on a forest, hence at every vertex of the set, nothing remains and V g is exactly 0. The
columns that remain are renumbered, so that the factor has the size of that part.

Two solves with one factor: the second removes the rounding of the first, which makes V idempotent
to the last digits.
"""

from __future__ import annotations

from .._jit import device_function
from .transport_laplacian import (
    BALANCED,
    GROUNDED,
    TOTALLED,
    Factor,
    Graph,
    factorise,
    laplacian_solve,
)

SOLVES = 2


def hs_sizes(rows: int, cols: int) -> tuple[int, int]:
    """Return the float and int scratch of :func:`hs_product`."""
    m, n = max(rows, cols), min(rows, cols)
    return m * n + 3 * (m + 1) + 6 * (n + 1) + (n + 1) ** 2, 2 * m * n + 6 * (m + n + 2)


@device_function
def hs_ints(m, n, iwork):
    """Return (idx, mapped, ptr, keep_r, keep_c, number, degree, edges, stack), views of iwork."""
    idx = iwork[0 : m * n]
    mapped = iwork[m * n : 2 * m * n]
    k = 2 * m * n
    ptr = iwork[k : k + m + 1]
    k += m + 1
    keep_r = iwork[k : k + m + 1]
    k += m + 1
    keep_c = iwork[k : k + n + 1]
    k += n + 1
    number = iwork[k : k + n + 1]
    k += n + 1
    degree = iwork[k : k + m + n + 2]
    k += m + n + 2
    edges = iwork[k : k + m + n + 2]
    k += m + n + 2
    stack = iwork[k : k + m + n + 2]
    return idx, mapped, ptr, keep_r, keep_c, number, degree, edges, stack


@device_function
def hs_floats(m, n, n_all, work):
    """Return (h, rest_r, rest_c, du, dv, deg_r, deg_c, weight, mark, s), views of work.

    n of the n_all columns are left.
    """
    h = work[0 : m * n_all]
    k = m * n_all
    rest_r = work[k : k + m + 1]
    k += m + 1
    rest_c = work[k : k + n + 1]
    k += n + 1
    du = work[k : k + m + 1]
    k += m + 1
    dv = work[k : k + n + 1]
    k += n + 1
    deg_r = work[k : k + m + 1]
    k += m + 1
    deg_c = work[k : k + n + 1]
    k += n + 1
    weight = work[k : k + n + 1]
    k += n + 1
    mark = work[k : k + n + 1]
    k += n + 1
    s = work[k : k + (n + 1) * (n + 1)]
    return h, rest_r, rest_c, du, dv, deg_r, deg_c, weight, mark, s


@device_function
def list_free(kind, m, n, flip, code, mask, ptr, idx, keep_r, keep_c):
    """Free entries by rows, and the kept nodes, from the codes of a record."""
    at_r = n if flip else 0
    at_c = 0 if flip else m
    at = m + n + (1 if kind == TOTALLED else 0)
    for i in range(m):
        keep_r[i] = 1 if kind == BALANCED or code[at_r + i] & mask else 0
    for j in range(n):
        keep_c[j] = 1 if kind == BALANCED or code[at_c + j] & mask else 0
    k = 0
    for i in range(m):
        ptr[i] = k
        for j in range(n):
            spot = j * m + i if flip else i * n + j
            if (code[at + spot] & mask) == 0:
                idx[k] = j
                k += 1
    ptr[m] = k


@device_function
def peel_leaves(kind, m, n, ptr, idx, row_of, keep_r, keep_c, degree, edges, stack):
    """Drop entries at nodes that have only one, repeatedly; dropped idx become -1.

    `edges` holds the exclusive or of the entries at each node: at a leaf, the entry itself.
    Merged nodes come after the others; the ground is no node.
    """
    ground = m + n + 2
    for k in range(ground):
        degree[k] = 0
        edges[k] = 0
    for i in range(m):
        own = i if keep_r[i] != 0 else m + n
        for p in range(ptr[i], ptr[i + 1]):
            other = m + idx[p] if keep_c[idx[p]] != 0 else m + n + 1
            row_of[p] = i
            degree[own] += 1
            degree[other] += 1
            edges[own] ^= p
            edges[other] ^= p
    top = 0
    last = m + n if kind == GROUNDED else ground
    for k in range(last):
        if degree[k] == 1:
            stack[top] = k
            top += 1
    left = ptr[m]
    while top > 0:
        top -= 1
        node = stack[top]
        if degree[node] != 1:
            continue
        p = edges[node]
        i = row_of[p]
        own = i if keep_r[i] != 0 else m + n
        other = m + idx[p] if keep_c[idx[p]] != 0 else m + n + 1
        far = other if own == node else own
        degree[node] = 0
        degree[far] -= 1
        edges[far] ^= p
        idx[p] = -1
        left -= 1
        if degree[far] == 1 and far < last:
            stack[top] = far
            top += 1
    return left


@device_function
def compact(kind, m, n, ptr, idx, mapped, keep_c, degree, number):
    """Close the gaps in idx, number the columns still met in `mapped`; returns their count.

    Columns outside K share the last number, whose keep flag is cleared.
    """
    used = 0
    outside = 0
    for j in range(n):
        if keep_c[j] != 0:
            number[j] = used
            used += 1 if degree[m + j] > 0 else 0
        else:
            outside = 1
    k = 0
    begin = 0
    for i in range(m):
        end = ptr[i + 1]
        for p in range(begin, end):
            j = idx[p]
            if j >= 0:
                idx[k] = j
                mapped[k] = number[j] if keep_c[j] != 0 else used
                k += 1
        begin = end
        ptr[i + 1] = k
    for j in range(used):
        keep_c[j] = 1
    if outside != 0:
        keep_c[used] = 0
        used += 1
    return used


@device_function
def hs_product(g, y, code, tape_f, tape_i, data, shared, mask, out, work, iwork):
    """out = V g for the selection `mask`, set as for solve_point; scratch of hs_sizes."""
    kind = shared[0][0]
    rows = shared[0][1]
    cols = shared[0][2]
    flip = rows < cols
    m = cols if flip else rows
    n = rows if flip else cols
    idx, mapped, ptr, keep_r, keep_c, number, degree, edges, stack = hs_ints(m, n, iwork)
    for k in range(m * n):
        out[k] = 0.0
    list_free(kind, m, n, flip, code, mask, ptr, idx, keep_r, keep_c)
    if peel_leaves(kind, m, n, ptr, idx, mapped, keep_r, keep_c, degree, edges, stack) == 0:
        return
    n_all = n
    n = compact(kind, m, n, ptr, idx, mapped, keep_c, degree, number)

    h, rest_r, rest_c, du, dv, deg_r, deg_c, weight, mark, s = hs_floats(m, n, n_all, work)
    for j in range(n + 1):
        mark[j] = 0.0
    graph = Graph(kind, m, n, ptr, mapped, keep_r, keep_c)
    factor = Factor(deg_r, deg_c, weight, s)
    factorise(graph, factor, mark)
    for i in range(m):
        for p in range(ptr[i], ptr[i + 1]):
            h[p] = g[idx[p] * m + i if flip else i * n_all + idx[p]]
    for _ in range(SOLVES):
        for j in range(n + 1):
            rest_c[j] = 0.0
        rest_r[m] = 0.0
        for i in range(m):
            whole = 0.0
            for p in range(ptr[i], ptr[i + 1]):
                whole += h[p]
                j = mapped[p]
                rest_c[j if kind == BALANCED or keep_c[j] != 0 else n] += h[p]
            rest_r[i] = whole
            if kind == TOTALLED and keep_r[i] == 0:
                rest_r[m] += whole
        laplacian_solve(graph, factor, rest_r, rest_c, 1.0, 0.0, 0.0, du, dv)
        for i in range(m):
            own = du[i]
            for p in range(ptr[i], ptr[i + 1]):
                h[p] -= own + dv[mapped[p]]
    for i in range(m):
        for p in range(ptr[i], ptr[i + 1]):
            out[idx[p] * m + i if flip else i * n_all + idx[p]] = h[p]
