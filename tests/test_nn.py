"""Networks that end in a projection: where they start, their gradients, and what is measured."""

from __future__ import annotations

import math

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad, value_and_grad
from hypothesis import given
from hypothesis import strategies as st

import hsref
from hsref import nn, optim
from hsref.sets import REGISTRY
from tolerances import assert_close, bound

ACTIVATIONS = ["relu", "tanh", "gelu", "silu", anp.sin]
EXAMPLES = [
    pytest.param(C, id=f"{name}-{k}")
    for name, kind in REGISTRY.items()
    for k, C in enumerate(kind.examples())
]
STEP = 1e-5


def inputs(count, width, seed=7, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal((count, width)).astype(dtype)


def moved(params, direction, step):
    return optim.tree_map(lambda p, d: p + step * d, params, direction)


def inner(a, b):
    products = optim.tree_map(lambda p, q: float(np.sum(p * q)), a, b)
    return sum(optim.tree_leaves(products))


def margin(network, params, x, C):
    """How far the projections of a batch are from a change of their active sets."""
    return np.min(hsref.projection(network.apply(params, x, raw=True), C).margin)


# -- gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: getattr(a, "__name__", a))
@pytest.mark.parametrize("start", ["interior", None])
def test_gradient_of_a_network_equals_central_differences(activation, start):
    C = hsref.Simplex(4)
    network = nn.mlp([3, 5, 4], activation, C, start=start)
    params, x = network.init(3), inputs(6, 3)
    target = hsref.project(inputs(6, 4, seed=1), C)
    assert margin(network, params, x, C) > 1e-3  # far from kinks compared with the step
    value, gradient = value_and_grad(lambda p: nn.mse(network.apply(p, x), target))(params)
    assert optim.global_norm(gradient) > 1e-4
    for layer, slopes in zip(params, gradient, strict=True):
        for name in ("W", "b"):
            for index in np.ndindex(layer[name].shape):
                kept, ends = layer[name][index], []
                for sign in (1, -1):
                    layer[name][index] = kept + sign * STEP
                    ends.append(nn.mse(network.apply(params, x), target))
                layer[name][index] = kept
                slope = (ends[0] - ends[1]) / (2 * STEP)
                assert abs(slopes[name][index] - slope) <= bound("smooth difference", value)


@pytest.mark.parametrize("C", EXAMPLES)
def test_gradient_through_every_set_equals_central_differences(C):
    rng = np.random.default_rng(11)
    network = nn.mlp([3, 6, C.size], "tanh", C)
    weights = rng.standard_normal(C.shape)

    def loss(params):
        return anp.sum(weights * anp.sin(network.apply(params, x)))

    # wider weights than at the start, so that all faces occur
    params = optim.tree_map(lambda p: p + 0.7 * rng.standard_normal(p.shape), network.init(2))
    x = inputs(8, 3)
    record = hsref.projection(network.apply(params, x, raw=True), C)
    x = x[record.margin > 1e-3]
    value, gradient = value_and_grad(loss)(params)
    for _ in range(5):
        direction = optim.tree_map(lambda p: rng.standard_normal(p.shape), params)
        ends = [loss(moved(params, direction, s * STEP)) for s in (1, -1)]
        slope = (ends[0] - ends[1]) / (2 * STEP)
        size = np.abs(network.apply(params, x)).max(initial=abs(value))
        assert abs(inner(gradient, direction) - slope) <= 10 * bound("smooth difference", size)


def test_gradient_in_the_input():
    C = hsref.Box(-np.ones(2), np.ones(2))
    network = nn.mlp([3, 8, 2], "gelu", C)
    params, x = network.init(0), inputs(4, 3)
    found = grad(lambda x: anp.sum(network.apply(params, x) ** 2))(x)
    for index in np.ndindex(x.shape):
        ends = []
        for sign in (1, -1):
            shifted = x.copy()
            shifted[index] += sign * STEP
            ends.append(np.sum(network.apply(params, shifted) ** 2))
        slope = (ends[0] - ends[1]) / (2 * STEP)
        assert abs(found[index] - slope) <= bound("smooth difference")


def test_relu_is_flat_at_zero_and_lets_nan_through():
    network = nn.mlp([1, 1, 1], "relu")
    params = [{"W": np.ones((1, 1)), "b": np.zeros(1)}, {"W": np.ones((1, 1)), "b": np.zeros(1)}]
    slope = grad(lambda x: network.apply(params, x)[0])
    assert [slope(np.array([v]))[0] for v in (-1.0, 0.0, 1.0)] == [0.0, 0.0, 1.0]
    assert np.isnan(network.apply(params, np.array([np.nan]))).all()


def test_activations_are_what_they_are_called():
    x = np.linspace(-6, 6, 41)
    wanted = {
        "relu": np.maximum(x, 0),
        "tanh": np.tanh(x),
        "gelu": [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x],
        "silu": x / (1 + np.exp(-x)),
    }
    one = {"W": np.ones((1, 1)), "b": np.zeros(1)}
    for name, values in wanted.items():
        got = nn.mlp([1, 1, 1], name).apply([one, one], x[:, None])
        assert_close(got[:, 0], values, "agree")


# -- the start ------------------------------------------------------------------------------------


@pytest.mark.parametrize("C", EXAMPLES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_networks_start_in_the_relative_interior(C, dtype):
    for temperature in (1.0, 0.01):
        network = nn.mlp([5, 16, C.size], output=C, temperature=temperature, dtype=dtype)
        params = network.init(1)
        record = hsref.projection(network.apply(params, inputs(100, 5), raw=True), C)
        assert (record.rank == C.dim).all()
        wanted = np.broadcast_to(C.interior_point(), (2, *C.shape))
        at_zero = network.apply(params, np.zeros((2, 5)))
        assert at_zero.dtype == dtype
        assert_close(at_zero, wanted, "agree", dtype=dtype)


def test_outputs_at_the_start_use_the_margin():
    # Between a quarter and a half of the way to the boundary for the farthest of the probes.
    C = hsref.Simplex(10)
    network = nn.mlp([5, 32, 10], output=C)
    reach = []
    for seed in range(5):
        y = network.apply(network.init(seed), inputs(500, 5, seed))
        reach.append(1 - 10 * y.min())
    assert 0.15 < np.min(reach)
    assert np.max(reach) < 0.9


def test_a_network_that_starts_at_a_vertex_never_learns_and_one_inside_does():
    C, x = hsref.Simplex(4), inputs(32, 3)
    target = hsref.project(0.3 * x @ inputs(3, 4, seed=2) + 0.25, C)

    def train(network, params):
        loss = value_and_grad(lambda p: nn.mse(network.apply(p, x), target))
        init, update = optim.adam(0.02)
        state, losses = init(params), []
        for _ in range(150):
            value, gradient = loss(params)
            losses.append(float(value))
            params, state = update(params, gradient, state)
        return losses

    network = nn.mlp([3, 16, 4], output=C)
    losses = train(network, network.init(0))
    assert losses[-1] < 0.1 * losses[0]
    dead = network.init(0)
    dead[-1]["b"] = np.array([9.0, 0.0, 0.0, 0.0])
    stuck = nn.diagnostics(network.apply(dead, x, raw=True), C)
    assert stuck.dead_fraction == 1.0
    assert len(set(train(network, dead))) == 1


def test_a_set_too_thin_to_start_in_gets_a_sentence():
    thin = hsref.Box(np.ones(2), np.full(2, 1.0 + 1e-10))
    with pytest.raises(ValueError, match="too thin for start='interior' in float64"):
        nn.mlp([2, 2], output=thin).init(0)
    nn.mlp([2, 2], output=thin, start=None).init(0)


# -- what init and apply accept -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_dtype_is_kept_through_a_step_of_training(dtype):
    network = nn.mlp([3, 4, 2], "gelu", hsref.Simplex(2), dtype=dtype)
    params = network.init(0)
    x, target = inputs(5, 3, dtype=np.float64), np.full((5, 2), 0.5)
    for loss in (nn.mse, nn.smoothed_bce):
        value, gradient = value_and_grad(lambda p, f=loss: f(network.apply(p, x), target))(params)
        assert value.dtype == dtype
        init, update = optim.adam(optim.cosine(0.1, 10), weight_decay=0.1)
        params, _ = update(params, gradient, init(params))
        assert {leaf.dtype for leaf in optim.tree_leaves(params)} == {np.dtype(dtype)}


def test_seeds():
    network = nn.mlp([3, 4, 2], output=hsref.Simplex(2))
    same, again, other = network.init(5), network.init(np.random.default_rng(5)), network.init(6)
    for a, b in zip(optim.tree_leaves(same), optim.tree_leaves(again), strict=True):
        assert np.array_equal(a, b)
    assert not np.array_equal(same[0]["W"], other[0]["W"])


def test_initial_variances():
    for activation, n_in, n_out, variance in (
        ("relu", 400, 300, 2 / 400), ("tanh", 400, 300, 2 / 700), (anp.sin, 400, 300, 2 / 700),
    ):  # fmt: skip
        first = nn.mlp([n_in, n_out, 2], activation).init(0)[0]["W"]
        assert np.var(first) == pytest.approx(variance, rel=0.02)
        assert abs(first.mean()) < 5 * math.sqrt(variance / first.size)


def test_batch_axes():
    C = hsref.Simplex(4)
    network = nn.mlp([3, 5, 4], output=C)
    params, x = network.init(0), inputs(24, 3)
    y = network.apply(params, x)
    assert_close(network.apply(params, x.reshape(2, 3, 4, 3)).reshape(24, 4), y, "agree")
    assert_close(network.apply(params, x[0]), y[0], "agree")
    assert_close(network.apply(params, x[0].tolist()), y[0], "agree")
    assert network.apply(params, np.zeros((0, 3))).shape == (0, 4)


@pytest.mark.skipif("Birkhoff" not in hsref.sets.REGISTRY, reason="no set of matrices yet")
def test_matrix_sets_reshape_the_last_axis():
    C = hsref.Birkhoff(3)
    network = nn.mlp([2, 8, 9], output=C)
    params, x = network.init(0), inputs(7, 2)
    y = network.apply(params, x)
    raw = network.apply(params, x, raw=True)
    assert y.shape == raw.shape == (7, 3, 3)
    assert C.contains(y).all()
    assert_close(y, hsref.project(raw, C), "agree")
    plain = nn.mlp([2, 8, 9])
    assert_close(plain.apply(params, x).reshape(7, 3, 3), raw, "agree")


def test_temperature_divides_the_input_of_the_projection():
    C = hsref.Simplex(3)
    hot, cold = (nn.mlp([2, 3], output=C, start=None, temperature=t) for t in (1.0, 0.1))
    params, x = hot.init(0), inputs(5, 2)
    assert_close(
        cold.apply(params, x), hsref.project(hot.apply(params, x, raw=True) / 0.1, C), "agree"
    )


def test_output_may_be_a_callable():
    def softmax(s):
        e = anp.exp(s - anp.max(s, axis=-1, keepdims=True))
        return e / anp.sum(e, axis=-1, keepdims=True)

    network = nn.mlp([2, 4, 3], output=softmax, temperature=2.0)
    y = network.apply(network.init(0), inputs(5, 2))
    assert_close(y.sum(axis=-1), np.ones(5), "agree")


def test_keywords_reach_the_projection():
    C = hsref.Simplex(3)
    network = nn.mlp([2, 3], output=C)
    params, x = network.init(0), inputs(4, 2)
    total = np.array([1.0, 2.0, 3.0, 4.0])
    assert_close(network.apply(params, x, total=total).sum(axis=-1), total, "agree")
    with pytest.raises(ValueError, match="selection must be one of"):
        network.apply(params, x, selection="all")
    with pytest.raises(TypeError, match="this network has no set that n_threads could go to"):
        nn.mlp([2, 3]).apply(params, x, n_threads=1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.mlp([3]), r"sizes must be at least two positive integers .*; got \[3\]"),
        (lambda: nn.mlp([3, 0]), "at least two positive integers"),
        (lambda: nn.mlp([3, 2.5]), "at least two positive integers"),
        (lambda: nn.mlp(3), "at least two positive integers .*; got 3"),
        (lambda: nn.mlp([3, 2], "reul"), "activation must be one of 'relu', .*; got 'reul'"),
        (lambda: nn.mlp([3, 2], start="vertex"), "start must be 'interior' or None"),
        (lambda: nn.mlp([3, 2], temperature=0.0), "temperature must be a positive finite number"),
        (lambda: nn.mlp([3, 2], dtype=np.float16), "dtype must be float64 or float32; got float16"),
        (lambda: nn.mlp([3, 2], output=hsref.Simplex(4)),
         "the last of sizes is 2, but a point of Simplex.* has 4 entries"),
        (lambda: nn.mlp([3, 2]).apply(nn.mlp([3, 2]).init(0), np.ones((5, 4))),
         r"x has shape \(5, 4\); expected \(\*batch, 3\)"),
        (lambda: nn.mlp([3, 2]).apply(nn.mlp([3, 2]).init(0), 1.0), r"x has shape \(\)"),
        (lambda: nn.mse(np.ones((3, 1)), np.ones(3)), r"y has shape \(3, 1\), target has .*3,"),
        (lambda: nn.smoothed_bce([0.5], [1.0], delta=0.0), r"delta must lie in \(0, 1\); got 0.0"),
        (lambda: nn.smoothed_bce([0.5], [1.0], interior=1.0), r"interior must lie in \(0, 1\)"),
    ],
)  # fmt: skip
def test_bad_arguments_get_a_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_wrong_types_get_a_sentence():
    with pytest.raises(TypeError, match=r"output must be a set .*; got str"):
        nn.mlp([3, 2], output="simplex")
    with pytest.raises(TypeError, match="needs the set that it is projected onto"):
        nn.diagnostics(np.ones(3))


