"""Budgets as people write them, turned into exact integers."""

from __future__ import annotations

import math
import re
from fractions import Fraction

from lampq.core.errors import BudgetError

_UNITS = {
    "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9,
    "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30,
}  # fmt: skip


def parse_size(text: str) -> int:
    """Bytes from `12MB` (10^6), `11.5MiB` (2^20) or a plain number of bytes, rounded down.

    Raises:
        BudgetError: The text is no size.

    >>> parse_size("1.5kB"), parse_size("2MiB")
    (1500, 2097152)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    unit = _UNITS.get((match[2] or "b").lower()) if match else None
    if match is None or unit is None:
        raise BudgetError(
            f"size {text!r}: write a number with B, kB, MB, GB, KiB, MiB or GiB, for example 12MB"
        )
    return math.floor(Fraction(match[1]) * unit)


def average_bits_limit(average_bits: float | str, weights: int) -> int:
    """The most bits all weights together may take, so that the weighted average never exceeds `average_bits`.

    Args:
        average_bits: Budget in bits per weight, > 0. Decimals are taken as written (2.3 is 23/10).
        weights: Number of weights.

    Raises:
        BudgetError: It is no positive finite number.
    """
    try:
        exact = Fraction(str(average_bits))
    except (ValueError, ZeroDivisionError) as err:
        raise BudgetError(f"average bits {average_bits!r}: write a number, for example 3.5") from err
    if exact <= 0:
        raise BudgetError(f"average bits {average_bits}: must be above 0")
    return math.floor(exact * weights)
