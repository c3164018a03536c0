"""HS product on doubly stochastic matrices of a few rows, with every loop unrolled.

The general product (:mod:`.transport_hs`) with the side as a compile-time constant: ``SIDE`` is
bound to n by :func:`hsref._jit.specialise`. Rows of the free entries are bits.
"""

from __future__ import annotations

import math

from .._jit import device_function

SIDE = 4


@device_function
def small_peel(n, code, mask, bits_of):
    """Write the free entries of each row as bits, leaves peeled off; returns the columns met."""
    full = 0
    once = 0
    twice = 0
    for i in range(n):
        bits = 0
        for j in range(n):
            bits |= ((code[2 * n + i * n + j] & mask) == 0) << j
        twice |= once & bits
        once |= bits
        bits_of[i] = bits
        full |= bits
    # Entries alone in their column or row are fixed by it, and so on: the bits that stay lie on
    # cycles or between them.
    changed = True
    while changed:
        changed = False
        lonely = once & ~twice
        once = 0
        twice = 0
        full = 0
        for i in range(n):
            bits = bits_of[i] & ~lonely
            if bits & (bits - 1) == 0:
                bits = 0
            if bits != bits_of[i]:
                changed = True
                bits_of[i] = bits
            twice |= once & bits
            once |= bits
            full |= bits
    return full


def small_hs(g, y, code, tape_f, tape_i, data, shared, mask, out, work, iwork):
    """out = V g on SIDE x SIDE matrices; leaves peeled on bits, then one grounded solve."""
    n = SIDE
    nn = n * n
    on = 0
    s = nn
    u = 2 * nn
    v = u + n
    inv = v + n
    full = small_peel(n, code, mask, iwork)
    if full == 0:
        for k in range(nn):
            out[k] = 0.0
        return
    for j in range(n):
        work[v + j] = 0.0
        for k in range(j + 1):
            work[s + j * n + k] = 0.0
    for i in range(n):
        degree = 0.0
        whole = 0.0
        bits = iwork[i]
        for j in range(n):
            bit = ((bits >> j) & 1) * 1.0
            work[on + i * n + j] = bit
            degree += bit
            whole += bit * g[i * n + j]
        inverse = 1.0 / max(degree, 1.0)
        share = whole * inverse
        work[inv + i] = inverse
        work[u + i] = share
        for j in range(n):
            bit = work[on + i * n + j]
            work[v + j] += bit * (g[i * n + j] - share)
            work[s + j * n + j] += bit
            part = bit * inverse
            for k in range(j + 1):
                work[s + j * n + k] -= part * work[on + i * n + k]
    for j in range(n):
        pivot = work[s + j * n + j]
        for k in range(j):
            pivot -= work[s + j * n + k] * work[s + j * n + k]
        # 0 or at least 1/(number of nodes): see transport_laplacian.
        inverse = 1.0 / math.sqrt(pivot) if pivot > 0.5 / (2 * n) else 0.0
        work[s + j * n + j] = inverse
        for i in range(j + 1, n):
            part = work[s + i * n + j]
            for k in range(j):
                part -= work[s + i * n + k] * work[s + j * n + k]
            work[s + i * n + j] = part * inverse
    for j in range(n):
        part = work[v + j]
        for k in range(j):
            part -= work[s + j * n + k] * work[v + k]
        work[v + j] = part * work[s + j * n + j]
    for back in range(n):
        j = n - 1 - back
        part = work[v + j]
        for k in range(j + 1, n):
            part -= work[s + k * n + j] * work[v + k]
        work[v + j] = part * work[s + j * n + j]
    for i in range(n):
        part = 0.0
        for j in range(n):
            part += work[on + i * n + j] * work[v + j]
        part = work[u + i] - part * work[inv + i]
        for j in range(n):
            out[i * n + j] = work[on + i * n + j] * (g[i * n + j] - part - work[v + j])
