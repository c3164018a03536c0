"""What depends on the active set alone: its independent subsets and their projectors.

Many points share an active set. All that can be worked out once for it is, and the points are then
handled together, in blocks whose size bounds the memory.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import comb
from typing import Generic, Protocol, TypeVar, cast

import numpy as np

from .linear import CONE_TOL, blocks
from .rows import RANK_TOL, HRows

MAX_SUBSETS = 8192
"""Enumerations beyond this many subsets are refused."""

MEMBERSHIP_TOL = 1e-8


class EnumerationError(ValueError):
    """Too many active rows to enumerate their subsets."""


KEPT_BYTES = 2**28
"""What all enumerations of a process may hold together; the one used longest ago is dropped."""


class _Sized(Protocol):
    @property
    def size(self) -> int: ...


T = TypeVar("T", bound=_Sized)
_ITEMS: OrderedDict[tuple[int, bytes], _Sized] = OrderedDict()
_LOCK = threading.Lock()
_NUMBERS = itertools.count()


class Kept(Generic[T]):
    """What was worked out for active sets, as much of it as fits into `KEPT_BYTES` of all."""

    bytes = 0

    def __init__(self) -> None:
        self._number = next(_NUMBERS)

    def get(self, mask: np.ndarray, make: Callable[[], T]) -> T:
        """Return what belongs to an active set, made anew if it is not kept."""
        key = (self._number, mask.tobytes())
        with _LOCK:
            found = cast("T | None", _ITEMS.get(key))
            if found is not None:
                _ITEMS.move_to_end(key)
                return found
        found = make()
        with _LOCK:
            if key not in _ITEMS:
                _ITEMS[key] = found
                Kept.bytes += found.size
            while Kept.bytes > KEPT_BYTES and len(_ITEMS) > 1:
                Kept.bytes -= _ITEMS.popitem(last=False)[1].size
        return found


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
        S, n, k = self.pinv.shape
        out = np.empty((len(r), S))
        for at in blocks(len(r), S * max(n, k)):
            some = rest[at]
            lam = (some @ self._pinv_flat).reshape(len(some), S, k)
            explained = lam.reshape(len(some) * S, k) @ self._generators
            off = some[:, None] - explained.reshape(len(some), S, n)
            distance = np.sqrt(np.einsum("psn,psn->ps", off, off))
            negative = np.max(lam * self._minus_inverse_norms, axis=2, initial=0.0)
            np.maximum(negative, distance, out=out[at])
        return out

    @cached_property
    def _generators(self) -> np.ndarray:
        return self.rows.off_equalities(self.rows.G[self.index])

    @cached_property
    def _pinv_flat(self) -> np.ndarray:
        """The pseudo-inverses side by side, shape (n, S k): one product serves all subsets."""
        S, n, k = self.pinv.shape
        return np.ascontiguousarray(self.pinv.transpose(1, 0, 2)).reshape(n, S * k)

    @cached_property
    def _minus_inverse_norms(self) -> np.ndarray:
        norms = np.linalg.norm(self.pinv, axis=1)
        return -1.0 / np.where(norms > 0.0, norms, 1.0)

    @cached_property
    def _elements_flat(self) -> np.ndarray:
        return np.ascontiguousarray(self.elements.transpose(2, 0, 1)).reshape(self.rows.n, -1)

    @cached_property
    def _by_group(self) -> tuple[np.ndarray, np.ndarray]:
        """The subsets in the order of their matrices, and where each matrix begins."""
        order = np.argsort(self.group, kind="stable")
        return order, np.searchsorted(self.group[order], np.arange(len(self.elements)))

    @property
    def size(self) -> int:
        """Bytes held, what products need included."""
        return 2 * (self.pinv.nbytes + self.elements.nbytes) + self.V.nbytes + self.masks.nbytes

    def products(self, v: np.ndarray) -> np.ndarray:
        """Return every distinct matrix times every vector, shapes (P, n) to (P, g, n)."""
        return (v @ self._elements_flat).reshape(len(v), -1, self.rows.n)

    def worst_error(self, v: np.ndarray, target: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Return the largest entry of V v - target over the matrices present at each point."""
        out = np.zeros(len(v))
        for at in blocks(len(v), len(self.elements) * self.rows.n):
            error = np.abs(self.products(v[at]) - target[at, None]).max(axis=2)
            out[at] = (error * present[at]).max(axis=1, initial=0.0)
        return out

    def admissible(self, r: np.ndarray, tol: float = CONE_TOL) -> np.ndarray:
        """Return which subsets are admissible at which points, shape (P, S) of bool."""
        return self.accepts(r, self.violation(r), tol)

    def accepts(self, r: np.ndarray, violation: np.ndarray, tol: float = CONE_TOL) -> np.ndarray:
        """Return `admissible` from violations that are known already."""
        return violation <= tol * (1.0 + np.linalg.norm(r, axis=-1))[:, None]

    def present(self, admissible: np.ndarray) -> np.ndarray:
        """Return which distinct matrices occur, shape (P, g) of bool."""
        order, first = self._by_group
        return np.logical_or.reduceat(admissible[:, order], first, axis=1)

    @property
    def active(self) -> np.ndarray:
        """The active set as a mask over all rows of the set."""
        out = np.zeros(self.rows.m, dtype=bool)
        out[self.index] = True
        return out

    def mask(self, s: int) -> np.ndarray:
        """Return subset s as a mask over all rows of the set."""
        out = np.zeros(self.rows.m, dtype=bool)
        out[self.index[self.masks[s]]] = True
        return out


