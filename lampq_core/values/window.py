"""Which values a convolution's weights meet: what its kernel sees, place after place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lampq.core.values.errors import RecordError

# Numbers taken of a sample, and places at least: neighbours see much the same, and products of all would take long.
_MOST_NUMBERS, _FEWEST_PLACES = 1 << 19, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How a kernel moves over the D axes of a convolution's input.

    Attributes:
        kernel: Sides, D of them.
        strides: Steps of the kernel.
        dilations: Distances of its entries.
        pads: Zeros before and after each axis; None: as many as give one place for each stride, the odd one after.
        groups: Parts of the channels that see nothing of each other.
        channels_last: Whether channels are the last axis, of values and of what a kernel sees.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...] | None
    groups: int = 1
    channels_last: bool = False

    def __post_init__(self) -> None:
        sides = (self.kernel, self.strides, self.dilations)
        if len({len(side) for side in sides}) != 1 or any(number < 1 for side in sides for number in side):
            raise RecordError(
                f"a kernel {self.kernel} with strides {self.strides}, dilations {self.dilations}"
            )
        if self.pads is not None and (len(self.pads) != len(self.kernel) or min(map(min, self.pads)) < 0):
            raise RecordError(f"a kernel {self.kernel} with pads {self.pads}")

    def rows(self, values: np.ndarray) -> np.ndarray | None:
        """What the kernel sees, evenly spread places of every sample.

        Args:
            values: Inputs, shape (samples, channels, *sides), or (samples, *sides, channels).

        Returns:
            Shape (groups, places, N), its N entries in the order of a row of weights; None where the values do not fit.
        """
        rank = len(self.kernel)
        values = np.moveaxis(values, -1, 1) if self.channels_last else values
        if values.ndim != rank + 2 or values.shape[1] % self.groups or not len(values):
            return None
        axes = tuple(range(2, rank + 2))
        spans = [(side - 1) * step + 1 for side, step in zip(self.kernel, self.dilations, strict=True)]
        padded = np.pad(values, [(0, 0), (0, 0), *self._pads(values.shape[2:], spans)])
        if any(padded.shape[axis] < span for axis, span in zip(axes, spans, strict=True)):
            return None
        seen = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=axes)
        steps = [slice(None, None, step) for step in (*self.strides, *self.dilations)]
        seen = seen[(slice(None), slice(None), *steps)]
        return self._spread(np.moveaxis(seen, 1, rank + 1))

    def _pads(self, sides: tuple[int, ...], spans: list[int]) -> list[tuple[int, int]]:
        if self.pads is not None:
            return list(self.pads)
        wanted = [
            max(0, (-(-side // step) - 1) * step + span - side)
            for side, step, span in zip(sides, self.strides, spans, strict=True)
        ]
        return [(more // 2, more - more // 2) for more in wanted]

    def _spread(self, seen: np.ndarray) -> np.ndarray:
        """Some places of (samples, *places, channels, *kernel) as (groups, places, N)."""
        rank = len(self.kernel)
        samples, places, inner = len(seen), seen.shape[1 : rank + 1], seen.shape[rank + 1 :]
        count, size = int(np.prod(places)), int(np.prod(inner))
        most = max(_FEWEST_PLACES, _MOST_NUMBERS // size)
        chosen = np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.intp))
        index: tuple[Any, ...] = (slice(None), *np.unravel_index(chosen, places))
        rows = seen[index].reshape(samples * len(chosen), self.groups, inner[0] // self.groups, *inner[1:])
        if self.channels_last:
            rows = np.moveaxis(rows, 2, -1)
        return np.ascontiguousarray(rows.reshape(*rows.shape[:2], -1).swapaxes(0, 1))
