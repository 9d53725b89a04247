"""The choices a layer has: how many bits its weights, and where wanted its input, get, and what stands beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lampq.core.values.errors import RecordError

FLOAT_BITS = 32
"""Width of an input that stays float."""
ACTIVATION_WIDTHS = (*range(2, 9), 16)
"""Widths that activations are rounded to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One choice. Options sort by weight width, then by input width, where float is the widest, then by rank.

    Attributes:
        weight_bits: 1 to 8.
        activation_bits: 2 to 8 or 16, or None: the layer's input stays float.
        rank: Rank of the factors that give back what rounding takes (`core.quantizing.low_rank`); 0: there are none.
    """

    weight_bits: int
    activation_bits: int | None = None
    rank: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.weight_bits <= 8:
            raise RecordError(f"{self.weight_bits} weight bits: choose 1 to 8")
        if self.activation_bits is not None and self.activation_bits not in ACTIVATION_WIDTHS:
            raise RecordError(f"{self.activation_bits} activation bits: choose 2 to 8, or 16")
        if self.rank < 0:
            raise RecordError(f"factors of rank {self.rank}: a rank is 0 or more")

    def __lt__(self, other: Option) -> bool:
        mine, others = ((o.weight_bits, o.input_bits, o.rank) for o in (self, other))
        return mine < others

    @property
    def weights(self) -> tuple[int, int]:
        """What the weights get: width and rank."""
        return self.weight_bits, self.rank

    @property
    def input_bits(self) -> int:
        """Bits of an input value: `activation_bits`, or 32 where it stays float."""
        return self.activation_bits or FLOAT_BITS

    def covers(self, other: Option) -> bool:
        """Whether weights and input are both at least as wide as the other's, and the rank is as high; an option covers
        itself.
        """
        return (
            self.weight_bits >= other.weight_bits
            and self.input_bits >= other.input_bits
            and self.rank >= other.rank
        )

    def to_text(self) -> str:
        """`w4`, `w4a8`, or with factors `w4r2`."""
        parts = (("w", self.weight_bits), ("r", self.rank), ("a", self.activation_bits))
        return "".join(f"{letter}{number}" for letter, number in parts if number)

    def to_json(self) -> dict[str, int | None]:
        """Plain values for a JSON file."""
        ranked = {"rank": self.rank} if self.rank else {}
        return {"weight_bits": self.weight_bits, "activation_bits": self.activation_bits, **ranked}


def all_options(
    bits: Sequence[int], act_bits: int | Sequence[int] | None = None, ranks: Sequence[int] = (0,)
) -> tuple[Option, ...]:
    """Every weight width with every input width and every rank, increasing.

    >>> [option.to_text() for option in all_options((4, 2), (8, 4))]
    ['w2a4', 'w2a8', 'w4a4', 'w4a8']
    >>> [option.to_text() for option in all_options((4, 2), ranks=(0, 1))]
    ['w2', 'w2r1', 'w4', 'w4r1']
    """
    inputs: Sequence[int | None] = (
        [act_bits] if act_bits is None or isinstance(act_bits, int) else sorted(set(act_bits))
    )
    return tuple(
        Option(weight_bits=weight_bits, activation_bits=activation_bits, rank=rank)
        for weight_bits in sorted(set(bits))
        for activation_bits in inputs
        for rank in sorted(set(ranks))
    )


def neighbours(options: Sequence[Option], reach: int = 1) -> np.ndarray:
    """Which options lie at most `reach` steps apart, a step being one width of weights or of inputs, or one rank, bool,
    (J, J).
    """
    places = []
    for widths in zip(*((o.weight_bits, o.input_bits, o.rank) for o in options), strict=True):
        places.append(np.searchsorted(sorted(set(widths)), widths))
    return sum(np.abs(place[:, None] - place) for place in places) <= reach


def parse_bits(text: str) -> tuple[int, ...]:
    """Widths from `2-8`, `4` or `2,4,8`, increasing.

    Raises:
        RecordError: The text names no width, or one outside 1 to 8.

    >>> parse_bits("2-4,8")
    (2, 3, 4, 8)
    """
    widths: set[int] = set()
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        try:
            first, last = int(low), int(high if dash else low)
        except ValueError as err:
            raise RecordError(f"bits {text!r}: write widths like 2-8 or 2,4,8") from err
        if not 1 <= first <= last <= 8:
            raise RecordError(f"bits {text!r}: widths run from 1 to 8")
        widths.update(range(first, last + 1))
    return tuple(sorted(widths))


def parse_activation_bits(text: str) -> tuple[int, ...]:
    """Widths as `parse_bits` takes them, and 16, increasing.

    Raises:
        RecordError: The text names no width, or one that activations do not have.

    >>> parse_activation_bits("4-6,16")
    (4, 5, 6, 16)
    """
    parts = [part.strip() for part in text.split(",")]
    narrow = [part for part in parts if part != "16"]
    return (*(parse_bits(",".join(narrow)) if narrow else ()), *([16] if len(narrow) < len(parts) else []))


def parse_ranks(text: str) -> tuple[int, ...]:
    """Ranks from `0,1,2,4`, increasing.

    Raises:
        RecordError: The text is no list of whole numbers.

    >>> parse_ranks("4,1")
    (1, 4)
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() for part in parts):
        raise RecordError(f"ranks {text!r}: write whole numbers like 0,1,2,4")
    return tuple(sorted({int(part) for part in parts}))
