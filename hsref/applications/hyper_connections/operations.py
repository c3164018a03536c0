"""The operations of the network as autograd primitives with their reverse passes written out.

A step consists of a few hundred operations on arrays of tens of kilobytes, where what autograd
spends on each is felt; so each of these does the work of several. They are differentiable once, in
reverse mode, which is what training needs. Arrays are float64, the batch axis in front.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from autograd.extend import SparseObject, defvjp, primitive, vspace
from scipy.sparse import csr_matrix

EPSILON = 1e-8
"""Added to the mean square of `rms_norm`."""


def sigmoid(x: Any) -> Any:
    """Return 1 / (1 + exp(−x)) without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * x))


@primitive
def part(flat: Any, start: int, shape: tuple[int, ...]) -> Any:
    """Return the numbers of a vector from `start` on, as an array of `shape`.

    All parameters are one vector, because a gradient with respect to nested containers makes
    autograd visit every container once for every array in it.
    """
    return flat[start : start + math.prod(shape)].reshape(shape)


def _part_reverse(flat: Any, start: int, g: Any) -> Any:
    def add(whole: Any) -> Any:
        whole[start : start + g.size] += g.reshape(-1)
        return whole

    return SparseObject(vspace(flat), add)


defvjp(part, lambda ans, flat, start, shape: lambda g: _part_reverse(flat, start, g), argnums=(0,))


@primitive
def embed(table: Any, codes: Any) -> Any:
    """Return the rows of `table` (V, e) that `codes` (B, T) name, in one row: (B, T·e)."""
    return table[codes].reshape(len(codes), -1)


def _embed_reverse(table: Any, codes: Any, g: Any) -> Any:
    rows = codes.reshape(-1)
    chosen = csr_matrix(
        (np.ones(rows.size), (rows, np.arange(rows.size))), shape=(len(table), rows.size)
    )
    return chosen @ g.reshape(rows.size, -1)


defvjp(embed, lambda ans, table, codes: lambda g: _embed_reverse(table, codes, g), argnums=(0,))


@primitive
def linear(x: Any, weights: Any, bias: Any) -> Any:
    """Return x W + b for x (B, k), W (k, m), b (m,)."""
    return x @ weights + bias


defvjp(
    linear,
    lambda ans, x, weights, bias: lambda g: g @ weights.T,
    lambda ans, x, weights, bias: lambda g: x.T @ g,
    lambda ans, x, weights, bias: lambda g: g.sum(axis=0),
)


@primitive
def connections(x: Any, weights: Any, scales: Any, bias: Any, n: int) -> Any:
    """Return (x W) · a + b for x (B, k), W (k, m), b (m,), a made of three numbers.

    Columns [0, n) belong to the gates that read, [n, 2 n) to those that write and the rest to the
    mixing matrix; `scales` (3,) holds the factor of each.
    """
    return (x @ weights) * _factors(scales, bias, n) + bias


def _factors(scales: Any, bias: Any, n: int) -> Any:
    return np.repeat(scales, (n, n, bias.size - 2 * n))


def _scales_reverse(x: Any, weights: Any, n: int, g: Any) -> Any:
    return np.add.reduceat(np.einsum("bm,bm->m", g, x @ weights), (0, n, 2 * n))


defvjp(
    connections,
    lambda ans, x, weights, a, b, n: lambda g: (g * _factors(a, b, n)) @ weights.T,
    lambda ans, x, weights, a, b, n: lambda g: x.T @ (g * _factors(a, b, n)),
    lambda ans, x, weights, a, b, n: lambda g: _scales_reverse(x, weights, n, g),
    lambda ans, x, weights, a, b, n: lambda g: g.sum(axis=0),
    argnums=(0, 1, 2, 3),
)


def _padded(like: Any, first: int, values: Any) -> Any:
    """Return zeros shaped like `like` with `values` in the columns from `first` on."""
    whole = np.zeros(like.shape)
    whole[:, first : first + values.shape[1]] = values
    return whole


@primitive
def mixing_logits(links: Any, n: int, start: Any, gain: float) -> Any:
    """Return start + gain · (the columns of `links` for the mixing matrix)."""
    return start + gain * links[:, 2 * n :]


defvjp(
    mixing_logits,
    lambda ans, links, n, start, gain: lambda g: _padded(links, 2 * n, gain * g),
    argnums=(0,),
)


@primitive
def rms_norm(x: Any) -> Any:
    """Return x over the root of its mean square along the last axis."""
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + EPSILON)


def _rms_reverse(ans: Any, x: Any, g: Any) -> Any:
    root = np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + EPSILON)
    return (g - ans * np.mean(g * ans, axis=-1, keepdims=True)) / root


defvjp(rms_norm, lambda ans, x: lambda g: _rms_reverse(ans, x, g))


