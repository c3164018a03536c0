"""Matching problems as arrays: pair features, geometry on either side, the truth."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True)
class Instances:
    """Matching problems of one shape: m points on the left, n on the right.

    Attributes
    ----------
    pair : ndarray, shape (k, m, n, F)
        Features of each pair of a left and a right point.
    left, right : ndarray, shapes (k, R, m, m) and (k, R, n, n)
        ``left[:, r, i, i']`` says how much i' lies where basis function r looks for neighbours of
        i; on the left each row sums to 1, or to 0 where there is no neighbour.
    distance : ndarray, shape (k, m, n)
        Between descriptors, for the matchers that learn nothing.
    truth : ndarray, shape (k, m, n)
        1 where a pair is a match, else 0; rows and columns sum to at most 1.
    total : ndarray, shape (k,)
        The number of matches that the layers and decoders are told.
    block : ndarray of int, shape (k,)
        Instances of different blocks are independent: no keypoint, or no draw, is shared.
    where : ndarray of int, shape (k, m + n)
        Which points the instance is made of, left ones first.
    """

    pair: np.ndarray
    left: np.ndarray
    right: np.ndarray
    distance: np.ndarray
    truth: np.ndarray
    total: np.ndarray
    block: np.ndarray
    where: np.ndarray

    def __len__(self) -> int:
        """Return the number of instances."""
        return len(self.truth)

    @property
    def shape(self) -> tuple[int, int]:
        """Return (m, n)."""
        return self.truth.shape[1], self.truth.shape[2]

    def take(self, rows: np.ndarray) -> Instances:
        """Return the instances `rows`, copied."""
        return Instances(*(getattr(self, one.name)[rows] for one in fields(self)))


def concatenate(parts: list[Instances]) -> Instances:
    """Return instances of one shape as one."""
    return Instances(
        *(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Instances))
    )


@dataclass(frozen=True)
class Dataset:
    """Instances of several shapes, numbered through.

    Attributes
    ----------
    groups : tuple of Instances
        One a shape.
    """

    groups: tuple[Instances, ...]

    def __len__(self) -> int:
        """Return the number of instances."""
        return sum(len(group) for group in self.groups)

    @property
    def labels(self) -> np.ndarray:
        """Return the group of each instance, shape (len(self),)."""
        return np.repeat(np.arange(len(self.groups)), [len(group) for group in self.groups])

    def take(self, rows: np.ndarray) -> Instances:
        """Return instances, all of one group, by their numbers."""
        starts = np.cumsum([0, *(len(group) for group in self.groups)])
        group = int(np.searchsorted(starts, rows[0], side="right")) - 1
        return self.groups[group].take(rows - starts[group])


def look(displacement: np.ndarray, centres: np.ndarray, width: float) -> np.ndarray:
    r"""Return Gaussian bumps of displacements or distances, zero for a point and itself.

    .. math:: \phi_r(i, i') = e^{-\|\delta_{ii'} - c_r\|^2 / 2 w^2}, \qquad i \ne i'

    Parameters
    ----------
    displacement : ndarray, shape (k, m, m, d)
    centres : ndarray, shape (R, d)
    width : float

    Returns
    -------
    ndarray, shape (k, R, m, m)
    """
    square = ((displacement[:, None] - centres[:, None, None]) ** 2).sum(axis=-1)
    bumps = np.exp(-square / (2.0 * width**2))
    m = displacement.shape[1]
    return bumps * (1.0 - np.eye(m))


def averaged(bumps: np.ndarray) -> np.ndarray:
    """Return `bumps` with rows that sum to 1, or to less where hardly anything is seen.

    The small constant keeps a row in which no neighbour is near a centre from being blown up.
    """
    return bumps / (bumps.sum(axis=-1, keepdims=True) + 0.05)


def displacements(points: np.ndarray) -> np.ndarray:
    """Return ``p[i'] − p[i]``, shape (k, m, m, 2), for points of shape (k, m, 2)."""
    return points[:, None, :, :] - points[:, :, None, :]
