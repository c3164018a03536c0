"""Keypoints and descriptors of each view on its own, and which of them truly correspond."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._common import InputError, need
from .pairs import ImagePair

CANDIDATES = 6000
"""Corners a view is asked for, before those too close to a stronger one are dropped."""

APART = 4.0
"""Pixels between two keypoints of a view: one corner seen on two scales is one keypoint."""

PATCH = 5
"""Half side of the grey patch that is compared besides the binary descriptor, in pixels."""


@dataclass(frozen=True)
class Keypoints:
    """What a detector finds in one view.

    Attributes
    ----------
    place : ndarray, shape (k, 2)
        Row and column.
    bits : ndarray of bool, shape (k, 256)
        ORB descriptors.
    patch : ndarray, shape (k, (2 PATCH + 1)²)
        Grey patches of mean 0 and length 1.
    angle, scale, response : ndarray, shape (k,)
        Orientation in radians, size, strength.
    """

    place: np.ndarray
    bits: np.ndarray
    patch: np.ndarray
    angle: np.ndarray
    scale: np.ndarray
    response: np.ndarray

    def __len__(self) -> int:
        """Return the number of keypoints."""
        return len(self.place)


def detect(image: np.ndarray, side: str, source: str) -> Keypoints:
    """Find keypoints in one view, strongest first, knowing nothing of the other view.

    Parameters
    ----------
    image : ndarray, shape (height, width)
    side, source : str
        For messages.

    Returns
    -------
    Keypoints

    Raises
    ------
    InputError
        "no keypoints were found in the left image of ...; it has too little contrast."

    References
    ----------
    E. Rublee, V. Rabaud, K. Konolige and G. Bradski, "ORB: an efficient alternative to SIFT or
    SURF", 2011.
    """
    orb = need("skimage.feature").ORB(
        n_keypoints=CANDIDATES, n_scales=5, downscale=1.25, fast_threshold=0.02
    )
    try:
        orb.detect_and_extract(image.copy())  # it refuses read-only arrays
    except RuntimeError as error:
        raise InputError(
            f"no keypoints were found in the {side} image of {source}; it has too little contrast."
        ) from error
    place = np.asarray(orb.keypoints, dtype=np.float64)
    kept = _spread(place, np.asarray(orb.responses), image.shape)
    return Keypoints(
        place[kept],
        np.asarray(orb.descriptors)[kept],
        _patches(image, place[kept]),
        np.asarray(orb.orientations, dtype=np.float64)[kept],
        np.asarray(orb.scales, dtype=np.float64)[kept],
        np.asarray(orb.responses, dtype=np.float64)[kept],
    )


def _spread(place: np.ndarray, response: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return which keypoints have no stronger one nearby, strongest first."""
    neighbours = need("scipy.spatial").cKDTree(place).query_ball_point(place, APART)
    free = np.ones(len(place), dtype=bool)
    inside = ((place >= PATCH + 1) & (place < np.array(shape) - PATCH - 1)).all(axis=1)
    kept = []
    for i in np.lexsort((place[:, 1], place[:, 0], -response)).tolist():
        if free[i] and inside[i]:
            kept.append(i)
            free[neighbours[i]] = False
    return np.array(kept, dtype=np.int64)


def _patches(image: np.ndarray, place: np.ndarray) -> np.ndarray:
    smooth = need("scipy.ndimage").gaussian_filter(image, 1.0)
    offsets = np.arange(-PATCH, PATCH + 1)
    rows, columns = (np.rint(place[:, axis]).astype(int) for axis in (0, 1))
    found = smooth[
        rows[:, None, None] + offsets[None, :, None], columns[:, None, None] + offsets[None, None]
    ].reshape(len(place), -1)
    found = found - found.mean(axis=1, keepdims=True)
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-6)


def visible(disparity: np.ndarray) -> np.ndarray:
    """Return which pixels of the left view are not hidden in the right one, bool.

    Of all pixels of a row that land on one column of the right view the nearest, with the largest
    disparity, is seen; what lies more than a pixel of disparity behind it is hidden, and so is
    what falls out of the view.

    Examples
    --------
    >>> visible(np.array([[1.0, 1.0, 1.0, 3.0, np.nan]])).tolist()
    [[False, False, True, True, False]]
    """
    height, width = disparity.shape
    known = np.isfinite(disparity)
    rows, columns = np.nonzero(known)
    target = np.rint(columns - disparity[known]).astype(int)
    inside = target >= 0
    nearest = np.full((height, width), -np.inf)
    np.maximum.at(nearest, (rows[inside], target[inside]), disparity[known][inside])
    seen = np.zeros((height, width), dtype=bool)
    hit = disparity[known] >= nearest[rows, np.maximum(target, 0)] - 1.0
    seen[rows, columns] = inside & hit
    return seen


def correspondences(
    pair: ImagePair, left: Keypoints, right: Keypoints, tolerance: float
) -> np.ndarray:
    """Return the right partner of each left keypoint, −1 for none.

    Two keypoints are partners if each is the nearest to where the disparity sends the other one,
    at most `tolerance` pixels away, and the left one is not hidden in the right view.

    Returns
    -------
    ndarray of int, shape (len(left),)
    """
    place = np.rint(left.place).astype(int)
    disparity = pair.disparity[place[:, 0], place[:, 1]]
    usable = visible(pair.disparity)[place[:, 0], place[:, 1]]
    partner = np.full(len(left), -1)
    who = np.flatnonzero(usable)
    if not who.size or not len(right):
        return partner
    sent = left.place[who] - np.stack([np.zeros(who.size), disparity[who]], axis=1)
    tree: Any = need("scipy.spatial").cKDTree
    near, j = tree(right.place).query(sent)
    back = tree(sent).query(right.place)[1]
    mutual = (near <= tolerance) & (back[j] == np.arange(who.size))
    partner[who[mutual]] = j[mutual]
    return partner
