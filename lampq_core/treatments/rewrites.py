"""Exact rewrites of the float model that even out the channels of a layer's input before it is rounded.

Sources: Li et al. 2023 (RepQ-ViT), arXiv:2212.08254, all channels to one range; Ranjan and Savakis 2024 (LRP-QViT),
arXiv:2401.11243, the channels above a threshold alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lampq.core.values.errors import RecordError
from lampq.core.values.norm_rewrite import NormRewrite
from lampq.core.values.rewrite_kinds import CLIPPED, ONE_RANGE

# A channel that never moves takes no part in what the others share.
_STILL = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeenNorm:
    """A normalization as calibration has seen it. C channels.

    Attributes:
        name: Path of its module.
        layers: Names of the layers that read it, where it can be rewritten.
        low: Smallest value of each channel, shape (C,).
        high: Largest.
        why_not: Why it cannot be rewritten without changing what the model computes, or empty.
    """

    name: str
    layers: tuple[str, ...] = ()
    low: np.ndarray
    high: np.ndarray
    why_not: str = ""


def one_range(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ratio and shift that bring all channels to the range of an average one (RepQ-ViT).

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
    return ratio, middle - ratio * middle.mean()


def clipped(low: np.ndarray, high: np.ndarray, deviations: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Those that bring channels above mean + `deviations` standard deviations to that threshold (LRP-QViT).

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
    return np.maximum(largest / threshold, 1.0), np.zeros(len(largest))


EVENINGS: dict[str, Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    ONE_RANGE: one_range,
    CLIPPED: clipped,
}
"""Kind -> how ratio and shift follow from the channels' ranges."""


def rewrite_of(seen: SeenNorm, kind: str) -> NormRewrite | None:
    """The rewrite of a normalization; None where that would change nothing.

    Raises:
        RecordError: All its channels are constant, or there is no data.
    """
    try:
        ratio, shift = EVENINGS[kind](seen.low, seen.high)
    except RecordError as err:
        raise RecordError(f"normalization {seen.name}: {err}") from err
    if (ratio == 1).all() and not shift.any():
        return None
    return NormRewrite.of(seen.name, kind, ratio, shift)


def _checked(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The ranges' widths."""
    if not (len(low) and np.isfinite(low).all() and np.isfinite(high).all()):
        raise RecordError("channels without a finite range cannot be evened out; calibrate with data")
    spread = np.asarray(high, dtype=np.float64) - low
    if not spread.max() > 0:
        raise RecordError("all channels are constant; there is nothing to even out")
    return spread
