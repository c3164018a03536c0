"""How a batch is cut and shared: every sample once, whoever is busy, and failures stop it."""

from __future__ import annotations

import threading
import time

import pytest

import hsref._threads
from hsref._threads import run_chunks

DEAR = 1e9
"""Cost of a sample that makes every sample a chunk."""


def collect(samples: int, threads: int) -> list[tuple[int, int]]:
    done: list[tuple[int, int]] = []
    run_chunks(lambda begin, end: done.append((begin, end)), samples, DEAR, threads)
    return sorted(done)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("samples", [0, 1, 2, 7, 100])
def test_every_sample_is_treated_once(samples, threads):
    done = collect(samples, threads)
    assert [i for begin, end in done for i in range(begin, end)] == list(range(samples))


def test_little_work_stays_with_the_caller():
    seen = set()
    run_chunks(lambda *_: seen.add(threading.get_ident()), 100, 1.0, 8)
    assert seen == {threading.get_ident()}


def test_two_threads_work_at_once():
    both = threading.Barrier(2, timeout=30)
    run_chunks(lambda *_: both.wait() and None, 2, DEAR, 2)


def test_a_caller_does_not_wait_for_helpers_that_are_busy():
    release, started = threading.Event(), threading.Event()

    def occupy():
        started.set()
        release.wait(30)

    blocked = hsref._threads._pool(1).submit(occupy)
    try:
        assert started.wait(30)
        assert [i for pair in collect(10, 2) for i in range(*pair)] == list(range(10))
        assert not blocked.done()
    finally:
        release.set()
        blocked.result(30)


@pytest.mark.parametrize("where", ["caller", "helper"])
def test_a_failure_stops_the_others_and_is_raised_when_they_have_ended(where):
    caller, running, done = threading.get_ident(), [0], [0]
    both = threading.Barrier(2, timeout=30)

    def chunk(begin, end):
        if begin < 2:
            both.wait()  # each thread has one of the first two
            if (threading.get_ident() == caller) == (where == "caller"):
                raise OverflowError("here")
        running[0] += 1
        time.sleep(0.02)
        running[0] -= 1
        done[0] += 1

    with pytest.raises(OverflowError, match="here"):
        run_chunks(chunk, 1000, DEAR, 2)
    assert running == [0]
    assert done[0] < 100
