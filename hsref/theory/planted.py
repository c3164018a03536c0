r"""Projections whose answer is chosen first, on polyhedra that are degenerate on purpose.

Pick a point z of the set, let I be its active rows, pick multipliers λ ≥ 0 on I with zeros where
wanted and any μ. Then

.. math:: x = z + A_I^T\lambda + B^T\mu \quad\Longrightarrow\quad \Pi(x) = z

exactly, because x - z lies in the normal cone at z. Random inputs almost never reach a kink;
planted ones sit on whichever kink is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .linear import blocks, distinct_masks, kernel_projectors
from .rows import HRows, rows_of

POINT_KINDS = ("generic", "lattice", "inside", "boundary", "face", "weak", "vertex")
"""Where x lies: anywhere; on a lattice (ties); Π(x) in the relative interior; x on the relative
boundary; Π(x) on a face with every multiplier positive; with some zero; on a smallest face."""


@dataclass(eq=False)
class Cases:
    """A set with a batch of points, and their projections where they were planted.

    Attributes
    ----------
    C : set
        The set.
    x : ndarray, shape (P, n)
        Flat points.
    z : ndarray, shape (P, n)
        The planted projections; NaN rows where the answer was not planted.
    """

    C: Any
    x: np.ndarray
    z: np.ndarray
    cache: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def rows(self) -> HRows:
        """The H-description."""
        return rows_of(self.C)


def walk(rows: HRows, start: np.ndarray, depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Walk from a feasible point to faces: each step runs along a face until new rows stop it.

    Parameters
    ----------
    rows : HRows
        The set.
    start : ndarray, shape (n,)
        A point of the set.
    depth : ndarray of int, shape (P,)
        Steps of each walk; a walk ends early on a smallest face, or where nothing stops it.
    rng : Generator
        Directions.

    Returns
    -------
    ndarray, shape (P, n)
        Points whose active rows hold to round-off.
    """
    z = np.tile(start, (len(depth), 1))
    todo = depth.copy()
    while (todo > 0).any():
        run = np.flatnonzero(todo > 0)
        active = rows.active(z[run])
        d = rng.normal(size=(len(run), rows.n))
        d = np.einsum("pij,pj->pi", kernel_projectors(rows, active), d)
        length = np.linalg.norm(d, axis=1, keepdims=True)
        stuck = length[:, 0] <= 1e-9
        d = np.divide(d, length, out=np.zeros_like(d), where=length > 1e-9)
        forth = _reach(rows, z[run], d, active)
        back = _reach(rows, z[run], -d, active)
        d[forth > back] *= -1.0
        step = np.minimum(forth, back)
        stuck |= ~np.isfinite(step)
        z[run] += np.where(stuck, 0.0, step)[:, None] * d
        todo[run] -= 1
        todo[run[stuck]] = 0
        z[run] = settle(rows, z[run])
    return z


def _reach(rows: HRows, z: np.ndarray, d: np.ndarray, active: np.ndarray) -> np.ndarray:
    speed = d @ rows.G.T
    blocking = ~active & (speed > 1e-9)
    ratio = np.full(speed.shape, np.inf)
    np.divide(rows.slack(z), speed, out=ratio, where=blocking)
    return np.min(ratio, axis=1, initial=np.inf)


def settle(rows: HRows, z: np.ndarray) -> np.ndarray:
    """Bring points onto their active rows to the last digits."""
    z = np.where(np.abs(z - np.round(z)) <= 1e-13, np.round(z) + 0.0, z)
    for _ in range(2):
        active = rows.active(z)
        gap = np.where(active, -rows.slack(z), 0.0)
        rest = np.concatenate([gap, z @ rows.E.T - rows.e], axis=1)
        if not rest.shape[1] or np.abs(rest).max(initial=0.0) <= 1e-15:
            break
        masks, where = distinct_masks(active)
        equalities = np.broadcast_to(rows.E, (len(masks), *rows.E.shape))
        M = np.concatenate([masks[:, :, None] * rows.G, equalities], axis=1)
        inverse = np.linalg.pinv(M, rcond=1e-10)
        for at in blocks(len(z), rows.n * rest.shape[1]):
            z[at] -= np.einsum("pnm,pm->pn", inverse[where[at]], rest[at])
    return on_integers(z)


