"""How feasible a batch of projections is, and how many directions it can still learn in."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ..record import Projection
    from ..sets.base import PolyhedralSet


@dataclass(frozen=True)
class Diagnostics:
    """What `diagnostics` measures, over the solved samples of a batch.

    Attributes
    ----------
    samples : int
        Samples in the batch.
    solved_fraction : float
        Share of them that were solved (below 1 only with ``on_infeasible="nan"``).
    violation : float or None
        Largest constraint violation, in the units of the constraint; None for a set with too many
        rows to list.
    relative_violation : float
        Largest violation relative to row norm, right-hand side and point.
    mean_rank : float
        Mean rank of V, the number of directions in which an output can learn.
    rank_fraction : float
        ``mean_rank / dim C``; 0 for a set that is a single point.
    dead_fraction : float
        Share of samples with rank 0: no loss has a gradient there.
    boundary_fraction : float
        Share of samples on the relative boundary, rank below ``dim C``.
    """

    samples: int
    solved_fraction: float
    violation: float | None
    relative_violation: float
    mean_rank: float
    rank_fraction: float
    dead_fraction: float
    boundary_fraction: float

    def as_dict(self) -> dict[str, float | None]:
        """Return the numbers by name, ready for JSON."""
        return asdict(self)


def diagnostics(record_or_x: Projection | Any, C: PolyhedralSet | None = None) -> Diagnostics:
    r"""Measure feasibility and liveness of a batch of projections.

    .. math:: \text{dead fraction} = \tfrac1B \, \#\{ i : \operatorname{rank} V(x_i) = 0 \}

    Parameters
    ----------
    record_or_x : Projection or array_like, shape (*batch, *C.shape)
        A record, or the input of a projection (``network.apply(params, x, raw=True)``), which is
        then projected. Not modified.
    C : PolyhedralSet, optional
        The set, needed with an array.

    Returns
    -------
    Diagnostics
        Frozen; plain Python numbers.

    Raises
    ------
    TypeError
        ``diagnostics of an array needs the set that it is projected onto.``

    Notes
    -----
    Violations are recomputed from y and the rows of the set, not taken from the solver. Ranks are
    those of the selection "active", V being the projector onto the directions of the face that
    contains y, whichever selection the record was made with.

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import Simplex
    >>> d = diagnostics(np.array([[5.0, 0.0, 0.0], [0.4, 0.3, 0.3]]), Simplex(3))
    >>> d.dead_fraction, d.boundary_fraction, d.mean_rank
    (0.5, 0.5, 1.0)
    """
    from ..record import Projection
    from ..solve import projection

    if isinstance(record_or_x, Projection):
        record = record_or_x
    elif C is None:
        raise TypeError("diagnostics of an array needs the set that it is projected onto.")
    else:
        record = projection(record_or_x, C)
    solved = np.reshape(np.asarray(record.status) == 0, -1)
    count = int(solved.sum())
    if not count:
        # An empty batch violates nothing and has nothing dead.
        return Diagnostics(int(solved.size), 0.0 if solved.size else 1.0, *6 * (0.0,))
    rank = np.reshape(record.jacobian("active").rank, -1)[solved]
    dim = record.set.dim
    return Diagnostics(
        samples=int(solved.size),
        solved_fraction=count / solved.size,
        violation=_largest_violation(record, solved),
        relative_violation=float(np.reshape(record.residuals.primal, -1)[solved].max()),
        mean_rank=float(rank.mean()),
        rank_fraction=float(rank.mean() / dim) if dim else 0.0,
        dead_fraction=float((rank == 0).mean()),
        boundary_fraction=float((rank < dim).mean()),
    )


def _largest_violation(record: Projection, solved: Any) -> float | None:
    C = record.set
    try:
        rows = C._residual_rows(record._data)
    except (ValueError, NotImplementedError):
        return None
    y = np.asarray(record.y, dtype=np.float64).reshape(-1, C.size)
    excesses = []
    if rows.A_ub is not None:
        excesses.append(y @ rows.A_ub.T - rows.b_ub)
    if rows.A_eq is not None:
        excesses.append(np.abs(y @ rows.A_eq.T - rows.b_eq))
    if rows.lower is not None:
        excesses.append(rows.lower - y)
    if rows.upper is not None:
        excesses.append(y - rows.upper)
    return float(max((excess[solved].max(initial=0.0) for excess in excesses), default=0.0))
