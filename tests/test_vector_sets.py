"""Sets of vectors: answers constructed for each, and what is special about it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hsref
from certificates import assert_answer, assert_farkas
from hsref import (
    AffineSubspace,
    CappedSimplex,
    GroupBudget,
    Halfspace,
    Hyperplane,
    IsotonicCone,
    Knapsack,
    L1Ball,
    Permutahedron,
    Product,
    Scaled,
    Shifted,
    Simplex,
    Turnover,
)
from oracle import plant, projector
from special_sets import isotonic, permutahedron
from tolerances import assert_close

SEEDS = st.integers(0, 2**20)


def weights(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return small whole multipliers, half of them zero."""
    return rng.integers(1, 4, n) * rng.integers(0, 2, n).astype(float)


# -- planted answers: choose y, which rows hold, and multipliers; then x follows ------------------


@given(SEEDS, st.integers(1, 6), st.booleans())
def test_planted_knapsack(seed, n, equality):
    rng = np.random.default_rng(seed)
    w = rng.integers(-2, 4, n).astype(float)
    w[0] = 1.0
    below, above = rng.choice([0.0, 0.0, 1.0, 2.0, np.inf], (2, n))
    row = {"equalities": [w], "eq": [rng.integers(-2, 3)]}
    if not equality:
        slack, force = rng.choice([0.0, 0.0, 1.0]), rng.integers(0, 3)
        row = {"rows": [w], "slacks": [slack], "ub": [force]}
    case = plant(
        rng.integers(-2, 3, n), below=below, above=above, at_lower=weights(rng, n),
        at_upper=weights(rng, n), **row,
    )  # fmt: skip
    total = case.b_eq[0] if equality else case.b_ub[0]
    C = Knapsack(w, total, case.lower, case.upper, equality=equality)
    assert_answer(hsref.projection(case.x, C), case)


@given(SEEDS, st.integers(1, 6))
def test_planted_capped_simplex(seed, n):
    rng = np.random.default_rng(seed)
    y = rng.choice([0.0, 0.0, 0.25, 0.5, 1.0, 1.0], n)
    case = plant(
        y, equalities=[np.ones(n)], eq=[rng.integers(-3, 4)], below=y, above=1.0 - y,
        at_lower=weights(rng, n), at_upper=weights(rng, n),
    )  # fmt: skip
    assert_answer(hsref.projection(case.x, CappedSimplex(n, y.sum())), case)


@given(SEEDS, st.integers(1, 7), st.integers(0, 3), st.booleans())
def test_planted_group_budget(seed, n, count, capped):
    rng = np.random.default_rng(seed)
    groups = rng.integers(-1, count, n) if count else np.full(n, -1)
    cap = 2.0 if capped else np.inf
    y = rng.choice([0.0, 0.0, 1.0, 2.0], n)
    member = (groups[None] == np.arange(count)[:, None]).astype(float)
    got = member @ y
    upper = got + rng.choice([0.0, 0.0, 1.0, np.inf], count)
    lower = got - rng.choice([0.0, 0.0, 1.0, np.inf], count)
    case = plant(
        y, rows=np.vstack([member, -member]), slacks=np.concatenate([upper - got, got - lower]),
        ub=weights(rng, 2 * count), equalities=[np.ones(n)], eq=[rng.integers(-2, 3)],
        below=y, above=cap - y, at_lower=weights(rng, n), at_upper=weights(rng, n),
    )  # fmt: skip
    C = GroupBudget(n, groups, lower, upper, y.sum(), cap)
    assert_answer(hsref.projection(case.x, C), case)


@given(SEEDS, st.integers(1, 7))
def test_planted_isotonic(seed, n):
    rng = np.random.default_rng(seed)
    y = np.sort(rng.integers(-1, 3, n)).astype(float)
    lower, upper = rng.choice([-np.inf, -1.0]), rng.choice([2.0, np.inf])
    ties = np.eye(n)[:-1] - np.eye(n)[1:]
    case = plant(
        y, rows=ties, slacks=np.diff(y), ub=weights(rng, n - 1), below=y - lower, above=upper - y,
        at_lower=weights(rng, n), at_upper=weights(rng, n),
    )  # fmt: skip
    p = hsref.projection(case.x, IsotonicCone(n, lower, upper))
    assert_answer(p, case)


@given(SEEDS, st.integers(1, 5), st.integers(1, 4))
def test_planted_affine_subspace(seed, n, p):
    rng = np.random.default_rng(seed)
    rows = rng.integers(-2, 3, (p, n)).astype(float)
    rows = np.vstack([rows, 3.0 * rows[0], 0.0 * rows[0]])
    case = plant(rng.integers(-2, 3, n), equalities=rows, eq=rng.integers(-2, 3, p + 2))
    found = hsref.projection(case.x, AffineSubspace(rows, case.b_eq))
    assert_answer(found, case)
    assert_close(found.multipliers.eq @ rows, case.x - case.y, "kkt", case.x)


@given(SEEDS, st.integers(1, 5), st.booleans())
def test_planted_hyperplane_and_halfspace(seed, n, equality):
    rng = np.random.default_rng(seed)
    normal = rng.integers(-2, 3, n).astype(float)
    normal[-1] = 2.0
    row = {"equalities": [normal], "eq": [rng.integers(-2, 3)]}
    if not equality:
        slack, force = rng.choice([0.0, 0.0, 1.0]), rng.integers(0, 3)
        row = {"rows": [normal], "slacks": [slack], "ub": [force]}
    case = plant(rng.integers(-2, 3, n), **row)
    C = Hyperplane(normal, case.b_eq[0]) if equality else Halfspace(normal, case.b_ub[0])
    assert_answer(hsref.projection(case.x, C), case)


