"""Certificates, the HS-Jacobian as a set, limits of Jacobians, what holds near a point."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import hsref
from hsref import theory
from hsref.theory import linear, planted, problems, reports
from hsref.theory.rows import rows_of
from strategies import matrices, small_systems, vectors
from strategies import planted as planted_cases
from tolerances import assert_close

FEW = {"max_n": 3, "max_rows": 3, "changes": 2}


def rows(case):
    """The case as a bare H-description: nothing of the library's solver is involved."""
    parts = {"A_ub": None, "b_ub": None, "A_eq": None, "b_eq": None, "lower": None, "upper": None}
    return SimpleNamespace(**(parts | case.description), n=case.n)


def same_matrices(found, wanted):
    found = sorted(np.round(V, 8).ravel().tolist() for V in found)
    wanted = sorted(np.round(V, 8).ravel().tolist() for V in wanted)
    return len(found) == len(wanted) and np.allclose(found, wanted, atol=1e-7)


# -- certificates ---------------------------------------------------------------------------------


@given(planted_cases())
def test_planted_answers_are_certified(case):
    found = theory.kkt_certificate(case.x, case.y, rows(case))
    assert found, str(found)
    told = SimpleNamespace(ub=case.ub, eq=case.eq, lower=case.at_lower, upper=case.at_upper)
    given_multipliers = theory.kkt_certificate(case.x, case.y, rows(case), told)
    assert given_multipliers, str(given_multipliers)


@given(planted_cases(**FEW), st.integers(0, 2), st.sampled_from([0.25, -0.5]))
def test_another_point_is_not_certified(case, j, by):
    wrong = case.y.copy()
    wrong[j % case.n] += by
    assert not theory.kkt_certificate(case.x, wrong, rows(case))


def test_wrong_multipliers_are_found_out():
    C = hsref.Simplex(3)
    x = np.array([0.9, 0.6, -1.0])
    p = hsref.projection(x, C)
    assert theory.kkt_certificate(x, p.y, C, p.multipliers)
    flipped = p.multipliers._replace(lower=-p.multipliers.lower)
    report = theory.kkt_certificate(x, p.y, C, flipped)
    assert not report
    assert report.parts["sign"] > 0.1
    shifted = p.multipliers._replace(eq=p.multipliers.eq + 0.1)
    assert theory.kkt_certificate(x, p.y, C, shifted).parts["dual"] > 0.01


def test_multipliers_of_another_set_are_refused_with_a_sentence():
    told = SimpleNamespace(ub=[1.0, 2.0], eq=[0.0], lower=np.zeros(3), upper=np.zeros(3))
    with pytest.raises(ValueError, match=r"multipliers\.ub has 2 entries; the set has 0 such rows"):
        theory.kkt_certificate(np.zeros(3), np.zeros(3), hsref.Simplex(3), told)


@given(small_systems())
def test_emptiness_is_certified_and_nothing_else_is(system):
    x, description = system
    C = hsref.Polyhedron(**description)
    nothing = SimpleNamespace(
        ub=np.zeros(len(description.get("b_ub", ()))),
        eq=np.zeros(len(description.get("b_eq", ()))),
        lower=np.zeros(x.size),
        upper=np.zeros(x.size),
    )
    assert not theory.check_farkas(C, nothing)
    try:
        hsref.projection(x, C)
    except hsref.InfeasibleError as problem:
        proof = problem.certificate
        assert theory.check_farkas(C, proof), str(theory.check_farkas(C, proof))
        if np.any(proof.ub):
            assert not theory.check_farkas(C, proof._replace(ub=-proof.ub))
    else:
        # no vector proves a non-empty set empty, however it was come by
        rng = np.random.default_rng(0)
        for _ in range(5):
            ub = rng.integers(0, 3, size=nothing.ub.size).astype(float)
            eq = rng.integers(-2, 3, size=nothing.eq.size).astype(float)
            guess = SimpleNamespace(ub=ub, eq=eq, lower=nothing.lower, upper=nothing.upper)
            assert not theory.check_farkas(C, guess)


def test_farkas_with_data_replaced_in_the_call():
    C = hsref.Polyhedron(A_ub=[[1.0, 1.0]], b_ub=[1.0], lower=0.0)
    with pytest.raises(hsref.InfeasibleError) as caught:
        hsref.project(np.zeros(2), C, b_ub=np.array([-1.0]))
    proof = caught.value.certificate
    assert theory.check_farkas(C, proof, b_ub=[-1.0])
    assert not theory.check_farkas(C, proof)


