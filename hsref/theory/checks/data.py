"""T13: derivatives in the data of a set: right-hand sides, bounds, totals, radii, matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..bsub import independent
from ..exactness import radius
from ..planted import Cases
from ._outcome import Outcome, cache_of, largest

STEP = 2e-4
"""Of the data and of x, relative to their scale: projections are affine as far as that."""
ROOM = 0.05
"""Least margin of the active set, relatively, of the points that are moved by STEP. It is a margin
of x; a step of the data moves multipliers by more, as much as the active rows are nearly dependent,
which is why it is so many times the step."""
MATRIX_POINTS = 4
"""Points of a batch whose matrices are moved: each needs a set-up of its own."""


def derivatives(cases: Cases, rng: np.random.Generator) -> Outcome:
    """T13: adjointness, one-sided differences at kinks, persistent active sets, matrices."""
    out = Outcome()
    P = len(cases.x)
    fields = {f.name: f for f in getattr(cases.C, "_fields", ()) if f.size}
    if not fields:
        out.excluded = P
        out.add("no parameters", np.full(P, np.nan), 1e-6)
        return out
    record, y = _solve(cases, cases.x, {})
    scale = cases.rows.scale(cases.x)
    margin = _room(cases, y) / scale
    near = margin <= ROOM
    for name, field in fields.items():
        _one_parameter(cases, out, rng, name, field.value, y, near, scale)
    if _is_general(cases.C):
        _persistent(cases, out, rng, y, scale)
        _independent_rows(cases, out, rng, y)
        weak = np.asarray(record.weakly_active.any()).reshape(P)
        _matrices(cases, out, rng, y, np.where(weak, 0.0, margin))
    out.notes["points too near another active set to be moved"] = int(near.sum())
    return out


def _room(cases: Cases, y: np.ndarray) -> np.ndarray:
    """Return how far x may move before an index set that is not admissible becomes so.

    Points with too many active rows for that count as having no room.
    """
    rows = cases.rows
    out = np.zeros(len(y))
    groups, _ = cache_of(cases.C, rows).groups(rows.active(y))
    for local, at in groups:
        out[at] = radius(rows, local, cases.x[at] - y[at], y[at])
    return out


def _solve(cases: Cases, x: np.ndarray, data: dict[str, Any]) -> tuple[Any, np.ndarray]:
    import hsref

    shaped = x.reshape(len(x), *cases.C.shape)
    record = hsref.projection(shaped, cases.C, n_threads=1, on_infeasible="nan", **data)
    return record, np.asarray(record.y, dtype=np.float64).reshape(x.shape)


def _lattice(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw directions whose combinations vanish exactly or not nearly."""
    return rng.choice(np.array([-1.0, -0.5, 0.0, 0.5, 1.0]), size=shape)


