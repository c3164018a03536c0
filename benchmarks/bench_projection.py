"""pytest-benchmark rows: ``pytest benchmarks/bench_projection.py``.

Not collected by a plain ``pytest`` (the name does not match, and ``testpaths`` leaves this folder
out). Each row stores certificate and step counts beside its time.
"""

from __future__ import annotations

import pytest

pytest.importorskip("pytest_benchmark")

from . import accuracy, peers
from .workloads import CASES

# One call of each of these stays below a second.
ROWS = {"W1": 1000, "W2": 256, "W3": 32, "W4": 1000, "W5": 10_000, "W6": 100, "W7": 1, "W8": 64,
        "W9": 64, "G200": 8}  # fmt: skip
SEED = 11


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request):
    return request.param


@pytest.fixture(params=["hsref", "hsref_f32"])
def peer(request, case, threads):
    problem = case.build(SEED, ROWS[case.name])
    try:
        peer = peers.PEERS[request.param](problem, threads)
    except AttributeError as missing:
        pytest.skip(str(missing))
    peer.load(problem)
    peer.forward()
    return peer


@pytest.fixture(params=list(ROWS))
def case(request):
    return CASES[request.param]


def _note(benchmark, peer) -> None:
    steps = peer.steps()
    outside = accuracy.infeasibility(peer.problem, peer.answer())
    benchmark.extra_info.update(
        samples=peer.problem.batch, steps_total=steps[0], steps_most=steps[1],
        infeasibility=float(outside.max()),
    )  # fmt: skip


def test_forward(benchmark, peer):
    benchmark(peer.forward)
    _note(benchmark, peer)


def test_forward_without_record(benchmark, peer):
    benchmark(peer.forward_only)
    _note(benchmark, peer)


def test_backward(benchmark, peer):
    benchmark(peer.backward)
    _note(benchmark, peer)
