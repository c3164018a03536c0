"""Quadratic programs and weighted norms: planted answers, peers' examples, refusals."""

from __future__ import annotations

import pickle

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from autograd.test_util import check_grads

import hsref
from hsref import WeightedNorm, quadratic_program
from hsref.data_gradients import pull
from hsref.sets.weighted_norm import QuadraticObjective
from tolerances import assert_close

RNG = np.random.default_rng


def positive(rng, n, diagonal=False):
    if diagonal:
        return rng.uniform(0.5, 3.0, n)
    R = rng.normal(size=(n, n))
    return R @ R.T + 0.5 * np.eye(n)


def full(H):
    return np.diag(H) if H.ndim == 1 else H


def planted(rng, diagonal, count=30):
    """Return (set, H, q, answers): q = H y + A'lambda + B'mu + bounds, some multipliers zero."""
    n, H = 5, positive(rng, 5, diagonal)
    y = rng.integers(-1, 2, size=(count, n)).astype(float)
    A = rng.integers(-2, 3, size=(4, n)).astype(float)
    E = rng.integers(-2, 3, size=(1, n)).astype(float)
    tight = rng.random((count, 4)) < 0.5
    b = np.where(tight, y @ A.T, y @ A.T + 1.0)
    lam = tight * rng.integers(0, 3, size=tight.shape)
    low = (y == -1.0) * rng.integers(0, 3, size=y.shape)
    up = (y == 1.0) * rng.integers(0, 3, size=y.shape)
    q = y @ full(H) + lam @ A + rng.normal(size=(count, 1)) @ E + up - low
    C = hsref.Polyhedron(A, np.zeros(4), E, np.zeros(1), lower=-1.0, upper=1.0)
    return C, H, q, y, {"b_ub": b, "b_eq": y @ E.T}


@pytest.mark.parametrize("diagonal", [False, True])
def test_planted_answers_and_their_certificates(diagonal):
    C, H, q, y, data = planted(RNG(0), diagonal)
    got = quadratic_program(q, H, C, **data)
    np.testing.assert_allclose(got, y, atol=1e-11)
    assert (np.abs(got) <= 1.0).all()  # bounds hold exactly
    p = hsref.projection(q, QuadraticObjective(C, H), **data)
    assert max(np.max(v) for v in p.residuals) < 1e-12
    mu = p.multipliers
    rest = q - p.y @ full(H) - mu.ub @ C.A_ub - mu.eq @ C.A_eq - mu.upper + mu.lower
    assert np.abs(rest).max() < 1e-10
    x = np.linalg.solve(full(H), q.T).T
    W = WeightedNorm(C, H)
    w = hsref.projection(x, W, **data)
    np.testing.assert_allclose(w.y, y, atol=1e-10)
    assert max(np.max(v) for v in w.residuals) < 1e-12
    np.testing.assert_array_equal(hsref.project(x, W, **data), w.y)
    np.testing.assert_array_equal(hsref.project(x[3], W, **{k: v[3] for k, v in data.items()}),
                                  w.y[3])  # fmt: skip
    again = pickle.loads(pickle.dumps(w))
    np.testing.assert_array_equal(again.jacobian() @ q, w.jacobian() @ q)


def test_diagonal_metrics_keep_bounds_as_bounds():
    C = hsref.Box(np.zeros(400), np.full(400, np.inf))
    H = np.linspace(0.5, 2.0, 400)
    W = WeightedNorm(C, H)
    assert W._inner.A_ub is None
    assert W.H.shape == (400,)
    x = RNG(1).normal(size=(3, 400))
    np.testing.assert_allclose(hsref.project(x, W), np.maximum(x, 0.0), rtol=1e-15, atol=0.0)
    # a full matrix that happens to be diagonal is treated as one, in value
    same = WeightedNorm(hsref.Simplex(4), np.diag([1.0, 2.0, 3.0, 4.0]))
    assert same._inner.lower is not None
    other = WeightedNorm(hsref.Simplex(4), [1.0, 2.0, 3.0, 4.0])
    x = RNG(2).normal(size=(5, 4))
    np.testing.assert_array_equal(hsref.project(x, same), hsref.project(x, other))


