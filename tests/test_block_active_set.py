"""The block start of the dense method, against the same method without it."""

from __future__ import annotations

import numpy as np
import pytest

import hsref
from certificates import assert_farkas
from hsref import Status
from hsref.sets import row_reduction
from hsref.sets.packed_factor import cholesky, cholesky_solve, invert_factor
from polyhedra import carries
from tolerances import assert_close


def dense(n: int, m: int, p: int, seed: int = 0, integers: bool = False) -> tuple[dict, np.ndarray]:
    """Return dense rows through or near a point, and points to project."""
    rng = np.random.default_rng(seed)
    if integers:
        # every row passes through one lattice point: all points near its normal cone end there
        A, B = rng.integers(-2, 3, (m, n)), rng.integers(-2, 3, (p, n))
        z = rng.integers(-2, 3, n)
        slack = np.zeros(m)
    else:
        A, B, z = rng.normal(size=(m, n)), rng.normal(size=(p, n)), rng.normal(size=n)
        slack = 0.5 * np.sqrt(n) * rng.random(m)
    description = {"A_ub": A.astype(float), "b_ub": A @ z + slack}
    if p:
        description |= {"A_eq": B.astype(float), "b_eq": (B @ z).astype(float)}
    x = np.concatenate([
        z + rng.normal(size=(8, n)), z + rng.integers(-2, 3, (8, n)), z[None].astype(float),
        z + 1e6 * rng.normal(size=(3, n)), z + 1e-6 * rng.normal(size=(3, n)),
    ])  # fmt: skip
    return description, x


@pytest.fixture
def both(monkeypatch):
    """Return a function that solves with the block start, and without it."""

    def solve(description, x, **data):
        p = hsref.projection(x, hsref.Polyhedron(**description), **data)
        with monkeypatch.context() as patch:
            patch.setattr(row_reduction, "BLOCK_ROWS", 10**9)
            q = hsref.projection(x, hsref.Polyhedron(**description), **data)
        assert (p.method, q.method) == ("block active set", "dual active set")
        return p, q

    return solve


@pytest.mark.parametrize("integers", [False, True])
@pytest.mark.parametrize(("n", "m", "p"), [(60, 48, 0), (60, 60, 6), (64, 64, 0), (56, 48, 8)])
def test_agrees_with_one_row_at_a_time(both, n, m, p, integers):
    description, x = dense(n, m, p, integers=integers)
    mine, other = both(description, x)
    size = 1.0 + np.abs(x).max(axis=1)
    assert np.all(np.abs(mine.y - other.y).max(axis=1) <= 1e-12 * size)
    for residual in mine.residuals:
        assert residual.max() <= 1e-12
    np.testing.assert_array_equal(mine.active.ub, other.active.ub)
    np.testing.assert_array_equal(mine.rank, other.rank)
    assert np.abs(mine.jacobian() @ x - other.jacobian() @ x).max() <= 1e-8 * size.max()
    for i in range(len(x)):
        assert carries(mine, mine.working_set, description, i)
        assert carries(mine, mine.support, description, i)
    if not integers:
        assert_close(mine.multipliers.ub, other.multipliers.ub, "agree", x)
        # what it is for: a handful of exchanges where the other takes one row at a time
        assert mine.steps.mean() < 0.3 * other.steps.mean()


def test_dependent_rows_are_left_to_the_other_method(both):
    """Rows in general position but for three that depend: met, given up, solved all the same."""
    description, x = dense(60, 48, 0)
    A, b = description["A_ub"].copy(), description["b_ub"].copy()
    A[2], b[2] = A[0] + A[1], b[0] + b[1]
    mine, other = both({"A_ub": A, "b_ub": b}, x)
    size = 1.0 + np.abs(x).max(axis=1)
    assert np.all(np.abs(mine.y - other.y).max(axis=1) <= 1e-12 * size)
    np.testing.assert_array_equal(mine.rank, other.rank)


def test_data_replaced_at_the_call(both):
    description, x = dense(60, 48, 4)
    rng = np.random.default_rng(1)
    b_ub = description["b_ub"] + rng.random((len(x), 48))
    b_ub[rng.random(b_ub.shape) < 0.2] = np.inf
    mine, other = both(description, x, b_ub=b_ub)
    size = 1.0 + np.abs(x).max(axis=1)
    assert np.all(np.abs(mine.y - other.y).max(axis=1) <= 1e-12 * size)
    assert np.all(mine.status == Status.SOLVED)
    warm = hsref.projection(x, mine.set, b_ub=b_ub, start=mine)
    assert np.all(np.abs(warm.y - mine.y).max(axis=1) <= 1e-12 * size)
    # bounds given at the call make it another set, for another method
    bounded = hsref.projection(x, mine.set, lower=-1e9)
    assert bounded.method == "dual active set"


def test_an_empty_set_is_proved_empty(both):
    description, x = dense(60, 48, 4)
    A, b = description["A_ub"].copy(), description["b_ub"].copy()
    A[2], b[2] = -(A[0] + A[1]), -(b[0] + b[1]) - 1e-3
    empty = {**description, "A_ub": A, "b_ub": b}
    for p in both(empty, x, on_infeasible="nan"):
        assert np.all(p.status == Status.PRIMAL_INFEASIBLE)
        for i in range(0, len(x), 6):
            assert_farkas(hsref.Multipliers(*(part[i] for part in p.certificate)), 60, empty)


def test_same_bits_in_any_batch():
    description, x = dense(60, 60, 6)
    C = hsref.Polyhedron(**description)
    y = hsref.project(x, C, n_threads=1)
    assert (
        hsref.project(np.concatenate([x] * 9), C, n_threads=3)[-len(x) :].tobytes() == y.tobytes()
    )
    for i in range(len(x)):
        assert hsref.project(x[i], C).tobytes() == y[i].tobytes()


@pytest.mark.parametrize("k", [1, 3, 4, 5, 8, 13])
def test_cholesky_by_four_rows(k):
    rng = np.random.default_rng(k)
    M = rng.normal(size=(k, k + 3))
    H = M @ M.T
    at = np.tril_indices(k)
    packed, v = H[at].copy(), rng.normal(size=k)
    assert cholesky(packed, 0, k, 1e-12) == k
    again = H[at].copy()
    half = k // 2 * (k // 2 + 1) // 2
    again[:half] = packed[:half]
    assert cholesky(again, k // 2, k, 1e-12) == k
    np.testing.assert_array_equal(again, packed)
    L = np.zeros((k, k))
    L[at] = packed
    assert_close(L @ L.T, H, "projector", H)
    found = v.copy()
    cholesky_solve(packed, k, found)
    assert_close(H @ found, v, "planted", found)
    invert_factor(packed, k, np.zeros(k), np.zeros(k))
    T = np.zeros((k, k))
    T[at] = packed
    assert_close(T @ L, np.eye(k), "planted")
    assert cholesky(np.ones(k * (k + 1) // 2), 0, k, 1e-12) == (1 if k > 1 else k)
