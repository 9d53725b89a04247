"""Scales shared by blocks of a row: finer than one scale per output channel, at 4 bytes each."""

from __future__ import annotations

import numpy as np

from lampq.core.values.errors import RecordError

SMALLEST, LARGEST = 8, 4096


def check_block(block: int | None) -> int | None:
    """The block itself, if it can be one.

    Raises:
        RecordError: It is no whole number from 8 to 4,096.
    """
    if block is not None and (isinstance(block, bool) or not SMALLEST <= block <= LARGEST):
        raise RecordError(f"block {block}: a scale is shared by {SMALLEST} to {LARGEST} weights")
    return block


def row_block(shape: tuple[int, ...], channel_axis: int, block: int | None) -> int | None:
    """Weights of a layer that share a scale, or None where a whole row does.

    Matrices are cut into blocks along their inputs where those divide into equal ones. All else, convolutions
    among it, keeps one scale per output channel: the runtimes know no other.

    >>> row_block((64, 96), 0, 32), row_block((96, 64), 1, 32), row_block((64, 100), 0, 32)
    (32, 32, None)
    """
    if block is None or len(shape) != 2:
        return None
    inputs = shape[1 - channel_axis]
    return block if inputs > block and inputs % block == 0 else None


def scale_count(shape: tuple[int, ...], channel_axis: int, block: int | None) -> int:
    """Scales that a layer stores: one per output channel, or one per block of each.

    >>> scale_count((64, 96), 0, None), scale_count((64, 96), 0, 32)
    (64, 192)
    """
    size = row_block(shape, channel_axis, block)
    channels = int(shape[channel_axis])
    return channels if size is None else int(np.prod(shape, dtype=np.int64)) // size
