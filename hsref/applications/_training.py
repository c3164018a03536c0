"""Sweeps of independent training runs: a grid of learning rates, then seeds, on any executor."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ._checkpoint import Checkpoint


@dataclass(frozen=True)
class Task:
    """One training run.

    Attributes
    ----------
    arm : str
        What is trained.
    stage : str
        ``"tune"``: trained without the validation days and scored on them; ``"final"``: trained
        on all training days.
    seed : int
        Of the initial parameters and of the order of the minibatches.
    learning_rate : float
        Of the first step.
    """

    arm: str
    stage: str
    seed: int
    learning_rate: float


@dataclass(frozen=True)
class Progress:
    """One training run has ended.

    Attributes
    ----------
    done, total : int
        Runs that have ended, and all runs of this call.
    task : Task
        The one that has just ended.
    seconds : float
        Since the sweep began.
    """

    done: int
    total: int
    task: Task
    seconds: float


@dataclass(frozen=True)
class Fitted:
    """What a training loop returns.

    Attributes
    ----------
    params : nested containers of ndarray
        Trained parameters.
    history : list of dict
        What `after_epoch` returned, epoch 0 (before the first step) included.
    seconds : float
        Processor seconds of this thread in the steps, without `after_epoch`: unlike wall time,
        comparable between runs on a machine that does other work too.
    """

    params: Any
    history: list[dict[str, float]] = field(repr=False)
    seconds: float


def batches(
    count: int, size: int, rng: np.random.Generator, groups: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """Yield a random order of ``0, ..., count − 1`` in equal pieces (±1) of about `size`.

    With `groups`, one label an example, a piece holds examples of one label alone (arrays of one
    shape, say), and the pieces come in a random order.
    """
    if groups is None:
        yield from np.array_split(rng.permutation(count), max(1, round(count / size)))
        return
    pieces = []
    for label in np.unique(groups):
        members = rng.permutation(np.flatnonzero(groups == label))
        pieces += np.array_split(members, max(1, round(len(members) / size)))
    yield from (pieces[i] for i in rng.permutation(len(pieces)))


def fit(
    gradient: Callable[[Any, np.ndarray], Any],
    params: Any,
    optimizer: tuple[Callable[[Any], Any], Callable[[Any, Any, Any], tuple[Any, Any]]],
    *,
    count: int,
    batch_size: int,
    epochs: int,
    rng: np.random.Generator,
    groups: np.ndarray | None = None,
    after_epoch: Callable[[int, Any], dict[str, float]] | None = None,
    checkpoint: Checkpoint | None = None,
) -> Fitted:
    """Run minibatch steps.

    Parameters
    ----------
    gradient : callable
        ``gradient(params, rows)`` of the mean loss over the examples `rows`.
    params : nested containers of ndarray
        Initial parameters. Not modified.
    optimizer : (init, update)
        As returned by :func:`hsref.optim.adam`.
    count, batch_size, epochs : int
        Examples, examples a step, passes.
    rng : numpy.random.Generator
        Decides the order; advanced.
    groups : ndarray of shape (count,), or None
        Examples of one step share a label, see :func:`batches`.
    after_epoch : callable or None
        ``after_epoch(epoch, params)`` returns figures for the history.
    checkpoint : Checkpoint or None
        Written after every epoch; where one is found, the run goes on after it and ends with the
        bits that it would have had without the interruption (times apart).

    Returns
    -------
    Fitted
    """
    init, update = optimizer
    state, history, seconds, first = init(params), [], 0.0, 0
    saved = None if checkpoint is None else checkpoint.load((params, state))
    if saved is not None:
        meta, (params, state) = saved
        history, seconds, first = meta["history"], meta["seconds"], meta["epoch"] + 1
        rng.bit_generator.state = meta["rng"]
    gradient(params, np.arange(1))  # the first call may compile; the clock is off
    for epoch in range(first, epochs + 1):
        if epoch:
            begun = time.thread_time()
            for rows in batches(count, batch_size, rng, groups):
                params, state = update(params, gradient(params, rows), state)
            seconds += time.thread_time() - begun
        if after_epoch is not None:
            history.append(after_epoch(epoch, params))
        if checkpoint is not None:
            meta = {"epoch": epoch, "history": history, "seconds": seconds}
            checkpoint.save(meta | {"rng": rng.bit_generator.state}, (params, state))
    return Fitted(params, history, seconds)


def sweep(
    run: Callable[[Any, Task], Any],
    problem: Any,
    tasks: Sequence[Task],
    executor: Executor | None = None,
    progress: Callable[[Task], None] | None = None,
) -> list[Any]:
    """Return ``[run(problem, task) for task in tasks]``, computed on `executor` if one is given.

    Parameters
    ----------
    run : callable
        A module-level function; for process pools it, `problem` and the results must pickle.
    problem : object
        Shared by all tasks.
    tasks : sequence of Task
        What to run. The order of the results is that of the tasks, whatever finishes first.
    executor : concurrent.futures.Executor or None
        None runs in this thread.
    progress : callable or None
        Called with each task that has ended.

    Returns
    -------
    list
    """
    report = progress or (lambda task: None)
    if executor is None:
        results = []
        for task in tasks:
            results.append(run(problem, task))
            report(task)
        return results
    futures = {executor.submit(run, problem, task): task for task in tasks}
    try:
        for future in as_completed(futures):
            future.result()  # raises what the worker raised
            report(futures[future])
    except BaseException:
        for future in futures:
            future.cancel()
        raise
    return [future.result() for future in futures]


def best_rate(
    tasks: Sequence[Task], scores: Sequence[float], arm: str
) -> tuple[float, dict[float, float]]:
    """Return the learning rate of `arm` with the highest mean score, and all mean scores.

    Ties go to the smaller rate, and a score that is not finite counts as the worst.

    Examples
    --------
    >>> tasks = [Task("a", "tune", 0, rate) for rate in (0.1, 0.2)]
    >>> best_rate(tasks, [1.0, 3.0], "a")
    (0.2, {0.1: 1.0, 0.2: 3.0})
    """
    found: dict[float, list[float]] = {}
    for task, score in zip(tasks, scores):
        if task.arm == arm:
            found.setdefault(task.learning_rate, []).append(
                score if np.isfinite(score) else -np.inf
            )
    means = {rate: float(np.mean(values)) for rate, values in sorted(found.items())}
    return max(means, key=lambda rate: (means[rate], -rate)), means
