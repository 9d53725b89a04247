"""How TFLite stores quantized weights: containers of 2, 4 and 8 bits, and which operators take which.

Measured with ai-edge-litert 2.3.0 and tflite-runtime 2.14.0: fully connected layers take all three;
convolutions take 4 and 8 (2 gives NaN without an error); depthwise convolutions take 8 (4 is refused unless
their inputs are quantized too). The code -8 of 4 bits and -128 of 8 bits are computed wrongly by the
runtime's own kernels, so codes keep to the symmetric range; 2 bits keep all four codes, which every kernel
computes rightly.
"""

from __future__ import annotations

import numpy as np

from lampq.adapters.tflite.flatbuffer import blob_bytes
from lampq.adapters.tflite.weights import CONV, DEPTHWISE, FULLY_CONNECTED, MATMUL, Weight
from lampq.core.values import packing
from lampq.core.values.errors import AdapterError

DENSE, BYTES = "bitplane", "int8"
"""Names of containers as plans have them: as few bits as the format allows, or one byte each."""

_CONTAINERS = {FULLY_CONNECTED: (2, 4, 8), MATMUL: (2, 4, 8), CONV: (4, 8), DEPTHWISE: (8,)}
TENSOR_TYPES = {2: "INT2", 4: "INT4", 8: "INT8"}

# The least versions of operators whose runtimes compute these right: older ones would run the file and give
# garbage.
_HYBRID_VERSIONS = {
    (FULLY_CONNECTED, 8): 12, (FULLY_CONNECTED, 4): 12, (FULLY_CONNECTED, 2): 14,
    (CONV, 8): 5, (CONV, 4): 8, (DEPTHWISE, 8): 6,
}  # fmt: skip
_STATIC_VERSIONS = {
    (FULLY_CONNECTED, 8): 6, (FULLY_CONNECTED, 4): 10, (FULLY_CONNECTED, 2): 14,
    (CONV, 8): 3, (CONV, 4): 7, (DEPTHWISE, 8): 3,
}  # fmt: skip


def container_bits(weight: Weight, bits: int, container: str = DENSE) -> int:
    """Bits that a code of `bits` bits takes: the narrowest container that all operators of the weight accept.

    Raises:
        AdapterError: The container is unknown.
    """
    if container == BYTES:
        return 8
    if container != DENSE:
        raise AdapterError(f"container {container!r} is neither {DENSE} nor {BYTES}")
    accepted = set.intersection(*(set(_CONTAINERS[name]) for name in weight.op_names))
    return min(width for width in accepted if width >= bits)


def offered(weight: Weight, bits: int, container: str) -> bool:
    """Whether a width is worth offering: in dense containers only those that fill theirs."""
    return 2 <= bits <= 8 and (container == BYTES or container_bits(weight, bits, container) == bits)


def payload_bytes(weight: Weight, bits: int, container: str) -> int:
    """Bytes that a weight's codes and scales take in the file, with their lengths and padding."""
    count = int(np.prod(weight.shape, dtype=np.int64))
    codes = -(-count * container_bits(weight, bits, container) // 8)
    return blob_bytes(codes) + blob_bytes(4 * weight.shape[weight.channel_axis])


def version(op_name: str, width: int, *, static: bool) -> int:
    """Version of an operator with quantized weights of a container's width."""
    return (_STATIC_VERSIONS if static else _HYBRID_VERSIONS)[op_name, width]


def pack(integers: np.ndarray, width: int) -> np.ndarray:
    """Signed codes as the bytes of a container, the first code in the lowest bits; uint8, one row.

    >>> pack(np.array([1, -2, 3], np.int8), 4).tolist()
    [225, 3]
    """
    flat = np.ascontiguousarray(integers, dtype=np.int8).reshape(-1).view(np.uint8)
    if width == 8:
        return flat
    needed = -(-flat.size * width // 8)
    (plane,) = packing.pack(flat & np.uint8((1 << width) - 1), width)
    return plane[:needed]


def unpack(data: np.ndarray, width: int, count: int) -> np.ndarray:
    """The inverse of `pack`: int8, shape (count,)."""
    if width == 8:
        return data.view(np.int8)[:count]
    padded = np.zeros(packing.payload_bytes(count, width), dtype=np.uint8)
    padded[: data.size] = data
    codes = packing.unpack([padded], width, count)
    sign = np.uint8(1 << (width - 1))
    return ((codes ^ sign) - sign).view(np.int8)
