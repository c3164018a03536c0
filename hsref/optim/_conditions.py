"""Which hypotheses of the convergence theorem a choice of schedules meets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ._schedules import ConstantSchedule, CosineSchedule, PowerDecay, as_schedule, at

Verdict = Literal["met", "broken", "unknown"]

# Spelled out in the references of check_conditions.
XIAO = "Xiao, Hu, Liu & Toh 2024"
BOLTE = "Bolte & Pauwels 2021"
LYAPUNOV = "proof: hsref.optim.lyapunov"
DEREICH = "Dereich & Jentzen 2025"
DECAY = "another theorem: arXiv 2310.08858"


@dataclass(frozen=True)
class Condition:
    """One hypothesis: what it asks, whether it is met, why, and where it comes from."""

    hypothesis: str
    verdict: Verdict
    why: str
    source: str


@dataclass(frozen=True)
class ConditionReport:
    """The rows of `check_conditions`; ``print(report)`` shows them as a table.

    Examples
    --------
    >>> from hsref.optim import check_conditions, constant
    >>> report = check_conditions(constant(0.01))
    >>> report.verdict
    'broken'
    >>> [row.hypothesis for row in report.broken]
    ['step_size * log k -> 0']
    """

    rows: tuple[Condition, ...]

    @property
    def verdict(self) -> Verdict:
        """``broken`` if any row is, else ``unknown`` if any row is, else ``met``."""
        verdicts = {row.verdict for row in self.rows}
        if "broken" in verdicts:
            return "broken"
        return "unknown" if "unknown" in verdicts else "met"

    @property
    def broken(self) -> tuple[Condition, ...]:
        """The rows that are broken."""
        return tuple(row for row in self.rows if row.verdict == "broken")

    @property
    def conclusion(self) -> str:
        """What may be claimed, in one sentence."""
        if self.verdict == "met":
            return (
                "Almost surely every cluster point is critical for the conservative field and the "
                "loss values converge; no rate, and no minimiser, is promised."
            )
        if self.verdict == "broken":
            return "The theorem does not cover this run."
        return "The theorem covers this run if the rows marked unknown hold."

    def __str__(self) -> str:
        """Return the rows as a table, one line each, and the conclusion."""
        width = max(len(row.hypothesis) for row in self.rows)
        lines = [
            f"{row.verdict:<8} {row.hypothesis:<{width}}  {row.why} [{row.source}]"
            for row in self.rows
        ]
        return "\n".join([*lines, self.conclusion])


def _exponent(schedule: Callable) -> float | None:
    exponent = getattr(schedule, "exponent", None)
    return None if exponent is None else float(exponent)


def _verdict(truth: bool | None) -> Verdict:
    return "unknown" if truth is None else ("met" if truth else "broken")


def _behaves(name: str, q: float | None) -> str:
    if q is None:
        return f"{name} is a callable that does not say how it decays"
    if q == 0.0:
        return f"{name} does not tend to 0"
    if q == float("inf"):
        return f"{name} falls faster than any power"
    return f"{name} behaves like k**-{q:g}"


def _decay_rows(name: str, q: float | None, noise: str) -> list[Condition]:
    """Rows on one schedule: its sum, and how fast it must fall under the noise."""
    why = _behaves(name, q)
    least = 0.0 if noise == "bounded" else 0.5
    fading = f"{name} * log k -> 0" if noise == "bounded" else f"sum of {name}**2 < inf"
    diverges = None if q is None else q <= 1.0
    fades = None if q is None else q > least
    return [
        Condition(f"sum of {name} = inf", _verdict(diverges), why, XIAO),
        Condition(fading, _verdict(fades), why, XIAO),
    ]


def _positive_row(schedule: Callable) -> Condition:
    if isinstance(schedule, CosineSchedule) and schedule.end == 0.0:
        truth, why = False, f"the step size is 0 from step {schedule.steps} on"
    elif isinstance(schedule, ConstantSchedule | PowerDecay | CosineSchedule):
        truth, why = True, "by construction"
    else:
        first = at(schedule, 0)
        truth = None if first > 0.0 else False
        why = f"the first value is {first:g}; the others were not looked at"
    return Condition("step_size > 0", _verdict(truth), why, XIAO)


def _weight_row(name: str, weight: float, monotone: bool) -> Condition:
    fits = 0.0 < weight <= 1.0
    why = f"it starts at {weight:g}" + ("" if monotone else "; later values were not looked at")
    truth = (True if monotone else None) if fits else False
    return Condition(f"0 < {name} <= 1", _verdict(truth), why, "the averages must be averages")


def check_conditions(
    step_size: float | Callable,
    tau1: float = 10.0,
    tau2: float = 0.1,
    eps: float = 1e-8,
    alpha: float = 0.0,
    *,
    momentum: float | Callable | None = None,
    beta1: float | None = None,
    beta2: float | None = None,
    weight_decay: float = 0.0,
    noise: Literal["bounded", "second-moment"] = "bounded",
    bounded_iterates: bool | None = None,
    definable: bool | None = None,
    unbiased: bool | None = None,
) -> ConditionReport:
    """Say which hypotheses of the convergence theorem a run meets; never raise on a broken one.

    Parameters
    ----------
    step_size, tau1, tau2, eps, alpha, momentum
        As in `convergent_adam`.
    beta1, beta2 : float, optional
        Constant weights, for a run of `adam`; they replace ``tau1`` (or ``momentum``), ``tau2``.
    weight_decay : float
        Decoupled weight decay of the run.
    noise : {"bounded", "second-moment"}
        What is known of the gradient noise: uniformly bounded (a finite sum sampled uniformly, on
        a bounded set; no noise at all is a case of it), or only bounded second moments.
    bounded_iterates, definable, unbiased : bool, optional
        What cannot be read off a schedule, if you know it: that the iterates stay bounded; that
        each summand is locally Lipschitz with a definable conservative field; that the sampled
        gradients are unbiased elements of it.  ``None`` leaves the row "unknown".

    Returns
    -------
    ConditionReport
        Frozen; ``rows`` of (hypothesis, verdict, why, source), ``verdict``, ``broken``,
        ``conclusion``; prints as a table.

    Raises
    ------
    ValueError
        Only for an argument that is no schedule or no such option:
        ``noise must be "bounded" or "second-moment"; got 'none'.``

    Notes
    -----
    A schedule's behaviour is taken from its attribute ``exponent`` (see `power_decay`), not from
    sampled values: no finite number of values decides whether a sum diverges.

    References
    ----------
    N. Xiao, X. Hu, X. Liu and K.-C. Toh, "Adam-family methods for nonsmooth optimization with
    convergence guarantees", JMLR 25, 2024, arXiv 2305.03938.
    J. Bolte and E. Pauwels, "Conservative set valued fields, automatic differentiation, stochastic
    gradient methods and deep learning", Math. Prog., 2021, arXiv 1909.10300.
    S. Dereich and A. Jentzen, arXiv 2511.04622, 2025 (limits of Adam with constant weights).

    Examples
    --------
    >>> from hsref.optim import check_conditions, cosine, power_decay
    >>> report = check_conditions(
    ...     power_decay(0.1, k0=100.0, q=0.75), tau1=2.0, tau2=1.0,
    ...     bounded_iterates=True, definable=True, unbiased=True)
    >>> report.verdict
    'met'
    >>> for row in check_conditions(cosine(0.01, steps=1000), tau1=1.0, tau2=5.0).broken:
    ...     print(row.hypothesis, "--", row.why)
    step_size > 0 -- the step size is 0 from step 1000 on
    sum of step_size = inf -- step_size falls faster than any power
    tau2 <= 4 * tau1 -- 5 against 4
    """
    if noise not in ("bounded", "second-moment"):
        raise ValueError(f'noise must be "bounded" or "second-moment"; got {noise!r}.')
    steps = as_schedule("step_size", step_size)
    first = at(steps, 0)
    monotone = isinstance(steps, ConstantSchedule | PowerDecay | CosineSchedule)
    q = _exponent(steps)
    rows = [_positive_row(steps), *_decay_rows("step_size", q, noise)]

    if beta1 is not None:
        why = f"beta1 = {beta1:g} is constant, so the momentum weight does not vanish"
        rows.append(Condition("momentum weight -> 0", "broken", why, f"{XIAO}; {DEREICH}"))
    elif momentum is not None:
        weights = as_schedule("momentum", momentum)
        p = _exponent(weights)
        rows.extend(_decay_rows("momentum", p, noise))
        why = f"{_behaves('step_size', q)}, {_behaves('momentum', p)}"
        # Two schedules that both reach zero, or one that says nothing, leave the ratio open.
        truth = None if q is None or p is None or q == p == float("inf") else q > p
        rows.append(Condition("step_size / momentum -> 0", _verdict(truth), why, XIAO))
        known_weights = isinstance(weights, ConstantSchedule | PowerDecay | CosineSchedule)
        rows.append(_weight_row("momentum", at(weights, 0), known_weights))
    else:
        if beta2 is None:
            why = f"{tau2:g} against {4 * tau1:g}"
            truth = tau1 > 0.0 and tau2 <= 4.0 * tau1
            rows.append(Condition("tau2 <= 4 * tau1", _verdict(truth), why, f"{XIAO}; {LYAPUNOV}"))
        rows.append(_weight_row("tau1 * step_size", tau1 * first, monotone))
    if beta2 is not None:
        why = f"beta2 = {beta2:g} is constant, so v does not settle"
        rows.append(Condition("weight of g**2 in v -> 0", "broken", why, f"{XIAO}; {DEREICH}"))
    else:
        rows.append(_weight_row("tau2 * step_size", tau2 * first, monotone))

    rows.append(Condition("eps > 0", _verdict(eps > 0.0), f"eps = {eps:g}", XIAO))
    rows.append(Condition("alpha >= 0", _verdict(alpha >= 0.0), f"alpha = {alpha:g}", XIAO))
    if weight_decay:
        why = f"weight_decay = {weight_decay:g} is not a gradient; put the term into the loss"
        rows.append(Condition("no decoupled weight decay", "broken", why, DECAY))
    ask = "a property of the run, not of the schedules"
    told = "as you say"
    for hypothesis, flag, source in (
        ("iterates stay bounded", bounded_iterates, f"{XIAO}: assumed"),
        ("summands locally Lipschitz, definable fields", definable, f"{XIAO}; {BOLTE}"),
        ("sampled gradients unbiased elements of the field", unbiased, XIAO),
    ):
        why = ask if flag is None else told
        rows.append(Condition(hypothesis, _verdict(flag), why, source))
    return ConditionReport(tuple(rows))
