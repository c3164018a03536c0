"""The work classes: sets that people put into networks, at sizes from toy to large.

Each :class:`Case` names a family and its sizes; :meth:`Case.build` draws one :class:`Problem`, a
batch of points, cotangents and the rows of the set as plain arrays, so that every peer is handed
the same numbers. Seeds are an argument of the run: nothing in the library was tuned on them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import scipy.sparse as sp

DENSE_LIMIT = 2.0e7
"""Entries above which a matrix of rows is not handed to anyone as a dense array."""


@dataclass(frozen=True)
class Problem:
    """One batch of projections, the same for every competitor.

    Attributes
    ----------
    x, v : ndarray, shape (B, N)
        Points to project and cotangents, flat.
    A_ub, A_eq : ndarray or csr_matrix or None
        Rows; dense where the workload is dense.
    b_ub, b_eq, lower, upper : ndarray or None
        Right-hand sides and bounds (length N, infinities allowed).
    """

    name: str
    family: str
    sizes: dict[str, Any]
    shape: tuple[int, ...]
    x: np.ndarray
    v: np.ndarray
    A_ub: Any = None
    b_ub: np.ndarray | None = None
    A_eq: Any = None
    b_eq: np.ndarray | None = None
    lower: np.ndarray | None = None
    upper: np.ndarray | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def batch(self) -> int:
        """Number of samples."""
        return self.x.shape[0]

    @property
    def n(self) -> int:
        """Number of entries of one point."""
        return self.x.shape[1]

    @property
    def rows(self) -> int:
        """Number of rows of A_ub and A_eq together."""
        return sum(0 if a is None else a.shape[0] for a in (self.A_ub, self.A_eq))

    @property
    def sparse(self) -> bool:
        """Whether rows are stored sparse."""
        return sp.issparse(self.A_ub) or sp.issparse(self.A_eq)

    def take(self, count: int) -> Problem:
        """Return the same problem with the first `count` samples."""
        return self if count >= self.batch else replace(self, x=self.x[:count], v=self.v[:count])

    def dense(self, name: str) -> np.ndarray | None:
        """Return A_ub or A_eq as a dense array, None if absent."""
        matrix = getattr(self, name)
        if matrix is None:
            return None
        if matrix.shape[0] * matrix.shape[1] > DENSE_LIMIT:
            raise MemoryError(f"{name} of {self.name} would have {matrix.shape} dense entries.")
        return np.ascontiguousarray(matrix.toarray() if sp.issparse(matrix) else matrix)

    def special_set(self) -> Any:
        """Return the hsref set made for this family."""
        return FAMILIES[self.family].special(self)

    def plain_set(self) -> Any:
        """Return the same set as a general hsref.Polyhedron."""
        import hsref

        return hsref.Polyhedron(
            A_ub=self.dense("A_ub"), b_ub=self.b_ub, A_eq=self.dense("A_eq"), b_eq=self.b_eq,
            lower=self.lower, upper=self.upper, n=self.n,
        )  # fmt: skip

    def floor(self, working: float) -> dict[str, dict[str, float]]:
        """Return bytes and flops a batch cannot do without, given the mean working rows.

        Bytes: every point read once, every answer written once. Flops: one look at every row, one
        factorisation of the working rows, one correction of the point.
        """
        flops = FAMILIES[self.family].flops(self, working)
        n, count = self.n, self.batch
        return {
            "forward": {"bytes": 16.0 * n * count, "flops": flops[0] * count},
            "backward": {"bytes": 17.0 * n * count, "flops": flops[1] * count},
        }


@dataclass(frozen=True)
class Family:
    """How to draw a problem, which set it is, and what it costs at least."""

    draw: Callable[..., dict[str, Any]]
    special: Callable[[Problem], Any]
    flops: Callable[[Problem, float], tuple[float, float]]


# -- drawing ----------------------------------------------------------------------------------


def _general(rng: np.random.Generator, n: int, m: int, p: int, box: bool = False) -> dict[str, Any]:
    z = rng.standard_normal(n)
    A_ub, A_eq = rng.standard_normal((m, n)), rng.standard_normal((p, n))
    return {
        "shape": (n,),
        "draw_x": lambda b: z + 2.0 * rng.standard_normal((b, n)),
        "A_ub": A_ub,
        "b_ub": A_ub @ z + 0.5 * np.sqrt(n) * rng.random(m),
        "A_eq": A_eq if p else None,
        "b_eq": A_eq @ z if p else None,
        "lower": z - 0.2 - rng.random(n) if box else None,
        "upper": z + 0.2 + rng.random(n) if box else None,
    }


def _simplex(rng: np.random.Generator, n: int) -> dict[str, Any]:
    return {
        "shape": (n,),
        "draw_x": lambda b: rng.standard_normal((b, n)),
        "A_eq": np.ones((1, n)),
        "b_eq": np.ones(1),
        "lower": np.zeros(n),
    }


def _marginal_rows(m: int, n: int) -> sp.csr_matrix:
    """Rows that sum the rows and then the columns of an m x n matrix in C order."""
    rows = sp.kron(sp.eye(m), np.ones((1, n)))
    columns = sp.kron(np.ones((1, m)), sp.eye(n))
    return sp.csr_matrix(sp.vstack([rows, columns]))


def _birkhoff(rng: np.random.Generator, n: int) -> dict[str, Any]:
    return {
        "shape": (n, n),
        "draw_x": lambda b: rng.standard_normal((b, n * n)),
        "A_eq": _marginal_rows(n, n),
        "b_eq": np.ones(2 * n),
        "lower": np.zeros(n * n),
    }


def _portfolio(rng: np.random.Generator, n: int, sectors: int, cap: float) -> dict[str, Any]:
    groups = rng.permutation(np.arange(n) % sectors)
    most = np.minimum(np.bincount(groups) * cap, 1.0) * 0.95
    # Sector caps that bind, with room for a full portfolio inside all of them.
    upper = rng.uniform(0.6, 1.6, sectors)
    upper = np.minimum(upper * 1.3 / upper.sum(), most)
    return {
        "shape": (n,),
        "draw_x": lambda b: 0.1 * rng.standard_normal((b, n)),
        "A_ub": sp.csr_matrix((np.ones(n), (groups, np.arange(n))), shape=(sectors, n)),
        "b_ub": upper,
        "A_eq": sp.csr_matrix(np.ones((1, n))),
        "b_eq": np.ones(1),
        "lower": np.zeros(n),
        "upper": np.full(n, cap),
        "extra": {"groups": groups, "group_upper": upper},
    }


def _matching(rng: np.random.Generator, n: int, total: float) -> dict[str, Any]:
    return {
        "shape": (n, n),
        "draw_x": lambda b: rng.standard_normal((b, n * n)),
        "A_ub": _marginal_rows(n, n),
        "b_ub": np.ones(2 * n),
        "A_eq": sp.csr_matrix(np.ones((1, n * n))),
        "b_eq": np.array([float(total)]),
        "lower": np.zeros(n * n),
    }


# -- what a set of the library says, and the least work ------------------------------------------


def _special(name: str, make: Callable[[Any, Problem], Any]) -> Callable[[Problem], Any]:
    def build(problem: Problem) -> Any:
        import hsref

        return make(getattr(hsref, name), problem)

    return build


def _dense_flops(problem: Problem, k: float) -> tuple[float, float]:
    n, rows = problem.n, problem.rows
    return 2.0 * rows * n + k**3 / 3 + 2 * k * k + 2 * k * n, 4.0 * k * n + 2 * k * k


def _linear_flops(problem: Problem, k: float) -> tuple[float, float]:
    return 4.0 * problem.n, 3.0 * problem.n


def _marginal_flops(problem: Problem, k: float) -> tuple[float, float]:
    side = min(problem.shape)
    return 4.0 * problem.n + side**3 / 3, 4.0 * problem.n + 2.0 * side**2


FAMILIES = {
    "general": Family(_general, lambda problem: problem.plain_set(), _dense_flops),
    "simplex": Family(_simplex, _special("Simplex", lambda s, q: s(q.n)), _linear_flops),
    "birkhoff": Family(
        _birkhoff, _special("Birkhoff", lambda s, q: s(q.sizes["n"])), _marginal_flops
    ),
    "portfolio": Family(
        _portfolio,
        _special(
            "GroupBudget",
            lambda s, q: s(
                q.n, q.extra["groups"], np.zeros(q.sizes["sectors"]), q.extra["group_upper"],
                total=1.0, cap=q.sizes["cap"],
            ),
        ),
        _linear_flops,
    ),
    "matching": Family(
        _matching,
        _special("PartialMatching", lambda s, q: s(*q.shape, q.sizes["total"])),
        _marginal_flops,
    ),
}  # fmt: skip


# -- the cases ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """A figure to reach: `ours` must be at least `ratio` times as fast as `peer`."""

    part: str
    peer: str
    ratio: float
    ours: str = "hsref"


@dataclass(frozen=True)
class Case:
    """A family at given sizes, the peers that run it, and the figures to reach.

    `variants` are other sizes of the same family: name -> (sizes, batch). `smoke` is the size at
    which the test suite runs the case.
    """

    name: str
    title: str
    family: str
    sizes: dict[str, Any]
    batch: int
    peers: tuple[str, ...]
    smoke: tuple[dict[str, Any], int]
    targets: tuple[Target, ...] = ()
    variants: dict[str, tuple[dict[str, Any], int]] = field(default_factory=dict)
    curve: tuple[str, ...] = ()
    main: bool = True

    def build(self, seed: int, batch: int | None = None) -> Problem:
        """Draw the problem; `batch` replaces the number of samples."""
        return _build(self.name, self.family, self.sizes, batch or self.batch, seed)

    def build_smoke(self, seed: int) -> Problem:
        """Draw the tiny problem of the test suite."""
        return _build(self.name, self.family, *self.smoke, seed)

    def expand(self) -> list[Case]:
        """Return the cases of the other sizes."""
        return [
            replace(
                self, name=f"{self.name}-{key}", sizes=sizes, batch=batch, targets=(), variants={},
                curve=(), title=f"{self.family}: {describe(sizes)}, batch {batch}",
                main=False,
            )
            for key, (sizes, batch) in self.variants.items()
        ]  # fmt: skip


def describe(sizes: dict[str, Any]) -> str:
    """Return sizes in words."""
    return ", ".join(f"{k}={v}" for k, v in sizes.items())


def _build(name: str, family: str, sizes: dict[str, Any], batch: int, seed: int) -> Problem:
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    fields = FAMILIES[family].draw(rng, **sizes)
    x = fields.pop("draw_x")(batch)
    return Problem(
        name=name, family=family, sizes=dict(sizes), x=x, v=rng.standard_normal(x.shape), **fields
    )


_DENSE_PEERS = ("daqp", "proxqp", "piqp", "osqp", "clarabel", "qpth", "cvxpylayers",
                "cvxpylayers_dense", "jaxopt_osqp", "pinet")  # fmt: skip
_SINKHORN = ("sinkhorn20_f32", "sinkhorn20_f64")

CASES = {
    case.name: case
    for case in (
        Case(
            "W1", "general polyhedron: n=20, 30 inequalities, 5 equalities, batch 1000", "general",
            {"n": 20, "m": 30, "p": 5}, 1000, _DENSE_PEERS, ({"n": 6, "m": 8, "p": 2}, 5),
            (Target("forward", "daqp", 4.0), Target("backward", "proxqp", 50.0)),
            {"n10": ({"n": 10, "m": 15, "p": 2}, 1000), "n50": ({"n": 50, "m": 60, "p": 10}, 500)},
            ("hsref", "daqp", "proxqp"),
        ),
        Case(
            "W2", "general polyhedron: n=100, 100 inequalities, 20 equalities, batch 256",
            "general", {"n": 100, "m": 100, "p": 20}, 256,
            ("daqp", "proxqp", "piqp", "qpth", "pinet"), ({"n": 10, "m": 12, "p": 2}, 4),
            (Target("forward", "daqp", 10.0),),
            {"n200": ({"n": 200, "m": 200, "p": 20}, 64)},
        ),
        Case(
            "W3", "general polyhedron: n=500, 500 inequalities, 50 equalities, batch 32",
            "general", {"n": 500, "m": 500, "p": 50}, 32, ("daqp", "proxqp", "piqp"),
            ({"n": 14, "m": 14, "p": 3}, 3),
            (Target("forward", "proxqp", 35.0), Target("backward", "proxqp", 100.0)),
        ),
        Case(
            "W4", "simplex: n=1000, batch 1000", "simplex", {"n": 1000}, 1000,
            ("copy", "numpy_sort", "entmax", "torch_sort", "jaxopt_simplex"), ({"n": 12}, 6),
            (Target("forward", "numpy_sort", 8.0), Target("forward", "copy", 0.25),
             Target("backward", "copy", 0.5)),
            {"n100": ({"n": 100}, 10000), "n10000": ({"n": 10000}, 100)},
            ("hsref", "numpy_sort", "torch_sort", "entmax"),
        ),
        Case(
            "W5", "Birkhoff 4x4, batch 100000", "birkhoff", {"n": 4}, 100_000,
            ("copy", "daqp", "jaxopt_birkhoff", "proxqp", *_SINKHORN, "linsat"), ({"n": 3}, 6),
            (Target("forward", "daqp", 12.0), Target("forward", "sinkhorn20_f32", 3.0),
             Target("backward", "jaxopt_birkhoff", 30.0)),
            {"n8": ({"n": 8}, 10000)},
            ("hsref", "daqp", "sinkhorn20_f32"),
        ),
        Case(
            "W6", "Birkhoff 30x30, batch 100", "birkhoff", {"n": 30}, 100,
            ("jaxopt_birkhoff", "pot", *_SINKHORN, "clarabel"), ({"n": 4}, 4),
            (Target("forward", "jaxopt_birkhoff", 30.0),
             Target("backward", "jaxopt_birkhoff", 40.0)),
        ),
        Case(
            "W7", "Birkhoff 200x200, one", "birkhoff", {"n": 200}, 1,
            ("jaxopt_birkhoff", "pot", *_SINKHORN, "clarabel", "osqp"), ({"n": 9}, 1),
            (Target("forward", "jaxopt_birkhoff", 5.0), Target("forward", "pot", 1.0),
             Target("backward", "jaxopt_birkhoff", 10.0)),
            {"n500": ({"n": 500}, 1)},
        ),
        Case(
            "W8", "portfolio: n=500, sum 1, caps 0.05, 11 sector caps, batch 256", "portfolio",
            {"n": 500, "sectors": 11, "cap": 0.05}, 256,
            ("clarabel", "cvxpylayers", "daqp", "pinet"),
            ({"n": 24, "sectors": 3, "cap": 0.2}, 4),
            (Target("forward", "clarabel", 200.0),
             Target("forward", "clarabel", 50.0, "hsref_plain"),
             Target("backward", "cvxpylayers", 1000.0)),
            {"n5000": ({"n": 5000, "sectors": 11, "cap": 0.005}, 32)},
            ("hsref", "hsref_plain", "clarabel"),
        ),
        Case(
            "W9", "partial matching 20x20, total 15, batch 64", "matching",
            {"n": 20, "total": 15}, 64, ("clarabel", "cvxpylayers", "daqp", "pinet", "linsat"),
            ({"n": 4, "total": 2}, 4),
            (Target("forward", "clarabel", 25.0), Target("backward", "cvxpylayers", 50.0)),
            {"n50": ({"n": 50, "total": 40}, 8)},
        ),
        Case(
            "G200", "general polyhedron, dense, with box: n=200, 200 rows, 20 equalities, batch 32",
            "general", {"n": 200, "m": 200, "p": 20, "box": True}, 32,
            ("daqp", "proxqp", "piqp", "clarabel"),
            ({"n": 8, "m": 8, "p": 2, "box": True}, 4), (Target("forward", "daqp", 1.5),),
        ),
        Case(
            "B1000", "Birkhoff 1000x1000, one", "birkhoff", {"n": 1000}, 1,
            ("jaxopt_birkhoff", "sinkhorn20_f32"), ({"n": 10}, 1),
        ),
    )
}  # fmt: skip


def select(names: list[str] | None, sizes: bool = False) -> list[Case]:
    """Return cases by name; `sizes` adds the other sizes of each family.

    Raises
    ------
    KeyError
        A name that is not a case, with the names that are.
    """
    every = {c.name: c for case in CASES.values() for c in (case, *case.expand())}
    if names is None:
        return [c for c in every.values() if c.main or sizes]
    unknown = [name for name in names if name not in every]
    if unknown:
        raise KeyError(f"no workload {unknown[0]!r}; there are {', '.join(every)}")
    return [every[name] for name in names]
