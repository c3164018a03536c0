"""Arrays of unknown frameworks come and go through DLPack, or get a sentence."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest

import hsref

C = hsref.Simplex(3)


class Array:
    """The least that DLPack asks of an array."""

    def __init__(self, values, device=(1, 0)):
        self.values = np.array(values)
        self.device = device

    def __dlpack__(self, stream=None, **keywords):
        return self.values.__dlpack__(**keywords)

    def __dlpack_device__(self):
        return self.device


@pytest.fixture
def library(monkeypatch):
    """Make the class above the array of a module that can import from DLPack."""
    module = ModuleType("elsewhere")
    module.from_dlpack = lambda y: Array(np.from_dlpack(y))
    monkeypatch.setitem(sys.modules, "elsewhere", module)
    monkeypatch.setattr(Array, "__module__", "elsewhere.core")
    return module


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_same_kind_and_dtype_come_back(library, dtype):
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(dtype)
    y = hsref.project(Array(x), C, n_threads=1, total=2.0)
    assert type(y) is Array
    assert y.values.dtype == dtype
    np.testing.assert_array_equal(y.values, hsref.project(x, C, total=2.0))


def test_array_namespaces_are_asked_first(monkeypatch, library):
    class Namespace:
        @staticmethod
        def from_dlpack(y):
            return "from the namespace"

    monkeypatch.setattr(Array, "__array_namespace__", lambda self: Namespace, raising=False)
    assert hsref.project(Array([1.0, 2.0, 3.0]), C) == "from the namespace"


def test_what_cannot_return_gets_a_sentence():
    with pytest.raises(TypeError, match="no from_dlpack to return one"):
        hsref.project(Array([1.0, 2.0, 3.0]), C)


def test_devices_and_gradients_get_a_sentence(library):
    with pytest.raises(TypeError, match="DLPack device type 10, neither the host nor a CUDA"):
        hsref.project(Array([1.0, 2.0, 3.0], device=(10, 0)), C)
    x = Array([1.0, 2.0, 3.0])
    x.requires_grad = True
    with pytest.raises(TypeError, match="DLPack would drop"):
        hsref.project(x, C)


def test_the_structures_are_those_of_numpy():
    # Written by hand for CUDA; NumPy speaks the same language on the host.
    from hsref._cuda import dlpack

    a = np.arange(24, dtype=np.float32).reshape(4, 6)
    before = len(dlpack._ALIVE)
    exported = dlpack.Exported(a, 0, a.ctypes.data, kind=1)
    b = np.from_dlpack(exported)
    assert np.shares_memory(a, b)
    np.testing.assert_array_equal(a, b)
    del b
    exported.__dlpack__()
    assert len(dlpack._ALIVE) == before
    for part in (a, a.T, a[::2, 1:]):
        said = dlpack.Imported(Array(part), 1).__cuda_array_interface__
        assert said["shape"] == part.shape
        assert said["typestr"] == "<f4"
    view = dlpack.Imported(exported, 1).__cuda_array_interface__
    assert view["data"][0] == a.ctypes.data
    assert view["strides"] == a.strides
    with pytest.raises(TypeError, match="neither float32 nor float64"):
        dlpack.Imported(Array(np.zeros(2, np.complex128)), 1)


def test_as_data_or_in_a_record_it_is_refused(library):
    with pytest.raises(TypeError, match=r"pass numpy\.from_dlpack\(total\)"):
        hsref.project(np.ones(3), C, total=Array(2.0))
    with pytest.raises(TypeError, match="plain record"):
        hsref.projection(Array([1.0, 2.0, 3.0]), C)


def test_projections_go_out_through_dlpack():
    y = hsref.project(np.array([2.0, 1.0, 0.0]), C)
    np.testing.assert_array_equal(np.from_dlpack(Array(y)), y)
