"""Forms that quantized weights may have beside codes on a uniform grid: codebooks, factors of low rank, and so on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from lampq.core.values.errors import RecordError
from lampq.core.values.registry import Registry

Parts: TypeAlias = Mapping[str, np.ndarray]
"""What a weight is stored as: arrays by name."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WeightForm:
    """A form of quantized weights. Weights are rows here, one for each of C output channels, of N numbers.

    A plan names its form where others name their rounding (`rounding=NAME`). A format that keeps arrays by name can
    hold any form; the others refuse it.

    Attributes:
        name: What profiles, plans and files call it.
        encode: From rows, float32, shape (C, N), a width, and E[x x^T] of the layer's input, shape (N, N), or None, to
            what is stored.
        decode: The inverse: float32, shape (C, N).
        parts: From C, N and a width of 1 to 8 to the shape and type of every array that `encode` gives.
        uses_inputs: Whether `encode` is to be given the second moments, which need data.
    """

    name: str
    encode: Callable[[np.ndarray, int, np.ndarray | None], Parts]
    decode: Callable[[Parts], np.ndarray]
    parts: Callable[[int, int, int], Mapping[str, tuple[tuple[int, ...], str]]]
    uses_inputs: bool = False

    def __post_init__(self) -> None:
        if not self.name:
            raise RecordError("a form of weights needs a name")

    def payload_bytes(self, rows: int, columns: int, bits: int) -> int:
        """Bytes of all parts."""
        described = self.parts(rows, columns, bits).values()
        return sum(math.prod(shape) * np.dtype(kind).itemsize for shape, kind in described)


# None is of lampq: at equal bytes, none has been better than more bits. Those of packages are entry points.
WEIGHT_FORMS: Registry[WeightForm] = Registry(
    (), kind=WeightForm, what="rounding", group="lampq.forms", error=RecordError
)
