"""Interrupts, kills, pools of workers: what surrounds a call, and what is left after it."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import hsref

posix = pytest.mark.skipif(os.name != "posix", reason="signals and processes of POSIX")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
HERE = Path(__file__).resolve().parent


def start(code: str, *arguments: str, **environment: str) -> subprocess.Popen:
    """Start a fresh interpreter with nobody's thread settings but those given."""
    settings = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    paths = [str(Path(hsref.__file__).parent.parent), str(HERE), os.environ.get("PYTHONPATH", "")]
    settings["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**settings, **environment},
    )  # fmt: skip


def run(code: str, *arguments: str, **environment: str) -> str:
    process = start(code, *arguments, **environment)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out.strip()


# -- Ctrl-C ---------------------------------------------------------------------------------------

INTERRUPT = """
import os, signal, sys, threading, time
import numpy as np
import hsref
import hsref._batch as batch

# A shell starts what runs in the background with this signal ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
threads, direction = int(sys.argv[1]), sys.argv[2]
C = hsref.Simplex(1000)
few = np.random.default_rng(0).normal(size=(100, 1000))
many = np.broadcast_to(few, (200, *few.shape)).copy()
record = hsref.projection(few, C)
wanted = record.y.tobytes() + (record.jacobian() @ few).tobytes()
record = hsref.projection(few, C, n_threads=threads)

def work():
    if direction == "forward":
        hsref.project(many, C, n_threads=threads)
    else:
        record.jacobian() @ many

def chunks_of(call, third=lambda: None):
    # count the chunks of a call, and say when the third one begins
    count, original = [0], batch.run_chunks
    def counted(chunk, *rest):
        def one(begin, end):
            count[0] += 1
            if count[0] == 3:
                third()
            chunk(begin, end)
        original(one, *rest)
    batch.run_chunks = counted
    try:
        call()
        stopped = False
    except KeyboardInterrupt:
        stopped = True
    finally:
        batch.run_chunks = original
    return count[0], stopped

whole, stopped = chunks_of(work)
assert not stopped and whole >= 8, whole
# the signal comes from a thread of its own, in the middle of compiled code
begun = threading.Event()

def interrupt():
    begun.wait()
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt).start()
done, stopped = chunks_of(work, begun.set)
assert stopped, "the call ran to its end"
# nothing works on, and the library is as it was
before = time.process_time()
time.sleep(0.2)
assert time.process_time() - before < 0.1, "a thread goes on"
for n in (1, 2, None):
    p = hsref.projection(few, C, n_threads=n)
    assert p.y.tobytes() + (p.jacobian() @ few).tobytes() == wanted
print(done, whole)
"""


@posix
@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_an_interrupt_stops_between_chunks(threads, direction):
    done, whole = map(int, run(INTERRUPT, threads, direction, HSREF_NUM_THREADS=threads).split())
    assert done < whole


# -- kill -9 --------------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
import numpy as np
from hsref.applications._checkpoint import Checkpoint
from hsref.applications._common import write_json
from hsref.theory.reports import save_arrays
from hsref._caching import SealedFiles

folder = Path(sys.argv[1])
sealed = SealedFiles(str(folder), "code", 0)
print("ready", flush=True)
k = 0
while True:
    k += 1
    big = np.full(60_000, float(k))
    Checkpoint(folder / "one.npz").save({"k": k}, [big])
    save_arrays(folder / "two.npz", big=big)
    write_json(folder / "three.json", {"k": k, "big": big[:9000]})
    sealed.save("types", big)
"""


@posix
def test_a_kill_at_any_moment_leaves_whole_files(tmp_path):
    import json

    from hsref._caching import SealedFiles
    from hsref.applications._checkpoint import Checkpoint

    rng = np.random.default_rng(0)
    last = 0
    for _ in range(6):
        process = start(WRITER, str(tmp_path))
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.05 + 0.2 * rng.random())
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        if not (tmp_path / "three.json").exists():
            continue
        found = Checkpoint(tmp_path / "one.npz").load([np.zeros(60_000)])
        assert found is not None
        meta, (big,) = found
        assert np.all(big == meta["k"])
        with np.load(tmp_path / "two.npz", allow_pickle=False) as saved:
            assert len(set(saved["big"])) == 1
        text = json.loads((tmp_path / "three.json").read_text())
        assert text["big"] == [float(text["k"])] * 9000
        code = SealedFiles(str(tmp_path), "code", 0).load("types")
        assert code is None or len(set(code)) == 1
        last = max(last, meta["k"])
    assert last > 0


VERIFY = """
import sys
from hsref.theory import verify

def show(done, total, failed):
    print(done, flush=True)