def test_non_finite_raw_output_is_refused_by_the_projection():
    network = nn.mlp([2, 3], output=hsref.Simplex(3))
    with pytest.raises(ValueError, match="x must be finite"):
        network.apply(network.init(0), np.array([np.nan, 1.0]))


# -- losses ---------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.3, 1.0]), st.floats(0, 1)), min_size=1))
def test_smoothed_bce_is_finite_on_faces_and_equals_its_formula(pairs):
    y, target = (np.array(column) for column in zip(*pairs, strict=True))
    for delta, interior in ((1e-3, 0.5), (0.2, np.full(len(y), 0.1))):
        S = (1 - delta) * y + delta * interior
        wanted = -np.mean(target * np.log(S) + (1 - target) * np.log(1 - S))
        got, slope = value_and_grad(nn.smoothed_bce)(y, target, delta, interior)
        assert_close(got, wanted, "agree")
        edge = delta * min(np.min(interior), 1 - np.max(interior))
        assert got <= -math.log(edge) + bound("agree")
        assert np.abs(slope).max() <= (1 - delta) / edge / len(y) + bound("agree", slope)


def test_mse():
    y, target = inputs(3, 4), inputs(3, 4, seed=1)
    assert_close(nn.mse(y, target), np.mean((y - target) ** 2), "agree")
    assert_close(grad(nn.mse)(y, target), (y - target) / 6, "agree")