def test_farkas_is_as_strict_as_the_solver_and_no_stricter():
    rows, both = [[1.0], [-1.0]], SimpleNamespace(ub=[1.0, 1.0], eq=[], lower=[0.0], upper=[0.0])
    for gap in (3e-12, 1e-11, 1e-6, 1.0):
        C = hsref.Polyhedron(A_ub=rows, b_ub=[1.0, -(1.0 + gap)])
        with pytest.raises(hsref.InfeasibleError) as caught:
            hsref.project(np.zeros(1), C)
        assert theory.check_farkas(C, caught.value.certificate)
        assert theory.check_farkas(C, both)
    # what rounding may have done proves nothing, for the solver either
    C = hsref.Polyhedron(A_ub=rows, b_ub=[1.0, -(1.0 + 4e-16)])
    assert np.isfinite(hsref.project(np.zeros(1), C)).all()
    assert not theory.check_farkas(C, both)
    # terms that cancel bring their rounding with them
    C = hsref.Polyhedron(A_ub=[[1.0], [-1.0]], b_ub=[1e8, -1e8 - 1e-7])
    assert not theory.check_farkas(C, both)


def test_farkas_of_subnormal_data():
    both = SimpleNamespace(ub=[1.0, 1.0], eq=[], lower=[0.0], upper=[0.0])
    for gap, proved in ((200, True), (2, False)):
        C = SimpleNamespace(
            A_ub=[[1.0], [-1.0]], b_ub=[5e-324, -(1 + gap) * 5e-324], A_eq=None, b_eq=None,
            lower=None, upper=None,
        )  # fmt: skip
        assert bool(theory.check_farkas(C, both)) == proved


def test_variational_inequality():
    C, x = hsref.Box(0.0, 1.0, n=2), np.array([2.0, 0.5])
    corners = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    assert theory.check_variational_inequality(x, [1.0, 0.5], C, corners)
    assert not theory.check_variational_inequality(x, [1.0, 0.4], C, corners)
    assert not theory.check_variational_inequality(x, [1.5, 0.5], C, corners)


# -- cones ----------------------------------------------------------------------------------------


@given(st.data())
def test_a_sum_of_generators_lies_in_their_cone(data):
    n, k = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6))
    G = np.array(data.draw(matrices(k, n)), float)
    # opposite, repeated and dependent generators
    G = np.vstack([G, -G[:1], 2 * G[:1], G.sum(axis=0)])
    weights = np.array(data.draw(vectors(len(G), st.integers(0, 3))), float)
    verdict = linear.project_onto_cone(weights @ G, G)
    assert verdict.inside
    assert (verdict.multipliers >= 0.0).all()
    assert_close(verdict.multipliers @ G, weights @ G, "kkt", weights @ G)
    support = G[verdict.multipliers > 0.0]
    assert np.linalg.matrix_rank(support) == len(support) if len(support) else True


@given(st.data())
def test_a_vector_outside_is_separated(data):
    n, k = data.draw(st.integers(1, 4)), data.draw(st.integers(0, 6))
    G = np.array(data.draw(matrices(k, n)), float).reshape(k, n)
    r = np.array(data.draw(vectors(n)), float)
    verdict = linear.project_onto_cone(r, G)
    # whichever way it goes, the witness proves it
    assert verdict.optimality <= 1e-9 * (1.0 + np.linalg.norm(r))
    if not verdict.inside:
        assert (G @ verdict.separator <= 1e-9).all()
        assert r @ verdict.separator > 1e-9


def test_the_cone_test_survives_a_solver_that_stops_early(monkeypatch):
    import scipy.optimize

    def tired(*_, **__):
        raise RuntimeError("too many iterations")

    G = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, -1.0], [2.0, 0.0]])
    monkeypatch.setattr(scipy.optimize, "nnls", tired)
    assert linear.project_onto_cone(np.array([2.0, 1.0]), G).inside
    assert not linear.project_onto_cone(np.array([-1.0, 0.5]), G).inside
    many = np.vstack([G] * 5)
    assert linear.project_onto_cone(np.array([2.0, 1.0]), many).inside


