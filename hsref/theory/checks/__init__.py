"""The statements as checks over batches of points; each returns residuals, none asserts."""

from __future__ import annotations

from ._outcome import Outcome

__all__ = ["Outcome"]
