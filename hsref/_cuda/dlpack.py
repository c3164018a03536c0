"""DLPack for memory of a CUDA device, read and written by hand: no framework is asked.

The structures are those of DLPack 0.8 (``dlpack.h``), which every producer still hands out when it
is asked for no newer version.
"""

from __future__ import annotations

import ctypes
import sys
import weakref
from typing import Any

import numpy as np

CUDA_TYPES = (2, 13)
"""DLPack's numbers for memory of a CUDA device, and for managed memory."""

_NAME, _USED = b"dltensor", b"used_dltensor"
_KINDS = {"i": 0, "u": 1, "f": 2}
_LETTERS = {code: letter for letter, code in _KINDS.items()}


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    pass


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_Managed._fields_ = (
    ("tensor", _Tensor),
    ("manager_ctx", ctypes.c_void_p),
    ("deleter", _Deleter),
)

_api = ctypes.pythonapi
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_IsValid", _api)
)
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", _api)
)
_rename = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_SetName", _api)
)
_Destructor = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, _Destructor)(
    ("PyCapsule_New", _api)
)
# A capsule being destroyed has no references left: its address goes around as a number.
_is_valid_at = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_IsValid", _api)
)
_pointer_at = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", _api)
)


def is_cuda_dlpack(x: Any) -> bool:
    """Tell whether `x` offers memory of a CUDA device through DLPack."""
    kind = type(x)
    if not (hasattr(kind, "__dlpack__") and hasattr(kind, "__dlpack_device__")):
        return False
    return int(x.__dlpack_device__()[0]) in CUDA_TYPES


class Imported:
    """A device array taken through DLPack, shown by the CUDA array interface.

    The producer orders its own work before the given stream; the memory is returned to it when
    this object goes.
    """

    def __init__(self, x: Any, stream: int) -> None:
        capsule = x.__dlpack__(stream=stream)
        if not _is_valid(capsule, _NAME):
            raise TypeError(f"the DLPack capsule of a {type(x).__name__} is of an unknown version.")
        address = _pointer(capsule, _NAME)
        managed = _Managed.from_address(address)
        _rename(capsule, _USED)
        weakref.finalize(self, _return, address)
        t = managed.tensor
        if t.lanes != 1 or t.code not in _LETTERS or t.bits % 8:
            raise TypeError(
                f"a {type(x).__name__} with DLPack type (code {t.code}, {t.bits} bits, {t.lanes} "
                "lanes) is neither float32 nor float64."
            )
        size = t.bits // 8
        strides = None
        if t.strides:
            strides = tuple(size * t.strides[k] for k in range(t.ndim))
        self.__cuda_array_interface__ = {
            "version": 3,
            "shape": tuple(t.shape[k] for k in range(t.ndim)),
            "typestr": np.dtype(f"{_LETTERS[t.code]}{size}").str,
            "data": ((t.data or 0) + t.byte_offset, False),
            "strides": strides,
            "stream": None,
        }


def _return(address: int) -> None:
    deleter = _Managed.from_address(address).deleter
    if deleter:
        deleter(address)


class Exported:
    """A device array, everything queued on it finished, that others can take through DLPack.

    Parameters
    ----------
    array : device array
        C-contiguous.
    device : int
        Number of the device.
    pointer : int
        Where its memory begins.
    kind : int
        DLPack's number for the kind of memory.
    """

    def __init__(self, array: Any, device: int, pointer: int, kind: int = CUDA_TYPES[0]) -> None:
        self.array, self.device, self.pointer, self.kind = array, device, pointer, kind

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.kind, self.device

    def __dlpack__(self, *, stream: Any = None, **newer: Any) -> Any:
        """Return a capsule of memory that is ready: no stream need wait for it."""
        return _capsule(self.array, self.kind, self.device, self.pointer)


_ALIVE: dict[int, Any] = {}
"""What exported structures point to, by their address, until their owner returns them."""


@_Deleter
def _forget(address: int) -> None:
    _ALIVE.pop(address, None)


@_Destructor
def _discard(capsule: int) -> None:
    # Nobody took it: a consumer would have renamed the capsule.
    if _is_valid_at(capsule, _NAME):
        _ALIVE.pop(_pointer_at(capsule, _NAME), None)


def _capsule(array: Any, kind: int, device: int, pointer: int) -> Any:
    dtype = np.dtype(array.dtype)
    ndim = array.ndim
    shape = (ctypes.c_int64 * ndim)(*array.shape)
    strides = (ctypes.c_int64 * ndim)(*(s // dtype.itemsize for s in array.strides))
    tensor = _Tensor(
        pointer, kind, device, ndim, _KINDS[dtype.kind], 8 * dtype.itemsize, 1, shape, strides, 0
    )
    managed = _Managed(tensor, None, _forget)
    address = ctypes.addressof(managed)
    _ALIVE[address] = (array, shape, strides, managed)
    return _new(address, _NAME, _discard)


def importer(x: Any) -> Any:
    """Return the ``from_dlpack`` of the library that x comes from, or None."""
    if hasattr(x, "__array_namespace__"):
        found = getattr(x.__array_namespace__(), "from_dlpack", None)
        if found is not None:
            return found
    parts = type(x).__module__.split(".")
    modules = [".".join(parts[:k]) for k in range(len(parts), 0, -1)]
    for module in modules:
        found = getattr(sys.modules.get(module), "from_dlpack", None)
        if found is not None:
            return found
    return None
