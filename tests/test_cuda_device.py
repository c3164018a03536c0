"""What must hold on a device: ``pytest -m device``, on a GPU or, with small batches, in Numba's
simulator (``NUMBA_ENABLE_CUDASIM=1``), where `test_cuda.py` runs this file too.
"""  # noqa: D205

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cuda_inputs
import hsref
from hsref.sets import REGISTRY

pytestmark = pytest.mark.device
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def cuda():
    from hsref._cuda import compat

    try:
        compat.require_device()
    except compat.CudaUnavailableError as problem:
        pytest.skip(str(problem))
    return compat.cuda


@pytest.fixture(scope="module")
def simulated(cuda):
    from hsref._cuda import compat

    return compat.simulated()


def draw(seed, *shape, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


# -- the same answers -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", list(REGISTRY))
def test_device_agrees_with_the_cpu(cuda, simulated, name, dtype):
    rng = np.random.default_rng(1)
    count = 3 if simulated else 300
    for C in REGISTRY[name].examples():
        x = np.concatenate([
            rng.normal(size=(count, *C.shape)), rng.integers(-3, 4, (count, *C.shape)),
        ]).astype(dtype)  # fmt: skip
        eps = np.finfo(dtype).eps
        here, there = hsref.projection(x, C), hsref.projection(x, C, device="cuda")
        assert np.abs(here.y - there.y).max() <= 100 * eps * (1 + np.abs(x).max())
        clear = here.margin > (1e-10 if dtype == np.float64 else 1e-5)
        for a, b in zip(here.active, there.active, strict=True):
            assert np.array_equal(a[clear], b[clear])
        assert np.array_equal(here.rank[clear], there.rank[clear])
        assert np.max(there.residuals.primal) <= (1e-12 if dtype == np.float64 else 1e-5)
        assert np.max(there.residuals.dual) <= (1e-12 if dtype == np.float64 else 1e-5)
        v = rng.normal(size=x.shape).astype(dtype)
        resident = hsref.projection(cuda.to_device(x), C)
        got = (resident.jacobian() @ cuda.to_device(v)).copy_to_host()
        wanted = here.jacobian() @ v
        assert np.abs(got - wanted)[clear].max(initial=0.0) <= 500 * eps * (1 + np.abs(v).max())


def test_certificates_are_those_of_the_cpu(cuda):
    C = hsref.Polyhedron(
        A_ub=np.array([[1.0, 1.0, 0.0], [-1.0, -1.0, 0.0], [0.0, 1.0, 1.0]]),
        b_ub=np.array([1.0, 0.5, 1.0]), A_eq=np.array([[1.0, 0.0, 2.0]]), b_eq=np.array([0.25]),
    )  # fmt: skip
    x = draw(1, 6, 3)
    b = np.tile(C.b_ub, (6, 1))
    b[2, 1] = -2.0  # x0 + x1 <= 1 and x0 + x1 >= 2: sample 2 alone is empty
    calls = [
        hsref.projection(x, C, b_ub=b, on_infeasible="nan", device=device)
        for device in ("cpu", "cuda")
    ]
    here, there = calls
    assert np.array_equal(here.status, there.status)
    assert here.status[2] == hsref.Status.PRIMAL_INFEASIBLE
    for a, b_ in zip(here.certificate, there.certificate, strict=True):
        np.testing.assert_allclose(b_, a, atol=1e-13)
    for a, b_ in zip(here.multipliers, there.multipliers, strict=True):
        np.testing.assert_allclose(b_, a, atol=1e-12)
    for a, b_ in zip(here.residuals, there.residuals, strict=True):
        assert np.all(np.abs(a - b_)[np.arange(6) != 2] <= 1e-14)
    with pytest.raises(hsref.InfeasibleError, match=r"sample \(2,\)"):
        hsref.project(cuda.to_device(x), C, b_ub=b)


def test_a_sample_has_the_same_bits_in_every_batch(cuda, simulated):
    C = hsref.Simplex(5)
    most = 300 if simulated else 10**7
    tile = draw(2, min(most, 10_000), 5, dtype=np.float32)
    wanted = hsref.project(cuda.to_device(tile), C).copy_to_host()
    assert np.abs(wanted - hsref.project(tile, C)).max() <= 1e-6
    sizes = (0, 1, 2, 129) if simulated else (0, 1, 2, 127, 129, 10**4, 10**5, 10**6, 10**7)
    for batch in sizes:
        x = np.resize(tile, (batch, 5))
        y = hsref.project(cuda.to_device(x), C).copy_to_host()
        assert np.array_equal(y, np.resize(wanted, (batch, 5))), batch


@pytest.mark.parametrize("total", [1.0, 0.0, 50.0])
def test_a_block_for_each_sample_gives_the_same_record(cuda, simulated, monkeypatch, total):
    from hsref._cuda import cooperative, run

    if simulated:
        monkeypatch.setattr(cooperative, "THREADS", 2)
    n, count = (5, 2) if simulated else (1000, 500)
    C = hsref.Simplex(n, total)
    rng = np.random.default_rng(19)
    x = np.concatenate([rng.normal(size=(count, n)), rng.integers(-2, 3, (count, n))])
    here = hsref.projection(x, C)
    with cooperative.enabled():
        d = cuda.to_device(x)
        record = hsref.projection(d, C)
        there = record.to_host()
        assert np.abs(there.y - here.y).max() <= 1e-14 * (1 + total)
        if total > 0.0:
            assert np.array_equal(hsref.project(d, C).copy_to_host(), there.y)
        assert np.array_equal(there._raw.code, here._raw.code)
        assert np.array_equal(there._raw.info[:, 1:4], here._raw.info[:, 1:4])
        np.testing.assert_allclose(there._raw.dual, here._raw.dual, atol=1e-13)
        np.testing.assert_allclose(there.margin, here.margin, atol=1e-13)
        product = (record.jacobian() @ d).copy_to_host()
        assert np.abs(product - here.jacobian() @ x).max() <= 1e-13
        if total == 1.0:
            with pytest.raises(ValueError, match="x must be finite"):
                with np.errstate(invalid="ignore"):
                    hsref.project(cuda.to_device(np.where(x > 1, np.nan, x)), C)
        assert any(body is cooperative.simplex_rows for body in run._WHOLE)
    assert cooperative.stand_in(C.kernel, 0) is None


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n", [4, 6, 8])
def test_scratch_in_registers_gives_the_same_record(cuda, simulated, n, dtype):
    from hsref._cuda import registers

    C = hsref.Birkhoff(n)
    assert registers.attempts(C.kernel) == (n <= 6)
    rng = np.random.default_rng(n)
    count = 3 if simulated else 400
    permutations = np.stack([np.eye(n)[rng.permutation(n)] for _ in range(count)])
    x = np.concatenate([
        rng.normal(size=(count, n, n)),
        3.0 * permutations,  # a component for each entry: the support has to be connected
        permutations,  # on the set, multipliers all zero
        rng.integers(-1, 2, (count, n, n)),  # ties
        1e5 * rng.normal(size=(count, n, n)),  # not attempted
    ]).astype(dtype)  # fmt: skip
    eps = np.finfo(dtype).eps
    here = hsref.projection(x, C)
    d = cuda.to_device(x)
    record = hsref.projection(d, C)
    there = record.to_host()
    off = np.abs(there.y - here.y).max(axis=(1, 2))
    assert np.all(off <= 100 * eps * (1 + np.abs(x).max(axis=(1, 2))))
    assert np.array_equal(hsref.project(d, C).copy_to_host(), there.y)
    clear = here.margin > (1e-10 if dtype == np.float64 else 1e-5)
    for a, b in zip(here.active, there.active, strict=True):
        assert np.array_equal(a[clear], b[clear])
    assert np.array_equal(here.rank[clear], there.rank[clear])
    # With ties the working set is one of several.
    alone = clear & (np.arange(len(x)) < count)
    assert alone.sum() >= count - 1
    assert np.array_equal(there._raw.code[alone], here._raw.code[alone])
    assert np.array_equal(there._raw.info[alone, 1:4], here._raw.info[alone, 1:4])
    v = rng.normal(size=x.shape).astype(dtype)
    for selection in ("active", "working", "support"):
        got = (record.jacobian(selection) @ cuda.to_device(v)).copy_to_host()
        wanted = here.jacobian(selection) @ v
        some = clear if selection == "active" else alone
        assert np.abs(got - wanted)[some].max() <= 500 * eps * (1 + np.abs(v).max())


def test_what_an_attempt_leaves_is_listed_and_given_to_the_general_routine(cuda):
    from hsref._cuda.run import prepare_project

    C = hsref.Birkhoff(4)
    x = draw(21, 9, 4, 4)
    x[[2, 7]] *= 1e4
    rows = cuda.to_device(x.reshape(9, 16))
    launch, arrays, flag = prepare_project(C, rows, C._data_row, 1e-9, keep=False)
    assert len(launch.steps) == 3
    todo, listed = launch.steps[1][2][-2:]
    # Launched again, it starts over.
    for _ in range(2):
        launch()
        assert listed.copy_to_host()[0] == 2
        assert sorted(todo.copy_to_host()[:2]) == [2, 7]
        assert not flag.copy_to_host()[0]
        assert not arrays[1].copy_to_host().any()
        y = arrays[0].copy_to_host().reshape(x.shape)
        assert np.abs(y - hsref.project(x, C)).max() <= 1e-12
    x[3, 1, 2] = np.nan
    with pytest.raises(ValueError, match="x must be finite"):
        hsref.project(cuda.to_device(x), C)


# -- streams and memory ---------------------------------------------------------------------------


def test_many_streams_at_once_do_not_disturb_each_other(cuda, simulated):
    C = hsref.Birkhoff(3) if simulated else hsref.Birkhoff(8)
    count, least = (3, 2) if simulated else (24, 500)
    xs = [draw(k, least + k, *C.shape) for k in range(count)]
    streams = [cuda.stream() for _ in xs]
    for _ in range(2):
        devices = [cuda.to_device(x, stream=s) for x, s in zip(xs, streams, strict=True)]
        records = [hsref.projection(d, C) for d in devices]
        products = [r.jacobian() @ d for r, d in zip(records, devices, strict=True)]
        for x, record, product in zip(xs, records, products, strict=True):
            here = hsref.projection(x, C)
            assert np.abs(record.y.copy_to_host() - here.y).max() <= 1e-13
            assert np.abs(product.copy_to_host() - here.jacobian() @ x).max() <= 1e-12


def test_kernels_are_launched_on_the_stream_that_the_array_names(cuda, simulated, monkeypatch):
    from hsref._cuda import compat, run

    C = hsref.Simplex(3)
    x = draw(3, 4, 3)
    used = []
    run_it = run.Launch.__call__

    def spy(launch):
        used.append(compat.stream_handle(launch.stream))
        run_it(launch)

    monkeypatch.setattr(run.Launch, "__call__", spy)
    if simulated:

        class Stream:
            def __init__(self, handle):
                self.handle = handle

            def synchronize(self):
                pass

        monkeypatch.setattr(compat.cuda, "external_stream", Stream, raising=False)
        number = 4711
    else:
        stream = cuda.stream()
        number = compat.stream_handle(stream)
    d = cuda_inputs.Foreign(cuda.to_device(x), stream=number)
    record = hsref.projection(d, C)
    product = record.jacobian() @ d
    y = hsref.project(d, C)
    assert used == [number] * 3
    # What comes out is bound to it too, so that whoever reads it waits for the kernel.
    for out in (product, y, record.y, record.status):
        assert compat.stream_handle(out.stream) == number
    # Each look at the array makes a new object for the same stream: scratch goes by its number.
    spaces = C._cached(f"cuda_spaces {compat.device_number()}", dict)
    assert len({key[2] for key in spaces}) == 1
    del used[:]
    hsref.project(cuda_inputs.Foreign(cuda.to_device(x)), C)
    assert used == [0]


def test_a_thousand_calls_take_no_more_memory_than_one(cuda, simulated):
    from hsref._cuda.compat import device_number, free_bytes

    C = hsref.Polyhedron(A_ub=draw(4, 4, 3), b_ub=np.ones(4))
    x = cuda.to_device(draw(5, 3 if simulated else 1000, 3))

    def call():
        hsref.project(x, C)
        return hsref.projection(x, C).jacobian() @ x

    call()
    spaces = C._cached(f"cuda_spaces {device_number()}", dict)
    held = [id(arrays) for arrays, _ in spaces.values()]
    before = free_bytes()
    for _ in range(3 if simulated else 1000):
        call()
    after = free_bytes()
    assert [id(arrays) for arrays, _ in spaces.values()] == held
    assert before is None or after >= before - 2**21


def test_scratch_is_reused_by_smaller_batches_and_replaced_by_larger_ones(cuda):
    from hsref._cuda.memory import workspace

    C = hsref.Simplex(3)
    first, threads = workspace(C, 5, 2, 100, 0)
    assert first[0].shape == (3, 100)
    assert threads == 100
    again, threads = workspace(C, 5, 2, 10, 0)
    assert again is first
    assert threads == 10
    larger, threads = workspace(C, 5, 2, 500, 0)
    assert larger[2].shape == (5, threads)
    assert 500 >= threads > 0
    other, _ = workspace(C, 5, 2, 10, cuda.stream())
    assert other is not larger
    assert other[0].shape == (3, 10)


def test_scratch_stays_when_memory_fills_up(cuda, monkeypatch):
    from hsref._cuda import memory

    monkeypatch.setattr(memory, "processors", lambda: 100)
    total = 10**6
    C = hsref.Simplex(3)
    held = [0]
    monkeypatch.setattr(memory, "free_bytes", lambda: total - held[0])
    first, threads = memory.workspace(C, 100, 1, 10**6, 0)
    held[0] = sum(a.nbytes for a in first)
    # a quarter of the memory, or the least that a block needs
    assert threads == max(memory.BLOCK, total // 4 // memory.bytes_a_thread(3, 100, 1))
    assert held[0] <= total // 4
    assert memory.workspace(C, 100, 1, 10**6, 0) == (first, threads)


def test_a_host_batch_that_does_not_fit_goes_in_pieces(cuda, monkeypatch):
    from hsref._cuda import memory, run

    C = hsref.Polyhedron(A_ub=draw(6, 4, 3), b_ub=np.ones(4))
    x, b = draw(7, 9, 3), 1.0 + draw(8, 9, 4) ** 2
    whole = hsref.projection(x, C, b_ub=b, device="cuda")
    pieces = []
    launch = run.project_device

    def spy(C, x, *rest, **more):
        pieces.append(len(x))
        return launch(C, x, *rest, **more)

    monkeypatch.setattr(run, "project_device", spy)
    monkeypatch.setattr(run, "samples_that_fit", lambda *a: 4)
    split = hsref.projection(x, C, b_ub=b, device="cuda")
    assert pieces == [4, 4, 1]
    assert np.array_equal(split.y, whole.y)
    assert np.array_equal(split._raw.at_f, whole._raw.at_f)
    assert np.array_equal(split.jacobian() @ x, whole.jacobian() @ x)
    assert np.array_equal(hsref.project(x, C, b_ub=b, device="cuda"), whole.y)
    monkeypatch.undo()
    each = memory._bytes_a_row(C.kernel, True) + 2 * 8 * 3
    scratch = memory.bytes_a_thread(3, C.kernel.work_size, C.kernel.iwork_size)
    free = int(1.01 * (scratch * memory.BLOCK * 4 + 5 * each) / memory.MEMORY_SHARE)
    monkeypatch.setattr(memory, "free_bytes", lambda: free)
    monkeypatch.setattr(memory, "release_pending", lambda: free)
    fits = memory.samples_that_fit(C.kernel, 8, True, 10**6)
    assert 1 <= fits < 10**6
    assert fits * each <= memory.MEMORY_SHARE * free


def test_too_large_for_the_memory_names_both_sizes_before_allocating(cuda, monkeypatch):
    from hsref._cuda import memory

    C = hsref.Simplex(3)
    d = cuda.to_device(draw(9, 50, 3))
    record = hsref.projection(d, C)
    for name in ("free_bytes", "release_pending"):
        monkeypatch.setattr(memory, name, lambda: 1_100)
    with monkeypatch.context() as patch:
        patch.setattr(memory.cuda, "device_array", None)
        with pytest.raises(MemoryError, match=r"50 device .* needs [\d,]+ bytes .* 1,100 free"):
            hsref.projection(d, C)
        with pytest.raises(MemoryError, match=r"J @ v for 50 .* needs 1,200 bytes .* 1,100 free"):
            record.jacobian() @ d
        with pytest.raises(MemoryError, match=r"one sample .* needs .* 1,100 free"):
            hsref.project(draw(9, 50, 3), C, device="cuda")


# -- what comes in --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_array_interface_and_dlpack_stay_on_the_device(cuda, dtype):
    C = hsref.Simplex(3)
    x, v = draw(10, 2, 4, 3, dtype=dtype), draw(11, 2, 4, 3, dtype=dtype)
    here = hsref.projection(x, C)
    wanted = here.jacobian() @ v
    tolerance = 10 * np.finfo(dtype).eps
    dx, dv = cuda.to_device(x), cuda.to_device(v)
    with cuda_inputs.library():
        for kind in (cuda_inputs.Foreign, cuda_inputs.Capsuled):
            given = kind(dx)
            y = hsref.project(given, C)
            if kind is cuda_inputs.Capsuled:
                assert type(y) is kind
                assert given.asked in (1, 2)
            y = y.copy_to_host()
            assert y.dtype == dtype
            assert y.shape == x.shape
            assert np.abs(y - here.y).max() <= tolerance
            record = hsref.projection(kind(dx), C)
            assert np.abs((record.jacobian() @ kind(dv)).copy_to_host() - wanted).max() <= tolerance
            y, pull = hsref.vjp(kind(dx), C)
            assert np.abs(pull(kind(dv)).copy_to_host() - wanted).max() <= tolerance
            y, dy = hsref.jvp(kind(dx), kind(dv), C)
            assert np.abs(dy.copy_to_host() - wanted).max() <= tolerance
    assert np.array_equal(dx.copy_to_host(), x)


def test_dlpack_memory_is_returned_to_its_owner(cuda):
    from hsref._cuda import dlpack

    C = hsref.Simplex(3)
    before = len(dlpack._ALIVE)
    with cuda_inputs.library():
        y = hsref.project(cuda_inputs.Capsuled(cuda.to_device(draw(12, 4, 3))), C)
        assert len(dlpack._ALIVE) == before + 1
        del y
    assert len(dlpack._ALIVE) == before


def test_the_copy_that_vjp_returns_is_the_callers(cuda):
    C = hsref.Simplex(3)
    d = cuda.to_device(draw(13, 2, 3))
    wanted = hsref.vjp(d, C)[1](d).copy_to_host()
    y, pull = hsref.vjp(d, C)
    y.copy_to_device(np.full((2, 3), np.nan))
    assert np.array_equal(pull(d).copy_to_host(), wanted)


@pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="CuPy is not installed")
def test_cupy_arrays_come_back_as_such(cuda, simulated):
    if simulated:
        pytest.skip("CuPy has no simulator")
    import cupy

    x = draw(14, 100, 8)
    with cupy.cuda.Stream(non_blocking=True):
        y = hsref.project(cupy.asarray(x), hsref.Simplex(8))
        assert isinstance(y, cupy.ndarray)
        np.testing.assert_allclose(cupy.asnumpy(y), hsref.project(x, hsref.Simplex(8)), atol=1e-14)


@pytest.mark.torch
def test_torch_tensors_on_a_side_stream(cuda, simulated):
    if simulated:
        pytest.skip("PyTorch has no simulator; tests/torch_simulator.py stands in")
    import torch

    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    x = draw(15, 4000, 8)
    C = hsref.Simplex(8)
    here = hsref.projection(x, C)
    with torch.cuda.stream(torch.cuda.Stream()):
        t = torch.zeros(4000, 8, dtype=torch.float64, device="cuda")
        t += torch.from_numpy(x).cuda()
        t.requires_grad_()
        y = hsref.project(t, C)
        (g,) = torch.autograd.grad(y, t, torch.ones_like(y) * t.detach())
        np.testing.assert_allclose(y.detach().cpu().numpy(), here.y, atol=1e-14)
        np.testing.assert_allclose(g.cpu().numpy(), here.jacobian() @ x, atol=1e-13)


# -- what is refused ------------------------------------------------------------------------------


def test_host_and_device_are_not_mixed(cuda):
    C = hsref.Simplex(3)
    x = draw(16, 2, 3)
    d = cuda.to_device(x)
    with pytest.raises(TypeError, match="v is a ndarray on the host while x lives on the device"):
        hsref.projection(d, C).jacobian() @ x
    with pytest.raises(TypeError, match="v lives on a CUDA device and the record of x on the host"):
        hsref.projection(x, C).jacobian() @ d
    for given in (x, d):
        with pytest.raises(TypeError, match="total lives on a device; parameters are given as"):
            hsref.project(given, C, total=cuda.to_device(np.ones(2)))
    with pytest.raises(TypeError, match="list that holds arrays of another"):
        hsref.project([d, d], C)
    with pytest.raises(ValueError, match="copy it to the host to use device='cpu'"):
        hsref.project(d, C, device="cpu")
    for call in (
        lambda: hsref.vjp(d, C, wrt=("x", "total")),
        lambda: hsref.jvp(d, d, C, tangents={"total": 1.0}),
        lambda: hsref.jvp(d, None, C),
    ):
        with pytest.raises(TypeError, match="only its own derivative"):
            call()


def test_a_dtype_that_is_not_computed_in_is_named(cuda):
    C = hsref.Simplex(3)
    half = np.zeros((2, 3), np.float16)
    for given, more in ((cuda.to_device(half), {}), (half, {"device": "cuda"})):
        with pytest.raises(TypeError, match="x is float16, too coarse"):
            hsref.project(given, C, **more)
    with pytest.raises(TypeError, match="x holds int64 on the device"):
        hsref.project(cuda.to_device(half.astype(np.int64)), C)
    d = cuda.to_device(half.astype(np.float64))
    with pytest.raises(TypeError, match="J @ v needs v in the dtype of x, float64"):
        hsref.projection(d, C).jacobian() @ cuda.to_device(half.astype(np.float32))


def test_another_device_is_named(cuda, monkeypatch):
    from hsref._cuda import resident

    C = hsref.Simplex(3)
    d = cuda.to_device(draw(17, 2, 3))
    record = hsref.projection(d, C)
    monkeypatch.setattr(resident, "device_of", lambda pointer: 5)
    with pytest.raises(ValueError, match=r"x lives on CUDA device 5 .* `with numba\.cuda\.gpus"):
        hsref.project(cuda_inputs.Foreign(d), C)
    with pytest.raises(ValueError, match="v lives on CUDA device 5 and the current one is 0"):
        record.jacobian() @ cuda_inputs.Foreign(d)


def test_shapes_numbers_masks_and_gradients_are_named(cuda):
    C = hsref.Simplex(3)
    d = cuda.to_device(draw(18, 2, 3))
    with pytest.raises(ValueError, match=r"x has shape \(2, 3\), but a point of Simplex\(4"):
        hsref.project(d, hsref.Simplex(4))
    with pytest.raises(ValueError, match="x must be finite; the entry at index"):
        hsref.project(cuda.to_device(np.full((2, 3), np.nan)), C)
    with pytest.raises(ValueError, match="x is not contiguous on the device"):
        hsref.project(cuda.to_device(np.zeros((3, 2))).T, C)
    with pytest.raises(ValueError, match="J @ v needs v shaped like x"):
        hsref.projection(d, C).jacobian() @ cuda.to_device(np.zeros((2, 4)))
    with pytest.raises(TypeError, match="x is a masked array"):
        hsref.project(cuda_inputs.Foreign(d, mask=cuda_inputs.Foreign(d)), C)
    wanting = cuda_inputs.Foreign(d)
    wanting.requires_grad = True
    with pytest.raises(TypeError, match="requires a gradient, which would be dropped"):
        hsref.project(wanting, C)


def test_the_sanitizer_finds_no_access_out_of_bounds(cuda, simulated):
    script = [sys.executable, str(HERE / "cuda_sanitized.py")]
    tool = shutil.which("compute-sanitizer")
    if simulated:
        # The simulator checks bounds by itself.
        command = [*script, "Simplex", "Box"]
    elif tool is None:
        pytest.skip("no compute-sanitizer here: it comes with the CUDA toolkit")
    else:
        command = [tool, "--tool", "memcheck", "--error-exitcode", "9", *script]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=3000, check=False, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "sets done" in done.stdout
