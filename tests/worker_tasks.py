"""What worker processes of other libraries run; a module, so that they can import it."""

from __future__ import annotations

import os
import threading

import numpy as np

import hsref


def nested(_: int) -> tuple[bytes, int, int]:
    """Project with threads inside a worker; return the bits, the process, and our threads in it."""
    C = hsref.Simplex(300)
    x = np.random.default_rng(0).normal(size=(2000, 300))
    p = hsref.projection(x, C)
    found = p.y.tobytes() + (p.jacobian() @ x).tobytes()
    ours = sum(thread.name.startswith("hsref") for thread in threading.enumerate())
    return found[::997], os.getpid(), ours
