"""What the bridges share: the releases they work with, and the two linear maps in NumPy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hsref.data_gradients import MATRICES, check_names, field_shape, pull_to, push

BOUNDS = {
    "torch": (
        (2, 5),
        "torch.library.register_vmap, which a projection inside a compiled graph needs, came with "
        "2.5",
    ),
    "jax": (
        (0, 4, 36),
        "earlier releases apply the rules of a primitive in another order than this bridge expects",
    ),
}
"""Oldest release a bridge works with, and what is missing before it."""


MISSING = "hsref.interop.{0} needs the package {0} ({1}); install it: pip install 'hsref[{0}]'."
"""Said when a bridge is imported without its framework."""


def require_version(name: str, version: str) -> None:
    """Raise the sentence when release `version` of framework `name` is too old."""
    oldest, reason = BOUNDS[name]
    found = tuple(int(k) for k in re.findall(r"\d+", version.partition("+")[0])[: len(oldest)])
    if found < oldest:
        wanted = ".".join(map(str, oldest))
        raise ImportError(
            f"hsref works with {name} {wanted} or later, and found {version}: {reason}. Install a "
            f"newer {name}, or use hsref.vjp on NumPy arrays."
        )


@dataclass(frozen=True)
class Plan:
    """Which arguments of a projection a derivative is about; hashable, and free of arrays.

    Attributes
    ----------
    point : tuple of int
        Shape of a point.
    x : bool
        Whether x is among the arguments.
    names : tuple of str
        Parameters of the set among them.
    shapes : tuple of tuple of int
        Their shapes, as given.
    own : tuple of int
        How many axes each has for one sample.
    degenerate : str
        The ``degenerate_data`` of the call.
    """

    point: tuple[int, ...]
    x: bool
    names: tuple[str, ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()
    own: tuple[int, ...] = ()
    degenerate: str = "raise"

    @property
    def axes(self) -> int:
        """Axes of a point."""
        return len(self.point)

    def mapped(self, size: int, batch_axes: int) -> Plan:
        """Return the plan once a map has put an axis in front of a batch of so many axes."""
        shapes = tuple(
            (size, *(1,) * (batch_axes + k - len(shape)), *shape)
            for shape, k in zip(self.shapes, self.own)
        )
        return replace(self, shapes=shapes)


def pull_arrays(J: Any, g: np.ndarray, plan: Plan) -> list[np.ndarray]:
    """Return V' g if x is asked for, then the cotangents of the parameters, in the dtype of x.

    Axes of g in front of the batch are kept in front of each.
    """
    out = [J.T @ g] if plan.x else []
    if 0 in J.record.batch_shape:
        lead = g.shape[: g.ndim - J.record.x.ndim]
        return [*out, *(np.zeros((*lead, *shape), g.dtype) for shape in plan.shapes)]
    if plan.names:
        shapes = dict(zip(plan.names, plan.shapes))
        found = pull_to(J.record, g, shapes, degenerate_data=plan.degenerate)
        out += [np.asarray(found[name], dtype=g.dtype) for name in plan.names]
    return out


def push_arrays(J: Any, tangents: Sequence[np.ndarray], plan: Plan) -> np.ndarray:
    """Return V dx plus the change of y along the tangents of the parameters."""
    rest = list(tangents)
    if 0 in J.record.batch_shape:
        own = J.record.x.ndim if plan.x else len(plan.shapes[0])
        lead = rest[0].shape[: rest[0].ndim - own]
        return np.zeros((*lead, *J.record.x.shape), J.record.x.dtype)
    dy: Any = J @ rest.pop(0) if plan.x else 0.0
    if plan.names:
        batch = len(J.record.batch_shape)
        wide = {}
        for name, t, shape, own in zip(plan.names, rest, plan.shapes, plan.own):
            lead = t.shape[: t.ndim - len(shape)]
            wide[name] = t.reshape((*lead, *(1,) * (batch + own - len(shape)), *shape))
        dy = dy + push(J.record, wide, degenerate_data=plan.degenerate)
    return dy


def own_axes(C: Any, names: Sequence[str], given: Sequence[int]) -> tuple[int, ...]:
    """Return how many axes each parameter has for one sample, from those it was given with.

    Raises the sentence for a parameter that the set does not have.
    """
    if not names:
        return ()
    sides = [name for name in names if name not in MATRICES]
    solver = C._for_data(frozenset(sides)) if sides else C
    return tuple(
        min(ndim, 2) if name in MATRICES else len(field_shape(solver, name))
        for name, ndim in zip(names, given)
    )


def lifted_shape(name: str, shape: Sequence[int], own: int, batch_axes: int) -> tuple[int, ...]:
    """Return the shape of a parameter whose first axis is a map's, to meet a batch behind it."""
    if name == "H" and own < 2:
        raise TypeError(
            "a diagonal H under a map looks like one full matrix: map over full matrices instead."
        )
    missing = 1 + batch_axes + own - len(shape)
    return (shape[0], *(1,) * missing, *shape[1:])


def require_rules(C: Any, names: Sequence[str]) -> None:
    """Raise, before anything looks differentiable, for a parameter without a derivative."""
    sides = [name for name in names if name not in MATRICES]
    if sides:
        check_names(C._for_data(frozenset(sides)), sides)


SECOND_ORDER = (
    "second derivatives are not available in this framework where a matrix ({names}) carries "
    "gradients: pass its value alone, or use autograd, where hsref.project has them."
)


def matrices_among(names: Sequence[str]) -> tuple[int, ...]:
    """Return the places of matrices: V and its kin depend on them, and only on them."""
    return tuple(k for k, name in enumerate(names) if name in MATRICES)
