r"""PyTorch: tensors in, tensors out, differentiable to any order.

:func:`hsref.project` comes here when `x` is a tensor. The solve runs on the memory of the tensor
itself (CPU), or on its device (CUDA, on PyTorch's current stream); its record stays with the graph
until the graph is freed, and neither a derivative nor a derivative of one ever solves again.

.. math:: \text{push}(dx, dc) = V dx + M_K^+ dc_K, \qquad \text{pull}(g) = (V^T g, (M_K^+)^T g)

Each of the two linear maps is the derivative of the other, so that ``torch.autograd``,
``torch.func`` (``grad``, ``vjp``, ``jvp``, ``jacrev``, ``jacfwd``, ``hessian``, ``vmap``, in any
nesting) and ``gradgradcheck`` work. They are constant near almost every (x, right-hand sides), but
not in the matrices ``A_ub, A_eq, H``: second derivatives where those carry gradients are refused.
Inside ``torch.compile`` the same maps are operators of the graph
(:mod:`hsref.interop.torch_compiled`); forward mode is refused there, because PyTorch drops the
tangents of custom operators without a word.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Mapping
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

try:
    import torch
    from torch import Tensor
except ImportError as problem:
    from ._shared import MISSING

    raise ImportError(MISSING.format("torch", problem)) from problem

import hsref

from ._shared import (
    SECOND_ORDER,
    Plan,
    lifted_shape,
    matrices_among,
    own_axes,
    pull_arrays,
    push_arrays,
    require_rules,
    require_version,
)

require_version("torch", torch.__version__)

HALVES = (torch.float16, torch.bfloat16)


# -- records on their way through a graph ---------------------------------------------------------


class _Owner(np.ndarray):
    """One number that names a record, and the record: both live as long as the tensor over it."""

    jacobian: Any


_NUMBERS = itertools.count(1)
_OWNERS: WeakValueDictionary[int, _Owner] = WeakValueDictionary()


def ticket(jacobian: Any, batch_shape: tuple[int, ...]) -> Tensor:
    """Return a tensor of the batch's shape that keeps `jacobian` alive and finds it again.

    A graph saves tensors, frees them after the backward pass, and gives them batch axes under
    ``vmap``: all that a record needs, if a tensor stands for it.
    """
    owner = np.full((), next(_NUMBERS), np.int64).view(_Owner)
    owner.jacobian = jacobian
    _OWNERS[int(owner)] = owner
    return torch.from_numpy(owner).expand(batch_shape)


def redeem(token: Tensor) -> Any:
    """Return the element of the HS-Jacobian a ticket stands for; None when it is gone or empty."""
    if token.numel() == 0:
        return None
    owner = _OWNERS.get(int(token[(0,) * token.ndim]))
    return None if owner is None else owner.jacobian


def _element(token: Tensor) -> Any:
    """Return the element behind a ticket, or raise the sentence that says how it was lost."""
    J = redeem(token)
    if J is None and token.numel():
        raise RuntimeError(
            "the record of this projection was lost between the forward and the backward pass "
            "(its saved tensor was copied by a hook); project again inside the backward pass, for "
            "instance with torch.utils.checkpoint."
        )
    return J


def as_numpy(x: Tensor) -> np.ndarray:
    """Return the memory of a CPU tensor as an array; no copy unless a sign is pending."""
    return x.detach().resolve_neg().numpy()


def pull_tensors(J: Any, g: Tensor, plan: Plan) -> tuple[Tensor, ...]:
    """Return the cotangents that the plan asks for; J is None for an empty batch."""
    if J is None:
        lead = g.shape[: g.ndim - 1 - plan.axes]
        zeros = [torch.zeros_like(g)] if plan.x else []
        return (*zeros, *(g.new_zeros((*lead, *s), device="cpu") for s in plan.shapes))
    if g.is_cuda:
        from .torch_cuda import pull

        return pull(J, g, plan)
    return tuple(torch.from_numpy(part) for part in pull_arrays(J, as_numpy(g), plan))


def push_tensors(J: Any, token: Tensor, tangents: tuple[Tensor, ...], plan: Plan) -> Tensor:
    """Return the change of y along the tangents that the plan names."""
    if J is None:
        own = token.ndim + plan.axes if plan.x else len(plan.shapes[0])
        lead = tangents[0].shape[: tangents[0].ndim - own]
        return tangents[0].new_zeros((*lead, *token.shape, *plan.point))
    if hasattr(J.record, "to_host"):
        from .torch_cuda import push

        return push(J, tangents, plan)
    return torch.from_numpy(push_arrays(J, [as_numpy(t) for t in tangents], plan))


# -- the derivative -------------------------------------------------------------------------------


class Pull(torch.autograd.Function):
    """(plan, g, ticket, matrices...) -> cotangents; linear in g."""

    @staticmethod
    def forward(plan: Plan, g: Tensor, token: Tensor, *matrices: Tensor) -> tuple[Tensor, ...]:
        """Pull back."""
        return pull_tensors(_element(token), g, plan)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep the ticket."""
        ctx.plan, _, token, *matrices = inputs
        ctx.wanted, ctx.sizes = ctx.needs_input_grad[3:], [part.shape for part in output]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(token, *matrices)
        ctx.save_for_forward(token, *matrices)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Push forward: the transpose."""
        token, *matrices = ctx.saved_tensors
        rest = (None,) * (1 + len(matrices))
        if all(g is None for g in grads):
            return None, None, *rest
        refuse_second_order(ctx.wanted)
        full = fill(grads, ctx.sizes)
        return None, Push.apply(ctx.plan, token, len(full), *full, *matrices), *rest

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        """Pull the tangent back."""
        refuse_second_order(t is not None for t in tangents[3:])
        token, *matrices = ctx.saved_tensors
        return Pull.apply(ctx.plan, tangents[1], token, *matrices)

    @staticmethod
    def vmap(info: Any, in_dims: Any, plan: Plan, g: Tensor, token: Tensor, *rest: Tensor) -> Any:
        """Put the mapped axis where the record has it, or in front of everything."""
        matrices = _front(info.batch_size, in_dims[3:], rest)
        g, token, lead, batch = align(info.batch_size, in_dims[1], in_dims[2], g, token, plan.axes)
        if batch is None:
            found = Pull.apply(plan, g, token, *matrices)
        else:
            found = Pull.apply(plan.mapped(info.batch_size, batch), g, token, *matrices)
            kept = found[: int(plan.x)]
            found = (*kept, *(
                c.reshape(*c.shape[: lead + 1], *shape)
                for c, shape in zip(found[len(kept) :], plan.shapes)
            ))  # fmt: skip
        return found, (lead,) * len(found)


class Push(torch.autograd.Function):
    """(plan, ticket, how many tangents, tangents..., matrices...) -> dy; linear in the tangents."""

    @staticmethod
    def forward(plan: Plan, token: Tensor, count: int, *rest: Tensor) -> Tensor:
        """Push forward."""
        return push_tensors(_element(token), token, rest[:count], plan)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep the ticket."""
        ctx.plan, token, ctx.count, *rest = inputs
        ctx.wanted = ctx.needs_input_grad[3 + ctx.count :]
        ctx.sizes = [t.shape for t in rest[: ctx.count]]
        ctx.set_materialize_grads(False)
        matrices = rest[ctx.count :]
        ctx.save_for_backward(token, *matrices)
        ctx.save_for_forward(token, *matrices)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Pull back: the transpose."""
        token, *matrices = ctx.saved_tensors
        if grads[0] is None:
            return (None,) * (3 + ctx.count + len(matrices))
        refuse_second_order(ctx.wanted)
        found = Pull.apply(ctx.plan, grads[0], token, *matrices)
        return None, None, None, *found, *(None for _ in matrices)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        """Push the tangents of the tangents."""
        refuse_second_order(t is not None for t in tangents[3 + ctx.count :])
        token, *matrices = ctx.saved_tensors
        full = fill(tangents[3 : 3 + ctx.count], ctx.sizes)
        return Push.apply(ctx.plan, token, ctx.count, *full, *matrices)

    @staticmethod
    def vmap(info: Any, in_dims: Any, plan: Plan, token: Tensor, count: int, *rest: Tensor) -> Any:
        """As that of the transpose."""
        size, dims = info.batch_size, in_dims[3:]
        matrices = _front(size, dims[count:], rest[count:])
        tangents, lead = [], 0
        batch = token.ndim - (in_dims[1] is not None)
        own = [batch + plan.axes] * plan.x + [len(shape) for shape in plan.shapes]
        for t, at, axes in zip(rest, dims, own):
            # behind the axes that belong to several tangents a sample, which all have alike
            lead = t.ndim - (at is not None) - axes if in_dims[1] is not None else 0
            tangents.append(_put(t, at, lead, size))
        if in_dims[1] is not None:
            token, plan = token.movedim(in_dims[1], 0), plan.mapped(size, batch)
            places = range(plan.x, count)
            for k, shape in zip(places, plan.shapes):
                tangents[k] = tangents[k].reshape(*tangents[k].shape[:lead], *shape)
        return Push.apply(plan, token, count, *tangents, *matrices), lead


def fill(parts: Any, sizes: Any) -> list[Tensor]:
    """Return the parts, with zeros for those that are absent."""
    known = next(part for part in parts if part is not None)
    return [known.new_zeros(size) if p is None else p for p, size in zip(parts, sizes)]


def _put(t: Tensor, at: int | None, place: int, size: int) -> Tensor:
    """Return t with its mapped axis at `place`, repeated there when it has none."""
    if at is not None:
        return t.movedim(at, place)
    return t.unsqueeze(place).expand(*t.shape[:place], size, *t.shape[place:])


def _front(size: int, dims: Any, tensors: Any) -> list[Tensor]:
    """Return matrices, of which only their derivatives matter here, with mapped axes in front."""
    return [t if at is None else t.movedim(at, 0) for t, at in zip(tensors, dims)]


def align(
    size: int, g_dim: int | None, token_dim: int | None, g: Tensor, token: Tensor, axes: int
) -> tuple[Tensor, Tensor, int, int | None]:
    """Return g and ticket with the mapped axis placed, its place in g, and the old batch axes.

    A record made under this map has the axis in front of its batch: g must have it there too,
    behind axes that belong to several vectors a sample. Otherwise the axis is just one more of
    those, and the batch is as it was (None).
    """
    if token_dim is None:
        return _put(g, g_dim, 0, size), token, 0, None
    batch = token.ndim - 1
    lead = g.ndim - (g_dim is not None) - axes - batch
    return _put(g, g_dim, lead, size), token.movedim(token_dim, 0), lead, batch


def refuse_second_order(wanted: Any) -> None:
    """Raise when the derivative of a derivative is wanted in a matrix."""
    if any(wanted):
        raise NotImplementedError(SECOND_ORDER.format(names="A_ub, A_eq or H"))


# -- the projection -------------------------------------------------------------------------------


class _Call:
    """What one call of ``project`` fixes besides its tensors."""

    __slots__ = ("C", "data", "names", "options")

    def __init__(
        self, C: Any, options: Mapping[str, Any], data: Mapping[str, Any], names: tuple[str, ...]
    ) -> None:
        self.C, self.options, self.data, self.names = C, options, data, names

    def arguments(self, data: tuple[Tensor, ...]) -> dict[str, Any]:
        """Return the keywords of :func:`hsref.projection`."""
        given = {name: as_numpy(value) for name, value in zip(self.names, data)}
        return {**self.options, **self.data, **given}

    def plan(self, x: bool, wanted: Any, shapes: Any) -> Plan:
        """Return the plan of a derivative in x, or in the parameters marked as wanted."""
        kept = [(n, s) for n, s, w in zip(self.names, shapes, wanted) if w]
        names, own = tuple(n for n, _ in kept), tuple(tuple(s) for _, s in kept)
        axes = own_axes(self.C, names, [len(s) for s in own])
        return Plan(self.C.shape, x, names, own, axes, self.options["degenerate_data"])

    def solve(self, x: Tensor, data: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Return the projection and the ticket of its record."""
        keywords = self.arguments(data)
        if x.is_cuda:
            from .torch_cuda import solve

            y, J = solve(x, self.C, keywords)
        else:
            record = hsref.projection(as_numpy(x), self.C, **keywords)
            J = hsref.HSJacobian(record, record.selection, self.options["n_threads"])
            y = torch.from_numpy(record.y.copy())
        return y, ticket(J, x.shape[: x.ndim - len(self.C.shape)])

    def value(self, x: Tensor, data: tuple[Tensor, ...]) -> Tensor:
        """Return the projection alone."""
        keywords = self.arguments(data)
        if x.is_cuda:
            from .torch_cuda import value

            return value(x, self.C, keywords)
        return torch.from_numpy(hsref.project(as_numpy(x), self.C, **keywords))


