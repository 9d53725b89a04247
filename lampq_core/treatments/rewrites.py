"""Exact rewrites of the float model that even out the channels of a layer's input before it is rounded.

A normalization gives y = gamma n + beta, layers behind it W y + b. With a ratio r and a shift z per channel,

    y' = (gamma / r) n + (beta - z) / r,    W' = W diag(r),    b' = b + W z

compute the same in float, and one grid for the whole tensor y' is one for every channel of y.

Sources: Li et al. 2023 (RepQ-ViT), arXiv:2212.08254, all channels to one range; Ranjan and Savakis 2024 (LRP-QViT),
arXiv:2401.11243, the channels above a threshold alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lampq.core.values.errors import RecordError

# A channel that never moves takes no part in what the others share.
_STILL = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rewrite:
    """What the channels of an input are divided by, and what is taken off them before. C channels.

    Attributes:
        ratio: Float64, shape (C,), > 0.
        shift: Float64, shape (C,).
    """

    ratio: np.ndarray
    shift: np.ndarray

    def __post_init__(self) -> None:
        if self.ratio.shape != self.shift.shape or not (self.ratio > 0).all():
            raise RecordError("a rewrite needs a positive ratio and a shift for every channel")

    def of_norm(self, gamma: np.ndarray, beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scale and offset of the normalization, shape (C,) each."""
        return gamma / self.ratio, (beta - self.shift) / self.ratio

    def of_layer(self, weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weight (outputs, C) and bias (outputs,) of a layer behind it."""
        return weight * self.ratio, bias + weight @ self.shift


def one_range(low: np.ndarray, high: np.ndarray) -> Rewrite:
    """All channels to the range of an average one (RepQ-ViT).

    Args:
        low: Smallest value of each channel, shape (C,).
        high: Largest.

    Raises:
        RecordError: All channels are constant, or there is no data.
    """
    spread = _checked(low, high)
    moving = spread > _STILL * spread.max()
    ratio = np.where(moving, spread / spread[moving].mean(), 1.0)
    middle = (np.asarray(low, dtype=np.float64) + high) / 2
    # The middle of what all share stays where it is: the grid needs a zero point for it, and one is enough.
    return Rewrite(ratio=ratio, shift=middle - ratio * middle.mean())


def clipped(low: np.ndarray, high: np.ndarray, deviations: float = 2.0) -> Rewrite:
    """Channels whose largest value is above mean + `deviations` standard deviations to that threshold (LRP-QViT).

    Args:
        low: Smallest value of each channel, shape (C,).
        high: Largest.
        deviations: K of the source.

    Raises:
        RecordError: All channels are constant, or there is no data.
    """
    _checked(low, high)
    largest = np.maximum(np.abs(low), np.abs(high)).astype(np.float64)
    threshold = largest.mean() + deviations * largest.std()
    return Rewrite(ratio=np.maximum(largest / threshold, 1.0), shift=np.zeros(len(largest)))


def _checked(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The ranges' widths."""
    if not (len(low) and np.isfinite(low).all() and np.isfinite(high).all()):
        raise RecordError("channels without a finite range cannot be evened out; calibrate with data")
    spread = np.asarray(high, dtype=np.float64) - low
    if not spread.max() > 0:
        raise RecordError("all channels are constant; there is nothing to even out")
    return spread
