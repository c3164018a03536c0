"""Projection of arrays that already live on a CUDA device: device arrays in, device arrays out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._codes import SELECTION_MASK, SELECTION_RANK
from ..record import Projection
from ..sets.base import PolyhedralSet
from .compat import cuda, require_device, simulated
from .run import DeviceRecord, hs_device, project_device, require_memory


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
        return self._record.y.reshape((*self.batch_shape, *self.set.shape))

    @property
    def status(self) -> Any:
        """How each solve ended."""
        return self._record.status

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
        rows = array.reshape((array.size // record.set.size, record.set.size))
        # On the stream of v, where the work that made v is queued; the record itself is complete,
        # because a projection waits for its flag before it returns.
        stream = getattr(array, "stream", 0) or record._stream
        out = hs_device(
            record.set, record._record, record._packed, SELECTION_MASK[self.selection], rows, stream
        )
        return like(v, out.reshape(array.shape))


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
    """Project a device array that has been checked by :func:`as_device_points`."""
    stream = getattr(x, "stream", 0) or 0
    batch_shape = x.shape[: x.ndim - len(C.shape)]
    flat = x.reshape((x.size // C.size, C.size))
    require_memory(C, x.dtype.itemsize, keep, flat.shape[0])
    record = project_device(C, flat, packed, active_tol, keep=keep, stream=stream)
    return DeviceProjection(C, x, record, packed, data, selection, batch_shape, stream)


def as_device_array(x: Any, name: str) -> Any:
    """Return a Numba view of a device array, or raise a sentence."""
    require_device()
    if simulated():
        array = x
        if not getattr(x, "__cuda_ndarray__", False):
            raise TypeError(f"{name} lives on the host; send it to the device first.")
    elif hasattr(x, "__cuda_array_interface__"):
        array = cuda.as_cuda_array(x)
    else:
        raise TypeError(
            f"{name} is a {type(x).__name__} on the host while x lives on the device: send it to "
            "the device first (numba.cuda.to_device, cupy.asarray)."
        )
    if not array.flags["C_CONTIGUOUS"]:
        raise ValueError(
            f"{name} is not contiguous on the device; make a contiguous copy of it first."
        )
    return array


def like(x: Any, y: Any) -> Any:
    """Return the device array y as the kind of array x is."""
    if type(x).__module__.partition(".")[0] == "cupy":
        import cupy

        return cupy.asarray(y)
    return y
