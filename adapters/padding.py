"""Samples that only fill up a batch of fixed size, and what remains of an activation without them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

# Equal samples may differ by the order of sums; more than this, relative to the largest value, is another sample.
_SAME = 1e-3


def without_padding(array: np.ndarray, count: int, size: int) -> np.ndarray:
    """The part of an activation that belongs to real samples.

    Args:
        array: An activation of a batch whose last sample was repeated until there were `size`.
        count: Real samples.
        size: Samples in all.

    Returns:
        The same without the values of the repeated samples. Where samples stand in it is known by these being equal:
        along its first axis, alone or times something else (tokens, windows), or else along another. An array in
        which no axis holds samples is returned whole.
    """
    if count == size:
        return array
    for axis, split in _splits(array, size):
        last, padding = np.split(split, [count - 1, count], axis=axis)[1:]
        if np.allclose(padding, last, rtol=0, atol=_SAME * float(np.abs(last).max(initial=0.0))):
            real = np.take(split, range(count), axis=axis)
            return real.reshape(*array.shape[: axis - 1], -1, *array.shape[axis:])
    return array


def _splits(array: np.ndarray, size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Ways to take one axis apart into (outer, samples, inner), and the axis of the samples then."""
    for axis, length in enumerate(array.shape):
        each = length // size
        for outer in range(1, each + 1) if length % size == 0 else ():
            if each % outer == 0:
                shape = (*array.shape[:axis], outer, size, each // outer, *array.shape[axis + 1 :])
                yield axis + 1, array.reshape(shape)
