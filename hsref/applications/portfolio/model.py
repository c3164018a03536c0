r"""The network, its output layers and its loss.

A trunk reads a window; one head gives scores s, the other a forecast f. The weights are

.. math::

    w = \Pi_C(a + s / n) \quad\text{(projection)}, \qquad
    w = \operatorname{softmax}(s) \quad\text{(softmax)}, \qquad
    w = \operatorname{softmax}(\log a + s) \quad\text{(softmax with a penalty)},

with a portfolio a in the relative interior of C, or what the mandate's own layer makes of s
(Sinkhorn's iterations extended to the constraints, or a trade made shorter),

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

import hsref
from hsref import nn

from .mandate import positive, softmax
from .problem import Problem
from .realised import sharpe
from .windows import Examples


class Model:
    """A trunk with two heads, the portfolio and the forecast.

    Parameters
    ----------
    problem : Problem
    arm : str
        One of ``problem.trained``.
    penalty, temperature, scale : float
        As in :class:`~hsref.applications.portfolio.config.PortfolioTask`.
    """

    def __init__(
        self,
        problem: Problem,
        arm: str,
        penalty: float = 0.0,
        temperature: float = 1.0,
        scale: float = 1.0,
    ) -> None:
        config, n = problem.config, problem.n
        self.problem, self.arm, self.mandate = problem, arm, problem.mandate
        self.penalty, self.temperature, self.scale = penalty, temperature, scale
        self.constraints = problem.constraints()
        inputs, width = config.past // config.pool * n, config.hidden[-1]
        self._trunk = nn.mlp([inputs, *config.hidden], output=positive)
        self._head = nn.mlp([width, n], output=self.constraints, temperature=temperature * n)
        self._forecast = nn.mlp([width, n])

    def init(self, seed: int) -> dict[str, Any]:
        """Return initial parameters, the same for all arms of one temperature and scale."""
        rng = np.random.default_rng(seed)
        params = {
            "trunk": self._trunk.init(rng),
            "portfolio": self._head.init(rng),
            "forecast": self._forecast.init(rng),
        }
        last = params["portfolio"][-1]
        last["W"] = self.scale * last["W"]
        # where training starts is the anchor's business
        last["b"] = np.zeros(self.problem.n)
        return params

    def scores(self, params: Any, inputs: Any) -> tuple[Any, Any]:
        """Return the scores s and the forecast, each of shape (k, n)."""
        seen = self._trunk.apply(params["trunk"], inputs)
        head = params["portfolio"][-1]
        return anp.dot(seen, head["W"]) + head["b"], self._forecast.apply(params["forecast"], seen)

    def given(self, scores: Any, starts: np.ndarray) -> Any:
        """Return what the arm ``projection`` projects."""
        return self.mandate.anchor(starts) + scores / (self.temperature * self.problem.n)

    def output(self, scores: Any, starts: np.ndarray) -> Any:
        """Return portfolio weights from scores, shape (k, n), for windows with those starts."""
        mandate = self.mandate
        if self.arm == "projection":
            # minibatches are too small to gain from a second thread
            return hsref.project(
                self.given(scores, starts), self.constraints, n_threads=1, **mandate.data(starts)
            )
        if self.arm == mandate.rival:
            return mandate.compete(scores, starts, self.problem.config.iterations)
        if self.arm == "softmax_penalty":
            # it knows the constraint, so it starts near the same feasible portfolio
            least = 1e-3 / self.problem.n
            return softmax(np.log(np.maximum(mandate.anchor(starts), least)) + scores)
        return softmax(scores)

    def loss(self, params: Any, examples: Examples) -> Any:
        """Return the mean loss over `examples`, the penalty of its arm included."""
        scores, forecast = self.scores(params, examples.inputs)
        weights = self.output(scores, examples.starts)
        loss = self.common_loss(weights, forecast, examples)
        if self.arm == "softmax_penalty":
            missed = self.mandate.shortfall(weights, examples.starts)
            loss = loss + self.penalty * anp.mean(missed)
        return loss

    def common_loss(self, weights: Any, forecast: Any, examples: Examples) -> Any:
        """Return the part of the loss all arms share: −Sharpe + forecast error."""
        ratio = earned_ratio(weights, examples, self.problem)
        error = anp.mean((forecast - examples.forecast) ** 2)
        return -anp.mean(ratio) + self.problem.config.forecast_weight * error


def earned_ratio(weights: Any, examples: Examples, problem: Problem) -> Any:
    """Return the Sharpe ratio of each window, shape (k,)."""
    config = problem.config
    return sharpe(
        weights, examples.market, examples.starts, examples.future, config.risk_free, config.epsilon
    )


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
    ratios = earned_ratio(weights, examples, problem)
    broken = problem.mandate.violation(weights, examples.starts)
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
        starts = examples.starts
        given = softmax(scores) if then_project else model.given(scores, starts)
        data = model.mandate.data(starts)
        record = hsref.projection(given, model.constraints, n_threads=1, **data)
        weights = record.y
    else:
        record, weights = None, model.output(scores, examples.starts)
    result = score(weights, examples, model.problem)
    result.figures["loss"] = float(model.common_loss(weights, forecast, examples))
    if record is not None:
        seen = nn.diagnostics(record)
        for name in ("dead_fraction", "mean_rank", "boundary_fraction"):
            result.figures[name] = float(getattr(seen, name))
    return result
