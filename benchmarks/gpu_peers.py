"""What is timed on a card: hsref and the layers of PyTorch and JAX, behind the same calls.

Each adapter loads a block of distinct samples and repeats it on the device up to the batch
(:meth:`spread`); its answers on the block are what accuracy is judged by. Without a card, in
Numba's simulator, the peers run on the host, so that the adapters themselves are tested.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from . import layers, peers

OUT_OF_MEMORY = ("out of memory", "out_of_memory", "resource_exhausted", "split the batch")


def is_out_of_memory(problem: Exception) -> bool:
    """Tell whether a library gave up for want of device memory."""
    text = f"{type(problem).__name__} {problem}".lower()
    return isinstance(problem, MemoryError) or any(word in text for word in OUT_OF_MEMORY)


def wall_seconds(call: Callable[[], Any]) -> float:
    """Time one call by the clock of the host."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


class HsrefOnDevice(peers.Peer):
    """``project``, ``projection`` and ``J @ v`` of device arrays."""

    name = "hsref"
    package = "hsref"

    def setup(self):
        from hsref._cuda.compat import cuda, require_device, simulated

        require_device()
        self.cuda, self.simulated = cuda, simulated()
        self.set = self.problem.special_set()

    def load(self, problem):
        self.block = problem
        self.host_x = np.ascontiguousarray(problem.x.reshape(-1, *self.set.shape), self.dtype)
        self.host_v = np.ascontiguousarray(problem.v.reshape(-1, *self.set.shape), self.dtype)

    def spread(self, batch: int) -> None:
        """Fill device arrays with repetitions of the block."""
        self.batch = batch
        self.x, self.v = (self._fill(a) for a in (self.host_x, self.host_v))
        self.record = self.out = self.y = None

    def _fill(self, block: np.ndarray) -> Any:
        whole = self.cuda.device_array((self.batch, *self.set.shape), self.dtype)
        for begin in range(0, self.batch, len(block)):
            end = min(begin + len(block), self.batch)
            whole[begin:end].copy_to_device(block[: end - begin])
        return whole

    def parts(self) -> dict[str, Callable[[], Any]]:
        """Return what is timed, in the order in which it can run."""
        return {
            "project": self.project, "project, kernel alone": self.kernel(),
            "projection": self.forward, "HS product": self.backward,
            "HS product, kernel alone": self.product_kernel,
        }  # fmt: skip

    def project(self):
        import hsref

        self.y = None
        self.y = hsref.project(self.x, self.set)

    def kernel(self):
        """Return the launch of ``project``, everything allocated."""
        from hsref._cuda.run import prepare_project
        from hsref._input import ACTIVE_TOL

        made = []

        def launch():
            if not made:
                # When it is first called: the parts before may need the memory.
                flat = self.x.reshape((self.batch, self.set.size))
                tolerance = ACTIVE_TOL[np.dtype(self.dtype)]
                made.append(
                    prepare_project(self.set, flat, self.set._data_row, tolerance, keep=False)
                )
            made[0][0]()

        launch.release = made.clear
        return launch

    def forward(self):
        import hsref

        self.y = self.record = None
        self.record = hsref.projection(self.x, self.set)

    def backward(self):
        self.out = None
        self.out = self.record.jacobian() @ self.v
        self.launch = None

    def product_kernel(self):
        from hsref._codes import SELECTION_MASK
        from hsref._cuda.run import prepare_hs

        if self.launch is None:
            self.out = None
            self.launch, self.out = prepare_hs(
                self.set, self.record._record, self.set._data_row, SELECTION_MASK["active"],
                self.v.reshape((self.batch, self.set.size)),
            )  # fmt: skip
        self.launch()

    def answer(self):
        return self._block_of(self.record.y)

    def gradient(self):
        return self._block_of(self.out.reshape(self.x.shape))

    def _block_of(self, array: Any) -> np.ndarray:
        count = min(len(self.host_x), self.batch)
        return array[:count].copy_to_host().reshape(count, -1)

    def seconds(self, call: Callable[[], Any]) -> float:
        """Time one call between two events of the default stream."""
        if self.simulated:
            return wall_seconds(call)
        begin, end = self.cuda.event(timing=True), self.cuda.event(timing=True)
        begin.record()
        call()
        end.record()
        end.synchronize()
        return 1e-3 * begin.elapsed_time(end)

    def free(self) -> None:
        """Give the memory back."""
        self.x = self.v = self.y = self.record = self.out = self.launch = None
        self.set._cache.clear()
        if not self.simulated:
            self.cuda.current_context().deallocations.clear()


