"""Derivatives in right-hand sides, bounds, totals, radii and matrices."""

from __future__ import annotations

import pickle

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad, jacobian, make_jvp
from autograd.test_util import check_grads

import hsref
from hsref.data_gradients import pull, pull_to, push, sum_to
from hsref.sets import REGISTRY
from hsref.sets.base import DataField, PolyhedralSet
from hsref.theory import catalogue, tasks
from tolerances import assert_close

RNG = np.random.default_rng


def rows(rng, n=4, m=3, p=1, **bounds):
    return hsref.Polyhedron(
        rng.normal(size=(m, n)), np.full(m, 0.3), rng.normal(size=(p, n)), np.full(p, 0.5), **bounds
    )


def clear(C, x, **data):
    """Keep the points whose active set is no close call."""
    return x[np.asarray(hsref.projection(x, C, **data).margin) > 1e-3]


# -- constructed answers ----------------------------------------------------------------------

CORNER = hsref.Polyhedron([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], np.zeros(3))


@pytest.mark.parametrize("selection", ["active", "working", "support"])
def test_dependent_rows_give_a_limit_of_derivatives(selection):
    # y <= a holds twice at the corner; the pseudo-inverse of all rows would say (2/3, -1/3, 1/3)
    # for the first entry, and every derivative nearby says (1, 0, 0)
    x = np.array([2.0, 1.0])
    got = jacobian(lambda b: hsref.project(x, CORNER, b_ub=b, selection=selection))(np.zeros(3))
    assert_close(got[0], [1.0, 0.0, 0.0], "projector")
    assert got[1].round(12).tolist() in ([0.0, 1.0, 0.0], [-1.0, 0.0, 1.0])


def test_duplicated_rows_share_nothing():
    C = hsref.Polyhedron([[1.0, 0.0], [2.0, 0.0], [1.0, 0.0]], [1.0, 2.0, 1.0])
    got = jacobian(lambda b: hsref.project(np.array([3.0, 0.0]), C, b_ub=b))(np.array([1.0, 2, 1]))
    # one row of the three moves y_1, at its own rate
    assert np.count_nonzero(np.abs(got[0]) > 1e-12) == 1
    assert_close(got[0] @ [1.0, 2.0, 1.0], 1.0, "projector")
    assert_close(got[1], np.zeros(3), "projector")


def test_dependent_equalities_and_fixed_coordinates():
    C = hsref.Polyhedron(
        A_eq=[[1.0, 1.0, 0.0], [2.0, 2.0, 0.0]], b_eq=[1.0, 2.0], lower=[-9.0, -9.0, 1.0],
        upper=[9.0, 9.0, 1.0],
    )  # fmt: skip
    db = np.array([1.0, 2.0])
    dy = push(hsref.projection(np.zeros(3), C), {"b_eq": db, "lower": np.ones(3), "upper": 1.0})
    # both descriptions of the sum agree that it rises by 1; the fixed coordinate follows its bounds
    assert_close(dy, [0.5, 0.5, 1.0], "projector")


def test_closed_forms():
    x = np.array([0.6, 0.8, -1.0])
    assert_close(
        grad(lambda t: hsref.project(x, hsref.Simplex(3), total=t)[0])(1.0), 0.5, "projector"
    )
    assert_close(
        grad(lambda t: hsref.project(x, hsref.Simplex(3), total=t)[1])(0.0), 1.0, "projector"
    )
    ball = hsref.L1Ball(3)
    assert_close(
        jacobian(lambda r: hsref.project(x, ball, radius=r))(1.2),
        np.array([1, 1, -1]) / 3,
        "projector",
    )
    assert_close(
        jacobian(lambda r: hsref.project(x, ball, radius=r))(9.0), np.zeros(3), "projector"
    )
    assert_close(
        jacobian(lambda r: hsref.project(x, ball, radius=r))(0.0), [0, 0, -1.0], "projector"
    )
    w = np.array([3.0, 2.0, 1.0])
    C = hsref.Permutahedron(w)
    # x has one pool of two entries at most: (4, 3.9, 0) -> means of (3, 2), and 1
    got = jacobian(lambda w: hsref.project(np.array([0.0, 3.9, 4.0]), C, w=w))(w)
    assert_close(got, [[0, 0, 1], [0.5, 0.5, 0], [0.5, 0.5, 0]], "projector")


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_parameter_of_every_set(name):
    # one-sided differences at kinks, both modes, persistent active sets: see the statement T13
    looked = 0
    for kind in catalogue.kinds_of(name):
        result = tasks.run_task(tasks.Task("T13", name, kind, 0, 14, 5))
        assert not result["failures"], (kind, result["part"], result["residual"], result["error"])
        looked += result["cases"]
    assert looked or not any(one._fields for one in catalogue.instances(name))


