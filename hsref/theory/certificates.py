r"""Certificates: proofs of a projection or of emptiness, recomputed from the rows of the set.

Nothing here trusts a solver. A projection is certified by multipliers (found anew unless given),
an empty set by a Farkas vector, a nearest point by its variational inequality.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .linear import least_norm_multipliers, project_onto_cone, reduced
from .reports import Report, report
from .rows import ACTIVE_TOL, HRows, rows_of
from .subject import image

KKT_TOL = 1e-10
FARKAS_TOL = 1e-9
EPS = float(np.finfo(np.float64).eps)
TINIEST = float(np.finfo(np.float64).smallest_subnormal)
_SUM_TERMS = 20
"""Roundings of a pairwise sum of up to 2^20 terms."""


class RowMultipliers(NamedTuple):
    """Multipliers of the rows as given: ``ub``, ``eq``, ``lower``, ``upper``; zeros elsewhere."""

    ub: np.ndarray
    eq: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


_NOTHING = RowMultipliers(*(np.zeros(0),) * 4)


@dataclass(frozen=True)
class KKTCertificate(Report):
    """A :class:`Report` on optimality that carries the multipliers it rests on.

    Attributes
    ----------
    multipliers : RowMultipliers
        Of the rows as given; x - y = A_ub' ub + A_eq' eq + upper - lower.
    """

    multipliers: RowMultipliers = _NOTHING


def kkt_certificate(
    x: Any, y: Any, C: Any, multipliers: Any = None, *, tol: float = KKT_TOL
) -> KKTCertificate:
    r"""Certify that y is the projection of x, or show by how much it is not.

    .. math:: y\in C,\qquad x-y=A_I^T\lambda+B^T\mu,\qquad \lambda\ge 0 .

    *Why this proves it.* For w in C, ⟨x - y, w - y⟩ = Σ λ_i (A_i w - a_i) ≤ 0, which is the
    variational inequality; ‖x - w‖² = ‖x - y‖² - 2⟨x - y, w - y⟩ + ‖w - y‖² ≥ ‖x - y‖². ∎

    Parameters
    ----------
    x, y : array_like, shape C.shape
        The point and its claimed projection.
    C : set
        The set, or anything with the attributes of a general polyhedron.
    multipliers : object with fields ``ub, eq, lower, upper``, optional
        Multipliers to be checked. Without them the certificate finds its own, by projecting x - y
        onto the cone of the active rows.
    tol : float
        Tolerance, relative to 1 + the largest entry of x and of the right-hand sides of unit rows.

    Returns
    -------
    KKTCertificate

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> C = SimpleNamespace(A_ub=None, b_ub=None, A_eq=[[1.0, 1.0]], b_eq=[1.0], lower=[0.0, 0.0],
    ...                     upper=None)
    >>> good = kkt_certificate([2.0, 0.0], [1.0, 0.0], C)
    >>> bool(good), good.multipliers.eq.round(12).tolist()
    (True, [1.0])
    >>> bool(kkt_certificate([2.0, 0.0], [0.5, 0.5], C))
    False
    """
    rows = rows_of(C)
    point, z = image(C, x, y)
    scale = float(rows.scale(np.concatenate([point, z])))
    r = point - z
    if multipliers is None:
        lam, mu = find_multipliers(rows, r, rows.active(z))
        found = as_given(C, rows, lam, mu)
    else:
        lam, mu, found = _unit(C, rows, multipliers)
    slack = rows.slack(z)
    rest = r - lam @ rows.G - mu @ rows.E
    parts = {
        "primal": float(rows.violation(z)) / scale,
        "dual": float(np.max(np.abs(rest), initial=0.0)) / scale,
        "sign": float(np.max(-lam, initial=0.0)) / scale,
        "complementarity": float(np.max(np.abs(lam * slack), initial=0.0)) / scale**2,
    }
    if rows.impossible:
        parts["primal"] = np.inf
    data = {"x": point, "y": z, "ub": found.ub, "eq": found.eq, "lower": found.lower,
            "upper": found.upper}  # fmt: skip
    return report("y is the projection of x", parts, tol, data, KKTCertificate, multipliers=found)


def find_multipliers(
    rows: HRows, r: np.ndarray, active: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return multipliers (λ over all unit rows, μ over the unit equality rows) that best explain r.

    The rows with a positive multiplier are independent modulo the equality rows.
    """
    lam = np.zeros(rows.m)
    lam[active] = project_onto_cone(*reduced(rows, r, active)).multipliers
    return lam, least_norm_multipliers(rows, r - lam @ rows.G)


