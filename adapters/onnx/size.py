"""How large a quantized model will be, before it is written."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lampq.adapters.onnx import large
from lampq.adapters.onnx.recipe import Recipe
from lampq.adapters.onnx.sites import Site
from lampq.adapters.onnx.variant import Varied
from lampq.adapters.onnx.write import build
from lampq.core.quantizing.quantizer import Quantized
from lampq.core.values import packing
from lampq.core.values.blocks import scale_count

_SCALE_BYTES = 4

# Tables of all widths on both grids, and the head of the file's note of the plan.
SHARED_BYTES = 3072

# Nodes, shapes and lengths of: a layer of whole integers, one of packed codes, each plane, a quantized input.
_WHOLE_BYTES, _PACKED_BYTES, _PLANE_BYTES, _INTEGER_BYTES = 130, 120, 115, 190

# The table of one field on the other grid than the one that is assumed.
_TABLE_BYTES = 140

# A product with a part of a weight, and what names its part.
_PART_BYTES = 250

# Tensors from here on are counted without being written out.
_LARGE_BYTES = 64


def layer_bytes(count: int, scales: int, bits: int, container: str) -> int:
    """Stored bytes of a layer: its codes and its float32 scales.

    Args:
        count: Number of weights.
        scales: Number of scales.
        bits: 1 to 8.
        container: `bitplane` or `int8`.
    """
    codes = packing.payload_bytes(count, bits) if container == "bitplane" and bits < 8 else count
    return codes + _SCALE_BYTES * scales


def file_bytes(model: Varied, recipe: Recipe) -> int:
    """Size of the file that `write` makes of a recipe, external data included; a few hundred bytes too high.

    Nothing is quantized: the graph is made with codes of zero, of which only the lengths count.

    Raises:
        PlanError: The recipe names a layer that the model has not.
        AdapterError: The model's operator set is too old and cannot be raised.
    """
    graph, _ = build(model, recipe, lambda site, bits: _blank(site, bits, recipe.block))
    total = sum(_lift(value) for inner in graph.graphs() for value in inner.initializers.values())
    packed = (
        [bits for bits in set(recipe.bits.values()) if 1 < bits < 8] if recipe.container == "bitplane" else []
    )
    other_grids = _TABLE_BYTES * sum(len(packing.fields(bits)) for bits in packed)
    return total + other_grids + ir.to_proto(graph).ByteSize()


def graph_bytes(site: Site, bits: int, container: str, *, quantized_input: bool) -> int:
    """Bytes, at most, that a quantized layer adds to the file beside `layer_bytes`: nodes, names, shapes.

    With `SHARED_BYTES` once, a budget kept in these terms is kept by the file.

    Args:
        site: The layer.
        bits: 1 to 8.
        container: `bitplane` or `int8`.
        quantized_input: Whether its input is quantized too.
    """
    name = len(site.name.encode())
    places = len(packing.fields(bits)) if container == "bitplane" and bits < 8 else 0
    # A name stands where a tensor is defined, where it is read, and once in the file's note of the plan.
    total = _WHOLE_BYTES + 5 * name + len(site.uses) * (_INTEGER_BYTES + 2 * name if quantized_input else 0)
    if places:
        total += _PACKED_BYTES - 2 * name + places * (_PLANE_BYTES + 2 * name)
    parts = 1 if quantized_input else len(large.cuts(site))
    if parts > 1:
        total = parts * (total + _PART_BYTES)
    # What the float weight took beside its data goes.
    return total - len((site.weight.name or "").encode())


def _blank(site: Site, bits: int, block: int | None) -> Quantized:
    """Codes of zero; on the mid-rise grid, as most weights of fewer than 8 bits."""
    rows = scale_count(site.shape, site.channel_axis, block)
    count = int(np.prod(site.shape, dtype=np.int64))
    return Quantized(
        codes=np.zeros((rows, count // rows), dtype=np.uint8),
        scale=np.ones(rows, dtype=np.float32),
        step=2 if bits < 8 else 1,
        offset=(1 << bits) - 1 if bits < 8 else 128,
        bits=bits,
        squared_error=np.zeros(rows),
    )


def _lift(value: ir.Value) -> int:
    """Empty an initializer; the bytes, at most, that this takes from the file."""
    tensor = value.const_value
    value.type = value.shape = None
    if tensor is None or tensor.nbytes < _LARGE_BYTES:
        return 0
    shape = [int(d) for d in tensor.shape.numpy()]
    value.const_value = ir.Tensor(np.zeros([0] * len(shape), tensor.dtype.numpy()), dtype=tensor.dtype)
    # The lengths of the tensor, of its data and of every axis are numbers of seven bits a byte.
    return tensor.nbytes + sum(_varint_bytes(d) - 1 for d in shape) + 2 * _varint_bytes(tensor.nbytes)


def _varint_bytes(number: int) -> int:
    return max(1, -(-int(number).bit_length() // 7))
