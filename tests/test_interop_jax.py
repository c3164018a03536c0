"""JAX: the same numbers as NumPy under every transformation, and a sentence instead of a guess."""

from __future__ import annotations

import re

import numpy as np
import pytest

import hsref
from interop_cases import (
    PEERS,
    REGIONS,
    ROWS,
    SIMPLEX,
    TRIANGLE,
    Case,
    data_case,
    smooth_points,
    table,
)
from tolerances import assert_close

try:
    import jax
    import jax.numpy as jnp
except ModuleNotFoundError:
    # conftest.py skips and counts what is marked
    jax = None

pytestmark = pytest.mark.jax


@pytest.fixture(autouse=True)
def x64():
    """Switch double precision on for a test, and back."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.fixture
def solves(monkeypatch):
    """Count the solves."""
    import hsref._batch

    solve, calls = hsref._batch.run_project, []

    def counted(*args, **kwargs):
        calls.append(1)
        return solve(*args, **kwargs)

    monkeypatch.setattr(hsref._batch, "run_project", counted)
    return calls


# -- the table ------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", table())
def test_value_vjp_jvp_and_second_order_are_those_of_numpy(case: Case):
    def f(x):
        return hsref.project(x, case.C)

    x = jnp.asarray(case.x)
    y, pull = jax.vjp(f, x)
    assert isinstance(y, jax.Array)
    assert y.dtype == case.dtype
    np.testing.assert_array_equal(y, case.y)
    np.testing.assert_array_equal(f(x), case.y)
    (vjp,) = pull(jnp.asarray(case.g))
    assert vjp.dtype == case.dtype
    np.testing.assert_array_equal(vjp, case.pull(case.g))
    value, tangent = jax.jvp(f, (x,), (jnp.asarray(case.g),))
    np.testing.assert_array_equal(value, case.y)
    np.testing.assert_array_equal(tangent, case.product(case.g))
    _, second = jax.jvp(jax.grad(lambda x: jnp.sin(f(x)).sum()), (x,), (jnp.asarray(case.u),))
    assert_close(second, case.second_order(), "projector", dtype=case.dtype)


@pytest.mark.parametrize("case", table()[::5])
def test_compiled_code_gives_the_same_bits(case: Case):
    def f(x):
        return hsref.project(x, case.C)

    x, g = jnp.asarray(case.x), jnp.asarray(case.g)
    np.testing.assert_array_equal(jax.jit(f)(x), case.y)
    np.testing.assert_array_equal(jax.jit(lambda x, g: jax.vjp(f, x)[1](g)[0])(x, g), case.pull(g))
    np.testing.assert_array_equal(jax.jit(lambda x, g: jax.jvp(f, (x,), (g,))[1])(x, g),
                                  case.product(g))  # fmt: skip


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("batched", [False, True])
def test_gradients_of_data_are_those_of_numpy(jit, batched):
    C, x, g, data, wanted, moved = data_case(batched)
    names = tuple(data)

    def f(x, *values):
        return hsref.project(x, C, **dict(zip(names, values)))

    def vjp(x, g, *values):
        return jax.vjp(f, x, *values)[1](g)

    def jvp(x, *values):
        return jax.jvp(f, (x, *values), (jnp.zeros_like(x), *values))[1]

    if jit:
        vjp, jvp = jax.jit(vjp), jax.jit(jvp)
    found = vjp(jnp.asarray(x), jnp.asarray(g), *(jnp.asarray(v) for v in data.values()))
    for name, got in zip(("x", *names), found):
        assert got.shape == np.shape({"x": x, **data}[name])
        assert_close(got, wanted[name], "projector")
    assert_close(jvp(jnp.asarray(x), *(jnp.asarray(v) for v in data.values())), moved, "projector")


# -- transformations ------------------------------------------------------------------------------


@pytest.mark.parametrize("selection", ["active", "working", "support"])
def test_jacobians_by_every_route(selection):
    def f(x):
        return hsref.project(x, SIMPLEX, selection=selection)

    # the last two are kinks: on the set's boundary, and at a vertex
    x = np.array([[0.6, 0.8, -1.0], [0.2, 0.1, 0.4], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    V = hsref.projection(x, SIMPLEX).jacobian(selection).toarray()
    for transform in (jax.jacrev, jax.jacfwd):
        np.testing.assert_array_equal(jax.vmap(transform(f))(x), V)
        np.testing.assert_array_equal(jax.jit(jax.vmap(transform(f)))(x), V)
        whole = transform(f)(jnp.asarray(x))
        np.testing.assert_array_equal(jnp.einsum("bibj->bij", whole), V)
        np.testing.assert_array_equal(transform(jax.vmap(f))(jnp.asarray(x)), whole)


def test_maps_nest_in_any_order():
    x = np.random.default_rng(1).normal(size=(4, 5, 3))
    V, t = hsref.projection(x, SIMPLEX).jacobian().toarray(), jnp.asarray(x)

    def f(x):
        return hsref.project(x, SIMPLEX)

    outer = jax.vmap(jax.vmap(f), in_axes=1, out_axes=1)
    np.testing.assert_array_equal(outer(t), f(t))
    np.testing.assert_array_equal(jax.vmap(f, in_axes=2)(jnp.moveaxis(t, 0, 2)), f(t))
    for transform in (jax.jacrev, jax.jacfwd):
        nested = jax.vmap(jax.vmap(transform(f)), in_axes=1, out_axes=1)
        np.testing.assert_array_equal(nested(t), V)
        by_row = jax.vmap(transform(f))(t)
        np.testing.assert_array_equal(jnp.einsum("bkikj->bkij", by_row), V)


def test_hessians_by_every_route():
    def loss(x, total):
        return (jnp.sin(hsref.project(x, SIMPLEX, total=total)) ** 2).sum()

    from jax.test_util import check_grads

    x = jnp.asarray(smooth_points(SIMPLEX, 2))
    check_grads(loss, (x, 1.0), order=2, modes=("fwd", "rev"))
    wanted = jax.hessian(loss, (0, 1))(x, 1.0)
    for transform in (
        lambda f: jax.jacrev(jax.jacrev(f, (0, 1)), (0, 1)),
        lambda f: jax.jacrev(jax.jacfwd(f, (0, 1)), (0, 1)),
        lambda f: jax.jacfwd(jax.jacfwd(f, (0, 1)), (0, 1)),
        lambda f: jax.jit(jax.hessian(f, (0, 1))),
    ):
        found = transform(loss)(x, 1.0)
        for i in (0, 1):
            for j in (0, 1):
                assert_close(found[i][j], wanted[i][j], "projector")


def test_mapped_data_meets_the_batch_axes_of_x():
    rng = np.random.default_rng(2)
    x, totals = rng.normal(size=(4, 2, 3)), rng.uniform(0.5, 2.0, size=4)

    def f(x, total):
        return hsref.project(x, SIMPLEX, total=total)

    wanted = np.stack([hsref.project(a, SIMPLEX, total=b) for a, b in zip(x, totals)])
    np.testing.assert_array_equal(jax.vmap(f)(x, totals), wanted)
    shared = np.stack([hsref.project(x[0], SIMPLEX, total=b) for b in totals])
    np.testing.assert_array_equal(jax.vmap(f, in_axes=(None, 0))(jnp.asarray(x[0]), totals), shared)
    b = rng.uniform(0.2, 1.0, size=(4, 1))
    got = jax.vmap(lambda x, b: hsref.project(x, ROWS, b_ub=b))(x, b)
    np.testing.assert_array_equal(
        got, np.stack([hsref.project(p, ROWS, b_ub=q) for p, q in zip(x, b)])
    )
    # a gradient for every mapped call, and one for all
    grads = jax.vmap(jax.grad(lambda t, x: jnp.sin(f(x, t)).sum()))(totals, x)
    each = [
        jax.grad(lambda t, x: jnp.sin(f(x, t)).sum())(t, p) for t, p in zip(totals, jnp.asarray(x))
    ]
    assert_close(grads, each, "projector")


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("what", ["grad", "jacrev", "jacfwd", "hessian"])
def test_one_solve_a_derivative(what, jit, solves):
    x = jnp.asarray(smooth_points(SIMPLEX, 3))

    def f(x):
        return jnp.sin(hsref.project(x, SIMPLEX))

    if what in ("grad", "hessian"):
        run = getattr(jax, what)(lambda x: f(x).sum())
    else:
        run = getattr(jax, what)(f)
    run = jax.jit(run) if jit else run
    run(x).block_until_ready()
    solves.clear()
    run(x).block_until_ready()
    assert len(solves) == 1


def test_lost_records_are_solved_again_to_the_same_bits():
    from hsref.interop.jax import RECORDS

    x = jnp.asarray(smooth_points(SIMPLEX, 3))
    y, pull = jax.vjp(lambda x: hsref.project(x, SIMPLEX), x)
    g = jnp.asarray(np.random.default_rng(3).normal(size=x.shape))
    (wanted,) = pull(g)
    RECORDS.clear()
    np.testing.assert_array_equal(pull(g)[0], wanted)


def test_a_record_of_other_numbers_is_not_used():
    from hsref.interop.jax import RECORDS

    C = hsref.Simplex(3)
    x = jnp.asarray(smooth_points(C, 2))
    _, pull = jax.vjp(lambda x: hsref.project(x, C), x)
    number, kept = next(reversed(RECORDS._kept.items()))
    other = hsref.projection(np.asarray(x) + 100.0 * np.eye(3)[:2], C)
    fake = type(kept)(kept.call, other.x, kept.data, other.jacobian())
    RECORDS._kept[number] = fake
    (got,) = pull(jnp.ones_like(x).at[:, 0].set(3.0))
    g = np.ones(x.shape)
    g[:, 0] = 3.0
    np.testing.assert_array_equal(got, hsref.projection(np.asarray(x), C).jacobian() @ g)
    assert not fake.answers(kept.call, kept.x, kept.data)


def test_the_store_keeps_within_its_bound(monkeypatch):
    from hsref.interop import jax as bridge

    bridge.RECORDS.clear()
    monkeypatch.setattr(bridge, "RECORD_BYTES", 20_000)
    f = jax.grad(lambda x: (hsref.project(x, SIMPLEX) ** 2).sum())
    for _ in range(20):
        f(jnp.ones((50, 3)))
    assert bridge.RECORDS._bytes <= 20_000
    assert bridge.RECORDS._bytes == sum(k.nbytes for k in bridge.RECORDS._kept.values())


def test_loops_and_rematerialisation():
    x = jnp.asarray(smooth_points(SIMPLEX, 2))

    def step(x, _):
        return hsref.project(x + 0.1 * jnp.sin(x), SIMPLEX), None

    def loss(x):
        return (jax.lax.scan(step, x, None, length=4)[0] ** 2).sum()

    def unrolled(x):
        for _ in range(4):
            x, _ = step(x, None)
        return (x**2).sum()

    assert_close(jax.grad(loss)(x), jax.grad(unrolled)(x), "projector")
    assert_close(jax.grad(jax.checkpoint(unrolled))(x), jax.grad(unrolled)(x), "projector")


@pytest.mark.parametrize(("point", "jacobian"), REGIONS)
def test_triangle_region_by_region(point, jacobian):
    got = jax.jacrev(lambda x: hsref.project(x, TRIANGLE))(jnp.asarray(point))
    assert_close(got, jacobian, "projector")


# -- peers' own examples --------------------------------------------------------------------------


@pytest.mark.parametrize("peer", PEERS)
def test_examples_of_peers(peer):
    problem = peer()
    values = tuple(jnp.asarray(v) for v in problem.values)
    y = problem.solve(*values)
    assert_close(y, problem.y, "planted")
    found = jax.vjp(problem.solve, *values)[1](jnp.asarray(problem.g))
    for got, wanted in zip(found, problem.cotangents):
        assert_close(got, wanted, "planted")


def test_projection_jacobians_satisfy_the_identities_of_jaxopt():
    # A projection P onto a convex set: J is symmetric and positive semidefinite, J J = J on the
    # pieces where P is affine, and P(P(x)) = P(x) makes J(P(x)) J(x) = J(x) for V of P(x) active.
    x = jnp.asarray(smooth_points(SIMPLEX, 5))

    def f(x):
        return hsref.project(x, SIMPLEX)

    J = jax.vmap(jax.jacrev(f))(x)
    np.testing.assert_array_equal(J, jax.vmap(jax.jacfwd(f))(x))
    assert_close(J, jnp.swapaxes(J, 1, 2), "projector")
    assert_close(J @ J, J, "projector")
    assert_close(jax.vmap(jax.jacrev(lambda x: f(f(x))))(x), J, "projector")
    # the simplex in closed form: diag(s) - s s' / |s|, s the support
    s = (f(x) > 0).astype(x.dtype)
    closed = jax.vmap(jnp.diag)(s) - s[:, :, None] * s[:, None, :] / s.sum(axis=1)[:, None, None]
    assert_close(J, closed, "projector")
    # the derivative in the size of the simplex: s / |s|
    size = jax.vmap(jax.jacrev(lambda t, x: hsref.project(x, SIMPLEX, total=t)), (None, 0))(1.0, x)
    assert_close(size, s / s.sum(axis=1, keepdims=True), "projector")


# -- keywords and refusals ------------------------------------------------------------------------


def test_single_precision_stays_single():
    jax.config.update("jax_enable_x64", False)
    x = jnp.asarray(smooth_points(SIMPLEX, 3))
    assert x.dtype == jnp.float32
    y = hsref.project(x, SIMPLEX)
    assert y.dtype == jnp.float32
    np.testing.assert_array_equal(y, hsref.project(np.asarray(x), SIMPLEX))
    g = jax.jit(jax.grad(lambda x, t: jnp.sin(hsref.project(x, SIMPLEX, total=t)).sum(), (0, 1)))
    assert [part.dtype for part in g(x, 1.0)] == [jnp.float32, jnp.float32]
    assert hsref.project(jnp.array([1, 2, 3]), SIMPLEX).dtype == jnp.float32


def test_whole_numbers_become_float64():
    y = hsref.project(jnp.array([1, 2, 3]), SIMPLEX)
    assert y.dtype == jnp.float64
    assert y.tolist() == [0.0, 0.0, 1.0]


def test_keywords_mean_what_they_mean_in_numpy():
    x = np.random.default_rng(3).normal(size=(4, 3))
    start = hsref.projection(x, ROWS)
    assert_close(hsref.project(jnp.asarray(x), ROWS, start=start, n_threads=2), start.y, "agree")
    with pytest.raises(TypeError, match="start is a record"):
        jax.jit(lambda x: hsref.project(x, ROWS, start=start))(x)
    empty = hsref.Polyhedron(A_ub=[[1.0, 0.0], [-1.0, 0.0]], b_ub=[1.0, 1.0])
    b = jnp.array([[1.0, 1.0], [1.0, -2.0]])
    t = jnp.array([[3.0, 1.0], [3.0, 1.0]])
    with pytest.raises(hsref.InfeasibleError, match=re.escape("sample (1,)")) as caught:
        hsref.project(t, empty, b_ub=b)
    assert caught.value.certificate is not None
    grad = jax.grad(lambda t: jnp.nansum(hsref.project(t, empty, b_ub=b, on_infeasible="nan")))
    assert grad(t).tolist() == [[0.0, 1.0], [0.0, 0.0]]


def test_errors_inside_compiled_code_quote_the_sentence():
    f = jax.jit(lambda x, t: hsref.project(x, SIMPLEX, total=t))
    with pytest.raises(Exception, match=r"x must be finite; the entry at index \(1,\) is nan"):
        f(jnp.array([0.0, jnp.nan, 0.0]), 1.0).block_until_ready()
    with pytest.raises(Exception, match="the set is empty"):
        f(jnp.zeros(3), -1.0).block_until_ready()


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda t: t.astype(jnp.bfloat16), TypeError, "bfloat16, too coarse"),
        (lambda t: t.astype(jnp.float16), TypeError, "float16, too coarse"),
        (lambda t: t + 0j, TypeError, "float32 or float64"),
        (lambda t: t > 0, TypeError, "float32 or float64"),
        (lambda t: t * jnp.nan, ValueError, "x must be finite"),
        (lambda t: t[..., :2], ValueError, r"shape \(4, 2\)"),
        (lambda t: list(t), TypeError, "stack"),
        (lambda t: jax.ShapeDtypeStruct(t.shape, t.dtype), TypeError, "not an array"),
    ],
)
def test_bad_input_gets_a_sentence(make, error, sentence):
    with pytest.raises(error, match=sentence):
        hsref.project(make(jnp.ones((4, 3))), SIMPLEX)


def test_bad_options_get_their_sentence():
    x = jnp.ones((4, 3))
    for f in (hsref.project, lambda x, C, **k: jax.jit(lambda x: hsref.project(x, C, **k))(x)):
        with pytest.raises(ValueError, match="selection must be one of"):
            f(x, SIMPLEX, selection="best")
        with pytest.raises(TypeError, match="no parameter 'radius'"):
            f(x, SIMPLEX, radius=1.0)
        with pytest.raises(ValueError, match="shape"):
            f(x[:, :2], SIMPLEX)
    with pytest.raises(TypeError, match="C must be a set"):
        hsref.project(x, 3)


def test_nothing_is_mixed_silently():
    x, t = np.ones(3), jnp.ones(3)
    with pytest.raises(TypeError, match="total is a JAX array and x is not"):
        hsref.project(x, SIMPLEX, total=jnp.asarray(2.0))
    with pytest.raises(TypeError, match="projection\\(\\) makes a plain record"):
        hsref.projection(t, SIMPLEX)
    with pytest.raises(TypeError, match="total must be real"):
        hsref.project(t, SIMPLEX, total=jnp.asarray(True))
    assert hsref.project(t, SIMPLEX, total=np.float32(2.0)).dtype == t.dtype


def test_second_derivatives_in_matrices_are_refused():
    A = jnp.array([[1.0, 2.0, -1.0]])
    x = jnp.asarray(smooth_points(ROWS, 2))

    def loss(x, A):
        return (jnp.sin(hsref.project(x, ROWS, A_ub=A)) ** 2).sum()

    assert jax.grad(loss, 1)(x, A).shape == A.shape
    assert jax.hessian(loss, 0)(x, A).shape == (2, 3, 2, 3)
    for wrong in (
        lambda: jax.hessian(loss, 1)(x, A),
        lambda: jax.jacrev(lambda A: jax.grad(loss)(x, A))(A),
        lambda: jax.jacfwd(lambda A: jax.jacfwd(loss)(x, A))(A),
        lambda: jax.jit(jax.hessian(loss, 1))(x, A),
    ):
        with pytest.raises(NotImplementedError, match="second derivatives are not available"):
            wrong()


def test_old_versions_are_refused():
    from hsref.interop._shared import BOUNDS, require_version

    require_version("jax", jax.__version__)
    assert BOUNDS["jax"][0] == (0, 4, 36)
    with pytest.raises(ImportError, match=r"jax 0\.4\.36 or later, and found 0\.4\.35"):
        require_version("jax", "0.4.35")
