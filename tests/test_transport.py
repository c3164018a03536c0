"""Matrices with given or limited sums: answers constructed for each kind of degeneracy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hsref
from certificates import assert_answer
from hsref import Birkhoff, PartialMatching, Substochastic, Transport
from oracle import plant
from tolerances import assert_close, bound

SEEDS = st.integers(0, 2**20)
SIDE = st.integers(1, 4)
WEIGHTS = ([1.0], [0.5, 0.5], [0.5, 0.25, 0.25], [0.25] * 4)


def whole(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return small whole multipliers, half of them zero."""
    return rng.integers(1, 4, n) * rng.integers(0, 2, n).astype(float)


def sums(m: int, n: int) -> np.ndarray:
    """Return the rows of all row sums, then all column sums, over the flat matrix."""
    return np.vstack([np.kron(np.eye(m), np.ones(n)), np.kron(np.ones(m), np.eye(n))])


def mixture(rng: np.random.Generator, m: int, n: int, drop: float = 0.0) -> np.ndarray:
    """Return an average of few matchings: dyadic entries, few of them positive."""
    y = np.zeros((m, n))
    for weight in WEIGHTS[rng.integers(len(WEIGHTS))]:
        k = min(m, n)
        rows, columns = rng.permutation(m)[:k], rng.permutation(n)[:k]
        y[rows, columns] += weight * (rng.random(k) >= drop)
    return y


def flat(p: hsref.Projection) -> Any:
    """Return the record with its matrix as a vector, as the planted answers are."""
    names = ("status", "multipliers", "active", "working_set", "support", "weakly_active",
             "residuals", "jacobian")  # fmt: skip
    return SimpleNamespace(y=p.y.reshape(-1), **{name: getattr(p, name) for name in names})


def check(C: hsref.PolyhedralSet, case) -> None:
    assert_answer(flat(hsref.projection(case.x.reshape(C.shape), C)), case)


# -- planted answers: choose y, which rows hold, and multipliers; then x follows ------------------


@given(SEEDS, SIDE)
def test_planted_birkhoff(seed, n):
    rng = np.random.default_rng(seed)
    y = mixture(rng, n, n).reshape(-1)
    case = plant(
        y, equalities=sums(n, n), eq=rng.integers(-3, 4, 2 * n), below=y, at_lower=whole(rng, n * n)
    )
    check(Birkhoff(n), case)


@given(SEEDS, SIDE, SIDE)
def test_planted_transport(seed, m, n):
    rng = np.random.default_rng(seed)
    y = rng.choice([0.0, 0.0, 0.0, 1.0, 2.5], m * n)
    case = plant(
        y, equalities=sums(m, n), eq=rng.integers(-3, 4, m + n), below=y, at_lower=whole(rng, m * n)
    )
    check(Transport(case.b_eq[:m], case.b_eq[m:]), case)


@given(SEEDS, SIDE, SIDE)
def test_planted_substochastic(seed, m, n):
    rng = np.random.default_rng(seed)
    y = mixture(rng, m, n, drop=0.4).reshape(-1)
    rows = sums(m, n)
    case = plant(
        y, rows=rows, slacks=1.0 - rows @ y, ub=whole(rng, m + n), below=y,
        at_lower=whole(rng, m * n),
    )  # fmt: skip
    check(Substochastic(m, n), case)


@given(SEEDS, SIDE, SIDE, st.sampled_from([0.0, 0.4, 1.0]))
def test_planted_partial_matching(seed, m, n, drop):
    # drop = 0 puts the total at min(m, n), drop = 1 at 0
    rng = np.random.default_rng(seed)
    y = mixture(rng, m, n, drop).reshape(-1)
    rows = sums(m, n)
    case = plant(
        y, rows=rows, slacks=1.0 - rows @ y, ub=whole(rng, m + n), equalities=[np.ones(m * n)],
        eq=[rng.integers(-3, 4)], below=y, at_lower=whole(rng, m * n),
    )  # fmt: skip
    check(PartialMatching(m, n, y.sum()), case)


