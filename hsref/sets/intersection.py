"""Intersections: the same kind of set where one fits, else a general polyhedron."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .box import Box
from .polyhedron import Polyhedron

if TYPE_CHECKING:
    from .base import PolyhedralSet


def intersect(first: PolyhedralSet, second: PolyhedralSet) -> PolyhedralSet:
    """Return the intersection of two sets in the same space.

    Parameters
    ----------
    first, second : PolyhedralSet
        Sets whose points have the same shape.

    Returns
    -------
    Box or Polyhedron
        A ``Box`` for two boxes, else a ``Polyhedron`` with the rows of both, in order.

    Raises
    ------
    ValueError
        The points have different shapes, or are matrices (general polyhedra hold vectors).
    """
    for one in (first, second):
        if not one.plain_kernel:
            raise TypeError(
                f"an intersection would forget the norm of a {type(one).__name__}: intersect the "
                "sets first and build the metric around the result."
            )
    if first.shape != second.shape:
        raise ValueError(
            f"sets of points with shapes {first.shape} and {second.shape} have no intersection; "
            "both must have the same shape."
        )
    if len(first.shape) != 1:
        raise ValueError(
            f"the intersection of sets of {first.shape} matrices would be a set of flat points: "
            "intersect their to_polyhedron() and reshape x yourself."
        )
    if isinstance(first, Box) and isinstance(second, Box):
        return Box(np.maximum(first.lower, second.lower), np.minimum(first.upper, second.upper))
    a, b = first.to_polyhedron(), second.to_polyhedron()
    return Polyhedron(
        A_ub=_stack(a.A_ub, b.A_ub),
        b_ub=_stack(a.b_ub, b.b_ub),
        A_eq=_stack(a.A_eq, b.A_eq),
        b_eq=_stack(a.b_eq, b.b_eq),
        lower=_tighter(a.lower, b.lower, np.maximum),
        upper=_tighter(a.upper, b.upper, np.minimum),
        n=first.size,
    )


def _stack(a: np.ndarray | None, b: np.ndarray | None) -> np.ndarray | None:
    given = [part for part in (a, b) if part is not None]
    return np.concatenate(given) if given else None


def _tighter(a: np.ndarray | None, b: np.ndarray | None, pick: np.ufunc) -> np.ndarray | None:
    if a is None or b is None:
        return a if b is None else b
    return pick(a, b)
