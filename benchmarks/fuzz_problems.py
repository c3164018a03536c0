"""Problems for the fuzzer: sets of every kind with hostile data, and points around their kinks.

Every batch has its own seed, so that one problem can be made again without the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import hsref
from hsref.theory import planted

KINDS = (
    "random", "integer", "near-degenerate", "scaled", "nearly infeasible", "infeasible",
    "subnormal", "large",
)  # fmt: skip
"""Normal numbers; small integers (ties, dependent rows); integers perturbed by 1e-16 to 1e-6; rows
and data times powers of ten from 1e-12 to 1e12; contradictions of 1e-16 to 1e-6 in either
direction; plain contradictions; numbers below the smallest normal one; many coordinates of which
few are active."""


@dataclass(eq=False)
class Batch:
    """A set, points, what replaces its data at the call, and the answers that are known.

    Attributes
    ----------
    C : set
    x : ndarray, shape (B, N)
    data : dict
        Replaced parameters, with a batch axis.
    z : ndarray, shape (B, N)
        Planted projections; NaN where there is none.
    """

    C: Any
    x: np.ndarray
    data: dict[str, Any] = field(default_factory=dict)
    z: np.ndarray | None = None


class Draw:
    """Numbers of one kind."""

    def __init__(self, rng: np.random.Generator, kind: str) -> None:
        self.rng = rng
        self.kind = kind
        self.size = 1.0
        if kind == "scaled":
            self.size = 10.0 ** rng.uniform(-12.0, 12.0)
        if kind == "subnormal":
            self.size = 10.0 ** rng.uniform(-322.0, -300.0)
        self.delta = 10.0 ** rng.uniform(-16.0, -6.0)

    def count(self, low: int, high: int, large: int | None = None) -> int:
        """Return a length."""
        if self.kind == "large" and large is not None:
            return int(self.rng.integers(large // 2, large + 1))
        return int(self.rng.integers(low, high + 1))

    def values(self, *shape: int) -> np.ndarray:
        """Return numbers of either sign and about `size`."""
        rng = self.rng
        if self.kind in ("random", "large"):
            return rng.normal(size=shape)
        whole = rng.integers(-2, 4, size=shape).astype(float)
        if self.kind == "near-degenerate":
            return whole + self.delta * rng.normal(size=shape) * (rng.random(shape) < 0.5)
        if self.kind == "scaled" and rng.random() < 0.3:
            return whole * 10.0 ** rng.uniform(-12.0, 12.0, size=shape)
        return whole * self.size

    def positive(self, *shape: int) -> np.ndarray:
        """Return numbers above 0."""
        found = np.abs(self.values(*shape))
        return np.where(found > 0.0, found, max(self.size, 5e-324))

    def off(self) -> float:
        """Return by how much, relatively, a quantity passes the limit of what is feasible."""
        if self.kind == "nearly infeasible":
            return float(self.delta * self.rng.choice([-1.0, 1.0]))
        return 0.5 if self.kind == "infeasible" else float(self.rng.choice([0.0, -0.1, -0.5]))

    def row_factors(self, count: int) -> np.ndarray:
        """Return factors of rows."""
        if self.kind == "scaled":
            return 10.0 ** self.rng.uniform(-12.0, 12.0, size=count)
        return np.ones(count)


# -- special sets ---------------------------------------------------------------------------------


def _simplex(d: Draw) -> Any:
    return hsref.Simplex(d.count(1, 12, 400), abs(float(d.values(1)[0])))


def _bounds(d: Draw, n: int) -> tuple[np.ndarray, np.ndarray]:
    low = d.values(n)
    high = low + np.abs(d.values(n)) * (d.rng.random(n) < 0.8)
    return low, high


def _box(d: Draw) -> Any:
    low, high = _bounds(d, d.count(1, 12, 400))
    return hsref.Box(
        np.where(d.rng.random(low.size) < 0.1, -np.inf, low),
        np.where(d.rng.random(low.size) < 0.1, np.inf, high),
    )


def _normal(d: Draw) -> np.ndarray:
    found = d.values(d.count(1, 12, 400))
    return found if found.any() else found + max(d.size, 5e-324)


def _hyperplane(d: Draw) -> Any:
    return hsref.Hyperplane(_normal(d), float(d.values(1)[0]))


def _halfspace(d: Draw) -> Any:
    return hsref.Halfspace(_normal(d), float(d.values(1)[0]))


def _affine(d: Draw) -> Any:
    n = d.count(2, 10, 120)
    k = int(d.rng.integers(1, min(n, 6) + 1))
    A = Draw(d.rng, "random" if d.kind in ("random", "large") else "integer").values(k, n)
    z = d.values(n)
    if d.kind == "near-degenerate":
        A[-1] = A[0] + d.delta * d.rng.normal(size=n)
    b = A @ z
    if d.kind in ("infeasible", "nearly infeasible") or d.rng.random() < 0.3:
        A, b = np.vstack([A, 2.0 * A[:1]]), np.append(b, 2.0 * b[0])
        if d.kind in ("infeasible", "nearly infeasible"):
            b[-1] += d.off() * max(abs(b[0]), 1.0)
    factor = d.row_factors(len(A))
    return hsref.AffineSubspace(A * factor[:, None], b * factor)


def _capped(d: Draw) -> Any:
    n = d.count(1, 12, 400)
    low, high = _bounds(d, n)
    return hsref.CappedSimplex(n, _total(d, np.ones(n), low, high), low, high)


def _total(d: Draw, weights: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    most = float(np.maximum(weights * low, weights * high).sum())
    least = float(np.minimum(weights * low, weights * high).sum())
    off = d.off()
    if d.rng.random() < 0.5:
        return most + off * max(most - least, abs(most) * 1e-3)
    return least - off * max(most - least, abs(least) * 1e-3)


def _knapsack(d: Draw) -> Any:
    weights = _normal(d)
    low, high = _bounds(d, weights.size)
    unit = d.values(weights.size) if d.kind != "subnormal" else weights / d.size
    total = _total(d, unit, low, high)
    return hsref.Knapsack(unit, total, low, high, equality=bool(d.rng.random() < 0.6))


def _l1ball(d: Draw) -> Any:
    return hsref.L1Ball(d.count(1, 6, 300), abs(float(d.values(1)[0])))


def _isotonic(d: Draw) -> Any:
    low, gap = float(d.values(1)[0]), abs(float(d.values(1)[0]))
    use = d.rng.random(2) < 0.5
    return hsref.IsotonicCone(
        d.count(1, 12, 300), low if use[0] else None, low + gap if use[1] else None
    )


def _permutahedron(d: Draw) -> Any:
    return hsref.Permutahedron(d.values(d.count(1, 6, 300)))


def _turnover(d: Draw) -> Any:
    n = d.count(1, 6)
    w = d.rng.integers(0, 4, n).astype(float) + 1e-3 * (d.kind == "random") * d.rng.random(n)
    if d.kind == "near-degenerate":
        w += d.delta * d.rng.random(n)
    w = w / w.sum() if w.any() else np.full(n, 1.0 / n)
    return hsref.Turnover(w, min(abs(float(d.values(1)[0])), 1e3))


def _group_budget(d: Draw) -> Any:
    n = d.count(2, 12, 300)
    groups = d.rng.integers(-1, 3, n)
    groups[0] = 2
    cap = d.positive(n)
    inside = [cap[groups == g].sum() for g in range(3)]
    upper = np.array(inside) * d.rng.choice([0.5, 0.75, 1.0], 3)
    lower = upper * d.rng.choice([0.0, 0.5, 1.0], 3)
    most = upper.sum() + cap[groups < 0].sum()
    off = d.off()
    total = most * (1.0 + off)
    total = max(total, lower.sum()) if off < -1e-3 else total
    return hsref.GroupBudget(n, groups, lower, upper, float(total), cap)


def _transport(d: Draw) -> Any:
    m, n = d.count(1, 5, 20), d.count(1, 5, 20)
    plan = np.abs(d.values(m, n)) * (d.rng.random((m, n)) < 0.6)
    r, c = plan.sum(axis=1), plan.sum(axis=0)
    if d.kind in ("infeasible", "nearly infeasible"):
        r = r * (1.0 + d.off())
    return hsref.Transport(r, c)


def _birkhoff(d: Draw) -> Any:
    return hsref.Birkhoff(d.count(1, 7, 20))


def _substochastic(d: Draw) -> Any:
    return hsref.Substochastic(d.count(1, 6, 16), d.count(1, 6, 16))


def _partial(d: Draw) -> Any:
    m, n = d.count(1, 6, 16), d.count(1, 6, 16)
    total = min(abs(float(d.values(1)[0])), float(min(m, n)))
    if d.kind in ("infeasible", "nearly infeasible"):
        total = min(m, n) * (1.0 + d.off())
    return hsref.PartialMatching(m, n, total)


def _product(d: Draw) -> Any:
    return hsref.Product(_simplex(d), _box(d), _isotonic(d))


def _scaled(d: Draw) -> Any:
    make = [_simplex, _box, _capped, _knapsack][int(d.rng.integers(4))]
    return hsref.Scaled(make(d), float(Draw(d.rng, d.kind).positive(1)[0]))


def _shifted(d: Draw) -> Any:
    make = [_simplex, _box, _capped, _isotonic][int(d.rng.integers(4))]
    C = make(d)
    return hsref.Shifted(C, d.values(C.size))


SPECIAL: dict[str, Callable[[Draw], Any]] = {
    "Simplex": _simplex, "Box": _box, "Hyperplane": _hyperplane, "Halfspace": _halfspace,
    "AffineSubspace": _affine, "CappedSimplex": _capped, "Knapsack": _knapsack,
    "L1Ball": _l1ball, "IsotonicCone": _isotonic, "Permutahedron": _permutahedron,
    "Turnover": _turnover, "GroupBudget": _group_budget, "Transport": _transport,
    "Birkhoff": _birkhoff, "Substochastic": _substochastic, "PartialMatching": _partial,
    "Product": _product, "Scaled": _scaled, "Shifted": _shifted,
}  # fmt: skip


def points(C: Any, d: Draw, count: int) -> np.ndarray:
    """Return points of a set: lattice, normal at all scales, its own vertices and next to them."""
    rng, N, size = d.rng, C.size, d.size
    x = np.empty((count, N))
    sort = np.sort(rng.integers(0, 6, count))
    lattice = rng.integers(-3, 4, (count, N)).astype(float)
    if d.kind == "near-degenerate":
        lattice += d.delta * rng.normal(size=(count, N)) * (rng.random((count, N)) < 0.5)
    x[:] = lattice * size
    x[sort == 1] = size * rng.normal(size=(int((sort == 1).sum()), N))
    spread = 10.0 ** rng.uniform(-8.0, 8.0, (int((sort == 2).sum()), 1))
    x[sort == 2] = size * spread * rng.normal(size=(len(spread), N))
    near = sort >= 3
    try:
        corners = hsref.project(
            10.0 * x[near].reshape(-1, *C.shape), C, on_infeasible="nan", n_threads=1
        ).reshape(-1, N)
    except (hsref.NotSolvedError, ValueError):
        return x
    corners = np.where(np.isfinite(corners), corners, x[near])
    moved = rng.integers(-2, 3, corners.shape) * size * (sort[near] == 4)[:, None]
    inward = d.delta * size * rng.normal(size=corners.shape) * (sort[near] == 5)[:, None]
    x[near] = corners + moved + inward
    return x


# -- general polyhedra ----------------------------------------------------------------------------


def _shape(d: Draw, method: str) -> tuple[int, int, int, bool]:
    """Return (n, inequalities, equalities, bounds) for which a set chooses the method."""
    rng = d.rng
    if method == "bounds eliminated":
        n = d.count(10, 40, 250)
        return n, int(rng.integers(1, n // 10 + 1)), int(rng.integers(0, n // 10 + 1)), True
    if method == "block active set":
        n = d.count(48, 64, 150)
        return n, int(rng.integers(48, 56)), int(rng.integers(0, 4)), False
    n = d.count(2, 10, 100)
    bounded = bool(rng.random() < 0.5)
    return n, int(rng.integers(1, 2 * min(n, 30) + 1)), int(rng.integers(0, n // 2 + 1)), bounded


def _polyhedron(d: Draw, method: str, count: int) -> Batch:
    rng, kind = d.rng, d.kind
    n, m, p, bounded = _shape(d, method)
    whole = kind not in ("random", "large")
    A = rng.integers(-2, 3, (m, n)).astype(float) if whole else rng.normal(size=(m, n))
    B = rng.integers(-1, 2, (p, n)).astype(float) if whole else rng.normal(size=(p, n))
    z = rng.integers(-2, 3, n).astype(float)
    if method == "bounds eliminated" and rng.random() < 0.5:
        A, B = A * (rng.random(A.shape) < 0.3), B * (rng.random(B.shape) < 0.3)
    if method != "block active set" and whole and m > 2:
        # rows twice, scaled, opposite, void
        A[0] = A[1] * rng.choice([1.0, 2.0, -1.0, 0.0])
        if p > 1:
            B[-1] = B[0]
    tight = rng.random(m) < (0.1 if kind == "large" else 0.6)
    room = np.where(tight, 0.0, rng.integers(1, 4, m))
    b, e = A @ z + room, B @ z
    low: Any = z - rng.integers(0, 2, n) if bounded else None
    high: Any = z + rng.integers(0, 3, n) if bounded else None
    if bounded and rng.random() < 0.5:
        low[rng.random(n) < 0.4], high[rng.random(n) < 0.4] = -np.inf, np.inf

    x, known = _around(rng, count, z, A * tight[:, None], B, low, high)
    answers = np.where(known[:, None], z, np.nan)
    if kind == "near-degenerate":
        A = A + d.delta * rng.normal(size=A.shape) * (rng.random(A.shape) < 0.3)
        b = b + d.delta * rng.normal(size=m) * (rng.random(m) < 0.3)
        x = x + d.delta * rng.normal(size=x.shape) * (rng.random((count, 1)) < 0.5)
    if kind in ("infeasible", "nearly infeasible"):
        A, b = np.vstack([A, -A[-1:]]), np.append(b, -b[-1])
    if kind == "subnormal":
        tiny = rng.random(A.shape) < 0.1
        A[tiny] = rng.integers(1, 100, int(tiny.sum())) * 5e-324
        b, e, x = b * d.size, e * d.size, x * d.size
        low, high = (None, None) if low is None else (low * d.size, high * d.size)
    if kind == "scaled":
        factor, other = d.row_factors(len(A)), d.row_factors(p)
        s = d.size if rng.random() < 0.5 else 1.0
        A, b = A * factor[:, None], b * factor * s
        B, e, x = B * other[:, None], e * other * s, x * s
        low, high = (None, None) if low is None else (low * s, high * s)
    sides = {"A_eq": B, "b_eq": e} if p else {}
    C = hsref.Polyhedron(A, b, lower=low, upper=high, **sides)
    data = {}
    if kind in ("infeasible", "nearly infeasible"):
        gap = np.ones(count) if kind == "infeasible" else 10.0 ** rng.uniform(-16.0, -6.0, count)
        gap *= rng.choice([-1.0, 1.0], count, p=[0.8, 0.2])
        data["b_ub"] = np.tile(b, (count, 1))
        data["b_ub"][:, -1] += gap
    elif kind in ("near-degenerate", "random") and rng.random() < 0.3:
        data["b_ub"] = b + d.delta * np.abs(rng.normal(size=(count, len(b))))
    if kind != "integer":
        answers = np.full(x.shape, np.nan)
    return Batch(C, x, data, answers)


def _around(
    rng: np.random.Generator, count: int, z: np.ndarray, A: np.ndarray, B: np.ndarray,
    low: np.ndarray | None, high: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return points, and which of them project onto z by construction; A holds the tight rows."""
    n = len(z)
    sort = rng.integers(0, 5, count)
    weight = rng.integers(0, 4, (count, len(A))) * (rng.random((count, len(A))) < 0.5)
    push = weight @ A + rng.integers(-2, 3, (count, len(B))) @ B
    if low is not None and high is not None:
        push += rng.integers(0, 3, (count, n)) * (high == z)
        push -= rng.integers(0, 3, (count, n)) * (low == z)
    x = z + push
    other = sort >= 2
    spread = 10.0 ** rng.uniform(-3.0, 3.0, (count, 1)) * (sort == 3)[:, None]
    x[other] = (z + rng.integers(-3, 4, (count, n)) + spread * rng.normal(size=(count, n)))[other]
    huge = sort == 4
    x[huge] = 1e6 * rng.integers(-1, 2, (int(huge.sum()), n))
    return x, ~other


