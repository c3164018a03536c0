"""Portfolios of real stocks whose weights hold linear constraints exactly.

A network reads 120 days of prices and returns the weights held over the next 120 days. Its output
layer is the Euclidean projection onto {w ≥ 0, Σw = 1, Σ_S w ≥ 0.5} for a preferred group S, with
caps on stocks and sectors if wanted, or onto the portfolios within a turnover bound of the one held
before. It is trained through the HS-Jacobian of that projection, beside the ways people use
instead.

======================  ========================================================================
arm                     what it is
======================  ========================================================================
``projection``          network → projection, trained end to end
``softmax``             network → softmax; does not know the constraint on the group
``softmax_penalty``     network → softmax; pays for shortfall during training
``linsat``              network → Sinkhorn's iterations extended to these constraints
``scaled_trade``        takes its place under a turnover bound: a softmax's trade, made shorter
``train_then_project``  the network of ``softmax``; its weights are projected when used
``equal_weight``        1/n in every stock; learns nothing
``mean_variance``       largest past Sharpe ratio under the constraints; learns nothing
======================  ========================================================================

Examples
--------
>>> from hsref.applications import portfolio
>>> config = portfolio.PortfolioConfig(seeds=(0, 1, 2), at_least=0.4)
>>> config.group is None, config.seeds
(True, (0, 1, 2))

``portfolio.train(config)`` then trains (a minute or two) and returns a
:class:`PortfolioResult`; its ``save(folder)`` writes report, pictures and numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .config import ARMS, TRAINED, PortfolioConfig
from .prices import Prices, load_prices, prices_from_frame
from .result import PortfolioResult, SeedResult
from .sectors import load_sectors
from .synthetic import synthetic_prices

if TYPE_CHECKING:
    from .training import train

__all__ = [
    "ARMS",
    "TRAINED",
    "PortfolioConfig",
    "PortfolioResult",
    "Prices",
    "SeedResult",
    "load_prices",
    "load_sectors",
    "prices_from_frame",
    "synthetic_prices",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import the networks when they are first asked for."""
    if name == "train":
        from .training import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
