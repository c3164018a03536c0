"""The only tolerances of the suite.

Every bound is a named multiple of the machine precision of the dtype, times the size of the data
that went into the number under test. ``bound("kkt", x, b)`` is what an assertion compares with.
"""

from __future__ import annotations

import numpy as np

UNITS = {
    # constraints hold to round-off of the data: one dot product of a few dozen terms
    "feasible": 2e3,
    # stationarity, sign and complementarity: a triangular solve with a factor of modest condition
    "kkt": 1e4,
    # the distance to a planted answer adds the condition of the active rows to the above
    "planted": 5e4,
    # a projector built from small integer rows is good to a few ulps times its condition
    "projector": 1e4,
    # two exact algorithms, each with its own round-off, on the same numbers
    "agree": 1e5,
    # Π(x') − Π(x) = V (x' − x): subtracts two projections, so absolute in their size
    "exactness": 5e4,
    # central differences of a piecewise affine map: round-off over the step (1e-4)
    "difference": 5e8,
    # central differences of a smooth composition: truncation h² and round-off over h at h = 1e-5
    "smooth difference": 1e10,
}


def size(*data: np.ndarray) -> float:
    """Return 1 + the largest finite entry among the data."""
    largest = 1.0
    for array in data:
        values = np.abs(np.asarray(array, dtype=np.float64))
        values = values[np.isfinite(values)]
        largest = max(largest, 1.0 + values.max(initial=0.0))
    return largest


def bound(kind: str, *data: np.ndarray, dtype=np.float64) -> float:
    """Return the absolute tolerance for `kind`, for data of this size and dtype."""
    eps = float(np.finfo(dtype).eps)
    # float32 input is solved in float64: what is lost is the last cast, not the condition
    units = UNITS[kind] if np.dtype(dtype) == np.float64 else 40.0
    return units * eps * size(*data)


def assert_close(actual, wanted, kind: str, *data: np.ndarray, dtype=np.float64) -> None:
    """Assert that two arrays agree entry by entry up to ``bound(kind, ...)``."""
    actual, wanted = np.asarray(actual), np.asarray(wanted)
    assert actual.shape == wanted.shape, f"shape {actual.shape}, wanted {wanted.shape}"
    limit = bound(kind, wanted, *data, dtype=dtype)
    error = np.abs(actual - wanted).max(initial=0.0)
    assert error <= limit, f"off by {error:.3g}, allowed {limit:.3g}\n{actual}\nwanted\n{wanted}"
