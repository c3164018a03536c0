"""Regions of an image pair as matching problems, split into rows for training and for testing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._common import InputError
from .instances import Instances, averaged, displacements, look
from .keypoints import Keypoints, correspondences, detect
from .pairs import ImagePair

BANDS = 5
"""Bands of rows, with as many left keypoints each; see :data:`TEST`."""

TEST = (1, 3)
"""Bands that are tested on; the others are trained on."""

VALIDATION = (2,)
"""Bands of training that learning rates are chosen on."""

MARGIN = 8.0
"""Rows at either side of a band that are left out, so that bands share no descriptor's core."""

FEWEST = 3
"""Matches that a region must have."""

RINGS = (0.45, 0.9, 1.5)
"""Distances, in region radii, at which the basis functions look for neighbours."""

DIRECTIONS = 8
"""Directions in which they look."""


@dataclass(frozen=True)
class Scene:
    """Keypoints of both views, their truth, and their bands.

    Attributes
    ----------
    left, right : Keypoints
    partner : ndarray of int, shape (len(left),)
        Right partner of each left keypoint, −1 for none.
    disparity : ndarray, shape (len(left),)
        NaN where not known.
    edges : ndarray, shape (BANDS + 1,)
        Rows between the bands.
    radius : float
        Median distance to the m-th nearest left keypoint, in pixels.
    """

    left: Keypoints
    right: Keypoints
    partner: np.ndarray
    disparity: np.ndarray
    edges: np.ndarray
    radius: float

    def inside(self, keypoints: Keypoints, band: int) -> np.ndarray:
        """Return the keypoints of a band, its margins left out."""
        row = keypoints.place[:, 0]
        low, high = self.edges[band] + MARGIN, self.edges[band + 1] - MARGIN
        return np.flatnonzero((row >= low) & (row < high))


def make_scene(pair: ImagePair, m: int, n: int, tolerance: float) -> Scene:
    """Detect, describe and match by the truth.

    Raises
    ------
    InputError
        For a view or a band with too few keypoints, or too few true matches.
    """
    left, right = (
        detect(image, side, pair.source)
        for image, side in ((pair.left, "left"), (pair.right, "right"))
    )
    for side, found, needed in (("left", left, m), ("right", right, n)):
        if len(found) < 2 * BANDS * needed:
            raise InputError(
                f"the {side} image of {pair.source} has {len(found)} keypoints, too few: "
                f"{2 * BANDS * needed} are needed for regions of {needed}."
            )
    partner = correspondences(pair, left, right, tolerance)
    place = np.rint(left.place).astype(int)
    # ties in rows are many; edges half a row off decide them alike in both views
    quantiles = np.quantile(left.place[:, 0], np.linspace(0.0, 1.0, BANDS + 1))
    edges = np.floor(quantiles) + 0.5
    edges[0], edges[-1] = -MARGIN, pair.left.shape[0] + MARGIN
    near = np.linalg.norm(left.place[:, None] - left.place[None], axis=-1)
    radius = float(np.median(np.partition(near, m - 1, axis=1)[:, m - 1]))
    disparity = pair.disparity[place[:, 0], place[:, 1]]
    scene = Scene(left, right, partner, disparity, edges, radius)
    for band in range(BANDS):
        rows = scene.inside(left, band)
        counts = (rows.size, scene.inside(right, band).size)
        if counts[0] < m or counts[1] < n:
            raise InputError(
                f"band {band + 1} of {BANDS} of {pair.source} has {counts[0]} keypoints on the "
                f"left and {counts[1]} on the right, too few for a region of {m} and {n}."
            )
        matches = int((partner[rows] >= 0).sum())
        if matches < 2 * FEWEST:
            raise InputError(
                f"band {band + 1} of {BANDS} of {pair.source} has {matches} true matches, too few; "
                "check that the disparity is that of the left image, in pixels."
            )
    return scene


