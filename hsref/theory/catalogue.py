"""Which sets a verification visits, on which instances, with which kinds of points.

The registry of the set library is the list; each class supplies small ``examples()``. General
polyhedra are made afresh for each kind of degeneracy.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from .planted import POINT_KINDS, POLYHEDRA, Cases, degenerate_cases, points
from .rows import rows_of

GENERAL = "Polyhedron"
LARGEST = 24
"""Coordinates beyond which an example is left to other tests: its faces cannot be enumerated."""
MOST_ROWS = 80
EACH, POLYHEDRA_PER_TASK = 50, 64
"""Points drawn for one general polyhedron at least, and polyhedra in one task at most."""
FEWEST = 12
"""Points drawn for one instance at least: a smaller batch costs as much."""


def set_names() -> tuple[str, ...]:
    """Return the names of all registered sets, general polyhedra first."""
    from hsref.sets import REGISTRY

    return (GENERAL, *(name for name in REGISTRY if name != GENERAL))


def kinds_of(name: str) -> tuple[str, ...]:
    """Return the kinds of degeneracy that a set is visited with."""
    return (*POLYHEDRA, "examples") if name == GENERAL else POINT_KINDS


@functools.cache
def instances(name: str) -> tuple[Any, ...]:
    """Return the examples of a registered set that are small enough to enumerate their faces."""
    from hsref.sets import REGISTRY

    if name not in REGISTRY:
        raise ValueError(f"there is no set {name!r}; there are {', '.join(set_names())}.")
    return small(REGISTRY[name].examples())


def small(sets: Any) -> tuple[Any, ...]:
    """Return those of some sets whose coordinates and rows are few."""
    return tuple(C for C in sets if C.size <= LARGEST and rows_of(C).m <= MOST_ROWS)


def draw(
    name: str, kind: str, count: int, rng: np.random.Generator, given: tuple[Any, ...] | None = None
) -> Iterator[Cases]:
    """Yield batches of points of one kind on a set, `count` points in all.

    Parameters
    ----------
    name, kind : str
        The set and one of its kinds.
    count : int
        Points, spread evenly over the instances (over some of them if there are few points).
    rng : Generator
        Draws.
    given : tuple of sets, optional
        Instances to use in place of the registered examples.
    """
    if name == GENERAL and given is None and kind != "examples":
        each = max(EACH, -(-count // POLYHEDRA_PER_TASK))
        for start in range(0, count, each):
            yield degenerate_cases(kind, min(each, count - start), rng)
        return
    sets = instances(name) if given is None else given
    kinds = POINT_KINDS if kind == "examples" else (kind,)
    jobs = [(C, k) for k in kinds for C in sets]
    jobs = [jobs[i] for i in rng.permutation(len(jobs))]
    # few points go to some of the instances, drawn anew for each statement and kind
    share = max(FEWEST, -(-count // max(len(jobs), 1)))
    while count > 0 and jobs:
        able = []
        for C, k in jobs:
            if count <= 0:
                break
            cases = points(C, k, max(2, min(share, count)), rng)
            if cases is None:  # the whole space has no boundary
                continue
            able.append((C, k))
            count -= len(cases.x)
            yield cases
        jobs, share = able, max(FEWEST, -(-count // max(len(able), 1)))
