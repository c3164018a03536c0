"""Strictly convex quadratic programs over polyhedra, solved and differentiated as projections."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._input import kind_of
from .sets.base import PolyhedralSet
from .sets.weighted_norm import QuadraticObjective
from .solve import project


def quadratic_program(q: Any, H: Any, C: PolyhedralSet, **keywords: Any) -> Any:
    r"""Minimise a strictly convex quadratic function over a polyhedron; differentiable.

    .. math:: y(q, H) = \arg\min_{y \in C} \tfrac12 y^T H y - q^T y

    Parameters
    ----------
    q : array_like, shape (*batch, n)
        Linear terms, with the sign of a force: the minimum over all space is H^{-1} q. Not
        modified, nor is `H`.
    H : array_like, shape (n,), (n, n) or (*batch, n, n)
        Positive definite: the diagonal of a diagonal matrix, one symmetric matrix, or one a sample.
    C : PolyhedralSet
        A set of vectors.
    **keywords
        Those of :func:`project`: ``A_ub, b_ub, A_eq, b_eq, lower, upper`` replaced for this call,
        ``start``, ``selection``, ``on_infeasible``, ``degenerate_data``, ``n_threads``.

    Returns
    -------
    Same kind, shape and dtype as q
        The minimisers.

    Raises
    ------
    ValueError
        `H` is not symmetric, or not positive definite.
    ValueError, TypeError, InfeasibleError, NotSolvedError, DegenerateDataGradientError
        As :func:`project`.

    Notes
    -----
    Solved by the method for projections in the metric of H, to the same accuracy relative to its
    condition. All arguments may carry gradients. With N a basis of the null space of the active
    rows and S = N (N' H N)^{-1} N',

    .. math:: \bar q = S g, \qquad \bar H = -\tfrac12 (S g\, y^T + y\, g^T S),

    conservative in (q, H, right-hand sides) wherever the set is not empty; in matrices of the rows
    where active rows are independent. The derivative in H asks for the latter too, because its
    multipliers must be unique. Set-up costs O(n^3 + (m + p)^2 n) when H or C is new (the last H
    is kept with C), a sample about n^2 more than a projection.

    References
    ----------
    Amos and Kolter, "OptNet: Differentiable optimization as a layer in neural networks", ICML
    2017, for quadratic programs as layers.

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import Simplex, quadratic_program
    >>> quadratic_program(np.array([1.0, 1.0]), [[2.0, 0.0], [0.0, 6.0]], Simplex(2))
    array([0.75, 0.25])
    """
    if not isinstance(C, PolyhedralSet):
        raise TypeError(f"C must be a set such as hsref.Simplex(3); got {type(C).__name__}.")
    traced = kind_of(H, "H") != "numpy"
    if traced or np.ndim(H) > 2:
        base = C._cached("unit objective", lambda: QuadraticObjective(C, np.ones(C.size)))
        return project(q, base, H=H, **keywords)
    return project(q, _objective(C, H), **keywords)


def _objective(C: PolyhedralSet, H: Any) -> QuadraticObjective:
    """Return the prepared set for one matrix, kept with C for the next call."""
    kept = C._cache.get("objective")  # type: ignore[attr-defined]
    if kept is not None and kept[0].shape == np.shape(H) and np.array_equal(kept[0], H):
        return kept[1]
    made = QuadraticObjective(C, H)
    C._cache["objective"] = (np.array(H, dtype=np.float64), made)  # type: ignore[attr-defined]
    return made
