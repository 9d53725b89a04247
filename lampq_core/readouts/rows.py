"""An output of any shape as rows: one per sample and position, along its axis of classes, channels or coordinates."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lampq.core.values.errors import RecordError

# Entries worked on at a time; a block of float64 temporaries stays below 32 MiB.
_BLOCK = 1 << 22


def to_rows(array: np.ndarray, axis: int) -> np.ndarray:
    """An output (samples, ...) as (samples, positions, C), its `axis` last; a view where that is possible.

    An output of one axis is one number per sample.
    """
    if array.ndim < 2:
        return array.reshape(len(array), 1, 1)
    moved = np.moveaxis(array, axis, -1)
    return moved.reshape(len(array), -1, moved.shape[-1])


def from_rows(rows: np.ndarray, shape: tuple[int, ...], axis: int) -> np.ndarray:
    """Back from `to_rows` to an output of this shape.

    Rows of one sample, position or channel stand for all of them; where they do, nothing is copied.
    """
    if len(shape) < 2:
        return np.broadcast_to(rows, (*shape, 1, 1)).reshape(shape)
    if rows.shape[:2] == (1, 1):
        channels = [1] * len(shape)
        channels[axis] = rows.shape[2]
        return np.broadcast_to(rows.reshape(channels), shape)
    first, *others = (*np.delete(shape, axis), shape[axis])
    full = np.broadcast_to(rows, (first, int(np.prod(others[:-1])), others[-1]))
    return np.moveaxis(full.reshape(first, *others), -1, axis)


def position_weights(rows: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Share of each position in its sample, float64, shape (S, P, 1), or (1, 1, 1) where all count alike.

    Positions whose mask is zero have no share; a sample without any position has no damage.

    Args:
        rows: Shape (S, P, C).
        mask: Shape (S, P), or None.

    Raises:
        RecordError: The mask has another shape.
    """
    samples, positions, _ = rows.shape
    if mask is None:
        return np.full((1, 1, 1), 1 / positions)
    if mask.shape != (samples, positions):
        raise RecordError(f"a mask of shape {mask.shape} for {samples} samples of {positions} positions")
    counts = (mask != 0).astype(np.float64)
    return (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))[..., None]


def sample_blocks(array: np.ndarray) -> Iterator[slice]:
    """Slices of samples, small enough for a handful of float64 copies of each to fit in memory."""
    step = max(1, _BLOCK // max(1, array[0].size))
    for start in range(0, len(array), step):
        yield slice(start, min(start + step, len(array)))
