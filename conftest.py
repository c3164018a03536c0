"""What pytest needs before it collects: profiles, frameworks that may be absent, headless plots."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

# Plots go to files; set before anything imports matplotlib.
os.environ.setdefault("MPLBACKEND", "Agg")

FRAMEWORKS = ("torch", "jax")


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


# A bridge imports its framework at the top; its doctests are collected only where that can work.
collect_ignore = [
    str(path)
    for name in FRAMEWORKS
    if not _installed(name)
    for path in (Path(__file__).parent / "hsref" / "interop").glob(f"{name}*.py")
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, and thereby count, the tests whose framework is not installed."""
    for name in FRAMEWORKS:
        if _installed(name):
            continue
        reason = pytest.mark.skip(reason=f"{name} is not installed")
        for item in items:
            if item.get_closest_marker(name):
                item.add_marker(reason)
