r"""The HS-Jacobian as a set: which active rows may be kept, and which matrices that gives.

With :math:`z=\Pi(x)`, :math:`r=x-z`, active set :math:`I(x)` and
:math:`M_K=[A_K;B]`, the index collection and the HS-Jacobian of Han and Sun are

.. math::

    \mathcal K(x) &= \{K\subseteq I(x):\ \exists(\lambda,\mu)\in M(x),\
                     \mathrm{supp}\,\lambda\subseteq K,\ M_K\ \text{of full row rank}\},\\
    HS(x) &= \{V_K=I-M_K^+M_K:\ K\in\mathcal K(x)\}.

**Independence may be dropped** (cone form):

.. math:: HS(x)=\{V_K:\ K\subseteq I(x),\ r\in\mathrm{cone}\{A_i^T:i\in K\}+\mathrm{range}\,B^T\}.

*Proof.* An element of the first set is one of the second. Conversely let r lie in that cone. By
Carathéodory (modulo range Bᵀ) some K″ ⊆ K with rows independent modulo B carries the multiplier;
extend K″ inside K to a basis K′ of the row space of M_K modulo B. K′ contains the support, is
independent, and V depends on the row space only: V_K = V_K′. ∎ So no rank assumption on A or B is
needed, and membership of K is one cone test.

**Membership of a matrix without enumeration.** V ∈ HS(x) iff V = V_{K*} and K* passes the cone
test, where K* = {i ∈ I(x): V A_iᵀ = 0}. *Proof.* If V = V_K, each row of K is annihilated, so
K ⊆ K*; the rows of K* lie in ker V = row space of M_K, so M_{K*} has the same row space and
V = V_{K*}; a larger K has a larger cone. The converse is the cone form. ∎

References
----------
J. Han and D. Sun, "Newton and quasi-Newton methods for normal maps with polyhedral sets", Journal
of Optimization Theory and Applications 94 (1997). X. Li, D. Sun and K.-C. Toh, "On the efficient
computation of a generalized Jacobian of the projector over the Birkhoff polytope", Mathematical
Programming 179 (2020).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .linear import CONE_TOL, kernel_projectors, project_onto_cone, reduced
from .local import MAX_SUBSETS, MEMBERSHIP_TOL, EnumerationError, LocalRows, local_rows
from .reports import Report, report
from .rows import rows_of
from .subject import image


class Element(NamedTuple):
    """One element of the HS-Jacobian.

    Attributes
    ----------
    K : frozenset of (str, int)
        An admissible index set that gives it, independent modulo the equality rows.
    V : ndarray, shape (n, n)
        The matrix.
    """

    K: frozenset[tuple[str, int]]
    V: np.ndarray


@dataclass(frozen=True)
class MembershipReport(Report):
    """A :class:`Report` on V ∈ HS(x) that also carries the index set K* of the proof.

    Attributes
    ----------
    K : frozenset of (str, int)
        The active rows that V annihilates.
    distance : float
        Distance of x - y from cone(A_K*) + range Bᵀ.
    """

    K: frozenset[tuple[str, int]] = frozenset()
    distance: float = 0.0


def hs_elements(x: Any, C: Any, *, y: Any = None, limit: int = MAX_SUBSETS) -> tuple[Element, ...]:
    """Enumerate the HS-Jacobian at one point.

    Parameters
    ----------
    x : array_like, shape C.shape
        The point.
    C : set
        The set.
    y : array_like, optional
        Its projection, where known; otherwise the library is asked.
    limit : int
        Largest number of subsets of active rows to look at.

    Returns
    -------
    tuple of Element
        Every matrix once, largest rank first.

    Raises
    ------
    EnumerationError
        There are more subsets than `limit`.

    Examples
    --------
    The quadrant at its corner, where every subset of the two active rows will do:

    >>> from types import SimpleNamespace
    >>> C = SimpleNamespace(
    ...     A_ub=None, b_ub=None, A_eq=None, b_eq=None, lower=[0.0, 0.0], upper=None)
    >>> [sorted(e.K) for e in hs_elements([0.0, 0.0], C, y=[0.0, 0.0])]
    [[], [('lower', 0)], [('lower', 1)], [('lower', 0), ('lower', 1)]]
    """
    rows = rows_of(C)
    point, z = image(C, x, y)
    local = local_rows(rows, rows.active(z), limit)
    ok = local.admissible((point - z)[None])[0]
    found: dict[int, Element] = {}
    for s in np.flatnonzero(ok):
        g = int(local.group[s])
        if g not in found:
            found[g] = Element(rows.name(local.mask(int(s))), local.elements[g].copy())
    return tuple(sorted(found.values(), key=lambda e: (-round(float(np.trace(e.V))), sorted(e.K))))


def is_admissible(
    K: Iterable[tuple[str, int]], x: Any, C: Any, *, y: Any = None, tol: float = CONE_TOL
) -> Report:
    """Check that K may be kept at x: K ⊆ I(x) and x - y ∈ cone(A_K) + range Bᵀ.

    Parameters
    ----------
    K : iterable of (field, index)
        Inequality rows, such as ``("ub", 3)`` or ``("lower", 0)``; equalities are always kept.
    x, C, y
        As in :func:`hs_elements`.
    tol : float
        Relative to 1 + ‖x - y‖.
    """
    rows = rows_of(C)
    point, z = image(C, x, y)
    mask = rows.mask(K)
    slack = rows.slack(z)[mask]
    size = 1.0 + np.abs(rows.h[mask]) + np.max(np.abs(z), initial=0.0)
    cone = project_onto_cone(*reduced(rows, point - z, mask), tol)
    parts = {
        "rows are active": float(np.max(np.abs(slack) / size, initial=0.0)),
        "x - y in the cone": cone.distance / (1.0 + float(np.linalg.norm(point - z))),
    }
    return report("K is admissible at x", parts, tol, {"x": point, "y": z, "K": mask})


def is_hs_element(
    V: Any, x: Any, C: Any, *, y: Any = None, tol: float = MEMBERSHIP_TOL
) -> MembershipReport:
    """Check that a matrix is an element of the HS-Jacobian, without enumerating it.

    Parameters
    ----------
    V : array_like, shape (n, n)
        The candidate.
    x : array_like, shape C.shape
        The point.
    C : set
        The set.
    y : array_like, optional
        The projection of x, where known; otherwise the library is asked.
    tol : float
        Largest deviation accepted, entries of V and x - y relative to 1 + ‖x - y‖.

    Returns
    -------
    MembershipReport

    Notes
    -----
    K* = the active rows that V annihilates; then V must be V_{K*} and x - y must lie in
    cone(A_{K*}) + range Bᵀ (module docstring). One decomposition and one cone test.
    """
    rows = rows_of(C)
    point, z = image(C, x, y)
    matrix = np.asarray(V, dtype=np.float64).reshape(rows.n, rows.n)
    killed = rows.active(z)
    killed &= np.max(np.abs(rows.G @ matrix.T), axis=1, initial=0.0) <= tol
    cone = project_onto_cone(*reduced(rows, point - z, killed))
    target = kernel_projectors(rows, killed[None])[0]
    distance = cone.distance / (1.0 + float(np.linalg.norm(point - z)))
    parts = {
        "V = V_K": float(np.max(np.abs(matrix - target), initial=0.0)),
        "x - y in the cone of K": distance,
    }
    data = {"V": matrix, "x": point, "y": z, "K": killed}
    return report(
        "V is an element of the HS-Jacobian at x",
        parts,
        tol,
        data,
        MembershipReport,
        K=rows.name(killed),
        distance=distance,
    )


def least_element(x: Any, C: Any, *, y: Any = None) -> np.ndarray:
    r"""Return V₀(x) = I - M_I⁺M_I, the projector onto the direction space of the smallest face.

    It is the least element of HS(x) in the Loewner order (every other V_K has K ⊆ I, hence a larger
    kernel of M_K) and independent of how the set is described: with F the smallest face containing
    z, aff F = {y: A_I y = a_I, By = b}, so V₀ projects onto par F, which is geometry.
    """
    rows = rows_of(C)
    _, z = image(C, x, y)
    return kernel_projectors(rows, rows.active(z)[None])[0]


__all__ = [
    "MAX_SUBSETS",
    "MEMBERSHIP_TOL",
    "Element",
    "EnumerationError",
    "LocalRows",
    "MembershipReport",
    "hs_elements",
    "is_admissible",
    "is_hs_element",
    "least_element",
    "local_rows",
]
