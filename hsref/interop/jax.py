r"""JAX: arrays in, arrays out, under any nesting of jit, grad, jvp, vmap, jacrev, jacfwd, hessian.

:func:`hsref.project` comes here when `x` is a JAX array or a tracer. There are three primitives:
the projection (x, data) -> y, and the linear maps

.. math:: \text{push}(dx, dc) = V dx + M_K^+ dc_K, \qquad \text{pull}(g) = (V^T g, (M_K^+)^T g),

which are its derivatives in the two modes, and each other's. Called with values they run NumPy code
directly; inside ``jit`` they are pure callbacks on the host. The maps are constant near almost
every (x, right-hand sides), but not in the matrices ``A_ub, A_eq, H``: second derivatives where
those carry gradients are refused.

No second solve. Compiled JAX code has no place for a Python object, so the record of a projection
stays on the host, in a store of bounded size, and an integer that names it travels with y. A
product that no longer finds its record, or finds one made from other numbers, solves again: the
same bits, since a projection is deterministic. The store holds ``RECORD_BYTES`` at most.

Errors raised under ``jit`` arrive inside JAX's own (``jax.errors.JaxRuntimeError``), which quotes
the sentence; without ``jit`` they arrive as themselves.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

try:
    import jax
    import jax.numpy as jnp
    from jax.extend.core import Primitive
    from jax.interpreters import ad, batching, mlir
except ImportError as problem:
    from ._shared import MISSING

    raise ImportError(MISSING.format("jax", problem)) from problem

import hsref
from hsref._input import check_options, check_points

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

require_version("jax", jax.__version__)

RECORD_BYTES = 1 << 27
"""Memory that records waiting for a derivative may take; the oldest go first."""


@dataclass(frozen=True)
class _Call:
    """What a call of ``project`` fixes besides its arrays; hashable, as JAX wants parameters."""

    C: Any
    names: tuple[str, ...]
    options: tuple[tuple[str, Any], ...]

    def keywords(self, data: Any) -> dict[str, Any]:
        """Return the keywords of :func:`hsref.projection`."""
        return {**dict(self.options), **dict(zip(self.names, data))}

    def plan(self, x: bool, wanted: Any, shapes: Any) -> Plan:
        """Return the plan of a derivative in x, or in the parameters marked as wanted."""
        kept = [(n, s) for n, s, w in zip(self.names, shapes, wanted) if w]
        names, given = tuple(n for n, _ in kept), tuple(tuple(s) for _, s in kept)
        own = own_axes(self.C, names, [len(s) for s in given])
        return Plan(self.C.shape, x, names, given, own, dict(self.options)["degenerate_data"])

    @property
    def device(self) -> str | None:
        """The ``device`` of the call."""
        return dict(self.options)["device"]


# -- records on the host --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Kept:
    call: _Call
    x: np.ndarray
    data: tuple[np.ndarray, ...]
    jacobian: Any

    @property
    def nbytes(self) -> int:
        record = self.jacobian.record
        arrays = [self.x, *self.data, record._packed, *vars(record._raw).values()]
        return sum(a.nbytes for a in arrays)

    def answers(self, call: _Call, x: np.ndarray, data: tuple[np.ndarray, ...]) -> bool:
        """Tell whether this is the record of exactly these numbers."""
        return (
            call == self.call
            and np.array_equal(x, self.x)
            and all(np.array_equal(a, b) for a, b in zip(data, self.data))
        )


class _Store:
    """The most recent records, by number."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, _Kept] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)

    def add(self, kept: _Kept) -> int:
        with self._lock:
            number = next(self._numbers) & 0x7FFFFFFF
            self._kept[number] = kept
            self._bytes += kept.nbytes
            while self._bytes > RECORD_BYTES and len(self._kept) > 1:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= oldest.nbytes
        return number

    def get(self, number: int) -> _Kept | None:
        return self._kept.get(number)

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()
            self._bytes = 0


RECORDS = _Store()


def _solve(call: _Call, x: np.ndarray, data: tuple[np.ndarray, ...]) -> tuple[int, _Kept]:
    record = hsref.projection(x, call.C, **call.keywords(data))
    J = hsref.HSJacobian(record, record.selection, dict(call.options)["n_threads"])
    kept = _Kept(call, record.x, tuple(np.array(d) for d in data), J)
    return RECORDS.add(kept), kept


