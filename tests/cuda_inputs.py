"""Stand-ins for the device arrays of other libraries, over the memory of a Numba device array."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from hsref._cuda import compat
from hsref._cuda.dlpack import Exported, Imported


class Foreign:
    """An array that offers the CUDA array interface and nothing else, and may name a stream."""

    def __init__(self, array: Any, stream: int | None = None, **more: Any) -> None:
        self.array = array
        self.__cuda_array_interface__ = {
            "version": 3,
            "shape": tuple(array.shape),
            "typestr": np.dtype(array.dtype).str,
            "data": (compat.pointer_of(array), False),
            "strides": tuple(array.strides),
            "stream": stream,
            **more,
        }


class Capsuled:
    """An array that offers DLPack and nothing else."""

    asked: Any = None

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, compat.device_number()

    def __dlpack__(self, *, stream: Any = None) -> Any:
        self.asked = stream
        exported = Exported(self.array, compat.device_number(), compat.pointer_of(self.array))
        return exported.__dlpack__(stream=stream)

    def copy_to_host(self) -> np.ndarray:
        return self.array.copy_to_host()


def from_dlpack(y: Any) -> Capsuled:
    return Capsuled(compat.view_of(Imported(y, compat.legacy_stream())))


@contextmanager
def library():
    """Make the class above the array of a library that imports from DLPack."""
    module = ModuleType("elsewhere_on_cuda")
    module.from_dlpack = from_dlpack
    before = Capsuled.__module__
    sys.modules[module.__name__] = module
    Capsuled.__module__ = module.__name__
    try:
        yield
    finally:
        Capsuled.__module__ = before
        del sys.modules[module.__name__]
