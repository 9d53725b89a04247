"""A picture of palette indices as PNG, in a few lines of the standard library."""

from __future__ import annotations

import struct
import zlib

import numpy as np


def encode(indices: np.ndarray, palette: np.ndarray) -> bytes:
    """Encode a picture.

    Args:
        indices: Palette entry of each pixel, uint8, shape (height, width).
        palette: Red, green, blue and opacity, uint8, shape (up to 256, 4).

    Returns:
        The file's bytes.
    """
    height, width = indices.shape
    # Each line starts with the number of its filter; 0 leaves it as it is.
    lines = np.concatenate([np.zeros((height, 1), np.uint8), indices.astype(np.uint8)], axis=1)
    chunks = [
        _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        _chunk(b"PLTE", palette[:, :3].tobytes()),
        _chunk(b"tRNS", palette[:, 3].tobytes()),
        _chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)),
        _chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
