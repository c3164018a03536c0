"""``project`` and ``projection``: validate, solve, certify, raise.

The only room that raises about a solve; how inputs are read is in :mod:`hsref._input`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from . import _batch
from ._codes import PRIMAL_INFEASIBLE, SOLVED, Status
from ._input import (
    ACTIVE_TOL,
    as_data,
    as_kind,
    as_points,
    as_start,
    check_options,
    check_points,
    has_traced,
    kind_of,
    pack_data,
    refuse_gradients,
    take_matrices,
)
from .data_gradients import check_names, field_shape, pull_to, push
from .jacobian import HSJacobian
from .record import Projection, WarmStart
from .sets.base import InfeasibleError, PolyhedralSet


class NotSolvedError(ArithmeticError):
    """A sample could not be solved to tolerance; no number is returned in its place.

    Attributes
    ----------
    index : tuple of int
        Batch index of the first such sample.
    status : Status
        How its solve ended.
    """

    def __init__(self, message: str, index: tuple[int, ...] = (), status: Any = None) -> None:
        super().__init__(message)
        self.index = index
        self.status = status


def project(
    x: Any,
    C: PolyhedralSet,
    *,
    device: str | None = None,
    n_threads: int | None = None,
    on_infeasible: str = "raise",
    start: Projection | WarmStart | None = None,
    selection: str = "active",
    degenerate_data: str = "raise",
    **data: Any,
) -> Any:
    r"""Project points onto a polyhedron; differentiable.

    .. math:: \Pi_C(x) = \arg\min_{y \in C} \tfrac12 \|y - x\|^2

    The derivative handed to automatic differentiation is V = I - M_K^+ M_K, the element of the
    HS-Jacobian that `selection` names: a conservative mapping for the projection, equal to its
    derivative wherever it is differentiable (for ``"active"``), and a member of the
    B-subdifferential even where it is not.

    Parameters
    ----------
    x : array_like, shape (*batch, *C.shape)
        Points, any number of batch axes. NumPy array, nested list, autograd box, PyTorch tensor,
        JAX array, or any array with DLPack or the CUDA array interface; float32 or float64
        (integers on the host become float64). Not modified.
    C : PolyhedralSet
        The set.
    device : None, "cpu" or "cuda"
        Where to compute; host arrays are sent to the device and back, in as many pieces as its
        memory asks for. A `x` that lives on a CUDA device already (Numba, CuPy, PyTorch, or by
        DLPack) is projected there, on the stream that it names, and stays there; JAX arrays on
        other devices are computed on the host, which ``"cpu"`` allows.
    n_threads : int, optional
        Threads to spread samples over; the number of usable processors by default, or the
        environment variable ``HSREF_NUM_THREADS``. The result does not depend on it.
    on_infeasible : {"raise", "nan"}
        Whether an empty set raises, or gives NaN and a zero gradient for that sample.
    start : Projection or WarmStart, optional
        A previous record for the same set and batch, whose working sets the solver starts from,
        sample by sample; or a :class:`hsref.WarmStart`, which keeps the last record for a loop.
        Answers agree with those of a cold start to rounding. The active-set methods of general
        polyhedra on the host make use of it; other methods have no use for one and ignore it.
    selection : {"active", "working", "support"}
        Which active rows define the derivative; see :class:`hsref.HSJacobian`.
    degenerate_data : {"raise", "minimum_norm"}
        What the derivative in ``A_ub`` and ``A_eq`` is where active rows are dependent: there is
        none, and this raises; or the one that pseudo-inverses of all active rows give, a choice
        that depends on how the set is written. Other derivatives never need it.
    **data
        Parameters of `C` replaced for this call (``b_ub, b_eq, lower, upper`` for polyhedra, the
        constructor's names for other sets), with or without the batch axes. Cast to the dtype of
        x. A general polyhedron also takes ``A_ub`` and ``A_eq``: each different matrix is prepared
        anew at every call, O((m + p)^2 n), so keep those that stay in a set of their own.
        All of them may carry gradients, like x.

    Returns
    -------
    Same kind, shape and dtype as x
        The projections.

    Raises
    ------
    ValueError
        ``x`` is not finite ("x must be finite; ..."), or shapes disagree (both are named).
    TypeError
        ``x`` is half precision, complex or not numeric, or a parameter is unknown.
    InfeasibleError
        The set is empty, with a Farkas certificate.
    NotSolvedError
        A sample ended above tolerance.
    DegenerateDataGradientError
        A matrix carries gradients and the active rows of a sample are dependent.

    Notes
    -----
    Exact up to rounding: finite algorithms, never iterated to a tolerance. Sample i gives the same
    bits alone, in any batch and at any number of threads. float32 input is solved in float64 and
    rounded. Cost per sample: see the set.

    References
    ----------
    Yang, Gu and Yuan, "Efficient and provably convergent end-to-end training of deep neural
    networks with linear constraints", arXiv 2605.11526 (2026).

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import Polyhedron, project
    >>> C = Polyhedron(A_ub=[[1.0, 1.0]], b_ub=[1.0], lower=0.0)
    >>> project(np.array([[2.0, 2.0], [-1.0, 0.5]]), C)
    array([[0.5, 0.5],
           [0. , 0.5]])

    The derivative comes with it:

    >>> from autograd import grad
    >>> grad(lambda x: project(x, C)[0])(np.array([2.0, 2.0]))
    array([ 0.5, -0.5])
    """
    options: dict[str, Any] = {
        "device": device, "n_threads": n_threads, "on_infeasible": on_infeasible, "start": start,
        "selection": selection, "degenerate_data": degenerate_data,
    }  # fmt: skip
    kind = kind_of(x)
    if kind == "autograd" or (kind == "numpy" and has_traced(data)):
        from .primitives import project_box

        return project_box(x, C, options, data)
    refuse_gradients(data, welcome=kind)
    if kind == "PyTorch":
        from .interop import torch

        return torch.project(x, C, options, data)
    if kind == "JAX":
        from .interop import jax

        return jax.project(x, C, options, data)
    if kind == "cuda":
        from ._cuda.resident import like

        return like(x, _solve_resident(x, C, options, data, keep=False).y)
    if kind == "dlpack":
        from .interop import dlpack

        return dlpack.project(x, C, options, data)
    found = _solve(x, C, options, data, keep=False)
    return as_kind(found.y.copy() if isinstance(found, Projection) else found, x)


def projection(
    x: Any,
    C: PolyhedralSet,
    *,
    device: str | None = None,
    n_threads: int | None = None,
    on_infeasible: str = "raise",
    start: Projection | WarmStart | None = None,
    selection: str = "active",
    degenerate_data: str = "raise",
    **data: Any,
) -> Projection:
    """Project points and return the whole record.

    Parameters are those of :func:`project`; `x` must carry no gradient.

    Returns
    -------
    Projection
        Point, multipliers, active and working sets, residuals, margins, status, and
        ``jacobian()``.

    Raises
    ------
    ValueError, TypeError, InfeasibleError, NotSolvedError
        As :func:`project`; TypeError also when `x` carries gradients, which a record would drop.

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import Simplex, projection
    >>> p = projection(np.array([2.0, 1.5, -1.0]), Simplex(3))
    >>> p.y
    array([0.75, 0.25, 0.  ])
    >>> p.multipliers.eq, p.active.lower
    (array([1.25]), array([False, False,  True]))
    """
    options: dict[str, Any] = {
        "device": device, "n_threads": n_threads, "on_infeasible": on_infeasible, "start": start,
        "selection": selection, "degenerate_data": degenerate_data,
    }  # fmt: skip
    kind = kind_of(x)
    if kind == "cuda":
        refuse_gradients(data, "projection")
        return _solve_resident(x, C, options, data, keep=True)
    if kind != "numpy":
        raise TypeError(
            f"projection() makes a plain record and would drop the gradient of a {kind} array: "
            "use project(), or pass the value alone."
        )
    refuse_gradients(data, "projection")
    record = _solve(x, C, options, data, keep=True)
    assert isinstance(record, Projection)
    return record


def vjp(x: Any, C: PolyhedralSet, *, wrt: Any = "x", **keywords: Any) -> tuple[np.ndarray, Any]:
    r"""Return the projection and the function that pulls cotangents back through it.

    .. math:: y = \Pi_C(x), \qquad \bar x = V^T g = V g, \qquad \bar c_K = (M_K^+)^T g

    This is all that a framework's custom-gradient hook needs; nothing is solved in `pull`.

    Parameters
    ----------
    x : array_like, shape (*batch, *C.shape)
        Points. Not modified.
    C : PolyhedralSet
        The set.
    wrt : str or tuple of str
        What to differentiate in: ``"x"`` and parameters of the set (given at the call or not), as
        in ``wrt=("x", "b_ub")``. See :mod:`hsref.data_gradients` for the formula.
    **keywords
        Those of :func:`projection`.

    Returns
    -------
    y : ndarray
        The projections.
    pull : callable
        Takes an array shaped like y (further axes in front are further cotangents). Returns one
        shaped like x when `wrt` is ``"x"``; for a tuple a dict with one entry a name, each in the
        shape of that argument as it was given: a parameter shared by the batch receives the sum.

    Raises
    ------
    TypeError
        The set has no such parameter, or declares no derivative in it; or x lives on a CUDA device
        and the derivative of a parameter is wanted.

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import Simplex, vjp
    >>> y, pull = vjp(np.array([0.6, 0.8, -1.0]), Simplex(3))
    >>> pull(np.array([1.0, 0.0, 5.0]))
    array([ 0.5, -0.5,  0. ])
    >>> y, pull = vjp(np.array([0.6, 0.8, -1.0]), Simplex(3), wrt=("x", "total"), total=2.0)
    >>> pull(np.array([1.0, 0.0, 5.0]))
    {'x': array([ 0.5, -0.5,  0. ]), 'total': array(0.5)}

    A tape of one's own, in plain NumPy: each step leaves a function that moves cotangents on.

    >>> from hsref import L1Ball
    >>> tape, grads = [], {}
    >>> def layer(name, x, radius):
    ...     y, pull = vjp(x, L1Ball(3), wrt=("x", "radius"), radius=radius)
    ...     tape.append((name, pull))
    ...     return y
    >>> x, scale = np.array([[0.6, 0.8, -1.0], [3.0, 2.0, 0.25]]), np.array([1.0, 2.0, 4.0])
    >>> z = layer("outer", scale * layer("inner", x, 2.0), 3.0)
    >>> g = 2.0 * z  # of the loss sum(z ** 2)
    >>> for name, pull in reversed(tape):
    ...     found = pull(g)
    ...     grads[name] = round(float(found["radius"]), 12)
    ...     g = scale * found["x"]
    >>> grads
    {'outer': 3.0, 'inner': 4.922222222222}
    """
    if kind_of(x) == "cuda":
        return _vjp_resident(x, C, wrt, keywords)
    record = projection(x, C, **keywords)
    y = record.y.copy()
    J = record.jacobian()
    if isinstance(wrt, str) and wrt == "x":
        return y, J.T.__matmul__
    names = (wrt,) if isinstance(wrt, str) else tuple(wrt)
    fields = check_names(record.set, [name for name in names if name != "x"])
    shapes = {
        name: np.shape(keywords[name]) if name in keywords else field_shape(record.set, name)
        for name in fields
    }
    degenerate = keywords.get("degenerate_data", "raise")

    def pull_all(g: Any) -> dict[str, np.ndarray]:
        found = pull_to(record, g, shapes, degenerate_data=degenerate)
        out: dict[str, np.ndarray] = {}
        for name in names:
            part = J.T @ g if name == "x" else np.asarray(found[name])
            out[name] = part.astype(record.x.dtype, copy=False)
        return out

    return y, pull_all


def jvp(
    x: Any, v: Any, C: PolyhedralSet, *, tangents: Mapping[str, Any] | None = None, **keywords: Any
) -> tuple[np.ndarray, np.ndarray]:
    r"""Return the projection and its change along tangents of x and of the data.

    .. math:: dy = V v + M_K^+\, dc_K

    Parameters
    ----------
    x : array_like, shape (*batch, *C.shape)
        Points. Not modified.
    v : array_like, shape (*batch, *C.shape), or None
        Tangents of x; None for none.
    C : PolyhedralSet
        The set.
    tangents : mapping of str to array_like, optional
        Tangents of parameters of the set, each with or without the batch axes.
    **keywords
        Those of :func:`projection`.

    Returns
    -------
    y, dy : ndarray
        The projections and their change, shaped like x.

    Raises
    ------
    TypeError
        The set has no such parameter, or declares no derivative in it; or x lives on a CUDA device
        and the derivative of a parameter is wanted.

    Examples
    --------
    >>> from hsref import Box, jvp
    >>> jvp([2.0, 0.5], [1.0, 1.0], Box(0.0, 1.0, n=2))[1]
    array([0., 1.])
    >>> jvp([2.0, 0.5], None, Box(0.0, 1.0, n=2), tangents={"upper": 0.25})[1]
    array([0.25, 0.  ])
    """
    if kind_of(x) == "cuda":
        if tangents or v is None:
            raise TypeError(ON_DEVICE_X_ONLY)
        y, push_x = _vjp_resident(x, C, "x", keywords)
        return y, push_x(v)
    record = projection(x, C, **keywords)
    dy = np.zeros_like(record.x) if v is None else record.jacobian() @ v
    if tangents:
        degenerate = keywords.get("degenerate_data", "raise")
        dy = dy + push(record, tangents, degenerate_data=degenerate)
    return record.y.copy(), dy


ON_DEVICE_X_ONLY = (
    "where x lives on a CUDA device, only its own derivative is computed there: copy x to the host "
    "for those of parameters."
)


def _vjp_resident(x: Any, C: PolyhedralSet, wrt: Any, keywords: Mapping[str, Any]) -> Any:
    """Return y and the map g -> V g (V is symmetric), both on the device."""
    if not (isinstance(wrt, str) and wrt == "x"):
        raise TypeError(ON_DEVICE_X_ONLY)
    from ._cuda.resident import copy_of, like

    record: Any = projection(x, C, **keywords)
    # A copy, as on the host: V reads the y of the record.
    return like(x, copy_of(record.y, record._stream)), record.jacobian().__matmul__


def warmup(sets: Any = None, dtypes: Any = (np.float64, np.float32)) -> list[str]:
    """Compile (or load from the cache) the routines of every set, and return their names.

    Parameters
    ----------
    sets : iterable of PolyhedralSet, optional
        Instances to warm up; the examples of every registered set by default.
    dtypes : iterable of dtype
        Input precisions.

    Returns
    -------
    list of str
        One entry a kernel and dtype.

    Examples
    --------
    >>> from hsref import Simplex, warmup
    >>> warmup([Simplex(3)], ["float64"])
    ['Simplex float64']
    """
    if sets is None:
        from .sets import REGISTRY

        sets = [one for kind in REGISTRY.values() for one in kind.examples()]
    done = []
    for C in sets:
        for dtype in dtypes:
            label = f"{C.kernel.name} {np.dtype(dtype)}"
            if label not in done:
                record = projection(np.zeros(C.shape, dtype), C, on_infeasible="nan")
                _ = record.jacobian() @ np.zeros(C.shape, dtype)
                done.append(label)
    return done


def solve_record(
    x: Any, C: PolyhedralSet, options: Mapping[str, Any], data: Mapping[str, Any]
) -> tuple[Projection, HSJacobian]:
    """Return the record and the element of the HS-Jacobian that a derivative of `x` needs."""
    record = _solve(x, C, options, data, keep=True)
    assert isinstance(record, Projection)
    return record, HSJacobian(record, record.selection, options["n_threads"])


def _solve(
    x: Any,
    C: PolyhedralSet,
    options: Mapping[str, Any],
    data: Mapping[str, Any],
    *,
    keep: bool,
) -> Projection | np.ndarray:
    """Validate, run the kernel, check every status; return the record, or y alone."""
    if not isinstance(C, PolyhedralSet):
        raise TypeError(f"C must be a set such as hsref.Simplex(3); got {type(C).__name__}.")
    check_options(options)
    memory = options["start"]
    keep = keep or isinstance(memory, WarmStart)
    array = as_points(x, C)
    batch_shape = array.shape[: array.ndim - len(C.shape)]
    flat = np.ascontiguousarray(array).reshape(-1, C.size)
    if keep and np.may_share_memory(flat, array):
        # A record must not change when the caller later writes into x.
        flat = flat.copy()
    C, data = take_matrices(C, data, array.dtype, batch_shape)
    solver = C._for_data(frozenset(data)) if data else C
    replaced = as_data(data, solver, array.dtype, batch_shape)
    packed = pack_data(solver, replaced, flat.shape[0])
    start = as_start(options["start"], solver, batch_shape)
    if options["device"] == "cuda":
        if not solver.plain_kernel:
            raise ValueError(f"{solver!r} is solved on the host only: use device='cpu'.")
        from ._cuda.run import project_host

        raw = project_host(solver, flat, packed, ACTIVE_TOL[array.dtype], keep=keep)
    else:
        raw = solver._run(
            flat, packed, ACTIVE_TOL[array.dtype], keep=keep, n_threads=options["n_threads"],
            start=start,
        )  # fmt: skip
    if raw.status.any():
        record = _explain(flat, batch_shape, solver, raw, replaced, packed, options)
        return record if keep else record.y.copy()
    if not keep:
        return raw.y.reshape(array.shape)
    record = Projection(solver, flat, batch_shape, raw, replaced, packed, options["selection"])
    if isinstance(memory, WarmStart):
        memory.record = record
    return record


def _solve_resident(
    x: Any, C: PolyhedralSet, options: Mapping[str, Any], data: Mapping[str, Any], *, keep: bool
) -> Any:
    """Project an array that lives on a CUDA device; the result stays there."""
    from ._cuda.resident import as_device_array, project_resident

    if not isinstance(C, PolyhedralSet):
        raise TypeError(f"C must be a set such as hsref.Simplex(3); got {type(C).__name__}.")
    check_options(options)
    if options["device"] == "cpu":
        raise ValueError("x lives on a CUDA device; copy it to the host to use device='cpu'.")
    if not C.plain_kernel:
        raise ValueError(f"{C!r} is solved on the host only: copy x to the host first.")
    array = as_device_array(x, "x")
    if np.dtype(array.dtype).kind in "iu":
        raise TypeError(
            f"x holds {array.dtype} on the device, where nothing is cast: convert it to float32 or "
            "float64 there."
        )
    check_points(np.dtype(array.dtype), array.shape, C)
    batch_shape = array.shape[: array.ndim - len(C.shape)]
    solver = C._for_data(frozenset(data)) if data else C
    replaced = as_data(data, solver, np.dtype(array.dtype), batch_shape)
    packed = pack_data(solver, replaced, array.size // max(C.size, 1))
    found = project_resident(
        array, solver, packed, replaced, ACTIVE_TOL[np.dtype(array.dtype)], options["selection"],
        keep=keep,
    )  # fmt: skip
    if found._record.failed:
        # The host explains: it has the sentences, and a failing batch is no hot path.
        flat = array.copy_to_host().reshape(-1, C.size)
        raw = _batch.run_project(
            solver.kernel, flat, packed, ACTIVE_TOL[flat.dtype], keep=True,
            n_threads=options["n_threads"],
        )  # fmt: skip
        _explain(flat, batch_shape, solver, raw, replaced, packed, options)
    return found


def _explain(
    flat: np.ndarray,
    batch_shape: tuple[int, ...],
    C: PolyhedralSet,
    raw: _batch.RawRecord,
    data: Mapping[str, np.ndarray],
    packed: np.ndarray,
    options: Mapping[str, Any],
) -> Projection:
    """Raise for the first sample that failed, or return the record with its NaNs."""
    for name, values in (("x", flat), ("data", packed)):
        bad = np.argwhere(~np.isfinite(values) if name == "x" else np.isnan(values))
        if len(bad):
            _refuse_nonfinite(name, values, bad[0], batch_shape, C)
    if raw.code.shape[0] != raw.status.shape[0]:
        # Only y was asked for: solve again with records, to be able to say what went wrong.
        raw = C._run(
            flat, packed, ACTIVE_TOL[flat.dtype], keep=True, n_threads=options["n_threads"]
        )
    record = Projection(C, flat, batch_shape, raw, data, packed, options["selection"])
    for sample in np.flatnonzero(raw.status != SOLVED).tolist():
        index = tuple(int(k) for k in np.unravel_index(sample, batch_shape))
        where = f" for sample {index}" if index else ""
        if raw.status[sample] == PRIMAL_INFEASIBLE:
            if options["on_infeasible"] == "nan":
                continue
            found = record.certificate
            assert found is not None
            raise InfeasibleError(
                f"the set is empty{where}: its constraints contradict each other; the Farkas "
                "certificate is attached to this error. Pass on_infeasible='nan' to get NaN and a "
                "zero gradient for such samples instead.",
                type(found)(*(part[index] for part in found)),
                index,
            )
        status = Status(int(raw.status[sample]))
        raise NotSolvedError(
            f"the solve{where} ended with status {status.name} and no answer that meets the "
            "tolerance; the data may be too badly scaled (rows nearly dependent, or entries that "
            "differ by more than 1e12).",
            index,
            status,
        )
    return record


def _refuse_nonfinite(
    name: str,
    values: np.ndarray,
    first: np.ndarray,
    batch_shape: tuple[int, ...],
    C: PolyhedralSet,
) -> None:
    sample, entry = int(first[0]), int(first[1])
    if name == "x":
        index = (*np.unravel_index(sample, batch_shape), *np.unravel_index(entry, C.shape))
        shown = tuple(int(k) for k in index)
        raise ValueError(
            f"x must be finite; the entry at index {shown} is {values[sample, entry]}."
        )
    raise ValueError(f"the data of sample {sample} must be numbers; found {values[sample, entry]}.")
