r"""References that learn nothing: equal weight and constrained mean–variance."""

from __future__ import annotations

import numpy as np

from .._common import need
from .config import Problem
from .windows import moments


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
    config = problem.config
    mean, covariance = moments(problem.returns, starts - config.past, config.past)
    return np.array(
        [_largest_ratio(problem, mean[k], covariance[k]) for k in range(len(starts))]
    ).reshape(len(starts), problem.n)


def _largest_ratio(problem: Problem, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Return the portfolio of one window, shape (n,)."""
    n, config, mask = problem.n, problem.config, problem.group_mask * 1.0
    rows = [-np.eye(n), (config.at_least - mask)[None, :]]  # homogeneous: holds for every scale
    if config.cap is not None:
        rows.append(np.eye(n) - config.cap)
    inequalities = np.vstack(rows)
    excess = mean - config.risk_free
    solution = _quadratic(covariance, excess, inequalities)
    if solution is None:
        solution = _quadratic(covariance, np.ones(n), inequalities)
    if solution is None:
        raise ArithmeticError("Clarabel found no constrained portfolio of smallest variance.")
    return solution / solution.sum()


def _quadratic(matrix: np.ndarray, row: np.ndarray, inequalities: np.ndarray) -> np.ndarray | None:
    """Return argmin yᵀ matrix y over {row·y = 1, inequalities y ≤ 0}, or None if there is none."""
    clarabel, sparse = need("clarabel"), need("scipy.sparse")
    # a common factor of the objective changes nothing but the solver's idea of small
    scale = float(np.trace(matrix)) / len(matrix)
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    solver = clarabel.DefaultSolver(
        sparse.csc_matrix(np.triu(matrix / scale)),
        np.zeros(len(matrix)),
        sparse.csc_matrix(np.vstack([row[None, :], inequalities])),
        np.concatenate([[1.0], np.zeros(len(inequalities))]),
        [clarabel.ZeroConeT(1), clarabel.NonnegativeConeT(len(inequalities))],
        settings,
    )
    answer = solver.solve()
    solved = str(answer.status) in ("Solved", "AlmostSolved")
    return np.maximum(np.asarray(answer.x), 0.0) if solved else None