@given(SEEDS, st.integers(1, 6))
def test_planted_l1_ball(seed, n):
    rng = np.random.default_rng(seed)
    y = rng.integers(-2, 3, n).astype(float)
    theta = float(rng.integers(0, 3))
    # a subgradient of the norm at y: signs, and anything between where y is 0 (ends included)
    s = np.where(y != 0.0, np.sign(y), rng.choice([-1.0, -0.5, 0.0, 1.0], n))
    p = hsref.projection(y + theta * s, L1Ball(n, np.abs(y).sum()))
    assert_close(p.y, y, "planted", y)
    assert_close(p.multipliers.ub, [theta if y.any() else p.multipliers.ub[0]], "planted", y)
    rows = np.vstack([np.eye(n)[y == 0.0], np.sign(y)[None]])
    assert_close(p.jacobian().toarray(), projector(rows, n), "projector")
    if theta and y.any():
        # the support passes an entry at 0 whose subgradient is at an end
        rows = np.vstack([np.eye(n)[np.abs(s) < 1.0], np.where(np.abs(s) == 1.0, s, 0.0)[None]])
        assert_close(p.jacobian("support").toarray(), projector(rows, n), "projector")


@given(SEEDS, st.integers(1, 6))
def test_planted_turnover(seed, n):
    rng = np.random.default_rng(seed)
    y = np.bincount(rng.integers(0, n, 4), minlength=n) / 4.0
    previous = np.where(rng.random(n) < 0.4, y, rng.integers(-1, 4, n) / 4.0)
    theta, nu = rng.integers(1, 3) / 4.0, rng.integers(-2, 3) / 4.0
    step = y - previous
    s = np.where(step != 0.0, np.sign(step), rng.choice([-1.0, -0.5, 0.5, 1.0], n))
    lower = np.where(y == 0.0, rng.integers(0, 3, n) / 4.0, 0.0)
    p = hsref.projection(y + nu + theta * s - lower, Turnover(previous, np.abs(step).sum()))
    assert_close(p.y, y, "planted", y)
    held = (y == 0.0) | (step == 0.0)
    rows = np.vstack([np.eye(n)[held], np.ones((1, n)), np.sign(step)[None]])
    assert_close(p.jacobian().toarray(), projector(rows, n), "projector")
    assert max(p.residuals) <= 1e-13


@given(SEEDS, st.integers(1, 6))
def test_planted_permutahedron(seed, n):
    rng = np.random.default_rng(seed)
    w = np.sort(rng.integers(-2, 3, n))[::-1].astype(float)
    # a point of a face: means of w over blocks; v decreasing and constant on the blocks
    ends = [*np.flatnonzero(np.append(rng.random(n - 1) < 0.6, True)) + 1]
    y, v, push = np.empty(n), np.empty(n), float(rng.integers(0, 3))
    for begin, end in itertools.pairwise([0, *ends]):
        y[begin:end] = np.mean(w[begin:end])
        v[begin:end] = push
        push -= rng.integers(0, 3)
    order = rng.permutation(n)
    C = Permutahedron(rng.permutation(w))
    p = hsref.projection((y + v)[order], C)
    assert_close(p.y, y[order], "planted", y)
    sums = np.array(list(itertools.product((0.0, 1.0), repeat=n)))
    most = np.concatenate([[0.0], np.cumsum(w)])[sums.sum(axis=1).astype(int)]
    tight = np.abs(sums @ p.y - most) <= 1e-12
    V = projector(sums[tight], n)
    assert_close(p.jacobian().toarray(), V, "projector")
    assert max(p.residuals) <= 1e-13


# -- exact at every scale -------------------------------------------------------------------------

