r"""Output layers: from a matrix of scores to a matrix of partial matches.

======================  ===========================================================================
arm                     output X of scores s, m × n
======================  ===========================================================================
``projection``          Π(s/τ) onto {X ≥ 0, X1 ≤ 1, Xᵀ1 ≤ 1, ΣX = k}, HS-Jacobian gradients
``substochastic``       Π(s/τ) onto {X ≥ 0, X1 ≤ 1, Xᵀ1 ≤ 1}: not told the number of matches
``softmax``             softmax of each row, with one more column for "no partner"
``sinkhorn``            Sinkhorn with one more row and column for "no partner"
``linsat``              Sinkhorn's iterations extended to rows, columns and the total k
======================  ===========================================================================

Notes
-----
The temperature τ = max(m, n) makes the layers respond alike: at a uniform row of n entries the
Jacobian of the softmax is (I − 11ᵀ/n)/n, and that of Π(s/n) in the interior is (1/n) times a
centring.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

import hsref

from .._entropic import Sums, extended_sinkhorn, sinkhorn_with_spares, softmax_rows

PROJECTIONS = ("projection", "substochastic")
"""Arms whose layer is a projection."""

ENTROPIC = ("softmax", "sinkhorn", "linsat")
"""Arms whose layer is not."""


@lru_cache(maxsize=64)
def matching_set(arm: str, m: int, n: int) -> Any:
    """Return the set that an arm projects onto; the total is given at the call."""
    if arm == "substochastic":
        return hsref.Substochastic(m, n)
    return hsref.PartialMatching(m, n, float(min(m, n)))


def temperature(m: int, n: int) -> float:
    """Return τ, see the module's notes."""
    return float(max(m, n))


def keywords(arm: str, total: np.ndarray) -> dict[str, Any]:
    """Return what `hsref.project` needs besides scores and set."""
    found: dict[str, Any] = {"n_threads": 1}  # minibatches are too small to gain from a second one
    if arm == "projection":
        found["total"] = total
    return found


def output(arm: str, scores: Any, spare: Any, total: np.ndarray, iterations: int) -> Any:
    """Return matches from scores.

    Parameters
    ----------
    arm : str
    scores : array, shape (k, m, n)
    spare : float
        Learned score of having no partner, for the arms that have such a thing.
    total : ndarray, shape (k,)
        Number of matches, for the arms that are told.
    iterations : int
        Of the iterative arms.

    Returns
    -------
    array, shape (k, m, n)
        Differentiable by autograd in `scores` and `spare`.
    """
    _, m, n = scores.shape
    if arm in PROJECTIONS:
        given = scores / temperature(m, n)
        return hsref.project(given, matching_set(arm, m, n), **keywords(arm, total))
    if arm == "softmax":
        return softmax_rows(scores, spare)
    if arm == "sinkhorn":
        return sinkhorn_with_spares(scores, spare, iterations)
    bound = total[:, None, None]
    constraints = (
        Sums((-1,), np.ones((1, m, 1))),
        Sums((-2,), np.ones((1, 1, n))),
        Sums((-2, -1), bound, equality=True),
    )
    return extended_sinkhorn(scores, constraints, iterations)


def violation(X: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest violation of each instance: of all constraints, and without the total.

    The largest of (row sum − 1)₊, (column sum − 1)₊, (−X)₊ and |ΣX − k|, each of shape (k,).

    Examples
    --------
    >>> everything, marginals = violation(np.array([[[1.0, 0.5], [0.0, 0.0]]]), np.array([1.0]))
    >>> everything.tolist(), marginals.tolist()
    ([0.5], [0.5])
    """
    marginals = np.max(
        [
            np.maximum(X.sum(axis=2) - 1.0, 0.0).max(axis=1),
            np.maximum(X.sum(axis=1) - 1.0, 0.0).max(axis=1),
            np.maximum(-X, 0.0).max(axis=(1, 2)),
        ],
        axis=0,
    )
    return np.maximum(marginals, np.abs(X.sum(axis=(1, 2)) - total)), marginals