def _one_parameter(
    cases: Cases, out: Outcome, rng: np.random.Generator, name: str, value: np.ndarray,
    y: np.ndarray, near: np.ndarray, scale: np.ndarray,
) -> None:  # fmt: skip
    """Adjointness of both modes, and the exact change of y for a step of one parameter and x.

    The element used for the step is that of its end: near a point the index sets of its neighbours
    are admissible at the point itself, so that the step stays in one affine piece, kink or not.
    """
    import hsref

    C, x = cases.C, cases.x
    P = len(x)
    shape = (P, *C.shape)
    h = STEP * scale
    ahead = h.reshape(P, *[1] * value.ndim)
    dtheta, dx = _lattice(rng, (P, *value.shape)) * _unit(C, name), _lattice(rng, x.shape)
    g = rng.normal(size=x.shape)
    _, pull = hsref.vjp(x.reshape(shape), C, wrt=(name,), n_threads=1)
    _, dy = hsref.jvp(x.reshape(shape), None, C, tangents={name: dtheta}, n_threads=1)
    # a parameter shared by the batch gets the sum over it
    pulled = float(np.sum(pull(g.reshape(shape))[name] * dtheta[0]))
    _, shared = hsref.jvp(x.reshape(shape), None, C, tangents={name: dtheta[0]}, n_threads=1)
    gap = abs(float(np.sum(g.reshape(shape) * shared)) - pulled)
    out.add(f"adjoint, {name}", np.full(P, gap / (P + abs(pulled))), 1e-10)
    finite = np.isfinite(value)
    moved_value = np.where(finite, value, 0.0) + ahead * dtheta
    moved_value = np.where(finite, moved_value, value)
    ends = x + h[:, None] * dx
    try:
        after, moved = _solve(cases, ends, {name: moved_value})
    except ValueError:  # such a value is refused for the whole batch: a negative factor, say
        return
    V = np.asarray(after.jacobian() @ dx.reshape(shape)).reshape(x.shape)
    _, along = hsref.jvp(
        ends.reshape(shape), None, C, tangents={name: np.where(finite, dtheta, 0.0)}, n_threads=1,
        on_infeasible="nan", **{name: moved_value},
    )  # fmt: skip
    error = largest((moved - y) / h[:, None] - V - along.reshape(x.shape))
    lost = near | ~np.isfinite(moved).all(axis=1)
    out.add(f"one-sided, {name}", np.where(lost, np.nan, error / (1.0 + largest(V + dy.reshape(
        x.shape)))), 1e-6)  # fmt: skip


def _unit(C: Any, name: str) -> Any:
    """Return what a parameter is measured in: the norms of the rows, for their right-hand sides."""
    matrix = getattr(C, name.replace("b_", "A_"), None) if name in ("b_ub", "b_eq") else None
    if matrix is None:
        return 1.0
    size = np.linalg.norm(matrix, axis=1)
    return np.where(size > 0.0, size, 1.0)


def _is_general(C: Any) -> bool:
    return C.to_polyhedron() is C


def _persistent(
    cases: Cases, out: Outcome, rng: np.random.Generator, y: np.ndarray, scale: np.ndarray
) -> None:
    """Move z with its active rows, dependent or not, and x with it: y must follow z.

    With M dz = dc on all active rows the claim V dx + M⁺dc = dz holds for every admissible basis,
    and the projection itself, solved again, is z + dz.
    """
    import hsref

    C, rows, x = cases.C, cases.rows, cases.x
    P, n = x.shape
    active = rows.active(y)
    dz = _lattice(rng, x.shape)
    tangents = {}
    lower, upper = np.zeros((P, n), bool), np.zeros((P, n), bool)
    ub = np.zeros((P, 0 if C.A_ub is None else len(C.A_ub)), bool)
    for i, (kind, j) in enumerate(rows.ids):
        {"ub": ub, "lower": lower, "upper": upper}[kind][:, j] = active[:, i]
    if C.A_ub is not None:
        tangents["b_ub"] = np.where(ub, dz @ C.A_ub.T, 0.0)
    if C.A_eq is not None:
        tangents["b_eq"] = dz @ C.A_eq.T
    if C.lower is not None or C.upper is not None:
        tangents["lower"] = np.where(lower, dz, 0.0)
        tangents["upper"] = np.where(upper, dz, 0.0)
    if not tangents:
        return
    _, dy = hsref.jvp(x, dz, C, tangents=tangents, n_threads=1)
    out.add("M⁺dc on persistent rows", largest(dy - dz), 1e-9)
    data, h = {}, 1e-3
    for field in C._fields:
        data[field.name] = field.value + h * tangents[field.name]
    _, moved = _solve(cases, x + h * dz, data)
    # dependent equalities may contradict each other by rounding, which is refused
    lost = ~np.isfinite(moved).all(axis=1)
    slack = np.where(active, np.inf, rows.slack(y))
    lost |= np.min(slack, axis=1, initial=np.inf) <= 2.0 * h * (1.0 + largest(dz) * n)
    error = largest(moved - y - h * dz) / scale
    out.add("y on persistent rows", np.where(lost, np.nan, error), 1e-9)


