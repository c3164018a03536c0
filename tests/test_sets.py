"""Every set of the registry through one suite; a new set gets all of this by being registered."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import hsref
from hsref.sets import REGISTRY
from hsref.sets.interior import relative_interior

CASES = [
    pytest.param(C, id=f"{name}-{k}")
    for name, kind in REGISTRY.items()
    for k, C in enumerate(kind.examples())
]
SELECTIONS = ("active", "working", "support")
sets = pytest.mark.parametrize("C", CASES)


def points(C: hsref.PolyhedralSet, seed: int = 0) -> np.ndarray:
    """Inputs that reach faces: inside, on faces, at vertices, ties, all scales; flat batch axis."""
    rng = np.random.default_rng(seed)
    N = C.size
    inside = C.interior_point().reshape(N)
    corner = hsref.project(rng.normal(size=(6, N)).reshape(6, *C.shape) * 100.0, C).reshape(6, N)
    shift = rng.integers(-2, 3, (6, N)).astype(float)
    rows = [
        np.zeros((1, N)),
        np.ones((1, N)),
        inside[None],
        corner,
        0.5 * corner + 0.5 * inside,
        corner + shift,
        rng.integers(-3, 4, (12, N)).astype(float),
        rng.integers(-8, 9, (6, N)) / 8.0,
        inside + 1e-3 * rng.normal(size=(4, N)),
        rng.normal(size=(8, N)),
        1e8 * rng.normal(size=(3, N)),
        1e-8 * rng.normal(size=(3, N)),
        np.full((1, N), 1e8),
    ]
    return np.concatenate(rows)


def shaped(x: np.ndarray, C: hsref.PolyhedralSet) -> np.ndarray:
    return x.reshape(len(x), *C.shape)


def size(x: np.ndarray) -> np.ndarray:
    """Return 1 + the largest entry of each sample, to divide errors by."""
    return 1.0 + np.abs(x.reshape(len(x), -1)).max(axis=1)


def face_projector(C: hsref.PolyhedralSet, x: np.ndarray) -> np.ndarray:
    """Return V₀ at each point, from the rows that are tight at the projection."""
    rows = C.to_polyhedron()
    record = hsref.projection(x, rows)
    eye = np.eye(C.size)
    out = []
    for i in range(len(x)):
        tight = [np.zeros((0, C.size))]
        if rows.A_eq is not None:
            tight.append(rows.A_eq)
        if rows.A_ub is not None:
            tight.append(rows.A_ub[record.active.ub[i]])
        tight += [eye[record.active.lower[i]], eye[record.active.upper[i]]]
        M = np.concatenate(tight)
        out.append(eye - np.linalg.pinv(M, rcond=1e-9) @ M)
    return np.array(out)


@sets
def test_agrees_with_the_general_solver(C):
    x = points(C)
    record = hsref.projection(shaped(x, C), C)
    general = hsref.projection(x, C.to_polyhedron())
    error = np.abs(record.y.reshape(x.shape) - general.y).max(axis=1)
    assert np.all(error <= 1e-10 * size(x))


@sets
def test_default_jacobian_is_the_face_projector(C):
    # Near a tolerance two solvers may disagree about one row; at unit scale nothing is near.
    x = points(C)
    x = x[np.abs(x).max(axis=1) < 1e3]
    V = hsref.projection(shaped(x, C), C).jacobian().toarray()
    assert np.abs(V - face_projector(C, x)).max() <= 1e-8


@sets
def test_certificate(C):
    record = hsref.projection(shaped(points(C), C), C)
    assert np.all(record.status == hsref.Status.SOLVED)
    assert np.max(record.residuals.primal) <= 1e-12
    assert np.max(record.residuals.dual) <= 1e-12
    assert np.max(record.residuals.complementarity) <= 1e-12
    for part in (record.multipliers.ub, record.multipliers.lower, record.multipliers.upper):
        assert np.all(part >= 0.0)


@sets
@pytest.mark.parametrize("selection", SELECTIONS)
def test_jacobian_is_an_orthogonal_projector(C, selection):
    x = points(C)
    J = hsref.projection(shaped(x, C), C).jacobian(selection)
    V = J.toarray()
    assert np.abs(V - V.swapaxes(-1, -2)).max() <= 1e-12
    assert np.abs(V @ V - V).max() <= 1e-12
    assert np.array_equal(np.rint(np.trace(V, axis1=-2, axis2=-1)), J.rank)
    assert np.abs(np.trace(V, axis1=-2, axis2=-1) - J.rank).max() <= 1e-9
    rows = C.to_polyhedron()
    if rows.A_eq is not None and len(rows.A_eq):
        unit = rows.A_eq / np.maximum(np.linalg.norm(rows.A_eq, axis=1, keepdims=True), 1e-300)
        assert np.abs(V @ unit.T).max() <= 1e-12


@sets
def test_selections_are_nested_and_of_the_stated_rank(C):
    record = hsref.projection(shaped(points(C), C), C)
    rank = [record.jacobian(s).rank for s in SELECTIONS]
    assert np.all(rank[0] <= rank[1])
    assert np.all(rank[1] <= rank[2])
    for small, large in ((record.support, record.working_set), (record.working_set, record.active)):
        for a, b in zip(small, large, strict=True):
            assert not np.any(a & ~b)


@sets
@pytest.mark.parametrize("selection", SELECTIONS)
def test_every_selection_is_an_element_of_the_hs_jacobian(C, selection):
    x = shaped(points(C, seed=1), C)[:24]
    x = x[np.abs(x.reshape(len(x), -1)).max(axis=1) < 1e3]
    V = hsref.projection(x, C).jacobian(selection).toarray()
    checked = 0
    for i in range(len(x)):
        try:
            pairs = hsref.hs_jacobian_set(x[i], C, max_rows=9)
        except ValueError:
            continue
        assert min(np.abs(V[i] - W).max() for _, W in pairs) <= 1e-8
        checked += 1
    assert checked > 0


@sets
def test_a_point_of_the_set_is_its_own_projection(C):
    inside = C.interior_point()
    assert C.contains(inside)
    y = hsref.project(inside, C)
    assert np.abs(y - inside).max() <= 1e-14 * (1.0 + np.abs(inside).max())
    x = points(C)
    y = hsref.project(shaped(x, C), C)
    assert np.all(C.contains(y, tol=1e-9))
    again = hsref.project(y, C)
    assert np.all(np.abs(again - y).reshape(len(x), -1).max(axis=1) <= 1e-14 * size(x))


@sets
def test_interior_point_and_dimension(C):
    point, dim = relative_interior(C.to_polyhedron())
    assert C.dim == dim
    assert hsref.project(C.interior_point(), C) is not None
    assert hsref.projection(C.interior_point(), C).rank == dim
    del point


@sets
def test_same_bits_alone_and_in_any_batch(C):
    x = shaped(points(C), C)
    y = hsref.project(x, C, n_threads=1)
    V = hsref.projection(x, C, n_threads=1).jacobian() @ x
    for i in range(0, len(x), 7):
        assert np.array_equal(hsref.project(x[i], C), y[i])
        assert np.array_equal(hsref.projection(x[i], C).jacobian() @ x[i], V[i])
    many = np.concatenate([x] * 40)
    assert np.array_equal(hsref.project(many, C, n_threads=3)[-len(x) :], y)
    assert np.array_equal(hsref.project(x[::-1], C)[::-1], y)
    assert np.array_equal(hsref.project(x[:, None], C)[:, 0], y)


@sets
def test_dtype_and_read_only_input(C):
    x = shaped(points(C), C)
    x.flags.writeable = False
    single = x.astype(np.float32)
    single.flags.writeable = False
    record = hsref.projection(single, C)
    assert record.y.dtype == np.float32
    assert (record.jacobian() @ single).dtype == np.float32
    assert record.multipliers.lower.dtype == np.float32
    y = hsref.project(single.astype(np.float64), C)
    error = np.abs(record.y - y).reshape(len(x), -1).max(axis=1)
    assert np.all(error <= 1e-6 * size(single))
    whole = np.rint(np.clip(x, -9, 9)).astype(int)
    assert hsref.project(whole, C).dtype == np.float64


@sets
def test_local_exactness(C):
    # Π(y) - Π(x) = V (y - x) for V at y, when y is near x.
    rng = np.random.default_rng(5)
    x = points(C, seed=2)
    x = x[np.abs(x).max(axis=1) < 20]
    near = x + 1e-4 * rng.normal(size=x.shape)
    record = hsref.projection(shaped(near, C), C)
    step = record.y - hsref.project(shaped(x, C), C)
    error = np.abs(step - record.jacobian() @ shaped(near - x, C)).reshape(len(x), -1).max(axis=1)
    # A kink can lie between x and y only if x was within 1e-3 of it without being on it.
    assert np.mean(error <= 1e-12 * size(x)) >= 0.8


@sets
def test_immutable_picklable_printable(C):
    with pytest.raises(AttributeError, match="immutable"):
        C.shape = (3,)
    twin = pickle.loads(pickle.dumps(C))
    x = shaped(points(C), C)
    assert np.array_equal(hsref.project(x, twin), hsref.project(x, C))
    assert np.array_equal(hsref.project(x, copy.deepcopy(C)), hsref.project(x, C))
    assert hash(C) == hash(C)
    assert type(C).__name__ in repr(C)
    record = hsref.projection(x, C)
    back = pickle.loads(pickle.dumps(record))
    assert np.array_equal(back.y, record.y)
    assert np.array_equal(back.jacobian() @ x, record.jacobian() @ x)
    assert type(C).forward_cost != "unstated"
    assert type(C).backward_cost != "unstated"


@sets
def test_records_and_jacobians_travel(C):
    x = shaped(points(C)[-12:], C)
    record = hsref.projection(x, C)
    J = record.jacobian("working")
    for copied in (lambda a: pickle.loads(pickle.dumps(a)), copy.deepcopy, copy.copy):
        again, operator = copied(record), copied(J)
        for name, part in record.multipliers._asdict().items():
            assert np.array_equal(getattr(again.multipliers, name), part)
        assert np.array_equal(again.active.lower, record.active.lower)
        assert operator.selection == "working"
        assert np.array_equal(operator.rank, J.rank)
        assert np.array_equal(operator @ x, J @ x)
        assert np.array_equal(operator.T @ x, J.T @ x)
    for one in (C, record, J):
        assert hash(one) == hash(one)
        assert one in {one}


@sets
def test_empty_batch_and_shapes(C):
    assert hsref.project(np.zeros((0, *C.shape)), C).shape == (0, *C.shape)
    assert hsref.project(np.zeros((2, 0, *C.shape)), C).shape == (2, 0, *C.shape)
    with pytest.raises(ValueError, match="shape"):
        hsref.project(np.zeros((*C.shape[:-1], C.shape[-1] + 1)), C)
    with pytest.raises(ValueError, match=r"finite.*nan"):
        hsref.project(np.full(C.shape, np.nan), C)


@sets
def test_gradients_in_both_modes(C):
    from autograd.core import make_jvp, make_vjp

    rng = np.random.default_rng(11)
    x = shaped(points(C)[-12:-6], C)
    u, v = rng.normal(size=x.shape), rng.normal(size=x.shape)
    pull, y = make_vjp(lambda z: hsref.project(z, C), x)
    push = make_jvp(lambda z: hsref.project(z, C), x)
    assert np.array_equal(y, hsref.project(x, C))
    assert np.array_equal(pull(u), hsref.projection(x, C).jacobian() @ u)
    assert np.abs(np.sum(pull(u) * v) - np.sum(u * push(v)[1])) <= 1e-10
