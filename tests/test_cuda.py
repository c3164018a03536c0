"""CUDA without a GPU: the simulator, the PTX compiler, and the sentences.

What needs a device is in `test_cuda_device.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import hsref

HERE = Path(__file__).parent


def run(*script: str, **environment: str) -> subprocess.CompletedProcess:
    # The plain environment: a test run may itself carry settings of the simulator.
    env = {k: v for k, v in os.environ.items() if k != "NUMBA_ENABLE_CUDASIM"} | environment
    return subprocess.run(
        [sys.executable, *script],
        env=env,
        capture_output=True,
        text=True,
        timeout=3000,
        check=False,
        cwd=HERE.parent,
    )


def test_every_kernel_agrees_with_the_cpu_in_the_simulator():
    done = run(str(HERE / "cuda_simulator.py"), NUMBA_ENABLE_CUDASIM="1")
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_a_device_must_pass_passes_in_the_simulator():
    # Without the comparison of all sets, which the script above has made.
    chosen = ["-q", "-m", "device", "-k", "not agrees", "-p", "no:cacheprovider"]
    done = run("-m", "pytest", str(HERE / "test_cuda_device.py"), *chosen, NUMBA_ENABLE_CUDASIM="1")
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    assert " passed" in done.stdout


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
