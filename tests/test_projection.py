"""The projection: exact, certified, the same however the set is written and the points laid out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hsref
import oracle
from certificates import assert_answer, assert_certified, assert_farkas, keys, polyhedron
from hsref import Status
from oracle import DEGENERACIES, random_plant
from strategies import planted, small_systems
from tolerances import assert_close, bound, size

# -- planted projections and brute force -----------------------------------------------------------


@given(planted())
def test_planted(case):
    assert_answer(hsref.projection(case.x, polyhedron(case)), case)


@given(planted(max_n=6, max_rows=8, bounds=False, changes=1))
def test_planted_rows_only(case):
    assert_answer(hsref.projection(case.x, polyhedron(case)), case)


@pytest.mark.parametrize("change", sorted(DEGENERACIES))
@pytest.mark.parametrize("seed", range(6))
def test_degenerate(change, seed):
    case = DEGENERACIES[change](random_plant(seed, bounds=seed % 2 == 0), seed)
    assert_answer(hsref.projection(case.x, polyhedron(case)), case)


@pytest.mark.parametrize("seed", range(3))
def test_every_degeneracy_at_once(seed):
    case = random_plant(seed, n=5, m=6, p=2)
    for k, change in enumerate(DEGENERACIES.values()):
        if change is not oracle.singleton:
            case = change(case, seed + k)
    assert_answer(hsref.projection(case.x, polyhedron(case)), case)


@given(small_systems())
def test_against_brute_force(system):
    x, description = system
    p = hsref.projection(x, hsref.Polyhedron(**description), on_infeasible="nan")
    wanted = oracle.brute_force(x, **{k: v for k, v in description.items() if k != "n"})
    if wanted is None:
        assert p.status == Status.PRIMAL_INFEASIBLE
        assert np.isnan(p.y).all()
        assert_farkas(p.certificate, x.size, description)
    else:
        assert p.status == Status.SOLVED
        assert_close(p.y, wanted, "agree", x)
        assert_certified(p, x, description)


@pytest.mark.parametrize(("n", "m", "p"), [(15, 25, 4), (40, 60, 10), (30, 200, 0)])
@pytest.mark.parametrize("bounds", [False, True])
def test_middle_sized(n, m, p, bounds):
    # Random dense rows around a known interior point, half of them tight at the answer.
    rng = np.random.default_rng(n + m + bounds)
    A_ub, inside = rng.normal(size=(m, n)), rng.uniform(-0.5, 0.5, n)
    A_eq = rng.normal(size=(p, n))
    description = {"A_ub": A_ub, "b_ub": A_ub @ inside + rng.uniform(0, 1, m),
                   "A_eq": A_eq, "b_eq": A_eq @ inside}  # fmt: skip
    if bounds:
        description |= {"lower": -np.ones(n), "upper": np.ones(n)}
    x = 3.0 * rng.normal(size=(8, n))
    C = hsref.Polyhedron(**description)
    p_all = hsref.projection(x, C)
    assert (p_all.status == Status.SOLVED).all()
    for i in range(len(x)):
        assert_certified(hsref.projection(x[i], C), x[i], description)


@pytest.mark.parametrize("magnitude", [1e-6, 1e6])
def test_the_answer_scales_with_the_data(magnitude):
    for seed in range(8):
        case = random_plant(seed)
        scaled = {k: v * (1.0 if k.startswith("A") else magnitude)
                  for k, v in case.description.items()}  # fmt: skip
        p = hsref.projection(magnitude * case.x, hsref.Polyhedron(**scaled))
        assert_close(p.y / magnitude, case.y, "planted", case.x)
        np.testing.assert_array_equal(p.active.lower, case.active_lower)
        assert p.rank == case.rank


@pytest.mark.parametrize("seed", range(8))
def test_rows_of_very_different_length(seed):
    case = random_plant(seed, m=6)
    factor = 2.0 ** np.random.default_rng(seed).integers(-20, 20, len(case.A_ub))
    description = case.description | {
        "A_ub": factor[:, None] * case.A_ub,
        "b_ub": factor * case.b_ub,
    }
    p = hsref.projection(case.x, hsref.Polyhedron(**description))
    assert_close(p.y, case.y, "planted", case.x)
    known = ~case.zero_rows
    np.testing.assert_array_equal(p.active.ub[known], case.active_ub[known])


@pytest.mark.parametrize("angle", [1e-2, 1e-5, 1e-6, 1e-8, 1e-9])
@pytest.mark.parametrize("part", [0.0, 0.1, 1 / 3, 0.5, 1.0])
def test_nearly_parallel_rows(angle, part):
    # x lies in the cone of both rows, so the apex is its projection, however narrow the cone
    C = hsref.Polyhedron(A_ub=[[1.0, 0.0], [1.0, angle]], b_ub=[0.0, 0.0])
    p = hsref.projection([1.0, part * angle], C)
    assert p.status == Status.SOLVED
    assert_close(p.y, [0.0, 0.0], "agree")
    assert_close(p.multipliers.ub.sum(), 1.0, "agree")
    assert p.rank == 0


def test_coordinates_that_equalities_fix_may_sit_on_their_bounds():
    # Eliminating the equalities leaves round-off where coefficients are 0: no contradiction.
    C = hsref.Polyhedron(
        A_eq=[[-2.0, 2.0, -2.0, 2.0], [0.0, 0.0, 0.0, 2.0], [0.0, 2.0, 0.0, 2.0]],
        b_eq=[-14.0, 0.0, -6.0],
        lower=[-np.inf, -4.0, 3.0, 0.0],
        upper=[3.0, -3.0, 3.0, 0.0],
    )
    p = hsref.projection([-3.0, 4.0, -4.0, 6.0], C)
    assert_close(p.y, [1.0, -3.0, 3.0, 0.0], "planted")
    assert p.rank == 0


def test_far_points_stay_exact():
    # Feasibility of the answer is measured by the data of the set, not by a distant x.
    C = hsref.Polyhedron(A_eq=np.ones((1, 4)), b_eq=[1.0], lower=np.zeros(4))
    x = np.array([1e6, -3e5, 1e6, 2.0])
    y = hsref.project(x, C)
    assert abs(y.sum() - 1.0) <= bound("feasible")
    assert_close(y, [0.5, 0.0, 0.5, 0.0], "agree")


# -- what a projection is --------------------------------------------------------------------------


@given(planted(), st.integers(0, 2**16))
def test_nonexpansive_idempotent_and_variational(case, seed):
    C = polyhedron(case)
    rng = np.random.default_rng(seed)
    other = case.x + rng.integers(-2, 3, case.n)
    y, w = hsref.project(case.x, C), hsref.project(other, C)
    scale = bound("planted", case.x, other)
    assert np.linalg.norm(y - w) <= np.linalg.norm(case.x - other) + scale
    assert_close(hsref.project(y, C), y, "planted", case.x)
    # ⟨x − Π(x), w − Π(x)⟩ ≤ 0 for every w of the set
    assert (case.x - y) @ (w - y) <= scale * size(case.x, other)


SAME_SET = [
    "duplicated",
    "scaled",
    "implied",
    "zero row",
    "void row",
    "redundant equality",
    "reordered",
]


@given(planted(changes=0), st.integers(0, 7), st.sampled_from(SAME_SET))
def test_the_description_does_not_matter(case, k, change):
    again = DEGENERACIES[change](case, k)
    p, q = hsref.projection(case.x, polyhedron(case)), hsref.projection(case.x, polyhedron(again))
    assert_close(q.y, p.y, "agree", case.x)
    assert_close(q.jacobian().toarray(), p.jacobian().toarray(), "projector")


def test_a_point_of_the_set_comes_back_bitwise():
    C = hsref.Polyhedron(A_ub=[[1.0, 2.0], [-1.0, 0.3]], b_ub=[1.0, 1.0], lower=[-5.0, -5.0])
    x = np.array([0.1, 0.2])
    p = hsref.projection(x, C)
    assert p.y.tobytes() == x.tobytes()
    assert not keys(p.active)
    assert p.rank == 2


def test_no_constraints_is_the_identity():
    C = hsref.Polyhedron(n=3)
    x = np.array([[1.0, -2.0, 1e300], [0.1, 0.2, 0.3]])
    p = hsref.projection(x, C)
    np.testing.assert_array_equal(p.y, x)
    np.testing.assert_array_equal(p.rank, [3, 3])
    np.testing.assert_array_equal(p.jacobian() @ x, x)
    assert C.dim == 3
    assert C.contains(x).all()


def test_equalities_alone_give_the_affine_projection():
    rng = np.random.default_rng(0)
    A_eq, x = rng.normal(size=(2, 5)), rng.normal(size=(3, 5))
    b_eq = np.array([1.0, -2.0])
    y = hsref.project(x, hsref.Polyhedron(A_eq=A_eq, b_eq=b_eq))
    wanted = x - (np.linalg.pinv(A_eq) @ (A_eq @ x.T - b_eq[:, None])).T
    assert_close(y, wanted, "agree", x)


# -- shapes, types, memory -------------------------------------------------------------------------


TRIANGLE = hsref.Polyhedron(A_eq=[[1.0, 1.0, 1.0]], b_eq=[1.0], lower=0.0, n=3)
SETS = [
    pytest.param(TRIANGLE, id="Polyhedron"),
    pytest.param(hsref.Polyhedron(A_ub=[[1.0, 2.0, 0.0], [0.0, -1.0, 1.0]], b_ub=[1.0, 0.0]),
                 id="rows only"),
    pytest.param(hsref.Simplex(3), id="Simplex"),
    pytest.param(hsref.Box([0.0, -1.0, 0.0], [1.0, 1.0, 0.0]), id="Box"),
]  # fmt: skip


@pytest.mark.parametrize("C", SETS)
@pytest.mark.parametrize("batch", [(), (1,), (5,), (2, 3), (2, 1, 4), (0,), (3, 0)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_batch_axes_and_dtype(C, batch, dtype, backend):
    x = backend(np.random.default_rng(1).normal(size=(*batch, 3)), dtype)
    y = hsref.project(x, C)
    p = hsref.projection(x, C)
    for answer in (y, p.y):
        assert isinstance(answer, np.ndarray)
        assert answer.shape == x.shape
        assert answer.dtype == dtype
    np.testing.assert_array_equal(y, p.y)
    J = p.jacobian()
    for per_sample in (p.status, p.steps, p.rank, p.margin, J.rank, *p.residuals):
        assert np.shape(per_sample) == batch
    assert p.active.lower.shape == (*batch, 3)
    assert p.active.ub.shape[:-1] == batch
    assert (J @ x).shape == x.shape
    assert (J @ x).dtype == dtype
    assert (J.T @ x).dtype == dtype
    assert J.toarray().shape == (*batch, 3, 3)
    assert J.toarray().dtype == dtype
    assert p.multipliers.lower.dtype == dtype
    assert (p.status == Status.SOLVED).all()
    for sample in np.ndindex(batch):
        wanted = hsref.project(np.array(x[sample]), C)
        np.testing.assert_array_equal(y[sample], wanted)


@pytest.mark.parametrize("C", SETS)
def test_float32_agrees_with_float64(C):
    x = np.random.default_rng(2).normal(size=(200, 3)).astype(np.float32)
    single, double = hsref.projection(x, C), hsref.projection(x.astype(np.float64), C)
    assert_close(single.y, double.y.astype(np.float32), "agree", x, dtype=np.float32)
    clear = double.margin > 1e-5
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(single.active.lower[clear], double.active.lower[clear])
    np.testing.assert_array_equal(single.rank[clear], double.rank[clear])


@pytest.mark.parametrize("C", SETS)
def test_integers_are_promoted(C):
    x = np.array([[3, 0, -1], [0, 0, 0]])
    y = hsref.project(x, C)
    assert y.dtype == np.float64
    np.testing.assert_array_equal(y, hsref.project(x.astype(float), C))


def test_other_byte_order_and_python_numbers():
    x = [0.6, 0.8, -1.0]
    wanted = hsref.project(np.array(x), TRIANGLE)
    np.testing.assert_array_equal(hsref.project(np.array(x, dtype=">f8"), TRIANGLE), wanted)
    # a list comes back as a list, a tuple's numbers too
    assert hsref.project(x, TRIANGLE) == wanted.tolist()
    np.testing.assert_array_equal(hsref.project(tuple(x), TRIANGLE), wanted)


@pytest.mark.parametrize("C", SETS)
def test_input_is_neither_written_nor_kept(C):
    x = np.random.default_rng(3).normal(size=(4, 3))
    kept = x.copy()
    p, y = hsref.projection(x, C), hsref.project(x, C)
    np.testing.assert_array_equal(x, kept)
    assert not np.shares_memory(y, x)
    y[...] = 0.0  # the answer of project() belongs to the caller
    x[...] = np.nan
    # decoded only now, from what the record holds
    np.testing.assert_array_equal(p.x, kept)
    assert max(np.max(r) for r in p.residuals) <= bound("kkt")
    assert x.flags.writeable
