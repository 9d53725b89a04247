"""Codes that lie on disk and are read when they are asked for: those of a large model at all widths outweigh it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lampq.core.quantizing.quantizer import Quantized
from lampq.core.values.shelved_arrays import ShelvedArrays

_NONE = np.zeros((0, 0), dtype=np.uint8)


class ShelvedCodes:
    """Quantized weights by key, their codes on disk."""

    def __init__(self) -> None:
        self._codes = ShelvedArrays(memory_bytes=0)
        self._without: dict[Hashable, Quantized] = {}

    def put(self, key: Hashable, quantized: Quantized) -> None:
        """Lay the codes of a key down."""
        self._codes = self._codes.with_array(repr(key), quantized.codes)
        self._without[key] = replace(quantized, codes=_NONE)

    def get(self, key: Hashable) -> Quantized | None:
        """The quantized weight of a key, its codes read anew; None where there is none."""
        without = self._without.get(key)
        return None if without is None else replace(without, codes=self._codes[repr(key)])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CodesInOrder(Sequence[Quantized]):
    """Some of those codes as a sequence.

    Attributes:
        shelf: Where they lie.
        keys: Their keys, all of them there.
    """

    shelf: ShelvedCodes
    keys: tuple[Hashable, ...]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Quantized:  # type: ignore[override]
        """A quantized weight, read anew."""
        quantized = self.shelf.get(self.keys[index])
        assert quantized is not None  # What has a key here was laid down.
        return quantized
