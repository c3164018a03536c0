r"""Output layers of the entropic kind, differentiated through their iterations by autograd.

They are what people use where this package projects: rows of a softmax, Sinkhorn's iterations on a
matrix with an extra row and column for what has no partner, and Sinkhorn's iterations extended to
several linear constraints at once. All take scores and return positive numbers; none meets its
constraints exactly after finitely many iterations.

References
----------
M. Cuturi, "Sinkhorn distances: lightspeed computation of optimal transport", 2013.
P.-E. Sarlin, D. DeTone, T. Malisiewicz and A. Rabinovich, "SuperGlue: learning feature matching
with graph neural networks", 2020 (the extra row and column).
R. Wang, Y. Zhang, Z. Guo, T. Chen, X. Yang and J. Yan, "LinSATNet: the positive linear
satisfiability neural networks", 2023 (several sets of marginals at once).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import autograd.numpy as anp
import numpy as np

LARGEST = 40.0
"""Scores are bent into ±LARGEST, so that their exponentials and products stay finite."""


def bounded(scores: Any) -> Any:
    """Return ``LARGEST tanh(scores / LARGEST)``: the scores, but for the very large ones."""
    return LARGEST * anp.tanh(scores / LARGEST)


def softmax_rows(scores: Any, spare: Any) -> Any:
    r"""Return the softmax of each row with one more column for "no partner", which is dropped.

    .. math:: X_{ij} = \frac{e^{s_{ij}}}{e^{z} + \sum_l e^{s_{il}}}

    Parameters
    ----------
    scores : array, shape (..., m, n)
    spare : float
        Score z of having no partner.

    Returns
    -------
    array, shape (..., m, n)
        Rows sum to less than 1; columns and the total are free.

    Examples
    --------
    >>> softmax_rows(np.zeros((1, 3)), 0.0)
    array([[0.25, 0.25, 0.25]])
    """
    top = anp.maximum(anp.max(scores, axis=-1, keepdims=True), spare)
    raised = anp.exp(scores - top)
    return raised / (anp.sum(raised, axis=-1, keepdims=True) + anp.exp(spare - top))


def sinkhorn_with_spares(scores: Any, spare: Any, iterations: int) -> Any:
    r"""Return Sinkhorn's matrix for scores with one more row and column, which are dropped.

    The enlarged matrix :math:`K=\exp\begin{pmatrix}S & z\\ z & z\end{pmatrix}` is scaled until its
    rows sum to (1, ..., 1, n) and its columns to (1, ..., 1, m): what has no partner goes to the
    extra row or column.

    Parameters
    ----------
    scores : array, shape (..., m, n)
    spare : float
        Score z of having no partner.
    iterations : int
        Each scales the columns and then the rows, so that rows are met exactly at the end.

    Returns
    -------
    array, shape (..., m, n)

    Examples
    --------
    >>> sinkhorn_with_spares(np.zeros((2, 2)), 0.0, 50).round(6).tolist()
    [[0.25, 0.25], [0.25, 0.25]]
    """
    *batch, m, n = scores.shape
    raised, extra = anp.exp(bounded(scores)), anp.exp(bounded(spare))
    right = anp.ones((*batch, m, 1)) * extra
    bottom = anp.ones((*batch, 1, n + 1)) * extra
    K = anp.concatenate([anp.concatenate([raised, right], axis=-1), bottom], axis=-2)
    rows = np.append(np.ones(m), float(n))[:, None]
    columns = np.append(np.ones(n), float(m))[None, :]
    X = K
    for _ in range(iterations):
        X = X * (columns / anp.sum(X, axis=-2, keepdims=True))
        X = X * (rows / anp.sum(X, axis=-1, keepdims=True))
    return X[..., :m, :n]


@dataclass(frozen=True)
class Sums:
    """Sums over some axes of an array of numbers in [0, 1], each at most, or exactly, a bound.

    Attributes
    ----------
    axes : tuple of int
        Negative axes that are summed over.
    bound : array
        Broadcasts to the sums with ``keepdims``.
    equality : bool
        Whether the sums must equal the bound.
    members : ndarray of bool, or None
        Entries that are summed, broadcast to the array; None sums all. At least one.
    """

    axes: tuple[int, ...]
    bound: Any
    equality: bool = False
    members: Any = None


def extended_sinkhorn(scores: Any, constraints: tuple[Sums, ...], iterations: int) -> Any:
    r"""Return numbers in [0, 1] that nearly meet several sums at once.

    A constraint :math:`\sum_j x_j \le b` over l entries is a table of two rows: the entries and a
    slack on top, what is missing from each to fill it below. Its columns sum to (1, ..., 1, b), its
    rows to (b, l); a sum that must equal b has no slack. The tables of all constraints share the
    entries and keep lower rows and slacks of their own. Each iteration visits them in turn, scaling
    columns and then rows.

    Parameters
    ----------
    scores : array, shape (..., m, n)
        The entries start as their exponentials, everything else as 1.
    constraints : tuple of Sums
    iterations : int

    Returns
    -------
    array of the shape of `scores`
        The constraint visited last is met exactly, the others in the limit.

    Notes
    -----
    This is an implementation of the published idea, restricted to unit coefficients, without the
    early stopping of the original, so that all samples take the same number of iterations. Each of
    C constraints keeps what is missing from an entry once more, so that in the limit
    :math:`x_j / (1 - x_j)^C` is proportional to :math:`e^{s_j}` where the constraints do not tell
    entries apart: the more constraints, the softer; a network makes up for it by larger scores.

    Examples
    --------
    >>> total = Sums((-2, -1), np.ones((1, 1)), equality=True)
    >>> rows, columns = Sums((-1,), np.ones((2, 1))), Sums((-2,), np.ones((1, 2)))
    >>> X = extended_sinkhorn(np.array([[9.0, 0.0], [0.0, 0.0]]), (rows, columns, total), 20)
    >>> bool(abs(X.sum() - 1.0) < 1e-12), bool(X[0, 0] == X.max())
    (True, True)
    """
    x = anp.exp(bounded(scores))
    lower: list[Any] = [np.ones(scores.shape) for _ in constraints]
    slack: list[Any] = []
    counted: list[Any] = []
    for one in constraints:
        axes = [axis % scores.ndim for axis in one.axes]
        shape = [1 if axis in axes else size for axis, size in enumerate(scores.shape)]
        slack.append((np.ones(shape), np.ones(shape)))
        inside = True if one.members is None else one.members
        counted.append(np.broadcast_to(inside, scores.shape) * 1.0)
    for _ in range(iterations):
        for c, one in enumerate(constraints):
            x, lower[c], slack[c] = _visited(x, lower[c], slack[c], one, counted[c])
    return x


def _visited(x: Any, lower: Any, slack: Any, one: Sums, counted: np.ndarray) -> tuple[Any, ...]:
    """Scale the columns and then the rows of the table of one constraint."""
    filled = x + lower
    upper, below = x / filled, lower / filled
    count = np.sum(counted, axis=one.axes, keepdims=True)
    top = anp.sum(upper * counted, axis=one.axes, keepdims=True)
    rest = anp.sum(below * counted, axis=one.axes, keepdims=True)
    if one.equality:
        upper, below = upper * (one.bound / top), below * ((count - one.bound) / rest)
    else:
        used, unused = slack
        share = one.bound / (used + unused)
        used, unused = used * share, unused * share
        raised, filling = one.bound / (top + used), count / (rest + unused)
        upper, below = upper * raised, below * filling
        slack = (used * raised, unused * filling)
    if one.members is None:
        return upper, below, slack
    return anp.where(counted > 0.0, upper, x), below, slack
