"""Sinkhorn's iteration and its exact reverse pass, compiled, as the baseline deserves.

As in the mHC literature the iterates are not kept: the reverse pass computes them again for one
matrix at a time, so that its memory does not grow with the number of iterations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from autograd.extend import defvjp, primitive

from hsref._jit import device_function


@device_function
def sinkhorn_forward(s, iterations, out):
    """Write to `out` (B, n, n) the iterates of exp(s): columns, then rows, `iterations` times."""
    count, n, _ = s.shape
    for b in range(count):
        # what is taken from a column cancels in the first division, and keeps exp from overflow
        for j in range(n):
            top = s[b, 0, j]
            for i in range(n):
                top = max(top, s[b, i, j])
            for i in range(n):
                out[b, i, j] = np.exp(s[b, i, j] - top)
        for _ in range(iterations):
            for j in range(n):
                total = 0.0
                for i in range(n):
                    total += out[b, i, j]
                for i in range(n):
                    out[b, i, j] /= total
            for i in range(n):
                total = 0.0
                for j in range(n):
                    total += out[b, i, j]
                for j in range(n):
                    out[b, i, j] /= total


@device_function
def sinkhorn_reverse(s, iterations, g, out, halves, totals):
    """Write to `out` the product of g with the Jacobian of the iteration.

    `halves` (2 * iterations + 1, n, n) and `totals` (2 * iterations, n) hold one matrix's iterates
    and the sums they were divided by.
    """
    count, n, _ = s.shape
    for b in range(count):
        for j in range(n):
            top = s[b, 0, j]
            for i in range(n):
                top = max(top, s[b, i, j])
            for i in range(n):
                halves[0, i, j] = np.exp(s[b, i, j] - top)
                out[b, i, j] = g[b, i, j]
        for k in range(2 * iterations):
            for i in range(n):
                total = 0.0
                for j in range(n):
                    total += halves[k, j, i] if k % 2 == 0 else halves[k, i, j]
                totals[k, i] = total
                for j in range(n):
                    if k % 2 == 0:
                        halves[k + 1, j, i] = halves[k, j, i] / total
                    else:
                        halves[k + 1, i, j] = halves[k, i, j] / total
        for back in range(2 * iterations):
            k = 2 * iterations - 1 - back
            for i in range(n):
                along = 0.0
                for j in range(n):
                    if k % 2 == 0:
                        along += out[b, j, i] * halves[k + 1, j, i]
                    else:
                        along += out[b, i, j] * halves[k + 1, i, j]
                for j in range(n):
                    if k % 2 == 0:
                        out[b, j, i] = (out[b, j, i] - along) / totals[k, i]
                    else:
                        out[b, i, j] = (out[b, i, j] - along) / totals[k, i]
        for i in range(n):
            for j in range(n):
                out[b, i, j] *= halves[0, i, j]


@primitive
def sinkhorn(s: Any, iterations: int) -> Any:
    r"""Return the matrix that `iterations` rounds of Sinkhorn's iteration make of exp(s).

    Parameters
    ----------
    s : ndarray of float64, shape (B, n, n)
    iterations : int
        Rounds; each divides columns by their sums, then rows.

    Returns
    -------
    ndarray, shape (B, n, n)
        Rows sum to 1 up to rounding; columns only in the limit. Differentiable by autograd once,
        in reverse mode, exactly (the derivative of the rounds that were done).

    References
    ----------
    Sinkhorn and Knopp, "Concerning nonnegative matrices and doubly stochastic matrices", Pacific
    J. Math. 21 (1967).

    Examples
    --------
    >>> sinkhorn(np.zeros((1, 2, 2)), 1)
    array([[[0.5, 0.5],
            [0.5, 0.5]]])
    """
    out = np.empty_like(s, order="C")
    sinkhorn_forward(np.ascontiguousarray(s), iterations, out)
    return out


def _reverse(s: Any, iterations: int, g: Any) -> Any:
    n, out = s.shape[-1], np.empty(s.shape)
    halves, totals = np.empty((2 * iterations + 1, n, n)), np.empty((2 * iterations, n))
    s, g = np.ascontiguousarray(s), np.ascontiguousarray(g)
    sinkhorn_reverse(s, iterations, g, out, halves, totals)
    return out


defvjp(sinkhorn, lambda ans, s, iterations: lambda g: _reverse(s, iterations, g), argnums=(0,))