class _Project(torch.autograd.Function):
    """(call, x, data...) -> (y, ticket)."""

    @staticmethod
    def forward(call: _Call, x: Tensor, *data: Tensor) -> tuple[Tensor, Tensor]:
        """Solve."""
        return call.solve(x, data)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep the ticket, and the matrices if there are any."""
        call, _, *data = inputs
        ctx.call, token = call, output[1]
        ctx.shapes = [tuple(d.shape) for d in data]
        require_rules(call.C, [n for n, w in zip(call.names, ctx.needs_input_grad[2:]) if w])
        ctx.mark_non_differentiable(token)
        ctx.set_materialize_grads(False)
        matrices = [data[k] for k in matrices_among(call.names)]
        ctx.save_for_backward(token, *matrices)
        ctx.save_for_forward(token, *matrices)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Pull a cotangent back."""
        x, *data = ctx.needs_input_grad[1:]
        if grads[0] is None:
            return (None,) * (2 + len(data))
        token, *matrices = ctx.saved_tensors
        found = iter(Pull.apply(ctx.call.plan(x, data, ctx.shapes), grads[0], token, *matrices))
        return None, *(next(found) if wanted else None for wanted in (x, *data))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        """Push tangents forward."""
        token, *matrices = ctx.saved_tensors
        moves = [t is not None for t in tangents[1:]]
        require_rules(ctx.call.C, [n for n, moved in zip(ctx.call.names, moves[1:]) if moved])
        plan = ctx.call.plan(moves[0], moves[1:], ctx.shapes)
        given = [t for t in tangents[1:] if t is not None]
        return Push.apply(plan, token, len(given), *given, *matrices), None

    @staticmethod
    def vmap(info: Any, in_dims: Any, call: _Call, x: Tensor, *data: Tensor) -> Any:
        """Give every argument the mapped axis in front: it is one more batch axis."""
        x = with_axis(x, in_dims[1], info.batch_size)
        return _Project.apply(call, x, *lift(call, x.ndim, data, in_dims[2:])), (0, 0)


