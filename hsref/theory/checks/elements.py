"""T3 to T7 and T11: algebra, membership, limits of Jacobians, and what holds near a point."""

from __future__ import annotations

import numpy as np

from ..bsub import independent
from ..exactness import critical_projection, radius
from ..hs_set import is_hs_element
from ..linear import blocks, kernel_projectors
from ..local import LocalRows
from ..planted import Cases
from ..rows import HRows
from ..subject import SELECTIONS, Observation, images, observe
from ._outcome import Faces, Outcome, cache_of, largest, nearest

UNCLEAR = 1e-7
"""Relative slack, or multiplier, too small to say on which side of a kink a point lies."""
ROUND_OFF = 1e-13
"""Relative distance from a cone up to which a vector may lie in it."""


def algebra(cases: Cases, rng: np.random.Generator) -> Outcome:
    """T3: V = Vᵀ = V², BV = 0, tr V = rank = n - rank M_I, one product for both modes."""
    out, rows = Outcome(), cases.rows
    seen = observe(cases.C, cases.x)
    u, w = rng.normal(size=(2, *cases.x.shape))
    for selection in SELECTIONS:
        V = seen.elements(selection)
        out.add("symmetric", largest(V - np.swapaxes(V, 1, 2)), 1e-12)
        out.add("idempotent", largest(V @ V - V), 1e-12)
        out.add("B V = 0", largest(np.einsum("ki,pij->pkj", rows.E, V)), 1e-12)
        trace = np.einsum("pii->p", V)
        rank = np.asarray(seen.record.jacobian(selection).rank, dtype=np.float64).reshape(-1)
        out.add("trace = rank", np.abs(trace - rank), 1e-10)
        forth = seen.product(w, selection)
        back = seen.product(u, selection, adjoint=True)
        pair = np.abs(np.einsum("pn,pn->p", u, forth) - np.einsum("pn,pn->p", back, w))
        out.add("<u, Vw> = <Vᵀu, w>", pair / (1.0 + np.abs(u).max() * np.abs(w).max()), 1e-12)
        out.add("V w", largest(forth - np.einsum("pij,pj->pi", V, w)) / 4.0, 1e-12)
        if selection == "active":
            own = kernel_projectors(rows, rows.active(seen.y))
            out.add("trace = n - rank", np.abs(trace - np.einsum("pii->p", own)), 1e-10)
    return out


def membership(cases: Cases, rng: np.random.Generator) -> Outcome:
    """T4: every selection lies in HS; V₀ is least; ∂_BΠ ⊆ HS, equal where rows are independent."""
    out, rows = Outcome(), cases.rows
    seen = observe(cases.C, cases.x)
    V = {s: seen.elements(s) for s in SELECTIONS}
    r = seen.x - seen.y
    cache = cache_of(cases.C, rows)
    P = len(r)
    gap = {s: np.full(P, np.nan) for s in SELECTIONS}
    least, inclusion, equality = np.full(P, np.nan), np.full(P, np.nan), np.full(P, np.nan)
    strict = 0
    groups, left = cache.groups(rows.active(seen.y))
    for local, every in groups:
        found = cache.faces_at(local)
        free = independent(rows, local.active)
        width = len(local.masks) + (0 if found.faces is None else len(found.gap))
        for block in blocks(len(every), width):
            at = every[block]
            present = local.present(local.admissible(r[at]))
            for s in SELECTIONS:
                gap[s][at] = _distance(V[s][at], local, present)
            least[at] = _not_least(V["active"][at], local, present)
            if found.faces is None:
                continue
            between = found.faces.maximising(r[at])
            inclusion[at] = _inclusion(found, between, present)
            # distinct faces may have the same direction space only if they are the same face
            missing = present.sum(axis=1) - between.sum(axis=1)
            strict += int((missing > 0).sum())
            if free:
                equality[at] = np.abs(missing)
    for s in SELECTIONS:
        out.add(f"{s} in HS", gap[s], 1e-8)
    out.add("V₀ is least", least, 1e-8)
    out.add("∂_B in HS", inclusion, 1e-8)
    out.add("∂_B = HS if independent", equality, 0.5)
    # the test without enumeration must agree, and is the only one where there are too many rows
    sample = np.union1d(np.flatnonzero(left), np.arange(min(3, P)))
    direct = np.full(P, np.nan)
    for i in sample:
        direct[i] = is_hs_element(V["active"][i], seen.x[i], cases.C, y=seen.y[i]).residual
    out.add("cone test", direct, 1e-8)
    out.notes["points where HS is larger than ∂_B"] = strict
    out.notes["points with too many active rows to enumerate"] = int(left.sum())
    return out


