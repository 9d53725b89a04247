"""Weights that a file makes of constants when it is loaded, as ONNX Runtime makes them.

What is needed of the graph is noted at once, and run when the weight is asked for: the graph may change meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from lampq.core.values.errors import AdapterError
from lampq.core.values.messages import reason

# Of the part of a graph that makes one weight.
_MOST_NODES = 64
# Of a packed weight, and of the identity it is multiplied with at a time.
_MOST_ROWS, _ROWS = 1 << 17, 256


def makers_of(value: ir.Value) -> set[ir.Node] | None:
    """All nodes that a value is computed by, or None where an input of the model is involved."""
    nodes: set[ir.Node] = set()
    waiting = [value]
    while waiting:
        value = waiting.pop()
        producer = value.producer()
        if producer is None:
            if value.const_value is None:
                return None
        elif producer not in nodes:
            nodes.add(producer)
            waiting += [v for v in producer.inputs if v is not None]
            if len(nodes) > _MOST_NODES:
                return None
    return nodes


def unpacked(
    path: Path, model: ir.Model, value: ir.Value, nodes: Sequence[ir.Node]
) -> Callable[[], np.ndarray]:
    """Gives a weight as the file computes with it.

    Args:
        path: The file, for messages.
        model: Its model.
        value: The weight.
        nodes: The nodes that make it, in graph order.
    """
    protos = [ir.serde.serialize_node(node) for node in nodes]
    constants = _constants(v for node in nodes for v in node.inputs)
    name = value.name or ""

    def run() -> np.ndarray:
        return np.asarray(_session(model, protos, constants, name).run(None, {})[0])

    return _named(run, f"{path}: the weight {name}")


def packed(path: Path, model: ir.Model, node: ir.Node) -> Callable[[], np.ndarray]:
    """Gives the weight of a MatMulNBits as (inputs, outputs): what the operator makes of an identity."""
    proto = ir.serde.serialize_node(node)
    proto.input[0] = "identity"
    # A bias is no part of the weight; without an accuracy level the product is computed in floats.
    del proto.input[5:]
    attributes = [a for a in proto.attribute if a.name != "accuracy_level"]
    del proto.attribute[:]
    proto.attribute.extend(attributes)
    constants = _constants(node.inputs[1:5])
    rows = node.attributes["K"].as_int()
    scales = constants.get(node.inputs[2].name or "") if node.inputs[2] is not None else None
    dtype = ir.DataType.FLOAT if scales is None else scales.dtype

    def run() -> np.ndarray:
        if not 0 < rows <= _MOST_ROWS:
            raise AdapterError(f"{rows} rows")
        data = onnx.helper.make_tensor_value_info("identity", dtype.value, [None, rows])
        session = _session(model, [proto], constants, proto.output[0], [data])
        starts = range(0, rows, _ROWS)
        eyes = (np.eye(min(_ROWS, rows - start), rows, start, dtype=dtype.numpy()) for start in starts)
        return np.concatenate([np.asarray(session.run(None, {"identity": eye})[0]) for eye in eyes])

    return _named(run, f"{path}: the weight {node.inputs[1].name if node.inputs[1] is not None else ''}")


def _named(run: Callable[[], np.ndarray], what: str) -> Callable[[], np.ndarray]:
    def guarded() -> np.ndarray:
        try:
            return run()
        # The runtime raises types of its own for whatever a damaged file makes it stumble over.
        except Exception as err:
            raise AdapterError(f"{what} cannot be unpacked: {reason(err)}") from err

    return guarded


def _constants(values: Iterable[ir.Value | None]) -> dict[str, ir.TensorProtocol]:
    return {v.name or "": v.const_value for v in values if v is not None and v.const_value is not None}


def _session(
    model: ir.Model,
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, ir.TensorProtocol],
    output: str,
    inputs: Sequence[onnx.ValueInfoProto] = (),
) -> onnxruntime.InferenceSession:
    """A few nodes of a model with constants, ready to run."""
    graph = onnx.helper.make_graph(
        nodes,
        "weight",
        inputs,
        [onnx.ValueInfoProto(name=output)],
        [_tensor(tensor, name) for name, tensor in constants.items()],
    )
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
    built = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version or 10)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        built.SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
        # A second attempt would be announced on standard output, which is the caller's.
        enable_fallback=0,
    )


def _tensor(tensor: ir.TensorProtocol, name: str) -> onnx.TensorProto:
    """A tensor with its data, which may lie beside the model."""
    return onnx.TensorProto(
        name=name, data_type=int(tensor.dtype), dims=list(tensor.shape.numpy()), raw_data=tensor.tobytes()
    )
