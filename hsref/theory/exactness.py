r"""Local exactness, outer semicontinuity, directional derivatives.

Write :math:`C_K=\{x: K\in\mathcal K(x)\}`. Since x ∈ C_K means x = w + A_Kᵀλ + Bᵀμ with w ∈ P,
A_K w = a_K, λ ≥ 0, the set C_K is a closed polyhedron, and on it

.. math:: \Pi(x)=V_Kx+M_K^+(a_K;b).

*Proof.* Π(x) = w, because x - w lies in the normal cone at w; V_K kills A_Kᵀλ + Bᵀμ, so
V_K x = V_K w, and w - V_K w = M_K⁺M_K w = M_K⁺(a_K; b). ∎

**Exactness.** If K ∈ 𝒦(x) ∩ 𝒦(y), both points lie in C_K and Π(y) - Π(x) = V_K(y - x). ∎

**Outer semicontinuity, strong form.** There is ε > 0 with 𝒦(y) ⊆ 𝒦(x), hence HS(y) ⊆ HS(x), for
‖y - x‖ < ε. *Proof.* The finitely many closed C_K that do not contain x keep a positive distance
from it. ∎ So for such y *every* V ∈ HS(y) is exact for the pair (x, y).

An explicit ε (`neighbourhood`): the smaller of the least inactive slack at Π(x) (unit rows; Π is
nonexpansive, so such a row is inactive at Π(y) as well) and, over the independent K ⊆ I(x) that are
not admissible, the distance of r = x - Π(x) from cone(A_K) + range Bᵀ (I - Π is nonexpansive, and r
must reach that closed cone before K becomes admissible). ∎

**Directional derivative.** Π′(x; d) = Π_{T ∩ r^⊥}(d), the projection onto the critical cone
{d : A_I d ≤ 0, Bd = 0, ⟨r, d⟩ = 0}; V₀d may differ from it at kinks.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .linear import CONE_TOL, project_onto_cone, span
from .local import LocalRows, local_rows
from .reports import Report, report
from .rows import HRows, rows_of
from .subject import image, images

EXACT_TOL = 1e-12
ELEMENT_TOL = 1e-8


def radius(rows: HRows, local: LocalRows, r: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return the explicit ε for points that share an active set; shapes (P, n) to (P,)."""
    slack = np.where(np.isin(np.arange(rows.m), local.index), np.inf, rows.slack(z))
    distance = local.violation(r)
    distance = np.where(local.accepts(r, distance), np.inf, distance)
    return np.minimum(
        np.min(slack, axis=1, initial=np.inf), np.min(distance, axis=1, initial=np.inf)
    )


def neighbourhood(x: Any, C: Any, *, y: Any = None) -> float:
    """Return ε > 0 such that 𝒦(x′) ⊆ 𝒦(x) whenever ‖x′ - x‖ < ε (module docstring).

    Parameters
    ----------
    x : array_like, shape C.shape
        The point.
    C : set
        The set, few active rows at x.
    y : array_like, optional
        The projection of x, where known.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> C = SimpleNamespace(
    ...     A_ub=None, b_ub=None, A_eq=None, b_eq=None, lower=[0.0, 0.0], upper=None)
    >>> neighbourhood([-0.5, 2.0], C, y=[0.0, 2.0])
    0.5
    """
    rows = rows_of(C)
    point, z = image(C, x, y)
    local = local_rows(rows, rows.active(z))
    return float(radius(rows, local, (point - z)[None], z[None])[0])


def check_exactness(x: Any, other: Any, C: Any, *, tol: float = EXACT_TOL) -> Report:
    """Check Π(x′) - Π(x) = V (x′ - x) for every V ∈ HS(x′), x′ = `other` near x.

    Parameters
    ----------
    x, other : array_like, shape C.shape
        Two points nearer to each other than ``neighbourhood(x, C)``; beyond it the statement need
        not hold and the report says so by its residual.
    C : set
        The set.
    tol : float
        Relative to 1 + the largest entry of x and the right-hand sides.
    """
    rows = rows_of(C)
    a, b = (np.asarray(v, dtype=np.float64).ravel() for v in (x, other))
    za, zb = images(C, np.stack([a, b]))
    local = local_rows(rows, rows.active(zb))
    present = local.present(local.admissible((b - zb)[None]))[0]
    error = np.einsum("gij,j->gi", local.elements[present], b - a) - (zb - za)
    scale = float(rows.scale(np.concatenate([a, b])))
    worst = float(np.max(np.abs(error), initial=0.0)) / scale
    return report(
        "Π(x′) - Π(x) = V (x′ - x) for every V in HS(x′)",
        {"identity": worst},
        tol,
        {"x": a, "other": b, "elements": local.elements[present]},
    )


