"""What a check returns: a frozen report, never an assertion."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Report:
    """The outcome of one check.

    Attributes
    ----------
    claim : str
        What was checked, in one sentence.
    residual : float
        The worst violation found, scaled as the claim says; NaN never passes.
    tolerance : float
        The largest residual that still counts as round-off.
    verdict : bool
        ``residual <= tolerance``; also what ``bool(report)`` gives.
    parts : mapping of str to float
        The residuals the worst one was taken from.
    data : mapping of str to ndarray
        Arrays that reproduce the check.

    Examples
    --------
    >>> r = report("1 + 1 = 2", {"sum": 0.0}, 1e-12)
    >>> bool(r), r.residual
    (True, 0.0)
    >>> print(report("1 + 1 = 3", {"sum": 1.0}, 1e-12))
    FAILS  1 + 1 = 3: residual 1.0e+00 > 1.0e-12 (sum)
    """

    claim: str
    residual: float
    tolerance: float
    verdict: bool
    parts: Mapping[str, float] = field(default_factory=dict)
    data: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)

    def __bool__(self) -> bool:
        return self.verdict

    def __str__(self) -> str:
        sign = "<=" if self.verdict else ">"
        worst = max(self.parts, key=lambda k: _rank(self.parts[k]), default="")
        tail = f" ({worst})" if worst and not self.verdict else ""
        head = "holds" if self.verdict else "FAILS"
        return (
            f"{head}  {self.claim}: residual {self.residual:.1e} {sign} {self.tolerance:.1e}{tail}"
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the data of the report to an NPZ file without pickled objects; return its path."""
        return save_arrays(path, claim=self.claim, residual=self.residual, **self.data)


def report(
    claim: str,
    parts: Mapping[str, float],
    tolerance: float,
    data: Mapping[str, Any] | None = None,
    kind: type[Report] = Report,
    **extra: Any,
) -> Any:
    """Return a report whose residual is the largest of `parts` (NaN counts as infinite)."""
    residual = max((_rank(v) for v in parts.values()), default=0.0)
    arrays = {k: np.array(v) for k, v in (data or {}).items()}
    numbers = {k: float(v) for k, v in parts.items()}
    return kind(
        claim, float(residual), tolerance, bool(residual <= tolerance), numbers, arrays, **extra
    )


def _rank(value: float) -> float:
    return float("inf") if np.isnan(value) else float(value)


def save_arrays(path: str | os.PathLike[str], **arrays: Any) -> Path:
    """Write arrays, numbers and strings to an NPZ file, whole or not at all.

    Objects are refused, so that reading the file back never needs pickle.
    """
    target = Path(path)
    plain = {name: np.asarray(value) for name, value in arrays.items()}
    for name, value in plain.items():
        if value.dtype == object:
            raise TypeError(f"{name} is no array of numbers or text and would need pickle.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as stream:
        np.savez_compressed(stream, allow_pickle=False, **plain)
    return target


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write a text file, whole or not at all."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as stream:
        stream.write(text.encode())
    return target


class replacing:
    """A temporary file beside the target that takes its name only when all went well."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __enter__(self) -> Any:
        handle, self.name = tempfile.mkstemp(dir=self.target.parent, prefix=".", suffix=".part")
        self.stream = os.fdopen(handle, "wb")
        return self.stream

    def __exit__(self, kind: Any, *_: Any) -> None:
        self.stream.close()
        if kind is None:
            os.chmod(self.name, 0o666 & ~_umask())
            os.replace(self.name, self.target)
        else:
            os.unlink(self.name)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