def make_regions(
    scene: Scene,
    bands: tuple[int, ...],
    count: int,
    m: int,
    n: int,
    matches: int | None,
    cells: bool,
    rng: np.random.Generator,
) -> Instances:
    """Return regions around random left keypoints.

    Parameters
    ----------
    scene : Scene
    bands : tuple of int
    count : int
        Regions, as equal as possible over bands and cells.
    m, n : int
        A region has the m left keypoints nearest to its centre and the n right keypoints nearest
        to the centre moved by the region's median disparity and by chance.
    matches : int or None
        The total that is told; None tells the true one.
    cells : bool
        Cut the bands into cells of columns that share no left keypoint; each is a block.
    rng : numpy.random.Generator
        Advanced.

    Returns
    -------
    Instances
        Fewer than `count` where a cell holds too few true matches.
    """
    places = []
    for band in bands:
        rows = scene.inside(scene.left, band)
        rows = rows[np.argsort(scene.left.place[rows, 1], kind="stable")]
        places += [
            (band, part)
            for part in np.array_split(rows, max(1, rows.size // (2 * m)) if cells else 1)
        ]
    chosen = []
    for block, (band, members) in enumerate(places):
        right = scene.inside(scene.right, band)
        quota = count // len(places) + (block < count % len(places))
        for _ in range(quota):
            found = _region(scene, members, right, m, n, rng)
            if found is not None:
                chosen.append((block, *found))
    if not chosen:
        raise InputError(
            f"no region of {m} and {n} keypoints has {FEWEST} true matches; take larger regions."
        )
    blocks = np.array([one[0] for one in chosen])
    return describe(
        scene,
        np.stack([one[1] for one in chosen]),
        np.stack([one[2] for one in chosen]),
        blocks,
        matches,
    )


def _region(
    scene: Scene, left: np.ndarray, right: np.ndarray, m: int, n: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the left and right keypoints of one region, or None after 20 vain tries."""
    for _ in range(20):
        centre = scene.left.place[rng.choice(left)]
        jitter = rng.uniform(-0.3, 0.3, 2) * scene.radius
        ours = _nearest(scene.left, left, centre, m)
        known = scene.disparity[ours][np.isfinite(scene.disparity[ours])]
        if not known.size:
            continue
        moved = centre - np.array([0.0, np.median(known)]) + jitter
        theirs = _nearest(scene.right, right, moved, n)
        if np.isin(scene.partner[ours], theirs).sum() >= FEWEST:
            return rng.permutation(ours), rng.permutation(theirs)
    return None


def _nearest(keypoints: Keypoints, among: np.ndarray, centre: np.ndarray, count: int) -> np.ndarray:
    square = ((keypoints.place[among] - centre) ** 2).sum(axis=1)
    return among[np.argsort(square, kind="stable")[:count]]


def describe(
    scene: Scene, ours: np.ndarray, theirs: np.ndarray, blocks: np.ndarray, matches: int | None
) -> Instances:
    """Return regions as arrays.

    Notes
    -----
    Positions enter only as displacements within a view: the network is not told that the views are
    rectified, nor where in the image it is.
    """
    left, right = scene.left, scene.right
    m, n = ours.shape[1], theirs.shape[1]
    truth = (scene.partner[ours][:, :, None] == theirs[:, None, :]).astype(float)
    bits = (left.bits[ours][:, :, None, :] != right.bits[theirs][:, None, :, :]).mean(axis=-1)
    alike = np.einsum("kif,kjf->kij", left.patch[ours], right.patch[theirs])
    turn = left.angle[ours][:, :, None] - right.angle[theirs][:, None, :]
    scale = np.log2(left.scale[ours])[:, :, None] - np.log2(right.scale[theirs])[:, None, :]
    # the measure of a corner is negative on an edge
    log_left, log_right = (np.log(np.maximum(one.response, 0.0) + 1e-6) for one in (left, right))
    strength = log_left[ours][:, :, None] - log_right[theirs][:, None, :]
    pair = [bits, *_margins(bits), alike, *_margins(-alike), np.cos(turn), np.sin(turn)]
    pair += [np.abs(scale), np.abs(strength)]
    angle = 2.0 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS
    compass = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    centres = np.concatenate([ring * compass for ring in RINGS])
    seen_left, seen_right = (
        look(displacements(points) / scene.radius, centres, 0.3)
        for points in (left.place[ours], right.place[theirs])
    )
    count = len(ours)
    total = truth.sum(axis=(1, 2))
    if matches is not None:
        total = np.full(count, float(matches))
    return Instances(
        pair=np.stack(pair, axis=-1),
        left=averaged(seen_left),
        right=seen_right,
        distance=bits,
        truth=truth,
        total=total,
        block=blocks,
        where=np.concatenate([ours, theirs], axis=1).reshape(count, m + n),
    )


def _margins(distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how much farther a pair is than the best other pair of its row, and of its column."""
    return tuple(  # type: ignore[return-value]
        distance - _best_other(distance, axis) for axis in (2, 1)
    )


def _best_other(distance: np.ndarray, axis: int) -> np.ndarray:
    two = np.partition(distance, 1, axis=axis)
    first, second = (np.take(two, [place], axis=axis) for place in (0, 1))
    return np.where(distance == first, second, first)
