"""Uniform grids of activations, zero exactly on them: one for the whole tensor, or one for every token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lampq.core.values.activation_rule import LAST, SiteAxes, check_bits
from lampq.core.values.errors import RecordError
from lampq.core.values.fitted import Fitted


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationGrid:
    """Value = scale * (code - zero_point), code in 0 .. 2^bits - 1.

    Attributes:
        scale: Distance of neighbouring values, > 0, representable in float32.
        zero_point: Code of the value 0.
        bits: 2 to 8, or 16.
    """

    scale: float
    zero_point: int
    bits: int

    def __post_init__(self) -> None:
        check_bits(self.bits)
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

    def apply(self, values: Any, axes: SiteAxes = LAST, xp: Any = np) -> Any:
        """Values moved to the nearest of the grid (ties to even codes, as runtimes do); float32 in NumPy."""
        values = floats(values, xp)
        codes = xp.clip(xp.round(values / self.scale) + self.zero_point, 0, self.top)
        return (codes - self.zero_point) * self.scale

    def fitted(self) -> Fitted:
        """As files hold it."""
        return Fitted(
            tag="uniform", bits=self.bits, parameters={"scale": self.scale, "zero_point": self.zero_point}
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenGrid:
    """Each token (each vector that a product sums over) on a grid of its own, from its smallest to its largest value.

    Attributes:
        bits: 2 to 8, or 16.
        share: Share of that range that the grid covers, in (0, 1]; what lies beyond is clipped.
    """

    bits: int
    share: float = 1.0

    def __post_init__(self) -> None:
        check_bits(self.bits)
        if not 0 < self.share <= 1:
            raise RecordError(f"a grid over {self.share} of a token's range: the share is in (0, 1]")

    def apply(self, values: Any, axes: SiteAxes = LAST, xp: Any = np) -> Any:
        """Values with each vector along the summed axis moved to its grid; float32 in NumPy."""
        values, top = floats(values, xp), (1 << self.bits) - 1
        lines = axes.lines(values.ndim)
        low = xp.clip(xp.amin(values, axis=lines, keepdims=True), None, 0)
        high = xp.clip(xp.amax(values, axis=lines, keepdims=True), 0, None)
        if self.share < 1:
            low, high = low * self.share, high * self.share
        scale = xp.clip((high - low) / top, float(np.finfo(np.float32).tiny), None)
        zero = xp.clip(xp.round(-low / scale), 0, top)
        return (xp.clip(xp.round(values / scale) + zero, 0, top) - zero) * scale

    def fitted(self) -> Fitted:
        """As files hold it."""
        share = {"share": self.share} if self.share < 1 else {}
        return Fitted(tag="token", bits=self.bits, parameters=share)


def floats(values: Any, xp: Any) -> Any:
    """Values as rules compute with them: float32 in NumPy, as they are elsewhere."""
    return np.asarray(values, dtype=np.float32) if xp is np else values