def _distinct(V: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrices that differ in some bit, and which of them each point has."""
    flat = np.ascontiguousarray(V).reshape(len(V), -1)
    keys = flat.view(np.dtype((np.void, flat.itemsize * flat.shape[1]))).ravel()
    _, first, where = np.unique(keys, return_index=True, return_inverse=True)
    return V[first], where.ravel()


def _distance(V: np.ndarray, local: LocalRows, present: np.ndarray) -> np.ndarray:
    """Return the distance of each matrix from the elements present at its point."""
    few, where = _distinct(V)
    apart = np.empty((len(few), len(local.elements)))
    for at in blocks(len(few), local.elements.size):
        apart[at] = np.abs(few[at, None] - local.elements).max(axis=(2, 3))
    return np.where(present, apart[where], np.inf).min(axis=1)


def _not_least(V: np.ndarray, local: LocalRows, present: np.ndarray) -> np.ndarray:
    """Return max|V W - V| over the elements W present: zero when V's range lies in all theirs."""
    few, where = _distinct(V)
    error = np.empty((len(few), len(local.elements)))
    for at in blocks(len(few), local.elements.size):
        product = np.einsum("pij,gjk->pgik", few[at], local.elements)
        error[at] = np.abs(product - few[at, None]).max(axis=(2, 3))
    return np.where(present, error[where], 0.0).max(axis=1)


def _inclusion(found: Faces, between: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Return the distance of ∂_B from the elements present, the worst face of each point."""
    assert found.faces is not None
    gap = np.where(between & present[:, found.element], found.gap, 0.0).max(axis=1, initial=0.0)
    # a face whose own element is missing: how far is the nearest one that is there?
    for p, f in np.argwhere(between & ~present[:, found.element]):
        _, far = nearest(found.faces.V[f][None], found.local.elements[present[p]])
        gap[p] = max(gap[p], far[0])
    return gap


def limits(cases: Cases, rng: np.random.Generator) -> Outcome:
    """T5: V₀ is the Jacobian at x + ½ΣA_I, and at x where the projection is differentiable."""
    out, rows = Outcome(), cases.rows
    seen = observe(cases.C, cases.x)
    V, y = seen.elements(), seen.y
    active = rows.active(y)
    cache = cache_of(cases.C, rows)
    P = len(y)
    slack = np.min(np.where(active, np.inf, rows.slack(y)), axis=1, initial=np.inf)
    room, near = np.full(P, np.inf), np.zeros(P)
    single = np.zeros(P, dtype=bool)
    groups, left = cache.groups(active)
    for local, at in groups:
        # a step h moves each multiplier of a basis of the active rows by at most h ‖M⁺e_i‖, and
        # all of them have been raised by ½
        full = local.masks.sum(axis=1) == local.masks.sum(axis=1).max()
        columns = np.linalg.norm(local.pinv[full], axis=1).max(axis=1, initial=0.0)
        room[at] = 0.25 / max(float(columns.min()), 1e-3)
        r = seen.x[at] - y[at]
        near[at] = radius(rows, local, r, y[at])
        faces = cache.faces_at(local).faces
        if faces is not None:
            for block in blocks(len(at), len(faces.masks)):
                single[at[block]] = faces.maximising(r[block]).sum(axis=1) == 1
    pushed = cases.x + 0.5 * active.astype(np.float64) @ rows.G
    scale = rows.scale(pushed)
    h = np.minimum(np.minimum(1e-4, 0.25 * slack), room)
    good = (h >= 1e-6 * scale) & ~left
    out.add("y unmoved", np.where(good, largest(images(cases.C, pushed) - y) / scale, np.nan), 1e-9)
    out.add("∇Π next to x", _difference(cases.C, pushed, V, h, good), 1e-7)
    h = np.minimum(1e-4, 0.25 * near)
    good = single & (h >= 1e-6 * scale) & ~left
    out.add("∇Π at x", _difference(cases.C, cases.x, V, h, good), 1e-7)
    out.excluded = int((np.minimum(np.minimum(1e-4, 0.25 * slack), room) < 1e-6 * scale).sum())
    out.notes["points where Π is differentiable"] = int(single.sum())
    return out


def _difference(
    C: object, x: np.ndarray, V: np.ndarray, h: np.ndarray, good: np.ndarray
) -> np.ndarray:
    """Return the distance of V from central differences of Π, NaN where not good."""
    out = np.full(len(x), np.nan)
    at = np.flatnonzero(good)
    if len(at):
        step = h[at][:, None, None] * np.eye(x.shape[1])
        ahead, behind = images(C, x[at][:, None] + step), images(C, x[at][:, None] - step)
        J = np.swapaxes((ahead - behind) / (2.0 * h[at][:, None, None]), 1, 2)
        out[at] = largest(J - V[at])
    return out


def _directions(rows: HRows, active: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw unit directions that leave x in interesting ways: any, along rows, along the face."""
    P, n = len(active), rows.n
    d = rng.normal(size=(P, n))
    kind = rng.integers(0, 4, size=P)
    along_rows = (rng.integers(-1, 2, size=active.shape) * active) @ rows.G
    along_face = np.einsum("pij,pj->pi", kernel_projectors(rows, active), d)
    lattice = rng.integers(-1, 2, size=(P, n)).astype(np.float64)
    for k, other in ((1, along_rows), (2, along_face), (3, lattice)):
        long = np.linalg.norm(other, axis=1) > 1e-6
        d = np.where(((kind == k) & long)[:, None], other, d)
    return d / np.linalg.norm(d, axis=1, keepdims=True)


def _near(
    cases: Cases, y: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return directions, steps inside the neighbourhood of exactness, and which are long enough."""
    rows = cases.rows
    active = rows.active(y)
    groups, left = cache_of(cases.C, rows).groups(active)
    near = np.zeros(len(y))
    for local, at in groups:
        near[at] = radius(rows, local, cases.x[at] - y[at], y[at])
    d = _directions(rows, active, rng)
    step = np.minimum(1e-3, 0.5 * near)
    good = (step >= 1e-6 * rows.scale(cases.x)) & ~left
    return d, step, good, active


def _clear(rows: HRows, seen: Observation) -> np.ndarray:
    """Return for which points no row is nearly active, and none active with next to no multiplier.

    A random direction may run almost along a kink: such a point is off it by less than the
    tolerance by which rows count as active, and HS(x′) would be taken from the wrong side.
    """
    slack = rows.slack(seen.y)
    size = rows.scale(seen.y)[:, None]
    nearly = (slack > 1e-13 * size) & (slack < UNCLEAR * size)
    return ~nearly.any(axis=1) & (np.ravel(seen.record.multiplier_margin) > UNCLEAR)


def exact(cases: Cases, rng: np.random.Generator) -> Outcome:
    """T6: Π(x′) - Π(x) = V(x′ - x) for every V ∈ HS(x′) and the layer's V, x′ near x."""
    out, rows = Outcome(), cases.rows
    y = images(cases.C, cases.x)
    d, step, good, _ = _near(cases, y, rng)
    at = np.flatnonzero(good)
    out.excluded = len(good) - len(at)
    if not len(at):
        return out
    other = cases.x[at] + step[at][:, None] * d[at]
    seen = observe(cases.C, other)
    unclear = ~_clear(rows, seen)
    out.excluded += int(unclear.sum())
    moved, move = seen.y - y[at], other - cases.x[at]
    scale = rows.scale(cases.x[at])
    groups, _ = cache_of(cases.C, rows).groups(rows.active(seen.y))
    worst = np.full(len(cases.x), np.nan)
    for local, k in groups:
        r = other[k] - seen.y[k]
        distance = local.violation(r)
        accepted = local.accepts(r, distance)
        # an index set that is off its cone by less than the tolerance, but off it
        doubtful = (accepted & ~local.accepts(r, distance, ROUND_OFF)).any(axis=1)
        out.excluded += int((doubtful & ~unclear[k]).sum())
        unclear[k] |= doubtful
        worst[at[k]] = local.worst_error(move[k], moved[k], local.present(accepted)) / scale[k]
    worst[at[unclear]] = np.nan
    out.add("every element", worst, 1e-12)
    for selection in SELECTIONS:
        own = np.full(len(cases.x), np.nan)
        own[at] = largest(seen.product(move, selection) - moved) / scale
        own[at[unclear]] = np.nan
        out.add(selection, own, 1e-12)
    return out


def semicontinuous(cases: Cases, rng: np.random.Generator) -> Outcome:
    """T7: 𝒦(x′) ⊆ 𝒦(x), hence HS(x′) ⊆ HS(x), for x′ near x."""
    out, rows = Outcome(), cases.rows
    y = images(cases.C, cases.x)
    d, step, good, active = _near(cases, y, rng)
    at = np.flatnonzero(good)
    out.excluded = len(good) - len(at)
    if not len(at):
        return out
    other = cases.x[at] + step[at][:, None] * d[at]
    seen = observe(cases.C, other)
    r, r_other = cases.x[at] - y[at], other - seen.y
    cache = cache_of(cases.C, rows)
    there = rows.active(seen.y)
    lost = np.where(there & ~active[at], rows.slack(y[at]), 0.0).max(axis=1, initial=0.0)
    worst, gap = np.full(len(cases.x), np.nan), np.full(len(cases.x), np.nan)
    for local, k in cache.groups(there)[0]:
        ok = local.admissible(r_other[k])
        distance = np.where(ok, local.violation(r[k]), 0.0).max(axis=1)
        worst[at[k]] = np.maximum(distance / (1.0 + np.linalg.norm(r[k], axis=1)), lost[k])
    out.add("𝒦(x′) in 𝒦(x)", worst, 1e-8)
    V = seen.elements()
    for local, k in cache.groups(active[at])[0]:
        present = local.present(local.admissible(r[k]))
        gap[at[k]] = _distance(V[k], local, present)
    out.add("the layer's V at x′ in HS(x)", gap, 1e-8)
    return out


def _critical(local: LocalRows, r: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Project directions onto critical cones: the nearest feasible V_K d with V_K r = 0.

    Such a V_K d is orthogonal to r; and the projection u is V_K d for K the rows of I active at u,
    because the rows with a positive multiplier at x are among them and their span holds r.
    """
    out = np.empty_like(d)
    size = 1.0 + np.linalg.norm(r, axis=1)
    for at in blocks(len(d), len(local.elements) * max(local.rows.n, len(local.index))):
        u = local.products(d[at])
        orthogonal = np.linalg.norm(local.products(r[at]), axis=2)
        fall = np.max(u @ local.rows.G[local.index].T, axis=2, initial=0.0)
        allowed = (orthogonal <= 1e-9 * size[at, None]) & (fall <= 1e-9)
        gap = np.where(allowed, np.linalg.norm(u - d[at, None], axis=2), np.inf)
        out[at] = u[np.arange(len(u)), np.argmin(gap, axis=1)]
    return out


def directional(cases: Cases, rng: np.random.Generator) -> Outcome:
    """T11: Π′(x; d) is the projection of d onto the critical cone."""
    out, rows = Outcome(), cases.rows
    seen = observe(cases.C, cases.x)
    y = seen.y
    d, step, good, active = _near(cases, y, rng)
    at = np.flatnonzero(good)
    out.excluded = len(good) - len(at)
    if not len(at):
        return out
    ahead = images(cases.C, cases.x[at] + step[at][:, None] * d[at])
    found = (ahead - y[at]) / step[at][:, None]
    want = np.zeros_like(found)
    r = cases.x[at] - y[at]
    for local, k in cache_of(cases.C, rows).groups(active[at])[0]:
        want[k] = _critical(local, r[k], d[at[k]])
    # the certified projection onto the cone agrees
    some = np.full(len(y), np.nan)
    for j in range(min(3, len(at))):
        i = at[j]
        some[i] = np.abs(critical_projection(rows, active[i], r[j], d[i]) - want[j]).max()
    out.add("two ways to the critical cone", some, 1e-8)
    error = np.full(len(y), np.nan)
    # round-off of the difference quotient is that of Π over the step
    allowed = 1e-8 + 1e-14 * rows.scale(cases.x[at]) / step[at]
    error[at] = largest(found - want) * 1e-8 / allowed
    out.add("critical cone", error, 1e-8)
    kink = largest(seen.product(d)[at] - want) > 1e-6
    out.notes["kinks at which V₀ d is not Π′(x; d)"] = int(kink.sum())
    return out
