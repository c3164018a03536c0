"""Pieces of a report: Markdown tables, numbers with their error, a figure style."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ._common import (
    check_folder,
    mean_and_error,
    need,
    write_atomically,
    write_json,
    write_text,
)

COLOURS = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "vermilion": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "yellow": "#F0E442",
    "grey": "#6E6E6E",
    "light grey": "#C8C8C8",
}
"""Colours that people with any of the common colour deficiencies tell apart (Okabe and Ito)."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose first column is text and whose others are numbers.

    Examples
    --------
    >>> print(table(["arm", "Sharpe"], [["softmax", "1.0"]]))
    | arm | Sharpe |
    |---|--:|
    | softmax | 1.0 |
    """
    lines = ["| " + " | ".join(header) + " |", "|---|" + "--:|" * (len(header) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with a fixed count of decimals, or a dash for none.

    Examples
    --------
    >>> number(1.0), number(None), number(float("nan"))
    ('1.000', '–', '–')
    """
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def with_error(value: float | None, error: float | None, digits: int = 3) -> str:
    """Return ``value ± error``, the error only where there is one.

    Examples
    --------
    >>> with_error(1.0, 0.25), with_error(1.0, float("nan"))
    ('1.000 ± 0.250', '1.000')
    """
    if error is None or not math.isfinite(error):
        return number(value, digits)
    return f"{number(value, digits)} ± {number(error, digits)}"


def signed(value: float, error: float, digits: int = 3) -> str:
    """Return ``+value ± error`` with a true minus sign, a dash where there is no value.

    Examples
    --------
    >>> signed(-0.5, 0.25, 2)
    '−0.50 ± 0.25'
    """
    if not math.isfinite(value):
        return "–"
    sign = "−" if round(value, digits) < 0 else "+"
    return f"{sign}{with_error(abs(value), error, digits)}"


def power(value: float) -> str:
    """Return a size as 0 or in scientific notation with one decimal, a dash for none.

    Examples
    --------
    >>> power(0.0), power(3.5e-16), power(0.35)
    ('0', '3.5e-16', '0.35')
    """
    if not math.isfinite(value):
        return "–"
    if value == 0.0:
        return "0"
    return f"{value:.2g}" if value >= 1e-3 else f"{value:.1e}"


def paired(ours: Any, theirs: Any) -> tuple[float, float, bool]:
    """Compare two arms measured on the same units, seeds or periods.

    Parameters
    ----------
    ours, theirs : array_like, shape (k,)
        One figure a unit.

    Returns
    -------
    mean, error : float
        Of the differences ours − theirs; error is nan for fewer than two units.
    clear : bool
        Whether zero lies outside the two-sided 95 % t-interval of the mean.

    Examples
    --------
    >>> paired([2.0, 3.0], [1.0, 2.0])
    (1.0, 0.0, True)
    """
    from scipy.stats import t

    difference = np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float)
    count = difference.size
    if count < 2:
        return float(difference.mean()), math.nan, False
    mean, error = float(difference.mean()), float(difference.std(ddof=1) / math.sqrt(count))
    return mean, error, bool(abs(mean) > t.ppf(0.975, count - 1) * error)


def figure(title: str, width: float = 7.2, height: float = 4.2) -> tuple[Any, Any]:
    """Return an empty figure with one message, the title, and its axes.

    Figures are made without pyplot, so that nothing global is touched and no screen is needed.
    """
    drawing, (axes,) = panels([title], width, height)
    return drawing, axes


def panels(titles: Sequence[str], width: float = 10.4, height: float = 4.2) -> tuple[Any, list]:
    """Return an empty figure of several axes side by side, one a title, and the axes."""
    figures = need("matplotlib.figure")
    drawing = figures.Figure(figsize=(width, height), dpi=160, layout="constrained")
    found = []
    for place, title in enumerate(titles):
        axes = drawing.add_subplot(1, len(titles), place + 1)
        axes.set_title(title, loc="left", fontsize=11.5, fontweight="bold")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.grid(axis="y", color="#E3E3E3", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=9.5)
        found.append(axes)
    return drawing, found


def band(axes: Any, x: Any, values: Any, colour: str, **style: Any) -> None:
    """Draw the mean over the rows of `values`, with its standard error where there are several.

    Parameters
    ----------
    axes : matplotlib axes
    x : array_like, shape (k,)
    values : array_like, shape (rows, k)
    colour : str
    **style
        For the line: ``label``, ``linestyle``, ``marker``.
    """
    spread = [mean_and_error(column) for column in np.asarray(values, dtype=float).T]
    mean = np.array([one[0] for one in spread])
    error = np.nan_to_num(np.array([one[1] for one in spread]))
    axes.plot(x, mean, color=colour, linewidth=2.2, **style)
    axes.fill_between(x, mean - error, mean + error, color=colour, alpha=0.2, linewidth=0)


def save_figure(drawing: Any, path: Path) -> None:
    """Write a figure as PNG, atomically."""
    write_atomically(path, lambda temporary: drawing.savefig(temporary, format="png"))


def save_report(
    folder: str | os.PathLike[str],
    draw: Callable[[Path], Any],
    numbers: Mapping[str, Any],
    write: Callable[[Any], str],
) -> Path:
    """Write pictures, JSON files and ``report.md``; return the folder.

    Parameters
    ----------
    folder : path-like
        Made if need be.
    draw : callable
        Draws into the folder and returns what the report needs to know of the pictures.
    numbers : mapping of str to Any
        What goes into each JSON file.
    write : callable
        Takes what `draw` returned and returns the report.
    """
    target = check_folder(folder)
    target.mkdir(parents=True, exist_ok=True)
    pictures = draw(target)
    for name, content in numbers.items():
        write_json(target / name, content)
    # The report comes last: where it stands, everything it speaks of stands too.
    write_text(target / "report.md", write(pictures))
    return target
