"""T1, T2, T10, T14: the projection itself, and what must not depend on how a set is written."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..certificates import RowMultipliers
from ..linear import blocks, kernel_projectors, project_onto_cone
from ..planted import Cases, on_integers, walk
from ..rows import HRows
from ..subject import images, observe
from ._outcome import Outcome, cache_of, largest


def kkt(cases: Cases, rng: np.random.Generator) -> Outcome:
    """T1: feasibility, stationarity with the record's multipliers and without, complementarity."""
    out, rows = Outcome(), cases.rows
    seen = observe(cases.C, cases.x)
    scale = rows.scale(cases.x)
    r = seen.x - seen.y
    out.add("primal", rows.violation(seen.y) / scale, 1e-10)
    out.add("cone", cone_distance(cases, seen.y, r) / scale, 1e-10)
    multipliers = unit_multipliers(cases.C, rows, seen.record.multipliers, len(r))
    if multipliers is not None:
        lam, mu = multipliers
        out.add("dual", largest(r - lam @ rows.G - mu @ rows.E) / scale, 1e-10)
        out.add("sign", np.max(-lam, axis=1, initial=0.0) / scale, 1e-10)
        out.add("complementarity", largest(lam * rows.slack(seen.y)) / scale**2, 1e-10)
    return out


def cone_distance(cases: Cases, y: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Return how far r is from the normal cone at y; zero exactly when it lies in it."""
    rows = cases.rows
    active = rows.active(y)
    groups, left = cache_of(cases.C, rows).groups(active)
    out = np.zeros(len(r))
    for local, at in groups:
        out[at] = local.violation(r[at]).min(axis=1)
    for i in np.flatnonzero(left):
        G = rows.off_equalities(rows.G[active[i]])
        out[i] = project_onto_cone(rows.off_equalities(r[i]), G).distance
    return out


def unit_multipliers(
    C: Any, rows: HRows, given: Any, count: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return a record's multipliers as those of unit rows, or None when it keeps other ones.

    Sets with exponentially many rows carry a certificate of their own.
    """
    fields = {k: np.asarray(getattr(given, k)).reshape(count, -1) for k in RowMultipliers._fields}
    P = C.to_polyhedron()
    expected = {
        "ub": 0 if P.A_ub is None else len(P.A_ub),
        "eq": 0 if P.A_eq is None else len(P.A_eq),
        "lower": rows.n,
        "upper": rows.n,
    }
    if any(fields[k].shape[1] != size for k, size in expected.items()):
        return None
    lam = np.zeros((count, rows.m))
    for j, ((name, i), norm) in enumerate(zip(rows.ids, rows.norms)):
        lam[:, j] = fields[name][:, i] * norm
    mu = fields["eq"][:, list(rows.eq_ids)] * rows.eq_norms
    return lam, mu


def nearest(cases: Cases, rng: np.random.Generator) -> Outcome:
    """T2: planted and brute-force answers, variational inequality, nonexpansive, idempotent."""
    out, rows = Outcome(), cases.rows
    y = images(cases.C, cases.x)
    scale = rows.scale(cases.x)
    known = ~np.isnan(cases.z[:, 0])
    out.add("planted", np.where(known, largest(y - cases.z) / scale, np.nan), 1e-9)
    table = cache_of(cases.C, rows).candidates(1500)
    if table is not None:
        answer = table.project(cases.x)
        out.add("brute force", np.nan_to_num(largest(y - answer) / scale, nan=np.inf), 1e-9)
    # every y is a point of the set; so are corners reached by walks
    center = np.asarray(cases.C.interior_point(), dtype=np.float64).reshape(rows.n)
    others = np.vstack([y, walk(rows, center, np.full(8, rows.n + 1), rng)])
    reach = scale + np.abs(others).max(initial=0.0)
    largest_product = np.zeros(len(y))
    for at in blocks(len(y), len(others)):
        r = cases.x[at] - y[at]
        products = r @ others.T - np.einsum("pn,pn->p", r, y[at])[:, None]
        largest_product[at] = np.max(products, axis=1, initial=0.0)
    out.add("inequality", largest_product / reach**2, 1e-9)
    back = np.roll(np.arange(len(y)), 1)
    grown = np.linalg.norm(y - y[back], axis=1) - np.linalg.norm(cases.x - cases.x[back], axis=1)
    out.add("nonexpansive", np.maximum(grown, 0.0) / np.maximum(scale, scale[back]), 1e-9)
    out.add("idempotent", largest(images(cases.C, y) - y) / scale, 1e-9)
    return out


def invariance(cases: Cases, rng: np.random.Generator) -> Outcome:
    """T10: duplicated, implied and scaled rows, in any order, change neither y nor V₀."""
    from hsref import Polyhedron

    out, rows = Outcome(), cases.rows
    G, h = rows.G, rows.h
    if rows.m:
        twice = rng.integers(0, rows.m, size=min(3, rows.m))
        weights = np.where(rng.random((3, rows.m)) < 0.5, 0.0, rng.integers(1, 3, (3, rows.m)))
        weights[:, rng.integers(0, rows.m, size=3)] += 1.0
        weights = weights[~_cancel(weights, G)]
        G = np.vstack([G, G[twice], weights @ G])
        h = np.concatenate([h, h[twice], weights @ h])
        size = 10.0 ** rng.integers(-3, 4, size=len(G))
        order = rng.permutation(len(G))
        G, h = (G * size[:, None])[order], (h * size)[order]
    E, e = rows.E, rows.e
    if len(E):
        mix = rng.integers(-2, 3, size=(2, len(E))).astype(np.float64)
        mix = mix[~_cancel(mix, E)]
        E, e = np.vstack([3.0 * E, mix @ E]), np.concatenate([3.0 * e, mix @ e])
    again = Polyhedron(
        A_ub=G if len(G) else None, b_ub=h if len(G) else None,
        A_eq=E if len(E) else None, b_eq=e if len(E) else None, n=rows.n,
    )  # fmt: skip
    first, second = observe(cases.C, cases.x), observe(again, cases.x)
    out.add("y", largest(first.y - second.y) / rows.scale(cases.x), 1e-10)
    out.add("V", largest(first.elements() - second.elements()), 1e-10)
    return out


def _cancel(weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Tell which combinations of unit rows are small beside their terms.

    What is left of such a row is rounding, more or less, and so is its right-hand side: the two
    need not agree, and the set would be another one.
    """
    left = np.linalg.norm(weights @ rows, axis=1)
    return left <= 1e-3 * np.abs(weights).sum(axis=1)


def structured(cases: Cases, rng: np.random.Generator) -> Outcome:
    """T14: the set's own formulas against the dense pseudo-inverse and the general solver."""
    out, rows = Outcome(), cases.rows
    x = cases.x
    # the edges a closed form may forget: on the set, all entries equal, zero, huge
    extra = np.stack([
        on_integers(images(cases.C, x[0])), np.full(rows.n, 0.5), np.zeros(rows.n), 1e4 * x[-1],
    ])  # fmt: skip
    x = np.vstack([x, extra])
    seen = observe(cases.C, x)
    dense = kernel_projectors(rows, rows.active(seen.y))
    out.add("V", largest(seen.elements() - dense), 1e-10)
    g = rng.normal(size=x.shape)
    out.add("V g", largest(seen.product(g) - np.einsum("pij,pj->pi", dense, g)), 1e-10)
    general = cases.C.to_polyhedron()
    out.add("y", largest(images(general, x) - seen.y) / rows.scale(x), 1e-10)
    return out
