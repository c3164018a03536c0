r"""The bipartite Laplacian behind every transport-like set.

Let E be the set of free entries of a point (those whose bound is not in K), and let each row and
column that is in K be a node. The rows of K restricted to E are the incidence rows of a bipartite
graph, so that the normal equations of

.. math:: \min_{u, v, w} \sum_{(i,j) \in E} (g_{ij} - u_i - v_j - w)^2

are, after the change of sign :math:`v \to -v`, a graph Laplacian. Three kinds of set differ only
in what becomes of the rows and columns that are *not* in K (their inequality is slack):

* ``BALANCED`` (Birkhoff, Transport): all rows and columns are equalities, every node is kept;
* ``GROUNDED`` (Substochastic): a node outside K has potential 0, it is the ground;
* ``TOTALLED`` (PartialMatching): the equation of the total lets w move. Write w = a + b, give all
  rows outside K the common potential a and all columns outside K the common potential b: they
  merge into one more row node and one more column node, and the system is again a Laplacian, of
  the contracted graph. The total needs no border.

Elimination. The row nodes are mutually independent, so they are eliminated first (the caller puts
the larger side in the rows): S = D_c - W' D_r^{-1} W, of the size of the smaller side, one rank-one
update of deg_i^2 entries a row. S is factored by Cholesky.

Rank without a tolerance. The pivot of a node in a Laplacian is the effective conductance between
it and the nodes that are eliminated after it, together with the ground. Edges have conductance at
least 1, so the pivot is exactly 0 or at least 1/(number of nodes): a threshold half-way tells the
two apart for any graph that fits in memory. A zero pivot marks one node a component that has no
ground; it is skipped, which grounds that node.
"""

from __future__ import annotations

import math
from collections import namedtuple

from .._jit import device_function

BALANCED = 0
GROUNDED = 1
TOTALLED = 2

Graph = namedtuple("Graph", "kind m n ptr idx keep_r keep_c")
"""Free entries by rows (ptr, idx: compressed rows, columns ascending), and which nodes are kept."""
Factor = namedtuple("Factor", "deg_r deg_c weight s")
"""Degrees of the kept nodes, the weights of the merged row node, the factored Schur complement."""

_DENSE_SHARE = 5


@device_function
def schur_complement(graph, factor, mark):
    """S = D_c - W' D_r^-1 W (lower triangle); writes all of factor; mark: zero scratch."""
    kind, m, n, ptr, idx, keep_r, keep_c = graph
    deg_r, deg_c, weight, s = factor
    ld = n + 1
    size = ld if kind == TOTALLED else n
    for i in range(size):
        row = s[i * ld : (i + 1) * ld]
        for j in range(i + 1):
            row[j] = 0.0
    for j in range(ld):
        deg_c[j] = 0.0
        weight[j] = 0.0
    deg_r[m] = 0.0
    for i in range(m):
        begin = ptr[i]
        end = ptr[i + 1]
        count = end - begin
        if kind != BALANCED and keep_r[i] == 0:
            # Outside K: the row joins the ground, or the merged row node.
            deg_r[i] = 0.0
            deg_r[m] += count
            for p in range(begin, end):
                j = idx[p] if keep_c[idx[p]] != 0 else n
                deg_c[j] += 1.0
                weight[j] += 1.0
            continue
        deg_r[i] = count
        if count == 0:
            continue
        inverse = 1.0 / count
        if kind == BALANCED and count * _DENSE_SHARE > n:
            # A well-filled row: a dense vectorised update beats a scattered one.
            for p in range(begin, end):
                mark[idx[p]] = inverse
                deg_c[idx[p]] += 1.0
            for p in range(begin, end):
                base = idx[p] * ld
                subtract_multiple(s[base : base + ld], mark, 1.0, idx[p] + 1)
            for p in range(begin, end):
                mark[idx[p]] = 0.0
            continue
        outside = 0
        for p in range(begin, end):
            j = idx[p]
            if kind != BALANCED and keep_c[j] == 0:
                outside += 1
                continue
            deg_c[j] += 1.0
            row = s[j * ld : (j + 1) * ld]
            for q in range(begin, p + 1):
                k = idx[q]
                if kind == BALANCED or keep_c[k] != 0:
                    row[k] -= inverse
        if outside > 0:
            deg_c[n] += outside
            if kind == TOTALLED:
                share = outside * inverse
                for p in range(begin, end):
                    if keep_c[idx[p]] != 0:
                        s[n * ld + idx[p]] -= share
                s[n * ld + n] -= outside * share
    if kind == TOTALLED and deg_r[m] > 0.0:
        inverse = 1.0 / deg_r[m]
        for j in range(size):
            share = weight[j] * inverse
            if share > 0.0:
                subtract_multiple(s[j * ld : (j + 1) * ld], weight, share, j + 1)
    for j in range(size):
        s[j * ld + j] += deg_c[j]


