r"""Criticality for the conservative field: how far 0 is from the hull of its elements.

For φ = ℓ∘Π the field is D_φ(θ) = conv{V ∇ℓ(Π(θ)) : V ∈ HS(θ)}, for sums and longer chains the
products of the elements. A point is *critical for the field* when 0 ∈ D_φ(θ). Numerically a limit
point is only near such a point, so the elements of all kinks within a tolerance are gathered (rows
that are nearly active, cones that nearly contain x - y) and the point of least norm of their hull
is computed exactly.

What criticality means here, and what it does not:

* It is the notion the convergence theorem speaks about; it is weaker than being a minimiser.
* *Flat faces*: where Π(θ) is a vertex, V₀ = 0, so every loss is critical on the open normal cone.
  This is no defect of the field (φ really is constant there), but runs do end there; see
  :func:`hsref.theory.problems.dead_starts`.
* *Spurious points*: for a composition the product field may contain 0 where the true derivative
  does not vanish (:func:`hsref.theory.counterexamples.spurious_zero`). For ℓ∘Π with ℓ smooth that
  cannot happen with V₀, because V₀ ∈ ∂_BΠ.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .linear import min_norm_point
from .local import MAX_SUBSETS, local_rows
from .reports import Report, report
from .rows import rows_of
from .subject import image

NEAR_TOL = 1e-6


@dataclass(frozen=True)
class CriticalityReport(Report):
    """A :class:`Report` whose residual is the norm of the least element of the hull.

    Attributes
    ----------
    elements : int
        Number of distinct elements gathered.
    weights : ndarray
        Convex weights of the least element.
    """

    elements: int = 0
    weights: np.ndarray = field(default_factory=lambda: np.zeros(0))


def near_elements(
    x: Any, C: Any, *, y: Any = None, tol: float = NEAR_TOL, limit: int = MAX_SUBSETS
) -> np.ndarray:
    """Return the HS-elements of all kinks within a tolerance of x.

    Parameters
    ----------
    x : array_like, shape C.shape
        The point.
    C : set
        The set.
    y : array_like, optional
        Its projection, where known.
    tol : float
        Rows with a relative slack up to this count as active, cones at a relative distance up to
        this count as containing x - y.

    Returns
    -------
    ndarray, shape (g, n, n)
        Distinct matrices; those of HS(x) are among them.
    """
    rows = rows_of(C)
    point, z = image(C, x, y)
    local = local_rows(rows, rows.active(z, tol), limit)
    present = local.present(local.admissible((point - z)[None], tol))[0]
    return local.elements[present]


def distance_to_critical(
    gradients: Any, *, tol: float = NEAR_TOL, scale: float = 1.0, claim: str = ""
) -> CriticalityReport:
    """Report the distance of 0 from the convex hull of gradient elements.

    Parameters
    ----------
    gradients : array_like, shape (k, d)
        Elements of the conservative field at or near a point.
    tol : float
        Largest distance that counts as critical, relative to `scale`.
    scale : float
        Size of the gradients that count as ordinary.

    Examples
    --------
    >>> bool(distance_to_critical([[1.0], [-2.0]])), bool(distance_to_critical([[1.0], [2.0]]))
    (True, False)
    """
    g = np.atleast_2d(np.asarray(gradients, dtype=np.float64))
    point, weights = min_norm_point(g)
    found = float(np.linalg.norm(point)) / scale
    return report(
        claim or "0 lies in the hull of the field's elements",
        {"least element": found},
        tol,
        {"gradients": g},
        CriticalityReport,
        elements=len(g),
        weights=weights,
    )


def check_criticality(
    theta: Any, C: Any, cotangent: Any, *, extra: Any = 0.0, tol: float = NEAR_TOL
) -> CriticalityReport:
    r"""Report how nearly θ is critical for ℓ(Π(θ)) + (a smooth term), with ∇ℓ given.

    Parameters
    ----------
    theta : array_like, shape C.shape
        The point, which is also the input of the projection.
    C : set
        The set.
    cotangent : array_like, shape C.shape
        ∇ℓ at Π(θ).
    extra : array_like, optional
        Gradient of the smooth term at θ.
    tol : float
        For kinks to be gathered, and for the distance relative to 1 + ‖cotangent‖.

    Examples
    --------
    At a vertex of the simplex every loss is critical:

    >>> from hsref import Simplex
    >>> bool(check_criticality([5.0, 0.0, 0.0], Simplex(3), [1.0, -2.0, 3.0]))
    True
    """
    g = np.asarray(cotangent, dtype=np.float64).ravel()
    V = near_elements(theta, C, tol=tol)
    gradients = V @ g + np.broadcast_to(np.asarray(extra, dtype=np.float64).ravel(), g.shape)
    return distance_to_critical(gradients, tol=tol, scale=1.0 + float(np.linalg.norm(g)))