def test_the_identity_gives_the_euclidean_projection():
    C = hsref.Polyhedron([[1.0, 2.0, 0.0]], [0.5], lower=-1.0)
    x = RNG(3).normal(size=(20, 3))
    p, w = hsref.projection(x, C), hsref.projection(x, WeightedNorm(C, np.ones(3)))
    np.testing.assert_array_equal(p.y, w.y)
    for a, b in zip((*p.multipliers, *p.active), (*w.multipliers, *w.active)):
        np.testing.assert_allclose(a, b, atol=1e-14)


@pytest.mark.parametrize("diagonal", [False, True])
def test_the_jacobian_is_a_projector_in_the_norm_of_H(diagonal):
    C, H, q, _, data = planted(RNG(4), diagonal)
    p = hsref.projection(q, WeightedNorm(C, H), **data)
    for selection in ("active", "working", "support"):
        J = p.jacobian(selection)
        V = J.toarray()
        assert_close(V @ V, V, "projector")
        assert_close(full(H) @ V, np.swapaxes(full(H) @ V, 1, 2), "projector")
        np.testing.assert_allclose(J.T.toarray(), np.swapaxes(V, 1, 2), atol=1e-12)
        np.testing.assert_array_equal(J.T.T @ q, J @ q)
        np.testing.assert_array_equal(q @ J, J.T @ q)
    S = hsref.projection(q, QuadraticObjective(C, H), **data).jacobian()
    assert S.T is S
    np.testing.assert_allclose(S.toarray(), np.swapaxes(S.toarray(), 1, 2), atol=1e-12)


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("bounded", [False, True])
def test_derivatives_in_everything_twice(diagonal, bounded):
    rng = RNG(5)
    n = 4
    bounds = {"lower": -1.0, "upper": 1.0} if bounded else {}
    C = hsref.Polyhedron(
        rng.normal(size=(3, n)), np.full(3, 0.3), rng.normal(size=(1, n)), [0.5], **bounds
    )
    R = rng.normal(size=(n, n))

    def metric(R):
        diag = anp.diag(R) ** 2 + 0.5
        return diag if diagonal else anp.dot(R, R.T) + 0.5 * np.eye(n)

    W, Q = WeightedNorm(C, metric(R)), QuadraticObjective(C, metric(R))
    x, q = 2.0 * rng.normal(size=(2, 12, n))
    x = x[np.asarray(hsref.projection(x, W).margin) > 1e-3][:3]
    q = q[np.asarray(hsref.projection(q, Q).margin) > 1e-3][:3]
    modes, b = {"modes": ["fwd", "rev"], "order": 2}, np.full(3, 0.3)

    def weighted(x, b, R, A):
        return anp.sin(hsref.project(x, W, H=metric(R), b_ub=b, A_ub=A))

    check_grads(weighted, **modes)(x, b, R, C.A_ub + 0.0)
    check_grads(lambda x, b: anp.sin(hsref.project(x, W, b_ub=b)), **modes)(x, b)
    check_grads(lambda q, b, R: anp.sin(quadratic_program(q, metric(R), C, b_ub=b)), **modes)(
        q, b, R
    )
    check_grads(lambda q, b: anp.sin(quadratic_program(q, metric(R), C, b_ub=b)), **modes)(q, b)
    if bounded:
        check_grads(lambda low: anp.sin(hsref.project(x, W, lower=low)), **modes)(-np.ones(n))


def test_one_metric_a_sample():
    rng = RNG(6)
    C = hsref.Simplex(4)
    q = rng.normal(size=(2, 3, 4))
    R = rng.normal(size=(2, 3, 4, 4))

    def metric(R):
        return anp.matmul(R, anp.swapaxes(R, -1, -2)) + np.eye(4)

    y = quadratic_program(q, metric(R), C)
    for i in np.ndindex(2, 3):
        np.testing.assert_array_equal(y[i], quadratic_program(q[i], metric(R)[i], C))
    check_grads(lambda q, R: quadratic_program(q, metric(R), C), modes=["fwd", "rev"])(q, R)