@device_function
def dot(one, two, count):
    """Sum of one[k] * two[k], k < count."""
    total = 0.0
    for k in range(count):
        total += one[k] * two[k]
    return total


@device_function
def dot_pairs(one, two, left, right, count):
    """The four sums one.left, one.right, two.left, two.right: half the loads of four dots."""
    a = 0.0
    b = 0.0
    c = 0.0
    d = 0.0
    for k in range(count):
        x = one[k]
        y = two[k]
        z = left[k]
        t = right[k]
        a += x * z
        b += x * t
        c += y * z
        d += y * t
    return a, b, c, d


@device_function
def subtract_multiple(out, row, factor, count):
    """out -= factor * row over the first entries."""
    for k in range(count):
        out[k] -= factor * row[k]


@device_function
def cholesky_skip(s, ld, size, floor):
    """S = L L' in place (lower), pivots <= floor skipped; the diagonal receives 1/L_jj or 0.

    Two rows and two columns at a time.
    """
    for i in range(0, size, 2):
        pair = i + 1 < size
        upper = s[i * ld : (i + 1) * ld]
        lower = s[(i + 1) * ld : (i + 2) * ld] if pair else upper
        for j in range(0, i, 2):
            left = s[j * ld : (j + 1) * ld]
            right = s[(j + 1) * ld : (j + 2) * ld]
            a, b, c, d = dot_pairs(upper, lower, left, right, j)
            value = (upper[j] - a) * left[j]
            upper[j + 1] = (upper[j + 1] - b - value * right[j]) * right[j + 1]
            upper[j] = value
            if pair:
                value = (lower[j] - c) * left[j]
                lower[j + 1] = (lower[j + 1] - d - value * right[j]) * right[j + 1]
                lower[j] = value
        a, b, c, d = dot_pairs(upper, lower, upper, lower, i)
        pivot = upper[i] - a
        inverse = 0.0
        if pivot > floor:
            inverse = 1.0 / math.sqrt(pivot)
        upper[i] = inverse
        if pair:
            value = (lower[i] - c) * inverse
            lower[i] = value
            pivot = lower[i + 1] - d - value * value
            inverse = 0.0
            if pivot > floor:
                inverse = 1.0 / math.sqrt(pivot)
            lower[i + 1] = inverse


@device_function
def factor_rank(graph, factor):
    """Rank of the kept rows restricted to the free entries, from the pivots of a factor."""
    size = graph.n + 1 if graph.kind == TOTALLED else graph.n
    rank = 0
    for j in range(size):
        if factor.s[j * (graph.n + 1) + j] > 0.0:
            rank += 1
    for i in range(graph.m):
        if factor.deg_r[i] > 0.0:
            rank += 1
    if graph.kind == TOTALLED and factor.deg_r[graph.m] > 0.0:
        rank += 1
    return rank


