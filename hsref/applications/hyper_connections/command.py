"""``hsref train hyper-connections``: from arguments to a folder of results."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

from .._command import given, seeds_of, train_into
from .._common import InputError, need
from .._training import Progress
from .config import HyperConfig, make_problem

SUMMARY = "residual streams mixed by doubly stochastic matrices, in a small language model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this application to `parser`."""
    parser.add_argument("--seeds", type=int, metavar="N", help="reported runs per arm (default 5)")
    parser.add_argument("--steps", type=int, metavar="N", help="training steps of every run")
    parser.add_argument("--depth", type=int, metavar="N", help="blocks of the network (default 8)")
    parser.add_argument(
        "--depths", metavar="A,B", help='further depths, two seeds each (default 2,16; "" for none)'
    )
    parser.add_argument(
        "--epsilon",
        type=float,
        metavar="SHARE",
        help="how far inside the polytope mixing starts, in (0, 1] (default 0.4)",
    )


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
    from . import train

    changes = given(arguments, "steps", "depth", "epsilon") | seeds_of(arguments)
    if arguments.seeds is not None:
        changes["depth_seeds"] = tuple(range(min(2, arguments.seeds)))
    if arguments.depths is not None:
        try:
            changes["depths"] = tuple(int(one) for one in arguments.depths.split(",") if one)
        except ValueError:
            raise InputError(
                f"--depths must be whole numbers with commas between them; got {arguments.depths}."
            ) from None
    config = HyperConfig()
    if arguments.quick:
        config = config.quick()
        if arguments.seeds is not None:
            changes["depth_seeds"] = (0,)
    if arguments.steps is not None:
        changes["warmup"] = min(config.warmup, arguments.steps // 4)
        changes["every"] = max(1, min(config.every, arguments.steps // 10))
    config = dataclasses.replace(config, **changes)
    need("matplotlib")
    make_problem(config)
    return train_into(
        arguments.out,
        "hsref-hyper-connections",
        command,
        lambda folder: train(config, progress=progress, executor=executor, checkpoints=folder),
    )
