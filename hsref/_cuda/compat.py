"""The only import of a CUDA compiler in the package.

``numba.cuda`` is served by the numba-cuda package where that is installed, and by Numba itself
otherwise; its designated successor has another import name. Whatever replaces it, it is named here
and nowhere else.
"""

from __future__ import annotations

from typing import Any

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


def is_device_array(x: Any) -> bool:
    """Tell whether `x` already lives on a CUDA device (or in the simulator)."""
    return hasattr(type(x), "__cuda_array_interface__") or getattr(x, "__cuda_ndarray__", False)


def external_stream(pointer: int) -> Any:
    """Return Numba's handle of a stream that another library made; 0 is the default stream."""
    return cuda.external_stream(pointer) if pointer else 0


def on_device(index: int) -> Any:
    """Return a context in which device `index` is Numba's current one."""
    return cuda.gpus[index]


def view_of(x: Any, stream: Any) -> Any:
    """Return Numba's view of another library's device array, bound to a stream."""
    array = cuda.as_cuda_array(x, sync=False)
    array.stream = stream
    return array


def compile_device(py_func: Any) -> Any:
    """Compile a rebound per-point routine as a CUDA device function."""
    return cuda.jit(device=True)(py_func)


def free_bytes() -> int | None:
    """Return the free memory of the current device, or None in the simulator."""
    if simulated():
        return None
    return int(cuda.current_context().get_memory_info()[0])


def processors() -> int:
    """Return the number of multiprocessors of the current device (1 in the simulator)."""
    if simulated():
        return 1
    return int(cuda.get_current_device().MULTIPROCESSOR_COUNT)


def describe() -> dict[str, str]:
    """Return what ``hsref info`` prints about CUDA."""
    import numba

    facts = {"implementation": str(getattr(cuda, "implementation", "unknown"))}
    if simulated():
        return {**facts, "device": "simulator", "numba": numba.__version__}
    try:
        require_device()
    except CudaUnavailableError as problem:
        return {**facts, "device": "none", "reason": str(problem)}
    device = cuda.get_current_device()
    name = device.name.decode() if isinstance(device.name, bytes) else str(device.name)
    free, total = cuda.current_context().get_memory_info()
    return {
        **facts,
        "device": name,
        "compute capability": ".".join(map(str, device.compute_capability)),
        "memory": f"{free / 2**30:.1f} GiB free of {total / 2**30:.1f} GiB",
        "multiprocessors": str(device.MULTIPROCESSOR_COUNT),
    }
