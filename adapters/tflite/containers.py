"""How TFLite stores quantized weights: containers of 2, 4 and 8 bits, and which operators take which.

Measured with ai-edge-litert 2.3.0 (`benchmarks/tflite_operators.py`, results/tflite_operators.md) and tflite-runtime
2.14.0. Some operators multiply by codes themselves, which is fast: fully connected layers by all three containers,
convolutions by 4 and 8 bits (2 gives NaN without an error), depthwise and transposed ones by 8 (less is refused),
look-ups of rows by all. Everywhere else a DEQUANTIZE in front makes numbers of the codes when the model is loaded:
right for every operator and container, exactly, at the speed and in the memory of the float model. LSTMs, which have
a form for codes with one scale alone, compute garbage from scales per channel, so they get numbers.

The code -8 of 4 bits and -128 of 8 bits are computed wrongly by the runtime's own kernels, so codes keep to the
symmetric range; 2 bits keep all four codes, which every kernel computes rightly.
"""

from __future__ import annotations

import numpy as np

from lampq.adapters.tflite.flatbuffer import blob_bytes
from lampq.adapters.tflite.integers import BYTE, WIDE
from lampq.adapters.tflite.operands import CONV, DEPTHWISE, FULLY_CONNECTED, LOOKUP, MATMUL, TRANSPOSED
from lampq.adapters.tflite.weights import Weight
from lampq.core.values.errors import AdapterError

DENSE, BYTES = "bitplane", "int8"
"""Names of containers as plans have them: as few bits as the format allows, or one byte each."""

WIDTHS = (2, 4, 8)
TENSOR_TYPES = {2: "INT2", 4: "INT4", 8: "INT8"}

# The least versions of operators whose runtimes compute these right: older ones would run the file and give
# garbage. What is not here is not computed, or not rightly.
_HYBRID_VERSIONS = {
    (FULLY_CONNECTED, 8): 12, (FULLY_CONNECTED, 4): 12, (FULLY_CONNECTED, 2): 14,
    (CONV, 8): 5, (CONV, 4): 8, (DEPTHWISE, 8): 6, (TRANSPOSED, 8): 5,
    (LOOKUP, 8): 4, (LOOKUP, 4): 4, (LOOKUP, 2): 5,
}  # fmt: skip
_BYTE_VERSIONS = {
    (FULLY_CONNECTED, 8): 6, (FULLY_CONNECTED, 4): 10, (FULLY_CONNECTED, 2): 14,
    (CONV, 8): 3, (CONV, 4): 7, (DEPTHWISE, 8): 3,
}  # fmt: skip
# Depthwise convolutions of int16 inputs with 4 bits give garbage, convolutions with 2 are refused.
_WIDE_VERSIONS = {
    (FULLY_CONNECTED, 8): 11, (FULLY_CONNECTED, 4): 11, (FULLY_CONNECTED, 2): 14,
    (CONV, 8): 4, (CONV, 4): 8, (DEPTHWISE, 8): 5,
}  # fmt: skip
_VERSIONS = {None: _HYBRID_VERSIONS, BYTE: _BYTE_VERSIONS, WIDE: _WIDE_VERSIONS}
_DEQUANTIZE_VERSIONS = {8: 5, 4: 6, 2: 7}


def container_bits(weight: Weight, bits: int, container: str = DENSE) -> int:
    """Bits that a code of `bits` bits takes: the narrowest container that holds it.

    Raises:
        AdapterError: The container is unknown.
    """
    if container == BYTES:
        return 8
    if container != DENSE:
        raise AdapterError(f"container {container!r} is neither {DENSE} nor {BYTES}")
    return min(width for width in WIDTHS if width >= bits)


def multiplied(weight: Weight, width: int, inputs: int | None = None) -> bool:
    """Whether all operators of a weight compute with its codes themselves.

    Args:
        weight: The weight.
        width: Bits of its container.
        inputs: Width of the integers that they are fed, or None for float.
    """
    versions = _VERSIONS[inputs]
    return not weight.behind and all((_written(name), width) in versions for name in weight.op_names)


def offered(weight: Weight, bits: int, container: str) -> bool:
    """Whether a width is worth offering: in dense containers only those that fill theirs."""
    return 2 <= bits <= 8 and (container == BYTES or container_bits(weight, bits, container) == bits)


def payload_bytes(weight: Weight, bits: int, container: str) -> int:
    """Bytes that a weight's codes and scales take in the file, with their lengths and padding."""
    count = int(np.prod(weight.shape, dtype=np.int64))
    codes = -(-count * container_bits(weight, bits, container) // 8)
    return blob_bytes(codes) + blob_bytes(4 * weight.shape[weight.channel_axis])


def version(op_name: str, width: int, inputs: int | None) -> int:
    """Version of an operator that computes with codes of a container's width; inputs as in `multiplied`."""
    return _VERSIONS[inputs][_written(op_name), width]


def dequantize_version(width: int) -> int:
    """Version of the operator that makes numbers of codes with a scale per channel."""
    return _DEQUANTIZE_VERSIONS[width]


def _written(op_name: str) -> str:
    # Products with constants become linear layers.
    return FULLY_CONNECTED if op_name == MATMUL else op_name
