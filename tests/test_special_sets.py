"""Special sets against slow projections that share nothing with the library."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hsref
import special_sets as slow
from certificates import assert_certified
from hsref.sets import REGISTRY
from tolerances import assert_close


@given(st.integers(1, 6).flatmap(lambda n: st.lists(st.integers(-4, 4), min_size=n, max_size=n)),
       st.sampled_from([0.0, 1.0, 2.5]))  # fmt: skip
def test_simplex_against_sorting(values, total):
    x = np.array(values, float) / 2.0
    C = hsref.Simplex(x.size, total)
    p = hsref.projection(x, C)
    assert_close(p.y, slow.simplex(x, total), "agree", x)
    q = hsref.projection(x, C.to_polyhedron())
    assert_close(p.y, q.y, "agree", x)
    np.testing.assert_array_equal(p.active.lower, q.active.lower)
    assert_close(p.jacobian().toarray(), q.jacobian().toarray(), "projector")
    assert_certified(
        p, x, {"A_eq": np.ones((1, x.size)), "b_eq": [total], "lower": np.zeros(x.size)}
    )


@given(st.integers(1, 5), st.integers(0, 2**16))
def test_box_is_clipping(n, seed):
    rng = np.random.default_rng(seed)
    lower = rng.choice([-np.inf, -1.0, 0.0], n)
    upper = rng.choice([0.0, 1.0, np.inf], n)
    x = rng.integers(-2, 3, n).astype(float)
    p = hsref.projection(x, hsref.Box(lower, upper))
    np.testing.assert_array_equal(p.y, slow.box(x, lower, upper))
    np.testing.assert_array_equal(p.active.lower, p.y == lower)
    np.testing.assert_array_equal(p.active.upper, p.y == upper)
    np.testing.assert_array_equal(
        p.jacobian().toarray(), np.diag(((p.y > lower) & (p.y < upper)) * 1.0)
    )
    assert_certified(p, x, {"lower": lower, "upper": upper})


def test_box_far_outside_one_bound_is_not_on_the_other():
    p = hsref.projection([1e12, -1e12], hsref.Box(0.0, 1.0, n=2))
    np.testing.assert_array_equal(p.active.lower, [False, True])
    np.testing.assert_array_equal(p.active.upper, [True, False])


NORMAL, WEIGHTS, ORDER = [1.0, -2.0, 0.5], [1.0, 2.0, -1.0], [3.0, 1.0, 1.0]
SLOW = {
    "Hyperplane": [(lambda S: S(NORMAL, 0.5), lambda x: slow.hyperplane(x, NORMAL, 0.5))],
    "Halfspace": [(lambda S: S(NORMAL, 0.5), lambda x: slow.halfspace(x, NORMAL, 0.5))],
    "CappedSimplex": [
        (lambda S: S(3, 1.5), lambda x: slow.capped_simplex(x, 1.5)),
        (lambda S: S(4, 2.0), lambda x: slow.capped_simplex(x, 2.0)),
    ],
    "Knapsack": [
        (lambda S: S(WEIGHTS, 1.0, 0.0, 1.0), lambda x: slow.knapsack(x, WEIGHTS, 1.0, 0.0, 1.0)),
    ],
    "L1Ball": [(lambda S: S(4, 1.5), lambda x: slow.l1_ball(x, 1.5))],
    "IsotonicCone": [(lambda S: S(5), slow.isotonic)],
    "Permutahedron": [(lambda S: S(ORDER), lambda x: slow.permutahedron(x, ORDER))],
    "Birkhoff": [(lambda S: S(2), slow.birkhoff), (lambda S: S(3), slow.birkhoff)],
}
PAIRS = [
    pytest.param(build(REGISTRY[name]), project, id=f"{name}-{k}")
    for name, pairs in SLOW.items()
    if name in REGISTRY
    for k, (build, project) in enumerate(pairs)
]


@pytest.mark.parametrize(("C", "project"), PAIRS)
def test_against_slow_projections(C, project):
    rng = np.random.default_rng(19)
    # halves and whole numbers reach ties and kinks, Gaussians the insides of cells
    x = np.concatenate([rng.integers(-4, 5, (12, *C.shape)) / 2.0, rng.normal(size=(8, *C.shape))])
    y = hsref.project(x, C)
    for i in range(len(x)):
        assert_close(y[i], project(x[i]), "agree", x)
