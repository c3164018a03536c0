r"""Matrices with given row and column sums: the Birkhoff and the transport polytope.

.. math:: C = \{ Y \in R^{m \times n} : Y \ge 0,\ Y 1 = r,\ Y^T 1 = c \}

Projection. With multipliers u of the rows and v of the columns the optimality conditions give

.. math:: y_{ij} = \max(x_{ij} - u_i - v_j, 0), \qquad \sum_j y_{ij} = r_i,\ \sum_i y_{ij} = c_j .

The m + n numbers solve a monotone, piecewise linear system. Dual sweeps, then Newton's method, find
its piece (:mod:`.transport_dual`), an active set on the dual ends it exactly and in finitely many
steps (:mod:`.transport_finish`), and the record is read off (:mod:`.transport_certify`). Square
matrices of at most eight rows take a shorter way (:mod:`.transport_small`).

HS-Jacobian. With E the free entries (off which V is 0),

.. math:: (V g)_{ij} = g_{ij} - u_i - v_j, \qquad
          \sum_{j : (i,j) \in E} (V g)_{ij} = 0,\ \sum_{i : (i,j) \in E} (V g)_{ij} = 0 .

After v -> -v this is the Laplacian of the bipartite graph E (:mod:`.transport_laplacian`). It is
consistent, and its nullity is the number q of components of the graph, so that V has rank
e - (m + n - q) with e free entries. On a forest, for instance at every permutation matrix, V = 0;
with full support V is double centring.

The equations are dependent (both sides sum to the same total); the record's working set leaves out
the equation of the last column.

Sources: X. Li, D. Sun and K.-C. Toh, "On the efficient computation of a generalized Jacobian of the
projector over the Birkhoff polytope", Math. Program. 179 (2020), for the dual Newton method and the
reduction to the support; R. A. Brualdi, "Combinatorial matrix classes" (2006), for the faces.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._batch import Kernel
from .base import DataField, InfeasibleError, as_count
from .marginals import CONSISTENT_TOL, MarginalSet, checked_marginal
from .transport_laplacian import BALANCED
from .transport_small import SMALL_SIDES, small_kernel


class Birkhoff(MarginalSet):
    r"""The doubly stochastic matrices: non-negative, all rows and columns sum to 1.

    .. math:: C = \{ Y \in R^{n \times n} : Y \ge 0,\ Y 1 = 1,\ Y^T 1 = 1 \}

    Its vertices are the permutation matrices.

    Parameters
    ----------
    n : int
        Number of rows and of columns, at least 1. Points have shape (n, n).

    Raises
    ------
    ValueError
        ``n`` is no positive integer.

    Notes
    -----
    Forward: a few sweeps over x, a few Newton steps on the dual, each a Cholesky factorisation of
    an n by n Schur complement of the support, and a finite active set that normally has nothing
    left to do. Memory O(n^2). 4 <= n <= 8 is unrolled at compile time. Backward: O(n^2) where the
    free entries form a forest (V = 0 there, and exactly so), one factorisation of the part with
    cycles otherwise. The rows of ``multipliers.eq`` are the row sums, then the column sums.

    At a permutation matrix V = 0 on a whole cone of inputs. The most interior point, all entries
    1/n, has rank (n - 1)^2.

    References
    ----------
    Li, Sun and Toh, "On the efficient computation of a generalized Jacobian of the projector over
    the Birkhoff polytope", Mathematical Programming 179 (2020).

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import Birkhoff, projection
    >>> p = projection(np.array([[1.0, 0.5], [0.0, 0.0]]), Birkhoff(2))
    >>> p.y, int(p.rank)
    (array([[0.625, 0.375],
           [0.375, 0.625]]), 1)
    """

    equalities = True

    def __init__(self, n: int) -> None:
        if np.ndim(n) == 1:
            raise ValueError(
                f"Birkhoff matrices are square: n must be one positive integer; got {n!r}. Use "
                "Transport(r, c) for other shapes."
            )
        self.n = self.m = as_count(n, "n")
        self._freeze(shape=(self.n, self.n))

    @classmethod
    def examples(cls) -> tuple[Birkhoff, ...]:
        """Return an unrolled one, the single point, the segment, and two that are not unrolled."""
        return cls(4), cls(1), cls(2), cls(3), cls(9)

    @classmethod
    def _kernel_examples(cls) -> tuple[Birkhoff, ...]:
        return (*cls.examples(), *map(cls, SMALL_SIDES))

    def _make_kernel(self) -> Kernel:
        kernel = self._kernel(BALANCED)
        return small_kernel(kernel, self.n) if self.n in SMALL_SIDES else kernel

    def _find_interior(self) -> tuple[np.ndarray, int]:
        return np.full(self.shape, 1.0 / self.n), (self.n - 1) ** 2


class Transport(MarginalSet):
    r"""The transport polytope: non-negative matrices with given row and column sums.

    .. math:: C = \{ Y \in R^{m \times n} : Y \ge 0,\ Y 1 = r,\ Y^T 1 = c \}

    Parameters
    ----------
    r : array_like, shape (m,)
        Row sums, at least 0. May be replaced at the call, one vector a sample.
    c : array_like, shape (n,)
        Column sums, at least 0, with the same total as r up to a relative 1e-12. May be replaced
        at the call. Points have shape (m, n).

    Raises
    ------
    ValueError
        ``r`` or ``c`` is no vector, or not finite.
    InfeasibleError
        A sum is negative, or the totals of r and c differ: no non-negative matrix has them. At the
        call this is decided sample by sample (float32: the totals may differ by a relative 1e-6,
        because the sums are rounded to float32 first).

    Notes
    -----
    Forward and backward as for :class:`Birkhoff`, with min(m, n) in place of n. Totals that differ
    in their last digits are reconciled by scaling c. Where a sum is 0 its entries are fixed at 0.
    The rows of ``multipliers.eq`` are the row sums, then the column sums.

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import Transport, project
    >>> C = Transport([1.0, 2.0], [0.5, 0.5, 2.0])
    >>> project(np.zeros((2, 3)), C).round(12)
    array([[0.08333333, 0.08333333, 0.83333333],
           [0.41666667, 0.41666667, 1.16666667]])
    """

    equalities = True

    def __init__(self, r: Any, c: Any) -> None:
        fields = []
        for name, value in (("r", r), ("c", c)):
            vector = checked_marginal(value, name)
            bad = np.flatnonzero(vector < 0.0)
            if bad.size:
                raise InfeasibleError(
                    f"Transport is empty: {name} must be non-negative; got {vector[bad[0]]} at "
                    f"index {bad[0]}."
                )
            fields.append(DataField(name, vector.shape, vector))
        self.m, self.n = (f.size for f in fields)
        totals = [float(f.value.sum()) for f in fields]
        if abs(totals[0] - totals[1]) > CONSISTENT_TOL * max(totals):
            raise InfeasibleError(
                f"Transport is empty: the marginals do not balance; r sums to {totals[0]} and c to "
                f"{totals[1]}."
            )
        self._freeze(shape=(self.m, self.n), fields=tuple(fields))

    @classmethod
    def examples(cls) -> tuple[Transport, ...]:
        """Return ordinary ones, tall and wide; zero sums; one row, one column, and points."""
        return (
            cls([1.0, 2.0, 0.5], [0.5, 1.0, 1.25, 0.75]),
            cls([1.0, 1.0, 1.0, 1.0, 1.0], [2.0, 3.0]),
            cls([1.0, 0.0, 2.0], [0.0, 1.5, 1.5]),
            cls([3.0], [1.0, 0.0, 2.0]),
            cls([0.25, 0.75], [1.0]),
            cls([2.0], [2.0]),
            cls([0.0, 0.0], [0.0, 0.0, 0.0]),
        )

    r = property(lambda self: self._fields[0].value, doc="The row sums, read-only.")
    c = property(lambda self: self._fields[1].value, doc="The column sums, read-only.")

    def _check_data(self, data: Mapping[str, np.ndarray]) -> None:
        for name in ("r", "c"):
            if not np.isfinite(data[name]).all():
                raise ValueError(f"{name} must be finite: it holds sums of entries.")

    def _marginals(self, data: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        return data.get("r", self.r), data.get("c", self.c)

    def _make_kernel(self) -> Kernel:
        return self._kernel(BALANCED, r_at=0, c_at=self.m)

    def _certificate(
        self, record: Any, sample: int, data: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        r, c = (v if v.ndim == 1 else v[sample % len(v)] for v in self._marginals(data))
        both = np.concatenate([r, c])
        eq = np.zeros(both.size)
        if both.min() < 0.0:
            # A sum of non-negative entries is not negative.
            eq[both.argmin()] = 1.0
        else:
            # The rows and the columns sum to the same total.
            eq[: self.m] = 1.0 if r.sum() < c.sum() else -1.0
            eq[self.m :] = -eq[0]
        return np.zeros(0), eq, self._rows_transpose(np.zeros(0), eq), np.zeros(self.size)

    def _find_interior(self) -> tuple[np.ndarray, int]:
        total = self.r.sum()
        point = np.outer(self.r, self.c) / (total if total > 0.0 else 1.0)
        rows, columns = (int(np.count_nonzero(v)) for v in (self.r, self.c))
        return point, (rows - 1) * (columns - 1) if total > 0.0 else 0
