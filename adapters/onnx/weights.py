"""Where operators keep their weights, and which axis of them is the output channel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

# Forms whose input is a tensor that rounding can be fitted to.
TAPPED = ("linear", "conv", "conv_transpose")
# Of a table that is only looked up, or a constant of any other use: below, scales outweigh what fewer bits save.
SMALLEST_TABLE = 4096
# Weights that share a scale, at least, where an operator does not say along which axis they belong together.
_FEWEST_PER_SCALE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """An input of an operator that takes a weight.

    Attributes:
        form: `linear`, `conv` and `conv_transpose`; `product` for any other one with a weight; `recurrent`;
            `lookup` for a table that rows are taken of; `other` for what is added or part of a formula.
        channel_axis: Axis of the weight, as the operator sees it, with one entry per output channel.
        in_features: Weights that enter one output value.
        data: Index of the input that carries the activation.
        per_position: Entries per position in the tensor that is counted: the output of a convolution, else
            the activation. 0 where a weight takes part in no multiplication, or in an unknown number.
        contraction: Axis of the activation (negative) that a linear form sums over.
    """

    form: str
    channel_axis: int
    in_features: int
    data: int
    per_position: int
    contraction: int = -1


# Inputs of each operator where a weight may stand.
_PLACES: dict[tuple[str, str], tuple[int, ...]] = {
    ("", "MatMul"): (1, 0),
    ("", "Gemm"): (1, 0),
    ("", "Conv"): (1,),
    ("", "ConvTranspose"): (1,),
    ("", "DeformConv"): (1,),
    ("", "Gather"): (0,),
    ("", "LSTM"): (1, 2),
    ("", "GRU"): (1, 2),
    ("", "RNN"): (1, 2),
    ("", "MatMulInteger"): (1, 0),
    ("", "ConvInteger"): (1,),
    ("", "QLinearMatMul"): (3, 0),
    ("", "QLinearConv"): (3,),
    ("com.microsoft", "FusedMatMul"): (1, 0),
    ("com.microsoft", "FusedGemm"): (1, 0),
    ("com.microsoft", "FusedConv"): (1,),
    ("com.microsoft", "Attention"): (1,),
    ("com.microsoft", "QAttention"): (1,),
    ("com.microsoft", "QGemm"): (3,),
    ("com.microsoft", "MatMulNBits"): (1,),
    ("com.microsoft", "DynamicQuantizeMatMul"): (1,),
    ("com.microsoft", "MatMulIntegerToFloat"): (1,),
}
RECURRENT = ("LSTM", "GRU", "RNN")


def places(node: ir.Node) -> tuple[int, ...]:
    """Indices of the inputs where the node may take a weight, the usual one first."""
    if node.op_type == "Einsum" and node.domain == "":
        return tuple(range(len(node.inputs)))
    indices = _PLACES.get((node.domain, node.op_type), ())
    return tuple(i for i in indices if i < len(node.inputs) and node.inputs[i] is not None)


def match(node: ir.Node, index: int, shape: tuple[int, ...]) -> Slot | str:
    """How the weight in input `index` of a node is used, or why it is left alone.

    Args:
        node: The operator.
        index: One of `places(node)`.
        shape: Shape of the weight as the operator sees it.
    """
    op = node.op_type
    if op in ("MatMul", "FusedMatMul"):
        return _match_matmul(node, index, shape)
    if op in ("Gemm", "FusedGemm"):
        return _match_gemm(node, index, shape)
    if op in ("Conv", "FusedConv", "DeformConv"):
        if len(shape) < 3:
            return f"a {op} weight of {len(shape)} axes"
        features = math.prod(shape[1:])
        form = "product" if op == "DeformConv" else "conv"
        return Slot(form=form, channel_axis=0, in_features=features, data=0, per_position=shape[0])
    if op == "ConvTranspose":
        # With groups, output channels have no axis of their own; what each input channel gives has.
        axis = 1 if _integer(node, "group", 1) == 1 else 0
        features = math.prod((shape[0], *shape[2:]))
        return Slot(
            form="conv_transpose" if axis else "product",
            channel_axis=axis,
            in_features=features,
            data=0,
            per_position=shape[0],
        )
    if op == "Attention" and len(shape) == 2:
        return _linear(1, shape[0], 0, -1)
    if op == "Gather":
        axis = _integer(node, "axis", 0) % len(shape)
        rest = math.prod(shape) // max(shape[axis], 1)
        return Slot(form="lookup", channel_axis=axis, in_features=rest, data=1, per_position=0)
    if op in RECURRENT:
        return _match_recurrent(node, shape)
    if op == "Einsum":
        return _match_einsum(node, index, shape)
    return f"a weight of {op}, which has no quantized form here"


def elsewhere(node: ir.Node, index: int, shape: tuple[int, ...], active: frozenset[ir.Value]) -> Slot:
    """The slot of a constant that an operator reads in any other way: a table that is added, part of a formula.

    Its scales run along the first axis of several entries, unless they would be too many.

    Args:
        node: The operator.
        index: The input that the constant comes in by.
        shape: Its shape.
        active: The values that are computed.
    """
    data = next((i for i, v in enumerate(node.inputs) if v in active and i != index), index)
    return Slot(
        form="other",
        channel_axis=_table_axis(shape),
        in_features=math.prod(shape) // shape[_table_axis(shape)],
        data=data,
        per_position=0,
    )


def _table_axis(shape: Sequence[int]) -> int:
    size = math.prod(shape)
    fitting = [axis for axis, length in enumerate(shape) if length * _FEWEST_PER_SCALE <= size]
    several = [axis for axis in fitting if shape[axis] > 1]
    return (several or fitting or [min(range(len(shape)), key=lambda axis: shape[axis])])[0]


def _match_matmul(node: ir.Node, index: int, shape: tuple[int, ...]) -> Slot | str:
    if len(shape) < 2:
        return f"a {node.op_type} weight of one axis"
    last, before = len(shape) - 1, len(shape) - 2
    turned = _flag(node, "transB" if index == 1 else "transA")
    other = _flag(node, "transA" if index == 1 else "transB")
    if index == 1:
        axis, summed = (before, last) if turned else (last, before)
        contraction = -2 if other else -1
    else:
        axis, summed = (last, before) if turned else (before, last)
        contraction = -1 if other else -2
    if any(d != 1 for d in shape[:-2]) or _flag(node, "transBatchA") or _flag(node, "transBatchB"):
        # A matrix for each of several positions or heads: one input is not multiplied by all of it.
        return Slot(
            form="product", channel_axis=axis, in_features=shape[summed], data=1 - index, per_position=0
        )
    return _linear(axis, shape[summed], 1 - index, contraction)


def _match_gemm(node: ir.Node, index: int, shape: tuple[int, ...]) -> Slot | str:
    if len(shape) != 2:
        return f"a {node.op_type} weight of {len(shape)} axes"
    turned = _flag(node, "transB" if index == 1 else "transA")
    other = _flag(node, "transA" if index == 1 else "transB")
    # Y = A B: columns of B are channels, rows of A are.
    axis = (0 if turned else 1) if index == 1 else (1 if turned else 0)
    contraction = (-2 if other else -1) if index == 1 else (-1 if other else -2)
    return _linear(axis, shape[1 - axis], 1 - index, contraction)


def _match_recurrent(node: ir.Node, shape: tuple[int, ...]) -> Slot | str:
    """Weights of all gates, (directions, gates * hidden, inputs): a channel is a row of a gate."""
    if len(shape) != 3:
        return f"a {node.op_type} weight of {len(shape)} axes"
    inner = node.inputs[1]
    sides = None if inner is None else inner.shape
    features = sides[2] if sides is not None and len(sides) == 3 else 0
    steps = features if isinstance(features, int) else 0
    return Slot(form="recurrent", channel_axis=1, in_features=shape[2], data=0, per_position=steps)


def _match_einsum(node: ir.Node, index: int, shape: tuple[int, ...]) -> Slot | str:
    """A factor of an Einsum: its channel is its longest axis that stays in the result and is no other factor's."""
    equation = node.attributes["equation"].as_string().replace(" ", "")
    factors, _, result = equation.partition("->")
    terms = factors.split(",")
    letters = terms[index]
    if "." in equation or len(letters) != len(shape) or not result:
        return Slot(
            form="product",
            channel_axis=_table_axis(shape),
            in_features=math.prod(shape) // shape[_table_axis(shape)],
            data=1 - min(index, 1),
            per_position=0,
        )
    others = "".join(term for i, term in enumerate(terms) if i != index)
    own = [axis for axis, c in enumerate(letters) if c in result and c not in others]
    axis = max(own, key=lambda a: shape[a]) if own else _table_axis(shape)
    summed = math.prod(length for length, c in zip(shape, letters, strict=True) if c not in result)
    return Slot(form="product", channel_axis=axis, in_features=summed, data=1 - min(index, 1), per_position=0)


def _linear(axis: int, in_features: int, data: int, contraction: int) -> Slot:
    return Slot(
        form="linear",
        channel_axis=axis,
        in_features=in_features,
        data=data,
        per_position=in_features,
        contraction=contraction,
    )


def _flag(node: ir.Node, name: str) -> bool:
    return bool(_integer(node, name, 0))


def _integer(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else int(attribute.value)