def test_a_wrong_rule_is_caught(monkeypatch):
    def wrong(self, raw, data, tangents):
        return np.zeros((*tangents["total"].shape[:2], self.size))

    monkeypatch.setattr(hsref.Simplex, "_data_push", wrong)
    assert tasks.run_task(tasks.Task("T13", "Simplex", "generic", 0, 14, 5))["failures"]


def test_marginals_of_a_transport_polytope():
    rng = RNG(0)
    r, c = np.array([1.0, 2.0, 3.0]), np.array([2.5, 1.5, 1.0, 1.0])
    C = hsref.Transport(r, c)
    x = rng.normal(size=(3, 4))
    dr, dc, g, h = np.array([1.0, -3.0, 2.0]), np.array([0.5, -0.5, 1.0, -1.0]), x[::-1], 1e-5
    ends = [hsref.project(x, C, r=r + s * dr, c=c + s * dc) for s in (h, -h)]
    _, dy = hsref.jvp(x, None, C, tangents={"r": dr, "c": dc})
    np.testing.assert_allclose(dy, (ends[0] - ends[1]) / (2 * h), atol=1e-8)
    _, back = hsref.vjp(x, C, wrt=("r", "c"))
    found = back(g)
    assert_close(np.sum(g * dy), found["r"] @ dr + found["c"] @ dc, "projector")


# -- autograd: shapes, sums, both modes, twice ------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(), (1,), (3,), (1, 3), (5, 3), (5, 1)], ids=lambda s: "x".join(map(str, s)) or "0"
)
def test_shared_parameters_receive_the_sum(shape):
    rng = RNG(1)
    C = rows(rng)
    x, g, b = rng.normal(size=(5, 4)), rng.normal(size=(5, 4)), np.full(shape, 0.3)
    got = grad(lambda b: anp.sum(g * hsref.project(x, C, b_ub=b)))(b if shape else 0.3)
    each = pull(hsref.projection(x, C), g, ["b_ub"])["b_ub"]
    assert each.shape == (5, 3)
    wide = np.broadcast_to(np.zeros(shape), (5, 3))
    assert np.shape(got) == shape
    assert_close(got, sum_to(each, shape), "projector")
    assert wide.shape == (5, 3)


def test_two_modes_two_orders_any_mixture():
    rng = RNG(2)
    C = rows(rng, lower=-2.0)
    b, c, low = np.array([0.5, 0.6, 0.7]), np.array([0.4]), np.full(4, -2.0)

    def f(x, b, c, low):
        y = hsref.project(anp.sin(x) + x, C, b_ub=b * b, b_eq=c, lower=low)
        return anp.sin(y) * anp.sum(y)

    x = clear(C, rng.normal(size=(20, 4)), b_ub=b * b, b_eq=c, lower=low)[:4]
    x = x[np.asarray(hsref.projection(np.sin(x) + x, C, b_ub=b * b, b_eq=c).margin) > 1e-3]
    assert len(x)
    check_grads(f, modes=["fwd", "rev"], order=2)(x, b, c, low)
    wide = [np.broadcast_to(v, (len(x), *v.shape)).copy() for v in (b, c, low)]
    check_grads(f, modes=["fwd", "rev"], order=2)(x, *wide)


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("selection", ["active", "working"])
def test_matrices_two_modes_two_orders(per_sample, selection):
    rng = RNG(3)
    C = rows(rng, lower=-1.0, upper=1.0)
    x = clear(C, 2.0 * rng.normal(size=(12, 4)))[:4]
    A, E = C.A_ub + 0.0, C.A_eq + 0.0
    if per_sample:
        A = A + 1e-5 * rng.normal(size=(len(x), *A.shape))

    def f(x, A, E, b, low):
        kept = {"selection": selection}
        return anp.sin(hsref.project(x, C, A_ub=A, A_eq=E, b_ub=b, lower=low, **kept))

    check_grads(f, modes=["fwd", "rev"], order=2)(x, A, E, np.full(3, 0.3), -np.ones(4))


