"""Progress of a verification on standard error: a bar where rich is installed, else lines."""

from __future__ import annotations

import sys
import time
from typing import Any


class Progress:
    """A callable (done, total, failed) that shows how far a run is; a context manager."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._said = time.monotonic()
        self._started = time.monotonic()

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            try:
                from rich.console import Console
                from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
                from rich.progress import Progress as Bar
            except ImportError:
                return self
            self._bar = Bar(
                TextColumn("verify"), BarColumn(), TextColumn("{task.completed}/{task.total}"),
                TextColumn("{task.fields[failed]} cases fail"), TimeRemainingColumn(),
                console=Console(stderr=True), transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task("verify", total=None, failed=0)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, total: int, failed: int) -> None:
        """Show the state; lines come every ten seconds."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, failed=failed)
            return
        now = time.monotonic()
        if now - self._said > 10.0 or done == total:
            self._said = now
            spent = now - self._started
            print(f"verify: {done}/{total} tasks, {failed} cases fail, {spent:.0f} s",
                  file=sys.stderr)  # fmt: skip