def check_outer_semicontinuity(x: Any, other: Any, C: Any, *, tol: float = ELEMENT_TOL) -> Report:
    """Check HS(x′) ⊆ HS(x) for x′ = `other` near x, with the index sets themselves: 𝒦(x′) ⊆ 𝒦(x).

    Parameters and Returns as in :func:`check_exactness`; the residual is the largest distance of
    x - Π(x) from the cone of an index set that is admissible at x′, relative to 1 + ‖x - Π(x)‖.
    """
    rows = rows_of(C)
    a, b = (np.asarray(v, dtype=np.float64).ravel() for v in (x, other))
    za, zb = images(C, np.stack([a, b]))
    lost = rows.active(zb) & ~rows.active(za)
    local = local_rows(rows, rows.active(zb))
    ok = local.admissible((b - zb)[None])[0]
    distance = local.violation((a - za)[None])[0][ok]
    parts = {
        "rows active at x′ only": float(np.max(rows.slack(za)[lost], initial=0.0)),
        "distance from the cone": float(np.max(distance, initial=0.0))
        / (1.0 + float(np.linalg.norm(a - za))),
    }
    return report("HS(x′) is contained in HS(x)", parts, tol, {"x": a, "other": b})


def directional_derivative(x: Any, d: Any, C: Any, *, y: Any = None) -> np.ndarray:
    r"""Return the one-sided derivative of the projection, from the critical cone.

    .. math:: \Pi'(x;d)=\Pi_{T_P(z)\cap r^\perp}(d).

    *Proof.* For small t > 0 the point x + td lies, with x, in some C_K (finitely many closed sets
    cover a neighbourhood), so Π(x + td) = z + tu with u = Π′(x; d). Near z the set is z + T, so
    z + tu is the point of z + T nearest to x + td: u minimises ½‖u - d‖² - ⟨r, u⟩/t over T for all
    small t. As ⟨r, ·⟩ ≤ 0 on T, letting t → 0 forces ⟨r, u⟩ = 0, and comparing with members of
    T ∩ r^⊥ leaves the projection of d onto T ∩ r^⊥. ∎

    Parameters
    ----------
    x, d : array_like, shape C.shape
        Point and direction.
    C : set
        The set.
    y : array_like, optional
        The projection of x, where known.

    Returns
    -------
    ndarray, shape (n,)
        Flat.

    Notes
    -----
    The polar of the critical cone is cone(A_I) + range(Bᵀ, r); d minus its projection onto that
    polar is the answer (Moreau), so one certified cone projection does it.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> C = SimpleNamespace(
    ...     A_ub=None, b_ub=None, A_eq=None, b_eq=None, lower=[0.0, 0.0], upper=None)
    >>> directional_derivative([0.0, 1.0], [-1.0, 2.0], C, y=[0.0, 1.0]).tolist()
    [0.0, 2.0]
    """
    rows = rows_of(C)
    point, z = image(C, x, y)
    direction = np.asarray(d, dtype=np.float64).ravel()
    return critical_projection(rows, rows.active(z), point - z, direction)


def critical_projection(
    rows: HRows, active: np.ndarray, r: np.ndarray, d: np.ndarray
) -> np.ndarray:
    """Project d onto {d : A_I d <= 0, B d = 0, <r, d> = 0}."""
    basis = rows.Q
    rest = rows.off_equalities(r)
    if np.linalg.norm(rest) > CONE_TOL * (1.0 + np.linalg.norm(r)):
        basis = np.hstack([basis, span(rest[None] / np.linalg.norm(rest))])
    flat = d - basis @ (basis.T @ d)
    G = rows.G[active] - (rows.G[active] @ basis) @ basis.T
    # rows that lie in the span of Bᵀ and r are equalities already
    G = G[np.linalg.norm(G, axis=1) > CONE_TOL]
    return project_onto_cone(flat, G).separator
