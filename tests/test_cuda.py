"""CUDA without a GPU: the simulator, the PTX compiler, and the sentences; with one: -m device."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import hsref
from hsref.sets import REGISTRY

HERE = Path(__file__).parent


def run(script: str, **environment: str) -> subprocess.CompletedProcess:
    # The plain environment: a test run may itself carry settings of the simulator.
    env = {k: v for k, v in os.environ.items() if k != "NUMBA_ENABLE_CUDASIM"} | environment
    return subprocess.run(
        [sys.executable, script], env=env, capture_output=True, text=True, timeout=3000, check=False
    )


def test_every_kernel_agrees_with_the_cpu_in_the_simulator():
    done = run(str(HERE / "cuda_simulator.py"), NUMBA_ENABLE_CUDASIM="1")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_kernel_compiles_to_ptx_without_a_driver():
    done = run(str(HERE / "cuda_ptx.py"))
    if done.returncode == 77:
        pytest.skip("no PTX compiler here: it comes with hsref[cuda]")
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_a_compiler_one_sentence_says_what_is_missing(monkeypatch):
    from hsref._cuda import compat, offline

    monkeypatch.setattr(compat.cuda, "implementation", "Built-in", raising=False)
    with pytest.raises(offline.NoCompilerError, match=r"hsref\[cuda12\]"):
        offline.compile_ptx(hsref.Simplex(3).kernel, "project_point", np.float64)


def test_without_a_device_one_sentence_says_what_is_missing():
    from hsref._cuda.compat import CudaUnavailableError, require_device

    try:
        require_device()
    except CudaUnavailableError:
        with pytest.raises(CudaUnavailableError, match=r"hsref\[cuda\]") as caught:
            hsref.project(np.zeros(3), hsref.Simplex(3), device="cuda")
        assert "\n" not in str(caught.value)
    else:
        pytest.skip("there is a device here")


@pytest.fixture(scope="module")
def cuda():
    from hsref._cuda import compat

    try:
        compat.require_device()
    except compat.CudaUnavailableError as problem:
        pytest.skip(str(problem))
    return compat.cuda


@pytest.mark.device
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", list(REGISTRY))
def test_device_agrees_with_the_cpu(cuda, name, dtype):
    rng = np.random.default_rng(1)
    for C in REGISTRY[name].examples():
        x = np.concatenate([
            rng.normal(size=(300, *C.shape)), rng.integers(-3, 4, (300, *C.shape)),
        ]).astype(dtype)  # fmt: skip
        eps = np.finfo(dtype).eps
        here, there = hsref.projection(x, C), hsref.projection(x, C, device="cuda")
        assert np.abs(here.y - there.y).max() <= 100 * eps * (1 + np.abs(x).max())
        clear = here.margin > (1e-10 if dtype == np.float64 else 1e-5)
        for a, b in zip(here.active, there.active, strict=True):
            assert np.array_equal(a[clear], b[clear])
        assert np.max(there.residuals.primal) <= (1e-12 if dtype == np.float64 else 1e-5)
        assert np.max(there.residuals.dual) <= (1e-12 if dtype == np.float64 else 1e-5)
        v = rng.normal(size=x.shape).astype(dtype)
        resident = hsref.projection(cuda.to_device(x), C)
        got = (resident.jacobian() @ cuda.to_device(v)).copy_to_host()
        wanted = here.jacobian() @ v
        assert np.abs(got - wanted)[clear].max(initial=0.0) <= 500 * eps * (1 + np.abs(v).max())


@pytest.mark.device
def test_device_streams_and_repetition_hold_memory(cuda):
    from hsref._cuda.compat import free_bytes

    C = hsref.Simplex(16)
    x = np.random.default_rng(2).normal(size=(1000, 16))
    wanted = hsref.project(x, C)
    streams = [cuda.stream() for _ in range(4)]
    for stream in streams:
        y = hsref.project(cuda.to_device(x, stream=stream), C)
        assert np.array_equal(y.copy_to_host(), hsref.project(x, C, device="cuda"))
        assert np.abs(y.copy_to_host() - wanted).max() <= 1e-14
    d = cuda.to_device(x)
    hsref.project(d, C)
    before = free_bytes()
    for _ in range(1000):
        hsref.project(d, C)
    after = free_bytes()
    assert before is None or after >= before - 2**21


@pytest.mark.device
def test_device_refuses_mixed_and_half_input(cuda):
    C = hsref.Simplex(4)
    d = cuda.to_device(np.zeros((2, 4)))
    with pytest.raises(TypeError, match="host"):
        hsref.projection(d, C).jacobian() @ np.zeros((2, 4))
    with pytest.raises(TypeError, match="float16"):
        hsref.project(cuda.to_device(np.zeros((2, 4), np.float16)), C)
    with pytest.raises(ValueError, match="cpu"):
        hsref.project(d, C, device="cpu")
    with pytest.raises(ValueError, match="finite"):
        hsref.project(cuda.to_device(np.full((2, 4), np.nan)), C)
