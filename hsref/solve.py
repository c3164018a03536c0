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
    kind_of,
    pack_data,
    refuse_gradients,
)
from .jacobian import HSJacobian
from .record import Projection
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
    start: Projection | None = None,
    selection: str = "active",
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
        Points, any number of batch axes. NumPy array, nested list or autograd box; float32 or
        float64 (integers become float64). Not modified.
    C : PolyhedralSet
        The set.
    device : None, "cpu" or "cuda"
        Where to compute; host arrays are sent to the device and back. A `x` that lives on a CUDA
        device already (Numba, CuPy) is projected there, and stays there.
    n_threads : int, optional
        Threads to spread samples over; the number of usable processors by default, or the
        environment variable ``HSREF_NUM_THREADS``. The result does not depend on it.
    on_infeasible : {"raise", "nan"}
        Whether an empty set raises, or gives NaN and a zero gradient for that sample.
    start : Projection, optional
        A previous record for the same set and batch, whose working sets the solver starts from.
    selection : {"active", "working", "support"}
        Which active rows define the derivative; see :class:`hsref.HSJacobian`.
    **data
        Parameters of `C` replaced for this call (``b_ub, b_eq, lower, upper`` for polyhedra, the
        constructor's names for other sets), with or without the batch axes. Cast to the dtype of
        x.

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
        "selection": selection,
    }  # fmt: skip
    kind = kind_of(x)
    if kind == "autograd":
        from .primitives import project_box

        return project_box(x, C, options, data)
    refuse_gradients(data, kind)
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
    record = _solve(x, C, options, data, keep=False)
    return as_kind(record, x)


def projection(
    x: Any,
    C: PolyhedralSet,
    *,
    device: str | None = None,
    n_threads: int | None = None,
    on_infeasible: str = "raise",
    start: Projection | None = None,
    selection: str = "active",
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
        "selection": selection,
    }  # fmt: skip
    kind = kind_of(x)
    if kind == "cuda":
        refuse_gradients(data)
        return _solve_resident(x, C, options, data, keep=True)
    if kind != "numpy":
        raise TypeError(
            f"projection() makes a plain record and would drop the gradient of a {kind} array: "
            "use project(), or pass the value alone."
        )
    refuse_gradients(data)
    record = _solve(x, C, options, data, keep=True)
    assert isinstance(record, Projection)
    return record


def vjp(x: Any, C: PolyhedralSet, **keywords: Any) -> tuple[np.ndarray, Any]:
    r"""Return the projection and the function that pulls cotangents back through it.

    .. math:: y = \Pi_C(x), \qquad pull(g) = V^T g = V g

    This is all that a framework's custom-gradient hook needs; nothing is solved in `pull`.

    Parameters
    ----------
    x : array_like, shape (*batch, *C.shape)
        Points. Not modified.
    C : PolyhedralSet
        The set.
    **keywords
        Those of :func:`projection`.

    Returns
    -------
    y : ndarray
        The projections.
    pull : callable
        Takes an array shaped like y (further axes in front are further cotangents), returns one
        shaped like x.

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import Simplex, vjp
    >>> y, pull = vjp(np.array([0.6, 0.8, -1.0]), Simplex(3))
    >>> pull(np.array([1.0, 0.0, 5.0]))
    array([ 0.5, -0.5,  0. ])
    """
    record = projection(x, C, **keywords)
    return record.y.copy(), record.jacobian().__matmul__


def jvp(x: Any, v: Any, C: PolyhedralSet, **keywords: Any) -> tuple[np.ndarray, np.ndarray]:
    r"""Return the projection and the image V v of a tangent vector.

    Parameters
    ----------
    x, v : array_like, shape (*batch, *C.shape)
        Points and tangents. Not modified.
    C : PolyhedralSet
        The set.
    **keywords
        Those of :func:`projection`.

    Returns
    -------
    y, dy : ndarray
        The projections and V v, shaped like x.

    Examples
    --------
    >>> from hsref import Box, jvp
    >>> jvp([2.0, 0.5], [1.0, 1.0], Box(0.0, 1.0, n=2))[1]
    array([0., 1.])
    """
    record = projection(x, C, **keywords)
    return record.y.copy(), record.jacobian() @ v


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
    array = as_points(x, C)
    batch_shape = array.shape[: array.ndim - len(C.shape)]
    flat = np.ascontiguousarray(array).reshape(-1, C.size)
    if keep and np.may_share_memory(flat, array):
        # A record must not change when the caller later writes into x.
        flat = flat.copy()
    solver = C._for_data(frozenset(data)) if data else C
    replaced = as_data(data, solver, array.dtype, batch_shape)
    packed = pack_data(solver, replaced, flat.shape[0])
    start = as_start(options["start"], solver, batch_shape)
    if options["device"] == "cuda":
        from ._cuda.run import project_host

        raw = project_host(solver, flat, packed, ACTIVE_TOL[array.dtype], keep=keep)
    else:
        raw = _batch.run_project(
            solver.kernel, flat, packed, ACTIVE_TOL[array.dtype], keep=keep,
            n_threads=options["n_threads"], start=start,
        )  # fmt: skip
    if raw.status.any():
        record = _explain(flat, batch_shape, solver, raw, replaced, packed, options)
        return record if keep else record.y.copy()
    if not keep:
        return raw.y.reshape(array.shape)
    return Projection(solver, flat, batch_shape, raw, replaced, packed, options["selection"])


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
    array = as_device_array(x, "x")
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
        raw = _batch.run_project(
            C.kernel, flat, packed, ACTIVE_TOL[flat.dtype], keep=True,
            n_threads=options["n_threads"],
        )  # fmt: skip
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