@pytest.mark.parametrize(("m", "n"), [(30, 30), (12, 40), (50, 9)])
@pytest.mark.parametrize("scale", [1.0, 1e8, 1e-8])
def test_planted_blocks_of_many_entries(m, n, scale):
    # the support falls into components of all shapes: blocks, trees, single entries
    rng = np.random.default_rng(m)
    rows, columns = np.sort(rng.integers(0, 5, m)), np.sort(rng.integers(0, 5, n))
    y = rng.integers(0, 3, (m, n)) * (rows[:, None] == columns) * 1.0
    push = rng.integers(1, 4, (m, n)) * (y == 0.0)
    x = y + rng.integers(-9, 10, (m, 1)) + rng.integers(-9, 10, n) - push
    p = hsref.projection(scale * x, Transport(scale * y.sum(axis=1), scale * y.sum(axis=0)))
    assert_close(p.y / scale, y, "planted", x)
    assert np.array_equal(p.active.lower.reshape(m, n), y == 0.0)
    M = np.vstack([sums(m, n), np.eye(m * n)[y.reshape(-1) == 0.0]])[:, y.reshape(-1) > 0.0]
    assert p.rank == M.shape[1] - np.linalg.matrix_rank(M)
    assert max(p.residuals) <= 1e-13
    independent(p)


def independent(p: hsref.Projection) -> None:
    """Check by counting that the working set is independent, and that nothing else carries."""
    C: Any = p.set
    rows = np.sum(p.working_set.ub, axis=-1) + np.sum(p.working_set.lower, axis=-1)
    equations = C.m + C.n - 1 if C.equalities else int(C.totalled)
    assert np.array_equal(rows + equations, C.size - p.jacobian("working").rank)
    reach = np.abs(p.x).reshape(*p.batch_shape, -1).max(axis=-1) + np.abs(p.y).max()
    for field in ("ub", "lower"):
        off = np.where(getattr(p.working_set, field), 0.0, getattr(p.multipliers, field))
        assert np.all(off <= 1e-12 * reach[..., None])


# -- many samples: each one certified -------------------------------------------------------------

FAMILIES = {
    "Gauss": lambda rng, shape: rng.normal(size=shape),
    "Gauss times 3": lambda rng, shape: 3.0 * rng.normal(size=shape),
    "integers": lambda rng, shape: rng.integers(-3, 4, shape).astype(float),
    "eighths": lambda rng, shape: rng.integers(-8, 9, shape) / 8.0,
    "rank 2": lambda rng, shape: np.einsum(
        "bik,bkj->bij", rng.integers(-2, 3, (*shape[:-1], 2)),
        rng.integers(-2, 3, (shape[0], 2, shape[-1])),
    ).astype(float),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("C", "count"),
    [
        (Birkhoff(4), 10_000),
        (Birkhoff(9), 500),
        (Transport([1.0, 2.0, 0.0, 1.0], [2.0, 1.0, 1.0]), 1000),
        (Substochastic(4, 4), 1000),
        (PartialMatching(4, 4, 2.0), 1000),
        (PartialMatching(3, 5, 3.0), 1000),
    ],
    ids=repr,
)
def test_every_sample_is_certified(C, count, family):
    rng = np.random.default_rng(3)
    x = FAMILIES[family](rng, (count, *C.shape))
    p = hsref.projection(x, C)
    assert np.all(p.status == hsref.Status.SOLVED)
    assert np.max(p.residuals) <= 1e-14
    independent(p)
    # the face found is that of y
    positive = p.y.reshape(count, -1) > 1e-9 * p.y.reshape(count, -1).max(axis=1)[:, None]
    assert np.array_equal(~p.active.lower, positive)


@pytest.mark.parametrize("n", [4, pytest.param(7, marks=pytest.mark.slow)])
def test_unrolled_sizes_find_what_the_general_routine_finds(n):
    rng = np.random.default_rng(n)
    g = rng.normal(size=(200, n, n))
    for draw in FAMILIES.values():
        x = draw(rng, g.shape)
        p, q = hsref.projection(x, Birkhoff(n)), hsref.projection(x, Transport(*np.ones((2, n))))
        assert_close(p.y, q.y, "agree", x)
        assert np.max(p.residuals) <= 1e-14
        independent(p)
        assert np.array_equal(p.active.lower, q.active.lower)
        assert np.array_equal(p.rank, q.rank)
        assert_close(p.jacobian() @ g, q.jacobian() @ g, "projector", g)


@pytest.mark.parametrize("size", [1e4, 1e6, 1e12])
@pytest.mark.parametrize(
    "C", [Birkhoff(4), Birkhoff(12), Substochastic(7, 9), PartialMatching(8, 6, 4.5)], ids=repr
)
def test_large_entries(C, size):
    x = size * np.random.default_rng(5).normal(size=(60, *C.shape))
    p = hsref.projection(x, C)
    assert np.max(p.residuals) <= 1e-14
    # at this size x decides an assignment: all but the fractional total is 0 or 1
    again = hsref.project(p.y, C)
    assert_close(again, p.y, "agree")


