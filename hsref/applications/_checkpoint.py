"""Where a training run keeps what it needs to go on after an interruption.

A checkpoint is one NumPy archive: the leaves of a tree of arrays, and beside them a JSON text. It
is written atomically, so that an interruption leaves the last good one, and read without pickle,
so that a file from elsewhere can at worst be refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from hsref.optim import tree_leaves, tree_map

from ._common import InputError, write_atomically

FORMAT = 1
"""Of the file; one that says another number is refused."""


def digest(*parts: Any) -> str:
    """Return 16 hexadecimal digits of what JSON makes of `parts` (dataclasses as their fields).

    Examples
    --------
    >>> digest("a", 1) == digest("a", 1), digest("a", 1) == digest("a", 2)
    (True, False)
    """

    def fields(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {"": type(value).__name__} | dataclasses.asdict(value)
        if isinstance(value, (np.ndarray, np.generic)):
            return value.tolist()
        return str(value)

    text = json.dumps(parts, default=fields, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The checkpoint of one training run.

    Attributes
    ----------
    path : pathlib.Path
        The file, which need not exist yet. Its folder is made with the first `save`.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> saved = Checkpoint.of(folder.name, "a problem", "a task")
    >>> saved.load({"w": np.zeros(2)}) is None
    True
    >>> saved.save({"epoch": 3}, {"w": np.ones(2)})
    >>> saved.load({"w": np.zeros(2)})
    ({'epoch': 3}, {'w': array([1., 1.])})
    >>> folder.cleanup()
    """

    path: Path

    @classmethod
    def of(cls, folder: str | os.PathLike[str], problem: Any, task: Any) -> Checkpoint:
        """Return the checkpoint of `task` in `folder`.

        Parameters
        ----------
        folder : path-like
        problem, task : str, number, dataclass or nested containers of them
            Everything that decides the run: a run that anything else decides has another file, so
            that a changed setting never goes on from numbers made with the old one.
        """
        import hsref

        return cls(Path(folder) / f"{digest(hsref.__version__, problem, task)}.npz")

    def save(self, meta: dict[str, Any], tree: Any = None) -> None:
        """Replace the checkpoint, atomically.

        Parameters
        ----------
        meta : dict
            What JSON can hold: counters, histories, the state of a NumPy generator
            (``rng.bit_generator.state``). Floats come back with the same bits.
        tree : nested containers of ndarray and numbers
            Parameters, optimiser state.
        """
        leaves = [np.asarray(leaf) for leaf in tree_leaves(tree)]
        text = json.dumps({"format": FORMAT, "leaves": len(leaves), "meta": meta})
        arrays = {f"leaf{k}": leaf for k, leaf in enumerate(leaves)}
        arrays["text"] = np.frombuffer(text.encode(), np.uint8)

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                np.savez(file, **arrays)
                file.flush()
                os.fsync(file.fileno())

        write_atomically(self.path, write)

    def load(self, like: Any = None) -> tuple[dict[str, Any], Any] | None:
        """Return what was saved last, or None where nothing was.

        Parameters
        ----------
        like : nested containers of ndarray and numbers
            Has the structure, shapes and dtypes of the saved tree; its values are not looked at.

        Returns
        -------
        meta, tree
            The tree with the containers of `like`.

        Raises
        ------
        InputError
            "the checkpoint PATH cannot be used (...); delete it to begin that run anew." for a
            file that is damaged, or does not fit `like`.
        """
        try:
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                text = json.loads(archive["text"].tobytes().decode())
                if text["format"] != FORMAT:
                    raise ValueError(f"its format is {text['format']}, not {FORMAT}")
                leaves = [archive[f"leaf{k}"] for k in range(text["leaves"])]
            return text["meta"], _rebuild(leaves, like)
        except FileNotFoundError:
            return None
        except Exception as error:
            # zipfile, zlib, json and numpy each have their own way to say "damaged"
            raise InputError(
                f"the checkpoint {self.path} cannot be used "
                f"({str(error).rstrip('.') or type(error).__name__}); delete it to begin that run "
                "anew."
            ) from error


def _rebuild(leaves: list[np.ndarray], like: Any) -> Any:
    wanted = len(tree_leaves(like))
    if wanted != len(leaves):
        raise ValueError(f"it holds {len(leaves)} arrays, not {wanted}")
    rest = iter(leaves)

    def take(old: Any) -> Any:
        new, shape = next(rest), np.shape(old)
        if new.shape != shape or new.dtype != np.asarray(old).dtype:
            raise ValueError(
                f"an array has shape {new.shape} and dtype {new.dtype}, not {shape} and "
                f"{np.asarray(old).dtype}"
            )
        return new if isinstance(old, np.ndarray) else new.item()

    return tree_map(take, like)
