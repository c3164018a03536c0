r"""PyTorch: tensors in, tensors out, differentiable to any order.

:func:`hsref.project` comes here when `x` is a tensor. The solve runs on the memory of the tensor
itself (CPU), or on its device (CUDA, on PyTorch's current stream); its record stays with the graph
until the graph is freed, and neither a derivative nor a derivative of one ever solves again.

.. math:: \text{push}(\dot x) = V \dot x, \qquad \text{pull}(g) = V^T g

Each of the two linear maps is the derivative of the other, so that ``torch.autograd``,
``torch.func`` (``grad``, ``vjp``, ``jvp``, ``jacrev``, ``jacfwd``, ``hessian``, ``vmap``, in any
nesting) and ``gradgradcheck`` work. Inside ``torch.compile`` the same maps are operators of the
graph (:mod:`hsref.interop.torch_compiled`); forward mode is refused there, because PyTorch drops
the tangents of custom operators without a word.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

import hsref

from ._shared import field_axes, require_version

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


def _multiply(g: Tensor, token: Tensor) -> Tensor:
    """Return V g for the record behind `token`."""
    J = redeem(token)
    if J is None:
        if g.numel() == 0:
            return torch.zeros_like(g)
        raise RuntimeError(
            "the record of this projection was lost between the forward and the backward pass "
            "(its saved tensor was copied by a hook); project again inside the backward pass, for "
            "instance with torch.utils.checkpoint."
        )
    return apply(J, g)


def apply(J: Any, g: Tensor) -> Tensor:
    """Return V g on the device of the record."""
    if g.is_cuda:
        from .torch_cuda import multiply

        return multiply(J, g)
    return torch.from_numpy(J @ as_numpy(g))


def as_numpy(x: Tensor) -> np.ndarray:
    """Return the memory of a CPU tensor as an array; no copy unless a sign is pending."""
    return x.detach().resolve_neg().numpy()


# -- the derivative -------------------------------------------------------------------------------


class Push(torch.autograd.Function):
    """(g, ticket, axes of a point) -> V g: linear in g, and its own transpose."""

    @staticmethod
    def forward(g: Tensor, token: Tensor, axes: int) -> Tensor:
        """Multiply."""
        return _multiply(g, token)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep the ticket."""
        _, token, ctx.axes = inputs
        ctx.save_for_backward(token)
        ctx.save_for_forward(token)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Multiply again."""
        (token,) = ctx.saved_tensors
        return Push.apply(grads[0], token, ctx.axes), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        """Multiply the tangent."""
        (token,) = ctx.saved_tensors
        return Push.apply(tangents[0], token, ctx.axes)

    @staticmethod
    def vmap(info: Any, in_dims: Any, g: Tensor, token: Tensor, axes: int) -> Any:
        """Put the mapped axis where the record has it, or in front of everything."""
        g, token, lead = align(info.batch_size, in_dims[0], in_dims[1], g, token, axes)
        return Push.apply(g, token, axes), lead


def align(
    size: int, g_dim: int | None, token_dim: int | None, g: Tensor, token: Tensor, axes: int
) -> tuple[Tensor, Tensor, int]:
    """Return g and ticket with the mapped axis placed, and that place in g.

    A record made under this map has the axis in front of its batch: g must have it there too,
    behind axes that belong to several vectors a sample. Otherwise the axis is just one more of
    those.
    """
    if token_dim is None:
        return (g if g_dim is None else g.movedim(g_dim, 0)), token, 0
    token = token.movedim(token_dim, 0)
    inner = g.ndim - (g_dim is not None)
    lead = inner - axes - (token.ndim - 1)
    if g_dim is None:
        g = g.unsqueeze(lead).expand(*g.shape[:lead], size, *g.shape[lead:])
    else:
        g = g.movedim(g_dim, lead)
    return g, token, lead


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
        """Keep the ticket."""
        call, token = inputs[0], output[1]
        ctx.axes, ctx.names = len(call.C.shape), call.names
        refuse_data(name for name, wanted in zip(call.names, ctx.needs_input_grad[2:]) if wanted)
        ctx.mark_non_differentiable(token)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(token)
        ctx.save_for_forward(token)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Pull a cotangent back: V g."""
        (token,) = ctx.saved_tensors
        rest = (None,) * len(ctx.names)
        if grads[0] is None:
            return None, None, *rest
        return None, Push.apply(grads[0], token, ctx.axes), *rest

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        """Push a tangent forward: V v."""
        refuse_data(name for name, t in zip(ctx.names, tangents[2:]) if t is not None)
        (token,) = ctx.saved_tensors
        return Push.apply(tangents[1], token, ctx.axes), None

    @staticmethod
    def vmap(info: Any, in_dims: Any, call: _Call, x: Tensor, *data: Tensor) -> Any:
        """Give every argument the mapped axis in front: it is one more batch axis."""
        x = with_axis(x, in_dims[1], info.batch_size)
        lifted = lift(call.C, call.names, x.ndim, data, in_dims[2:])
        return _Project.apply(call, x, *lifted), (0, 0)


def with_axis(x: Tensor, at: int | None, size: int) -> Tensor:
    """Return x with its mapped axis in front, repeated when it has none."""
    return x.expand(size, *x.shape) if at is None else x.movedim(at, 0)


def lift(
    C: Any, names: tuple[str, ...], ndim: int, data: Any, ats: tuple[int | None, ...]
) -> list[Tensor]:
    """Return data whose mapped axis is in front of the batch axes of an x of `ndim` axes."""
    lifted = []
    for d, at, axes in zip(data, ats, field_axes(C, names)):
        if at is not None:
            d = d.movedim(at, 0)
            missing = ndim - len(C.shape) + axes - d.ndim
            d = d.reshape(d.shape[0], *(1,) * missing, *d.shape[1:])
        lifted.append(d)
    return lifted


def refuse_data(names: Any) -> None:
    """Raise when data of these names wants a derivative."""
    for name in names:
        raise TypeError(
            f"{name} carries gradients, and derivatives in the data of a set are not available: "
            "pass its value, or differentiate with respect to x alone."
        )


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