def test_matrices_by_the_formula():
    # ḡ_M = -w yᵀ - ν (Vg)ᵀ on one active row, worked out by hand
    C = hsref.Polyhedron([[1.0, 1.0]], [1.0])
    x, g = np.array([2.0, 1.0]), np.array([3.0, 5.0])
    y, nu, w, Vg = np.array([1.0, 0.0]), 1.0, 4.0, np.array([-1.0, 1.0])
    got = grad(lambda A: anp.dot(g, hsref.project(x, C, A_ub=A)))(np.array([[1.0, 1.0]]))
    assert_close(got, [-w * y - nu * Vg], "projector")


def test_no_derivative_in_dependent_rows():
    x = np.array([[-1.0, -1.0], [2.0, 1.0]])

    def f(A, **options):
        return anp.sum(hsref.project(x, CORNER, A_ub=A, **options) ** 2)

    with pytest.raises(hsref.DegenerateDataGradientError, match=r"3 constraints of sample \(1,\)"):
        grad(f)(CORNER.A_ub + 0.0)
    with pytest.raises(ValueError, match="degenerate_data must be"):
        grad(lambda A: f(A, degenerate_data="zero"))(CORNER.A_ub + 0.0)
    error = hsref.DegenerateDataGradientError("sentence", (3,))
    assert pickle.loads(pickle.dumps(error)).index == (3,)
    # by option: the pseudo-inverse of all active rows, shown by its formula
    b = np.array([1.0, 1.0, 2.0])
    C = hsref.Polyhedron(CORNER.A_ub, b)
    x, g = np.array([3.0, 2.0]), np.array([1.0, 2.0])
    inverse = np.linalg.pinv(C.A_ub)
    w, nu = inverse.T @ g, inverse.T @ (x - 1.0)
    _, back = hsref.vjp(x, C, wrt=("A_ub",), degenerate_data="minimum_norm")
    assert_close(back(g)["A_ub"], -np.outer(w, np.ones(2)), "projector")
    assert nu.any()  # V g = 0 at a vertex, so that nu does not show
    traced = grad(
        lambda A: anp.dot(g, hsref.project(x, C, A_ub=A, degenerate_data="minimum_norm"))
    )(C.A_ub + 0.0)
    assert_close(traced, back(g)["A_ub"], "projector")
    # right-hand sides and x never ask
    assert grad(lambda b: anp.sum(hsref.project(x, C, b_ub=b)))(b).shape == (3,)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch", [(), (0,), (2, 3)])
def test_shapes_and_dtypes(dtype, batch):
    C = rows(RNG(4), lower=-1.0)
    x = RNG(5).normal(size=(*batch, 4)).astype(dtype)
    given = {"A_ub": C.A_ub, "b_ub": C.b_ub, "A_eq": C.A_eq, "lower": C.lower}
    for name, value in given.items():
        got = grad(lambda v, name=name: anp.sum(hsref.project(x, C, **{name: v}) ** 2))(
            value.astype(dtype)
        )
        assert got.shape == value.shape
        assert got.dtype == dtype
        assert np.all(np.isfinite(got))
    # the precision of x and that of the data need not agree
    got = grad(lambda b: anp.sum(hsref.project(x, C, b_ub=b) ** 2))(C.b_ub + 0.0)
    assert got.dtype == np.float64
    _, tangent = make_jvp(lambda b: hsref.project(x, C, b_ub=b))(C.b_ub + 0.0)(np.ones(3))
    assert tangent.shape == x.shape
    assert tangent.dtype == dtype


def test_lists_and_numbers_beside_traced_data():
    got = grad(lambda t: hsref.project([1, 2, 3], hsref.Simplex(3), total=t)[2])(2.0)
    assert got == 0.5


def test_one_solve_a_gradient(monkeypatch):
    import hsref._batch

    calls, solve = [], hsref._batch.run_project
    monkeypatch.setattr(
        hsref._batch, "run_project", lambda *a, **k: calls.append(1) or solve(*a, **k)
    )
    C = rows(RNG(6))
    x = RNG(7).normal(size=(3, 4))
    grad(lambda b: anp.sum(hsref.project(x, C, b_ub=b)))(C.b_ub + 0.0)
    grad(lambda A: anp.sum(hsref.project(x, C, A_ub=A)))(C.A_ub + 0.0)
    assert len(calls) == 2


# -- matrices of a call -----------------------------------------------------------------------


