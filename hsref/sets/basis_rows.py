r"""An independent basis of the active rows of any set, and products with M^+, a sample at a time.

The order in which rows are taken up is fixed: equalities, bounds that work, other rows that work,
then what else is active, bounds first; a row that depends on those before it is left out. Bounds
that work fix coordinates, which are taken out of all rows. The others go through Gram-Schmidt,
twice each: with M the rows taken up, restricted to the free coordinates,

.. math:: Q = T M, \qquad (M^+)^T g = T^T Q g, \qquad M^+ c = Q^T T c,

Q orthonormal and T lower triangular, packed by rows.

Rows are those of [A_eq; A_ub] scaled to norm 1; places in a vector of right-hand sides count b_eq,
b_ub, lower, upper. States of a sample: 0 inactive, 1 active, 2 working for the rows of A_ub;
the same, with a minus sign for lower bounds, for coordinates. Cost k^2 n for k rows.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._batch import readonly
from .._jit import DeviceFunction, device_function, specialise
from .._scratch import scratch
from .._threads import run_chunks

INDEPENDENT = 1e-10
"""A unit row closer than this to the span of the rows before it depends on them."""
WORKS = 2
"""State of a constraint in the working set."""


@device_function
def take_up(matrix, p, row_state, bound_state, Q, T, ids, part, coeff):
    """Write Q, T and ids (row numbers, or rows + coordinate for bounds); returns their count k."""
    rows = matrix.shape[0]
    n = bound_state.shape[0]
    k = rows - rows
    for phase in range(4):
        count = n if phase == 2 else rows
        for c in range(count):
            take = False
            if phase == 0:
                take = c < p
            elif phase == 1:
                take = c >= p and row_state[max(c - p, 0)] == WORKS
            elif phase == 2:
                take = abs(bound_state[c]) == 1
            else:
                take = c >= p and row_state[max(c - p, 0)] == 1
            if not take or k >= Q.shape[0]:
                continue
            for j in range(n):
                if phase == 2:
                    part[j] = 1.0 if j == c else 0.0
                else:
                    part[j] = matrix[c, j] if abs(bound_state[j]) != WORKS else 0.0
            for b in range(k):
                coeff[b] = 0.0
            for _ in range(2):
                for b in range(k):
                    along = 0.0
                    for j in range(n):
                        along += Q[b, j] * part[j]
                    coeff[b] += along
                    for j in range(n):
                        part[j] -= along * Q[b, j]
            square = 0.0
            for j in range(n):
                square += part[j] * part[j]
            norm = math.sqrt(square)
            if norm <= INDEPENDENT:
                continue
            at = k * (k + 1) // 2
            for b in range(k):
                T[at + b] = 0.0
            for b in range(k):
                first = b * (b + 1) // 2
                for d in range(b + 1):
                    T[at + d] -= coeff[b] * T[first + d] / norm
            T[at + k] = 1.0 / norm
            for j in range(n):
                Q[k, j] = part[j] / norm
            ids[k] = rows + c if phase == 2 else c
            k += 1
    return k


@device_function
def bound_place(j, state, rows, n):
    """Return where a vector of right-hand sides holds the bound of coordinate j."""
    return rows + j + (n if state > 0 else 0)


@device_function
def basis_pull(g, matrix, size, k, bound_state, Q, T, ids, out, part, coeff):
    """out = (M^+)' g in the layout of the right-hand sides; scratch part, coeff."""
    rows = matrix.shape[0]
    n = bound_state.shape[0]
    for i in range(out.shape[0]):
        out[i] = 0.0
    for j in range(n):
        part[j] = g[j]
    for b in range(k):
        along = 0.0
        for j in range(n):
            along += Q[b, j] * g[j]
        coeff[b] = along
    for a in range(k):
        total = 0.0
        for b in range(a, k):
            total += T[b * (b + 1) // 2 + a] * coeff[b]
        i = ids[a]
        if i < rows:
            out[i] = total / size[i]
            for j in range(n):
                part[j] -= total * matrix[i, j]
        else:
            j = i - rows
            out[bound_place(j, bound_state[j], rows, n)] = total
            part[j] -= total
    for j in range(n):
        if abs(bound_state[j]) == WORKS:
            out[bound_place(j, bound_state[j], rows, n)] = part[j]


@device_function
def basis_push(g, matrix, size, k, bound_state, Q, T, ids, out, part, coeff):
    """out = M^+ g for right-hand sides g; scratch part, coeff."""
    rows = matrix.shape[0]
    n = bound_state.shape[0]
    for j in range(n):
        out[j] = 0.0
        if abs(bound_state[j]) == WORKS:
            out[j] = g[bound_place(j, bound_state[j], rows, n)]
        part[j] = out[j]
    for a in range(k):
        i = ids[a]
        if i < rows:
            total = g[i] / size[i]
            for j in range(n):
                total -= matrix[i, j] * part[j]
            coeff[a] = total
        else:
            j = i - rows
            coeff[a] = g[bound_place(j, bound_state[j], rows, n)]
    for b in range(k):
        total = 0.0
        for a in range(b + 1):
            total += T[b * (b + 1) // 2 + a] * coeff[a]
        for j in range(n):
            out[j] += total * Q[b, j]


@device_function
def basis_mark(g, matrix, size, k, bound_state, Q, T, ids, out, part, coeff):
    """out = 1 for the constraints taken up, 0 for the others."""
    rows = matrix.shape[0]
    n = bound_state.shape[0]
    for i in range(out.shape[0]):
        out[i] = 0.0
    for a in range(k):
        i = ids[a]
        if i < rows:
            out[i] = 1.0
        else:
            out[bound_place(i - rows, bound_state[i - rows], rows, n)] = 1.0
    for j in range(n):
        if abs(bound_state[j]) == WORKS:
            out[bound_place(j, bound_state[j], rows, n)] = 1.0


@device_function
def basis_point(g, matrix, size, k, bound_state, Q, T, ids, out, part, coeff):
    """Stand for one of the three routines; replaced when the driver is specialised."""


def basis_batch(
    g, solved, matrix, size, p, row_state, bound_state, Q, T, ids, part, coeff, out, leads, begin,
    end,
):  # fmt: skip
    """Treat samples begin..end-1; row l * samples + i of ``g`` belongs to sample i."""
    samples = solved.shape[0]
    for i in range(begin, end):
        k = p - p
        if solved[i]:
            k = take_up(matrix, p, row_state[i], bound_state[i], Q, T, ids, part, coeff)
        for c in range(leads):
            t = c * samples + i
            if solved[i]:
                basis_point(g[t], matrix, size, k, bound_state[i], Q, T, ids, out[t], part, coeff)
            else:
                for j in range(out.shape[1]):
                    out[t, j] = 0.0


_DRIVERS: dict[str, DeviceFunction] = {
    name: specialise(basis_batch, name, basis_point=routine)
    for name, routine in (("pull", basis_pull), ("push", basis_push), ("mark", basis_mark))
}


def run_basis(
    name: str,
    g: np.ndarray,
    width: int,
    solved: np.ndarray,
    matrix: np.ndarray,
    p: int,
    row_state: np.ndarray,
    bound_state: np.ndarray,
) -> np.ndarray:
    """Run ``"pull"``, ``"push"`` or ``"mark"`` over rows g, (L, B, .); returns (L, B, width)."""
    lead, batch = g.shape[:2]
    n = bound_state.shape[1]
    size = np.linalg.norm(matrix, axis=1)
    size[size == 0.0] = 1.0
    taken = p + np.count_nonzero(row_state, axis=1)
    taken = taken + np.count_nonzero(np.abs(bound_state) == 1, axis=1)
    most = min(n, int(taken.max(initial=0)))
    out = np.empty((lead * batch, width))
    read: list[Any] = [
        readonly(np.ascontiguousarray(a))
        for a in (g.reshape(lead * batch, g.shape[2]), solved, matrix / size[:, None], size)
    ]
    states = [readonly(np.ascontiguousarray(a, np.int8)) for a in (row_state, bound_state)]

    def chunk(begin: int, end: int) -> None:
        Q, T, ids, part, coeff = scratch(
            (most * n, float), (most * (most + 1) // 2, float), (most, np.int64), (n, float),
            (most, float),
        )  # fmt: skip
        Q.fill(0.0)
        _DRIVERS[name].cpu(
            *read, p, *states, Q[: most * n].reshape(most, n), T, ids, part, coeff, out, lead,
            begin, end,
        )  # fmt: skip

    run_chunks(chunk, batch, 4.0 * n * (most + 1.0) * (most + lead), None)
    return out.reshape(lead, batch, width)