def _independent_rows(cases: Cases, out: Outcome, rng: np.random.Generator, y: np.ndarray) -> None:
    """Check that the cotangents live on independent active rows and carry (I - V) g."""
    import hsref

    C, x = cases.C, cases.x
    P, n = x.shape
    names = tuple(f.name for f in C._fields)
    if not names:
        return
    shared = [np.tile(f.value, (P, 1)) for f in C._fields]
    data = dict(zip(names, shared))
    cotangents = rng.normal(size=(2 * n, P, n))
    _, pull = hsref.vjp(x, C, wrt=("x", *names), n_threads=1, **data)
    found = pull(cotangents)
    zero = np.zeros((2 * n, P, n))
    carried = found.get("lower", zero) + found.get("upper", zero)
    blocks = [np.broadcast_to(np.eye(n), (P, n, n))]
    used = [np.abs(carried).max(axis=0, initial=0.0) > 1e-9]
    for name, matrix in (("b_ub", C.A_ub), ("b_eq", C.A_eq)):
        if matrix is not None:
            carried = carried + found[name] @ matrix
            blocks.append(np.broadcast_to(matrix, (P, *matrix.shape)))
            size = np.linalg.norm(matrix, axis=1)
            used.append(np.abs(found[name]).max(axis=0, initial=0.0) * size > 1e-9)
    error = np.abs(carried - (cotangents - found["x"])).max(axis=(0, 2), initial=0.0)
    out.add("Mᵀ(M⁺)ᵀg = (I - V)g", error / (1.0 + np.abs(cotangents).max()), 1e-9)
    rows, chosen = np.concatenate(blocks, axis=1), np.concatenate(used, axis=1)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=2, keepdims=True), 1e-300)
    rank = np.linalg.matrix_rank(np.where(chosen[..., None], rows, 0.0), tol=1e-9)
    out.add("rows of K independent", (chosen.sum(axis=1) - rank).astype(np.float64), 0.5)


def _matrices(
    cases: Cases, out: Outcome, rng: np.random.Generator, y: np.ndarray, margin: np.ndarray
) -> None:
    """Central differences in all matrices, where active rows are independent; else a refusal."""
    import hsref

    C, rows = cases.C, cases.rows
    matrices = {k: getattr(C, k) for k in ("A_ub", "A_eq") if getattr(C, k) is not None}
    # a zero row is dependent, and the rows of the theory rooms leave it out
    if not matrices or any((~M.any(axis=1)).any() for M in matrices.values()):
        return
    active = rows.active(y)
    if C.lower is not None and C.upper is not None:
        # two equal bounds fix a variable: one equality, which depends on no row of a matrix
        fixed = np.flatnonzero(C.lower == C.upper)
        active[:, [kind == "upper" and j in fixed for kind, j in rows.ids]] = False
    free = np.array([independent(rows, mask) for mask in active], dtype=bool)
    at = np.flatnonzero(free & (margin > ROOM))[:MATRIX_POINTS]
    if at.size:
        x = cases.x[at]
        d = {
            k: rng.normal(size=(len(at), *M.shape)) * np.linalg.norm(M, axis=1, keepdims=True)
            for k, M in matrices.items()
        }
        _, dy = hsref.jvp(x, None, C, tangents=d, n_threads=1)
        h, ends = 1e-5, []
        for sign in (h, -h):
            ends.append(
                hsref.project(
                    x, C, n_threads=1, **{k: M + sign * d[k] for k, M in matrices.items()}
                )
            )
        error = largest((ends[0] - ends[1]) / (2.0 * h) - dy) / (1.0 + largest(dy))
        value = np.full(len(y), np.nan)
        value[at] = error
        out.add("matrices", value, 1e-6)
    stuck = np.flatnonzero(~free)[:1]
    if stuck.size:
        refused = 1.0
        _, pull = hsref.vjp(cases.x[stuck], C, wrt=tuple(matrices), n_threads=1)
        try:
            pull(np.ones((1, rows.n)))
        except hsref.DegenerateDataGradientError:
            refused = 0.0
        out.add("dependent rows refused", np.array([refused]), 0.5)
