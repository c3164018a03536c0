"""The record of a projection: frozen, complete, decoded when asked.

A :class:`Projection` holds everything the backward pass needs (point, codes, working set, factor),
so that no derivative ever solves again or decides again which rows are active.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ._batch import RawRecord
from ._codes import (
    INFO_METHOD,
    INFO_STEPS,
    MASK_ACTIVE,
    MASK_SUPPORT,
    MASK_WORKING,
    PRIMAL_INFEASIBLE,
    SELECTION_RANK,
    SOLVED,
)
from .sets.base import ConstraintFlags, Multipliers, PolyhedralSet

if TYPE_CHECKING:
    from .jacobian import HSJacobian


class Residuals(NamedTuple):
    """How well a point and its multipliers satisfy the optimality conditions, per sample.

    Attributes
    ----------
    primal : ndarray
        Largest constraint violation / (|right-hand side| + row norm * largest entry of x and y).
    dual : ndarray
        Largest entry of x - y - A_ub' ub - A_eq' eq - upper + lower, over the largest entry of x
        and y plus the largest term of that sum.
    complementarity : ndarray
        Largest multiplier times slack, each relative to its own scale.
    """

    primal: np.ndarray
    dual: np.ndarray
    complementarity: np.ndarray


class Projection:
    r"""The result of projecting a batch of points onto a set.

    .. math:: y = \arg\min_{z \in C} \tfrac12 \|z - x\|^2

    Made by :func:`hsref.projection`; immutable, picklable, hashes by identity. Arrays are
    read-only, batch axes in front (none for a single point). Fields beyond ``y`` are decoded on
    first access and kept.

    Attributes
    ----------
    x, y : ndarray, shape (*batch, *C.shape)
        Input and projection, in the dtype of x.
    status : ndarray of int8, shape (*batch,)
        One of :class:`hsref.Status`.
    steps : ndarray of int32, shape (*batch,)
        Steps the solver took.
    rank : ndarray of int32, shape (*batch,)
        Rank of V under this record's selection: the dimension of the smallest face that contains
        y when the selection is ``"active"``. 0 means a dead projection: no gradient passes.
    multipliers : Multipliers
        ``ub, eq, lower, upper`` with x - y = A_ub' ub + A_eq' eq + upper - lower.
    active, working_set, support, weakly_active : ConstraintFlags
        Booleans ``ub, lower, upper``: rows that hold with equality; an independent admissible
        subset; rows with a positive multiplier; active rows without one.
    residuals : Residuals
        Recomputed from x, y, the multipliers and the rows of the set.
    margin, slack_margin, multiplier_margin : ndarray, shape (*batch,)
        Smallest relative inactive slack, smallest relative positive multiplier, and the smaller of
        the two (``margin``): how close the choice of the active set was.
    certificate : Multipliers or None
        A Farkas vector for every infeasible sample (zeros elsewhere); None when there is none.
    method : str or ndarray of str
        Which algorithm ran.
    """

    __slots__ = ("_cache", "_data", "_packed", "_raw", "batch_shape", "selection", "set", "x")

    def __init__(
        self,
        C: PolyhedralSet,
        x: np.ndarray,
        batch_shape: tuple[int, ...],
        raw: RawRecord,
        data: Mapping[str, np.ndarray],
        packed: np.ndarray,
        selection: str,
    ) -> None:
        fix = object.__setattr__
        fix(self, "set", C)
        fix(self, "x", x.reshape((*batch_shape, *C.shape)))
        fix(self, "batch_shape", batch_shape)
        fix(self, "selection", selection)
        fix(self, "_raw", raw)
        fix(self, "_data", dict(data))
        fix(self, "_packed", packed)
        fix(self, "_cache", {})
        for array in (self.x, *vars(raw).values()):
            array.flags.writeable = False

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("a Projection is immutable.")

    def __getstate__(self) -> dict[str, Any]:
        return {k: getattr(self, k) for k in self.__slots__ if k != "_cache"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for key, value in state.items():
            object.__setattr__(self, key, value)
        object.__setattr__(self, "_cache", {})
        for array in (self.x, *vars(self._raw).values()):
            array.flags.writeable = False

    def __repr__(self) -> str:
        solved = int(np.sum(self._raw.status == SOLVED))
        total = self._raw.status.size
        return (
            f"Projection(onto {self.set!r}, batch {self.batch_shape}, {self.x.dtype}, "
            f"{solved} of {total} solved, selection={self.selection!r})"
        )

    def _cached(self, key: str, make: Any) -> Any:
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def _shape(self, array: np.ndarray) -> Any:
        """Give a (B, ...) array its batch axes back; scalars for a single point."""
        shaped = array.reshape((*self.batch_shape, *array.shape[1:]))
        shaped.flags.writeable = False
        return shaped[()] if shaped.ndim == 0 else shaped

    @property
    def y(self) -> np.ndarray:
        """The projection, shape (*batch, *C.shape), dtype of x."""
        return self._raw.y.reshape((*self.batch_shape, *self.set.shape))

    @property
    def status(self) -> Any:
        """How each solve ended; compare with :class:`hsref.Status`."""
        return self._shape(self._raw.status)

    @property
    def steps(self) -> Any:
        """Steps the solver took for each sample."""
        return self._shape(self._raw.info[:, INFO_STEPS].copy())

    @property
    def rank(self) -> Any:
        """Rank of V for each sample under this record's selection."""
        return self._rank(self.selection)

    def _rank(self, selection: str) -> Any:
        rank = np.where(self._raw.status == SOLVED, self._raw.info[:, SELECTION_RANK[selection]], 0)
        return self._shape(rank.astype(np.int32))

    @property
    def method(self) -> Any:
        """Name of the algorithm that ran."""
        names = np.array(self.set.kernel.methods)[self._raw.info[:, INFO_METHOD]]
        return str(names[0]) if len(set(names.tolist())) == 1 else self._shape(names)

    @property
    def active(self) -> ConstraintFlags:
        """Rows that hold with equality: the set I(x)."""
        return self._cached("active", lambda: self._flags(MASK_ACTIVE))

    @property
    def working_set(self) -> ConstraintFlags:
        """An independent admissible K that carries the multipliers."""
        return self._cached("working", lambda: self._flags(MASK_WORKING))

    @property
    def support(self) -> ConstraintFlags:
        """Rows with a positive multiplier."""
        return self._cached("support", lambda: self._flags(MASK_SUPPORT))

    @property
    def weakly_active(self) -> ConstraintFlags:
        """Active rows without a multiplier: where the element chosen was a close call."""

        def make() -> ConstraintFlags:
            pairs = zip(self.active, self.support, strict=True)
            return ConstraintFlags(*(a & ~s for a, s in pairs))

        return self._cached("weakly", make)

    def _flags(self, mask: int) -> ConstraintFlags:
        flags = self.set._flags(self._raw.code, mask)
        return ConstraintFlags(*(self._field(f) for f in flags))

    def _field(self, array: np.ndarray) -> np.ndarray:
        shaped = array.reshape((*self.batch_shape, *array.shape[1:]))
        shaped.flags.writeable = False
        return shaped

    @property
    def multipliers(self) -> Multipliers:
        """Multipliers of the rows as given, in the dtype of x."""
        return self._cached(
            "multipliers",
            lambda: Multipliers(
                *(self._field(v.astype(self.x.dtype)) for v in self._multipliers())
            ),
        )

    def _multipliers(self) -> Multipliers:
        flat = self.x.reshape(-1, self.set.size)
        return self._cached(
            "multipliers64", lambda: self.set._multipliers(self._raw, flat, self._data)
        )

    @property
    def residuals(self) -> Residuals:
        """Residuals of the optimality conditions, recomputed from the rows of the set."""
        return self._cached("residuals", self._residuals)

    def _residuals(self) -> Residuals:
        x = self.x.reshape(-1, self.set.size).astype(np.float64)
        numbers = self.set._residuals(x, self._raw.y.astype(np.float64), self._multipliers(),
                                      self._data)  # fmt: skip
        return Residuals(*(self._shape(v) for v in numbers))

    @property
    def slack_margin(self) -> Any:
        """Smallest slack of a row that is not active, relative; inf where there is none."""
        return self._shape(self._raw.margin[:, 0].copy())

    @property
    def multiplier_margin(self) -> Any:
        """Smallest positive multiplier, relative; inf where there is none."""
        return self._shape(self._raw.margin[:, 1].copy())

    @property
    def margin(self) -> Any:
        """The smaller of the two margins."""
        return self._shape(self._raw.margin.min(axis=1))

    @property
    def certificate(self) -> Multipliers | None:
        """A Farkas vector for every infeasible sample, or None when all are feasible."""
        return self._cached("certificate", self._certificate)

    def _certificate(self) -> Multipliers | None:
        bad = np.flatnonzero(self._raw.status == PRIMAL_INFEASIBLE)
        if not bad.size:
            return None
        found = [self.set._certificate(self._raw, int(i), self._data) for i in bad]
        fields = []
        for parts in zip(*found, strict=True):
            field = np.zeros((self._raw.status.size, parts[0].size))
            field[bad] = parts
            fields.append(self._field(field))
        return Multipliers(*fields)

    def jacobian(self, selection: str | None = None) -> HSJacobian:
        """Return an element of the HS-Jacobian at every sample.

        Parameters
        ----------
        selection : {"active", "working", "support"}, optional
            Which rows to use; the record's own selection by default.

        Returns
        -------
        HSJacobian
            A linear operator; nothing is solved again.
        """
        from .jacobian import HSJacobian

        return HSJacobian(self, self.selection if selection is None else selection)


