"""Codes of 2, 4 and 8 bits as the bytes of a file and back."""

from __future__ import annotations

import numpy as np

from lampq.core.values import packing


def pack(integers: np.ndarray, width: int) -> np.ndarray:
    """Signed codes as the bytes of a container, the first code in the lowest bits; uint8, one row.

    >>> pack(np.array([1, -2, 3], np.int8), 4).tolist()
    [225, 3]
    """
    flat = np.ascontiguousarray(integers, dtype=np.int8).reshape(-1).view(np.uint8)
    if width == 8:
        return flat
    needed = -(-flat.size * width // 8)
    (plane,) = packing.pack(flat & np.uint8((1 << width) - 1), width)
    return plane[:needed]


def unpack(data: np.ndarray, width: int, count: int) -> np.ndarray:
    """The inverse of `pack`: int8, shape (count,)."""
    if width == 8:
        return data.view(np.int8)[:count]
    padded = np.zeros(packing.payload_bytes(count, width), dtype=np.uint8)
    padded[: data.size] = data
    codes = packing.unpack([padded], width, count)
    sign = np.uint8(1 << (width - 1))
    return ((codes ^ sign) - sign).view(np.int8)