def test_the_metric_moves_y_where_rows_are_dependent():
    # duplicated rows are active: no unique multipliers, and none are needed for H and b
    C = hsref.Polyhedron([[1.0, 1.0, 0.0], [2.0, 2.0, 0.0]], [1.0, 2.0])
    q, R, g = np.array([3.0, 1.0, 1.0]), np.diag([1.0, 2.0, 1.0]), np.array([1.0, -2.0, 0.5])

    def f(R, A=None):
        data = {} if A is None else {"A_ub": A}
        return anp.dot(g, quadratic_program(q, anp.dot(R, R.T) + 0.25 * np.eye(3), C, **data))

    got, h = grad(f)(R), 1e-6
    for i in np.ndindex(3, 3):
        step = np.zeros((3, 3))
        step[i] = h
        assert abs(got[i] - (f(R + step) - f(R - step)) / (2 * h)) < 1e-8
    with pytest.raises(hsref.DegenerateDataGradientError):
        grad(lambda A: f(R, A))(C.A_ub + 0.0)


def test_pull_of_the_metric_is_symmetric():
    C, H, q, _, data = planted(RNG(7), False)
    x = np.linalg.solve(H, q.T).T
    g = RNG(8).normal(size=x.shape)
    for one, at in ((WeightedNorm(C, H), x), (QuadraticObjective(C, H), q)):
        p = hsref.projection(at, one, **data)
        each = pull(p, g, ["H"])["H"]
        np.testing.assert_allclose(each, np.swapaxes(each, 1, 2), atol=1e-13)
        Sg = p.jacobian().T @ g
        # J' = H S for a projection in the norm of H, and S for a quadratic program
        Sg = np.linalg.solve(H, Sg.T).T if one.force_of_metric else Sg
        partner = x - p.y if one.force_of_metric else -p.y
        outer = Sg[:, :, None] * partner[:, None]
        np.testing.assert_allclose(each, 0.5 * (outer + np.swapaxes(outer, 1, 2)), atol=1e-9)


