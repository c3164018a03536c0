"""What the bridges share: the releases they work with, and the shapes of parameters."""

from __future__ import annotations

import re
from typing import Any

BOUNDS = {
    "torch": (
        (2, 4),
        "torch.library.custom_op, which keeps a projection inside a compiled graph, came with 2.4",
    ),
    "jax": (
        (0, 4, 36),
        "earlier releases apply the rules of a primitive in another order than this bridge expects",
    ),
}
"""Oldest release a bridge works with, and what is missing before it."""


def require_version(name: str, version: str) -> None:
    """Raise the sentence when release `version` of framework `name` is too old."""
    oldest, reason = BOUNDS[name]
    found = tuple(int(k) for k in re.findall(r"\d+", version.partition("+")[0])[: len(oldest)])
    if found < oldest:
        wanted = ".".join(map(str, oldest))
        raise ImportError(
            f"hsref works with {name} {wanted} or later, and found {version}: {reason}. Install a "
            f"newer {name}, or use hsref.vjp on NumPy arrays."
        )


def field_axes(C: Any, names: tuple[str, ...]) -> tuple[int, ...]:
    """Return how many axes each of these parameters of C has for one sample."""
    if not names:
        return ()
    axes = {f.name: len(f.shape) for f in C._for_data(frozenset(names))._fields}
    return tuple(axes[name] for name in names)
