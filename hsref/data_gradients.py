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
from typing import Any

import numpy as np

from ._codes import SOLVED
from .record import Projection
from .sets.base import PolyhedralSet


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
        if name not in known:
            raise TypeError(
                f"{type(C).__name__} has no parameter {name!r} to differentiate in; it has "
                f"{', '.join(known) if known else 'none'}."
            )
    C._check_data_rule(asked)
    return asked


def pull(record: Projection, g: Any, names: Iterable[str]) -> dict[str, np.ndarray]:
    r"""Return the cotangents of parameters of the set, sample by sample.

    .. math:: \bar\theta = R_K^T (M_K^+)^T g, \qquad c_K = c_0 + R_K \theta

    Parameters
    ----------
    record : Projection
        Made by :func:`hsref.projection`. Nothing is solved again.
    g : array_like, shape (*lead, *batch, *C.shape)
        Cotangents of y; axes in front of the batch are further cotangents. Not modified.
    names : iterable of str
        Parameters of ``record.set``, replaced at the call or not.

    Returns
    -------
    dict of str to ndarray, shape (*lead, *batch, *field.shape)
        float64 whatever the dtype of x, so that sums over a batch keep their digits: use
        :func:`sum_to` for the shape that the caller gave. Zero for samples that were not solved.

    Raises
    ------
    TypeError
        The set has no such parameter, or declares no derivative in it.
    ValueError
        The shape of `g` is not that of y.

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import Simplex, projection
    >>> from hsref.data_gradients import pull
    >>> p = projection(np.array([[0.6, 0.8, -1.0]]), Simplex(3))
    >>> pull(p, np.array([[1.0, 0.0, 5.0]]), ["total"])
    {'total': array([0.5])}
    """
    C = record.set
    asked = check_names(C, names)
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
    found = C._data_pull(record._raw, record._data, flat, asked) if asked else {}
    shapes = {f.name: f.shape for f in C._fields}
    unsolved = np.flatnonzero(record._raw.status != SOLVED)
    out = {}
    for name in asked:
        part = np.array(found[name])
        part[:, unsolved] = 0.0
        out[name] = part.reshape((*front, *record.batch_shape, *shapes[name]))
    return out


def push(record: Projection, tangents: Mapping[str, Any]) -> np.ndarray:
    r"""Return the change of y for changes of parameters of the set; the transpose of `pull`.

    .. math:: dy = M_K^+ R_K\, d\theta

    Parameters
    ----------
    record : Projection
        Made by :func:`hsref.projection`. Nothing is solved again.
    tangents : mapping of str to array_like
        For each parameter an array that broadcasts to (*lead, *batch, *field.shape), the `lead`
        of all being the same. Not modified.

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
    shapes = {f.name: (*record.batch_shape, *f.shape) for f in C._fields}
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
    dy = C._data_push(record._raw, record._data, full)
    dy[:, record._raw.status != SOLVED] = 0.0
    return dy.reshape((*front, *record.x.shape)).astype(record.x.dtype, copy=False)


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
