"""The rows of a report: results of tasks, gathered by statement, set and kind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .tasks import merge_notes, worse


@dataclass(frozen=True)
class Row:
    """One statement on one set at one kind of degeneracy.

    Attributes
    ----------
    statement, set, kind : str
        What it is about.
    cases, excluded, failures : int
        Cases looked at, left out, and failed.
    part : str
        The part of the statement with the largest residual over tolerance.
    residual, tolerance : float
        That residual and the largest one that counts as round-off.
    error : str
        What was raised, if anything.
    notes : dict
        Counts and numbers worth knowing.
    counterexamples : tuple of str
        Files, relative to the folder.
    """

    statement: str
    set: str
    kind: str
    cases: int
    excluded: int
    failures: int
    part: str
    residual: float
    tolerance: float
    error: str = ""
    notes: dict[str, Any] = field(default_factory=dict)
    counterexamples: tuple[str, ...] = ()

    @property
    def verdict(self) -> bool:
        """True when no case fails."""
        return self.failures == 0 and not self.error and self.residual <= self.tolerance

    def __str__(self) -> str:
        what = f"{self.statement} {self.set} ({self.kind})"
        if self.error:
            return f"{what}: {self.error}"
        sign = "<=" if self.verdict else ">"
        return (
            f"{what}: {self.failures} of {self.cases} fail; {self.part}: "
            f"{self.residual:.1e} {sign} {self.tolerance:.1e}"
        )


def table(results: Iterable[dict[str, Any]]) -> tuple[Row, ...]:
    """Gather results of tasks into rows, in the order in which rows first occur.

    Kinds that a set does not have (no case, nothing left out, no error) make no row.
    """
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for r in results:
        key = (r["statement"], r["set"], r["kind"])
        row = rows.setdefault(
            key,
            {"cases": 0, "excluded": 0, "failures": 0, "part": "", "residual": 0.0,
             "tolerance": 1.0, "error": "", "notes": {}, "counterexamples": ()},
        )  # fmt: skip
        for name in ("cases", "excluded", "failures"):
            row[name] += r[name]
        if r["part"] and (not row["part"] or worse((r["residual"], r["tolerance"]), row)):
            row.update({k: r[k] for k in ("part", "residual", "tolerance")})
        row["error"] = row["error"] or r["error"]
        merge_notes(row["notes"], r["notes"])
        if r.get("counterexample"):
            row["counterexamples"] += (r["counterexample"],)
    return tuple(
        Row(*key, **row)
        for key, row in rows.items()
        if row["cases"] or row["excluded"] or row["error"]
    )
