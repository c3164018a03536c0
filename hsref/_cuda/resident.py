"""Projection of arrays that already live on a CUDA device: device arrays in, device arrays out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._codes import SELECTION_MASK, SELECTION_RANK
from .._device import on_device
from .._input import BRIDGES, kind_of
from ..record import Projection
from ..sets.base import PolyhedralSet
from .compat import (
    cuda,
    device_number,
    device_of,
    legacy_stream,
    pointer_of,
    require_device,
    simulated,
    view_of,
    wait_for,
)
from .dlpack import Exported, Imported, importer, is_cuda_dlpack
from .run import DeviceRecord, hs_device, project_device


class DeviceProjection:
    """The record of a projection whose arrays stay on the device.

    Attributes
    ----------
    y, status : device arrays
        As in :class:`hsref.Projection`, shapes (*batch, *C.shape) and (*batch,).
    """

    def __init__(
        self,
        C: PolyhedralSet,
        x: Any,
        record: DeviceRecord,
        packed: np.ndarray,
        data: Mapping[str, np.ndarray],
        selection: str,
        batch_shape: tuple[int, ...],
        stream: Any,
    ) -> None:
        self.set, self.x, self.selection, self.batch_shape = C, x, selection, batch_shape
        self._record, self._packed, self._data, self._stream = record, packed, data, stream

    @property
    def y(self) -> Any:
        """The projections."""
        return _shaped(self._record.y, (*self.batch_shape, *self.set.shape), self._stream)

    @property
    def status(self) -> Any:
        """How each solve ended."""
        return _shaped(self._record.status, self.batch_shape, self._stream)

    def jacobian(self, selection: str | None = None) -> DeviceHSJacobian:
        """Return an element of the HS-Jacobian that multiplies device arrays."""
        return DeviceHSJacobian(self, selection or self.selection)

    def to_host(self) -> Projection:
        """Copy everything to the host and return an ordinary record."""
        flat = self.x.copy_to_host().reshape(-1, self.set.size)
        raw = self._record.to_host(self.set.kernel)
        return Projection(
            self.set, flat, self.batch_shape, raw, self._data, self._packed, self.selection
        )


class DeviceHSJacobian:
    """V as an operator on device arrays; see :class:`hsref.HSJacobian`."""

    def __init__(self, record: DeviceProjection, selection: str) -> None:
        self.record, self.selection = record, selection

    @property
    def T(self) -> DeviceHSJacobian:
        """The transpose: V is symmetric."""
        return self

    @property
    def rank(self) -> Any:
        """Rank of V for each sample, on the host."""
        info = self.record._record.info.copy_to_host()
        return info[:, SELECTION_RANK[self.selection]].reshape(self.record.batch_shape)

    def __matmul__(self, v: Any) -> Any:
        """Return V v for a device array shaped like x, with any further axes in front."""
        record = self.record
        array = as_device_array(v, "v")
        full = (*record.batch_shape, *record.set.shape)
        if array.shape[array.ndim - len(full) :] != full:
            raise ValueError(f"J @ v needs v shaped like x, {full}; got shape {array.shape}.")
        if array.dtype != record.x.dtype:
            raise TypeError(
                f"J @ v needs v in the dtype of x, {record.x.dtype}, on the device; got "
                f"{array.dtype}."
            )
        rows = array.reshape((array.size // record.set.size, record.set.size))
        # On the stream of v, where the work that made v is queued; the record itself is complete,
        # because a projection waits for its flag before it returns.
        stream = getattr(array, "stream", 0) or record._stream
        out = hs_device(
            record.set, record._record, record._packed, SELECTION_MASK[self.selection], rows, stream
        )
        return like(v, _shaped(out, array.shape, stream))


def project_resident(
    x: Any,
    C: PolyhedralSet,
    packed: np.ndarray,
    data: Mapping[str, np.ndarray],
    active_tol: float,
    selection: str,
    *,
    keep: bool,
) -> DeviceProjection:
    """Project a device array that :func:`as_device_array` returned."""
    stream = getattr(x, "stream", 0) or 0
    batch_shape = x.shape[: x.ndim - len(C.shape)]
    flat = x.reshape((x.size // C.size, C.size))
    record = project_device(C, flat, packed, active_tol, keep=keep, stream=stream)
    return DeviceProjection(C, x, record, packed, data, selection, batch_shape, stream)


def as_device_array(x: Any, name: str) -> Any:
    """Return a Numba view of a device array, or raise a sentence.

    Takes anything with the CUDA array interface, and anything that DLPack finds on a CUDA device.
    """
    require_device()
    framework = kind_of(x, name)
    if framework in BRIDGES.values():
        # Its stream and its gradients are known to its bridge alone.
        raise TypeError(f"{name} is a {framework} array and x is not: give both as one kind.")
    shared = not on_device(x) and is_cuda_dlpack(x)
    if not shared and not on_device(x):
        raise TypeError(
            f"{name} is a {type(x).__name__} on the host while x lives on the device: send it to "
            "the device first (numba.cuda.to_device, cupy.asarray)."
        )
    if getattr(x, "requires_grad", False):
        raise TypeError(
            f"{name} is a {type(x).__name__} that requires a gradient, which would be dropped "
            "here: pass the value alone, and use projection(x, C).jacobian() for the derivative."
        )
    if simulated() and getattr(x, "__cuda_ndarray__", False):
        array = x
    else:
        array = view_of(Imported(x, legacy_stream()) if shared else _unmasked(x, name))
        there, here = device_of(pointer_of(array)), device_number()
        if there is not None and there != here:
            raise ValueError(
                f"{name} lives on CUDA device {there} and the current one is {here}: call inside "
                f"`with numba.cuda.gpus[{there}]:`, with everything on that device."
            )
    if not array.flags["C_CONTIGUOUS"]:
        raise ValueError(
            f"{name} is not contiguous on the device; make a contiguous copy of it first."
        )
    return array


def _shaped(array: Any, shape: tuple[int, ...], stream: Any) -> Any:
    """Return a device array in another shape, and still bound to its stream, as a view is not."""
    return array.reshape(shape).bind(stream)


def _unmasked(x: Any, name: str) -> Any:
    if x.__cuda_array_interface__.get("mask") is not None:
        raise TypeError(f"{name} is a masked array; fill or drop its masked entries first.")
    return x


def like(x: Any, y: Any) -> Any:
    """Return the device array y as the kind of array x is, where its library can take it."""
    if on_device(x):
        if type(x).__module__.partition(".")[0] == "cupy":
            import cupy

            return cupy.asarray(y)
        return y
    take = importer(x)
    if take is None:
        # Numba's own array: it is on the device and offers its memory to whoever asks.
        return y
    # A DLPack consumer has a stream of its own, of which ours knows nothing.
    wait_for(getattr(y, "stream", 0))
    return take(Exported(y, device_number(), pointer_of(y)))


def copy_of(y: Any, stream: Any) -> Any:
    """Return a copy of a device array, made on a stream."""
    new = cuda.device_array(y.shape, y.dtype, stream=stream)
    new.copy_to_device(y, stream=stream)
    return new
