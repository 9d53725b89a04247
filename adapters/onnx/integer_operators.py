"""Operators that compute with integers, written as the operators on floats that they stand for.

ONNX Runtime's quantizers write three kinds. `MatMulInteger` and `ConvInteger` take a value that is quantized while the
model runs, and the product is scaled afterwards: rounding that value is undone, which its range, taken from itself,
never cut off. `QLinearMatMul`, `QLinearConv` and `QGemm` take and give codes of fixed ranges, which may stand for a
Relu: these stay, and the float operator works between them. `DynamicQuantizeLSTM` rounds its inputs itself. Tables are
looked up as codes and dequantized afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from lampq.adapters.onnx import naming
from lampq.adapters.onnx.unpacking import makers_of

# Integer operator -> that on floats. Attributes are the same.
_DYNAMIC = {"MatMulInteger": "MatMul", "ConvInteger": "Conv"}
_STATIC = {"QLinearMatMul": "MatMul", "QLinearConv": "Conv", "QGemm": "Gemm"}
OPERATORS = frozenset((*_DYNAMIC, *_STATIC, "DynamicQuantizeLSTM"))
"""Operators that `in_floats` knows, weights given as constants."""

# Nodes behind an integer product without a bias: Cast and Mul.
_PLAIN = 2

Register = Callable[[str, Callable[[], np.ndarray]], ir.Value]
"""Puts a constant of a name into the model, made when it is asked for."""


def in_floats(model: ir.Model, register: Register) -> None:
    """Write integer operators with constant weights as float ones, changed in place; others stay as they are.

    Args:
        model: A normalized model. What nothing reads afterwards is left in it.
        register: Takes the weights.
    """
    for node in list(model.graph.all_nodes()):
        if node.op_type in _DYNAMIC:
            _dynamic(node, register)
        elif node.op_type in _STATIC:
            _static(node, register)
        elif node.op_type == "DynamicQuantizeLSTM":
            _recurrent(node, register)
        elif node.op_type == "Gather":
            _lookup(node, register)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Codes:
    """A constant that is stored as codes.

    Attributes:
        codes: Integers.
        scale: One, or one for each entry of `axis`.
        zero: Of the same shape as `scale`, or None for 0.
        axis: Axis of the channels.
    """

    codes: ir.TensorProtocol
    scale: ir.TensorProtocol
    zero: ir.TensorProtocol | None
    axis: int

    @classmethod
    def of(
        cls, codes: ir.Value | None, scale: ir.Value | None, zero: ir.Value | None, axis: int
    ) -> _Codes | None:
        """The constant, or None where any part of it is computed."""
        if codes is None or codes.const_value is None or scale is None or scale.const_value is None:
            return None
        if zero is not None and zero.const_value is None:
            return None
        zeros = None if zero is None else zero.const_value
        return cls(codes=codes.const_value, scale=scale.const_value, zero=zeros, axis=axis)

    def floats(self) -> np.ndarray:
        """What the codes stand for."""
        codes = self.codes.numpy().astype(np.float32)
        zero = 0 if self.zero is None else self._along(self.zero, codes.ndim).astype(np.float32)
        scale = self._along(self.scale, codes.ndim)
        values: np.ndarray = (codes - zero) * scale
        return values.astype(scale.dtype)

    def gates_first(self) -> np.ndarray:
        """What the codes of a recurrent weight stand for, as LSTM stores them."""
        return self.floats().swapaxes(1, 2)

    def _along(self, tensor: ir.TensorProtocol, rank: int) -> np.ndarray:
        array = tensor.numpy()
        if array.size == 1:
            return array.reshape(())
        if array.ndim > 1:
            # Of each direction and gate.
            return np.expand_dims(array, tuple(range(1, rank - array.ndim + 1)))
        sides = [1] * rank
        sides[self.axis] = -1
        return array.reshape(sides)


def _dynamic(node: ir.Node, register: Register) -> None:
    """A product with a value that is quantized where it is computed: Cast and Mul(scales) after it go with it."""
    data, codes = node.inputs[0], node.inputs[1]
    zero = node.inputs[3] if len(node.inputs) > 3 else None
    tail = _tail(node)
    scales = None if tail is None else _producer(_other(tail[-1], tail[-2].outputs[0]), "Mul")
    if data is None or codes is None or tail is None or scales is None:
        return
    factor = next((v for v in scales.inputs if v is not None and v.const_value is not None), None)
    step = _other(scales, factor)
    axis = -1 if node.op_type == "MatMulInteger" else 0
    weight = _Codes.of(codes, factor, zero, axis)
    if weight is None or step is None:
        return
    nodes, value = _unquantized(node, data, step)
    stored = register(_weight_name(node, codes), weight.floats)
    nodes.append(_float_node(node, _DYNAMIC[node.op_type], [value, stored]))
    if len(tail) > _PLAIN:
        nodes += _bias_of(_other(tail[0], node.outputs[0]), scales.outputs[0], nodes[-1].outputs[0])
    ir.convenience.replace_nodes_and_values(
        _graph(node), tail[-1], [node, *tail], nodes, tail[-1].outputs, nodes[-1].outputs
    )


def _tail(node: ir.Node) -> list[ir.Node] | None:
    """Cast and Mul after an integer product, and before them the Add of an integer bias, which old files have."""
    added = _only_reader(node, "Add")
    cast = _only_reader(node if added is None else added, "Cast")
    scaled = None if cast is None else _only_reader(cast, "Mul")
    if cast is None or scaled is None:
        return None
    return [*([] if added is None else [added]), cast, scaled]


def _bias_of(bias: ir.Value | None, scales: ir.Value, product: ir.Value) -> list[ir.Node]:
    """The product plus an integer bias that counts in steps of its scales."""
    cast = ir.node("Cast", [bias], {"to": int(ir.DataType.FLOAT)})
    scaled = ir.node("Mul", [cast.outputs[0], scales])
    return [cast, scaled, ir.node("Add", [product, scaled.outputs[0]])]


def _unquantized(node: ir.Node, data: ir.Value, step: ir.Value) -> tuple[list[ir.Node], ir.Value]:
    """The value that codes were made of, or nodes that make floats of them where they were moved meanwhile."""
    maker = _producer(data, "DynamicQuantizeLinear")
    if maker is not None and maker.inputs[0] is not None:
        return [], maker.inputs[0]
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    floats = ir.node("DequantizeLinear", [data, step, *([] if zero is None else [zero])])
    return [floats], floats.outputs[0]


def _static(node: ir.Node, register: Register) -> None:
    """A product of codes that gives codes: the same between DequantizeLinear and QuantizeLinear."""
    data, step = node.inputs[0], node.inputs[1]
    if data is None or step is None or data.const_value is not None:
        return
    bias, outgoing = _bias_and_output(node)
    unit, factor = (None if value is None else value.const_value for value in (step, node.inputs[4]))
    if bias is not None and (bias.const_value is None or unit is None or factor is None):
        return
    weight = _static_weight(node, register)
    if weight is None:
        return
    floats = ir.node("DequantizeLinear", [data, step, node.inputs[2]])
    inputs = [floats.outputs[0], weight]
    if bias is not None and unit is not None and factor is not None:
        steps = unit.numpy() * factor.numpy().reshape(-1) * node.attributes.get_float("alpha", 1.0)
        inputs.append(register(f"{bias.name}.floats", _in_steps(bias, steps)))
    nodes = [floats, _float_node(node, _STATIC[node.op_type], inputs)]
    if outgoing:
        nodes.append(ir.node("QuantizeLinear", [nodes[-1].outputs[0], *outgoing]))
    ir.convenience.replace_nodes_and_values(
        _graph(node), node, [node], nodes, node.outputs, nodes[-1].outputs
    )


def _static_weight(node: ir.Node, register: Register) -> ir.Value | None:
    """The weight of a static product: of constant codes, or of a constant that is quantized when the file loads."""
    codes = node.inputs[3]
    turned = node.op_type == "QGemm" and node.attributes.get_int("transB", 0) != 0
    weight = _Codes.of(
        codes, node.inputs[4], node.inputs[5], 0 if turned or node.op_type == "QLinearConv" else -1
    )
    if weight is not None and codes is not None:
        return register(_weight_name(node, codes), weight.floats)
    maker = _producer(codes, "QuantizeLinear")
    constant = None if maker is None else maker.inputs[0]
    return constant if constant is not None and makers_of(constant) else None


def _bias_and_output(node: ir.Node) -> tuple[ir.Value | None, list[ir.Value]]:
    """The bias of a static product, and scale and zero point of its output, where it has one."""
    at = {"QLinearConv": 8, "QGemm": 6}.get(node.op_type, len(node.inputs))
    bias = node.inputs[at] if len(node.inputs) > at else None
    first = 7 if node.op_type == "QGemm" else 6
    return bias, [value for value in node.inputs[first : first + 2] if value is not None]


def _in_steps(bias: ir.Value, steps: np.ndarray) -> Callable[[], np.ndarray]:
    held = bias.const_value
    assert held is not None  # Where it is computed the product stays as it is.
    return lambda: (held.numpy().astype(np.float32) * steps).astype(steps.dtype)


def _recurrent(node: ir.Node, register: Register) -> None:
    """An LSTM of codes, stored transposed, one scale for each direction or each gate."""
    weights = []
    for index, scale in ((1, 8), (2, 10)):
        codes = node.inputs[index]
        weight = _Codes.of(codes, node.inputs[scale], node.inputs[scale + 1], 0)
        if codes is None or weight is None:
            return
        name = _weight_name(node, codes)
        weights.append(register(name, weight.gates_first))
    floats = _float_node(node, "LSTM", [node.inputs[0], *weights, *node.inputs[3:8]], len(node.outputs))
    ir.convenience.replace_nodes_and_values(
        _graph(node), node, [node], [floats], node.outputs, floats.outputs
    )


def _lookup(node: ir.Node, register: Register) -> None:
    """Rows of a table of codes, dequantized after they are looked up."""
    codes, after = node.inputs[0], _only_reader(node, "DequantizeLinear")
    if codes is None or codes.const_value is None or after is None or after.inputs[0] is not node.outputs[0]:
        return
    weight = _Codes.of(codes, after.inputs[1], after.inputs[2] if len(after.inputs) > 2 else None, 0)
    if weight is None or weight.scale.size != 1:
        return
    floats = _float_node(node, "Gather", [register(_weight_name(node, codes), weight.floats), node.inputs[1]])
    ir.convenience.replace_nodes_and_values(
        _graph(node), node, [node, after], [floats], after.outputs, floats.outputs
    )


def _float_node(
    node: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], outputs: int | None = None
) -> ir.Node:
    """An operator with the attributes, the name and the origin of another."""
    return ir.Node(
        "",
        op_type,
        inputs,
        list(node.attributes.values()),
        num_outputs=outputs or 1,
        name=(node.name or "").removesuffix("_quant"),
        metadata_props=node.metadata_props,
    )


def _weight_name(node: ir.Node, codes: ir.Value) -> str:
    name = naming.weight_path(node, codes)
    for suffix in ("_quantized", "_quant", ".weight", "_weight"):
        name = name.removesuffix(suffix)
    return name


def _only_reader(node: ir.Node, op_type: str) -> ir.Node | None:
    """The one node that reads what another gives, if it is of a type."""
    output = node.outputs[0]
    readers = [user for user, _ in output.uses()]
    if len(readers) != 1 or readers[0].op_type != op_type or output.is_graph_output():
        return None
    return readers[0]


def _producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op_type else None


def _other(node: ir.Node, value: ir.Value | None) -> ir.Value | None:
    """The input of a node of two that is not this one."""
    return next((each for each in node.inputs if each is not None and each is not value), None)


def _graph(node: ir.Node) -> ir.Graph:
    assert node.graph is not None  # All nodes come out of one.
    return node.graph
