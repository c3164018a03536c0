"""Empty sets are proved empty; the rest of a batch goes on."""

from __future__ import annotations

import numpy as np
import pytest

import hsref
from certificates import assert_farkas
from hsref import Status
from tolerances import assert_close

EMPTY = {
    "opposite": {"A_ub": [[1.0, 0.0], [-1.0, 0.0]], "b_ub": [0.0, -1.0]},
    "equality": {"A_eq": [[1.0, 1.0], [2.0, 2.0]], "b_eq": [1.0, 3.0]},
    "bounds": {"A_ub": [[1.0, 1.0]], "b_ub": [-1.0], "lower": [0.0, 0.0]},
    "zero row": {"A_ub": [[0.0, 0.0]], "b_ub": [-1.0]},
    "zero equality": {"A_eq": [[0.0, 0.0]], "b_eq": [1.0]},
    "equality and bounds": {"A_eq": [[1.0, 1.0]], "b_eq": [3.0], "upper": [1.0, 1.0]},
    "scaled": {"A_ub": [[1e6, 0.0], [-1e-6, 0.0]], "b_ub": [0.0, -1e-6]},
    "three": {"A_ub": [[1.0, 1.0], [-1.0, 2.0], [0.0, -3.0]], "b_ub": [-1.0, -1.0, 1.0]},
}


@pytest.mark.parametrize("name", EMPTY)
@pytest.mark.parametrize("x", [[0.0, 0.0], [5.0, -3.0], [1e6, 1e6]])
def test_empty_sets_are_proved_empty(name, x):
    C = hsref.Polyhedron(**EMPTY[name])
    for call in (hsref.project, hsref.projection):
        with pytest.raises(hsref.InfeasibleError, match=r"\w+ \w+ \w+") as caught:
            call(x, C)
        assert isinstance(caught.value, ValueError)
        assert_farkas(caught.value.certificate, 2, EMPTY[name])
    p = hsref.projection(x, C, on_infeasible="nan")
    assert p.status == Status.PRIMAL_INFEASIBLE
    assert np.isnan(p.y).all()
    assert np.isnan(hsref.project(x, C, on_infeasible="nan")).all()
    assert_farkas(p.certificate, 2, EMPTY[name])
    assert not np.asarray(p.jacobian() @ np.ones(2)).any()
    assert p.rank == 0


def test_the_rest_of_the_batch_goes_on():
    C = hsref.Polyhedron(A_ub=[[1.0], [-1.0]], b_ub=[1.0, 1.0])
    b_ub = np.array([[1.0, 1.0], [1.0, -2.0], [0.5, 0.5]])
    x = np.array([[3.0], [3.0], [3.0]])
    with pytest.raises(hsref.InfeasibleError, match="1") as caught:
        hsref.project(x, C, b_ub=b_ub)
    assert caught.value.index == (1,)
    p = hsref.projection(x, C, b_ub=b_ub, on_infeasible="nan")
    np.testing.assert_array_equal(
        p.status, [Status.SOLVED, Status.PRIMAL_INFEASIBLE, Status.SOLVED]
    )
    np.testing.assert_array_equal(np.isnan(p.y[:, 0]), [False, True, False])
    assert_close(p.y[[0, 2]], [[1.0], [0.5]], "agree")
    one = hsref.Multipliers(*(part[1] for part in p.certificate))
    assert_farkas(one, 1, {"A_ub": C.A_ub, "b_ub": b_ub[1]})
    assert not p.certificate.ub[[0, 2]].any()


@pytest.mark.parametrize("gap", [1e-6, 1e-3])
def test_nearly_consistent_is_still_empty(gap):
    description = {"A_ub": [[1.0, 1.0], [-1.0, -1.0]], "b_ub": [1.0, -1.0 - gap]}
    with pytest.raises(hsref.InfeasibleError):
        hsref.project([0.3, 0.9], hsref.Polyhedron(**description))


