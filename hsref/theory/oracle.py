r"""A projection so simple that it needs no trust: try every independent set of rows.

.. math:: \Pi(x) = \text{the nearest feasible point among}\ \{V_Kx+M_K^+(a_K;b)\}.

*Proof.* Π(x) satisfies the optimality conditions with multipliers supported on some K whose rows
are independent modulo B (Carathéodory); then x - Π(x) ∈ range M_Kᵀ and M_K Π(x) = (a_K; b), so
Π(x) = V_K x + M_K⁺(a_K; b) is one of the candidates, and no feasible point is nearer. ∎
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .local import LocalRows, local_rows
from .rows import HRows, rows_of

FEASIBLE_TOL = 1e-9


def brute_force(x: Any, C: Any, *, limit: int = 8192) -> np.ndarray:
    """Project by enumeration, for small sets.

    Parameters
    ----------
    x : array_like, shape (P, n) or (n,)
        Points.
    C : set or HRows
        A set whose rows have at most `limit` subsets of size up to n.

    Returns
    -------
    ndarray of the shape of x
        NaN where no candidate is feasible: the set is empty.

    Raises
    ------
    EnumerationError
        Too many rows.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> C = SimpleNamespace(A_ub=[[1.0, 1.0]], b_ub=[1.0], A_eq=None, b_eq=None, lower=[0.0, 0.0],
    ...                     upper=None)
    >>> abs(brute_force([2.0, 0.5], C)).round(12).tolist()
    [1.0, 0.0]
    """
    rows = rows_of(C)
    return candidates_of(rows, limit).project(np.asarray(x, dtype=np.float64))


class Candidates:
    """The affine maps V_K x + M_K⁺(a_K; b) of a set, computed once for many points."""

    def __init__(self, rows: HRows, limit: int = 8192) -> None:
        self.rows = rows
        table: LocalRows = local_rows(rows, np.ones(rows.m, dtype=bool), limit)
        base = np.zeros(rows.n)
        if len(rows.E):
            base = np.linalg.lstsq(rows.E, rows.e, rcond=None)[0]
        # with the equality rows projected out, M_K⁺(a_K; b) = base + pinv (a_K - A_K base)
        rest = rows.h - rows.G @ base
        self.offset = base + np.einsum("snk,k->sn", table.pinv, rest)
        self.V = table.V
        self.consistent = not rows.impossible and (
            not len(rows.E) or bool(np.max(np.abs(rows.E @ base - rows.e)) <= FEASIBLE_TOL)
        )

    def project(self, x: np.ndarray) -> np.ndarray:
        """Return the nearest feasible candidate of each point, shape of x."""
        points = x.reshape(-1, self.rows.n)
        out = np.full(points.shape, np.nan)
        if self.consistent:
            # candidates × points × rows at a time: blocks keep the memory small
            for start in range(0, len(points), 64):
                block = points[start : start + 64]
                y = np.einsum("sij,pj->psi", self.V, block) + self.offset
                reach = 1.0 + np.max(np.abs(self.rows.h), initial=0.0) + np.abs(block).max(axis=1)
                feasible = self.rows.violation(y) <= FEASIBLE_TOL * reach[:, None]
                gap = np.linalg.norm(y - block[:, None, :], axis=2)
                gap[~feasible] = np.inf
                best = np.argmin(gap, axis=1)
                found = np.isfinite(gap[np.arange(len(block)), best])
                chosen = y[np.arange(len(block)), best]
                out[start : start + 64][found] = chosen[found]
        return out.reshape(x.shape)


def candidates_of(rows: HRows, limit: int = 8192) -> Candidates:
    """Return the candidate table of a set."""
    return Candidates(rows, limit)
