"""The set library. A new set is one file here and one import below."""

from __future__ import annotations

from .affine import AffineSubspace as AffineSubspace
from .base import PolyhedralSet
from .box import Box as Box
from .composite import Product as Product
from .group_budget import GroupBudget as GroupBudget
from .hyperplane import Halfspace as Halfspace
from .hyperplane import Hyperplane as Hyperplane
from .image import Scaled as Scaled
from .image import Shifted as Shifted
from .isotonic import IsotonicCone as IsotonicCone
from .knapsack import CappedSimplex as CappedSimplex
from .knapsack import Knapsack as Knapsack
from .l1ball import L1Ball as L1Ball
from .matching import PartialMatching as PartialMatching
from .matching import Substochastic as Substochastic
from .permutahedron import Permutahedron as Permutahedron
from .polyhedron import Polyhedron as Polyhedron
from .simplex import Simplex as Simplex
from .transport import Birkhoff as Birkhoff
from .transport import Transport as Transport
from .turnover import Turnover as Turnover

REGISTRY: dict[str, type[PolyhedralSet]] = {
    name: kind
    for name, kind in list(globals().items())
    if isinstance(kind, type) and issubclass(kind, PolyhedralSet) and kind is not PolyhedralSet
}
"""Every set by name: what ``hsref info``, ``hsref verify`` and the shared tests go through."""
