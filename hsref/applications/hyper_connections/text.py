"""The text: the topics of Python's own help, split by topic, with repeated topics kept together.

Several topics of ``help()`` contain each other (the topic on ``with`` is a section of the one on
compound statements). A split by topic alone would therefore test on text that was trained on, so
topics that share lines are joined into groups first, and groups are what is split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from .._common import InputError

PARTS = ("train", "tuning", "validation")
"""Trained on; learning rates are chosen on; reported on."""

LINE = 25
"""Characters that a line needs, without the space around it, to be worth comparing."""

SHARED = 4
"""How many such lines join two topics."""

SHARED_FRACTION = 0.1
"""Which part of the smaller topic's lines joins two topics as well."""

PAD, UNKNOWN = 0, 1
"""Codes of what stands before the first character, and of one that training never met."""


@dataclass(frozen=True)
class Text:
    """Encoded text of three parts that share no topic.

    Attributes
    ----------
    symbols : str
        Characters of the training part in order; character k has code k + 2.
    codes : dict of str to ndarray of int16
        All topics of a part, one after the other, with `context` pads before each.
    positions : dict of str to ndarray of int64
        Where a character to predict stands.
    topics : dict of str to tuple of str
        Names of the topics of each part.
    starts : dict of str to ndarray of int64
        Where the first character of each topic stands.
    context : int
        Characters read.
    key : str
        Digest of everything above.
    """

    symbols: str = field(repr=False)
    codes: dict[str, np.ndarray] = field(repr=False)
    positions: dict[str, np.ndarray] = field(repr=False)
    topics: dict[str, tuple[str, ...]] = field(repr=False)
    starts: dict[str, np.ndarray] = field(repr=False)
    context: int
    key: str

    @property
    def size(self) -> int:
        """Number of codes, pad and unknown included."""
        return len(self.symbols) + 2

    def windows(self, part: str, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return inputs of shape (k, context) and targets of shape (k,), both int64.

        Parameters
        ----------
        part : {"train", "tuning", "validation"}
        positions : ndarray of int, shape (k,)
            Entries of ``self.positions[part]``.
        """
        codes = self.codes[part]
        before = positions[:, None] + np.arange(-self.context, 0)
        return codes[before].astype(np.int64), codes[positions].astype(np.int64)

    def topic_of(self, part: str, positions: np.ndarray) -> np.ndarray:
        """Return which topic of ``self.topics[part]`` each position lies in, shape (k,)."""
        return np.searchsorted(self.starts[part], positions, side="right") - 1

    def spread(self, part: str, count: int) -> np.ndarray:
        """Return at most `count` positions of a part, evenly spread over it."""
        every = self.positions[part]
        if count >= len(every):
            return every
        return every[np.linspace(0, len(every) - 1, count).astype(np.int64)]


def topics_of_python() -> dict[str, str]:
    """Return the text behind ``help("topic")``, which comes with every CPython, by topic.

    Raises
    ------
    InputError
        "this Python comes without pydoc_data.topics, the text to train on."
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise InputError(
            "this Python comes without pydoc_data.topics, the text to train on."
        ) from error
    return dict(topics)


def groups_of(topics: Mapping[str, str]) -> list[tuple[str, ...]]:
    r"""Return the topics in groups, such that topics of different groups share next to no line.

    Two topics belong together if they share `SHARED` lines, or `SHARED_FRACTION` of the lines of
    the smaller one; what belongs to a common third belongs together.

    Examples
    --------
    >>> line = "a line that is long enough to be compared"
    >>> groups_of({"one": line, "two": "short", "three": f"before\n  {line}\nafter"})
    [('one', 'three'), ('two',)]
    """
    names = sorted(topics)
    lines = [{one for raw in topics[name].split("\n") if len(one := raw.strip()) >= LINE}
             for name in names]  # fmt: skip
    group = list(range(len(names)))

    def root(k: int) -> int:
        while group[k] != k:
            k = group[k]
        return k

    for i in range(len(names)):
        for j in range(i):
            shared, smaller = len(lines[i] & lines[j]), min(len(lines[i]), len(lines[j]))
            if shared and (shared >= SHARED or shared >= SHARED_FRACTION * smaller):
                group[max(root(i), root(j))] = min(root(i), root(j))
    found: dict[int, list[str]] = {}
    for k, name in enumerate(names):
        found.setdefault(root(k), []).append(name)
    return [tuple(one) for one in found.values()]


def split(topics: Mapping[str, str], fraction: float, seed: int) -> dict[str, tuple[str, ...]]:
    """Return the names of the topics of each part.

    Groups are dealt in a random order, decided by `seed`: to ``tuning`` until it holds `fraction`
    of all characters, then to ``validation`` likewise, the rest to ``train``. A group of more than
    half of that size goes to ``train``, so that no part is one text.

    Raises
    ------
    InputError
        Where a part would be empty.
    """
    groups = groups_of(topics)
    sizes = [sum(len(topics[name]) for name in group) for group in groups]
    wanted = fraction * sum(sizes)
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    held = {"tuning": 0, "validation": 0}
    for k in np.random.default_rng(seed).permutation(len(groups)):
        part = next((one for one, size in held.items() if size < wanted), "train")
        if part == "train" or sizes[k] > wanted / 2:
            parts["train"] += groups[k]
        else:
            parts[part] += groups[k]
            held[part] += sizes[k]
    for part, names in parts.items():
        if not names:
            raise InputError(
                f"the text has {len(topics)} topics in {len(groups)} groups that share no lines, "
                f"too few to leave one for {part}."
            )
    return {part: tuple(sorted(names)) for part, names in parts.items()}


def encode(topics: Mapping[str, str], context: int, fraction: float = 0.1, seed: int = 0) -> Text:
    """Split and encode a text.

    Parameters
    ----------
    topics : mapping of str to str
        Texts by name.
    context : int
        Characters a prediction may read, all of its own topic.
    fraction : float
        Part of the characters for ``tuning`` and, again, for ``validation``.
    seed : int
        Of the split.

    Returns
    -------
    Text
    """
    topics = {name: text for name, text in topics.items() if text.strip()}
    parts = split(topics, fraction, seed)
    symbols = "".join(sorted(set("".join(topics[name] for name in parts["train"]))))
    code_of = {symbol: k + 2 for k, symbol in enumerate(symbols)}
    codes, positions, starts = {}, {}, {}
    for part, names in parts.items():
        pieces: list[int] = []
        places: list[np.ndarray] = []
        for name in names:
            pieces += [PAD] * context
            places.append(np.arange(len(pieces), len(pieces) + len(topics[name])))
            pieces += [code_of.get(symbol, UNKNOWN) for symbol in topics[name]]
        codes[part], positions[part] = np.array(pieces, np.int16), np.concatenate(places)
        starts[part] = np.array([place[0] for place in places])
    state = hashlib.sha256(repr((symbols, context, parts)).encode())
    for part in PARTS:
        state.update(codes[part].tobytes())
    return Text(symbols, codes, positions, parts, starts, context, state.hexdigest()[:16])