@pytest.mark.parametrize("batch", [(), (0,), (2, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shapes_and_dtypes(batch, dtype):
    q = RNG(9).normal(size=(*batch, 3)).astype(dtype)
    H = positive(RNG(10), 3).astype(dtype)
    y = quadratic_program(q, H, hsref.Simplex(3))
    assert y.shape == q.shape
    assert y.dtype == dtype
    got = grad(lambda q: anp.sum(quadratic_program(q, H, hsref.Simplex(3)) ** 2))(q)
    assert got.shape == q.shape
    assert got.dtype == dtype
    inH = grad(lambda H: anp.sum(quadratic_program(q, H, hsref.Simplex(3)) ** 2))(H)
    assert inH.shape == H.shape
    assert inH.dtype == dtype
    assert isinstance(quadratic_program([1, 2, 3], [1, 1, 2], hsref.Simplex(3)), list)


def test_an_empty_set_comes_with_its_certificate():
    C = hsref.Polyhedron([[1.0, 0.0], [-1.0, 0.0]], [1.0, -2.0], lower=-5.0)
    for H in (np.ones(2), positive(RNG(11), 2)):
        with pytest.raises(hsref.InfeasibleError) as problem:
            quadratic_program(np.zeros(2), H, C)
        assert hsref.theory.check_farkas(C, problem.value.certificate)
        nan = quadratic_program(np.zeros(2), H, C, on_infeasible="nan")
        assert np.isnan(nan).all()


@pytest.mark.parametrize(
    ("H", "kind", "words"),
    [
        (np.ones((3, 3)), ValueError, "must be positive definite; its smallest eigenvalue"),
        (-np.eye(3), ValueError, "must be positive definite"),
        (np.diag([1.0, 1.0, -1e-3]), ValueError, "must be positive definite"),
        ([1.0, 0.0, 1.0], ValueError, "must be positive definite"),
        (np.triu(np.ones((3, 3))), ValueError, r"must be symmetric; H\[0, 1\]"),
        (np.eye(2), ValueError, r"expected \(3,\) for a diagonal, or \(3, 3\)"),
        (np.diag([1.0, np.nan, 1.0]), ValueError, r"must be finite; it is nan at index \(1, 1\)"),
        ("a", TypeError, "must hold real numbers"),
        (np.ones((5, 3, 3)), ValueError, "or the batch axes in front"),
    ],
    ids=lambda v: "" if isinstance(v, type | np.ndarray | list) else str(v)[:24],
)
def test_bad_metrics(H, kind, words):
    with pytest.raises(kind, match=words):
        quadratic_program(np.zeros(3), H, hsref.Simplex(3))


def test_a_metric_is_never_forgotten():
    W = WeightedNorm(hsref.Simplex(2), [1.0, 3.0])
    with pytest.raises(TypeError, match="Euclidean norm"):
        hsref.Product(W, hsref.Simplex(2))
    with pytest.raises(TypeError, match="would forget the norm"):
        _ = W & hsref.Simplex(2)
    with pytest.raises(TypeError, match="would forget the norm"):
        _ = hsref.Simplex(2) & W
    with pytest.raises(TypeError, match="norm of its own"):
        WeightedNorm(W, [1.0, 1.0])
    with pytest.raises(TypeError, match="Euclidean projectors"):
        hsref.hs_jacobian_set(np.zeros(2), W)
    with pytest.raises(TypeError, match="sets of vectors"):
        WeightedNorm(hsref.Birkhoff(2), np.ones(4))
    with pytest.raises(TypeError, match="takes a set"):
        WeightedNorm([1.0], [1.0])
    with pytest.raises(ValueError, match="on the host only"):
        hsref.project(np.zeros(2), W, device="cuda")
    with pytest.raises(TypeError, match="C must be a set"):
        quadratic_program(np.zeros(2), np.ones(2), None)


# -- peers' examples ------------------------------------------------------------------------------


def test_optnet_layer():
    """The layer of Amos and Kolter (2017): Q = LL' + eI, h = G z0 + s0, A z = b, all learnt."""
    rng = RNG(12)
    n, m, p = 6, 5, 2
    L, G, A = np.tril(rng.random((n, n))), rng.normal(size=(m, n)), rng.normal(size=(p, n))
    z0, s0 = rng.normal(size=n), np.full(m, 0.1)
    inputs, target = 3.0 * rng.normal(size=(4, n)), rng.normal(size=(4, n))
    C = hsref.Polyhedron(G, G @ z0 + s0, A, A @ z0)

    def loss(L, G, A, z0, s0, inputs):
        Q = anp.dot(L, L.T) + 0.1 * np.eye(n)
        # their objective has + p'z
        z = quadratic_program(
            -inputs, Q, C, A_ub=G, b_ub=anp.dot(G, z0) + s0, A_eq=A, b_eq=anp.dot(A, z0)
        )
        return 0.5 * anp.sum((z - target) ** 2)

    at = (L, G, A, z0, s0, inputs)
    active = hsref.projection(-inputs, QuadraticObjective(C, L @ L.T + 0.1 * np.eye(n)))
    assert active.active.ub.any()
    assert np.min(active.margin) > 1e-4
    found, h = grad(loss, tuple(range(6)))(*at), 1e-6
    for k, value in enumerate(at):
        d = rng.normal(size=value.shape)
        ends = [loss(*at[:k], value + s * d, *at[k + 1 :]) for s in (h, -h)]
        numeric = (ends[0] - ends[1]) / (2 * h)
        assert abs(np.sum(found[k] * d) - numeric) < 1e-6 * (1.0 + abs(numeric))


def test_ridge_regression_and_relu_as_layers():
    """Problems with closed forms that convex-layer packages are tested on."""
    rng = RNG(13)
    F, f = rng.normal(size=(7, 4)), rng.normal(size=7)
    space = hsref.Polyhedron(n=4)

    def layer(F, f):
        return quadratic_program(anp.dot(F.T, f), anp.dot(F.T, F) + np.eye(4), space)

    def closed(F, f):
        return anp.linalg.solve(anp.dot(F.T, F) + np.eye(4), anp.dot(F.T, f))

    np.testing.assert_allclose(layer(F, f), closed(F, f), rtol=1e-12)
    for k in (0, 1):
        ours = grad(lambda *a: anp.sum(anp.sin(layer(*a))), k)(F, f)
        theirs = grad(lambda *a: anp.sum(anp.sin(closed(*a))), k)(F, f)
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
    half = hsref.Polyhedron(lower=np.zeros(4))
    v = np.array([1.0, -1.0, 2.0, -0.5])
    relu = grad(lambda v: anp.sum(quadratic_program(v, np.ones(4), half)))(v)
    np.testing.assert_array_equal(relu, [1.0, 0.0, 1.0, 0.0])