class WarmStart:
    """Remembers the record of the last projection, for the next one to start from.

    Pass it as ``start`` to :func:`hsref.project` in a loop whose inputs drift, as in training: the
    call starts from the working sets it finds here and leaves its own. The answers are those of a
    cold start to rounding (1e-12 relative), with the same certificates; only the steps are fewer.

    Attributes
    ----------
    record : Projection or None
        The last record.

    Notes
    -----
    A call with another batch shape, or onto another kind of set, starts cold, and is then what is
    remembered; a record passed as ``start`` itself raises in that case. Sample i starts from sample
    i, so keep one of these for each batch of a data set if batches are visited in turn. Pickles
    with its record. Not to be shared by threads that project at once.

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import Polyhedron, WarmStart, project
    >>> C = Polyhedron([[1.0, 1.0], [1.0, -1.0]], [1.0, 1.0])
    >>> memory = WarmStart()
    >>> for shift in (0.0, 0.01, 0.02):
    ...     y = project(np.array([[3.0, 1.0 + shift]]), C, start=memory)
    >>> memory.record.steps
    array([0], dtype=int32)
    """

    def __init__(self, record: Projection | None = None) -> None:
        if record is not None and not isinstance(record, Projection):
            raise TypeError(f"WarmStart holds a Projection record; got {type(record).__name__}.")
        self.record = record

    def __repr__(self) -> str:
        return f"WarmStart({self.record!r})"
