"""Uniform grids of activations, zero exactly on them: one for the whole tensor, or one for every token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from lampq.core.values.errors import RecordError


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationGrid:
    """Value = scale * (code - zero_point), code in 0 .. 2^bits - 1.

    Attributes:
        scale: Distance of neighbouring values, > 0, representable in float32.
        zero_point: Code of the value 0.
        bits: 2 to 8.
    """

    scale: float
    zero_point: int
    bits: int

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise RecordError(f"{self.bits} activation bits: choose 2 to 8")
        if not (np.isfinite(self.scale) and self.scale > 0 and np.float32(self.scale) == self.scale):
            raise RecordError(f"activation scale {self.scale}: must be a positive float32")
        if not 0 <= self.zero_point <= self.top:
            raise RecordError(f"zero point {self.zero_point}: codes of {self.bits} bits run to {self.top}")

    @classmethod
    def from_range(cls, low: float, high: float, bits: int = 8) -> ActivationGrid:
        """The grid that covers low .. high, and 0: padding and skipped tokens must stay exact.

        Raises:
            RecordError: The range is not finite or reversed.

        >>> grid = ActivationGrid.from_range(-1.0, 3.0, bits=8)
        >>> grid.zero_point, round(grid.scale * 255, 5)
        (64, 4.0)
        """
        if not (np.isfinite(low) and np.isfinite(high) and low <= high):
            raise RecordError(f"activation range ({low}, {high}) cannot be")
        low, high = min(float(low), 0.0), max(float(high), 0.0)
        top = (1 << bits) - 1
        # Below the smallest normal float32 runtimes may flush the scale to zero.
        scale = max(float(np.float32((high - low) / top)), float(np.finfo(np.float32).tiny))
        return cls(scale=scale, zero_point=int(np.clip(round(-low / scale), 0, top)), bits=bits)

    @property
    def top(self) -> int:
        """The largest code."""
        return (1 << self.bits) - 1

    @property
    def low(self) -> float:
        """The smallest value on the grid."""
        return -self.zero_point * self.scale

    @property
    def high(self) -> float:
        """The largest value on the grid."""
        return (self.top - self.zero_point) * self.scale

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Values moved to the nearest of the grid (ties to even codes, as runtimes do), float32."""
        scale = np.float32(self.scale)
        codes = np.rint(np.asarray(values, dtype=np.float32) / scale) + np.float32(self.zero_point)
        return (np.clip(codes, 0, self.top) - np.float32(self.zero_point)) * scale


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenGrid:
    """Each token (each vector that a product sums over) on a grid of its own, from its smallest to its largest value.

    Attributes:
        bits: 2 to 8.
    """

    bits: int

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise RecordError(f"{self.bits} activation bits: choose 2 to 8")

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Values with the vectors along the last axis moved to their grids, float32."""
        rows = np.asarray(values, dtype=np.float32)
        flat = rows.reshape(-1, rows.shape[-1])
        grids = [ActivationGrid.from_range(row.min(), row.max(), self.bits) for row in flat]
        return np.stack([grid.apply(row) for grid, row in zip(grids, flat, strict=True)]).reshape(rows.shape)


ActivationRule: TypeAlias = ActivationGrid | TokenGrid
"""How a tensor is rounded: on a grid known beforehand, or on one for every token."""
