"""Scratch of compiled routines, kept apart from everything else."""

from __future__ import annotations

import numpy as np

APART = 512
"""Bytes between two arrays, and around all of them."""


def scratch(*lengths: tuple[int, type]) -> list[np.ndarray]:
    """Return uninitialised arrays of the given lengths (at least 1) and types, from one block.

    Where a compiled loop writes one array and reads another, it first asks whether the two lie
    within a few vectors of each other, and if so takes the elements one by one: sums come out in
    another order. Small arrays of their own lie so near each other now and then, and a sample would
    have other bits. Here the distance is the same in every call, and too large.
    """
    places, at = [], APART
    for length, kind in lengths:
        count = max(length, 1)
        places.append((at, count, kind))
        at += -(-count * np.dtype(kind).itemsize // 64) * 64 + APART
    block = np.empty(at, np.uint8)
    return [np.frombuffer(block, kind, count, start) for start, count, kind in places]
