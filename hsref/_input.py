"""What comes in and goes out: kinds of arrays, casts, broadcasts, and the sentences of refusal.

The ante-room of :mod:`hsref.solve`; nothing else in the package casts or validates an input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ._device import on_device
from .jacobian import check_selection
from .record import Projection, WarmStart
from .sets.base import PolyhedralSet

ACTIVE_TOL = {np.dtype(np.float64): 1e-9, np.dtype(np.float32): 1e-6}
"""Relative slack under which a row counts as active, by the dtype of x."""

MATRICES = ("A_ub", "A_eq", "H")
"""Matrices that a call may replace."""

BRIDGES = {"torch": "PyTorch", "jax": "JAX", "jaxlib": "JAX"}
"""Frameworks whose arrays are recognised (by the module of their type, or of a base of it)."""

_PLAIN = ("numpy", "builtins")


def kind_of(x: Any, name: str = "x") -> str:
    """Return the framework that `x` belongs to, ``"numpy"`` for arrays, numbers and lists.

    ``"cuda"`` stands for arrays on a CUDA device, ``"dlpack"`` for any other array that can be
    exchanged through DLPack.
    """
    if isinstance(x, int | float | np.ndarray):
        return "numpy"
    root = type(x).__module__.partition(".")[0]
    if root in _PLAIN:
        if isinstance(x, list | tuple) and any(kind_of(item) != "numpy" for item in x):
            raise TypeError(
                f"{name} is a list that holds arrays of another framework; stack them there first "
                "so that their gradients are kept."
            )
        return "numpy"
    if root == "autograd":
        return "autograd"
    if root in BRIDGES:
        return BRIDGES[root]
    for base in type(x).__mro__:
        root = base.__module__.partition(".")[0]
        if root == "numpy":
            return "numpy"
        if root in BRIDGES:
            return BRIDGES[root]
    if on_device(x):
        return "cuda"
    if hasattr(type(x), "__dlpack__") and hasattr(type(x), "__dlpack_device__"):
        from ._cuda.dlpack import is_cuda_dlpack

        return "cuda" if is_cuda_dlpack(x) else "dlpack"
    return "numpy"


def refuse_gradients(
    data: Mapping[str, Any], owner: str = "project", welcome: str = "numpy"
) -> None:
    """Raise a sentence for a parameter whose gradient (or device) would be dropped.

    Plain values pass, and arrays of the framework `welcome`.
    """
    for name, value in data.items():
        kind = kind_of(value, name)
        if kind == "cuda":
            raise TypeError(
                f"{name} lives on a device; parameters are given as host arrays, wherever x lives."
            )
        if kind in ("numpy", welcome):
            continue
        if kind == "autograd":
            raise TypeError(
                f"{name} carries gradients, which {owner} would drop: use project() with x of the "
                "same framework, or pass the value alone."
            )
        if kind == "dlpack":
            raise TypeError(f"{name} is a {type(value).__name__}; pass numpy.from_dlpack({name}).")
        raise TypeError(
            f"{name} is a {kind} array and x is not: give both as arrays of one framework, so that "
            "no gradient is lost."
        )


def has_traced(data: Mapping[str, Any]) -> bool:
    """Return whether a parameter is traced by autograd."""
    return any(kind_of(value, name) == "autograd" for name, value in data.items())


def check_options(options: Mapping[str, Any]) -> None:
    check_selection(options["selection"])
    if options["on_infeasible"] not in ("raise", "nan"):
        raise ValueError(
            f"on_infeasible must be 'raise' or 'nan'; got {options['on_infeasible']!r}."
        )
    if options["device"] not in (None, "cpu", "cuda"):
        raise ValueError(f"device must be None, 'cpu' or 'cuda'; got {options['device']!r}.")
    threads = options["n_threads"]
    whole = isinstance(threads, int | np.integer) and not isinstance(threads, bool)
    if threads is not None and (not whole or threads < 1):
        raise ValueError(f"n_threads must be a positive integer or None; got {threads!r}.")


def as_points(x: Any, C: PolyhedralSet) -> np.ndarray:
    """Return x as a float32 or float64 array whose last axes are those of a point."""
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError("x is a masked array; fill or drop its masked entries first.")
    try:
        array = np.asarray(x)
    except ValueError as problem:
        raise ValueError(f"x cannot be made into an array: {problem}.") from problem
    if array.dtype.kind in "iu":
        array = array.astype(np.float64)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    check_points(array.dtype, array.shape, C)
    return array


def check_points(dtype: np.dtype, shape: tuple[int, ...], C: PolyhedralSet) -> None:
    """Raise a sentence unless dtype and shape are those of a batch of points of C."""
    if dtype not in ACTIVE_TOL:
        if dtype == np.float16 or dtype.name == "bfloat16":
            raise TypeError(
                f"x is {dtype.name}, too coarse to tell active rows from inactive ones: convert it "
                "with x.astype('float32'), and the result back if you must."
            )
        raise TypeError(f"x must be float32 or float64 (or integers); got dtype {dtype}.")
    axes = len(C.shape)
    if len(shape) < axes or shape[len(shape) - axes :] != C.shape:
        where = "axis" if axes == 1 else f"{axes} axes"
        raise ValueError(
            f"x has shape {shape}, but a point of {C!r} has shape {C.shape}: the last {where} of "
            f"x must be {C.shape}."
        )


def as_data(
    data: Mapping[str, Any], C: PolyhedralSet, dtype: np.dtype, batch_shape: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """Return replaced parameters as float64 arrays of shape (1 or B, *field.shape)."""
    fields = {f.name: f for f in C._fields}
    out = {}
    for name, value in data.items():
        shape = fields[name].shape
        array = np.asarray(value)
        if array.dtype.kind not in "fiu":
            raise TypeError(f"{name} must be real numbers; got dtype {array.dtype}.")
        # Cast to the precision of x first: a record speaks of the numbers that were solved.
        array = array.astype(dtype).astype(np.float64)
        if np.isnan(array).any():
            first = tuple(int(k) for k in np.argwhere(np.isnan(array))[0])
            raise ValueError(f"{name} must be numbers; the entry at index {first} is nan.")
        try:
            if array.ndim <= len(shape):
                full = np.broadcast_to(array, shape)[None]
            else:
                full = np.broadcast_to(array, (*batch_shape, *shape))
                full = full.reshape(-1, *shape)
        except ValueError as problem:
            raise ValueError(
                f"{name} has shape {array.shape}; expected {shape}, or the batch axes in front: "
                f"{(*batch_shape, *shape)}."
            ) from problem
        out[name] = full
    if out:
        C._check_data({f.name: out[f.name] if f.name in out else f.value for f in C._fields})
    return out


def take_matrices(
    C: PolyhedralSet, data: Mapping[str, Any], dtype: np.dtype, batch_shape: tuple[int, ...]
) -> tuple[PolyhedralSet, Mapping[str, Any]]:
    """Return the set with the matrices of this call, and the data without them."""
    names = [name for name in MATRICES if name in data]
    if not names:
        return C, data
    given = {}
    for name in names:
        array = np.asarray(data[name])
        if array.dtype.kind not in "fiu":
            raise TypeError(f"{name} must be real numbers; got dtype {array.dtype}.")
        given[name] = array.astype(dtype).astype(np.float64)
    rest = {name: value for name, value in data.items() if name not in names}
    return C._with_matrices(given, rest, batch_shape)


def pack_data(C: PolyhedralSet, replaced: Mapping[str, np.ndarray], batch: int) -> np.ndarray:
    """Return the data rows of the kernel, shape (1, P) or (B, P)."""
    if not replaced:
        return C._data_row
    rows = next((len(v) for v in replaced.values() if len(v) != 1), 1)
    parts = [
        np.broadcast_to(replaced.get(f.name, f.value[None]), (rows, *f.shape)).reshape(rows, f.size)
        for f in C._fields
    ]
    return np.ascontiguousarray(np.concatenate(parts, axis=1))


def as_start(
    start: Any, C: PolyhedralSet, batch_shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray] | None:
    if isinstance(start, WarmStart):
        record = start.record
        fits = (
            record is not None
            and record.batch_shape == batch_shape
            and record.set.shape == C.shape
            and C._accepts_start(record.set)
        )
        start = record if fits else None
    if start is None:
        return None
    if not isinstance(start, Projection):
        raise TypeError(
            f"start must be a Projection record or a WarmStart; got {type(start).__name__}."
        )
    if start.batch_shape != batch_shape or start.set.shape != C.shape:
        raise ValueError(
            f"start is a record of batch {start.batch_shape} onto {start.set!r}; expected batch "
            f"{batch_shape} onto {C!r}."
        )
    if not C._accepts_start(start.set):
        raise ValueError(
            f"start is a record onto {start.set!r}, made by another algorithm or with other rows "
            f"than {C!r} has: its working sets mean nothing here."
        )
    return C._warm_start(start._raw)


def as_kind(y: Any, x: Any) -> Any:
    """Return y as the kind of x: lists for lists, tuples for tuples."""
    if isinstance(x, list):
        return y.tolist()
    if isinstance(x, tuple):
        return _tuples(y.tolist())
    return y


def _tuples(nested: Any) -> Any:
    return tuple(_tuples(item) for item in nested) if isinstance(nested, list) else nested
