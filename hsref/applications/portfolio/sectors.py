"""Which sector a stock belongs to: the default prices', or a user's own file."""

from __future__ import annotations

import os
from pathlib import Path

from .._common import InputError, need

DEFAULT_SECTORS = {
    "technology": ("AAPL", "AMD", "MSFT"),
    "financials": ("BAC", "JPM"),
    "energy": ("CVX", "RRC", "XOM"),
    "health care": ("JNJ", "LLY", "MRK", "PFE", "UNH"),
    "staples": ("KO", "PEP", "PG", "WMT"),
    "discretionary": ("BBY", "HD"),
    "industrials": ("GE",),
}
"""Of the default prices, as index providers sort these companies."""


def default_sectors(tickers: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the sector of each of the default tickers; None where one is not among them."""
    known = {name: sector for sector, names in DEFAULT_SECTORS.items() for name in names}
    if not set(tickers) <= set(known):
        return None
    return tuple(known[name] for name in tickers)


def load_sectors(path: str | os.PathLike[str], tickers: tuple[str, ...]) -> tuple[str, ...]:
    """Read the sector of each ticker from a CSV file with a line ``ticker,sector`` each.

    Parameters
    ----------
    path : path-like
        Without a header, or with one whose first field is ``ticker``.
    tickers : tuple of str
        Those that need a sector; others in the file are passed over.

    Returns
    -------
    tuple of str
        In the order of `tickers`.

    Raises
    ------
    InputError
        One sentence, for a file that cannot be read, a line without two entries, a ticker that
        occurs twice or is missing.
    """
    pandas = need("pandas")
    path = Path(path)
    if not path.is_file():
        raise InputError(f"the sector file {path} does not exist or is no file.")
    try:
        frame = pandas.read_csv(
            path, header=None, dtype=str, skipinitialspace=True, keep_default_na=False
        )
    except pandas.errors.EmptyDataError:
        raise InputError(f"the sector file {path} is empty.") from None
    except (OSError, UnicodeDecodeError, pandas.errors.ParserError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"the sector file {path} cannot be read as CSV: {reason}.") from error
    if frame.shape[1] != 2:
        raise InputError(
            f"the sector file {path} must have two columns, ticker and sector; it has "
            f"{frame.shape[1]}."
        )
    found: dict[str, str] = {}
    for line, (ticker, sector) in enumerate(frame.itertuples(index=False), 1):
        name, kind = str(ticker).strip(), str(sector).strip()
        if line == 1 and name.lower() == "ticker":
            continue
        if not name or not kind:
            raise InputError(f"line {line} of the sector file {path} lacks a ticker or a sector.")
        if name in found:
            raise InputError(f"the ticker {name} occurs twice in the sector file {path}.")
        found[name] = kind
    missing = [name for name in tickers if name not in found]
    if missing:
        others = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise InputError(f"the sector file {path} has no line for {missing[0]}{others}.")
    return tuple(found[name] for name in tickers)
