r"""The network: a deep residual MLP over a window of characters, with one stream or several.

A window of T characters is embedded, flattened and mapped to C numbers. With one stream a block is

.. math:: x^+ = x + F(x), \qquad F(x) = W_2 \max(W_1 \operatorname{rms}(x) + b_1, 0) + b_2 ,

and with n streams :math:`x \in R^{n\times C}`, all equal at the entrance,

.. math::

    x^+ = H x + 2\sigma(q) \otimes F(\sigma(p)^\top x), \qquad
    (p, q, u) = \alpha \operatorname{rms}(\operatorname{vec} x)\,\varphi + b, \qquad H = M(u),

where M is the arm's way to make a mixing matrix (:mod:`.mixing`). The mean of the streams,
normalised, gives the logits of the next character. Block k starts with its gates turned towards
stream k mod n, so that streams differ from the first block on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hsref import nn, projection
from hsref.optim import tree_leaves, tree_map

from .._common import InputError
from . import operations as op
from .config import HyperConfig
from .mixing import PLAIN, interior_margin, make_mixing, start_matrix

CHUNK = 1024
"""Windows evaluated at once."""

OWN_READ, OWN_WRITE = 0.7, 1.6
"""Start of the gates of a block's own stream; the others share the rest of 1 and of n."""


@dataclass
class Seen:
    """What passed through the blocks while a network was applied.

    Attributes
    ----------
    logits : list of ndarray, each (B, k)
        What each block's mixing matrix was made from.
    mixing : list of ndarray, each (B, n, n)
    """

    logits: list[np.ndarray] = field(default_factory=list)
    mixing: list[np.ndarray] = field(default_factory=list)


class Model:
    """A network of one arm and one depth.

    Parameters
    ----------
    config : HyperConfig
    arm : str
        One of ``config.ARMS``.
    symbols : int
        Codes of characters.
    depth : int
        Blocks.
    """

    def __init__(self, config: HyperConfig, arm: str, symbols: int, depth: int) -> None:
        self.config, self.arm, self.symbols, self.depth = config, arm, symbols, depth
        self.mixing = (
            None
            if arm == PLAIN
            else make_mixing(arm, config.streams, config.epsilon, config.iterations)
        )
        self._like = tree_map(np.asarray, self._tree(0))

    @property
    def hidden(self) -> int:
        """Width inside a block.

        A block of the arm "projection" spends nC (n² + 2n) + n² + 2n + 3 numbers on its
        connections; the residual network has that many in a wider F, as nearly as whole units
        of 2C + 1 numbers allow.
        """
        config = self.config
        if self.arm != PLAIN:
            return config.hidden
        n, C = config.streams, config.width
        outputs = n * n + 2 * n
        return config.hidden + round((n * C * outputs + outputs + 3) / (2 * C + 1))

    def init(self, seed: int) -> np.ndarray:
        """Return initial parameters, one vector; what arms share starts alike for one seed."""
        return np.concatenate([np.reshape(leaf, -1) for leaf in tree_leaves(self._tree(seed))])

    def tree(self, params: Any) -> dict[str, Any]:
        """Return the vector of parameters as named arrays."""
        at = 0

        def take(shape: tuple[int, ...]) -> Any:
            nonlocal at
            start, at = at, at + math.prod(shape)
            return op.part(params, start, shape)

        return tree_map(lambda leaf: take(leaf.shape), self._like)

    def _tree(self, seed: int) -> dict[str, Any]:
        config, C = self.config, self.config.width
        rng = np.random.default_rng(seed)

        def normal(rows: int, columns: int, variance: float) -> np.ndarray:
            return math.sqrt(variance) * rng.standard_normal((rows, columns))

        reads = config.context * config.embedding
        params: dict[str, Any] = {
            "embedding": normal(self.symbols, config.embedding, 1.0),
            "input": {"W": normal(reads, C, 1.0 / reads), "b": np.zeros(C)},
            # small logits: the first loss is that of a uniform guess
            "output": {"W": normal(C, self.symbols, 0.01 / C), "b": np.zeros(self.symbols)},
            "blocks": [],
        }
        for k in range(self.depth):
            # one generator a block, so that the arms' different widths do not shift the others
            rng = np.random.default_rng([seed, k])
            block: dict[str, Any] = {
                "W1": normal(C, self.hidden, 2.0 / C),
                "b1": np.zeros(self.hidden),
                "W2": normal(self.hidden, C, 1.0 / (self.hidden * self.depth)),
                "b2": np.zeros(C),
            }
            if self.mixing is not None:
                block["links"] = self._connections(k, np.random.default_rng([seed, k, 1]))
            params["blocks"].append(block)
        return params

    def _connections(self, k: int, rng: np.random.Generator) -> dict[str, Any]:
        n, alpha = self.config.streams, self.config.alpha
        own = np.arange(n) == k % n
        opened = np.where(own, OWN_READ, (1.0 - OWN_READ) / (n - 1))
        written = np.where(own, OWN_WRITE, (n - OWN_WRITE) / (n - 1)) / 2.0
        size = n * self.config.width

        outputs = 2 * n + self.mixing.size
        gates = np.concatenate([opened / (1.0 - opened), written / (1.0 - written)])
        return {
            "W": rng.standard_normal((size, outputs)) / math.sqrt(size),
            "a": np.full(3, alpha),
            "b": np.concatenate([np.log(gates), np.zeros(self.mixing.size)]),
        }

    def apply(self, params: Any, windows: np.ndarray, seen: Seen | None = None) -> Any:
        """Return the logits of the next character, shape (B, V), of windows (B, T) of codes."""
        params = self.tree(params)
        x = op.embed(params["embedding"], windows)
        x = op.linear(x, params["input"]["W"], params["input"]["b"])
        if self.mixing is None:
            for block in params["blocks"]:
                x = x + self._inside(block, x)
            return op.linear(op.rms_norm(x), params["output"]["W"], params["output"]["b"])
        n, batch = self.config.streams, len(windows)
        x = op.copies(x, n)
        for block in params["blocks"]:
            flat = op.rms_norm(x.reshape((batch, -1)))
            link = block["links"]
            links = op.connections(flat, link["W"], link["a"], link["b"], n)
            logits = op.mixing_logits(links, n, self.mixing.start, self.mixing.gain)
            H = self.mixing.map(logits)
            if seen is not None:
                seen.logits.append(logits)
                seen.mixing.append(H)
            x = op.write(x, H, self._inside(block, op.read(x, links)), links)
        mean = op.mean_stream(x)
        return op.linear(op.rms_norm(mean), params["output"]["W"], params["output"]["b"])

    def _inside(self, block: Any, x: Any) -> Any:
        inner = op.rectify(op.linear(op.rms_norm(x), block["W1"], block["b1"]))
        return op.linear(inner, block["W2"], block["b2"])

    def loss(self, params: Any, windows: np.ndarray, targets: np.ndarray) -> Any:
        """Return the mean cross-entropy in nats a character."""
        return op.cross_entropy(self.apply(params, windows), targets)

    def check_start(self, params: Any, windows: np.ndarray) -> None:
        """Assert that training starts as it must.

        Every arm's mixing matrices are near the common start, and those of the arm that projects
        lie inside the polytope, for every window and block: at its vertices they could never
        learn.

        Raises
        ------
        InputError
            "the mixing matrices do not start inside the Birkhoff polytope ...; raise epsilon or
            lower alpha."
        """
        if self.mixing is None:
            return
        seen = Seen()
        self.apply(params, windows, seen)
        n = self.config.streams
        H = start_matrix(n, self.config.epsilon)
        if self.mixing.constraints is not None:
            margin = float(min(interior_margin(logits, n).min() for logits in seen.logits))
            if not margin > 0.0:
                raise InputError(
                    "the mixing matrices do not start inside the Birkhoff polytope (margin "
                    f"{margin:.3g}), where alone they can learn freely; raise epsilon or lower "
                    "alpha."
                )
        static = self.mixing.map(self.mixing.start[None])
        assert np.abs(static - H).max() < 1e-12, "the arms must share their initial matrix"


