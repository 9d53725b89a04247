"""Uniform grids with a fixed noise added before rounding, so that values that are alike round differently.

The noise is a sequence over the positions of a tensor that fills the interval evenly (Roberts' generalization of the
golden ratio), so it needs no table, has no seed, and is the same in NumPy and PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lampq.core.quantizing.activation_range import histogram_of
from lampq.core.treatments.seen import Seen
from lampq.core.values.activation_grid import ActivationGrid, floats
from lampq.core.values.activation_rule import LAST, SiteAxes, constant
from lampq.core.values.errors import RecordError
from lampq.core.values.fitted import Fitted

# Steps of the sequence along heads, rows and columns: powers of 1 / 1.2207440846, the root of x^4 = x + 1.
_STRIDES = (0.8191725134, 0.6710436067, 0.5497004779)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseGrid:
    """A grid for the whole tensor, each position with its own offset before rounding.

    Attributes:
        grid: The grid.
        amplitude: Width of the noise in steps of the grid, in (0, 1].
        subtract: Whether the noise is taken off again, which costs a layer a change of its bias, and is not to be had
            where the other factor is no constant.
    """

    grid: ActivationGrid
    amplitude: float
    subtract: bool

    def __post_init__(self) -> None:
        if not 0 < self.amplitude <= 1:
            raise RecordError(f"noise of {self.amplitude} steps: it is above 0 and at most 1")

    @property
    def bits(self) -> int:
        """Width."""
        return self.grid.bits

    def apply(self, values: Any, axes: SiteAxes = LAST, xp: Any = np) -> Any:
        """Values with the noise added, on the grid."""
        split = axes.split(floats(values, xp), xp)
        noise = self._noise(split, xp)
        rounded = self.grid.apply(split + noise, axes, xp)
        return axes.join(rounded - noise if self.subtract else rounded, values.shape, xp)

    def _noise(self, split: Any, xp: Any) -> Any:
        """Shape of a sample, centred on 0."""
        shape = tuple(split.shape[1:])
        phase = np.zeros(shape)
        for axis, stride in zip(range(len(shape))[::-1], _STRIDES[::-1], strict=False):
            along = [1] * len(shape)
            along[axis] = shape[axis]
            phase = phase + (stride * np.arange(shape[axis])).reshape(along)
        return constant(self.grid.scale * self.amplitude * (phase % 1.0 - 0.5), split, xp)

    def fitted(self) -> Fitted:
        """As files hold it."""
        grid = self.grid.fitted()
        tag = "noise" if self.subtract else "dither"
        return Fitted(tag=tag, bits=self.bits, parameters={**grid.parameters, "amplitude": self.amplitude})


def candidates(seen: Seen, bits: int, *, subtract: bool) -> Iterator[NoiseGrid]:
    """Some grids with some amplitudes."""
    grids = [histogram_of(seen.values).grid(bits)]
    grids += [
        ActivationGrid.from_range(share * seen.low, share * seen.high, bits) for share in (1.0, 0.8, 0.6)
    ]
    for grid in grids:
        for amplitude in (0.5, 1.0):
            yield NoiseGrid(grid=grid, amplitude=amplitude, subtract=subtract)


def load(fitted: Fitted, *, subtract: bool) -> NoiseGrid:
    """The grid that a file describes.

    Raises:
        RecordError: Its parameters are of no such grid.
    """
    grid = ActivationGrid(
        scale=float(np.float32(fitted.number("scale"))),
        zero_point=int(fitted.number("zero_point")),
        bits=fitted.bits,
    )
    return NoiseGrid(grid=grid, amplitude=fitted.number("amplitude"), subtract=subtract)
