"""Launches: workspaces, transfers and records on the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from .._batch import Kernel, RawRecord
from .._codes import INFO_SIZE, INFO_TAPE_FLOATS, INFO_TAPE_INTS
from .._jit import DeviceFunction, specialise
from ..sets.base import PolyhedralSet
from . import cooperative, registers
from .compat import compile_device, cuda, device_number, require_device, simulated
from .kernels import hs_grid, project_grid
from .memory import (
    BLOCK,
    require_product,
    require_projection,
    samples_that_fit,
    threads_for,
    workspace,
)


@dataclass(frozen=True)
class DeviceRecord:
    """The arrays of :class:`hsref._batch.RawRecord` on the device; tapes have one row a sample."""

    y: Any
    status: Any
    code: Any
    dual: Any
    info: Any
    margin: Any
    tape_f: Any
    tape_i: Any
    failed: bool

    def to_host(self, kernel: Kernel) -> RawRecord:
        """Copy to the host and close the gaps between the tapes."""
        host = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "failed"}
        host = {k: v.copy_to_host() for k, v in host.items()}
        batch = host["status"].size
        tapes: dict[str, np.ndarray] = {}
        for letter, column, most in (
            ("f", INFO_TAPE_FLOATS, kernel.tape_floats),
            ("i", INFO_TAPE_INTS, kernel.tape_ints),
        ):
            length = host["info"][:, column].astype(np.int64)
            rows = host[f"tape_{letter}"][: batch * most].reshape(batch, most)
            tapes[f"tape_{letter}"] = rows[np.arange(most) < length[:, None]]
            tapes[f"at_{letter}"] = np.concatenate(([0], np.cumsum(length)))
        # Arrays of width 0 cannot be passed to a kernel; drop the column that stood in for them.
        host["code"] = host["code"][:, : kernel.code_size]
        host["dual"] = host["dual"][:, : kernel.dual_size]
        return RawRecord(**{k: v for k, v in host.items() if k not in tapes}, **tapes)


def project_host(
    C: PolyhedralSet, x: np.ndarray, data: np.ndarray, active_tol: float, *, keep: bool
) -> RawRecord:
    """Project host rows on the device, in as many pieces as its memory asks for."""
    require_device()
    kernel = C.kernel
    batch = x.shape[0]
    if batch == 0:
        from .._batch import run_project

        return run_project(kernel, x, data, active_tol, keep=keep, n_threads=1)
    piece = samples_that_fit(kernel, x.dtype.itemsize, keep, batch)
    parts = []
    for begin in range(0, batch, piece):
        end = min(begin + piece, batch)
        rows = data if data.shape[0] == 1 else data[begin:end]
        found = project_device(
            C, cuda.to_device(np.ascontiguousarray(x[begin:end])), rows, active_tol, keep=keep
        )
        if keep:
            parts.append(found.to_host(kernel))
        else:
            empty = np.empty((0, 0))
            parts.append(
                RawRecord(
                    found.y.copy_to_host(), found.status.copy_to_host(),
                    np.empty((0, kernel.code_size), np.int8), empty, empty, empty,
                    np.empty(0), np.empty(0, np.int32), np.zeros(1, int), np.zeros(1, int),
                )
            )  # fmt: skip
        # Gone before the next piece is allocated: both need not fit.
        del found
    return parts[0] if len(parts) == 1 else _join(parts)


@dataclass(frozen=True)
class Launch:
    """Kernels with all their arguments on the device, ready to run any number of times.

    Attributes
    ----------
    steps : tuple of (kernel, configuration, arguments)
        Run one after the other; configurations are (blocks, threads, stream, ...).
    """

    steps: tuple[tuple[Any, tuple[Any, ...], tuple[Any, ...]], ...]

    @property
    def stream(self) -> Any:
        """The stream it runs on."""
        return self.steps[0][1][2]

    def __call__(self) -> None:
        """Queue the kernels on their stream and return at once."""
        for kernel, configuration, arguments in self.steps:
            kernel[configuration](*arguments)


def project_device(
    C: PolyhedralSet,
    x: Any,
    data: np.ndarray,
    active_tol: float,
    *,
    keep: bool,
    stream: Any = 0,
) -> DeviceRecord:
    """Project the rows of a device array; nothing but one flag returns to the host."""
    require_projection(C, x.dtype.itemsize, keep, x.shape[0])
    launch, arrays, flag = prepare_project(C, x, data, active_tol, keep=keep, stream=stream)
    launch()
    return DeviceRecord(*arrays, bool(flag.copy_to_host(stream=stream)[0]))


def prepare_project(
    C: PolyhedralSet,
    x: Any,
    data: np.ndarray,
    active_tol: float,
    *,
    keep: bool,
    stream: Any = 0,
) -> tuple[Launch, tuple[Any, ...], Any]:
    """Allocate everything that a projection writes; return (launch, record arrays, flag)."""
    kernel = C.kernel
    batch, n = x.shape
    block = cooperative.stand_in(kernel, 0)
    space, threads = (
        workspace(C, kernel.work_size, kernel.iwork_size, batch, stream)
        if block is None
        else (None, 1)
    )
    rows = batch if keep else threads
    y = cuda.device_array((batch, n), x.dtype, stream=stream)
    status = cuda.device_array(batch, np.int8, stream=stream)
    code = cuda.device_array((rows, max(kernel.code_size, 1)), np.int8, stream=stream)
    dual = cuda.device_array((rows, max(kernel.dual_size, 1)), np.float64, stream=stream)
    info = cuda.device_array((rows, INFO_SIZE), np.int32, stream=stream)
    margin = cuda.device_array((rows, 2), np.float64, stream=stream)
    taped = batch if keep else 0
    tape_f = cuda.device_array(max(taped * kernel.tape_floats, 1), np.float64, stream=stream)
    tape_i = cuda.device_array(max(taped * kernel.tape_ints, 1), np.int32, stream=stream)
    flag = cuda.to_device(np.zeros(1, np.int32), stream=stream)
    arrays = (y, status, code, dual, info, margin, tape_f, tape_i)
    step = 0 if data.shape[0] == 1 else 1
    if block is not None:
        arguments = (
            x, _to_device(C, data), step, active_tol, int(keep), *arrays[:6], flag,
        )  # fmt: skip
        shape = cooperative.configuration(batch, stream, 8 * n)
        return Launch(((_whole(kernel, block), shape, arguments),)), arrays, flag
    attempt = registers.attempts(kernel)
    everything = C._cached(f"cuda_everything {device_number()}", _everything)
    todo = cuda.device_array(batch, np.int32, stream=stream) if attempt else everything
    listed = cuda.device_array(1, np.int32, stream=stream) if attempt else everything
    arguments = (
        x, _to_device(C, data), step, _shared(C), active_tol, int(keep),
        *arrays, kernel.tape_floats, kernel.tape_ints, *space, flag, todo, listed,
    )  # fmt: skip
    shape = _grid(threads, stream)
    compiled = _kernel(kernel, "project_point", registers.rest_of(kernel), project_grid)
    steps = [(compiled, shape, arguments)]
    if attempt:
        first = (x, _shared(C), active_tol, int(keep), *arrays[:6], *space[2:], todo, listed)
        steps = [
            (_whole(kernel, registers.forget_grid), (1, 1, stream), (listed,)),
            (_own(kernel, "attempt", registers.attempt_kernel), shape, first),
            *steps,
        ]
    return Launch(tuple(steps)), arrays, flag


def _grid(threads: int, stream: Any) -> tuple[Any, ...]:
    return -(-threads // BLOCK), BLOCK, stream


def hs_device(
    C: PolyhedralSet,
    record: DeviceRecord,
    data: np.ndarray,
    mask: int,
    g: Any,
    stream: Any = 0,
) -> Any:
    """Apply V to the rows of a device array, shape (R * B, N)."""
    require_product(C, g.size * g.dtype.itemsize, g.shape[0])
    launch, out = prepare_hs(C, record, data, mask, g, stream)
    launch()
    return out


def prepare_hs(
    C: PolyhedralSet,
    record: DeviceRecord,
    data: np.ndarray,
    mask: int,
    g: Any,
    stream: Any = 0,
) -> tuple[Launch, Any]:
    """Allocate what a product writes; return (launch, V g)."""
    kernel = C.kernel
    out = cuda.device_array(g.shape, g.dtype, stream=stream)
    block = cooperative.stand_in(kernel, 1)
    if block is not None:
        arguments = (g, record.y.shape[0], record.status, record.code, mask, out)
        shape = cooperative.configuration(g.shape[0], stream, 0)
        return Launch(((_whole(kernel, block), shape, arguments),)), out
    row = (_to_device(C, data), 0 if data.shape[0] == 1 else 1, _shared(C), mask)
    if kernel.unrolled is not None:
        compiled = _own(kernel, "hs", registers.product_kernel)
        arguments = (
            g, record.y, record.status, record.code, record.tape_f, record.tape_i, *row, out,
        )  # fmt: skip
        return Launch(((compiled, _grid(threads_for(g.shape[0]), stream), arguments),)), out
    space, threads = workspace(C, kernel.hs_work_size, kernel.hs_iwork_size, g.shape[0], stream)
    arguments = (
        g, record.y, record.status, record.code, record.tape_f, record.tape_i, kernel.tape_floats,
        kernel.tape_ints, *row, out, *space,
    )  # fmt: skip
    compiled = _kernel(kernel, "hs_point", kernel.hs_point, hs_grid)
    return Launch(((compiled, _grid(threads, stream), arguments),)), out


_KERNELS: dict[tuple[str, DeviceFunction], Any] = {}
_WHOLE: dict[Any, Any] = {}


def _kernel(kernel: Kernel, slot: str, routine: DeviceFunction, template: Any) -> Any:
    key = (slot, routine)
    if key not in _KERNELS:
        bound = specialise(template, kernel.name, **{slot: routine})
        _KERNELS[key] = cuda.jit(bound._rebind("cuda", compile_device))
    return _KERNELS[key]


def _own(kernel: Kernel, slot: str, made: Callable[[Kernel], DeviceFunction]) -> Any:
    """Compile a kernel whose scratch is its own."""
    assert kernel.unrolled is not None
    key = (slot, kernel.unrolled.attempt)
    if key not in _KERNELS:
        _KERNELS[key] = cuda.jit(made(kernel)._rebind("cuda", compile_device))
    return _KERNELS[key]


def _whole(kernel: Kernel, body: Any) -> Any:
    """Compile a kernel that needs no routine put in."""
    if body not in _WHOLE:
        _WHOLE[body] = cuda.jit(specialise(body, kernel.name)._rebind("cuda", compile_device))
    return _WHOLE[body]


def _shared(C: PolyhedralSet) -> tuple[Any, ...]:
    key = f"cuda_shared {device_number()}"
    return C._cached(key, lambda: tuple(_copy(a) for a in C.kernel.shared))


def _to_device(C: PolyhedralSet, data: np.ndarray) -> Any:
    if data is C._data_row:
        return C._cached(f"cuda_data {device_number()}", lambda: _copy(data))
    return _copy(data)


def _everything() -> Any:
    """Return the list that stands for all samples."""
    return _copy(np.full(1, -1, np.int32))


def _copy(array: np.ndarray) -> Any:
    # A fresh contiguous, writable array: one type, one compilation. The copy is finished before it
    # is used: streams of other libraries do not wait for the default one.
    copied = cuda.to_device(np.array(array, order="C"))
    if not simulated():
        cuda.default_stream().synchronize()
    return copied


def _join(parts: list[RawRecord]) -> RawRecord:
    joined = {
        f.name: np.concatenate([getattr(p, f.name) for p in parts])
        for f in fields(RawRecord)
        if not f.name.startswith("at_")
    }
    for letter in "fi":
        lengths = np.concatenate([np.diff(getattr(p, f"at_{letter}")) for p in parts])
        joined[f"at_{letter}"] = np.concatenate(([0], np.cumsum(lengths)))
    return RawRecord(**joined)


__all__ = [
    "Launch", "hs_device", "prepare_hs", "prepare_project", "project_device", "project_host",
]  # fmt: skip
