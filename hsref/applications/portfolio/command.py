"""``hsref train portfolio``: from arguments to a folder of results."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from .._command import given, seeds_of, train_into
from .._common import InputError, need
from .._training import Progress
from .config import PortfolioConfig

SUMMARY = "portfolios that hold linear constraints exactly, trained on real daily prices"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this application to `parser`."""
    parser.add_argument(
        "--prices",
        metavar="FILE.csv",
        help="daily prices, dates × tickers (default: 20 stocks of the S&P 500, 1990-2022)",
    )
    parser.add_argument(
        "--assets", type=int, metavar="N", help="a synthetic market of N stocks instead"
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
    parser.add_argument(
        "--sector-cap",
        type=float,
        metavar="SHARE",
        help="largest weight of a sector outside the group (default: none)",
    )
    parser.add_argument(
        "--sectors", metavar="FILE.csv", help="lines ticker,sector; needed with --prices"
    )
    parser.add_argument(
        "--turnover",
        type=float,
        metavar="LIMIT",
        help="a bound on what is bought and sold instead of the group and the caps",
    )
    parser.add_argument(
        "--study",
        action="store_true",
        help="also vary temperature and initial scale of the projection (a minute more)",
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

    Everything that a user can get wrong is looked at before the first training step. An
    interrupted run leaves its checkpoints in the folder, and the same command with ``--out`` that
    folder goes on from them.
    """
    from . import train
    from .problem import make_problem

    config = settings(arguments)
    need("matplotlib")
    need("clarabel")
    prices = market(arguments)
    make_problem(config, prices)
    return train_into(
        arguments.out,
        "hsref-portfolio",
        command,
        lambda folder: train(
            config, prices, progress=progress, executor=executor, checkpoints=folder
        ),
    )


def settings(arguments: argparse.Namespace) -> PortfolioConfig:
    """Return the configuration that the arguments ask for."""
    config = PortfolioConfig() if arguments.assets is None else PortfolioConfig().wide()
    changes: dict[str, object] = {"study": arguments.study}
    if arguments.group is not None:
        changes["group"] = tuple(
            name.strip() for name in arguments.group.split(",") if name.strip()
        )
    changes |= given(arguments, "at_least", "cap", "sector_cap", "turnover", "epochs")
    if arguments.turnover is not None and arguments.at_least is not None:
        raise InputError("--turnover is a mandate of its own; leave out --at-least.")
    changes |= seeds_of(arguments)
    config = dataclasses.replace(config, **changes)
    return config.quick() if arguments.quick else config


def market(arguments: argparse.Namespace) -> Any:
    """Return the prices that the arguments ask for, with their sectors."""
    from . import load_prices, load_sectors, synthetic_prices

    if arguments.assets is not None:
        for option in ("prices", "sectors"):
            if getattr(arguments, option) is not None:
                raise InputError(
                    f"--assets makes a synthetic market with sectors; leave out --{option}."
                )
        return synthetic_prices(arguments.assets)
    prices = load_prices(arguments.prices)
    if arguments.sectors is not None:
        sectors = load_sectors(arguments.sectors, prices.tickers)
        prices = dataclasses.replace(prices, sectors=sectors)
    return prices