def subset_count(rows: HRows, k: int) -> int:
    """Return how many subsets of k active rows there are to look at."""
    return sum(comb(k, s) for s in range(min(k, rows.n - rows.Q.shape[1]) + 1))


def local_rows(rows: HRows, active: np.ndarray, limit: int = MAX_SUBSETS) -> LocalRows:
    r"""Enumerate the independent subsets of an active set and their projectors.

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
    Subsets grow by one row a at a time. With u = V_K a ≠ 0 and c = u/‖u‖²,

    .. math:: V_{K\cup a} = V_K - c\,u^T, \qquad
              M_{K\cup a}^+ = [\,M_K^+ - c\,a^TM_K^+,\ c\,],

    which is Greville's formula for a row that is independent of the others; O(n (n + k)) a subset.
    """
    index = np.flatnonzero(active)
    k, n = len(index), rows.n
    count = subset_count(rows, k)
    if count > limit:
        raise EnumerationError(
            f"{k} active rows have {count} subsets to look at, more than the limit of {limit}; "
            "use is_hs_element, which needs no enumeration."
        )
    G = rows.off_equalities(rows.G[index])
    masks, pinvs = np.zeros((1, k), dtype=bool), np.zeros((1, n, k))
    V, last = (np.eye(n) - rows.Q @ rows.Q.T)[None], np.array([-1])
    levels = [(masks, pinvs, V)]
    for _ in range(min(k, n - rows.Q.shape[1])):
        parent, new = np.nonzero(np.arange(k) > last[:, None])
        u = np.einsum("sij,sj->si", V[parent], G[new])
        # what the first product leaves of the rows in K is round-off of it; not of the second
        u = np.einsum("sij,sj->si", V[parent], u)
        length = np.einsum("si,si->s", u, u)
        good = length > RANK_TOL**2
        parent, new, u, length = parent[good], new[good], u[good], length[good]
        if not len(parent):
            break
        column = u / length[:, None]
        pinvs = pinvs[parent]
        pinvs -= column[:, :, None] * np.einsum("si,sik->sk", G[new], pinvs)[:, None]
        pinvs[np.arange(len(new)), :, new] = column
        V = V[parent] - column[:, :, None] * u[:, None]
        masks = masks[parent]
        masks[np.arange(len(new)), new] = True
        last = new
        levels.append((masks, pinvs, V))
    masks, pinvs, V = (np.concatenate(parts) for parts in zip(*levels))
    group, first = _equal_matrices(V)
    return LocalRows(rows, index, masks, pinvs, V, group, V[first])


def _equal_matrices(V: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Group equal matrices (up to round-off): the group of each, and one member of each group.

    Equal ones have equal products with any fixed vector, so only neighbours in the order of one
    such product have to be compared.
    """
    flat = V.reshape(len(V), -1)
    weights = np.cos(1.0 + np.arange(flat.shape[1], dtype=np.float64) ** 2)
    key = flat @ weights
    order = np.argsort(key, kind="stable")
    far = np.diff(key[order]) > MEMBERSHIP_TOL * np.abs(weights).sum()
    starts = np.concatenate([[0], np.flatnonzero(far) + 1])
    smallest = np.minimum.reduceat(order, starts)
    chain = np.cumsum(np.concatenate([[0], far]))
    member = np.empty(len(V), dtype=int)
    member[order] = smallest[chain]
    wrong = np.abs(flat - flat[member]).max(axis=1, initial=0.0) > MEMBERSHIP_TOL
    for c in np.unique(chain[wrong[order]]):
        rest = np.sort(order[chain == c])
        while len(rest):
            apart = np.abs(flat[rest] - flat[rest[0]]).max(axis=1, initial=0.0) > MEMBERSHIP_TOL
            member[rest[~apart]] = rest[0]
            rest = rest[apart]
    first, group = np.unique(member, return_inverse=True)
    return group.ravel(), first
