"""Compiled code on disk: damaged, unwritable or contested, it costs time and never an answer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap

import pytest

from hsref._caching import SealedFiles

pytestmark = pytest.mark.skipif(
    bool(os.environ.get("NUMBA_DISABLE_JIT")), reason="nothing is compiled"
)

ANSWER = """
import hashlib
import numpy as np
import hsref
from numba.core import event

x = np.random.default_rng(0).normal(size=(20, 5)).astype("DTYPE")
C = hsref.Box(0.0, 0.5, n=5)
with event.install_recorder("numba:compile") as compiled:
    p = hsref.projection(x, C)
    g = p.jacobian() @ x
print(len(compiled.buffer), hashlib.sha256(p.y.tobytes() + g.tobytes()).hexdigest())
"""


def start(code: str, folder, **environment: str) -> subprocess.Popen:
    settings = {k: v for k, v in os.environ.items() if k != "HSREF_DISABLE_CACHE"}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**settings, "NUMBA_CACHE_DIR": str(folder), **environment},
    )  # fmt: skip


def end(process: subprocess.Popen) -> tuple[int, str, str]:
    """Return how many compilations there were, a digest of the answers, and the warnings."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    compilations, bits = out.split()
    return int(compilations), bits, err


def answer(folder, dtype="float64", before="") -> tuple[int, str, str]:
    return end(start(before + ANSWER.replace("DTYPE", dtype), folder))


def files(folder) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.nbc")}


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """Return a folder of intact files, with the answer of the process that made them."""
    folder = tmp_path_factory.mktemp("filled")
    made = answer(folder)
    assert made[0] > 0
    assert files(folder)
    return folder, made[1]


def flipped(content: bytes) -> bytes:
    changed = bytearray(content)
    # one bit, in the middle, where the machine code is
    changed[len(changed) // 2] ^= 0x10
    return bytes(changed)


DAMAGE = {
    "emptied": lambda content: b"",
    "cut in half": lambda content: content[: len(content) // 2],
    "last byte lost": lambda content: content[:-1],
    "overwritten": lambda content: bytes(len(content)),
    "one bit": flipped,
}


@pytest.mark.parametrize("how", DAMAGE)
def test_no_damaged_file_is_read(how, tmp_path):
    one = SealedFiles(str(tmp_path), "f", (1.0, 10))
    one.save("types", {"code": "x" * 1000})
    (path,) = tmp_path.iterdir()
    path.write_bytes(DAMAGE[how](path.read_bytes()))
    assert one.load("types") is None
    one.save("types", "mended")
    assert one.load("types") == "mended"


@pytest.mark.parametrize("how", ["cut in half", "one bit"])
def test_damaged_files_are_compiled_again_and_mended(how, filled, tmp_path):
    folder, bits = filled
    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    for path in damaged.rglob("*.nbc"):
        path.write_bytes(DAMAGE[how](path.read_bytes()))
    compilations, found, _ = answer(damaged)
    assert compilations > 0
    assert found == bits
    assert answer(damaged)[:2] == (0, bits)


def test_an_intact_file_is_used_and_another_function_s_is_not(filled, tmp_path):
    folder, bits = filled
    assert answer(folder)[:2] == (0, bits)
    # what a race for one name would leave: the name of one routine on the code of another
    swapped = tmp_path / "swapped"
    shutil.copytree(folder, swapped)
    drivers = [p for p in swapped.rglob("*.nbc") if p.name.startswith("_batch")]
    assert len(drivers) == 2
    first, second = (p.read_bytes() for p in drivers)
    drivers[0].write_bytes(second)
    drivers[1].write_bytes(first)
    compilations, found, _ = answer(swapped)
    assert compilations > 0
    assert found == bits


def test_two_processes_fill_one_empty_folder(filled, tmp_path):
    shared = tmp_path / "shared"
    # the same routine for the same types, and for others, at the same time
    code = [ANSWER.replace("DTYPE", dtype) for dtype in ("float64", "float64", "float32")]
    results = [end(process) for process in [start(one, shared) for one in code]]
    assert results[0][1] == results[1][1] == filled[1]
    assert answer(shared)[:2] == (0, results[0][1])
    assert answer(shared, "float32")[:2] == (0, results[2][1])
    assert not list(shared.rglob("*.part"))


def test_a_full_disk_costs_a_warning(filled, tmp_path):
    resource = pytest.importorskip("resource")
    assert resource.RLIMIT_FSIZE
    # No file may grow beyond 4 KiB: the system refuses the write, as it does on a full disk.
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
    _, bits, warned = answer(tmp_path, before=limit)
    assert bits == filled[1]
    assert "could not store compiled code" in warned
    assert "NUMBA_CACHE_DIR" in warned
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_code_of_another_state_of_the_source_is_stale(tmp_path):
    one = SealedFiles(str(tmp_path), "f", (1.0, 10))
    one.save(("types",), "code")
    assert one.load(("types",)) == "code"
    assert one.load(("others",)) is None
    assert SealedFiles(str(tmp_path), "f", (2.0, 10)).load(("types",)) is None
    SealedFiles(str(tmp_path), "g", (1.0, 10)).save(("types",), "other")
    one.flush()
    assert one.load(("types",)) is None
    assert [p.name.split("-")[0] for p in tmp_path.iterdir()] == ["g"]
