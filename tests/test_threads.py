"""Sample i is the same bits alone, in any batch, at any thread count, in any process."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import hsref
from hsref.sets import REGISTRY

ROOT = Path(__file__).resolve().parent.parent


def dense(n: int = 12, m: int = 18) -> hsref.Polyhedron:
    rng = np.random.default_rng(n)
    A_eq = rng.normal(size=(2, n))
    return hsref.Polyhedron(
        A_ub=rng.normal(size=(m, n)),
        b_ub=np.ones(m),
        A_eq=A_eq,
        b_eq=np.zeros(2),
        lower=-1.0,
        upper=1.0,
    )


def rows_only() -> hsref.Polyhedron:
    return hsref.Polyhedron(A_ub=np.random.default_rng(1).normal(size=(9, 30)), b_ub=np.ones(9))


SETS = [
    pytest.param(dense(), id="Polyhedron"),
    pytest.param(rows_only(), id="rows only"),
    pytest.param(hsref.Polyhedron(A_eq=np.ones((1, 40)), b_eq=[1.0], lower=0.0), id="one row"),
    pytest.param(hsref.Simplex(37), id="Simplex"),
    pytest.param(hsref.Box(-0.5, 0.5, n=5), id="Box"),
]  # fmt: skip


def points(C: hsref.PolyhedralSet, batch: int, dtype=np.float64) -> np.ndarray:
    return (2.0 * np.random.default_rng(3).normal(size=(batch, *C.shape))).astype(dtype)


@pytest.fixture
def always_threaded(monkeypatch):
    """Hand even small batches to the pool."""
    import hsref._threads

    monkeypatch.setattr(hsref._threads, "SERIAL_COST", 0.0)


# -- bits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("C", SETS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.usefixtures("always_threaded")
def test_alone_in_a_batch_and_on_any_number_of_threads(C, dtype):
    x = points(C, 61, dtype)
    g = points(C, 61, dtype)[::-1].copy()
    one = hsref.projection(x, C, n_threads=1)
    for n_threads in (2, 3, 8, None):
        many = hsref.projection(x, C, n_threads=n_threads)
        assert many.y.tobytes() == one.y.tobytes()
        assert (many.jacobian() @ g).tobytes() == (one.jacobian() @ g).tobytes()
        assert many.multipliers.eq.tobytes() == one.multipliers.eq.tobytes()
        assert many.status.tobytes() == one.status.tobytes()
        assert hsref.project(x, C, n_threads=n_threads).tobytes() == one.y.tobytes()
    pushed = one.jacobian() @ g
    for i in (0, 1, 30, 60):
        own = hsref.projection(x[i], C)
        assert own.y.tobytes() == one.y[i].tobytes()
        assert (own.jacobian() @ g[i]).tobytes() == pushed[i].tobytes()
    order = np.random.default_rng(4).permutation(61)
    assert hsref.project(x[order], C).tobytes() == one.y[order].tobytes()
    # the same numbers in another layout
    assert hsref.project(np.asfortranarray(x), C).tobytes() == one.y.tobytes()
    assert hsref.project(np.repeat(x, 2, axis=0)[::2], C).tobytes() == one.y.tobytes()
    batched = x[:60].reshape(3, 4, 5, *C.shape)
    assert hsref.project(batched, C).tobytes() == one.y[:60].tobytes()


@pytest.mark.usefixtures("always_threaded")
def test_per_sample_data_does_not_mix():
    C = dense()
    x, rng = points(C, 23), np.random.default_rng(5)
    b_ub = rng.uniform(0.5, 1.5, (23, 18))
    y = hsref.project(x, C, b_ub=b_ub, n_threads=4)
    for i in (0, 11, 22):
        assert hsref.project(x[i], C, b_ub=b_ub[i]).tobytes() == y[i].tobytes()


def test_a_neighbour_that_fails_changes_nothing():
    C = hsref.Polyhedron(A_ub=[[1.0, 1.0], [-1.0, -1.0]], b_ub=[1.0, 0.0])
    x = np.random.default_rng(6).normal(size=(9, 2))
    b_ub = np.tile([1.0, 0.0], (9, 1))
    wanted = hsref.project(x, C, b_ub=b_ub)
    b_ub[4, 1] = -3.0
    y = hsref.project(x, C, b_ub=b_ub, on_infeasible="nan")
    rest = np.arange(9) != 4
    assert y[rest].tobytes() == wanted[rest].tobytes()


# -- threads --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("always_threaded")
def test_python_threads_at_once():
    C = dense()
    x = points(C, 40)
    wanted = hsref.project(x, C)
    pushed = hsref.projection(x, C).jacobian() @ x
    gate = threading.Barrier(4)

    def work(k: int) -> bool:
        gate.wait(timeout=60)
        for _ in range(20):
            if hsref.project(x, C, n_threads=1 + k % 3).tobytes() != wanted.tobytes():
                return False
            if (hsref.projection(x, C).jacobian() @ x).tobytes() != pushed.tobytes():
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_first_use_in_two_threads_at_once():
    # both compile, or wait for the other's compilation, in a fresh interpreter
    run(
        """
        import threading, numpy as np, hsref
        C = hsref.Simplex(5)
        x = np.arange(10.0).reshape(2, 5)
        out, gate = [], threading.Barrier(2)
        def work():
            gate.wait()
            out.append(hsref.project(x, C).tobytes())
        threads = [threading.Thread(target=work) for _ in range(2)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        assert len(out) == 2 and out[0] == out[1]
        """
    )


# -- processes ------------------------------------------------------------------------------------


def run(code: str, **environment: str) -> str:
    """Run `code` in a fresh interpreter; a hang is a failure after two minutes."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


FORK = """
import os, sys, numpy as np, hsref, hsref._threads
hsref._threads.SERIAL_COST = 0.0
C = hsref.Simplex(6)
x = np.random.default_rng(0).normal(size=(50, 6))

def answer():
    y = hsref.project(x, C, n_threads=2)
    return y.tobytes() + (hsref.projection(x, C, n_threads=2).jacobian() @ x).tobytes()

def in_child(work):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.write(write, work()[:4096])
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    found = b""
    while piece := os.read(read, 65536):
        found += piece
    assert os.waitpid(child, 0)[1] == 0
    return found
"""
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


@needs_fork
def test_fork_after_use():
    run(FORK + "mine = answer()\nassert in_child(answer) == mine[:4096]\nassert answer() == mine\n")


@needs_fork
def test_fork_before_use():
    run(FORK + "theirs = in_child(answer)\nassert theirs == answer()[:4096]\n")


@needs_fork
def test_fork_while_another_thread_works():
    run(
        FORK
        + """
import threading
mine, stop = answer(), threading.Event()
def busy():
    while not stop.is_set():
        answer()
thread = threading.Thread(target=busy)
thread.start()
try:
    for _ in range(5):
        assert in_child(answer) == mine[:4096]
finally:
    stop.set()
    thread.join()
"""
    )


def project_there(x: np.ndarray, C: hsref.PolyhedralSet) -> bytes:
    return hsref.project(x, C).tobytes()


def test_spawned_workers_give_the_same_bits():
    C = dense()
    x = points(C, 7)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        there = pool.submit(project_there, x, C).result(timeout=120)
    assert there == hsref.project(x, C).tobytes()


EVERY_SET = [
    pytest.param(name, k, id=f"{name}-{k}")
    for name, kind in REGISTRY.items()
    for k in range(len(kind.examples()))
]


def bits(C: hsref.PolyhedralSet, dtype: str, n_threads: int | None = 1) -> dict[str, bytes]:
    """Return what a projection says about points on faces, off them and far away, as bytes."""
    rng = np.random.default_rng(7)
    shape = (24, *C.shape)
    x = np.concatenate(
        [
            rng.integers(-2, 3, shape),
            rng.normal(size=shape),
            1e3 * rng.normal(size=shape),
            1e-3 * rng.normal(size=shape) + C.interior_point(),
        ]
    ).astype(dtype)
    record = hsref.projection(x, C, n_threads=n_threads)
    parts = {"y": record.y, "project": hsref.project(x, C, n_threads=n_threads)}
    parts |= {f"multipliers {k}": v for k, v in record.multipliers._asdict().items()}
    for selection in ("active", "working", "support"):
        parts[selection] = record.jacobian(selection) @ x[::-1].copy()
    for i in (0, 25, 95):
        own = hsref.projection(x[i], C)
        parts[f"alone {i}"] = np.stack([own.y, own.jacobian() @ x[::-1][i].copy()])
        parts[f"in the batch {i}"] = np.stack([record.y[i], parts["active"][i]])
    return {name: np.asarray(part).tobytes() for name, part in parts.items()}


def bits_there(name: str, k: int, dtype: str) -> dict[str, bytes]:
    return bits(REGISTRY[name].examples()[k], dtype)


@pytest.fixture(scope="module")
def spawned():
    """Return a pool of one spawned process, which finds compiled what this process has used."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        yield pool


@pytest.mark.parametrize(("name", "k"), EVERY_SET)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.usefixtures("always_threaded")
def test_every_set_gives_the_same_bits_everywhere(name, k, dtype, spawned):
    C = REGISTRY[name].examples()[k]
    here = bits(C, dtype)
    assert here["project"] == here["y"]
    for i in (0, 25, 95):
        assert here[f"alone {i}"] == here[f"in the batch {i}"]
    for n_threads in (2, 5):
        assert bits(C, dtype, n_threads) == here
    assert spawned.submit(bits_there, name, k, dtype).result(timeout=600) == here


def test_the_number_of_threads_comes_from_the_environment():
    code = "import hsref._threads as t; print(t.default_threads())"
    assert run(code, HSREF_NUM_THREADS="3") == "3"
    assert int(run(code, HSREF_NUM_THREADS="")) >= 1
    bad = """
    import hsref
    try:
        hsref.project([0.0, 1.0], hsref.Simplex(2))
    except ValueError as problem:
        print(problem)
    """
    assert "HSREF_NUM_THREADS" in run(bad, HSREF_NUM_THREADS="many")


def test_without_a_disk_cache_the_answer_is_the_same():
    code = "import hsref; print(hsref.project([0.5, 0.25, -1.0], hsref.Simplex(3)))"
    assert run(code, HSREF_DISABLE_CACHE="1") == "[0.625, 0.375, 0.0]"


@pytest.mark.skipif(os.name != "posix", reason="permissions")
def test_no_writable_folder_warns_once_and_works(tmp_path):
    # A package and a home that cannot be written: Numba finds no place for its cache.
    code = """
    import warnings
    import hsref, hsref._jit
    import numba.core.caching as caching

    caching.CacheImpl._locator_classes = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        print(hsref.project([0.5, 0.25, -1.0], hsref.Simplex(3)))
        hsref.project([0.5, 2.0], hsref.Box(0.0, 1.0, n=2))
    print(sum("NUMBA_CACHE_DIR" in str(w.message) for w in caught))
    """
    assert run(code).split("\n") == ["[0.625, 0.375, 0.0]", "1"]


def test_scratch_keeps_its_distance():
    # Compiled loops sum in another order where two arrays lie within a few vectors of each other.
    from hsref._scratch import APART, scratch

    arrays = scratch((4, float), (0, float), (7, np.int32), (1, float))
    assert [len(a) for a in arrays] == [4, 1, 7, 1]
    assert all(a.flags.writeable and a.flags.aligned for a in arrays)
    starts = [a.ctypes.data for a in arrays]
    ends = [start + a.nbytes for start, a in zip(starts, arrays, strict=True)]
    assert all(b - a >= APART for a, b in zip(ends, starts[1:], strict=False))


def test_both_drivers_work_in_scratch_of_that_kind(monkeypatch):
    import hsref._batch

    made = []
    original = hsref._batch.scratch
    monkeypatch.setattr(hsref._batch, "scratch", lambda *args: made.append(1) or original(*args))
    x = np.array([[1.0, 2.0, 3.0]])
    record = hsref.projection(x, hsref.Simplex(3))
    assert len(made) == 1
    _ = record.jacobian() @ x
    assert len(made) == 2


def test_a_sample_has_the_same_bits_wherever_its_scratch_lies():
    # c'x is all cancellation here, so that the order of its terms shows.
    c = np.array([-50.53698517, 50.53698517, -101.07397034, 101.07397034])
    x, offset = np.array([101.07397034, 0.0, 50.53698517, -151.61095551]), -85255776.89212832
    C = hsref.Hyperplane(c, offset)
    wanted = hsref.project(x, C).tobytes()
    rng = np.random.default_rng(0)
    kept: list = []
    for _ in range(4000):
        kept = [*kept[-40:], np.empty(int(rng.integers(0, 3000)))]
        rows = int(rng.integers(1, 300))
        batch = np.concatenate([x[None], rng.normal(size=(rows - 1, 4))])
        p = hsref.projection(batch, C, offset=np.full(rows, offset))
        assert p.y[0].tobytes() == wanted
        assert hsref.project(p.x[0], C, offset=offset).tobytes() == wanted