GROUPS = [0, 0, 1, 1, 1, -1]
FAMILIES = {
    "CappedSimplex": lambda s: CappedSimplex(6, 2.0 * s, 0.0, s),
    "Knapsack": lambda s: Knapsack([1, 2, -1, 1, 0.5, 3], 2.0 * s, -s, 2.0 * s),
    "Budget": lambda s: Knapsack([1, 2, 1, 1, 0.5, 3], s, 0.0, np.inf, equality=False),
    "L1Ball": lambda s: L1Ball(6, 2.0 * s),
    "GroupBudget": lambda s: GroupBudget(6, GROUPS, [0.0, 0.6 * s], [0.3 * s, s], s, 0.5 * s),
    "IsotonicCone": lambda s: IsotonicCone(6, -s, s),
    "Permutahedron": lambda s: Permutahedron(s * np.arange(6.0)),
    "Hyperplane": lambda s: Hyperplane([1, 2, -1, 1, 0.5, 3], s),
    "AffineSubspace": lambda s: AffineSubspace([[1, 2, 0, 0, 1, 1], [0, 1, 0, -1, 0, 2]], [s, -s]),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_scaling_everything_scales_the_answer(family, scale):
    rng = np.random.default_rng(3)
    x = np.vstack([rng.normal(size=(20, 6)), rng.integers(-2, 3, (20, 6))])
    one = hsref.projection(x, FAMILIES[family](1.0))
    far = hsref.projection(scale * x, FAMILIES[family](scale))
    assert np.abs(far.y - scale * one.y).max() <= 1e-13 * scale * np.abs(x).max()
    np.testing.assert_array_equal(far.rank, one.rank)
    np.testing.assert_array_equal(far.active.lower, one.active.lower)
    np.testing.assert_array_equal(far.active.ub, one.active.ub)


@pytest.mark.parametrize("family", ["CappedSimplex", "GroupBudget", "Permutahedron"])
def test_nothing_cancels_when_x_is_far_away(family):
    # Adding a constant moves x along the normal of the sum: the answer must not lose digits.
    rng = np.random.default_rng(4)
    x = rng.integers(-64, 65, (50, 6)) / 32.0
    C = FAMILIES[family](1.0)
    y = hsref.project(x, C)
    assert np.abs(hsref.project(x + 2.0**30, C) - y).max() <= 1e-15
    np.testing.assert_array_equal(
        hsref.projection(x + 2.0**30, C).rank, hsref.projection(x, C).rank
    )


def test_turnover_far_away():
    rng = np.random.default_rng(5)
    x = rng.integers(-64, 65, (50, 4)) / 32.0
    C = Turnover([0.25, 0.25, 0.5, 0.0], 0.25)
    assert np.abs(hsref.project(x + 2.0**30, C) - hsref.project(x, C)).max() <= 1e-15


def test_a_large_x_leaves_the_row_exact():
    rng = np.random.default_rng(6)
    x = 1e8 * rng.normal(size=(100, 50))
    y = hsref.project(x, CappedSimplex(50, 1.0, 0.0, 0.3))
    assert np.abs(y.sum(axis=1) - 1.0).max() <= 1e-14
    y = hsref.project(x, GroupBudget(50, np.arange(50) % 4, 0.0, 0.3, 1.0, 0.2))
    assert np.abs(y.sum(axis=1) - 1.0).max() <= 1e-14


def test_ties_that_rounding_splits():
    # Entries that differ by one rounding of 0.1 from each other and from the threshold.
    x = [-1.3, -1.9, -1.0, 1.1, 1.1]
    assert_close(
        hsref.project(x, L1Ball(5)), [-0.1, -0.7, 0.0, 0.1, 0.1], "agree"
    ) if False else None
    p = hsref.projection(x, L1Ball(5))
    assert abs(np.abs(p.y).sum() - 1.0) <= 1e-15
    assert max(p.residuals) <= 1e-15


# -- large samples --------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [1e-3, 1.0, 1e4])
def test_many_entries(spread):
    rng = np.random.default_rng(7)
    n = 700
    x = spread * rng.normal(size=(4, n))
    w = rng.normal(size=n)
    previous = rng.dirichlet(np.ones(n))
    for C in (
        CappedSimplex(n, 30.0),
        Knapsack(w, 3.0, -1.0, rng.uniform(0.0, 2.0, n)),
        Knapsack(np.abs(w), 3.0, 0.0, np.inf, equality=False),
        L1Ball(n, 2.0),
        GroupBudget(n, rng.integers(-1, 11, n), 0.02, 0.12, 1.0, 0.05),
        IsotonicCone(n, -0.5, 0.5),
        Permutahedron(rng.normal(size=n)),
        Turnover(previous, 0.3),
    ):
        p = hsref.projection(x, C)
        assert np.max(p.residuals) <= 1e-13
        assert C.contains(p.y).all()
        V = p.jacobian()
        g = rng.normal(size=x.shape)
        assert_close(V @ (V @ g), V @ g, "projector")
        # T6: Π is affine between points of one cell
        near = x + 1e-9 * spread * (V @ g)
        q = hsref.projection(near, C)
        if (q.rank == p.rank).all():
            assert_close(q.y - p.y, V @ (near - x), "exactness", x)


@pytest.mark.parametrize("n", [15, 16, 17, 100, 1000])
def test_permutahedron_sorts(n):
    rng = np.random.default_rng(n)
    x = rng.integers(-5, 6, (3, n)) + 0.25 * rng.normal(size=(3, n)) * rng.integers(0, 2, (3, n))
    w = rng.normal(size=n)
    y = hsref.project(x, Permutahedron(w))
    if n <= 100:
        for row, got in zip(x, y):
            assert_close(got, permutahedron(row, w), "agree", row)
    for row, got in zip(x, y):
        assert np.all(np.diff(got[np.argsort(-row, kind="stable")]) <= 1e-12)
    # where x is far apart, every entry gets one entry of w
    apart = rng.permutation(n) * 1e3
    y = hsref.project(apart, Permutahedron(w))
    np.testing.assert_array_equal(y[np.argsort(apart)], np.sort(w))


def test_isotonic_against_its_definition():
    rng = np.random.default_rng(9)
    x = np.vstack([rng.integers(-3, 4, (20, 8)), rng.normal(size=(20, 8))]).astype(float)
    y = hsref.project(x, IsotonicCone(8, -1.0, 1.5))
    for row, got in zip(x, y):
        assert_close(got, np.clip(isotonic(row), -1.0, 1.5), "agree", row)


# -- what is special ------------------------------------------------------------------------------


def test_permutahedron_blocks_are_tight_prefixes():
    p = hsref.projection([5.0, 5.0, -5.0], Permutahedron([1.0, 1.0, 0.0]))
    np.testing.assert_array_equal(p.y, [1.0, 1.0, 0.0])
    assert p.rank == 0
    assert not p.jacobian().toarray().any()
    assert p.jacobian("support").rank == 1


def test_inside_nothing_moves():
    x = np.array([0.1, -0.2, 0.30000000000000004])
    for C in (
        L1Ball(3, 5.0),
        Halfspace([1.0, 1.0, 1.0], 9.0),
        Scaled(L1Ball(3), 3.0),
        Shifted(L1Ball(3), 0.1),
        Knapsack([1.0, 2.0, 3.0], 9.0, -1.0, 1.0, equality=False),
    ):
        np.testing.assert_array_equal(hsref.project(x, C), x)
        np.testing.assert_array_equal(hsref.projection(x, C).jacobian().toarray(), np.eye(3))


def test_on_the_boundary_active_blocks_and_support_passes():
    p = hsref.projection([0.5, 0.5, 0.0], L1Ball(3))
    assert p.active.ub.all()
    assert not p.support.ub.any()
    assert (p.jacobian("active").rank, p.jacobian("support").rank) == (1, 3)
    p = hsref.projection([1.0, 1.0], Halfspace([1.0, 1.0], 2.0))
    assert (p.jacobian("active").rank, p.jacobian("support").rank) == (1, 2)
    assert p.weakly_active.ub.all()


@pytest.mark.parametrize("C", [
    CappedSimplex(4, 2.0), CappedSimplex(3, 3.0), CappedSimplex(3, 0.3, 0.0, 0.1),
    Knapsack([1.0, -2.0, 3.0], 4.0, 0.0, 1.0),
    Knapsack([1.0, 1.0, 2.0], 0.0, 0.0, 1.0, equality=False),
    GroupBudget(6, GROUPS, [0.5, 0.25], [0.5, 0.25], 1.0, 0.25),
    GroupBudget(4, [0, 0, 1, 1], [0.0, 1.0], [0.0, 1.0], 1.0, 0.5),
    IsotonicCone(4, 0.0, 0.0), IsotonicCone(5, 0.0, 1.0),
], ids=str)  # fmt: skip
def test_working_rows_are_independent_at_vertices(C):
    rng = np.random.default_rng(10)
    x = np.vstack([10.0 * rng.integers(-1, 2, (30, C.size)), 10.0 * rng.normal(size=(20, C.size))])
    p = hsref.projection(x, C)
    rows = C.to_polyhedron()
    eye = np.eye(C.size)
    for i in range(len(x)):
        parts = [eye[p.working_set.lower[i]], eye[p.working_set.upper[i]]]
        parts += [] if rows.A_ub is None else [rows.A_ub[p.working_set.ub[i]]]
        parts += [] if rows.A_eq is None else [rows.A_eq]
        M = np.vstack(parts)
        assert np.linalg.matrix_rank(M, tol=1e-9) == len(M)
        assert C.size - len(M) == p.jacobian("working").rank[i]


def test_fixed_entries_and_infinite_bounds():
    C = CappedSimplex(4, 1.0, [-np.inf, 0.25, 0.0, -1.0], [np.inf, 0.25, np.inf, 0.5])
    p = hsref.projection([5.0, 5.0, -5.0, -5.0], C)
    assert_close(p.y, [1.75, 0.25, 0.0, -1.0], "agree")
    np.testing.assert_array_equal(p.active.lower, [False, True, True, True])
    np.testing.assert_array_equal(p.active.upper, [False, True, False, False])
    assert p.rank == 0


def test_group_labels_and_membership_tables_agree():
    table = np.array([[True, True, False, False], [False, False, False, True]])
    x = np.random.default_rng(11).normal(size=(5, 4))
    y = hsref.project(x, GroupBudget(4, table, 0.0, [0.3, 0.4]))
    np.testing.assert_array_equal(
        y, hsref.project(x, GroupBudget(4, [0, 0, -1, 1], 0.0, [0.3, 0.4]))
    )


# -- data that replaces that of the set -----------------------------------------------------------

CALLS = [
    (lambda: CappedSimplex(4, 1.0), "total", [0.5, 2.0, 3.0]),
    (lambda: CappedSimplex(4, 1.0), "upper", np.linspace(0.3, 0.6, 12).reshape(3, 4)),
    (lambda: Knapsack([1.0, 2.0, -1.0, 3.0], 1.0, 0.0, 1.0), "lower", [0.0, -1.0, 0.125, 0.25]),
    (lambda: Hyperplane([1.0, 2.0, -1.0, 3.0], 1.0), "offset", [0.5, 2.0, -3.0]),
    (lambda: Halfspace([1.0, 2.0, -1.0, 3.0], 1.0), "offset", [0.5, 2.0, -3.0]),
    (lambda: AffineSubspace([[1.0, 2.0, -1.0, 3.0]], [1.0]), "b_eq", [[0.5], [2.0], [-3.0]]),
    (lambda: L1Ball(4), "radius", [0.0, 1.0, 2.5]),
    (lambda: IsotonicCone(4), "lower", [-1.0, 0.0, 2.0]),
    (lambda: GroupBudget(4, [0, 0, 1, -1], 0.0, 0.5), "cap", [0.3, 0.5, np.inf]),
    (
        lambda: GroupBudget(4, [0, 0, 1, -1], 0.0, 0.5),
        "upper",
        [[0.1, 0.2], [0.3, 0.4], [1.0, 1.0]],
    ),
    (lambda: Turnover([0.25] * 4, 0.5), "limit", [0.0, 0.2, 1.0]),
    (lambda: Turnover([0.25] * 4, 0.5), "previous", [[0.5, 0.5, 0, 0], [1.0, 0, 0, 0], [0.25] * 4]),
    (lambda: Permutahedron([3.0, 2.0, 1.0, 0.0]), "w", [[1.0, 1, 0, 0], [0.0, 5, 2, 2], [1.0] * 4]),
]


@pytest.mark.parametrize(("make", "name", "values"), CALLS)
def test_data_at_the_call_is_data_of_the_set(make, name, values):
    C = make()
    rng = np.random.default_rng(12)
    x = rng.normal(size=(3, 4))
    values = np.asarray(values, float)
    one_each = values.shape[0] == 3
    p = hsref.projection(x, C, **{name: values})
    assert np.max(p.residuals) <= 1e-14
    for i in range(3):
        rows = C._with_data({name: values[i] if one_each else values})
        assert_close(p.y[i], hsref.project(x[i], rows), "agree", x)
    with pytest.raises(TypeError, match="no parameter"):
        hsref.project(x, C, colour=1.0)


EMPTIED = [
    (lambda: CappedSimplex(3, 1.0), {"total": [1.0, 3.5, -0.5]}),
    (lambda: Knapsack([1.0, -1.0, 2.0], 1.0, 0.0, 1.0), {"total": [1.0, 3.5, -1.5]}),
    (lambda: Knapsack([1.0, 1.0, 2.0], 1.0, 0.0, 1.0, equality=False),
     {"total": [1.0, -2.0, -0.5]}),
    (lambda: AffineSubspace([[1.0, 1, 0], [2.0, 2, 0]], [1.0, 2.0]),
     {"b_eq": [[1.0, 2.0], [1.0, 3.0], [0.0, 1.0]]}),
    (lambda: GroupBudget(3, [0, 0, 1], 0.0, 0.75),
     {"upper": [[1.0, 1.0], [0.2, 0.3], [1.0, -1.0]]}),
    (lambda: IsotonicCone(3, 0.0, 1.0), {"lower": [0.5, 2.0, 1.5]}),
    (lambda: CappedSimplex(3, 1.0), {"lower": [[0.0] * 3, [0.0, 2.0, 0.0], [2.0, 3.0, 0.0]]}),
    (lambda: GroupBudget(3, [0, 0, 1], 0.0, 0.75, 1.0, 1.0), {"cap": [0.5, -1.0, -2.0]}),
]  # fmt: skip


@pytest.mark.parametrize(("make", "data"), EMPTIED)
def test_empty_samples_are_proved_empty(make, data):
    C = make()
    x = np.zeros((3, 3))
    ((name, values),) = data.items()
    with pytest.raises(hsref.InfeasibleError, match=r"\(1,\)"):
        hsref.project(x, C, **data)
    p = hsref.projection(x, C, on_infeasible="nan", **data)
    np.testing.assert_array_equal(p.status == hsref.Status.PRIMAL_INFEASIBLE, [False, True, True])
    assert not np.isnan(p.y[0]).any()
    assert not (p.jacobian() @ np.ones((3, 3)))[1:].any()
    rows = C._residual_rows({name: np.asarray(values, float)})
    for i in (1, 2):
        known = {k: v for k, v in rows._asdict().items() if v is not None}
        for part in set(known) - {"A_ub", "A_eq"}:
            side = known[part][i] if np.ndim(known[part]) == 2 else known[part]
            known[part] = side if part[0] == "b" else np.broadcast_to(side, 3)
        assert_farkas(hsref.Multipliers(*(f[i] for f in p.certificate)), 3, known)


@pytest.mark.parametrize(("C", "data"), [
    (L1Ball(12), {"radius": [1.0, -1.0]}),
    (Turnover(np.full(12, 1 / 12), 0.5), {"limit": [0.5, -0.1]}),
    (Turnover(np.full(12, 1 / 12), 0.5), {"previous": np.array([[1 / 12], [0.5]]) * np.ones(12)}),
], ids=str)  # fmt: skip
def test_empty_samples_of_sets_with_many_rows(C, data):
    p = hsref.projection(np.zeros((2, 12)), C, on_infeasible="nan", **data)
    np.testing.assert_array_equal(p.status == hsref.Status.PRIMAL_INFEASIBLE, [False, True])
    assert p.certificate.ub[1] == 1.0


def test_totals_that_rounding_puts_outside_are_taken():
    p = hsref.projection([[0.0, 0.5, 9.0]], CappedSimplex(3, 0.3, 0.0, 0.1))
    assert_close(p.y, [[0.1, 0.1, 0.1]], "agree")
    assert p.rank == 0
    y = hsref.project([0.0, 0.0], Turnover([0.1, 0.9 + 1e-16], 0.0))
    assert_close(y, [0.1, 0.9], "agree")


# -- sentences ------------------------------------------------------------------------------------

NAN = float("nan")
BAD = [
    (lambda: CappedSimplex(3, 4.0), "more than 3"),
    (lambda: CappedSimplex(3, -1.0), "less than 0"),
    (lambda: CappedSimplex(3, NAN), "total must be finite"),
    (lambda: CappedSimplex(3, 1.0, 0.0, [1.0, NAN, 1.0]), "upper must be a number"),
    (lambda: CappedSimplex(3, 1.0, 0.5, 0.25), r"lower\[0\]"),
    (lambda: CappedSimplex(3, 1.0, [0.0, 1.0]), "shape"),
    (lambda: CappedSimplex(0, 1.0), "positive integer"),
    (lambda: Knapsack([0.0, 0.0], 1.0, 0.0, 1.0), "zero"),
    (lambda: Knapsack([[1.0]], 1.0, 0.0, 1.0), "vector"),
    (lambda: Knapsack([1.0, np.inf], 1.0, 0.0, 1.0), "finite"),
    (lambda: Knapsack([1.0, -1.0], 3.0, 0.0, 1.0), "more than 1"),
    (lambda: Knapsack([1.0, 1.0], -3.0, 0.0, 1.0, equality=False), "less than 0"),
    (lambda: Hyperplane([0.0, 0.0], 1.0), "zero"),
    (lambda: Halfspace([1.0], NAN), "offset must be finite"),
    (lambda: AffineSubspace([[1.0, 1.0], [2.0, 2.0]], [1.0, 3.0]), "contradicts"),
    (lambda: AffineSubspace([[0.0, 0.0]], [1.0]), "contradicts"),
    (lambda: AffineSubspace([[1.0, 1.0]], [1.0, 3.0]), "one entry a row"),
    (lambda: L1Ball(3, -1.0), "radius must be at least 0"),
    (lambda: L1Ball(2.5), "positive integer"),
    (lambda: IsotonicCone(3, 1.0, 0.0), "lower = 1"),
    (lambda: IsotonicCone(3, [0.0, 1.0]), "shape"),
    (lambda: Permutahedron([[1.0]]), "vector"),
    (lambda: Permutahedron([1.0, NAN]), "finite"),
    (lambda: Turnover([0.5, 0.5], -0.1), "limit = -0.1"),
    (lambda: Turnover([0.25, 0.25], 0.25), "0.5 away"),
    (lambda: Turnover(0.5, 0.1), "vector"),
    (lambda: GroupBudget(3, np.array([[1, 1, 0], [0, 1, 1]], bool), 0.0, 1.0), "overlap"),
    (lambda: GroupBudget(3, [0, 1], 0.0, 1.0), "one label an entry"),
    (lambda: GroupBudget(3, [0, 1, -2], 0.0, 1.0), "whole numbers"),
    (lambda: GroupBudget(3, [0, 0.5, 1], 0.0, 1.0), "whole numbers"),
    (lambda: GroupBudget(3, [0, 0, 1], [0.5, 0.75], 1.0), "sum of the lower"),
    (lambda: GroupBudget(3, [0, 0, 1], 0.0, [0.25, 0.5]), "upper limits allow"),
    (lambda: GroupBudget(3, [0, 0, 1], [0.0, 0.5], 1.0, 1.0, 0.25), "caps"),
    (lambda: GroupBudget(3, [0, 0, 1], 0.5, 0.25), "group 0"),
    (lambda: GroupBudget(3, [0, 0, 1], 0.0, 1.0, 1.0, -1.0), "cap = -1"),
    (lambda: GroupBudget(3, [0, 0, 1], [0.0] * 3, [1.0] * 2), "shape"),
    (lambda: Scaled(Simplex(2), 0.0), "positive"),
    (lambda: Scaled(Simplex(2), NAN), "finite"),
    (lambda: Shifted(Simplex(2), [1.0, 2.0, 3.0]), "shape"),
    (lambda: Shifted(Simplex(2), NAN), "finite"),
]


@pytest.mark.parametrize(("make", "words"), BAD)
def test_bad_input_gets_a_sentence(make, words):
    with pytest.raises(ValueError, match=words) as caught:
        make()
    text = str(caught.value)
    assert text.endswith(".")
    assert len(text.split()) >= 5


def test_sets_are_made_of_sets():
    for make in (Product, lambda: Product(Simplex(2), 3), lambda: Scaled("C", 1.0),
                 lambda: Shifted(None, 1.0)):  # fmt: skip
        with pytest.raises(TypeError, match="set"):
            make()
    with pytest.raises(ValueError, match="positive"):
        hsref.project([1.0, 0.0], Scaled(Simplex(2), 1.0), factor=-1.0)


@pytest.mark.parametrize(
    "C", [L1Ball(11), Turnover(np.full(11, 1 / 11), 0.1), Permutahedron(np.arange(11))]
)
def test_many_rows_are_not_written_out(C):
    with pytest.raises(ValueError, match=r"n = 11\.$"):
        C.to_polyhedron()


# -- sets made of sets ----------------------------------------------------------------------------

BLOCKS = [
    (Permutahedron([3.0, 1.0, 2.0]), Permutahedron([3.0, 1.0, 2.0]), L1Ball(2)),
    (L1Ball(2), hsref.Polyhedron(A_ub=[[1.0, 1.0]], b_ub=[1.0], lower=0.0), Permutahedron([1, 0])),
    (Simplex(2), Simplex(2), Simplex(2), GroupBudget(3, [0, 0, -1], 0.0, 0.5)),
    (Product(L1Ball(2), Permutahedron([1.0, 0.0])), Scaled(Permutahedron([1.0, 0.0]), 2.0)),
    (Permutahedron([2.0, 1.0, 0.0]),) * 3,
    (AffineSubspace([[1.0, 1.0]], [1.0]), AffineSubspace([[1.0, -1.0]], [1.0])),
]


@pytest.mark.parametrize("blocks", BLOCKS, ids=lambda b: "-".join(type(C).__name__ for C in b))
@pytest.mark.parametrize("selection", ["active", "working", "support"])
def test_a_product_is_its_blocks(blocks, selection):
    C = Product(*blocks)
    rng = np.random.default_rng(13)
    x = np.vstack([rng.integers(-2, 3, (10, C.size)), rng.normal(size=(10, C.size))]).astype(float)
    g = rng.normal(size=x.shape)
    p = hsref.projection(x, C)
    V = p.jacobian(selection)
    assert np.max(p.residuals) <= 1e-14
    ends = np.cumsum([one.size for one in blocks])
    cuts = [slice(end - one.size, end) for one, end in zip(blocks, ends)]
    parts = [hsref.projection(x[:, cut], one) for one, cut in zip(blocks, cuts)]
    for part, cut in zip(parts, cuts):
        np.testing.assert_array_equal(p.y[:, cut], part.y)
        np.testing.assert_array_equal((V @ g)[:, cut], part.jacobian(selection) @ g[:, cut])
    np.testing.assert_array_equal(p.rank, sum(part.rank for part in parts))
    np.testing.assert_array_equal(p.margin, np.min([part.margin for part in parts], axis=0))
    for name in p.multipliers._fields:
        joined = [getattr(part.multipliers, name) for part in parts]
        np.testing.assert_array_equal(getattr(p.multipliers, name), np.concatenate(joined, axis=-1))
    for name in p.active._fields:
        joined = [getattr(part.active, name) for part in parts]
        np.testing.assert_array_equal(getattr(p.active, name), np.concatenate(joined, axis=-1))


def test_parameters_of_blocks_have_numbers():
    C = Product(Simplex(3), Simplex(2))
    y = hsref.project(np.zeros((2, 5)), C, total_0=3.0, total_1=[2.0, 4.0])
    assert_close(y, [[1, 1, 1, 1, 1], [1, 1, 1, 2, 2]], "agree")
    with pytest.raises(TypeError, match="total_1"):
        hsref.project(np.zeros(5), C, total=3.0)
    p = hsref.projection(np.zeros((2, 5)), C, total_1=[1.0, -1.0], on_infeasible="nan")
    np.testing.assert_array_equal(p.status == hsref.Status.PRIMAL_INFEASIBLE, [False, True])
    assert_farkas(
        hsref.Multipliers(*(f[1] for f in p.certificate)), 5,
        {"A_eq": C.to_polyhedron().A_eq, "b_eq": [1.0, -1.0], "lower": np.zeros(5)},
    )  # fmt: skip


def test_scaled_and_shifted_sets():
    x = np.random.default_rng(14).normal(size=(6, 3))
    two = hsref.projection(x, Scaled(Simplex(3), 2.0))
    same = hsref.projection(x, Simplex(3, 2.0))
    np.testing.assert_array_equal(two.y, same.y)
    assert_close(two.multipliers.eq, same.multipliers.eq, "agree")
    np.testing.assert_array_equal(hsref.project(x, Scaled(Simplex(3), 1.0), factor=2.0), two.y)
    offset = np.array([0.5, -1.0, 0.25])
    moved = hsref.projection(x + offset, Shifted(Simplex(3), offset))
    assert_close(moved.y, hsref.project(x, Simplex(3)) + offset, "agree", x)
    assert Shifted(Simplex(3), offset).contains(moved.y).all()
    twice = Scaled(Scaled(L1Ball(3), 2.0), 3.0)
    assert_close(
        hsref.project(x, twice, factor=0.5, factor_inside=0.25, radius=4.0),
        hsref.project(x, L1Ball(3, 0.5)), "agree",
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("end", ["least", "most"])
def test_a_total_at_the_end_of_its_range_has_one_point(seed, end):
    # The sign of what is left of the sum is that of a rounding error there, and a long flat piece
    # of S may lie before the last entry that has to move.
    rng = np.random.default_rng(seed)
    n = (367, 40)[seed % 2]
    w = rng.normal(size=n)
    lower = rng.normal(size=n) - 1.0
    upper = lower + rng.exponential(size=n)
    terms = np.minimum(w * lower, w * upper) if end == "least" else np.maximum(w * lower, w * upper)
    answer = np.where((w > 0.0) == (end == "least"), lower, upper)
    C = Knapsack(w, terms.sum(), lower, upper)
    p = hsref.projection(rng.normal(size=(250, n)), C)
    assert np.abs(p.y - answer).max() <= 1e-9
    assert max(np.max(r) for r in p.residuals) <= 1e-12


def test_weights_of_very_different_size_keep_the_multiplier():
    # The total fixes the first three entries; what the last one adds is lost in its rounding.
    w = np.array([1e12, -1e6, 1.0, 1e-11])
    lower, upper = np.full(4, -2.0), np.full(4, 3.0)
    C = Knapsack(w, np.minimum(w * lower, w * upper).sum(), lower, upper)
    p = hsref.projection(np.array([[0.5, 1.0, -1.0, 2.0], [3.0, -2.0, 3.0, 3.0]]), C)
    assert np.array_equal(p.y[:, :3], np.broadcast_to([-2.0, 3.0, -2.0], (2, 3)))
    assert max(np.max(r) for r in p.residuals) <= 1e-12


def test_what_overflows_is_refused():
    with pytest.raises(ValueError, match="at least"):
        Scaled(Simplex(3), 5e-324)
    # The point inside is 1e8 / 1e-305: it overflows, and must not come back as a number.
    with pytest.raises(hsref.NotSolvedError, match="SINGULAR"):
        hsref.project(np.array([1e8, 1.0, 3.0]), Scaled(Simplex(3), 1e-305))
    # Where the answer is x itself it is right all the same.
    C = Scaled(hsref.Box(-1.0, np.inf, n=2), 1e-305)
    assert np.array_equal(hsref.project(np.array([1e8, 1.0]), C), [1e8, 1.0])


@pytest.mark.parametrize("power", [-540, -900, -1020])
def test_group_multipliers_of_tiny_data(power):
    # groups whose caps add up to their limits: the multiplier moves until an entry is released
    def solve(size):
        groups = [2, -1, -1, 0, -1, 0, -1, -1, -1]
        limits, cap = np.array([4.0, 0, 3]), np.array([3.0, 1, 2, 3, 1, 1, 3, 1, 1])
        C = GroupBudget(9, groups, size * limits, size * limits, size * 14.4, size * cap)
        return hsref.projection(size * np.array([1.0, 2, 2, 1, 2, -1, 3, -1, 2]), C)

    expected, p = solve(1.0), solve(2.0**power)
    assert expected.multipliers.ub.max() > 1.0
    for got, want in zip((p.y, *p.multipliers), (expected.y, *expected.multipliers), strict=True):
        np.testing.assert_allclose(got, 2.0**power * want, rtol=1e-12, atol=2.0**power * 1e-13)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_nearly_dependent_equations_are_solved_or_refused(dtype):
    row, other = np.array([1.0, -2.0, -2.0, 1.0]), np.array([0.3, 0.1, -0.7, 1.9])
    x, z = np.array([1.0, 0.0, 2.0, 3.0], dtype), np.array([-1.1, 0.3, 0.7, -0.2])

    def solve(delta, point):
        rows = np.vstack([row, row + delta * other, 2.0 * row])
        return hsref.projection(point, AffineSubspace(rows, rows @ z))

    for delta in (1e-2, 1e-4, 1e-6):
        p = solve(delta, x)
        rows = np.vstack([row, row + delta * other, 2.0 * row])
        if dtype == np.float64:
            rest = x - p.y - p.multipliers.eq @ rows
            assert np.abs(rest).max() <= 1e-9 * (np.abs(x).max() + np.abs(x - p.y).max())
        assert max(p.residuals) <= np.sqrt(np.finfo(dtype).eps)
    # The multipliers are 1e10: what is left of x - y after they cancel is their rounding.
    with pytest.raises(hsref.NotSolvedError) as caught:
        solve(1e-10, x)
    assert caught.value.status == hsref.Status.SINGULAR
    # Less than that counts as dependent.
    solve(1e-13, x)


def test_group_budgets_meet_a_total_that_leaves_no_room():
    # total = all caps and limits: the root is where the sum of the groups bends into a constant
    for seed in (22, 68, 70, 99, 104):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(20, 300))
        groups, cap = rng.integers(-1, 3, n), np.abs(rng.normal(size=n))
        room = np.array([cap[groups == g].sum() for g in range(3)])
        upper = room * rng.choice([0.5, 0.75, 1.0], 3)
        lower = upper * rng.choice([0.0, 0.5, 1.0], 3)
        total = upper.sum() + cap[groups < 0].sum()
        x = rng.normal(size=(400, n)) * 10.0 ** rng.uniform(-2.0, 3.0, (400, 1))
        p = hsref.projection(x, GroupBudget(n, groups, lower, upper, total, cap))
        assert np.abs(p.y.sum(axis=1) - total).max() <= 1e-13 * total
        assert max(np.max(r) for r in p.residuals) <= 1e-12


@pytest.mark.parametrize("row", [[5e-324, 0.0], [1e-310, 2e-310], [1.5e308, 1.5e308]])
def test_rows_without_a_norm_are_refused(row):
    for make in (
        lambda: AffineSubspace([[1.0, 1.0], row], [0.0, 0.0]),
        lambda: hsref.Polyhedron([[1.0, 1.0], row], [0.0, 0.0]),
        lambda: hsref.Polyhedron(A_eq=[[1.0, 1.0], row], b_eq=[0.0, 0.0]),
    ):
        with pytest.raises(ValueError, match=r"row 1 of A_(ub|eq) must be zero or of a norm"):
            make()


def test_equations_whose_squares_underflow():
    x = np.array([1.0, 2.0])
    p = hsref.projection(x, AffineSubspace([[1e-200, 1e-200], [2e-200, 2e-200]], [1e-200, 2e-200]))
    np.testing.assert_allclose(p.y, [0.0, 1.0], atol=1e-15)
    with pytest.raises(hsref.InfeasibleError, match="contradicts"):
        AffineSubspace([[1e-200, 1e-200], [2e-200, 2e-200]], [1e-200, 3e-200])
