"""Codes of b bits stored in exactly b bits each.

A code of b bits is cut into fields of 4, 2 and 1 bits, the binary digits of b: 3 = 2 + 1, 5 = 4 + 1, 7 = 4
+ 2 + 1. Each field of all codes forms one plane of bytes, in which 8 / width consecutive codes share a
byte, the first in its lowest bits. A byte of a plane then stands for a fixed short row of numbers, so
unpacking is one table lookup per byte: quick in NumPy, and in a model file two ordinary operators that a
runtime evaluates once when it loads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lampq.core.values.errors import RecordError


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """Some neighbouring bits of every code.

    Attributes:
        width: Number of bits: 1, 2, 4, or 8 (the whole code).
        low: Position of the lowest of them in the code.
    """

    width: int
    low: int

    @property
    def per_byte(self) -> int:
        """Codes that share one byte of the plane."""
        return 8 // self.width


def fields(bits: int) -> tuple[Field, ...]:
    """The fields of a code, highest first.

    Raises:
        RecordError: The width is not 1 to 8.

    >>> [(field.width, field.low) for field in fields(7)]
    [(4, 3), (2, 1), (1, 0)]
    """
    if not 1 <= bits <= 8:
        raise RecordError(f"{bits} bits: codes have 1 to 8")
    parts, low = [], bits
    for width in (8, 4, 2, 1):
        if bits & width:
            low -= width
            parts.append(Field(width=width, low=low))
    return tuple(parts)


def payload_bytes(count: int, bits: int) -> int:
    """Bytes that `count` codes take: bits * ceil(count / 8).

    Raises:
        RecordError: The count is negative or the width is not 1 to 8.

    >>> payload_bytes(1000, 3), payload_bytes(1001, 3)
    (375, 378)
    """
    if count < 0 or not 1 <= bits <= 8:
        raise RecordError(f"{count} codes of {bits} bits: the count is not negative and the width 1 to 8")
    return bits * -(-count // 8)


def pack(codes: np.ndarray, bits: int) -> tuple[np.ndarray, ...]:
    """Codes to planes, one per field.

    Args:
        codes: uint8, any shape, read in C order, each in 0 .. 2^bits - 1.
        bits: 1 to 8.

    Returns:
        A uint8 plane of width * ceil(n / 8) bytes for each of `fields(bits)`; spare places at the end hold 0.

    Raises:
        RecordError: The codes are not uint8, or one needs more than `bits` bits.

    >>> [plane.tolist() for plane in pack(np.array([5, 2, 7], np.uint8), 3)]
    [[54, 0], [5]]
    """
    return tuple(pack_field(codes, bits, field) for field in fields(bits))


def pack_field(codes: np.ndarray, bits: int, field: Field) -> np.ndarray:
    """The plane of one of `fields(bits)`; see `pack`.

    Raises:
        RecordError: The codes are not uint8, or one needs more than `bits` bits.
    """
    codes = np.asarray(codes)
    if codes.dtype != np.uint8:
        raise RecordError(f"codes are {codes.dtype}; expected uint8")
    if codes.size and int(codes.max()) >> bits:
        raise RecordError(f"code {int(codes.max())} needs more than {bits} bits")
    flat = codes.reshape(-1)
    if flat.size % 8:
        flat = np.concatenate([flat, np.zeros(-flat.size % 8, dtype=np.uint8)])
    if field.width == 8:
        return flat
    if field.width == 1:
        return np.packbits((flat >> field.low) & 1, bitorder="little")
    digits = (flat >> field.low) & ((1 << field.width) - 1)
    plane = digits[:: field.per_byte].copy()
    for place in range(1, field.per_byte):
        plane |= digits[place :: field.per_byte] << (place * field.width)
    return plane


def unpack(planes: Sequence[np.ndarray], bits: int, count: int) -> np.ndarray:
    """The inverse of `pack`: uint8 codes, shape (count,).

    Raises:
        RecordError: The planes are not those of `count` codes of `bits` bits.
    """
    parts = fields(bits)
    expected = [payload_bytes(count, field.width) for field in parts]
    if [plane.size for plane in planes] != expected or any(plane.dtype != np.uint8 for plane in planes):
        raise RecordError(f"{count} codes of {bits} bits need uint8 planes of {expected} bytes")
    codes = np.zeros(-(-count // 8) * 8, dtype=np.uint8)
    for plane, field in zip(planes, parts, strict=True):
        if field.width == 8:
            return plane.reshape(-1)[:count].copy()
        digits = _row_table(field)[plane.reshape(-1)].view(np.uint8)
        codes |= np.left_shift(digits, field.low, out=digits)
    return codes[:count]


def digit_table(width: int) -> np.ndarray:
    """What each byte of a plane stands for: uint8, shape (256, 8 / width), first code first."""
    shifts = np.arange(0, 8, width, dtype=np.uint8)
    return (np.arange(256, dtype=np.uint8)[:, None] >> shifts) & np.uint8((1 << width) - 1)


def _row_table(field: Field) -> np.ndarray:
    """`digit_table` with each row as one integer, so that a lookup moves a whole row at once."""
    return digit_table(field.width).view(f"u{field.per_byte}")[:, 0]
