"""autograd: one solve a gradient, both modes, twice, never detached."""

from __future__ import annotations

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import elementwise_grad, grad, hessian_vector_product, jacobian, make_jvp
from autograd.test_util import check_grads
from hypothesis import given
from hypothesis import strategies as st

import hsref
from strategies import planted
from tolerances import assert_close, bound

SETS = [
    pytest.param(hsref.Polyhedron(A_ub=[[1.0, 2.0, -1.0], [0.5, -1.0, 0.0]], b_ub=[0.3, 0.2],
                                  A_eq=[[1.0, 1.0, 1.0]], b_eq=[1.0]), id="rows"),
    pytest.param(hsref.Polyhedron(A_ub=[[1.0, 2.0, -1.0]], b_ub=[0.3], lower=-0.5, upper=0.7),
                 id="rows and bounds"),
    pytest.param(hsref.Simplex(3), id="Simplex"),
    pytest.param(hsref.Box(-0.5, [0.5, 1.0, 2.0]), id="Box"),
]  # fmt: skip


def smooth_points(C, count: int = 6) -> np.ndarray:
    """Draw points whose projection is clearly away from any kink."""
    x = 2.0 * np.random.default_rng(11).normal(size=(200, 3))
    clear = hsref.projection(x, C).margin > 1e-2
    return x[clear][:count]


@pytest.mark.parametrize("C", SETS)
@pytest.mark.parametrize("selection", ["active", "working", "support"])
def test_second_order_in_both_modes(C, selection):
    x = smooth_points(C)
    assert len(x) == 6

    def f(x):
        return anp.sin(hsref.project(anp.sin(x) + x, C, selection=selection))

    clear = hsref.projection(np.sin(x) + x, C).margin > 1e-3
    check_grads(f, modes=["fwd", "rev"], order=2)(x[clear])


@pytest.mark.parametrize("C", SETS)
def test_gradient_is_the_element_of_the_record(C, backend):
    rng = np.random.default_rng(12)
    x, g = backend(2.0 * rng.normal(size=(4, 2, 3))), rng.normal(size=(4, 2, 3))
    p = hsref.projection(x, C)
    got = elementwise_grad(lambda x: anp.sum(g * hsref.project(x, C)))(x)
    np.testing.assert_array_equal(got, p.jacobian() @ g)
    value, tangent = make_jvp(lambda x: hsref.project(x, C))(x)(g)
    np.testing.assert_array_equal(value, p.y)
    np.testing.assert_array_equal(tangent, p.jacobian() @ g)


@given(planted(max_n=4, changes=2), st.sampled_from(["active", "working", "support"]))
def test_kinks_give_the_selected_element(case, selection):
    parts = case.description
    C = hsref.Polyhedron(**parts, **({} if parts else {"n": case.n}))
    J = jacobian(lambda x: hsref.project(x, C, selection=selection))(case.x)
    V = hsref.projection(case.x, C).jacobian(selection).toarray()
    assert_close(J, V, "projector")
    if selection == "active":
        assert_close(J, case.V, "projector")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch", [(), (0,), (3,), (2, 3)])
def test_shapes_and_dtypes_of_gradients(dtype, batch):
    C = hsref.Simplex(3)
    x = np.random.default_rng(13).normal(size=(*batch, 3)).astype(dtype)
    got = grad(lambda x: anp.sum(hsref.project(x, C) ** 2))(x)
    assert got.shape == x.shape
    assert got.dtype == dtype


@pytest.mark.parametrize("order", ["grad", "jacobian", "hessian product", "jvp"])
def test_one_solve_a_derivative(order, monkeypatch):
    import hsref._batch

    C = hsref.Polyhedron(A_ub=[[1.0, 2.0, -1.0]], b_ub=[0.3])
    x = np.random.default_rng(14).normal(size=(5, 3))
    solve, calls = hsref._batch.run_project, []

    def counted(*args, **kwargs):
        calls.append(1)
        return solve(*args, **kwargs)

    monkeypatch.setattr(hsref._batch, "run_project", counted)

    def loss(x):
        return anp.sum(anp.sin(hsref.project(x, C)))

    if order == "grad":
        grad(loss)(x)
    elif order == "jacobian":
        jacobian(lambda x: hsref.project(x, C))(x)
    elif order == "jvp":
        make_jvp(lambda x: hsref.project(x, C))(x)(x)
    else:
        hessian_vector_product(loss)(x, x)
    assert len(calls) == 1


def test_vjp_and_jvp_for_other_frameworks():
    C = hsref.Simplex(3)
    rng = np.random.default_rng(17)
    x, g = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    V = hsref.projection(x, C).jacobian()
    y, pull = hsref.vjp(x, C)
    np.testing.assert_array_equal(y, hsref.project(x, C))
    np.testing.assert_array_equal(pull(g), V @ g)
    np.testing.assert_array_equal(pull(np.stack([g, 2.0 * g]))[1], V @ (2.0 * g))
    again, dy = hsref.jvp(x, g, C)
    np.testing.assert_array_equal(again, y)
    np.testing.assert_array_equal(dy, V @ g)


