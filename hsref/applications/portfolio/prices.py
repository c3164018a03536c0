"""Daily prices: the set that comes inside skfolio, or a user's own file, checked."""

from __future__ import annotations

import itertools
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._common import InputError, need
from .sectors import default_sectors


@dataclass(frozen=True)
class Prices:
    """Daily prices of some stocks.

    Attributes
    ----------
    values : ndarray, shape (days, n), float64
        Prices, all positive and finite, oldest day first. Read-only.
    tickers : tuple of str
        Names of the n columns.
    dates : tuple of str
        Days as ``YYYY-MM-DD``, increasing.
    source : str
        Where they come from, for the report.
    sectors : tuple of str or None
        The sector of each stock, where known.
    favoured : tuple of str or None
        Tickers of the preferred group where none is asked for; None for the usual default.
    """

    values: np.ndarray
    tickers: tuple[str, ...]
    dates: tuple[str, ...]
    source: str
    sectors: tuple[str, ...] | None = None
    favoured: tuple[str, ...] | None = None

    def returns(self) -> np.ndarray:
        """Return simple daily returns, shape (days − 1, n): ``price[t+1] / price[t] − 1``."""
        return self.values[1:] / self.values[:-1] - 1.0


def load_prices(path: str | os.PathLike[str] | None = None) -> Prices:
    """Load prices from a CSV file, or the 20 stocks of the S&P 500 that come with skfolio.

    Parameters
    ----------
    path : path-like or None
        A CSV file: a header with the tickers, then one line a day, the date first. Days may come
        in any order. None takes ``skfolio.datasets.load_sp500_dataset`` (1990–2022), which is
        part of the package and needs no network.

    Returns
    -------
    Prices

    Raises
    ------
    InputError
        For a file that cannot be read, is no table of prices, or has missing, non-positive,
        constant or duplicate entries: one sentence that names the first place.
    MissingExtraError
        If pandas or skfolio is not installed.
    """
    if path is None:
        datasets = need("skfolio.datasets")
        frame = datasets.load_sp500_dataset()
        return prices_from_frame(frame, "20 stocks of the S&P 500 (skfolio's load_sp500_dataset)")
    return prices_from_frame(_read_csv(Path(path)), Path(path).name)


def _read_csv(path: Path) -> Any:
    """Read the file as a frame of strings turned into numbers where they are numbers."""
    pandas = need("pandas")
    if not path.exists():
        raise InputError(f"the price file {path} does not exist.")
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the CSV file with the prices.")
    try:
        # header=None keeps duplicate tickers apart from the names pandas would invent for them
        frame = pandas.read_csv(path, header=None, dtype=str, skipinitialspace=True)
    except pandas.errors.EmptyDataError:
        raise InputError(f"the price file {path} is empty.") from None
    except (OSError, UnicodeDecodeError, pandas.errors.ParserError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"the price file {path} cannot be read as CSV: {reason}.") from error
    if frame.shape[1] < 2:
        raise InputError(
            f"{path} has a single column; prices need a date and at least two tickers, "
            "separated by commas."
        )
    header = [str(name).strip() for name in frame.iloc[0]]
    table = frame.iloc[1:].set_index(0)
    table.columns = header[1:]
    return table


def prices_from_frame(frame: Any, source: str = "a table of prices") -> Prices:
    """Check a pandas frame (dates × tickers) and return it as :class:`Prices`.

    Parameters
    ----------
    frame : pandas.DataFrame, shape (days, n)
        Index of dates (anything ``pandas.to_datetime`` reads), one column a ticker. Not modified.
    source : str
        Name used in messages and in the report.

    Returns
    -------
    Prices

    Raises
    ------
    InputError
        One sentence that names the first date and ticker that cannot be used.
    """
    pandas = need("pandas")
    tickers = [str(name).strip() for name in frame.columns]
    if len(tickers) < 2:
        raise InputError(f"{source} has {len(tickers)} tickers; at least two are needed.")
    for position, name in enumerate(tickers):
        if name in ("", "nan"):
            raise InputError(f"column {position + 2} of {source} has no ticker in the header.")
        if name in tickers[:position]:
            raise InputError(f"the ticker {name} occurs twice in {source}.")
    if len(frame) == 0:
        raise InputError(f"{source} has a header but no prices.")

    dates = _dates(pandas, frame.index)
    if bool(dates.isna().any()):
        row = int(np.flatnonzero(dates.isna().to_numpy())[0])
        raise InputError(
            f"the first column of {source} must hold dates, but row {row + 1} holds "
            f"{str(frame.index[row])!r}; write them as YYYY-MM-DD."
        )
    order = np.argsort(dates.to_numpy(), kind="stable")
    days = [str(day.date()) for day in dates.iloc[order]]
    for before, day in itertools.pairwise(days):
        if before == day:
            raise InputError(f"the date {day} occurs twice in {source}; daily prices are needed.")

    numbers = frame.iloc[order].apply(pandas.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    _check_entries(frame.iloc[order].to_numpy(dtype=object), numbers, tickers, days, source)
    values = np.ascontiguousarray(numbers)
    values.setflags(write=False)
    names = tuple(tickers)
    return Prices(values, names, tuple(days), source, default_sectors(names))


def _dates(pandas: Any, index: Any) -> Any:
    """Return a series of dates, NaT where an entry is none."""
    if pandas.api.types.is_numeric_dtype(index.dtype):
        # numbers would pass as nanoseconds since 1970
        return pandas.Series([pandas.NaT] * len(index))
    with warnings.catch_warnings():
        # pandas warns when it cannot guess the format; the NaT it then returns is reported
        warnings.simplefilter("ignore", UserWarning)
        entries = pandas.Series(index, dtype=object)
        return pandas.to_datetime(entries, errors="coerce", utc=True)


def _check_entries(
    raw: np.ndarray, numbers: np.ndarray, tickers: list[str], days: list[str], source: str
) -> None:
    """Raise for the first kind of unusable price found."""
    bad = ~np.isfinite(numbers)
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        entry, where = raw[row, column], f"{tickers[column]} on {days[row]}"
        text = "" if entry is None else str(entry).strip()
        if text.lower() in ("", "nan", "na", "n/a", "null", "none", "nat", "-"):
            others = int(bad.sum()) - 1
            more = f" (and {others} more entries)" if others else ""
            raise InputError(
                f"the price of {where} is missing in {source}{more}; fill the gap or leave out "
                "the ticker or the days."
            )
        raise InputError(f"the price of {where} is {text!r} in {source}, not a finite number.")
    if (numbers <= 0.0).any():
        row, column = (int(i) for i in np.argwhere(numbers <= 0.0)[0])
        raise InputError(
            f"the price of {tickers[column]} on {days[row]} is {numbers[row, column]:g} in "
            f"{source}; prices must be positive, because returns are ratios."
        )
    constant = np.flatnonzero((numbers == numbers[:1]).all(axis=0))
    if constant.size and len(days) > 1:
        raise InputError(
            f"the price of {tickers[int(constant[0])]} never changes in {source}; leave it out, "
            "for its returns carry no information."
        )
