"""What the layers of a graph are called, and what their place in it says of their kind."""

from __future__ import annotations

from lampq.adapters.tflite.graph import Op, Subgraph, text
from lampq.adapters.tflite.names import module_path
from lampq.adapters.tflite.operands import CONV, FULLY_CONNECTED, MATMUL

# Operators between the graph's input and its first convolution, or its last layer and the output.
_SHAPE_ONLY = frozenset(
    (
        *("TRANSPOSE", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "PAD", "PADV2", "MIRROR_PAD", "CAST"),
        *("QUANTIZE", "DEQUANTIZE", "SOFTMAX", "LOG_SOFTMAX", "MUL", "SUB", "ADD"),
    )
)


def operator_name(subgraph: Subgraph, op: Op, tensor: int | None) -> str:
    """The module path of an operator with its weight, or what tells it from the others."""
    tensors = [*([] if tensor is None else [tensor]), *op.outputs]
    path = module_path(text(subgraph.tensors[i].name) for i in tensors)
    return path or f"{subgraph.name}.{op.name.lower().replace(' ', '_')}_{op.index}"


def attention_parts(names: list[str], shapes: list[tuple[int, ...]]) -> list[str]:
    """Names with the two weights of an nn.MultiheadAttention, which share a module, told apart."""
    by_name: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        by_name.setdefault(name, []).append(index)
    result = list(names)
    for name, members in by_name.items():
        fused = [i for i in members if len(shapes[i]) == 2 and shapes[i][0] == 3 * shapes[i][1]]
        square = [i for i in members if len(shapes[i]) == 2 and shapes[i][0] == shapes[i][1]]
        if len(fused) == len(square) == 1 and len(members) == 2:
            result[fused[0]], result[square[0]] = f"{name}.in_proj", f"{name}.out_proj"
    return result


def position(subgraph: Subgraph, index: int, stored: int) -> str | None:
    """The kind of a layer as its place tells it: the first cut into patches, or the last layer.

    Args:
        subgraph: The subgraph that is run.
        index: Number of the layer's operator.
        stored: Its weight.
    """
    op = subgraph.ops[index]
    if op.name == CONV:
        options, shape = op.options, subgraph.shape(stored)
        patches = options is not None and (options.stride_h, options.stride_w) == shape[1:3] != (1, 1)
        return "patch_embed" if patches and _reaches_input(subgraph, op.inputs[0]) else None
    if op.name in (FULLY_CONNECTED, MATMUL) and _reaches_output(subgraph, op.outputs[0]):
        return "head"
    return None


def _reaches_input(subgraph: Subgraph, tensor: int) -> bool:
    for _ in range(8):
        if tensor in subgraph.inputs:
            return True
        producer = subgraph.producers.get(tensor)
        if producer is None or producer.name not in _SHAPE_ONLY:
            return False
        tensor = producer.inputs[0]
    return False


def _reaches_output(subgraph: Subgraph, tensor: int) -> bool:
    for _ in range(8):
        if tensor in subgraph.outputs:
            return True
        consumers = subgraph.consumers.get(tensor, [])
        if len(consumers) != 1 or consumers[0][0].name not in _SHAPE_ONLY:
            return False
        tensor = consumers[0][0].outputs[0]
    return False
