"""Widths as people write them in pins, floors, ceilings and counts: `8`, `w8`, `a8`, `w8a8`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lampq.core.values.errors import BudgetError
from lampq.core.values.option import FLOAT_BITS, Option


@dataclass(frozen=True, slots=True, kw_only=True)
class Width:
    """A width of the weights, of the input, or of both; a part that is None is left open.

    Attributes:
        weight_bits: 1 to 8, or None.
        input_bits: 2 to 8, 32 for float, or None.
    """

    weight_bits: int | None = None
    input_bits: int | None = None

    def is_of(self, option: Option) -> bool:
        """Whether an option has exactly this width."""
        return self.is_floor_of(option) and self.is_ceiling_of(option)

    def is_floor_of(self, option: Option) -> bool:
        """Whether an option has at least this width."""
        return option.weight_bits >= (self.weight_bits or 0) and option.input_bits >= (self.input_bits or 0)

    def is_ceiling_of(self, option: Option) -> bool:
        """Whether an option has at most this width."""
        return option.weight_bits <= (self.weight_bits or FLOAT_BITS) and option.input_bits <= (
            self.input_bits or FLOAT_BITS
        )

    def to_text(self) -> str:
        """`8 bits` for weights alone, else `a8` or `w8a8`."""
        if self.input_bits is None:
            return f"{self.weight_bits} bits"
        return (f"w{self.weight_bits}" if self.weight_bits else "") + f"a{self.input_bits}"


def parse_width(text: str) -> Width:
    """A width from `8` or `w8` (weights), `a8` (input) or `w8a8` (both); `a32` is a float input.

    Raises:
        BudgetError: The text is no such width.

    >>> parse_width("8") == parse_width("w8"), parse_width("w4a8").to_text()
    (True, 'w4a8')
    """
    match = re.fullmatch(r"(?:w?([1-8]))?(?:a([2-8]|16|32))?", text.strip())
    if match is None or not any(match.groups()):
        raise BudgetError(
            f"width {text!r}: write weight bits from 1 to 8, or w4, a8 (the input), or w4a8 (both)"
        )
    return Width(
        weight_bits=int(match[1]) if match[1] else None, input_bits=int(match[2]) if match[2] else None
    )