@given(st.data())
def test_least_point_of_a_hull(data):
    k, d = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 4))
    v = np.array(data.draw(matrices(k, d)), float)
    point, weights = theory.min_norm_point(v)
    assert (weights >= 0.0).all()
    assert weights.sum() == pytest.approx(1.0, abs=1e-12)
    assert_close(point, weights @ v, "kkt", v)
    assert (v @ point).min() >= point @ point - 1e-9


def test_the_hull_of_nothing_is_refused():
    with pytest.raises(ValueError, match="convex hull of no vectors"):
        theory.min_norm_point(np.zeros((0, 2)))


# -- the HS-Jacobian as a set ---------------------------------------------------------------------


@given(planted_cases(**FEW))
def test_enumeration_against_exact_arithmetic(case):
    assume(len(case.normals) <= 6)
    found = theory.hs_elements(case.x, rows(case), y=case.y)
    assert same_matrices([e.V for e in found], case.hs_set)
    for e in found:
        assert case.is_admissible(e.K)
        assert theory.is_admissible(e.K, case.x, rows(case), y=case.y)


@given(planted_cases(**FEW))
def test_membership_needs_no_enumeration(case):
    assume(len(case.normals) <= 6)
    for V in case.hs_set:
        assert theory.is_hs_element(V, case.x, rows(case), y=case.y)
    # every projector of a subset of active rows is either in the set or refused
    R = rows_of(rows(case))
    local = theory.hs_set.local_rows(R, R.active(case.y))
    for V in local.elements:
        member = any(np.allclose(V, W, atol=1e-9) for W in case.hs_set)
        assert bool(theory.is_hs_element(V, case.x, rows(case), y=case.y)) == member


@given(planted_cases(**FEW), st.integers(0, 2), st.integers(0, 2))
def test_a_perturbed_element_is_refused(case, i, j):
    V = case.V.copy()
    V[i % case.n, j % case.n] += 1e-3
    assert not theory.is_hs_element(V, case.x, rows(case), y=case.y)


@given(planted_cases(**FEW))
def test_least_element(case):
    V0 = theory.least_element(case.x, rows(case), y=case.y)
    assert_close(V0, case.V, "projector")
    for e in theory.hs_elements(case.x, rows(case), y=case.y):
        assert_close(V0 @ e.V, V0, "projector")


@given(planted_cases(max_n=3, max_rows=3, changes=1))
def test_the_library_enumerates_the_same_set(case):
    assume(len(case.normals) <= 6)
    C = hsref.Polyhedron(**(case.description or {"n": case.n}))
    theirs = {V.round(7).tobytes(): V for _, V in hsref.hs_jacobian_set(case.x, C)}
    mine = [e.V for e in theory.hs_elements(case.x, C)]
    for V in theirs.values():
        assert any(np.allclose(V, W, atol=1e-8) for W in mine)
    for W in mine:
        assert any(np.allclose(V, W, atol=1e-8) for V in theirs.values())


def test_enumeration_is_refused_where_it_would_not_end():
    C = hsref.Box(0.0, 1.0, n=20)
    with pytest.raises(theory.EnumerationError, match="20 active rows have"):
        theory.hs_elements(np.zeros(20), C)
    assert theory.is_hs_element(np.zeros((20, 20)), np.zeros(20), C)
    assert theory.is_hs_element(np.eye(20), np.zeros(20), C)


def test_unknown_rows_are_named():
    with pytest.raises(ValueError, match=r"no inequality row \('ub', 0\)"):
        theory.is_admissible([("ub", 0)], np.zeros(3), hsref.Simplex(3))


def test_a_row_that_is_not_active_is_not_admissible():
    report = theory.is_admissible([("lower", 0)], [0.5, 0.5, 0.0], hsref.Simplex(3))
    assert not report
    assert report.parts["rows are active"] > 0.1


# -- limits of Jacobians --------------------------------------------------------------------------


@given(planted_cases(**FEW))
def test_limits_of_jacobians_are_elements(case):
    assume(len(case.normals) <= 6)
    limits = theory.b_subdifferential(case.x, rows(case), y=case.y)
    members = case.hs_set
    for e in limits:
        assert any(np.allclose(e.V, V, atol=1e-8) for V in members)
    assert any(np.allclose(e.V, case.V, atol=1e-8) for e in limits), "V₀ is a limit"
    if theory.licq(case.x, rows(case), y=case.y):
        assert len(limits) == len(members)


