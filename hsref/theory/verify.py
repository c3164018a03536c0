"""``hsref verify``: every statement on every set, as evidence anyone can regenerate.

One row for each statement, set and kind of degeneracy: number of cases, worst residual, tolerance,
verdict. The work is cut into tasks that are pure functions of their description, so the numbers are
the same bit for bit whichever executor runs them and in whichever order; finished tasks are kept in
the output folder, and a run that was stopped goes on from there.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .catalogue import kinds_of, set_names, small
from .journal import FolderError, Journal, code_digest
from .rendering import write_report
from .rows_table import Row, table
from .statements import STATEMENTS, describe
from .tasks import OWN, Task, run_task

DEFAULT_POINTS = 500
AGAIN = "the same command goes on where this run stopped."
CHUNK = 8000
"""Points in one task at most. Points that share an active set are handled together, so a task wants
many; a constant, because the random numbers of a task depend on it."""


@dataclass(frozen=True)
class Verification:
    """The result of :func:`run`.

    Attributes
    ----------
    rows : tuple of Row
        One for each statement × set × kind that applies.
    folder : Path
        Where report, plots and counterexamples are.
    verdict : bool
        True when no row fails.
    """

    rows: tuple[Row, ...]
    folder: Path
    verdict: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "verdict", all(row.verdict for row in self.rows))

    def __bool__(self) -> bool:
        return self.verdict

    @property
    def failures(self) -> tuple[Row, ...]:
        """The rows that fail."""
        return tuple(row for row in self.rows if not row.verdict)


def plan(
    sets: Iterable[str],
    statements: Iterable[str],
    points: int,
    seed: int,
    given: Mapping[str, tuple[Any, ...]] | None = None,
) -> list[Task]:
    """Return the tasks of a verification, neighbours on different sets.

    Parameters
    ----------
    sets, statements : iterable of str
        What to visit; statements that are about no set are added once.
    points : int
        Points for each statement and set, spread over the kinds of degeneracy.
    seed : int
        Seed.
    given : mapping, optional
        Instances of sets that are not registered.
    """
    tasks: list[tuple[tuple[int, ...], Task]] = []
    names = list(sets)
    for s, statement in enumerate(STATEMENTS[name] for name in statements):
        if statement.check is None:
            continue
        if statement.kinds:
            for k, kind in enumerate(statement.kinds):
                tasks.append(((0, k, s, 0), Task(statement.id, OWN, kind, 0, 1, seed)))
            continue
        for c, name in enumerate(names):
            mine = (given or {}).get(name)
            kinds = kinds_of(name) if mine is None else kinds_of("")
            each = max(2, -(-points // len(kinds)))
            for k, kind in enumerate(kinds):
                pieces = -(-each // CHUNK)
                for chunk in range(pieces):
                    count = each * (chunk + 1) // pieces - each * chunk // pieces
                    task = Task(statement.id, name, kind, chunk, count, seed, mine)
                    tasks.append(((chunk, k, s, c), task))
    # workers that start together then compile the routines of different sets
    return [task for _, task in sorted(tasks, key=lambda pair: pair[0])]


def run(
    *,
    sets: Iterable[str] | Mapping[str, Iterable[Any]] | None = None,
    statements: Iterable[str] | None = None,
    points: int = DEFAULT_POINTS,
    seed: int = 0,
    executor: str | Executor = "serial",
    workers: int | None = None,
    out: str | os.PathLike[str] = "hsref-verify",
    command: str = "",
    progress: Callable[[int, int, int], None] | None = None,
) -> Verification:
    """Verify statements on sets and write the report.

    Parameters
    ----------
    sets : names, or mapping of name to instances, optional
        Registered sets, all by default; or any sets of your own, by a name of your choice.
    statements : iterable of str, optional
        Ids such as ``"T4"``. By default all, but where sets are named only those that are about
        sets: the training runs and the counterexamples are about none of them.
    points : int
        Points for each statement and set.
    seed : int
        Seed of all random numbers.
    executor : str or Executor
        ``"serial"``, ``"processes"``, ``"loky"``, ``"dask://host:port"``, or anything with the
        interface of :class:`concurrent.futures.Executor`.
    workers : int, optional
        Number of processes for the executors made here.
    out : path
        Folder of the report. A run into the folder of an interrupted one goes on.
    command : str
        The command to print in the report.
    progress : callable, optional
        Called with (tasks done, tasks in all, cases that failed).

    Returns
    -------
    Verification

    Raises
    ------
    ValueError
        Unknown set, statement or executor, or a folder that holds another verification.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     done = run(sets=["Box"], statements=["T3", "T4"], points=70, out=folder)
    >>> bool(done), len(done.rows), {row.statement for row in done.rows} == {"T3", "T4"}
    (True, 14, True)
    """
    given = None
    if isinstance(sets, Mapping):
        given = {name: small(some) for name, some in sets.items()}
    names = tuple(set_names() if sets is None else sets)
    _known(names if given is None else (), set_names(), "set")
    chosen = _default(sets is not None) if statements is None else tuple(statements)
    _known(chosen, tuple(STATEMENTS), "statement")
    if points < 1:
        raise ValueError(f"points must be at least 1; got {points}.")
    tasks = plan(names, chosen, points, seed, given)
    request = {
        "sets": list(names),
        "statements": list(chosen),
        "points": points,
        "seed": seed,
        "code": code_digest(),
    }
    folder = Path(out)
    journal = Journal(folder, request)
    todo = [task for task in tasks if task.key not in journal.results]
    started = time.perf_counter()
    try:
        with _executor(executor, workers) as pool:
            for result in _results(pool, todo, workers):
                journal.add(result)
                if progress is not None:
                    failed = sum(r["failures"] for r in journal.results.values())
                    progress(len(journal.results), len(tasks), failed)
    finally:
        journal.flush()
    # in the order of the plan: what is reported does not depend on which task ended first
    rows = table([journal.results[task.key] for task in tasks])
    done = Verification(rows, folder)
    spent = {
        "command": command,
        "executor": executor if isinstance(executor, str) else type(executor).__name__,
        "seconds": time.perf_counter() - started,
        "task seconds": sum(r["seconds"] for r in journal.results.values()),
        "resumed": len(tasks) - len(todo),
    }
    write_report(folder, request, rows, spent)
    return done


def reproduce(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Run the task of a saved counterexample again and return its result.

    Parameters
    ----------
    path : path
        An NPZ file from the folder ``counterexamples`` of a verification of registered sets; it is
        read without pickle.
    """
    with np.load(path, allow_pickle=False) as saved:
        statement, name, kind = (str(saved[k]) for k in ("statement", "set", "kind"))
        chunk, count, seed = (int(saved[k]) for k in ("chunk", "count", "seed"))
    return run_task(Task(statement, name, kind, chunk, count, seed))


