# autograd.numpy makes its names when imported; a type checker cannot see them.
# pyright: reportAttributeAccessIssue=false
"""autograd primitives: ``project`` as a differentiable function of x and of the data of the set.

The solve runs on plain values. Its record is then attached to the traced arguments by a primitive
whose derivative is made of further primitives: ``hs_product(v, J) = V v``, which is linear and
self-adjoint, and the pair ``data_pull`` and ``data_push``, which are linear and each other's
transpose. They are their own derivatives in both modes, and V and M_K^+ being constant near almost
every (x, data), higher derivatives of the projection are zero, as they should be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from autograd import numpy as anp
from autograd.extend import defjvp, defjvp_argnums, defvjp, defvjp_argnums, primitive
from autograd.tracer import getval, isbox

from .data_gradients import MATRICES, check_names, pull_to, push
from .jacobian import HSJacobian
from .sets.base import PolyhedralSet
from .solve import solve_record


class Plan(NamedTuple):
    """The record of a solve and which arguments of the call its data came from.

    Attributes
    ----------
    J : HSJacobian
        The element for x; ``J.record`` is the record.
    names : tuple of str
        Traced parameters.
    shapes : tuple of tuple of int
        Their shapes, as given.
    """

    J: HSJacobian
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    def cut(self, flat: Any) -> list[Any]:
        """Return the parts of a flat vector in the shapes of the parameters."""
        sizes = [int(np.prod(shape)) for shape in self.shapes]
        ends = np.cumsum([0, *sizes])
        return [
            anp.reshape(flat[a:b], shape)
            for a, b, shape in zip(ends[:-1], ends[1:], self.shapes, strict=True)
        ]


@primitive
def hs_product(v: Any, J: HSJacobian) -> Any:
    """Return V v; linear in v, and self-adjoint in the Euclidean norm.

    Parameters
    ----------
    v : array_like, shape (..., *batch, *C.shape)
        Vectors, shaped like x.
    J : HSJacobian
        The element, held fixed.

    Returns
    -------
    ndarray of the same shape
    """
    return J._apply(v)


@primitive
def data_pull(g: Any, plan: Plan) -> Any:
    """Return the cotangents of the parameters of the plan for g, as one flat vector."""
    found = pull_to(plan.J.record, g, dict(zip(plan.names, plan.shapes, strict=True)))
    return np.concatenate([found[name].reshape(-1) for name in plan.names])


@primitive
def data_push(flat: Any, plan: Plan) -> Any:
    """Return the change of y for a flat vector of tangents of the parameters."""
    return push(plan.J.record, dict(zip(plan.names, plan.cut(flat), strict=True)))


@primitive
def attach(plan: Plan, x: Any, *data: Any) -> Any:
    """Return the projection of a record as a function of its input x and its traced data."""
    return np.array(plan.J.record.y)


def _attach_vjp(argnums: Any, ans: Any, args: Any, kwargs: Any) -> Any:
    plan, values = args[0], args[1:]

    def back(g: Any) -> Any:
        parts = plan.cut(data_pull(g, plan)) if any(k > 1 for k in argnums) else []
        found = [hs_product(g, plan.J.T) if k == 1 else parts[k - 2] for k in argnums]
        return tuple(_like(values[k - 1], f) for k, f in zip(argnums, found, strict=True))

    return back


def _attach_jvp(argnums: Any, gs: Any, ans: Any, args: Any, kwargs: Any) -> Any:
    plan = args[0]
    moves = dict(zip(argnums, gs, strict=True))
    out = hs_product(moves[1], plan.J) if 1 in moves else 0.0
    if any(k > 1 for k in moves):
        flat = [
            anp.reshape(moves[k], -1) if k in moves else np.zeros(int(np.prod(shape)))
            for k, shape in enumerate(plan.shapes, start=2)
        ]
        out = out + data_push(anp.concatenate(flat), plan)
    return out


def _like(value: Any, cotangent: Any) -> Any:
    """Return a cotangent in the dtype of the value it belongs to."""
    while isbox(value):
        value = getval(value)
    wanted = np.result_type(value)
    if wanted.kind == "f" and np.result_type(_plain(cotangent)) != wanted:
        return cotangent.astype(wanted)
    return cotangent


def _plain(value: Any) -> Any:
    while isbox(value):
        value = getval(value)
    return value


defvjp(hs_product, lambda ans, v, J: lambda g: hs_product(g, J.T), argnums=(0,))
defjvp(hs_product, lambda g, ans, v, J: hs_product(g, J), argnums=(0,))
defvjp(data_pull, lambda ans, g, plan: lambda h: data_push(h, plan), argnums=(0,))
defjvp(data_pull, lambda h, ans, g, plan: data_pull(h, plan), argnums=(0,))
defvjp(data_push, lambda ans, flat, plan: lambda g: data_pull(g, plan), argnums=(0,))
defjvp(data_push, lambda h, ans, flat, plan: data_push(h, plan), argnums=(0,))
defvjp_argnums(attach, _attach_vjp)
defjvp_argnums(attach, _attach_jvp)


def project_box(
    x: Any, C: PolyhedralSet, options: Mapping[str, Any], data: Mapping[str, Any]
) -> Any:
    """Project with traced arguments: one solve on their values, then the record attached."""
    traced = tuple(name for name, given in data.items() if isbox(given))
    values = {name: _plain(given) for name, given in data.items()}
    sides = [name for name in traced if name not in MATRICES]
    if sides:
        # Before the solve: a set without a rule must not look differentiable.
        rest = frozenset(name for name in data if name not in MATRICES)
        check_names(C._for_data(rest), sides)
    _, J = solve_record(_plain(x), C, options, values)
    if len(sides) < len(traced):
        from .matrix_primitives import attach_rows

        return attach_rows(x, J, data, options["degenerate_data"])
    plan = Plan(J, traced, tuple(np.shape(values[name]) for name in traced))
    return attach(plan, x, *(data[name] for name in traced))
