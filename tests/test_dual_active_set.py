"""The solver of the general polyhedron from inside: its factor, its steps, its record."""

from __future__ import annotations

import numpy as np
import pytest

import oracle
from hsref import Polyhedron, Status, projection
from hsref._codes import INFO_TAPE_FLOATS, INFO_TAPE_INTS
from hsref.sets.packed_factor import (
    factor_append,
    factor_delete,
    factor_times,
    factor_transpose_times,
)
from tolerances import assert_close, bound


def build(rows: np.ndarray) -> np.ndarray:
    """Return the packed inverse factor of the rows, appended one by one."""
    k = len(rows)
    T = np.zeros(k * (k + 1) // 2)
    along, r = np.zeros(k), np.zeros(k)
    for i, row in enumerate(rows):
        g = rows[:i] @ row
        factor_times(T, i, g, along)
        factor_transpose_times(T, i, along, r)
        factor_append(T, i, r, np.linalg.norm(row - r[:i] @ rows[:i]))
    return T


def dense(T: np.ndarray, k: int) -> np.ndarray:
    full = np.zeros((k, k))
    full[np.tril_indices(k)] = T[: k * (k + 1) // 2]
    return full


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 8, 11])
def test_factor_makes_the_rows_orthonormal(k):
    rows = np.random.default_rng(k).standard_normal((k, k + 3))
    Q = dense(build(rows), k) @ rows
    assert_close(Q @ Q.T, np.eye(k), "projector")


