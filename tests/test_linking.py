"""The bits of a compiled routine depend on its source and the processor, on nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, timeout=600, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# Each calls parts that are too large to be inlined, with sums that may be reassociated.
SETS = {
    "Transport": "hsref.Transport(np.full(4, 0.25), np.full(5, 0.2))",
    "Permutahedron": "hsref.Permutahedron(np.arange(9.0) ** 1.5)",
}


@pytest.mark.parametrize("name", sorted(SETS))
def test_the_process_that_compiles_and_the_next_agree_to_the_last_bit(name, tmp_path):
    code = f"""
    import hashlib
    import numpy as np
    import hsref
    from numba.core import event

    C = {SETS[name]}
    x = np.random.default_rng(5).normal(size=(400, *C.shape))
    with event.install_recorder("numba:compile") as compiled:
        p = hsref.projection(x, C)
        g = p.jacobian().T @ x
    state = hashlib.sha256(p.y.tobytes() + g.tobytes())
    print(len(compiled.buffer) > 0, state.hexdigest())
    """
    first = run(code, NUMBA_CACHE_DIR=str(tmp_path)).split()
    second = run(code, NUMBA_CACHE_DIR=str(tmp_path)).split()
    uncached = run(code, HSREF_DISABLE_CACHE="1").split()
    assert (first[0], second[0], uncached[0]) == ("True", "False", "True")
    assert first[1] == second[1] == uncached[1]


def test_an_entry_point_shares_no_routine_and_a_part_has_no_machine_code():
    code = """
    import re
    import numpy as np
    import hsref

    C = hsref.Simplex(5)
    hsref.project(np.zeros((2, 5)), C)
    driver = C.kernel.project_driver.cpu
    (compiled,) = driver.overloads.values()
    text = compiled.library.get_llvm_str()
    defined = re.findall(r"^define (.*?)@", text, re.MULTILINE)
    print(len(defined), sum("linkonce" in head or "weak" in head for head in defined))
    from hsref._linking import EntryLibrary, PartLibrary
    parts = compiled.library._linking_libraries
    ours = [part for part in parts if isinstance(part, PartLibrary)]
    print(isinstance(compiled.library, EntryLibrary), compiled.library._compiled)
    print(len(ours) > 0, any(part._compiled for part in ours))
    """
    lines = run(code, HSREF_DISABLE_CACHE="1").split("\n")
    definitions, shared = map(int, lines[0].split())
    assert definitions >= 2  # the driver and its wrapper for Python
    assert shared == 0
    assert lines[1:] == ["True True", "True False"]


def test_a_part_from_the_disk_cache_is_linked_like_a_new_one(tmp_path):
    # The second process finds all parts, and no entry point, of the other precision.
    code = """
    import numpy as np
    import hsref

    C = hsref.Permutahedron(np.arange(9.0) ** 1.5)
    x = np.random.default_rng(5).normal(size=(400, 9)).astype("DTYPE")
    print(hsref.project(x, C).tobytes().hex())
    """
    single, double = code.replace("DTYPE", "float32"), code.replace("DTYPE", "float64")
    run(double, NUMBA_CACHE_DIR=str(tmp_path / "shared"))
    after = run(single, NUMBA_CACHE_DIR=str(tmp_path / "shared"))
    alone = run(single, NUMBA_CACHE_DIR=str(tmp_path / "own"))
    assert after == alone