for _function in (_Project, Pull, Push):
    # PyTorch reads the signature at every call; a written one spares it half of that.
    _forward: Any = _function.forward
    _forward.__signature__ = inspect.signature(_forward)


def with_axis(x: Tensor, at: int | None, size: int) -> Tensor:
    """Return x with its mapped axis in front, repeated when it has none."""
    return _put(x, at, 0, size)


def lift(call: _Call, ndim: int, data: Any, ats: Any) -> list[Tensor]:
    """Return data whose mapped axis is in front of the batch axes of an x of `ndim` axes."""
    batch = ndim - 1 - len(call.C.shape)
    lifted = []
    for name, d, at in zip(call.names, data, ats):
        if at is not None:
            d = d.movedim(at, 0)
            (own,) = own_axes(call.C, [name], [d.ndim - 1])
            d = d.reshape(lifted_shape(name, d.shape, own, batch))
        lifted.append(d)
    return lifted


# -- the way in -----------------------------------------------------------------------------------


def project(x: Tensor, C: Any, options: Mapping[str, Any], data: Mapping[str, Any]) -> Tensor:
    """Project a tensor; what :func:`hsref.project` does with one."""
    x = admit(x, options["device"])
    tensors, fixed = sort_data(x, data)
    if torch.compiler.is_compiling():
        from .torch_compiled import project as compiled

        return compiled(x, C, options, tensors, fixed)
    return _eager(x, C, options, tensors, fixed)


