r"""autograd primitives for projections whose matrices, or whose metric, carry gradients.

``saddle(H, A, p, q, bound)`` is the solution z = (u, v) of the system of :mod:`hsref.saddle` for a
K held fixed. Differentiating the system,

.. math:: dz = saddle(H, A,\ dp - dH\,u - dA^T v,\ dq - dA\,u,\ dbound),

and for a cotangent (u', v') of z, with (s, t) = saddle(H, A, u', v', 0), by symmetry,

.. math:: \bar p = s,\quad \bar q = t,\quad \bar A = -(v s^T + t u^T),\quad
          \bar H = -\tfrac12 (s u^T + u s^T), \quad
          \overline{bound}_j = (u' - H s - A^T t)_j .

All of these are written in terms of ``saddle`` again, so derivatives of every order are right in
both modes, wherever K does not change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from autograd import numpy as anp
from autograd.extend import defjvp, defjvp_argnums, defvjp, defvjp_argnums, primitive
from autograd.tracer import getval, isbox

from .jacobian import HSJacobian
from .saddle import Held, held_rows, saddle_solve

# autograd.numpy makes its names when imported; a type checker cannot see them.
_np: Any = anp


@primitive
def saddle(H: Any, A: Any, p: Any, q: Any, bound: Any, held: Held) -> Any:
    """Return u and v side by side, shape (B, n + r); arguments as :func:`saddle_solve`."""
    return np.concatenate(saddle_solve(H, A, held, p, q, bound), axis=1)


@primitive
def record_value(z: Any, value: Any) -> Any:
    """Return `value`, the better-rounded twin of z, with the derivatives of z."""
    return np.array(value)


@primitive
def cast(value: Any, dtype: Any) -> Any:
    """Return the value in another precision; so do its derivatives."""
    return np.asarray(value).astype(dtype)


def _dtype_of(value: Any) -> Any:
    while isbox(value):
        value = getval(value)
    return np.result_type(value)


defvjp(record_value, lambda ans, z, value: lambda g: cast(g, np.float64), argnums=(0,))
defjvp(record_value, lambda g, ans, z, value: cast(g, value.dtype), argnums=(0,))
defvjp(cast, lambda ans, value, dtype: lambda g: cast(g, _dtype_of(value)), argnums=(0,))
defjvp(cast, lambda g, ans, value, dtype: cast(g, dtype), argnums=(0,))


def times(H: Any, x: Any) -> Any:
    """Return H x for a metric (None, diagonals or matrices) and x of shape (B, n)."""
    if H is None:
        return x
    if H.ndim == 2:
        return H * x
    return _np.sum(H * x[:, None, :], axis=2)


def rows_times(A: Any, x: Any) -> Any:
    """Return A x, (B, r)."""
    if A.shape[0] == 1:
        return _np.dot(x, A[0].T)
    return _np.einsum("brn,bn->br", A, x)


def transpose_times(A: Any, v: Any) -> Any:
    """Return A' v, (B, n)."""
    if A.shape[0] == 1:
        return _np.dot(v, A[0])
    return _np.einsum("brn,br->bn", A, v)


def outer_like(A: Any, v: Any, u: Any) -> Any:
    """Return v u' for every sample, summed if A is shared: the shape of A."""
    if A.shape[0] == 1:
        return _np.dot(v.T, u)[None]
    return v[:, :, None] * u[:, None, :]


def metric_outer(H: Any, s: Any, u: Any) -> Any:
    """Return the symmetric part of s u' (its diagonal for a diagonal metric), shaped like H."""
    if H.ndim == 2:
        each = s * u
        return _np.sum(each, axis=0, keepdims=True) if H.shape[0] == 1 else each
    half = 0.5 * outer_like(H, s, u)
    return half + _np.swapaxes(half, 1, 2)


