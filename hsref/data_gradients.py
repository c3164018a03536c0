r"""Derivatives of a projection in the data of its set: right-hand sides, bounds, totals, radii.

With K an *independent* basis of the active rows that holds the working set of the solve, M_K its
rows and c_K their right-hand sides,

.. math:: dy = V\,dx + M_K^+\,dc_K, \qquad \bar c_K = (M_K^+)^T g,

and 0 for every other row. This pair [V, M_K^+] is a limit of derivatives of the joint map
(x, c) -> y, and a conservative mapping for it on the data for which the set is not empty. K is used
whatever the selection for x: the pseudo-inverse of *all* active rows, where they are dependent,
would be conservative too but no limit of derivatives. Nothing is solved here; the record is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ._codes import SOLVED
from .record import Projection
from .saddle import Held, held_rows, saddle_solve
from .sets.base import PolyhedralSet

MATRICES = ("A_ub", "A_eq", "H")


def check_names(C: PolyhedralSet, names: Iterable[str]) -> tuple[str, ...]:
    """Return the parameters `names` of a set as a tuple, or raise a sentence.

    Parameters
    ----------
    C : PolyhedralSet
        The set that was solved with (``record.set``).
    names : iterable of str
        Names of parameters.

    Raises
    ------
    TypeError
        The set has no such parameter, or no derivative in it.
    """
    asked = tuple(names)
    known = [f.name for f in C._fields]
    for name in asked:
        if name == "H" and C._metric() is not None:
            continue
        if name in ("A_ub", "A_eq"):
            C._all_rows()
        elif name not in known:
            raise TypeError(
                f"{type(C).__name__} has no parameter {name!r} to differentiate in; it has "
                f"{', '.join(known) if known else 'none'}."
            )
    C._check_data_rule(tuple(name for name in asked if name not in MATRICES))
    return asked


def pull(
    record: Projection, g: Any, names: Iterable[str], *, degenerate_data: str = "raise"
) -> dict[str, np.ndarray]:
    r"""Return the cotangents of parameters of the set, sample by sample.

    .. math:: \bar\theta = R_K^T (M_K^+)^T g, \qquad c_K = c_0 + R_K \theta

    Parameters
    ----------
    record : Projection
        Made by :func:`hsref.projection`. Nothing is solved again.
    g : array_like, shape (*lead, *batch, *C.shape)
        Cotangents of y; axes in front of the batch are further cotangents. Not modified.
    names : iterable of str
        Parameters of ``record.set``, replaced at the call or not; ``"A_ub"`` and ``"A_eq"`` of a
        general polyhedron.
    degenerate_data : {"raise", "minimum_norm"}
        For matrices, where active rows are dependent: refuse, or use the pseudo-inverse of all
        active rows, which is one choice among many and no derivative.

    Returns
    -------
    dict of str to ndarray, shape (*lead, *batch, *field.shape)
        float64 whatever the dtype of x, so that sums over a batch keep their digits: use
        :func:`sum_to` for the shape that the caller gave, or :func:`pull_to` for both in one.
        Zero for samples that were not solved.

    Raises
    ------
    TypeError
        The set has no such parameter, or declares no derivative in it.
    DegenerateDataGradientError
        Matrices are asked for and active rows of a sample are dependent.
    ValueError
        The shape of `g` is not that of y.

    Notes
    -----
    With w the cotangents of the right-hand sides and nu the multipliers, those of the rows are
    :math:`-w y^T - \nu (V g)^T`: one matrix a sample, O(m n) numbers; at O(n k^2) work.

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import Simplex, projection
    >>> from hsref.data_gradients import pull
    >>> p = projection(np.array([[0.6, 0.8, -1.0]]), Simplex(3))
    >>> pull(p, np.array([[1.0, 0.0, 5.0]]), ["total"])
    {'total': array([0.5])}
    """
    shapes = {
        name: (*record.batch_shape, *field_shape(record.set, name))
        for name in check_names(record.set, names)
    }
    return pull_to(record, g, shapes, degenerate_data=degenerate_data)


def pull_to(
    record: Projection,
    g: Any,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    degenerate_data: str = "raise",
) -> dict[str, np.ndarray]:
    """Return the cotangents of parameters in the shapes they were given in, summed where shared.

    What :func:`pull` and :func:`sum_to` give together; the cotangent of a matrix that the batch
    shares is summed without one matrix a sample ever being stored.

    Parameters
    ----------
    record, g, degenerate_data
        As :func:`pull`.
    shapes : mapping of str to tuple of int
        For each parameter its shape at the call.

    Returns
    -------
    dict of str to ndarray, shape (*lead, *shape)
        float64.

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import Polyhedron, projection
    >>> from hsref.data_gradients import pull_to
    >>> p = projection(np.array([[2.0, 0.0], [4.0, 0.0]]), Polyhedron([[1.0, 0.0]], [1.0]))
    >>> pull_to(p, np.ones((2, 2)), {"A_ub": (1, 2), "b_ub": (1,)})
    {'A_ub': array([[-2., -4.]]), 'b_ub': array([2.])}
    """
    C = record.set
    asked = check_names(C, shapes)
    full = record.x.shape
    g = np.asarray(g)
    lead = g.ndim - len(full)
    if lead < 0 or g.shape[lead:] != full:
        raise ValueError(
            f"a cotangent must be shaped like y, {full}, with any further axes in front; got shape "
            f"{g.shape}."
        )
    if g.dtype.kind not in "fiub":
        raise TypeError(f"a cotangent must hold real numbers; got dtype {g.dtype}.")
    front = g.shape[:lead]
    samples = record._raw.status.size
    flat = g.astype(np.float64).reshape(_count(front), samples, C.size)
    sides = tuple(name for name in asked if name not in MATRICES)
    found = C._data_pull(record._raw, record._data, flat, sides) if sides else {}
    unsolved = np.flatnonzero(record._raw.status != SOLVED)
    out = {}
    for name in sides:
        part = np.array(found[name])
        part[:, unsolved] = 0.0
        part = part.reshape((*front, *record.batch_shape, *field_shape(C, name)))
        out[name] = sum_to(part, shapes[name], lead)
    if len(sides) < len(asked):
        out.update(_pull_matrices(record, flat, front, shapes, degenerate_data))
    return {name: out[name] for name in asked}


def field_shape(C: PolyhedralSet, name: str) -> tuple[int, ...]:
    """Return the shape of a parameter for one sample."""
    metric = C._metric() if name == "H" else None
    if metric is not None:
        return metric.shape[1:]
    if name in MATRICES:
        m, p = C._row_counts()
        return (m if name == "A_ub" else p, C.size)
    return next(f.shape for f in C._fields if f.name == name)


class _Solution(NamedTuple):
    """What derivatives in matrices are made of: K, the input, y, nu on K, rows and metric."""

    held: Held
    x: np.ndarray
    y: np.ndarray
    nu: np.ndarray
    rows: np.ndarray
    H: np.ndarray | None
    C: PolyhedralSet

    @classmethod
    def of(cls, record: Projection, degenerate: str, matrices: bool) -> _Solution:
        C = record.set
        held = held_rows(record, "active", degenerate, matrices=matrices)
        rows, H = C._all_rows(), C._metric()
        solved = held.solved[:, None]
        y = np.where(solved, record._raw.y, 0.0)
        x = record.x.reshape(y.shape).astype(np.float64)
        force = np.where(solved, C._force(x, lambda v: _times(H, v)) - _times(H, y), 0.0)
        nothing = np.zeros((len(y), rows.shape[1]))
        _, nu = saddle_solve(H, rows, held, force, nothing, np.zeros_like(y))
        return cls(held, x, y, nu, rows, H, C)

    def solve(self, p: np.ndarray, q: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        q = np.zeros_like(self.nu) if q is None else q
        return saddle_solve(self.H, self.rows, self.held, p, q, np.zeros_like(self.y))


def _times(H: np.ndarray | None, v: np.ndarray) -> np.ndarray:
    if H is None:
        return v
    return H * v if H.ndim == 2 else np.einsum("...ij,...j->...i", H, v)


def _pull_matrices(
    record: Projection,
    g: np.ndarray,
    front: tuple[int, ...],
    shapes: Mapping[str, tuple[int, ...]],
    degenerate: str,
) -> dict[str, np.ndarray]:
    at = _Solution.of(record, degenerate, "A_ub" in shapes or "A_eq" in shapes)
    _, p = record.set._row_counts()
    each: dict[str, list[np.ndarray]] = {name: [] for name in shapes if name in MATRICES}
    for one in g:
        s, w = at.solve(one)
        for name, parts in each.items():
            own = slice(p, None) if name == "A_ub" else slice(0, p)
            shared = len(shapes[name]) <= 2
            if name == "H":
                # The input x of a projection stands for q = H x, and moves with H.
                against = at.x - at.y if at.C.force_of_metric else -at.y
                if len(shapes[name]) == 1:
                    part = s * against
                    parts.append(part.sum(axis=0) if shared else part)
                    continue
                half = 0.5 * np.einsum("bi,bj->ij" if shared else "bi,bj->bij", s, against)
                part = half + np.swapaxes(half, -1, -2)
            elif shared:
                part = -np.einsum("br,bn->rn", w[:, own], at.y)
                part -= np.einsum("br,bn->rn", at.nu[:, own], s)
            else:
                part = -w[:, own, None] * at.y[:, None] - at.nu[:, own, None] * s[:, None]
            if not shared:
                part = part.reshape((*record.batch_shape, *part.shape[1:]))
                part = sum_to(part, shapes[name])
            parts.append(part)
    return {name: np.array(parts).reshape((*front, *shapes[name])) for name, parts in each.items()}


def push(
    record: Projection, tangents: Mapping[str, Any], *, degenerate_data: str = "raise"
) -> np.ndarray:
    r"""Return the change of y for changes of parameters of the set; the transpose of `pull`.

    .. math:: dy = M_K^+ R_K\, d\theta

    Parameters
    ----------
    record : Projection
        Made by :func:`hsref.projection`. Nothing is solved again.
    tangents : mapping of str to array_like
        For each parameter an array that broadcasts to (*lead, *batch, *field.shape), the `lead`
        of all being the same. Not modified.
    degenerate_data : {"raise", "minimum_norm"}
        As :func:`pull`.

    Returns
    -------
    ndarray, shape (*lead, *batch, *C.shape)
        In the dtype of x. Zero for samples that were not solved.

    Raises
    ------
    TypeError, ValueError
        As :func:`pull`.

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import Simplex, projection
    >>> from hsref.data_gradients import push
    >>> push(projection(np.array([0.6, 0.8, -1.0]), Simplex(3)), {"total": 1.0})
    array([0.5, 0.5, 0. ])
    """
    C = record.set
    asked = check_names(C, tangents)
    shapes = {name: (*record.batch_shape, *field_shape(C, name)) for name in asked}
    given = {}
    front: tuple[int, ...] = ()
    for name in asked:
        array = np.asarray(tangents[name])
        if array.dtype.kind not in "fiub":
            raise TypeError(f"the tangent of {name} must hold real numbers; got {array.dtype}.")
        given[name] = array.astype(np.float64)
        ahead = array.shape[: max(array.ndim - len(shapes[name]), 0)]
        front = ahead if len(ahead) > len(front) else front
    samples = record._raw.status.size
    full = {}
    for name, array in given.items():
        own = shapes[name][len(record.batch_shape) :]
        try:
            wide = np.broadcast_to(array, (*front, *shapes[name]))
        except ValueError as problem:
            raise ValueError(
                f"the tangent of {name} has shape {array.shape}; expected something that "
                f"broadcasts to {(*front, *shapes[name])}."
            ) from problem
        full[name] = wide.reshape((_count(front), samples, *own))
    if not full:
        return np.zeros(record.x.shape, record.x.dtype)
    sides = {name: full[name] for name in full if name not in MATRICES}
    dy = np.zeros((_count(front), samples, C.size))
    if sides:
        dy += C._data_push(record._raw, record._data, sides)
    if len(sides) < len(full):
        _push_matrices(record, full, dy, degenerate_data)
    dy[:, record._raw.status != SOLVED] = 0.0
    return dy.reshape((*front, *record.x.shape)).astype(record.x.dtype, copy=False)


def _push_matrices(
    record: Projection, full: Mapping[str, np.ndarray], dy: np.ndarray, degenerate: str
) -> None:
    at = _Solution.of(record, degenerate, "A_ub" in full or "A_eq" in full)
    _, p = record.set._row_counts()
    for k in range(len(dy)):
        force, gap = np.zeros_like(at.y), np.zeros_like(at.nu)
        for name, own in (("A_eq", slice(0, p)), ("A_ub", slice(p, None))):
            if name in full:
                dA = full[name][k]
                force -= np.einsum("brn,br->bn", dA, at.nu[:, own])
                gap[:, own] -= np.einsum("brn,bn->br", dA, at.y)
        if "H" in full:
            force += _times(full["H"][k], at.x - at.y if at.C.force_of_metric else -at.y)
        dy[k] += at.solve(force, gap)[0]


def sum_to(array: np.ndarray, shape: tuple[int, ...], lead: int = 0) -> np.ndarray:
    """Return `array` summed over the axes along which `shape` was broadcast.

    Parameters
    ----------
    array : ndarray, shape (*lead_axes, *full)
        Cotangents, one a sample.
    shape : tuple of int
        Shape of the parameter as the caller gave it; it broadcasts to ``full``. A parameter shared
        by a batch receives the sum over the batch.
    lead : int
        Number of axes in front that are kept.

    Returns
    -------
    ndarray, shape (*lead_axes, *shape)

    Examples
    --------
    >>> import numpy as np
    >>> from hsref.data_gradients import sum_to
    >>> sum_to(np.ones((4, 3, 2)), (1, 2)), sum_to(np.ones((4, 3)), (3,), lead=1).shape
    (array([[12., 12.]]), (4, 3))
    """
    front = array.shape[:lead]
    full = array.shape[lead:]
    extra = len(full) - len(shape)
    if extra < 0:
        # As many entries, written with axes of length 1 in front.
        return array.reshape((*front, *shape))
    axes = [lead + k for k in range(extra)]
    axes += [
        lead + extra + k for k, length in enumerate(shape) if length == 1 and full[extra + k] != 1
    ]
    return array.sum(axis=tuple(axes)).reshape((*front, *shape))


def _count(front: tuple[int, ...]) -> int:
    out = 1
    for length in front:
        out *= length
    return out