@given(planted_cases(max_n=3, max_rows=3, changes=1), st.integers(0, 2**16))
def test_jacobians_nearby_are_among_the_limits(case, seed):
    assume(len(case.normals) <= 5)
    C = hsref.Polyhedron(**(case.description or {"n": case.n}))
    limits = [e.V for e in theory.b_subdifferential(case.x, C)]
    radius = theory.neighbourhood(case.x, C)
    assume(radius > 1e-4)
    rng = np.random.default_rng(seed)
    near = case.x + 0.5 * min(radius, 0.1) * np.array(
        [d / np.linalg.norm(d) for d in rng.normal(size=(24, case.n))]
    )
    V = hsref.projection(near, C).jacobian().toarray()
    hit = [any(np.allclose(v, W, atol=1e-8) for W in limits) for v in V]
    # a random direction meets a kink with probability zero
    assert all(hit)


# -- near a point ---------------------------------------------------------------------------------


@given(planted_cases(max_n=3, max_rows=3, changes=2), st.data())
def test_exactness_and_semicontinuity(case, data):
    assume(len(case.normals) <= 6)
    C = hsref.Polyhedron(**(case.description or {"n": case.n}))
    d = np.array(data.draw(vectors(case.n)), float)
    assume(d.any())
    reach = min(theory.neighbourhood(case.x, C), 1.0)
    assume(reach > 1e-3)
    other = case.x + 0.5 * reach * d / np.linalg.norm(d)
    exact = theory.check_exactness(case.x, other, C)
    assert exact, str(exact)
    inside = theory.check_outer_semicontinuity(case.x, other, C)
    assert inside, str(inside)


def test_exactness_is_local():
    # across a kink the element found beyond it is wrong for the way there
    C = hsref.Box(0.0, np.inf, n=1)
    assert not theory.check_exactness([-1.0], [1.0], C)
    assert not theory.check_outer_semicontinuity([1.0], [-1.0], C)


@given(planted_cases(max_n=3, max_rows=3, changes=2), st.data())
def test_directional_derivative(case, data):
    assume(len(case.normals) <= 6)
    C = hsref.Polyhedron(**(case.description or {"n": case.n}))
    d = np.array(data.draw(vectors(case.n)), float)
    assume(d.any())
    reach = min(theory.neighbourhood(case.x, C), 1.0)
    assume(reach > 1e-3)
    h = 0.5 * reach / np.linalg.norm(d)
    quotient = (hsref.project(case.x + h * d, C) - case.y) / h
    found = theory.directional_derivative(case.x, d, C, y=case.y)
    np.testing.assert_allclose(found, quotient, rtol=0.0, atol=1e-9)


# -- counterexamples ------------------------------------------------------------------------------


def test_redundant_row_has_an_element_outside_the_clarke_hull():
    C, x, y = theory.redundant_row()
    np.testing.assert_array_equal(hsref.project(x, C), y)
    limits = np.array([e.V for e in theory.b_subdifferential(x, C)])
    extra = [e.V for e in theory.hs_elements(x, C) if e.V[0, 1] != 0.0]
    assert len(extra) == 1
    # every limit is diagonal, hence so is their hull
    assert np.abs(limits[:, 0, 1]).max() == 0.0


def test_where_it_is_differentiable_other_elements_may_remain():
    for C, x, y in (theory.redundant_row((-1.0, -1.0)), theory.pyramid_apex()):
        h = 1e-3 * np.eye(len(x))
        J = (hsref.project(x + h, C) - hsref.project(x - h, C)) / 2e-3
        np.testing.assert_allclose(J, 0.0, atol=1e-12)
        np.testing.assert_allclose(theory.least_element(x, C, y=y), 0.0, atol=1e-12)
        assert len(theory.b_subdifferential(x, C)) == 1
        assert len(theory.hs_elements(x, C)) > 1


def test_pseudo_inverse_in_the_right_hand_side():
    w = theory.pinv_in_right_hand_side()
    A = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    h = 1e-3
    for j in range(3):
        for sign in (-1.0, 1.0):
            a = sign * h * np.eye(3)[j]
            slope = (hsref.project(w.x, hsref.Polyhedron(A_ub=A, b_ub=a)) - w.y)[0] / (sign * h)
            assert slope == pytest.approx(w.by_independent_rows[0, j], abs=1e-12)
    assert np.abs(w.by_pseudo_inverse[0] - [1.0, 0.0, 0.0]).max() > 0.3


