r"""The B-subdifferential of the projection, read off the face lattice.

Let F be the smallest face of P containing z = Π(x), let r = x - z, and let F_r be the face of P on
which ⟨r, ·⟩ is largest. Then

.. math:: \partial_B\Pi(x)=\{\mathrm{Proj}_{\mathrm{par}\,G}:\ G\ \text{a face of}\ P,\
          F\subseteq G\subseteq F_r\}.

*Proof.* The cells G + N_G, G a face of P and N_G its normal cone, are full-dimensional (N_G ⊥ par G
and together they span the space), cover ℝⁿ and have disjoint interiors; on a cell
Π(w + ν) = w, so Π is affine there with linear part Proj_{par G}. The point x lies in the cell of G
iff z ∈ G and r ∈ N_G, that is iff F ⊆ G ⊆ F_r. The B-subdifferential of a continuous piecewise
affine map is the set of linear parts of the full-dimensional pieces that contain the point. ∎

Three consequences, all verified:

* V₀(x) = Proj_{par F} ∈ ∂_BΠ(x) always (take G = F); where Π is differentiable, V₀(x) = ∇Π(x).
* ∂_BΠ(x) ⊆ HS(x). *Proof.* G is cut out by its active rows K = {i: A_i w = a_i on G} ⊆ I(x), so
  par G = ker M_K, and r ∈ N_G = cone(A_K) + range Bᵀ is the cone test. ∎
* Equality when the active rows are independent. *Proof.* Then every K ⊆ I(x) is exactly the active
  set of some face near z, and r ∈ cone(A_K) + range Bᵀ says that this face lies in F_r. ∎

Near z the set is z + T with the tangent cone T = {d: A_I d ≤ 0, Bd = 0}, so the faces G ⊇ F are the
faces of T. They are found from the extreme rays of T modulo its lineality space: the active rows of
a face are the intersection of the active rows of its rays.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from math import comb
from typing import Any

import numpy as np

from .hs_set import Element
from .linear import kernel_projectors
from .local import MAX_SUBSETS, EnumerationError
from .rows import RANK_TOL, HRows, rows_of, span
from .subject import image

RAY_TOL = 1e-9


@dataclass(frozen=True, eq=False)
class TangentFaces:
    """The faces of the tangent cone at a point with a given active set.

    Attributes
    ----------
    rows : HRows
        The set.
    masks : ndarray of bool, shape (f, m)
        For each face the rows active on all of it; the first is the smallest face F itself.
    directions : ndarray, shape (f, n)
        A unit vector from z into the relative interior of each face, modulo par F; zero for F.
    """

    rows: HRows
    masks: np.ndarray
    directions: np.ndarray

    @cached_property
    def V(self) -> np.ndarray:
        """The projectors onto the direction spaces, shape (f, n, n)."""
        return kernel_projectors(self.rows, self.masks)

    @property
    def size(self) -> int:
        """Bytes held."""
        return self.masks.nbytes + self.directions.nbytes

    def maximising(self, r: np.ndarray, tol: float = RAY_TOL) -> np.ndarray:
        """Return which faces lie in F_r for residuals r of shape (P, n); shape (P, f) of bool.

        ⟨r, d⟩ ≤ 0 on T, and a sum of rays has product zero only if every ray has.
        """
        limit = tol * (1.0 + np.linalg.norm(r, axis=-1))[:, None]
        return np.abs(r @ self.directions.T) <= limit


def tangent_faces(rows: HRows, active: np.ndarray, limit: int = MAX_SUBSETS) -> TangentFaces:
    """Enumerate the faces of {d: A_I d ≤ 0, B d = 0}.

    Parameters
    ----------
    rows : HRows
        The set.
    active : ndarray of bool, shape (m,)
        The active set I.
    limit : int
        Largest number of row subsets to look at for rays, and of faces.

    Raises
    ------
    EnumerationError
        The cone is too large for that.
    """
    index = np.flatnonzero(active)
    G = rows.off_equalities(rows.G[index])
    basis = span(G)
    k, d = len(index), basis.shape[1]
    if d and comb(k, d - 1) > limit:
        raise EnumerationError(f"a tangent cone of {k} rows in {d} dimensions has too many rays.")
    A = G @ basis
    rays, tight = _extreme_rays(A)
    faces = {np.ones(k, dtype=bool).tobytes()}
    for t in tight:
        new = {(t & np.frombuffer(f, dtype=bool)).tobytes() for f in faces} | {t.tobytes()}
        faces |= new
        if len(faces) > limit:
            raise EnumerationError(f"a tangent cone of {k} rows has more than {limit} faces.")
    closed = np.array([np.frombuffer(f, dtype=bool) for f in sorted(faces, reverse=True)])
    closed = closed.reshape(len(faces), k)
    # a ray belongs to a face when all rows active on the face are active on the ray
    belongs = ~(closed[:, None, :] & ~tight[None]).any(axis=2)
    directions = np.einsum("fr,rd,nd->fn", belongs.astype(float), rays, basis)
    length = np.linalg.norm(directions, axis=1, keepdims=True)
    directions = np.divide(directions, length, out=np.zeros_like(directions), where=length > 0.0)
    masks = np.zeros((len(closed), rows.m), dtype=bool)
    masks[:, index] = closed
    return TangentFaces(rows, masks, directions)


def _extreme_rays(A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the extreme rays of the pointed cone {w : A w <= 0} and the rows tight on each."""
    k, d = A.shape
    if d == 0:
        return np.zeros((0, 0)), np.zeros((0, k), dtype=bool)
    if d == 1:
        lines = np.ones((1, 1))
    else:
        picks = np.array(list(combinations(range(k), d - 1)))
        _, s, Vt = np.linalg.svd(A[picks], full_matrices=True)
        lines = Vt[s[:, -1] > RANK_TOL, -1, :]
    lines = np.concatenate([lines, -lines])
    values = lines @ A.T
    inside = (values <= RAY_TOL).all(axis=1)
    lines, tight = lines[inside], np.abs(values[inside]) <= RAY_TOL
    if not len(lines):
        return np.zeros((0, d)), np.zeros((0, k), dtype=bool)
    # an extreme ray is determined by its tight rows
    _, first = np.unique(tight, axis=0, return_index=True)
    return lines[first], tight[first]


