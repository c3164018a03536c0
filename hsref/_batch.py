"""Batch drivers: one compiled loop over samples, spread over threads in chunks.

The loop is written once and specialised to each set (see :func:`hsref._jit.specialise`). A chunk
is a contiguous range of samples handled by one thread with its own scratch; sample ``i`` sees the
same instructions on the same numbers whatever the chunk, so its result does not depend on its
neighbours or on the number of threads. No BLAS is called.

The *tape* (what only the backward needs and whose size varies from sample to sample) is written
one sample after another into arenas that grow when full, so that the memory of a record follows
the active sets actually met and not the worst case.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ._codes import (
    INFO_SIZE,
    INFO_SKIP_RECORD,
    INFO_TAPE_FLOATS,
    INFO_TAPE_INTS,
    NONFINITE,
    SINGULAR,
    SOLVED,
)
from ._heap import keep_heap
from ._jit import DeviceFunction, device_function, specialise
from ._scratch import scratch
from ._threads import run_chunks

ARENA_FLOATS = 1 << 17
"""First size of a tape arena, in numbers (1 MiB of float64)."""


@device_function
def project_point(x, data, shared, active_tol, y, code, dual, info, margin, work, iwork):
    """Stand for the projection routine of a set; replaced when the driver is specialised."""
    return SOLVED


@device_function
def hs_point(g, y, code, tape_f, tape_i, data, shared, mask, out, work, iwork):
    """Stand for the HS product of a set; replaced when the driver is specialised."""


def project_batch(
    x, data, data_step, shared, active_tol, keep, start_at, start_ids,
    y, status, code, dual, info, margin, tape_f, tape_i, size_f, size_i,
    most_f, most_i, xw, yw, work, iwork, begin, end,
):  # fmt: skip
    """Project samples begin..end-1; writes the record rows, returns where it stopped.

    ``keep`` is 1 when records are kept (row ``i`` of each) and 0 when only ``y`` and ``status``
    are (row 0 serves as scratch). Stops early when the tape arena has no room for a worst case.
    """
    n = x.shape[1]
    at_f = 0
    at_i = 0
    for i in range(begin, end):
        if keep == 1 and (at_f + most_f > tape_f.shape[0] or at_i + most_i > tape_i.shape[0]):
            return i
        check = 0.0
        for j in range(n):
            value = x[i, j]
            xw[j] = value
            # 0 * inf and 0 * nan are nan: one vectorised pass finds both.
            check += 0.0 * value
        k = i * keep
        for j in range(INFO_SIZE):
            info[k, j] = 0
        info[k, INFO_SKIP_RECORD] = 1 - keep
        if not (check == 0.0):
            status[i] = NONFINITE
            continue
        iwork[0] = 0
        if start_at.shape[0] > 0:
            first = start_at[i]
            count = start_at[i + 1] - first
            iwork[0] = count
            for j in range(count):
                iwork[1 + j] = start_ids[first + j]
        status[i] = project_point(
            xw, data[i * data_step], shared, active_tol, yw, code[k], dual[k], info[k], margin[k],
            work, iwork,
        )  # fmt: skip
        if status[i] == SOLVED:
            check = 0.0
            for j in range(n):
                y[i, j] = yw[j]
                check += 0.0 * y[i, j]
            if not (check == 0.0):
                # Something overflowed on the way, or does so in the precision of x.
                status[i] = SINGULAR
        if status[i] != SOLVED:
            for j in range(n):
                y[i, j] = np.nan
        if keep == 1:
            count_f = info[k, INFO_TAPE_FLOATS]
            count_i = info[k, INFO_TAPE_INTS]
            for j in range(count_f):
                tape_f[at_f + j] = work[j]
            for j in range(count_i):
                tape_i[at_i + j] = iwork[j]
            at_f += count_f
            at_i += count_i
            size_f[i] = count_f
            size_i[i] = count_i
    return end


def hs_batch(
    g, y, status, code, tape_f, tape_i, at_f, at_i, data, data_step, shared, mask,
    out, gw, ow, work, iwork, begin, end,
):  # fmt: skip
    """Apply V to rows begin..end-1 of ``g``; row t belongs to sample t modulo the batch."""
    n = g.shape[1]
    samples = y.shape[0]
    for t in range(begin, end):
        i = t % samples
        if status[i] != SOLVED:
            # A sample that was not solved has no gradient; zero lets the rest of a batch train on.
            for j in range(n):
                out[t, j] = 0.0
            continue
        for j in range(n):
            gw[j] = g[t, j]
        hs_point(
            gw, y[i], code[i], tape_f[at_f[i] : at_f[i + 1]], tape_i[at_i[i] : at_i[i + 1]],
            data[i * data_step], shared, mask, ow, work, iwork,
        )  # fmt: skip
        for j in range(n):
            out[t, j] = ow[j]


def readonly(array: np.ndarray) -> np.ndarray:
    """Return a read-only view: Numba types it apart, so one kind of view means one compilation."""
    if not array.flags.writeable:
        return array
    view = array.view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True)
class Unrolled:
    """How a set of one fixed size is projected without scratch in memory, for targets that gain.

    Attributes
    ----------
    attempt : DeviceFunction
        Projects like `project_point`, or returns UNSETTLED. The compiler knows every place of its
        `work`; in place of `data`, which such sets do not have, it is handed the scratch of
        `project_point`, for rare cases.
    rest : DeviceFunction
        What `project_point` does with samples that are not settled.
    work_size : int
        Length of `work`.
    hs_work_size, hs_iwork_size : int
        Scratch of `hs_point`, of which the compiler knows every place.
    """

    attempt: DeviceFunction
    rest: DeviceFunction
    work_size: int
    hs_work_size: int
    hs_iwork_size: int


@dataclass(frozen=True)
class Kernel:
    """What a set hands to the drivers: its two routines, their sizes, the arrays samples share.

    Attributes
    ----------
    name : str
        Distinguishes the compiled drivers; the class name by convention.
    project_point, hs_point : DeviceFunction
        The per-point projection and HS product.
    size : int
        N, the number of entries of a point.
    code_size, dual_size : int
        Length of a sample's ``code`` and ``dual`` rows.
    work_size, iwork_size : int
        Scratch of `project_point`, in float64 and int32 entries.
    hs_work_size, hs_iwork_size : int
        Scratch of `hs_point`.
    tape_floats, tape_ints : int
        Worst case of a sample's tape; 0 when the set needs none.
    shared : tuple of ndarray
        Arrays common to all samples.
    methods : tuple of str
        Names that ``info[INFO_METHOD]`` indexes.
    cost, hs_cost : float
        Rough operation counts of one sample, used only to size chunks.
    unrolled : Unrolled or None
        The same projection without scratch in memory, where there is one.
    """

    name: str
    project_point: DeviceFunction
    hs_point: DeviceFunction
    size: int
    code_size: int
    dual_size: int
    work_size: int
    iwork_size: int
    hs_work_size: int
    hs_iwork_size: int
    shared: tuple[np.ndarray, ...]
    methods: tuple[str, ...] = ("closed form",)
    tape_floats: int = 0
    tape_ints: int = 0
    cost: float = 0.0
    hs_cost: float = 0.0
    unrolled: Unrolled | None = None

    def __post_init__(self) -> None:
        # Numba would compile an empty tuple as another type for each set: give it one dummy array.
        shared = tuple(readonly(a) for a in self.shared) or (readonly(np.zeros(1)),)
        object.__setattr__(self, "shared", shared)

    @property
    def project_driver(self) -> DeviceFunction:
        """The batch loop around `project_point`, shared by all sets with the same routine."""
        return _driver(project_batch, self.name, "project_point", self.project_point)

    @property
    def hs_driver(self) -> DeviceFunction:
        """The batch loop around `hs_point`."""
        return _driver(hs_batch, self.name, "hs_point", self.hs_point)


_DRIVERS: dict[tuple[str, DeviceFunction], DeviceFunction] = {}


def _driver(template: Any, owner: str, slot: str, routine: DeviceFunction) -> DeviceFunction:
    key = (slot, routine)
    driver = _DRIVERS.get(key)
    if driver is None:
        driver = _DRIVERS.setdefault(key, specialise(template, owner, **{slot: routine}))
    return driver


@dataclass(frozen=True)
class RawRecord:
    """Arrays of a solved batch, batch axes flattened to one; what a record and its V hold."""

    y: np.ndarray
    status: np.ndarray
    code: np.ndarray
    dual: np.ndarray
    info: np.ndarray
    margin: np.ndarray
    tape_f: np.ndarray
    tape_i: np.ndarray
    at_f: np.ndarray
    at_i: np.ndarray


def run_project(
    kernel: Kernel,
    x: np.ndarray,
    data: np.ndarray,
    active_tol: float,
    *,
    keep: bool,
    n_threads: int | None,
    start: tuple[np.ndarray, np.ndarray] | None = None,
) -> RawRecord:
    """Project the rows of ``x``, shape (B, N); ``data`` has one row, or B."""
    batch, n = x.shape
    rows = batch if keep else 0
    keep_heap()
    y = np.empty((batch, n), x.dtype)
    status = np.empty(batch, np.int8)
    code = np.zeros((rows, kernel.code_size), np.int8)
    dual = np.zeros((rows, kernel.dual_size))
    info = np.zeros((rows, INFO_SIZE), np.int32)
    margin = np.empty((rows, 2))
    margin.fill(np.inf)
    size_f = np.zeros(rows, np.int64)
    size_i = np.zeros(rows, np.int64)
    taped = keep and kernel.tape_floats + kernel.tape_ints > 0
    tapes: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    driver = kernel.project_driver.cpu
    step = 0 if data.shape[0] == 1 else 1
    x, data = readonly(x), readonly(data)
    start_at, start_ids = map(readonly, start if start is not None else (_NO_START, _NO_IDS))

    def chunk(begin: int, end: int) -> None:
        own = (code, dual, info, margin)
        if not keep:
            own = (
                np.zeros((1, kernel.code_size), np.int8),
                np.zeros((1, kernel.dual_size)),
                np.zeros((1, INFO_SIZE), np.int32),
                np.zeros((1, 2)),
            )
        xw, yw, work, iwork = scratch(
            (n, float), (n, float), (kernel.work_size, float), (kernel.iwork_size, np.int32)
        )
        pieces = tapes[begin] = []
        tape_f, tape_i = _NO_ROOM
        at = begin
        while at < end:
            if taped:
                tape_f = np.empty(_arena(kernel.tape_floats, end - at))
                tape_i = np.empty(_arena(kernel.tape_ints, end - at), np.int32)
            stop = driver(
                x, data, step, kernel.shared, active_tol, int(keep), start_at, start_ids,
                y, status, *own, tape_f, tape_i, size_f, size_i,
                kernel.tape_floats, kernel.tape_ints, xw, yw, work, iwork, at, end,
            )  # fmt: skip
            if taped:
                # Copies: a trimmed view would keep the whole arena alive.
                pieces.append(
                    (
                        tape_f[: int(size_f[at:stop].sum())].copy(),
                        tape_i[: int(size_i[at:stop].sum())].copy(),
                    )
                )
            at = stop

    run_chunks(chunk, batch, kernel.cost + 4.0 * n, n_threads)
    record = (y, status, code, dual, info, margin)
    if not taped:
        return RawRecord(*record, *_NO_TAPE, *np.zeros((2, rows + 1), np.int64))
    in_order = [piece for begin in sorted(tapes) for piece in tapes[begin]]
    return RawRecord(
        *record,
        _concatenate([f for f, _ in in_order], np.float64),
        _concatenate([i for _, i in in_order], np.int32),
        np.concatenate(([0], np.cumsum(size_f))), np.concatenate(([0], np.cumsum(size_i))),
    )  # fmt: skip


def run_hs(
    kernel: Kernel,
    record: RawRecord,
    data: np.ndarray,
    mask: int,
    g: np.ndarray,
    n_threads: int | None,
) -> np.ndarray:
    """Apply the element selected by ``mask`` to the rows of ``g``, shape (R * B, N)."""
    rows, n = g.shape
    out = np.empty_like(g)
    driver = kernel.hs_driver.cpu
    step = 0 if data.shape[0] == 1 else 1
    read = [
        readonly(a)
        for a in (
            g, record.y, record.status, record.code, record.tape_f, record.tape_i, record.at_f,
            record.at_i, data,
        )
    ]  # fmt: skip

    def chunk(begin: int, end: int) -> None:
        own = scratch(
            (n, float), (n, float), (kernel.hs_work_size, float), (kernel.hs_iwork_size, np.int32)
        )
        driver(*read, step, kernel.shared, mask, out, *own, begin, end)

    run_chunks(chunk, rows, kernel.hs_cost + 4.0 * n, n_threads)
    return out


_NO_START = readonly(np.empty(0, np.int64))
_NO_IDS = readonly(np.empty(0, np.int32))
_NO_TAPE = (readonly(np.empty(0)), readonly(np.empty(0, np.int32)))
_NO_ROOM = (np.empty(0), np.empty(0, np.int32))


def _arena(most: int, samples: int) -> int:
    return max(most, min(most * samples, ARENA_FLOATS))


def _concatenate(pieces: list[np.ndarray], dtype: Any) -> np.ndarray:
    if len(pieces) == 1:
        return pieces[0]
    return np.concatenate(pieces) if pieces else np.empty(0, dtype)
