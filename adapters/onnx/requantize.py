"""Weights that a file holds quantized, as the floats that they stand for.

The part of the graph that makes a weight of constants is run by ONNX Runtime, as in `stored`, whenever the weight is
asked for; nothing is kept. Files of lampq, DequantizeLinear of constants, MatMulNBits and the operators of
`integer_operators` are understood.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir

from lampq.adapters.onnx import stored
from lampq.adapters.onnx.bits import read_bits
from lampq.adapters.onnx.container import Container
from lampq.adapters.onnx.flow import normalize, trace
from lampq.adapters.onnx.integer_operators import in_floats
from lampq.adapters.onnx.sites import dequantizes
from lampq.adapters.onnx.unpacking import makers_of, packed, unpacked

_NBITS = "MatMulNBits"


def parse(container: Container, *, requantize: bool) -> ir.Model:
    """A file's model, normalized and free to be changed.

    Args:
        container: The file.
        requantize: Whether weights that it holds quantized are to be floats.

    Raises:
        AdapterError: ONNX Runtime cannot unpack a weight.
    """
    model = normalize(container.parse())
    return dequantize(model, container.path) if requantize else model


def dequantize(model: ir.Model, path: Path) -> ir.Model:
    """Put float constants in the place of all weights that are unpacked from constants; changed in place.

    Args:
        model: A normalized model.
        path: Its file, for messages.

    Raises:
        AdapterError: ONNX Runtime cannot unpack a weight.
    """
    in_floats(model, functools.partial(_register, model))
    active, own = trace(model).active, read_bits(path)
    made: dict[ir.Value, ir.Value] = {}
    for node in list(model.graph.all_nodes()):
        if not any(value in active for value in node.outputs):
            continue
        if node.op_type == _NBITS:
            _unpack_product(model, path, node)
            continue
        for index, value in enumerate(node.inputs):
            if value is None or value in active:
                continue
            if value not in made and _is_unpacked(model, value):
                made[value] = _constant(model, path, node, value, own)
            if value in made:
                node.replace_input_with(index, made[value])
    _prune(model.graph)
    return model


def _is_unpacked(model: ir.Model, value: ir.Value) -> bool:
    """Whether a value is made of codes in the main graph when the file is loaded."""
    producer = value.producer()
    if producer is None or producer.graph is not model.graph or not dequantizes(producer):
        return False
    return bool(makers_of(value))


def _constant(
    model: ir.Model, path: Path, node: ir.Node, value: ir.Value, own: dict[str, tuple[int, str]]
) -> ir.Value:
    """A new initializer that holds what a value is computed as."""
    makers = makers_of(value) or set()
    ordered = [other for other in model.graph if other in makers]
    name, _, _ = stored.identity(node, value, ordered, own)
    return _register(model, name or value.name or node.op_type, unpacked(path, model, value, ordered))


def _unpack_product(model: ir.Model, path: Path, node: ir.Node) -> None:
    """A product with a packed weight as MatMul, and Add where it has a bias."""
    codes, graph = node.inputs[1], node.graph
    if codes is None or graph is None or (len(node.inputs) > 4 and node.inputs[4] is not None):
        return
    name, _, _ = stored.identity(node, codes, [], {})
    weight = _register(model, name, packed(path, model, node))
    product = ir.node("MatMul", [node.inputs[0], weight], name=node.name)
    nodes = [product]
    if len(node.inputs) > 5 and node.inputs[5] is not None:
        nodes.append(ir.node("Add", [product.outputs[0], node.inputs[5]]))
    ir.convenience.replace_nodes_and_values(graph, node, [node], nodes, node.outputs, nodes[-1].outputs)
    product.outputs[0].name = product.outputs[0].name or f"{weight.name}.product"


def _register(model: ir.Model, name: str, make: Callable[[], np.ndarray]) -> ir.Value:
    array = make()
    dtype = ir.DataType.from_numpy(array.dtype)
    full, number = f"{name}.weight", 1
    while full in model.graph.initializers:
        number += 1
        full = f"{name}.{number}.weight"
    tensor = ir.LazyTensor(
        lambda: ir.Tensor(make(), dtype=dtype, name=full), dtype, ir.Shape(array.shape), name=full
    )
    value = ir.Value(name=full, const_value=tensor, type=ir.TensorType(dtype), shape=ir.Shape(array.shape))
    model.graph.register_initializer(value)
    return value


def _prune(graph: ir.Graph) -> None:
    """Remove nodes and initializers that nothing reads any more."""
    for node in reversed(list(graph)):
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
