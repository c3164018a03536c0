"""What comes in and goes out: kinds of arrays, casts, broadcasts, and the sentences of refusal.

The ante-room of :mod:`hsref.solve`; nothing else in the package casts or validates an input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .jacobian import check_selection
from .record import Projection
from .sets.base import PolyhedralSet

ACTIVE_TOL = {np.dtype(np.float64): 1e-9, np.dtype(np.float32): 1e-6}
"""Relative slack under which a row counts as active, by the dtype of x."""

BRIDGES = {"torch": "PyTorch", "jax": "JAX", "jaxlib": "JAX"}
"""Frameworks whose arrays are recognised (by the module of their type, or of a base of it)."""

_PLAIN = ("numpy", "builtins")


def kind_of(x: Any) -> str:
    """Return the framework that `x` belongs to, ``"numpy"`` for arrays, numbers and lists.

    ``"dlpack"`` stands for any other array that can be exchanged through DLPack.
    """
    if isinstance(x, int | float | np.ndarray):
        return "numpy"
    root = type(x).__module__.partition(".")[0]
    if root in _PLAIN:
        if isinstance(x, list | tuple) and any(kind_of(item) != "numpy" for item in x):
            raise TypeError(
                "x is a list that holds arrays of another framework; stack them there first so "
                "that their gradients are kept."
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
    if hasattr(type(x), "__cuda_array_interface__") or getattr(x, "__cuda_ndarray__", False):
        return "cuda"
    if hasattr(type(x), "__dlpack__") and hasattr(type(x), "__dlpack_device__"):
        return "dlpack"
    return "numpy"


def refuse_gradients(data: Mapping[str, Any], kind: str = "numpy") -> None:
    """Raise unless parameters are plain values, or arrays of the framework `kind`."""
    for name, value in data.items():
        found = kind_of(value)
        if found == "cuda":
            raise TypeError(f"{name} lives on a device; parameters are given as host arrays.")
        if found in ("numpy", kind):
            continue
        if found == "autograd":
            raise TypeError(
                f"{name} carries gradients, and derivatives in the data of a set are not "
                "available: pass its value, or differentiate with respect to x alone."
            )
        if found == "dlpack":
            raise TypeError(f"{name} is a {type(value).__name__}; pass numpy.from_dlpack({name}).")
        raise TypeError(
            f"{name} is a {found} array and x is not: convert one of the two yourself, so that no "
            "gradient is lost and no precision changes behind your back."
        )


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
    if dtype == np.float16 or dtype.name == "bfloat16":
        raise TypeError(
            f"x is {dtype.name}, too coarse to tell active rows from inactive ones: convert it "
            "with x.astype('float32'), and the result back if you must."
        )
    if dtype not in ACTIVE_TOL:
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


def pack_data(C: PolyhedralSet, replaced: Mapping[str, np.ndarray], batch: int) -> np.ndarray:
    """Return the data rows of the kernel, shape (1, P) or (B, P)."""
    if not replaced:
        return C._data_row
    rows = max(len(v) for v in replaced.values())
    parts = [
        np.broadcast_to(replaced.get(f.name, f.value[None]), (rows, *f.shape)).reshape(rows, -1)
        for f in C._fields
    ]
    return np.ascontiguousarray(np.concatenate(parts, axis=1))


def as_start(
    start: Any, C: PolyhedralSet, batch_shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray] | None:
    if start is None:
        return None
    if not isinstance(start, Projection):
        raise TypeError(f"start must be a Projection record; got {type(start).__name__}.")
    if start.batch_shape != batch_shape or start.set.shape != C.shape:
        raise ValueError(
            f"start is a record of batch {start.batch_shape} onto {start.set!r}; expected batch "
            f"{batch_shape} onto {C!r}."
        )
    if start.set.kernel.project_point is not C.kernel.project_point:
        raise ValueError(f"start was made by another algorithm ({start.method}) than {C!r} uses.")
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