def as_given(C: Any, rows: HRows, lam: np.ndarray, mu: np.ndarray) -> RowMultipliers:
    """Return multipliers of unit rows as multipliers of the rows as given."""
    source = C.to_polyhedron() if hasattr(C, "to_polyhedron") else C

    def count(name: str) -> int:
        value = getattr(source, name, None)
        return 0 if value is None else len(value)

    fields = {"ub": np.zeros(count("A_ub")), "lower": np.zeros(rows.n), "upper": np.zeros(rows.n)}
    for (name, i), norm, value in zip(rows.ids, rows.norms, lam):
        fields[name][i] = value / norm
    eq = np.zeros(count("A_eq"))
    eq[list(rows.eq_ids)] = mu / rows.eq_norms
    return RowMultipliers(fields["ub"], eq, fields["lower"], fields["upper"])


def _unit(C: Any, rows: HRows, given: Any) -> tuple[np.ndarray, np.ndarray, RowMultipliers]:
    """Return multipliers of the rows as given as multipliers of unit rows."""
    blank = as_given(C, rows, np.zeros(rows.m), np.zeros(len(rows.E)))
    parts = {}
    for name in ("ub", "eq", "lower", "upper"):
        value = np.asarray(getattr(given, name), dtype=np.float64).ravel()
        expected = getattr(blank, name).shape
        if value.size == 0 and name in ("lower", "upper"):
            value = np.zeros(expected)
        if value.shape != expected:
            raise ValueError(
                f"multipliers.{name} has {value.size} entries; the set has {expected[0]} such rows."
            )
        parts[name] = value
    lam = np.array([parts[name][i] * s for (name, i), s in zip(rows.ids, rows.norms)])
    mu = parts["eq"][list(rows.eq_ids)] * rows.eq_norms
    return lam.reshape(rows.m), mu, RowMultipliers(**parts)


