r"""The general polyhedron, given by inequalities, equalities and bounds.

.. math:: C = \{ y \in R^n : A_{ub} y \le b_{ub},\ A_{eq} y = b_{eq},\ lower \le y \le upper \}

Everything that depends on the rows alone is computed once, when a set is first projected onto:
rows are scaled to norm 1, an orthonormal basis of the equality rows is found, and the inequalities
are reduced to what remains of them on the equalities. Right-hand sides enter only at the call, so
they may differ from sample to sample. The solver is :mod:`hsref.sets.dual_active_set`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._batch import Kernel, RawRecord
from .._codes import INFO_TAPE_INTS
from .base import (
    ConstraintFlags,
    DataField,
    Multipliers,
    PolyhedralSet,
    Rows,
    as_count,
    as_parameter,
)
from .polyhedron_data import PULL, PUSH, run_rhs
from .polyhedron_kernel import polyhedron_hs, polyhedron_project
from .row_reduction import Reduction, reduce_rows
from .working_set import FLOATS, INTS, MOST


class Polyhedron(PolyhedralSet):
    r"""The set of points that satisfy linear inequalities, equalities and bounds.

    .. math:: C = \{ y \in R^n : A_{ub} y \le b_{ub},\ A_{eq} y = b_{eq},\ lower \le y \le upper \}

    Parameters
    ----------
    A_ub : array_like, shape (m, n), optional
        Rows of the inequalities. Not modified, nor are the others.
    b_ub : array_like, shape (m,), optional
        Their right-hand sides; ``+inf`` makes a row void. May be replaced at the call.
    A_eq : array_like, shape (p, n), optional
        Rows of the equalities.
    b_eq : array_like, shape (p,), optional
        Their right-hand sides. May be replaced at the call.
    lower, upper : float or array_like, shape (n,), optional
        Bounds, infinite where there is none; ``lower == upper`` allowed. Unlike
        :func:`scipy.optimize.linprog`, no bound unless given. May be replaced at the call.
    n : int, optional
        Length of a point; needed when no matrix and no array of bounds tells it.

    Raises
    ------
    ValueError
        Shapes disagree, an entry is NaN, a matrix is not finite, ``b_ub`` holds ``-inf``, a lower
        bound exceeds its upper bound, or nothing tells the length of a point.
    TypeError
        A right-hand side comes without its matrix or the other way round.

    Notes
    -----
    Dependent, duplicated, scaled, opposite and zero rows, and redundant equalities, are ordinary
    input. Set-up costs O((m + p) n (m + p) + n^2 p) once. A projection costs about s k (m + k) with
    s steps and k working rows, plus (m + p) n; an HS product k (2 n + k). An empty set is found
    when it is projected onto, with a Farkas certificate.

    References
    ----------
    Goldfarb and Idnani, "A numerically stable dual method for solving strictly convex quadratic
    programs", Mathematical Programming 27 (1983).

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import Polyhedron, projection
    >>> C = Polyhedron(A_ub=[[1.0, 1.0]], b_ub=[1.0], lower=0.0)
    >>> p = projection(np.array([2.0, 1.5]), C)
    >>> p.y, p.multipliers.ub
    (array([0.75, 0.25]), array([1.25]))
    """

    forward_cost = "(m + p) n + steps k (m + k), k working rows"
    backward_cost = "k (2 n + k)"

    def __init__(
        self,
        A_ub: Any = None,
        b_ub: Any = None,
        A_eq: Any = None,
        b_eq: Any = None,
        lower: Any = None,
        upper: Any = None,
        *,
        n: int | None = None,
    ) -> None:
        ub, eq = _matrix(A_ub, "A_ub"), _matrix(A_eq, "A_eq")
        _check_pair(A_ub, b_ub, "ub")
        _check_pair(A_eq, b_eq, "eq")
        size = _point_length(n, ub, eq, lower, upper)
        self.A_ub, self.A_eq = ub, eq
        self.b_ub = None if ub is None else as_parameter(b_ub, "b_ub", (len(ub),), finite=False)
        self.b_eq = None if eq is None else as_parameter(b_eq, "b_eq", (len(eq),))
        self.lower = None if lower is None else as_parameter(lower, "lower", (size,), finite=False)
        self.upper = None if upper is None else as_parameter(upper, "upper", (size,), finite=False)
        fields = []
        for name, value in (("b_ub", self.b_ub), ("b_eq", self.b_eq)):
            if value is not None:
                fields.append(DataField(name, value.shape, value))
        if lower is not None or upper is not None:
            below = np.full(size, -np.inf) if self.lower is None else self.lower
            above = np.full(size, np.inf) if self.upper is None else self.upper
            fields.append(DataField("lower", (size,), below))
            fields.append(DataField("upper", (size,), above))
        self._check_data({f.name: f.value for f in fields})
        self._freeze(shape=(size,), fields=tuple(fields))

    @classmethod
    def examples(cls) -> tuple[Polyhedron, ...]:
        """Return a generic set and degenerate ones: dependent rows, no interior, a point, R^2."""
        square = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
        return (
            cls([[1.0, 2.0, -1.0], [-2.0, 1.0, 1.0]], [2.0, 1.0], [[1.0, 1.0, 1.0]], [1.0],
                lower=0.0),
            cls(np.vstack([square, 2 * square, [[1.0, 1.0], [0.0, 0.0]]]),
                [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 0.0]),
            cls([[1.0, 1.0], [-1.0, -1.0], [1.0, -3.0]], [1.0, -1.0, np.inf], upper=[3.0, np.inf]),
            cls(A_eq=[[1.0, 0.0], [1.0, 1.0], [2.0, 1.0]], b_eq=[1.0, 3.0, 4.0]),
            cls(n=2),
        )  # fmt: skip

    def to_polyhedron(self) -> Polyhedron:
        """Return this set itself."""
        return self

    # -- data replaced at the call --------------------------------------------------------------

    def _check_data(self, data: Mapping[str, np.ndarray]) -> None:
        sides = data.get("b_ub")
        if sides is not None and np.any(sides == -np.inf):
            where = tuple(int(k) for k in np.argwhere(sides == -np.inf)[0])
            raise ValueError(
                f"b_ub must not be -inf, which no point satisfies; it is at index {where}."
            )
        sides = data.get("b_eq")
        if sides is not None and not np.all(np.isfinite(sides)):
            where = tuple(int(k) for k in np.argwhere(~np.isfinite(sides))[0])
            raise ValueError(f"b_eq must be finite; it is {sides[where]} at index {where}.")
        own = {f.name: f.value for f in getattr(self, "_fields", ())}
        lower = data.get("lower", own.get("lower"))
        upper = data.get("upper", own.get("upper"))
        if lower is None or upper is None:
            return
        # At a call, crossed bounds make one sample empty: the solver says so, with a certificate.
        at_call = np.ndim(lower) > 1 or np.ndim(upper) > 1
        crossed = (lower > upper) & (not at_call)
        wrong = np.argwhere(crossed | (lower == np.inf) | (upper == -np.inf))
        if len(wrong):
            where = tuple(int(k) for k in wrong[0])
            low, high = np.broadcast_arrays(lower, upper)
            shown = where[0] if len(where) == 1 else where
            raise ValueError(
                f"lower must not exceed upper: at index {shown} lower is {low[where]} and upper is "
                f"{high[where]}."
            )

    def _for_data(self, names: frozenset[str]) -> PolyhedralSet:
        bounds = names & {"lower", "upper"}
        if bounds and self.lower is None and self.upper is None:
            with_bounds = self._cached(
                "with_bounds",
                lambda: Polyhedron(
                    self.A_ub, self.b_ub, self.A_eq, self.b_eq, -np.inf, np.inf, n=self.size
                ),
            )
            return with_bounds._for_data(names)
        return super()._for_data(names)

    def _with_data(self, data: Mapping[str, np.ndarray]) -> Polyhedron:
        def get(name: str) -> Any:
            return data.get(name, getattr(self, name))

        return Polyhedron(
            self.A_ub, get("b_ub"), self.A_eq, get("b_eq"), get("lower"), get("upper"), n=self.size
        )

    def _residual_rows(self, data: Mapping[str, np.ndarray]) -> Rows:
        def get(name: str) -> Any:
            return data.get(name, getattr(self, name))

        return Rows(self.A_ub, get("b_ub"), self.A_eq, get("b_eq"), get("lower"), get("upper"))

    def _all_rows(self) -> np.ndarray:
        """Return [A_eq; A_ub] with a batch axis in front, shape (1, p + m, n)."""
        none = np.zeros((0, self.size))
        parts = [none if rows is None else rows for rows in (self.A_eq, self.A_ub)]
        return np.concatenate(parts)[None]

    def _basis_flags(self, raw: RawRecord) -> tuple[np.ndarray, ConstraintFlags]:
        m, p = self._row_counts()
        n, batch = self.size, len(raw.status)
        flags = np.zeros((batch, m + p + 2 * n), bool)
        has = np.flatnonzero(raw.info[:, INFO_TAPE_INTS] >= 3)
        first = raw.at_i[:-1][has]
        count = raw.tape_i[first + 2].astype(np.int64)
        place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        flags[np.repeat(has, count), raw.tape_i[np.repeat(first + 3, count) + place]] = True
        eq = np.zeros((batch, p), bool)
        eq[:, self._reduction.eq_ids[: len(self._reduction.basis)]] = True
        ends = (m, m + p, m + p + n)
        ub, _, lower, upper = np.split(flags, ends, axis=1)
        return eq, ConstraintFlags(ub, lower, upper)

    def _with_matrices(
        self,
        matrices: Mapping[str, np.ndarray],
        data: Mapping[str, Any],
        batch_shape: tuple[int, ...],
    ) -> tuple[PolyhedralSet, dict[str, Any]]:
        from .family import with_matrices

        return with_matrices(self, matrices, data, batch_shape)

    # -- solving --------------------------------------------------------------------------------

    @property
    def _reduction(self) -> Reduction:
        return self._cached("reduction", lambda: reduce_rows(self))

    def _row_counts(self) -> tuple[int, int]:
        return (
            0 if self.A_ub is None else len(self.A_ub),
            0 if self.A_eq is None else len(self.A_eq),
        )

    def _make_kernel(self) -> Kernel:
        m, p = self._row_counts()
        n = self.size
        reduction = self._reduction
        k_e = len(reduction.basis)
        most = int(reduction.layout[MOST])
        return Kernel(
            "Polyhedron",
            polyhedron_project,
            polyhedron_hs,
            size=n,
            code_size=m + p + n,
            dual_size=0,
            work_size=int(reduction.layout[FLOATS]),
            iwork_size=int(reduction.layout[INTS]),
            hs_work_size=3 * n + k_e,
            hs_iwork_size=n,
            shared=tuple(reduction),
            methods=("dual active set",),
            tape_floats=max(most * (most + 1) // 2 + most, m + p + n),
            tape_ints=3 + most,
            cost=2.0 * (m + p) * n + 0.5 * most * most * (m + most),
            hs_cost=2.0 * n * (most + k_e) + 1.0 * most * most,
        )

    def _warm_start(self, record: RawRecord) -> tuple[np.ndarray, np.ndarray] | None:
        counts = np.zeros(len(record.status), np.int64)
        has = record.info[:, INFO_TAPE_INTS] >= 3
        first = record.at_i[:-1]
        counts[has] = record.tape_i[first[has] + 1]
        offsets = np.concatenate(([0], np.cumsum(counts)))
        take = np.repeat(first + 3 - offsets[:-1], counts) + np.arange(offsets[-1])
        return offsets, record.tape_i[take]

    def _check_data_rule(self, names: tuple[str, ...]) -> None:
        pass

    def _data_pull(
        self, raw: RawRecord, data: Mapping[str, np.ndarray], g: np.ndarray, names: tuple[str, ...]
    ) -> dict[str, np.ndarray]:
        lead, batch, n = g.shape
        sizes = [f.size for f in self._fields]
        found = run_rhs(
            PULL, self.kernel.shared, raw, g.reshape(-1, n), sum(sizes), self.kernel.hs_cost
        )
        parts = np.split(found, np.cumsum(sizes)[:-1], axis=1)
        return {
            f.name: part.reshape((lead, batch, *f.shape))
            for f, part in zip(self._fields, parts, strict=True)
        }

    def _data_push(
        self, raw: RawRecord, data: Mapping[str, np.ndarray], tangents: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        lead, batch = next(iter(tangents.values())).shape[:2]
        rows = [
            np.broadcast_to(tangents.get(f.name, 0.0), (lead, batch, *f.shape))
            for f in self._fields
        ]
        flat = np.concatenate(rows, axis=-1).reshape(lead * batch, -1)
        found = run_rhs(PUSH, self.kernel.shared, raw, flat, self.size, self.kernel.hs_cost)
        return found.reshape(lead, batch, self.size)

    # -- decoding a record ----------------------------------------------------------------------

    def _multipliers(
        self, record: RawRecord, x: np.ndarray, data: Mapping[str, np.ndarray]
    ) -> Multipliers:
        m, p = self._row_counts()
        n, batch = self.size, len(record.status)
        reduction = self._reduction
        signed = np.zeros((batch, m + n))
        has = np.flatnonzero(record.info[:, INFO_TAPE_INTS] >= 3)
        first = record.at_i[:-1][has]
        working = record.tape_i[first + 1].astype(np.int64)
        sample = np.repeat(has, working)
        place = np.arange(working.sum()) - np.repeat(np.cumsum(working) - working, working)
        number = record.tape_i[np.repeat(first + 3, working) + place]
        # The multipliers are the last numbers of a sample's tape.
        value = record.tape_f[np.repeat(record.at_f[1:][has] - working, working) + place]
        row = np.where(number < m, number, m + (number - m - p) % n)
        scale = np.concatenate([reduction.row_inv[1], reduction.coord_inv[:n]])
        signed[sample, row] = value * scale[row]
        normalised, bounds = signed[:, :m], signed[:, m:]
        ub = normalised * reduction.row_inv[0]
        # What is left of x - y is a combination of the equality rows; its coefficients follow from
        # the orthonormal basis of their row space.
        rest = x.astype(np.float64) - record.y - normalised @ reduction.columns.T - bounds
        eq = np.zeros((batch, p))
        k_e = len(reduction.basis)
        weights = (rest @ reduction.basis.T) @ reduction.eq_inverse
        eq[:, reduction.eq_ids[:k_e]] = weights * reduction.eq_inv[:k_e]
        return Multipliers(ub, eq, np.maximum(-bounds, 0.0), np.maximum(bounds, 0.0))

    def _certificate(
        self, record: RawRecord, sample: int, data: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        m, p = self._row_counts()
        crossed = crossed_bounds(
            *(data[f.name][sample % len(data[f.name])] if f.name in data else f.value
              for f in self._fields if f.name in ("lower", "upper"))
        )  # fmt: skip
        if crossed is not None:
            # The tape holds one signed number a coordinate, and this needs both its bounds.
            return np.zeros(m), np.zeros(p), crossed, crossed.copy()
        numbers = record.tape_f[record.at_f[sample] : record.at_f[sample + 1]]
        signed = numbers[m + p :]
        return numbers[:m], numbers[m : m + p], np.maximum(-signed, 0.0), np.maximum(signed, 0.0)

    def _rows_transpose(self, ub: np.ndarray, eq: np.ndarray) -> np.ndarray:
        out = np.zeros((*ub.shape[:-1], self.size))
        if self.A_ub is not None:
            out += ub @ self.A_ub
        if self.A_eq is not None:
            out += eq @ self.A_eq
        return out


def crossed_bounds(*bounds: np.ndarray) -> np.ndarray | None:
    """Return e_j for the first j with lower_j > upper_j, or None.

    y_j <= upper_j and -y_j <= -lower_j then add up to 0 <= upper_j - lower_j < 0, so that e_j is
    the ``lower`` and the ``upper`` of a Farkas vector.
    """
    if not bounds:
        return None
    lower, upper = bounds
    wrong = np.flatnonzero(lower > upper)
    if not wrong.size:
        return None
    unit = np.zeros(lower.size)
    unit[wrong[0]] = 1.0
    return unit


def _matrix(value: Any, name: str) -> np.ndarray | None:
    if value is None:
        return None
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as problem:
        raise TypeError(f"{name} must be a matrix of real numbers: {problem}.") from problem
    if array.ndim != 2:
        raise ValueError(
            f"{name} must have two axes, (rows, coordinates); its shape is {array.shape}."
        )
    if not np.all(np.isfinite(array)):
        where = tuple(int(k) for k in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{name} must be finite; it is {array[where]} at index {where}.")
    return array


def _check_pair(matrix: Any, side: Any, kind: str) -> None:
    if (matrix is None) != (side is None):
        given, missing = (f"A_{kind}", f"b_{kind}") if side is None else (f"b_{kind}", f"A_{kind}")
        raise TypeError(f"{given} needs {missing}: give both or neither.")


def _point_length(
    n: Any, ub: np.ndarray | None, eq: np.ndarray | None, lower: Any, upper: Any
) -> int:
    told = {}
    if n is not None:
        told["n"] = as_count(n, "n")
    for name, matrix in (("A_ub", ub), ("A_eq", eq)):
        if matrix is not None:
            told[f"the columns of {name}"] = matrix.shape[1]
    for name, bound in (("lower", lower), ("upper", upper)):
        if bound is not None and np.ndim(bound) == 1:
            told[name] = len(bound)
    if not told:
        raise ValueError("Polyhedron needs n=..., the length of a point: nothing else tells it.")
    if len(set(told.values())) > 1:
        listed = ", ".join(f"{name}: {length}" for name, length in told.items())
        raise ValueError(f"the parts of a Polyhedron disagree on the length of a point ({listed}).")
    return as_count(next(iter(told.values())), "the length of a point")