def _saddle_vjp(argnums: Any, ans: Any, args: Any, kwargs: Any) -> Any:
    H, A, p, q, bound, held = args
    n = p.shape[1]
    u, v = ans[:, :n], ans[:, n:]

    def back(g: Any) -> Any:
        gu, gv = g[:, :n], g[:, n:]
        both = saddle(H, A, gu, gv, np.zeros(p.shape), held)
        s, t = both[:, :n], both[:, n:]
        # The cotangent of v counts on K only, that of a fixed coordinate not at all in p.
        out = {2: s, 3: t}
        if 0 in argnums:
            out[0] = -metric_outer(H, s, u)
        if 1 in argnums:
            out[1] = -(outer_like(A, v, s) + outer_like(A, t, u))
        if 4 in argnums:
            out[4] = held.fixed * (gu - times(H, s) - transpose_times(A, t))
        return tuple(out[k] for k in argnums)

    return back


def _saddle_jvp(argnums: Any, gs: Any, ans: Any, args: Any, kwargs: Any) -> Any:
    H, A, p, q, bound, held = args
    n = p.shape[1]
    u, v = ans[:, :n], ans[:, n:]
    moves = dict(zip(argnums, gs, strict=True))
    dp = moves.get(2, np.zeros(p.shape))
    dq = moves.get(3, np.zeros(q.shape))
    if 0 in moves:
        dp = dp - times(moves[0], u)
    if 1 in moves:
        dp = dp - transpose_times(moves[1], v)
        dq = dq - rows_times(moves[1], u)
    return saddle(H, A, dp, dq, moves.get(4, np.zeros(p.shape)), held)


defvjp_argnums(saddle, _saddle_vjp)
defjvp_argnums(saddle, _saddle_jvp)


def attach_rows(x: Any, J: HSJacobian, data: Mapping[str, Any], degenerate: str) -> Any:
    """Return the projection of a record as a function of x, matrices, right-hand sides, bounds.

    K is that of the selection for x; where active rows are dependent the whole set is refused, or
    replaced by the pseudo-inverse.
    """
    record = J.record
    asked = any(name in data and isbox(data[name]) for name in ("A_ub", "A_eq"))
    held = held_rows(record, J.selection, degenerate, matrices=asked)
    C, batch = record.set, record.batch_shape
    n = C.size
    fields = {f.name: f.value for f in C._fields}
    ones = np.ones((*batch, 1))
    samples = record._raw.status.size

    def rows(name: str) -> Any:
        if name in data and isbox(data[name]):
            matrix = cast(data[name], np.float64)
            if matrix.ndim == 2:
                return matrix[None]
            return _np.reshape(matrix * ones[..., None], (samples, *matrix.shape[-2:]))
        m, p = C._row_counts()
        return C._all_rows()[:, p:] if name == "A_ub" else C._all_rows()[:, :p]

    def side(name: str, width: int) -> Any:
        value = data.get(name, fields.get(name, np.zeros(width)))
        value = cast(value, np.float64) if isbox(value) else np.asarray(value, np.float64)
        return _np.reshape(value * ones if width else np.zeros((*batch, 0)), (samples, width))

    m, p = C._row_counts()
    parts = [rows("A_eq"), rows("A_ub")]
    if len({part.shape[0] for part in parts}) > 1:
        parts = [part + np.zeros((samples, 1, 1)) for part in parts]
    A = _np.concatenate(parts, axis=1)
    q = _np.concatenate([side("b_eq", p), side("b_ub", m)], axis=1)
    bound = _np.where(held.lower, side("lower", n), 0.0)
    bound = bound + _np.where(held.upper, side("upper", n), 0.0)
    points = cast(x, np.float64) if isbox(x) else np.asarray(x, np.float64)
    points = _np.reshape(points, (samples, n))
    H = C._metric()
    if "H" in data and isbox(data["H"]):
        H = cast(data["H"], np.float64)
        own = 1 if H.ndim == 1 else 2
        H = H[None] if H.ndim == own else _np.reshape(H * ones[..., None], (samples, n, n))
        # H is symmetric, and so is its cotangent: each pair of entries shares it.
        H = 0.5 * (H + _np.swapaxes(H, 1, 2)) if own == 2 else H
    force = C._force(points, lambda v: times(H, v))
    z = saddle(H, A, force, q, bound, held)
    return record_value(_np.reshape(z[:, :n], record.x.shape), record.y)
