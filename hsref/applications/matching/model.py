r"""The network that scores pairs, its loss, one training run.

Features of a pair go through a perceptron, which gives hidden values :math:`h_{ij}` and channels
:math:`a_{ij}`. One round of messages on the association graph follows: with
:math:`H^c = \operatorname{softmax}_{\text{rows}}(a^c)`, a first guess of the matches, and basis
functions :math:`\Phi_r` of where neighbours lie,

.. math::

    M^{rc}_{ij} = \sum_{i'j'} \Phi^{\text{left}}_r(i, i')\, H^c_{i'j'}\,
    \Phi^{\text{right}}_r(j, j') = (\Phi^{\text{left}}_r H^c {\Phi^{\text{right}}_r}^{\!\top})_{ij}

says how many neighbours of i in position r are guessed to match neighbours of j in the same
position. A second perceptron turns h and M into scores s, and the output layer of the arm
(:mod:`.layers`) turns s into matches X. All arms have the same network and the same loss,

.. math:: -\frac1{mn}\sum_{ij} t_{ij}\log S_{ij} + (1-t_{ij})\log(1-S_{ij}), \qquad
          S = (1-\delta) X + \tfrac{\delta}{2},

which is finite where X is exactly 0 or 1, or the squared Frobenius distance.
"""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass, field
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd import grad

import hsref
from hsref import nn, optim

from .._checkpoint import Checkpoint
from .._common import one_blas_thread
from .._entropic import softmax_rows
from .._training import Task, fit
from . import decode, layers
from .config import MatchingConfig
from .instances import Dataset, Instances
from .problem import Problem, data_of

CHANNELS = 2
"""Channels of the first guess that is passed around."""

KEPT = 16
"""Hidden values a pair keeps from the first perceptron."""

PIECE = 64
"""Instances that are evaluated at a time."""


def rectified(x: Any) -> Any:
    """Return x where it is positive, else 0, differentiable by autograd."""
    return anp.where(x > 0.0, x, 0.0)


class Model:
    """The network of one arm.

    Parameters
    ----------
    problem : Problem
    arm : str
        One of :data:`~hsref.applications.matching.TRAINED`.
    """

    def __init__(self, problem: Problem, arm: str) -> None:
        self.arm, self.config = arm, problem.config
        self.data = data_of(problem)
        sample = self.data.fit.groups[0]
        features, looks = sample.pair.shape[-1], sample.left.shape[1]
        width = self.config.hidden
        self._first = nn.mlp([features, width, KEPT + CHANNELS])
        self._second = nn.mlp([KEPT + CHANNELS * looks, width, 1])

    def init(self, seed: int) -> dict[str, Any]:
        """Return initial parameters, the same for all arms.

        The last layer is halved until the projection of every probe lies in the relative interior
        of its set: at a vertex no loss has a gradient.
        """
        rng = np.random.default_rng(seed)
        params = {
            "first": self._first.init(rng),
            "second": self._second.init(rng),
            "spare": np.zeros(()),
        }
        # The probes are the first instances of every shape, whatever the arm. A score of 1 is
        # X = 1/τ before the total is met, within the rows and columns of Substochastic.
        params["second"][-1]["b"] = np.full(1, 0.5)
        probes = [group.take(np.arange(min(8, len(group)))) for group in self.data.fit.groups]
        while not all(self._inside(params, probe) for probe in probes):
            params["second"][-1]["W"] = 0.5 * params["second"][-1]["W"]
        return params

    def _inside(self, params: Any, probe: Instances) -> bool:
        m, n = probe.shape
        given = self.scores(params, probe) / layers.temperature(m, n)
        for arm in layers.PROJECTIONS:
            record = hsref.projection(
                given, layers.matching_set(arm, m, n), **layers.keywords(arm, probe.total)
            )
            # V of full rank on the set's directions, or on those that this total leaves
            if arm == "projection":
                if not bool(np.all(record.y > 0.0)):
                    return False
            elif not bool(np.all(record.rank == m * n)):
                return False
        return True

    def scores(self, params: Any, instances: Instances) -> Any:
        """Return the scores of all pairs, shape (k, m, n)."""
        pair = (instances.pair - self.data.mean) / self.data.std
        found = self._first.apply(params["first"], pair)
        hidden, channels = rectified(found[..., :KEPT]), found[..., KEPT:]
        guess = softmax_rows(anp.transpose(channels, (0, 3, 1, 2)), 0.0)[:, :, None]
        left, right = instances.left[:, None], instances.right[:, None]
        # (k, 1, R, m, m) (k, C, 1, m, n) (k, 1, R, n, n)
        seen = anp.matmul(anp.matmul(left, guess), np.swapaxes(right, -1, -2))
        count, _, _, m, n = seen.shape
        seen = anp.transpose(anp.reshape(seen, (count, -1, m, n)), (0, 2, 3, 1))
        both = anp.concatenate([hidden, seen], axis=-1)
        return self._second.apply(params["second"], both)[..., 0]

    def output(self, params: Any, instances: Instances) -> Any:
        """Return the matches X, shape (k, m, n)."""
        scores = self.scores(params, instances)
        return layers.output(
            self.arm, scores, params["spare"], instances.total, self.config.iterations
        )

    def loss(self, params: Any, instances: Instances) -> Any:
        """Return the mean loss over instances and entries."""
        return measured(self.output(params, instances), instances.truth, self.config)