def b_subdifferential(x: Any, C: Any, *, y: Any = None) -> tuple[Element, ...]:
    """Return every element of the B-subdifferential of the projection at one point.

    Parameters
    ----------
    x : array_like, shape C.shape
        The point.
    C : set
        The set.
    y : array_like, optional
        Its projection, where known; otherwise the library is asked.

    Returns
    -------
    tuple of Element
        (K, V) with K the rows active on a face G between F and F_r, largest face first; each
        matrix once.

    Raises
    ------
    EnumerationError
        The tangent cone has too many faces.

    Examples
    --------
    A redundant row: HS has an element that no limit of Jacobians gives.

    >>> from hsref.theory.counterexamples import redundant_row
    >>> from hsref.theory.hs_set import hs_elements
    >>> C, x, y = redundant_row()
    >>> len(b_subdifferential(x, C, y=y)), len(hs_elements(x, C, y=y))
    (4, 5)
    """
    rows = rows_of(C)
    point, z = image(C, x, y)
    faces = tangent_faces(rows, rows.active(z))
    between = np.flatnonzero(faces.maximising((point - z)[None])[0])
    out: list[Element] = []
    for f in between:
        if all(np.max(np.abs(faces.V[f] - e.V)) > RAY_TOL for e in out):
            out.append(Element(rows.name(faces.masks[f]), faces.V[f].copy()))
    return tuple(sorted(out, key=lambda e: (-round(float(np.trace(e.V))), sorted(e.K))))


def licq(x: Any, C: Any, *, y: Any = None) -> bool:
    """Tell whether the active rows, equalities included, are independent at x."""
    rows = rows_of(C)
    _, z = image(C, x, y)
    return independent(rows, rows.active(z))


def independent(rows: HRows, mask: np.ndarray) -> bool:
    """Tell whether the chosen rows together with all equality rows are independent."""
    M = np.vstack([rows.G[mask], rows.E])
    if not len(M):
        return True
    return len(M) <= rows.n and bool(np.linalg.svd(M, compute_uv=False)[-1] > RANK_TOL)
