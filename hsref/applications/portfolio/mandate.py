"""What a portfolio must meet: a covering constraint with caps, or a limit on trading.

Both mandates answer the same questions (the set, by how much weights miss it, where training
starts, the entropic or radial layer that projection is compared with, its rows for other solvers),
so that model, references and report need not know which one they serve.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import autograd.numpy as anp
import numpy as np

from .linsat import Families, linsat

LEARNED = ("projection", "softmax", "softmax_penalty")
"""The networks of every mandate; each mandate adds one of its own."""


def softmax(scores: Any) -> Any:
    """Return exp(s) / Σ exp(s) along the last axis, differentiable by autograd."""
    raised = anp.exp(scores - anp.max(scores, axis=-1, keepdims=True))
    return raised / anp.sum(raised, axis=-1, keepdims=True)


def positive(x: Any) -> Any:
    """Return x where it is positive, else 0, differentiable by autograd."""
    return anp.where(x > 0.0, x, 0.0)


@dataclass(frozen=True)
class Budget:
    r"""A preferred group that must hold a share, caps on stocks and on sectors.

    .. math::
        \{ w \ge 0,\ 1^\top w = 1,\ \textstyle\sum_S w \ge p,\ w \le c,\
        \sum_{\text{sector} \setminus S} w \le C \}

    Attributes
    ----------
    group : ndarray of bool, shape (n,)
        Members of the preferred group S.
    at_least : float
        Its share p.
    cap : float or None
        Largest weight c of one stock.
    sectors : ndarray of int64, shape (n,)
        The sector of each stock, counted from 0; -1 for members of S and for none.
    sector_cap : float or None
        Largest share C of one sector, not counting what it has in S.
    names : tuple of str
        Of the sectors.
    """

    group: np.ndarray
    at_least: float
    cap: float | None
    sectors: np.ndarray
    sector_cap: float | None
    names: tuple[str, ...] = ()

    rival = "linsat"

    @property
    def n(self) -> int:
        """Number of stocks."""
        return len(self.group)

    @property
    def trained(self) -> tuple[str, ...]:
        """The arms whose networks are trained."""
        return (*LEARNED, self.rival)

    @functools.cached_property
    def set(self) -> Any:
        """The constraints as a :class:`hsref.GroupBudget`: S is group 0, sectors follow."""
        import hsref

        count = 0 if self.sector_cap is None else len(self.names)
        labels = np.where(self.group, 0, self.sectors + 1 if count else 0)
        labels = np.where(self.group | (labels > 0), labels, -1)
        return hsref.GroupBudget(
            self.n,
            labels,
            lower=[self.at_least] + [0.0] * count,
            upper=[np.inf] + [self.sector_cap or np.inf] * count,
            cap=self.cap,
        )

    def data(self, starts: np.ndarray) -> dict[str, np.ndarray]:
        """Return the set's data of each window: none, it is the same for all."""
        return {}

    @functools.cached_property
    def _totals(self) -> np.ndarray:
        """Membership of the sectors, shape (n, G), or (n, 0) without a cap on them."""
        if self.sector_cap is None:
            return np.zeros((self.n, 0))
        return (self.sectors[:, None] == np.arange(len(self.names))) * 1.0

    def anchor(self, starts: np.ndarray) -> np.ndarray:
        """Return the portfolio that training starts near, in the relative interior, shape (n,).

        It mixes the equally weighted group with the equally weighted market, so that no stock is
        preferred without a reason (an interior point found by a linear program may prefer one);
        sectors over nine tenths of their cap leave the rest to the group. Where a cap on stocks
        forbids that, it is the set's own interior point.
        """
        return self._anchor

    @functools.cached_property
    def _anchor(self) -> np.ndarray:
        share = self.group / self.group.sum()
        point = self.at_least * share + (1.0 - self.at_least) / self.n
        if self.sector_cap is not None:
            held = point @ self._totals
            factor = np.minimum(1.0, 0.9 * self.sector_cap / np.maximum(held, 1e-300))
            point = np.where(self.sectors >= 0, point * factor[self.sectors], point)
            point += (1.0 - point.sum()) * share
        if self.cap is not None and point.max() > 0.9 * self.cap:
            return self.set.interior_point()
        return point

    def shortfall(self, weights: Any, starts: np.ndarray) -> Any:
        """Return by how much each window misses the group's share and the caps, shape (k,)."""
        missing = positive(self.at_least - anp.dot(weights, self.group * 1.0))
        if self.cap is not None:
            missing = missing + anp.sum(positive(weights - self.cap), axis=1)
        if self.sector_cap is not None:
            over = positive(anp.dot(weights, self._totals) - self.sector_cap)
            missing = missing + anp.sum(over, axis=1)
        return missing

    def violation(self, weights: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Return the largest violation of any constraint in each window, shape (k,)."""
        parts = [
            np.maximum(self.at_least - weights @ self.group, 0.0),
            np.abs(weights.sum(axis=1) - 1.0),
            np.maximum(-weights, 0.0).max(axis=1),
        ]
        if self.cap is not None:
            parts.append(np.maximum(weights - self.cap, 0.0).max(axis=1))
        if self.sector_cap is not None:
            parts.append(np.maximum(weights @ self._totals - self.sector_cap, 0.0).max(axis=1))
        return np.max(parts, axis=0)

    @functools.cached_property
    def families(self) -> Families:
        """The constraints as sums of entries in [0, 1], the total last.

        Where the weights sum to 1, the group holds at least p if the others hold at most 1 − p.
        """
        n, parts = self.n, []
        if self.cap is not None:
            parts.append((np.arange(n), np.full(n, self.cap), False))
        if self.sector_cap is not None:
            parts.append((self.sectors, np.full(len(self.names), self.sector_cap), False))
        if not self.group.all() and self.at_least > 0.0:
            most = max(1.0 - self.at_least, 1e-12)  # a bound of 0 would divide 0 by 0
            parts.append((np.where(self.group, -1, 0), np.full(1, most), False))
        return Families.of([*parts, (np.zeros(n, dtype=np.int64), np.ones(1), True)])

    def compete(self, scores: Any, starts: np.ndarray, iterations: int) -> Any:
        """Return the weights of the arm ``linsat``."""
        return linsat(anp.log(np.maximum(self._anchor, 1e-3 / self.n)) + scores, self.families,
                      iterations)  # fmt: skip

    def cone(self, start: int) -> tuple[Any, Any]:
        """Return sparse (A, B) with {w: A w + B u ≤ 0 for a u} the cone over the mandate."""
        from scipy import sparse

        n = self.n
        rows = [-sparse.eye_array(n), sparse.csr_array((self.at_least - self.group)[None, :])]
        if self.cap is not None:
            rows.append(sparse.csr_array(np.eye(n) - self.cap))
        if self.sector_cap is not None:
            rows.append(sparse.csr_array(self._totals.T - self.sector_cap))
        cone = sparse.vstack(rows)
        return cone, sparse.csr_array((cone.shape[0], 0))

    def rules(self, cvxpy: Any, w: Any, previous: Any) -> list[Any]:
        """Return the constraints on the CVXPY variable `w`."""
        rules = [w >= 0, cvxpy.sum(w) == 1, self.group.astype(float) @ w >= self.at_least]
        if self.cap is not None:
            rules.append(w <= self.cap)
        if self.sector_cap is not None:
            rules.append(self._totals.T @ w <= self.sector_cap)
        return rules

    def sentence(self, tickers: tuple[str, ...]) -> str:
        """Return the mandate in words and signs."""
        group = ", ".join(name for name, member in zip(tickers, self.group) if member)
        text = f"w ≥ 0, Σw = 1, weight of {{{group}}} ≥ {self.at_least:g}"
        if self.cap is not None:
            text += f", w ≤ {self.cap:g}"
        if self.sector_cap is not None:
            text += (
                f", weight of each of the {len(self.names)} sectors ({', '.join(self.names)}) "
                f"outside that group ≤ {self.sector_cap:g}"
            )
        return text

    @property
    def measure(self) -> str:
        """What the violation is the largest of."""
        more = " and what exceeds a cap" if self.cap or self.sector_cap else ""
        return f"(required share − share of the group)₊, |Σw − 1|, (−w)₊{more}"


@dataclass(frozen=True)
class Trade:
    r"""A limit on what is bought and sold, counted from the portfolio held before.

    .. math:: \{ w \ge 0,\ 1^\top w = 1,\ \| w - w_{\text{prev}} \|_1 \le \tau \}

    Attributes
    ----------
    growth : ndarray, shape (days + 1, n)
        Value before each day of one unit invested on the first, by stock.
    past : int
        The portfolio held before was bought that many days earlier, in equal parts.
    limit : float
        The bound τ.
    """

    growth: np.ndarray
    past: int
    limit: float

    rival = "scaled_trade"

    @property
    def n(self) -> int:
        """Number of stocks."""
        return self.growth.shape[1]

    @property
    def trained(self) -> tuple[str, ...]:
        """The arms whose networks are trained."""
        return (*LEARNED, self.rival)

    @functools.cached_property
    def set(self) -> Any:
        """The constraints around the equally weighted portfolio, a :class:`hsref.Turnover`."""
        import hsref

        return hsref.Turnover(np.full(self.n, 1.0 / self.n), self.limit)

    def previous(self, starts: np.ndarray) -> np.ndarray:
        """Return the portfolio held before each window, shape (k, n): bought evenly, then left."""
        grown = self.growth[starts] / self.growth[starts - self.past]
        return grown / grown.sum(axis=1, keepdims=True)

    def data(self, starts: np.ndarray) -> dict[str, np.ndarray]:
        """Return the set's data of each window."""
        return {"previous": self.previous(starts)}

    def anchor(self, starts: np.ndarray) -> np.ndarray:
        """Return the portfolios that training starts near: those held before, shape (k, n)."""
        return self.previous(starts)

    def shortfall(self, weights: Any, starts: np.ndarray) -> Any:
        """Return by how much each window trades too much, shape (k,)."""
        traded = anp.sum(anp.abs(weights - self.previous(starts)), axis=1)
        return positive(traded - self.limit)

    def violation(self, weights: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Return the largest violation of any constraint in each window, shape (k,)."""
        parts = [
            np.abs(weights.sum(axis=1) - 1.0),
            np.maximum(-weights, 0.0).max(axis=1),
            self.shortfall(weights, starts),
        ]
        return np.max(parts, axis=0)

    def compete(self, scores: Any, starts: np.ndarray, iterations: int) -> Any:
        """Return the weights of the arm ``scaled_trade``: the trade of a softmax, made shorter."""
        previous = self.previous(starts)
        trade = softmax(anp.log(previous) + scores) - previous
        size = anp.sum(anp.abs(trade), axis=1, keepdims=True)
        factor = anp.where(size > self.limit, self.limit / anp.where(size > 0.0, size, 1.0), 1.0)
        return previous + factor * trade

    def cone(self, start: int) -> tuple[Any, Any]:
        """Return sparse (A, B) with {w: A w + B u ≤ 0 for a u} the cone over the mandate."""
        from scipy import sparse

        n, previous = self.n, self.previous(np.array([start]))[0]
        one, drift = sparse.eye_array(n), np.outer(previous, np.ones(n))
        A = sparse.vstack(
            [
                -one,
                one - sparse.csr_array(drift),
                sparse.csr_array(drift) - one,
                sparse.csr_array(np.full((1, n), -self.limit)),
            ]
        )
        total = sparse.csr_array(np.ones((1, n)))
        return A, sparse.vstack([sparse.csr_array((n, n)), -one, -one, total])

    def rules(self, cvxpy: Any, w: Any, previous: Any) -> list[Any]:
        """Return the constraints on the CVXPY variable `w`, around the parameter `previous`."""
        return [w >= 0, cvxpy.sum(w) == 1, cvxpy.norm1(w - previous) <= self.limit]

    def sentence(self, tickers: tuple[str, ...]) -> str:
        """Return the mandate in words and signs."""
        return (
            f"w ≥ 0, Σw = 1, ‖w − w_prev‖₁ ≤ {self.limit:g}, where w_prev was bought {self.past} "
            "days before in equal parts and left alone"
        )

    @property
    def measure(self) -> str:
        """What the violation is the largest of."""
        return "(‖w − w_prev‖₁ − τ)₊, |Σw − 1|, (−w)₊"


Mandate = Budget | Trade
