"""Choices of how weights become codes, beside the width."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from lampq.core.quantizing.quantizer import Quantized
from lampq.core.values.blocks import check_block
from lampq.core.values.rounding_kinds import INPUTS, NEAREST

# Codes kept, so that search and writing need not choose those of the profile again.
_KEPT_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Coding:
    """Choices beside the width.

    Attributes:
        block: Weights of a row that share a scale (`core.values.blocks`), or None: one scale per output channel.
        moments: E[x x^T] of the layers' inputs by layer name (`core.measuring.moments`): codes are chosen for the least
            error of the output; layers without one, and all layers where this is None, round to the nearest level.
        kept: Codes chosen so far, which only save time.
    """

    block: int | None = None
    moments: Mapping[str, np.ndarray] | None = None
    kept: _Kept = field(default_factory=lambda: _Kept())

    def __post_init__(self) -> None:
        check_block(self.block)

    def anew(self) -> Coding:
        """The same without codes chosen so far: widths coded side by side may round otherwise than one alone."""
        return replace(self, kept=_Kept())

    @property
    def rounding(self) -> str:
        """`inputs` or `nearest`."""
        return NEAREST if self.moments is None else INPUTS


class _Kept:
    """Results by key, until they take too much memory."""

    def __init__(self) -> None:
        self._results: dict[tuple[object, ...], Quantized] = {}
        self._bytes = 0

    def get(self, key: tuple[object, ...]) -> Quantized | None:
        """The result of a key, where it is known."""
        return self._results.get(key)

    def put(self, key: tuple[object, ...], result: Quantized) -> bool:
        """Keep a result; false where there is no room for it."""
        if self._bytes + result.codes.nbytes > _KEPT_BYTES:
            return False
        self._results[key] = result
        self._bytes += result.codes.nbytes
        return True
