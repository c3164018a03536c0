r"""The general polyhedron, given by inequalities, equalities and bounds.

.. math:: C = \{ y \in R^n : A_{ub} y \le b_{ub},\ A_{eq} y = b_{eq},\ lower \le y \le upper \}

Three methods solve it; :func:`hsref.sets.polyhedron_methods.choose_method` picks one by the set
alone, and the record says which ran (``p.method``).

- *bounds eliminated* (:mod:`hsref.sets.eliminated_bounds`): bounds, and few or sparse rows;
- *block active set* (:mod:`hsref.sets.block_active_set`): many dense rows without bounds;
- *dual active set* (:mod:`hsref.sets.dual_active_set`): everything else.

What depends on the rows alone is computed once, when a set is first projected onto
(:mod:`hsref.sets.row_reduction`). Right-hand sides and bounds enter only at the call, so they may
differ from sample to sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._batch import Kernel, RawRecord
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
from .polyhedron_methods import ELIMINATED, Method, choose_method, row_counts
from .row_reduction import check_row_sizes


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
    input. An empty set is found when it is projected onto, with a Farkas certificate.

    The set chooses its algorithm, by its rows and whether it has bounds. With bounds and few rows
    (up to n / 5) or sparse ones (up to n / 2) the bounds are eliminated: a few Newton steps on the
    multipliers of the rows, each a visit of their nonzero entries plus k^3 / 6 for k rows; an HS
    product visits the entries and adds k^2. Otherwise a dual active set: s k (m + k) with s steps
    and k working rows, plus (m + p) n; an HS product k (2 n + k). Without bounds and with many
    dense rows it begins with block exchanges, which makes s a handful. Set-up costs
    O((m + p) n (m + p) + n^2 p) once, O((m + p) n p) where bounds are eliminated.

    References
    ----------
    Goldfarb and Idnani, "A numerically stable dual method for solving strictly convex quadratic
    programs", Mathematical Programming 27 (1983). Portugal, Judice and Vicente, "A comparison of
    block pivoting and interior-point algorithms for linear least squares problems with nonnegative
    variables", Mathematics of Computation 63 (1994).

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import Polyhedron, projection
    >>> C = Polyhedron(A_ub=[[1.0, 1.0]], b_ub=[1.0], lower=0.0)
    >>> p = projection(np.array([2.0, 1.5]), C)
    >>> p.y, p.multipliers.ub
    (array([0.75, 0.25]), array([1.25]))
    """

    forward_cost = "(m + p) n + steps k (m + k), k working rows; sparse: steps (entries + k^3)"
    backward_cost = "k (2 n + k); sparse: entries + k^2"

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
        check_row_sizes(ub, "A_ub")
        check_row_sizes(eq, "A_eq")
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
        """Return sets for every method, generic and degenerate: dependent rows, a point, R^2."""
        square = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
        sums = np.vstack([np.kron(np.eye(4), np.ones(4)), np.kron(np.ones(4), np.eye(4))])
        return (
            cls([[1.0, 2.0, -1.0], [-2.0, 1.0, 1.0]], [2.0, 1.0], [[1.0, 1.0, 1.0]], [1.0],
                lower=0.0),
            cls(np.vstack([square, 2 * square, [[1.0, 1.0], [0.0, 0.0]]]),
                [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 0.0]),
            cls([[1.0, 1.0], [-1.0, -1.0], [1.0, -3.0]], [1.0, -1.0, np.inf], upper=[3.0, np.inf]),
            cls(A_eq=[[1.0, 0.0], [1.0, 1.0], [2.0, 1.0]], b_eq=[1.0, 3.0, 4.0]),
            cls(n=2),
            # Bounds eliminated: doubly stochastic matrices, every vertex of which is degenerate.
            cls(A_eq=sums, b_eq=np.ones(8), lower=0.0),
            # Block active set: sequences that rise by at most 1 from one entry to the next.
            cls(np.diff(np.eye(49), axis=0), np.ones(48)),
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
        return self._method.basis_flags(self, raw)

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
    def _method(self) -> Method:
        return self._cached("method", lambda: choose_method(self))

    def _solve_by(self, method: Method) -> None:
        """Settle the method before the first solve; for sets whose records must be alike."""
        self._cached("method", lambda: method)

    def _row_counts(self) -> tuple[int, int]:
        return row_counts(self)

    def _make_kernel(self) -> Kernel:
        return self._method.kernel(self)

    def _warm_start(self, record: RawRecord) -> tuple[np.ndarray, np.ndarray] | None:
        return self._method.warm_start(record)

    def _check_data_rule(self, names: tuple[str, ...]) -> None:
        pass

    def _data_pull(
        self, raw: RawRecord, data: Mapping[str, np.ndarray], g: np.ndarray, names: tuple[str, ...]
    ) -> dict[str, np.ndarray]:
        if self._method is ELIMINATED:
            return super()._data_pull(raw, data, g, names)
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
        if self._method is ELIMINATED:
            return super()._data_push(raw, data, tangents)
        lead, batch = next(iter(tangents.values())).shape[:2]
        rows = [
            np.broadcast_to(tangents.get(f.name, 0.0), (lead, batch, *f.shape))
            for f in self._fields
        ]
        flat = np.concatenate(rows, axis=-1)
        flat = flat.reshape(lead * batch, flat.shape[-1])
        found = run_rhs(PUSH, self.kernel.shared, raw, flat, self.size, self.kernel.hs_cost)
        return found.reshape(lead, batch, self.size)

    # -- decoding a record ----------------------------------------------------------------------

    def _multipliers(
        self, record: RawRecord, x: np.ndarray, data: Mapping[str, np.ndarray]
    ) -> Multipliers:
        return self._method.multipliers(self, record, x)

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