# -- diagnostics ----------------------------------------------------------------------------------


def test_diagnostics_count_what_they_say():
    C = hsref.Simplex(3)
    x = np.array([[9.0, 0.0, 0.0], [2.0, 2.0, -5.0], [0.3, 0.3, 0.4], [0.2, 0.5, 0.3]])
    d = nn.diagnostics(x.reshape(2, 2, 3), C)
    assert (d.samples, d.solved_fraction) == (4, 1.0)
    assert (d.mean_rank, d.rank_fraction, d.dead_fraction) == (1.25, 0.625, 0.25)
    assert d.boundary_fraction == 0.5
    assert 0.0 <= d.relative_violation <= d.violation <= bound("feasible")
    assert d == nn.diagnostics(hsref.projection(x, C, selection="support"))
    assert all(type(value) in (int, float) for value in d.as_dict().values())
    with pytest.raises(AttributeError):
        d.samples = 1


def test_rank_is_that_of_the_active_rows_whatever_the_selection():
    C, x = hsref.Simplex(3), np.array([0.5, 0.5, 0.0])  # on the boundary: no multiplier there
    record = hsref.projection(x, C, selection="support")
    assert record.rank == 2
    assert nn.diagnostics(record).mean_rank == 1.0


def test_diagnostics_of_a_single_point_and_of_nothing():
    point = nn.diagnostics(np.zeros((2, 3)), hsref.Simplex(3, total=0.0))
    assert (point.dead_fraction, point.rank_fraction) == (1.0, 0.0)
    empty = nn.diagnostics(np.zeros((0, 3)), hsref.Simplex(3))
    assert (empty.samples, empty.solved_fraction, empty.dead_fraction) == (0, 1.0, 0.0)


