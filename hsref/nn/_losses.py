# autograd.numpy makes its names when imported; a type checker cannot see them.
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false
"""Losses that suit outputs with exact zeros."""

from __future__ import annotations

from typing import Any

import autograd.numpy as np


def _pair(y: Any, target: Any) -> tuple[Any, Any]:
    """Return both as arrays of one shape, the target in the precision of y."""
    y, target = np.array(y), np.array(target)
    if y.shape != target.shape:
        # (n, 1) against (n,) would broadcast to (n, n) and train on nonsense.
        raise ValueError(f"y has shape {y.shape}, target has shape {target.shape}.")
    if y.dtype.kind == "f" and target.dtype != y.dtype:
        target = target.astype(y.dtype)
    return y, target


def mse(y: Any, target: Any) -> Any:
    r"""Mean squared error.

    .. math:: \frac1N \sum_i (y_i - t_i)^2

    Parameters
    ----------
    y, target : array_like
        Of one shape. Not modified.

    Returns
    -------
    float
        The mean over all entries.

    Raises
    ------
    ValueError
        ``y has shape (3, 1), target has shape (3,).``

    Examples
    --------
    >>> float(mse([1.0, 2.0], [0.0, 0.0]))
    2.5
    """
    y, target = _pair(y, target)
    return np.mean((y - target) ** 2)


def smoothed_bce(y: Any, target: Any, delta: float = 1e-3, interior: Any = 0.5) -> Any:
    r"""Binary cross-entropy that stays finite where an output is exactly 0 or 1.

    .. math:: -\frac1N \sum_i t_i \log S_i + (1 - t_i) \log (1 - S_i), \qquad
              S = (1 - \delta)\, y + \delta\, p

    Parameters
    ----------
    y : array_like
        Values in [0, 1], zeros and ones included. Not modified.
    target : array_like
        Values in [0, 1], of the shape of y.
    delta : float
        :math:`\delta`, in (0, 1).
    interior : float or array_like
        p, in (0, 1), broadcast to y: an interior point of the set that y lies in keeps S inside.

    Returns
    -------
    float
        The mean over all entries; at most :math:`-\log(\delta \min(p, 1-p))`.

    Raises
    ------
    ValueError
        ``delta must lie in (0, 1); got 0.0.``; ``interior must lie in (0, 1).``;
        shapes that differ.

    Notes
    -----
    A projection returns exact zeros, where the plain loss is infinite and not locally Lipschitz,
    so that no convergence theorem covers it. With smoothing it is Lipschitz with constant
    :math:`(1-\delta) / (\delta \min(p, 1-p))` an entry.

    Examples
    --------
    >>> round(float(smoothed_bce([0.0, 1.0], [1.0, 1.0], delta=0.1)), 4)
    1.5235
    """
    y, target = _pair(y, target)
    delta = float(delta)
    if not 0.0 < delta < 1.0:
        raise ValueError(f"delta must lie in (0, 1); got {delta!r}.")
    point = np.array(interior, dtype=float)
    point = point.astype(y.dtype) if y.dtype.kind == "f" else point
    if not np.all((point > 0.0) & (point < 1.0)):
        raise ValueError("interior must lie in (0, 1).")
    S = (1.0 - delta) * y + delta * point
    return -np.mean(target * np.log(S) + (1.0 - target) * np.log(1.0 - S))