def test_matrices_of_a_call_are_those_of_a_set():
    rng = RNG(8)
    C = rows(rng, lower=-2.0)
    A = rng.normal(size=(2, 1, 3, 4))
    x = rng.normal(size=(2, 5, 4))
    record = hsref.projection(x, C, A_ub=A, b_ub=np.full((2, 1, 3), 0.1))
    again = pickle.loads(pickle.dumps(record))
    for i in range(2):
        one = hsref.Polyhedron(A[i, 0], np.full(3, 0.1), C.A_eq, C.b_eq, lower=-2.0)
        alone = hsref.projection(x[i], one)
        np.testing.assert_array_equal(record.y[i], alone.y)
        for a, b in zip(record.multipliers, alone.multipliers):
            np.testing.assert_array_equal(a[i], b)
        g = rng.normal(size=(2, 5, 4))
        np.testing.assert_array_equal((again.jacobian() @ g)[i], alone.jacobian() @ g[i])
        assert max(np.max(v) for v in alone.residuals) < 1e-12
    assert max(np.max(v) for v in record.residuals) < 1e-12
    np.testing.assert_array_equal(hsref.project(x, C, A_ub=A, b_ub=np.full(3, 0.1)), record.y)
    shared = hsref.project(x, C, A_ub=A[0, 0], b_ub=[0.1])
    np.testing.assert_array_equal(shared[0], record.y[0])


