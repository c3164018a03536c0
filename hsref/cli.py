"""The ``hsref`` command: ``hsref train``, ``verify``, ``bench``, ``info``, ``warmup``.

Results go to standard output, progress and errors to standard error. Exit status 0 is success,
1 a failure, 2 input that cannot be used (one sentence says why), 130 an interruption.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

APPLICATIONS = ("portfolio", "matching", "hyper-connections")
"""What ``hsref train`` knows: modules of :mod:`hsref.applications`, written with hyphens."""

EXTRAS = {
    "apps": ("pandas", "skfolio", "clarabel", "skimage", "matplotlib", "threadpoolctl", "rich"),
    "torch": ("torch",),
    "jax": ("jax",),
    "cuda": ("numba_cuda",),
}
"""What ``hsref info`` looks for, by extra."""

BENCHMARKS = ("run", "scaling", "bridges", "gpu_resources", "fuzz", "trust", "gate")
"""What ``hsref bench`` starts: scripts in the folder ``benchmarks`` of a source checkout."""

SUCCESS, FAILURE, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str or None
        Arguments without the program's name; None takes those of the process.

    Returns
    -------
    int
        The exit status. Usage errors and ``--help`` leave through ``SystemExit``, as argparse has
        it.

    Examples
    --------
    >>> main(["train", "portfolio", "--at-least", "2", "--quick"])
    2
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["verify"]:
        # it brings its own options, and importing them is not free
        from hsref.theory import verify

        return verify.main(arguments[1:])
    if arguments[:1] == ["bench"] and not {"-h", "--help"} & set(arguments[1:2]):
        return _bench(arguments[1:])
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if not hasattr(chosen, "run"):
        parser.print_help()
        return SUCCESS
    try:
        return chosen.run(chosen, shlex.join(["hsref", *arguments]))
    except KeyboardInterrupt as interruption:
        # an application that can go on later says how
        _say(str(interruption) or "interrupted; nothing was written.")
        return INTERRUPTED
    except BrokenPipeError:
        # the reader of our output went away, as `head` does; that is its right
        sys.stdout = open(os.devnull, "w")
        return SUCCESS
    except Exception as error:
        if not _is_the_users(error):
            raise
        _say(str(error))
        return BAD_INPUT


def _is_the_users(error: Exception) -> bool:
    """Tell whether an error is about what was asked for, so that its message is all one needs."""
    applications = sys.modules.get("hsref.applications")
    if applications is None:
        return False
    return isinstance(error, (applications.InputError, applications.MissingExtraError))


def _say(sentence: str) -> None:
    print(f"hsref: {sentence}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    import hsref

    parser = argparse.ArgumentParser(
        prog="hsref",
        description="Differentiable Euclidean projection onto polyhedra, with the HS-Jacobian.",
    )
    parser.add_argument("--version", action="version", version=f"hsref {hsref.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    train = commands.add_parser("train", help="train an application and write a report")
    names = train.add_subparsers(title="applications", metavar="APPLICATION", required=True)
    for name in APPLICATIONS:
        application = _application(name)
        one = names.add_parser(name, help=application.SUMMARY, description=application.SUMMARY)
        application.add_arguments(one)
        one.add_argument(
            "--out", metavar="DIR", help=f"folder for the results (default: hsref-{name})"
        )
        one.add_argument("--quick", action="store_true", help="a look in seconds, not a result")
        one.add_argument(
            "--workers",
            type=int,
            metavar="N",
            help="processes to train in (default 2, one for --quick or a single processor)",
        )
        one.set_defaults(run=_train, application=application)

    commands.add_parser("verify", help="check every statement of the theory on every set")
    commands.add_parser(
        "bench",
        help="measure speed and robustness, in a source checkout",
        usage="hsref bench [NAME] [options of NAME]",
        description=f"Start one of {', '.join(BENCHMARKS)} (default: run) from the folder "
        "benchmarks of a source checkout; hsref bench NAME --help lists its options.",
    )
    info = commands.add_parser("info", help="show versions, sets and what is installed")
    info.add_argument("--sets", action="store_true", help="only the sets, with shapes and costs")
    info.set_defaults(run=_info)
    warmup = commands.add_parser("warmup", help="compile the routines of every set into the cache")
    warmup.set_defaults(run=_warmup)
    return parser


def _application(name: str) -> Any:
    """Return the module behind ``hsref train NAME``."""
    return importlib.import_module(f"hsref.applications.{name.replace('-', '_')}.command")


# -- train ----------------------------------------------------------------------------------------


def _train(arguments: argparse.Namespace, command: str) -> int:
    from hsref.applications import InputError

    workers = arguments.workers
    if workers is None:
        workers = 1 if arguments.quick else min(2, _processors())
    if not 1 <= workers <= 1024:
        raise InputError(f"--workers must lie between 1 and 1024; got {workers}.")
    with _progress() as progress, _executor(workers) as executor:
        folder = arguments.application.run(arguments, command, progress, executor)
    print(folder / "report.md")
    return SUCCESS


@contextlib.contextmanager
def _executor(workers: int) -> Iterator[Executor | None]:
    """Yield a pool of fresh processes, or None for one worker: this process."""
    if workers == 1:
        yield None
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    # spawn: a forked child of a process that has run threaded code may hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _processors() -> int:
    """Return how many processors this process may use; a container may have fewer than it sees."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _one_thread() -> None:
    """Leave the other processors to the other workers."""
    os.environ.setdefault("HSREF_NUM_THREADS", "1")


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[Any], None]]:
    """Yield a callback that shows progress: a bar on a terminal, a line now and then elsewhere."""
    if sys.stderr.isatty() and importlib.util.find_spec("rich") is not None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            line = bar.add_task("preparing", total=None)

            def show(event: Any) -> None:
                name = f"{event.task.stage} {event.task.arm}"
                bar.update(line, total=event.total, completed=event.done, description=name)

            yield show
        return

    last = [0.0]

    def tell(event: Any) -> None:
        now = time.monotonic()
        if event.done == event.total or now - last[0] >= 5.0:
            last[0] = now
            print(
                f"{event.done}/{event.total} runs, {event.seconds:.0f} s ({event.task.stage} "
                f"{event.task.arm})",
                file=sys.stderr,
                flush=True,
            )

    yield tell


