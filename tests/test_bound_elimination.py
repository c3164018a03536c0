"""Polyhedra whose bounds are eliminated, against the dual active-set method on the same rows."""

from __future__ import annotations

import numpy as np
import pytest

import hsref
import oracle
from certificates import assert_answer, assert_farkas
from hsref import Status
from hsref.sets.polyhedron_methods import DUAL_ACTIVE_SET, ELIMINATED
from polyhedra import BOUNDED, carries, marginals, matching, points, portfolio, solved_by
from tolerances import bound

SELECTIONS = ("active", "working", "support")


@pytest.mark.parametrize("name", BOUNDED)
def test_the_battery(name):
    description = BOUNDED[name]
    C, general = solved_by(ELIMINATED, description), solved_by(DUAL_ACTIVE_SET, description)
    x = points(C.size)
    p, q = hsref.projection(x, C), hsref.projection(x, general)
    assert p.method == "bounds eliminated"
    assert q.method == "dual active set"
    size = 1.0 + np.abs(x).max(axis=1)
    assert np.all(np.abs(p.y - q.y).max(axis=1) <= 1e-12 * size)
    for residual in p.residuals:
        assert residual.max() <= 1e-12
    for mine, theirs in zip(p.active, q.active, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(p.rank, q.rank)
    assert np.abs(p.jacobian().toarray() - q.jacobian().toarray()).max() <= 1e-8
    for selection, flags in (("working", p.working_set), ("support", p.support)):
        for i in range(len(x)):
            assert carries(p, flags, description, i), f"{selection} set of sample {i}"
    for selection in SELECTIONS:
        J = p.jacobian(selection)
        V = J.toarray()
        assert np.abs(V @ V - V).max() <= 1e-12
        assert np.abs(np.trace(V, axis1=1, axis2=2) - J.rank).max() <= 1e-9
    # only y is asked for: the same bits
    assert hsref.project(x, C).tobytes() == p.y.tobytes()


@pytest.mark.parametrize("name", BOUNDED)
def test_bounds_hold_bitwise_and_rows_to_rounding_however_far_x_is(name):
    description = BOUNDED[name]
    C = solved_by(ELIMINATED, description)
    x = points(C.size)
    y = hsref.project(x, C)
    assert np.all(y >= description["lower"])
    assert np.all(y <= description.get("upper", np.inf))
    inside = np.isfinite(np.asarray(description["lower"])).all() and "upper" in description
    if inside or name.startswith(("birkhoff", "matching")):
        # the set is bounded: nothing of the size of x is left in y
        assert np.max(C._violation(y, {}, 1.0)) <= bound("feasible")


@pytest.mark.parametrize("change", sorted(oracle.DEGENERACIES))
@pytest.mark.parametrize("seed", range(4))
def test_planted_answers(change, seed):
    case = oracle.DEGENERACIES[change](oracle.random_plant(seed, n=6, m=4, p=1), seed)
    if {"lower", "upper"} & set(case.description):
        assert_answer(hsref.projection(case.x, solved_by(ELIMINATED, case.description)), case)


EMPTY = {
    "birkhoff": lambda gap: {
        "A_eq": marginals(3, 3), "b_eq": np.array([1, 1, 1, 1, 1, 1 + gap]), "lower": np.zeros(9)},
    "matching": lambda gap: {
        **matching(3, 3), "b_ub": np.array([1, 1, 1 - gap, 1, 1, 1.0])},
    "sum": lambda gap: {
        "A_eq": np.ones((1, 9)), "b_eq": np.array([9 + gap]), "upper": np.ones(9)},
    "groups": lambda gap: {
        **portfolio("plain"), "b_ub": np.array([0.3, 0.3, 0.4 - gap])},
    "opposite": lambda gap: {
        "A_ub": np.array([[3.0, -1, 2], [-3, 1, -2]]), "b_ub": np.array([1, -1 - gap]),
        "lower": np.full(3, -5.0), "upper": np.full(3, 5.0)},
    "three": lambda gap: {
        "A_ub": np.array([[1.0, 1, 0, 0], [-1, 0, 1, 0], [0, -1, -1, 0]]),
        "b_ub": np.array([1, 1, -2 - gap]), "lower": np.full(4, -np.inf)},
    "implied": lambda gap: {
        "A_eq": np.array([[1.0, 1, 0, 0], [0, 0, 1, 1]]), "b_eq": np.ones(2),
        "A_ub": np.ones((1, 4)), "b_ub": np.array([2 - gap]), "lower": np.full(4, -9.0)},
    "zero row": lambda gap: {
        "A_ub": np.zeros((1, 4)), "b_ub": np.array([-gap]), "lower": np.zeros(4)},
}  # fmt: skip


@pytest.mark.parametrize("gap", [1.0, 1e-3, 1e-6])
@pytest.mark.parametrize("name", EMPTY)
def test_empty_sets_are_proved_empty(name, gap):
    description = EMPTY[name](gap)
    C = solved_by(ELIMINATED, description)
    p = hsref.projection(points(C.size), C, on_infeasible="nan")
    assert np.all(p.status == Status.PRIMAL_INFEASIBLE)
    assert not np.asarray(p.jacobian() @ np.ones_like(p.x)).any()
    for i in range(0, len(p.x), 5):
        found = hsref.Multipliers(*(part[i] for part in p.certificate))
        assert_farkas(found, C.size, description)


@pytest.mark.parametrize("name", EMPTY)
def test_the_same_sets_without_a_gap_are_not_empty(name):
    C = solved_by(ELIMINATED, EMPTY[name](0.0))
    assert np.max(hsref.projection(points(C.size), C).residuals.primal) <= 1e-12


def test_crossed_bounds_of_one_sample():
    C = solved_by(ELIMINATED, portfolio("plain"))
    lower = np.zeros((3, 12))
    lower[1, 4] = 0.5
    p = hsref.projection(np.zeros((3, 12)), C, lower=lower, on_infeasible="nan")
    assert p.status.tolist() == [Status.SOLVED, Status.PRIMAL_INFEASIBLE, Status.SOLVED]
    assert p.certificate.lower[1, 4] == p.certificate.upper[1, 4] == 1.0


def test_data_of_every_kind_replaced_at_the_call():
    rng = np.random.default_rng(2)
    description = portfolio("plain")
    C = solved_by(ELIMINATED, description)
    batch, n = 24, C.size
    lower, upper = np.zeros((batch, n)), np.full((batch, n), 0.25)
    lower[rng.random((batch, n)) < 0.2] = -np.inf
    upper[rng.random((batch, n)) < 0.2] = np.inf
    fixed = rng.random((batch, n)) < 0.2
    lower[fixed] = upper[fixed] = 0.0625
    data = {
        "b_ub": np.where(rng.random((batch, 3)) < 0.3, np.inf, rng.uniform(0.3, 0.6, (batch, 3))),
        "b_eq": rng.uniform(0.75, 1.0, (batch, 1)), "lower": lower, "upper": upper,
    }  # fmt: skip
    x = rng.normal(size=(batch, n))
    p = hsref.projection(x, C, on_infeasible="nan", **data)
    q = hsref.projection(x, solved_by(DUAL_ACTIVE_SET, description), on_infeasible="nan", **data)
    np.testing.assert_array_equal(p.status, q.status)
    good = p.status == Status.SOLVED
    assert good.sum() >= batch // 2
    assert np.nanmax(np.abs(p.y - q.y)) <= 1e-12
    np.testing.assert_array_equal(p.rank, q.rank)
    for residual in p.residuals:
        assert np.max(residual[good]) <= 1e-12
    i = int(np.flatnonzero(good)[0])
    own = hsref.project(x[i], C, **{k: v[i] for k, v in data.items()})
    assert own.tobytes() == p.y[i].tobytes()


# 1e-9 is active_tol itself, where which rows are active is a matter of rounding.
@pytest.mark.parametrize("eps", [1e-3, 1e-5, 1e-7, 1e-12])
def test_nearly_dependent_rows(eps):
    """The rank is decided from the rows themselves, not from their normal matrix."""
    rng = np.random.default_rng(3)
    A = rng.normal(size=(3, 16))
    A = np.vstack([A, A + eps * rng.normal(size=A.shape)])
    z = rng.uniform(0.0, 1.0, 16)
    description = {"A_ub": A, "b_ub": A @ z, "lower": np.zeros(16), "upper": np.ones(16)}
    x = z + rng.normal(size=(30, 16))
    p = hsref.projection(x, solved_by(ELIMINATED, description))
    for residual in p.residuals:
        assert residual.max() <= bound("kkt")
    V = p.jacobian().toarray()
    # Rows eps apart span a direction known to rounding / eps; closer ones count as dependent.
    blur = 1e-15 / eps if eps > 1e-10 else 0.0
    assert np.abs(V @ V - V).max() <= 1e-12 + blur
    np.testing.assert_array_equal(
        p.rank, hsref.projection(x, solved_by(DUAL_ACTIVE_SET, description)).rank
    )


def test_rows_stay_sparse():
    n = 12
    C = hsref.Polyhedron(**matching(n, 9))
    assert C._method is ELIMINATED
    entries = 3 * n * n
    assert max(a.size for a in C.kernel.shared) <= entries


def test_steps_stay_few():
    """A gate on work, not on time: on generic points Newton's method needs a handful of steps."""
    rng = np.random.default_rng(0)
    C = hsref.Polyhedron(**matching(8, 6))
    record = hsref.projection(rng.normal(size=(200, 64)), C)
    assert np.mean(record.steps) <= 7.0
    assert np.max(record.steps) <= 25


def test_the_choice_depends_on_the_set_alone():
    def chosen(m, p, n, density=1.0, bounds=True):
        rng = np.random.default_rng(0)
        A = rng.normal(size=(m, n)) * (rng.random((m, n)) < density)
        B = rng.normal(size=(p, n))
        C = hsref.Polyhedron(A, np.ones(m), B, np.zeros(p), -1.0 if bounds else None)
        return C._method.name

    assert chosen(20, 5, 200) == "bounds eliminated"
    assert chosen(200, 20, 200) == "dual active set"
    assert chosen(40, 2, 100, density=0.05) == "bounds eliminated"
    assert chosen(20, 5, 200, bounds=False) == "dual active set"


def test_a_row_that_repeats_a_bound_but_for_noise_keeps_its_multiplier():
    # The row's other entries are noise beside the first, whose bound the row repeats: found by
    # fuzzing, where the multiplier of the row was dropped and the point returned as solved. From
    # zero the multiplier need not grow: x violates the row by less than the tolerance.
    row = np.zeros(12)
    row[:3] = [2.0, -5.0994e-14, 1.0352e-14]
    lower, upper = np.full(12, -np.inf), np.full(12, np.inf)
    lower[0], upper[0] = -2.0, 1.0
    C = hsref.Polyhedron(row[None], [-4.0], lower=lower, upper=upper)
    x = np.zeros(12)
    x[:3] = [-2.0, -1.0, 2.0]
    p = hsref.projection(x, C)
    assert max(float(r) for r in p.residuals) <= 1e-13
    np.testing.assert_array_equal(p.y, x)


@pytest.mark.parametrize(
    "x",
    [
        [-2.8824286694294224e-32, 0.175622228753349, -1.4608994909750173e-32,
         0.8389091485236684, 7.658612837298766e-33, 0.9854686227229826],
        [-9.021290545081109e-33, -1.3385287028525695e-33, 0.00469679568252995, 1.0,
         0.9953032043174702, 1.2253550802146218e-32],
    ],
)  # fmt: skip
def test_a_row_within_rounding_of_its_side_moves_nothing(x):
    # The row misses its side by the last bit of the sum, and a coordinate is closer to its bound
    # than that: following the bit let the coordinate go and caught it again for ever.
    P = hsref.Polyhedron(A_eq=np.ones((1, 6)), b_eq=[2.0], lower=np.zeros(6), upper=np.ones(6))
    p = hsref.projection(np.array(x), P)
    assert p.method == "bounds eliminated"
    np.testing.assert_allclose(p.y, np.clip(x, 0.0, 1.0), rtol=0.0, atol=1e-15)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        # The row and the equality leave y_2 = -1 alone, which is also its bound: a set without
        # interior, whose multipliers may grow for ever.
        ([-0.4992246019758282, 4.323404139121277, 2.349353089765196, 5.323305376587703], None),
        ([0.0, 2.0, 3.0, -1.0], [1.5, -1.0, 4.0, 0.5]),
    ],
)
def test_multipliers_without_bound_do_not_drown_the_point(x, y):
    P = hsref.Polyhedron(
        A_ub=[[-2.0, -1.0, -2.0, -2.0]], b_ub=[-11.0], A_eq=np.ones((1, 4)), b_eq=[5.0],
        lower=[-np.inf, -1.0, 2.0, -np.inf], upper=[np.inf, 1.0, 4.0, np.inf],
    )  # fmt: skip
    p = hsref.projection(np.array(x), P)
    assert p.method == "bounds eliminated"
    assert max(float(r) for r in p.residuals) <= 1e-14
    assert np.array_equal(hsref.project(np.array(x), P), p.y)
    if y is not None:
        np.testing.assert_allclose(p.y, y, rtol=0.0, atol=1e-14)
