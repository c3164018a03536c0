"""Arrays of any other framework that exchanges memory through DLPack, on the CPU.

Those on a CUDA device are taken by :mod:`hsref._cuda.resident`.

Values only: DLPack carries no gradients, and an array that says that it wants one is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import hsref
from hsref._cuda.dlpack import importer

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
            f"x is a {kind} on DLPack device type {where}, neither the host nor a CUDA device: "
            "move it to the host first."
        )
    take = importer(x)
    if take is None:
        raise TypeError(
            f"x is a {kind}, whose module offers no from_dlpack to return one: pass "
            "numpy.from_dlpack(x) and convert the result."
        )
    return take(hsref.project(np.from_dlpack(x), C, **options, **data))
