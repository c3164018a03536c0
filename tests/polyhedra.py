"""General polyhedra by family, for the tests of the methods that solve them."""

from __future__ import annotations

import numpy as np

import hsref
from hsref.sets.polyhedron_methods import Method


def solved_by(method: Method, description: dict) -> hsref.Polyhedron:
    """Return the polyhedron, projected onto by the given method whatever its own choice."""
    C = hsref.Polyhedron(**description)
    C._solve_by(method)
    return C


def marginals(m: int, n: int) -> np.ndarray:
    """Rows that sum the rows, then the columns, of an m x n matrix in C order."""
    return np.vstack([np.kron(np.eye(m), np.ones((1, n))), np.kron(np.ones((1, m)), np.eye(n))])


def birkhoff(n: int, rows: str) -> dict:
    M = {"2n-1": marginals(n, n)[:-1], "2n": marginals(n, n)}.get(rows)
    M = np.vstack([marginals(n, n)] * 2) if M is None else M
    return {"A_eq": M, "b_eq": np.ones(len(M)), "lower": np.zeros(n * n)}


def matching(n: int, total: float) -> dict:
    return {
        "A_ub": marginals(n, n), "b_ub": np.ones(2 * n), "A_eq": np.ones((1, n * n)),
        "b_eq": np.array([float(total)]), "lower": np.zeros(n * n),
    }  # fmt: skip


def portfolio(kind: str) -> dict:
    n = 12
    A = (np.arange(n) % 3 == np.arange(3)[:, None]).astype(float)
    b = np.array([0.5, 0.25, 0.25]) if kind == "tight" else np.array([0.5, 0.4, 0.3])
    lower, upper = np.zeros(n), np.full(n, 0.25)
    if kind == "duplicated":
        A, b = np.vstack([A, A, 2 * A]), np.concatenate([b, b, 2 * b])
    if kind == "fixed":
        lower[::3] = upper[::3] = 0.125
    return {
        "A_ub": A, "b_ub": b, "A_eq": np.ones((1, n)), "b_eq": np.ones(1), "lower": lower,
        "upper": upper,
    }  # fmt: skip


def lattice(kind: str) -> dict:
    """Integer rows that all pass through one lattice point, on which bounds are tight too."""
    rng = np.random.default_rng(5)
    n = 10
    A, B = rng.integers(-2, 3, (6, n)).astype(float), rng.integers(-1, 2, (2, n)).astype(float)
    z = rng.integers(-1, 2, n).astype(float)
    lower, upper = z - rng.integers(0, 2, n), z + 2.0 * rng.integers(0, 2, n)
    if kind == "half-infinite":
        lower[rng.random(n) < 0.5] = -np.inf
        upper[rng.random(n) < 0.5] = np.inf
    if kind == "duplicate, opposite, zero":
        A = np.vstack([A, A[:2], -A[:1], np.zeros((1, n))])
    return {"A_ub": A, "b_ub": A @ z, "A_eq": B, "b_eq": B @ z, "lower": lower, "upper": upper}


def gauss() -> dict:
    rng = np.random.default_rng(6)
    return {
        "A_ub": rng.normal(size=(4, 12)), "b_ub": np.array([1.0, np.inf, 0.2, 0.1]),
        "A_eq": rng.normal(size=(2, 12)), "b_eq": np.array([0.1, 0.2]), "lower": np.full(12, -1.0),
        "upper": np.where(np.arange(12) % 2, 1.0, np.inf),
    }  # fmt: skip


BOUNDED = {
    **{f"birkhoff {n}, {k} rows": birkhoff(n, k) for n in (2, 4) for k in ("2n-1", "2n", "4n")},
    **{f"matching, total {t}": matching(3, t) for t in (0, 2, 3)},
    **{f"portfolio {k}": portfolio(k) for k in ("plain", "duplicated", "tight", "fixed")},
    **{f"lattice {k}": lattice(k) for k in ("plain", "half-infinite", "duplicate, opposite, zero")},
    "gauss": gauss(),
    "no rows": {"lower": np.array([0, -np.inf, 1.0]), "upper": np.array([1.0, 2.0, 1.0])},
}
"""Sets with bounds: degenerate ones first, one without any degeneracy."""


def points(n: int, seed: int = 0) -> np.ndarray:
    """Zero, constants, integers, dyadic fractions, generic points, at scales from 1e-6 to 1e6."""
    rng = np.random.default_rng(seed)
    return np.concatenate([
        np.zeros((1, n)), np.ones((1, n)), rng.integers(-3, 4, (8, n)),
        rng.integers(-8, 9, (8, n)) / 8.0, rng.normal(size=(8, n)), 1e-6 * rng.normal(size=(3, n)),
        1e4 * rng.normal(size=(3, n)), 1e6 * rng.integers(-1, 2, (3, n)),
        1e6 * rng.normal(size=(3, n)),
    ])  # fmt: skip


def carries(p: hsref.Projection, flags: hsref.ConstraintFlags, description: dict, i: int) -> bool:
    """Whether the flagged rows, with the equalities, are independent and carry x - y."""
    n = p.x.shape[-1]
    A, B = description.get("A_ub", np.zeros((0, n))), description.get("A_eq", np.zeros((0, n)))
    eye = np.eye(n)
    rows = np.vstack([A[flags.ub[i]], eye[flags.upper[i]], -eye[flags.lower[i]]])
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    _, s, vt = np.linalg.svd(B, full_matrices=False) if len(B) else (0, np.zeros(0), B)
    M = np.vstack([rows, vt[s > 1e-10 * s.max(initial=0.0)]])
    push = p.x[i] - p.y[i]
    near = 1e-10 * (1.0 + np.abs(p.x[i]).max())
    if not len(M):
        return bool(np.abs(push).max() <= near)
    if len(M) > n or np.linalg.svd(M, compute_uv=False).min() < 1e-9:
        return False
    weight = np.linalg.lstsq(M.T, push, rcond=None)[0]
    return bool(np.abs(push - M.T @ weight).max() <= near and (weight[: len(rows)] >= -near).all())
