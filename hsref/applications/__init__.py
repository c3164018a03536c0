"""Trained applications on real data: data, model, loss, baselines, one ``train(config)`` each.

==============================  ==================================================================
:mod:`.portfolio`               portfolios that hold a covering constraint exactly, on daily prices
:mod:`.matching`                partial matchings of keypoints in two views, and of random graphs
:mod:`.hyper_connections`       residual streams mixed by doubly stochastic matrices, five ways
==============================  ==================================================================

They use the public face of :mod:`hsref` and the packages of the ``apps`` extra; nothing in hsref
imports them.
"""

import importlib
from typing import Any

from ._common import InputError, MissingExtraError

_APPLICATIONS = ("portfolio", "matching", "hyper_connections")

__all__ = ["InputError", "MissingExtraError", *_APPLICATIONS]


def __getattr__(name: str) -> Any:
    """Import an application when it is first asked for."""
    if name in _APPLICATIONS:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
