r"""A point of the relative interior and the affine dimension, from one linear program.

For {A_ub y <= b_ub, A_eq y = b_eq} (bounds taken as rows) solve

.. math:: \max \textstyle\sum_i t_i \quad A_{ub} y + t \le b_{ub} s,\ A_{eq} y = b_{eq} s,\
          0 \le t \le 1,\ s \ge 1 .

Scaling (y, t, s) up makes every slack that can be positive reach 1, so at the optimum t_i = 1
exactly for the inequalities that are strict somewhere on the set and t_i = 0 for the implicit
equalities; y / s is a point of the relative interior (Freund, Roundy & Todd, "Identifying the set
of always-active constraints in a system of linear inequalities by a single linear program", 1985).

That point is a vertex of the program and may lie close to some faces for no reason. A few Newton
steps on the logarithmic barrier, held to the point by a weak quadratic so that unbounded sets have
a centre too, move it to the middle: the uniform vector for a simplex, the midpoint for a box.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .base import InfeasibleError

if TYPE_CHECKING:
    from .polyhedron import Polyhedron


def relative_interior(C: Polyhedron) -> tuple[np.ndarray, int]:
    """Return (point, dim) of a general polyhedron.

    Parameters
    ----------
    C : Polyhedron
        The set; its rows may be dependent, and it may have no interior.

    Returns
    -------
    point : ndarray, shape (n,)
        A point of the relative interior.
    dim : int
        The affine dimension.

    Raises
    ------
    InfeasibleError
        The set is empty.
    """
    from scipy.optimize import linprog

    rows, rhs, A_eq, b_eq = _as_rows(C)
    n, m = C.size, rows.shape[0]
    if m == 0 and A_eq.shape[0] == 0:
        return np.zeros(n), n
    cost = np.concatenate([np.zeros(n), -np.ones(m), [0.0]])
    result = linprog(
        cost,
        A_ub=np.hstack([rows, np.eye(m), -rhs[:, None]]) if m else None,
        b_ub=np.zeros(m) if m else None,
        A_eq=np.hstack([A_eq, np.zeros((A_eq.shape[0], m)), -b_eq[:, None]]) if len(A_eq) else None,
        b_eq=np.zeros(A_eq.shape[0]) if len(A_eq) else None,
        bounds=[(None, None)] * n + [(0.0, 1.0)] * m + [(1.0, None)],
        method="highs",
    )
    if result.status != 0:
        raise InfeasibleError(
            "the set is empty, so it has no interior point; project() gives a Farkas certificate."
        )
    point = result.x[:n] / result.x[-1]
    implicit = result.x[n : n + m] < 0.5
    fixed = np.vstack([rows[implicit], A_eq])
    dim = n - (int(np.linalg.matrix_rank(fixed)) if fixed.size else 0)
    if fixed.size:
        # The program meets its equalities to 1e-7; bring the point onto the affine hull exactly.
        target = np.concatenate([rhs[implicit], b_eq])
        for _ in range(2):
            point = point - np.linalg.lstsq(fixed, fixed @ point - target, rcond=None)[0]
    free = ~implicit
    if dim and free.any():
        point = _centre(point, rows[free], rhs[free], _null_space(fixed, dim, n))
    return point, dim


HOLD = 1e-4
"""Weight of the quadratic beside the curvature of the barrier at the start."""


def _centre(point: np.ndarray, rows: np.ndarray, rhs: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Minimise -sum(log(rhs - rows y)) + weak |y - point|^2 over point + range(basis)."""
    slack = rhs - rows @ point
    if slack.min() <= 0.0:
        return point
    across = rows @ basis
    hold = HOLD * float(np.median(slack**-2))
    moved = np.zeros(basis.shape[1])

    def value(s: np.ndarray, u: np.ndarray) -> float:
        return float(0.5 * hold * u @ u - np.log(s).sum()) if s.min() > 0.0 else np.inf

    for _ in range(40):
        gradient = across.T @ (1.0 / slack) + hold * moved
        curvature = (across.T * slack**-2) @ across + hold * np.eye(moved.size)
        step = -np.linalg.solve(curvature, gradient)
        decrement = float(-gradient @ step)
        if not decrement > 1e-16:
            break
        length = 1.0
        now = value(slack, moved)
        while value(slack - length * (across @ step), moved + length * step) > (
            now - 0.25 * length * decrement
        ):
            length *= 0.5
            if length < 1e-12:
                return point + basis @ moved
        moved = moved + length * step
        slack = slack - length * (across @ step)
    return point + basis @ moved


def _null_space(fixed: np.ndarray, dim: int, n: int) -> np.ndarray:
    """Return an orthonormal basis of the directions the fixed rows leave, shape (n, dim)."""
    if not fixed.size:
        return np.eye(n)
    return np.linalg.svd(fixed, full_matrices=True)[2][n - dim :].T


def _as_rows(C: Polyhedron) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return all inequalities (bounds included) and equalities with rows of unit norm."""
    n = C.size
    blocks, sides = [np.zeros((0, n))], [np.zeros(0)]
    if C.A_ub is not None and C.b_ub is not None:
        finite = C.b_ub < np.inf
        blocks.append(C.A_ub[finite])
        sides.append(C.b_ub[finite])
    for bound, sign in ((C.lower, -1.0), (C.upper, 1.0)):
        if bound is not None:
            finite = np.isfinite(bound)
            blocks.append(sign * np.eye(n)[finite])
            sides.append(sign * bound[finite])
    A, b = _unit_rows(np.vstack(blocks), np.concatenate(sides), equality=False)
    if C.A_eq is None or C.b_eq is None:
        return A, b, np.zeros((0, n)), np.zeros(0)
    return A, b, *_unit_rows(C.A_eq, C.b_eq, equality=True)


def _unit_rows(A: np.ndarray, b: np.ndarray, *, equality: bool) -> tuple[np.ndarray, np.ndarray]:
    norms = np.linalg.norm(A, axis=1)
    zero = norms == 0.0
    impossible = zero & ((b != 0.0) if equality else (b < 0.0))
    if impossible.any():
        raise InfeasibleError(
            f"the set is empty: a row of zeros has right-hand side {b[impossible][0]}."
        )
    return A[~zero] / norms[~zero, None], b[~zero] / norms[~zero]
