"""Budgets as people write them, turned into exact numbers."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from lampq.core.values.errors import BudgetError
from lampq.core.values.width import Width, parse_width

LARGEST = 2**63 - 1
"""The most that a limit may be: solvers take 64-bit integers."""

_SIZE_UNITS = {
    "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9,
    "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30,
}  # fmt: skip
_COUNT_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}
# Exponents are kept short: 1e999999999 as an exact fraction would fill the memory.
_NUMBER = r"\d{1,30}(?:\.\d{0,30})?(?:[eE][+-]?\d{1,2})?"


def parse_number(value: float | str, what: str) -> Fraction:
    """The exact value of a decimal number as written, >= 0.

    Args:
        value: A text, or a number, which means its shortest decimal form.
        what: What it is of, for the message.

    Raises:
        BudgetError: It is no number from 0 to 10^30, or longer than 30 digits.
    """
    text = str(value).strip()
    if not re.fullmatch(_NUMBER, text):
        raise BudgetError(f"{what} {text!r}: write a number that is not negative, for example 3.5")
    return Fraction(text)


def parse_size(text: str) -> int:
    """Bytes from `12MB` (10^6), `11.5MiB` (2^20) or a plain number of bytes, rounded down.

    Raises:
        BudgetError: The text is no size.

    >>> parse_size("1.5kB"), parse_size("2MiB")
    (1500, 2097152)
    """
    match = re.fullmatch(r"\s*(\d{1,30}(?:\.\d{1,30})?)\s*([a-zA-Z]*)\s*", text)
    unit = _SIZE_UNITS.get((match[2] or "b").lower()) if match else None
    if match is None or unit is None:
        raise BudgetError(
            f"size {text!r}: write a number with B, kB, MB, GB, KiB, MiB or GiB, for example 12MB"
        )
    return math.floor(Fraction(match[1]) * unit)


def parse_bops(text: str) -> int:
    """Bit operations from `12G` (10^9), `1.5T`, `3e9` or a plain number, rounded down.

    Raises:
        BudgetError: The text is no such count.

    >>> parse_bops("1.5G"), parse_bops("2e6 BOPs")
    (1500000000, 2000000)
    """
    match = re.fullmatch(rf"\s*({_NUMBER})\s*([kmgtpKMGTP]?)(?:[bB][oO][pP][sS]?)?\s*", text)
    if match is None:
        raise BudgetError(
            f"BOPs {text!r}: write a number of bit operations, with K, M, G, T or P where wanted, for example 12G"
        )
    return math.floor(Fraction(match[1]) * _COUNT_UNITS[match[2].lower()])


def average_bits_limit(average_bits: float | str, weights: int) -> int:
    """The most bits all weights together may take, so that the weighted average never exceeds `average_bits`.

    Args:
        average_bits: Budget in bits per weight, > 0. Decimals are taken as written (2.3 is 23/10).
        weights: Number of weights.

    Raises:
        BudgetError: It is no positive finite number.
    """
    exact = parse_number(average_bits, "average bits")
    if exact <= 0:
        raise BudgetError(f"average bits {average_bits}: must be above 0")
    return math.floor(exact * weights)


@dataclass(frozen=True, slots=True, kw_only=True)
class AtMost:
    """A limit on how many layers have a width.

    Attributes:
        layers: The most layers.
        width: The width.
        direction: `=` counts layers with this width, `+` those at least as wide, `-` those at most as wide.
    """

    layers: int
    width: Width
    direction: str

    def to_text(self) -> str:
        """`4 layers at 8 bits`, with `or more` or `or less`."""
        suffix = {"=": "", "+": " or more", "-": " or less"}[self.direction]
        return f"{self.layers} layers at {self.width.to_text()}{suffix}"


def parse_at_most(text: str) -> AtMost:
    """A count limit from `4@8` (4 layers at 8 bits), `4@6+` (at 6 bits or more) or `4@3-` (at 3 bits or less).

    Raises:
        BudgetError: The text is no such limit.

    >>> parse_at_most("4@6+").to_text()
    '4 layers at 6 bits or more'
    """
    match = re.fullmatch(r"\s*(\d{1,9})\s*@\s*([wa0-9]+)\s*([+-]?)\s*", text)
    if match is None:
        raise BudgetError(
            f"count limit {text!r}: write LAYERS@BITS, for example 4@8 (4 layers at 8 bits), 4@6+ (6 bits or more) "
            f"or 4@3- (3 bits or less)"
        )
    return AtMost(layers=int(match[1]), width=parse_width(match[2]), direction=match[3] or "=")
