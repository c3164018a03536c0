r"""JAX: arrays in, arrays out, under any nesting of jit, grad, jvp, vmap, jacrev, jacfwd, hessian.

:func:`hsref.project` comes here when `x` is a JAX array or a tracer. There are two primitives, the
projection (x, data) -> y and the linear map

.. math:: (v; x, \text{data}) \mapsto V v,

which is the derivative of the first in both modes, and its own transpose. Called with values they
run NumPy code directly; inside ``jit`` they are pure callbacks on the host.

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

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

import hsref
from hsref._input import check_options, check_points

from ._shared import field_axes, require_version

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


def _host_product(call: _Call, v: Any, token: Any, x: Any, *data: Any) -> np.ndarray:
    """Return V v; v has the shape of x, with any further axes in front."""
    v, token, x, *data = (np.asarray(a) for a in (v, token, x, *data))
    if v.size == 0:
        return np.zeros(v.shape, v.dtype)
    kept = RECORDS.get(int(token.flat[0]))
    if kept is None or not kept.answers(call, x, tuple(data)):
        _, kept = _solve(call, x, tuple(data))
    return kept.jacobian @ v


# -- primitives -----------------------------------------------------------------------------------

project_p = Primitive("hsref_project")
"""(x, *data) -> (y, number of the record)."""
project_p.multiple_results = True

product_p = Primitive("hsref_product")
"""(v, number, x, *data) -> V v, linear in v."""


def _at_home(call: _Call, x: Any) -> Any:
    """Return where the results of an eager call belong: the sharding of x."""
    sharding = getattr(x, "sharding", None)
    if sharding is not None:
        for device in sharding.device_set:
            _require_host(call, device.platform)
    return sharding


def _require_host(call: _Call, platform: str) -> None:
    if platform != "cpu" and call.device is None:
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
    # a number a sample, as few bytes as the batch; it needs no particular place
    return [_back(y, home), jnp.asarray(token)]


@product_p.def_impl
def _(v: Any, token: Any, x: Any, *data: Any, call: _Call) -> Any:
    home = _at_home(call, v)
    return _back(_host_product(call, v, token, x, *data), home)


def _shaped(shape: tuple[int, ...], dtype: Any) -> Any:
    return jax.core.ShapedArray(shape, np.dtype(dtype))


@project_p.def_abstract_eval
def _(x: Any, *data: Any, call: _Call, keep: bool) -> list[Any]:
    batch = x.shape[: len(x.shape) - len(call.C.shape)]
    return [_shaped(x.shape, x.dtype), _shaped(batch, np.int32)]


@product_p.def_abstract_eval
def _(v: Any, token: Any, x: Any, *data: Any, call: _Call) -> Any:
    return _shaped(v.shape, v.dtype)


def _on_host(function: Any, avals_out: Any, *args: Any) -> Any:
    # The primitives have their own batching rules: this callback is never mapped.
    return jax.pure_callback(function, avals_out, *args)


def _lower_project(x: Any, *data: Any, call: _Call, keep: bool) -> Any:
    batch = x.shape[: x.ndim - len(call.C.shape)]
    out = (jax.ShapeDtypeStruct(x.shape, x.dtype), jax.ShapeDtypeStruct(batch, np.int32))
    return _on_host(functools.partial(_host_project, call, keep), out, x, *data)


def _lower_product(v: Any, token: Any, x: Any, *data: Any, call: _Call) -> Any:
    out = jax.ShapeDtypeStruct(v.shape, v.dtype)
    return _on_host(functools.partial(_host_product, call), out, v, token, x, *data)


for _primitive, _rule, _many in (
    (project_p, _lower_project, True),
    (product_p, _lower_product, False),
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


def _project_jvp(primals: Any, tangents: Any, *, call: _Call, keep: bool) -> Any:
    x, *data = primals
    for name, tangent in zip(call.names, tangents[1:]):
        if not isinstance(tangent, ad.Zero):
            raise TypeError(
                f"{name} carries gradients, and derivatives in the data of a set are not "
                "available: pass its value (jax.lax.stop_gradient), or differentiate with respect "
                "to x alone."
            )
    y, token = project_p.bind(x, *data, call=call, keep=True)
    if isinstance(tangents[0], ad.Zero):
        return [y, token], [_zero(y), _zero(token)]
    dy = product_p.bind(tangents[0], token, x, *data, call=call)
    return [y, token], [dy, _zero(token)]


def _product_jvp(primals: Any, tangents: Any, *, call: _Call) -> Any:
    # V is constant near almost every x: only v contributes.
    out = product_p.bind(*primals, call=call)
    if isinstance(tangents[0], ad.Zero):
        return out, _zero(out)
    return out, product_p.bind(tangents[0], *primals[1:], call=call)


def _product_transpose(ct: Any, v: Any, token: Any, x: Any, *data: Any, call: _Call) -> Any:
    rest = [None] * (2 + len(data))
    if isinstance(ct, ad.Zero):
        return [ad.Zero(v.aval), *rest]
    return [product_p.bind(ct, token, x, *data, call=call), *rest]


ad.primitive_jvps[project_p] = _project_jvp
ad.primitive_jvps[product_p] = _product_jvp
ad.primitive_transposes[product_p] = _product_transpose


# -- batches --------------------------------------------------------------------------------------


def _with_axis(x: Any, at: Any, size: int) -> Any:
    if at is None:
        return jnp.broadcast_to(x, (size, *x.shape))
    return jnp.moveaxis(x, at, 0)


def _lift(call: _Call, ndim: int, data: Any, ats: Any) -> list[Any]:
    """Return data whose mapped axis is in front of the batch axes of an x of `ndim` axes."""
    lifted = []
    for d, at, axes in zip(data, ats, field_axes(call.C, call.names)):
        if at is not None:
            d = jnp.moveaxis(d, at, 0)
            missing = ndim - len(call.C.shape) + axes - d.ndim
            d = d.reshape(d.shape[0], *(1,) * missing, *d.shape[1:])
        lifted.append(d)
    return lifted


def _size(args: Any, dims: Any) -> int:
    return next(a.shape[k] for a, k in zip(args, dims) if k is not None)


def _project_batch(args: Any, dims: Any, *, call: _Call, keep: bool) -> Any:
    x = _with_axis(args[0], dims[0], _size(args, dims))
    data = _lift(call, x.ndim, args[1:], dims[1:])
    return project_p.bind(x, *data, call=call, keep=keep), (0, 0)


def _product_batch(args: Any, dims: Any, *, call: _Call) -> Any:
    v, token, x, *data = args
    if all(at is None for at in dims[1:]):
        # one record, several vectors
        return product_p.bind(jnp.moveaxis(v, dims[0], 0), *args[1:], call=call), 0
    size = _size(args, dims)
    x = _with_axis(x, dims[2], size)
    token = _with_axis(token, dims[1], size)
    data = _lift(call, x.ndim, data, dims[3:])
    # The record has the mapped axis in front of its batch, and so must v, behind axes that
    # belong to several vectors a sample.
    if dims[0] is None:
        lead = v.ndim - (x.ndim - 1)
        v = jnp.broadcast_to(jnp.expand_dims(v, lead), (*v.shape[:lead], size, *v.shape[lead:]))
    else:
        lead = v.ndim - x.ndim
        v = jnp.moveaxis(v, dims[0], lead)
    return product_p.bind(v, token, x, *data, call=call), lead


batching.primitive_batchers[project_p] = _project_batch
batching.primitive_batchers[product_p] = _product_batch


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
    if data:
        C._for_data(frozenset(data))
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
