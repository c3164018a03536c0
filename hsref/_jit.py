"""Device functions, their compiled twins, the cache policy.

A *device function* is a plain Python routine over scalars and caller-owned arrays that works on
one point. It is written once. :func:`device_function` merely remembers it; a compiled twin for a
target (the CPU here, CUDA in :mod:`hsref._cuda`) is built when first needed, by giving the same
code object a new set of globals in which every device function it calls is replaced by that
callee's twin for the same target. Importing a set therefore imports no compiler. How the twins of
the CPU are put together to machine code is in :mod:`hsref._linking`.

Cache. Numba keys its disk cache on the file that defines a function, so an edit to a callee in
another file would go unseen. Here the name under which a twin is cached carries a digest of
everything that can change its meaning: the byte code, constants and global scalars of the function
and of all its callees. A stale hit is impossible, an unchanged tree hits. The files themselves are
in :mod:`hsref._caching`.
"""

from __future__ import annotations

import functools
import hashlib
import os
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

FASTMATH = frozenset({"reassoc", "contract", "nsz", "arcp"})
"""LLVM flags that allow vectorised sums; NaN and infinity keep their meaning."""

LINKING = 1
"""Raise it when a change to :mod:`hsref._linking` changes machine code: the cache must notice."""

CALLEE = "cpu callee"
"""Target of twins for the CPU that Python never calls."""

_LOCK = threading.RLock()


class DeviceFunction:
    """A per-point routine together with its compiled twins.

    Calling it runs the CPU twin. Instances pickle by reference to their module.
    """

    def __init__(self, py_func: types.FunctionType) -> None:
        functools.update_wrapper(self, py_func)
        self.py_func = py_func
        self._twins: dict[str, Any] = {}

    def twin(self, target: str, compiler: Callable[[types.FunctionType], Any]) -> Any:
        """Return the twin for `target`, built by `compiler` from the rebound function."""
        built = self._twins.get(target)
        if built is None:
            with _LOCK:
                built = self._twins.get(target)
                if built is None:
                    built = compiler(self._rebind(target, compiler))
                    self._twins[target] = built
        return built

    @property
    def cpu(self) -> Any:
        """The Numba dispatcher for the CPU."""
        return self._twins.get("cpu") or self.twin("cpu", _compile_cpu)

    def __call__(self, *args: Any) -> Any:
        """Run the CPU twin."""
        return self.cpu(*args)

    def __reduce__(self) -> str:
        return self.py_func.__qualname__

    def _rebind(self, target: str, compiler: Callable[[types.FunctionType], Any]) -> Any:
        source = self.py_func
        names: dict[str, Any] = {"__name__": source.__module__}
        for name, value in _referenced(source):
            names[name] = _callee(value, target, compiler) if _is_device(value) else value
        clone = types.FunctionType(source.__code__, names, source.__name__)
        clone.__module__ = source.__module__
        clone.__doc__ = source.__doc__
        # The cache knows functions by this name alone, and not how they were compiled: a twin
        # without wrappers, taken for one with them, would crash when Python calls it.
        kind = "_callee" if target == CALLEE else ""
        clone.__qualname__ = f"{source.__qualname__}_{digest(self)}{kind}"
        return clone


def device_function(py_func: Callable[..., Any]) -> DeviceFunction:
    """Register a per-point routine; nothing is compiled yet.

    The routine may use scalars, array indexing, array views, ``math`` and other device functions
    named directly in its globals. It must not allocate, raise, or close over variables.
    """
    if not isinstance(py_func, types.FunctionType):
        raise TypeError(f"device_function expects a plain function, got {type(py_func).__name__}.")
    if py_func.__closure__ or py_func.__defaults__:
        raise TypeError(
            f"{py_func.__qualname__}: a device function has no closure and no default arguments."
        )
    return DeviceFunction(py_func)


def specialise(
    template: Callable[..., Any], owner: str, **bindings: DeviceFunction | int
) -> DeviceFunction:
    """Return `template` with some of its global names bound to device functions or to constants.

    One batch driver written once serves every set in this way: the driver calls a global name such
    as ``project_point``, and each set receives its own copy with that name bound to its routine. A
    routine whose loops run to a constant is unrolled in this way for each value of it.
    """
    assert isinstance(template, types.FunctionType)
    clone = types.FunctionType(
        template.__code__, {**template.__globals__, **bindings}, template.__name__
    )
    clone.__module__ = template.__module__
    clone.__qualname__ = f"{owner}_{template.__qualname__}"
    clone.__doc__ = template.__doc__
    return DeviceFunction(clone)


def digest(function: DeviceFunction) -> str:
    """Return twelve hexadecimal digits that change whenever the function's meaning can change."""
    known = function.__dict__.get("_digest")
    if known is None:
        state = hashlib.sha256(repr((LINKING, sorted(FASTMATH))).encode())
        _feed(state, function, set())
        known = state.hexdigest()[:12]
        function.__dict__["_digest"] = known
    return known


def _feed(state: Any, function: DeviceFunction, seen: set[int]) -> None:
    if id(function) in seen:
        return
    seen.add(id(function))
    code = function.py_func.__code__
    state.update(code.co_code)
    state.update(repr((code.co_names, code.co_varnames, code.co_consts)).encode())
    for name, value in _referenced(function.py_func):
        state.update(name.encode())
        if _is_device(value):
            _feed(state, value, seen)
        elif isinstance(value, bool | int | float | complex | str | tuple):
            state.update(repr(value).encode())


def _referenced(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    scope = function.__globals__
    for name in function.__code__.co_names:
        if name in scope:
            yield name, scope[name]


def _is_device(value: Any) -> bool:
    return isinstance(value, DeviceFunction)


def _callee(value: DeviceFunction, target: str, compiler: Callable[..., Any]) -> Any:
    """Return the twin that compiled code calls."""
    if target in ("cpu", CALLEE):
        return value.twin(CALLEE, _compile_callee)
    return value.twin(target, compiler)


def _compile_callee(py_func: types.FunctionType) -> Any:
    # No wrapper for Python marks a part, see `_linking`.
    return _compile_cpu(py_func, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def _compile_cpu(py_func: types.FunctionType, **more: bool) -> Any:
    import numba

    from ._linking import WholeProgramCompiler

    options: dict[str, Any] = {
        "nogil": True, "error_model": "numpy", "fastmath": set(FASTMATH),
        "pipeline_class": WholeProgramCompiler, **more,
    }  # fmt: skip
    compiled: Any = numba.njit(**options)(py_func)
    # With NUMBA_DISABLE_JIT it is the plain function.
    if compiled is py_func or os.environ.get("HSREF_DISABLE_CACHE"):
        return compiled
    from ._caching import SealedCache

    try:
        compiled._cache = SealedCache(py_func)
    except RuntimeError:
        # Neither the package folder nor the user's cache folder can be written: compile each time.
        _warn_uncached()
    return compiled


@functools.cache
def _warn_uncached() -> None:
    warnings.warn(
        "hsref found no writable folder for its compiled code and compiles it anew in every "
        "process; set NUMBA_CACHE_DIR to a writable folder to avoid that.",
        RuntimeWarning,
        stacklevel=2,
    )
