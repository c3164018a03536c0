"""What the commands of all applications do alike: read common options, train into a folder."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from ._common import InputError, check_folder, fresh_folder


class Result(Protocol):
    """What training returns."""

    def save(self, folder: Path, command: str = "") -> Path:
        """Write the report and what belongs to it."""
        ...


def given(arguments: argparse.Namespace, *options: str) -> dict[str, Any]:
    """Return those of the `options` that the user gave.

    Examples
    --------
    >>> given(argparse.Namespace(epochs=3, cap=None), "epochs", "cap")
    {'epochs': 3}
    """
    found = {option: getattr(arguments, option) for option in options}
    return {option: value for option, value in found.items() if value is not None}


def seeds_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the ``seeds`` that ``--seeds N`` asks for, or nothing.

    Examples
    --------
    >>> seeds_of(argparse.Namespace(seeds=3))
    {'seeds': (0, 1, 2)}
    """
    if arguments.seeds is None:
        return {}
    if not 1 <= arguments.seeds <= 1000:
        raise InputError(f"--seeds must lie between 1 and 1000; got {arguments.seeds}.")
    return {"seeds": tuple(range(arguments.seeds))}


def train_into(out: str | None, name: str, command: str, train: Callable[[Path], Result]) -> Path:
    """Train and write the results; return the folder.

    Parameters
    ----------
    out : str or None
        The folder; None takes the first of ``name``, ``name-2``, ... that is free here.
    name : str
        Of that folder.
    command : str
        How the result is made, for the report.
    train : callable
        Given the folder for checkpoints. They stay there when it is interrupted, and go when the
        results are written.
    """
    check_folder(out or Path.cwd())
    folder = Path(out) if out else fresh_folder(Path.cwd(), name)
    checkpoints = folder / "checkpoints"
    try:
        result = train(checkpoints)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; the same command with --out {folder} goes on from here."
        ) from None
    result.save(folder, command)
    shutil.rmtree(checkpoints, ignore_errors=True)
    return folder
