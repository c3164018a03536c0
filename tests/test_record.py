"""The record of a projection, and data given at the call."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import hsref
import special_sets as slow
from certificates import keys
from tolerances import assert_close, bound

TRIANGLE = hsref.Polyhedron(A_eq=[[1.0, 1.0, 1.0]], b_eq=[1.0], lower=0.0, n=3)
SETS = [
    pytest.param(TRIANGLE, id="Polyhedron"),
    pytest.param(hsref.Polyhedron(A_ub=[[1.0, 2.0, 0.0], [0.0, -1.0, 1.0]], b_ub=[1.0, 0.0]),
                 id="rows only"),
    pytest.param(hsref.Simplex(3), id="Simplex"),
    pytest.param(hsref.Box([0.0, -1.0, 0.0], [1.0, 1.0, 0.0]), id="Box"),
]  # fmt: skip


# -- the record ------------------------------------------------------------------------------------


@pytest.mark.parametrize("C", SETS)
def test_record_is_frozen_and_travels(C):
    p = hsref.projection(np.random.default_rng(4).normal(size=(2, 3)), C)
    with pytest.raises(AttributeError):
        p.y = 0.0
    for array in (p.x, p.y, p.status, p.rank, p.active.lower, p.multipliers.lower, p.margin):
        assert not array.flags.writeable
    assert hash(p) == hash(p)
    for again in (pickle.loads(pickle.dumps(p)), copy.deepcopy(p), copy.copy(p)):
        np.testing.assert_array_equal(again.y, p.y)
        np.testing.assert_array_equal(again.active.lower, p.active.lower)
        np.testing.assert_array_equal(again.multipliers.lower, p.multipliers.lower)
        np.testing.assert_array_equal(again.jacobian().toarray(), p.jacobian().toarray())
        assert not again.y.flags.writeable
    assert type(C).__name__ in repr(p)
    assert "2 of 2 solved" in repr(p)


@pytest.mark.parametrize("C", SETS)
def test_sets_are_immutable_hashable_and_travel(C):
    x = np.random.default_rng(5).normal(size=(2, 3))
    with pytest.raises(AttributeError, match="immutable"):
        C.shape = (4,)
    assert C in {C}
    assert type(C).__name__ in repr(C)
    for again in (pickle.loads(pickle.dumps(C)), copy.deepcopy(C), copy.copy(C)):
        assert again.shape == C.shape
        np.testing.assert_array_equal(hsref.project(x, again), hsref.project(x, C))


def test_a_set_keeps_copies_of_its_arrays():
    A_ub, b_ub = np.array([[1.0, 1.0]]), np.array([1.0])
    C = hsref.Polyhedron(A_ub=A_ub, b_ub=b_ub)
    A_ub[...] = 0.0
    b_ub[...] = -1.0
    np.testing.assert_array_equal(C.A_ub, [[1.0, 1.0]])
    np.testing.assert_array_equal(C.b_ub, [1.0])
    with pytest.raises(ValueError, match="read-only"):
        C.A_ub[0, 0] = 5.0
    assert C.A_eq is None
    assert C.lower is None


def test_a_record_keeps_no_square_matrix():
    # y, multipliers, codes and one triangular factor of the active rows; nothing of size n².
    rng = np.random.default_rng(18)
    n, m, p, batch = 60, 40, 6, 50
    C = hsref.Polyhedron(rng.normal(size=(m, n)), np.ones(m), rng.normal(size=(p, n)), np.zeros(p))
    record = hsref.projection(rng.normal(size=(batch, n)), C)
    active = record.active.count().mean() + p
    numbers = len(pickle.dumps(record)) - len(pickle.dumps(C))
    assert numbers / 8 / batch <= 2 * n + 3 * active + active**2 / 2


def test_margin_tells_how_close_the_call_was():
    C = hsref.Polyhedron(A_ub=[[1.0, 0.0]], b_ub=[0.0], n=2)
    near, clear = hsref.projection([[-1e-7, 1.0], [-0.5, 1.0]], C).margin
    assert 0 < near < 1e-6 < clear
    pushed = hsref.projection([1e-6, 1.0], C)
    assert 0 < pushed.margin < 1e-5
    assert keys(pushed.active) == {("ub", 0)} == keys(pushed.support)
    on = hsref.projection([0.0, 1.0], C)
    assert keys(on.weakly_active) == {("ub", 0)}
    assert keys(on.support) == set()


def test_active_tolerance_is_relative():
    # within 1e-9 of the data a row is active, well beyond it is not
    C = hsref.Polyhedron(A_ub=[[1.0, 0.0]], b_ub=[1.0])
    inside = hsref.projection([[1.0 - 1e-11, 0.0], [1.0 - 1e-7, 0.0]], C)
    np.testing.assert_array_equal(inside.active.ub[:, 0], [True, False])
    np.testing.assert_array_equal(inside.rank, [1, 2])


def test_warm_start_changes_the_way_and_not_the_answer():
    rng = np.random.default_rng(6)
    A_ub = rng.normal(size=(20, 8))
    C = hsref.Polyhedron(A_ub=A_ub, b_ub=np.ones(20), lower=-np.ones(8), upper=np.ones(8))
    x = 3.0 * rng.normal(size=(10, 8))
    cold = hsref.projection(x, C)
    warm = hsref.projection(x + 1e-3, C, start=cold)
    wanted = hsref.projection(x + 1e-3, C)
    assert_close(warm.y, wanted.y, "agree", x)
    np.testing.assert_array_equal(warm.active.ub, wanted.active.ub)
    assert warm.steps.sum() <= wanted.steps.sum()


# -- data given at the call ------------------------------------------------------------------------


def test_data_at_the_call_may_carry_the_batch():
    rng = np.random.default_rng(7)
    A_ub, x = rng.normal(size=(4, 3)), rng.normal(size=(6, 3))
    b_ub = rng.uniform(0.1, 1.0, (6, 4))
    lower = -rng.uniform(0.5, 1.0, (6, 3))
    C = hsref.Polyhedron(A_ub=A_ub, b_ub=np.ones(4), lower=-np.ones(3))
    y = hsref.project(x, C, b_ub=b_ub, lower=lower)
    p = hsref.projection(x, C, b_ub=b_ub, lower=lower)
    np.testing.assert_array_equal(p.y, y)
    assert max(np.max(r) for r in p.residuals) <= bound("kkt")
    for i in range(6):
        own = hsref.Polyhedron(A_ub=A_ub, b_ub=b_ub[i], lower=lower[i])
        assert_close(y[i], hsref.project(x[i], own), "agree", x)


def test_one_point_and_many_right_hand_sides():
    C = hsref.Polyhedron(A_ub=[[1.0, 1.0]], b_ub=[1.0])
    b_ub = np.array([[0.0], [1.0], [4.0]])
    x = np.broadcast_to(np.array([1.0, 1.0]), (3, 2))
    assert_close(hsref.project(x, C, b_ub=b_ub), [[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]], "agree")


@pytest.mark.parametrize("total", [0.0, 0.5, [[1.0], [2.0]]])
def test_parameters_of_special_sets_may_be_replaced(total):
    x = np.random.default_rng(9).normal(size=(2, 3))
    totals = np.broadcast_to(np.squeeze(np.asarray(total, float)), (2,))
    y = hsref.project(x, hsref.Simplex(3), total=totals)
    for i in range(2):
        assert_close(y[i], slow.simplex(x[i], totals[i]), "agree", x)