def test_round_off_in_redundant_equalities_is_forgiven():
    # 0.1 + 0.2 misses 0.3 by an ulp: round-off, not a contradiction
    A_eq = np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    b_eq = np.array([0.1, 0.2, 0.3])
    assert 0.1 + 0.2 != 0.3
    y = hsref.project(np.arange(4.0), hsref.Polyhedron(A_eq=A_eq, b_eq=b_eq))
    assert_close(A_eq @ y, b_eq, "feasible", y)


def test_data_of_a_few_subnormal_units_are_never_called_empty():
    # every set below holds the point z; its data round to a handful of digits
    tiny = 5e-324
    rng = np.random.default_rng(7)
    solved = 0
    for _ in range(150):
        n, m = int(rng.integers(3, 10)), int(rng.integers(4, 12))
        A = rng.integers(-2, 3, (m, n)).astype(float)
        z = rng.integers(-2, 3, n) * 30.0
        C = hsref.Polyhedron(
            A, tiny * (A @ z), A[:2] @ np.eye(n), tiny * (A[:2] @ z),
            lower=tiny * (z - 30 * rng.integers(0, 2, n)), upper=tiny * (z + 30),
        )  # fmt: skip
        try:
            hsref.project(tiny * 1000.0 * rng.integers(-3, 4, n), C)
            solved += 1
        except hsref.NotSolvedError:
            pass
    assert solved > 0


def almost_opposite(seed, offset):
    """Return rows in pairs that are opposite up to `offset`, and a point well inside of them.

    It keeps from every row by at least 1e-13 of the terms that the row sums, a thousand times what
    rounding does to them.
    """
    rng = np.random.default_rng(seed)
    n, pairs, more = rng.integers([3, 1, 0], [12, 5, 6])
    rows = rng.integers(-2, 3, (pairs, n)).astype(float)
    rows[~rows.any(axis=1), 0] = 1.0
    off = offset * rng.normal(size=rows.shape) * (rng.random(rows.shape) < 0.5)
    A = np.concatenate([rows, off - rows, rng.integers(-1, 2, (more, n))])
    point = rng.integers(-2, 3, n).astype(float)
    description = {"A_ub": A, "b_ub": A @ point + 1e-13 * (1.0 + np.abs(A) @ np.abs(point))}
    if rng.random() < 0.5:
        near = rng.integers(0, 2, (2, n))
        described = rng.random((2, n)) < 0.4
        description["lower"] = np.where(described[0], point - near[0], -np.inf)
        description["upper"] = np.where(described[1], point + near[1], np.inf)
    return description, rng.integers(-5, 6, (6, n)).astype(float)


@pytest.mark.parametrize("offset", [1e-9, 1e-10, 2e-11, 1e-12])
def test_rows_that_are_all_but_opposite_do_not_make_a_set_empty(offset):
    methods, solved, total = set(), 0, 0
    for seed in range(100):
        description, x = almost_opposite(seed, offset)
        C = hsref.Polyhedron(**description)
        for point in x:
            total += 1
            try:
                p = hsref.projection(point, C)
            except hsref.NotSolvedError:
                continue
            solved += 1
            methods.add(p.method)
            assert float(p.residuals.primal) <= 1e-9
            # Multipliers reach 1e9 here, and their rounding shows in y.
            assert float(p.residuals.dual) <= 1e-8
    assert methods == {"bounds eliminated", "dual active set"}
    # Rows that are dependent up to 1e-9 are refused more often than not.
    assert solved >= (0.9 if offset < 1e-10 else 0.3) * total


def test_rows_that_are_all_but_opposite_can_still_contradict_each_other():
    for seed in range(20):
        description, x = almost_opposite(seed, 0.0)
        description["b_ub"][0] -= 0.5
        C = hsref.Polyhedron(**description)
        with pytest.raises(hsref.InfeasibleError) as caught:
            hsref.project(x[0], C)
        assert_farkas(caught.value.certificate, x.shape[1], description)
