r"""References that learn nothing: equal weight and constrained mean–variance."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._common import need
from .problem import Problem
from .windows import DAYS_A_YEAR


def equal_weight(problem: Problem, starts: np.ndarray) -> np.ndarray:
    """Return 1/n in every stock, shape (len(starts), n); it need not meet the constraints."""
    return np.full((len(starts), problem.n), 1.0 / problem.n)


def mean_variance(problem: Problem, starts: np.ndarray) -> np.ndarray:
    r"""Return the portfolio of the largest Sharpe ratio in the past that meets the constraints.

    .. math::

        \max_{w \in C} \frac{\hat\mu^\top w - r_f}{\sqrt{w^\top \hat\Sigma w}}

    with the sample moments of the `past` days before each window.

    Parameters
    ----------
    problem : Problem
    starts : ndarray of int, shape (k,)
        Target starts.

    Returns
    -------
    ndarray, shape (k, n)
        Feasible to the solver's tolerance of about 1e-8.

    Raises
    ------
    MissingExtraError
        If Clarabel is not installed.

    Notes
    -----
    With :math:`y = \kappa w` the ratio is largest where :math:`y^\top \hat\Sigma y` is smallest
    among :math:`y \in \kappa C`, :math:`(\hat\mu - r_f 1)^\top y = 1`: one quadratic program a
    window, solved by the interior-point method Clarabel. Where no portfolio in C had a positive
    excess return that program is infeasible, and the portfolio of smallest variance is taken.
    """
    return np.array([_largest_ratio(problem, int(start)) for start in starts]).reshape(
        len(starts), problem.n
    )


def _largest_ratio(problem: Problem, start: int) -> np.ndarray:
    """Return the portfolio of one window, shape (n,)."""
    config = problem.config
    days = problem.returns[start - config.past : start]
    mean = days.mean(axis=0)
    # a square root of the covariance with as few rows as it has rank
    root = np.linalg.qr(days - mean, mode="r") * np.sqrt(DAYS_A_YEAR / (config.past - 1))
    cone = problem.mandate.cone(start)
    solution = _quadratic(root, DAYS_A_YEAR * mean - config.risk_free, cone)
    if solution is None:
        solution = _quadratic(root, np.ones(problem.n), cone)
    if solution is None:
        raise ArithmeticError("Clarabel found no constrained portfolio of smallest variance.")
    return solution / solution.sum()


def _quadratic(root: np.ndarray, row: np.ndarray, cone: tuple[Any, Any]) -> np.ndarray | None:
    """Return argmin |root y|² over {row·y = 1, A y + B u ≤ 0 for a u}, None if there is none."""
    clarabel, sparse = need("clarabel"), need("scipy.sparse")
    A, B = cone
    rank, n = root.shape
    more = B.shape[1]
    # a common factor of the objective changes nothing but the solver's idea of small
    scaled = root / np.sqrt(np.sum(root**2) / n)
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    # variables y, u and z = root y
    objective = sparse.diags_array(np.concatenate([np.zeros(n + more), np.ones(rank)]))
    equal = sparse.block_array(
        [
            [sparse.csr_array(row[None, :]), sparse.csr_array((1, more)), None],
            [sparse.csr_array(scaled), None, -sparse.eye_array(rank)],
        ]
    )
    limits = sparse.hstack([A, B, sparse.csr_array((A.shape[0], rank))])
    count = limits.shape[0]
    solver = clarabel.DefaultSolver(
        sparse.csc_matrix(objective),
        np.zeros(n + more + rank),
        sparse.csc_matrix(sparse.vstack([equal, limits])),
        np.concatenate([[1.0], np.zeros(rank + count)]),
        [clarabel.ZeroConeT(1 + rank), clarabel.NonnegativeConeT(count)],
        settings,
    )
    answer = solver.solve()
    solved = str(answer.status) in ("Solved", "AlmostSolved")
    return np.maximum(np.asarray(answer.x)[:n], 0.0) if solved else None