verify.run(sets=["Box", "Simplex"], statements=["T1", "T3", "T4"], points=168,
           out=sys.argv[1], progress=show)
"""


@posix
def test_a_verification_that_was_killed_goes_on(tmp_path, monkeypatch):
    import json

    from hsref.theory import journal, verify

    quick = {"sets": ["Box", "Simplex"], "statements": ["T1", "T3", "T4"], "points": 168}
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    code = VERIFY.replace(
        "\ndef show",
        "\nfrom hsref.theory import journal\njournal.Journal.__init__.__defaults__ = (0.0,)"
        "\ndef show",
    )
    process = start(code, str(killed))
    assert process.stdout is not None
    for _ in range(9):
        assert process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (killed / "report.json").exists()
    kept = len(journal.Journal(killed, json.loads((killed / "request.json").read_text())).results)
    assert kept >= 8, "all that was done, save what was being written"
    seen = []
    verify.run(**quick, out=killed, progress=lambda done, total, failed: seen.append(done))
    assert seen[0] == kept + 1
    verify.run(**quick, out=whole)
    reports = [json.loads((f / "report.json").read_text("utf-8")) for f in (killed, whole)]
    for report in reports:
        del report["run"]
    assert reports[0] == reports[1]


# -- threads × BLAS -------------------------------------------------------------------------------

COUNT = """
import os, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import hsref, hsref._threads

def tasks():
    return len(os.listdir("/proc/self/task"))

rng = np.random.default_rng(0)
C, big = hsref.Simplex(400), rng.normal(size=(4000, 400))
hsref.projection(big[:2], C).jacobian() @ big[:2]
np.linalg.inv(rng.normal(size=(300, 300)))  # BLAS has started whatever it starts
alone = tasks()

def work(_):
    return hsref.projection(big, C).jacobian() @ big

work(0)
one_call = tasks() - alone
with ThreadPoolExecutor(8) as pool:
    list(pool.map(work, range(16)))
    many_calls = tasks() - alone - 8
wall, busy = time.perf_counter(), time.process_time()
for _ in range(10):
    hsref.projection(big, C, n_threads=1).jacobian() @ big
wall, busy = time.perf_counter() - wall, time.process_time() - busy
print(hsref._threads.default_threads(), one_call, many_calls, busy / wall)
"""


@linux
def test_calls_share_one_pool_and_none_is_made_for_one_thread():
    threads, one, many, _ = run(COUNT, HSREF_NUM_THREADS="3").split()
    # a caller works itself, so that three threads are the caller and two that help
    assert (threads, one, many) == ("3", "2", "2"), "eight callers at once share two helpers"
    threads, one, many, busy = run(COUNT, HSREF_NUM_THREADS="1").split()
    assert (threads, one, many) == ("1", "0", "0")
    assert float(busy) <= 1.1, "one thread means one processor: no BLAS works beside it"


FAULTS = """
import resource
import numpy as np
import hsref

C = hsref.Simplex(1000, 1.0)
x = np.random.default_rng(0).normal(size=(100, 1000))


def calls(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        hsref.projection(x, C, n_threads=1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


calls(5)
print(calls(20) / 20)
"""


@linux
def test_a_loop_over_batches_does_not_fetch_its_memory_anew():
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("what this allocator does with freed memory is its own affair")
    # Written to fresh pages, the record of a batch takes 380 of them.
    assert float(run(FAULTS)) <= 20.0


# -- workers of others ----------------------------------------------------------------------------

NESTED = """
import sys
import numpy as np
import hsref
from worker_tasks import nested

wanted = nested(0)
if __name__ == "__main__":
    if sys.argv[1] == "joblib":
        from joblib import Parallel, delayed
        found = Parallel(n_jobs=2)(delayed(nested)(k) for k in range(4))
        found += Parallel(n_jobs=2, prefer="threads")(delayed(nested)(k) for k in range(4))
    else:
        import distributed
        with distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, dashboard_address=None
        ) as cluster, distributed.Client(cluster) as client:
            found = client.gather(client.map(nested, range(4), pure=False))
    assert all(one[0] == wanted[0] for one in found), "other bits"
    pids = {one[1] for one in found}
    assert len(pids - {wanted[1]}) >= 1, "no other process took part"
    print(max(one[2] for one in found))
"""


@linux
@pytest.mark.parametrize("pool", ["joblib", "dask"])
def test_nested_in_workers(pool):
    pytest.importorskip("distributed" if pool == "dask" else "joblib")
    most = int(run(NESTED, pool, HSREF_NUM_THREADS="2"))
    assert most == 1, "two threads in each worker process: its own and one that helps"
