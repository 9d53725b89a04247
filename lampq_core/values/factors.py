"""What factors of low rank beside a weight take (`core.quantizing.low_rank` makes them)."""

from __future__ import annotations

from collections.abc import Sequence

FACTOR_BITS = 8
"""Width of the factors: half of it would undo a tenth of what they give, and they are small."""

_SCALE_BYTES = 4


def takes_rank(shape: Sequence[int], rank: int) -> bool:
    """Whether a weight of a shape can have factors of a rank: matrices can, up to their smaller side."""
    return rank == 0 or (len(shape) == 2 and 0 < rank <= min(shape))


def factor_bits(shape: Sequence[int], rank: int) -> int:
    """Bits of the codes of both factors.

    >>> factor_bits((128, 256), 4)
    12288
    """
    return rank * sum(shape) * FACTOR_BITS


def factor_bytes(shape: Sequence[int], rank: int) -> int:
    """Bytes of both factors: their codes, and a scale for every row of the inner and column of the outer one.

    >>> factor_bytes((128, 256), 4)
    1568
    """
    return factor_bits(shape, rank) // 8 + 2 * rank * _SCALE_BYTES