# -- bench ----------------------------------------------------------------------------------------


def _bench(arguments: Sequence[str]) -> int:
    """Run a benchmark of the source checkout that hsref, or the current folder, belongs to."""
    name, rest = "run", list(arguments)
    if rest and rest[0] in BENCHMARKS:
        name = rest.pop(0)
    for root in (Path(__file__).resolve().parent.parent, Path.cwd()):
        if (root / "benchmarks" / "workloads.py").is_file() and (root / "hsref").is_dir():
            break
    else:
        _say(
            "the benchmarks are part of the source checkout and not of the installed package; run "
            "hsref bench in the folder of a checkout."
        )
        return BAD_INPUT
    # The checkout comes first, so that what is measured is the code beside the benchmarks.
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-P", "-m", f"benchmarks.{name}", *rest]
    try:
        return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}).returncode
    except KeyboardInterrupt:
        _say("interrupted; the same command goes on where a benchmark keeps its rows.")
        return INTERRUPTED


# -- info and warmup ------------------------------------------------------------------------------


def _info(arguments: argparse.Namespace, command: str) -> int:
    import platform
    from importlib import metadata

    import hsref
    from hsref.sets import REGISTRY

    if arguments.sets:
        _list_sets(REGISTRY)
        return SUCCESS
    print(f"hsref {hsref.__version__}")
    print(f"python {platform.python_version()} on {platform.system()} {platform.machine()}")
    for package in ("numpy", "scipy", "numba", "autograd"):
        print(f"{package} {metadata.version(package)}")
    print(f"processors {_processors()}")

    from hsref._cuda.compat import describe

    print("\nCUDA")
    for what, fact in describe().items():
        print(f"  {what}: {fact}")

    print("\nsets")
    width = max(len(name) for name in REGISTRY)
    for name in sorted(REGISTRY):
        print(f"  {name:<{width}}  {_summary(REGISTRY[name])}".rstrip())

    print("\nextras")
    for extra, modules in EXTRAS.items():
        absent = [module for module in modules if importlib.util.find_spec(module) is None]
        state = "installed" if not absent else f"not installed: {', '.join(absent)}"
        print(f"  {extra:<6} {state}")

    print("\napplications (hsref train NAME)")
    for name in APPLICATIONS:
        application = _application(name)
        print(f"  {name}  {application.SUMMARY}")
    return SUCCESS


def _summary(kind: type) -> str:
    return (kind.__doc__ or "").strip().partition("\n")[0]


def _list_sets(registry: dict[str, Any]) -> None:
    """Print every set with the shapes of its examples and the cost of both directions."""
    for name in sorted(registry):
        kind = registry[name]
        shapes = sorted({one.shape for one in kind.examples()})
        print(f"{name}: {_summary(kind)}")
        print(f"  points such as {', '.join(map(str, shapes))}")
        print(f"  forward {kind.forward_cost}; backward {kind.backward_cost}")


def _warmup(arguments: argparse.Namespace, command: str) -> int:
    import hsref
    from hsref.sets import REGISTRY

    begun = time.perf_counter()
    total = 0
    for name, kind in REGISTRY.items():
        started = time.perf_counter()
        total += len(hsref.warmup(kind.examples()))
        print(f"{name}: {time.perf_counter() - started:.1f} s", file=sys.stderr, flush=True)
    print(f"{total} routines ready after {time.perf_counter() - begun:.1f} s")
    return SUCCESS


if __name__ == "__main__":
    sys.exit(main())
