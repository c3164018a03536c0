"""Errors planted into the device functions of one set, each in a process of its own.

Run with NUMBA_DISABLE_JIT=1, so that a changed function needs no compiler:
``python tests/code_mutations.py Simplex folder`` prints, for each mutation, the exit code of
``hsref verify``. Source lines are replaced; a line that is no longer there is an error here.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from hsref._jit import DeviceFunction, device_function
from hsref.sets import dual_active_set, polyhedron_kernel, simplex
from hsref.theory import verify


def rewrite(module: Any, name: str, old: str, new: str) -> None:
    """Replace lines of a device function, wherever in the package it is known by its name."""
    function = getattr(module, name).py_func
    source = inspect.getsource(function)
    source = source[source.index("def ") :]
    if old not in source:
        raise LookupError(f"{name} holds no line {old!r}; the mutation needs a new one.")
    scope: dict[str, Any] = {}
    code = compile(source.replace(old, new), inspect.getsourcefile(function) or name, "exec")
    exec(code, function.__globals__, scope)
    changed = device_function(scope[name])
    for other in list(sys.modules.values()):
        if other.__name__.startswith("hsref.") and isinstance(
            getattr(other, name, None), DeviceFunction
        ):
            setattr(other, name, changed)


def loose_start() -> None:
    """Let the fast pass stop early: the polish makes up for it."""
    dual_active_set.FAST_TOL = 0.1


def no_polish() -> None:
    """Take what the early end of the fast pass leaves, and look at nothing again."""
    loose_start()
    looks_again = "        if worst > RESIDUAL_TOL and corrections"
    leaves = "        return k, steps, SOLVED\n"
    rewrite(dual_active_set, "polish", looks_again, leaves + looks_again)


PRODUCTS = "    factor_times(T, k, c, v)\n    factor_transpose_times(T, k, v, c)\n"
SWAPPED = "    factor_transpose_times(T, k, c, v)\n    factor_times(T, k, v, c)\n"
MUTATIONS: dict[str, dict[str, Callable[[], None]]] = {
    "Polyhedron": {
        "swapped sign": lambda: rewrite(
            polyhedron_kernel, "write_record", "work[first + a] = nu[a]", "work[first + a] = -nu[a]"
        ),
        "dropped row": lambda: rewrite(
            polyhedron_kernel, "write_record", "iwork[2] = total", "iwork[2] = max(total - 1, 0)"
        ),
        "no polish": no_polish,
        "transposed": lambda: rewrite(polyhedron_kernel, "remove_selected", PRODUCTS, SWAPPED),
    },
    "Simplex": {
        "swapped sign": lambda: rewrite(
            simplex, "simplex_project", "dual[0] = tau + top", "dual[0] = -(tau + top)"
        ),
        "dropped row": lambda: rewrite(
            simplex, "simplex_hs", "(code[1 + j] & mask) == 0",
            "((code[1 + j] & mask) == 0 or j == 0)",
        ),
        # one step of Newton's method for the threshold, and no second look
        "no polish": lambda: rewrite(
            simplex, "simplex_threshold", "if size >= count and passes > 0:", "if size > 0:"
        ),
        # the mask on the result alone: an oblique projector, right from one side only
        "transposed": lambda: rewrite(
            simplex, "simplex_hs", "total += g[j] if free else 0.0", "total += g[j]"
        ),
    },
}  # fmt: skip

HARMLESS: dict[str, dict[str, Callable[[], None]]] = {
    "Polyhedron": {"none": lambda: None, "loose start": loose_start},
    "Simplex": {"none": lambda: None},
}

POINTS = {"Polyhedron": "105", "Simplex": "350"}
"""Enough for every example to be visited with every kind of point."""


def main() -> None:
    """Print {mutation: exit code of hsref verify} as JSON, harmless changes first."""
    name, folder = sys.argv[1:]
    # kernels that Numba would run silently divide by zero and overflow aloud here
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    found = {}
    for mutation, plant in {**HARMLESS[name], **MUTATIONS[name]}.items():
        child = os.fork()
        if child == 0:
            sys.stdout = sys.stderr
            plant()
            os._exit(verify.main([
                "--sets", name, "--statements", "T1", "T3", "--points", POINTS[name],
                "--executor", "serial", "--out", os.path.join(folder, mutation.replace(" ", "-")),
            ]))  # fmt: skip
        found[mutation] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
