"""Activations as integers with fixed ranges: int8 with a zero point, int16 around zero (the 16x8 scheme).

Measured with ai-edge-litert 2.3.0 and tflite-runtime 2.14.0. Kernels of int16 want a zero point of 0 and biases of 64
bits. A linear layer without a bias sums their products in 32 bits and overflows from some hundred inputs on, and a
convolution without one is refused, so every layer gets one.
"""

from __future__ import annotations

import numpy as np

from lampq.adapters.tflite.flatbuffer import Record
from lampq.adapters.tflite.schema import schema
from lampq.core.values.activation_grid import ActivationGrid

BYTE, WIDE = 8, 16
"""Widths of activations."""
# Grids of 16 bits reach so many times as far as what was seen: a clipped value costs more than the bit.
_ROOM = 2.0

TYPES = {BYTE: "INT8", WIDE: "INT16"}
QUANTIZE_VERSIONS, DEQUANTIZE_VERSIONS = {BYTE: 1, WIDE: 2}, {BYTE: 2, WIDE: 3}
BIAS_TYPES = {BYTE: "INT32", WIDE: "INT64"}
# Kernels scale sums of up to 47 bits; a bias takes half of that.
_BIAS_DTYPES = {BYTE: (np.int32, 2**31 - 1), WIDE: (np.int64, 2**46)}


def covering(low: float, high: float, bits: int) -> ActivationGrid:
    """The grid of the format that covers low .. high and 0, with room on both sides where bits allow.

    >>> covering(-1.0, 3.0, 16).zero_point
    32768
    """
    if bits == BYTE:
        return ActivationGrid.from_range(low, high, bits)
    half = 1 << (bits - 1)
    reach = _ROOM * max(-low, high, 0.0)
    scale = max(float(np.float32(reach / (half - 1))), float(np.finfo(np.float32).tiny))
    return ActivationGrid(scale=scale, zero_point=half, bits=bits)


def fields(grid: ActivationGrid) -> dict[str, object]:
    """Fields of a tensor on a grid, whose codes start at 0 there and lie around 0 in the file."""
    parameters = Record(
        "QuantizationParameters",
        scale=np.array([grid.scale], dtype=np.float32),
        zero_point=np.array([grid.zero_point - (1 << (grid.bits - 1))], dtype=np.int64),
    )
    kind = schema().value("TensorType", TYPES[grid.bits])
    return {"type": kind, "quantization": parameters, "buffer": 0}


def bias_codes(values: np.ndarray, scale: np.ndarray, bits: int) -> np.ndarray:
    """A float bias in the steps of the products, in the type that goes with inputs of a width."""
    dtype, most = _BIAS_DTYPES[bits]
    codes: np.ndarray = np.clip(np.rint(values / scale), -most, most)
    return codes.astype(dtype)