def _default(named: bool) -> tuple[str, ...]:
    """Return the statements to check when none are given: those about sets if sets are named."""
    return tuple(k for k, s in STATEMENTS.items() if not (named and s.kinds))


def _known(names: Sequence[str], all_names: Sequence[str], what: str) -> None:
    for name in names:
        if name not in all_names:
            raise ValueError(f"there is no {what} {name!r}; there are {', '.join(all_names)}.")


def _results(pool: Executor | None, tasks: list[Task], workers: int | None) -> Iterator[dict]:
    """Yield results as they come, never with more than a few tasks waiting."""
    if pool is None:
        yield from map(run_task, tasks)
        return
    ahead = 4 * (workers or os.cpu_count() or 1) + 4
    queue = iter(tasks)
    waiting: set[Future[dict]] = set()
    try:
        while True:
            for task in queue:
                waiting.add(pool.submit(run_task, task))
                if len(waiting) >= ahead:
                    break
            if not waiting:
                return
            finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()
    finally:
        for future in waiting:
            future.cancel()


@contextlib.contextmanager
def _executor(spec: str | Executor, workers: int | None) -> Iterator[Executor | None]:
    """Make the executor that was asked for, and close it if it was made here."""
    if not isinstance(spec, str):
        yield spec
    elif spec == "serial":
        yield None
    elif spec == "processes":
        import multiprocessing

        # spawn: the state of a parent that has used threads is never inherited
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
            yield pool
    elif spec == "loky":
        loky = _package("loky")
        yield loky.get_reusable_executor(max_workers=workers)
    elif spec.startswith("dask://"):
        client = _package("distributed").Client(f"tcp://{spec[len('dask://') :]}")
        try:
            yield client.get_executor()
        finally:
            client.close()
    else:
        raise ValueError(
            f"there is no executor {spec!r}; use serial, processes, loky or dask://host:port."
        )


