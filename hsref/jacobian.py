r"""Elements of the HS-Jacobian as linear operators, and the whole set for small problems.

For K a subset of the active rows whose span (with the equalities) carries the residual x - y,

.. math:: V_K = I - M_K^+ M_K, \qquad M_K = [A_K; A_{eq}],

the orthogonal projector onto the null space of the rows. The three selections choose K:
``active`` all active rows (the default: the projector onto the direction space of the smallest
face that contains y, which depends on the set alone and not on how it is written), ``working``
the independent rows the solver ended with, ``support`` the rows with a positive multiplier. They
agree wherever the projection is differentiable and the rows that matter are not redundant.
"""

from __future__ import annotations

from itertools import chain, combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from ._codes import SELECTION_MASK
from ._device import on_device
from .record import Projection
from .sets.base import PolyhedralSet

if TYPE_CHECKING:
    from numpy.typing import NDArray


def check_selection(selection: str) -> str:
    """Return `selection`, or raise the sentence that lists the choices."""
    if selection not in SELECTION_MASK:
        raise ValueError(
            f"selection must be one of {', '.join(map(repr, SELECTION_MASK))}; got {selection!r}."
        )
    return selection


class HSJacobian:
    r"""One element V of the HS-Jacobian for every sample of a record.

    V is symmetric and idempotent with eigenvalues 0 and 1, so V.T is V and the same operator
    serves vector-Jacobian and Jacobian-vector products. (In a weighted norm V is symmetric in that
    norm only, and ``V.T`` is another operator.)

    Parameters
    ----------
    record : Projection
        Made by :func:`hsref.projection`.
    selection : {"active", "working", "support"}
        Which active rows K to use.

    Notes
    -----
    ``J @ v`` costs about as much as reading the record; it never solves and never decides again
    which rows are active. For samples that were not solved the product is 0.

    V is symmetric and idempotent to round-off while the rows of K are well apart. A row of a
    general polyhedron at distance d from the span of the others (unit rows, d > 1e-10; below, it
    counts as dependent) leaves an error of about 2e-16 / d, which is what the last bits of the
    rows' own entries do to V.

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import Simplex, projection
    >>> J = projection(np.array([0.6, 0.8, -1.0]), Simplex(3)).jacobian()
    >>> J @ np.array([1.0, 0.0, 5.0])
    array([ 0.5, -0.5,  0. ])
    >>> int(J.rank)
    1
    """

    __slots__ = ("n_threads", "record", "selection", "transposed")
    __array_ufunc__ = None

    def __init__(
        self,
        record: Projection,
        selection: str = "active",
        n_threads: int | None = None,
        transposed: bool = False,
    ) -> None:
        self.record = record
        self.transposed = transposed
        self.selection = check_selection(selection)
        self.n_threads = n_threads

    def __repr__(self) -> str:
        return f"HSJacobian({self.record!r}, selection={self.selection!r})"

    @property
    def shape(self) -> tuple[int, ...]:
        """(*batch, N, N), N the number of entries of a point."""
        n = self.record.set.size
        return (*self.record.batch_shape, n, n)

    @property
    def rank(self) -> Any:
        """Rank (and trace) of V for each sample."""
        return self.record._rank(self.selection)

    @property
    def T(self) -> HSJacobian:
        """The transpose: V itself, which is symmetric, unless the norm is weighted."""
        if self.record.set.symmetric:
            return self
        return HSJacobian(self.record, self.selection, self.n_threads, not self.transposed)

    def __matmul__(self, v: Any) -> Any:
        """Return V v.

        Parameters
        ----------
        v : array_like, shape (..., *batch, *C.shape)
            Shaped like x; further axes in front are further vectors. Not modified.

        Returns
        -------
        ndarray of the same shape, in the dtype of x
        """
        if type(v).__module__.startswith("autograd."):
            from .primitives import hs_product

            return hs_product(v, self)
        return self._apply(v)

    def __rmatmul__(self, v: Any) -> Any:
        """Return V' v."""
        return self.T @ v

    def _apply(self, v: Any) -> NDArray[Any]:
        record = self.record
        full = record.x.shape
        if on_device(v):
            raise TypeError(
                "v lives on a CUDA device and the record of x on the host: copy v to the host, or "
                "project x on the device."
            )
        v = np.asarray(v)
        lead = v.ndim - len(full)
        if lead < 0 or v.shape[lead:] != full:
            raise ValueError(
                f"J @ v needs v shaped like x, {full}, with any further axes in front; "
                f"got shape {v.shape}."
            )
        if v.dtype.kind not in "fiub":
            raise TypeError(f"J @ v needs real numbers; got dtype {v.dtype}.")
        rows = np.ascontiguousarray(v, dtype=record.x.dtype).reshape(-1, record.set.size)
        out = record.set._run_hs(
            record._raw, record._packed, SELECTION_MASK[self.selection], rows, self.n_threads,
            self.transposed,
        )  # fmt: skip
        return out.reshape(v.shape)

    def toarray(self) -> NDArray[Any]:
        """Return the dense matrices, shape (*batch, N, N): N products, memory N² a sample."""
        record = self.record
        n = record.set.size
        batch = record.x.size // n
        unit = np.broadcast_to(np.eye(n, dtype=record.x.dtype)[:, None, :], (n, batch, n))
        columns = self._apply(unit.reshape(n, *record.x.shape)).reshape(n, batch, n)
        return np.moveaxis(columns, 0, -1).reshape(self.shape)

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        dense = self.toarray()
        return dense if dtype is None else dense.astype(dtype)


