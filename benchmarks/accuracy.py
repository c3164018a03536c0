"""What a row may claim: feasibility, distance to a certified answer, error of the gradient.

Everything here is NumPy from the rows of the set, independent of hsref's own certificate. The
reference is a point together with multipliers whose KKT residuals are recomputed below; hsref's
record supplies them where hsref is installed, DAQP at tight tolerance elsewhere, and where both
are there they must agree.

Gradients are compared only on *strictly complementary* samples (every inactive slack and every
active multiplier well above round-off): there the projection is differentiable and every correct
method has one and the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.sparse as sp

from .workloads import Problem

STRICT = 1e-6
"""Slack and multiplier, relative to the data, from which a constraint counts as clear-cut."""
GRADIENT_SAMPLES = 32
"""Samples on which gradients are checked (each needs a small pseudo-inverse)."""
GRADIENT_ROWS = 1200
"""Most coupling rows for which the pseudo-inverse is formed."""


@dataclass(frozen=True)
class Reference:
    """A certified answer.

    Attributes
    ----------
    y : ndarray, shape (B, N)
    source : str
        Who supplied it.
    residuals : dict
        Largest primal, dual and complementarity residual over the batch, relative to the data,
        recomputed from the rows.
    strict : ndarray of bool, shape (B,)
        Strictly complementary samples.
    working : float
        Mean number of active coupling rows, equalities included.
    samples : ndarray of int
        Samples on which gradients are checked.
    gradient : ndarray, shape (len(samples), N)
        Projections of the cotangents onto the face's directions.
    agreement : dict
        Largest distance to other exact solvers, where they are installed.
    """

    y: np.ndarray
    source: str
    residuals: dict[str, float]
    strict: np.ndarray
    working: float
    samples: np.ndarray
    gradient: np.ndarray
    agreement: dict[str, float]


def apply(matrix: Any, points: np.ndarray) -> np.ndarray:
    """Return A y for a batch of points, one row a sample."""
    return np.asarray((matrix @ points.T).T)


def row_norms(matrix: Any) -> np.ndarray:
    """Return the Euclidean norms of the rows of a dense or sparse matrix."""
    if sp.issparse(matrix):
        return np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return np.linalg.norm(matrix, axis=1)


def infeasibility(problem: Problem, y: np.ndarray) -> np.ndarray:
    """Return each sample's largest violation over (|right-hand side| + row norm * max |y|)."""
    y = y.astype(np.float64)
    size = np.abs(y).max(axis=1, keepdims=True)
    worst = np.where(np.isfinite(y).all(axis=1), 0.0, np.inf)
    parts = []
    if problem.A_ub is not None:
        parts.append((apply(problem.A_ub, y) - problem.b_ub, problem.b_ub, row_norms(problem.A_ub)))
    if problem.A_eq is not None:
        excess = np.abs(apply(problem.A_eq, y) - problem.b_eq)
        parts.append((excess, problem.b_eq, row_norms(problem.A_eq)))
    if problem.lower is not None:
        parts.append((problem.lower - y, problem.lower, 1.0))
    if problem.upper is not None:
        parts.append((y - problem.upper, problem.upper, 1.0))
    for excess, rhs, norm in parts:
        reach = np.where(np.isfinite(rhs), np.abs(rhs), 0.0) + norm * size
        ratio = np.maximum(excess, 0.0) / np.where(reach > 0.0, reach, 1.0)
        worst = np.maximum(worst, np.where(np.isnan(ratio), np.inf, ratio).max(axis=1, initial=0.0))
    return worst


def distance(problem: Problem, y: np.ndarray, reference: np.ndarray) -> float:
    """Return the largest entry of y - reference over (1 + max |x|); inf if y is not finite."""
    if not np.isfinite(y).all():
        return float("inf")
    scale = 1.0 + np.abs(problem.x[: len(y)]).max()
    return float(np.abs(y.astype(np.float64) - reference[: len(y)]).max() / scale)


