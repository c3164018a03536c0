r"""Several sets side by side.

.. math:: C_1 \times \dots \times C_k

Projection. The squared distance to a product is the sum of those to its blocks, so each block is
projected on its own.

HS-Jacobian. No row joins two blocks: V is block diagonal, made of the blocks' V.

The compiled routine is made from those of the blocks (:mod:`hsref.sets.compose`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._batch import Kernel, RawRecord
from .assemble import Node, product_node, split_record
from .base import ConstraintFlags, DataField, Multipliers, PolyhedralSet, Rows
from .box import Box
from .polyhedron import Polyhedron
from .simplex import Simplex


class Product(PolyhedralSet):
    r"""Several sets side by side: one flat point, blocks in order.

    .. math:: C = C_1 \times C_2 \times \dots = \{ (y_1, y_2, \dots) : y_k \in C_k \}

    Parameters
    ----------
    *blocks : PolyhedralSet
        At least one. A matrix set takes its block in C order.

    Raises
    ------
    TypeError
        There is no block, or one is not a set.

    Notes
    -----
    Cost: the sum of the blocks'. Neighbouring blocks of the same kind and size run in one compiled
    loop. A parameter of block k is replaced at the call under its name with ``_k`` appended, k
    counted from 0: ``project(x, Product(Simplex(3), Simplex(2)), total_1=2.0)``.

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import Box, Product, Simplex, project
    >>> project(np.array([0.5, 0.9, -1.0, 3.0]), Product(Simplex(2), Box(0.0, 1.0, n=2))).round(12)
    array([0.3, 0.7, 0. , 1. ])
    """

    blocks: tuple[PolyhedralSet, ...]
    forward_cost = "the sum of its blocks"
    backward_cost = "the sum of its blocks"

    def __init__(self, *blocks: PolyhedralSet) -> None:
        if not blocks:
            raise TypeError("Product needs at least one set.")
        for one in blocks:
            check_set(one, "Product")
        self.blocks = blocks
        self._edges = np.cumsum([0, *(one.size for one in blocks)])
        fields = tuple(
            DataField(f"{f.name}_{k}", f.shape, f.value.copy())
            for k, one in enumerate(blocks)
            for f in one._fields
        )
        self._freeze(shape=(int(self._edges[-1]),), fields=fields)

    @classmethod
    def examples(cls) -> tuple[Product, ...]:
        """Return different blocks, equal blocks, a product in a product."""
        return (
            cls(Simplex(3), Box(0.0, 1.0, n=2), Simplex(2, 0.0)),
            cls(*[Simplex(3)] * 3),
            cls(Box(0.0, 1.0, n=1), cls(Simplex(2), Simplex(2, 3.0))),
        )

    def __repr__(self) -> str:
        shown = [repr(one) for one in self.blocks[:4]]
        more = [f"... {len(self.blocks) - 4} more"] if len(self.blocks) > 4 else []
        return f"Product({', '.join(shown + more)})"

    @property
    def compact_record(self) -> bool:
        """Whether a block has a record of its own layout."""
        return any(getattr(one, "compact_record", False) for one in self.blocks)

    def _inside(self, data: Mapping[str, Any], k: int) -> dict[str, Any]:
        """Return block k's part of the data, under the block's own names."""
        named = ((f.name, f"{f.name}_{k}") for f in self.blocks[k]._fields)
        return {own: data[outer] for own, outer in named if outer in data}

    def _check_data(self, data: Mapping[str, np.ndarray]) -> None:
        for k, one in enumerate(self.blocks):
            one._check_data(self._inside(data, k))

    @property
    def _node(self) -> Node:
        return self._cached("node", lambda: product_node(
            [(one.kernel, sum(f.size for f in one._fields)) for one in self.blocks]
        ))  # fmt: skip

    def _make_kernel(self) -> Kernel:
        return self._node.kernel

    def to_polyhedron(self) -> Polyhedron:
        """Return the rows of all blocks, block by block."""
        return self._with_data({})

    def _with_data(self, data: Mapping[str, Any]) -> Polyhedron:
        each = []
        for k, one in enumerate(self.blocks):
            own = self._inside(data, k)
            each.append((one._with_data(own) if own else one).to_polyhedron())
        rows = [Rows(p.A_ub, p.b_ub, p.A_eq, p.b_eq, p.lower, p.upper) for p in each]
        return Polyhedron(*_stack(rows, [one.size for one in self.blocks]), n=self.size)

    def _residual_rows(self, data: Mapping[str, np.ndarray]) -> Rows:
        rows = [one._residual_rows(self._inside(data, k)) for k, one in enumerate(self.blocks)]
        return _stack(rows, [one.size for one in self.blocks])

    def _find_interior(self) -> tuple[np.ndarray, int]:
        points = [one.interior_point().reshape(-1) for one in self.blocks]
        return np.concatenate(points), sum(one.dim for one in self.blocks)

    # -- the record: every question goes to the blocks -------------------------------------------

    def _parts(self, array: np.ndarray) -> list[np.ndarray]:
        return np.split(array, self._edges[1:-1], axis=-1)

    def _row_counts(self) -> tuple[int, int]:
        counts = [one._row_counts() for one in self.blocks]
        return sum(m for m, _ in counts), sum(p for _, p in counts)

    def _flags(self, code: np.ndarray, mask: int) -> ConstraintFlags:
        ends = np.cumsum([one.kernel.code_size for one in self.blocks])[:-1]
        each = [
            one._flags(part, mask)
            for one, part in zip(self.blocks, np.split(code, ends, axis=-1), strict=True)
        ]
        return ConstraintFlags(*(np.concatenate(f, axis=-1) for f in zip(*each, strict=True)))

    def _multipliers(self, record: Any, x: np.ndarray, data: Mapping[str, Any]) -> Multipliers:
        each = [
            one._multipliers(alone, part, self._inside(data, k))
            for k, (one, alone, part) in enumerate(
                zip(self.blocks, split_record(record, self._node), self._parts(x), strict=True)
            )
        ]
        return Multipliers(*(np.concatenate(f, axis=-1) for f in zip(*each, strict=True)))

    def _check_data_rule(self, names: tuple[str, ...]) -> None:
        for k, one in enumerate(self.blocks):
            own = tuple(f.name for f in one._fields if f"{f.name}_{k}" in names)
            if own:
                one._check_data_rule(own)

    def _data_pull(
        self, raw: RawRecord, data: Mapping[str, np.ndarray], g: np.ndarray, names: tuple[str, ...]
    ) -> dict[str, np.ndarray]:
        out = {}
        parts = zip(self.blocks, split_record(raw, self._node), self._parts(g), strict=True)
        for k, (one, alone, part) in enumerate(parts):
            own = tuple(f.name for f in one._fields if f"{f.name}_{k}" in names)
            if own:
                found = one._data_pull(alone, self._inside(data, k), part, own)
                out.update({f"{name}_{k}": found[name] for name in own})
        return out

    def _data_push(
        self, raw: RawRecord, data: Mapping[str, np.ndarray], tangents: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        lead, batch = next(iter(tangents.values())).shape[:2]
        parts = []
        for k, (one, alone) in enumerate(
            zip(self.blocks, split_record(raw, self._node), strict=True)
        ):
            own = self._inside(tangents, k)
            parts.append(
                one._data_push(alone, self._inside(data, k), own)
                if own
                else np.zeros((lead, batch, one.size))
            )
        return np.concatenate(parts, axis=-1)

    def _residuals(
        self, x: np.ndarray, y: np.ndarray, found: Multipliers, data: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        counts = np.array([one._row_counts() for one in self.blocks])
        ends = np.cumsum(counts, axis=0)[:-1]
        split = zip(
            np.split(found.ub, ends[:, 0], axis=-1), np.split(found.eq, ends[:, 1], axis=-1),
            self._parts(found.lower), self._parts(found.upper), strict=True,
        )  # fmt: skip
        each = [
            one._residuals(part, point, Multipliers(*own), self._inside(data, k))
            for k, (one, part, point, own) in enumerate(
                zip(self.blocks, self._parts(x), self._parts(y), split, strict=True)
            )
        ]
        primal, dual, product = (np.max(numbers, axis=0) for numbers in zip(*each, strict=True))
        return primal, dual, product

    def _violation(
        self,
        y: np.ndarray,
        data: Mapping[str, np.ndarray],
        scale: np.ndarray | float = 0.0,
    ) -> np.ndarray:
        each = [
            one._violation(part, self._inside(data, k), scale)
            for k, (one, part) in enumerate(zip(self.blocks, self._parts(y), strict=True))
        ]
        return np.max(each, axis=0)

    def _certificate(
        self, record: Any, sample: int, data: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        from ..solve import projection

        # One empty block makes the product empty; its certificate serves, zeros elsewhere.
        each = []
        found = False
        for k, one in enumerate(self.blocks):
            m, p = one._row_counts()
            own = [np.zeros(m), np.zeros(p), np.zeros(one.size), np.zeros(one.size)]
            at = {key: v[sample % len(v)] for key, v in self._inside(data, k).items()}
            if at and not found:
                alone = projection(np.zeros(one.shape), one, on_infeasible="nan", **at)
                if alone.certificate is not None:
                    own = [part.reshape(-1) for part in alone.certificate]
                    found = True
            each.append(own)
        ub, eq, lower, upper = (np.concatenate(parts) for parts in zip(*each, strict=True))
        return ub, eq, lower, upper


def check_set(value: Any, owner: str) -> None:
    """Raise a sentence unless `value` is a set."""
    if not isinstance(value, PolyhedralSet):
        raise TypeError(f"{owner} takes sets such as hsref.Simplex(3); got {type(value).__name__}.")
    if not value.plain_kernel:
        raise TypeError(
            f"{owner} measures distances in the Euclidean norm, and {type(value).__name__} does "
            "not: build the metric around the whole set."
        )


def _stack(rows: list[Rows], sizes: list[int]) -> Rows:
    """Return the H-description of a product; right-hand sides may have a batch axis."""
    n = sum(sizes)
    starts = np.cumsum([0, *sizes])

    def matrix(name: str) -> np.ndarray | None:
        parts = []
        for start, one in zip(starts[:-1], rows, strict=True):
            block = getattr(one, name)
            if block is not None and block.shape[0]:
                wide = np.zeros((block.shape[0], n))
                full = block if isinstance(block, np.ndarray) else block.toarray()
                wide[:, start : start + block.shape[1]] = full
                parts.append(wide)
        return np.concatenate(parts) if parts else None

    def vector(name: str, fill: float | None) -> np.ndarray | None:
        values = [getattr(one, name) for one in rows]
        if all(v is None for v in values):
            return None
        parts = []
        for size, value in zip(sizes, values, strict=True):
            if value is None and fill is None:
                continue
            part = np.full(size, fill) if value is None else np.asarray(value)
            parts.append(part if fill is None else np.broadcast_to(part, (*part.shape[:-1], size)))
        lead = np.broadcast_shapes(*(part.shape[:-1] for part in parts))
        return np.concatenate(
            [np.broadcast_to(part, (*lead, part.shape[-1])) for part in parts], axis=-1
        )

    return Rows(
        matrix("A_ub"), vector("b_ub", None), matrix("A_eq"), vector("b_eq", None),
        vector("lower", -np.inf), vector("upper", np.inf),
    )  # fmt: skip
