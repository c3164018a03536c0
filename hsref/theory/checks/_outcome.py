"""What a check over a batch returns, and the enumerations checks share."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..bsub import TangentFaces, tangent_faces
from ..hs_set import EnumerationError, LocalRows
from ..linear import distinct_masks
from ..pieces import LocalCache
from ..rows import HRows

ENUMERATE = 1200
"""Subsets of active rows a check looks at; points with more are left to the cone test."""


@dataclass
class Outcome:
    """Residuals of a check, case by case.

    Attributes
    ----------
    parts : dict of str to (ndarray, float)
        For each part its residuals, shape (P,), NaN where the part does not apply to a case, and
        the largest residual that counts as round-off.
    excluded : int
        Cases left out because the statement says nothing about them (see the check).
    cases : int or None
        Number of cases looked at; None stands for all points that were not left out.
    notes : dict of str to int or float
        What is worth a line in the report; integers are counts and add up, of floats the largest
        is kept.
    """

    parts: dict[str, tuple[np.ndarray, float]] = field(default_factory=dict)
    excluded: int = 0
    cases: int | None = None
    notes: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, residual: np.ndarray, tolerance: float) -> None:
        """Record a part; a residual of shape () counts for one case."""
        value = np.atleast_1d(np.asarray(residual, dtype=np.float64))
        if name in self.parts:
            value = np.concatenate([self.parts[name][0], value])
        self.parts[name] = (value, tolerance)

    def worst(self) -> tuple[str, float, float, int]:
        """Return the part with the largest residual over tolerance, both, and the case."""
        best = ("", 0.0, 1.0, 0)
        for name, (value, tolerance) in self.parts.items():
            if np.isnan(value).all():
                continue
            i = int(np.nanargmax(value))
            if not best[0] or value[i] / tolerance > best[1] / best[2]:
                best = (name, float(value[i]), tolerance, i)
        return best

    def ratio(self) -> np.ndarray:
        """Return residual over tolerance of each case, the worst part."""
        size = max((len(v) for v, _ in self.parts.values()), default=0)
        out = np.zeros(size)
        for value, tolerance in self.parts.values():
            scaled = np.where(np.isnan(value), 0.0, value / tolerance)
            out[: len(value)] = np.maximum(out[: len(value)], scaled)
        return out


class SetCache:
    """Enumerations of one set, kept while the set lives."""

    def __init__(self, rows: HRows) -> None:
        self.rows = rows
        self.local = LocalCache(rows, ENUMERATE)
        self.faces: dict[bytes, TangentFaces | None] = {}
        self.too_large: set[bytes] = set()

    def groups(self, masks: np.ndarray) -> tuple[list[tuple[LocalRows, np.ndarray]], np.ndarray]:
        """Return enumerations with the points that share them, and the points left out."""
        distinct, where = distinct_masks(masks)
        found, left = [], np.zeros(len(masks), dtype=bool)
        for i, mask in enumerate(distinct):
            at = np.flatnonzero(where == i)
            key = mask.tobytes()
            if key not in self.too_large:
                try:
                    found.append((self.local.at(mask), at))
                    continue
                except EnumerationError:
                    self.too_large.add(key)
            left[at] = True
        return found, left

    def faces_at(self, mask: np.ndarray) -> TangentFaces | None:
        """Return the faces of the tangent cone, or None when there are too many."""
        key = mask.tobytes()
        if key not in self.faces:
            try:
                self.faces[key] = tangent_faces(self.rows, mask, 4 * ENUMERATE)
            except EnumerationError:
                self.faces[key] = None
        return self.faces[key]


_CACHES: weakref.WeakKeyDictionary[Any, SetCache] = weakref.WeakKeyDictionary()


def cache_of(C: Any, rows: HRows) -> SetCache:
    """Return the enumerations kept for a set."""
    found = _CACHES.get(C)
    if found is None:
        found = _CACHES[C] = SetCache(rows)
    return found


def largest(array: np.ndarray) -> np.ndarray:
    """Return the largest absolute entry of each case, shape (P,); 0 for empty cases."""
    return np.abs(array).reshape(len(array), -1).max(axis=1, initial=0.0)