# Where a graph breaks, the compiler must not go on into the solver.
@torch.compiler.disable
def _eager(
    x: Tensor,
    C: Any,
    options: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    fixed: Mapping[str, Any],
) -> Tensor:
    call = _Call(C, options, fixed, tuple(tensors))
    if not isinstance(C, hsref.PolyhedralSet) or not traced((x, *tensors.values())):
        return call.value(x, tuple(tensors.values()))
    return _Project.apply(call, x, *tensors.values())[0]


def admit(x: Tensor, device: str | None) -> Tensor:
    """Return x as a dense float tensor this bridge can read in place, or raise a sentence."""
    if x.layout is not torch.strided:
        raise TypeError(f"x is a {x.layout} tensor; make it dense first (x.to_dense()).")
    if x.dtype in HALVES:
        raise TypeError(
            f"x is {str(x.dtype).removeprefix('torch.')}, too coarse to tell active rows from "
            "inactive ones: pass x.float(), under autocast as well, and convert the result back "
            "if you must."
        )
    if x.device.type not in ("cpu", "cuda"):
        raise TypeError(
            f"x lives on the device {x.device}, where hsref has no kernels: move it to the host "
            "first (x.cpu())."
        )
    if x.is_cuda and device == "cpu":
        raise ValueError("x lives on a CUDA device; pass x.cpu() to use device='cpu'.")
    if x.dtype in (torch.float64, torch.float32):
        return x
    if x.is_floating_point() or x.is_complex() or x.dtype is torch.bool:
        raise TypeError(f"x must be float32 or float64 (or integers); got {x.dtype}.")
    return x.to(torch.float64)


