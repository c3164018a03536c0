"""What every set owes the rest of the house, and what it gets in return.

A set is an immutable description of a polyhedron. It supplies its parameters (:class:`DataField`),
a :class:`~hsref._batch.Kernel` with two per-point device functions, and ``to_polyhedron()``. In
return it is projected, differentiated, batched, validated and recorded by the shared rooms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _batch
from .._batch import Kernel, RawRecord
from .._codes import MASK_LOWER, MASK_UPPER
from .naming import enter

if TYPE_CHECKING:
    from .polyhedron import Polyhedron

CONTAINS_TOL = 1e-9


class InfeasibleError(ValueError):
    """The set is empty, so there is nothing to project onto.

    Attributes
    ----------
    certificate : Multipliers or None
        A Farkas vector: non-negative ``ub``, ``lower``, ``upper`` and free ``eq`` with
        ``A_ub' ub + A_eq' eq + upper - lower = 0`` and
        ``b_ub' ub + b_eq' eq + upper_bound' upper - lower_bound' lower < 0``, which no point can
        satisfy. :func:`hsref.theory.check_farkas` verifies it.
    index : tuple of int or None
        Batch index of the first infeasible sample.
    """

    def __init__(self, message: str, certificate: Any = None, index: Any = None) -> None:
        super().__init__(message)
        self.certificate = certificate
        self.index = index

    def __reduce__(self) -> Any:
        return (type(self), (self.args[0], self.certificate, self.index))


class Multipliers(NamedTuple):
    """Numbers attached to the constraints: ``A_ub``, ``A_eq``, ``lower`` and ``upper``."""

    ub: np.ndarray
    eq: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


class ConstraintFlags(NamedTuple):
    """Booleans attached to the inequality constraints, batch axes in front.

    Equalities are absent: they are always active.
    """

    ub: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    def any(self) -> np.ndarray:
        """Return one boolean a sample: whether any constraint is flagged."""
        batch = self.ub.ndim - 1
        flat = [f.reshape(*f.shape[:batch], -1).any(axis=-1) for f in self]
        return np.logical_or.reduce(flat)

    def count(self) -> np.ndarray:
        """Return the number of flagged constraints of each sample."""
        batch = self.ub.ndim - 1
        return sum(f.reshape(*f.shape[:batch], -1).sum(axis=-1) for f in self)  # type: ignore[return-value]


@dataclass(frozen=True)
class DataField:
    """A parameter of a set that may be replaced at the call, one value a sample if wanted.

    Attributes
    ----------
    name : str
        The constructor's name for it.
    shape : tuple of int
        Its shape for one sample.
    value : ndarray
        The value given at construction, float64.
    """

    name: str
    shape: tuple[int, ...]
    value: np.ndarray

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)


class PolyhedralSet:
    """Base class of all sets: shape, data, membership, intersection, and the record's decoding.

    Subclasses call :meth:`_freeze` at the end of ``__init__`` and implement :meth:`_make_kernel`
    and :meth:`to_polyhedron`. Instances are immutable, hash by identity, pickle and copy.
    """

    shape: tuple[int, ...]
    plain_kernel = True
    """Whether the compiled routines are the whole projection: they may then run on a CUDA device
    and inside other sets."""
    symmetric = True
    """Whether V is symmetric, as it is for every projection in the Euclidean norm."""
    force_of_metric = True
    """Whether the input is a point x, for which q = H x, or q itself."""
    _fields: tuple[DataField, ...]

    # -- construction ---------------------------------------------------------------------------

    def _freeze(self, *, shape: tuple[int, ...], fields: tuple[DataField, ...] = ()) -> None:
        """Fix the shape of a point and the replaceable data; no attribute changes afterwards."""
        for value in vars(self).values():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False
        for field in fields:
            field.value.flags.writeable = False
        self.__dict__.update(shape=shape, _fields=fields, _cache={}, _frozen=True, _key=enter(self))

    def __setattr__(self, name: str, value: Any) -> None:
        if self.__dict__.get("_frozen"):
            raise AttributeError(
                f"{type(self).__name__} is immutable: build a new set, or pass {name}=... to "
                "project() if it is one of the set's parameters."
            )
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_cache", "_key")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _cache={}, _key=enter(self))
        for value in state.values():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False

    def __repr__(self) -> str:
        inside = ", ".join(f"{f.name}={_brief(f.value)}" for f in self._fields)
        size = "x".join(map(str, self.shape))
        return f"{type(self).__name__}({size}{', ' if inside else ''}{inside})"

    # -- what a set owes ------------------------------------------------------------------------

    def _make_kernel(self) -> Kernel:
        raise NotImplementedError(f"{type(self).__name__} supplies no kernel.")

    def to_polyhedron(self) -> Polyhedron:
        """Return the same set as a general ``Polyhedron``, coordinates in C order."""
        raise NotImplementedError(f"{type(self).__name__} has no H-description.")

    def _check_data(self, data: Mapping[str, np.ndarray]) -> None:
        """Raise a sentence when replacing data is malformed; shapes have been checked."""

    def _for_data(self, names: frozenset[str]) -> PolyhedralSet:
        """Return the set to solve with when the parameters `names` are replaced at the call."""
        known = [f.name for f in self._fields]
        unknown = sorted(names - set(known))
        if unknown:
            raise TypeError(
                f"{type(self).__name__} has no parameter {unknown[0]!r} that a call could replace; "
                f"it has {', '.join(known) if known else 'none'}."
            )
        return self

    def _with_data(self, data: Mapping[str, np.ndarray]) -> PolyhedralSet:
        """Return the set in which the given parameters (of one sample) are fixed.

        Only called to explain a sample that failed. The default goes through the constructor's
        names.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot be rebuilt with other data.")

    def _rows_transpose(self, ub: np.ndarray, eq: np.ndarray) -> np.ndarray:
        """Return ``A_ub' ub + A_eq' eq`` with batch axes kept and the point flat."""
        rows = self._polyhedron
        out = np.zeros((*ub.shape[:-1], self.size))
        if rows.A_ub is not None:
            out += ub @ rows.A_ub
        if rows.A_eq is not None:
            out += eq @ rows.A_eq
        return out

    def _with_matrices(
        self,
        matrices: Mapping[str, np.ndarray],
        data: Mapping[str, Any],
        batch_shape: tuple[int, ...],
    ) -> tuple[PolyhedralSet, dict[str, Any]]:
        """Return the set with other matrices, with or without batch axes, and the data left."""
        known = [f.name for f in self._fields]
        raise TypeError(
            f"{type(self).__name__} has no parameter {next(iter(matrices))!r} that a call could "
            f"replace; it has {', '.join(known) if known else 'none'}."
        )

    def _run(
        self, x: np.ndarray, data: np.ndarray, active_tol: float, *, keep: bool,
        n_threads: int | None, start: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> RawRecord:  # fmt: skip
        """Project the rows of x; arguments as :func:`hsref._batch.run_project`."""
        return _batch.run_project(
            self.kernel, x, data, active_tol, keep=keep, n_threads=n_threads, start=start
        )

    def _run_hs(
        self, raw: RawRecord, data: np.ndarray, mask: int, g: np.ndarray, n_threads: int | None,
        transpose: bool = False,
    ) -> np.ndarray:  # fmt: skip
        """Return V g for rows g, shape (R * B, N); V is symmetric unless a set says otherwise."""
        return _batch.run_hs(self.kernel, raw, data, mask, g, n_threads)

    def _all_rows(self) -> np.ndarray:
        """Return [A_eq; A_ub], shape (1 or B, p + m, n), of a set whose matrices may be given."""
        raise TypeError(f"{type(self).__name__} has no matrices to differentiate in.")

    def _basis_flags(self, raw: RawRecord) -> tuple[np.ndarray, ConstraintFlags]:
        """Return an independent basis of the active rows that holds the working set.

        Equalities (B, p) and the others, for the sets that have `_all_rows`.
        """
        raise TypeError(f"{type(self).__name__} has no matrices to differentiate in.")

    def _metric(self) -> np.ndarray | None:
        """Return H, (1 or B, n) or (1 or B, n, n), of a projection in another norm; else None."""
        return None

    def _force(self, x: Any, times: Any) -> Any:
        """Return q for the objective y'Hy/2 - q'y that the input x stands for; times(x) = H x."""
        return times(x) if self.force_of_metric else x

    def _accepts_start(self, other: PolyhedralSet) -> bool:
        """Return whether working sets of a record onto `other` have a meaning here."""
        return (
            other.kernel.project_point is self.kernel.project_point
            and other._row_counts() == self._row_counts()
            and other.kernel.code_size == self.kernel.code_size
            and (other._metric() is None) == (self._metric() is None)
        )

    # -- derivatives in the data: a set with a closed form overrides these three ----------------

    def _check_data_rule(self, names: tuple[str, ...]) -> None:
        """Raise a sentence for the first of the parameters `names` without a derivative."""
        from .data_rule import check_rule

        check_rule(self, names)

    def _data_pull(
        self, raw: RawRecord, data: Mapping[str, np.ndarray], g: np.ndarray, names: tuple[str, ...]
    ) -> dict[str, np.ndarray]:
        """Return cotangents (L, B, *shape) of the parameters `names`, for g of shape (L, B, n).

        The rows used are an independent basis of the active ones that holds the working set.
        Samples that were not solved may get anything; the caller sets them to 0.
        """
        from .data_rule import pull_through_rows

        return pull_through_rows(self, raw, g, names)

    def _data_push(
        self, raw: RawRecord, data: Mapping[str, np.ndarray], tangents: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """Return dy, (L, B, n), for tangents (L, B, *shape): the transpose of `_data_pull`."""
        from .data_rule import push_through_rows

        return push_through_rows(self, raw, tangents)

    # -- what a set gets ------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Number of entries of a point."""
        return math.prod(self.shape)

    @property
    def kernel(self) -> Kernel:
        """The compiled-side description of this set, built once."""
        return self._cached("kernel", self._make_kernel)

    @property
    def _polyhedron(self) -> Polyhedron:
        return self._cached("polyhedron", self.to_polyhedron)

    def _cached(self, key: str, make: Any) -> Any:
        cache = self.__dict__["_cache"]
        if key not in cache:
            cache[key] = make()
        return cache[key]

    @property
    def _data_row(self) -> np.ndarray:
        """All parameters of the set in one row, shape (1, P)."""

        def pack() -> np.ndarray:
            parts = [f.value.reshape(-1) for f in self._fields]
            return np.concatenate([*parts, np.zeros(0 if parts else 1)]).reshape(1, -1)

        return self._cached("data_row", pack)

    @property
    def dim(self) -> int:
        """Affine dimension of the set."""
        return self._cached("interior", self._find_interior)[1]

    def interior_point(self) -> np.ndarray:
        """Return a point of the relative interior, float64, in the shape of a point.

        Raises
        ------
        InfeasibleError
            The set is empty.
        """
        return self._cached("interior", self._find_interior)[0].copy()

    def _find_interior(self) -> tuple[np.ndarray, int]:
        from .interior import relative_interior

        point, dim = relative_interior(self._polyhedron)
        return point.reshape(self.shape), dim

    def contains(self, y: Any, tol: float = CONTAINS_TOL) -> Any:
        """Tell whether points satisfy every constraint up to a relative tolerance.

        Parameters
        ----------
        y : array_like, shape (*batch, *shape)
            Points. Not modified.
        tol : float
            Largest violation allowed, relative to the norm of a row times the largest entry of y,
            plus its right-hand side.

        Returns
        -------
        bool or ndarray of bool, shape (*batch,)
            NaN is contained in nothing.
        """
        points = np.asarray(y, dtype=np.float64)
        batch = points.ndim - len(self.shape)
        if batch < 0 or points.shape[batch:] != self.shape:
            raise ValueError(
                f"a point of this set has shape {self.shape}; got an array of shape "
                f"{points.shape}, whose last axes do not match."
            )
        flat = points.reshape(*points.shape[:batch], self.size)
        inside = self._violation(flat, {}) <= tol
        return bool(inside) if batch == 0 else inside

    def __and__(self, other: Any) -> PolyhedralSet:
        if not isinstance(other, PolyhedralSet):
            return NotImplemented
        from .intersection import intersect

        return intersect(self, other)

    # -- decoding a record ----------------------------------------------------------------------
    # Arrays carry one flattened batch axis in front; `data` maps names to (B or 1, *shape).

    def _row_counts(self) -> tuple[int, int]:
        """Return (m, p), the number of rows of ``A_ub`` and ``A_eq``."""
        rows = self._polyhedron
        return (
            0 if rows.A_ub is None else rows.A_ub.shape[0],
            0 if rows.A_eq is None else rows.A_eq.shape[0],
        )

    def _flags(self, code: np.ndarray, mask: int) -> ConstraintFlags:
        m, p = self._row_counts()
        bounds = code[:, m + p :]
        return ConstraintFlags(
            code[:, :m] & mask != 0,
            bounds & (mask & MASK_LOWER) != 0,
            bounds & (mask & MASK_UPPER) != 0,
        )

    def _multipliers(self, record: Any, x: np.ndarray, data: Mapping[str, Any]) -> Multipliers:
        """Return the multipliers; those of the bounds follow from x - y - A'lambda."""
        m, _ = self._row_counts()
        ub, eq = record.dual[:, :m], record.dual[:, m:]
        rest = x.astype(np.float64) - record.y - self._rows_transpose(ub, eq)
        flags = self._flags(record.code, MASK_LOWER | MASK_UPPER)
        return Multipliers(
            ub,
            eq,
            np.where(flags.lower, np.maximum(-rest, 0.0), 0.0),
            np.where(flags.upper, np.maximum(rest, 0.0), 0.0),
        )

    def _residual_rows(self, data: Mapping[str, np.ndarray]) -> Rows:
        """Return the H-description; `data` holds what the call replaced, (B or 1, *shape) each.

        The default rebuilds the set sample by sample; sets whose rows have a simple form override
        it.
        """
        rows = self._polyhedron
        if not data:
            return Rows(rows.A_ub, rows.b_ub, rows.A_eq, rows.b_eq, rows.lower, rows.upper)
        batch = max(len(v) for v in data.values())
        each = [
            self._with_data({k: v[i % len(v)] for k, v in data.items()}).to_polyhedron()
            for i in range(batch)
        ]

        def stack(name: str) -> np.ndarray | None:
            values = [getattr(one, name) for one in each]
            return None if values[0] is None else np.stack(values)

        return Rows(
            rows.A_ub, stack("b_ub"), rows.A_eq, stack("b_eq"), stack("lower"), stack("upper")
        )

    def _residuals(
        self, x: np.ndarray, y: np.ndarray, found: Multipliers, data: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (primal, dual, complementarity) of flat samples; see ``hsref.Residuals``."""
        size = np.maximum(np.abs(x).max(axis=-1, initial=0), np.abs(y).max(axis=-1, initial=0))
        carried = self._rows_transpose(found.ub, found.eq)
        rest = x - y - carried - found.upper + found.lower
        force = size + np.abs(carried).max(axis=-1, initial=0.0)
        dual = np.abs(rest).max(axis=-1, initial=0.0) / np.where(force > 0.0, force, 1.0)
        rows = self._residual_rows(data)
        return rows.violation(y, size), dual, rows.complementarity(y, found, size)

    def _certificate(
        self, record: Any, sample: int, data: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the Farkas vector (ub, eq, lower, upper) of one infeasible sample."""
        from ..solve import projection

        one = {k: v[sample % len(v)] for k, v in data.items()}
        rows = (self._with_data(one) if one else self).to_polyhedron()
        found = projection(np.zeros(rows.size), rows, on_infeasible="nan").certificate
        if found is None:
            raise RuntimeError(
                f"{type(self).__name__} declared sample {sample} infeasible, the general solver "
                "did not: please report this set and this x."
            )
        return found.ub, found.eq, found.lower, found.upper

    def _warm_start(self, record: Any) -> tuple[np.ndarray, np.ndarray] | None:
        """Return (offsets, ids) of a previous record's working sets, or None if unused."""
        return None

    @classmethod
    def examples(cls) -> tuple[PolyhedralSet, ...]:
        """Return small instances, degenerate ones included, for the checks that visit all sets."""
        raise NotImplementedError(f"{cls.__name__} supplies no examples.")

    @classmethod
    def _kernel_examples(cls) -> tuple[PolyhedralSet, ...]:
        """Return instances that between them have every kernel of the class."""
        return cls.examples()

    forward_cost = "unstated"
    backward_cost = "unstated"

    def _violation(
        self,
        y: np.ndarray,
        data: Mapping[str, np.ndarray],
        scale: np.ndarray | float = 0.0,
    ) -> np.ndarray:
        """Return the largest relative constraint violation of flat points (nan if y is)."""
        return self._residual_rows(data).violation(y, scale)


class Rows(NamedTuple):
    """An H-description whose right-hand sides may have a batch axis in front.

    The matrices may be SciPy's sparse arrays.
    """

    A_ub: Any
    b_ub: np.ndarray | None
    A_eq: Any
    b_eq: np.ndarray | None
    lower: np.ndarray | None
    upper: np.ndarray | None

    def violation(self, y: np.ndarray, scale: np.ndarray | float = 0.0) -> np.ndarray:
        """Return max over constraints of violation / (|right-hand side| + row norm * size).

        ``size`` is the largest entry of y, or `scale` (per sample) if that is larger. The quotient
        does not change when a row is multiplied by a number, or when the data and y are.
        """
        size = np.maximum(np.max(np.abs(y), axis=-1, initial=0.0), scale)[..., None]
        worst = np.where(np.isnan(y).any(axis=-1), np.nan, 0.0)
        parts = []
        if self.A_ub is not None and self.b_ub is not None:
            parts.append((y @ self.A_ub.T - self.b_ub, self.b_ub, _norms(self.A_ub)))
        if self.A_eq is not None and self.b_eq is not None:
            parts.append((np.abs(y @ self.A_eq.T - self.b_eq), self.b_eq, _norms(self.A_eq)))
        if self.lower is not None:
            parts.append((self.lower - y, self.lower, np.ones(y.shape[-1])))
        if self.upper is not None:
            parts.append((y - self.upper, self.upper, np.ones(y.shape[-1])))
        for excess, rhs, norm in parts:
            reach = np.where(np.isfinite(rhs), np.abs(rhs), 0.0) + norm * size
            ratio = np.maximum(excess, 0.0) / np.where(reach > 0.0, reach, 1.0)
            worst = np.maximum(worst, ratio.max(axis=-1, initial=0.0))
        return worst

    def complementarity(self, y: np.ndarray, found: Multipliers, size: np.ndarray) -> np.ndarray:
        """Return max over inequalities of (multiplier / size) * (slack / reach)."""
        size = np.where(size > 0.0, size, 1.0)[..., None]
        worst = np.zeros(y.shape[:-1])
        one = np.ones(y.shape[-1])
        parts = []
        if self.A_ub is not None and self.b_ub is not None:
            parts.append((found.ub, self.b_ub - y @ self.A_ub.T, self.b_ub, _norms(self.A_ub)))
        if self.lower is not None:
            parts.append((found.lower, y - self.lower, self.lower, one))
        if self.upper is not None:
            parts.append((found.upper, self.upper - y, self.upper, one))
        for multiplier, slack, rhs, norm in parts:
            reach = np.where(np.isfinite(rhs), np.abs(rhs), 0.0) + norm * size
            open_ = np.where((multiplier == 0.0) | ~np.isfinite(slack), 0.0, np.abs(slack))
            product = np.abs(multiplier) * norm / size * open_ / np.where(reach > 0.0, reach, 1.0)
            worst = np.maximum(worst, product.max(axis=-1, initial=0.0))
        return worst


def _norms(matrix: Any) -> np.ndarray:
    if isinstance(matrix, np.ndarray):
        return np.linalg.norm(matrix, axis=1)
    return np.sqrt(matrix.power(2).sum(axis=1))


def as_parameter(value: Any, name: str, shape: tuple[int, ...], finite: bool = True) -> np.ndarray:
    """Return `value` as a float64 array broadcast to `shape`, or raise a sentence.

    Parameters
    ----------
    value : array_like
        What the user gave. Not modified; the result is a copy.
    name : str
        The parameter's name, for the message.
    shape : tuple of int
        The shape it must broadcast to.
    finite : bool
        Whether infinities are refused; NaN always is.
    """
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as problem:
        raise TypeError(f"{name} must be real numbers; got {type(value).__name__}.") from problem
    try:
        array = np.array(np.broadcast_to(array, shape))
    except ValueError as problem:
        raise ValueError(
            f"{name} has shape {array.shape}; expected {shape} or something that broadcasts to it."
        ) from problem
    bad = ~np.isfinite(array) if finite else np.isnan(array)
    if bad.any():
        first = tuple(int(k) for k in np.argwhere(bad)[0])
        where = f" at index {first}" if first else ""
        raise ValueError(f"{name} must be {'finite' if finite else 'a number'}; got "
                         f"{array[first]}{where}.")  # fmt: skip
    return array


def as_count(value: Any, name: str) -> int:
    """Return `value` as a positive integer, or raise a sentence."""
    try:
        count = int(value)
        whole = count == value
    except (TypeError, ValueError, OverflowError):
        whole, count = False, 0
    if not whole or isinstance(value, bool) or count < 1:
        raise ValueError(f"{name} must be a positive integer; got {value!r}.")
    return count


def _brief(value: np.ndarray) -> str:
    if value.ndim == 0:
        return f"{float(value):g}"
    if value.size <= 6:
        return np.array2string(value, separator=", ", precision=6).replace("\n", "")
    return f"<{'x'.join(map(str, value.shape))} array>"
