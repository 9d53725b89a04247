"""Identity of a weight whatever its name, layout or storage type.

A fingerprint holds sums over all entries, so it does not see their order: a transposed or re-laid-out weight
has the same one. The sums add up, so three separate q, k, v weights match their fused form. Rounding to
float16 or bfloat16 moves them by less than the tolerance, because rounding errors average out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lampq.core.errors import RecordError

_VERSION = "s1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """Order-free sums of a weight's entries.

    Attributes:
        count: Number of entries.
        total: Sum of w.
        absolute: Sum of |w|.
        square: Sum of w^2.
        cube: Sum of w^3.
        fourth: Sum of w^4.
    """

    count: int
    total: float
    absolute: float
    square: float
    cube: float
    fourth: float

    @classmethod
    def from_array(cls, weight: np.ndarray) -> Fingerprint:
        """Fingerprint of an array of any shape and float type."""
        sums = np.zeros(5)
        flat = np.asarray(weight).reshape(-1) if weight.flags.c_contiguous else np.ravel(weight, order="K")
        # Blocks keep the temporaries in cache and the peak memory flat.
        for start in range(0, flat.size, 1 << 16):
            block = flat[start : start + (1 << 16)].astype(np.float64)
            square = block * block
            sums += (block.sum(), np.abs(block).sum(), square.sum(), square @ block, square @ square)
        return cls(
            count=int(flat.size),
            total=float(sums[0]),
            absolute=float(sums[1]),
            square=float(sums[2]),
            cube=float(sums[3]),
            fourth=float(sums[4]),
        )

    def __add__(self, other: Fingerprint) -> Fingerprint:
        """The fingerprint of both weights fused into one tensor."""
        return Fingerprint(
            count=self.count + other.count,
            total=self.total + other.total,
            absolute=self.absolute + other.absolute,
            square=self.square + other.square,
            cube=self.cube + other.cube,
            fourth=self.fourth + other.fourth,
        )

    def matches(self, other: Fingerprint, *, tolerance: float = 2e-4) -> bool:
        """Whether both can be of the same weight, up to storage rounding of relative size `tolerance`.

        Odd moments may cancel to nearly nothing, so each is compared on the scale of its absolute moment.
        """
        if self.count != other.count:
            return False
        cube_scale = (self.square * self.fourth) ** 0.5
        pairs = (
            (self.total, other.total, self.absolute),
            (self.absolute, other.absolute, self.absolute),
            (self.square, other.square, self.square),
            (self.cube, other.cube, cube_scale),
            (self.fourth, other.fourth, self.fourth),
        )
        return all(abs(a - b) <= tolerance * scale for a, b, scale in pairs)

    def to_text(self) -> str:
        """One line for a JSON file."""
        values = (self.total, self.absolute, self.square, self.cube, self.fourth)
        return ":".join([_VERSION, str(self.count), *(f"{v:.9e}" for v in values)])

    @classmethod
    def from_text(cls, text: str) -> Fingerprint:
        """The inverse of `to_text`, to nine digits.

        Raises:
            RecordError: The text is no fingerprint of this version.
        """
        parts = text.split(":")
        if len(parts) != 7 or parts[0] != _VERSION:
            raise RecordError(f"{text!r} is no fingerprint of version {_VERSION}")
        try:
            total, absolute, square, cube, fourth = (float(p) for p in parts[2:])
            count = int(parts[1])
        except ValueError as err:
            raise RecordError(f"malformed fingerprint {text!r}") from err
        return cls(count=count, total=total, absolute=absolute, square=square, cube=cube, fourth=fourth)