class HsrefBlock(HsrefOnDevice):
    """The kernels that give a block of threads to each sample; off by default."""

    name = "hsref_block"
    families = ("simplex",)
    note = "a block a sample; off until measured"

    def parts(self):
        return {name: _Cooperative(call) for name, call in super().parts().items()}

    def seconds(self, call):
        if self.simulated:
            from hsref._cuda import cooperative

            # An interpreter has a thread of Python for each of them.
            cooperative.THREADS = 2
        return super().seconds(call)


class _Cooperative:
    """A call inside of which those kernels are on."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self.release = getattr(call, "release", lambda: None)

    def __call__(self) -> Any:
        from hsref._cuda.cooperative import enabled

        with enabled():
            return self.call()


class OnTorch:
    """Timing between events of PyTorch's current stream."""

    def spread(self, batch: int) -> None:
        times = -(-batch // len(self.xt))
        shape = (times, *[1] * (self.xt.ndim - 1))
        self.xt = self.xt.detach().repeat(shape)[:batch].contiguous().requires_grad_()
        self.vt = self.vt.repeat(shape)[:batch].contiguous()
        self.flat = (min(self.flat[0], batch), *self.flat[1:])

    def parts(self) -> dict[str, Callable[[], Any]]:
        return {"projection": self.forward, "HS product": self.backward}

    def seconds(self, call: Callable[[], Any]) -> float:
        if self.device == "cpu":
            return wall_seconds(call)
        begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        return 1e-3 * begin.elapsed_time(end)

    def free(self) -> None:
        self.xt = self.vt = self.yt = self.gt = None
        if self.device != "cpu":
            self.torch.cuda.empty_cache()


class OnJax:
    """JAX shows no events: the clock of the host, every answer waited for."""

    def spread(self, batch: int) -> None:
        jnp = self.jax.numpy
        times = (-(-batch // len(self.xj)), *[1] * (self.xj.ndim - 1))
        self.xj, self.vj = (jnp.tile(a, times)[:batch] for a in (self.xj, self.vj))
        self.flat = (min(self.flat[0], batch), *self.flat[1:])

    def parts(self) -> dict[str, Callable[[], Any]]:
        return {"projection": self.forward, "HS product": self.backward}

    def seconds(self, call: Callable[[], Any]) -> float:
        return wall_seconds(call)

    def free(self) -> None:
        self.xj = self.vj = self.yj = self.gj = self.back = None


class TorchSort(OnTorch, layers.TorchSortPeer):
    """The textbook projection by sorting, with its own backward."""


class Sinkhorn(OnTorch, layers.Sinkhorn):
    name = "sinkhorn20"


class SinkhornFused(Sinkhorn):
    """The same, fused by ``torch.compile``."""

    name = "sinkhorn20_fused"
    note = "20 iterations on exp(x), torch.compile: another map, truncated"
    needs: ClassVar[tuple[str, ...]] = ("triton",)

    def setup(self):
        if self.device != "cpu":
            self.call = self.torch.compile(self.call)


class Qpth(OnTorch, layers.QpthPeer):
    pass


class JaxSort(OnJax, layers.JaxPeer):
    """The textbook projection by sorting, in JAX."""

    name = "jax_sort"
    package = "jax"
    promise = "exact"
    families = ("simplex",)

    def call(self, x):
        jnp = self.jax.numpy
        u = jnp.sort(x, axis=-1)[..., ::-1]
        shift = (jnp.cumsum(u, axis=-1) - 1.0) / jnp.arange(1, x.shape[-1] + 1, dtype=x.dtype)
        last = jnp.sum(u > shift, axis=-1, keepdims=True) - 1
        return jnp.maximum(x - jnp.take_along_axis(shift, last, axis=-1), 0.0)


class Pinet(OnJax, layers.PinetPeer):
    pass


PEERS = {k.name: k for k in (HsrefBlock, TorchSort, Sinkhorn, SinkhornFused, Qpth, JaxSort, Pinet)}


def missing(kind: type, device: str) -> str | None:
    """Return why a peer cannot run here, or None."""
    if kind.version() is None:
        return f"{kind.package} is not installed"
    if device == "cpu":
        return None
    absent = [name for name in getattr(kind, "needs", ()) if importlib.util.find_spec(name) is None]
    if absent:
        return f"{absent[0]} is not installed"
    if issubclass(kind, OnTorch):
        import torch

        return None if torch.cuda.is_available() else "this PyTorch has no CUDA"
    if issubclass(kind, OnJax):
        import jax

        try:
            return None if jax.devices("gpu") else "this JAX has no CUDA"
        except RuntimeError:
            return "this JAX has no CUDA"
    return None


def build(kind: type, problem: Any, dtype: Any, device: str) -> Any:
    """Return an adapter for a problem, in a precision and on a device."""
    return type(kind.__name__, (kind,), {"dtype": dtype, "device": device})(problem, 1)
