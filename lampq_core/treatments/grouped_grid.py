"""Grids known beforehand, one for each head, or for each channel of each head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lampq.core.values.activation_grid import floats
from lampq.core.values.activation_rule import LAST, SiteAxes, check_bits, constant
from lampq.core.values.errors import RecordError
from lampq.core.values.fitted import Fitted, row


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupedGrid:
    """Value = scale * (code - zero_point) with a scale and a zero point for each head, or head and channel.

    Attributes:
        tag: `head` or `head_channel`.
        bits: Width.
        heads: H.
        low: Smallest value of each group, shape (H,) or (H * channels,), <= 0.
        high: Largest value, >= 0.
    """

    tag: str
    bits: int
    heads: int
    low: np.ndarray
    high: np.ndarray

    def __post_init__(self) -> None:
        check_bits(self.bits)
        fits = self.low.shape == self.high.shape and self.low.size and self.low.size % self.heads == 0
        if not fits or (self.low > 0).any() or (self.high < 0).any():
            raise RecordError(f"quantizer {self.tag}: its ranges are none of {self.heads} heads that hold 0")

    def apply(self, values: Any, axes: SiteAxes = LAST, xp: Any = np) -> Any:
        """Values on the grids of their groups.

        Raises:
            RecordError: The values have other heads or channels.
        """
        values = floats(values, xp)
        channels = self.low.size // self.heads
        if axes.rows != self.heads or channels not in (1, values.shape[-1]):
            raise RecordError(
                f"quantizer {self.tag} of {self.heads} heads x {channels} channels meets {axes.rows} heads of "
                f"{values.shape[-1]}"
            )
        top = (1 << self.bits) - 1
        shape = (self.heads, 1, channels)
        low, high = (constant(ends, values, xp).reshape(shape) for ends in (self.low, self.high))
        scale = xp.clip((high - low) / top, float(np.finfo(np.float32).tiny), None)
        zero = xp.clip(xp.round(-low / scale), 0, top)
        split = axes.split(values, xp)
        rounded = (xp.clip(xp.round(split / scale) + zero, 0, top) - zero) * scale
        return axes.join(rounded, values.shape, xp)

    def fitted(self) -> Fitted:
        """As files hold it."""
        ends = {"low": row(self.low), "high": row(self.high)}
        return Fitted(tag=self.tag, bits=self.bits, parameters={"heads": self.heads, **ends})


def load(fitted: Fitted) -> GroupedGrid:
    """The grid that a file describes.

    Raises:
        RecordError: Its parameters are of no such grid.
    """
    return GroupedGrid(
        tag=fitted.tag,
        bits=fitted.bits,
        heads=max(1, int(fitted.number("heads"))),
        low=fitted.row("low"),
        high=fitted.row("high"),
    )
