r"""Conservativity: the chain rule along paths, as an identity between finitely many numbers.

**Path chain rule.** For every absolutely continuous γ, for almost every t and for *all*
V ∈ HS(γ(t)): (Π∘γ)′(t) = V γ′(t).

*Proof.* For each K the set S_K = {t : γ(t) ∈ C_K} is closed (C_K is a closed polyhedron, see
:mod:`hsref.theory.exactness`), and almost every t ∈ S_K is an accumulation point of S_K at which γ
and Π∘γ are differentiable. On S_K one has Π∘γ = V_K γ + const, so the difference quotients along
S_K give (Π∘γ)′(t) = V_K γ′(t). There are finitely many K. ∎

Together with closed graph and bounded values this says that HS, and its convex hull, are
conservative mappings for Π in the sense of Bolte and Pauwels; around a closed loop the integral of
V γ′ vanishes whatever elements are chosen. No definability argument is needed.

On a segment Π∘γ is piecewise affine with finitely many breakpoints, which are computed in closed
form here (the ends of the segment's intersections with the cells C_K). The chain rule becomes

.. math:: \sum_k (t_{k+1}-t_k)\,V(\gamma(\tau_k))\,\gamma' = \Pi(\gamma(1))-\Pi(\gamma(0)),

exact up to round-off, for generic segments and for those that run inside a kink.

References
----------
J. Bolte and E. Pauwels, "Conservative set valued fields, automatic differentiation, stochastic
gradient methods and deep learning", Mathematical Programming (2021), arXiv 1909.10300.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .pieces import LocalCache, Pieces, affine_pieces
from .reports import Report, report
from .rows import HRows, rows_of
from .subject import image, images, observe

Field = Callable[[np.ndarray, Any], np.ndarray]
"""A matrix field: (points of shape (P, n), C) ↦ matrices of shape (P, n, n)."""

CHAIN_TOL = 1e-9


def layer(selection: str = "active") -> Field:
    """Return the field the library differentiates with."""

    def field(x: np.ndarray, C: Any) -> np.ndarray:
        return observe(C, x).elements(selection)

    return field


def check_chain_rule(
    x0: Any, x1: Any, C: Any, field: Field | None = None, *, tol: float = CHAIN_TOL
) -> Report:
    """Check the path chain rule on a segment, with exact breakpoints.

    Parameters
    ----------
    x0, x1 : array_like, shape C.shape
        Ends of the segment.
    C : set
        The set.
    field : callable, optional
        The matrix field to test, :func:`layer` by default.
    tol : float
        Relative to 1 + the largest entry of the ends and the right-hand sides.

    Returns
    -------
    Report
        Parts ``integral`` (the identity over the segment) and ``interval`` (the largest error of a
        single interval).

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import Box
    >>> C = Box(0.0, 1.0, n=2)
    >>> bool(check_chain_rule([-1.0, 0.5], [2.0, 3.0], C))
    True
    >>> identity = lambda x, C: np.broadcast_to(np.eye(2), (len(x), 2, 2))
    >>> bool(check_chain_rule([-1.0, 0.5], [2.0, 3.0], C, identity))
    False
    """
    rows = rows_of(C)
    a, b = (np.asarray(v, dtype=np.float64).reshape(1, rows.n) for v in (x0, x1))
    total, worst, _ = path_errors(C, a, b, field or layer())
    parts = {"integral": float(total[0]), "interval": float(worst[0])}
    return report("Π(γ(1)) - Π(γ(0)) = ∫ V γ′ dt on a segment", parts, tol, {"x0": a, "x1": b})


def path_errors(
    C: Any, x0: np.ndarray, x1: np.ndarray, field: Field, cache: LocalCache | None = None
) -> tuple[np.ndarray, np.ndarray, Pieces]:
    """Return the errors of the chain rule on segments: of the integral, and the worst interval.

    Both relative to the scale of the segment, shape (P,).
    """
    rows = rows_of(C)
    pieces = affine_pieces(C, x0, x1, cache=cache)
    step = x1 - x0
    k = pieces.segment
    at = x0[k] + pieces.inside[:, None] * step[k]
    moved = np.einsum("kij,kj->ki", field(at, C), step[k])
    length = (pieces.end - pieces.start)[:, None]
    total = images(C, x0) - images(C, x1)
    np.add.at(total, k, length * moved)
    scale = np.maximum(rows.scale(x0), rows.scale(x1))
    # what was left over moves by at most its length
    left = pieces.rest * np.linalg.norm(step, axis=1)
    worst = np.zeros(len(x0))
    np.maximum.at(worst, k, np.abs(length * (moved - pieces.velocity)).max(axis=1, initial=0.0))
    return (np.abs(total).max(axis=1, initial=0.0) + left) / scale, worst / scale, pieces


def check_circulation(
    points: Any, C: Any, field: Field | None = None, *, tol: float = CHAIN_TOL
) -> Report:
    """Check that ∮ V γ′ dt = 0 around the closed polygon through the given points.

    Parameters
    ----------
    points : array_like, shape (k, *C.shape)
        Corners; the last is joined to the first.
    C, field, tol
        As in :func:`check_chain_rule`.

    Examples
    --------
    >>> from hsref import Box
    >>> bool(check_circulation([[0.0, 0.0], [2.0, 0.5], [-1.0, 3.0]], Box(0.0, 1.0, n=2)))
    True
    """
    rows = rows_of(C)
    corner = np.asarray(points, dtype=np.float64).reshape(-1, rows.n)
    following = np.roll(corner, -1, axis=0)
    value = loop_integral(C, corner[None], field or layer())[0]
    scale = float(np.max(rows.scale(np.vstack([corner, following]))))
    worst = float(np.max(np.abs(value), initial=0.0)) / scale
    return report("∮ V γ′ dt = 0", {"circulation": worst}, tol, {"points": corner})


def loop_integral(
    C: Any, corners: np.ndarray, field: Field, cache: LocalCache | None = None
) -> np.ndarray:
    """Return ∮ V γ′ dt around closed polygons, corners of shape (P, k, n), result (P, n)."""
    P, k, n = corners.shape
    x0 = corners.reshape(-1, n)
    x1 = np.roll(corners, -1, axis=1).reshape(-1, n)
    pieces = affine_pieces(C, x0, x1, cache=cache)
    step = x1 - x0
    s = pieces.segment
    at = x0[s] + pieces.inside[:, None] * step[s]
    moved = np.einsum("kij,kj->ki", field(at, C), step[s]) * (pieces.end - pieces.start)[:, None]
    out = np.zeros((P, n))
    np.add.at(out, s // k, moved)
    return out


@dataclass(frozen=True)
class DegeneratePath:
    """A segment that stays in one low-dimensional cell, and the velocity of its projection.

    Attributes
    ----------
    x0, x1 : ndarray, shape (P, n)
        Ends.
    velocity : ndarray, shape (P, n)
        The constant derivative of the projection along the segment.
    """

    x0: np.ndarray
    x1: np.ndarray
    velocity: np.ndarray


def degenerate_paths(
    rows: HRows, x: np.ndarray, y: np.ndarray, cache: LocalCache, rng: np.random.Generator
) -> DegeneratePath:
    r"""Return segments along which the active set and the zero multipliers do not change.

    .. math:: \gamma(t)=z+tu+A_S^T(\lambda+t\delta)+B^T(\mu+t\nu),\qquad u\in\mathrm{par}\,F,

    with S the support of some multipliers at x. Rows active without a multiplier stay so, hence
    the whole segment lies in a kink where there is one, and Π(γ(t)) = z + tu. A field that is right
    only almost everywhere is found out here.

    Parameters
    ----------
    rows : HRows
        The set.
    x, y : ndarray, shape (P, n)
        Points and their projections.
    cache : LocalCache
        Enumerations of the active sets.
    rng : Generator
        Draws u, δ, ν.
    """
    velocity, force = np.zeros_like(x), np.zeros_like(x)
    for local, at in cache.groups(rows.active(y)):
        r = rows.off_equalities(x[at] - y[at])
        violation = local.violation(r)
        # an independent K with the smallest violation, the first (smallest) one among equals
        best = np.argmin(np.round(violation, 10), axis=1)
        lam = np.einsum("pn,pnk->pk", r, local.pinv[best])
        lam = np.where(lam > 1e-9, lam, 0.0)
        delta = lam * rng.uniform(-0.5, 0.5, size=lam.shape)
        force[at] = delta @ rows.G[local.index]
        # a largest independent subset spans all active rows: V₀
        V0 = local.V[np.argmax(local.masks.sum(axis=1))]
        u = np.einsum("ij,pj->pi", V0, rng.normal(size=(len(at), rows.n)))
        speed = u @ rows.G.T
        inactive = ~np.isin(np.arange(rows.m), local.index)
        ratio = np.full(speed.shape, np.inf)
        np.divide(rows.slack(y[at]), speed, out=ratio, where=inactive & (speed > 1e-12))
        reach = np.min(ratio, axis=1, initial=2.0)
        velocity[at] = 0.5 * np.minimum(reach, 1.0)[:, None] * u
    along = rng.normal(size=(len(x), rows.Q.shape[1])) @ rows.Q.T
    return DegeneratePath(x, x + velocity + force + along, velocity)


def check_degenerate_path(
    x: Any, C: Any, field: Field | None = None, *, y: Any = None, seed: int = 0, tol: float = 1e-12
) -> Report:
    """Check the chain rule on a path through x that stays inside its kink.

    Parameters
    ----------
    x : array_like, shape C.shape
        A point; the interesting ones have active rows without a multiplier.
    C : set
        The set.
    field : callable, optional
        The matrix field to test; without one *every* element of the HS-Jacobian is tested.
    y : array_like, optional
        The projection of x, where known.
    seed : int
        Chooses the path and the parameters at which it is looked at.
    tol : float
        Relative to 1 + the largest entry of the ends and the right-hand sides.

    Examples
    --------
    A field that is right almost everywhere, and 0 at the kink x₁ = 0 of the half-plane:

    >>> import numpy as np
    >>> from hsref import Box
    >>> from hsref.theory.fields import zero_at_kinks
    >>> C = Box([0.0, -np.inf], np.inf)
    >>> bool(check_degenerate_path([0.0, 1.0], C))
    True
    >>> bool(check_degenerate_path([0.0, 1.0], C, zero_at_kinks))
    False
    """
    rows = rows_of(C)
    point, z = image(C, x, y)
    cache, rng = LocalCache(rows), np.random.default_rng(seed)
    path = degenerate_paths(rows, point[None], z[None], cache, rng)
    move, t = path.x1 - path.x0, rng.uniform(0.1, 0.9, size=(4, 1))
    at = path.x0 + t * move
    scale = float(np.max(rows.scale(np.vstack([path.x0, path.x1]))))
    if field is None:
        seen, worst = images(C, at), 0.0
        for local, i in cache.groups(rows.active(seen)):
            present = local.present(local.admissible(at[i] - seen[i]))
            error = np.abs(local.elements @ move[0] - path.velocity[0]).max(axis=1)
            worst = max(worst, float(np.max(np.where(present, error, 0.0))))
    else:
        worst = float(np.max(np.abs(field(at, C) @ move[0] - path.velocity[0])))
    return report(
        "(Π∘γ)′ = V γ′ along a path inside a kink",
        {"velocity": worst / scale},
        tol,
        {"x0": path.x0, "x1": path.x1, "velocity": path.velocity},
    )
