r"""Sinkhorn's iterations extended to the limits of a portfolio, and their exact reverse pass.

The layer that projection is compared with, compiled, as a baseline deserves. It does what
:func:`hsref.applications._entropic.extended_sinkhorn` does for sums over disjoint groups of the
entries of a vector. The reverse pass computes the iterates again for one sample at a time, so that
its memory does not grow with the batch.

Notes
-----
A *family* is a set of disjoint groups, each with a bound of its own: the sectors, say, or every
entry by itself under a cap. Families are visited in turn. A visit to a group takes the table

.. math:: \begin{pmatrix} x_1 & \cdots & x_l & s \\ c_1 & \cdots & c_l & q \end{pmatrix}

and scales its columns to sums (1, ..., 1, b), then its rows to sums (b, l); where the group must
hold exactly b there is no last column, and the rows sum to (b, l − b).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.extend import defvjp, primitive

from hsref._jit import device_function

from .._entropic import bounded


@dataclass(frozen=True)
class Families:
    """Sums over disjoint groups of entries, family by family.

    Attributes
    ----------
    labels : ndarray of int64, shape (F, n)
        The group of each entry in each family, counted from 0, and -1 for none.
    bounds, sizes : ndarray, shape (F, G)
        Bound and number of entries of each group; families of fewer groups leave the rest at 0.
    equality : ndarray of bool, shape (F,)
        Whether the family's sums must equal their bounds; otherwise they may be less.
    """

    labels: np.ndarray
    bounds: np.ndarray
    sizes: np.ndarray
    equality: np.ndarray

    @classmethod
    def of(cls, parts: list[tuple[np.ndarray, np.ndarray, bool]]) -> Families:
        """Make them from (labels, bounds, equality) of each family.

        Examples
        --------
        >>> whole = (np.zeros(3, int), np.ones(1), True)
        >>> Families.of([(np.array([0, 1, -1]), np.array([0.4, 0.3]), False), whole]).sizes
        array([[1., 1.],
               [3., 0.]])
        """
        width = max(len(bounds) for _, bounds, _ in parts)
        bounds, sizes = np.zeros((len(parts), width)), np.zeros((len(parts), width))
        for f, (label, bound, _) in enumerate(parts):
            bounds[f, : len(bound)] = bound
            sizes[f, : len(bound)] = np.bincount(label[label >= 0], minlength=len(bound))
        labels = np.array([label for label, _, _ in parts], dtype=np.int64)
        return cls(labels, bounds, sizes, np.array([equal for _, _, equal in parts]))


@device_function
def visit(x, below, slack, label, bound, size, equality, top, rest):
    """Scale the tables of one family: x (n,), below (n,) and slack (2, G) are replaced."""
    n, groups = x.shape[0], slack.shape[1]
    for g in range(groups):
        top[g] = 0.0
        rest[g] = 0.0
    for j in range(n):
        g = label[j]
        if g >= 0:
            filled = x[j] + below[j]
            x[j] /= filled
            below[j] /= filled
            top[g] += x[j]
            rest[g] += below[j]
    for g in range(groups):
        if size[g] > 0.0:
            if equality:
                top[g] = bound[g] / top[g]
                rest[g] = (size[g] - bound[g]) / rest[g] if size[g] > bound[g] else 0.0
            else:
                share = bound[g] / (slack[0, g] + slack[1, g])
                slack[0, g] *= share
                slack[1, g] *= share
                top[g] = bound[g] / (top[g] + slack[0, g])
                rest[g] = size[g] / (rest[g] + slack[1, g])
                slack[0, g] *= top[g]
                slack[1, g] *= rest[g]
    for j in range(n):
        g = label[j]
        if g >= 0:
            x[j] *= top[g]
            below[j] *= rest[g]


@device_function
def start(raised, x, below, slack):
    """Begin the iterations of one sample: x holds `raised`, everything else is 1."""
    families, n = below.shape
    for j in range(n):
        x[j] = raised[j]
    for f in range(families):
        for j in range(n):
            below[f, j] = 1.0
        for g in range(slack.shape[2]):
            slack[f, 0, g] = 1.0
            slack[f, 1, g] = 1.0


@device_function
def iterate(raised, labels, bounds, sizes, equality, iterations, out, below, slack, top, rest):
    """Write to `out` (B, n) what the iterations make of `raised` (B, n)."""
    for b in range(raised.shape[0]):
        start(raised[b], out[b], below, slack)
        for _ in range(iterations):
            for f in range(labels.shape[0]):
                visit(
                    out[b], below[f], slack[f], labels[f], bounds[f], sizes[f], equality[f],
                    top, rest,
                )  # fmt: skip


@device_function
def visit_reverse(
    gx, gb, gs, x, below, slack, label, bound, size, equality, top, rest, along, across
):
    """Take cotangents of one visit's results back to what it was given (x, below, slack).

    gx (n,), gb (n,) and gs (2, G) are replaced; top, rest, along and across (G,) are scratch.
    """
    n, groups = x.shape[0], slack.shape[1]
    for g in range(groups):
        top[g] = 0.0
        rest[g] = 0.0
        along[g] = 0.0
        across[g] = 0.0
    for j in range(n):
        g = label[j]
        if g >= 0:
            filled = x[j] + below[j]
            top[g] += x[j] / filled
            rest[g] += below[j] / filled
            along[g] += gx[j] * x[j] / filled
            across[g] += gb[j] * below[j] / filled
    # from here on top and rest are the factors of the rows, along and across the cotangents of
    # the sums that these factors divide by
    for g in range(groups):
        if size[g] > 0.0:
            if equality:
                total, remainder = top[g], rest[g]
                top[g] = bound[g] / total
                rest[g] = (size[g] - bound[g]) / remainder if size[g] > bound[g] else 0.0
                along[g] *= -top[g] / total
                across[g] *= -rest[g] / remainder if size[g] > bound[g] else 0.0
            else:
                used, unused = slack[0, g], slack[1, g]
                share = bound[g] / (used + unused)
                total = top[g] + used * share
                remainder = rest[g] + unused * share
                top[g] = bound[g] / total
                rest[g] = size[g] / remainder
                along[g] = -(along[g] + gs[0, g] * used * share) * top[g] / total
                across[g] = -(across[g] + gs[1, g] * unused * share) * rest[g] / remainder
                g_used = gs[0, g] * top[g] + along[g]
                g_unused = gs[1, g] * rest[g] + across[g]
                common = -(g_used * used + g_unused * unused) * share / (used + unused)
                gs[0, g] = g_used * share + common
                gs[1, g] = g_unused * share + common
    for j in range(n):
        g = label[j]
        if g >= 0:
            filled = x[j] + below[j]
            g_upper = gx[j] * top[g] + along[g]
            g_lower = gb[j] * rest[g] + across[g]
            common = (g_upper * x[j] + g_lower * below[j]) / (filled * filled)
            gx[j] = g_upper / filled - common
            gb[j] = g_lower / filled - common


@device_function
def iterate_reverse(
    raised, g, labels, bounds, sizes, equality, iterations, out, xs, belows, slacks,
    below, slack, gb, gs, scratch,
):  # fmt: skip
    """Write to `out` (B, n) the product of g (B, n) with the Jacobian of :func:`iterate`.

    `xs` and `belows` (iterations F, n) and `slacks` (iterations F, 2, G) hold what each visit of
    one sample was given; `gb` and `gs` have the shapes of `below` and `slack`.
    """
    families, n = labels.shape
    groups = bounds.shape[1]
    for b in range(raised.shape[0]):
        start(raised[b], out[b], below, slack)
        for k in range(iterations * families):
            f = k % families
            for j in range(n):
                xs[k, j] = out[b, j]
                belows[k, j] = below[f, j]
            for i in range(groups):
                slacks[k, 0, i] = slack[f, 0, i]
                slacks[k, 1, i] = slack[f, 1, i]
            visit(
                out[b], below[f], slack[f], labels[f], bounds[f], sizes[f], equality[f],
                scratch[0], scratch[1],
            )  # fmt: skip
        for j in range(n):
            out[b, j] = g[b, j]
            for f in range(families):
                gb[f, j] = 0.0
        for f in range(families):
            for i in range(groups):
                gs[f, 0, i] = 0.0
                gs[f, 1, i] = 0.0
        for back in range(iterations * families):
            k = iterations * families - 1 - back
            f = k % families
            visit_reverse(
                out[b], gb[f], gs[f], xs[k], belows[k], slacks[k], labels[f], bounds[f], sizes[f],
                equality[f], scratch[0], scratch[1], scratch[2], scratch[3],
            )  # fmt: skip


@primitive
def limited(raised: Any, families: Families, iterations: int) -> Any:
    """Return what the iterations make of positive numbers `raised`, shape (B, n)."""
    shape, groups = families.labels.shape, families.bounds.shape[1]
    out = np.empty(raised.shape)
    iterate(
        np.ascontiguousarray(raised), families.labels, families.bounds, families.sizes,
        families.equality, iterations, out, np.empty(shape), np.empty((shape[0], 2, groups)),
        np.empty(groups), np.empty(groups),
    )  # fmt: skip
    return out


def _reverse(raised: Any, families: Families, iterations: int, g: Any) -> np.ndarray:
    (count, n), groups = families.labels.shape, families.bounds.shape[1]
    visits, out = iterations * count, np.empty(raised.shape)
    iterate_reverse(
        np.ascontiguousarray(raised), np.ascontiguousarray(g), families.labels, families.bounds,
        families.sizes, families.equality, iterations, out, np.empty((visits, n)),
        np.empty((visits, n)), np.empty((visits, 2, groups)), np.empty((count, n)),
        np.empty((count, 2, groups)), np.empty((count, n)), np.empty((count, 2, groups)),
        np.empty((4, groups)),
    )  # fmt: skip
    return out


defvjp(
    limited,
    lambda ans, raised, families, iterations: lambda g: _reverse(raised, families, iterations, g),
    argnums=(0,),
)


def linsat(scores: Any, families: Families, iterations: int) -> Any:
    """Return positive numbers that nearly meet the sums of all families.

    Parameters
    ----------
    scores : array, shape (B, n)
    families : Families
        The one visited last is met exactly, the others in the limit.
    iterations : int

    Returns
    -------
    array, shape (B, n)
        Differentiable by autograd once, in reverse mode: exactly, that of the iterations done.

    References
    ----------
    R. Wang, Y. Zhang, Z. Guo, T. Chen, X. Yang and J. Yan, "LinSATNet: the positive linear
    satisfiability neural networks", 2023.

    Examples
    --------
    >>> whole = (np.zeros(3, int), np.ones(1), True)
    >>> families = Families.of([(np.array([0, -1, -1]), np.array([0.5]), False), whole])
    >>> linsat(np.array([[5.0, 0.0, 0.0]]), families, 200).round(3)
    array([[0.483, 0.259, 0.259]])
    """
    return limited(anp.exp(bounded(scores)), families, iterations)
