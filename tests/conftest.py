"""Profiles of hypothesis, and the arrays tests hand in."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# helpers whose assertions explain themselves as those of a test do
pytest.register_assert_rewrite("certificates", "tolerances", "oracle")

# Scripts that tests run in a process of their own; --doctest-modules would import them into ours.
collect_ignore = [
    "code_mutations.py",
    "cuda_inputs.py",
    "cuda_ptx.py",
    "cuda_sanitized.py",
    "cuda_simulator.py",
    "make_adam_trace.py",
    "torch_simulator.py",
    "torch_workers.py",
    "toy_set.py",
]

# deadline=None: the first example of a property may compile for seconds.
COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "print_blob": True}
settings.register_profile("dev", max_examples=40, **COMMON)
# derandomize: a commit is judged by the same examples every time; nightly looks for new ones,
# a hundred times as many
settings.register_profile("ci", max_examples=80, derandomize=True, database=None, **COMMON)
settings.register_profile("nightly", max_examples=8000, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

Backend = Callable[..., np.ndarray]


def contiguous(values, dtype=np.float64) -> np.ndarray:
    array = np.array(values, dtype=dtype, order="C")
    array.flags.writeable = False
    return array


def strided(values, dtype=np.float64) -> np.ndarray:
    """Every other entry of a larger array, walked backwards, so that no stride is the usual one."""
    array = np.array(values, dtype=dtype)
    if array.ndim == 0:
        return contiguous(values, dtype)
    room = np.full([2 * k for k in array.shape], 7, dtype=dtype)
    view = room[tuple(slice(None, None, -2) for _ in array.shape)]
    view[...] = array
    view.flags.writeable = False
    return view


@pytest.fixture(params=[contiguous, strided], ids=["contiguous", "strided"])
def backend(request) -> Backend:
    """Make read-only arrays: whatever writes into an argument fails at once."""
    return request.param
