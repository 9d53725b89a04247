"""A file that computes with codes as one that computes with the numbers that its weights stand for.

Operators that multiply codes by codes read numbers here, which DEQUANTIZE makes of their inputs, and QUANTIZE turns
theirs into codes again: activations stay on the grids that the file has for them, weights and biases are floats. So are
weights whose scales are of blocks, which runtimes multiply wrongly, or refuse.
"""

from __future__ import annotations

import numpy as np

from lampq.adapters.tflite.decoding import decoded, in_blocks
from lampq.adapters.tflite.edit import Draft, operator
from lampq.adapters.tflite.flatbuffer import Record
from lampq.adapters.tflite.graph import Graph, Op, Subgraph, label
from lampq.adapters.tflite.operands import EITHER, FULLY_CONNECTED, bias, operands
from lampq.adapters.tflite.places import CODED
from lampq.adapters.tflite.schema import schema
from lampq.core.values.errors import AdapterError

# Activations, and from which version on operators take and give them.
_DEQUANTIZE = {"UINT8": 1, "INT8": 2, "INT16": 3}
_QUANTIZE = {"UINT8": 1, "INT8": 1, "INT16": 2}


def as_floats(graph: Graph) -> bytes | None:
    """The file with the weights of such operators as floats; None where there are none.

    Raises:
        AdapterError: The scales of a weight or bias do not fit it.
    """
    floats = _Floats(Draft(graph))
    changed = [floats.convert(subgraph, op) for subgraph in graph.subgraphs for op in subgraph.ops]
    return floats.draft.content() if any(changed) else None


class _Floats:
    """Turns operators of a draft one by one; what two of them read is made a number once."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self._numbers: dict[tuple[int, int], int] = {}

    def convert(self, subgraph: Subgraph, op: Op) -> bool:
        """Let an operator compute with numbers, if it computes with codes; whether it did."""
        weights = _coded_weights(subgraph, op)
        fixed = [t for t in {*op.inputs, *op.outputs} if t >= 0 and _is_activation(subgraph, t)]
        blocks = any(in_blocks(subgraph.tensors[tensor]) for tensor in weights)
        if not weights or not (fixed or blocks):
            return False
        inputs = [self._input(subgraph, op, tensor, weights) for tensor in op.inputs]
        outputs = [self._output(subgraph, op, tensor) for tensor in op.outputs]
        self.draft.change(
            subgraph.index,
            op.index,
            inputs=np.array(inputs, dtype=np.int32),
            outputs=np.array(outputs, dtype=np.int32),
        )
        for tensor in {*op.inputs} - {*inputs, *subgraph.inputs, *subgraph.outputs}:
            if subgraph.constant(tensor) is not None:
                self.draft.discard(subgraph.index, tensor)
        return True

    def _input(self, subgraph: Subgraph, op: Op, tensor: int, weights: frozenset[int]) -> int:
        if tensor in weights:
            return self._constant(subgraph, tensor, decoded(subgraph, tensor))
        if tensor >= 0 and tensor == bias(op) and subgraph.dtype(tensor) in ("INT32", "INT64"):
            return self._constant(subgraph, tensor, _bias(subgraph, op, tensor))
        if tensor < 0 or not _is_activation(subgraph, tensor):
            return tensor
        key = (subgraph.index, tensor)
        if key not in self._numbers:
            number = self._numbers[key] = self._number(subgraph, tensor)
            code = self.draft.code("DEQUANTIZE", _DEQUANTIZE[subgraph.dtype(tensor)])
            step = operator(code, tensor, number, "DequantizeOptions")
            self.draft.surround(subgraph.index, op.index, before=[step])
        return self._numbers[key]

    def _output(self, subgraph: Subgraph, op: Op, tensor: int) -> int:
        if not _is_activation(subgraph, tensor):
            return tensor
        number = self._number(subgraph, tensor)
        code = self.draft.code("QUANTIZE", _QUANTIZE[subgraph.dtype(tensor)])
        step = operator(code, number, tensor, "QuantizeOptions")
        self.draft.surround(subgraph.index, op.index, after=[step])
        return number

    def _constant(self, subgraph: Subgraph, tensor: int, values: np.ndarray) -> int:
        key = (subgraph.index, tensor)
        if key not in self._numbers:
            self._numbers[key] = self._number(subgraph, tensor, self.draft.add_buffer(values))
        return self._numbers[key]

    def _number(self, subgraph: Subgraph, tensor: int, buffer: int = 0) -> int:
        """A float tensor of the same shape and name."""
        kind = schema().value("TensorType", "FLOAT32")
        record = subgraph.tensors[tensor].copy(type=kind, quantization=None, buffer=buffer, is_variable=False)
        return self.draft.add_tensor(subgraph.index, record)


def _coded_weights(subgraph: Subgraph, op: Op) -> frozenset[int]:
    """The constants that an operator multiplies, or looks up, as codes."""
    if op.name not in EITHER or (op.name == FULLY_CONNECTED and _is_shuffled(op)):
        return frozenset()
    slots = (operand.slot for operand in operands(op))
    tensors = (op.inputs[slot] for slot in slots if slot < len(op.inputs))
    return frozenset(t for t in tensors if t >= 0 and _is_coded(subgraph, t))


def _is_coded(subgraph: Subgraph, tensor: int) -> bool:
    record = subgraph.tensors[tensor]
    return (
        subgraph.dtype(tensor) in CODED
        and record.sparsity is None
        and subgraph.constant(tensor) is not None
        and (_scaled(record) or in_blocks(record))
    )


def _is_activation(subgraph: Subgraph, tensor: int) -> bool:
    record = subgraph.tensors[tensor]
    computed = subgraph.constant(tensor) is None
    return computed and subgraph.dtype(tensor) in _DEQUANTIZE and _scaled(record)


def _scaled(tensor: Record) -> bool:
    scale = None if tensor.quantization is None else tensor.quantization.scale
    return scale is not None and len(scale) > 0


def _is_shuffled(op: Op) -> bool:
    return op.options is not None and op.options.weights_format != 0


def _bias(subgraph: Subgraph, op: Op, tensor: int) -> np.ndarray:
    """The numbers of a bias, whose steps are those of the products.

    Raises:
        AdapterError: The steps do not fit it.
    """
    codes = np.asarray(subgraph.constant(tensor), dtype=np.float64)
    if _scaled(subgraph.tensors[tensor]):
        steps = subgraph.tensors[tensor].quantization.scale
    else:
        source, weight = (
            next((t for t in op.inputs if t >= 0 and test(subgraph, t)), tensor)
            for test in (_is_activation, _is_coded)
        )
        scales = [
            subgraph.tensors[t].quantization.scale for t in (source, weight) if _scaled(subgraph.tensors[t])
        ]
        steps = np.multiply(*scales) if len(scales) == 2 and len(scales[0]) == 1 else np.empty(0)
    if len(steps) not in (1, codes.size):
        raise AdapterError(
            f"{len(steps)} scales do not fit bias {label(subgraph.tensors[tensor])} of {codes.shape}"
        )
    return (codes.reshape(-1) * np.asarray(steps, dtype=np.float64)).astype(np.float32).reshape(codes.shape)
