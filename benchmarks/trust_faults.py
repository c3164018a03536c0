"""Faults on purpose, many times: interrupts, kills, damaged caches, processes that compile at once.

The test suite has one of each; here are as many as make a rare failure visible.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent

ANSWER = """
import hashlib
import numpy as np
import hsref

x = np.random.default_rng(0).normal(size=(20, 5)).astype("DTYPE")
p = hsref.projection(x, hsref.Simplex(5))
print(hashlib.sha256(p.y.tobytes() + (p.jacobian() @ x).tobytes()).hexdigest())
"""

LATENCY = """
import os, signal, statistics, sys, threading, time
import numpy as np
import hsref

# A shell starts what runs in the background with this signal ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
C = hsref.Permutahedron(np.arange(1000.0))
few = np.random.default_rng(0).normal(size=(100, 1000))
many = np.broadcast_to(few, (60, *few.shape)).copy()
wanted = hsref.project(few, C).tobytes()
started = time.perf_counter()
hsref.project(many, C, n_threads=int(sys.argv[2]))
whole = time.perf_counter() - started
sent, late, over = [0.0], [], False

def interrupt():
    sent[0] = time.perf_counter()
    os.kill(os.getpid(), signal.SIGINT)

# On a busy machine a timer may ring when the call is over already: those do not count.
for k in range(3 * int(sys.argv[1])):
    timer = threading.Timer(0.02 + 0.01 * (k % 7), interrupt)
    over = False
    try:
        timer.start()
        hsref.project(many, C, n_threads=int(sys.argv[2]))
        over = True
        timer.join()
        time.sleep(0.01)
    except KeyboardInterrupt:
        if not over:
            late.append(time.perf_counter() - sent[0])
    assert hsref.project(few, C).tobytes() == wanted
    if len(late) == int(sys.argv[1]):
        break
print(whole, *late)
"""

WRITER = """
import sys
from pathlib import Path
import numpy as np
from hsref.applications._checkpoint import Checkpoint
from hsref.theory.reports import save_arrays, write_text

folder = Path(sys.argv[1])
print("ready", flush=True)
k = 0
while True:
    k += 1
    big = np.full(60_000, float(k))
    Checkpoint(folder / "one.npz").save({"k": k}, [big])
    save_arrays(folder / "two.npz", big=big)
    write_text(folder / "three.txt", f"{k} " * 9000)
"""


def _start(code: str, *arguments: str, **environment: str) -> subprocess.Popen:
    settings = {k: v for k, v in os.environ.items() if k != "HSREF_DISABLE_CACHE"}
    path = os.pathsep.join(filter(None, [str(ROOT), settings.get("PYTHONPATH", "")]))
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**settings, "PYTHONPATH": path, **environment},
    )  # fmt: skip


def _end(process: subprocess.Popen) -> tuple[int, str]:
    out, err = process.communicate(timeout=900)
    return process.returncode, out.strip() if process.returncode == 0 else err[-500:]


def interrupts(count: int = 30) -> dict[str, Any]:
    """Interrupt a long batch; return how late the call returned."""
    rows = []
    for threads in (1, 2):
        code, out = _end(_start(LATENCY, str(count), str(threads)))
        if code:
            return {"holds": False, "figure": out}
        whole, *late = map(float, out.split())
        rows.append({"threads": threads, "whole": whole, "late": late})
    late = [seconds for row in rows for seconds in row["late"]]
    return {
        "rows": rows,
        "holds": all(len(row["late"]) == count for row in rows),
        "figure": f"{len(late)} interrupts of a call of {rows[0]['whole']:.1f} s: it returned "
        f"after {1e3 * statistics.median(late):.0f} ms in the median, {1e3 * max(late):.0f} ms at "
        "worst; the next answer had the same bits each time",
    }


def kills(count: int = 100) -> dict[str, Any]:
    """Kill a process that writes all the time; every file is read back each time."""
    from hsref.applications._checkpoint import Checkpoint

    rng, broken, versions = random.Random(0), 0, set()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for _ in range(count):
            process = _start(WRITER, name)
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.02 + 0.15 * rng.random())
            process.send_signal(signal.SIGKILL)
            process.communicate()
            try:
                found = Checkpoint(folder / "one.npz").load([np.zeros(60_000)])
                if found is not None:
                    versions.add(found[0]["k"])
                    broken += bool(np.any(found[1][0] != found[0]["k"]))
                if (folder / "two.npz").exists():
                    with np.load(folder / "two.npz", allow_pickle=False) as saved:
                        broken += len(set(saved["big"])) != 1
                if (folder / "three.txt").exists():
                    words = (folder / "three.txt").read_text().split()
                    broken += len(words) != 9000 or len(set(words)) != 1
            except Exception:
                broken += 1
    return {
        "holds": broken == 0 and len(versions) > 1,
        "figure": f"{count} kills (SIGKILL) of a process that writes checkpoints, NPZ files and "
        f"texts: {broken} damaged files",
    }


def damage() -> dict[str, Any]:
    """Damage each file of a filled cache in each way, one at a time, and ask for the answer."""
    ways = {
        "emptied": lambda b: b"",
        "cut in half": lambda b: b[: len(b) // 2],
        "a bit flipped": lambda b: b[: len(b) // 2] + bytes([b[len(b) // 2] ^ 4])
        + b[len(b) // 2 + 1 :],
        "overwritten": lambda b: random.Random(0).randbytes(len(b)),
    }  # fmt: skip
    crashed, wrong, cases = [], 0, 0
    with tempfile.TemporaryDirectory() as name:
        good = Path(name) / "good"
        code, bits = _end(_start(ANSWER.replace("DTYPE", "float64"), NUMBA_CACHE_DIR=str(good)))
        assert code == 0, bits
        names = sorted(p.relative_to(good) for p in good.rglob("*.nbc"))
        for way, change in ways.items():
            for one in [*[[n] for n in names if n.name.startswith("_batch")], names]:
                folder = Path(name) / "damaged"
                shutil.copytree(good, folder)
                for path in one:
                    (folder / path).write_bytes(change((folder / path).read_bytes()))
                code, found = _end(
                    _start(ANSWER.replace("DTYPE", "float64"), NUMBA_CACHE_DIR=str(folder))
                )
                cases += 1
                if code:
                    crashed.append(f"{way}: {found}")
                wrong += code == 0 and found != bits
                shutil.rmtree(folder)
    return {
        "crashed": crashed,
        "holds": not crashed and not wrong,
        "figure": f"{cases} damaged caches ({', '.join(ways)}; one driver or every file): "
        f"{len(crashed)} crashes, {wrong} other answers",
    }


def race(rounds: int = 6) -> dict[str, Any]:
    """Let three processes fill one empty cache at once, two of them for the same types."""
    wrong, crashed = 0, 0
    known: dict[str, str] = {}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            kinds = ("float64", "float64", "float32")
            both = [_start(ANSWER.replace("DTYPE", kind), NUMBA_CACHE_DIR=folder) for kind in kinds]
            ended = [_end(process) for process in both]
            # and what they left behind is used by the next
            after = [
                _end(_start(ANSWER.replace("DTYPE", kind), NUMBA_CACHE_DIR=folder))
                for kind in kinds[1:]
            ]
        for kind, (code, found) in zip((*kinds, *kinds[1:]), ended + after):
            crashed += code != 0
            wrong += code == 0 and known.setdefault(kind, found) != found
    return {
        "holds": not crashed and not wrong,
        "figure": f"{rounds} times three processes into one empty cache, then two that read it: "
        f"{crashed} crashes, {wrong} answers with other bits",
    }
