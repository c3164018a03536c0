"""Work spread over threads in chunks.

Threads are a plain executor that belongs to the current process: a forked child makes its own, and
two Python threads may call at once.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise

import numpy as np

CHUNK_COST = 2.0e7
"""Elementary operations in a chunk: about 10 ms, so that an interrupt is heard soon."""
SERIAL_COST = 8.0e5
"""Below this much work another thread is not worth waking (`python -m benchmarks.run curve` shows
batches of 1 to 10 000 on one thread and on two)."""


def asked_threads() -> int | None:
    """Return ``HSREF_NUM_THREADS``, or None where it is not set."""
    wanted = os.environ.get("HSREF_NUM_THREADS", "")
    if not wanted:
        return None
    if not wanted.isdigit() or int(wanted) < 1:
        raise ValueError(f"HSREF_NUM_THREADS must be a positive integer, got {wanted!r}.")
    return int(wanted)


def default_threads() -> int:
    """Return ``HSREF_NUM_THREADS`` if set, else the number of processors this process may use."""
    asked = asked_threads()
    if asked is not None:
        return asked
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_POOLS: dict[tuple[int, int], ThreadPoolExecutor] = {}


def _pool(threads: int) -> ThreadPoolExecutor:
    # Keyed by process: a pool made before a fork has no threads in the child and would hang there.
    key = (os.getpid(), threads)
    pool = _POOLS.get(key)
    if pool is None:
        pool = _POOLS.setdefault(key, ThreadPoolExecutor(threads, thread_name_prefix="hsref"))
    return pool


def run_chunks(
    chunk: Callable[[int, int], None], samples: int, cost: float, n_threads: int | None
) -> None:
    """Call ``chunk(begin, end)`` over all samples; with more than one thread, concurrently."""
    if samples == 0:
        return
    work = samples * cost
    threads = asked_threads() if n_threads is None else n_threads
    small = samples == 1 or work < SERIAL_COST
    if threads is None and not small:
        threads = default_threads()
    if threads is None or threads == 1 or small:
        per_chunk = max(1, int(CHUNK_COST / max(cost, 1.0)))
        for begin in range(0, samples, per_chunk):
            chunk(begin, min(begin + per_chunk, samples))
        return
    pieces = min(max(2 * threads, int(work / CHUNK_COST)), samples)
    edges = np.linspace(0, samples, pieces + 1).astype(int).tolist()
    todo = deque(pairwise(edges))

    def take() -> None:
        while True:
            try:
                begin, end = todo.popleft()
            except IndexError:
                return
            try:
                chunk(begin, end)
            except BaseException:
                # An interrupt or a failure stops all threads before their next chunk.
                todo.clear()
                raise

    helpers = [_pool(threads - 1).submit(take) for _ in range(threads - 1)]
    try:
        # The caller works too: a small batch is done before another thread has woken up.
        take()
        for helper in helpers:
            if not helper.cancel():
                helper.result()
    except BaseException:
        # Running chunks finish first, so that no thread writes into arrays after the caller has
        # moved on.
        todo.clear()
        wait([helper for helper in helpers if not helper.cancel()])
        raise
