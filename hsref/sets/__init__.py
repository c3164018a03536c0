"""The set library. A new set is one file here and one import below."""

from __future__ import annotations

from .base import PolyhedralSet
from .box import Box as Box
from .polyhedron import Polyhedron as Polyhedron
from .simplex import Simplex as Simplex

REGISTRY: dict[str, type[PolyhedralSet]] = {
    name: kind
    for name, kind in list(globals().items())
    if isinstance(kind, type) and issubclass(kind, PolyhedralSet) and kind is not PolyhedralSet
}
"""Every set by name: what ``hsref info``, ``hsref verify`` and the shared tests go through."""