@primitive
def rectify(x: Any) -> Any:
    """Return max(x, 0)."""
    return np.maximum(x, 0.0)


defvjp(rectify, lambda ans, x: lambda g: g * (x > 0.0))


@primitive
def read(x: Any, links: Any) -> Any:
    """Return Σ_j σ(links_j) x_j for streams x (B, n, C) and `connections` (B, m): (B, C)."""
    return np.matmul(sigmoid(links[:, None, : x.shape[1]]), x)[:, 0]


def _read_reverse_gates(x: Any, links: Any, g: Any) -> Any:
    opened = sigmoid(links[:, : x.shape[1]])
    return _padded(links, 0, np.matmul(x, g[:, :, None])[:, :, 0] * opened * (1.0 - opened))


defvjp(
    read,
    lambda ans, x, links: lambda g: sigmoid(links[:, : x.shape[1], None]) * g[:, None, :],
    lambda ans, x, links: lambda g: _read_reverse_gates(x, links, g),
)


@primitive
def write(x: Any, mixing: Any, update: Any, links: Any) -> Any:
    """Return H x + 2 σ(links) ⊗ update for x (B, n, C), H (B, n, n), update (B, C): (B, n, C)."""
    n, out = x.shape[1], np.matmul(mixing, x)
    out += 2.0 * sigmoid(links[:, n : 2 * n, None]) * update[:, None, :]
    return out


def _write_reverse_update(n: int, links: Any, g: Any) -> Any:
    return np.matmul(2.0 * sigmoid(links[:, None, n : 2 * n]), g)[:, 0]


def _write_reverse_gates(n: int, update: Any, links: Any, g: Any) -> Any:
    opened = sigmoid(links[:, n : 2 * n])
    slope = np.matmul(g, update[:, :, None])[:, :, 0] * 2.0 * opened * (1.0 - opened)
    return _padded(links, n, slope)


defvjp(
    write,
    lambda ans, x, mixing, update, links: lambda g: np.matmul(mixing.transpose(0, 2, 1), g),
    lambda ans, x, mixing, update, links: lambda g: np.matmul(g, x.transpose(0, 2, 1)),
    lambda ans, x, mixing, update, links: lambda g: _write_reverse_update(x.shape[1], links, g),
    lambda ans, x, mixing, update, links: (
        lambda g: _write_reverse_gates(x.shape[1], update, links, g)
    ),
)


@primitive
def mean_stream(x: Any) -> Any:
    """Return the mean of the streams of x (B, n, C), shape (B, C)."""
    return x.mean(axis=1)


defvjp(
    mean_stream,
    lambda ans, x: lambda g: np.repeat(g[:, None, :] / x.shape[1], x.shape[1], axis=1),
)


@primitive
def copies(x: Any, n: int) -> Any:
    """Return n copies of x (B, C) as streams, (B, n, C)."""
    return np.repeat(x[:, None, :], n, axis=1)


defvjp(copies, lambda ans, x, n: lambda g: g.sum(axis=1), argnums=(0,))


@primitive
def weighted_permutations(logits: Any, permutations: Any) -> Any:
    """Return Σ_p softmax(logits)_p P_p for logits (B, n!), P (n!, n, n): (B, n, n)."""
    count, n, _ = permutations.shape
    mixed = _softmax(logits) @ permutations.reshape(count, -1)
    return mixed.reshape(-1, n, n)


def _softmax(logits: Any) -> Any:
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def _permutations_reverse(logits: Any, permutations: Any, g: Any) -> Any:
    weights = _softmax(logits)
    along = g.reshape(len(g), -1) @ permutations.reshape(len(permutations), -1).T
    return weights * (along - np.sum(weights * along, axis=-1, keepdims=True))


defvjp(
    weighted_permutations,
    lambda ans, logits, permutations: lambda g: _permutations_reverse(logits, permutations, g),
    argnums=(0,),
)


@primitive
def cross_entropy(logits: Any, targets: Any) -> Any:
    """Return the mean over the batch of −log softmax(logits)[target], in nats."""
    return np.mean(surprise(logits, targets))


def surprise(logits: Any, targets: Any) -> Any:
    """Return −log softmax(logits)[target] of each sample, shape (B,)."""
    top = logits.max(axis=-1)
    total = np.log(np.exp(logits - top[:, None]).sum(axis=-1)) + top
    return total - logits[np.arange(len(targets)), targets]


def _entropy_reverse(logits: Any, targets: Any, g: Any) -> Any:
    slope = _softmax(logits)
    slope[np.arange(len(targets)), targets] -= 1.0
    return slope * (g / len(targets))


defvjp(
    cross_entropy,
    lambda ans, logits, targets: lambda g: _entropy_reverse(logits, targets, g),
    argnums=(0,),
)
