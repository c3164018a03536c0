r"""The network, its output layers and its loss.

A trunk reads a window; one head gives scores s, the other a forecast f. The weights are

.. math::

    w = \Pi_C(s / n) \quad\text{(projection)}, \qquad
    w = \operatorname{softmax}(s) \quad\text{(softmax)},

or what Sinkhorn's iterations extended to the constraints make of s (linsat),

and the loss of a window with realised annual moments :math:`\mu, \Sigma` is

.. math::

    -\frac{\mu^\top w - r_f}{\sqrt{w^\top \Sigma w + \varepsilon}}
    + \frac{\beta}{n} \lVert f - f^\ast \rVert^2
    \;\;(+\; \rho\,[\text{shortfall of } w] \text{ for softmax with a penalty}).

Notes
-----
A network with a projection starts with its outputs in the relative interior of C, because at a
vertex the HS-Jacobian is zero for every loss. The temperature n makes the two output layers
respond alike: at uniform weights the Jacobian of softmax(s) is (I − 11ᵀ/n)/n, and so is that of
Π(s/n) inside the simplex.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd import grad

import hsref
from hsref import nn, optim

from .._common import one_blas_thread
from .._entropic import Sums, extended_sinkhorn
from .._training import Task, fit
from .config import Problem
from .windows import Examples

CURVE_STRIDE = 5
"""Every how many windows the curves over the epochs look at; final figures look at all."""


def sharpe(weights: Any, mean: Any, covariance: Any, risk_free: float, epsilon: float) -> Any:
    r"""Return the annualised Sharpe ratio of each window.

    .. math:: \frac{\mu^\top w - r_f}{\sqrt{w^\top \Sigma w + \varepsilon}}

    Parameters
    ----------
    weights, mean : array, shape (k, n)
        Portfolio weights; annualised mean returns.
    covariance : array, shape (k, n, n)
        Annualised covariance.
    risk_free, epsilon : float
        Annual rate; added under the root.

    Returns
    -------
    array, shape (k,)
        Differentiable by autograd.

    Examples
    --------
    >>> sharpe(np.array([[1.0]]), np.array([[0.13]]), np.array([[[0.04]]]), 0.03, 0.0).round(12)
    array([0.5])
    """
    moved = anp.matmul(covariance, weights[:, :, None])[:, :, 0]
    variance = anp.sum(weights * moved, axis=1)
    return (anp.sum(weights * mean, axis=1) - risk_free) / anp.sqrt(variance + epsilon)


def shortfall(weights: Any, problem: Problem) -> Any:
    """Return by how much each window misses the group's share and the cap, shape (k,)."""
    config = problem.config
    missing = anp.maximum(config.at_least - anp.dot(weights, problem.group_mask * 1.0), 0.0)
    if config.cap is None:
        return missing
    return missing + anp.sum(anp.maximum(weights - config.cap, 0.0), axis=1)


def violation(weights: np.ndarray, problem: Problem) -> np.ndarray:
    """Return the largest violation of any constraint in each window, shape (k,).

    The largest of (at_least − Σ_S w)₊, |Σw − 1|, (−w)₊ and (w − cap)₊.
    """
    config = problem.config
    parts = [
        np.maximum(config.at_least - weights @ problem.group_mask, 0.0),
        np.abs(weights.sum(axis=1) - 1.0),
        np.maximum(-weights, 0.0).max(axis=1),
    ]
    if config.cap is not None:
        parts.append(np.maximum(weights - config.cap, 0.0).max(axis=1))
    return np.max(parts, axis=0)


def softmax(scores: Any) -> Any:
    """Return exp(s) / Σ exp(s) along the last axis, differentiable by autograd."""
    raised = anp.exp(scores - anp.max(scores, axis=-1, keepdims=True))
    return raised / anp.sum(raised, axis=-1, keepdims=True)


def rectified(x: Any) -> Any:
    """Return x where it is positive, else 0, differentiable by autograd."""
    return anp.where(x > 0.0, x, 0.0)


def start_point(problem: Problem, constraints: Any) -> np.ndarray:
    """Return a point of the relative interior of C at which training starts, shape (n,).

    It mixes the equally weighted group with the equally weighted market, so that no stock is
    preferred without a reason (an interior point found by a linear program may prefer one);
    where a cap forbids that, it is the set's own interior point.
    """
    config, mask = problem.config, problem.group_mask
    point = config.at_least * mask / mask.sum() + (1.0 - config.at_least) / problem.n
    if config.cap is not None and point.max() > 0.9 * config.cap:
        return constraints.interior_point()
    return point


