"""General polyhedra that differ from sample to sample in their matrices.

Made by a call that replaces ``A_ub`` or ``A_eq`` with batch axes; it belongs to that batch. Each
different matrix is prepared once (see :mod:`hsref.sets.row_reduction`) and solves all samples that
share it together; records are taken apart and put together sample by sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .._batch import Kernel, RawRecord
from .._codes import INFO_SIZE
from .assemble import ranges
from .base import ConstraintFlags, Multipliers, PolyhedralSet
from .polyhedron import Polyhedron
from .polyhedron_methods import DUAL_ACTIVE_SET


class PolyhedronFamily(PolyhedralSet):
    """Polyhedra with the same number of rows, one of them for each sample.

    Parameters
    ----------
    members : tuple of PolyhedralSet
        General polyhedra, in one metric or in several; right-hand sides and bounds are those of
        the first.
    which : ndarray of int, shape (B,)
        The member of each sample.
    """

    plain_kernel = False

    def __init__(self, members: tuple[PolyhedralSet, ...], which: np.ndarray) -> None:
        self.members = members
        self.which = which
        for one in members:
            # One record for all: the method may not depend on the entries of each matrix.
            inner = one if isinstance(one, Polyhedron) else getattr(one, "_inner", None)
            if isinstance(inner, Polyhedron):
                inner._solve_by(DUAL_ACTIVE_SET)
        fields = members[0]._fields
        self._freeze(shape=members[0].shape, fields=fields)

    def __repr__(self) -> str:
        return f"PolyhedronFamily({len(self.members)} matrices, like {self.members[0]!r})"

    def _make_kernel(self) -> Kernel:
        return self.members[0].kernel

    def _parts(self) -> list[tuple[PolyhedralSet, np.ndarray]]:
        order = np.argsort(self.which, kind="stable")
        ends = np.searchsorted(self.which[order], np.arange(len(self.members) + 1))
        return [
            (one, order[ends[q] : ends[q + 1]])
            for q, one in enumerate(self.members)
            if ends[q + 1] > ends[q]
        ]

    def _check_data(self, data: Mapping[str, np.ndarray]) -> None:
        self.members[0]._check_data(data)

    def _check_data_rule(self, names: tuple[str, ...]) -> None:
        self.members[0]._check_data_rule(names)

    def _all_rows(self) -> np.ndarray:
        return np.concatenate([one._all_rows() for one in self.members])[self.which]

    @property
    def symmetric(self) -> bool:  # type: ignore[override]
        """Whether V is symmetric."""
        return self.members[0].symmetric

    def _basis_flags(self, raw: RawRecord) -> tuple[np.ndarray, ConstraintFlags]:
        def ask(one: PolyhedralSet, samples: np.ndarray) -> Any:
            eq, flags = one._basis_flags(take(raw, samples))
            return (eq, *flags)

        eq, ub, lower, upper = self._gather(ask)
        return eq, ConstraintFlags(ub, lower, upper)

    def _metric(self) -> np.ndarray | None:
        each = [one._metric() for one in self.members]
        found = [H for H in each if H is not None]
        if len(found) < len(each):
            return None
        if any(H.ndim == 3 for H in found):
            found = [H if H.ndim == 3 else H[0] * np.eye(self.size)[None] for H in found]
        return np.concatenate(found)[self.which]

    @property
    def force_of_metric(self) -> bool:  # type: ignore[override]
        """Whether the input is a point."""
        return self.members[0].force_of_metric

    # -- solving: member by member --------------------------------------------------------------

    def _run(
        self, x: np.ndarray, data: np.ndarray, active_tol: float, *, keep: bool,
        n_threads: int | None, start: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> RawRecord:  # fmt: skip
        pieces = []
        parts = self._parts()
        for one, samples in parts:
            begin = start
            if start is not None:
                offsets, ids = start
                counts = np.diff(offsets)[samples]
                begin = (
                    np.concatenate(([0], np.cumsum(counts))),
                    ids[ranges(offsets[samples], counts)],
                )
            own = data if len(data) == 1 else data[samples]
            pieces.append(
                one._run(x[samples], own, active_tol, keep=keep, n_threads=n_threads, start=begin)
            )
        if not pieces:
            return self.members[0]._run(x, data, active_tol, keep=keep, n_threads=n_threads)
        return merge(pieces, np.concatenate([samples for _, samples in parts]))

    def _run_hs(
        self, raw: RawRecord, data: np.ndarray, mask: int, g: np.ndarray, n_threads: int | None,
        transpose: bool = False,
    ) -> np.ndarray:  # fmt: skip
        batch = len(raw.status)
        g = g.reshape(-1, batch, self.size)
        out = np.empty_like(g)
        for one, samples in self._parts():
            own = data if len(data) == 1 else data[samples]
            rows = np.ascontiguousarray(g[:, samples]).reshape(-1, self.size)
            found = one._run_hs(take(raw, samples), own, mask, rows, n_threads, transpose)
            out[:, samples] = found.reshape(len(g), len(samples), self.size)
        return out.reshape(-1, self.size)

    def _data_pull(
        self, raw: RawRecord, data: Mapping[str, np.ndarray], g: np.ndarray, names: tuple[str, ...]
    ) -> dict[str, np.ndarray]:
        lead, batch, _ = g.shape
        out = {f.name: np.zeros((lead, batch, *f.shape)) for f in self._fields if f.name in names}
        for one, samples in self._parts():
            found = one._data_pull(take(raw, samples), data, g[:, samples], names)
            for name, into in out.items():
                into[:, samples] = found[name]
        return out

    def _data_push(
        self, raw: RawRecord, data: Mapping[str, np.ndarray], tangents: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        lead, batch = next(iter(tangents.values())).shape[:2]
        out = np.zeros((lead, batch, self.size))
        for one, samples in self._parts():
            own = {name: value[:, samples] for name, value in tangents.items()}
            out[:, samples] = one._data_push(take(raw, samples), data, own)
        return out

    # -- the record -----------------------------------------------------------------------------

    def _warm_start(self, record: RawRecord) -> tuple[np.ndarray, np.ndarray] | None:
        return self.members[0]._warm_start(record)

    def _row_counts(self) -> tuple[int, int]:
        return self.members[0]._row_counts()

    def _flags(self, code: np.ndarray, mask: int) -> ConstraintFlags:
        return self.members[0]._flags(code, mask)

    def _gather(self, ask: Callable[[PolyhedralSet, np.ndarray], Any]) -> list[np.ndarray]:
        """Return the answers of all members, put together in the order of the samples."""
        parts = self._parts()
        each = [tuple(ask(one, samples)) for one, samples in parts]
        order = np.argsort(np.concatenate([samples for _, samples in parts]), kind="stable")
        return [np.concatenate(field)[order] for field in zip(*each, strict=True)]

    def _multipliers(
        self, record: RawRecord, x: np.ndarray, data: Mapping[str, np.ndarray]
    ) -> Multipliers:
        return Multipliers(
            *self._gather(
                lambda one, samples: one._multipliers(take(record, samples), x[samples], data)
            )
        )

    def _residuals(
        self, x: np.ndarray, y: np.ndarray, found: Multipliers, data: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        def ask(one: PolyhedralSet, samples: np.ndarray) -> Any:
            mine = Multipliers(*(part[samples] for part in found))
            return one._residuals(x[samples], y[samples], mine, _own(data, samples))

        primal, dual, product = self._gather(ask)
        return primal, dual, product

    def _violation(
        self,
        y: np.ndarray,
        data: Mapping[str, np.ndarray],
        scale: np.ndarray | float = 0.0,
    ) -> np.ndarray:
        raise TypeError(
            "this set belongs to the batch of one call, whose samples have matrices of their own."
        )

    def _certificate(
        self, record: RawRecord, sample: int, data: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        return self.members[self.which[sample]]._certificate(record, sample, data)


def _own(data: Mapping[str, np.ndarray], samples: np.ndarray) -> dict[str, np.ndarray]:
    return {name: value if len(value) == 1 else value[samples] for name, value in data.items()}


def take(raw: RawRecord, samples: np.ndarray) -> RawRecord:
    """Return the record of some samples, in the order given."""
    size_f, size_i = np.diff(raw.at_f)[samples], np.diff(raw.at_i)[samples]
    return RawRecord(
        raw.y[samples], raw.status[samples], raw.code[samples], raw.dual[samples],
        raw.info[samples], raw.margin[samples],
        raw.tape_f[ranges(raw.at_f[samples], size_f)],
        raw.tape_i[ranges(raw.at_i[samples], size_i)],
        np.concatenate(([0], np.cumsum(size_f))), np.concatenate(([0], np.cumsum(size_i))),
    )  # fmt: skip


def merge(pieces: list[RawRecord], samples: np.ndarray) -> RawRecord:
    """Return one record of all pieces; entry k of their concatenation is sample samples[k]."""

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(piece, name) for piece in pieces])

    kept = len(pieces[0].code) > 0
    if not kept:
        y, status = joined("y"), joined("status")
        order = np.argsort(samples, kind="stable")
        first = pieces[0]
        return RawRecord(
            y[order], status[order], first.code, first.dual, np.zeros((0, INFO_SIZE), np.int32),
            first.margin, first.tape_f, first.tape_i, first.at_f, first.at_i,
        )  # fmt: skip
    sizes = {
        name: np.concatenate([np.diff(getattr(piece, name)) for piece in pieces])
        for name in ("at_f", "at_i")
    }
    whole = RawRecord(
        joined("y"), joined("status"), joined("code"), joined("dual"), joined("info"),
        joined("margin"), joined("tape_f"), joined("tape_i"),
        np.concatenate(([0], np.cumsum(sizes["at_f"]))),
        np.concatenate(([0], np.cumsum(sizes["at_i"]))),
    )  # fmt: skip
    return take(whole, np.argsort(samples, kind="stable"))


def with_matrices(
    C: Polyhedron,
    matrices: Mapping[str, np.ndarray],
    data: Mapping[str, Any],
    batch_shape: tuple[int, ...],
) -> tuple[PolyhedralSet, dict[str, Any]]:
    """Return the set with other matrices, with or without batch axes, and the data left."""
    lead: tuple[int, ...] = ()
    for name, matrix in matrices.items():
        if matrix.ndim < 2 or matrix.shape[-1] != C.size:
            raise ValueError(
                f"{name} has shape {matrix.shape}; expected (rows, {C.size}), or the batch "
                "axes in front."
            )
        if not np.all(np.isfinite(matrix)):
            raise ValueError(f"{name} must be finite.")
        try:
            np.broadcast_to(matrix, (*batch_shape, *matrix.shape[-2:]))
            lead = np.broadcast_shapes(lead, matrix.shape[:-2])
        except ValueError as problem:
            raise ValueError(
                f"{name} has shape {matrix.shape}; its axes in front of the last two must "
                f"broadcast to the batch axes {batch_shape}."
            ) from problem
    count = int(np.prod(lead))
    if count == 0:
        # An empty batch: any matrix of the right shape will do.
        matrices = {name: np.zeros(matrix.shape[-2:]) for name, matrix in matrices.items()}
        lead, count = (), 1
    flat: dict[str, Any] = {
        name: np.broadcast_to(matrix, (*lead, *matrix.shape[-2:])).reshape(
            (count, *matrix.shape[-2:])
        )
        for name, matrix in matrices.items()
    }
    rest = dict(data)
    sides: dict[str, Any] = {}
    for kind in ("ub", "eq"):
        name, own = f"b_{kind}", getattr(C, f"b_{kind}")
        new = flat.get(f"A_{kind}")
        if new is not None and (own is None or len(own) != new.shape[1]):
            if name not in rest:
                raise TypeError(
                    f"A_{kind} has {new.shape[1]} rows at this call: give {name} with it."
                )
            own = np.zeros(new.shape[1])
        sides[name] = own
    # Bounds given at the call need a place in the data of every member.
    bounded = C.lower is not None or C.upper is not None or "lower" in rest or "upper" in rest
    lower = -np.inf if C.lower is None and bounded else C.lower
    upper = np.inf if C.upper is None and bounded else C.upper
    members = tuple(
        Polyhedron(
            flat["A_ub"][k] if "A_ub" in flat else C.A_ub, sides["b_ub"],
            flat["A_eq"][k] if "A_eq" in flat else C.A_eq, sides["b_eq"],
            lower, upper, n=C.size,
        )
        for k in range(count)
    )  # fmt: skip
    if count == 1:
        return members[0], rest
    which = np.broadcast_to(np.arange(count).reshape(lead), batch_shape).reshape(-1)
    return PolyhedronFamily(members, np.array(which)), rest
