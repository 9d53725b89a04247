"""Quantized weights as initializers, and the standard nodes that make them int8 again when a model is loaded.

A plane of packed codes (see `lampq.core.values.packing`) is read by looking up each byte in a table whose rows hold
the integers, sign included, that the byte stands for: Cast, Gather, and BitwiseOr where there are several
fields. All inputs are initializers, so constant folding leaves an int8 initializer and nothing else.
The tables are computed by the graph too: in a small model their bytes would count.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from lampq.adapters.onnx.emit import Emitter
from lampq.core.values import packing
from lampq.core.values.packing import Field

# The first operator set with bitwise operators; before it, fields are added as int32 instead.
_BITWISE_OPSET = 18
PLANE_NAME = re.compile(r"(?P<layer>.+)\.(?P<width>[124])b(?P<low>[0-7])(\.\d+)?")
PART = re.compile(r"\.part\d+$")
"""What follows a layer's name where a weight is stored in parts."""
INT8_NAME = re.compile(r"(?P<layer>.+)\.int8(\.\d+)?")


class Unpacker:
    """Adds quantized weights to a model; tables are shared between layers.

    Args:
        emitter: Where nodes and initializers go.
    """

    def __init__(self, emitter: Emitter) -> None:
        self._emit = emitter
        self._bitwise = emitter.opset >= _BITWISE_OPSET

    def add(
        self,
        name: str,
        codes: Callable[[], np.ndarray],
        shape: tuple[int, ...],
        *,
        bits: int,
        step: int,
        offset: int,
        container: str = "bitplane",
    ) -> ir.Value:
        """The int8 tensor step * codes - offset.

        Args:
            name: Layer name, from which the initializers get theirs.
            codes: Gives uint8 in the shape the tensor is to have, each in 0 .. 2^bits - 1; asked for when an
                initializer is written or run, once for each.
            shape: That shape.
            bits: 1 to 8.
            step: Distance of neighbouring integers.
            offset: Minus the smallest integer.
            container: `bitplane` stores `bits` bits per code, `int8` the integers themselves.
        """
        if container == "int8" or bits == 8:
            return self._emit.lazy(
                lambda: (codes().astype(np.int16) * np.int16(step) - np.int16(offset)).astype(np.int8),
                ir.DataType.INT8,
                shape,
                f"{name}.int8",
            )
        fields = packing.fields(bits)
        axes = _row_axes(fields)
        parts = []
        for index, field in enumerate(fields):
            inner = len(axes) - index - 1
            stored = self._plane(f"{name}.{field.width}b{field.low}", codes, shape, bits, field, axes[:inner])
            places = self._emit.fold("Cast", [stored], to=ir.DataType.INT32)
            table = self._table(bits, step, offset, index, axes[inner:])
            parts.append(self._emit.fold("Gather", [table, places]))
        return self._reshape(self._join(parts), shape)

    def _plane(
        self,
        name: str,
        codes: Callable[[], np.ndarray],
        shape: tuple[int, ...],
        bits: int,
        field: Field,
        axes: tuple[int, ...],
    ) -> ir.Value:
        size = packing.payload_bytes(math.prod(shape), field.width)
        rows = (size // math.prod(axes), *axes)
        return self._emit.lazy(
            lambda: packing.pack_field(codes(), bits, field).reshape(rows), ir.DataType.UINT8, rows, name
        )

    def _join(self, parts: list[ir.Value]) -> ir.Value:
        """Fields to int8. They have no set bit in common, so `or` and `+` are the same."""
        joined = parts[0]
        for part in parts[1:]:
            joined = self._emit.fold("BitwiseOr" if self._bitwise else "Add", [joined, part])
        if len(parts) > 1 and not self._bitwise:
            joined = self._emit.fold("Cast", [joined], to=ir.DataType.INT8)
        return joined

    def _reshape(self, rows: ir.Value, shape: tuple[int, ...]) -> ir.Value:
        count = int(np.prod(shape, dtype=np.int64))
        if count % 8:
            rows = self._emit.fold("Reshape", [rows, self._sizes(-1)])
            rows = self._emit.fold("Slice", [rows, self._sizes(0), self._sizes(count)])
        return self._emit.fold("Reshape", [rows, self._sizes(*shape)])

    def _table(self, bits: int, step: int, offset: int, index: int, axes: Sequence[int]) -> ir.Value:
        """For each byte the integers of one field, shape (256, *axes).

        The highest field carries -offset as well. In two's complement that sets only bits that no lower field
        has: those above the code, and on the mid-rise grid (step 2) the lowest, which makes the numbers odd.
        """
        fields = packing.fields(bits)
        field, emit = fields[index], self._emit
        factor, below = step << field.low, offset if index == 0 else 0
        small = self._bitwise or len(fields) == 1

        def make() -> ir.Value:
            table = self._digit_table(field.width)
            if factor != 1:
                table = emit.fold("Mul", [table, emit.constant(np.int32(factor))])
            if below:
                table = emit.fold("Sub", [table, emit.constant(np.int32(below))])
            if small:
                table = emit.fold("Cast", [table], to=ir.DataType.INT8)
            return emit.fold("Reshape", [table, self._sizes(256, *axes)]) if len(axes) > 1 else table

        return emit.share(("table", field.width, factor, below, small, tuple(axes)), make)

    def _digit_table(self, width: int) -> ir.Value:
        """`packing.digit_table` as int32, computed from the 256 bytes."""
        emit = self._emit

        def make() -> ir.Value:
            every_byte = emit.constant(np.arange(256, dtype=np.uint8)[:, None])
            shifts = emit.constant(np.arange(0, 8, width, dtype=np.uint8))
            shifted = emit.fold("BitShift", [every_byte, shifts], direction="RIGHT")
            digits = emit.fold("Mod", [shifted, emit.constant(np.uint8(1 << width))])
            return emit.fold("Cast", [digits], to=ir.DataType.INT32)

        return emit.share(("digits", width), make)

    def _sizes(self, *values: int) -> ir.Value:
        return self._emit.constant(np.array(values, dtype=np.int64))


def _row_axes(fields: Sequence[Field]) -> tuple[int, ...]:
    """How the codes of one byte of the lowest field are split, so that all fields unpack to one shape.

    A byte holds 4-bit fields of 2 codes, 2-bit fields of 4 or 1-bit fields of 8. For 7 = 4 + 2 + 1
    bits the axes are (2, 2, 2): a byte of 1-bit fields fills all three, one of 2-bit fields the last two, one
    of 4-bit fields the last.

    >>> _row_axes(packing.fields(7)), _row_axes(packing.fields(5)), _row_axes(packing.fields(4))
    ((2, 2, 2), (4, 2), (2,))
    """
    per_byte = [field.per_byte for field in reversed(fields)]
    return (*(more // less for more, less in itertools.pairwise(per_byte)), per_byte[-1])
