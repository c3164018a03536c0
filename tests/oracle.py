"""Slow, obvious answers. NumPy and fractions only; nothing here comes from hsref.

Planted projections
    Random floats almost never reach a kink, so the answer comes first: choose integer rows, an
    integer point y, which rows are tight at y, and integer multipliers (zeros on purpose); then
    x = y + Aᵀλ + Bᵀμ projects to y exactly. Adding constraints that y satisfies, with multiplier
    zero, changes neither; that is how duplicates, implied rows and crowded vertices are made. All
    numbers are small integers or dyadic fractions, so activity and rank are decided exactly.

Brute force
    For at most a dozen constraints: the nearest feasible point among the projections onto all
    faces' affine hulls.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from itertools import chain, combinations

import numpy as np

Key = tuple[str, int]
"""A constraint: ("ub" | "lower" | "upper", index)."""

# -- exact linear algebra -------------------------------------------------------------------------


def exact(rows: Iterable[Iterable[float]]) -> list[list[Fraction]]:
    """Return rows of fractions equal to the given floats."""
    return [[Fraction(float(v)) for v in row] for row in rows]


def orthogonal_basis(rows: Iterable[Sequence[Fraction]]) -> list[list[Fraction]]:
    """Return an orthogonal (not normalised) basis of the row space, exactly."""
    basis: list[list[Fraction]] = []
    for row in rows:
        rest = list(row)
        for q in basis:
            factor = sum(a * b for a, b in zip(rest, q)) / sum(b * b for b in q)
            rest = [a - factor * b for a, b in zip(rest, q)]
        if any(rest):
            basis.append(rest)
    return basis


def exact_rank(rows: Iterable[Sequence[Fraction]]) -> int:
    return len(orthogonal_basis(rows))


def projector(rows: np.ndarray, n: int) -> np.ndarray:
    """Return I − M⁺M for the rows M, rounded once at the end."""
    V = [[Fraction(int(i == j)) for j in range(n)] for i in range(n)]
    for q in orthogonal_basis(exact(rows)):
        square = sum(v * v for v in q)
        for i in range(n):
            for j in range(n):
                V[i][j] -= q[i] * q[j] / square
    return np.array([[float(v) for v in row] for row in V]).reshape(n, n)


def solve_exactly(rows: list[list[Fraction]], r: list[Fraction]) -> list[Fraction] | None:
    """Return the only ν with rowsᵀν = r, for independent rows; None where there is none."""
    k, n = len(rows), len(r)
    table = [[rows[j][i] for j in range(k)] + [r[i]] for i in range(n)]
    at = 0
    for column in range(k):
        pivot = next((i for i in range(at, n) if table[i][column]), None)
        assert pivot is not None, "the rows are dependent"
        table[at], table[pivot] = table[pivot], table[at]
        head = table[at][column]
        table[at] = [v / head for v in table[at]]
        for i in range(n):
            if i != at and table[i][column]:
                factor = table[i][column]
                table[i] = [a - factor * b for a, b in zip(table[i], table[at])]
        at += 1
    if any(table[i][k] for i in range(at, n)):
        return None
    return [table[j][k] for j in range(k)]


def subsets(items: Sequence, most: int) -> Iterator[tuple]:
    return chain.from_iterable(combinations(items, k) for k in range(most + 1))


# -- planted projections --------------------------------------------------------------------------


@dataclass(frozen=True)
class Planted:
    """A polyhedron, a point, its projection, and everything known about it.

    ``ub``, ``eq``, ``at_lower``, ``at_upper`` are one choice of multipliers; it is the only one
    when ``unique`` is true.
    """

    x: np.ndarray
    y: np.ndarray
    A_ub: np.ndarray
    b_ub: np.ndarray
    A_eq: np.ndarray
    b_eq: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    ub: np.ndarray
    eq: np.ndarray
    at_lower: np.ndarray
    at_upper: np.ndarray
    story: tuple[str, ...] = field(default=())

    @property
    def n(self) -> int:
        return self.y.size

    @property
    def description(self) -> dict[str, np.ndarray]:
        """Keywords of ``hsref.Polyhedron``; parts that say nothing are left out."""
        parts: dict[str, np.ndarray] = {}
        if self.b_ub.size:
            parts |= {"A_ub": self.A_ub, "b_ub": self.b_ub}
        if self.b_eq.size:
            parts |= {"A_eq": self.A_eq, "b_eq": self.b_eq}
        if np.isfinite(self.lower).any():
            parts["lower"] = self.lower
        if np.isfinite(self.upper).any():
            parts["upper"] = self.upper
        return parts

    @cached_property
    def active_ub(self) -> np.ndarray:
        return np.isfinite(self.b_ub) & (self.A_ub @ self.y == self.b_ub)

    @cached_property
    def zero_rows(self) -> np.ndarray:
        return ~self.A_ub.any(axis=1)

    @cached_property
    def active_lower(self) -> np.ndarray:
        return self.y == self.lower

    @cached_property
    def active_upper(self) -> np.ndarray:
        return self.y == self.upper

    @cached_property
    def normals(self) -> dict[Key, np.ndarray]:
        """Outward normals of the active inequality constraints (zero rows bound nothing)."""
        unit = np.eye(self.n)
        found: dict[Key, np.ndarray] = {}
        for i in np.flatnonzero(self.active_ub & ~self.zero_rows):
            found["ub", int(i)] = self.A_ub[i]
        for j in np.flatnonzero(self.active_lower):
            found["lower", int(j)] = -unit[j]
        for j in np.flatnonzero(self.active_upper):
            found["upper", int(j)] = unit[j]
        return found

    @cached_property
    def V(self) -> np.ndarray:
        """The element of the full active set, V₀."""
        return projector([*self.normals.values(), *self.A_eq], self.n)

    @cached_property
    def rank(self) -> int:
        """Rank of V₀."""
        return self.n - exact_rank(exact([*self.normals.values(), *self.A_eq]))

    @cached_property
    def unique(self) -> bool:
        """Whether active rows and equalities are independent, so that multipliers are unique."""
        return self.n - self.rank == len(self.normals) + len(self.A_eq)

    def carries(self, K: Iterable[Key]) -> bool | None:
        """Whether independent rows K, with the equalities, carry x − y; None if they depend."""
        residual = [Fraction(float(v)) for v in self.x - self.y]
        equalities = orthogonal_basis(exact(self.A_eq))
        rows = exact([self.normals[key] for key in K])
        if exact_rank([*equalities, *rows]) < len(equalities) + len(rows):
            return None
        solution = solve_exactly([*rows, *equalities], residual)
        return solution is not None and all(v >= 0 for v in solution[: len(rows)])

    @cached_property
    def carriers(self) -> list[frozenset[Key]]:
        """All independent sets of active constraints that carry a multiplier."""
        chosen = subsets(list(self.normals), min(self.n, len(self.normals)))
        return [frozenset(K) for K in chosen if self.carries(K)]

    def is_admissible(self, K: Iterable[Key]) -> bool:
        """Whether K ⊆ I(x) and x − y lies in the cone of its rows plus the span of the equalities.

        By Carathéodory a cone's element needs only independent rows, so one carrier inside K
        decides it.
        """
        K = frozenset(K)
        if not K <= set(self.normals):
            return False
        alone = self.carries(K)
        return any(carrier <= K for carrier in self.carriers) if alone is None else alone

    @cached_property
    def hs_set(self) -> list[np.ndarray]:
        """All distinct elements of the HS-Jacobian at x."""
        elements: list[np.ndarray] = []
        for chosen in subsets(list(self.normals), len(self.normals)):
            if not self.is_admissible(chosen):
                continue
            V = projector([*(self.normals[key] for key in chosen), *self.A_eq], self.n)
            # entries are fractions of small integers: distinct ones are far apart
            if not any(np.allclose(V, other, rtol=0.0, atol=1e-9) for other in elements):
                elements.append(V)
        return elements

    # -- the same projection in other words ------------------------------------------------------

    def with_row(self, row: Sequence[float], slack: float, word: str) -> Planted:
        """Append ``row · y ≤ (row · y at the answer) + slack`` with multiplier zero."""
        row = np.asarray(row, dtype=np.float64)
        return replace(
            self,
            A_ub=np.vstack([self.A_ub, row]),
            b_ub=np.append(self.b_ub, row @ self.y + slack),
            ub=np.append(self.ub, 0.0),
            story=(*self.story, word),
        )

    def with_equality(self, row: Sequence[float], word: str) -> Planted:
        """Append the equality ``row · y = row · (the answer)`` with multiplier zero."""
        row = np.asarray(row, dtype=np.float64)
        return replace(
            self,
            A_eq=np.vstack([self.A_eq, row]),
            b_eq=np.append(self.b_eq, row @ self.y),
            eq=np.append(self.eq, 0.0),
            story=(*self.story, word),
        )

    def in_order(self, order: Sequence[int]) -> Planted:
        """Reorder the inequality rows."""
        order = np.asarray(order, dtype=int)
        return replace(
            self,
            A_ub=self.A_ub[order],
            b_ub=self.b_ub[order],
            ub=self.ub[order],
            story=(*self.story, "reordered"),
        )

    def __repr__(self) -> str:
        """Show the case as code that reproduces it."""
        parts = ", ".join(f"{k}={v.tolist()}" for k, v in self.description.items())
        parts = parts.replace("inf", "np.inf") or f"n={self.n}"
        told = f"  # {', '.join(self.story)}" if self.story else ""
        return (
            f"hsref.projection({self.x.tolist()}, hsref.Polyhedron({parts})).y == "
            f"{self.y.tolist()}{told}"
        )

    def _repr_pretty_(self, printer, cycle: bool) -> None:
        """Show the same in a report of hypothesis."""
        printer.text(repr(self))


def plant(
    y,
    rows=(),
    slacks=(),
    ub=(),
    equalities=(),
    eq=(),
    below=None,
    at_lower=None,
    above=None,
    at_upper=None,
) -> Planted:
    """Build the polyhedron and the point x of which y is the projection.

    ``slacks`` are those of the rows at y; ``below`` and ``above`` the distances from y to its
    bounds (inf for none). A multiplier is set to zero where its constraint is not tight.
    """
    y = np.asarray(y, dtype=np.float64)
    n = y.size

    def matrix(value) -> np.ndarray:
        return np.asarray(value, dtype=np.float64).reshape(-1, n)

    def vector(value, default: float) -> np.ndarray:
        return np.full(n, default) if value is None else np.asarray(value, dtype=np.float64)

    A_ub, A_eq = matrix(rows), matrix(equalities)
    slack = np.asarray(slacks, dtype=np.float64)
    below, above = vector(below, np.inf), vector(above, np.inf)
    ub = np.where(slack == 0, np.asarray(ub, dtype=np.float64), 0.0)
    eq = np.asarray(eq, dtype=np.float64)
    at_lower = np.where(below == 0, vector(at_lower, 0.0), 0.0)
    at_upper = np.where(above == 0, vector(at_upper, 0.0), 0.0)
    return Planted(
        x=y + ub @ A_ub + eq @ A_eq + at_upper - at_lower,
        y=y,
        A_ub=A_ub,
        b_ub=A_ub @ y + slack,
        A_eq=A_eq,
        b_eq=A_eq @ y,
        lower=y - below,
        upper=y + above,
        ub=ub,
        eq=eq,
        at_lower=at_lower,
        at_upper=at_upper,
    )


def random_plant(seed: int, n: int = 4, m: int = 5, p: int = 1, bounds: bool = True) -> Planted:
    """Draw a planted projection with small integers; half of the multipliers are zero."""
    rng = np.random.default_rng(seed)

    def distance() -> np.ndarray | None:
        return rng.choice([0.0, 0.0, 1.0, 2.0, np.inf], n) if bounds else None

    def weight(k: int) -> np.ndarray:
        return rng.integers(1, 4, k) * rng.integers(0, 2, k).astype(float)

    return plant(
        rng.integers(-3, 4, n),
        rng.integers(-2, 3, (m, n)),
        rng.choice([0.0, 0.0, 1.0, 3.0], m),
        weight(m),
        rng.integers(-2, 3, (p, n)),
        rng.integers(-2, 3, p),
        distance(),
        weight(n),
        distance(),
        weight(n),
    )


# Each way of being degenerate, as a change of description that leaves x, y alone. `k` selects.


def duplicated(case: Planted, k: int = 0) -> Planted:
    if not len(case.A_ub):
        return case
    i = k % len(case.A_ub)
    return case.with_row(case.A_ub[i], case.b_ub[i] - case.A_ub[i] @ case.y, "duplicated row")


def scaled(case: Planted, k: int = 0) -> Planted:
    if not len(case.A_ub):
        return case
    i = k % len(case.A_ub)
    factor = (3.0, 0.5, 2.0**20, 2.0**-20)[k % 4]
    slack = factor * (case.b_ub[i] - case.A_ub[i] @ case.y)
    return case.with_row(factor * case.A_ub[i], slack, "scaled copy")


def opposite(case: Planted, k: int = 0) -> Planted:
    """Turn a tight row into an equality written as two inequalities: no interior."""
    tight = np.flatnonzero(case.active_ub)
    if not tight.size:
        return case
    return case.with_row(-case.A_ub[tight[k % tight.size]], 0.0, "opposite rows, no interior")


def implied(case: Planted, k: int = 0) -> Planted:
    """Append a non-negative combination of rows, tight if its parts are."""
    if len(case.A_ub) < 2:
        return duplicated(case, k)
    i, j = k % len(case.A_ub), (k + 1) % len(case.A_ub)
    row = case.A_ub[i] + 2.0 * case.A_ub[j]
    slack = case.b_ub[i] + 2.0 * case.b_ub[j] - row @ case.y
    return case if not np.isfinite(slack) else case.with_row(row, slack, "implied row")


def zero_row(case: Planted, k: int = 0) -> Planted:
    return case.with_row(np.zeros(case.n), float(k % 2), f"zero row 0 <= {k % 2}")


def void_row(case: Planted, k: int = 0) -> Planted:
    return case.with_row(np.ones(case.n), np.inf, "void row")


def redundant_equality(case: Planted, k: int = 0) -> Planted:
    if not len(case.A_eq):
        return case.with_equality(np.zeros(case.n), "zero equality")
    weights = np.arange(len(case.A_eq)) - (k % 3)
    row = weights @ case.A_eq if weights.any() else 2.0 * case.A_eq[0]
    return case.with_equality(row, "redundant equality")


def crowded(case: Planted, k: int = 0) -> Planted:
    """Make more rows tight at y than there are dimensions."""
    rng = np.random.default_rng(k)
    for row in rng.integers(-2, 3, (case.n + 2, case.n)):
        case = case.with_row(row, 0.0, "crowded vertex")
    return case


def singleton(case: Planted, k: int = 0) -> Planted:
    """Leave nothing but y."""
    for j in range(case.n):
        case = case.with_equality(np.eye(case.n)[j], "singleton")
    return case


def pinned(case: Planted, k: int = 0) -> Planted:
    """Give one coordinate equal bounds."""
    lower, upper = case.lower.copy(), case.upper.copy()
    lower[k % case.n] = upper[k % case.n] = case.y[k % case.n]
    return replace(case, lower=lower, upper=upper, story=(*case.story, "lower == upper"))


def reordered(case: Planted, k: int = 0) -> Planted:
    return case.in_order(np.random.default_rng(k).permutation(len(case.A_ub)))


DEGENERACIES = {
    "duplicated": duplicated,
    "scaled": scaled,
    "opposite": opposite,
    "implied": implied,
    "zero row": zero_row,
    "void row": void_row,
    "redundant equality": redundant_equality,
    "crowded vertex": crowded,
    "singleton": singleton,
    "pinned": pinned,
    "reordered": reordered,
}


# -- brute force ----------------------------------------------------------------------------------


def all_rows(
    n: int, A_ub=None, b_ub=None, A_eq=None, b_eq=None, lower=None, upper=None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return (G, h, B, b): the set as G y ≤ h, B y = b, finite bounds among the rows."""
    rows, rhs = [], []
    if A_ub is not None:
        b_ub = np.broadcast_to(np.asarray(b_ub, float), len(A_ub))
        rows += [row for row, v in zip(np.asarray(A_ub, float), b_ub) if np.isfinite(v)]
        rhs += [v for v in b_ub if np.isfinite(v)]
    for sign, bounds in ((-1.0, lower), (1.0, upper)):
        if bounds is not None:
            bounds = np.broadcast_to(np.asarray(bounds, float), n)
            rows += [sign * np.eye(n)[j] for j in range(n) if np.isfinite(bounds[j])]
            rhs += [sign * v for v in bounds if np.isfinite(v)]
    B = np.zeros((0, n)) if A_eq is None else np.asarray(A_eq, float)
    b = np.zeros(0) if b_eq is None else np.broadcast_to(np.asarray(b_eq, float), len(B))
    return np.array(rows).reshape(-1, n), np.array(rhs), B, b