def measured(X: Any, truth: np.ndarray, config: MatchingConfig) -> Any:
    """Return the loss of matches X, the same for every arm."""
    if config.loss == "frobenius":
        return nn.mse(X, truth)
    # rounding, and iterations that have not converged, may leave [0, 1] by a little
    return nn.smoothed_bce(anp.clip(X, 0.0, 1.0), truth, delta=config.delta)


@dataclass(frozen=True)
class Evaluation:
    """What a matcher achieves on some instances.

    Attributes
    ----------
    figures : dict of str to float
        Means over instances of ``f1`` (Hungarian, then the `total` largest), ``f1_topk`` (the
        largest entries alone), ``f1_open`` (Hungarian, entries above one half: not told the
        total); ``violation`` (the largest), ``violation_mean``, ``marginal_violation`` (the
        largest, without the total); ``loss``; where a projection is, ``dead_fraction``,
        ``mean_rank``, ``boundary_fraction``.
    scores : ndarray, shape (k,)
        F1 of each instance.
    chosen : list of ndarray of bool
        Pairs of each group, Hungarian and the `total` largest.
    """

    figures: dict[str, float]
    scores: np.ndarray
    chosen: list[np.ndarray] = field(repr=False)


def evaluate(model: Model, params: Any, data: Dataset, decoded: bool = True) -> Evaluation:
    """Return what the network achieves on `data`; without decoding, its loss and violation."""
    found: dict[str, list[np.ndarray]] = {}
    chosen = []

    def note(**figures: Any) -> None:
        for name, values in figures.items():
            found.setdefault(name, []).append(np.asarray(values, dtype=float))

    for group in data.groups:
        pairs = []
        for start in range(0, len(group), PIECE):
            piece = group.take(np.arange(start, min(start + PIECE, len(group))))
            X = _observed(model, params, piece, note)
            every, marginal = layers.violation(X, piece.total)
            note(violation=every, marginal_violation=marginal)
            # the mean of a piece, once for each of its instances: shapes are alike within it
            note(loss=np.full(len(piece), measured(X, piece.truth, model.config)))
            if decoded:
                best = decode.hungarian(X, piece.total)
                pairs.append(best)
                note(
                    f1=decode.f1(best, piece.truth),
                    f1_topk=decode.f1(decode.largest(X, piece.total), piece.truth),
                    f1_open=decode.f1(decode.hungarian(X, piece.total, 0.5), piece.truth),
                )
        if decoded:
            chosen.append(np.concatenate(pairs))
    merged = {name: np.concatenate(values) for name, values in found.items()}
    figures = {name: float(values.mean()) for name, values in merged.items()}
    figures["violation_mean"] = figures["violation"]
    for name in ("violation", "marginal_violation"):
        figures[name] = float(merged[name].max())
    return Evaluation(figures, merged.get("f1", np.zeros(0)), chosen)


def _observed(model: Model, params: Any, piece: Instances, note: Any) -> np.ndarray:
    """Return X, noting for projections how alive they are."""
    if model.arm not in layers.PROJECTIONS:
        return model.output(params, piece)
    m, n = piece.shape
    C = layers.matching_set(model.arm, m, n)
    record = hsref.projection(
        model.scores(params, piece) / layers.temperature(m, n),
        C,
        **layers.keywords(model.arm, piece.total),
    )
    rank = np.asarray(record.rank)
    note(dead_fraction=rank == 0, mean_rank=rank, boundary_fraction=(record.y <= 0.0).any((1, 2)))
    return record.y