def kkt(
    problem: Problem, y: np.ndarray, ub: np.ndarray, eq: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the KKT residuals of y with row multipliers, and which samples are strict.

    With t = x - y - A_ub' ub - A_eq' eq, a bound's multiplier is the part of t with the right
    sign: at an upper bound t may be positive, at a lower bound negative, elsewhere it must vanish.
    """
    t = problem.x - y
    scale = 1.0 + np.abs(problem.x).max(axis=1)
    gap = np.zeros(len(y))
    clear = np.full(len(y), np.inf)
    if problem.A_ub is not None:
        t = t - apply(problem.A_ub.T, ub)
        norms = row_norms(problem.A_ub)
        slack = (problem.b_ub - apply(problem.A_ub, y)) / np.where(norms > 0, norms, 1.0)
        force = ub * norms
        gap = np.maximum(gap, (np.abs(slack) * force).max(axis=1, initial=0.0))
        clear = np.minimum(clear, np.maximum(slack, force).min(axis=1, initial=np.inf))
    if problem.A_eq is not None:
        t = t - apply(problem.A_eq.T, eq)
    free = np.ones(t.shape, dtype=bool)
    dual = np.zeros(len(y))
    for bound, sign in ((problem.lower, -1.0), (problem.upper, 1.0)):
        if bound is None:
            continue
        slack = sign * (bound - y)
        at = slack <= STRICT * scale[:, None]
        force = np.where(at, np.maximum(sign * t, 0.0), 0.0)
        free &= ~(at & (sign * t > 0))
        gap = np.maximum(gap, (np.abs(slack) * force).max(axis=1, initial=0.0))
        clear = np.minimum(clear, np.maximum(slack, force).min(axis=1, initial=np.inf))
    dual = np.maximum(dual, np.where(free, np.abs(t), 0.0).max(axis=1, initial=0.0))
    if problem.A_ub is not None:
        dual = np.maximum(dual, np.maximum(-ub, 0.0).max(axis=1, initial=0.0))
    residuals = {
        "primal": infeasibility(problem, y),
        "dual": dual / scale,
        "complementarity": gap / scale**2,
    }
    return residuals, clear / scale > STRICT


def face_projection(problem: Problem, x: np.ndarray, y: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return the projection of v onto the directions of the face that contains y in its interior.

    One sample. Bounds are eliminated: with F the free coordinates and C the active coupling rows,
    the answer is v_F - C_F' (C_F C_F')^+ C_F v_F, and 0 elsewhere.
    """
    scale = 0.5 * (1.0 + np.abs(x).max())
    free = np.ones(problem.n, dtype=bool)
    if problem.lower is not None:
        free &= y - problem.lower > STRICT * scale
    if problem.upper is not None:
        free &= problem.upper - y > STRICT * scale
    parts = []
    if problem.A_ub is not None:
        norms = row_norms(problem.A_ub)
        slack = problem.b_ub - apply(problem.A_ub, y[None])[0]
        parts.append(problem.A_ub[slack <= STRICT * norms * scale])
    if problem.A_eq is not None:
        parts.append(problem.A_eq)
    out = np.where(free, v, 0.0)
    if not parts:
        return out
    C = sp.vstack([sp.csr_matrix(a) for a in parts]).tocsr()[:, free]
    gram = (C @ C.T).toarray()
    # Two passes: one pseudo-inverse of a Gram matrix loses half the digits when rows are close
    # to dependent, and the second pass restores them.
    inverse = scipy.linalg.pinvh(gram)
    for _ in range(2):
        out[free] -= C.T @ (inverse @ (C @ out[free]))
    return out


def has_strict_multiplier(problem: Problem, x: np.ndarray, y: np.ndarray) -> bool:
    """Tell whether some multiplier of one sample is strictly complementary, by one linear program.

    Where active rows are dependent (vertices of the Birkhoff polytope) multipliers are not unique,
    and those of an active-set method are full of zeros although others have none. One strictly
    complementary multiplier is enough for the projection to be differentiable there.
    """
    scale = 1.0 + np.abs(x).max()
    tol = 0.5 * STRICT * scale
    low = np.zeros(problem.n, bool) if problem.lower is None else y - problem.lower <= tol
    high = np.zeros(problem.n, bool) if problem.upper is None else problem.upper - y <= tol
    blocks, bounds = [], []
    if problem.A_ub is not None:
        near = problem.b_ub - apply(problem.A_ub, y[None])[0] <= tol * row_norms(problem.A_ub)
        blocks.append(sp.csr_matrix(problem.A_ub[near]))
        bounds += [(0.0, None)] * int(near.sum())
    if problem.A_eq is not None:
        blocks.append(sp.csr_matrix(problem.A_eq))
        bounds += [(None, None)] * problem.A_eq.shape[0]
    if not blocks:
        return bool((np.abs(x - y)[low ^ high] > 10 * STRICT * scale).all())
    rows = sp.vstack(blocks).tocsr()
    count = rows.shape[0]
    signed = [j for j, b in enumerate(bounds) if b[0] == 0.0]
    # t <= multiplier for signed rows, t <= the bounds' multipliers, maximise t.
    floors = sp.csr_matrix((-np.ones(len(signed)), (range(len(signed)), signed)),
                           shape=(len(signed), count))  # fmt: skip
    upper, lower = high & ~low, low & ~high
    A = sp.vstack([floors, rows[:, upper].T, -rows[:, lower].T])
    A = sp.hstack([A, np.ones((A.shape[0], 1))]).tocsr()
    r = x - y
    limits = np.concatenate([np.zeros(len(signed)), r[upper], -r[lower]])
    free = ~(low | high)
    equal = sp.hstack([rows[:, free].T, sp.csr_matrix((int(free.sum()), 1))]).tocsr()
    result = scipy.optimize.linprog(
        np.r_[np.zeros(count), -1.0], A, limits, equal if free.any() else None,
        r[free] if free.any() else None, [*bounds, (None, scale)],
    )  # fmt: skip
    return result.status == 0 and -result.fun > 10 * STRICT * scale


def _gradient_samples(problem: Problem, y: np.ndarray, strict: np.ndarray) -> np.ndarray:
    """Return the first samples at which the projection is differentiable beyond doubt."""
    found: list[int] = []
    if problem.rows > GRADIENT_ROWS:
        return np.array(found, dtype=int)
    for i in range(min(problem.batch, 2 * GRADIENT_SAMPLES)):
        if strict[i] or has_strict_multiplier(problem, problem.x[i], y[i]):
            found.append(i)
        if len(found) == GRADIENT_SAMPLES:
            break
    return np.array(found, dtype=int)


def row_multipliers(record: Any, rows: Any, problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Return an hsref record's multipliers of A_ub and A_eq, one row a sample.

    A special set may list further rows (implied ones): its multipliers are matched to the rows of
    the problem by their coefficients. Whatever has no match is left out, and shows as a dual
    residual unless it was zero.
    """
    out = []
    for field, ours in (("ub", problem.A_ub), ("eq", problem.A_eq)):
        values = np.asarray(getattr(record.multipliers, field), dtype=np.float64)
        values = values.reshape(problem.batch, -1)
        count = 0 if ours is None else ours.shape[0]
        if values.shape[1] != count:
            theirs = getattr(rows.to_polyhedron(), f"A_{field}")
            place = {row.tobytes(): i for i, row in enumerate(np.asarray(theirs) + 0.0)}
            found = [place.get(row.tobytes(), -1) for row in problem.dense(f"A_{field}") + 0.0]
            padded = np.hstack([values, np.zeros((problem.batch, 1))])
            values = padded[:, found]
        out.append(values)
    return out[0], out[1]


def certify(problem: Problem, compare: int = 32) -> Reference:
    """Return a certified reference for every sample of a problem.

    Parameters
    ----------
    problem : Problem
    compare : int
        Samples on which the other exact solvers are asked as well; none for 0.
    """
    y, ub, eq, source = _solve(problem)
    residuals, strict = kkt(problem, y, ub, eq)
    active = np.zeros(len(y))
    if problem.A_ub is not None:
        active += (ub > 0).sum(axis=1)
    if problem.A_eq is not None:
        active += problem.A_eq.shape[0]
    samples = _gradient_samples(problem, y, strict)
    gradient = np.array(
        [face_projection(problem, problem.x[i], y[i], problem.v[i]) for i in samples]
    )
    return Reference(
        y=y,
        source=source,
        residuals={k: float(r.max(initial=0.0)) for k, r in residuals.items()},
        strict=strict,
        working=float(active.mean()) if len(active) else 0.0,
        samples=samples,
        gradient=gradient.reshape(len(samples), problem.n),
        agreement=_agreement(problem, y, source, compare) if compare else {},
    )


def _solve(problem: Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
    """Return points and row multipliers from the first exact solver there is, and its name."""
    from . import solvers

    small = problem.rows * problem.n <= 1e6
    for make in (problem.special_set, *([problem.plain_set] if small else [])):
        try:
            import hsref

            C = make()
            record = hsref.projection(problem.x.reshape(-1, *C.shape), C)
            y = np.asarray(record.y).reshape(problem.x.shape)
            return y, *row_multipliers(record, C, problem), f"hsref {hsref.__version__}"
        except (ImportError, AttributeError, NotImplementedError, MemoryError):
            continue
    return *solvers.daqp_solve(problem), "daqp"


def _agreement(problem: Problem, y: np.ndarray, source: str, compare: int) -> dict[str, float]:
    """Ask the other exact solvers for the first samples, as far as they are installed."""
    from . import peers, solvers

    # They are dense and cubic in n: fewer samples where n is large.
    problem = problem.take(int(min(compare, 1 + 1e9 // problem.n**3)))
    found = {}
    if problem.rows * problem.n <= 1.0e6:
        for name, solve, largest in (
            ("daqp", solvers.daqp_solve, 1000), ("quadprog", solvers.quadprog_solve, 500)
        ):  # fmt: skip
            if name in source or problem.n > largest:
                continue
            try:
                found[name] = distance(problem, solve(problem)[0], y)
            except (ImportError, peers.Failed):
                continue
    return found


def gradient_error(reference: Reference, gradient: np.ndarray) -> float | None:
    """Return the largest VJP error, relative to 1 + max |v|, on the strict samples; None if none.

    `gradient` holds the first samples of the batch.
    """
    keep = reference.samples < len(gradient)
    if not keep.any():
        return None
    ours = gradient[reference.samples[keep]].astype(np.float64)
    if not np.isfinite(ours).all():
        return float("inf")
    truth = reference.gradient[keep]
    return float(np.abs(ours - truth).max() / (1.0 + np.abs(truth).max()))
