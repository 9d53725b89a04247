"""How far two runs of a model are apart, whichever runtimes made them."""

from __future__ import annotations

import numpy as np


def difference(actual: np.ndarray, expected: np.ndarray, *, floor: float = 0.0) -> float:
    """Largest difference of two arrays, relative to the largest magnitude of what was expected.

    Args:
        actual: An output.
        expected: What it should be.
        floor: A magnitude that counts where all that was expected is smaller.

    Returns:
        The ratio; the difference itself where nothing but zeros was expected. Infinite where the shapes differ, or a
        value is infinite or NaN in one of the two alone: what the model itself makes so is right.
    """
    if actual.shape != expected.shape:
        return np.inf
    actual, expected = actual.astype(np.float64), expected.astype(np.float64)
    ordinary = np.isfinite(expected)
    if not np.array_equal(actual[~ordinary], expected[~ordinary], equal_nan=True):
        return np.inf
    actual, expected = actual[ordinary], expected[ordinary]
    if not np.isfinite(actual).all():
        return np.inf
    scale = max(float(np.abs(expected).max(initial=0.0)), floor)
    largest = float(np.abs(actual - expected).max(initial=0.0))
    return largest / scale if scale > 0 else largest
