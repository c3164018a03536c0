r"""A set scaled by a positive number, and a set moved by a vector.

.. math:: f C = \{ f y : y \in C \}, \qquad C + c = \{ y + c : y \in C \}

Projection. For f > 0 both maps take nearest points to nearest points:

.. math:: \Pi_{fC}(x) = f\, \Pi_C(x / f), \qquad \Pi_{C+c}(x) = \Pi_C(x - c) + c .

HS-Jacobian. The rows of f C and C + c are those of C with other right-hand sides, and the same
ones are active: V is that of C at x / f, at x - c. Multipliers are multiplied by f.

The compiled routines are made from that of the set inside (:mod:`hsref.sets.compose`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from .._batch import Kernel, RawRecord, run_hs
from .._codes import MASK_ACTIVE
from .assemble import image_kernel
from .base import ConstraintFlags, DataField, Multipliers, PolyhedralSet, Rows, as_parameter
from .box import Box
from .composite import check_set
from .polyhedron import Polyhedron
from .simplex import Simplex


class _Image(PolyhedralSet):
    """A set seen through y -> factor * y + offset; what Scaled and Shifted share."""

    inner: PolyhedralSet
    _own = ""

    def _build(self, inner: PolyhedralSet, value: np.ndarray) -> None:
        self.inner = inner
        own = DataField(self._own, value.shape, value)
        # A parameter of the same name inside is still there, under another name.
        taken = {own.name: f"{own.name}_inside"}
        hidden = tuple(
            DataField(taken.get(f.name, f.name), f.shape, f.value.copy()) for f in inner._fields
        )
        self._check_own(value)
        self._freeze(shape=inner.shape, fields=(*hidden, own))

    @property
    def compact_record(self) -> bool:
        """Whether the set inside has a record of its own layout."""
        return bool(getattr(self.inner, "compact_record", False))

    @property
    def forward_cost(self) -> str:  # type: ignore[override]
        """As the set inside."""
        return self.inner.forward_cost

    @property
    def backward_cost(self) -> str:  # type: ignore[override]
        """As the set inside."""
        return self.inner.backward_cost

    def _inside(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the part of the data that belongs to the set inside, under its own names."""
        named = ((f.name, o.name) for f, o in zip(self.inner._fields, self._fields, strict=False))
        return {own: data[outer] for own, outer in named if outer in data}

    def _check_own(self, value: np.ndarray) -> None:
        """Raise a sentence when the set's own parameter is malformed."""
        raise NotImplementedError

    def _check_data(self, data: Mapping[str, np.ndarray]) -> None:
        self._check_own(data[self._own])
        self.inner._check_data(self._inside(data))

    def _map(self, data: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Return (factor, offset), each with batch axes in front of an axis of a point's length."""
        raise NotImplementedError

    def _make_kernel(self) -> Kernel:
        return image_kernel(self.inner.kernel, type(self).__name__)

    def _find_interior(self) -> tuple[np.ndarray, int]:
        factor, offset = self._map({})
        point = factor * self.inner.interior_point().reshape(-1) + offset
        return point.reshape(self.shape), self.inner.dim

    def to_polyhedron(self) -> Polyhedron:
        """Return the rows of the set inside with moved right-hand sides."""
        return self._with_data({})

    def _with_data(self, data: Mapping[str, Any]) -> Polyhedron:
        own = self._inside(data)
        rows = (self.inner._with_data(own) if own else self.inner).to_polyhedron()
        moved = self._move(
            Rows(rows.A_ub, rows.b_ub, rows.A_eq, rows.b_eq, rows.lower, rows.upper),
            *self._map(data),
        )
        return Polyhedron(*moved, n=self.size)

    @staticmethod
    def _move(rows: Rows, factor: np.ndarray, offset: np.ndarray) -> Rows:
        def side(matrix: np.ndarray | None, rhs: np.ndarray | None) -> np.ndarray | None:
            return None if matrix is None or rhs is None else rhs * factor + offset @ matrix.T

        return Rows(
            rows.A_ub, side(rows.A_ub, rows.b_ub), rows.A_eq, side(rows.A_eq, rows.b_eq),
            None if rows.lower is None else rows.lower * factor + offset,
            None if rows.upper is None else rows.upper * factor + offset,
        )  # fmt: skip

    # -- the record -----------------------------------------------------------------------------

    def _row_counts(self) -> tuple[int, int]:
        return self.inner._row_counts()

    def _rows_transpose(self, ub: np.ndarray, eq: np.ndarray) -> np.ndarray:
        return self.inner._rows_transpose(ub, eq)

    def _residual_rows(self, data: Mapping[str, np.ndarray]) -> Rows:
        return self._move(self.inner._residual_rows(self._inside(data)), *self._map(data))

    def _flags(self, code: np.ndarray, mask: int) -> ConstraintFlags:
        return self.inner._flags(code, mask)

    def _multipliers(self, record: Any, x: np.ndarray, data: Mapping[str, Any]) -> Multipliers:
        factor, offset = self._map(data)
        y = record.y.astype(np.float64)
        inside = replace(record, dual=record.dual / factor, y=(y - offset) / factor)
        found = self.inner._multipliers(inside, (x - offset) / factor, self._inside(data))
        return Multipliers(*(part * factor for part in found))

    def _check_data_rule(self, names: tuple[str, ...]) -> None:
        outer = {o.name: f.name for f, o in zip(self.inner._fields, self._fields, strict=False)}
        self.inner._check_data_rule(tuple(outer[name] for name in names if name != self._own))

    def _data_pull(
        self, raw: RawRecord, data: Mapping[str, np.ndarray], g: np.ndarray, names: tuple[str, ...]
    ) -> dict[str, np.ndarray]:
        # c = factor c_inside + M offset, so that M^+ moves y by factor times what it does inside,
        # and by (I - V) times the offset, or times the point inside for the factor.
        factor, offset = self._map(data)
        out = {}
        own = [(f.name, o.name) for f, o in zip(self.inner._fields, self._fields, strict=False)]
        wanted = tuple(name for name, outer in own if outer in names)
        if wanted:
            inside = replace(raw, y=(raw.y - offset) / factor)
            found = self.inner._data_pull(inside, self._inside(data), g * factor, wanted)
            out = {outer: found[name] for name, outer in own if outer in names}
        if self._own in names:
            moved = self._own_moves(raw, g, factor, offset)
            out[self._own] = moved.reshape(*g.shape[:2], *self._fields[-1].shape)
        return out

    def _data_push(
        self, raw: RawRecord, data: Mapping[str, np.ndarray], tangents: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        factor, offset = self._map(data)
        lead, batch = next(iter(tangents.values())).shape[:2]
        out = np.zeros((lead, batch, self.size))
        own = self._inside(tangents)
        if own:
            inside = replace(raw, y=(raw.y - offset) / factor)
            out += factor * self.inner._data_push(inside, self._inside(data), own)
        if self._own in tangents:
            width = 1 if not self._fields[-1].shape else self.size
            along = tangents[self._own].reshape(lead, batch, width)
            if not self._fields[-1].shape:
                along = along * ((raw.y - offset) / factor)
            out += along - self._hs(raw, along)
        return out

    def _own_moves(
        self, raw: RawRecord, g: np.ndarray, factor: np.ndarray, offset: np.ndarray
    ) -> np.ndarray:
        rest = g - self._hs(raw, g)
        if self._fields[-1].shape:
            return rest
        return np.einsum("lbj,bj->lb", rest, (raw.y - offset) / factor)

    def _hs(self, raw: RawRecord, v: np.ndarray) -> np.ndarray:
        """Return V v, (L, B, n), for the full active set."""
        kernel = self.kernel
        # No set's V depends on its parameters but through the record.
        flat = np.ascontiguousarray(v).reshape(-1, self.size)
        raw = replace(
            raw, y=np.ascontiguousarray(raw.y, np.float64), code=np.ascontiguousarray(raw.code)
        )
        return run_hs(kernel, raw, self._data_row, MASK_ACTIVE, flat, None).reshape(v.shape)

    def _residuals(
        self, x: np.ndarray, y: np.ndarray, found: Multipliers, data: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        factor, offset = self._map(data)
        inside = Multipliers(*(part / factor for part in found))
        residuals = self.inner._residuals(
            (x - offset) / factor, (y - offset) / factor, inside, self._inside(data)
        )
        # Measured inside, where x and y may be small: what rounding costs out here is allowed.
        size = np.maximum(np.abs(x).max(axis=-1), np.abs(y).max(axis=-1))
        away = np.maximum(np.abs(x - offset).max(axis=-1), np.abs(y - offset).max(axis=-1))
        ease = np.minimum(away / np.where(size > 0.0, size, 1.0), 1.0)
        primal, dual, product = (number * ease for number in residuals)
        return primal, dual, product

    def _violation(
        self,
        y: np.ndarray,
        data: Mapping[str, np.ndarray],
        scale: np.ndarray | float = 0.0,
    ) -> np.ndarray:
        factor, offset = self._map(data)
        size = np.maximum(scale, np.abs(y).max(axis=-1)) / factor[..., 0]
        return self.inner._violation((y - offset) / factor, self._inside(data), size)

    def _certificate(
        self, record: Any, sample: int, data: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        return self.inner._certificate(record, sample, self._inside(data))


class Scaled(_Image):
    r"""A set multiplied by a positive number.

    .. math:: f C = \{ f y : y \in C \}

    Parameters
    ----------
    C : PolyhedralSet
        The set inside.
    factor : float
        Positive. May be replaced at the call, as the parameters of `C` may, under their names
        (a parameter of `C` that is called ``factor`` itself becomes ``factor_inside``).

    Raises
    ------
    TypeError
        `C` is not a set.
    ValueError
        The factor is not a positive finite number.

    Notes
    -----
    Cost of the set inside, plus one pass.

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import Scaled, Simplex, project
    >>> project(np.array([3.0, 1.0, 0.0]), Scaled(Simplex(3), 2.0))
    array([2., 0., 0.])
    """

    _own = "factor"

    def __init__(self, C: PolyhedralSet, factor: float) -> None:
        check_set(C, "Scaled")
        self._build(C, as_parameter(factor, "factor", ()))

    @classmethod
    def examples(cls) -> tuple[Scaled, ...]:
        """Return a large simplex, a small box, and a set scaled twice."""
        return (
            cls(Simplex(4), 3.0),
            cls(Box([-1.0, 0.0, -np.inf], [1.0, 0.0, 2.0]), 0.25),
            cls(cls(Simplex(3), 0.5), 8.0),
        )

    @property
    def factor(self) -> float:
        """The number the set is multiplied by."""
        return float(self._fields[-1].value)

    def __repr__(self) -> str:
        return f"Scaled({self.inner!r}, factor={self.factor:g})"

    def _check_own(self, value: np.ndarray) -> None:
        # Below the normal numbers its reciprocal would overflow.
        good = (value >= np.finfo(np.float64).tiny) & np.isfinite(value)
        if not good.all():
            wrong = float(value[~good][0])
            raise ValueError(
                f"factor must be a positive finite number of at least 2.3e-308; got {wrong:g}."
            )

    def _map(self, data: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        factor = np.asarray(data.get("factor", self.factor), dtype=np.float64)[..., None]
        return factor, np.zeros(self.size)


class Shifted(_Image):
    r"""A set moved by a vector.

    .. math:: C + c = \{ y + c : y \in C \}

    Parameters
    ----------
    C : PolyhedralSet
        The set inside.
    offset : array_like, broadcast to the shape of a point
        May be replaced at the call, as the parameters of `C` may, under their names (a parameter
        of `C` that is called ``offset`` itself becomes ``offset_inside``).

    Raises
    ------
    TypeError
        `C` is not a set.
    ValueError
        The offset is not finite, or has another shape.

    Notes
    -----
    Cost of the set inside, plus one pass. The answer is exact relative to the size of x and the
    offset: a small set far from the origin loses digits, as it would in any other description.

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import L1Ball, Shifted, project
    >>> project(np.array([3.0, 1.0]), Shifted(L1Ball(2), [1.0, 1.0]))
    array([2., 1.])
    """

    _own = "offset"

    def __init__(self, C: PolyhedralSet, offset: Any) -> None:
        check_set(C, "Shifted")
        self._build(C, as_parameter(offset, "offset", C.shape))

    @classmethod
    def examples(cls) -> tuple[Shifted, ...]:
        """Return a simplex off the origin, a scaled one, and one scaled after the shift."""
        return (
            cls(Simplex(3), [1.0, -2.0, 0.5]),
            cls(Scaled(Simplex(2), 2.0), 1.0),
            cls(cls(Box(0.0, 1.0, n=2), 1.0), [0.0, 3.0]),
        )

    @property
    def offset(self) -> np.ndarray:
        """The vector the set is moved by, read-only."""
        return self._fields[-1].value

    def __repr__(self) -> str:
        shown = np.array2string(self.offset, separator=", ", precision=6, threshold=8)
        return f"Shifted({self.inner!r}, offset={shown})".replace("\n", "")

    def _check_own(self, value: np.ndarray) -> None:
        if not np.all(np.isfinite(value)):
            raise ValueError("offset must be finite.")

    def _map(self, data: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        offset = np.asarray(data.get("offset", self.offset), dtype=np.float64)
        lead = offset.ndim - len(self.shape)
        return np.ones(1), offset.reshape(*offset.shape[:lead], self.size)