def test_spurious_zero_of_automatic_differentiation():
    from autograd import grad

    s = theory.spurious_zero()

    def phi(t):
        return (hsref.project(t, s.nonnegative) + hsref.project(t, s.nonpositive))[0]

    assert grad(phi)(np.array([s.theta])) == s.automatic == 0.0
    assert grad(phi)(np.array([1e-6])) == s.true == 1.0


# -- criticality ----------------------------------------------------------------------------------


def test_every_loss_is_critical_at_a_vertex():
    C = hsref.Simplex(4)
    assert theory.check_criticality([9.0, 0.0, 0.0, 0.0], C, [1.0, -2.0, 3.0, 0.5])
    inside = theory.check_criticality([0.25] * 4, C, [1.0, -2.0, 3.0, 0.5])
    assert not inside
    assert inside.elements == 1


def test_near_a_kink_the_elements_of_both_sides_are_gathered():
    C = hsref.Box(0.0, np.inf, n=1)
    assert len(theory.near_elements([1e-9], C)) == 2
    assert len(theory.near_elements([1e-3], C)) == 1
    # |t| = Π(t) + Π(-t) has its minimum at a kink: -1 and 1 have 0 between them
    assert theory.distance_to_critical([[-1.0], [1.0]])


def test_all_fifteen_faces_hold_a_critical_point():
    stops = problems.nearest_on_faces(problems.TARGET)
    assert len(stops) == 15
    gradient = theory.PROBLEMS["P1"]().gradient(stops)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-12)


@pytest.mark.parametrize("name", sorted(theory.PROBLEMS))
def test_gradients_of_the_problems(name):
    task = theory.PROBLEMS[name]()
    theta = 0.3 * np.random.default_rng(3).normal(size=(6, task.size)) + 0.1
    g, h = task.gradient(theta), 1e-6
    for j in range(task.size):
        step = h * np.eye(task.size)[j]
        slope = (task.value(theta + step) - task.value(theta - step)) / (2 * h)
        np.testing.assert_allclose(g[:, j], slope, atol=1e-6)


def test_dead_starts():
    table = theory.dead_starts(spreads=(1.5, 0.05), runs=100, steps=600)
    assert table.reached[0] <= 0.05
    assert table.reached[1] == 1.0
    assert table.at_vertex[0] > 0.3
    assert table.worst_gap <= 1e-6
    assert "| 0.05·N(0, I) | 100% | 0% | 0% |" in table.table()
    assert "2/(k + 4)^0.6" in table.protocol


# -- reports --------------------------------------------------------------------------------------


def test_reports_are_frozen_and_saved_without_pickle(tmp_path):
    report = theory.kkt_certificate([2.0, 0.5], [1.0, 0.5], hsref.Box(0.0, 1.0, n=2))
    assert bool(report) is report.verdict is True
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.residual = 0.0
    path = report.save(tmp_path / "deep" / "report.npz")
    with np.load(path, allow_pickle=False) as saved:
        np.testing.assert_array_equal(saved["x"], [2.0, 0.5])
        assert str(saved["claim"]) == report.claim
    assert list(path.parent.iterdir()) == [path], "nothing but the file itself"


def test_a_nan_never_passes():
    assert not reports.report("", {"a": float("nan")}, 1e-3)


def test_objects_are_not_saved(tmp_path):
    with pytest.raises(TypeError, match="would need pickle"):
        reports.save_arrays(tmp_path / "x.npz", thing=np.array([object()]))
    assert list(tmp_path.iterdir()) == []


# -- planted cases of the theory's own ------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(planted.POLYHEDRA))
def test_planted_polyhedra_hold_what_they_promise(kind):
    rng = np.random.default_rng(7)
    for _ in range(4):
        cases = planted.degenerate_cases(kind, 20, rng)
        known = ~np.isnan(cases.z[:, 0])
        assert known.sum() >= 10
        R = cases.rows
        assert (R.violation(cases.z[known]) <= 1e-12 * R.scale(cases.z[known])).all()
        for x, z in zip(cases.x[known], cases.z[known]):
            assert theory.kkt_certificate(x, z, cases.C)
        np.testing.assert_allclose(
            theory.brute_force(cases.x, cases.C)[known], cases.z[known], atol=1e-9
        )


def test_brute_force_says_when_a_set_is_empty():
    C = SimpleNamespace(
        A_ub=[[1.0], [-1.0]], b_ub=[-1.0, -1.0], A_eq=None, b_eq=None, lower=None, upper=None
    )
    assert np.isnan(theory.brute_force([0.0], C)).all()
