"""Pairs of images with known disparity: the pair inside scikit-image, or a user's own, checked."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .._common import InputError, need

SMALLEST_SIDE = 64
"""Pixels; a smaller image has no room for regions to train and to test on."""


@dataclass(frozen=True)
class ImagePair:
    """A rectified pair of views: partners lie on the same row.

    Attributes
    ----------
    left, right : ndarray, shape (height, width), float64
        Grey values in [0, 1].
    disparity : ndarray, shape (height, width), float64
        Of the left view in pixels: left[r, c] shows what right[r, c − disparity[r, c]] shows. NaN
        where it is not known.
    source : str
        Where the pair comes from, for the report.
    """

    left: np.ndarray
    right: np.ndarray
    disparity: np.ndarray
    source: str


def load_pair(
    left: str | os.PathLike[str] | None = None,
    right: str | os.PathLike[str] | None = None,
    disparity: str | os.PathLike[str] | None = None,
) -> ImagePair:
    """Load a pair of images, or the motorcycle of Middlebury 2014 that comes with scikit-image.

    Parameters
    ----------
    left, right : path-like or None
        Image files of one size, rectified. None for both takes ``skimage.data.stereo_motorcycle``,
        whose files are part of the package and need no network.
    disparity : path-like or None
        Disparity of the left view in pixels: ``.npy``, the first array of an ``.npz``, or an image
        whose values are pixels. Not finite or not positive means not known.

    Returns
    -------
    ImagePair

    Raises
    ------
    InputError
        For files that are missing, cannot be read, disagree in size, are constant or too small,
        and for a disparity that says nothing: one sentence.
    MissingExtraError
        If scikit-image is not installed.

    Notes
    -----
    The docstring of ``stereo_motorcycle`` states the other direction, left[r, c + d] ~ right[r, c].
    Measured on the images themselves, the direction used here leaves half the mean difference in
    grey; it is also the convention of the data set.
    """
    colour = need("skimage.color")
    if left is None and right is None:
        if disparity is not None:
            raise InputError("a disparity needs the pair of images it belongs to; give --pair.")
        one, other, known = need("skimage.data").stereo_motorcycle()
        return checked_pair(
            colour.rgb2gray(one),
            colour.rgb2gray(other),
            known,
            "the motorcycle of Middlebury 2014 (scikit-image's stereo_motorcycle)",
        )
    if left is None or right is None:
        raise InputError("a pair needs both images, the left and the right.")
    if disparity is None:
        raise InputError(
            "an image pair needs --disparity, its known disparity: without it there is no truth to "
            "train on or to score against."
        )
    images = [_grey(Path(name), side) for name, side in ((left, "left"), (right, "right"))]
    source = f"{Path(left).name} and {Path(right).name}"
    return checked_pair(images[0], images[1], _disparity(Path(disparity)), source)


def _present(path: Path, what: str) -> Path:
    if not path.exists():
        raise InputError(f"the {what} {path} does not exist.")
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the file with the {what}.")
    return path


def _read(path: Path, what: str) -> np.ndarray:
    images = need("PIL.Image")
    try:
        with images.open(_present(path, what)) as image:
            if image.mode in ("P", "PA", "LA", "CMYK"):
                image = image.convert("RGB")
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError, images.DecompressionBombError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the {what} {path} cannot be read as an image.") from error


def _grey(path: Path, side: str) -> np.ndarray:
    """Return the grey values of an image file in [0, 1]."""
    what = f"{side} image"
    values = _read(path, what)
    if values.ndim == 3 and values.shape[2] in (3, 4):
        return need("skimage.color").rgb2gray(values[:, :, :3])
    if values.ndim != 2:
        raise InputError(
            f"the {what} {path} has the shape {values.shape}; one grey or colour image is needed."
        )
    if values.dtype.kind == "i":  # 16 bits in a wider integer
        values = np.clip(values, 0, 65535).astype(np.uint16)
    return need("skimage").img_as_float64(values)


def _disparity(path: Path) -> np.ndarray:
    """Return the disparity in a file, one number a pixel."""
    what = "disparity"
    if path.suffix in (".npy", ".npz"):
        _present(path, what)
        try:
            # no pickles: reading a file must not run what is in it
            found = np.load(path, allow_pickle=False)
            values = found[found.files[0]] if path.suffix == ".npz" else found
            return np.asarray(values, dtype=np.float64)
        except (OSError, ValueError, IndexError, EOFError) as error:
            raise InputError(f"the {what} {path} cannot be read as an array of numbers.") from error
    return _read(path, what).astype(np.float64)


def checked_pair(
    left: np.ndarray, right: np.ndarray, disparity: np.ndarray, source: str = "an image pair"
) -> ImagePair:
    """Check two grey images and the disparity of the left one, and return them as a pair.

    Parameters
    ----------
    left, right, disparity : array_like, shape (height, width)
        Not modified.
    source : str
        Name used in messages and in the report.

    Returns
    -------
    ImagePair

    Raises
    ------
    InputError
        One sentence that says what cannot be used.
    """
    images = []
    for image, side in ((left, "left"), (right, "right")):
        values = np.array(image, dtype=np.float64)
        if values.ndim != 2 or min(values.shape) < SMALLEST_SIDE:
            raise InputError(
                f"the {side} image of {source} has the shape {values.shape}; both sides must have "
                f"at least {SMALLEST_SIDE} pixels."
            )
        if not np.isfinite(values).all():
            row, column = np.argwhere(~np.isfinite(values))[0]
            raise InputError(
                f"the {side} image of {source} holds no finite number at row {row}, column "
                f"{column}."
            )
        if np.ptp(values) < 1.0 / 256.0:
            raise InputError(
                f"the {side} image of {source} is constant; there is nothing in it to match."
            )
        values.setflags(write=False)
        images.append(values)
    if images[0].shape != images[1].shape:
        raise InputError(
            f"the images of {source} must have one size; they have {images[0].shape} and "
            f"{images[1].shape}."
        )
    known = np.array(disparity, dtype=np.float64)
    if known.shape != images[0].shape:
        raise InputError(
            f"the disparity of {source} has the shape {known.shape}, its images have "
            f"{images[0].shape}."
        )
    known[~(np.isfinite(known) & (known > 0.0))] = np.nan
    if np.isnan(known).all():
        raise InputError(f"the disparity of {source} holds no positive number.")
    known.setflags(write=False)
    return ImagePair(images[0], images[1], known, source)