def _package(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as problem:
        raise ValueError(
            f"this executor needs the package {name}: pip install {name}."
        ) from problem


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``hsref verify``.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments after ``verify``; those of the process by default.

    Returns
    -------
    int
        0 when every row holds, 1 when one fails, 2 for input that cannot be used.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    chosen = parser().parse_args(arguments)
    if chosen.list:
        print("\n\n".join(describe(name) for name in STATEMENTS))
        return 0
    from .progress import Progress

    try:
        with Progress() as progress:
            done = run(
                sets=_words(chosen.sets),
                statements=_words(chosen.statements),
                points=chosen.points,
                seed=chosen.seed,
                executor=chosen.executor,
                workers=chosen.workers,
                out=chosen.out,
                command=shlex.join(["hsref", "verify", *arguments]),
                progress=progress,
            )
    except (FolderError, ValueError) as problem:
        print(f"hsref verify: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"hsref verify: interrupted; {AGAIN}", file=sys.stderr)
        return 130
    except concurrent.futures.BrokenExecutor as problem:
        print(f"hsref verify: a worker died ({problem}); {AGAIN}", file=sys.stderr)
        return 1
    cases = sum(row.cases for row in done.rows)
    print(f"{len(done.rows)} rows, {cases} cases, {len(done.failures)} rows fail.")
    for row in done.failures[:20]:
        print(f"  {row}")
    print(f"Report: {done.folder / 'report.md'}")
    return 0 if done else 1


def parser() -> argparse.ArgumentParser:
    """Return the parser of ``hsref verify``."""
    p = argparse.ArgumentParser(
        prog="hsref verify",
        description="Check every statement of the theory on every set, and write the evidence.",
    )
    p.add_argument("--sets", nargs="+", metavar="NAME",
                   help="registered sets (default: all)")  # fmt: skip
    p.add_argument("--statements", nargs="+", metavar="ID",
                   help="such as T4 (default: all; with --sets, those that are about sets, which "
                        "the training runs are not)")  # fmt: skip
    p.add_argument("--points", type=int, default=DEFAULT_POINTS, metavar="N",
                   help="points for each statement and set (default: %(default)s)")  # fmt: skip
    p.add_argument("--seed", type=int, default=0, metavar="S")
    p.add_argument(
        "--executor",
        default="processes",
        help="serial, processes, loky or dask://host:port (default: %(default)s)",
    )
    p.add_argument("--workers", type=int, metavar="W", help="processes (default: all processors)")
    p.add_argument(
        "--out",
        default="hsref-verify",
        metavar="DIR",
        help="folder of the report; an interrupted run goes on (default: %(default)s)",
    )
    p.add_argument("--list", action="store_true", help="print the statements and their proofs")
    return p


def _words(values: list[str] | None) -> list[str] | None:
    """Accept names separated by spaces or commas."""
    if values is None:
        return None
    return [word for value in values for word in value.split(",") if word]


if __name__ == "__main__":
    sys.exit(main())
