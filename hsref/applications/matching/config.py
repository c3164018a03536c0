"""The settings of a matching run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from .._common import InputError, check_inside, check_runs, check_whole
from .graphs import NEAREST

TRAINED = ("projection", "substochastic", "softmax", "sinkhorn", "linsat")
"""The arms whose networks are trained."""

UNTRAINED = ("mutual_nearest", "descriptor_hungarian")
"""The arms that learn nothing; the ratio of ``mutual_nearest`` is tuned on training instances."""

ARMS = (*TRAINED, *UNTRAINED)
"""All arms, in the order of the report."""

WORLDS = ("images", "graphs")
"""What is matched: regions of an image pair, and random geometric graphs."""

LOSSES = ("bce", "frobenius")


@dataclass(frozen=True, kw_only=True)
class MatchingConfig:
    """Everything that decides a matching run, apart from the images themselves.

    Attributes
    ----------
    m, n : int
        Left and right keypoints of an image region.
    matches : int or None
        The number of matches that layers and decoders are told; None tells the true number of each
        instance, as is usual in graph matching.
    tolerance : float
        Pixels that a keypoint may be off its partner's true place.
    regions, test_regions : int
        Image regions to train on (for tuning too) and to test on.
    graphs, test_graphs : int
        Random graphs of each training shape, and of each test condition.
    inliers : int
        Inliers of the test graphs; training graphs have two thirds, all and four thirds of it.
    noise, outliers : float, int
        Of the test graphs, on each side, while the other one is swept.
    noises, outlier_counts : tuple
        The sweeps.
    loss : {"bce", "frobenius"}
        Smoothed binary cross-entropy, or the squared Frobenius distance over the entries.
    delta : float
        Smoothing of the cross-entropy, in (0, 1).
    iterations : int
        Of the Sinkhorn-like layers.
    seeds, tuning_seeds : tuple of int
        Of the reported runs, and of the runs that choose the learning rate. Disjoint.
    learning_rates : tuple of float
        The grid, the same for every arm.
    epochs, batch_size : int
        Passes over the instances, and instances a step.
    hidden : int
        Width of the hidden layers.
    data_seed : int
        Of regions and graphs.
    """

    m: int = 16
    n: int = 18
    matches: int | None = None
    tolerance: float = 2.0
    regions: int = 256
    test_regions: int = 168
    graphs: int = 24
    test_graphs: int = 48
    inliers: int = 15
    noise: float = 0.02
    outliers: int = 4
    noises: tuple[float, ...] = (0.0, 0.01, 0.02, 0.03, 0.045)
    outlier_counts: tuple[int, ...] = (0, 2, 4, 6, 8)
    loss: str = "bce"
    delta: float = 0.05
    iterations: int = 20
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    tuning_seeds: tuple[int, ...] = (1000, 1001, 1002)
    learning_rates: tuple[float, ...] = (1e-2, 3e-2, 1e-1, 3e-1)
    epochs: int = 15
    batch_size: int = 32
    hidden: int = 32
    data_seed: int = 7

    def __post_init__(self) -> None:
        for name, least in (
            ("m", 4),
            ("n", 4),
            ("regions", 8),
            ("test_regions", 8),
            ("graphs", 2),
            ("test_graphs", 2),
            ("inliers", 2 * NEAREST),
            ("outliers", 0),
            ("iterations", 1),
            ("epochs", 1),
            ("batch_size", 1),
            ("hidden", 1),
            ("data_seed", 0),
        ):
            check_whole(name, getattr(self, name), least)
        check_inside("tolerance", self.tolerance, 0.0, 20.0, open_below=True)
        check_inside("noise", self.noise, 0.0, 1.0)
        check_inside("delta", self.delta, 0.0, 1.0, open_below=True, open_above=True)
        for value in self.noises:
            check_inside("noises", value, 0.0, 1.0)
        for value in self.outlier_counts:
            check_whole("outlier_counts", value, 0)
        if self.matches is not None:
            check_whole("matches", self.matches, 1)
            if self.matches > min(self.m, self.n):
                raise InputError(
                    f"{self.m} left and {self.n} right keypoints have at most "
                    f"{min(self.m, self.n)} matches; matches is {self.matches}."
                )
        if self.loss not in LOSSES:
            raise InputError(f"loss must be one of {', '.join(LOSSES)}; got {self.loss!r}.")
        check_runs(self.seeds, self.tuning_seeds, self.learning_rates)

    def quick(self) -> MatchingConfig:
        """Return the same protocol with fewer seeds, rates and instances: a look, not a result."""
        return dataclasses.replace(
            self,
            seeds=self.seeds[:2],
            tuning_seeds=self.tuning_seeds[:1],
            learning_rates=self.learning_rates[1:2] or self.learning_rates,
            regions=min(self.regions, 32),
            test_regions=min(self.test_regions, 28),
            graphs=min(self.graphs, 4),
            test_graphs=min(self.test_graphs, 8),
            noises=self.noises[::4],
            outlier_counts=self.outlier_counts[::4],
            epochs=min(self.epochs, 2),
        )
