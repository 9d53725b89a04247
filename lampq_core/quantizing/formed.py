"""A weight in a form of its own (`core.values.weight_form`), as the measuring sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from lampq.core.quantizing.quantizer import as_rows
from lampq.core.values.errors import RecordError
from lampq.core.values.layer import Layer
from lampq.core.values.weight_form import Parts, WeightForm


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Formed:
    """A quantized weight in a form.

    Attributes:
        form: The form.
        parts: What is stored.
        bits: Width.
        squared_error: Sum of squared differences to the weight, per channel, float64, shape (C,).
        step: 1, as on a grid where neighbouring codes are one apart.
        offset: 0.
    """

    form: WeightForm
    parts: Parts
    bits: int
    squared_error: np.ndarray
    step: int = 1
    offset: int = 0

    def dequantized(self) -> np.ndarray:
        """The values that the parts stand for, float32, shape (C, N)."""
        return np.asarray(self.form.decode(self.parts), dtype=np.float32)


def formed(
    form: WeightForm, weight: np.ndarray, channel_axis: int, bits: int, moment: np.ndarray | None
) -> Formed:
    """A weight put into a form.

    Raises:
        RecordError: The form gives other arrays than it says, or values that are no numbers or of another shape.
    """
    rows = as_rows(weight, channel_axis)
    parts = {name: np.ascontiguousarray(array) for name, array in form.encode(rows, bits, moment).items()}
    result = formed_of(form, parts, rows.shape, bits)
    return replace(result, squared_error=np.square(result.dequantized() - rows, dtype=np.float64).sum(axis=1))


def formed_of(form: WeightForm, parts: Parts, shape: tuple[int, ...], bits: int) -> Formed:
    """Parts as they were stored, whose errors are not known: 0.

    Args:
        form: Their form.
        parts: Arrays by name.
        shape: C output channels, N weights of each.
        bits: Width.

    Raises:
        RecordError: There are other arrays than the form says, or they stand for values that are no numbers.
    """
    rows, columns = shape
    told = {name: (shape, np.dtype(kind)) for name, (shape, kind) in form.parts(rows, columns, bits).items()}
    if {name: (array.shape, array.dtype) for name, array in parts.items()} != told:
        raise RecordError(f"form {form.name}: arrays are other than it says they are at {bits} bits")
    values = np.asarray(form.decode(parts))
    if values.shape != (rows, columns) or not np.isfinite(values).all():
        raise RecordError(f"form {form.name}: arrays stand for no {rows} x {columns} finite numbers")
    return Formed(form=form, parts=parts, bits=bits, squared_error=np.zeros(rows))


def formed_bytes(form: WeightForm, layer: Layer, bits: int, container: str) -> int | None:
    """Stored bytes of a layer; None where codes are to be stored in a way of their own, or the width is none."""
    if container != "bitplane" or not 1 <= bits <= 8:
        return None
    return form.payload_bytes(layer.channels, layer.size // layer.channels, bits)


def blank_parts(form: WeightForm, rows: int, columns: int, bits: int) -> Mapping[str, np.ndarray]:
    """Arrays as a weight of that shape would have, all zero."""
    return {name: np.zeros(shape, kind) for name, (shape, kind) in form.parts(rows, columns, bits).items()}
