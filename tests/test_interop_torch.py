"""PyTorch: the same numbers as NumPy, every transformation, and a sentence instead of a guess."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import hsref
from interop_cases import (
    PEERS,
    REGIONS,
    ROWS,
    SIMPLEX,
    SMOOTH,
    TRIANGLE,
    Case,
    data_case,
    smooth_points,
    table,
)
from tolerances import assert_close

try:
    import torch
    from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap
except ModuleNotFoundError:
    # conftest.py skips and counts what is marked
    torch = None

pytestmark = [
    pytest.mark.torch,
    # PyTorch's own forward mode scripts its decompositions when first used
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
]
HERE = Path(__file__).parent


def tensor(array, **keywords):
    return torch.from_numpy(np.array(array)).requires_grad_(keywords.get("requires_grad", False))


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
    x = tensor(case.x, requires_grad=True)
    y = hsref.project(x, case.C)
    assert type(y) is torch.Tensor
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y.detach().numpy(), case.y)
    (vjp,) = torch.autograd.grad(y, x, tensor(case.g), retain_graph=True)
    assert vjp.dtype == x.dtype
    np.testing.assert_array_equal(vjp.numpy(), case.pull(case.g))
    value, tangent = jvp(lambda x: hsref.project(x, case.C), (x.detach(),), (tensor(case.g),))
    np.testing.assert_array_equal(value.numpy(), case.y)
    np.testing.assert_array_equal(tangent.numpy(), case.product(case.g))
    (first,) = torch.autograd.grad(torch.sin(y).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first, x, tensor(case.u))
    assert_close(second.numpy(), case.second_order(), "projector", dtype=case.dtype)


def test_plain_tensors_get_plain_values():
    x = tensor(np.random.default_rng(0).normal(size=(4, 3)))
    y = hsref.project(x, SIMPLEX)
    assert not y.requires_grad
    np.testing.assert_array_equal(y.numpy(), hsref.project(x.numpy(), SIMPLEX))
    with torch.no_grad():
        assert not hsref.project(x.requires_grad_(), SIMPLEX).requires_grad


@pytest.mark.parametrize("batched", [False, True])
def test_gradients_of_data_are_those_of_numpy(batched):
    C, x, g, data, wanted, moved = data_case(batched)
    names = ("x", *data)
    leaves = [tensor(v, requires_grad=True) for v in (x, *data.values())]

    def f(x, *values):
        return hsref.project(x, C, **dict(zip(data, values)))

    found = torch.autograd.grad(f(*leaves), leaves, tensor(g))
    for name, leaf, got in zip(names, leaves, found):
        assert got.shape == leaf.shape
        assert_close(got, wanted[name], "projector")
    plain = [leaf.detach() for leaf in leaves]
    tangents = (torch.zeros_like(plain[0]), *plain[1:])
    assert_close(jvp(f, tuple(plain), tangents)[1], moved, "projector")
    # in the dtype of each leaf
    single = plain[1].float().requires_grad_()
    (got,) = torch.autograd.grad(hsref.project(plain[0], C, b_ub=single).sum(), single)
    assert got.dtype == torch.float32


# -- transformations ------------------------------------------------------------------------------


@pytest.mark.parametrize("C", SMOOTH)
def test_gradcheck_and_gradgradcheck(C):
    def f(x):
        return torch.sin(hsref.project(torch.sin(x) + x, C))

    x = tensor(smooth_points(C, 2, through=lambda x: np.sin(x) + x), requires_grad=True)
    assert torch.autograd.gradcheck(f, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(f, x, check_fwd_over_rev=True, check_rev_over_rev=True)


@pytest.mark.parametrize("selection", ["active", "working", "support"])
def test_jacobians_by_every_route(selection):
    def f(x):
        return hsref.project(x, SIMPLEX, selection=selection)

    # the last two are kinks: on the set's boundary, and at a vertex
    x = np.array([[0.6, 0.8, -1.0], [0.2, 0.1, 0.4], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    V = hsref.projection(x, SIMPLEX).jacobian(selection).toarray()
    t = tensor(x)
    for transform in (jacrev, jacfwd):
        np.testing.assert_array_equal(vmap(transform(f))(t), V)
        whole = transform(f)(t)
        np.testing.assert_array_equal(torch.einsum("bibj->bij", whole), V)
        np.testing.assert_array_equal(transform(vmap(f))(t), whole)


def test_maps_nest_in_any_order():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4, 5, 3))
    V, t = hsref.projection(x, SIMPLEX).jacobian().toarray(), tensor(x)

    def f(x):
        return hsref.project(x, SIMPLEX)

    outer = vmap(vmap(f), in_dims=1, out_dims=1)
    np.testing.assert_array_equal(outer(t), f(t))
    np.testing.assert_array_equal(vmap(vmap(jacrev(f)), in_dims=1, out_dims=1)(t), V)
    np.testing.assert_array_equal(vmap(vmap(jacfwd(f)), in_dims=1, out_dims=1)(t), V)
    np.testing.assert_array_equal(vmap(f, in_dims=2)(t.movedim(0, 2)), f(t))
    by_sample = torch.einsum("bkicj->bckij", vmap(jacrev(f))(t)[:, :, :, :, :])
    np.testing.assert_array_equal(torch.einsum("bkkij->bkij", by_sample), V)


def test_hessians_by_every_route():
    def loss(x):
        return (torch.sin(hsref.project(x, SIMPLEX)) ** 2).sum()

    x = tensor(smooth_points(SIMPLEX, 3))
    wanted = torch.autograd.functional.hessian(loss, x)
    for transform in (
        hessian, lambda f: jacrev(jacrev(f)), lambda f: jacrev(jacfwd(f)),
        lambda f: jacfwd(jacfwd(f)),
    ):  # fmt: skip
        assert_close(transform(loss)(x), wanted, "projector")
    assert_close(vmap(hessian(loss))(x), torch.einsum("bibj->bij", wanted), "projector")


def test_mapped_data_meets_the_batch_axes_of_x():
    rng = np.random.default_rng(2)
    x, totals = rng.normal(size=(4, 2, 3)), rng.uniform(0.5, 2.0, size=4)
    t, s = tensor(x), tensor(totals)

    def f(x, total):
        return hsref.project(x, SIMPLEX, total=total)

    wanted = np.stack([hsref.project(a, SIMPLEX, total=b) for a, b in zip(x, totals)])
    np.testing.assert_array_equal(vmap(f)(t, s), wanted)
    shared = np.stack([hsref.project(x[0], SIMPLEX, total=b) for b in totals])
    np.testing.assert_array_equal(vmap(f, in_dims=(None, 0))(t[0], s), shared)
    np.testing.assert_array_equal(
        vmap(f, in_dims=(0, None))(t, s[0]), hsref.project(x, SIMPLEX, total=totals[0])
    )
    # rows: two axes of their own
    b = rng.uniform(0.2, 1.0, size=(4, 1))
    got = vmap(lambda x, b: hsref.project(x, ROWS, b_ub=b))(t, tensor(b))
    wanted = np.stack([hsref.project(p, ROWS, b_ub=q) for p, q in zip(x, b)])
    np.testing.assert_array_equal(got, wanted)


def test_data_gradients_map_and_nest():
    rng = np.random.default_rng(4)
    x, b = tensor(rng.normal(size=(4, 3))), tensor(rng.uniform(0.8, 1.2, size=(4, 1)))
    lower = torch.tensor(-0.5, dtype=torch.float64)

    def f(x, b, lower):
        return torch.sin(hsref.project(x, ROWS, b_eq=b, lower=lower))

    arg, dims = (0, 1, 2), (0, 0, None)
    each = [torch.autograd.functional.jacobian(f, (x[k], b[k], lower)) for k in range(4)]
    for transform in (jacrev, jacfwd):
        found = vmap(transform(f, argnums=arg), in_dims=dims)(x, b, lower)
        for k, got in enumerate(found):
            assert_close(got, torch.stack([one[k] for one in each]), "projector")

    def loss(*args):
        return (f(*args) ** 2).sum()

    wanted = torch.autograd.functional.hessian(loss, (x, b, lower))
    for found in (
        hessian(loss, argnums=arg)(x, b, lower),
        jacrev(jacrev(loss, argnums=arg), argnums=arg)(x, b, lower),
    ):
        for i in arg:
            for j in arg:
                assert_close(found[i][j], wanted[i][j], "projector")


def test_gradcheck_in_data():
    x = tensor(smooth_points(ROWS, 2), requires_grad=True)
    b = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    e = torch.tensor([[1.0], [1.1]], dtype=torch.float64, requires_grad=True)

    def f(x, b, e):
        return torch.sin(hsref.project(x, ROWS, b_ub=b, b_eq=e))

    assert torch.autograd.gradcheck(f, (x, b, e), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(f, (x, b, e), check_fwd_over_rev=True)


def test_second_derivatives_in_matrices_are_refused():
    A = torch.tensor([[1.0, 2.0, -1.0]], dtype=torch.float64)
    x = tensor(smooth_points(ROWS, 2))

    def loss(x, A):
        return (torch.sin(hsref.project(x, ROWS, A_ub=A)) ** 2).sum()

    assert grad(loss, argnums=1)(x, A).shape == A.shape
    assert hessian(loss)(x, A).shape == (2, 3, 2, 3)
    leaf = A.clone().requires_grad_()
    (first,) = torch.autograd.grad(loss(x, leaf), leaf, create_graph=True)
    for wrong in (
        lambda: torch.autograd.grad(first.sum(), leaf),
        lambda: hessian(loss, argnums=1)(x, A),
        lambda: jacrev(lambda A: grad(loss)(x, A))(A),
        lambda: jacfwd(lambda A: jacfwd(loss)(x, A))(A),
    ):
        with pytest.raises(NotImplementedError, match="second derivatives are not available"):
            wrong()


@pytest.mark.parametrize("peer", PEERS)
def test_examples_of_peers(peer):
    problem = peer()
    leaves = [tensor(v, requires_grad=True) for v in problem.values]
    y = problem.solve(*leaves)
    assert_close(y.detach(), problem.y, "planted")
    found = torch.autograd.grad(y, leaves, tensor(problem.g))
    for got, wanted in zip(found, problem.cotangents):
        assert_close(got, wanted, "planted")


@pytest.mark.parametrize("what", ["grad", "jacobian", "hessian", "jvp", "grad of grad"])
def test_one_solve_a_derivative(what, solves):
    x = tensor(smooth_points(SIMPLEX, 3))
    solves.clear()

    def loss(x):
        return torch.sin(hsref.project(x, SIMPLEX)).sum()

    if what == "grad":
        grad(loss)(x)
    elif what == "jacobian":
        jacrev(lambda x: hsref.project(x, SIMPLEX))(x)
    elif what == "hessian":
        hessian(loss)(x)
    elif what == "jvp":
        jvp(loss, (x,), (x,))
    else:
        grad(lambda x: grad(loss)(x).sum())(x)
    assert len(solves) == 1


@pytest.mark.parametrize(("point", "jacobian"), REGIONS)
def test_triangle_region_by_region(point, jacobian):
    got = jacrev(lambda x: hsref.project(x, TRIANGLE))(torch.tensor(point, dtype=torch.float64))
    assert_close(got, jacobian, "projector")


# -- the graph ------------------------------------------------------------------------------------


def test_later_writes_change_no_gradient():
    x = torch.tensor([0.6, 0.8, -1.0], dtype=torch.float64)
    leaf = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    shifted = x + leaf
    y = hsref.project(shifted, SIMPLEX)
    g = torch.tensor([1.0, 0.0, 5.0], dtype=torch.float64)
    loss = (y * g).sum()
    with torch.no_grad():
        shifted.fill_(7.0)
    loss.backward()
    assert leaf.grad.tolist() == [0.5, -0.5, 0.0]
    z = hsref.project(x + leaf, SIMPLEX)
    z.mul_(2.0)
    (got,) = torch.autograd.grad(z, leaf, g)
    assert got.tolist() == [1.0, -1.0, 0.0]


def test_records_are_freed_with_the_graph():
    from hsref.interop import torch as bridge

    gc.collect()
    before = len(bridge._OWNERS)
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    y = hsref.project(x, SIMPLEX)
    assert len(bridge._OWNERS) == before + 1
    y.sum().backward()
    # the graph gave up its saved tensors, though y is alive
    assert len(bridge._OWNERS) == before
    with pytest.raises(RuntimeError, match="second time"):
        y.sum().backward()


def test_copied_tickets_are_not_mistaken_for_records():
    x = torch.tensor([0.6, 0.8, -1.0], dtype=torch.float64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t):
        y = hsref.project(x, SIMPLEX)
    gc.collect()
    with pytest.raises(RuntimeError, match="record of this projection was lost"):
        y[0].backward()


def test_checkpointing_solves_again():
    from torch.utils.checkpoint import checkpoint

    x = tensor(smooth_points(SIMPLEX, 3), requires_grad=True)

    def f(x):
        return torch.sin(hsref.project(x, SIMPLEX))

    (wanted,) = torch.autograd.grad(f(x).sum(), x)
    (got,) = torch.autograd.grad(checkpoint(f, x, use_reentrant=False).sum(), x)
    assert torch.equal(got, wanted)


def test_expanded_and_strided_tensors():
    for x in (
        torch.randn(3, 4, dtype=torch.float64).T,
        torch.randn(6, dtype=torch.float64)[::2],
        torch.ones(1, dtype=torch.float64).expand(4, 3),
        torch.randn(3, dtype=torch.complex128).conj().imag,
    ):
        leaf = x.clone().requires_grad_()
        got = hsref.project(x, SIMPLEX)
        np.testing.assert_array_equal(got, hsref.project(x.clone().numpy(), SIMPLEX))
        hsref.project(leaf, SIMPLEX).sum().backward()


# -- torch.compile --------------------------------------------------------------------------------


@pytest.fixture
def compiled():
    torch._dynamo.reset()
    yield lambda f, fullgraph=True: torch.compile(f, backend="aot_eager", fullgraph=fullgraph)
    torch._dynamo.reset()


def test_compiled_whole_graph(compiled):
    def f(x):
        return torch.sin(hsref.project(torch.sin(x) + x, SIMPLEX))

    g = compiled(f)
    for rows in (2, 3, 4):
        x = torch.randn(rows, 3, dtype=torch.float64, requires_grad=True)
        got, wanted = g(x), f(x)
        assert torch.equal(got, wanted)
        (a,), (b,) = (torch.autograd.grad((y**2).sum(), x) for y in (got, wanted))
        assert torch.equal(a, b)
    with torch.no_grad():
        assert torch.equal(g(x), f(x))
    with pytest.raises(ValueError, match="x must be finite"):
        g(x * torch.nan)


def test_compiled_set_and_options_are_not_mixed_up(compiled):
    g = compiled(lambda x, C, **keywords: hsref.project(x, C, **keywords))
    x = torch.tensor([[0.5, 0.5, 0.0], [3.0, 1.0, -2.0]], dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([[1.0, 2.0, 4.0]], dtype=torch.float64)
    for C in (hsref.Simplex(3), hsref.Box(0.0, 0.5, n=3), hsref.Simplex(3, total=2.0)):
        for selection in ("active", "support"):
            got = g(x, C, selection=selection)
            wanted = hsref.project(x, C, selection=selection)
            assert torch.equal(got, wanted)
            (a,), (b,) = (torch.autograd.grad((y * weights).sum(), x) for y in (got, wanted))
            assert torch.equal(a, b)


def test_compiled_data_and_modules(compiled):
    from hsref.interop.torch import Projection

    x = torch.randn(4, 3, dtype=torch.float64)
    totals = torch.rand(4, dtype=torch.float64) + 0.5
    g = compiled(lambda x, t: hsref.project(x, SIMPLEX, total=t, n_threads=1))
    assert torch.equal(g(x, totals), hsref.project(x, SIMPLEX, total=totals))
    assert torch.equal(g(x, 2.0), hsref.project(x, SIMPLEX, total=2.0))
    totals.requires_grad_()
    (got,) = torch.autograd.grad((g(x, totals) ** 2).sum(), totals)
    (wanted,) = torch.autograd.grad((hsref.project(x, SIMPLEX, total=totals) ** 2).sum(), totals)
    assert torch.equal(got, wanted)
    layer = torch.nn.Sequential(torch.nn.Linear(3, 3), Projection(SIMPLEX))
    assert torch.equal(compiled(layer)(x.float()), layer(x.float()))


def test_compiled_maps(compiled):
    x = torch.randn(4, 3, dtype=torch.float64)

    def f(x):
        return torch.sin(hsref.project(x, SIMPLEX))

    assert torch.equal(compiled(lambda x: vmap(f)(x))(x), f(x))
    torch._dynamo.reset()
    x.requires_grad_()
    (got,) = torch.autograd.grad((compiled(lambda x: vmap(f)(x))(x) ** 2).sum(), x)
    assert torch.equal(got, torch.autograd.grad((f(x) ** 2).sum(), x)[0])
    torch._dynamo.reset()
    # a limit of PyTorch's operators, met with an error and not with a zero
    with pytest.raises(RuntimeError, match="functorch"):
        compiled(lambda x: grad(lambda x: f(x).sum())(x))(x.detach())


@pytest.mark.parametrize("fullgraph", [True, False])
def test_compiled_forward_mode_is_right_or_refused(compiled, fullgraph):
    x, v = tensor(smooth_points(SIMPLEX, 2)), torch.ones(2, 3, dtype=torch.float64)
    v[:, 1:] = 0.0

    def f(x):
        return torch.sin(hsref.project(x, SIMPLEX))

    wanted = jvp(f, (x,), (v,))[1]
    assert wanted.abs().max() > 0.1
    for attempt in (
        lambda: compiled(lambda x: jvp(f, (x,), (v,))[1], fullgraph)(x),
        lambda: jvp(compiled(f, fullgraph), (x,), (v,))[1],
    ):
        torch._dynamo.reset()
        if fullgraph:
            with pytest.raises((RuntimeError, NotImplementedError), match=r"jvp|forward mode"):
                attempt()
        else:
            assert torch.equal(attempt(), wanted)


# -- keywords and refusals ------------------------------------------------------------------------


def test_keywords_mean_what_they_mean_in_numpy():
    rng = np.random.default_rng(3)
    x, b_ub = rng.normal(size=(4, 3)), rng.uniform(0.2, 1.0, size=(4, 1))
    t = tensor(x, requires_grad=True)
    y = hsref.project(t, ROWS, b_ub=tensor(b_ub), n_threads=2)
    np.testing.assert_array_equal(y.detach(), hsref.project(x, ROWS, b_ub=b_ub))
    start = hsref.projection(x, ROWS)
    y = hsref.project(t, ROWS, start=start)
    assert_close(y.detach(), start.y, "agree")
    empty = hsref.Polyhedron(A_ub=[[1.0, 0.0], [-1.0, 0.0]], b_ub=[1.0, 1.0])
    b = torch.tensor([[1.0, 1.0], [1.0, -2.0]])
    t = torch.tensor([[3.0, 1.0], [3.0, 1.0]], requires_grad=True)
    with pytest.raises(hsref.InfeasibleError, match=re.escape("sample (1,)")) as caught:
        hsref.project(t, empty, b_ub=b)
    assert caught.value.certificate is not None
    y = hsref.project(t, empty, b_ub=b, on_infeasible="nan")
    torch.nan_to_num(y).sum().backward()
    assert t.grad.tolist() == [[0.0, 1.0], [0.0, 0.0]]


def test_whole_numbers_become_float64():
    y = hsref.project(torch.tensor([1, 2, 3]), SIMPLEX)
    assert y.dtype == torch.float64
    assert y.tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda t: t.bfloat16(), TypeError, r"bfloat16, too coarse.*x\.float\(\)"),
        (lambda t: t.half(), TypeError, r"float16, too coarse"),
        (lambda t: t.to(torch.complex64), TypeError, "float32 or float64"),
        (lambda t: t > 0, TypeError, "float32 or float64"),
        (lambda t: t.to_sparse(), TypeError, r"to_dense\(\)"),
        (lambda t: t.to("meta"), TypeError, "device meta"),
        (lambda t: t * torch.nan, ValueError, "x must be finite"),
        (lambda t: t[..., :2], ValueError, r"shape \(4, 2\)"),
        (lambda t: list(t), TypeError, "stack"),
    ],
)
@pytest.mark.parametrize("wants", [False, True])
def test_bad_input_gets_a_sentence(make, error, sentence, wants):
    x = make(torch.randn(4, 3))
    if wants and isinstance(x, torch.Tensor) and x.is_floating_point() and x.is_leaf:
        x.requires_grad_()
    with pytest.raises(error, match=sentence):
        hsref.project(x, SIMPLEX)


def test_bad_options_get_their_sentence():
    x = torch.randn(4, 3, requires_grad=True)
    with pytest.raises(ValueError, match="selection must be one of"):
        hsref.project(x, SIMPLEX, selection="best")
    with pytest.raises(TypeError, match="C must be a set"):
        hsref.project(x, torch.nn.Identity())
    with pytest.raises(TypeError, match="no parameter 'radius'"):
        hsref.project(x, SIMPLEX, radius=torch.tensor(1.0))


def test_nothing_is_mixed_silently():
    from autograd import grad as autograd_grad

    x, t = np.ones(3), torch.ones(3)
    with pytest.raises(TypeError, match="total is a PyTorch array and x is not"):
        hsref.project(x, SIMPLEX, total=torch.tensor(2.0))
    with pytest.raises(TypeError, match="carries gradients"):
        autograd_grad(lambda s: float(hsref.project(t, SIMPLEX, total=s).sum()))(2.0)
    with pytest.raises(TypeError, match="projection\\(\\) makes a plain record"):
        hsref.projection(t, SIMPLEX)
    with pytest.raises(TypeError, match="total is a tensor on meta"):
        hsref.project(t, SIMPLEX, total=torch.ones((), device="meta"))
    with pytest.raises(TypeError, match="total must be real"):
        hsref.project(t, SIMPLEX, total=torch.tensor(True))
    # plain numbers and arrays are data in any framework
    y = hsref.project(t, SIMPLEX, total=np.float64(2.0))
    assert y.dtype == torch.float32
    assert y.sum() == 2.0


def test_autocast():
    layer = torch.nn.Linear(3, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = layer(torch.randn(4, 3))
        assert hidden.dtype == torch.bfloat16
        with pytest.raises(TypeError, match="under autocast"):
            hsref.project(hidden, SIMPLEX)
        y = hsref.project(hidden.float(), SIMPLEX)
        assert y.dtype == torch.float32
        (y**2).sum().backward()
    assert layer.weight.grad.abs().max() > 0


def test_old_versions_are_refused():
    from hsref.interop._shared import require_version

    require_version("torch", "2.13.0+cpu")
    with pytest.raises(ImportError, match=r"torch 2\.4 or later, and found 2\.3\.1"):
        require_version("torch", "2.3.1+cu121")


# -- the layer ------------------------------------------------------------------------------------


def test_layer_copies_pickles_and_prints():
    from hsref.interop.torch import Projection

    layer = torch.nn.Sequential(torch.nn.Linear(3, 3), Projection(SIMPLEX, selection="support"))
    assert list(layer.state_dict()) == ["0.weight", "0.bias"]
    assert repr(layer[1]) == "Projection(Simplex(3, total=1), selection='support')"
    x = torch.randn(4, 3)
    again = copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))
    for other in again:
        assert torch.equal(other(x), layer(x))
        other.load_state_dict(layer.state_dict())
    assert layer.double()(x.double()).dtype == torch.float64
    with pytest.raises(TypeError, match="no parameter 'radius'"):
        Projection(SIMPLEX, radius=1.0)
    with pytest.raises(TypeError, match="start belongs to one batch"):
        Projection(SIMPLEX, start=None)
    with pytest.raises(TypeError, match="C must be a set"):
        Projection(3)


def test_layer_keeps_tensors_in_its_state():
    from hsref.interop.torch import Projection

    layer = Projection(SIMPLEX, total=torch.tensor(2.0))
    assert list(layer.state_dict()) == ["total"]
    assert "total=" in repr(layer)
    x = torch.randn(4, 3)
    assert torch.equal(layer(x), hsref.project(x, SIMPLEX, total=2.0))
    assert torch.equal(layer(x, total=3.0), hsref.project(x, SIMPLEX, total=3.0))
    assert torch.equal(Projection(SIMPLEX, total=2.0)(x), layer(x))
    learnt = Projection(SIMPLEX, total=torch.nn.Parameter(torch.tensor(2.0)))
    (learnt(x) ** 2).sum().backward()
    assert learnt.total.grad is not None
    assert learnt.total.grad != 0.0


# -- other processes, other devices ---------------------------------------------------------------


def script(name: str, **environment: str) -> None:
    env = {k: v for k, v in os.environ.items() if k != "NUMBA_ENABLE_CUDASIM"} | environment
    done = subprocess.run(
        [sys.executable, str(HERE / name)], env=env, capture_output=True, text=True, timeout=600,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_workers_and_ranks_see_the_same_numbers():
    script("torch_workers.py")


def test_device_path_in_the_simulator():
    script("torch_simulator.py", NUMBA_ENABLE_CUDASIM="1")