def sums(problem: Problem) -> tuple[Sums, ...]:
    """Return the constraints as sums of entries in [0, 1], the total last.

    Where the weights sum to 1, the group holds at least p if the others hold at most 1 − p.
    """
    config = problem.config
    others = ~problem.group_mask
    found = [] if config.cap is None else [Sums((), np.full(1, config.cap))]
    if others.any() and config.at_least > 0.0:
        most = max(1.0 - config.at_least, 1e-12)  # a bound of 0 would divide 0 by 0
        found.append(Sums((-1,), np.full(1, most), members=others))
    return (*found, Sums((-1,), np.ones(1), equality=True))


class Model:
    """A trunk with two heads, the portfolio and the forecast.

    Parameters
    ----------
    problem : Problem
    arm : {"projection", "softmax", "softmax_penalty", "linsat"}
    """

    def __init__(self, problem: Problem, arm: str) -> None:
        config, n = problem.config, problem.n
        self.problem, self.arm = problem, arm
        self.constraints = problem.constraints()
        inputs, width = config.past // config.pool * n, config.hidden[-1]
        self._trunk = nn.mlp([inputs, *config.hidden], output=rectified)
        self.start = start_point(problem, self.constraints)
        self._sums = sums(problem)
        self._projected = nn.mlp([width, n], output=self.constraints, temperature=float(n))
        self._forecast = nn.mlp([width, n])

    def init(self, seed: int) -> dict[str, Any]:
        """Return initial parameters; those of all arms agree but for the bias of the portfolio."""
        rng = np.random.default_rng(seed)
        params = {
            "trunk": self._trunk.init(rng),
            "portfolio": self._projected.init(rng),
            "forecast": self._forecast.init(rng),
        }
        n = self.problem.n
        params["portfolio"][-1]["b"] = {
            "projection": n * self.start,
            "softmax": np.zeros(n),
            # it knows the constraint, so it starts near the same feasible portfolio
            "softmax_penalty": np.log(np.maximum(self.start, 1e-3 / n)),
            "linsat": np.log(np.maximum(self.start, 1e-3 / n)),
        }[self.arm]
        return params

    def scores(self, params: Any, inputs: Any) -> tuple[Any, Any]:
        """Return what goes into the output layer, and the forecast, each of shape (k, n)."""
        seen = self._trunk.apply(params["trunk"], inputs)
        scores = self._projected.apply(params["portfolio"], seen, raw=True)
        if self.arm != "projection":
            scores = self.problem.n * scores  # without the temperature
        return scores, self._forecast.apply(params["forecast"], seen)

    def output(self, scores: Any) -> Any:
        """Return portfolio weights from scores, shape (k, n)."""
        if self.arm == "projection":
            # minibatches are too small to gain from a second thread
            return hsref.project(scores, self.constraints, n_threads=1)
        if self.arm == "linsat":
            return extended_sinkhorn(scores, self._sums, self.problem.config.iterations)
        return softmax(scores)

    def loss(self, params: Any, examples: Examples) -> Any:
        """Return the mean loss over `examples`, the penalty of its arm included."""
        scores, forecast = self.scores(params, examples.inputs)
        weights = self.output(scores)
        loss = self.common_loss(weights, forecast, examples)
        if self.arm == "softmax_penalty":
            loss = loss + self.problem.config.penalty * anp.mean(shortfall(weights, self.problem))
        return loss

    def common_loss(self, weights: Any, forecast: Any, examples: Examples) -> Any:
        """Return the part of the loss all arms share: −Sharpe + forecast error."""
        config = self.problem.config
        ratio = sharpe(
            weights, examples.mean, examples.covariance, config.risk_free, config.epsilon
        )
        error = anp.mean((forecast - examples.forecast) ** 2)
        return -anp.mean(ratio) + config.forecast_weight * error


@dataclass(frozen=True)
class Evaluation:
    """Weights on some windows and what they earned.

    Attributes
    ----------
    figures : dict of str to float
        ``sharpe``, ``violation`` (the largest), ``violation_mean``; where a network is involved
        ``loss`` (without penalty); where a projection is, ``dead_fraction``, ``mean_rank`` and
        ``boundary_fraction``.
    ratios : ndarray, shape (k,)
        Sharpe ratio of each window.
    weights : ndarray, shape (k, n)
    """

    figures: dict[str, float]
    ratios: np.ndarray
    weights: np.ndarray


