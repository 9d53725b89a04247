"""The quantized weights of an ONNX file, whoever wrote it: what they are once unpacked, and their widths.

Files of lampq, DequantizeLinear of 8, 4 or 2 bits, and MatMulNBits are understood. Values are not decoded here: the
part of the graph that makes a weight from constants is run by ONNX Runtime itself, so that what is reported is what
the file computes with.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir

from lampq.adapters.kinds import infer_kind
from lampq.adapters.onnx import naming
from lampq.adapters.onnx.bits import read_bits
from lampq.adapters.onnx.container import Container
from lampq.adapters.onnx.unpack import INT8_NAME, PART, PLANE_NAME
from lampq.adapters.onnx.unpacking import makers_of, packed, unpacked
from lampq.core.values import packing
from lampq.core.values.errors import AdapterError, RecordError
from lampq.core.values.layer import Layer
from lampq.core.values.messages import reason
from lampq.core.values.stored import StoredWeight

# Operator -> the input its weight comes in by.
_WEIGHT_INPUT = {"MatMul": 1, "Gemm": 1, "Conv": 1, "ConvTranspose": 1, "Gather": 0}
_WIDTHS = {"INT8": 8, "UINT8": 8, "INT4": 4, "UINT4": 4, "INT2": 2, "UINT2": 2}
_NBITS = "MatMulNBits"
_SCALE_BYTES = 4


def stored(path: str | Path) -> tuple[StoredWeight, ...]:
    """The quantized weights of a file in graph order; each once, also where several operators share it.

    Raises:
        AdapterError: The file is damaged, or ONNX Runtime cannot unpack a weight.
    """
    path = Path(path)
    model = Container(path).parse()
    own = read_bits(path)
    try:
        return _found(path, model, own)
    except AdapterError:
        raise
    # The file decides what the graph library stumbles over: to the caller it is one fact.
    except Exception as err:
        raise AdapterError(f"{path} holds a graph that cannot be understood: {reason(err)}") from err


def _found(path: Path, model: ir.Model, own: dict[str, tuple[int, str]]) -> tuple[StoredWeight, ...]:
    weights: dict[str, StoredWeight] = {}
    parts: dict[str, dict[str, np.ndarray]] = {}
    for node, value, makers in _candidates(model):
        part, bits, container = identity(node, value, makers, own)
        # What lampq stored in parts (see `large`) is one weight.
        name = PART.sub("", part) if part in own else part
        pieces = parts.setdefault(name, {})
        if bits is None or part in pieces:
            continue
        make = packed(path, model, node) if node.op_type == _NBITS else unpacked(path, model, value, makers)
        pieces[part] = make().astype(np.float32, copy=False)
        whole = np.concatenate([*pieces.values()], axis=_axis(node)) if len(pieces) > 1 else pieces[part]
        weights[name] = _record(path, node, name, whole, bits, container, _own_scales(makers, name))
    return tuple(weights.values())


def _candidates(model: ir.Model) -> Iterator[tuple[ir.Node, ir.Value, list[ir.Node]]]:
    """Operators whose weight is made of constants by other nodes, or packed; with those nodes, in graph order."""
    for node in model.graph:
        if node.op_type == _NBITS and node.inputs[1] is not None:
            yield node, node.inputs[1], []
        elif node.op_type in _WEIGHT_INPUT and len(node.inputs) > _WEIGHT_INPUT[node.op_type]:
            value = node.inputs[_WEIGHT_INPUT[node.op_type]]
            makers = None if value is None or value.producer() is None else makers_of(value)
            if value is not None and makers:
                yield node, value, [other for other in model.graph if other in makers]


def identity(
    node: ir.Node, value: ir.Value, makers: list[ir.Node], own: dict[str, tuple[int, str]]
) -> tuple[str, int | None, str]:
    """Name, width (None where nothing is quantized) and container of a weight."""
    if node.op_type == _NBITS:
        bits = node.attributes["bits"].as_int() if "bits" in node.attributes else 4
        name = naming.node_path(node) or (node.name or value.name or _NBITS)
        return name.removesuffix(f"_Q{bits}"), bits, "bitplane"
    constants = [v for maker in makers for v in maker.inputs if v is not None and v.producer() is None]
    for constant in constants:
        match = PLANE_NAME.fullmatch(constant.name or "") or INT8_NAME.fullmatch(constant.name or "")
        if match and match["layer"] in own:
            width, container = own[match["layer"]]
            return match["layer"], width, container
    for maker in makers:
        codes = maker.inputs[0] if maker.op_type == "DequantizeLinear" else None
        if codes is not None and codes.const_value is not None:
            held = _WIDTHS.get(codes.const_value.dtype.name)
            name = naming.weight_path(node, codes)
            for suffix in ("_quantized", ".weight", "_weight"):
                name = name.removesuffix(suffix)
            return name, held, "int8" if held == 8 else "bitplane"
    return "", None, ""


def _own_scales(makers: list[ir.Node], name: str) -> int | None:
    """How many scales a weight of a file of lampq has, one for each channel or block; None in other files."""
    for value in (v for maker in makers for v in maker.inputs if v is not None):
        if (value.name or "").startswith(f"{name}.scale") and value.const_value is not None:
            return int(value.const_value.size)
    return None


def _record(
    path: Path, node: ir.Node, name: str, array: np.ndarray, bits: int, container: str, scales: int | None
) -> StoredWeight:
    axis = _axis(node) % array.ndim
    try:
        layer = Layer.from_weight(
            name, array, kind=infer_kind(name, convolution=node.op_type.startswith("Conv")), channel_axis=axis
        )
    except RecordError as err:
        raise AdapterError(f"{path}: {err}") from err
    codes = packing.payload_bytes(layer.size, bits) if container == "bitplane" else layer.size
    return StoredWeight(
        layer=layer,
        weight_bits=bits,
        payload_bytes=codes + _SCALE_BYTES * (layer.channels if scales is None else scales),
        container=container,
        activation_bits=_input_bits(node),
    )


def _axis(node: ir.Node) -> int:
    """Axis of a node's weight that holds the output channels: 0, or -1 for the last."""
    turned = node.op_type == "Gemm" and "transB" in node.attributes and node.attributes["transB"].as_int()
    return 0 if node.op_type in ("Conv", "Gather") or turned else -1


def _input_bits(node: ir.Node) -> int | None:
    """Width of the values that a node multiplies, where they come out of DequantizeLinear."""
    data = node.inputs[1 if node.op_type == "Gather" else 0]
    producer = None if data is None else data.producer()
    if producer is None or producer.op_type != "DequantizeLinear" or producer.inputs[0] is None:
        return None
    dtype = producer.inputs[0].dtype or (
        producer.inputs[2].dtype if len(producer.inputs) > 2 and producer.inputs[2] is not None else None
    )
    return _WIDTHS.get(dtype.name, 8) if dtype is not None else 8
