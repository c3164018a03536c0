"""The settings of a run with hyper-connections, and the problem they lead to."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._checkpoint import Checkpoint, digest
from .._common import InputError
from .._training import Task
from .text import Text, encode, topics_of_python

ARMS = ("projection", "permutations", "sinkhorn", "unconstrained", "residual")
"""All arms, in the order of the report."""

CONSTRAINED = ("projection", "permutations", "sinkhorn")
"""Arms whose mixing matrices are meant to be doubly stochastic."""


@dataclass(frozen=True)
class DepthTask(Task):
    """One training run at one depth.

    Attributes
    ----------
    depth : int
        Blocks.
    """

    depth: int = 8


@dataclass(frozen=True, kw_only=True)
class HyperConfig:
    """Everything that decides a run, apart from the text.

    Attributes
    ----------
    streams : int
        n, parallel residual streams, 2 to 5 (the arm ``permutations`` weighs n! matrices).
    depth : int
        Blocks of the networks that learning rates are tuned on and that all `seeds` are run at.
    depths : tuple of int
        Further depths, run with `depth_seeds` and the learning rate tuned at `depth`.
    width : int
        C, numbers in a stream.
    hidden : int
        Width inside a block. The residual network's is larger, so that it has as many parameters
        as the one with projections.
    context : int
        Characters read.
    embedding : int
        Numbers a character becomes.
    epsilon : float
        ε of the common start H₀ = (1 − ε) I + (ε/n) 11ᵀ, in (0, 1].
    alpha : float
        Start of the factor before the part of a connection that depends on the input.
    iterations : int
        Rounds of Sinkhorn.
    batch_size, steps : int
        Windows a step; steps.
    warmup : int
        Steps over which the step size rises, before half a cosine takes it to zero.
    clip : float
        Largest norm of a gradient; longer ones are shortened.
    beta1, beta2 : float
        Of Adam.
    learning_rates : tuple of float
        The grid, the same for every arm.
    seeds, depth_seeds, tuning_seeds : tuple of int
        Of the reported runs at `depth`, at `depths` (some of `seeds`), and of those that choose
        the learning rate (none of `seeds`).
    fraction : float
        Part of the characters that learning rates are chosen on, and part that is reported on.
    split_seed : int
        Decides which topics go where.
    scored : int
        Windows of a part that losses are measured on, evenly spread; all if there are fewer.
    every : int
        Steps between two entries of the history, and between two checkpoints.
    """

    streams: int = 4
    depth: int = 8
    depths: tuple[int, ...] = (2, 16)
    width: int = 48
    hidden: int = 96
    context: int = 32
    embedding: int = 16
    epsilon: float = 0.4
    alpha: float = 0.01
    iterations: int = 20
    batch_size: int = 128
    steps: int = 2500
    warmup: int = 100
    clip: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.99
    learning_rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2, 1e-1)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    depth_seeds: tuple[int, ...] = (0, 1)
    tuning_seeds: tuple[int, ...] = (1000,)
    fraction: float = 0.1
    split_seed: int = 0
    scored: int = 8192
    every: int = 100

    def __post_init__(self) -> None:
        for name in ("depth", "width", "hidden", "context", "embedding", "iterations", "every"):
            self._whole(name, 1)
        for name in ("batch_size", "steps", "scored"):
            self._whole(name, 1)
        self._whole("warmup", 0)
        self._whole("split_seed", 0)
        self._whole("streams", 2)
        if self.streams > 5:
            raise InputError(
                f"streams must be at most 5, for one arm weighs all n! permutations; got "
                f"{self.streams}."
            )
        if not 0.0 < self.epsilon <= 1.0:
            raise InputError(
                "epsilon must lie in (0, 1]; at 0 the mixing matrices start at a vertex of the "
                f"Birkhoff polytope, where the HS-Jacobian is zero; got {self.epsilon!r}."
            )
        if not 0.0 < self.fraction < 0.4:
            raise InputError(f"fraction must lie in (0, 0.4); got {self.fraction!r}.")
        for name in ("alpha", "clip"):
            value = getattr(self, name)
            if not 0.0 < value < math.inf:
                raise InputError(f"{name} must be positive and finite; got {value!r}.")
        for name in ("beta1", "beta2"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InputError(f"{name} must lie in [0, 1); got {getattr(self, name)!r}.")
        if self.warmup >= self.steps:
            raise InputError(
                f"warmup must be shorter than the run; got {self.warmup} of {self.steps} steps."
            )
        self._check_sequences()

    def _check_sequences(self) -> None:
        for name in ("seeds", "depth_seeds", "tuning_seeds", "learning_rates", "depths"):
            values = getattr(self, name)
            if len(set(values)) != len(values) or (not values and name != "depths"):
                raise InputError(
                    f"{name} must hold at least one entry and none twice; got {values}."
                )
        if any(not (0.0 < rate < math.inf) for rate in self.learning_rates):
            raise InputError("learning_rates must be positive.")
        for name in ("seeds", "depth_seeds", "tuning_seeds"):
            if any(int(seed) != seed or seed < 0 for seed in getattr(self, name)):
                raise InputError(f"{name} must be whole numbers that are not negative.")
        if set(self.seeds) & set(self.tuning_seeds):
            raise InputError(
                "seeds and tuning_seeds must differ, or the learning rate would be chosen on the "
                "runs that are reported."
            )
        if not set(self.depth_seeds) <= set(self.seeds):
            raise InputError(
                f"depth_seeds must be among seeds; got {self.depth_seeds} and {self.seeds}."
            )
        if any(int(depth) != depth or depth < 1 for depth in self.depths):
            raise InputError(f"depths must be positive whole numbers; got {self.depths}.")
        if self.depth in self.depths:
            raise InputError(f"depths must not hold depth itself, {self.depth}.")

    def _whole(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise InputError(f"{name} must be a whole number of at least {least}; got {value!r}.")

    def quick(self) -> HyperConfig:
        """Return the same protocol with fewer seeds, rates and steps: a look, not a result."""
        return dataclasses.replace(
            self,
            depth=4,
            depths=(2,),
            width=24,
            hidden=48,
            steps=60,
            warmup=10,
            every=20,
            scored=1024,
            seeds=self.seeds[:2],
            depth_seeds=self.seeds[:1],
            learning_rates=self.learning_rates[1:3] or self.learning_rates,
        )


@dataclass(frozen=True)
class Problem:
    """A configuration together with encoded text; what a training run needs to know.

    Attributes
    ----------
    config : HyperConfig
    text : Text
    source : str
        Where the text comes from, for the report.
    checkpoints : str or None
        Folder of the checkpoints; None makes none.
    key : str
        Digest of configuration and text, by which problems compare and hash.
    """

    config: HyperConfig = field(compare=False)
    text: Text = field(compare=False, repr=False)
    source: str = field(compare=False)
    checkpoints: str | None = field(compare=False)
    key: str

    def tasks(self) -> list[DepthTask]:
        """Return the runs that choose learning rates."""
        config = self.config
        return [
            DepthTask(arm, "tune", seed, rate, config.depth)
            for arm in ARMS
            for rate in config.learning_rates
            for seed in config.tuning_seeds
        ]

    def reported(self, rates: Mapping[str, float]) -> list[DepthTask]:
        """Return the runs that are reported, given each arm's learning rate."""
        config = self.config
        wanted = [(config.depth, config.seeds)]
        wanted += [(depth, config.depth_seeds) for depth in config.depths]
        return [
            DepthTask(arm, "final", seed, rates[arm], depth)
            for depth, seeds in wanted
            for seed in seeds
            for arm in ARMS
        ]

    def checkpoint(self, task: DepthTask) -> Checkpoint | None:
        """Return where the run of `task` keeps what it needs to go on."""
        if self.checkpoints is None:
            return None
        return Checkpoint.of(self.checkpoints, self.training_key, task)

    @property
    def training_key(self) -> str:
        """Digest of what decides a single run: more seeds or depths do not make it another."""
        fields = dataclasses.asdict(self.config)
        lists = ("learning_rates", "seeds", "depth_seeds", "tuning_seeds", "depths", "depth")
        for name in lists:
            fields.pop(name)
        return digest(fields, self.text.key)


def make_problem(
    config: HyperConfig,
    topics: Mapping[str, str] | None = None,
    checkpoints: Any = None,
) -> Problem:
    """Encode the text and check that it goes together with `config`.

    Parameters
    ----------
    config : HyperConfig
    topics : mapping of str to str or None
        Texts by name; None takes the topics of Python's help.
    checkpoints : path-like or None
        Folder of the checkpoints.

    Raises
    ------
    InputError
        Where the text is too small to be split.
    """
    source = "the topics given"
    if topics is None:
        topics, source = topics_of_python(), "the topics of Python's own help (pydoc_data.topics)"
    text = encode(topics, config.context, config.fraction, config.split_seed)
    folder = None if checkpoints is None else str(checkpoints)
    return Problem(config, text, source, folder, digest(config, text.key))
