"""Hypothesis strategies that construct answers and shrink to counterexamples one can read.

Everything is drawn from small integers, so a failing case shrinks to a polyhedron such as
``A_ub=[[1, 0]], b_ub=[0]`` printed as the call that reproduces it.
"""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from oracle import DEGENERACIES, Planted, plant

SMALL = st.integers(-3, 3)


def vectors(n: int, entries: st.SearchStrategy = SMALL) -> st.SearchStrategy[list]:
    return st.lists(entries, min_size=n, max_size=n)


def matrices(m: int, n: int, entries: st.SearchStrategy = SMALL) -> st.SearchStrategy[list]:
    return st.lists(vectors(n, entries), min_size=m, max_size=m)


@st.composite
def planted(
    draw, max_n: int = 4, max_rows: int = 4, max_eq: int = 2, bounds: bool = True, changes: int = 3
) -> Planted:
    """Draw a planted projection and up to `changes` ways of making it degenerate."""
    n = draw(st.integers(1, max_n))
    m = draw(st.integers(0, max_rows))
    p = draw(st.integers(0, min(max_eq, n)))
    gap = st.sampled_from([np.inf, 0.0, 1.0])
    weight = st.integers(0, 3)
    use_bounds = bounds and draw(st.booleans())
    case = plant(
        draw(vectors(n)),
        draw(matrices(m, n)),
        draw(vectors(m, st.sampled_from([0.0, 1.0, 2.0]))),
        draw(vectors(m, weight)),
        draw(matrices(p, n)),
        draw(vectors(p)),
        draw(vectors(n, gap)) if use_bounds else None,
        draw(vectors(n, weight)) if use_bounds else None,
        draw(vectors(n, gap)) if use_bounds else None,
        draw(vectors(n, weight)) if use_bounds else None,
    )
    for name in draw(st.lists(st.sampled_from(sorted(DEGENERACIES)), max_size=changes)):
        case = DEGENERACIES[name](case, draw(st.integers(0, 7)))
    return case


@st.composite
def small_systems(draw, max_n: int = 3) -> tuple[np.ndarray, dict]:
    """Draw any small system, empty or not, and a point: (x, keywords of Polyhedron)."""
    n = draw(st.integers(1, max_n))
    m = draw(st.integers(0, 5))
    p = draw(st.integers(0, 1))
    description: dict = {}
    if m:
        description["A_ub"] = np.array(draw(matrices(m, n)), float)
        description["b_ub"] = np.array(draw(vectors(m)), float)
    if p:
        description["A_eq"] = np.array(draw(matrices(p, n)), float)
        description["b_eq"] = np.array(draw(vectors(p)), float)
    if draw(st.booleans()):
        low = np.array(draw(vectors(n)), float)
        description["lower"] = low
        description["upper"] = low + np.array(draw(vectors(n, st.integers(0, 2))), float)
    if not description:
        description["n"] = n
    return np.array(draw(vectors(n, st.integers(-6, 6))), float), description
