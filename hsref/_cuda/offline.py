"""Kernels compiled to PTX where there is neither a device nor a driver.

For the checks that a simulator cannot make: it infers no types and knows no registers. Needs the
compiler of the ``cuda`` or ``cuda12`` extra, nothing else.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from .._batch import Kernel
from .._jit import DeviceFunction, specialise
from ..sets.base import PolyhedralSet
from . import registers
from .compat import compile_device, cuda
from .cooperative import KERNELS
from .kernels import hs_grid, project_grid

CAPABILITY = (8, 0)
"""Compute capability compiled for: the oldest one that the newest toolkit still serves well."""

SLOTS = {"project_point": project_grid, "hs_point": hs_grid}
"""Grid kernels by the routine of a set that they call."""
BLOCK_SLOTS = ("project_block", "hs_block")
"""Names of the kernels of :mod:`hsref._cuda.cooperative`, which only some sets have."""
OWN_SLOTS = {"attempt": registers.attempt_kernel, "hs_own": registers.product_kernel}
"""Makers of the kernels of :mod:`hsref._cuda.registers`, which only some sets have."""


class NoCompilerError(RuntimeError):
    """No PTX compiler is installed."""


def require_compiler() -> None:
    """Raise the sentence that says what is missing when nothing can be compiled here."""
    if getattr(cuda, "implementation", "") != "NVIDIA":
        # Numba's own, deprecated, is not what the extras give to users.
        raise NoCompilerError(
            "no PTX compiler here: install hsref[cuda] (CUDA 13) or hsref[cuda12] (CUDA 12)."
        )


def signature(kernel: Kernel, slot: str, dtype: Any) -> tuple[Any, ...]:
    """Return the Numba types of the arguments of a grid kernel."""
    import numba
    from numba.core import types as nt

    def array(kind: Any, ndim: int) -> Any:
        return nt.Array(numba.from_dtype(np.dtype(kind)), ndim, "C")

    f8, i4, i1 = np.float64, np.int32, np.int8
    shared = nt.BaseTuple.from_types(tuple(array(a.dtype, a.ndim) for a in kernel.shared))
    x, f1, f2, ints = array(dtype, 2), array(f8, 1), array(f8, 2), nt.int64
    record = (x, array(i1, 1), array(i1, 2))
    if slot == "project_block":
        return (x, f2, ints, nt.float64, ints, *record, f2, array(i4, 2), f2, array(i4, 1))
    if slot == "hs_block":
        return (x, ints, array(i1, 1), array(i1, 2), ints, x)
    if slot == "attempt":
        rows = (*record, f2, array(i4, 2), f2)
        return (x, shared, nt.float64, ints, *rows, f2, array(i4, 2), array(i4, 1), array(i4, 1))
    if slot == "hs_own":
        return (x, *record, f1, array(i4, 1), f2, ints, shared, ints, x)
    scratch = (f2, f2, f2, array(i4, 2))
    if slot == "project_point":
        return (
            x, f2, ints, shared, nt.float64, ints, *record, f2, array(i4, 2), f2, f1, array(i4, 1),
            ints, ints, *scratch, array(i4, 1), array(i4, 1), array(i4, 1),
        )  # fmt: skip
    return (x, *record, f1, array(i4, 1), ints, ints, f2, ints, shared, ints, x, *scratch)


def compile_ptx(
    kernel: Kernel, slot: str, dtype: Any, capability: tuple[int, int] = CAPABILITY
) -> str:
    """Return the PTX of one grid kernel of a set.

    Parameters
    ----------
    kernel : Kernel
        The set's, as ``C.kernel``.
    slot : {"project_point", "hs_point", "project_block", "hs_block", "attempt", "hs_own"}
        Which of its routines, of the kernels that give a block to each sample, or of those that
        keep their scratch in registers.
    dtype : dtype
        Of x: float32 or float64.
    capability : (int, int)
        Compute capability to compile for.

    Raises
    ------
    NoCompilerError
        No PTX compiler is installed.
    """
    from numba.core import types as nt

    require_compiler()
    import numba.cuda.dispatcher as dispatcher

    # Device functions ask the driver for its compute capability; there is none to answer.
    asked = dispatcher.get_current_device
    dispatcher.get_current_device = lambda: types.SimpleNamespace(compute_capability=capability)
    try:
        bound = _bound(kernel, slot)
        body = bound._rebind("cuda", compile_device)
        ptx, _ = cuda.compile_ptx(body, nt.void(*signature(kernel, slot, dtype)), cc=capability)
    except Exception as problem:
        if "nvvm" in f"{type(problem).__name__}: {problem}".lower():
            raise NoCompilerError(str(problem).splitlines()[0]) from problem
        raise
    finally:
        dispatcher.get_current_device = asked
    return ptx


def _bound(kernel: Kernel, slot: str) -> DeviceFunction:
    if slot in BLOCK_SLOTS:
        return specialise(KERNELS[kernel.project_point][BLOCK_SLOTS.index(slot)], kernel.name)
    if slot in OWN_SLOTS:
        return OWN_SLOTS[slot](kernel)
    return specialise(SLOTS[slot], kernel.name, **{slot: _routine(kernel, slot)})


def _routine(kernel: Kernel, slot: str) -> DeviceFunction:
    """Return what tells two kernels of a slot apart."""
    if slot == "project_point":
        return registers.rest_of(kernel)
    return kernel.hs_point if slot.startswith("hs") else kernel.project_point


def _slots(kernel: Kernel) -> tuple[str, ...]:
    own = ("attempt",) if registers.attempts(kernel) else ()
    products = ("hs_point",) if kernel.unrolled is None else ("hs_own",)
    blocks = BLOCK_SLOTS if kernel.project_point in KERNELS else ()
    return ("project_point", *products, *own, *blocks)


def every_set(kinds: Iterable[type[PolyhedralSet]]) -> Iterator[PolyhedralSet]:
    """Yield sets that between them have every kernel of the given kinds."""
    for kind in kinds:
        yield from kind._kernel_examples()


def distinct(sets: Iterable[PolyhedralSet]) -> Iterator[tuple[str, str, np.dtype, Kernel]]:
    """Yield (name, slot, dtype, kernel) of every kernel that differs in routine or types."""
    seen: set[tuple[str, DeviceFunction, Any]] = set()
    for C in sets:
        kernel = C.kernel
        for dtype in (np.dtype(np.float64), np.dtype(np.float32)):
            for slot in _slots(kernel):
                key = (slot, _routine(kernel, slot), signature(kernel, slot, dtype))
                if key not in seen:
                    seen.add(key)
                    yield kernel.name, slot, dtype, kernel
