"""The HS-Jacobian: elements from a record, and the whole set where it can be enumerated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hsref
from oracle import DEGENERACIES, Planted, random_plant
from strategies import planted
from tolerances import assert_close, bound

SELECTIONS = ("active", "working", "support")


def polyhedron(case: Planted) -> hsref.Polyhedron:
    parts = case.description
    return hsref.Polyhedron(**parts, **({} if parts else {"n": case.n}))


def assert_algebra(V: np.ndarray, A_eq: np.ndarray, rank: int) -> None:
    """V is an orthogonal projector of the given rank that the equalities do not see."""
    assert_close(V, V.T, "projector")
    assert_close(V @ V, V, "projector")
    assert_close(A_eq @ V, np.zeros_like(A_eq @ V), "projector", A_eq)
    assert_close(np.trace(V), rank, "projector")


def is_one_of(V: np.ndarray, elements: list[np.ndarray]) -> bool:
    return any(np.abs(V - other).max() <= bound("projector") for other in elements)


# -- elements -------------------------------------------------------------------------------------


@given(planted())
def test_active_is_the_planted_projector(case):
    p = hsref.projection(case.x, polyhedron(case))
    assert_close(p.jacobian().toarray(), case.V, "projector")
    assert p.jacobian().rank == case.rank


@given(planted(max_n=3, max_rows=3, changes=2))
def test_every_selection_is_an_element(case):
    if len(case.normals) > 9:
        return
    p = hsref.projection(case.x, polyhedron(case))
    for selection in SELECTIONS:
        J = p.jacobian(selection)
        V = J.toarray()
        assert_algebra(V, case.A_eq, J.rank)
        assert is_one_of(V, case.hs_set), f"{selection} gave\n{V}\nnot among\n{case.hs_set}"


@pytest.mark.parametrize("change", sorted(DEGENERACIES))
@pytest.mark.parametrize("seed", range(4))
def test_algebra_on_degenerate_rows(change, seed):
    case = DEGENERACIES[change](random_plant(seed + 50, n=5, m=6, p=2), seed)
    p = hsref.projection(case.x, polyhedron(case))
    ranks = []
    for selection in SELECTIONS:
        J = p.jacobian(selection)
        assert_algebra(J.toarray(), case.A_eq, J.rank)
        ranks.append(int(J.rank))
    # support ⊆ working ⊆ active, so fewer rows and a larger projector
    assert ranks[0] <= ranks[1] <= ranks[2]


@given(planted(), st.integers(0, 2**16))
def test_products_are_products_of_the_dense_matrix(case, seed):
    rng = np.random.default_rng(seed)
    J = hsref.projection(case.x, polyhedron(case)).jacobian()
    u, w = rng.normal(size=(2, case.n))
    assert_close(J @ u, J.toarray() @ u, "projector", u)
    assert_close(u @ (J @ w), (J.T @ u) @ w, "projector", u, w)
    many = rng.normal(size=(7, case.n))
    assert_close(J @ many, many @ J.toarray(), "projector", many)


def test_batched_products_are_sample_by_sample():
    rng = np.random.default_rng(0)
    C = hsref.Polyhedron(A_ub=rng.normal(size=(4, 3)), b_ub=np.ones(4), lower=-1.0)
    x, v = 3.0 * rng.normal(size=(2, 5, 3)), rng.normal(size=(2, 5, 3))
    for selection in SELECTIONS:
        J = hsref.projection(x, C).jacobian(selection)
        assert J.shape == (2, 5, 3, 3)
        assert_close(J @ v, np.einsum("abij,abj->abi", J.toarray(), v), "projector", v)
        for sample in np.ndindex(2, 5):
            own = hsref.projection(x[sample], C).jacobian(selection)
            np.testing.assert_array_equal((J @ v)[sample], own @ v[sample])
            assert own.rank == J.rank[sample]


def test_the_default_selection_is_the_record_s():
    x = np.array([0.0, 0.5])  # on the boundary, not pushed against it
    C = hsref.Box(0.0, 1.0, n=2)
    assert hsref.projection(x, C).jacobian().rank == 1
    assert hsref.projection(x, C, selection="support").jacobian().rank == 2
    assert hsref.projection(x, C, selection="support").rank == 2
    assert hsref.projection(x, C, selection="support").jacobian("active").rank == 1


def test_nothing_is_solved_again(monkeypatch):
    import hsref._batch

    C = hsref.Polyhedron(A_ub=[[1.0, 2.0]], b_ub=[0.0], lower=-1.0)
    p = hsref.projection(np.array([[1.0, 1.0], [-5.0, 3.0]]), C)

    def refuse(*args, **kwargs):
        raise AssertionError("a solve was started")

    monkeypatch.setattr(hsref._batch, "run_project", refuse)
    with pytest.raises(AssertionError, match="a solve was started"):
        hsref.projection(p.x, C)
    for selection in SELECTIONS:
        J = p.jacobian(selection)
        _ = J.toarray(), J.rank, J @ p.x, p.multipliers, p.active, p.residuals


def test_products_refuse_other_shapes():
    J = hsref.projection(np.zeros((2, 3)), hsref.Simplex(3)).jacobian()
    for wrong in (np.zeros(3), np.zeros((3, 2)), np.zeros((2, 4))):
        with pytest.raises(ValueError, match=r"\(2, 3\)"):
            _ = J @ wrong
    with pytest.raises(ValueError, match="'working'"):
        hsref.projection(np.zeros(3), hsref.Simplex(3)).jacobian("best")


# -- the whole set --------------------------------------------------------------------------------


@given(planted(max_n=3, max_rows=3, changes=2))
def test_enumeration(case):
    if len(case.normals) > 8:
        return
    pairs = hsref.hs_jacobian_set(case.x, polyhedron(case))
    for K, V in pairs:
        assert case.is_admissible(K), f"{sorted(K)} is not admissible"
        assert is_one_of(V, case.hs_set)
    for wanted in case.hs_set:
        assert is_one_of(wanted, [V for _, V in pairs]), f"missing\n{wanted}"


def test_redundant_row_example():
    # At a point where the projection is differentiable with derivative 0, the redundant row adds
    # an element that is not the derivative: conservative Jacobians equal it only almost everywhere.
    C = hsref.Polyhedron(A_ub=[[-1.0, 0.0], [0.0, -1.0], [-1.0, -1.0]], b_ub=np.zeros(3))
    found = [V for _, V in hsref.hs_jacobian_set([-1.0, -1.0], C)]
    wanted = [np.zeros((2, 2)), np.eye(2) - 0.5]
    assert all(is_one_of(V, wanted) for V in found)
    assert all(is_one_of(V, found) for V in wanted)
    # the default stays the derivative
    p = hsref.projection([-1.0, -1.0], C)
    np.testing.assert_array_equal(p.jacobian().toarray(), np.zeros((2, 2)))


def test_irredundant_example():
    C = hsref.Polyhedron(
        A_ub=[[1.0, 0, 1], [-1.0, 0, 1], [0, 1.0, 1], [0, -1.0, 1]], b_ub=np.zeros(4)
    )
    found = [V for _, V in hsref.hs_jacobian_set([0.0, 0.0, 1.0], C)]
    wanted = [np.zeros((3, 3)), np.diag([1.0, 0, 0]), np.diag([0, 1.0, 0])]
    assert all(is_one_of(V, wanted) for V in found)
    assert all(is_one_of(V, found) for V in wanted)


def test_the_kink_of_relu():
    pairs = hsref.hs_jacobian_set([0.0], hsref.Polyhedron(lower=[0.0]))
    assert {(K, float(V[0, 0])) for K, V in pairs} == {
        (frozenset(), 1.0),
        (frozenset({("lower", 0)}), 0.0),
    }


def test_special_sets_are_enumerated_through_their_rows():
    x = np.array([0.5, 0.5, 0.0])
    special = hsref.hs_jacobian_set(x, hsref.Simplex(3))
    general = hsref.hs_jacobian_set(x, hsref.Simplex(3).to_polyhedron())
    assert {K for K, _ in special} == {K for K, _ in general}


def test_enumeration_refuses_batches_and_crowds():
    with pytest.raises(ValueError, match="one point"):
        hsref.hs_jacobian_set(np.zeros((2, 3)), hsref.Simplex(3))
    with pytest.raises(ValueError, match="active"):
        hsref.hs_jacobian_set(np.zeros(40), hsref.Box(0.0, 1.0, n=40))


# -- what elements are for ------------------------------------------------------------------------


@given(planted(max_n=4, changes=2))
def test_default_is_a_limit_of_derivatives(case):
    # Pushed along its own active rows, the point enters the cell on which Π is affine with linear
    # part V₀: central differences there are exact.
    C = polyhedron(case)
    push = 0.5 * sum(case.normals.values(), np.zeros(case.n))
    at, h = case.x + push, 1e-4
    step = h * np.eye(case.n)
    J = (hsref.project(at + step, C) - hsref.project(at - step, C)).T / (2.0 * h)
    # rows of very different length make the cell narrower than the step
    if not any("scaled" in word for word in case.story):
        assert_close(J, case.V, "difference", at)


@given(planted(max_n=3, max_rows=3, changes=2), st.integers(0, 2**16))
def test_local_exactness_and_outer_semicontinuity(case, seed):
    if len(case.normals) > 8:
        return
    C = polyhedron(case)
    d = np.random.default_rng(seed).integers(-2, 3, case.n) / 1024.0
    y, moved = hsref.project(case.x, C), hsref.project(case.x + d, C)
    if any("scaled" in word for word in case.story):
        return  # the neighbourhood of the theorem is smaller than d
    elements = hsref.hs_jacobian_set(case.x + d, C)
    for K, V in elements:
        assert_close(moved - y, V @ d, "exactness", case.x)
        assert case.is_admissible(K), f"{sorted(K)} appears only next to x"


@given(planted(max_n=4, changes=1), st.integers(0, 2**16))
def test_chain_rule_on_a_segment(case, seed):
    # Π is affine between breakpoints, so the integral of V γ′ is a finite sum; the breakpoints are
    # closed in on by bisection, and what is left undecided around them bounds the error.
    C = polyhedron(case)
    d = np.random.default_rng(seed).normal(size=case.n)
    integral, undecided = piecewise_integral(case.x, d, C)
    gained = hsref.project(case.x + d, C) - hsref.project(case.x, C)
    assert undecided < 1e-3
    error = np.linalg.norm(integral - gained)
    assert error <= bound("exactness", case.x) + 2.0 * undecided * np.linalg.norm(d)


def piecewise_integral(
    x: np.ndarray, d: np.ndarray, C: hsref.Polyhedron
) -> tuple[np.ndarray, float]:
    """Return the integral of V(x + t d) d over [0, 1] and the total length not decided.

    An interval is done when V d is the same at three points of it and accounts for the change of Π
    between its ends; else it is halved, twenty times at most.
    """
    total, queue = np.zeros_like(d), np.array([[0.0, 1.0]])
    for _ in range(20):
        a, width = queue[:, :1], queue[:, 1:] - queue[:, :1]
        # away from dyadic points: the breakpoints of integer data sit there
        points = x + (a + width * np.array([0.0137, 0.43, 0.9863]))[..., None] * d
        speed = hsref.projection(points, C).jacobian() @ np.broadcast_to(d, points.shape)
        ends = hsref.project(x + queue[..., None] * d, C)
        same = np.abs(speed - speed[:, :1]).max(axis=(1, 2)) <= bound("projector", d)
        change = ends[:, 1] - ends[:, 0] - width * speed[:, 0]
        done = same & (np.abs(change).max(axis=1) <= bound("exactness", x))
        total += (width * speed[:, 0])[done].sum(axis=0)
        middle = queue.mean(axis=1)
        halves = np.stack([queue[:, 0], middle, middle, queue[:, 1]], axis=1)[~done]
        queue = halves.reshape(-1, 2)
        assert len(queue) < 200, "Π is not piecewise affine with these derivatives"
        if not len(queue):
            break
    return total, float(np.sum(queue[:, 1] - queue[:, 0]))


def test_a_degenerate_path():
    # γ runs inside a low-dimensional cell: along a face, with a multiplier that changes; every
    # admissible element reproduces its image's velocity on the whole segment.
    C = hsref.Polyhedron(
        A_ub=[[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [0.0, -1.0, -1.0]], b_ub=np.zeros(3)
    )
    velocity = np.array([1.0, -0.5, 0.0])
    for t in np.linspace(0.0, 1.0, 5):
        for _, V in hsref.hs_jacobian_set(np.array([0.0, -1.0, 0.0]) + t * velocity, C):
            assert_close(V @ velocity, np.array([1.0, 0.0, 0.0]), "projector")
