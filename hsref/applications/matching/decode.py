"""From a matrix of matches, or of distances, to pairs of points; and how good the pairs are."""

from __future__ import annotations

import numpy as np

from .instances import Instances


def hungarian(X: np.ndarray, total: np.ndarray, least: float | None = None) -> np.ndarray:
    """Return the assignment of largest sum, of which the `total` largest entries are kept.

    Parameters
    ----------
    X : ndarray, shape (k, m, n)
        Larger is better.
    total : ndarray, shape (k,)
        Pairs to keep of each instance.
    least : float or None
        Keep the entries above this instead, however many there are.

    Returns
    -------
    ndarray of bool, shape (k, m, n)
        At most one pair a row and a column.

    Examples
    --------
    >>> X = np.array([[[0.9, 0.8], [0.8, 0.1]]])
    >>> hungarian(X, np.array([2])).astype(int).tolist()
    [[[0, 1], [1, 0]]]
    """
    from scipy.optimize import linear_sum_assignment

    chosen = np.zeros(X.shape, dtype=bool)
    for k, scores in enumerate(X):  # SciPy assigns one matrix at a time
        rows, columns = linear_sum_assignment(scores, maximize=True)
        values = scores[rows, columns]
        if least is not None:
            kept = np.flatnonzero(values > least)
        else:
            kept = np.argsort(-values, kind="stable")[: round(float(total[k]))]
        chosen[k, rows[kept], columns[kept]] = True
    return chosen


def largest(X: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Return the `total` largest entries of each instance, bool, with no regard to rows.

    Examples
    --------
    >>> largest(np.array([[[0.9, 0.8], [0.7, 0.1]]]), np.array([2])).astype(int).tolist()
    [[[1, 1], [0, 0]]]
    """
    flat = X.reshape(len(X), -1)
    rank = np.empty(flat.shape, dtype=np.int64)
    order = np.argsort(-flat, axis=1, kind="stable")
    np.put_along_axis(rank, order, np.arange(flat.shape[1])[None, :], axis=1)
    return (rank < np.rint(total)[:, None]).reshape(X.shape)


def mutual(distance: np.ndarray, ratio: float) -> np.ndarray:
    """Return pairs that are each other's nearest, and clearly nearer than the second of the row.

    Parameters
    ----------
    distance : ndarray, shape (k, m, n)
    ratio : float
        Largest distance allowed, in units of that to the second nearest; 1 allows all but ties.

    Returns
    -------
    ndarray of bool, shape (k, m, n)

    References
    ----------
    D. G. Lowe, "Distinctive image features from scale-invariant keypoints", 2004.

    Examples
    --------
    >>> mutual(np.array([[[0.1, 0.5], [0.4, 0.45]]]), 0.8).astype(int).tolist()
    [[[1, 0], [0, 0]]]
    """
    m, n = distance.shape[1:]
    best_row, best_column = distance.argmin(axis=2), distance.argmin(axis=1)
    pairs = (np.arange(n) == best_row[:, :, None]) & (
        np.arange(m)[:, None] == best_column[:, None, :]
    )
    if n > 1:
        two = np.partition(distance, 1, axis=2)
        pairs &= (two[:, :, 0] <= ratio * two[:, :, 1])[:, :, None]
    return pairs


def f1(chosen: np.ndarray, truth: np.ndarray) -> np.ndarray:
    r"""Return the F1 score of each instance, shape (k,).

    .. math:: F_1 = \frac{2\,\#(\text{chosen and true})}{\#\text{chosen} + \#\text{true}}

    Examples
    --------
    >>> f1(np.array([[[True, False], [False, True]]]), np.array([[[1.0, 0.0], [0.0, 0.0]]]))
    array([0.66666667])
    """
    right = (chosen * truth).sum(axis=(1, 2))
    return 2.0 * right / np.maximum(chosen.sum(axis=(1, 2)) + truth.sum(axis=(1, 2)), 1.0)


RATIOS = tuple(np.round(np.arange(0.5, 1.001, 0.05), 2).tolist())
"""Ratios that are tried on the training instances."""


def tuned_ratio(groups: tuple[Instances, ...]) -> float:
    """Return the ratio of :func:`mutual` with the best mean F1 on training instances."""
    scores = [
        np.mean(np.concatenate([f1(mutual(one.distance, ratio), one.truth) for one in groups]))
        for ratio in RATIOS
    ]
    return RATIOS[int(np.argmax(scores))]
