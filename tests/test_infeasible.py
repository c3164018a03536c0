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
