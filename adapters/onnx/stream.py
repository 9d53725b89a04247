"""Write a model as one ONNX file, one large tensor in memory at a time.

A protocol buffer library holds a message whole, and its bytes once more. What is written here is the same message: the
library makes all of it but the large initializers, which are appended to the graph's field one after the other.

Wire format: https://protobuf.dev/programming-guides/encoding; field numbers: onnx.proto.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import onnx
import onnx_ir as ir

from lampq.adapters.onnx.outline import varint

# Smaller tensors go through the library.
_LARGE_BYTES = 1 << 16

_GRAPH, _NODE, _INITIALIZER, _RAW_DATA = 7, 1, 5, 9


def write(model: ir.Model, path: Path) -> None:
    """Write a model, weights included; the model is left as it was, but for the order of its initializers."""
    proto, large = _without_large(model)
    graph = proto.graph.SerializeToString()
    proto.ClearField("graph")
    length = len(graph) + sum(map(entry_bytes, large))
    with path.open("wb") as file:
        file.write(proto.SerializeToString())
        file.write(_field(_GRAPH, length))
        file.write(graph)
        for value in large:
            head = _head(value)
            file.write(_field(_INITIALIZER, len(head) + _bytes(value)) + head)
            _copy(value, file)


def file_bytes(model: ir.Model) -> int:
    """Size of the file that `write` makes; large tensors are not looked at."""
    proto, large = _without_large(model)
    length: int = proto.graph.ByteSize() + sum(map(entry_bytes, large))
    proto.ClearField("graph")
    rest: int = proto.ByteSize()
    return rest + len(_field(_GRAPH, length)) + length


def entry_bytes(value: ir.Value) -> int:
    """Bytes that an initializer takes in a file: data, name, shape, lengths."""
    length = len(_head(value)) + _bytes(value)
    return len(_field(_INITIALIZER, length)) + length


def node_bytes(node: ir.Node) -> int:
    """Bytes that a node takes in a file."""
    length: int = ir.serde.serialize_node(node).ByteSize()
    return len(_field(_NODE, length)) + length


def _without_large(model: ir.Model) -> tuple[onnx.ModelProto, list[ir.Value]]:
    """The message of a model without its large initializers, and these."""
    initializers = model.graph.initializers
    large = {name: value for name, value in initializers.items() if _is_large(value)}
    for name in large:
        del initializers[name]
    try:
        return ir.to_proto(model), list(large.values())
    finally:
        for value in large.values():
            model.graph.register_initializer(value)


def _is_large(value: ir.Value) -> bool:
    tensor = value.const_value
    return tensor is not None and tensor.dtype != ir.DataType.STRING and tensor.nbytes >= _LARGE_BYTES


def _bytes(value: ir.Value) -> int:
    assert value.const_value is not None
    return int(value.const_value.nbytes)


def _head(value: ir.Value) -> bytes:
    """The tensor's message up to the bytes of its data."""
    tensor = value.const_value
    assert tensor is not None
    head = onnx.TensorProto(name=value.name, data_type=tensor.dtype.value, dims=tensor.shape.numpy())
    if tensor.doc_string:
        head.doc_string = tensor.doc_string
    for key, text in tensor.metadata_props.items():
        head.metadata_props.add(key=key, value=text)
    described: bytes = head.SerializeToString()
    return described + _field(_RAW_DATA, _bytes(value))


def _copy(value: ir.Value, file: BinaryIO) -> None:
    tensor = value.const_value
    assert tensor is not None
    file.write(tensor.tobytes())


def _field(number: int, length: int) -> bytes:
    """Tag and length of a field of bytes."""
    return varint(number << 3 | 2) + varint(length)
