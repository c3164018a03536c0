"""Adam and SGD with constant momentum: what is used in practice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ._schedules import as_schedule, at, plain
from ._trees import match, tree_map


class Optimizer(NamedTuple):
    """A pair of pure functions: ``state = init(params)``, ``update(params, grads, state)``."""

    init: Callable[[Any], Any]
    update: Callable[[Any, Any, Any], tuple[Any, Any]]


class AdamState(NamedTuple):
    """State of `adam`: steps done, and the running means of g and of g²."""

    count: int
    m: Any
    v: Any


class SGDState(NamedTuple):
    """State of `sgd`: steps done, and the momentum buffer (None without momentum)."""

    count: int
    momentum: Any


def zeros_like(params: Any) -> Any:
    """Return a tree of zeros of the same shapes, dtypes and devices."""
    return tree_map(lambda leaf: leaf * 0.0, params)


def unit(name: str, value: float) -> float:
    """Check that a number lies in [0, 1)."""
    value = float(value)
    if not 0.0 <= value < 1.0:
        raise ValueError(f"{name} must lie in [0, 1); got {value!r}.")
    return value


def nonnegative(name: str, value: float) -> float:
    """Check that a number is finite and at least 0."""
    value = float(value)
    if not 0.0 <= value < float("inf"):
        raise ValueError(f"{name} must be a finite number >= 0; got {value!r}.")
    return value


def positive_eps(eps: float) -> float:
    """Check eps, the one constant that keeps the preconditioner finite."""
    eps = float(eps)
    if not 0.0 < eps < float("inf"):
        raise ValueError(f"eps must be a positive finite number; got {eps!r}.")
    return eps


def adam(
    step_size: float | Callable = 1e-3,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> Optimizer:
    r"""Adam with bias correction and, if asked for, decoupled weight decay (AdamW).

    .. math::
        m_{k+1} &= \beta_1 m_k + (1-\beta_1) g_k, \qquad
        v_{k+1} = \beta_2 v_k + (1-\beta_2) g_k^2, \\
        \theta_{k+1} &= (1 - \eta_k w)\,\theta_k
            - \eta_k \frac{m_{k+1} / (1-\beta_1^{k+1})}
                          {\sqrt{v_{k+1} / (1-\beta_2^{k+1})} + \epsilon}.

    Parameters
    ----------
    step_size : float or callable
        :math:`\eta_k`: a positive number, or a schedule ``k -> step size`` with k = 0, 1, ….
    beta1, beta2 : float
        Weights of the past in the two running means, in [0, 1).
    eps : float
        :math:`\epsilon`, added to the root; positive.
    weight_decay : float
        w, not negative.  Decoupled: it shrinks the parameters and never enters m or v, as in
        ``torch.optim.AdamW`` (``torch.optim.Adam(weight_decay=…)`` adds it to the gradient and is
        another algorithm).

    Returns
    -------
    Optimizer
        ``(init, update)``: ``state = init(params)``;
        ``params, state = update(params, grads, state)``.  Pure functions over trees.

    Raises
    ------
    ValueError
        ``beta1 must lie in [0, 1); got 1.0.`` and the like; from ``update``, a sentence where
        parameters and gradients differ in structure or shape.
    TypeError
        From ``update``: ``the gradient at [0]['W'] has dtype float64, its parameter float32; …``.

    Notes
    -----
    The trajectory agrees with ``torch.optim.AdamW`` (``Adam`` for ``weight_decay=0``) to round-off.

    With constant ``beta1`` and ``beta2`` and stochastic gradients the limits are in general zeros
    of an "Adam vector field" rather than critical points (Dereich and Jentzen, 2025), so this
    function carries no convergence claim here; `convergent_adam` does.  For classical Adam under a
    randomly scaled step size a finite-time rate is stated by Liu (2026).

    References
    ----------
    D. P. Kingma and J. Ba, "Adam: a method for stochastic optimization", 2015.
    I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", 2019.
    S. Dereich and A. Jentzen, arXiv 2511.04622, 2025.
    Z. Liu, "Adam converges in nonsmooth nonconvex optimization", arXiv 2606.22326, 2026.

    Examples
    --------
    >>> init, update = adam(0.1)
    >>> x = 1.0
    >>> state = init(x)
    >>> for _ in range(200):
    ...     x, state = update(x, 2.0 * x, state)      # minimises x**2
    >>> abs(x) < 1e-3, state.count
    (True, 200)
    """
    schedule = as_schedule("step_size", step_size)
    beta1, beta2, eps = unit("beta1", beta1), unit("beta2", beta2), positive_eps(eps)
    weight_decay = nonnegative("weight_decay", weight_decay)

    def init(params: Any) -> AdamState:
        return AdamState(0, zeros_like(params), zeros_like(params))

    def update(params: Any, grads: Any, state: AdamState) -> tuple[Any, AdamState]:
        match(params, grads)
        eta = at(schedule, state.count)
        count = state.count + 1
        m = tree_map(lambda m, g: beta1 * m + (1.0 - beta1) * g, state.m, grads)
        v = tree_map(lambda v, g: beta2 * v + (1.0 - beta2) * (g * g), state.v, grads)
        rate, root = plain(eta / (1.0 - beta1**count)), plain((1.0 - beta2**count) ** 0.5)
        keep = 1.0 - eta * weight_decay

        def step(p: Any, m: Any, v: Any) -> Any:
            decayed = p * keep if weight_decay else p
            return decayed - rate * m / (v**0.5 / root + eps)

        return tree_map(step, params, m, v), AdamState(count, m, v)

    return Optimizer(init, update)


def sgd(
    step_size: float | Callable = 1e-2, momentum: float = 0.0, weight_decay: float = 0.0
) -> Optimizer:
    r"""(Stochastic) gradient descent with heavy-ball momentum.

    .. math:: u_{k+1} = \mu u_k + g_k, \qquad
              \theta_{k+1} = (1 - \eta_k w)\,\theta_k - \eta_k u_{k+1}

    Parameters
    ----------
    step_size : float or callable
        :math:`\eta_k`: a positive number, or a schedule ``k -> step size``.
    momentum : float
        :math:`\mu` in [0, 1).  No buffer is kept when it is 0.
    weight_decay : float
        w, not negative, decoupled as in `adam`.

    Returns
    -------
    Optimizer
        ``(init, update)`` with the contract of `adam`.

    Raises
    ------
    ValueError
        ``momentum must lie in [0, 1); got 1.5.`` and the like.

    Notes
    -----
    Without momentum, decaying steps that meet ``Σ η = ∞`` and ``Σ η² < ∞``, and bounded iterates,
    stochastic subgradient descent on a definable function drives every cluster point to a
    critical point of the field (Davis, Drusvyatskiy, Kakade and Lee, 2020, for Clarke
    subgradients; Bolte and Pauwels, 2021, for conservative fields).

    References
    ----------
    D. Davis, D. Drusvyatskiy, S. Kakade and J. D. Lee, "Stochastic subgradient method converges
    on tame functions", 2020.
    J. Bolte and E. Pauwels, "Conservative set valued fields, automatic differentiation, stochastic
    gradient methods and deep learning", 2021.

    Examples
    --------
    >>> init, update = sgd(0.1, momentum=0.5)
    >>> params, state = update([1.0], [2.0], init([1.0]))
    >>> params, state.momentum
    ([0.8], [2.0])
    """
    schedule = as_schedule("step_size", step_size)
    momentum = unit("momentum", momentum)
    weight_decay = nonnegative("weight_decay", weight_decay)

    def init(params: Any) -> SGDState:
        return SGDState(0, zeros_like(params) if momentum else None)

    def update(params: Any, grads: Any, state: SGDState) -> tuple[Any, SGDState]:
        match(params, grads)
        eta = at(schedule, state.count)
        direction, buffer = grads, None
        if momentum:
            buffer = tree_map(lambda u, g: momentum * u + g, state.momentum, grads)
            direction = buffer
        keep = 1.0 - eta * weight_decay

        def step(p: Any, u: Any) -> Any:
            return (p * keep if weight_decay else p) - eta * u

        return tree_map(step, params, direction), SGDState(state.count + 1, buffer)

    return Optimizer(init, update)
