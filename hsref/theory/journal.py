"""The folder of a verification: what was asked, what is done, what failed.

Results are written in parts, each file whole or not at all, so that an interrupted run goes on
where it stopped, and a folder is never half a result.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

from .reports import save_arrays, write_text

SAVED_PER_ROW = 3
"""Counterexamples kept for each row of the report."""


SHOWN_ONLY = ("rendering.py", "pictures.py", "progress.py")
"""Files that show results and cannot change one."""


class FolderError(ValueError):
    """The folder cannot be used, or belongs to a verification that asked for something else."""


def code_digest() -> str:
    """Return a digest of everything in the package that can change a result."""
    package = Path(__file__).resolve().parent.parent
    state = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        room = path.relative_to(package).parts[0]
        if room not in ("applications", "interop", "cli.py") and path.name not in SHOWN_ONLY:
            state.update(str(path.relative_to(package)).encode())
            state.update(path.read_bytes())
    return state.hexdigest()[:16]


class Journal:
    """Results of finished tasks, on disk.

    Parameters
    ----------
    folder : path
        Where to write; made if need be.
    request : dict
        What the verification was asked to do; a folder made for another request is refused.
    every : float
        Seconds between writes.

    Raises
    ------
    FolderError
        The folder holds results of another request, or of other code, or cannot be written to.
    """

    def __init__(self, folder: Path, request: dict[str, Any], every: float = 5.0) -> None:
        self.folder, self.every = folder, every
        self.results: dict[str, dict[str, Any]] = {}
        self._pending: list[dict[str, Any]] = []
        self._saved: dict[str, int] = {}
        self._written = time.monotonic()
        manifest = folder / "request.json"
        if manifest.exists():
            known = _read(manifest)
            if known is None:
                raise FolderError(
                    f"{manifest} is damaged; choose another folder with --out, or remove it."
                )
            for name, value in request.items():
                if known.get(name) != value:
                    raise FolderError(
                        f"{folder} holds a verification with another {name} ({known.get(name)!r}, "
                        f"now {value!r}); choose another folder with --out, or remove it."
                    )
        else:
            try:
                write_text(manifest, json.dumps(request, indent=1) + "\n")
            except OSError as problem:
                raise FolderError(
                    f"the report cannot go to {folder} ({problem.strerror}); choose another "
                    "folder with --out."
                ) from problem
        parts = sorted((folder / "journal").glob("*.json"))
        for part in parts:
            # What a crash of the machine damaged is done again.
            self._remember(_read(part) or [])
        self._next = max((int(part.stem) for part in parts if part.stem.isdigit()), default=0) + 1

    def _remember(self, results: list[dict[str, Any]]) -> None:
        for result in results:
            self.results[result["key"]] = result
            row = _row(result)
            self._saved[row] = self._saved.get(row, 0) + bool(result.get("counterexample"))

    def add(self, result: dict[str, Any]) -> None:
        """Keep the result of a task; its counterexample, if any, is on disk when this returns."""
        arrays = result.pop("arrays", None)
        row = _row(result)
        if arrays is not None and self._saved.get(row, 0) < SAVED_PER_ROW:
            name = "-".join(str(arrays[k]) for k in ("statement", "set", "kind", "chunk"))
            name = "".join(c if c.isalnum() or c in "-." else "_" for c in name) + ".npz"
            save_arrays(self.folder / "counterexamples" / name, **arrays)
            result["counterexample"] = f"counterexamples/{name}"
        self._remember([result])
        self._pending.append(result)
        if time.monotonic() - self._written > self.every:
            self.flush()

    def flush(self) -> None:
        """Write what has not been written."""
        if self._pending:
            path = self.folder / "journal" / f"{self._next:06d}.json"
            write_text(path, json.dumps(self._pending))
            self._pending, self._next = [], self._next + 1
        self._written = time.monotonic()


def _read(path: Path) -> Any:
    """Return what a JSON file holds; None if it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None


def _row(result: dict[str, Any]) -> str:
    return f"{result['statement']}|{result['set']}|{result['kind']}"
