"""Where operators keep their weights, and which axis of them is the output channel."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """An input of an operator that takes a weight.

    Attributes:
        form: `linear`, `conv`, `conv_transpose` or `lookup`.
        channel_axis: Axis of the weight, as the operator sees it, with one entry per output channel.
        in_features: Weights that enter one output value.
        data: Index of the input that carries the activation.
        per_position: Entries per position in the tensor that is counted: the output of a convolution, else
            the activation. 0 where a weight takes part in no multiplication.
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
_RECURRENT = ("LSTM", "GRU", "RNN")


def places(node: ir.Node) -> tuple[int, ...]:
    """Indices of the inputs where the node may take a weight, the usual one first."""
    if node.op_type == "Einsum" and node.domain == "":
        return tuple(range(len(node.inputs)))
    found = _PLACES.get((node.domain, node.op_type), ())
    return tuple(i for i in found if i < len(node.inputs) and node.inputs[i] is not None)


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
        if len(shape) != 2:
            return f"a {op} weight of {len(shape)} axes"
        turned = _flag(node, "transB" if index == 1 else "transA")
        other = _flag(node, "transA" if index == 1 else "transB")
        # Y = A B: columns of B are channels, rows of A are.
        axis = (0 if turned else 1) if index == 1 else (1 if turned else 0)
        contraction = (-2 if other else -1) if index == 1 else (-1 if other else -2)
        return _linear(axis, shape[1 - axis], 1 - index, contraction)
    if op in ("Conv", "FusedConv"):
        if len(shape) < 3:
            return f"a {op} weight of {len(shape)} axes"
        return Slot(
            form="conv", channel_axis=0, in_features=_product(shape[1:]), data=0, per_position=shape[0]
        )
    if op == "ConvTranspose":
        if _integer(node, "group", 1) != 1:
            return "a ConvTranspose with groups: its channels have no axis of their own"
        features = _product((shape[0], *shape[2:]))
        return Slot(
            form="conv_transpose", channel_axis=1, in_features=features, data=0, per_position=shape[0]
        )
    if op == "Attention" and len(shape) == 2:
        return _linear(1, shape[0], 0, -1)
    if op == "Gather":
        if len(shape) != 2 or _integer(node, "axis", 0) != 0:
            return "a table that is no embedding"
        return Slot(form="lookup", channel_axis=0, in_features=shape[1], data=1, per_position=0)
    if op in _RECURRENT:
        return f"a recurrent weight ({op}), which has no quantized form here"
    return f"a weight of {op}, which has no quantized form here"


def _match_matmul(node: ir.Node, index: int, shape: tuple[int, ...]) -> Slot | str:
    if len(shape) < 2 or any(d != 1 for d in shape[:-2]):
        return f"a batched matrix of shape {list(shape)}"
    if _flag(node, "transBatchA") or _flag(node, "transBatchB"):
        return "a FusedMatMul over batches"
    last, before = len(shape) - 1, len(shape) - 2
    turned = _flag(node, "transB" if index == 1 else "transA")
    other = _flag(node, "transA" if index == 1 else "transB")
    if index == 1:
        axis, summed = (before, last) if turned else (last, before)
        contraction = -2 if other else -1
    else:
        axis, summed = (last, before) if turned else (before, last)
        contraction = -1 if other else -2
    return _linear(axis, shape[summed], 1 - index, contraction)


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


def _product(values: tuple[int, ...]) -> int:
    result = 1
    for value in values:
        result *= value
    return result
