"""What a record must satisfy, written from the definitions and without the library's help."""

from __future__ import annotations

import numpy as np

import hsref
import oracle
from hsref import Status
from oracle import Planted
from tolerances import assert_close, bound, size


def polyhedron(case: Planted) -> hsref.Polyhedron:
    parts = case.description
    return hsref.Polyhedron(**parts, **({} if parts else {"n": case.n}))


def rows_of(description: dict, n: int) -> dict:
    """Fill the absent parts of a description with nothing."""
    empty = {
        "A_ub": np.zeros((0, n)),
        "b_ub": np.zeros(0),
        "A_eq": np.zeros((0, n)),
        "b_eq": np.zeros(0),
        "lower": np.full(n, -np.inf),
        "upper": np.full(n, np.inf),
    }
    return {k: np.asarray(description.get(k, v), float) for k, v in empty.items()}


def assert_certified(p: hsref.Projection, x: np.ndarray, description: dict) -> None:
    """Check the optimality conditions of one point from the definition, in the test's own words."""
    rows = rows_of(description, x.size)
    finite = rows["b_ub"] < np.inf
    y, got = np.asarray(p.y, float), p.multipliers
    norms = np.linalg.norm(rows["A_ub"], axis=1)
    data = [v for v in rows.values() if v.size]

    slack = np.where(finite, rows["b_ub"], 0.0) - rows["A_ub"] @ y
    reach = bound("feasible", x, y) * np.maximum(1.0, norms) + bound("feasible", rows["b_ub"])
    assert (slack >= -reach)[finite].all(), f"violates A_ub by {-slack[finite].min():.3g}"
    near = bound("feasible", x, y)
    assert (y >= rows["lower"] - near).all()
    assert (y <= rows["upper"] + near).all()
    assert_close(rows["A_eq"] @ y, rows["b_eq"], "feasible", *data, x)

    for part in (got.ub, got.lower, got.upper):
        assert (part >= 0.0).all()
    assert not got.ub[~finite].any()
    assert not got.lower[np.isinf(rows["lower"])].any()
    assert not got.upper[np.isinf(rows["upper"])].any()
    push = rows["A_ub"].T @ got.ub + rows["A_eq"].T @ got.eq + got.upper - got.lower
    weight = np.abs(rows["A_ub"].T) @ got.ub + np.abs(rows["A_eq"].T) @ np.abs(got.eq)
    assert_close(push, x - y, "kkt", x, weight)

    tight = np.abs(got.ub * slack)
    assert tight[finite].max(initial=0.0) <= bound("kkt", x, y) * size(got.ub, slack[finite])
    assert not got.lower[y > rows["lower"] + near].any()
    assert not got.upper[y < rows["upper"] - near].any()


def assert_answer(p: hsref.Projection, case: Planted) -> None:
    """Compare a record with everything known about a planted projection."""
    assert p.status == Status.SOLVED
    assert_close(p.y, case.y, "planted", case.x, case.b_ub[np.isfinite(case.b_ub)])
    assert_certified(p, case.x, case.description)

    if case.b_ub.size:
        known = ~case.zero_rows  # whether 0 ≤ 0 is "active" is a matter of taste
        np.testing.assert_array_equal(p.active.ub[known], case.active_ub[known])
    np.testing.assert_array_equal(p.active.lower, case.active_lower)
    np.testing.assert_array_equal(p.active.upper, case.active_upper)
    assert p.jacobian("active").rank == case.rank

    working = keys(p.working_set)
    support = keys(p.support)
    assert support <= working <= set(case.normals)
    normals = oracle.exact([case.normals[key] for key in working])
    equalities = oracle.orthogonal_basis(oracle.exact(case.A_eq))
    independent = oracle.exact_rank([*equalities, *normals]) == len(equalities) + len(normals)
    assert independent, f"the working set {sorted(working)} is dependent"
    assert case.is_admissible(working), f"the working set {sorted(working)} carries no multiplier"
    assert case.is_admissible(support)

    if case.unique:
        got = p.multipliers
        # the multiplier of a zero row is anything
        wanted_ub = np.where(case.zero_rows, 0.0, case.ub)
        pairs = zip(got, (wanted_ub, case.eq, case.at_lower, case.at_upper))
        for mine, known in pairs:
            assert_close(mine[: known.size], known, "planted", case.x)
        zero = {key for key in case.normals if known_multiplier(case, key) == 0}
        assert keys(p.weakly_active) & set(case.normals) == zero

    for residual in p.residuals:
        assert 0.0 <= residual <= bound("kkt")


def known_multiplier(case: Planted, key: oracle.Key) -> float:
    where, i = key
    return {"ub": case.ub, "lower": case.at_lower, "upper": case.at_upper}[where][i]


def keys(flags: hsref.ConstraintFlags) -> set[oracle.Key]:
    return {
        (where, int(i)) for where in flags._fields for i in np.flatnonzero(getattr(flags, where))
    }


def assert_farkas(certificate, n: int, description: dict) -> None:
    plain = {k: v for k, v in description.items() if k != "n"}
    row, total = oracle.farkas_gap(certificate, n, **plain)
    assert row <= bound("kkt"), "the combined row is not zero"
    assert total < -bound("kkt"), "the combined right-hand side is not negative"
