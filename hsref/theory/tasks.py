"""One task of a verification: a statement on some points, a pure function of its description."""

from __future__ import annotations

import contextlib
import functools
import os
import time
import traceback
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from .catalogue import draw
from .checks import Outcome
from .planted import Cases
from .rows import rows_of
from .statements import STATEMENTS
from .subject import images

OWN = "–"
"""The set of a statement that is about no set."""


@dataclass(frozen=True)
class Task:
    """What to check: everything its result depends on.

    Attributes
    ----------
    statement, set, kind : str
        The row of the report it belongs to.
    chunk, count : int
        Which part of that row's points, and how many they are.
    seed : int
        Seed of the verification.
    given : tuple of sets, optional
        Instances to use in place of the registered examples.
    """

    statement: str
    set: str
    kind: str
    chunk: int
    count: int
    seed: int
    given: tuple[Any, ...] | None = None

    @property
    def key(self) -> str:
        """A name that is unique within a verification."""
        return f"{self.statement}|{self.set}|{self.kind}|{self.chunk}"

    def generator(self) -> np.random.Generator:
        """Return the task's own random numbers, independent of any other task's.

        The stream is spawned from the seed by statement, set, kind and chunk, so it depends neither
        on the order in which tasks run nor on which other tasks there are.
        """
        words = [zlib.crc32(w.encode()) for w in (self.statement, self.set, self.kind)]
        sequence = np.random.SeedSequence(self.seed, spawn_key=(*words, self.chunk))
        return np.random.default_rng(sequence)


def run_task(task: Task) -> dict[str, Any]:
    """Run one task and return plain numbers and strings, and arrays where something failed.

    Parameters
    ----------
    task : Task
        What to check.

    Returns
    -------
    dict
        ``key, statement, set, kind, cases, excluded, failures, part, residual, tolerance, parts,
        notes, error, seconds``, these of the processor; and ``arrays`` (not JSON) when a case
        failed.
    """
    started = time.thread_time()
    statement = STATEMENTS[task.statement]
    if statement.check is None:
        raise ValueError(f"{task.statement} has no check yet: {statement.pending}.")
    rng = task.generator()
    result = _blank(task)
    with _alone():
        if task.set == OWN:
            batches: Iterator[Cases | None] = iter([None])
        else:
            batches = draw(task.set, task.kind, task.count, rng, task.given)
        while True:
            cases = None
            try:
                cases = next(batches, _END)
                if cases is _END:
                    break
                # a refused solve or a bug is a failure of the statement, with its points saved
                outcome = statement.check(task.kind if cases is None else cases, rng)
            except Exception as problem:
                _record_error(result, task, cases, problem)
                if cases is None:
                    break
                continue
            _absorb(result, task, cases, outcome)
    result["seconds"] = time.thread_time() - started
    return result


_END: Any = object()


@functools.cache
def _blas() -> Any:
    """Return what can hold BLAS to one thread, looked up once a process."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController()


def _alone() -> contextlib.AbstractContextManager[Any]:
    """Keep a task on one thread: tasks are what runs in parallel."""
    blas = _blas()
    return contextlib.nullcontext() if blas is None else blas.limit(limits=1)


def _blank(task: Task) -> dict[str, Any]:
    return {
        "key": task.key,
        "statement": task.statement,
        "set": task.set,
        "kind": task.kind,
        "cases": 0,
        "excluded": 0,
        "failures": 0,
        "part": "",
        "residual": 0.0,
        "tolerance": 1.0,
        "parts": {},
        "notes": {},
        "error": "",
    }


def _absorb(result: dict[str, Any], task: Task, cases: Cases | None, outcome: Outcome) -> None:
    """Merge the outcome of one batch into the result of a task."""
    ratio = outcome.ratio()
    size = len(ratio) if cases is None else len(cases.x)
    result["cases"] += size - outcome.excluded if outcome.cases is None else outcome.cases
    result["excluded"] += outcome.excluded
    failed = int((ratio > 1.0).sum())
    result["failures"] += failed
    merge_notes(result["notes"], outcome.notes)
    for name, (value, _) in outcome.parts.items():
        if not np.isnan(value).all():
            result["parts"][name] = max(result["parts"].get(name, 0.0), float(np.nanmax(value)))
    part, residual, tolerance, index = outcome.worst()
    if part and (not result["part"] or worse((residual, tolerance), result)):
        result.update(part=part, residual=residual, tolerance=tolerance)
        if failed:
            result["arrays"] = _arrays(task, cases, part, residual, tolerance, index)


def worse(found: tuple[float, float], result: dict[str, Any]) -> bool:
    """Tell whether (residual, tolerance) is worse than what a result holds."""
    return found[0] / found[1] > result["residual"] / result["tolerance"]


def merge_notes(into: dict[str, Any], notes: dict[str, Any]) -> None:
    """Add counts, and keep the largest of other numbers."""
    for name, value in notes.items():
        if isinstance(value, int):
            into[name] = into.get(name, 0) + value
        else:
            into[name] = max(into.get(name, -np.inf), float(value))


def _record_error(
    result: dict[str, Any], task: Task, cases: Cases | None, problem: Exception
) -> None:
    where = traceback.extract_tb(problem.__traceback__)[-1]
    sentence = f"{type(problem).__name__}: {problem} ({os.path.basename(where.filename)})"
    result["failures"] += 1
    result["cases"] += 0 if cases is None or cases is _END else len(cases.x)
    if not result["error"]:
        result["error"] = sentence
        result["arrays"] = _arrays(task, None if cases is _END else cases, sentence, np.inf, 1.0, 0)


def _arrays(
    task: Task, cases: Cases | None, part: str, residual: float, tolerance: float, index: int
) -> dict[str, Any]:
    """Return what reproduces a failing case: the task, the points, the rows of the set."""
    plain = {k: v for k, v in asdict(replace(task, given=None)).items() if v is not None}
    out: dict[str, Any] = {
        **plain, "part": part, "residual": residual, "tolerance": tolerance, "index": index,
    }  # fmt: skip
    if cases is None:
        return out
    out["x"], out["z"] = cases.x, cases.z
    # the failing point first; parts that add points of their own have larger indices
    out["point"] = cases.x[index % len(cases.x)]
    out["description"] = repr(cases.C)
    with contextlib.suppress(Exception):
        out["y"] = images(cases.C, out["point"][None])[0]
    with contextlib.suppress(Exception):
        P = cases.C.to_polyhedron()
        for name in ("A_ub", "b_ub", "A_eq", "b_eq", "lower", "upper"):
            value = getattr(P, name)
            if value is not None:
                out[name] = np.asarray(value)
        out["active"] = rows_of(cases.C).active(out["y"])
    return out