def sort_data(x: Tensor, data: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the parameters that are tensors, in the dtype of x, and those that are not."""
    tensors: dict[str, Tensor] = {}
    fixed: dict[str, Any] = {}
    for name, value in data.items():
        if not isinstance(value, Tensor):
            fixed[name] = value
            continue
        if value.layout is not torch.strided or value.device.type != "cpu":
            where = value.device if value.layout is torch.strided else value.layout
            raise TypeError(
                f"{name} is a tensor on {where}, and parameters are read on the host: pass "
                f"{name}.cpu(), through which its gradient flows."
            )
        if value.is_complex() or value.dtype is torch.bool:
            raise TypeError(f"{name} must be real numbers; got dtype {value.dtype}.")
        tensors[name] = value.to(x.dtype)
    return tensors, fixed


def traced(tensors: tuple[Tensor, ...]) -> bool:
    """Tell whether any transformation could ask for a derivative or add an axis."""
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return True
    # Inside torch.func every tensor may be a wrapper, and under forward mode a dual number.
    inside = getattr(torch._C._functorch, "peek_interpreter_stack", lambda: True)()
    level = getattr(torch.autograd.forward_ad, "_current_level", 0)
    return inside is not None or level >= 0


class Projection(torch.nn.Module):
    r"""Projection onto a set as a layer.

    .. math:: y = \arg\min_{z \in C} \tfrac12 \|z - x\|^2

    Parameters
    ----------
    C : PolyhedralSet
        The set.
    **keywords
        The options of :func:`hsref.project` (``selection``, ``on_infeasible``, ``n_threads``,
        ``device``), and parameters of `C` that replace its own: a ``torch.nn.Parameter`` is
        registered as one and trained, another tensor becomes a buffer; both are in the state
        dict.

    Notes
    -----
    A layer without such parameters has an empty state dict: the set is part of the code, as the
    size of a linear layer is. Copies and pickles with the module.

    Examples
    --------
    >>> import torch
    >>> from hsref import Simplex
    >>> from hsref.interop.torch import Projection
    >>> layer = torch.nn.Sequential(torch.nn.Linear(3, 4), Projection(Simplex(4)))
    >>> bool((layer(torch.randn(5, 3)).sum(dim=-1) - 1 < 1e-6).all())
    True
    >>> layer[1]
    Projection(Simplex(4, total=1))
    """

    def __init__(self, C: Any, **keywords: Any) -> None:
        super().__init__()
        if not isinstance(C, hsref.PolyhedralSet):
            raise TypeError(f"C must be a set such as hsref.Simplex(3); got {type(C).__name__}.")
        known = ("device", "n_threads", "on_infeasible", "selection")
        if "start" in keywords:
            raise TypeError("start belongs to one batch: pass it to the call, layer(x, start=...).")
        self.C = C
        self.options = {name: keywords.pop(name) for name in known if name in keywords}
        self._fixed: dict[str, Any] = {}
        self._named: list[str] = []
        if keywords:
            C._for_data(frozenset(keywords))
        for name, value in keywords.items():
            if isinstance(value, torch.nn.Parameter):
                self.register_parameter(name, value)
                self._named.append(name)
            elif isinstance(value, Tensor):
                self.register_buffer(name, value)
                self._named.append(name)
            else:
                self._fixed[name] = value

    def forward(self, x: Tensor, **keywords: Any) -> Tensor:
        """Project x; keywords as in :func:`hsref.project` override those of the layer."""
        own = {name: getattr(self, name) for name in self._named}
        return hsref.project(x, self.C, **{**self.options, **self._fixed, **own, **keywords})

    def extra_repr(self) -> str:
        """Return what ``print(layer)`` shows inside the parentheses."""
        parts = [repr(self.C), *(f"{name}={value!r}" for name, value in self.options.items())]
        parts += [f"{name}=<{'x'.join(map(str, getattr(self, name).shape))} tensor>"
                  for name in self._named]  # fmt: skip
        return ", ".join([*parts, *self._fixed])