def test_diagnostics_leave_out_infeasible_samples():
    C = hsref.Polyhedron(A_eq=[[1.0, 1.0]], b_eq=[1.0], lower=0.0)
    b_eq = np.array([[1.0], [-1.0], [3.0]])
    record = hsref.projection(np.ones((3, 2)), C, b_eq=b_eq, on_infeasible="nan")
    d = nn.diagnostics(record)
    assert (d.samples, d.mean_rank, d.violation <= bound("feasible")) == (3, 1.0, True)
    assert d.solved_fraction == pytest.approx(2 / 3)
    none = hsref.projection(np.ones((1, 2)), C, b_eq=b_eq[1:2], on_infeasible="nan")
    assert nn.diagnostics(none).solved_fraction == 0.0


@pytest.mark.parametrize("C", EXAMPLES)
def test_diagnostics_of_every_set(C):
    x = 3.0 * np.random.default_rng(0).standard_normal((20, *C.shape))
    d = nn.diagnostics(x, C)
    assert d.relative_violation <= bound("feasible")
    # The absolute figure is in the units of the rows, which some examples scale by a million.
    rows = C.to_polyhedron().A_eq
    scale = x if rows is None else np.abs(rows).max(initial=1.0) * (1.0 + np.abs(x).max())
    assert d.violation is None or d.violation <= bound("feasible", x, scale)
    assert 0.0 <= d.dead_fraction <= (d.boundary_fraction if C.dim else 1.0)
    assert 0.0 <= d.mean_rank <= C.dim