@pytest.mark.parametrize("k", [1, 2, 5, 8])
@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_deleting_a_row_leaves_the_factor_of_the_others(k, where):
    rng = np.random.default_rng(k)
    rows = rng.standard_normal((k, k + 2))
    gone = {"first": 0, "middle": k // 2, "last": k - 1}[where]
    T, vector = build(rows), rng.standard_normal(k + 2)
    along, r, lost = np.zeros(k), np.zeros(k), np.zeros(k)
    factor_times(T, k, rows @ vector, along)
    factor_transpose_times(T, k, along, r)
    value = factor_delete(T, k, gone, along, lost)
    kept = np.delete(rows, gone, axis=0)
    full = dense(T, k - 1)
    assert np.all(np.diag(full) > 0.0)
    assert_close(full @ kept @ kept.T @ full.T, np.eye(k - 1), "projector")
    # what belonged to the vector still does
    assert_close(along[: k - 1], full @ kept @ vector, "projector")
    assert_close(np.delete(r - lost * value, gone), full.T @ full @ kept @ vector, "projector")


def planted_set(case: oracle.Planted, scale: float = 1.0) -> Polyhedron:
    parts = {k: v * (1.0 if k.startswith("A") else scale) for k, v in case.description.items()}
    return Polyhedron(**parts, n=case.n)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("far", [1.0, 1e4, 1e8])
def test_far_points_meet_the_constraints_to_the_precision_of_the_set(seed, far):
    """The error of a far x must not reach the constraints: y is corrected, never made anew."""
    case = oracle.crowded(oracle.random_plant(seed, n=6, m=8, p=2, bounds=seed % 2 == 0), seed)
    C = planted_set(case)
    x = case.y + far * (case.x - case.y)
    record = projection(x, C)
    assert_close(record.y, case.y, "planted", x)
    assert C._violation(record.y[None], {}, 1.0)[0] <= bound("feasible")


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_no_number_is_compared_with_one(seed, scale):
    """Data of any magnitude: same rows, same steps, same working set, y in proportion."""
    case = oracle.duplicated(oracle.random_plant(seed, n=5, m=7, p=1), seed)
    plain = projection(case.x, planted_set(case))
    scaled = projection(case.x * scale, planted_set(case, scale))
    assert_close(scaled.y / scale, plain.y, "planted", case.x)
    for one, other in zip(scaled.active, plain.active, strict=True):
        np.testing.assert_array_equal(one, other)
    assert scaled.rank == plain.rank


@pytest.mark.parametrize("seed", range(10))
def test_bounds_and_rows_say_the_same(seed):
    """Bounds handled as signed coordinates give what the same bounds as rows give."""
    rng = np.random.default_rng(seed)
    n, m, p = 7, 5, 1 + seed % 3
    A, B = rng.standard_normal((m, n)), rng.standard_normal((p, n))
    z = rng.uniform(0.2, 0.8, n)
    a, b = A @ z + rng.uniform(0.0, 0.2, m), B @ z
    with_bounds = Polyhedron(A, a, B, b, lower=0.0, upper=1.0)
    eye = np.eye(n)
    as_rows = Polyhedron(
        np.vstack([A, eye, -eye]), np.concatenate([a, np.ones(n), np.zeros(n)]), B, b
    )
    x = 2.0 * rng.standard_normal((20, n))
    first, second = projection(x, with_bounds), projection(x, as_rows)
    assert_close(first.y, second.y, "agree", x)
    np.testing.assert_array_equal(first.rank, second.rank)
    assert_close(first.jacobian().toarray(), second.jacobian().toarray(), "agree")
    ub = second.multipliers.ub
    assert_close(first.multipliers.upper - first.multipliers.lower,
                 ub[:, m : m + n] - ub[:, m + n :], "agree", ub)  # fmt: skip
    # a bound that works is met bitwise, not to rounding
    works = first.working_set
    assert np.all(first.y[works.lower] == 0.0)
    assert np.all(first.y[works.upper] == 1.0)


def nearly_dependent(eps: float) -> Polyhedron:
    """Rows of which a third are within eps of another, half of them tight at one point."""
    rng = np.random.default_rng(3)
    A = rng.standard_normal((12, 6))
    for i in range(4):
        A[i] = A[i + 4] + eps * rng.standard_normal(6)
    z = rng.standard_normal(6)
    return Polyhedron(A, A @ z + np.where(np.arange(12) % 2 == 0, 0.0, rng.uniform(0, 1, 12)))


@pytest.mark.parametrize("eps", [1e-3, 1e-5, 1e-7, 1e-9, 1e-13])
def test_nearly_dependent_rows_are_solved_to_rounding(eps):
    C = nearly_dependent(eps)
    record = projection(5.0 * np.random.default_rng(0).standard_normal((50, 6)), C)
    for residual in record.residuals:
        assert residual.max() <= bound("kkt")
    assert record.steps.max() <= 40


def test_rows_within_rounding_of_the_equalities_do_not_make_a_set_empty():
    """A contradiction of one rounding, blown up by a row that the equalities nearly imply."""
    rng = np.random.default_rng(92)
    B = rng.standard_normal((3, 8))
    A = rng.standard_normal((14, 8))
    A[0] = rng.standard_normal(3) @ B + 1e-7 * rng.standard_normal(8)
    z = rng.standard_normal(8)
    C = Polyhedron(A, A @ z, B, B @ z)
    record = projection(z + rng.standard_normal((20, 8)), C)
    assert np.all(record.status == Status.SOLVED)
    assert record.residuals.primal.max() <= 1e-12


@pytest.mark.parametrize("seed", range(6))
def test_any_start_gives_the_same_answer(seed):
    """Working sets of other points, of other data, dependent or void: only a way to begin."""
    rng = np.random.default_rng(seed)
    case = oracle.redundant_equality(oracle.duplicated(oracle.random_plant(seed, 6, 8, 1)), seed)
    C = planted_set(case)
    x = case.y + 3.0 * rng.standard_normal((15, case.n))
    cold = projection(x, C)
    for start in (cold, projection(x[::-1], C), projection(-5.0 * x, C)):
        warm = projection(x, C, start=start)
        assert_close(warm.y, cold.y, "agree", x)
        np.testing.assert_array_equal(warm.rank, cold.rank)
    assert np.all(projection(x, C, start=cold).steps <= cold.steps)
    b_ub = np.where(rng.random(len(C.b_ub)) < 0.5, np.inf, C.b_ub)
    loose = projection(x, C, b_ub=b_ub)
    assert_close(projection(x, C, b_ub=b_ub, start=cold).y, loose.y, "agree", x)


def test_a_record_is_as_small_as_its_active_set():
    """At most n + 3 active + active²/2 numbers a sample, and the equalities in none of them."""
    rng = np.random.default_rng(0)
    n = 30
    A, B = rng.standard_normal((40, n)), rng.standard_normal((6, n))
    C = Polyhedron(A, rng.uniform(0.0, 1.0, 40), B, np.zeros(6))
    record = projection(3.0 * rng.standard_normal((64, n)), C)
    raw = record._raw
    active = record.active.count() + 6
    numbers = raw.info[:, INFO_TAPE_FLOATS] + raw.info[:, INFO_TAPE_INTS] / 2
    assert np.all(numbers <= 3 * active + active**2 / 2)
    assert raw.tape_f.size == raw.info[:, INFO_TAPE_FLOATS].sum()


@pytest.mark.parametrize("seed", range(20))
def test_prefixes_of_the_factor_serve_the_three_selections(seed):
    case = oracle.crowded(oracle.duplicated(oracle.random_plant(seed, 5, 6, 1), seed), seed)
    record = projection(case.x, planted_set(case))
    ranks = []
    for selection, flags in (
        ("support", record.support), ("working", record.working_set), ("active", record.active)
    ):  # fmt: skip
        rows = np.vstack([
            case.A_ub[flags.ub], case.A_eq, np.eye(case.n)[flags.lower | flags.upper],
        ])  # fmt: skip
        V = oracle.projector(rows, case.n)
        J = record.jacobian(selection)
        assert_close(J.toarray(), V, "projector")
        assert J.rank == round(np.trace(V))
        ranks.append(J.rank)
    assert ranks == sorted(ranks, reverse=True)


def test_steps_stay_near_the_number_of_working_rows():
    """A gate on work, not on time: a change that makes the method wander shows here."""
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((30, 20)), rng.standard_normal((5, 20))
    C = Polyhedron(A, rng.uniform(0.0, 1.0, 30), B, np.zeros(5))
    record = projection(2.0 * rng.standard_normal((500, 20)), C)
    working = record.working_set.count()
    assert np.mean(record.steps) <= 1.5 * np.mean(working)
    assert np.max(record.steps) <= 60
