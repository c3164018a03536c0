"""Differentiable Euclidean projection onto polyhedra with HS-Jacobian backpropagation.

``project(x, C)`` returns the nearest point of the polyhedron ``C``; its gradient is a documented
element of the HS-Jacobian, a conservative mapping for the projection. Names are loaded when first
used, so importing the package costs next to nothing and imports no compiler.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "project": ".solve",
    "projection": ".solve",
    "Projection": ".record",
    "Residuals": ".record",
    "WarmStart": ".record",
    "HSJacobian": ".jacobian",
    "hs_jacobian_set": ".jacobian",
    "Status": "._codes",
    "InfeasibleError": ".sets.base",
    "NotSolvedError": ".solve",
    "DegenerateDataGradientError": ".saddle",
    "WeightedNorm": ".sets.weighted_norm",
    "quadratic_program": ".quadratic",
    "Multipliers": ".sets.base",
    "ConstraintFlags": ".sets.base",
    "PolyhedralSet": ".sets.base",
    "warmup": ".solve",
    "vjp": ".solve",
    "jvp": ".solve",
}
_MODULES = ("nn", "optim", "sets", "theory", "applications", "interop")

__all__ = [
    "ConstraintFlags",
    "DegenerateDataGradientError",
    "HSJacobian",
    "InfeasibleError",
    "Multipliers",
    "NotSolvedError",
    "PolyhedralSet",
    "Projection",
    "Residuals",
    "Status",
    "WarmStart",
    "WeightedNorm",
    "__version__",
    "hs_jacobian_set",
    "jvp",
    "nn",
    "optim",
    "project",
    "projection",
    "quadratic_program",
    "sets",
    "theory",
    "vjp",
    "warmup",
]

if TYPE_CHECKING:
    from . import nn, optim, sets, theory
    from ._codes import Status
    from .jacobian import HSJacobian, hs_jacobian_set
    from .quadratic import quadratic_program
    from .record import Projection, Residuals, WarmStart
    from .saddle import DegenerateDataGradientError
    from .sets import *  # noqa: F403
    from .sets.base import ConstraintFlags, InfeasibleError, Multipliers, PolyhedralSet
    from .sets.weighted_norm import WeightedNorm
    from .solve import NotSolvedError, jvp, project, projection, vjp, warmup


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name], __name__), name)
    elif name in _MODULES:
        value = importlib.import_module(f".{name}", __name__)
    else:
        # A set: the registry of the set library is the only list that knows them all.
        registry = importlib.import_module(".sets", __name__).REGISTRY
        if name not in registry:
            raise AttributeError(f"module 'hsref' has no attribute {name!r}")
        value = registry[name]
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    registry = importlib.import_module(".sets", __name__).REGISTRY
    return sorted({*globals(), *_HOMES, *_MODULES, *registry})
