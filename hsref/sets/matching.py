r"""Matchings that may leave out rows and columns: sums of at most 1, and a given total.

.. math:: C = \{ Y \in R^{m \times n} : Y \ge 0,\ Y 1 \le 1,\ Y^T 1 \le 1 \}
          \quad\text{and}\quad C \cap \{ 1^T Y 1 = total \}

Projection. With multipliers u, v >= 0 of the sums and a free w of the total,

.. math:: y_{ij} = \max(x_{ij} - u_i - v_j - w, 0) ,

u_i = 0 where row i is slack, v_j = 0 where column j is. In the potentials U = u + a and V = v + b
with a + b = w this is the system of a transport problem in which all slack rows, and all slack
columns, share one potential (0 where there is no total): the contracted graph of
:mod:`.transport_laplacian`, solved by the same sweeps, Newton steps and finite active set.

HS-Jacobian. V g = g - u_i - v_j - w on the free entries, with u and v on tight rows and columns
only, the sums of V g over those being 0, and over all entries if the total is given.
A component of the support that reaches a slack row or column is grounded and loses no dimension to
a redundant row.

The matrices with total = k for an integer k have the matchings of k edges as their vertices.

Sources: R. A. Brualdi, "Combinatorial matrix classes" (2006), chapter 9, for the faces; N. S.
Mendelsohn and A. L. Dulmage, "The convex hull of sub-permutation matrices", Proc. AMS 9 (1958).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._batch import Kernel
from .base import DataField, InfeasibleError, as_count, as_parameter
from .marginals import CONSISTENT_TOL, MarginalSet
from .transport_laplacian import GROUNDED, TOTALLED


class Substochastic(MarginalSet):
    r"""The doubly substochastic matrices: non-negative, rows and columns sum to at most 1.

    .. math:: C = \{ Y \in R^{m \times n} : Y \ge 0,\ Y 1 \le 1,\ Y^T 1 \le 1 \}

    Its vertices are the 0/1 matrices with at most one 1 in each row and column: the matchings.

    Parameters
    ----------
    m, n : int
        Numbers of rows and columns, at least 1. Points have shape (m, n).

    Raises
    ------
    ValueError
        ``m`` or ``n`` is no positive integer.

    Notes
    -----
    Forward: sweeps, Newton steps on the dual with the multipliers kept non-negative by block
    pivoting, and a finite active set; each step factors a matrix of the smaller side. Backward:
    one factorisation of the part of the support that has cycles or meets a slack row or column
    twice. The rows of ``multipliers.ub`` are the row sums, then the column sums.

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import Substochastic, projection
    >>> p = projection(np.array([[2.0, 1.5], [0.25, -1.0]]), Substochastic(2, 2))
    >>> p.y, p.active.ub.tolist()
    (array([[0.75, 0.25],
           [0.25, 0.  ]]), [True, False, True, False])
    """

    equalities = False

    def __init__(self, m: int, n: int) -> None:
        self.m = as_count(m, "m")
        self.n = as_count(n, "n")
        self._freeze(shape=(self.m, self.n))

    @classmethod
    def examples(cls) -> tuple[Substochastic, ...]:
        """Return a square one, a tall one, a wide one, one row, one column, and a segment."""
        return cls(3, 3), cls(5, 2), cls(2, 4), cls(1, 3), cls(2, 1), cls(1, 1)

    def _make_kernel(self) -> Kernel:
        return self._kernel(GROUNDED)

    def _find_interior(self) -> tuple[np.ndarray, int]:
        return np.full(self.shape, 1.0 / (1 + max(self.shape))), self.size


class PartialMatching(MarginalSet):
    r"""Non-negative matrices whose rows and columns sum to at most 1, with a given total.

    .. math:: C = \{ Y \in R^{m \times n} : Y \ge 0,\ Y 1 \le 1,\ Y^T 1 \le 1,\ 1^T Y 1 = total \}

    For an integer total k its vertices are the matchings of k pairs.

    Parameters
    ----------
    m, n : int
        Numbers of rows and columns, at least 1. Points have shape (m, n).
    total : float
        The sum of all entries, between 0 and min(m, n). May be replaced at the call, one value a
        sample.

    Raises
    ------
    ValueError
        ``m`` or ``n`` is no positive integer, or ``total`` is not finite.
    InfeasibleError
        ``total`` is negative or exceeds min(m, n) (by more than a relative 1e-12; float32: 1e-6).

    Notes
    -----
    Forward and backward as for :class:`Substochastic`; the total needs no extra row, because all
    slack rows, and all slack columns, share one node of the graph. With total = min(m, n) all sums
    of the smaller side are 1; for m = n the set is the Birkhoff polytope. With total = 0 it is a
    point. The rows of ``multipliers.ub`` are the row sums, then the column sums.

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import PartialMatching, project
    >>> project(np.array([[2.0, 0.0], [0.0, 1.0]]), PartialMatching(2, 2, 1.5))
    array([[1. , 0. ],
           [0. , 0.5]])
    """

    equalities = False
    totalled = True

    def __init__(self, m: int, n: int, total: float) -> None:
        self.m = as_count(m, "m")
        self.n = as_count(n, "n")
        field = DataField("total", (), as_parameter(total, "total", ()))
        most = min(self.m, self.n)
        if not 0.0 <= field.value <= most * (1.0 + CONSISTENT_TOL):
            raise InfeasibleError(
                f"PartialMatching is empty: total must be between 0 and min(m, n) = {most}; got "
                f"{float(field.value)}."
            )
        self._freeze(shape=(self.m, self.n), fields=(field,))

    @classmethod
    def examples(cls) -> tuple[PartialMatching, ...]:
        """Return ordinary ones, both ends of the total, one row, one column, and a point."""
        return (
            cls(3, 3, 2.0),
            cls(2, 4, 1.5),
            cls(3, 2, 2.0),
            cls(3, 3, 3.0),
            cls(2, 3, 0.0),
            cls(1, 3, 0.5),
            cls(2, 1, 1.0),
            cls(1, 1, 0.25),
        )

    @property
    def total(self) -> float:
        """The sum of all entries."""
        return float(self._fields[0].value)

    def _check_data(self, data: Mapping[str, np.ndarray]) -> None:
        if not np.isfinite(data["total"]).all():
            raise ValueError("total must be finite: it is the sum of all entries.")

    def _make_kernel(self) -> Kernel:
        return self._kernel(TOTALLED, total_at=0)

    def _certificate(
        self, record: Any, sample: int, data: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        total = np.reshape(data["total"], -1)
        low = total[sample % len(total)] < 0.0
        ub = np.zeros(self.m + self.n)
        if not low:
            # Adding the sums of the smaller side bounds the total.
            ub[slice(self.m) if self.m <= self.n else slice(self.m, None)] = 1.0
        lower = np.full(self.size, 1.0 if low else 0.0)
        return ub, np.array([1.0 if low else -1.0]), lower, np.zeros(self.size)

    def _find_interior(self) -> tuple[np.ndarray, int]:
        m, n, total = self.m, self.n, self.total
        point = np.full(self.shape, total / self.size)
        if total == 0.0:
            return point, 0
        if total < min(m, n) * (1.0 - CONSISTENT_TOL):
            return point, self.size - 1
        # All sums of the smaller side are 1, and if the sides are equal those of the other are too.
        return point, (m - 1) * (n - 1) if m == n else min(m, n) * (max(m, n) - 1)
