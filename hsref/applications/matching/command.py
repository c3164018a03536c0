"""``hsref train matching``: from arguments to a folder of results."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

from .._command import given, seeds_of, train_into
from .._common import InputError, need
from .._training import Progress
from .config import LOSSES, MatchingConfig

SUMMARY = "partial matchings of keypoints in two views of a scene, and of random graphs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this application to `parser`."""
    parser.add_argument(
        "--pair",
        nargs=2,
        metavar=("LEFT", "RIGHT"),
        help="rectified images of one size (default: the motorcycle inside scikit-image)",
    )
    parser.add_argument(
        "--disparity",
        metavar="FILE",
        help="disparity of the left image in pixels, .npy, .npz or an image; needed with --pair",
    )
    parser.add_argument(
        "--keypoints",
        nargs=2,
        type=int,
        metavar=("M", "N"),
        help="keypoints of a region on the left and on the right (default 16 18)",
    )
    parser.add_argument(
        "--matches",
        type=int,
        metavar="K",
        help="tell the layers this number of matches (default: the true one of each region)",
    )
    parser.add_argument("--loss", choices=LOSSES, help="loss of all arms (default bce)")
    parser.add_argument(
        "--rates", metavar="A,B,C", help="learning rates to choose from (default 0.01,0.03,0.1,0.3)"
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="reported runs per arm (default 5)")
    parser.add_argument("--epochs", type=int, metavar="N", help="passes over the instances")


def run(
    arguments: argparse.Namespace,
    command: str,
    progress: Callable[[Progress], None],
    executor: Executor | None,
) -> Path:
    """Train and write the results; return the folder.

    Everything that a user can get wrong is looked at before the first training step. An
    interrupted run leaves its checkpoints in the folder, and the same command with ``--out`` that
    folder goes on from them.
    """
    from . import load_pair, train
    from .problem import data_of, image_problem

    changes = given(arguments, "matches", "loss", "epochs")
    if arguments.keypoints is not None:
        changes["m"], changes["n"] = arguments.keypoints
    if arguments.rates is not None:
        try:
            changes["learning_rates"] = tuple(float(one) for one in arguments.rates.split(","))
        except ValueError:
            raise InputError(
                f"--rates must be numbers with commas between them; got {arguments.rates}."
            ) from None
    changes |= seeds_of(arguments)
    config = MatchingConfig().quick() if arguments.quick else MatchingConfig()
    config = dataclasses.replace(config, **changes)
    need("matplotlib")
    pair = load_pair(*(arguments.pair or (None, None)), arguments.disparity)
    data_of(image_problem(config, pair))
    return train_into(
        arguments.out,
        "hsref-matching",
        command,
        lambda folder: train(
            config, pair, progress=progress, executor=executor, checkpoints=folder
        ),
    )