def _host_project(call: _Call, keep: bool, x: Any, *data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the projection and the number of its record (0 without one), one a sample."""
    x, *data = (np.asarray(a) for a in (x, *data))
    batch = x.shape[: x.ndim - len(call.C.shape)]
    if not keep:
        return hsref.project(x, call.C, **call.keywords(data)), np.zeros(batch, np.int32)
    number, kept = _solve(call, x, tuple(data))
    return kept.jacobian.record.y.copy(), np.full(batch, number, np.int32)


def _element(call: _Call, token: np.ndarray, x: np.ndarray, data: Any) -> Any:
    """Return the element for these numbers, by the number of its record or by solving again."""
    kept = RECORDS.get(int(token.flat[0])) if token.size else None
    if kept is None or not kept.answers(call, x, tuple(data)):
        _, kept = _solve(call, x, tuple(data))
    return kept.jacobian


def _host_pull(call: _Call, plan: Plan, g: Any, token: Any, x: Any, *data: Any) -> list[np.ndarray]:
    """Return the cotangents that the plan asks for; g may have axes in front of those of x."""
    g, token, x, *data = (np.asarray(a) for a in (g, token, x, *data))
    return pull_arrays(_element(call, token, x, data), g, plan)


def _host_push(call: _Call, plan: Plan, count: int, token: Any, x: Any, *rest: Any) -> np.ndarray:
    """Return the change of y along the tangents, which come last."""
    token, x, *rest = (np.asarray(a) for a in (token, x, *rest))
    data, tangents = rest[: len(rest) - count], rest[len(rest) - count :]
    return push_arrays(_element(call, token, x, data), tangents, plan)


# -- primitives -----------------------------------------------------------------------------------

project_p = Primitive("hsref_project")
"""(x, *data) -> (y, number of the record)."""
project_p.multiple_results = True

pull_p = Primitive("hsref_pull")
"""(g, number, x, *data) -> cotangents; linear in g."""
pull_p.multiple_results = True

push_p = Primitive("hsref_push")
"""(number, x, *data, *tangents) -> dy; linear in the tangents, of which there are `count`."""


def _at_home(call: _Call, x: Any) -> Any:
    """Return where the results of an eager call belong: the sharding of x, or None for anywhere."""
    sharding = getattr(x, "sharding", None)
    if sharding is None:
        return None
    for device in sharding.device_set:
        if device.platform != "cpu":
            _require_host(call, device.platform)
    return sharding if getattr(x, "committed", True) else None


def _require_host(call: _Call, platform: str) -> None:
    if dict(call.options)["device"] is None:
        raise ValueError(
            f"x lives on {platform}, and hsref computes JAX arrays on the host: pass device='cpu' "
            "to have it copied there and back, or move it to a CPU device."
        )


def _back(array: np.ndarray, sharding: Any) -> Any:
    return jnp.asarray(array) if sharding is None else jax.device_put(array, sharding)


@project_p.def_impl
def _(x: Any, *data: Any, call: _Call, keep: bool) -> list[Any]:
    home = _at_home(call, x)
    y, token = _host_project(call, keep, x, *data)
    # The number stays a NumPy array: it needs no particular place.
    return [_back(y, home), token]


@pull_p.def_impl
def _(g: Any, token: Any, x: Any, *data: Any, call: _Call, plan: Plan) -> list[Any]:
    home = _at_home(call, x)
    return [_back(part, home) for part in _host_pull(call, plan, g, token, x, *data)]


@push_p.def_impl
def _(token: Any, x: Any, *rest: Any, call: _Call, plan: Plan, count: int) -> Any:
    return _back(_host_push(call, plan, count, token, x, *rest), _at_home(call, x))


def _shaped(shape: tuple[int, ...], dtype: Any) -> Any:
    return jax.core.ShapedArray(shape, np.dtype(dtype))


@project_p.def_abstract_eval
def _(x: Any, *data: Any, call: _Call, keep: bool) -> list[Any]:
    batch = x.shape[: len(x.shape) - len(call.C.shape)]
    return [_shaped(x.shape, x.dtype), _shaped(batch, np.int32)]


def _pull_shapes(plan: Plan, batch_axes: int, g: Any) -> list[tuple[int, ...]]:
    lead = g.shape[: g.ndim - batch_axes - plan.axes]
    return [g.shape] * plan.x + [(*lead, *shape) for shape in plan.shapes]


def _push_shape(plan: Plan, token: Any, first: Any) -> tuple[int, ...]:
    own = token.ndim + plan.axes if plan.x else len(plan.shapes[0])
    return (*first.shape[: first.ndim - own], *token.shape, *plan.point)


@pull_p.def_abstract_eval
def _(g: Any, token: Any, x: Any, *data: Any, call: _Call, plan: Plan) -> list[Any]:
    return [_shaped(shape, x.dtype) for shape in _pull_shapes(plan, token.ndim, g)]


@push_p.def_abstract_eval
def _(token: Any, x: Any, *rest: Any, call: _Call, plan: Plan, count: int) -> Any:
    return _shaped(_push_shape(plan, token, rest[len(rest) - count]), x.dtype)


def _on_host(function: Any, avals_out: Any, *args: Any) -> Any:
    # The primitives have their own batching rules: this callback is never mapped.
    return jax.pure_callback(function, avals_out, *args)


def _lower_project(x: Any, *data: Any, call: _Call, keep: bool) -> Any:
    if dict(call.options)["start"] is not None:
        raise TypeError(
            "start is a record on the host, which compiled code cannot follow from call to call: "
            "call project outside jit to start from one."
        )
    batch = x.shape[: x.ndim - len(call.C.shape)]
    out = (jax.ShapeDtypeStruct(x.shape, x.dtype), jax.ShapeDtypeStruct(batch, np.int32))
    return _on_host(functools.partial(_host_project, call, keep), out, x, *data)


def _lower_pull(g: Any, token: Any, x: Any, *data: Any, call: _Call, plan: Plan) -> Any:
    shapes = _pull_shapes(plan, token.ndim, g)
    out = [jax.ShapeDtypeStruct(shape, x.dtype) for shape in shapes]
    return _on_host(functools.partial(_host_pull, call, plan), out, g, token, x, *data)


def _lower_push(token: Any, x: Any, *rest: Any, call: _Call, plan: Plan, count: int) -> Any:
    out = jax.ShapeDtypeStruct(_push_shape(plan, token, rest[len(rest) - count]), x.dtype)
    return _on_host(functools.partial(_host_push, call, plan, count), out, token, x, *rest)


for _primitive, _rule, _many in (
    (project_p, _lower_project, True),
    (pull_p, _lower_pull, True),
    (push_p, _lower_push, False),
):
    _lowered = mlir.lower_fun(_rule, multiple_results=_many)

    def _elsewhere(ctx: Any, *args: Any, _lowered: Any = _lowered, **params: Any) -> Any:
        _require_host(params["call"], " or ".join(ctx.module_context.platforms))
        return _lowered(ctx, *args, **params)

    mlir.register_lowering(_primitive, _lowered, platform="cpu")
    mlir.register_lowering(_primitive, _elsewhere)


# -- derivatives ----------------------------------------------------------------------------------


def _zero(like: Any) -> Any:
    dtype = like.dtype if jnp.issubdtype(like.dtype, jnp.floating) else jax.dtypes.float0
    return ad.Zero(_shaped(like.shape, dtype))


def _is_zero(tangent: Any) -> bool:
    return isinstance(tangent, ad.Zero)


def _refuse_second_order(call: _Call, tangents: Any) -> None:
    """Raise when a derivative is to be differentiated in a matrix, on which it depends."""
    for k in matrices_among(call.names):
        if not _is_zero(tangents[k]):
            raise NotImplementedError(SECOND_ORDER.format(names=call.names[k]))


def _project_jvp(primals: Any, tangents: Any, *, call: _Call, keep: bool) -> Any:
    x, *data = primals
    y, token = project_p.bind(x, *data, call=call, keep=True)
    moves = [not _is_zero(t) for t in tangents]
    if not any(moves):
        return [y, token], [_zero(y), _zero(token)]
    require_rules(call.C, [n for n, moved in zip(call.names, moves[1:]) if moved])
    plan = call.plan(moves[0], moves[1:], [d.shape for d in data])
    given = [t for t in tangents if not _is_zero(t)]
    dy = push_p.bind(token, x, *data, *given, call=call, plan=plan, count=len(given))
    return [y, token], [dy, _zero(token)]


# The linear maps are constant near almost every x and every right-hand side: of the arguments
# only those they are linear in contribute, and matrices are refused.


def _pull_jvp(primals: Any, tangents: Any, *, call: _Call, plan: Plan) -> Any:
    _refuse_second_order(call, tangents[3:])
    out = pull_p.bind(*primals, call=call, plan=plan)
    if _is_zero(tangents[0]):
        return out, [_zero(part) for part in out]
    return out, pull_p.bind(tangents[0], *primals[1:], call=call, plan=plan)


def _push_jvp(primals: Any, tangents: Any, *, call: _Call, plan: Plan, count: int) -> Any:
    first = len(primals) - count
    _refuse_second_order(call, tangents[2:first])
    out = push_p.bind(*primals, call=call, plan=plan, count=count)
    moves = tangents[first:]
    if all(_is_zero(t) for t in moves):
        return out, _zero(out)
    full = [jnp.zeros(p.shape, p.dtype) if _is_zero(t) else t
            for p, t in zip(primals[first:], moves)]  # fmt: skip
    return out, push_p.bind(*primals[:first], *full, call=call, plan=plan, count=count)


def _pull_transpose(
    cts: Any, g: Any, token: Any, x: Any, *data: Any, call: _Call, plan: Plan
) -> Any:
    rest = [None] * (2 + len(data))
    if all(_is_zero(ct) for ct in cts):
        return [ad.Zero(g.aval), *rest]
    full = [jnp.zeros(ct.aval.shape, ct.aval.dtype) if _is_zero(ct) else ct for ct in cts]
    dy = push_p.bind(token, x, *data, *full, call=call, plan=plan, count=len(full))
    return [dy, *rest]


def _push_transpose(
    ct: Any, token: Any, x: Any, *rest: Any, call: _Call, plan: Plan, count: int
) -> Any:
    data, tangents = rest[: len(rest) - count], rest[len(rest) - count :]
    none = [None] * (2 + len(data))
    if _is_zero(ct):
        return [*none, *(ad.Zero(t.aval) for t in tangents)]
    found = pull_p.bind(ct, token, x, *data, call=call, plan=plan)
    return [*none, *(f if ad.is_undefined_primal(t) else None for f, t in zip(found, tangents))]


ad.primitive_jvps[project_p] = _project_jvp
ad.primitive_jvps[pull_p] = _pull_jvp
ad.primitive_jvps[push_p] = _push_jvp
ad.primitive_transposes[pull_p] = _pull_transpose
ad.primitive_transposes[push_p] = _push_transpose


# -- batches --------------------------------------------------------------------------------------


# Every rule puts the mapped axis in front of the batch of the record, and behind the axes of
# further vectors a sample; a map that the record knows nothing of adds one of the latter.


def _put(a: Any, at: Any, place: int, size: int) -> Any:
    """Return a with its mapped axis at `place`, repeated there when it has none."""
    if at is None:
        shape = (*a.shape[:place], size, *a.shape[place:])
        return jnp.broadcast_to(jnp.expand_dims(a, place), shape)
    return jnp.moveaxis(a, at, place)


def _lift(call: _Call, batch: int, data: Any, ats: Any) -> list[Any]:
    """Return data whose mapped axis is in front of a batch of so many axes."""
    lifted = []
    for name, d, at in zip(call.names, data, ats):
        if at is not None:
            d = jnp.moveaxis(d, at, 0)
            (own,) = own_axes(call.C, [name], [d.ndim - 1])
            d = d.reshape(lifted_shape(name, d.shape, own, batch))
        lifted.append(d)
    return lifted


def _size(args: Any, dims: Any) -> int:
    return next(a.shape[k] for a, k in zip(args, dims) if k is not None)


def _record_batch(call: _Call, size: int, args: Any, dims: Any) -> tuple[int, list[Any]]:
    """Return the old batch axes, and (number, x, *data) with the mapped axis in front."""
    token, x, *data = args
    batch = token.ndim - (dims[0] is not None)
    arrays = [_put(token, dims[0], 0, size), _put(x, dims[1], 0, size)]
    return batch, [*arrays, *_lift(call, batch, data, dims[2:])]


def _project_batch(args: Any, dims: Any, *, call: _Call, keep: bool) -> Any:
    x = _put(args[0], dims[0], 0, _size(args, dims))
    data = _lift(call, x.ndim - 1 - len(call.C.shape), args[1:], dims[1:])
    return project_p.bind(x, *data, call=call, keep=keep), (0, 0)


def _pull_batch(args: Any, dims: Any, *, call: _Call, plan: Plan) -> Any:
    size = _size(args, dims)
    g, *known = args
    if all(at is None for at in dims[1:]):
        found = pull_p.bind(_put(g, dims[0], 0, size), *known, call=call, plan=plan)
        return found, (0,) * len(found)
    batch, known = _record_batch(call, size, known, dims[1:])
    lead = g.ndim - (dims[0] is not None) - plan.axes - batch
    wider = plan.mapped(size, batch)
    found = pull_p.bind(_put(g, dims[0], lead, size), *known, call=call, plan=wider)
    found[plan.x :] = [
        c.reshape((*c.shape[: lead + 1], *shape)) for c, shape in zip(found[plan.x :], plan.shapes)
    ]
    return found, (lead,) * len(found)


def _push_batch(args: Any, dims: Any, *, call: _Call, plan: Plan, count: int) -> Any:
    size, first = _size(args, dims), len(args) - count
    moves, ats = args[first:], dims[first:]
    if all(at is None for at in dims[:first]):
        moves = [_put(t, at, 0, size) for t, at in zip(moves, ats)]
        return push_p.bind(*args[:first], *moves, call=call, plan=plan, count=count), 0
    batch, known = _record_batch(call, size, args[:first], dims[:first])
    own = [batch + plan.axes] * plan.x + [len(shape) for shape in plan.shapes]
    lead = moves[0].ndim - (ats[0] is not None) - own[0]
    moves = [_put(t, at, lead, size) for t, at in zip(moves, ats)]
    wider = plan.mapped(size, batch)
    moves[plan.x :] = [
        t.reshape((*t.shape[:lead], *shape)) for t, shape in zip(moves[plan.x :], wider.shapes)
    ]
    return push_p.bind(*known, *moves, call=call, plan=wider, count=count), lead


batching.primitive_batchers[project_p] = _project_batch
batching.primitive_batchers[pull_p] = _pull_batch
batching.primitive_batchers[push_p] = _push_batch


# -- the way in -----------------------------------------------------------------------------------


def project(x: Any, C: Any, options: Mapping[str, Any], data: Mapping[str, Any]) -> Any:
    """Project a JAX array; what :func:`hsref.project` does with one."""
    if not isinstance(C, hsref.PolyhedralSet):
        raise TypeError(f"C must be a set such as hsref.Simplex(3); got {type(C).__name__}.")
    check_options(options)
    if not isinstance(x, jax.Array):
        raise TypeError(f"x is a {type(x).__name__}, not an array: pass jax.numpy.asarray(x).")
    if jnp.issubdtype(x.dtype, jnp.integer):
        x = x.astype(jax.dtypes.canonicalize_dtype(np.float64))
    check_points(np.dtype(x.dtype), x.shape, C)
    own_axes(C, tuple(data), [2] * len(data))  # raises for a parameter the set does not have
    arrays = [_as_operand(name, value, x.dtype) for name, value in data.items()]
    call = _Call(C, tuple(data), tuple(sorted(options.items())))
    return project_p.bind(x, *arrays, call=call, keep=False)[0]


def _as_operand(name: str, value: Any, dtype: Any) -> Any:
    """Return a parameter in the dtype of x, which decides the precision."""
    if not isinstance(value, jax.Array):
        value = np.asarray(value)
    if not (jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)):
        raise TypeError(f"{name} must be real numbers; got dtype {value.dtype}.")
    return value.astype(dtype)
