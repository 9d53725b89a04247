"""Numbers on a scale of their own: squared differences in units of each channel's spread.

Half the mean of ((z - r) / sigma_c)^2 is the KL divergence per element of two Gaussians of spread sigma_c, so it adds
up with those of classes. The metric is diagonal, 1 / sigma_c^2 over the number of elements.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lampq.core.readouts.role import Embedding
from lampq.core.readouts.rows import from_rows, position_weights, sample_blocks, to_rows

# A channel's spread counts as at least this fraction of the head's largest. A step of an 8-bit grid over six sigmas
# of the widest channel is 6 / 256 of its sigma: what varies less cannot be told from constant in such a tensor. A
# channel that hardly varies says nothing of how far it may move, and without a floor it would outweigh all others.
FLOOR = 0.02
# Spread over size below which a channel is constant up to the rounding of float32.
_CONSTANT = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Values:
    """A `Role`.

    Attributes:
        axis: Axis of the channels; all others but the samples are positions.
        spread: Sigma of every channel, > 0, float64, shape (C,), or (1,) for all alike.
    """

    axis: int = -1
    spread: np.ndarray

    def damage(self, reference: np.ndarray, output: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """Half the mean squared difference in units of the spread, nats per sample."""
        rows = to_rows(reference, self.axis)
        gap = np.subtract(to_rows(output, self.axis), rows, dtype=np.float64) / self.spread
        return 0.5 * (np.square(gap).mean(axis=-1) * position_weights(rows, mask)[..., 0]).sum(axis=-1)

    def embedding(self, centre: np.ndarray, mask: np.ndarray | None, scale: float = 1.0) -> Embedding:
        """Differences over the spread; the same around any centre."""
        rows = to_rows(centre, self.axis)
        share = position_weights(rows, mask) / rows.shape[-1]
        root = from_rows(
            (np.sqrt(share * (scale / 2)) / self.spread).astype(np.float32), centre.shape, self.axis
        )
        return Embedding(
            apply=lambda difference: difference * root, importance=from_rows(share, centre.shape, self.axis)
        )

    def slope(self, reference: np.ndarray, centre: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """(centre - reference) / sigma^2, over the number of elements."""
        rows = to_rows(centre, self.axis)
        gap = np.subtract(rows, to_rows(reference, self.axis), dtype=np.float64) / self.spread**2
        return from_rows(gap * (position_weights(rows, mask) / rows.shape[-1]), centre.shape, self.axis)

    def signs_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A sign for every entry."""
        return shape

    def probe(self, output: np.ndarray, mask: np.ndarray | None, signs: np.ndarray) -> np.ndarray:
        """Signs over the spread; the same around any output."""
        rows = to_rows(output, self.axis)
        root = np.sqrt(position_weights(rows, mask) / rows.shape[-1]) / self.spread
        return from_rows(root * to_rows(signs, self.axis), output.shape, self.axis)

    def decisions(self, output: np.ndarray) -> None:
        """Numbers decide nothing."""


def channel_spread(parts: Iterable[tuple[np.ndarray, np.ndarray | None]]) -> np.ndarray | None:
    """Standard deviation of every channel over samples and positions, at least `FLOOR` of the largest.

    Where a channel has a single value (one sample, one position), or where groups differ in their number of
    channels, all channels share the spread of all values.

    Args:
        parts: Rows of groups of samples, shape (S, P, C), and their masks (S, P).

    Returns:
        Float64, shape (C,) or (1,), > 0; None where every channel is constant.
    """
    groups = [_counted(rows, mask) for rows, mask in parts]
    single = sum(len(group) for group in groups) < 2
    if single or len({group.shape[-1] for group in groups}) > 1:
        groups = [group.reshape(-1, 1) for group in groups]
    mean, spread = _moments(groups)
    largest = float(spread.max(initial=0.0))
    if not largest > _CONSTANT * float(np.abs(mean).max(initial=0.0)):
        return None
    return np.maximum(spread, FLOOR * largest)


def _counted(rows: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    flat = rows.reshape(-1, rows.shape[-1])
    return flat if mask is None else flat[mask.ravel() != 0]


def _moments(groups: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over the first axis of all groups, in two passes, float64."""
    count = max(1, sum(len(group) for group in groups))
    mean = sum(group.sum(axis=0, dtype=np.float64) for group in groups) / count
    squares = np.zeros_like(mean)
    for group in groups:
        for block in sample_blocks(group) if len(group) else ():
            squares += np.square(group[block] - mean).sum(axis=0)
    return mean, np.sqrt(squares / count)
