"""Where an array lives: asked on the host, before any CUDA compiler is loaded, and by its room."""

from __future__ import annotations

from typing import Any


def on_device(x: Any) -> bool:
    """Tell whether `x` lives on a CUDA device (or in the simulator) and says so itself.

    Asked of the object: a tensor has the attribute in its class, and offers it on a device only.
    """
    return hasattr(x, "__cuda_array_interface__") or bool(getattr(x, "__cuda_ndarray__", False))
