"""What the C library does with the memory of arrays that come and go."""

from __future__ import annotations

import functools

import numpy as np

LARGEST = (32 << 20) - (64 << 10)
"""Bytes of the largest array that glibc learns from."""


@functools.cache
def keep_heap() -> None:
    """Tell the allocator, once a process, that large arrays come and go.

    glibc hands the free end of its heap back to the system as soon as that is longer than twice the
    largest array that was ever freed, and a loop over batches then pays for every page of every
    record again, which may be more than the projection. Freeing one array of 32 MiB, which nobody
    writes to, raises that limit to 64 MiB, as any program does that has once freed its data. Other
    allocators, and one that the environment has configured, take no notice.
    """
    np.empty(LARGEST, np.uint8)
