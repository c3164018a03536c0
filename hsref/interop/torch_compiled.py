"""PyTorch inside ``torch.compile``: the projection and its product as operators of the graph.

A compiled graph carries tensors, numbers and strings. The set travels as its name, the options as
a string, the record as the ticket of :mod:`hsref.interop.torch`. Should the compiler have copied
the ticket, and so lost the record, the product solves again from the same numbers: the same bits.

``torch.func.vmap`` inside a compiled function works; ``torch.func.grad`` and its kin there meet a
limit of PyTorch's custom operators, and raise its error. Outside, or uncompiled, they work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

import hsref
from hsref.sets.naming import set_of

from .torch import _Call, lift, pull_tensors, redeem, with_axis

SEPARATOR = "|"


def _call(spec: str, names: str) -> _Call:
    key, selection, on_infeasible, threads, device, degenerate = spec.split(SEPARATOR)
    options = {
        "selection": selection,
        "on_infeasible": on_infeasible,
        "n_threads": int(threads) if threads else None,
        "device": device or None,
        "degenerate_data": degenerate,
        "start": None,
    }
    return _Call(set_of(key), options, {}, tuple(names.split()))


@torch.library.custom_op("hsref::project", mutates_args=())
def solve(x: Tensor, data: list[Tensor], spec: str, names: str) -> tuple[Tensor, Tensor]:
    """Return the projection and the ticket of its record."""
    return _call(spec, names).solve(x, tuple(data))


@solve.register_fake
def _(x: Tensor, data: list[Tensor], spec: str, names: str) -> tuple[Tensor, Tensor]:
    batch = x.shape[: x.ndim - len(_call(spec, names).C.shape)]
    return x.new_empty(x.shape), x.new_empty((), dtype=torch.int64, device="cpu").expand(batch)


@solve.register_vmap
def _(info: Any, in_dims: Any, x: Tensor, data: list[Tensor], spec: str, names: str) -> Any:
    x, data = _with_axes(info.batch_size, in_dims[0], in_dims[1], x, data, spec, names)
    return solve(x, data, spec, names), (0, 0)


def _with_axes(
    size: int, at: Any, ats: Any, x: Tensor, data: Any, spec: str, names: str
) -> tuple[Tensor, list[Tensor]]:
    """Return x and its data with the mapped axis in front of each."""
    x = with_axis(x, at, size)
    return x, lift(_call(spec, names), x.ndim, data, ats or [None] * len(data))


@torch.library.custom_op("hsref::project_value", mutates_args=())
def value(x: Tensor, data: list[Tensor], spec: str, names: str) -> Tensor:
    """Return the projection alone."""
    return _call(spec, names).value(x, tuple(data))


@value.register_fake
def _(x: Tensor, data: list[Tensor], spec: str, names: str) -> Tensor:
    return x.new_empty(x.shape)


@value.register_vmap
def _(info: Any, in_dims: Any, x: Tensor, data: list[Tensor], spec: str, names: str) -> Any:
    x, data = _with_axes(info.batch_size, in_dims[0], in_dims[1], x, data, spec, names)
    return value(x, data, spec, names), 0


@torch.library.custom_op("hsref::pull", mutates_args=())
def pull(
    g: Tensor, token: Tensor, x: Tensor, data: list[Tensor], spec: str, names: str, wanted: str
) -> list[Tensor]:
    """Return the cotangents of x and of the wanted parameters for the record of x."""
    call = _call(spec, names)
    J = redeem(token)
    if J is None:
        J = redeem(call.solve(x, tuple(data))[1])
    asked = wanted.split()
    shapes = [d.shape for d in data]
    plan = call.plan(True, [name in asked for name in call.names], shapes)
    return list(pull_tensors(J, g, plan))


@pull.register_fake
def _(
    g: Tensor, token: Tensor, x: Tensor, data: list[Tensor], spec: str, names: str, wanted: str
) -> list[Tensor]:
    asked = wanted.split()
    parts = [d.new_empty(d.shape) for name, d in zip(names.split(), data) if name in asked]
    return [g.new_empty(g.shape), *parts]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, data, ctx.spec, ctx.names = inputs
    ctx.wanted = " ".join(n for n, d in zip(ctx.names.split(), data) if d.requires_grad)
    ctx.save_for_backward(output[1], x, *data)


def _backward(ctx: Any, grad: Tensor, _: Any) -> Any:
    token, x, *data = ctx.saved_tensors
    first, *rest = pull(grad, token, x, data, ctx.spec, ctx.names, ctx.wanted)
    found = iter(rest)
    asked = ctx.wanted.split()
    return first, [next(found) if n in asked else None for n in ctx.names.split()], None, None


solve.register_autograd(_backward, setup_context=_keep)


def project(
    x: Tensor,
    C: Any,
    options: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    fixed: Mapping[str, Any],
) -> Tensor:
    """Project inside a graph that is being compiled."""
    if not isinstance(C, hsref.PolyhedralSet):
        raise TypeError("C must be a set such as hsref.Simplex(3).")
    if options["start"] is not None:
        raise TypeError(
            "start is a record, which a compiled graph cannot carry: call project outside "
            "torch.compile to start from one."
        )
    given = dict(tensors)
    for name, number in fixed.items():
        given[name] = torch.as_tensor(number, dtype=x.dtype)
    names = " ".join(given)
    spec = SEPARATOR.join(
        (
            C._key, options["selection"], options["on_infeasible"],
            str(options["n_threads"] or ""), options["device"] or "", options["degenerate_data"],
        )
    )  # fmt: skip
    data = list(given.values())
    if torch.autograd.forward_ad._current_level >= 0:
        raise NotImplementedError(
            "forward mode through hsref.project inside torch.compile is not available, and "
            "PyTorch would drop the tangent: take the derivative outside of the compiled function."
        )
    # Under a transformation of torch.func, requires_grad says nothing: keep a record all the same.
    if not torch.is_grad_enabled():
        return value(x, data, spec, names)
    return solve(x, data, spec, names)[0]
