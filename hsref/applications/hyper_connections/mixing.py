r"""The arms: how a block makes the matrix that mixes its residual streams.

All start at one matrix inside the Birkhoff polytope,

.. math:: H_0 = (1-\varepsilon) I + \tfrac{\varepsilon}{n} 11^\top ,

and answer a small change u of their parameters alike: each arm's map M is used as
:math:`M(b_0 + c\,u)` with :math:`M(b_0) = H_0` and the number c chosen such that
:math:`\|c\,M'(b_0)\|_F = n - 1`, the norm of the HS-Jacobian inside the polytope.

Notes
-----
At a vertex of the polytope the HS-Jacobian is 0. The identity is a vertex, so the customary start
at, or Euclideanly close to, the identity would freeze every mixing matrix for ever; hence
:math:`\varepsilon`, and `interior_margin`, which training asserts to be positive at its start.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import autograd.numpy as anp
import numpy as np

import hsref

from .operations import weighted_permutations
from .sinkhorn import sinkhorn

PLAIN = "residual"
"""The arm without streams."""


@dataclass(frozen=True)
class Mixing:
    """How one arm makes mixing matrices.

    Attributes
    ----------
    n : int
        Streams.
    start : ndarray, shape (k,)
        b₀: what the parameters' contribution is added to.
    gain : float
        c: what it is multiplied by.
    map : callable
        From logits b₀ + c u of shape (B, k) to matrices (B, n, n), differentiable by autograd.
    constraints : PolyhedralSet or None
        The set, for the arm that projects.
    """

    n: int
    start: np.ndarray
    gain: float
    map: Callable[[Any], Any]
    constraints: Any = None

    @property
    def size(self) -> int:
        """Number of logits."""
        return self.start.size


@functools.cache
def birkhoff(n: int) -> Any:
    """Return the set of doubly stochastic n × n matrices."""
    return hsref.Birkhoff(n)


@functools.cache
def permutation_matrices(n: int) -> np.ndarray:
    """Return all n! permutation matrices, shape (n!, n, n), the identity first."""
    return np.eye(n)[list(itertools.permutations(range(n)))]


def start_matrix(n: int, epsilon: float) -> np.ndarray:
    """Return H₀ = (1 − ε) I + (ε/n) 11ᵀ.

    Examples
    --------
    >>> start_matrix(2, 0.5)
    array([[0.75, 0.25],
           [0.25, 0.75]])
    """
    return (1.0 - epsilon) * np.eye(n) + epsilon / n


def interior_margin(logits: np.ndarray, n: int) -> np.ndarray:
    r"""Return how far the Euclidean projection of each matrix is from the boundary, shape (B,).

    .. math:: \min_{ij} (C S C)_{ij} + \tfrac1n, \qquad C = I - \tfrac1n 11^\top

    Positive exactly if the projection of S onto the doubly stochastic matrices has no zero; it is
    then :math:`CSC + 11^\top/n`, and its Jacobian is the double centring, of full rank (n − 1)².

    Parameters
    ----------
    logits : ndarray, shape (B, n * n)
    n : int

    Examples
    --------
    >>> interior_margin(np.array([[0.75, 0.25, 0.25, 0.75], [1.0, 0.0, 0.0, 1.0]]), 2)
    array([0.25, 0.  ])
    """
    S = logits.reshape(-1, n, n)
    rows, columns = S.mean(axis=2, keepdims=True), S.mean(axis=1, keepdims=True)
    centred = S - rows - columns + S.mean(axis=(1, 2), keepdims=True)
    return centred.min(axis=(1, 2)) + 1.0 / n


def _shaped(x: Any, n: int) -> Any:
    return anp.reshape(x, (-1, n, n))


def _project(x: Any, C: Any, n: int) -> Any:
    # minibatches are too small to gain from a second thread
    return _shaped(hsref.project(anp.reshape(x, (-1, *C.shape)), C, n_threads=1), n)


def _norm_of_slope(mapping: Callable[[Any], Any], start: np.ndarray, n: int) -> float:
    """Return ‖M′(b₀)‖_F from one reverse pass over all unit vectors at once."""
    from autograd import make_vjp

    pull, _ = make_vjp(mapping)(np.repeat(start[None], n * n, axis=0))
    return float(np.linalg.norm(pull(np.eye(n * n).reshape(-1, n, n))))


def make_mixing(arm: str, n: int, epsilon: float, iterations: int) -> Mixing:
    """Return how `arm` mixes n streams.

    Parameters
    ----------
    arm : {"unconstrained", "sinkhorn", "permutations", "projection"}
    n : int
        Streams.
    epsilon : float
        ε of the start, in (0, 1].
    iterations : int
        Of Sinkhorn.

    Returns
    -------
    Mixing
    """
    H = start_matrix(n, epsilon)
    if arm == "unconstrained":
        # the tangent part of its answer is that of the projection already
        return Mixing(n, H.reshape(-1), 1.0, lambda x: _shaped(x, n))
    if arm == "projection":
        C = birkhoff(n)
        return Mixing(n, H.reshape(-1), 1.0, lambda x: _project(x, C, n), C)
    if arm == "sinkhorn":
        start = np.log(H).reshape(-1)

        def mapping(x: Any) -> Any:
            return sinkhorn(_shaped(x, n), iterations)

    else:
        P = permutation_matrices(n)
        # all permutations alike make 11ᵀ/n
        weights = np.full(math.factorial(n), epsilon / math.factorial(n))
        weights[0] += 1.0 - epsilon
        start = np.log(weights)

        def mapping(x: Any) -> Any:
            return weighted_permutations(x, P)

    return Mixing(n, start, (n - 1) / _norm_of_slope(mapping, start, n), mapping)