def test_matrices_of_a_call_may_be_infeasible_or_of_another_shape():
    C = hsref.Polyhedron([[1.0, 0.0]], [1.0])
    x = np.zeros((2, 2))
    A = np.array([[[1.0, 0.0], [-1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    b = np.array([-1.0, -1.0])
    with pytest.raises(hsref.InfeasibleError) as problem:
        hsref.project(x, C, A_ub=A, b_ub=b)
    assert problem.value.index == (0,)
    y = hsref.project(x, C, A_ub=A, b_ub=b, on_infeasible="nan")
    np.testing.assert_array_equal(y, [[np.nan, np.nan], [-1.0, -1.0]])

    def loss(A):
        y = hsref.project(x, C, A_ub=A, b_ub=b, on_infeasible="nan")
        return anp.sum(anp.where(anp.isnan(y), 0.0, y) ** 2)

    got = grad(loss)(A)
    assert not got[0].any()
    # dy = -dA y at a vertex with A = I, y = (-1, -1)
    assert_close(got[1], [[-2.0, -2.0], [-2.0, -2.0]], "projector")


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        ({"A_ub": np.eye(2)}, TypeError, "give b_ub with it"),
        ({"A_ub": np.zeros((3, 1, 5))}, ValueError, r"expected \(rows, 2\)"),
        ({"A_ub": np.zeros((4, 1, 2))}, ValueError, "must broadcast to the batch axes"),
        ({"A_ub": [[np.nan, 1.0]]}, ValueError, "must be finite"),
        ({"A_ub": [["a", "b"]]}, TypeError, "must be real numbers"),
        ({"A_eq": np.ones((1, 2))}, TypeError, "give b_eq with it"),
    ],
)
def test_bad_matrices(data, kind, words):
    with pytest.raises(kind, match=words):
        hsref.project(np.zeros((3, 2)), hsref.Polyhedron([[1.0, 0.0]], [1.0]), **data)


# -- vjp, jvp, pull, push ---------------------------------------------------------------------


def test_embedding():
    rng = RNG(9)
    C = rows(rng, lower=-1.0, upper=1.0)
    x, g = rng.normal(size=(5, 4)), rng.normal(size=(2, 5, 4))
    A = C.A_ub + 0.01 * rng.normal(size=(5, 3, 4))
    names = ("x", "A_ub", "A_eq", "b_ub", "b_eq", "lower", "upper")
    y, back = hsref.vjp(x, C, wrt=names, A_ub=A, b_ub=np.full(3, 0.3))
    found = back(g)
    assert list(found) == list(names)
    value = {"A_ub": A, "A_eq": C.A_eq, "b_ub": C.b_ub, "b_eq": C.b_eq, "lower": C.lower,
             "upper": C.upper}  # fmt: skip
    tangents = {k: rng.normal(size=v.shape) for k, v in value.items()}
    v = rng.normal(size=x.shape)
    again, dy = hsref.jvp(x, v, C, tangents=tangents, A_ub=A, b_ub=np.full(3, 0.3))
    np.testing.assert_array_equal(y, again)
    for k in range(2):
        total = np.sum(found["x"][k] * v)
        total += sum(np.sum(found[name][k] * t) for name, t in tangents.items())
        assert_close(np.sum(g[k] * dy), total, "projector")
    traced = grad(lambda A: anp.sum(g[0] * hsref.project(x, C, A_ub=A)))(A)
    assert_close(found["A_ub"][0], traced, "projector")
    each = pull(hsref.projection(x, C, A_ub=A), g[0], ["A_ub", "b_ub"])
    assert each["A_ub"].shape == (5, 3, 4)
    shared = pull_to(hsref.projection(x, C), g[0], {"A_ub": (3, 4)})["A_ub"]
    np.testing.assert_allclose(
        shared, pull(hsref.projection(x, C), g[0], ["A_ub"])["A_ub"].sum(axis=0), atol=1e-13
    )
    only = hsref.vjp(x, C, wrt="b_ub")[1](g[0])
    assert list(only) == ["b_ub"]


def test_samples_that_were_not_solved_have_no_derivative():
    C = hsref.Polyhedron([[1.0, 0.0], [-1.0, 0.0]], [1.0, 1.0])
    b = np.array([[1.0, 1.0], [1.0, -2.0]])
    p = hsref.projection(np.full((2, 2), 3.0), C, b_ub=b, on_infeasible="nan")
    np.testing.assert_array_equal(pull(p, np.ones((2, 2)), ["b_ub"])["b_ub"], [[1, 0], [0, 0]])
    np.testing.assert_array_equal(push(p, {"b_ub": b}), [[1, 0], [0, 0]])
    box = hsref.projection(
        np.zeros((2, 1)), hsref.Box(0.0, 1.0, n=1), lower=[[0.0], [2.0]], on_infeasible="nan"
    )
    np.testing.assert_array_equal(pull(box, np.ones((2, 1)), ["lower"])["lower"], [[1], [0]])


def test_refusals():
    p = hsref.projection(np.zeros((2, 3)), hsref.Simplex(3))
    with pytest.raises(TypeError, match="has no parameter 'radius'"):
        pull(p, np.zeros((2, 3)), ["radius"])
    with pytest.raises(TypeError, match="no matrices"):
        pull(p, np.zeros((2, 3)), ["A_ub"])
    with pytest.raises(ValueError, match="shaped like y"):
        pull(p, np.zeros((3, 2)), ["total"])
    with pytest.raises(TypeError, match="real numbers"):
        pull(p, np.zeros((2, 3), complex), ["total"])
    with pytest.raises(ValueError, match="broadcasts to"):
        push(p, {"total": np.zeros(3)})
    with pytest.raises(TypeError, match="which projection would drop"):
        grad(lambda t: anp.sum(hsref.projection(np.zeros(3), hsref.Simplex(3), total=t).y))(1.0)
    with pytest.raises(TypeError, match="total is a list that holds"):
        grad(lambda t: anp.sum(hsref.project(np.zeros((1, 3)), hsref.Simplex(3), total=[t])))(1.0)


class Bent(PolyhedralSet):
    """A box that reaches to the square of its parameter, and declares no derivative."""

    def __init__(self, reach: float, compact: bool = False) -> None:
        self.compact_record = compact
        self._freeze(shape=(2,), fields=(DataField("reach", (), np.array(float(reach))),))

    def _make_kernel(self):
        return hsref.Box(0.0, 1.0, n=2).kernel

    def to_polyhedron(self):
        return self._with_data({})

    def _with_data(self, data):
        reach = float(data.get("reach", self._fields[0].value))
        return hsref.Polyhedron(lower=-(reach**2), upper=np.full(2, reach**2))


@pytest.mark.parametrize("compact", [False, True])
def test_a_set_without_a_rule_says_so(compact):
    words = "declares no derivative in reach" if compact else "no affine function of reach"
    with pytest.raises(TypeError, match=words):
        grad(lambda r: anp.sum(hsref.project(np.zeros(2), Bent(1.0, compact), reach=r)))(2.0)


def test_steep_rows_keep_their_digits():
    # rows at an angle of 1e-5: the factor of the active rows is ill conditioned
    e = 1e-5
    C = hsref.Polyhedron([[1.0, 0.0, 0.0], [1.0, e, 0.0]], [0.0, 0.0], [[0.0, 0.0, 1.0]], [0.0])
    p = hsref.projection(np.array([2.0, 1e-5, 0.0]), C)
    assert p.active.ub.all()
    # y1 = b1, y2 = (b2 - b1)/e
    np.testing.assert_allclose(
        pull(p, np.array([0.0, 1.0, 2.0]), ["b_ub", "b_eq"])["b_ub"], [-1 / e, 1 / e], rtol=1e-9
    )
    np.testing.assert_allclose(push(p, {"b_ub": [0.0, e], "b_eq": 3.0}), [0, 1, 3], atol=1e-9)
