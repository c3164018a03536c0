"""Arrays of any other framework that exchanges memory through DLPack, on the CPU.

Values only: DLPack carries no gradients, and an array that says that it wants one is refused.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

import hsref

ON_CPU = 1
"""DLPack's number for memory of the host."""


def project(x: Any, C: Any, options: Mapping[str, Any], data: Mapping[str, Any]) -> Any:
    """Project an array through its DLPack view; the result is of the same kind."""
    kind = type(x).__name__
    if getattr(x, "requires_grad", False):
        raise TypeError(
            f"x is a {kind} that requires a gradient, which DLPack would drop: use hsref.vjp "
            "inside a custom function of that framework."
        )
    where = int(x.__dlpack_device__()[0])
    if where != ON_CPU:
        raise TypeError(
            f"x is a {kind} on DLPack device type {where}: move it to the host first, or hand in "
            "an array with __cuda_array_interface__ to stay on a CUDA device."
        )
    take = _importer(x)
    if take is None:
        raise TypeError(
            f"x is a {kind}, whose module offers no from_dlpack to return one: pass "
            "numpy.from_dlpack(x) and convert the result."
        )
    return take(hsref.project(np.from_dlpack(x), C, **options, **data))


def _importer(x: Any) -> Any:
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