@device_function
def factorise(graph, factor, mark):
    """Build and factor S; `mark` is scratch that holds zeros (n)."""
    schur_complement(graph, factor, mark)
    size = graph.n + 1 if graph.kind == TOTALLED else graph.n
    cholesky_skip(factor.s, graph.n + 1, size, 0.5 / (graph.m + graph.n + 2))


@device_function
def laplacian_solve(graph, factor, rest_r, rest_c, tight, loose, least, du, dv):
    """Solve the normal equations for right-hand sides rest_r (m+1), rest_c (n+1).

    Writes the potentials du (m+1) and dv (n+1). A component without ground has one skipped node:
    it gets `loose` times the component's imbalance where that exceeds `least`. With tight = 1,
    loose = 0 this is the basic solution; with tight = 0, loose = 1 the direction, of zero
    curvature, in which the unbalanced components move as a whole. Returns the largest imbalance.
    """
    kind, m, n, ptr, idx, keep_r, keep_c = graph
    deg_r, deg_c, weight, s = factor
    ld = n + 1
    size = ld if kind == TOTALLED else n
    for j in range(n):
        # A column outside K is an empty column of S: zero here, it stays out of everything.
        dv[j] = rest_c[j] if kind == BALANCED or keep_c[j] != 0 else 0.0
    dv[n] = rest_c[n] if kind == TOTALLED else 0.0
    imbalance = 0.0
    for i in range(m):
        if kind != BALANCED and keep_r[i] == 0:
            continue
        if deg_r[i] == 0.0:
            imbalance = max(imbalance, abs(rest_r[i]))
            continue
        share = rest_r[i] / deg_r[i]
        if kind == BALANCED:
            for p in range(ptr[i], ptr[i + 1]):
                dv[idx[p]] -= share
        else:
            for p in range(ptr[i], ptr[i + 1]):
                dv[idx[p] if keep_c[idx[p]] != 0 else n] -= share
    if kind == TOTALLED:
        if deg_r[m] > 0.0:
            subtract_multiple(dv, weight, rest_r[m] / deg_r[m], size)
        else:
            imbalance = max(imbalance, abs(rest_r[m]))
    for i in range(size):
        row = s[i * ld : (i + 1) * ld]
        rest = dv[i] - dot(row, dv, i)
        if row[i] > 0.0:
            dv[i] = rest * row[i]
        else:
            # Column i of L is zero, so that the entry left here disturbs no later row.
            dv[i] = rest
            imbalance = max(imbalance, abs(rest))
    if tight == 0.0:
        for i in range(size):
            if s[i * ld + i] > 0.0:
                dv[i] = 0.0
    for i in range(size - 1, -1, -1):
        row = s[i * ld : (i + 1) * ld]
        if row[i] > 0.0:
            dv[i] *= row[i]
        elif abs(dv[i]) > least:
            dv[i] *= loose
        else:
            dv[i] = 0.0
        subtract_multiple(dv, row, dv[i], i)
    merged = dv[n] if kind == TOTALLED else 0.0
    if kind == TOTALLED:
        if deg_r[m] > 0.0:
            du[m] = (tight * rest_r[m] - dot(weight, dv, size)) / deg_r[m]
        else:
            du[m] = rest_r[m] * loose if abs(rest_r[m]) > least else 0.0
    else:
        du[m] = 0.0
        dv[n] = 0.0
    for i in range(m):
        if kind != BALANCED and keep_r[i] == 0:
            du[i] = du[m]
            continue
        if deg_r[i] == 0.0:
            du[i] = rest_r[i] * loose if abs(rest_r[i]) > least else 0.0
            continue
        rest = tight * rest_r[i]
        if kind == BALANCED:
            for p in range(ptr[i], ptr[i + 1]):
                rest -= dv[idx[p]]
        else:
            for p in range(ptr[i], ptr[i + 1]):
                rest -= dv[idx[p]] if keep_c[idx[p]] != 0 else merged
        du[i] = rest / deg_r[i]
    if kind == TOTALLED:
        for j in range(n):
            if keep_c[j] == 0:
                dv[j] = merged
    return imbalance
