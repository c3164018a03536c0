# autograd.numpy makes its names when imported; a type checker cannot see them.
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false
"""T8, T9, T12: the chain rule along segments, inside kinks, and through networks."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..conservativity import degenerate_paths
from ..linear import kernel_projectors
from ..pieces import affine_pieces
from ..planted import Cases
from ..subject import SELECTIONS, images, observe
from ._outcome import Outcome, cache_of, largest

LOOP = 4
"""Corners of the closed polygons."""
STRETCH = 0.4
"""Length of a path through a network, in units of a normal step: a few kinks on each."""


def segments(cases: Cases, rng: np.random.Generator) -> Outcome:
    """T8: ∫Vγ′ = Π(γ(1)) - Π(γ(0)) on segments with exact breakpoints, and 0 around loops."""
    out, rows = Outcome(), cases.rows
    P = len(cases.x) // LOOP * LOOP or len(cases.x)
    x0 = cases.x[rng.permutation(len(cases.x))[:P]]
    corners = x0.reshape(-1, min(LOOP, P), rows.n)
    x1 = np.roll(corners, -1, axis=1).reshape(P, rows.n)
    pieces = affine_pieces(cases.C, x0, x1, cache=cache_of(cases.C, rows).local, skip=True)
    # a loop with a segment that was given up is left out as a whole
    keep = ~pieces.skipped.reshape(-1, corners.shape[1]).any(axis=1).repeat(corners.shape[1])
    out.excluded = int((~keep).sum())
    step, k = x1 - x0, pieces.segment
    scale = np.maximum(rows.scale(x0), rows.scale(x1))
    length = (pieces.end - pieces.start)[:, None]
    at = x0[k] + (pieces.start + 0.4637 * (pieces.end - pieces.start))[:, None] * step[k]
    seen = observe(cases.C, at)
    moved = images(cases.C, x1) - images(cases.C, x0)
    left = pieces.rest * np.linalg.norm(step, axis=1)
    for selection in SELECTIONS:
        rate = seen.product(step[k], selection)
        total = np.zeros_like(moved)
        np.add.at(total, k, length * rate)
        error = (largest(total - moved) + left) / scale
        out.add(f"integral ({selection})", np.where(keep, error, np.nan), 1e-9)
        if selection == "active":
            loop = total.reshape(*corners.shape).sum(axis=1)
            reach = scale.reshape(len(corners), -1).max(axis=1)
            whole = keep.reshape(len(corners), -1).all(axis=1)
            out.add("loop", np.where(whole, largest(loop) / reach, np.nan), 1e-9)
        worst = np.zeros(P)
        np.maximum.at(worst, k, largest(length * (rate - pieces.velocity)))
        out.add(f"interval ({selection})", worst / scale, 1e-9)
    # all elements at the interior points, not only the layer's
    every = np.zeros(P)
    for local, i in cache_of(cases.C, rows).groups(rows.active(seen.y))[0]:
        present = local.present(local.admissible(at[i] - seen.y[i]))
        error = local.worst_error(step[k[i]], pieces.velocity[i], present)
        np.maximum.at(every, k[i], error * length[i, 0])
    out.add("interval (every element)", every / scale, 1e-9)
    out.notes["intervals"] = len(k)
    return out


def kinks(cases: Cases, rng: np.random.Generator) -> Outcome:
    """T9: on paths that stay inside a kink, every admissible V gives the velocity of Π."""
    out, rows = Outcome(), cases.rows
    y = images(cases.C, cases.x)
    cache = cache_of(cases.C, rows)
    _, left = cache.groups(rows.active(y))
    keep = np.flatnonzero(~left)
    out.excluded = int(left.sum())
    if not len(keep):
        return out
    x = cases.x[keep]
    path = degenerate_paths(rows, x, y[keep], cache.local, rng)
    move = path.x1 - path.x0
    scale = np.maximum(rows.scale(path.x0), rows.scale(path.x1))
    shape = len(cases.x)
    every, moved = np.zeros(shape), np.zeros(shape)
    layer = {s: np.zeros(shape) for s in SELECTIONS}
    elements = np.zeros(len(keep), dtype=int)
    for _ in range(2):
        t = rng.uniform(0.05, 0.95, size=(len(keep), 1))
        seen = observe(cases.C, x + t * move)
        gap = largest(seen.y - (y[keep] + t * path.velocity)) / scale
        moved[keep] = np.maximum(moved[keep], gap)
        for s in SELECTIONS:
            error = largest(seen.product(move, s) - path.velocity) / scale
            layer[s][keep] = np.maximum(layer[s][keep], error)
        for local, i in cache.groups(rows.active(seen.y))[0]:
            present = local.present(local.admissible(seen.x[i] - seen.y[i]))
            error = local.worst_error(move[i], path.velocity[i], present)
            every[keep[i]] = np.maximum(every[keep[i]], error / scale[i])
            elements[i] = present.sum(axis=1)
    out.add("Π(γ(t)) = z + tu", moved, 1e-10)
    out.add("every element", every, 1e-12)
    for s in SELECTIONS:
        out.add(s, layer[s], 1e-12)
    out.notes["paths with more than one element"] = int((elements > 1).sum())
    return out


class Network:
    r"""Two projections with smooth layers between.

    .. math:: \ell(\Pi(c+\arctan(W_2(\Pi(x^*+W_1(h(\theta)-h(\theta^*)))-c))))

    Each path has weights of its own. The input of the first projection passes through a chosen
    point x* in the middle of the path, along its face only for every second path, so that networks
    are followed through kinks and inside kinks.
    """

    def __init__(self, cases: Cases, paths: np.ndarray, rng: np.random.Generator) -> None:
        rows = cases.rows
        P, n, q = len(paths), rows.n, 4
        self.C, self.n, self.q = cases.C, n, q
        self.x = cases.x[paths]
        self.start, self.move = rng.normal(size=(2, P, q))
        self.move *= STRETCH
        W = rng.normal(size=(P, n, q))
        V = kernel_projectors(rows, rows.active(images(cases.C, self.x)))
        V[::2] = np.eye(n)
        self.W1 = np.einsum("pij,pjk->pik", V, W)
        self.W0 = rng.normal(size=(q, q)) / 2.0
        self.W2 = rng.normal(size=(n, n))
        self.c = np.asarray(cases.C.interior_point(), dtype=np.float64).reshape(n)
        self.target = self.c + rng.normal(size=n)
        middle = self.start + 0.5 * self.move
        self.middle = np.tanh(np.einsum("kq,qr->kr", middle, self.W0))

    def __call__(self, theta: Any, path: np.ndarray) -> Any:
        """Return the loss of each row of θ, shape (K, q), on the network of its path.

        Sums by einsum: a matrix product may run on several threads, and its last bits then depend
        on how the batch is cut.
        """
        import autograd.numpy as anp

        import hsref

        hidden = anp.tanh(anp.einsum("kq,qr->kr", theta, self.W0)) - self.middle[path]
        x = self.x[path] + anp.einsum("kij,kj->ki", self.W1[path], hidden)
        y = hsref.project(anp.reshape(x, (-1, *self.C.shape)), self.C, n_threads=1)
        inner = anp.reshape(y, (-1, self.n)) - self.c
        u = self.c + anp.arctan(anp.einsum("kn,nm->km", inner, self.W2))
        z = hsref.project(anp.reshape(u, (-1, *self.C.shape)), self.C, n_threads=1)
        error = anp.reshape(z, (-1, self.n)) - self.target
        return anp.sum(error**2, axis=1) / (1.0 + self.n) + anp.sum(anp.sin(theta), axis=1)

    def gradient(self, theta: np.ndarray, path: np.ndarray) -> np.ndarray:
        """Return what reverse-mode automatic differentiation gives, shape (K, q)."""
        from autograd import grad

        return grad(lambda t: self(t, path).sum())(theta)


# Gauss–Legendre nodes and weights on [0, 1]
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(5)
_NODES, _WEIGHTS = (_NODES + 1.0) / 2.0, _WEIGHTS / 2.0


def networks(cases: Cases, rng: np.random.Generator) -> Outcome:
    """T12: φ(γ(1)) - φ(γ(0)) = ∫⟨automatic gradient, γ′⟩, and gradients at generic points."""
    out = Outcome()
    paths = rng.permutation(len(cases.x))[: max(4, len(cases.x) // 4)]
    net = Network(cases, paths, rng)
    out.cases = len(paths)
    out.add("integral", _along(net, len(paths)), 1e-6)
    index = np.arange(len(paths))
    theta = (
        net.start
        + rng.uniform(size=(len(paths), 1)) * net.move
        + rng.normal(scale=0.1, size=net.start.shape)
    )
    error = _gradient_error(net, theta, index)
    out.add("gradient", error, 1e-6)
    out.notes["gradients not compared beside a kink"] = int(np.isnan(error).sum())
    return out


def _along(net: Network, P: int, rounds: int = 80, budget: int = 60) -> np.ndarray:
    """Return the error of the identity on each path.

    Panels on which Gauss–Legendre does not reproduce the difference of φ are cut around the place
    where a single kink would be. If the field is conservative the error sits at kinks and vanishes
    with the panels around them; if it is not, it has a density, panels multiply, and the budget of
    a path ends the refinement.
    """
    path = np.repeat(np.arange(P), 4)
    a = np.tile(np.arange(4) / 4.0, P)
    b = a + 0.25
    halve = np.zeros(len(a), dtype=bool)
    total, spent = np.zeros(P), np.zeros(P)

    def at(path: np.ndarray, t: np.ndarray) -> np.ndarray:
        return net.start[path] + t[:, None] * net.move[path]

    size = 1.0 + np.abs(net(at(np.arange(P), np.zeros(P)), np.arange(P)))
    for _ in range(rounds):
        if not len(path):
            break
        np.add.at(spent, path, 1.0)
        width = b - a
        t = (a[:, None] + width[:, None] * _NODES).ravel()
        many = np.repeat(path, len(_NODES))
        g = net.gradient(at(many, t), many)
        rate = np.einsum("kq,kq->k", g, net.move[many]).reshape(len(path), -1)
        integral = width * (rate @ _WEIGHTS)
        ends = net(at(np.concatenate([path, path]), np.concatenate([a, b])),
                   np.concatenate([path, path]))  # fmt: skip
        change = ends[len(path) :] - ends[: len(path)]
        error = integral - change
        done = np.abs(error) <= 1e-9 * size[path]
        done |= (width <= 2e-8) | (spent[path] > 16 * budget)
        np.add.at(total, path[done], error[done])
        todo = ~done
        path, a, b = path[todo], a[todo], b[todo]
        left, right = _around_kink(a, b, rate[todo], change[todo], halve[todo])
        parent = np.tile(b - a, 3)
        path, a, b = (
            np.tile(path, 3),
            np.concatenate([a, left, right]),
            np.concatenate([left, right, b]),
        )
        # where the guess did not help the next cut is in the middle
        halve = b - a > 0.51 * parent
        some = b > a
        path, a, b, halve = path[some], a[some], b[some], halve[some]
    np.add.at(total, path, b - a)
    return np.abs(total) / size


def _around_kink(
    a: np.ndarray, b: np.ndarray, rate: np.ndarray, change: np.ndarray, halve: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return where to cut panels: on both sides of the kink, if there is one between two slopes.

    With slope L before it and R behind it, φ changes by L s + R (1 - s) over a panel of length 1
    whose kink is at s; curvature moves that estimate by the order of the panel's length. A panel
    without such an s is halved, and so are those marked.
    """
    width = b - a
    with np.errstate(divide="ignore", invalid="ignore"):
        s = (change / width - rate[:, -1]) / (rate[:, 0] - rate[:, -1])
    found = (s > 0.0) & (s < 1.0) & ~halve
    reach = np.clip(2.0 * width, 2e-3, 0.2)
    left = np.where(found, np.maximum(s - reach, 0.0), 0.5)
    right = np.where(found, np.minimum(s + reach, 1.0), 0.5)
    return a + left * width, a + right * width


def _gradient_error(net: Network, theta: np.ndarray, path: np.ndarray) -> np.ndarray:
    """Return the distance from central differences, NaN where these straddle a kink."""
    h = 1e-5
    step = h * np.eye(net.q)
    shifted = (theta[:, None] + step, theta[:, None] - step)
    many = np.repeat(path, net.q)
    values = [net(s.reshape(-1, net.q), many).reshape(len(path), -1) for s in shifted]
    slopes = [
        net.gradient(s.reshape(-1, net.q), many).reshape(len(path), net.q, -1) for s in shifted
    ]
    found = (values[0] - values[1]) / (2.0 * h)
    g = net.gradient(theta, path)
    size = 1.0 + np.abs(g).max(axis=1)
    # Slopes of a smooth function lie on a line but for h²; a kink on one side of θ, or under it,
    # shows as half the jump, which is also what it does to the difference.
    bend = (slopes[0] + slopes[1]) / 2.0 - g[:, None]
    jump = slopes[0] - slopes[1]
    smooth = np.abs(bend).max(axis=(1, 2)) <= 1e-7 * size
    smooth &= np.abs(jump).max(axis=(1, 2)) <= 1e-2 * size
    return np.where(smooth, np.abs(found - g).max(axis=1) / size, np.nan)
