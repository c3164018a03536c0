"""What the sets of matrices with limited row and column sums have in common, outside the kernels.

Coordinates are those of the matrix in C order. The rows of the H-description are the m row sums,
then the n column sums, then, in one of the sets, the sum of all entries; each holds ones only, so
that multiplying by it or by its transpose is a sum or a broadcast, and as a matrix it is sparse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._batch import Kernel
from .base import PolyhedralSet, Rows, as_parameter
from .polyhedron import Polyhedron
from .transport_hs import hs_product, hs_sizes
from .transport_solve import METHODS, layout, solve_point, work_sizes

CONSISTENT_TOL = 1e-12
"""Relative difference under which totals agree."""


class MarginalSet(PolyhedralSet):
    """Matrices whose row and column sums are given or limited; subclasses say which."""

    m: int
    n: int
    equalities: bool
    """Whether the sums are given (equalities) or limited (inequalities)."""
    totalled: bool = False
    """Whether the sum of all entries is given too."""

    forward_cost = "about 10 m n, and s e + s^3 / 3 a Newton step, s = min(m, n), e free entries"
    backward_cost = "m n, and s e + s^3 / 3 for the part of the support that has cycles"

    def _marginals(self, data: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Return the row and column sums (or their limits), batch axes in front."""
        return np.ones(self.m), np.ones(self.n)

    # -- the kernel -----------------------------------------------------------------------------

    def _kernel(self, kind: int, r_at: int = -1, c_at: int = -1, total_at: int = -1) -> Kernel:
        m, n = self.m, self.n
        side = min(m, n)
        floats, ints = work_sizes(m, n)
        hs_floats, hs_ints = hs_sizes(m, n)
        rows = m + n + int(self.totalled)
        # One routine, under one name, for all these sets: they share its compilation.
        return Kernel(
            "marginals", solve_point, hs_product, size=m * n, code_size=rows + m * n,
            dual_size=rows, work_size=floats, iwork_size=ints, hs_work_size=hs_floats,
            hs_iwork_size=hs_ints, shared=(layout(kind, m, n, r_at, c_at, total_at),),
            methods=METHODS, cost=100.0 * m * n + float(side) ** 3,
            hs_cost=20.0 * m * n + 0.4 * float(side) ** 3,
        )  # fmt: skip

    # -- the rows -------------------------------------------------------------------------------

    def _row_counts(self) -> tuple[int, int]:
        count = self.m + self.n
        return (0, count) if self.equalities else (count, int(self.totalled))

    def _sums(self) -> Any:
        """The 0/1 matrix of the row and column sums, shape (m + n, m * n), compressed rows."""

        def make() -> Any:
            from scipy import sparse

            own, other = np.divmod(np.arange(self.m * self.n), self.n)
            rows = np.concatenate([own, self.m + other])
            at = np.tile(np.arange(self.m * self.n), 2)
            shape = (self.m + self.n, self.m * self.n)
            return sparse.csr_array((np.ones(rows.size), (rows, at)), shape=shape)

        return self._cached("sums", make)

    def to_polyhedron(self) -> Polyhedron:
        """Return the rows: row sums, then column sums (then the total); the bound is 0."""
        return self._with_data({})

    def _with_data(self, data: Mapping[str, Any]) -> Polyhedron:
        one = {k: np.asarray(v)[None] for k, v in data.items()}
        rows = self._residual_rows(one)

        def plain(values: Any) -> Any:
            return None if values is None else values.reshape(-1)

        def dense(matrix: Any) -> Any:
            return matrix if matrix is None or isinstance(matrix, np.ndarray) else matrix.toarray()

        return Polyhedron(
            dense(rows.A_ub), plain(rows.b_ub), dense(rows.A_eq), plain(rows.b_eq), rows.lower
        )

    def _residual_rows(self, data: Mapping[str, np.ndarray]) -> Rows:
        r, c = (np.asarray(v, dtype=np.float64) for v in self._marginals(data))
        lead = np.broadcast_shapes(r.shape[:-1], c.shape[:-1])
        both = np.concatenate(
            [np.broadcast_to(v, (*lead, v.shape[-1])) for v in (r, c)], axis=-1
        )  # fmt: skip
        lower = np.zeros(self.size)
        if self.equalities:
            return Rows(None, None, self._sums(), both, lower, None)
        if not self.totalled:
            return Rows(self._sums(), both, None, None, lower, None)
        total = np.asarray(data.get("total", self._fields[0].value), dtype=np.float64)[..., None]
        return Rows(self._sums(), both, np.ones((1, self.size)), total, lower, None)

    def _rows_transpose(self, ub: np.ndarray, eq: np.ndarray) -> np.ndarray:
        both = eq if self.equalities else ub
        matrix = both[..., : self.m, None] + both[..., None, self.m :]
        flat = matrix.reshape(*both.shape[:-1], self.size)
        return flat + eq if self.totalled else flat


def checked_marginal(value: Any, name: str) -> np.ndarray:
    """Return a copy of `value` as a vector of finite numbers, or raise a sentence."""
    if np.ndim(value) != 1 or np.size(value) == 0:
        raise ValueError(f"{name} must be a vector of sums; got shape {np.shape(value)}.")
    return as_parameter(value, name, np.shape(value))
