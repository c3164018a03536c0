"""Adam in the two forms whose convergence is proved, and the function that decreases along it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ._schedules import as_schedule, at, plain
from ._steps import Optimizer, nonnegative, positive_eps, zeros_like
from ._trees import match, total, tree_leaves, tree_map


class ConvergentAdamState(NamedTuple):
    """State of `convergent_adam`.

    ``forgotten_m`` and ``forgotten_v`` are the weights that the zero starting values still carry
    in m and v, the products of the factors (1 - weight) so far; bias correction divides by one
    minus them.
    """

    count: int
    m: Any
    v: Any
    forgotten_m: float
    forgotten_v: float


def _weight(name: str, value: Any, k: Any) -> Any:
    # A weight above 1 makes v negative, and its root a NaN many steps later.  The check is for
    # plain numbers: a traced value has no truth value to ask for.
    if isinstance(value, float) and not 0.0 < value <= 1.0:
        raise ValueError(f"{name} must lie in (0, 1]; got {value!r} at step {k}.")
    return value


def convergent_adam(
    step_size: float | Callable,
    tau1: float = 10.0,
    tau2: float = 0.1,
    eps: float = 1e-8,
    alpha: float = 0.0,
    *,
    momentum: float | Callable | None = None,
    bias_correction: bool = False,
) -> Optimizer:
    r"""Adam whose averaging weights vanish with the step, in the forms that provably converge.

    With the momentum weight :math:`\mu_k = \tau_1 \eta_k` (one timescale, ``momentum=None``) or
    :math:`\mu_k` a schedule of its own (two timescales),

    .. math::
        m_{k+1} &= (1-\mu_k)\, m_k + \mu_k\, g_k, \\
        v_{k+1} &= (1-\tau_2\eta_k)\, v_k + \tau_2\eta_k\, g_k^2, \\
        \theta_{k+1} &= \theta_k - \eta_k\,(\rho_v v_{k+1} + \epsilon)^{-1/2}
                        (\rho_m m_{k+1} + \alpha g_k),

    with :math:`m_0 = v_0 = 0`.  Here :math:`g_k` is an element of a conservative field of the
    (sampled) loss at :math:`\theta_k`; :math:`\rho_m = \rho_v = 1`, or, with ``bias_correction``,
    :math:`\rho_m = 1/(1-\prod_{j\le k}(1-\mu_j))` and
    :math:`\rho_v = 1/(1-\prod_{j\le k}(1-\tau_2\eta_j))`, which tend to 1.

    Parameters
    ----------
    step_size : float or callable
        :math:`\eta_k`, a schedule such as ``power_decay(…)``.  A number is accepted, for
        experiments, and is not covered by the theorem.
    tau1, tau2 : float
        Rates of the two averages, positive.  With a first step of 0.01 the defaults start at the
        usual 0.9 and 0.999.  ``tau1`` is not used when ``momentum`` is given.
    eps : float
        :math:`\epsilon`, *inside* the root; positive.
    alpha : float
        Weight of the fresh gradient, not negative (positive for a Nesterov-like step).
    momentum : float or callable, optional
        The momentum weight :math:`\mu_k` (the 1 - beta1 of Adam) on a schedule of its own.
    bias_correction : bool
        Divide m and v by the weight their samples carry.

    Returns
    -------
    Optimizer
        ``(init, update)`` with the contract of `adam`.

    Raises
    ------
    ValueError
        ``tau1 must be positive; got 0.0.``; from ``update``,
        ``tau1 * step_size must lie in (0, 1]; got 2.0 at step 0.`` and the like.

    Notes
    -----
    **What is proved** (Xiao, Hu, Liu and Toh, 2024; the field being conservative in the sense of
    Bolte and Pauwels, 2021).  Let the loss be a finite sum of locally Lipschitz functions with
    definable conservative fields, let :math:`g_k` be the element of a sampled summand (a
    martingale difference away from the field's mean), let the *iterates stay bounded*, and let
    :math:`\sum\eta_k=\infty`, :math:`\eta_k\log k\to 0`, :math:`\tau_2\le 4\tau_1`; with two
    timescales, instead of the last, :math:`\mu_k\log k\to 0` and :math:`\eta_k/\mu_k\to 0`.  Then
    almost surely every cluster point of :math:`\theta_k` is critical for the conservative field,
    and the loss values converge.

    **What is not.**  No rate.  No minimiser: a critical point of the field may be a flat region
    (where a projection sits at a vertex the HS-Jacobian is 0 and every loss is critical) or a
    spurious point created by composition.  Nothing for constant steps, for schedules of finite
    sum, for constant beta1 and beta2 (use `adam` for those), or with decoupled weight decay.
    Boundedness is assumed, not proved; a term :math:`\tfrac12\rho\|\theta\|^2` in the loss helps.
    `check_conditions` says which of these hypotheses a choice of schedules meets.

    References
    ----------
    N. Xiao, X. Hu, X. Liu and K.-C. Toh, "Adam-family methods for nonsmooth optimization with
    convergence guarantees", JMLR 25, 2024, arXiv 2305.03938.
    J. Bolte and E. Pauwels, "Conservative set valued fields, automatic differentiation, stochastic
    gradient methods and deep learning", Math. Prog., 2021.

    Examples
    --------
    Minimise abs(x) + x²/2, whose kink an ordinary constant step would jump over for ever:

    >>> from hsref.optim import convergent_adam, power_decay
    >>> init, update = convergent_adam(power_decay(1.0, k0=100.0, q=0.75), tau1=4.0, tau2=1.0)
    >>> x = 1.0
    >>> state = init(x)
    >>> for _ in range(5000):
    ...     x, state = update(x, (x > 0) - (x < 0) + x, state)
    >>> abs(x) < 1e-3
    True
    """
    schedule = as_schedule("step_size", step_size)
    momentum_schedule = None if momentum is None else as_schedule("momentum", momentum)
    rates = {"tau1": float(tau1), "tau2": float(tau2)}
    for name, rate in rates.items():
        if not 0.0 < rate < float("inf"):
            raise ValueError(f"{name} must be positive; got {rate!r}.")
    tau1, tau2 = rates["tau1"], rates["tau2"]
    eps, alpha = positive_eps(eps), nonnegative("alpha", alpha)

    def init(params: Any) -> ConvergentAdamState:
        return ConvergentAdamState(0, zeros_like(params), zeros_like(params), 1.0, 1.0)

    def update(
        params: Any, grads: Any, state: ConvergentAdamState
    ) -> tuple[Any, ConvergentAdamState]:
        match(params, grads)
        k = state.count
        eta = at(schedule, k)
        if momentum_schedule is None:
            weight_m = _weight("tau1 * step_size", tau1 * eta, k)
        else:
            weight_m = _weight("momentum", at(momentum_schedule, k), k)
        weight_v = _weight("tau2 * step_size", tau2 * eta, k)
        m = tree_map(lambda m, g: (1.0 - weight_m) * m + weight_m * g, state.m, grads)
        v = tree_map(lambda v, g: (1.0 - weight_v) * v + weight_v * (g * g), state.v, grads)
        forgotten_m = plain(state.forgotten_m * (1.0 - weight_m))
        forgotten_v = plain(state.forgotten_v * (1.0 - weight_v))
        rho_m = plain(1.0 / (1.0 - forgotten_m)) if bias_correction else 1.0
        rho_v = plain(1.0 / (1.0 - forgotten_v)) if bias_correction else 1.0

        def step(p: Any, g: Any, m: Any, v: Any) -> Any:
            direction = rho_m * m + alpha * g if alpha else rho_m * m
            return p - eta * direction / (rho_v * v + eps) ** 0.5

        new = ConvergentAdamState(k + 1, m, v, forgotten_m, forgotten_v)
        return tree_map(step, params, grads, m, v), new

    return Optimizer(init, update)


def lyapunov(loss: Any, state: ConvergentAdamState, tau1: float, eps: float = 1e-8) -> Any:
    r"""Energy that decreases along `convergent_adam` in the limit of small steps.

    .. math:: h(\theta, m, v) = \varphi(\theta)
              + \frac{1}{2\tau_1} \sum_i m_i^2\,(v_i + \epsilon)^{-1/2}

    Parameters
    ----------
    loss : number
        :math:`\varphi(\theta_k)`, the full (not sampled) loss at the parameters that belong to
        ``state``.
    state : ConvergentAdamState
        The state returned beside those parameters.
    tau1 : float
        The algorithm's own :math:`\tau_1`; with a momentum schedule, :math:`\mu_k/\eta_k`.
    eps : float
        The algorithm's own :math:`\epsilon`.

    Returns
    -------
    number
        h, of the kind that ``loss`` and the leaves of ``state`` give when added.

    Raises
    ------
    ValueError
        ``tau1 must be positive; got 0.0.``,
        ``eps must be a positive finite number; got 0.0.``

    Notes
    -----
    The weight :math:`P(v) = (v+\epsilon)^{-1/2}` is the preconditioner of `convergent_adam`; the
    energy of one preconditioner need not decrease along the steps of another, in particular not
    along those of `adam`, whose :math:`\epsilon` stands outside the root, nor with
    ``bias_correction``.

    *Proof that h decreases.*  As the steps vanish, `convergent_adam` follows
    :math:`\dot\theta = -P(v)(m+\alpha d)`, :math:`\dot m = \tau_1(d-m)`,
    :math:`\dot v = \tau_2(U-v)` with :math:`d \in D_\varphi(\theta)` and :math:`U \ge 0`
    (:math:`U` is the mean of :math:`g^2`; only its sign is used).  The chain rule of a
    conservative field, valid for almost every time and *every* element d, gives
    :math:`\dot\varphi = -\sum_i P_i(m_i d_i + \alpha d_i^2)`.  For the second part,
    :math:`\dot P_i = -\tfrac12 \tau_2 (U_i - v_i)(v_i+\epsilon)^{-3/2}
    \le \tfrac12 \tau_2 P_i v_i/(v_i+\epsilon)`, so

    .. math:: \dot h \le -\alpha \sum_i P_i d_i^2
              - \sum_i \Bigl(1 - \frac{\tau_2}{4\tau_1}\frac{v_i}{v_i+\epsilon}\Bigr) P_i m_i^2,

    which is at most 0 when :math:`\tau_2 \le 4\tau_1`.  If h stays constant then m stays 0 and,
    by its own equation, d = 0: only critical points are left.  With two timescales the same holds
    for :math:`\tau_1 = \mu_k/\eta_k` as long as it does not decrease, since then the factor in
    front of the sum does not grow.

    At a finite step size h may rise: by an amount of second order in the step where the gradient
    is Lipschitz, and of first order in the one step that crosses a kink, whose two halves have
    different gradients. With sampled gradients only a running average goes down.

    Examples
    --------
    >>> from hsref.optim import convergent_adam
    >>> init, update = convergent_adam(0.001, tau1=2.0, tau2=1.0)
    >>> x = 1.0
    >>> state, energies = init(x), []
    >>> for _ in range(1000):
    ...     energies.append(lyapunov(0.5 * x * x, state, tau1=2.0))
    ...     x, state = update(x, x, state)
    >>> all(later < earlier for earlier, later in zip(energies, energies[1:]))
    True
    """
    tau1, eps = plain(tau1), positive_eps(eps)
    if isinstance(tau1, int | float) and not tau1 > 0.0:
        raise ValueError(f"tau1 must be positive; got {tau1!r}.")
    terms = tree_map(lambda m, v: total(m * m / (v + eps) ** 0.5), state.m, state.v)
    return loss + sum(tree_leaves(terms), 0.0) / (2.0 * tau1)