def check_farkas(C: Any, certificate: Any, *, tol: float = FARKAS_TOL, **data: Any) -> Report:
    r"""Verify that a Farkas vector proves a set empty.

    With :math:`w=A^T\lambda+B^T\mu`, every point of the set would satisfy
    :math:`w^Ty\le a^T\lambda+b^T\mu`; the set is empty when the smallest value of
    :math:`w^Ty` between the bounds exceeds that:

    .. math:: \lambda\ge 0,\qquad
              \sum_{w_j>0}w_jl_j+\sum_{w_j<0}w_ju_j > a^T\lambda+b^T\mu .

    *Proof.* The left side is min{wᵀy : l ≤ y ≤ u}. ∎ The multipliers of the bounds are thus implied
    by λ and μ, and those given are not needed; where a bound is infinite its w_j has to vanish.

    Parameters
    ----------
    C : set
        The set, or anything with the attributes of a general polyhedron.
    certificate : object with fields ``ub, eq, lower, upper``
        As attached to :class:`hsref.InfeasibleError`, one sample.
    tol : float
        How much of the largest term the weight on infinite bounds and a negative multiplier may be.
    **data
        ``b_ub, b_eq, lower, upper`` (or rows) that replaced those of `C` in the call, one sample.

    Returns
    -------
    Report
        Its residual is 0 when the proof holds, otherwise the margin missing plus the weight on
        infinite bounds and the negative part of λ, relative to the largest term. The margin has to
        exceed what rounding can do to the two sums, (k + 20) ε times the sum of the sizes of their
        terms, with k multipliers that are not 0. The solvers declare emptiness from a relative
        1e-12 on, which is more: what they declare can be proved.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> C = SimpleNamespace(A_ub=[[1.0, 1.0]], b_ub=[-1.0], A_eq=None, b_eq=None,
    ...                     lower=[0.0, 0.0], upper=None)
    >>> proof = SimpleNamespace(ub=[1.0], eq=[], lower=[1.0, 1.0], upper=[0.0, 0.0])
    >>> bool(check_farkas(C, proof))
    True
    >>> bool(check_farkas(C, SimpleNamespace(ub=[0.0], eq=[], lower=[0.0] * 2, upper=[0.0] * 2)))
    False
    """
    source = C.to_polyhedron() if hasattr(C, "to_polyhedron") else C

    def get(name: str) -> np.ndarray | None:
        value = data.get(name, getattr(source, name, None))
        return None if value is None else np.asarray(value, dtype=np.float64)

    def vector(name: str) -> np.ndarray:
        return np.asarray(getattr(certificate, name), dtype=np.float64).ravel()

    ub, eq = vector("ub"), vector("eq")
    n = max(_width(get(k)) for k in ("A_ub", "A_eq", "lower", "upper"))
    w, carried = np.zeros((2, n))
    right = size = reach = 0.0
    for A, b, v in ((get("A_ub"), get("b_ub"), ub), (get("A_eq"), get("b_eq"), eq)):
        if A is None or b is None or not v.any():
            continue
        used = v != 0.0
        w = w + v[used] @ A[used]
        carried = carried + np.abs(v[used]) @ np.abs(A[used])
        terms = v[used] * b[used]
        right += float(terms.sum())
        reach += float(np.abs(terms).sum())
        size = max(size, float(np.max(np.abs(terms))), float(np.max(np.abs(v[:, None] * A))))
    lower, upper = get("lower"), get("upper")
    low = np.full(n, -np.inf) if lower is None else np.broadcast_to(lower, (n,))
    high = np.full(n, np.inf) if upper is None else np.broadcast_to(upper, (n,))
    if (low > high).any():
        # crossed bounds alone are a proof; a certificate made of them is checked directly
        gap = float(np.max(low - high))
        return report("the set is empty", {"margin missing": 0.0}, tol, {"gap": gap})
    bound = np.where(w > 0.0, low, high)
    open_end = ~np.isfinite(bound)
    bound = np.where(open_end, 0.0, bound)
    terms = w * bound
    reach += float((carried * np.abs(bound)).sum())
    # Below the normal numbers rounding is no longer relative.
    round_off = (np.count_nonzero(ub) + np.count_nonzero(eq) + _SUM_TERMS) * (EPS * reach + TINIEST)
    # terms that cancel are part of the round-off
    size = max(size, float(np.max(np.abs(terms), initial=0.0)), 1e-300)
    loose = float(np.max(np.abs(w[open_end]), initial=0.0))
    margin = float(terms.sum()) - right
    parts = {
        "sign": float(np.max(-ub, initial=0.0)) / size,
        "weight on infinite bounds": loose / size,
        "margin missing": 0.0 if margin > round_off else 1.0 - margin / size,
    }
    saved = {"ub": ub, "eq": eq, "w": w, "margin": margin}
    return report("the set is empty", parts, tol, saved)


def _width(array: np.ndarray | None) -> int:
    return 0 if array is None or array.ndim == 0 else array.shape[-1]


def check_variational_inequality(
    x: Any, y: Any, C: Any, others: Any, *, tol: float = 1e-9
) -> Report:
    r"""Check ⟨x - y, w - y⟩ ≤ 0 for points w of the set: y is nearest to x.

    .. math:: y=\Pi(x)\iff y\in C,\ \langle x-y,\,w-y\rangle\le 0\ \ \forall w\in C .

    Parameters
    ----------
    x, y : array_like, shape C.shape
        The point and its claimed projection.
    C : set
        The set.
    others : array_like, shape (k, *C.shape)
        Points w of the set, vertices or any; those that violate a row are ignored.
    tol : float
        Relative to the square of 1 + the largest entries of x, w and the data.
    """
    rows = rows_of(C)
    point, z = image(C, x, y)
    w = np.asarray(others, dtype=np.float64).reshape(-1, rows.n)
    w = w[rows.violation(w) <= ACTIVE_TOL * rows.scale(w)]
    scale = float(np.max(rows.scale(np.vstack([w, point[None], z[None]]))))
    products = (w - z) @ (point - z)
    parts = {
        "y in C": float(rows.violation(z)) / scale,
        "inequality": float(np.max(products, initial=0.0)) / scale**2,
    }
    return report("no point of the set is nearer", parts, tol, {"x": point, "y": z, "others": w})