def losses(model: Model, params: Any, windows: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the cross-entropy of each of many windows, computed in chunks, shape (k,)."""
    chunks = [slice(first, first + CHUNK) for first in range(0, len(targets), CHUNK)]
    return np.concatenate(
        [op.surprise(model.apply(params, windows[rows]), targets[rows]) for rows in chunks]
    )


def look_inside(model: Model, params: Any, windows: np.ndarray) -> dict[str, Any]:
    """Return what the mixing matrices of `windows` are like.

    Returns
    -------
    dict
        ``gain`` and ``back_gain``: largest row and column sum of the entries' absolute values in
        the product of all blocks' matrices, averaged over windows; ``gain_max``, the larger of
        both for the worst window; ``row_error``, ``column_error``: largest distance of a row or
        column sum from 1; ``negative``: largest negative entry, as a positive number; for the arm
        that projects, ``dead_fraction``, ``mean_rank`` and ``boundary_fraction`` of the
        HS-Jacobian, and the first two also by block. A network without streams mixes nothing:
        gains 1, errors 0.
    """
    if model.mixing is None:
        return {
            "gain": 1.0, "back_gain": 1.0, "gain_max": 1.0, "row_error": 0.0,
            "column_error": 0.0, "negative": 0.0, "gain_by_block": [1.0] * model.depth,
        }  # fmt: skip
    seen = Seen()
    model.apply(params, windows, seen)
    product, by_block = np.eye(model.config.streams)[None], []
    for H in seen.mixing:
        product = np.matmul(H, product)
        by_block.append(float(np.abs(product).sum(axis=2).max(axis=1).mean()))
    forward = np.abs(product).sum(axis=2).max(axis=1)
    backward = np.abs(product).sum(axis=1).max(axis=1)
    matrices = np.array(seen.mixing)
    figures: dict[str, Any] = {
        "gain": float(forward.mean()),
        "back_gain": float(backward.mean()),
        "gain_max": float(max(forward.max(), backward.max())),
        "row_error": float(np.abs(matrices.sum(axis=3) - 1.0).max()),
        "column_error": float(np.abs(matrices.sum(axis=2) - 1.0).max()),
        "negative": float(max(0.0, -matrices.min())),
        "gain_by_block": by_block,
        "distance_from_identity": float(
            np.abs(matrices.mean(axis=1) - np.eye(model.config.streams)).sum(axis=2).mean()
        ),
    }
    C = model.mixing.constraints
    if C is not None:
        blocks = [
            nn.diagnostics(projection(logits.reshape(-1, *C.shape), C, n_threads=1))
            for logits in seen.logits
        ]
        for name in ("dead_fraction", "mean_rank", "boundary_fraction"):
            figures[name] = float(np.mean([getattr(one, name) for one in blocks]))
        figures["dead_by_block"] = [float(one.dead_fraction) for one in blocks]
        figures["rank_by_block"] = [float(one.mean_rank) for one in blocks]
    return figures
