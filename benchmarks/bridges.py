"""What the bridges cost a call, beside the same call in NumPy: ``python -m benchmarks.bridges``.

A small projection, so that the time is that of the bridge and not of the solver. Every row is the
best of several repeats in one process; frameworks that are not installed are left out. The goals
are 100 microseconds over NumPy for PyTorch and 150 for a callback of JAX.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable, Iterator

import numpy as np

import hsref

BATCH, N = 8, 5


def best(call: Callable[[], object], repeats: int, calls: int) -> float:
    """Return microseconds a call, the least of the repeats."""
    call()
    fastest = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        fastest = min(fastest, (time.perf_counter() - start) / calls)
    return 1e6 * fastest


def numpy_rows(C: hsref.PolyhedralSet, x: np.ndarray) -> Iterator[tuple[str, Callable]]:
    J = hsref.projection(x, C).jacobian()
    yield "NumPy: project", lambda: hsref.project(x, C)
    yield "NumPy: projection", lambda: hsref.projection(x, C)
    yield "NumPy: projection and V g", lambda: hsref.projection(x, C).jacobian() @ x
    yield "NumPy: V g alone", lambda: J @ x


def torch_rows(C: hsref.PolyhedralSet, x: np.ndarray) -> Iterator[tuple[str, Callable]]:
    import torch

    plain, leaf = torch.from_numpy(x), torch.from_numpy(x.copy()).requires_grad_()
    g = torch.ones_like(plain)
    yield "PyTorch: forward without a graph", lambda: hsref.project(plain, C)
    yield "PyTorch: forward with a graph", lambda: hsref.project(leaf, C)

    def both():
        return torch.autograd.grad(hsref.project(leaf, C), leaf, g)

    yield "PyTorch: forward and backward", both


def jax_rows(C: hsref.PolyhedralSet, x: np.ndarray) -> Iterator[tuple[str, Callable]]:
    import jax
    import jax.numpy as jnp

    a = jnp.asarray(x, jnp.float32)
    forward = jax.jit(lambda x: hsref.project(x, C))
    gradient = jax.jit(jax.grad(lambda x: (hsref.project(x, C) ** 2).sum()))
    nothing = jax.jit(lambda x: x + 1.0)
    yield "JAX: an addition under jit", lambda: nothing(a).block_until_ready()
    yield "JAX: forward without jit", lambda: hsref.project(a, C).block_until_ready()
    yield "JAX: forward under jit (one callback)", lambda: forward(a).block_until_ready()
    yield "JAX: gradient under jit (two callbacks)", lambda: gradient(a).block_until_ready()


ROWS = {"numpy": numpy_rows, "torch": torch_rows, "jax": jax_rows}


def measure(repeats: int = 7, calls: int = 500) -> dict[str, float]:
    """Return microseconds a call for every row that can run here."""
    C = hsref.Simplex(N)
    x = np.random.default_rng(0).normal(size=(BATCH, N))
    return {
        label: best(call, repeats, calls)
        for framework, rows in ROWS.items()
        if importlib.util.find_spec(framework) is not None
        for label, call in rows(C, x)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--calls", type=int, default=500)
    chosen = parser.parse_args()
    found = measure(chosen.repeats, chosen.calls)
    base = {"with": found["NumPy: projection"], "out": found["NumPy: project"]}
    print(f"{'call':<44}{'µs':>9}{'over NumPy':>12}")
    for label, spent in found.items():
        if label.startswith("NumPy") or "addition" in label:
            over = ""
        elif "ward and backward" in label or "two callbacks" in label:
            over = f"{spent - found['NumPy: projection and V g']:+.0f}"
        else:
            over = f"{spent - base['with' if 'with a graph' in label else 'out']:+.0f}"
        print(f"{label:<44}{spent:>9.1f}{over:>12}")


if __name__ == "__main__":
    main()