def score(weights: np.ndarray, examples: Examples, problem: Problem) -> Evaluation:
    """Return what given weights, shape (k, n), earn on `examples`."""
    config = problem.config
    ratios = sharpe(weights, examples.mean, examples.covariance, config.risk_free, config.epsilon)
    broken = violation(weights, problem)
    figures = {
        "sharpe": float(ratios.mean()),
        "violation": float(broken.max()),
        "violation_mean": float(broken.mean()),
    }
    return Evaluation(figures, ratios, weights)


def evaluate(
    model: Model, params: Any, examples: Examples, then_project: bool = False
) -> Evaluation:
    """Return what the network earns on `examples`.

    Parameters
    ----------
    model : Model
    params : nested containers of ndarray
    examples : Examples
    then_project : bool
        Project the weights of a softmax network onto the constraints first.
    """
    scores, forecast = model.scores(params, examples.inputs)
    if model.arm == "projection" or then_project:
        given = softmax(scores) if then_project else scores
        record = hsref.projection(given, model.constraints, n_threads=1)
        weights = record.y
    else:
        record, weights = None, model.output(scores)
    result = score(weights, examples, model.problem)
    result.figures["loss"] = float(model.common_loss(weights, forecast, examples))
    if record is not None:
        seen = nn.diagnostics(record)
        for name in ("dead_fraction", "mean_rank", "boundary_fraction"):
            result.figures[name] = float(getattr(seen, name))
    return result


@dataclass(frozen=True)
class Run:
    """What one training run hands back; small enough to travel between processes.

    Attributes
    ----------
    task : Task
    scores : dict of str to float
        Validation score of each arm this network serves (``"tune"`` only).
    train, test : dict of str to Evaluation
        The same, for reported runs; the training side keeps its figures alone.
    history : list of dict
        One entry an epoch, epoch 0 before the first step.
    seconds : float
        Processor seconds of the steps.
    """

    task: Task
    scores: dict[str, float]
    train: dict[str, dict[str, float]]
    test: dict[str, Evaluation]
    history: list[dict[str, float]]
    seconds: float


_EXAMPLES: dict[tuple[str, str], tuple[Examples, Examples]] = {}


def _examples(problem: Problem, stage: str) -> tuple[Examples, Examples]:
    """Return the windows of a stage, kept for the next run of this process."""
    key = (problem.key, stage)
    if key not in _EXAMPLES:
        if len(_EXAMPLES) >= 2:
            _EXAMPLES.clear()
        _EXAMPLES[key] = problem.examples(stage)
    return _EXAMPLES[key]


def run(problem: Problem, task: Task) -> Run:
    """Train one network and evaluate it.

    Parameters
    ----------
    problem : Problem
    task : Task
        ``"tune"`` trains on the fitting days and scores the validation days by the arm's own aim
        (Sharpe, minus the price of shortfall where the arm pays one); ``"final"`` trains on all
        training days and evaluates training and test windows.

    Returns
    -------
    Run
        Depends on `problem` and `task` alone, bit by bit on one machine.
    """
    with one_blas_thread():
        return _run(problem, task)


def _run(problem: Problem, task: Task) -> Run:
    config = problem.config
    fitting, scoring = _examples(problem, task.stage)
    model = Model(problem, task.arm)
    # The same seed gives every arm the same initial network and the same order of the windows.
    params = model.init(task.seed)
    rng = np.random.default_rng([task.seed, 1])
    gradient = grad(lambda params, rows: model.loss(params, fitting.take(rows)))
    steps = config.epochs * max(1, round(len(fitting) / config.batch_size))
    thin, thin_test = (
        side.take(np.arange(0, len(side), CURVE_STRIDE)) for side in (fitting, scoring)
    )

    def after_epoch(epoch: int, params: Any) -> dict[str, float]:
        before, after = evaluate(model, params, thin), evaluate(model, params, thin_test)
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
        rng=rng,
        after_epoch=after_epoch if task.stage == "final" else None,
    )
    served = ["softmax", "train_then_project"] if task.arm == "softmax" else [task.arm]
    after = {
        arm: evaluate(model, fitted.params, scoring, arm == "train_then_project") for arm in served
    }
    if task.stage == "tune":
        scores = {arm: result.figures["sharpe"] for arm, result in after.items()}
        if task.arm == "softmax_penalty":
            broken = shortfall(after[task.arm].weights, problem)
            scores[task.arm] -= config.penalty * float(np.mean(broken))
        return Run(task, scores, {}, {}, [], fitted.seconds)
    before = {
        arm: evaluate(model, fitted.params, fitting, arm == "train_then_project").figures
        for arm in served
    }
    return Run(task, {}, before, after, fitted.history, fitted.seconds)
