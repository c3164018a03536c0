r"""Four small sets at which a plausible statement is false.

Each function returns the objects; the docstring says which statement fails and why. All numbers are
exact in floating point.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Witness(NamedTuple):
    """A set, a point and its projection."""

    C: Any
    x: np.ndarray
    y: np.ndarray


def _polyhedron(**parts: Any) -> Any:
    from hsref import Polyhedron

    return Polyhedron(**parts)


def redundant_row(at: tuple[float, float] = (0.0, 0.0)) -> Witness:
    r"""∂_BΠ ≠ HS because a row is redundant.

    P = {y : -y₁ ≤ 0, -y₂ ≤ 0, -y₁ - y₂ ≤ 0} is the quadrant; the third row cuts off nothing. At
    x = 0 the B-subdifferential is {diag(s, t) : s, t ∈ {0, 1}}, but K = {3} is admissible and gives
    :math:`I-\tfrac12 11^T`, which no face of the quadrant has as projector, nor does the convex
    hull of the four contain it (its off-diagonal entries are not 0). At x = (-1, -1) the
    projection is even *differentiable*, with Jacobian 0, and HS = {0, I - ½11ᵀ}: a conservative
    Jacobian equals the derivative almost everywhere, not everywhere it exists.

    Parameters
    ----------
    at : pair of float
        The point x; its projection is max(x, 0).

    Examples
    --------
    >>> from hsref.theory.hs_set import hs_elements
    >>> C, x, y = redundant_row((-1.0, -1.0))
    >>> [e.V.round(3).tolist() for e in hs_elements(x, C, y=y)]
    [[[0.5, -0.5], [-0.5, 0.5]], [[0.0, 0.0], [0.0, 0.0]]]
    """
    C = _polyhedron(A_ub=[[-1.0, 0.0], [0.0, -1.0], [-1.0, -1.0]], b_ub=np.zeros(3))
    x = np.array(at, dtype=np.float64)
    return Witness(C, x, np.maximum(x, 0.0))


def pyramid_apex() -> Witness:
    r"""∂_BΠ ≠ HS although every row is irredundant.

    P = {y : ±y₁ + y₃ ≤ 0, ±y₂ + y₃ ≤ 0} is a cone with four facets in three dimensions; at
    x = (0, 0, 1) the projection is the apex 0 and x lies inside its normal cone, so ∇Π(x) = 0. But
    x = ½(1,0,1) + ½(-1,0,1) uses the first pair of rows alone, whose kernel is spanned by e₂, and
    likewise for the second pair: HS = {0, e₁e₁ᵀ, e₂e₂ᵀ}.

    Examples
    --------
    >>> from hsref.theory.bsub import b_subdifferential
    >>> from hsref.theory.hs_set import hs_elements
    >>> C, x, y = pyramid_apex()
    >>> len(hs_elements(x, C, y=y)), len(b_subdifferential(x, C, y=y))
    (3, 1)
    """
    rows = [[1.0, 0.0, 1.0], [-1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [0.0, -1.0, 1.0]]
    return Witness(_polyhedron(A_ub=rows, b_ub=np.zeros(4)), np.array([0.0, 0.0, 1.0]), np.zeros(3))


class RightHandSide(NamedTuple):
    """A witness with two derivatives of the projection in the right-hand side."""

    C: Any
    x: np.ndarray
    y: np.ndarray
    by_pseudo_inverse: np.ndarray
    by_independent_rows: np.ndarray


def pinv_in_right_hand_side() -> RightHandSide:
    r"""M_K⁺ is conservative in the right-hand side, and may still be no limit of Jacobians.

    P = {y : y₁ ≤ a₁, y₂ ≤ a₂, y₁ + y₂ ≤ a₃} at a = 0, x = (2, 1): all three rows are active and
    y = 0. The pseudo-inverse of all three gives ∂y₁/∂a = (⅔, -⅓, ⅓). But x = 2A₁ + A₂ = A₁ + A₃
    are the only ways to write x - y with independent rows and non-negative multipliers, the first
    row has a positive one in both, so y₁ = a₁ for all data nearby: every true Jacobian has the row
    (1, 0, 0). The independent K = {1, 2} gives it.

    *Why the pseudo-inverse is still conservative.* Along a path inside the domain on which K stays
    active, M_K y = a_K holds identically, so ẏ = V ẋ + M_K⁺ ȧ_K for any pseudo-inverse; a.e. time
    belongs to such a stretch for each admissible K. ∎

    Examples
    --------
    >>> w = pinv_in_right_hand_side()
    >>> w.by_pseudo_inverse.round(3).tolist()
    [[0.667, -0.333, 0.333], [-0.333, 0.667, 0.333]]
    >>> w.by_independent_rows.tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    A = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    C = _polyhedron(A_ub=A, b_ub=np.zeros(3))
    basis = np.zeros((2, 3))
    basis[:, :2] = np.eye(2)
    return RightHandSide(C, np.array([2.0, 1.0]), np.zeros(2), np.linalg.pinv(A), basis)


class Spurious(NamedTuple):
    """A composition whose automatic derivative vanishes where the function has slope 1."""

    nonnegative: Any
    nonpositive: Any
    theta: float
    automatic: float
    true: float


def spurious_zero() -> Spurious:
    r"""A critical point that automatic differentiation invents.

    φ(t) = Π_{≥0}(t) + Π_{≤0}(t) = t for every t, hence φ′ ≡ 1. At t = 0 both projections are at a
    kink and V₀ = 0 for each, so the chain rule of automatic differentiation gives 0: the product
    field D_φ(0) = {0, 1, 2} contains 0 without 0 being critical. The sum of conservative fields is
    conservative, D_φ = {1} off a null set, and that is all the theory promises.

    The phenomenon comes from composition: for ℓ∘Π with ℓ smooth and Π's input the free variable,
    V₀∇ℓ is a Clarke subgradient (V₀ ∈ ∂_BΠ). It reappears as soon as the input moves on a
    low-dimensional path: t ↦ (t, -t), projected onto the quadrant, with loss u₁ - u₂ = t.

    Examples
    --------
    >>> s = spurious_zero()
    >>> s.automatic, s.true
    (0.0, 1.0)
    """
    from hsref import Box

    return Spurious(Box(0.0, np.inf, n=1), Box(-np.inf, 0.0, n=1), 0.0, 0.0, 1.0)
