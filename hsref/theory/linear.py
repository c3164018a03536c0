r"""Linear algebra of active sets: projectors, cones with two-sided certificates, hulls.

Everything is small and dense, and every yes or no comes with a witness that is checked afterwards:
a vector lies in a cone because multipliers reproduce it, or it does not because a hyperplane
separates it (Farkas). An algorithm that errs is thus found out here and not downstream.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np

from .rows import RANK_TOL, HRows, span

CONE_TOL = 1e-9
"""Relative residual below which a vector lies in a cone."""

BLOCK = 2**20
"""Numbers in one temporary array; a multiple of it is what a check needs beside its points."""


def kernel_projectors(rows: HRows, masks: np.ndarray) -> np.ndarray:
    r"""Return V_K for many K: the orthogonal projectors onto the kernels of [G_K; E].

    .. math:: V_K = I - M_K^+ M_K,\qquad M_K = [G_K; E].

    Parameters
    ----------
    rows : HRows
        The set.
    masks : ndarray of bool, shape (P, m)
        One K a row.

    Returns
    -------
    ndarray, shape (P, n, n)
        Equal masks are computed once.
    """
    masks = np.atleast_2d(masks)
    if not len(masks):
        return np.zeros((0, rows.n, rows.n))
    distinct, where = distinct_masks(masks)
    # Rows outside K are multiplied by zero, which leaves the row space as it is and lets one
    # batched decomposition serve sets K of different sizes.
    G = rows.off_equalities(rows.G)
    M = distinct[:, :, None] * G[None]
    P = np.empty((len(distinct), rows.n, rows.n))
    base = np.eye(rows.n) - rows.Q @ rows.Q.T
    if rows.m == 0:
        P[:] = base
    else:
        _, size, Vt = np.linalg.svd(M, full_matrices=False)
        Vt = Vt * (size > RANK_TOL)[..., None]
        P[:] = base - np.einsum("pki,pkj->pij", Vt, Vt)
    return P[where]


def blocks(count: int, width: int) -> Iterator[slice]:
    """Cut `count` points with `width` numbers each into slices that keep the memory small.

    The cuts depend on the shape alone, so that the numbers do not depend on the machine's memory.
    """
    step = max(1, BLOCK // max(width, 1))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def distinct_masks(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct rows of a boolean matrix and, for each row, which one it is."""
    if masks.shape[1] == 0:
        return masks[:1], np.zeros(len(masks), dtype=int)
    packed = np.ascontiguousarray(np.packbits(masks, axis=1))
    keys = packed.view([("", packed.dtype)] * packed.shape[1]).ravel()
    _, first, where = np.unique(keys, return_index=True, return_inverse=True)
    return masks[first], where.ravel()


