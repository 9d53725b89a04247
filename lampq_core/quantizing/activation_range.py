"""From the values that a tensor takes in calibration to the grid of any width it is rounded on.

Values are kept as a histogram, so that every width and every way of choosing the clip points comes from one
calibration.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lampq.core.values.activation_grid import ActivationGrid
from lampq.core.values.errors import RecordError
from lampq.core.values.range_kinds import METHODS

BINS = 2048
# The first look at zero points is at about so many, and at these fractions of the scale that clips nothing; the
# next looks are nearby.
_ZERO_POINTS = 16
_FRACTIONS = np.geomspace(0.05, 1.0, 30)
_NEAR = np.linspace(0.9, 1.1, 9)
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Histogram:
    """Values seen at one place of a model.

    Attributes:
        low: Smallest.
        high: Largest.
        counts: How many fell into each of `BINS` equal bins from `low` to `high`, float64, shape (BINS,).
    """

    low: float
    high: float
    counts: np.ndarray

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low <= self.high):
            raise RecordError(f"activation values from {self.low} to {self.high}: they must be finite")
        if self.counts.shape != (BINS,) or not self.counts.sum() > 0:
            raise RecordError(f"a histogram of activations needs {BINS} bins and at least one value")

    def grid(self, bits: int, method: str = "mse", *, percentile: float = 99.9) -> ActivationGrid:
        """A grid for these values, zero exactly on it.

        Args:
            bits: 2 to 8.
            method: `minmax` covers all values; `percentile` cuts off what lies beyond; `mse` clips where the squared
                error of rounding and clipping together is least.
            percentile: Share of the values, in percent, that stays within, half of the rest cut at either end.

        Raises:
            RecordError: The method is unknown, or the percentile is not in (0, 100].
        """
        if method == "minmax":
            return ActivationGrid.from_range(self.low, self.high, bits)
        if method == "percentile":
            return ActivationGrid.from_range(*self._within(percentile), bits)
        if method == "mse":
            return self._least_error(bits)
        raise RecordError(f"activation method {method!r} is none of {', '.join(METHODS)}")

    def error(self, grid: ActivationGrid) -> float:
        """Mean squared error of the values on a grid, each value taken as the middle of its bin."""
        edges = np.linspace(self.low, self.high, BINS + 1, dtype=np.float32)
        centres = (edges[1:] + edges[:-1]) / 2
        return float(self.counts @ np.square(grid.apply(centres) - centres) / self.counts.sum())

    def _within(self, percentile: float) -> tuple[float, float]:
        if not 0 < percentile <= 100:
            raise RecordError(f"percentile {percentile}: must be above 0 and at most 100")
        share = np.cumsum(self.counts) / self.counts.sum()
        edges = np.linspace(self.low, self.high, BINS + 1)
        tail = (1 - percentile / 100) / 2
        first = int(np.searchsorted(share, tail, side="right"))
        last = int(np.searchsorted(share, 1 - tail))
        return float(edges[min(first, BINS - 1)]), float(edges[min(last, BINS - 1) + 1])

    def _least_error(self, bits: int) -> ActivationGrid:
        """A search over zero points and scales, coarse first, then finer around the best."""
        top = (1 << bits) - 1
        best = self.grid(bits, "minmax")
        stride = max(1, (top + 1) // _ZERO_POINTS)
        zeros, fractions = {*range(0, top + 1, stride), top}, _FRACTIONS
        while True:
            covering = {zero: self._covering(zero, top) for zero in sorted(zeros)}
            candidates = [
                ActivationGrid(scale=max(float(np.float32(scale * f)), _TINY), zero_point=zero, bits=bits)
                for zero, scale in covering.items()
                if scale > 0
                for f in fractions
            ]
            best = min([best, *candidates], key=self.error)
            if stride == 0:
                return best
            stride //= 2
            zeros = {z for z in (best.zero_point + i * stride for i in (-1, 0, 1)) if 0 <= z <= top}
            fractions = _NEAR * best.scale / max(self._covering(best.zero_point, top), _TINY)

    def _covering(self, zero_point: int, top: int) -> float:
        """The scale that reaches every value of the sides that the grid has."""
        below = -min(self.low, 0.0) / zero_point if zero_point else 0.0
        above = max(self.high, 0.0) / (top - zero_point) if zero_point < top else 0.0
        return max(below, above)


def histogram_of(values: np.ndarray) -> Histogram:
    """The histogram of an array that is at hand.

    Raises:
        RecordError: It is empty or not finite.
    """
    if not values.size:
        raise RecordError("a range of no values; calibrate with data")
    low, high = float(values.min()), float(values.max())
    if low == high:
        counts = np.zeros(BINS)
        counts[0] = values.size
    else:
        counts = np.histogram(values, BINS, (low, high))[0].astype(np.float64)
    return Histogram(low=low, high=high, counts=counts)