def untrained(problem: Problem) -> dict[str, tuple[Evaluation, Evaluation]]:
    """Return train and test evaluations of the arms that learn nothing."""
    data = data_of(problem)
    ratio = decode.tuned_ratio(data.fit.groups)

    def nearest(group: Instances) -> np.ndarray:
        return decode.mutual(group.distance, ratio)

    def assigned(group: Instances) -> np.ndarray:
        return decode.hungarian(-group.distance, group.total)

    found = {}
    for name, match in (("mutual_nearest", nearest), ("descriptor_hungarian", assigned)):
        sides = []
        for side in (data.fit, data.test):
            chosen = [match(group) for group in side.groups]
            scores = np.concatenate(
                [decode.f1(one, group.truth) for one, group in zip(chosen, side.groups)]
            )
            broken = [layers.violation(one * 1.0, g.total) for one, g in zip(chosen, side.groups)]
            every = np.concatenate([one[0] for one in broken])
            figures = {
                "f1": float(scores.mean()),
                "violation": float(every.max()),
                "violation_mean": float(every.mean()),
                "marginal_violation": float(max(one[1].max() for one in broken)),
            }
            if name == "mutual_nearest":
                figures["ratio"] = ratio
            sides.append(Evaluation(figures, scores, chosen))
        found[name] = (sides[0], sides[1])
    return found


@dataclass(frozen=True)
class Run:
    """What one training run hands back; small enough to travel between processes.

    Attributes
    ----------
    task : Task
    score : float
        Mean F1 on the validation instances (``"tune"`` only).
    train : dict of str to float
        Figures on the training instances of a reported run.
    test : Evaluation or None
    history : list of dict
        One entry an epoch, epoch 0 before the first step.
    seconds : float
        Processor seconds of the steps.
    memory : float
        Peak of the memory that Python and NumPy hold during one gradient of a batch, in MiB,
        without what was held before.
    """

    task: Task
    score: float
    train: dict[str, float]
    test: Evaluation | None
    history: list[dict[str, float]]
    seconds: float
    memory: float


def run(problems: dict[str, Problem], task: Task, checkpoints: str | None = None) -> Run:
    """Train one network and evaluate it.

    Parameters
    ----------
    problems : dict of str to Problem
        By world; a task whose arm begins with "graphs-" is about graphs, any other about images.
    task : Task
        ``"tune"`` trains on the tuning instances and scores F1 on those of validation;
        ``"final"`` trains on all training instances and evaluates them and the test instances.
    checkpoints : str or None
        Folder in which the run leaves a checkpoint after each epoch and looks for one first.

    Returns
    -------
    Run
        Depends on `problems` and `task` alone, bit by bit on one machine (times apart).
    """
    world = "graphs" if task.arm.startswith("graphs-") else "images"
    with one_blas_thread():
        return _run(problems[world], task.arm.removeprefix("graphs-"), task, checkpoints)


def _run(problem: Problem, arm: str, task: Task, checkpoints: str | None) -> Run:
    config, data = problem.config, data_of(problem)
    final = task.stage == "final"
    fitting = data.fit if final else data.tune_fit
    model = Model(problem, arm)
    # The same seed gives every arm the same initial network and the same order of the instances.
    params = model.init(task.seed)
    gradient = grad(lambda params, rows: model.loss(params, fitting.take(rows)))
    labels = fitting.labels
    sizes = np.bincount(labels)
    steps = config.epochs * sum(max(1, round(size / config.batch_size)) for size in sizes)
    memory = _peak(gradient, params, np.arange(min(config.batch_size, sizes[0]))) if final else 0.0
    curve, held_out = _thin(fitting, 64), _thin(data.test, 48)

    def after_epoch(epoch: int, params: Any) -> dict[str, float]:
        before = evaluate(model, params, curve, decoded=False)
        after = evaluate(model, params, held_out, decoded=False)
        figures = {"epoch": float(epoch)}
        figures |= {f"train_{name}": value for name, value in before.figures.items()}
        return figures | {f"test_{name}": value for name, value in after.figures.items()}

    fitted = fit(
        gradient,
        params,
        optim.adam(optim.cosine(task.learning_rate, steps)),
        count=len(fitting),
        batch_size=config.batch_size,
        epochs=config.epochs,
        rng=np.random.default_rng([task.seed, 1]),
        groups=labels,
        after_epoch=after_epoch if final else None,
        checkpoint=None if checkpoints is None else Checkpoint.of(checkpoints, problem.key, task),
    )
    if not final:
        score = evaluate(model, fitted.params, data.tune_score).figures["f1"]
        return Run(task, score, {}, None, [], fitted.seconds, 0.0)
    before = evaluate(model, fitted.params, data.fit)
    after = evaluate(model, fitted.params, data.test)
    return Run(task, np.nan, before.figures, after, fitted.history, fitted.seconds, memory)


def _thin(data: Dataset, most: int) -> Dataset:
    """Return about `most` instances, as many of each group."""
    share = max(1, most // len(data.groups))
    return Dataset(
        tuple(
            group.take(np.unique(np.linspace(0, len(group) - 1, share).astype(int)))
            for group in data.groups
        )
    )


def _peak(gradient: Any, params: Any, rows: np.ndarray) -> float:
    """Return the peak memory of one gradient in MiB; what the compiler keeps is not in it."""
    gradient(params, rows)
    tracemalloc.start()
    try:
        gradient(params, rows)
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()
