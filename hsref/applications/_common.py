"""What every application shares: its errors, its optional packages, its files and its versions."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import json
import math
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np


class InputError(ValueError):
    """What a user handed in cannot be used; the message is one sentence that says why."""


class MissingExtraError(ImportError):
    """A package of the ``apps`` extra is not installed."""


def check_whole(name: str, value: Any, least: int) -> None:
    """Raise `InputError` unless the setting `name` is a whole number of at least `least`.

    Examples
    --------
    >>> check_whole("epochs", 3, 1)
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}; got {value!r}.")


def check_inside(
    name: str,
    value: Any,
    low: float,
    high: float,
    open_below: bool = False,
    open_above: bool = False,
) -> None:
    """Raise `InputError` unless the setting `name` is finite and lies between two limits.

    Examples
    --------
    >>> check_inside("share", 0.5, 0.0, 1.0, open_below=True)
    """
    low_ok = value > low if open_below else value >= low
    high_ok = value < high if open_above else value <= high
    if not (low_ok and high_ok and math.isfinite(value)):
        left, right = "(" if open_below else "[", ")" if open_above or math.isinf(high) else "]"
        raise InputError(f"{name} must lie in {left}{low:g}, {high:g}{right}; got {value!r}.")


def check_runs(
    seeds: tuple[int, ...], tuning_seeds: tuple[int, ...], learning_rates: tuple[float, ...]
) -> None:
    """Raise `InputError` unless these say which runs to tune on and which to report.

    Examples
    --------
    >>> check_runs((0, 1), (1000,), (1e-3, 1e-2))
    """
    for name, values in (
        ("seeds", seeds),
        ("tuning_seeds", tuning_seeds),
        ("learning_rates", learning_rates),
    ):
        if not values or len(set(values)) != len(values):
            raise InputError(f"{name} must hold at least one entry and none twice; got {values}.")
    if set(seeds) & set(tuning_seeds):
        raise InputError(
            "seeds and tuning_seeds must differ, or the learning rate would be chosen on the "
            "runs that are reported."
        )
    for name, values in (("seeds", seeds), ("tuning_seeds", tuning_seeds)):
        if any(int(seed) != seed or seed < 0 for seed in values):
            raise InputError(f"{name} must be whole numbers that are not negative.")
    if any(not (0.0 < rate < math.inf) for rate in learning_rates):
        raise InputError("learning_rates must be positive.")


def need(module: str) -> Any:
    """Import `module`, which belongs to the ``apps`` extra.

    Parameters
    ----------
    module : str
        Dotted name of the module.

    Returns
    -------
    module
        The imported module.

    Raises
    ------
    MissingExtraError
        "... needs the package PACKAGE; install the applications with: pip install 'hsref[apps]'.".

    Examples
    --------
    >>> need("json").dumps([1])
    '[1]'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingExtraError(
            f"this application needs the package {package}; "
            "install the applications with: pip install 'hsref[apps]'."
        ) from error


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Run the block with one BLAS thread, where threadpoolctl is installed.

    Notes
    -----
    The matrices of these networks are too small to gain from a second thread, and the order in
    which two threads add depends on the machine: one thread makes a run repeatable bit by bit, at
    any number of worker processes. The limit holds for the whole process while the block runs.
    """
    try:
        threadpoolctl = importlib.import_module("threadpoolctl")
    except ImportError:
        yield
        return
    with threadpoolctl.threadpool_limits(limits=1, user_api="blas"):
        yield


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python, the machine and `packages`, those installed.

    Examples
    --------
    >>> sorted(versions("numpy"))
    ['machine', 'numpy', 'python']
    """
    found = {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then move it into place.

    A reader sees the old file or the new one, never a part of one, and an interrupted run leaves
    no half-written result behind.

    Parameters
    ----------
    path : pathlib.Path
        Where the file is to be. Its folder is made if need be. Replaced if it exists.
    write : callable
        Called with the temporary path, which has the same suffix as `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        # mkstemp makes a private file; a result should have the permissions of any other new file
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def plain(value: Any) -> Any:
    """Return `value` with NumPy numbers, arrays, tuples and paths turned into JSON's kinds.

    NaN and infinity become None, for JSON has neither.

    Examples
    --------
    >>> plain({"a": np.float64(1.5), "b": (np.int64(2), float("nan"))})
    {'a': 1.5, 'b': [2, None]}
    """
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as JSON, atomically."""
    write_text(path, json.dumps(plain(value), indent=1, allow_nan=False) + "\n")


def fresh_folder(parent: Path, name: str) -> Path:
    """Make and return ``parent/name``, or the first of ``parent/name-2``, ... that is free."""
    count = 1
    while True:
        folder = parent / (name if count == 1 else f"{name}-{count}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
        count += 1


def check_folder(path: str | os.PathLike[str]) -> Path:
    """Return `path` if results can be written there; nothing is made yet.

    Raises
    ------
    InputError
        "the results cannot go to PATH, because ... is a file, not a folder." or "... because ...
        cannot be written to."
    """
    folder = Path(path)
    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        reason = f"{nearest} is a file, not a folder"
    elif not os.access(nearest, os.W_OK | os.X_OK):
        reason = f"{nearest} cannot be written to"
    else:
        return folder
    raise InputError(f"the results cannot go to {folder}, because {reason}.")


def mean_and_error(values: Any) -> tuple[float, float]:
    r"""Return the mean of `values` and its standard error.

    The error is nan for fewer than two values, and where one is not finite.

    .. math:: \bar v, \qquad \sqrt{\tfrac{1}{k(k-1)}\textstyle\sum_i (v_i-\bar v)^2}

    Examples
    --------
    >>> mean_and_error([1.0, 3.0])
    (2.0, 1.0)
    """
    array = np.asarray(values, dtype=float)
    if array.size < 2 or not np.isfinite(array).all():
        return (float(array.mean()) if array.size else math.nan), math.nan
    return float(array.mean()), float(array.std(ddof=1) / math.sqrt(array.size))


def over_seeds(
    figures: list[dict[str, float]], worst: tuple[str, ...], errors: tuple[str, ...]
) -> dict[str, float]:
    """Return the figures of several seeds as one: means, and the largest for names in `worst`.

    Names in `errors` get a companion ``NAME_se``, the standard error of the mean.

    Examples
    --------
    >>> over_seeds([{"f1": 0.0, "violation": 1.0}, {"f1": 1.0, "violation": 2.0}],
    ...            ("violation",), ("f1",))
    {'f1': 0.5, 'f1_se': 0.5, 'violation': 2.0}
    """
    merged: dict[str, float] = {}
    for key in figures[0]:
        mean, error = mean_and_error([one[key] for one in figures])
        merged[key] = max(one[key] for one in figures) if key in worst else mean
        if key in errors:
            merged[f"{key}_se"] = error
    return merged
