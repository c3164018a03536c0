"""A polyhedron as a set: membership, dimension, interior, intersection."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

import hsref
import special_sets as slow
from certificates import polyhedron
from strategies import planted
from tolerances import assert_close


@given(planted(max_n=3))
def test_contains_dim_and_interior_point(case):
    C = polyhedron(case)
    assert C.contains(case.y)
    inner = C.interior_point()
    assert inner.shape == (case.n,)
    assert C.contains(inner)
    # a point of the relative interior lies on no constraint that some point satisfies strictly:
    # what is active there is active everywhere, and its rank is the codimension
    p = hsref.projection(inner, C)
    assert_close(p.y, inner, "planted", inner)
    assert p.rank == C.dim


def test_contains_is_a_question_about_each_point():
    C = hsref.Polyhedron(A_ub=[[1.0, 1.0]], b_ub=[1.0], lower=[0.0, 0.0])
    points = np.array([[0.0, 0.0], [0.5, 0.5], [0.6, 0.5], [-0.1, 0.0], [np.nan, 0.0]])
    np.testing.assert_array_equal(C.contains(points), [True, True, False, False, False])
    assert C.contains([0.2, 0.2]) is True


@pytest.mark.parametrize(
    ("description", "dim"),
    [
        ({"n": 3}, 3),
        ({"A_eq": np.ones((2, 3)), "b_eq": [1.0, 1.0]}, 2),
        ({"A_ub": [[1.0, 0.0], [-1.0, 0.0]], "b_ub": [1.0, -1.0]}, 1),
        ({"lower": [0.0, 0.0, 0.0], "upper": [1.0, 0.0, 0.0]}, 1),
        ({"A_eq": np.eye(2), "b_eq": [3.0, 4.0]}, 0),
        ({"A_ub": [[1.0, 1.0]], "b_ub": [0.0], "lower": [0.0, 0.0]}, 0),
    ],
)
def test_dim(description, dim):
    assert hsref.Polyhedron(**description).dim == dim


def test_an_empty_set_has_no_interior_point():
    with pytest.raises(hsref.InfeasibleError):
        hsref.Polyhedron(A_ub=[[1.0], [-1.0]], b_ub=[0.0, -1.0]).interior_point()


def test_intersection():
    x = 2.0 * np.random.default_rng(10).normal(size=(20, 3))
    row = hsref.Polyhedron(A_ub=[[-1.0, -1.0, 0.0]], b_ub=[-0.8])
    C = hsref.Simplex(3) & row
    both = hsref.Polyhedron(
        A_ub=row.A_ub, b_ub=row.b_ub, A_eq=np.ones((1, 3)), b_eq=[1.0], lower=0.0
    )
    assert_close(hsref.project(x, C), hsref.project(x, both), "agree", x)
    assert C.shape == (3,)
    boxes = hsref.Box(0.0, 2.0, n=3) & hsref.Box(-1.0, 1.0, n=3)
    assert_close(hsref.project(x, boxes), slow.box(x, 0.0, 1.0), "agree", x)
    with pytest.raises(ValueError, match=r"\(3,\).*\(2,\)"):
        _ = hsref.Simplex(3) & hsref.Simplex(2)
