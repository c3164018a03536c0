"""The thing under test: the public face of hsref, called in one place.

Every check asks for projections and Jacobian elements through this module, by public names that
are looked up when called. An error planted in the library is therefore planted for all checks.
One thread each: batches are small, and a verification runs many of them side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

SELECTIONS = ("active", "working", "support")


@dataclass(frozen=True)
class Observation:
    """What the library says about a batch of points, everything flat.

    Attributes
    ----------
    x, y : ndarray, shape (P, n)
        The points and their projections.
    record : Projection
        The public record.
    """

    x: np.ndarray
    y: np.ndarray
    record: Any

    def _operator(self, selection: str) -> Any:
        J = self.record.jacobian(selection)
        if hasattr(J, "n_threads"):
            J.n_threads = 1
        return J

    def elements(self, selection: str = "active") -> np.ndarray:
        """Return the layer's HS-Jacobian elements, shape (P, n, n)."""
        n = self.x.shape[1]
        J = self._operator(selection).toarray()
        return np.asarray(J, dtype=np.float64).reshape(len(self.x), n, n)

    def product(
        self, v: np.ndarray, selection: str = "active", adjoint: bool = False
    ) -> np.ndarray:
        """Return J v, or Jᵀ v, one v of shape (n,) a point; shape (P, n)."""
        J = self._operator(selection)
        shaped = v.reshape(np.shape(self.record.y))
        out = J.T @ shaped if adjoint else J @ shaped
        return np.asarray(out, dtype=np.float64).reshape(self.x.shape)


def observe(C: Any, x: np.ndarray) -> Observation:
    """Project a batch of flat points and keep the record.

    Parameters
    ----------
    C : set
        The set, with points of shape ``C.shape``.
    x : ndarray, shape (P, n)
        The points, flat in C order.
    """
    import hsref

    x = np.ascontiguousarray(x, dtype=np.float64)
    record = hsref.projection(x.reshape(len(x), *C.shape), C, n_threads=1)
    return Observation(x, np.asarray(record.y, dtype=np.float64).reshape(x.shape), record)


def images(C: Any, x: np.ndarray) -> np.ndarray:
    """Return the projections of points of shape (..., n), nothing else; same shape."""
    import hsref

    x = np.ascontiguousarray(x, dtype=np.float64)
    if x.size == 0:
        return x.copy()
    y = hsref.project(x.reshape(-1, *C.shape), C, n_threads=1)
    return np.asarray(y, dtype=np.float64).reshape(x.shape)


def image(C: Any, x: np.ndarray, y: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Return one point and its projection, both flat; `y` is used when given.

    `C` may be a bare H-description only if `y` is given.
    """
    point = np.asarray(x, dtype=np.float64).ravel()
    if y is None:
        return point, images(C, point[None])[0]
    return point, np.asarray(y, dtype=np.float64).ravel()
