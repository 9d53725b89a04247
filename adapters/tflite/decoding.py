"""The numbers that a stored weight stands for, whatever its type."""

from __future__ import annotations

import numpy as np

from lampq.adapters.tflite.bitpacking import unpack
from lampq.adapters.tflite.flatbuffer import Record
from lampq.adapters.tflite.graph import BITS, Subgraph, label
from lampq.core.values.errors import AdapterError


def decoded(subgraph: Subgraph, tensor: int) -> np.ndarray:
    """The values of a constant, float32, C-contiguous, in its shape.

    Raises:
        AdapterError: It is quantized, and its scales are missing or do not fit it.
    """
    constant, dtype = subgraph.constant(tensor), subgraph.dtype(tensor)
    if constant is None or not (dtype.startswith("INT") or dtype == "UINT8"):
        return np.ascontiguousarray(constant, dtype=np.float32)
    shape, parameters = subgraph.shape(tensor), subgraph.tensors[tensor].quantization
    raw = np.ascontiguousarray(constant).reshape(-1).view(np.uint8)
    count = int(np.prod(shape, dtype=np.int64))
    codes = raw if dtype == "UINT8" else unpack(raw, BITS[dtype], count)
    codes = codes[:count].astype(np.float32).reshape(shape)
    if in_blocks(subgraph.tensors[tensor]):
        values: np.ndarray = codes * _block_scales(subgraph, tensor)
        return values
    scale = None if parameters is None else parameters.scale
    if scale is None or len(scale) == 0:
        raise AdapterError(f"weight {label(subgraph.tensors[tensor])} is quantized without a scale")
    along = [1] * len(shape)
    if len(scale) > 1:
        axis = int(parameters.quantized_dimension or 0)
        if not 0 <= axis < len(shape) or shape[axis] != len(scale):
            raise AdapterError(
                f"{len(scale)} scales do not fit weight {label(subgraph.tensors[tensor])} of shape {shape}"
            )
        along[axis] = len(scale)
    zero = parameters.zero_point
    offset = np.zeros(1) if zero is None or len(zero) not in (1, len(scale)) else zero
    spread = along if len(offset) > 1 else [1] * len(shape)
    steps = codes - np.asarray(offset, np.float32).reshape(spread)
    return np.ascontiguousarray(steps * np.asarray(scale, dtype=np.float32).reshape(along))


def in_blocks(tensor: Record) -> bool:
    """Whether the scales of a tensor are of blocks, and in a tensor of their own."""
    details = None if tensor.quantization is None else tensor.quantization.details
    return details is not None and details.table == "BlockwiseQuantization"


def _block_scales(subgraph: Subgraph, tensor: int) -> np.ndarray:
    """The scale of every number of a tensor in blocks along its last axis, float32, in its shape.

    Raises:
        AdapterError: The scales are missing, or do not fit the tensor.
    """
    name, shape = label(subgraph.tensors[tensor]), subgraph.shape(tensor)
    details = subgraph.tensors[tensor].quantization.details
    at, size = int(details.scales), int(details.block_size)
    scales = subgraph.constant(at) if 0 <= at < len(subgraph.tensors) else None
    if scales is None or subgraph.dtype(at) not in ("FLOAT16", "FLOAT32"):
        raise AdapterError(f"weight {name} is quantized in blocks without scales")
    if not shape or size < 1 or shape[-1] % size or scales.size * size != int(np.prod(shape, dtype=np.int64)):
        raise AdapterError(
            f"{scales.size} scales of blocks of {size} do not fit weight {name} of shape {shape}"
        )
    if not np.isfinite(scales).all():
        raise AdapterError(f"weight {name} is quantized in blocks with scales that are not finite")
    spread = np.repeat(scales.reshape(-1), size).reshape(shape)
    return np.asarray(spread, dtype=np.float32)
