"""``hsref train portfolio``: from arguments to a folder of results."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

from .._common import InputError, check_folder, fresh_folder, need
from .._training import Progress
from .config import PortfolioConfig

SUMMARY = "portfolios that hold a covering constraint exactly, trained on real daily prices"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this application to `parser`."""
    parser.add_argument(
        "--prices",
        metavar="FILE.csv",
        help="daily prices, dates × tickers (default: 20 stocks of the S&P 500, 1990-2022)",
    )
    parser.add_argument(
        "--group",
        metavar="A,B,C",
        help="tickers of the preferred group (default: AAPL,AMD,MSFT, or the first quarter)",
    )
    parser.add_argument(
        "--at-least", type=float, metavar="SHARE", help="smallest weight of the group (default 0.5)"
    )
    parser.add_argument(
        "--cap", type=float, metavar="SHARE", help="largest weight of one stock (default: none)"
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="reported runs per arm (default 5)")
    parser.add_argument("--epochs", type=int, metavar="N", help="passes over the training windows")


def run(
    arguments: argparse.Namespace,
    command: str,
    progress: Callable[[Progress], None],
    executor: Executor | None,
) -> Path:
    """Train and write the results; return the folder.

    Everything that a user can get wrong is looked at before the first training step.
    """
    from . import load_prices, train
    from .config import make_problem

    changes: dict[str, object] = {}
    if arguments.group is not None:
        changes["group"] = tuple(
            name.strip() for name in arguments.group.split(",") if name.strip()
        )
    for option in ("at_least", "cap", "epochs"):
        if getattr(arguments, option) is not None:
            changes[option] = getattr(arguments, option)
    if arguments.seeds is not None:
        if not 1 <= arguments.seeds <= 1000:
            raise InputError(f"--seeds must lie between 1 and 1000; got {arguments.seeds}.")
        changes["seeds"] = tuple(range(arguments.seeds))
    config = dataclasses.replace(PortfolioConfig(), **changes)
    if arguments.quick:
        config = config.quick()
    need("matplotlib")
    need("clarabel")
    prices = load_prices(arguments.prices)
    make_problem(config, prices)
    check_folder(arguments.out or Path.cwd())
    result = train(config, prices, progress=progress, executor=executor)
    return result.save(arguments.out or fresh_folder(Path.cwd(), "hsref-portfolio"), command)