@pytest.mark.parametrize("n", [60, pytest.param(250, marks=pytest.mark.slow)])
def test_larger_matrices(n):
    rng = np.random.default_rng(n)
    for C in (Birkhoff(n), Substochastic(n, n + 7), PartialMatching(n + 5, n, 0.7 * n)):
        outer = np.outer(*(rng.normal(size=k) for k in C.shape))
        for x in (rng.normal(size=C.shape), rng.integers(-2, 3, C.shape) / 2.0, outer):
            p = hsref.projection(x, C)
            assert max(p.residuals) <= 1e-13
            independent(p)


# -- the general solver, brute pseudo-inverses ----------------------------------------------------


@pytest.mark.parametrize(
    "C",
    [Birkhoff(3), Transport([0.5, 2.0, 1.0], [1.0, 0.0, 1.5, 1.0]), Substochastic(4, 3),
     PartialMatching(3, 4, 2.5)],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("selection", ["active", "working", "support"])
def test_products_are_those_of_the_pseudo_inverse(C, selection):
    rng = np.random.default_rng(17)
    x = np.concatenate([rng.normal(size=(20, *C.shape)), rng.integers(-2, 3, (20, *C.shape))])
    p = hsref.projection(x, C)
    rows, J = C.to_polyhedron(), p.jacobian(selection)
    flags = {"active": p.active, "working": p.working_set, "support": p.support}[selection]
    V = J.toarray()
    for i in range(len(x)):
        M = [np.eye(C.size)[flags.lower[i]]]
        M += [] if rows.A_ub is None else [rows.A_ub[flags.ub[i]]]
        M += [] if rows.A_eq is None else [rows.A_eq]
        M = np.concatenate(M)
        assert_close(V[i], np.eye(C.size) - np.linalg.pinv(M, rcond=1e-9) @ M, "projector")
    general = hsref.projection(x.reshape(len(x), -1), rows)
    assert_close(p.y.reshape(len(x), -1), general.y, "agree", x)


def test_vertices_have_derivative_exactly_zero():
    rng = np.random.default_rng(1)
    for n in (1, 2, 4, 9, 20):
        permutation = np.eye(n)[rng.permutation(n)]
        p = hsref.projection(30.0 * permutation + rng.normal(size=(n, n)), Birkhoff(n))
        np.testing.assert_array_equal(p.y, permutation)
        assert p.rank == 0
        np.testing.assert_array_equal(p.jacobian() @ rng.normal(size=(n, n)), np.zeros((n, n)))
    # any forest: a path of entries, rows and columns shared
    path = Transport([1.0, 2.0, 2.0], [2.0, 2.0, 1.0])
    y = np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    p = hsref.projection(y - 5.0 * (y == 0.0), path)
    np.testing.assert_array_equal(p.y, y)
    np.testing.assert_array_equal(p.jacobian() @ rng.normal(size=(3, 3)), np.zeros((3, 3)))


@pytest.mark.parametrize("n", [3, 4, 11])
def test_full_support_is_double_centring(n):
    rng = np.random.default_rng(2)
    x, g = 0.1 / n * rng.random((n, n)), rng.normal(size=(n, n))
    p = hsref.projection(x, Birkhoff(n))
    assert p.rank == (n - 1) ** 2

    def centred(z):
        return z - z.mean(axis=0) - z.mean(axis=1, keepdims=True) + z.mean()

    assert_close(p.y, centred(x) + 1.0 / n, "agree")
    assert_close(p.jacobian() @ g, centred(g), "projector", g)


# -- data at the call -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_sums_at_the_call(dtype):
    rng = np.random.default_rng(7)
    r, c = rng.random((6, 3)), rng.random((6, 5))
    c *= (r.sum(axis=1) / c.sum(axis=1))[:, None]
    r, c = r.astype(dtype), c.astype(dtype)
    x = rng.normal(size=(6, 3, 5)).astype(dtype)
    C = Transport(np.full(3, 1.0), np.full(5, 0.6))
    p = hsref.projection(x, C, r=r, c=c)
    assert max(np.max(v) for v in p.residuals) <= (1e-13 if dtype == np.float64 else 1e-6)
    for i in range(6):
        wide = c[i].astype(float) * (r[i].astype(float).sum() / c[i].astype(float).sum())
        alone = hsref.project(x[i], Transport(r[i], wide))
        assert_close(p.y[i], alone, "agree", dtype=dtype)
    one = hsref.project(x, C, r=[2.0, 0.5, 0.5])
    assert_close(one.sum(axis=2), np.tile([2.0, 0.5, 0.5], (6, 1)), "feasible", dtype=dtype)


def test_totals_at_the_call():
    rng = np.random.default_rng(8)
    x = rng.normal(size=(5, 3, 4))
    totals = np.array([0.0, 0.5, 1.75, 2.0, 3.0])
    p = hsref.projection(x, PartialMatching(3, 4, 1.0), total=totals)
    for i, total in enumerate(totals):
        np.testing.assert_array_equal(p.y[i], hsref.project(x[i], PartialMatching(3, 4, total)))
    assert np.max(p.residuals) <= 1e-14


def proof_of(p: hsref.Projection, sample: int) -> hsref.Multipliers:
    assert p.certificate is not None
    return hsref.Multipliers(*(part[sample] for part in p.certificate))


def test_infeasible_samples_are_proved_so():
    from hsref.theory import check_farkas

    rng = np.random.default_rng(9)
    x = rng.normal(size=(4, 2, 3))
    C = Transport([1.0, 2.0], [1.0, 1.0, 1.0])
    r = np.array([[1.0, 2.0], [1.0, 2.5], [1.0, 1.5], [-1.0, 4.0]])
    p = hsref.projection(x, C, r=r, on_infeasible="nan")
    assert p.status.tolist() == [0, 2, 2, 2]
    assert np.isnan(p.y[1:]).all()
    assert not (p.jacobian() @ x)[1:].any()
    np.testing.assert_array_equal(p.y[0], hsref.project(x[0], C))
    for i in (1, 2, 3):
        proof = proof_of(p, i)
        assert check_farkas(C, proof, b_eq=np.concatenate([r[i], C.c]))
        assert not check_farkas(C, proof)
    with pytest.raises(hsref.InfeasibleError, match=r"\(1,\)"):
        hsref.project(x, C, r=r)

    C = PartialMatching(2, 3, 1.0)
    totals = np.array([1.0, -0.25, 2.125, 2.0])
    p = hsref.projection(x, C, total=totals, on_infeasible="nan")
    assert p.status.tolist() == [0, 2, 2, 0]
    for i in (1, 2):
        proof = proof_of(p, i)
        assert check_farkas(C, proof, b_eq=[totals[i]])
        assert not check_farkas(C, proof)
    tall = PartialMatching(3, 2, 1.0)
    found = hsref.projection(x[0].T, tall, total=2.5, on_infeasible="nan").certificate
    assert check_farkas(tall, found, b_eq=[2.5])


def test_totals_that_differ_in_their_last_digits_agree():
    r, c = np.array([0.1, 0.2, 0.7]), np.array([0.3, 0.3, 0.4]) * (1.0 + 5e-13)
    p = hsref.projection(np.eye(3), Transport(r, c))
    assert max(p.residuals) <= 1e-12
    p = hsref.projection(np.eye(3), PartialMatching(3, 3, 3.0 * (1.0 + 5e-13)))
    assert max(p.residuals) <= 1e-12


@pytest.mark.parametrize("power", [-1000, -950, -700, 900, 1015])
def test_data_near_the_ends_of_the_numbers(power):
    # sums that agree up to a rounding, as sums of a plan do
    r = np.array([6.0, 1.0, 6.0]) * 1.1
    c = np.array([2.0, 3.0, 4.0, 0.0, 4.0]) * 1.1
    c[1] *= 1.0 + 2.0**-51
    x = np.array([[1.0, 2, 2, 1, 3], [2, 0, 1, 3, 3], [1, 1, 3, 1, 2]])
    expected = hsref.projection(x, Transport(r, c))
    size = 2.0**power
    p = hsref.projection(size * x, Transport(size * r, size * c))
    np.testing.assert_array_equal(p.y, size * expected.y)
    np.testing.assert_array_equal(p.multipliers.eq, size * expected.multipliers.eq)
    assert (p.margin, p.rank) == (expected.margin, expected.rank)


def test_subnormal_data():
    tiny = 5e-324
    r, c = np.array([6.0, 1.0, 6.0]), np.array([2.0, 3.0, 4.0, 0.0, 4.0])
    x = np.array([[1.0, 2, 2, 1, 3], [2, 0, 1, 3, 3], [1, 1, 3, 1, 2]])
    expected = hsref.project(x, Transport(r, c))
    y = hsref.project(tiny * x, Transport(tiny * r, tiny * c))
    assert (np.abs(y / tiny - expected) <= 1.0).all()


# -- bad input ------------------------------------------------------------------------------------

NAN = float("nan")
BAD: list[Any] = [
    (lambda: Birkhoff(0), "positive integer"),
    (lambda: Birkhoff(cast(Any, 2.5)), "positive integer"),
    (lambda: Birkhoff(cast(Any, (3, 4))), "square"),
    (lambda: Transport([1.0, 2.0], [1.0, 1.0]), "do not balance"),
    (lambda: Transport([1.0, -1.0], [0.0]), r"non-negative.*index 1"),
    (lambda: Transport([1.0], [2.0, -1.0]), r"c must be non-negative"),
    (lambda: Transport([NAN], [1.0]), "finite"),
    (lambda: Transport([np.inf], [np.inf]), "finite"),
    (lambda: Transport([[1.0]], [1.0]), "vector"),
    (lambda: Transport([], []), "vector"),
    (lambda: Substochastic(0, 2), "m must be"),
    (lambda: Substochastic(2, -1), "n must be"),
    (lambda: PartialMatching(2, 3, -0.5), "between 0 and"),
    (lambda: PartialMatching(2, 3, 2.5), r"min\(m, n\) = 2"),
    (lambda: PartialMatching(2, 3, NAN), "finite"),
    (lambda: hsref.project(np.zeros((3, 4)), Birkhoff(3)), r"\(3, 4\)"),
    (lambda: hsref.project(np.full((3, 3), NAN), Birkhoff(3)), r"finite.*\(0, 0\)"),
    (lambda: hsref.project(np.eye(2), Transport([1, 1], [1, 1]), r=[NAN, 1.0]), "numbers"),
    (lambda: hsref.project(np.eye(2), Transport([1, 1], [1, 1]), c=[np.inf, 1.0]), "finite"),
    (lambda: hsref.project(np.eye(2), PartialMatching(2, 2, 1), total=np.inf), "finite"),
    (lambda: hsref.project(np.eye(2), Transport([1, 1], [1, 1]), c=[1.0, 1.0, 0.0]), "shape"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "words"), BAD)
def test_bad_input_gets_a_sentence(make, words):
    with pytest.raises(ValueError, match=words) as caught:
        make()
    text = str(caught.value)
    assert text.endswith(".")
    assert len(text.split()) >= 5


def test_intersections_are_general():
    both = Birkhoff(2).to_polyhedron() & Substochastic(2, 2).to_polyhedron()
    x = np.array([[0.75, 0.5], [0.0, 0.25]])
    assert_close(hsref.project(x.reshape(4), both).reshape(2, 2),
                 hsref.project(x, Birkhoff(2)), "agree")  # fmt: skip


@pytest.mark.slow
def test_products_with_other_matrices():
    C = hsref.Product(Birkhoff(3), Substochastic(2, 2))
    p = hsref.projection(np.random.default_rng(0).normal(size=(5, 13)), C)
    assert np.max(p.residuals) <= 1e-14
    assert bound("agree") > np.abs(C.to_polyhedron().A_eq @ p.y.T - 1.0).max()


def test_derivatives_in_the_sums_and_the_total():
    from autograd.core import make_vjp

    rng = np.random.default_rng(4)
    x, g, h = rng.normal(size=(3, 3, 4)), rng.normal(size=(3, 3, 4)), 1e-6
    # no two partial sums agree, so that y is differentiable in the sums
    r, c = np.array([1.0, 0.53, 1.25]), np.array([0.71, 0.47, 0.62, 0.98])
    C = Transport(r, c)
    pull, _ = make_vjp(lambda z: hsref.project(x, C, r=z[:3], c=z[3:]), np.concatenate([r, c]))
    for move in (np.eye(7)[0] + np.eye(7)[4], np.eye(7)[2] + np.eye(7)[6]):
        # only moves that keep the totals equal stay where the set is not empty
        ahead, back = (np.concatenate([r, c]) + s * h * move for s in (1.0, -1.0))
        ends = [hsref.project(x, C, r=z[:3], c=z[3:]) for z in (ahead, back)]
        assert_close(np.sum(pull(g) * move), np.sum((ends[0] - ends[1]) / (2 * h) * g),
                     "smooth difference", g)  # fmt: skip
    C = PartialMatching(3, 4, 1.5)
    pull, _ = make_vjp(lambda t: hsref.project(x, C, total=t), np.full(3, 1.5))
    ends = [hsref.project(x, C, total=1.5 + s * h) for s in (1.0, -1.0)]
    assert_close(pull(g), np.sum((ends[0] - ends[1]) / (2 * h) * g, axis=(1, 2)),
                 "smooth difference", g)  # fmt: skip