def test_hessian_sees_the_curvature_of_the_loss():
    C = hsref.Simplex(3)
    x, v = np.array([0.6, 0.8, -1.0]), np.array([1.0, 0.0, 3.0])
    V = hsref.projection(x, C).jacobian().toarray()
    y = hsref.project(x, C)
    got = hessian_vector_product(lambda x: anp.sum(hsref.project(x, C) ** 3))(x, v)
    assert_close(got, V @ (6.0 * y * (V @ v)), "projector")


def test_infeasible_samples_contribute_nothing():
    C = hsref.Polyhedron(A_ub=[[1.0, 0.0], [-1.0, 0.0]], b_ub=[1.0, 1.0])
    b_ub = np.array([[1.0, 1.0], [1.0, -2.0]])
    x = np.array([[3.0, 1.0], [3.0, 1.0]])

    def loss(x):
        y = hsref.project(x, C, b_ub=b_ub, on_infeasible="nan")
        return anp.sum(anp.where(anp.isnan(y), 0.0, y) ** 2)

    got = grad(loss)(x)
    np.testing.assert_array_equal(got, [[0.0, 2.0], [0.0, 0.0]])
    with pytest.raises(hsref.InfeasibleError):
        grad(lambda x: anp.sum(hsref.project(x, C, b_ub=b_ub)))(x)


def test_gradients_are_never_dropped_silently():
    C = hsref.Polyhedron(A_ub=[[1.0, 0.0]], b_ub=[0.0], lower=-1.0)
    x = np.array([1.0, 2.0])

    # a record is a plain value
    with pytest.raises(TypeError, match=r"project\("):
        grad(lambda x: anp.sum(hsref.projection(x, C).y))(x)
    # boxes inside a list
    with pytest.raises(TypeError, match="stack"):
        grad(lambda x: anp.sum(hsref.project([x[0], x[1]], C)))(x)


def test_data_carries_its_gradient():
    C = hsref.Polyhedron(A_ub=[[1.0, 1.0]], b_ub=[0.5], lower=-4.0)
    x, b_ub = np.array([1.0, 2.0]), np.array([0.5])

    def f(x, b):
        return anp.sum(hsref.project(x, C, b_ub=b) ** 2)

    # y = x − (x₁ + x₂ − b)/2 · (1, 1) = (−¼, ¾), dy/db = (½, ½)
    assert_close(grad(f, 1)(x, b_ub), [0.5], "projector")
    # traced x and traced data together
    both = grad(lambda v: f(v[:2], v[2:]))(np.array([1.0, 2.0, 0.5]))
    assert_close(both, [-1.0, 1.0, 0.5], "projector")


def test_a_whole_network_against_central_differences():
    # two layers, a projection in the middle and one at the end, a batch, all parameters at once
    rng = np.random.default_rng(15)
    inner, outer = (
        hsref.Box(-1.0, 1.0, n=4),
        hsref.Simplex(3) & hsref.Polyhedron(A_ub=[[-1.0, -1.0, 0.0]], b_ub=[-0.5]),
    )
    u, target = rng.normal(size=(6, 5)), rng.dirichlet(np.ones(3), 6)
    shapes = [(5, 4), (4,), (4, 3), (3,)]
    sizes = [int(np.prod(s)) for s in shapes]

    def unpack(theta):
        parts = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
        return [anp.reshape(theta[k], s) for k, s in zip(parts, shapes)]

    def loss(theta):
        W1, b1, W2, b2 = unpack(theta)
        hidden = hsref.project(anp.dot(u, W1) + b1, inner)
        weights = hsref.project(anp.dot(anp.tanh(hidden), W2) + b2, outer)
        return anp.mean(anp.sum((weights - target) ** 2, axis=1))

    theta = 0.7 * rng.normal(size=sum(sizes))
    analytic, h = grad(loss)(theta), 1e-5
    steps = h * np.eye(theta.size)
    numeric = np.array([(loss(theta + s) - loss(theta - s)) / (2 * h) for s in steps])
    assert_close(analytic, numeric, "smooth difference", theta)
    assert np.abs(analytic).max() > 1e-3


def test_loss_along_a_segment_is_the_integral_of_its_gradient():
    # crosses kinks; the midpoint rule errs by O(breakpoints / N) only
    rng = np.random.default_rng(16)
    C = hsref.Simplex(4)
    W0, W1, u = rng.normal(size=(4, 6)), rng.normal(size=(4, 6)), rng.normal(size=6)

    def loss(W):
        return anp.sum(anp.sin(3.0 * hsref.project(anp.dot(W, u), C)))

    N = 2000
    midpoints = (np.arange(N) + 0.5) / N
    D = W1 - W0
    integral = np.mean([np.sum(grad(loss)(W0 + t * D) * D) for t in midpoints])
    assert abs(integral - (loss(W1) - loss(W0))) <= 10.0 / N
    assert bound("kkt") < 10.0 / N
