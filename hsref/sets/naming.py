"""A name for every set of this process, for graphs that carry only strings."""

from __future__ import annotations

import itertools
from typing import Any
from weakref import WeakValueDictionary

_NUMBERS = itertools.count()
_BY_KEY: WeakValueDictionary[str, Any] = WeakValueDictionary()


def enter(C: Any) -> str:
    """Return a new name for a set and remember the set by it, as long as the set lives."""
    key = f"{type(C).__name__}-{next(_NUMBERS)}"
    _BY_KEY[key] = C
    return key


def set_of(key: str) -> Any:
    """Return the living set that has this name."""
    found = _BY_KEY.get(key)
    if found is None:
        raise RuntimeError(
            "the set of this projection is gone: keep a reference to it as long as compiled code "
            "that uses it."
        )
    return found
