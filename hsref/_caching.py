"""Compiled code on disk: one sealed file for each routine and its types.

Numba's own cache keeps, for each function, an index and numbered data files. It raises when one of
them is damaged; it runs machine code whose bytes were altered; and two processes that compile one
function for different types at once may both choose the next number, after which the index of one
names the code of the other.

Here there is no index: the file's name follows from what it holds. Its first bytes are a digest of
the rest, and the rest names what it was compiled from and for. What does not match in every bit is
compiled again and replaced; files appear whole, by renaming.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import uuid
import warnings
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core.caching import FunctionCache
from numba.core.serialize import dumps

SEAL = 32
"""Length of the digest at the beginning of a file."""


class SealedFiles:
    """The files of one function: what `numba.core.caching.IndexDataCacheFile` is for Numba.

    Parameters
    ----------
    folder : str
        Where they lie.
    base : str
        How their names begin; differs from function to function.
    source : object
        State of the file that defines the function; compiled code of another state is stale.
    """

    def __init__(self, folder: str, base: str, source: Any) -> None:
        self._folder = Path(folder)
        self._base = base
        self._source = source

    def save(self, key: Any, data: Any) -> None:
        """Write the code `data` for `key` (argument types and processor), replacing older code."""
        text = dumps((self._source, key, data))
        part = self._folder / f".{uuid.uuid4().hex}.part"
        try:
            part.write_bytes(hashlib.sha256(text).digest() + text)
            os.replace(part, self._path(key))
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def load(self, key: Any) -> Any:
        """Return the code for `key`; None if there is none that is intact and of this source."""
        try:
            content = self._path(key).read_bytes()
        except OSError:
            return None
        text = memoryview(content)[SEAL:]
        if hashlib.sha256(text).digest() != content[:SEAL]:
            return None
        source, found, data = pickle.loads(text)
        return data if (source, found) == (self._source, key) else None

    def flush(self) -> None:
        """Remove every file of the function."""
        for path in self._folder.glob(f"{self._base}-*.nbc"):
            path.unlink(missing_ok=True)

    def _path(self, key: Any) -> Path:
        about = repr((numba.__version__, llvmlite.__version__, key))
        return self._folder / f"{self._base}-{hashlib.sha256(about.encode()).hexdigest()[:16]}.nbc"


class SealedCache(FunctionCache):
    """Cache of a function's compiled code that never fails: at worst everything is compiled.

    Raises
    ------
    RuntimeError
        When it is made, if there is no folder that can be written.
    """

    def __init__(self, py_func: Any) -> None:
        super().__init__(py_func)
        self._cache_file = SealedFiles(
            self.cache_path, self._impl.filename_base, self._impl.locator.get_source_stamp()
        )

    def save_overload(self, sig: Any, data: Any) -> None:
        """Write compiled code; a full disk costs a warning, and the next process its time."""
        try:
            super().save_overload(sig, data)
        except OSError as problem:
            self.disable()
            warnings.warn(
                f"hsref could not store compiled code in {self.cache_path} ({problem.strerror}) "
                "and will compile it anew in the next process; set NUMBA_CACHE_DIR to a writable "
                "folder to avoid that.",
                RuntimeWarning,
                stacklevel=2,
            )