def on_integers(z: np.ndarray) -> np.ndarray:
    """Replace entries by the integer they differ from by rounding alone, for numbers about 1.

    Kept, that rounding would be a point of its own: say 1e-29 away from the apex of a cone, where
    other rows are active than at the apex.
    """
    return np.where(np.abs(z - np.round(z)) <= 1e-15, np.round(z) + 0.0, z)


def multipliers(active: np.ndarray, zeros: str, rng: np.random.Generator) -> np.ndarray:
    """Draw integer multipliers on active rows.

    Parameters
    ----------
    active : ndarray of bool, shape (P, m)
        Where they may be positive.
    zeros : {"none", "some", "all"}
        Whether active rows keep zero multipliers: none of them, at least one, or all.
    rng : Generator
        Draws.
    """
    lam = rng.integers(1, 4, size=active.shape).astype(np.float64)
    if zeros == "all":
        return np.zeros(active.shape)
    if zeros == "some":
        lam[rng.random(active.shape) < 0.5] = 0.0
        # at least one zero: the first active row in a random order
        order = np.where(active, rng.random(active.shape), 2.0)
        if active.shape[1]:
            lam[np.arange(len(lam)), np.argmin(order, axis=1)] = 0.0
    return np.where(active, lam, 0.0)


def plant(rows: HRows, z: np.ndarray, zeros: str, rng: np.random.Generator) -> np.ndarray:
    """Return points x whose projections are the given points z, shape (P, n)."""
    lam = multipliers(rows.active(z), zeros, rng)

    # rows as given where their size is ordinary, so that integer rows and integer z give integer x
    # and ties are exact; unit rows where they are badly scaled
    def given(norms: np.ndarray) -> np.ndarray:
        return np.where((norms > 0.1) & (norms < 20.0), norms, 1.0)

    push = (lam * given(rows.norms)) @ rows.G
    mu = rng.integers(-2, 3, size=(len(z), len(rows.E))) * given(rows.eq_norms)
    return z + push + mu @ rows.E


def points(C: Any, kind: str, count: int, rng: np.random.Generator) -> Cases | None:
    """Draw points of one kind for a set.

    Parameters
    ----------
    C : set
        The set.
    kind : str
        One of `POINT_KINDS`.
    count : int
        How many.
    rng : Generator
        Draws.

    Returns
    -------
    Cases or None
        None when the set has no point of that kind (a whole space has no boundary).
    """
    rows = rows_of(C)
    center = np.asarray(C.interior_point(), dtype=np.float64).reshape(rows.n)
    unknown = np.full((count, rows.n), np.nan)
    if kind == "generic":
        spread = 10.0 ** rng.uniform(-1.0, 1.0, size=(count, 1))
        return Cases(C, center + spread * rng.normal(size=(count, rows.n)), unknown)
    if kind == "lattice":
        step = rng.choice([0.25, 0.5, 1.0], size=(count, 1))
        grid = rng.integers(-3, 4, size=(count, rows.n)) * step
        return Cases(C, np.round(center * 4.0) / 4.0 + grid, unknown)
    if kind == "inside":
        z = settle(rows, np.tile(center, (count, 1)))
        z += 0.3 * _inner_step(rows, z, rng)
        return Cases(C, plant(rows, z, "all", rng), z)
    if not rows.m:
        return None
    deep = np.full(count, rows.n + 1)
    depth = deep if kind == "vertex" else rng.integers(1, rows.n + 1, size=count)
    z = walk(rows, center, depth, rng)
    on = rows.active(z).any(axis=1)
    if not on.any():
        return None
    z = z[np.resize(np.flatnonzero(on), count)]
    zeros = {"boundary": "all", "face": "none", "weak": "some", "vertex": "some"}[kind]
    return Cases(C, plant(rows, z, zeros, rng), z)


