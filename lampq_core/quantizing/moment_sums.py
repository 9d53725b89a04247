"""Second moments of few samples, drawn towards their diagonal by as much as they scatter.

Moments of few samples show correlations that others do not have, and codes chosen for them make up for errors with
features that do not move together. The mean of the moment and its diagonal that comes closest to the truth is known
where the sampling error is: that of parts of the samples tells it, whatever tokens of a sample have in common.

Source: Ledoit and Wolf (2004), doi:10.1016/S0047-259X(03)00096-4; of correlations, towards the diagonal, Schaefer and
Strimmer (2005), doi:10.2202/1544-6115.1175.
"""

from __future__ import annotations

import numpy as np

_TINY = np.finfo(np.float32).tiny


class MomentSums:
    """Sums of x x^T over parts of the samples."""

    def __init__(self) -> None:
        self._total: np.ndarray | None = None
        self._part: np.ndarray | None = None
        self._count = self._part_count = self._counts_squared = 0
        # Of parts, without their diagonals.
        self._squares = 0.0
        # Entries count as correlations: by the spread of the features, as the first part has it.
        self._spread = np.zeros(0, dtype=np.float32)

    def add(self, product: np.ndarray, count: int) -> None:
        """Take in X^T X, shape (N, N), of `count` rows."""
        self._part = product.astype(np.float32) if self._part is None else self._part + product
        self._part_count += count

    def end_part(self) -> None:
        """The samples that follow are others."""
        if self._part is None:
            return
        if not len(self._spread):
            power = np.diag(self._part) / np.float32(self._part_count)
            self._spread = np.sqrt(np.maximum(power, 1e-6 * power.mean() + _TINY))
        self._squares += self._correlations(self._part)
        self._counts_squared += self._part_count**2
        self._total = self._part if self._total is None else self._total + self._part
        self._count += self._part_count
        self._part, self._part_count = None, 0

    def shrunk(self) -> np.ndarray:
        """E[x x^T], less the share of what is off its diagonal that is chance, float32, shape (N, N)."""
        assert self._total is not None  # Parts are not empty.
        moment = self._total / np.float32(self._count)
        diagonal = np.diag(moment).copy()
        moment *= np.float32(1 - self.chance())
        np.fill_diagonal(moment, diagonal)
        return moment

    def chance(self) -> float:
        """Share of the correlations that is chance, 0 to 1; 0 where a single part tells nothing of it.

        With w the share of all rows that a part has, the variance of their mean M is
        (sum w^2 |M_part|^2 - |M|^2 sum w^2) / (1 - sum w^2).
        """
        assert self._total is not None  # Parts are not empty.
        share = self._counts_squared / self._count**2
        whole = self._correlations(self._total)
        if share >= 1 or whole <= 0:
            return 0.0
        variance = (self._squares - share * whole) / (1 - share)
        return float(np.clip(variance / whole, 0.0, 1.0))

    def _correlations(self, moment: np.ndarray) -> float:
        """Sum of the squares of what is off the diagonal, in units of the features' spread."""
        scaled = moment / self._spread
        scaled /= self._spread[:, None]
        np.fill_diagonal(scaled, 0)
        return float(np.square(scaled, dtype=np.float64).sum())
