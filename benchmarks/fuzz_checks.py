"""Is an answer right? Checks of whole batches from the rows of a set, in NumPy, without the solver.

A point is *certified* when it and the multipliers of its record satisfy the optimality conditions,
and every element of the HS-Jacobian is the orthogonal projector it claims to be, to `TOLERANCE`; an
empty set is certified by its Farkas vector. All quotients are free of units: rows and data may be
multiplied by any number.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

import hsref

from .fuzz_problems import Batch

TOLERANCE = {np.dtype(np.float64): 1e-9, np.dtype(np.float32): 1e-5}
"""Relative residual up to which an answer counts as certified: what the library promises."""
SMALLEST = {np.dtype(np.float64): 2.3e-308, np.dtype(np.float32): 1.2e-38}
"""Smallest normal number: a sum of N terms is not better than N of these, whatever its size."""
PROJECTOR = ("symmetry", "idempotence", "V rows")
"""Residuals of V: what rounding of the rows themselves does to it is allowed (`blur`)."""
COMPACT = (hsref.L1Ball, hsref.Permutahedron, hsref.Turnover)
"""Sets with 2^n rows, whose records do not list them."""
SELECTIONS = ("active", "working", "support")
PROBED = 60
"""Coordinates up to which all three selections are probed; above, the default one."""
DENOMINATOR = 10**6
"""Largest denominator of the fractions that exact proofs are tried with."""
ALONE = 3
"""Samples of a batch solved again alone, for equal bits."""


class Rows:
    """The H-description of a batch: dense matrices, right-hand sides with a batch axis or 1."""

    def __init__(self, batch: Batch) -> None:
        P = batch.C.to_polyhedron()
        n = batch.C.size
        self.A = np.zeros((0, n)) if P.A_ub is None else P.A_ub
        self.B = np.zeros((0, n)) if P.A_eq is None else P.A_eq
        self.b = self._side(batch, P, "b_ub", 0, 0.0)
        self.e = self._side(batch, P, "b_eq", 0, 0.0)
        self.lower = self._side(batch, P, "lower", n, -np.inf)
        self.upper = self._side(batch, P, "upper", n, np.inf)
        self.A_norm, self.B_norm = _norms(self.A), _norms(self.B)
        # Shifting rounds to the digits of the offset, which right-hand sides need not show.
        offset = batch.C.offset if isinstance(batch.C, hsref.Shifted) else np.zeros(1)
        self.offset = float(np.abs(offset).max())

    @staticmethod
    def _side(batch: Batch, P: Any, name: str, size: int, absent: float) -> np.ndarray:
        value = batch.data.get(name, getattr(P, name))
        value = np.full(size, absent) if value is None else value
        return np.atleast_2d(np.asarray(value, np.float64))


def _norms(matrix: np.ndarray) -> np.ndarray:
    """Return row norms without underflow."""
    largest = np.abs(matrix).max(axis=1, initial=0.0)
    unit = matrix / np.where(largest > 0.0, largest, 1.0)[:, None]
    return largest * np.linalg.norm(unit, axis=1)


def _over(value: np.ndarray, reach: np.ndarray, floor: Any) -> np.ndarray:
    """Return value / reach, with reach not below `floor`: less is beneath all precision."""
    return value / np.maximum(reach, floor)


def _worst(*parts: np.ndarray) -> np.ndarray:
    """Return the largest entry of each sample over all parts; inf where one is NaN."""
    out = np.zeros(len(parts[0]))
    for part in parts:
        clean = np.where(np.isnan(part), np.inf, part)
        out = np.maximum(out, clean.max(axis=1, initial=0.0))
    return out


def optimality(
    rows: Rows, x: np.ndarray, y: np.ndarray, found: Any, dtype: np.dtype
) -> dict[str, np.ndarray]:
    """Return the residuals of the optimality conditions of each sample.

    Parameters
    ----------
    rows : Rows
    x, y : ndarray, shape (B, N)
        In float64.
    found : Multipliers
        Flat, one row a sample.
    dtype : dtype
        Precision of the call.

    Returns
    -------
    dict of ndarray, shape (B,)
        ``primal``: violation over |right-hand side| + row norm * largest entry of x, y and the
        offset of a shifted set.
        ``dual``: x - y minus the combination of rows, over that entry and the
        largest of the combination.
        ``sign``: negative part of a multiplier times row norm, over that entry.
        ``complementarity``: the smaller of multiplier and slack, each over its own scale.
    """
    tol = TOLERANCE[dtype]
    floor = x.shape[1] * SMALLEST[dtype] / tol
    size = np.maximum(np.abs(x).max(axis=1), np.abs(y).max(axis=1))[:, None]
    size = np.maximum(size, rows.offset)
    ub, eq, low, high = (np.asarray(v, np.float64) for v in found)
    one = np.ones(x.shape[1])
    primal, sign, gap = [], [], []
    slacks = (
        (rows.b - y @ rows.A.T, rows.b, rows.A_norm, ub),
        (y - rows.lower, rows.lower, one, low),
        (rows.upper - y, rows.upper, one, high),
    )
    for slack, rhs, norm, weight in slacks:
        finite = np.isfinite(rhs)
        reach = np.where(finite, np.abs(rhs), 0.0) + norm * size
        ratio = _over(slack, reach, floor * np.maximum(norm, 1.0))
        ratio = np.where(finite, ratio, np.inf)
        primal.append(np.maximum(-ratio, 0.0))
        force = _over(weight * norm, size, floor)
        sign.append(np.maximum(-force, 0.0))
        gap.append(np.minimum(np.maximum(force, 0.0), np.abs(ratio)))
    excess = np.abs(y @ rows.B.T - rows.e)
    reach = np.abs(rows.e) + rows.B_norm * size
    primal.append(_over(excess, reach, floor * np.maximum(rows.B_norm, 1.0)))
    carried = ub @ rows.A + eq @ rows.B
    rest = x - y - carried - high + low
    reach = size + np.abs(carried).max(axis=1, keepdims=True)
    return {
        "primal": _worst(*primal),
        "dual": _worst(_over(np.abs(rest), reach, floor)),
        "sign": _worst(*sign),
        "complementarity": _worst(*gap),
    }


def compact(C: Any, x: np.ndarray, y: np.ndarray, dtype: np.dtype) -> dict[str, np.ndarray]:
    """Return the residuals of sets with too many rows to list, from their support functions.

    y is the projection if and only if y is in C and <x - y, w - y> <= 0 for all w in C, that is,
    h(x - y) = <x - y, y> for the support function h. That of a turnover set has no formula: its
    answer is compared with that of the general solver on all its rows, itself checked here.
    """
    if isinstance(C, hsref.Turnover):
        P = C.to_polyhedron()
        general = hsref.projection(x, P)
        found = [np.asarray(m) for m in general.multipliers]
        residuals = optimality(Rows(Batch(P, x)), x, general.y, found, np.dtype(float))
        size = 1.0 + np.abs(x).max(axis=1, keepdims=True)
        return residuals | {"agreement": (np.abs(y - general.y) / size).max(axis=1)}
    size = np.maximum(np.abs(x).max(axis=1), np.abs(y).max(axis=1))
    size = np.maximum(size, SMALLEST[dtype] ** 0.5)
    d = (x - y) / size[:, None]
    point = y / size[:, None]
    if isinstance(C, hsref.L1Ball):
        most = C.radius / size * np.abs(d).max(axis=1)
        excess = np.abs(point).sum(axis=1) - C.radius / size
    else:
        w = np.sort(C.w) / size[:, None]
        most = (np.sort(d, axis=1) * w).sum(axis=1)
        partial = np.cumsum(np.sort(w)[:, ::-1], axis=1) - np.cumsum(
            np.sort(point)[:, ::-1], axis=1
        )
        excess = np.maximum((-partial).max(axis=1), np.abs(partial[:, -1]))
    largest = 0.0 if isinstance(C, hsref.L1Ball) else np.abs(C.w).max()
    scale = C.size * np.maximum(1.0, largest / size)
    gap = most - (d * point).sum(axis=1)
    return {
        "primal": np.maximum(excess, 0.0) / scale,
        "dual": np.abs(gap) / scale**2,
    }


def jacobians(
    rows: Rows | None, record: Any, rng: np.random.Generator, exact_rank: bool
) -> dict[str, np.ndarray]:
    """Return how far the elements are from orthogonal projectors onto the null space of their rows.

    Probes are random: u'Vw = w'Vu, V(Vw) = Vw, A_K V w = 0 for the rows of K. On small sets the
    rank is compared with that of the rows, formed by singular values, where data make it certain.
    """
    shape = record.x.shape
    B, N = len(record.x), record.set.size
    solved = np.asarray(record.status) == hsref.Status.SOLVED
    flags = {"active": record.active, "working": record.working_set, "support": record.support}
    parts: dict[str, list[np.ndarray]] = {"symmetry": [], "idempotence": [], "V rows": []}
    parts["rank"] = []
    for selection in SELECTIONS if N <= PROBED else SELECTIONS[:1]:
        J = record.jacobian(selection)
        u, w = rng.normal(size=(2, B, N))
        Vu, Vw = (np.asarray(J @ v.reshape(shape), np.float64).reshape(B, N) for v in (u, w))
        u, w = (v.astype(record.x.dtype).astype(np.float64) for v in (u, w))
        again = np.asarray(J @ Vw.reshape(shape), np.float64).reshape(B, N)
        parts["symmetry"].append(((u * Vw).sum(axis=1) - (w * Vu).sum(axis=1)) / N)
        parts["idempotence"].append(np.abs(again - Vw).max(axis=1))
        if rows is None:
            continue
        K = flags[selection]
        ub, low, high = (np.asarray(f).reshape(B, -1) for f in K)
        worst = np.zeros(B)
        for M, norm, mask in ((rows.A, rows.A_norm, ub), (rows.B, rows.B_norm, None)):
            if len(M):
                moved = np.abs(Vw @ M.T) / np.where(norm > 0.0, norm, 1.0)
                worst = np.maximum(worst, (moved if mask is None else moved * mask).max(axis=1))
        fixed = np.abs(Vw) * (low | high)
        parts["V rows"].append(np.maximum(worst, fixed.max(axis=1)))
        if exact_rank and N <= 12:
            parts["rank"].append(_rank_error(rows, ub, low | high, J.rank, N))
    out = {}
    for name, found in parts.items():
        if found:
            out[name] = np.where(solved, _worst(*(np.abs(f)[:, None] for f in found)), 0.0)
    return out


def _rank_error(rows: Rows, ub: np.ndarray, fixed: np.ndarray, rank: Any, n: int) -> np.ndarray:
    """Return |rank V - (n - rank M_K)|."""
    unit = rows.A / np.where(rows.A_norm > 0.0, rows.A_norm, 1.0)[:, None]
    equal = rows.B / np.where(rows.B_norm > 0.0, rows.B_norm, 1.0)[:, None]
    M = np.concatenate([
        ub[:, :, None] * unit, fixed[:, :, None] * np.eye(n),
        np.broadcast_to(equal, (len(ub), *equal.shape)),
    ], axis=1)  # fmt: skip
    return np.abs(np.asarray(rank) - (n - np.linalg.matrix_rank(M, tol=1e-8)))


def judge(batch: Batch, record: Any, kind: str, rng: np.random.Generator) -> dict[str, Any]:
    """Return residuals of all samples and, for each, why it is not certified ("" where it is).

    Returns
    -------
    dict
        ``residuals``: arrays (B,) by name, NaN where a sample was not solved. ``reasons``: list of
        str. ``empty``: booleans, samples declared empty.
    """
    dtype = record.x.dtype
    tol = TOLERANCE[dtype]
    B, N = len(record.x), batch.C.size
    x = record.x.reshape(B, N).astype(np.float64)
    y = record.y.reshape(B, N).astype(np.float64)
    status = np.asarray(record.status)
    solved, empty = status == hsref.Status.SOLVED, status == hsref.Status.PRIMAL_INFEASIBLE
    reasons = [""] * B
    rows = None if isinstance(batch.C, COMPACT) else Rows(batch)
    with np.errstate(all="ignore"):
        if rows is None:
            residuals = compact(batch.C, x, y, dtype)
        else:
            # In float64, as solved: rounded to float32 large ones no longer add up.
            found = [m.reshape(B, -1) for m in record._multipliers()]
            residuals = optimality(rows, x, y, found, dtype)
        certain = kind in ("integer", "random") and dtype == np.float64 and not batch.data
        residuals |= jacobians(rows, record, rng, certain)
        if batch.z is not None and kind == "integer":
            near = np.abs(y - batch.z).max(axis=1) / (1.0 + np.abs(x).max(axis=1))
            residuals["planted"] = np.where(np.isnan(batch.z[:, 0]), 0.0, near)
            missed = empty & ~np.isnan(batch.z[:, 0])
            for i in np.flatnonzero(missed):
                reasons[i] = "a set with a planted point was declared empty"
    for name, value in residuals.items():
        for i in np.flatnonzero(solved & ~(value <= tol)):
            if rows is not None and name in PROJECTOR and value[i] <= blur(rows, record, int(i)):
                continue
            reasons[i] += f"{', ' if reasons[i] else ''}{name} {value[i]:.1e}"
    for i in np.flatnonzero(solved & ~np.isfinite(y).all(axis=1)):
        reasons[i] = "not finite"
    _prove(batch, rows, record, np.flatnonzero(empty), reasons)
    _alone(batch, record, np.flatnonzero(solved), reasons)
    return {
        "residuals": {k: np.where(solved, v, np.nan) for k, v in residuals.items()},
        "reasons": reasons,
        "empty": empty,
    }


def blur(rows: Rows, record: Any, i: int) -> float:
    """Return what a change of the active rows of sample i by a few ulps does to their null space.

    That is 4 eps over the least singular value of the unit rows, dependent ones (below 1e-10, as
    the library decides) left out. No V is better than this: where rows are within 1e-10 of
    dependence the last bit of their entries moves it by 2e-6.
    """
    ub, low, high = (np.asarray(f).reshape(len(record.x), -1)[i] for f in record.active)
    unit = np.vstack([
        rows.A[ub] / np.maximum(rows.A_norm[ub], SMALLEST[np.dtype(float)])[:, None],
        rows.B / np.maximum(rows.B_norm, SMALLEST[np.dtype(float)])[:, None],
        np.eye(rows.A.shape[1])[low | high],
    ])  # fmt: skip
    values = np.linalg.svd(unit, compute_uv=False)
    # d / sqrt(rows) is the least singular value that a row at distance d from the others makes
    return float(4.0 * np.finfo(float).eps / values[values > 1e-10 / len(unit)].min(initial=1.0))


def proof_missing(rows: Rows, found: Any, empty: np.ndarray) -> np.ndarray:
    """Return by how much Farkas vectors fail to prove samples empty: 0 where they do.

    With w = A'ub + B'eq every point of the set has w'y <= b'ub + e'eq; the proof holds when the
    least value of w'y between the bounds is larger by more than the round-off of both sums, and w
    is round-off where a bound is infinite. What round-off leaves open is decided in rational
    arithmetic (:func:`proved_exactly`). `empty` are the samples, `found` flat multipliers.
    """
    ub, eq = (np.asarray(v, np.float64)[empty] for v in (found.ub, found.eq))
    b, e, lower, upper = (
        np.broadcast_to(s, (len(found.ub), s.shape[1]))[empty]
        for s in (rows.b, rows.e, rows.lower, rows.upper)
    )
    vacuous = ub == 0.0
    right = np.where(vacuous, 0.0, ub * b).sum(axis=1) + (eq * e).sum(axis=1)
    w = ub @ rows.A + eq @ rows.B
    terms = np.abs(ub) @ np.abs(rows.A) + np.abs(eq) @ np.abs(rows.B)
    bound = np.where(w > 0.0, lower, upper)
    open_end = ~np.isfinite(bound)
    bound = np.where(open_end, 0.0, bound)
    reach = np.where(vacuous, 0.0, np.abs(ub * b)).sum(axis=1) + np.abs(eq * e).sum(axis=1)
    reach += (terms * np.abs(bound)).sum(axis=1)
    margin = (w * bound).sum(axis=1) - right
    round_off = (4 + ub.shape[1] + eq.shape[1]) * np.finfo(np.float64).eps * reach
    largest = np.maximum(terms.max(axis=1, initial=0.0), 5e-324)
    loose = np.abs(np.where(open_end, w, 0.0)).max(axis=1, initial=0.0) / largest
    negative = np.maximum(-ub, 0.0).max(axis=1, initial=0.0)
    lacking = np.where(margin > round_off, 0.0, 1.0) + np.where(loose <= 1e-10, 0.0, loose)
    crossed = (lower > upper).any(axis=1)
    missing = np.where(crossed, 0.0, lacking + negative)
    for i in np.flatnonzero(missing > 0.0):
        if proved_exactly(rows, ub[i], eq[i], b[i], e[i], lower[i], upper[i]):
            missing[i] = 0.0
    return missing


def proved_exactly(
    rows: Rows, ub: np.ndarray, eq: np.ndarray, b: np.ndarray, e: np.ndarray, lower: np.ndarray,
    upper: np.ndarray,
) -> bool:  # fmt: skip
    """Return whether nearby multipliers, small fractions, prove one sample empty without rounding.

    Two opposite rows whose right-hand sides, 0 and -1e-16, contradict each other are such a case:
    against the terms that cancel in w the contradiction is nothing, and yet it is there.
    """
    largest = max(np.abs(ub).max(initial=0.0), np.abs(eq).max(initial=0.0))
    if not 0.0 < largest < np.inf:
        return False
    weight = [Fraction(v / largest).limit_denominator(DENOMINATOR) for v in (*ub, *eq)]
    used = [k for k, v in enumerate(weight) if v]
    if any(weight[k] < 0 for k in used if k < len(ub)):
        return False
    sides = np.concatenate([b, e])
    matrix = np.vstack([rows.A, rows.B])[used]
    margin = Fraction(0)
    for k in used:
        if not np.isfinite(sides[k]):
            return False
        margin -= weight[k] * Fraction(float(sides[k]))
    for j in range(len(lower)):
        w = sum((weight[k] * Fraction(float(a)) for k, a in zip(used, matrix[:, j])), Fraction(0))
        bound = lower[j] if w > 0 else upper[j]
        if w and not np.isfinite(bound):
            return False
        margin += w * Fraction(float(bound)) if w else 0
    return margin > 0


def _prove(
    batch: Batch, rows: Rows | None, record: Any, empty: np.ndarray, reasons: list[str]
) -> None:
    """Check the Farkas vectors of the empty samples."""
    if not len(empty):
        return
    if np.isfinite(record.y[empty]).any():
        reasons[empty[0]] = "an empty sample has numbers in y"
    found = type(record.certificate)(*(v.reshape(len(record.x), -1) for v in record.certificate))
    if rows is None:
        raise NotImplementedError(f"no rows to check that {batch.C!r} is empty")
    with np.errstate(all="ignore"):
        missing = proof_missing(rows, found, empty)
    for i, value in zip(empty.tolist(), missing, strict=True):
        if not value == 0.0:
            reasons[i] = f"the Farkas vector fails by {value:.1e}"


def _alone(batch: Batch, record: Any, solved: np.ndarray, reasons: list[str]) -> None:
    """Solve a few samples again alone: the same bits."""
    for i in solved[:: max(1, len(solved) // ALONE)][:ALONE].tolist():
        data: dict[str, Any] = {k: v[i] for k, v in batch.data.items()}
        y = hsref.project(record.x[i], batch.C, **data)
        if not np.array_equal(y, record.y[i]):
            reasons[i] += "other bits alone"
