"""Warm starts: the same answer with fewer steps, sample by sample, or a sentence."""

from __future__ import annotations

import pickle

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad

import hsref
from hsref import WarmStart

RNG = np.random.default_rng


def problem(seed=0, n=12, m=20, p=3):
    rng = RNG(seed)
    A, E, z = rng.normal(size=(m, n)), rng.normal(size=(p, n)), rng.normal(size=n)
    C = hsref.Polyhedron(A, A @ z + rng.uniform(size=m), E, E @ z, lower=-3.0, upper=3.0)
    return C, 3.0 * rng.normal(size=(40, n)), rng


def agree(warm, cold):
    size = 1.0 + np.abs(cold.x).max()
    np.testing.assert_allclose(warm.y, cold.y, atol=1e-12 * size)
    for a, b in zip(warm.active, cold.active):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(warm.multipliers, cold.multipliers):
        np.testing.assert_allclose(a, b, atol=1e-10 * size)
    assert max(np.max(v) for v in warm.residuals) < 1e-12


def test_drifting_inputs_need_few_steps():
    C, x, rng = problem()
    previous = hsref.projection(x, C)
    warm_steps = cold_steps = 0
    for _ in range(5):
        x = x + 0.01 * rng.normal(size=x.shape)
        cold, warm = hsref.projection(x, C), hsref.projection(x, C, start=previous)
        agree(warm, cold)
        np.testing.assert_array_equal(hsref.project(x, C, start=previous), warm.y)
        warm_steps, cold_steps = warm_steps + warm.steps.sum(), cold_steps + cold.steps.sum()
        previous = warm
    assert warm_steps < 0.1 * cold_steps


def test_any_start_gives_the_same_answer():
    # starts from other samples, and data that make rows of the old working set void
    C, x, rng = problem(1)
    previous = hsref.projection(x[::-1].copy(), C)
    agree(hsref.projection(x, C, start=previous), hsref.projection(x, C))
    b = np.where(rng.random((40, 20)) < 0.5, np.inf, C.b_ub)
    low = np.where(rng.random((40, 12)) < 0.5, -np.inf, C.lower)
    data = {"b_ub": b, "lower": low}
    agree(hsref.projection(x, C, start=previous, **data), hsref.projection(x, C, **data))


def test_samples_start_from_their_own_rows():
    C, x, _ = problem(2)
    previous = hsref.projection(x, C)
    again = hsref.projection(x, C, start=previous)
    assert not again.steps.any()
    for i in (0, 17):
        one = hsref.projection(x[i], C, start=hsref.projection(x[i], C))
        np.testing.assert_array_equal(one.y, again.y[i])


def test_degenerate_working_sets():
    # duplicated and dependent rows at a vertex
    A = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
    C = hsref.Polyhedron(A, A @ [1.0, 1.0])
    x = np.array([[2.0, 3.0], [1.0, 1.0], [4.0, 1.0], [0.0, 5.0]])
    previous = hsref.projection(x[::-1].copy(), C)
    for start in (previous, hsref.projection(x, C)):
        warm, cold = hsref.projection(x, C, start=start), hsref.projection(x, C)
        np.testing.assert_allclose(warm.y, cold.y, atol=1e-13)
        for a, b in zip(warm.active, cold.active):
            np.testing.assert_array_equal(a, b)
        V, W = warm.jacobian().toarray(), cold.jacobian().toarray()
        np.testing.assert_allclose(V, W, atol=1e-13)


def test_infeasible_samples_do_not_matter():
    C = hsref.Polyhedron([[1.0, 0.0], [-1.0, 0.0]], [1.0, 1.0])
    x, b = np.full((3, 2), 5.0), np.array([[1.0, 1.0], [1.0, -2.0], [2.0, 1.0]])
    broken = hsref.projection(x, C, b_ub=b, on_infeasible="nan")
    np.testing.assert_allclose(hsref.projection(x, C, start=broken).y, [[1.0, 5.0]] * 3)
    again = hsref.projection(x, C, start=broken, b_ub=b, on_infeasible="nan")
    assert np.isnan(again.y[1]).all()
    assert again.certificate is not None


def test_matrices_of_a_call_and_metrics_start_warm_too():
    C, x, rng = problem(3)
    A = C.A_ub + 1e-3 * rng.normal(size=(40, *C.A_ub.shape))
    cold = hsref.projection(x, C, A_ub=A)
    warm = hsref.projection(x, C, A_ub=A, start=hsref.projection(x, C))
    np.testing.assert_allclose(warm.y, cold.y, atol=1e-11)
    assert warm.steps.sum() < cold.steps.sum()
    W = hsref.WeightedNorm(C, np.eye(12) + 0.1)
    previous = hsref.projection(x, W)
    warm = hsref.projection(x + 0.01, W, start=previous)
    np.testing.assert_allclose(warm.y, hsref.project(x + 0.01, W), atol=1e-11)
    assert warm.steps.sum() < 0.2 * previous.steps.sum()


def test_what_does_not_fit_is_refused():
    C, x, _ = problem(4)
    record = hsref.projection(x, C)
    with pytest.raises(ValueError, match="record of batch"):
        hsref.project(x[:3], C, start=record)
    with pytest.raises(ValueError, match="record of batch"):
        hsref.project(x[:, :3], hsref.Polyhedron(n=3), start=record)
    with pytest.raises(ValueError, match="mean nothing here"):
        hsref.project(x, hsref.Simplex(12), start=record)
    with pytest.raises(ValueError, match="mean nothing here"):
        hsref.project(x, hsref.Polyhedron(C.A_ub[:4], C.b_ub[:4]), start=record)
    with pytest.raises(ValueError, match="mean nothing here"):
        hsref.project(x, hsref.WeightedNorm(C, np.ones(12)), start=record)
    with pytest.raises(TypeError, match="Projection record or a WarmStart"):
        hsref.project(x, C, start=record.y)
    with pytest.raises(TypeError, match="holds a Projection record"):
        WarmStart(record.y)


def test_a_training_loop():
    C, x, rng = problem(5)
    target = rng.normal(size=x.shape)
    W, memory, steps = np.eye(12), WarmStart(), []

    def loss(W, start):
        y = hsref.project(anp.dot(x, W), C, start=start)
        return anp.mean(anp.sum((y - target) ** 2, axis=1))

    for _ in range(6):
        warm, cold = grad(loss)(W, memory), grad(loss)(W, None)
        np.testing.assert_allclose(warm, cold, atol=1e-11)
        steps.append(int(memory.record.steps.sum()))
        W = W - 1e-4 * warm
    assert max(steps[1:]) < 0.2 * steps[0]
    # a last batch of another size starts cold, and is then what is remembered
    short = hsref.project(x[:7], C, start=memory)
    np.testing.assert_array_equal(short, hsref.project(x[:7], C))
    assert memory.record.batch_shape == (7,)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(memory)).record.y, short)
    assert hsref.project(x[:7].tolist(), C, start=memory)[0][0] == pytest.approx(short[0, 0])
    # closed forms have no use for a start, and remember all the same
    hsref.project(x, hsref.Simplex(12), start=memory)
    assert memory.record.set.shape == (12,)
    assert "Simplex" in repr(memory)


def test_data_gradients_from_a_warm_start():
    C, x, _ = problem(6)
    memory = WarmStart(hsref.projection(x, C))
    b = C.b_ub + 1e-3

    def loss(b, start):
        return anp.sum(hsref.project(x, C, b_ub=b, start=start) ** 2)

    np.testing.assert_allclose(grad(loss)(b, memory), grad(loss)(b, None), atol=1e-10)
