r"""Matrix fields that are *not* conservative for the projection, for the checks to catch.

A check that nothing fails shows nothing. Each field here is a plausible mistake or a habit of other
software; `NON_CONSERVATIVE` says which check finds it out. Two kinds exist:

* wrong on a set of positive measure: an ordinary segment suffices;
* right almost everywhere and wrong only at kinks: no ordinary segment notices, but a path that runs
  inside a kink does. The chain rule speaks about *every* absolutely continuous path.

A remark on the value ½ at a kink. For one row the convex hull of HS contains ½ (between "blocked"
and "free"), and conv HS is conservative too, so a ½ that mixes elements of HS at a kink is harmless
for the chain rule. Halving the whole derivative there is not: the motion along the face is halved
with it (`half_at_kinks`). Clamping slacks and multipliers from below by some ε is wrong on the set
where they are below ε, which has positive measure (`clamped`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .certificates import find_multipliers
from .conservativity import Field
from .linear import kernel_projectors
from .rows import HRows, rows_of
from .subject import images


class Impostor(NamedTuple):
    """A field that is not conservative.

    Attributes
    ----------
    field : callable
        The field.
    caught_by : {"segment", "degenerate path"}
        The path on which its integral is wrong.
    why : str
        One sentence.
    """

    field: Field
    caught_by: str
    why: str


def _state(x: np.ndarray, C: Any) -> tuple[HRows, np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows, the projections, the active masks and basic multipliers."""
    rows = rows_of(C)
    y = images(C, x)
    active = rows.active(y)
    lam = np.array([find_multipliers(rows, a - b, k)[0] for a, b, k in zip(x, y, active)])
    return rows, y, active, lam.reshape(active.shape)


def straight_through(x: np.ndarray, C: Any) -> np.ndarray:
    """Return the identity everywhere, as if the projection were not there."""
    n = x.shape[1]
    return np.broadcast_to(np.eye(n), (len(x), n, n))


def dropped_row(x: np.ndarray, C: Any) -> np.ndarray:
    """Forget the active row with the largest multiplier."""
    rows, _, active, lam = _state(x, C)
    if rows.m:
        active[np.arange(len(x)), np.argmax(lam, axis=1)] = False
    return kernel_projectors(rows, active)


def over_inclusive(x: np.ndarray, C: Any, tol: float = 0.2) -> np.ndarray:
    """Count rows as active within a loose tolerance, as a threshold on an inexact solve does."""
    rows = rows_of(C)
    return kernel_projectors(rows, rows.active(images(C, x), tol))


def clamped(x: np.ndarray, C: Any, floor: float = 0.2) -> np.ndarray:
    r"""Differentiate the optimality conditions with slack and multiplier clamped from below.

    .. math:: V=Z\,(I+Z^TG^TDGZ)^{-1}Z^T,\qquad
              D=\mathrm{diag}\frac{\max(\lambda,\epsilon)}{\max(s,\epsilon)},

    with Z a basis of the kernel of the equalities: what interior-point layers do (there with a
    much smaller ε). At a kink of one unit row it gives the ½.
    """
    rows, y, _, lam = _state(x, C)
    ratio = np.maximum(lam, floor) / np.maximum(rows.slack(y), floor)
    full = np.linalg.svd(np.vstack([rows.Q.T, np.zeros((1, rows.n))]))[2]
    Z = full[rows.Q.shape[1] :].T
    GZ = rows.G @ Z
    inner = np.eye(Z.shape[1]) + np.einsum("mi,pm,mj->pij", GZ, ratio, GZ)
    return np.einsum("ni,pij,mj->pnm", Z, np.linalg.inv(inner), Z)


def oblique(x: np.ndarray, C: Any) -> np.ndarray:
    """Use a weighted pseudo-inverse: an oblique projector onto the right kernel."""
    return _oblique(x, C)


def oblique_transposed(x: np.ndarray, C: Any) -> np.ndarray:
    """Use the transposed oblique projector: the right range of multipliers, the wrong kernel."""
    return np.swapaxes(_oblique(x, C), 1, 2)


def _oblique(x: np.ndarray, C: Any) -> np.ndarray:
    rows = rows_of(C)
    active = rows.active(images(C, x))
    # not diagonal, or the coordinate planes of a box would not notice
    tilt = np.linspace(0.5, 1.0, rows.n)
    W = np.diag(np.linspace(1.0, 2.0, rows.n)) + np.outer(tilt, tilt)
    # V = Z (Zᵀ W Z)⁻¹ Zᵀ W, computed as P (P W P)⁺ P W with the orthogonal projector P
    P = kernel_projectors(rows, active)
    return P @ np.linalg.pinv(P @ W @ P, rcond=1e-10, hermitian=True) @ P @ W


def half_at_kinks(x: np.ndarray, C: Any) -> np.ndarray:
    """Return half the identity where some active row has no multiplier; right elsewhere."""
    rows, _, active, lam = _state(x, C)
    V = kernel_projectors(rows, active)
    V[_weak(active, lam)] = 0.5 * np.eye(rows.n)
    return V


def zero_at_kinks(x: np.ndarray, C: Any) -> np.ndarray:
    """Return 0 where some active row has no multiplier; right elsewhere."""
    rows, _, active, lam = _state(x, C)
    V = kernel_projectors(rows, active)
    V[_weak(active, lam)] = 0.0
    return V


def _weak(active: np.ndarray, lam: np.ndarray) -> np.ndarray:
    return np.asarray((active & (lam <= 1e-9)).any(axis=1))


NON_CONSERVATIVE: dict[str, Impostor] = {
    "straight-through": Impostor(
        straight_through, "segment", "the identity ignores every constraint"
    ),
    "dropped row": Impostor(
        dropped_row, "segment", "a row with a positive multiplier is missing from K"
    ),
    "over-inclusive": Impostor(
        over_inclusive, "segment", "rows that are merely near count as active"
    ),
    "clamped": Impostor(
        clamped, "segment", "slack and multiplier are clamped at 0.2, wrong where they are smaller"
    ),
    "oblique": Impostor(oblique, "segment", "the projector is not orthogonal"),
    "oblique transposed": Impostor(
        oblique_transposed, "segment", "the transpose of an oblique projector"
    ),
    "half at kinks": Impostor(
        half_at_kinks, "degenerate path", "right almost everywhere, halved at kinks"
    ),
    "zero at kinks": Impostor(
        zero_at_kinks, "degenerate path", "right almost everywhere, zero at kinks"
    ),
}
"""Fields that fail, by name."""
