r"""Random geometric graphs: a controlled world of inliers, outliers, noise and rotation.

Inliers are uniform in the unit square; the right view holds them rotated by a random angle and
moved by Gaussian noise. Outliers are uniform in the same square, drawn for each view on its own.
Nothing but the points is known: descriptors are made of distances, which a rotation leaves alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .instances import Instances, averaged, displacements, look

CENTRES = np.linspace(0.08, 0.96, 12)[:, None]
"""Distances, in sides of the square, that the basis functions look at."""

WIDTH = 0.05
"""Of the basis functions."""

NEAREST = 4
"""Distances to this many nearest points belong to a descriptor."""


@dataclass(frozen=True)
class Condition:
    """How graphs are drawn.

    Attributes
    ----------
    inliers : int
        Points in both views, more than :data:`NEAREST`.
    outliers_left, outliers_right : int
        Points in one view only.
    noise : float
        Standard deviation of the noise, in sides of the square, on each coordinate; graphs of one
        condition have noise uniform between 0 and this where `vary` is set.
    vary : bool
    """

    inliers: int
    outliers_left: int
    outliers_right: int
    noise: float
    vary: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Return (m, n)."""
        return self.inliers + self.outliers_left, self.inliers + self.outliers_right


def draw(condition: Condition, count: int, rng: np.random.Generator, block: int = 0) -> Instances:
    """Draw graphs.

    Parameters
    ----------
    condition : Condition
    count : int
    rng : numpy.random.Generator
        Advanced.
    block : int
        Block of the first one; each graph is a block of its own.

    Returns
    -------
    Instances

    Examples
    --------
    >>> found = draw(Condition(5, 1, 2, 0.0), 2, np.random.default_rng(0))
    >>> found.truth.shape, found.total.tolist()
    ((2, 6, 7), [5.0, 5.0])
    """
    m, n = condition.shape
    inside = condition.inliers
    base = rng.random((count, inside, 2))
    left = np.concatenate([base, rng.random((count, m - inside, 2))], axis=1)
    angle = rng.uniform(0.0, 2.0 * np.pi, count)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    scale = rng.uniform(0.0, 1.0, count) if condition.vary else np.ones(count)
    both = np.concatenate([base, rng.random((count, n - inside, 2))], axis=1) - 0.5
    right = np.einsum("abk,kib->kia", turn, both)
    noise = rng.standard_normal((count, inside, 2)) * condition.noise
    right[:, :inside] += noise * scale[:, None, None]

    truth = np.zeros((count, m, n))
    truth[:, np.arange(inside), np.arange(inside)] = 1.0
    # neither the order of the points nor the place of the outliers may give anything away
    order_left = rng.permuted(np.tile(np.arange(m), (count, 1)), axis=1)
    order_right = rng.permuted(np.tile(np.arange(n), (count, 1)), axis=1)
    rows = np.arange(count)[:, None]
    left, right = left[rows, order_left], right[rows, order_right]
    truth = truth[rows[:, :, None], order_left[:, :, None], order_right[:, None, :]]
    return _instances(left, right, truth, block)


def _instances(left: np.ndarray, right: np.ndarray, truth: np.ndarray, block: int) -> Instances:
    count = len(truth)
    near_left, near_right = (
        np.linalg.norm(displacements(points), axis=-1, keepdims=True) for points in (left, right)
    )
    seen_left, seen_right = look(near_left, CENTRES, WIDTH), look(near_right, CENTRES, WIDTH)
    u, v = _descriptors(near_left, seen_left), _descriptors(near_right, seen_right)
    difference = np.abs(u[:, :, None, :] - v[:, None, :, :])
    return Instances(
        pair=np.concatenate([difference, difference**2], axis=-1),
        left=averaged(seen_left),
        right=seen_right,
        distance=np.sqrt((difference**2).sum(axis=-1)),
        truth=truth,
        total=truth.sum(axis=(1, 2)),
        block=block + np.arange(count),
        where=np.zeros((count, 0), dtype=np.int64),
    )


def _descriptors(near: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return what a point knows about its surroundings, shape (k, m, R + NEAREST)."""
    m = near.shape[1]
    histogram = seen.sum(axis=-1).transpose(0, 2, 1) / np.sqrt(m)
    distance = np.sort(near[..., 0], axis=-1)[:, :, 1 : NEAREST + 1]
    # distances to the nearest points shrink as the points grow denser
    return np.concatenate([histogram, distance * np.sqrt(m)], axis=-1)