def hs_jacobian_set(
    x: Any, C: PolyhedralSet, *, max_rows: int = 14
) -> list[tuple[frozenset[tuple[str, int]], NDArray[Any]]]:
    r"""Return every element of the HS-Jacobian at one point, as (K, V) pairs.

    .. math:: \{ (K, I - M_K^+ M_K) : K \subseteq I(x),\ M_K \text{ of full row rank},\
              x - y \in \mathrm{cone}(A_K') + \mathrm{range}(A_{eq}') \}

    Parameters
    ----------
    x : array_like, shape C.shape
        One point. Not modified.
    C : PolyhedralSet
        Small enough to list the subsets of its active rows.
    max_rows : int
        Refuse beyond this many active inequality rows: the work doubles with each.

    Returns
    -------
    list of (frozenset of (field, index), ndarray of shape (N, N))
        ``field`` is ``"ub"``, ``"lower"`` or ``"upper"``. Different K may give the same V. The
        equalities belong to every K and are not listed; where they are dependent a basis is used.

    Raises
    ------
    ValueError
        More than `max_rows` active rows, or `x` is not a single point.

    Notes
    -----
    Independence is demanded of the listed K only to keep the list short: dropping it adds no new V
    (any admissible K contains an independent one with the same row space that carries the
    multiplier, by Carathéodory's theorem).

    References
    ----------
    Han and Sun, "Newton and quasi-Newton methods for normal maps with polyhedral sets",
    J. Optim. Theory Appl. 94 (1997).

    Examples
    --------
    >>> from hsref import Box, hs_jacobian_set
    >>> pairs = hs_jacobian_set([0.0], Box(0.0, 1.0, n=1))
    >>> sorted((sorted(K), V.tolist()) for K, V in pairs)
    [([], [[1.0]]), ([('lower', 0)], [[0.0]])]
    """
    from .solve import projection

    if not C.plain_kernel:
        raise TypeError(f"hs_jacobian_set lists Euclidean projectors; {C!r} has another norm.")
    record = projection(x, C)
    if record.batch_shape:
        raise ValueError(
            f"hs_jacobian_set takes one point of shape {C.shape}; got batch axes "
            f"{record.batch_shape}."
        )
    rows = C.to_polyhedron()
    one = record if type(C) is type(rows) else projection(record.x.reshape(-1), rows)
    identity = np.eye(C.size)
    matrix = {
        "ub": np.zeros((0, C.size)) if rows.A_ub is None else rows.A_ub,
        "lower": -identity,
        "upper": identity,
    }
    active = [
        (field, int(i))
        for field in ("ub", "lower", "upper")
        for i in np.flatnonzero(getattr(one.active, field))
        if np.any(matrix[field][i])
    ]
    if len(active) > max_rows:
        raise ValueError(
            f"{len(active)} inequality rows are active here, more than max_rows={max_rows}; "
            "listing their subsets doubles with each row."
        )
    equalities = _row_basis(np.zeros((0, C.size)) if rows.A_eq is None else rows.A_eq)
    push = (record.x.astype(np.float64) - record.y).reshape(-1)
    scale = float(max(np.abs(record.x).max(), np.abs(record.y).max()))
    subsets = chain.from_iterable(combinations(active, k) for k in range(len(active) + 1))
    found = []
    for K in subsets:
        picked = [matrix[f][i] / np.linalg.norm(matrix[f][i]) for f, i in K]
        M = np.vstack([*picked, equalities]) if picked else equalities
        V = _admissible_projector(M, len(K), push, scale)
        if V is not None:
            found.append((frozenset(K), V))
    return found


def _row_basis(matrix: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis of the row space."""
    norms = np.linalg.norm(matrix, axis=1)
    unit = matrix[norms > 0] / norms[norms > 0, None]
    if unit.shape[0] == 0:
        return unit
    _, s, vt = np.linalg.svd(unit, full_matrices=False)
    return vt[s > 1e-11 * s[0]]


def _admissible_projector(
    M: np.ndarray, inequalities: int, push: np.ndarray, scale: float
) -> np.ndarray | None:
    """Return V_K when M has full row rank and carries `push` with non-negative multipliers."""
    n = push.size
    if M.shape[0] > n:
        return None
    if M.shape[0] == 0:
        return np.eye(n) if np.abs(push).max() <= 1e-9 * scale else None
    u, s, vt = np.linalg.svd(M, full_matrices=False)
    if s[-1] <= 1e-9 * s[0]:
        return None
    multipliers = u @ ((vt @ push) / s)
    if np.abs(push - M.T @ multipliers).max() > 1e-9 * scale:
        return None
    if np.any(multipliers[:inequalities] < -1e-9 * scale):
        return None
    return np.eye(n) - vt.T @ vt