def _planted(d: Draw, count: int) -> Batch:
    kind = list(planted.POLYHEDRA)[int(d.rng.integers(len(planted.POLYHEDRA)))]
    cases = planted.degenerate_cases(kind, count, d.rng)
    if d.kind == "near-degenerate":
        x = cases.x + d.delta * d.rng.normal(size=cases.x.shape)
        return Batch(cases.C, x, {}, np.full(x.shape, np.nan))
    return Batch(cases.C, cases.x, {}, cases.z)


METHODS = ("bounds eliminated", "block active set", "dual active set")
FORMS = (*SPECIAL, *(f"Polyhedron: {m}" for m in METHODS), "Polyhedron: planted")
_CONTRADICTORY = (
    "AffineSubspace", "CappedSimplex", "Knapsack", "GroupBudget", "Transport", "PartialMatching",
    "Product", "Scaled", "Shifted",
)  # fmt: skip


def kinds_of(form: str) -> tuple[str, ...]:
    """Return the kinds of data that mean something for a set."""
    if form == "Polyhedron: planted":
        return "integer", "near-degenerate"
    if form in SPECIAL and form not in _CONTRADICTORY:
        return tuple(k for k in KINDS if "infeasible" not in k)
    return KINDS


def build(form: str, kind: str, count: int, rng: np.random.Generator) -> Batch:
    """Return one batch; raises what the set's constructor raises."""
    d = Draw(rng, kind)
    if form == "Polyhedron: planted":
        return _planted(d, count)
    if form in SPECIAL:
        C = SPECIAL[form](d)
        return Batch(C, points(C, d, count))
    return _polyhedron(d, form.split(": ")[1], count)
