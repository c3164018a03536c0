"""What a check over a batch returns, and the enumerations checks share."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..bsub import TangentFaces, tangent_faces
from ..linear import blocks, sharing
from ..local import EnumerationError, Kept, LocalRows, subset_count
from ..oracle import Candidates
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


class Faces:
    """The faces of a tangent cone, each with the element of the enumeration it belongs to.

    V_K with K a largest independent subset of the rows active on a face has as kernel the span of
    K; if it takes all rows of the face to zero it is the projector onto the face's directions.

    Attributes
    ----------
    faces : TangentFaces or None
        None when there are too many.
    element : ndarray of int, shape (f,)
        The element with a largest independent subset of the rows active on each face.
    gap : ndarray, shape (f,)
        The largest entry it makes of these rows.
    """

    def __init__(self, local: LocalRows, limit: int) -> None:
        self.local = local
        try:
            self.faces: TangentFaces | None = tangent_faces(local.rows, local.active, limit)
        except EnumerationError:
            self.faces = None
            return
        closed = self.faces.masks[:, local.index]
        sizes = local.masks.sum(axis=1)
        self.element, self.gap = np.empty(len(closed), dtype=int), np.empty(len(closed))
        G = local.rows.off_equalities(local.rows.G[local.index])
        for at in blocks(len(closed), max(len(sizes), local.rows.n**2)):
            outside = (~closed[at]).astype(np.float32) @ local.masks.T.astype(np.float32)
            best = np.argmax(np.where(outside == 0.0, sizes, -1), axis=1)
            self.element[at] = local.group[best]
            made = np.abs(local.V[best] @ G.T).max(axis=1) if len(G) else np.zeros(closed[at].shape)
            self.gap[at] = np.max(made * closed[at], axis=1, initial=0.0)

    @property
    def size(self) -> int:
        """Bytes held."""
        return 1000 + (0 if self.faces is None else self.faces.size + 2 * self.gap.nbytes)


def nearest(V: np.ndarray, elements: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each matrix the nearest element and its distance, the largest entry."""
    flat, others = V.reshape(len(V), -1), elements.reshape(len(elements), -1)
    size = np.einsum("gi,gi->g", others, others)
    which = np.empty(len(V), dtype=int)
    for at in blocks(len(V), len(others)):
        which[at] = np.argmin(size - 2.0 * (flat[at] @ others.T), axis=1)
    gap = np.abs(flat - others[which]).max(axis=1, initial=0.0)
    # nearest in the sum of squares; where that is not nearly zero the largest entry has its say
    for i in np.flatnonzero(gap > 1e-9):
        apart = np.abs(others - flat[i]).max(axis=1)
        which[i], gap[i] = np.argmin(apart), apart.min()
    return which, gap


class SetCache:
    """Enumerations of one set, kept while the set lives, as far as memory is given to them."""

    def __init__(self, rows: HRows) -> None:
        self.rows = rows
        self.local = LocalCache(rows, ENUMERATE)
        self.faces: Kept[Faces] = Kept()
        self._candidates: Candidates | None = None

    def groups(
        self, masks: np.ndarray
    ) -> tuple[Iterator[tuple[LocalRows, np.ndarray]], np.ndarray]:
        """Return an iterator of enumerations with the points that share them, and who is left out.

        Left out are points with more subsets of active rows than are looked at.
        """
        left, small = np.zeros(len(masks), dtype=bool), []
        for mask, at in sharing(masks):
            if subset_count(self.rows, int(mask.sum())) > ENUMERATE:
                left[at] = True
            else:
                small.append((mask, at))
        return ((self.local.at(mask), at) for mask, at in small), left

    def faces_at(self, local: LocalRows) -> Faces:
        """Return the faces of the tangent cone."""
        return self.faces.get(local.active, lambda: Faces(local, 4 * ENUMERATE))

    def candidates(self, limit: int) -> Candidates | None:
        """Return the table of the brute-force projection, or None for a set with too many rows."""
        if self._candidates is None and subset_count(self.rows, self.rows.m) <= limit:
            self._candidates = Candidates(self.rows, limit)
        return self._candidates


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
