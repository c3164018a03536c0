"""Projections onto special sets by other roads than the library's. NumPy only, one point each."""

from __future__ import annotations

import numpy as np

from oracle import brute_force


def box(x, lower, upper) -> np.ndarray:
    return np.minimum(np.maximum(x, lower), upper)


def halfspace(x, normal, offset) -> np.ndarray:
    x, normal = np.asarray(x, float), np.asarray(normal, float)
    return x - max(0.0, normal @ x - offset) / (normal @ normal) * normal


def hyperplane(x, normal, offset) -> np.ndarray:
    x, normal = np.asarray(x, float), np.asarray(normal, float)
    return x - (normal @ x - offset) / (normal @ normal) * normal


def simplex(x, total: float = 1.0) -> np.ndarray:
    """Sort, then find how many entries stay positive."""
    x = np.asarray(x, dtype=np.float64)
    falling = np.sort(x)[::-1]
    theta = (np.cumsum(falling) - total) / np.arange(1, x.size + 1)
    positive = np.flatnonzero(falling - theta > 0)
    shift = theta[positive[-1]] if positive.size else falling[0]
    y = np.maximum(x - shift, 0.0)
    return np.zeros_like(x) if total == 0 else y


def knapsack(x, weights, total, lower, upper) -> np.ndarray:
    """{lower ≤ y ≤ upper, weightsᵀy = total}: exact root between neighbouring breakpoints."""
    x, c = np.asarray(x, float), np.asarray(weights, float)
    lower = np.broadcast_to(np.asarray(lower, float), x.shape)
    upper = np.broadcast_to(np.asarray(upper, float), x.shape)

    def spent(t: float) -> float:
        return float(c @ np.clip(x - t * c, lower, upper))

    used = c != 0
    ends = np.concatenate([(x - lower)[used] / c[used], (x - upper)[used] / c[used]])
    ends = np.unique(ends[np.isfinite(ends)])
    # spent() falls from breakpoint to breakpoint, affinely in between and beyond the last
    ends = (
        np.concatenate([[ends[0] - 1.0], ends, [ends[-1] + 1.0]]) if ends.size else np.r_[0.0, 1.0]
    )
    values = np.array([spent(t) for t in ends])
    k = int(np.clip(np.searchsorted(-values, -total), 1, len(ends) - 1))
    drop = values[k - 1] - values[k]
    t = (
        ends[k]
        if drop == 0
        else ends[k - 1] + (values[k - 1] - total) / drop * (ends[k] - ends[k - 1])
    )
    return np.clip(x - t * c, lower, upper)


def capped_simplex(x, total, lower=0.0, upper=1.0) -> np.ndarray:
    return knapsack(x, np.ones(np.size(x)), total, lower, upper)


def l1_ball(x, radius: float = 1.0) -> np.ndarray:
    x = np.asarray(x, float)
    return x if np.abs(x).sum() <= radius else np.sign(x) * simplex(np.abs(x), radius)


def isotonic(x) -> np.ndarray:
    """Non-decreasing regression by its definition: max over starts of min over ends of the mean."""
    x = np.asarray(x, float)
    n = x.size
    mean = [[x[a : b + 1].mean() if a <= b else np.inf for b in range(n)] for a in range(n)]
    return np.array(
        [max(min(mean[a][b] for b in range(i, n)) for a in range(i + 1)) for i in range(n)]
    )


def permutahedron(x, w) -> np.ndarray:
    """Sort; the rest is an isotonic regression of the difference, falling."""
    x, w = np.asarray(x, float), np.sort(np.asarray(w, float))[::-1]
    order = np.argsort(-x, kind="stable")
    # the dual is a non-increasing fit of x − w; a non-decreasing one of the reverse
    fit = isotonic((x[order] - w)[::-1])[::-1]
    y = np.empty_like(x)
    y[order] = x[order] - fit
    return y


def birkhoff(X) -> np.ndarray:
    """Doubly stochastic matrices, for 2 × 2 and 3 × 3, from the H-description."""
    X = np.asarray(X, float)
    n = X.shape[0]
    assert X.shape == (n, n)
    assert n <= 3
    A_eq = np.vstack([np.kron(np.eye(n), np.ones(n)), np.kron(np.ones(n), np.eye(n))])
    y = brute_force(X.ravel(), A_eq=A_eq, b_eq=np.ones(2 * n), lower=np.zeros(n * n))
    assert y is not None
    return y.reshape(n, n)
