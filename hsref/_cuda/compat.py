"""The only import of a CUDA compiler in the package.

``numba.cuda`` is served by the numba-cuda package where that is installed, and by Numba itself
otherwise; its designated successor has another import name. Whatever replaces it, it is named here
and nowhere else.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
from typing import Any

import numpy as np
from numba import cuda
from numba.core import config

INSTALL = (
    "install hsref[cuda] (CUDA 13) or hsref[cuda12] (CUDA 12) and an NVIDIA driver, or set "
    "NUMBA_ENABLE_CUDASIM=1 before Python starts to use the slow simulator"
)


class CudaUnavailableError(RuntimeError):
    """No CUDA device can be used from this process."""


def simulated() -> bool:
    """Tell whether kernels run in Numba's simulator."""
    return bool(config.ENABLE_CUDASIM)


def require_device() -> None:
    """Raise the sentence that says what is missing when no kernel can run here."""
    if simulated():
        return
    try:
        usable = cuda.is_available()
        problem = "" if usable else "Numba found no CUDA driver or no device"
    except Exception as reason:
        usable, problem = False, str(reason).splitlines()[0]
    if not usable:
        raise CudaUnavailableError(f"device='cuda' cannot be used here: {problem}; {INSTALL}.")


def external_stream(pointer: int) -> Any:
    """Return Numba's handle of a stream that another library made; 0 is the default stream."""
    return cuda.external_stream(pointer) if pointer else 0


def stream_handle(stream: Any) -> int:
    """Return the number that the driver knows a stream by, whichever object stands for it."""
    if not stream:
        return 0
    handle = getattr(stream, "handle", None)
    if handle is None:
        return id(stream)
    return int(getattr(handle, "value", handle) or 0)


def wait_for(stream: Any) -> None:
    """Return when everything queued on a stream is finished."""
    if stream:
        stream.synchronize()
    elif not simulated():
        cuda.default_stream().synchronize()


def legacy_stream() -> int:
    """Return the number of Numba's default stream, as DLPack wants to hear it."""
    return 2 if getattr(config, "CUDA_PER_THREAD_DEFAULT_STREAM", 0) else 1


def on_device(index: int) -> Any:
    """Return a context in which device `index` is Numba's current one."""
    return cuda.gpus[index]


def device_number() -> int:
    """Return the number of Numba's current device: memory of one is not another's."""
    return 0 if simulated() else int(cuda.current_context().device.id)


def device_of(pointer: int) -> int | None:
    """Return the number of the device that an address belongs to, None if nobody can tell."""
    if simulated() or not pointer:
        return None
    try:
        from cuda.bindings import driver
    except ImportError:
        return None
    attribute = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    problem, ordinal = driver.cuPointerGetAttribute(attribute, pointer)
    return None if int(problem) else int(ordinal)


def pointer_of(array: Any) -> int:
    """Return the address of a Numba array's memory (in the simulator, on the host)."""
    if simulated():
        return int(array.ctypes.data)
    return int(array.__cuda_array_interface__["data"][0] or 0)


def view_of(x: Any, stream: Any = None) -> Any:
    """Return Numba's view of another library's device array.

    Bound to `stream`, or to the one that the array names: what is queued there comes before our
    launch only because we launch there too, so nobody need wait.
    """
    if simulated():
        return _simulated_view(x, stream)
    array = cuda.as_cuda_array(x, sync=False)
    if stream is not None:
        array.stream = stream
    return array


class _Described:
    """What NumPy needs to see memory of the host that the simulator takes for a device's."""

    def __init__(self, x: Any) -> None:
        said = x.__cuda_array_interface__
        keys = ("shape", "typestr", "data", "strides", "version")
        self.__array_interface__ = {k: said[k] for k in keys if k in said}
        self.owner = x


def _simulated_view(x: Any, stream: Any) -> Any:
    pointer = x.__cuda_array_interface__.get("stream")
    if stream is None:
        stream = external_stream(pointer) if pointer else 0
    kind = type(cuda.to_device(np.zeros(1)))
    return kind(np.asarray(_Described(x)), stream)


def compile_device(py_func: Any) -> Any:
    """Compile a rebound per-point routine as a CUDA device function."""
    return cuda.jit(device=True)(py_func)


def free_bytes() -> int | None:
    """Return the free memory of the current device, or None in the simulator."""
    if simulated():
        return None
    return int(cuda.current_context().get_memory_info()[0])


def release_pending() -> int:
    """Give back what Numba frees late, and return the bytes that are free then."""
    if not simulated():
        cuda.current_context().deallocations.clear()
    return free_bytes() or 0


def processors() -> int:
    """Return the number of multiprocessors of the current device (1 in the simulator)."""
    if simulated():
        return 1
    return int(cuda.get_current_device().MULTIPROCESSOR_COUNT)


def describe() -> dict[str, str]:
    """Return what ``hsref info`` prints about CUDA."""
    import numba

    facts = {"implementation": str(getattr(cuda, "implementation", "unknown"))}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        facts["numba-cuda"] = importlib.metadata.version("numba-cuda")
    if simulated():
        return {**facts, "device": "simulator", "numba": numba.__version__}
    try:
        require_device()
    except CudaUnavailableError as problem:
        return {**facts, "device": "none", "reason": str(problem)}
    device = cuda.get_current_device()
    name = device.name.decode() if isinstance(device.name, bytes) else str(device.name)
    free, total = cuda.current_context().get_memory_info()
    from numba.cuda.cudadrv.driver import driver

    return {
        **facts,
        "driver": "CUDA " + ".".join(map(str, driver.get_version())),
        "device": name,
        "compute capability": ".".join(map(str, device.compute_capability)),
        "memory": f"{free / 2**30:.1f} GiB free of {total / 2**30:.1f} GiB",
        "multiprocessors": str(device.MULTIPROCESSOR_COUNT),
    }