def _inner_step(rows: HRows, z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return random moves inside the set that keep every strict inequality strict."""
    V = kernel_projectors(rows, rows.active(z))
    d = np.einsum("pij,pj->pi", V, rng.normal(size=z.shape))
    reach = _reach(rows, z, d, rows.active(z))
    return d * np.minimum(np.where(np.isfinite(reach), reach, 1.0), 2.0)[:, None]


# -- general polyhedra, one kind of degeneracy each ---------------------------------------------


def _rows(rng: np.random.Generator, count: int, n: int) -> np.ndarray:
    """Draw independent integer rows (count <= n)."""
    while True:
        A = rng.integers(-2, 3, size=(count, n)).astype(np.float64)
        if not count or np.linalg.svd(A, compute_uv=False)[-1] > 0.3:
            return A


def _through(z: np.ndarray, A: np.ndarray, rng: np.random.Generator, **more: Any) -> Any:
    """Return the polyhedron with rows A tight at z, a few slack rows, and what else is given."""
    from hsref import Polyhedron

    n = len(z)
    loose = rng.integers(-2, 3, size=(int(rng.integers(0, 3)), n)).astype(np.float64)
    b = np.concatenate([A @ z, loose @ z + rng.integers(1, 4, size=len(loose))])
    rows = np.vstack([A, loose])
    order = rng.permutation(len(rows))
    return Polyhedron(A_ub=rows[order], b_ub=b[order], n=n, **more)


def _independent(rng: np.random.Generator, n: int, z: np.ndarray) -> Any:
    q = int(rng.integers(0, 2))
    M = _rows(rng, int(rng.integers(1, n - q + 1)) + q, n)
    return _through(z, M[q:], rng, **({"A_eq": M[:q], "b_eq": M[:q] @ z} if q else {}))


def _duplicated(rng: np.random.Generator, n: int, z: np.ndarray) -> Any:
    A = _rows(rng, int(rng.integers(1, n + 1)), n)
    again = A[rng.integers(0, len(A), size=2)] * rng.integers(1, 4, size=(2, 1))
    return _through(z, np.vstack([A, again]), rng)


def _implied(rng: np.random.Generator, n: int, z: np.ndarray) -> Any:
    A = _rows(rng, int(rng.integers(2, n + 1)), n)
    sums = rng.integers(0, 3, size=(2, len(A))) @ A
    sums[0] = A[0] + A[1]
    return _through(z, np.vstack([A, sums]), rng)


def _dependent_equalities(rng: np.random.Generator, n: int, z: np.ndarray) -> Any:
    M = _rows(rng, int(rng.integers(2, n + 1)), n)
    q = int(rng.integers(1, len(M)))
    B = np.vstack([M[:q], rng.integers(-1, 3, size=(2, q)) @ M[:q]])
    return _through(z, M[q:], rng, A_eq=B, b_eq=B @ z)


def _opposite(rng: np.random.Generator, n: int, z: np.ndarray) -> Any:
    A = _rows(rng, int(rng.integers(1, n + 1)), n)
    k = int(rng.integers(1, len(A) + 1))
    return _through(z, np.vstack([A, -A[:k]]), rng)


def _crowded_vertex(rng: np.random.Generator, n: int, z: np.ndarray) -> Any:
    # rows with positive product with a fixed vector: the cone they cut out has an interior
    A = np.vstack([_rows(rng, n, n), rng.integers(-2, 3, size=(3, n))])
    u = rng.integers(1, 3, size=n)
    side = A @ u
    return _through(z, A[side != 0] * np.sign(side[side != 0])[:, None], rng)


def _single_point(rng: np.random.Generator, n: int, z: np.ndarray) -> Any:
    A = _rows(rng, n, n)
    return _through(z, np.vstack([A, -A.sum(axis=0, keepdims=True)]), rng)


def _void_rows(rng: np.random.Generator, n: int, z: np.ndarray) -> Any:
    from hsref import Polyhedron

    A = _rows(rng, int(rng.integers(1, n + 1)), n)
    rows = np.vstack([np.zeros((2, n)), A, _rows(rng, 1, n)])
    return Polyhedron(A_ub=rows, b_ub=np.concatenate([[0.0, 2.0], A @ z, [np.inf]]))


def _equalities_only(rng: np.random.Generator, n: int, z: np.ndarray) -> Any:
    from hsref import Polyhedron

    B = _rows(rng, int(rng.integers(1, n + 1)), n)
    B = np.vstack([B, B.sum(axis=0)])
    return Polyhedron(A_eq=B, b_eq=B @ z)


def _unconstrained(rng: np.random.Generator, n: int, z: np.ndarray) -> Any:
    from hsref import Polyhedron

    return Polyhedron(n=n)


def _fixed_bounds(rng: np.random.Generator, n: int, z: np.ndarray) -> Any:
    lower = z - rng.integers(0, 2, size=n)
    upper = np.where(rng.random(n) < 0.4, np.maximum(lower, z), z + rng.integers(0, 2, size=n))
    upper[0] = lower[0] = z[0]
    return _through(z, _rows(rng, int(rng.integers(1, n + 1)), n), rng, lower=lower, upper=upper)


def _bounds_and_rows(rng: np.random.Generator, n: int, z: np.ndarray) -> Any:
    lower = np.where(rng.random(n) < 0.5, z, -np.inf)
    upper = np.where(rng.random(n) < 0.5, z + 2.0, np.inf)
    total = np.ones((1, n))
    return _through(
        z, _rows(rng, int(rng.integers(1, 3)), n), rng,
        lower=lower, upper=upper, A_eq=total, b_eq=total @ z,
    )  # fmt: skip


def _scaled_rows(rng: np.random.Generator, n: int, z: np.ndarray) -> Any:
    A = _rows(rng, int(rng.integers(1, n + 1)), n)
    A = np.vstack([A, A[:1]])
    size = 10.0 ** rng.integers(-4, 5, size=(len(A), 1))
    return _through(z, A * size, rng)


def _pyramid(rng: np.random.Generator, n: int, z: np.ndarray) -> Any:
    U = _rows(rng, n - 1, n - 1)
    up = np.ones((n - 1, 1))
    A = np.vstack([np.hstack([U, up]), np.hstack([-U, up])])
    return _through(z, A, rng)


POLYHEDRA: dict[str, Callable[[np.random.Generator, int, np.ndarray], Any]] = {
    "independent rows": _independent,
    "duplicated rows": _duplicated,
    "implied rows": _implied,
    "dependent equalities": _dependent_equalities,
    "opposite rows": _opposite,
    "crowded vertex": _crowded_vertex,
    "single point": _single_point,
    "void rows": _void_rows,
    "equalities only": _equalities_only,
    "unconstrained": _unconstrained,
    "fixed bounds": _fixed_bounds,
    "bounds and rows": _bounds_and_rows,
    "scaled rows": _scaled_rows,
    "pyramid": _pyramid,
}
"""Makers of general polyhedra, by kind of degeneracy: (rng, n, z) ↦ a Polyhedron containing z."""


def polyhedron(kind: str, rng: np.random.Generator) -> tuple[Any, np.ndarray]:
    """Return a general polyhedron of one degenerate kind and the lattice point it is built around.

    Parameters
    ----------
    kind : str
        One of the keys of `POLYHEDRA`.
    rng : Generator
        Draws.

    Returns
    -------
    C : Polyhedron
        Of dimension 2 to 4.
    z : ndarray, shape (n,)
        A point of C at which the degeneracy happens.
    """
    n = int(rng.integers(2, 5))
    z = rng.integers(-2, 3, size=n).astype(np.float64)
    return POLYHEDRA[kind](rng, n, z), z


def degenerate_cases(kind: str, count: int, rng: np.random.Generator) -> Cases:
    """Draw a polyhedron of one kind and points of every sort around its degenerate place.

    Half of the points project onto the degenerate place itself, with all, some or no zero
    multipliers; the others onto faces next to it, or are lattice or ordinary points.
    """
    C, z = polyhedron(kind, rng)
    rows = rows_of(C)
    parts_x, parts_z = [], []
    for zeros, share in (("all", 0.1), ("some", 0.3), ("none", 0.1)):
        at = np.tile(z, (max(1, round(share * count)), 1))
        parts_x.append(plant(rows, at, zeros, rng))
        parts_z.append(at)
    for zeros, share in (("all", 0.1), ("some", 0.2)):
        depth = rng.integers(0, rows.n + 1, size=max(1, round(share * count)))
        inner = np.asarray(C.interior_point(), dtype=np.float64).reshape(rows.n)
        at = walk(rows, inner, depth, rng)
        parts_x.append(plant(rows, at, zeros, rng))
        parts_z.append(at)
    rest = max(1, count - sum(map(len, parts_x)))
    noise = np.where(
        rng.random((rest, 1)) < 0.5,
        rng.integers(-3, 4, size=(rest, rows.n)),
        2.0 * rng.normal(size=(rest, rows.n)),
    )
    parts_x.append(z + noise)
    parts_z.append(np.full((rest, rows.n), np.nan))
    x, answers = np.concatenate(parts_x)[:count], np.concatenate(parts_z)[:count]
    return Cases(C, x, answers)
