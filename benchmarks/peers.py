"""Adapters: every competitor behind the same four calls, hsref among them.

An adapter is built once for a problem (what a user would set up once: factorisations, canonical
forms), takes the points with :meth:`Peer.load` in its own array kind (not timed), and is then timed
in :meth:`Peer.forward` and :meth:`Peer.backward`. What it imports is imported inside, so that a
missing package costs a row and nothing else. Solvers without a batch run as a Python loop over
the samples; the layers of PyTorch and JAX are in ``layers.py``.
"""

from __future__ import annotations

import importlib.metadata
from typing import Any, ClassVar

import numpy as np

from .workloads import Problem


class Failed(RuntimeError):
    """A peer did not solve a problem it accepted."""


class Peer:
    """One competitor.

    Attributes
    ----------
    package : str
        Distribution whose version is reported.
    promise : str
        What the answer claims to be: "exact", "iterative", or "surrogate" (another map).
    loop : bool
        A Python loop over the samples.
    whole : bool
        Cheap enough to be timed on the whole batch, always; otherwise a part is timed when the
        whole would take longer than the budget, and the time is scaled to the batch.
    threaded : bool
        Whether it can use more than one thread.
    families : tuple of str
        Families of sets it handles; empty for all.
    differentiable : bool
        Whether :meth:`backward` exists.
    """

    name: ClassVar[str]
    package: ClassVar[str] = "numpy"
    promise: ClassVar[str] = "exact"
    loop: ClassVar[bool] = False
    whole: ClassVar[bool] = False
    threaded: ClassVar[bool] = False
    families: ClassVar[tuple[str, ...]] = ()
    differentiable: ClassVar[bool] = True
    dtype: ClassVar[Any] = np.float64
    note: ClassVar[str] = ""

    def __init__(self, problem: Problem, threads: int) -> None:
        self.problem = problem
        self.threads = threads
        if self.families and problem.family not in self.families:
            raise Failed(f"{self.name} does not offer the family {problem.family}")
        self.setup()

    def setup(self) -> None:
        """Do once what a user would do once."""

    def load(self, problem: Problem) -> None:
        """Take the points and cotangents in the adapter's own array kind."""
        self.x = problem.x.astype(self.dtype)
        self.v = problem.v.astype(self.dtype)
        self.y = np.full(self.x.shape, np.nan)
        self.g = np.full(self.x.shape, np.nan)

    def forward(self) -> None:
        """Project; keep what the backward needs."""
        raise NotImplementedError

    def backward(self) -> None:
        """Multiply the cotangents by the Jacobian at the last forward."""
        raise NotImplementedError

    def answer(self) -> np.ndarray:
        """Return the projections as a NumPy array (B, N)."""
        return self.y

    def gradient(self) -> np.ndarray:
        """Return the cotangents of the points as a NumPy array (B, N)."""
        return self.g

    @classmethod
    def version(cls) -> str | None:
        """Return the installed version of the package, None if it is missing."""
        try:
            return importlib.metadata.version(cls.package)
        except importlib.metadata.PackageNotFoundError:
            return None


PEERS: dict[str, type[Peer]] = {}


def register(cls: type[Peer]) -> type[Peer]:
    """Add an adapter to the table."""
    PEERS[cls.name] = cls
    return cls


def load_all() -> dict[str, type[Peer]]:
    """Return the table with every adapter in it."""
    from . import layers, solvers  # noqa: F401

    return PEERS


# -- this library ---------------------------------------------------------------------------------


@register
class HsrefPeer(Peer):
    """Times ``projection`` (the record, from which a backward needs no second solve)."""

    name = "hsref"
    package = "hsref"
    threaded = True
    whole = True

    def setup(self):
        self.set = self.problem.special_set()

    def load(self, problem):
        super().load(problem)
        self.x = self.x.reshape(-1, *problem.shape)
        self.v = self.v.reshape(-1, *problem.shape)

    def forward(self):
        import hsref

        self.record = hsref.projection(self.x, self.set, n_threads=self.threads)

    def backward(self):
        import hsref

        self.g = hsref.HSJacobian(self.record, "active", self.threads) @ self.v

    def forward_only(self):
        """Project without keeping a record."""
        import hsref

        return hsref.project(self.x, self.set, n_threads=self.threads)

    def answer(self):
        return np.asarray(self.record.y).reshape(len(self.x), -1)

    def gradient(self):
        return np.asarray(self.g).reshape(len(self.x), -1)

    def steps(self):
        """Return the total and the largest number of solver steps of the last forward."""
        steps = np.asarray(self.record.steps)
        return int(steps.sum()), int(steps.max(initial=0))


@register
class HsrefPlainPeer(HsrefPeer):
    """The same set handed over as rows, without a word about its structure."""

    name = "hsref_plain"
    families = ("portfolio", "matching", "birkhoff")
    whole = False

    def setup(self):
        self.set = self.problem.plain_set()

    def load(self, problem):
        Peer.load(self, problem)


@register
class HsrefFloat32Peer(HsrefPeer):
    name = "hsref_f32"
    dtype = np.float32
    note = "float32 in and out"


# -- floors and NumPy -----------------------------------------------------------------------------


@register
class CopyPeer(Peer):
    """Copies the batch: the time no projection can beat."""

    name = "copy"
    whole = True
    promise = "surrogate"
    note = "copies the batch into a fresh array; a floor, not a projection"

    def forward(self):
        # Into a fresh array, as every projection has to.
        self.y = self.x.copy()

    def backward(self):
        self.g = self.v.copy()


@register
class NumpySortPeer(Peer):
    name = "numpy_sort"
    whole = True
    families = ("simplex",)

    def load(self, problem):
        super().load(problem)
        self.ranks = np.arange(1, self.x.shape[1] + 1)

    def forward(self):
        u = -np.sort(-self.x, axis=1)
        shift = (np.cumsum(u, axis=1) - 1.0) / self.ranks
        last = (u > shift).sum(axis=1) - 1
        self.y = np.maximum(self.x - shift[np.arange(len(last)), last][:, None], 0.0)

    def backward(self):
        support = self.y > 0
        mean = (self.v * support).sum(axis=1) / support.sum(axis=1)
        self.g = (self.v - mean[:, None]) * support