def sharing(masks: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return each distinct row of a boolean matrix with the indices of the rows equal to it."""
    distinct, where = distinct_masks(masks)
    order = np.argsort(where, kind="stable")
    cuts = np.searchsorted(where[order], np.arange(1, len(distinct)))
    return list(zip(distinct, np.split(order, cuts)))


class ConeVerdict(NamedTuple):
    """Whether r lies in cone(generators), with the witness.

    Attributes
    ----------
    inside : bool
        The verdict.
    multipliers : ndarray, shape (k,)
        Non-negative; `nearest` = generatorsᵀ multipliers, the point of the cone nearest to r.
    separator : ndarray, shape (n,)
        r - nearest. When r is outside, every generator has a non-positive product with it and r a
        positive one.
    distance : float
        Norm of `separator`.
    optimality : float
        How far these two witnesses are from proving each other right; round-off when they do.
    """

    inside: bool
    multipliers: np.ndarray
    separator: np.ndarray
    distance: float
    optimality: float


def project_onto_cone(r: np.ndarray, generators: np.ndarray, tol: float = CONE_TOL) -> ConeVerdict:
    r"""Project a vector onto the cone spanned by the rows of a matrix, and prove it.

    .. math:: \min_{\lambda\ge 0}\ \tfrac12\|r - G^T\lambda\|^2 .

    Parameters
    ----------
    r : ndarray, shape (n,)
        The vector.
    generators : ndarray, shape (k, n)
        Generators; dependent, repeated and opposite ones are allowed.
    tol : float
        Inside means a distance of at most ``tol * (1 + |r|)``.

    Returns
    -------
    ConeVerdict
        With basic multipliers: the generators that carry a positive one are independent.

    Notes
    -----
    The optimality conditions :math:`G(r-G^T\lambda)\le 0` and
    :math:`\lambda^T G(r - G^T\lambda)=0` are verified for whatever the least-squares routine
    returned, after its support has been solved again; when they fail the independent subsets are
    enumerated (at most 14 generators) or a linear program decides. Non-negative least squares
    stopping early on dependent rows is thereby harmless.
    """
    from scipy.optimize import nnls

    k = len(generators)
    limit = tol * (1.0 + float(np.linalg.norm(r)))
    if k == 0:
        return _verdict(r, generators, np.zeros(0), limit)
    try:
        guess = nnls(generators.T, r, maxiter=30 * k)[0]
    except RuntimeError:
        guess = np.zeros(k)
    best = _verdict(r, generators, _polish(r, generators, guess), limit)
    if best.optimality <= limit:
        return best
    others = _enumerated(r, generators) if k <= 14 else _by_linear_program(r, generators)
    for guess in others:
        other = _verdict(r, generators, _polish(r, generators, guess), limit)
        if other.optimality < best.optimality:
            best = other
    return best


def _polish(r: np.ndarray, G: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """Solve again on the support, dropping what turns negative."""
    support = guess > 0.0
    out = np.zeros(len(G))
    while support.any():
        value = np.linalg.lstsq(G[support].T, r, rcond=None)[0]
        if (value >= 0.0).all():
            out[support] = value
            return out
        keep = np.flatnonzero(support)
        support[keep[value < 0.0]] = False
    return out


def _verdict(r: np.ndarray, G: np.ndarray, lam: np.ndarray, limit: float) -> ConeVerdict:
    rest = r - lam @ G
    distance = float(np.linalg.norm(rest))
    products = G @ rest
    pairs = np.abs(lam * products)
    gap = max(float(np.max(products, initial=0.0)), float(np.max(pairs, initial=0.0)))
    return ConeVerdict(distance <= limit, lam, rest, distance, min(gap, distance))


def _enumerated(r: np.ndarray, G: np.ndarray) -> list[np.ndarray]:
    """Return the multipliers of every independent subset of generators that are non-negative."""
    found = [np.zeros(len(G))]
    for size in range(1, min(len(G), G.shape[1]) + 1):
        for pick in map(list, combinations(range(len(G)), size)):
            sub = G[pick]
            if np.linalg.svd(sub, compute_uv=False)[-1] <= RANK_TOL:
                continue
            value = np.linalg.lstsq(sub.T, r, rcond=None)[0]
            if (value >= -1e-12).all():
                guess = np.zeros(len(G))
                guess[pick] = np.maximum(value, 0.0)
                found.append(guess)
    return found


def _by_linear_program(r: np.ndarray, G: np.ndarray) -> list[np.ndarray]:
    from scipy.optimize import linprog

    k, n = G.shape
    rows = np.hstack([G.T, np.eye(n), -np.eye(n)])
    cost = np.concatenate([np.zeros(k), np.ones(2 * n)])
    result = linprog(cost, A_eq=rows, b_eq=r, method="highs-ds")
    return [result.x[:k]] if result.x is not None else []


def reduced(rows: HRows, r: np.ndarray, K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return r and the generators G_K with the span of the equality rows projected out.

    ``r`` lies in cone(G_K) + range(Eᵀ) exactly when the first lies in the cone of the second.
    """
    return rows.off_equalities(r), rows.off_equalities(rows.G[K])


def least_norm_multipliers(rows: HRows, rest: np.ndarray) -> np.ndarray:
    """Return the multipliers of the unit equality rows that reproduce `rest`, of least norm."""
    if not len(rows.E):
        return np.zeros(0)
    return np.linalg.lstsq(rows.E.T, rest, rcond=None)[0]


def min_norm_point(vectors: np.ndarray, tol: float = 1e-12) -> tuple[np.ndarray, np.ndarray]:
    r"""Return the point of least norm in the convex hull of finitely many vectors.

    .. math:: \min\{\|\textstyle\sum_i w_i v_i\| : w\ge 0,\ \sum_i w_i = 1\}

    Parameters
    ----------
    vectors : ndarray, shape (k, d)
        The vectors, k >= 1.
    tol : float
        Relative accuracy of the optimality test.

    Returns
    -------
    point : ndarray, shape (d,)
        The point.
    weights : ndarray, shape (k,)
        Its convex weights.

    Notes
    -----
    Wolfe's algorithm: finite, exact up to round-off, each step solves a least-squares problem on
    an affinely independent subset.

    References
    ----------
    P. Wolfe, "Finding the nearest point in a polytope", Mathematical Programming 11 (1976).

    Examples
    --------
    >>> point, weights = min_norm_point(np.array([[1.0, 1.0], [-1.0, 1.0], [0.0, 3.0]]))
    >>> point.tolist(), weights.tolist()
    ([0.0, 1.0], [0.5, 0.5, 0.0])
    """
    V = np.asarray(vectors, dtype=np.float64)
    k = len(V)
    if k == 0:
        raise ValueError("the convex hull of no vectors is empty.")
    big = 1.0 + float(np.max(np.abs(V), initial=0.0)) ** 2
    weights = np.zeros(k)
    weights[int(np.argmin(np.einsum("ij,ij->i", V, V)))] = 1.0
    for _ in range(100 * k + 100):
        point = weights @ V
        products = V @ point
        j = int(np.argmin(products))
        if products[j] >= point @ point - tol * big or weights[j] > 0.0:
            break
        support = weights > 0.0
        support[j] = True
        while True:
            affine = _affine_minimizer(V[support])
            if (affine > 0.0).all():
                weights = np.zeros(k)
                weights[support] = affine
                break
            old = weights[support]
            falling = affine <= 0.0
            step = np.min(old[falling] / np.maximum(old[falling] - affine[falling], 1e-300))
            mixed = (1.0 - step) * old + step * affine
            mixed[mixed <= 1e-14] = 0.0
            # the blocking vector leaves even if round-off kept a trace of it
            mixed[np.flatnonzero(falling)[np.argmin(mixed[falling])]] = 0.0
            weights = np.zeros(k)
            weights[support] = mixed / mixed.sum()
            support = weights > 0.0
    return weights @ V, weights


def _affine_minimizer(V: np.ndarray) -> np.ndarray:
    """Return the affine weights of the least-norm point of the affine hull of the rows of V."""
    base, edges = V[0], V[1:] - V[0]
    rest = np.linalg.lstsq(edges.T, -base, rcond=None)[0] if len(edges) else np.zeros(0)
    return np.concatenate([[1.0 - rest.sum()], rest])


__all__ = [
    "CONE_TOL",
    "ConeVerdict",
    "blocks",
    "distinct_masks",
    "kernel_projectors",
    "least_norm_multipliers",
    "min_norm_point",
    "project_onto_cone",
    "reduced",
    "sharing",
    "span",
]
