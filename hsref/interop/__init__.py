"""Bridges to other frameworks; each is imported when the first array of its framework arrives.

``hsref.interop.torch`` and ``hsref.interop.jax`` may also be named without importing them.
"""

from __future__ import annotations

import importlib
from typing import Any

_BRIDGES = ("dlpack", "jax", "torch")


def __getattr__(name: str) -> Any:
    if name not in _BRIDGES:
        raise AttributeError(f"module 'hsref.interop' has no attribute {name!r}")
    return importlib.import_module(f".{name}", __name__)


def __dir__() -> list[str]:
    return sorted({*globals(), *_BRIDGES})
