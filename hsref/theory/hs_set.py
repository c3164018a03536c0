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
from itertools import combinations
from math import comb
from typing import Any, NamedTuple

import numpy as np

from .linear import CONE_TOL, kernel_projectors, project_onto_cone, reduced
from .reports import Report, report
from .rows import RANK_TOL, HRows, rows_of
from .subject import image

MAX_SUBSETS = 8192
"""Enumerations beyond this many subsets are refused."""

MEMBERSHIP_TOL = 1e-8


class EnumerationError(ValueError):
    """Too many active rows to enumerate their subsets."""


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


@dataclass(frozen=True, eq=False)
class LocalRows:
    """All that depends on the active set alone, so that many points may share it.

    Attributes
    ----------
    rows : HRows
        The set.
    index : ndarray of int, shape (k,)
        The active rows.
    masks : ndarray of bool, shape (S, k)
        The subsets whose rows are independent modulo the equality rows.
    pinv : ndarray, shape (S, n, k)
        Pseudo-inverses of those rows (equality rows projected out), zero columns outside K:
        ``r @ pinv`` are the multipliers.
    V : ndarray, shape (S, n, n)
        V_K of each subset.
    group : ndarray of int, shape (S,)
        Which distinct matrix V_K is.
    elements : ndarray, shape (g, n, n)
        The distinct matrices.
    """

    rows: HRows
    index: np.ndarray
    masks: np.ndarray
    pinv: np.ndarray
    V: np.ndarray
    group: np.ndarray
    elements: np.ndarray

    def violation(self, r: np.ndarray) -> np.ndarray:
        r"""Return a lower bound on the distance from r to each cone, zero iff K is admissible.

        .. math:: \max\Big(\|V_Kr\|,\ \max_{i\in K}\frac{-\lambda_i}{\|M_K^+e_i\|}\Big),
                  \qquad \lambda=(M_K^+)^Tr .

        *Proof of the bound.* On cone(A_K) + range Bᵀ the linear map r ↦ V_K r is zero and has norm
        1, and r ↦ λ_i is non-negative with norm ‖M_K⁺e_i‖. ∎

        Parameters
        ----------
        r : ndarray, shape (P, n)
            Residuals x - y of points with this active set.

        Returns
        -------
        ndarray, shape (P, S)
        """
        rest = self.rows.off_equalities(r)
        lam = np.einsum("pn,snk->psk", rest, self.pinv)
        norms = np.linalg.norm(self.pinv, axis=1)
        norms = np.where(norms > 0.0, norms, 1.0)
        negative = np.max(-lam / norms, axis=2, initial=0.0)
        off = rest[:, None, :] - np.einsum("psk,kn->psn", lam, self._generators)
        return np.maximum(negative, np.linalg.norm(off, axis=2))

    @property
    def _generators(self) -> np.ndarray:
        return self.rows.off_equalities(self.rows.G[self.index])

    def admissible(self, r: np.ndarray, tol: float = CONE_TOL) -> np.ndarray:
        """Return which subsets are admissible at which points, shape (P, S) of bool."""
        limit = tol * (1.0 + np.linalg.norm(r, axis=-1))[:, None]
        return self.violation(r) <= limit

    def present(self, admissible: np.ndarray) -> np.ndarray:
        """Return which distinct matrices occur, shape (P, g) of bool."""
        out = np.zeros((len(admissible), len(self.elements)), dtype=bool)
        for g in range(len(self.elements)):
            out[:, g] = admissible[:, self.group == g].any(axis=1)
        return out

    def mask(self, s: int) -> np.ndarray:
        """Return subset s as a mask over all rows of the set."""
        out = np.zeros(self.rows.m, dtype=bool)
        out[self.index[self.masks[s]]] = True
        return out


def local_rows(rows: HRows, active: np.ndarray, limit: int = MAX_SUBSETS) -> LocalRows:
    """Enumerate the independent subsets of an active set and their projectors.

    Parameters
    ----------
    rows : HRows
        The set.
    active : ndarray of bool, shape (m,)
        The active set.
    limit : int
        Largest number of subsets to look at.

    Raises
    ------
    EnumerationError
        There are more.

    Notes
    -----
    Batched singular value decompositions over the subsets of each size; cost O(2^k n³) for k
    active rows.
    """
    index = np.flatnonzero(active)
    k, n = len(index), rows.n
    top = min(k, n - rows.Q.shape[1])
    count = sum(comb(k, s) for s in range(top + 1))
    if count > limit:
        raise EnumerationError(
            f"{k} active rows have {count} subsets to look at, more than the limit of {limit}; "
            "use is_hs_element, which needs no enumeration."
        )
    G = rows.off_equalities(rows.G[index])
    masks, pinvs = [np.zeros((1, k), dtype=bool)], [np.zeros((1, n, k))]
    for size in range(1, top + 1):
        picks = np.array(list(combinations(range(k), size)))
        U, s, Vt = np.linalg.svd(G[picks], full_matrices=False)
        good = s[:, -1] > RANK_TOL
        picks, U, s, Vt = picks[good], U[good], s[good], Vt[good]
        mask = np.zeros((len(picks), k), dtype=bool)
        np.put_along_axis(mask, picks, True, axis=1)
        pinv = np.zeros((len(picks), n, k))
        small = np.einsum("sji,sj,skj->sik", Vt, 1.0 / s, U)
        pinv[np.arange(len(picks))[:, None], :, picks] = small.transpose(0, 2, 1)
        masks.append(mask)
        pinvs.append(pinv)
    mask = np.concatenate(masks)
    full = np.zeros((len(mask), rows.m), dtype=bool)
    full[:, index] = mask
    V = kernel_projectors(rows, full)
    group, first = _equal_matrices(V)
    return LocalRows(rows, index, mask, np.concatenate(pinvs), V, group, V[first])


def _equal_matrices(V: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Group equal matrices (up to round-off): the group of each, and one member of each group."""
    flat = V.reshape(len(V), -1)
    group = np.full(len(V), -1)
    first: list[int] = []
    for i in range(len(V)):
        if group[i] >= 0:
            continue
        same = np.abs(flat[i:] - flat[i]).max(axis=1, initial=0.0) <= MEMBERSHIP_TOL
        group[i:][same] = len(first)
        first.append(i)
    return group, np.array(first, dtype=int)


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
