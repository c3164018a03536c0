r"""Projection in the norm of a positive definite matrix, and strictly convex quadratic programs.

.. math:: \arg\min_{y \in C} \tfrac12 (y - x)^T H (y - x), \qquad
          \arg\min_{y \in C} \tfrac12 y^T H y - q^T y ,

the first being the second for q = H x.

Method. With H = L L' and z = L' y both are Euclidean projections of L' x, or of L^{-1} q, onto

.. math:: \hat C = \{ z : A L^{-T} z \le b, \dots \},

a general polyhedron prepared once. A diagonal H scales coordinates only, and bounds stay bounds;
otherwise those that are not vacuous become rows. Multipliers are the same as those of

.. math:: H (x - y) = A_{ub}^T \lambda + A_{eq}^T \mu + upper - lower \quad (\text{or } q - H y) .

HS-Jacobian. With V the element for :math:`\hat C` and S = L^{-T} V L^{-1}, which is symmetric and
is N (N' H N)^{-1} N' for a basis N of the null space of the active rows, the derivative is S in q
and S H in x. The latter is a projector orthogonal in the norm of H and not a symmetric matrix:
vector-Jacobian products are H S g.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from .._batch import Kernel, RawRecord, readonly
from .._jit import device_function
from .._threads import run_chunks
from .base import ConstraintFlags, Multipliers, PolyhedralSet
from .family import PolyhedronFamily
from .polyhedron import Polyhedron

SINGULAR_TOL = 1e-13
"""Smallest eigenvalue allowed, over the largest and the size."""
SYMMETRY_TOL = 1e-12


@device_function
def map_rows(x, matrix, out, begin, end):
    """out[i] = x[i] matrix for begin <= i < end, each row alone and always in the same order."""
    for i in range(begin, end):
        for k in range(out.shape[1]):
            out[i, k] = 0.0
        for j in range(x.shape[1]):
            value = x[i, j]
            for k in range(out.shape[1]):
                out[i, k] += value * matrix[j, k]


def times_matrix(x: np.ndarray, matrix: np.ndarray, n_threads: int | None = None) -> np.ndarray:
    """Return x matrix for rows x; by entries for a vector, which stands for a diagonal."""
    if matrix.ndim == 1:
        return x * matrix
    rows = readonly(np.ascontiguousarray(x, np.float64))
    fixed = readonly(np.ascontiguousarray(matrix))
    out = np.empty_like(x, dtype=np.float64)

    def chunk(begin: int, end: int) -> None:
        map_rows.cpu(rows, fixed, out, begin, end)

    run_chunks(chunk, len(rows), 2.0 * matrix.size, n_threads)
    return out


class _Metric(PolyhedralSet):
    """A polyhedron with a metric: what the two classes of this file share."""

    plain_kernel = False
    forward_cost = "n^2 (n for a diagonal H), plus a general polyhedron"
    backward_cost = "n^2 (n for a diagonal H), plus a general polyhedron"

    def __init__(self, C: PolyhedralSet, H: Any) -> None:
        if not isinstance(C, PolyhedralSet):
            raise TypeError(
                f"{type(self).__name__} takes a set such as hsref.Simplex(3); got "
                f"{type(C).__name__}."
            )
        if not C.plain_kernel:
            raise TypeError(f"{type(C).__name__} has a norm of its own already.")
        if len(C.shape) != 1:
            raise TypeError(
                f"{type(self).__name__} takes sets of vectors; points of {C!r} have shape "
                f"{C.shape}. Use its to_polyhedron() and reshape x."
            )
        rows = C.to_polyhedron()
        self.set = C
        self.rows = rows
        self.H = check_metric(H, rows.size)
        self._root, self._inverse_root = _roots(self.H)
        self._freeze(shape=rows.shape, fields=rows._fields)

    def __repr__(self) -> str:
        kind = "diagonal" if self._root.ndim == 1 else "full"
        return f"{type(self).__name__}({self.set!r}, {kind} H)"

    @property
    def _inner(self) -> Polyhedron:
        """The polyhedron of z = L' y."""
        return self._cached("inner", self._make_inner)

    def _make_inner(self) -> Polyhedron:
        P = self.rows
        if self._root.ndim == 1:
            return Polyhedron(
                _mapped(P.A_ub, self._inverse_root), P.b_ub, _mapped(P.A_eq, self._inverse_root),
                P.b_eq, None if P.lower is None else P.lower * self._root,
                None if P.upper is None else P.upper * self._root, n=self.size,
            )  # fmt: skip
        unit = np.eye(self.size)
        parts = [] if P.A_ub is None else [P.A_ub]
        parts += [-unit] if P.lower is not None else []
        parts += [unit] if P.upper is not None else []
        A_ub = np.concatenate(parts) if parts else None
        return Polyhedron(
            _mapped(A_ub, self._inverse_root.T), None if A_ub is None else np.zeros(len(A_ub)),
            _mapped(P.A_eq, self._inverse_root.T), P.b_eq, n=self.size,
        )  # fmt: skip

    def _inner_sides(self, data: np.ndarray) -> np.ndarray:
        """Return the data rows of the inner polyhedron for data rows of this set."""
        P = self.rows
        m, p = self._row_counts()
        n = self.size
        if P.lower is None and P.upper is None:
            return data
        sides, equations = data[:, :m], data[:, m : m + p]
        lower, upper = data[:, m + p : m + p + n], data[:, m + p + n :]
        if self._root.ndim == 1:
            parts = [sides, equations, lower * self._root, upper * self._root]
        else:
            parts = [sides]
            parts += [-lower] if P.lower is not None else []
            parts += [upper] if P.upper is not None else []
            parts.append(equations)
        return np.ascontiguousarray(np.concatenate(parts, axis=1))

    def _bound_places(self) -> tuple[int | None, int | None]:
        """Return where the rows of lower and upper bounds begin in the inner A_ub, if there."""
        m, _ = self._row_counts()
        has_lower = self.rows.lower is not None
        has_upper = self.rows.upper is not None
        return (m if has_lower else None, m + self.size * has_lower if has_upper else None)

    def _split(self, ub: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the entries of the inner A_ub that are this set's ub, lower and upper."""
        m, _ = self._row_counts()
        n = self.size
        none = np.zeros((*ub.shape[:-1], n), ub.dtype)
        low, up = self._bound_places()
        return (
            ub[..., :m],
            none if low is None else ub[..., low : low + n],
            none.copy() if up is None else ub[..., up : up + n],
        )

    # -- what a set owes ------------------------------------------------------------------------

    def _make_kernel(self) -> Kernel:
        return self._inner.kernel

    def to_polyhedron(self) -> Polyhedron:
        """Return the set itself, without its norm."""
        return self.rows

    def _check_data(self, data: Mapping[str, np.ndarray]) -> None:
        self.rows._check_data(data)

    def _for_data(self, names: frozenset[str]) -> PolyhedralSet:
        P = self.rows
        new_lower = "lower" in names and P.lower is None
        new_upper = "upper" in names and P.upper is None
        if new_lower or new_upper:
            wider = Polyhedron(
                P.A_ub, P.b_ub, P.A_eq, P.b_eq, -np.inf if new_lower else P.lower,
                np.inf if new_upper else P.upper, n=self.size,
            )  # fmt: skip
            key = f"with bounds {new_lower} {new_upper}"
            return self._cached(key, lambda: type(self)(wider, self.H))._for_data(names)
        return super()._for_data(names)

    def _with_data(self, data: Mapping[str, np.ndarray]) -> PolyhedralSet:
        return self.rows._with_data(data)

    def _with_matrices(
        self,
        matrices: Mapping[str, np.ndarray],
        data: Mapping[str, Any],
        batch_shape: tuple[int, ...],
    ) -> tuple[PolyhedralSet, dict[str, Any]]:
        rows = {name: value for name, value in matrices.items() if name != "H"}
        base, rest = (
            self.rows._with_matrices(rows, data, batch_shape) if rows else (self.rows, dict(data))
        )
        H = matrices.get("H", self.H)
        n = self.size
        if H.ndim <= 2 and isinstance(base, Polyhedron):
            return type(self)(base, H), rest
        samples = int(np.prod(batch_shape))
        try:
            each = np.broadcast_to(H, (*batch_shape, n, n)) if H.ndim > 2 else H
        except ValueError as problem:
            raise ValueError(
                f"H has shape {H.shape}; expected ({n},), ({n}, {n}) or the batch axes in front: "
                f"{(*batch_shape, n, n)}."
            ) from problem
        if isinstance(base, PolyhedronFamily):
            which, members = base.which, base.members
        else:
            which, members = np.zeros(samples, np.int64), (base,)
        if H.ndim <= 2:
            return PolyhedronFamily(tuple(type(self)(one, H) for one in members), which), rest
        if samples == 0:
            return type(self)(members[0], np.ones(n)), rest
        flat = each.reshape(samples, n, n)
        made = tuple(type(self)(members[which[i]], flat[i]) for i in range(samples))
        return PolyhedronFamily(made, np.arange(samples)), rest

    def _all_rows(self) -> np.ndarray:
        return self.rows._all_rows()

    def _basis_flags(self, raw: RawRecord) -> tuple[np.ndarray, ConstraintFlags]:
        eq, flags = self._inner._basis_flags(raw)
        return eq, flags if self._root.ndim == 1 else ConstraintFlags(*self._split(flags.ub))

    def _metric(self) -> np.ndarray:
        return self.H[None]

    # -- solving --------------------------------------------------------------------------------

    def _into(self, x: np.ndarray, n_threads: int | None) -> np.ndarray:
        """Return the inner input for an input."""
        raise NotImplementedError

    def _run(
        self, x: np.ndarray, data: np.ndarray, active_tol: float, *, keep: bool,
        n_threads: int | None, start: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> RawRecord:  # fmt: skip
        raw = self._inner._run(
            self._into(x.astype(np.float64), n_threads), self._inner_sides(data), active_tol,
            keep=keep, n_threads=n_threads, start=start,
        )  # fmt: skip
        y = self._back(raw.y, n_threads)
        if self.rows.lower is not None or self.rows.upper is not None:
            # Bounds hold exactly, not to the rounding of the change of variables.
            m, p = self._row_counts()
            lower, upper = np.split(data[:, m + p :], 2, axis=1)
            y = np.minimum(np.maximum(y, lower), upper)
        return replace(raw, y=y.astype(x.dtype))

    def _back(self, z: np.ndarray, n_threads: int | None = None) -> np.ndarray:
        return times_matrix(z, self._inverse_root, n_threads)

    def _back_transpose(self, g: np.ndarray, n_threads: int | None = None) -> np.ndarray:
        """Return L^{-1} g."""
        return times_matrix(g, self._inverse_root.T, n_threads)

    def _run_hs(
        self, raw: RawRecord, data: np.ndarray, mask: int, g: np.ndarray, n_threads: int | None,
        transpose: bool = False,
    ) -> np.ndarray:  # fmt: skip
        wide = g.astype(np.float64)
        inside = self._back_transpose if transpose else self._into
        raw = replace(raw, y=np.zeros_like(raw.y, dtype=np.float64))
        found = self._inner._run_hs(
            raw, self._inner._data_row, mask, np.ascontiguousarray(inside(wide, n_threads)),
            n_threads,
        )  # fmt: skip
        out = (self._into_transpose if transpose else self._back)(found, n_threads)
        return out.astype(g.dtype)

    def _into_transpose(self, g: np.ndarray, n_threads: int | None) -> np.ndarray:
        raise NotImplementedError

    # -- derivatives in the data ----------------------------------------------------------------

    def _check_data_rule(self, names: tuple[str, ...]) -> None:
        pass

    def _data_pull(
        self, raw: RawRecord, data: Mapping[str, np.ndarray], g: np.ndarray, names: tuple[str, ...]
    ) -> dict[str, np.ndarray]:
        lead, batch, n = g.shape
        inside = self._back_transpose(g.reshape(-1, n)).reshape(g.shape)
        inner = self._inner
        found = inner._data_pull(raw, {}, inside, tuple(f.name for f in inner._fields))
        if self._root.ndim == 1:
            for name in ("lower", "upper"):
                if name in found:
                    found[name] = found[name] * self._root
        elif "b_ub" in found:
            found["b_ub"], low, up = self._split(found["b_ub"])
            found["lower"], found["upper"] = -low, up
        return {name: found[name] for name in names}

    def _data_push(
        self, raw: RawRecord, data: Mapping[str, np.ndarray], tangents: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        lead, batch = next(iter(tangents.values())).shape[:2]
        rows = [
            np.broadcast_to(tangents.get(f.name, 0.0), (lead, batch, *f.shape))
            for f in self._fields
        ]
        flat = np.concatenate(rows, axis=-1)
        flat = flat.reshape(lead * batch, flat.shape[-1])
        inner = self._inner
        moved = self._inner_sides(flat)
        ends = np.cumsum([f.size for f in inner._fields])[:-1]
        parts = np.split(moved, ends, axis=1)
        own = {
            f.name: part.reshape(lead, batch, f.size)
            for f, part in zip(inner._fields, parts, strict=True)
        }
        z = inner._data_push(raw, {}, own).reshape(-1, self.size)
        return self._back(z).reshape(lead, batch, self.size)

    # -- the record -----------------------------------------------------------------------------

    def _warm_start(self, record: RawRecord) -> tuple[np.ndarray, np.ndarray] | None:
        return self._inner._warm_start(record)

    def _row_counts(self) -> tuple[int, int]:
        return self.rows._row_counts()

    def _flags(self, code: np.ndarray, mask: int) -> ConstraintFlags:
        inner = self._inner._flags(code, mask)
        return inner if self._root.ndim == 1 else ConstraintFlags(*self._split(inner.ub))

    def _multipliers(
        self, record: RawRecord, x: np.ndarray, data: Mapping[str, np.ndarray]
    ) -> Multipliers:
        y = record.y.astype(np.float64)
        inside = replace(record, y=times_matrix(y, self._root))
        found = self._inner._multipliers(inside, self._into(x.astype(np.float64), None), {})
        if self._root.ndim == 1:
            return found._replace(lower=found.lower * self._root, upper=found.upper * self._root)
        ub, lower, upper = self._split(found.ub)
        return Multipliers(ub, found.eq, lower, upper)

    def _residuals(
        self, x: np.ndarray, y: np.ndarray, found: Multipliers, data: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        H = self.H
        carried = self._rows_transpose(found.ub, found.eq)
        target, here = self._force(x, lambda v: times_matrix(v, H)), times_matrix(y, H)
        rest = target - here - carried - found.upper + found.lower
        force = (
            np.abs(target).max(axis=-1, initial=0)
            + np.abs(here).max(axis=-1, initial=0)
            + np.abs(carried).max(axis=-1, initial=0)
        )
        dual = np.abs(rest).max(axis=-1, initial=0.0) / np.where(force > 0.0, force, 1.0)
        rows = self.rows._residual_rows(data)
        size = np.abs(y).max(axis=-1, initial=0.0)
        reach = np.where(size > 0.0, size / np.where(force > 0.0, force, 1.0), 1.0)[:, None]
        scaled = Multipliers(*(part * reach for part in found))
        return rows.violation(y, size), dual, rows.complementarity(y, scaled, size)


class WeightedNorm(_Metric):
    r"""A set seen in the norm of a positive definite matrix.

    .. math:: \mathrm{project}(x, \cdot) = \arg\min_{y \in C} \tfrac12 (y - x)^T H (y - x)

    Parameters
    ----------
    C : PolyhedralSet
        A set of vectors; its general description is used.
    H : array_like, shape (n,) or (n, n)
        Diagonal, or symmetric positive definite. May be replaced at the call (``H=...``), with
        batch axes in front of a full matrix, as ``A_ub`` and ``A_eq`` may; the set is then
        prepared anew.

    Raises
    ------
    TypeError
        `C` is not a set of vectors.
    ValueError
        `H` has another shape, is not finite, not symmetric, or not positive definite.

    Notes
    -----
    Parameters of the data are those of the general polyhedron: ``b_ub, b_eq, lower, upper``. The
    derivative S H is symmetric in the norm of H only: ``V.T`` is another operator than V. In
    ``multipliers``, H (x - y) = A_ub' ub + A_eq' eq + upper - lower. Such a set runs on the host,
    and has no place inside other sets. Derivatives are conservative in (x, H, right-hand sides) on
    the data for which the set is not empty.

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import Simplex, WeightedNorm, project
    >>> project(np.array([1.0, 1.0]), WeightedNorm(Simplex(2), [1.0, 3.0]))
    array([0.25, 0.75])
    """

    symmetric = False

    def _into(self, x: np.ndarray, n_threads: int | None) -> np.ndarray:
        return times_matrix(x, self._root, n_threads)

    def _into_transpose(self, g: np.ndarray, n_threads: int | None) -> np.ndarray:
        return times_matrix(g, self._root.T, n_threads)


class QuadraticObjective(_Metric):
    r"""A set with a quadratic objective, whose linear term is the input.

    .. math:: \mathrm{project}(q, \cdot) = \arg\min_{y \in C} \tfrac12 y^T H y - q^T y

    What :func:`hsref.quadratic_program` solves with; parameters as :class:`WeightedNorm`. Its
    derivative S in q is symmetric.
    """

    force_of_metric = False

    def _into(self, x: np.ndarray, n_threads: int | None) -> np.ndarray:
        return times_matrix(x, self._inverse_root.T, n_threads)

    def _into_transpose(self, g: np.ndarray, n_threads: int | None) -> np.ndarray:
        return times_matrix(g, self._inverse_root, n_threads)


def _mapped(rows: np.ndarray | None, matrix: np.ndarray) -> np.ndarray | None:
    """Return rows L^{-T} (or rows scaled by a vector)."""
    if rows is None:
        return None
    return rows * matrix if matrix.ndim == 1 else np.einsum("ij,jk->ik", rows, matrix)


def check_metric(H: Any, n: int) -> np.ndarray:
    """Return H as a read-only float64 vector or symmetric matrix, or raise a sentence."""
    try:
        array = np.array(H, dtype=np.float64)
    except (TypeError, ValueError) as problem:
        raise TypeError(f"H must hold real numbers: {problem}.") from problem
    if array.shape not in ((n,), (n, n)):
        raise ValueError(
            f"H has shape {array.shape}; expected ({n},) for a diagonal, or ({n}, {n})."
        )
    if not np.all(np.isfinite(array)):
        where = tuple(int(k) for k in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"H must be finite; it is {array[where]} at index {where}.")
    if array.ndim == 1:
        least, largest = float(array.min()), float(array.max())
    else:
        gap = np.abs(array - array.T)
        if gap.max() > SYMMETRY_TOL * np.abs(array).max():
            i, j = (int(k) for k in np.unravel_index(int(gap.argmax()), gap.shape))
            raise ValueError(
                f"H must be symmetric; H[{i}, {j}] = {array[i, j]} and H[{j}, {i}] = "
                f"{array[j, i]}. Pass 0.5 * (H + H.T) if that is what you mean."
            )
        array = 0.5 * (array + array.T)
        eigenvalues = np.linalg.eigvalsh(array)
        least, largest = float(eigenvalues[0]), float(eigenvalues[-1])
    if not least > SINGULAR_TOL * n * max(largest, 0.0) or largest <= 0.0:
        raise ValueError(
            f"H must be positive definite; its smallest eigenvalue is {least:g} and its largest "
            f"{largest:g}. Add a multiple of the identity to it."
        )
    array.flags.writeable = False
    return array


def _roots(H: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (L, L^{-1}) with H = L L'; vectors where H is diagonal."""
    from scipy.linalg import solve_triangular

    diagonal = H if H.ndim == 1 else np.diag(H)
    if H.ndim == 1 or not np.any(H - np.diag(diagonal)):
        root = np.sqrt(diagonal)
        return root, 1.0 / root
    L = np.linalg.cholesky(H)
    return L, solve_triangular(L, np.eye(len(L)), lower=True)