def brute_force(x, **description) -> np.ndarray | None:
    """Return the projection of one point, or None where the set is empty. At most 12 inequalities.

    The projection lies on the affine hull of some face, cut out by independent rows, and is the
    nearest point of that hull; so it is the nearest feasible one among these candidates.
    """
    x = np.asarray(x, dtype=np.float64)
    G, h, B, b = all_rows(x.size, **description)
    assert len(G) <= 12, "brute force enumerates all subsets"
    scale = 1.0 + np.abs(x).max(initial=0.0) + np.abs(h).max(initial=0.0)
    best, distance = None, np.inf
    for chosen in subsets(range(len(G)), min(len(G), x.size)):
        M = np.vstack([G[list(chosen)], B])
        c = np.concatenate([h[list(chosen)], b])
        y = x + np.linalg.pinv(M, rcond=1e-11) @ (c - M @ x) if len(M) else x
        feasible = (G @ y <= h + 1e-9 * scale).all() and (np.abs(B @ y - b) <= 1e-9 * scale).all()
        if feasible and (away := np.linalg.norm(y - x)) < distance:
            best, distance = y, away
    return best


def farkas_gap(certificate, n: int, A_ub=None, b_ub=None, A_eq=None, b_eq=None,
               lower=None, upper=None) -> tuple[float, float]:  # fmt: skip
    """Return (how far the combined row is from zero, the combined right-hand side).

    Non-negative ub, lower, upper and free eq with a zero combined row and a negative combined
    right-hand side prove that no point satisfies all constraints. Both numbers are divided by the
    size of the terms that were added.
    """
    row = np.zeros(n)
    total = weight = rowsize = 0.0
    parts = [
        (A_ub, b_ub, np.asarray(certificate.ub)),
        (A_eq, b_eq, np.asarray(certificate.eq)),
        (None if lower is None else -np.eye(n),
         None if lower is None else -np.broadcast_to(lower, n), np.asarray(certificate.lower)),
        (None if upper is None else np.eye(n),
         None if upper is None else np.broadcast_to(upper, n), np.asarray(certificate.upper)),
    ]  # fmt: skip
    for M, c, v in parts:
        if M is None:
            assert not v.any()
            continue
        c = np.asarray(c, float)
        # an infinite right-hand side bounds nothing and may not be used
        assert not v[~np.isfinite(c)].any()
        c = np.where(np.isfinite(c), c, 0.0)
        row += v @ np.asarray(M, float)
        total += v @ c
        weight += np.abs(v * c).sum()
        rowsize += np.abs(v[:, None] * np.asarray(M, float)).sum()
    for v in (certificate.ub, certificate.lower, certificate.upper):
        assert (np.asarray(v) >= 0.0).all()
    return np.abs(row).max(initial=0.0) / max(rowsize, 1e-300), total / max(weight, 1e-300)
