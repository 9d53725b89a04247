"""Models of parts of a graph, with some weights turned into inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from lampq.adapters.onnx.flow import Flow
from lampq.adapters.onnx.sites import Site

# Constants from this size on are handed to the runtime as arrays: within the model each would be held twice.
_LARGE_BYTES = 4096
_NUMPY_TYPES = (
    ir.DataType.FLOAT,
    ir.DataType.FLOAT16,
    ir.DataType.DOUBLE,
    ir.DataType.INT8,
    ir.DataType.UINT8,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """A model of some nodes, its large constants apart.

    Attributes:
        model: Serialized model; its large constants refer to a file that does not exist.
        constants: Those constants by name.
    """

    model: bytes
    constants: Mapping[str, np.ndarray]


def weight_input(site: Site) -> str:
    """Name of the input that carries a site's weight, float32, in a model where it is open."""
    assert site.weight.name is not None
    return site.weight.name if site.dtype == ir.DataType.FLOAT else f"{site.weight.name}__float32"


def build(
    flow: Flow,
    nodes: Sequence[ir.Node],
    *,
    inputs: Iterable[ir.Value],
    outputs: Iterable[ir.Value],
    open_sites: Iterable[Site] = (),
    shapes_only: bool = False,
) -> Part:
    """A model of some nodes of a graph.

    Args:
        flow: The graph.
        nodes: Some of its nodes, in its order.
        inputs: Values computed elsewhere that they read.
        outputs: Values to give.
        open_sites: Sites whose weights become inputs (see `weight_input`) instead of constants.
        shapes_only: Give the shapes of the outputs (int64, named `<output>__shape`) in place of their values.

    Returns:
        The part: those of the nodes that the outputs need, the constants that these need, and the nodes that
        compute those.
    """
    opened = {site.weight: site for site in open_sites}
    outputs = tuple(outputs)
    apart: dict[str, np.ndarray] = {}
    graph = onnx.GraphProto(name="part")
    nodes = _needed(flow, nodes, outputs)
    constants, folded = _constants(flow, nodes)
    for value in constants:
        site = opened.get(value)
        if site is None:
            graph.initializer.append(_initializer(value, apart))
            continue
        name = weight_input(site)
        graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, site.shape))
        if name != value.name:
            assert value.const_value is not None
            cast = onnx.helper.make_node("Cast", [name], [value.name or ""], to=value.const_value.dtype.value)
            graph.node.append(cast)
    for value in opened.keys() - set(constants):
        # What is fed has to be declared, whether it is needed or not.
        site = opened[value]
        graph.input.append(
            onnx.helper.make_tensor_value_info(weight_input(site), onnx.TensorProto.FLOAT, site.shape)
        )
    for value in inputs:
        graph.input.append(_info(value))
    for node in (*folded, *nodes):
        proto = ir.serde.serialize_node(node)
        # Traces and comments of the exporter outweigh all else.
        del proto.metadata_props[:]
        proto.ClearField("doc_string")
        graph.node.append(proto)
    for value in outputs:
        if shapes_only:
            name = f"{value.name}__shape"
            graph.node.append(onnx.helper.make_node("Shape", [value.name or ""], [name]))
            graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, None))
        else:
            graph.output.append(onnx.ValueInfoProto(name=value.name) if value.dtype is None else _info(value))
    model = onnx.ModelProto(ir_version=flow.model.ir_version, graph=graph)
    for domain, version in flow.model.opset_imports.items():
        model.opset_import.append(onnx.OperatorSetIdProto(domain=domain, version=version))
    return Part(model=model.SerializeToString(), constants=apart)


def _initializer(value: ir.Value, apart: dict[str, np.ndarray]) -> onnx.TensorProto:
    """A constant as part of the model, or put apart where the runtime can take it from an array."""
    tensor = value.const_value
    assert tensor is not None
    if tensor.nbytes < _LARGE_BYTES or tensor.dtype not in _NUMPY_TYPES:
        proto = ir.serde.serialize_tensor(tensor)
        proto.name = value.name or ""
        return proto
    proto = onnx.TensorProto(name=value.name, data_type=tensor.dtype.value, dims=tensor.shape.numpy())
    proto.data_location = onnx.TensorProto.EXTERNAL
    for key, text in (("location", "apart"), ("offset", "0"), ("length", str(tensor.nbytes))):
        proto.external_data.add(key=key, value=text)
    apart[proto.name] = tensor.numpy()
    return proto


def _info(value: ir.Value) -> onnx.ValueInfoProto:
    proto = onnx.ValueInfoProto(name=value.name)
    assert value.type is not None
    proto.type.CopyFrom(ir.serde.serialize_type(value.type))
    if value.shape is not None:
        for dim in value.shape.dims:
            entry = proto.type.tensor_type.shape.dim.add()
            if isinstance(dim, int):
                entry.dim_value = dim
            elif dim.value:
                entry.dim_param = str(dim.value)
        if not value.shape.dims:
            proto.type.tensor_type.shape.SetInParent()
    return proto


def _needed(flow: Flow, nodes: Sequence[ir.Node], outputs: Sequence[ir.Value]) -> list[ir.Node]:
    """Those of the nodes that the outputs depend on, in their order."""
    wanted, needed = set(outputs), []
    for node in reversed(nodes):
        if any(value in wanted for value in node.outputs):
            wanted.update(flow.reads[node])
            needed.append(node)
    return needed[::-1]


def _constants(flow: Flow, nodes: Sequence[ir.Node]) -> tuple[list[ir.Value], list[ir.Node]]:
    """Initializers that the nodes need, and nodes that compute constants from them, in graph order."""
    initializers: dict[ir.Value, None] = {}
    folded: set[ir.Node] = set()
    stack = [value for node in nodes for value in flow.reads[node]]
    while stack:
        value = stack.pop()
        if value in flow.active:
            continue
        producer = value.producer()
        if producer is None:
            if value.const_value is not None:
                initializers[value] = None
        elif producer not in folded:
            folded.add(producer)
            stack += flow.reads[producer]
    return list(initializers), [node for node in flow.model.graph if node in folded]
