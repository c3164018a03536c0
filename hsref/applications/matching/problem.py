"""The two problems of a matching run: regions of an image pair, and random geometric graphs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from .config import MatchingConfig
from .graphs import NEAREST, Condition, draw
from .instances import Dataset
from .pairs import ImagePair
from .regions import BANDS, TEST, VALIDATION, Scene, make_regions, make_scene


@dataclass(frozen=True)
class Problem:
    """What a training run needs to know; small, so that it travels between processes.

    Attributes
    ----------
    config : MatchingConfig
    world : {"images", "graphs"}
    scene : Scene or None
        Keypoints of the image pair.
    source : str
        What is matched, for the report.
    key : str
        Digest of the above, by which problems compare and hash.
    """

    config: MatchingConfig = field(compare=False)
    world: str = field(compare=False)
    scene: Scene | None = field(compare=False, repr=False)
    source: str = field(compare=False)
    key: str

    def conditions(self) -> tuple[Condition, ...]:
        """Return the conditions of the test graphs, one a group of the test set; none of images."""
        return () if self.world == "images" else _test_conditions(self.config)


@dataclass(frozen=True)
class Data:
    """The instances of a problem.

    Attributes
    ----------
    fit, tune_fit, tune_score : Dataset
        Training instances of the reported runs; those of the tuning runs and what scores them.
    test : Dataset
        Of graphs, one group a condition.
    mean, std : ndarray, shape (F,)
        Of the pair features, over `tune_fit`.
    """

    fit: Dataset
    tune_fit: Dataset
    tune_score: Dataset
    test: Dataset
    mean: np.ndarray
    std: np.ndarray


def image_problem(config: MatchingConfig, pair: ImagePair) -> Problem:
    """Return the problem of matching regions of an image pair.

    Raises
    ------
    InputError
        Where the pair has too few keypoints or matches for the configuration.
    """
    digest = hashlib.sha256(repr(("images", config)).encode())
    for one in (pair.left, pair.right, pair.disparity):
        digest.update(np.ascontiguousarray(one).tobytes())
    key = digest.hexdigest()
    if key not in _SCENES:
        # finding keypoints takes seconds, and a command checks its input before it trains
        _SCENES.clear()
        _SCENES[key] = make_scene(pair, config.m, config.n, config.tolerance)
    return Problem(config, "images", _SCENES[key], pair.source, key)


def graph_problem(config: MatchingConfig) -> Problem:
    """Return the problem of matching random geometric graphs."""
    key = hashlib.sha256(repr(("graphs", config)).encode()).hexdigest()
    return Problem(config, "graphs", None, "random geometric graphs (synthetic)", key)


_SCENES: dict[str, Scene] = {}
_DATA: dict[str, Data] = {}


def data_of(problem: Problem) -> Data:
    """Return the instances of a problem, kept for the next run of this process."""
    if problem.key not in _DATA:
        if len(_DATA) >= 2:
            _DATA.clear()
        _DATA[problem.key] = _regions(problem) if problem.world == "images" else _graphs(problem)
    return _DATA[problem.key]


def _data(fit: Dataset, tune_fit: Dataset, tune_score: Dataset, test: Dataset) -> Data:
    rows = np.concatenate([one.pair.reshape(-1, one.pair.shape[-1]) for one in tune_fit.groups])
    std = rows.std(axis=0)
    return Data(fit, tune_fit, tune_score, test, rows.mean(axis=0), np.where(std > 0.0, std, 1.0))


def _regions(problem: Problem) -> Data:
    config, scene = problem.config, problem.scene
    assert scene is not None
    rng = np.random.default_rng([config.data_seed, 0])
    train = tuple(band for band in range(BANDS) if band not in TEST)
    tune = tuple(band for band in train if band not in VALIDATION)

    def regions(bands: tuple[int, ...], count: int, cells: bool = False) -> Dataset:
        return Dataset(
            (make_regions(scene, bands, count, config.m, config.n, config.matches, cells, rng),)
        )

    return _data(
        regions(train, config.regions),
        regions(tune, config.regions),
        regions(VALIDATION, max(8, config.regions // 4)),
        regions(TEST, config.test_regions, cells=True),
    )


def _training_conditions(config: MatchingConfig) -> tuple[Condition, ...]:
    """Return sizes and outliers around those of the tests, with noise up to the loudest."""
    sizes = [max(NEAREST + 1, round(config.inliers * factor / 3)) for factor in (2, 3, 4)]
    most = max([config.outliers, *config.outlier_counts])
    loudest = max([config.noise, *config.noises])
    # unequal numbers of outliers, so that no shape gives the number of matches away
    spread = [(0, 0), (most // 2, most), (most, most // 2)]
    return tuple(
        Condition(inliers, a, b, loudest, vary=True) for inliers in sizes for a, b in spread
    )


def _test_conditions(config: MatchingConfig) -> tuple[Condition, ...]:
    """Return both sweeps, the condition they share once."""
    sweep = [
        Condition(config.inliers, config.outliers, config.outliers, noise)
        for noise in config.noises
    ]
    sweep += [
        Condition(config.inliers, count, count, config.noise) for count in config.outlier_counts
    ]
    return tuple(dict.fromkeys(sweep))


def _graphs(problem: Problem) -> Data:
    config = problem.config

    def graphs(kinds: Iterable[Condition], count: int, stream: int) -> Dataset:
        rng = np.random.default_rng([config.data_seed, stream])
        return Dataset(
            tuple(draw(kind, count, rng, block=count * place) for place, kind in enumerate(kinds))
        )

    training = _training_conditions(config)
    return _data(
        graphs(training, config.graphs, 1),
        graphs(training, config.graphs, 2),
        graphs(training, max(2, config.graphs // 4), 3),
        graphs(_test_conditions(config), config.test_graphs, 4),
    )
