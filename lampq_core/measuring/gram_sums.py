"""Inner products of rows, summed over samples, and how far they scatter from one sample to the next.

A sample's rows a (directions x columns) are how far each option moves the outputs along each direction. Their inner
products q = a^T a / 2 average to the interactions Q. The mean of q^2, entry by entry, tells the variance of Q: of a
calibration set of S samples it is (E[q^2] - Q^2) / (S - 1).
"""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np

from lampq.core.measuring.interaction import MOST_BYTES, MOST_GRAM_BYTES, keeps_squares

# Numbers of the rows that are multiplied at a time.
_BLOCK = 1 << 22


class GramSums:
    """Sums over samples of inner products and of their squares.

    Args:
        columns: Pairs of layer and option.
    """

    def __init__(self, columns: int) -> None:
        size = 8 * columns**2
        self._samples = 0
        self._own = np.zeros(columns)
        self._gram = np.zeros((columns, columns)) if size <= min(MOST_GRAM_BYTES, MOST_BYTES) else None
        self._square = np.zeros((columns, columns)) if keeps_squares(columns) else None

    def add(self, rows: np.ndarray) -> None:
        """Take in some samples.

        Args:
            rows: Shape (samples, directions, columns).
        """
        samples, directions, columns = rows.shape
        self._samples += samples
        step = max(1, _BLOCK // (columns * directions**2))
        for start in range(0, samples, step):
            part = rows[start : start + step].astype(np.float64)
            flat = part.reshape(-1, columns)
            self._own += np.einsum("rc,rc->c", flat, flat)
            if self._gram is not None:
                self._gram += flat.T @ flat
            if self._square is not None:
                products = _products(part).reshape(-1, columns)
                self._square += products.T @ products

    @property
    def own(self) -> np.ndarray:
        """The diagonal of Q, shape (columns,)."""
        return self._own / (2 * self._samples)

    @property
    def gram(self) -> np.ndarray | None:
        """Q, float64, shape (columns, columns), or None where there is no room for it."""
        return None if self._gram is None else self._gram / (2 * self._samples)

    @property
    def square(self) -> np.ndarray | None:
        """Mean over samples of q^2, the same shape, or None."""
        return None if self._square is None else self._square / (4 * self._samples)


def _products(rows: np.ndarray) -> np.ndarray:
    """Rows whose inner products are the squares of those of the given ones, sample by sample.

    (sum_d a_d b_d)^2 is the sum over pairs of directions of (a_d a_e) (b_d b_e), those of two different ones twice.
    """
    pairs = combinations_with_replacement(range(rows.shape[1]), 2)
    return np.stack([(1.0 if d == e else 2**0.5) * rows[:, d] * rows[:, e] for d, e in pairs], axis=1)
