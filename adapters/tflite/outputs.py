"""What comes out of a TFLite model: its outputs, and the inner tensors that are judged in place of some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lampq.adapters.tflite.flow import Flow
from lampq.adapters.tflite.graph import Op, Subgraph, text
from lampq.adapters.tflite.interface import Interface, Scale, dtype_of, scale_of, unique
from lampq.core.values.errors import AdapterError
from lampq.core.values.output_spec import OutputSpec

# Operators that only move numbers about, or write them another way.
_MOVING = frozenset(
    (
        *("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "CAST", "QUANTIZE", "DEQUANTIZE"),
        *("STRIDED_SLICE", "SLICE", "PAD", "PADV2", "CONCATENATION", "PACK", "UNPACK", "SPLIT", "SPLIT_V"),
    )
)
# Operators by their names in ONNX; the others are written in capitals and small letters.
_PRODUCERS = {
    "LOGISTIC": "Sigmoid", "SOFTMAX": "Softmax", "LOG_SOFTMAX": "LogSoftmax", "FULLY_CONNECTED": "Gemm",
    "CONV_2D": "Conv", "DEPTHWISE_CONV_2D": "Conv", "CONV_3D": "Conv", "TRANSPOSE_CONV": "ConvTranspose",
    "BATCH_MATMUL": "MatMul", "L2_NORMALIZATION": "LpNormalization", "RESIZE_BILINEAR": "Resize",
    "RESIZE_NEAREST_NEIGHBOR": "Resize", "PRELU": "PRelu", "RELU6": "Clip", "MEAN": "ReduceMean",
    "CONCATENATION": "Concat", "TOPK_V2": "TopK", "NON_MAX_SUPPRESSION_V4": "NonMaxSuppression",
    "NON_MAX_SUPPRESSION_V5": "NonMaxSuppression", "UNIDIRECTIONAL_SEQUENCE_LSTM": "LSTM",
    "BIDIRECTIONAL_SEQUENCE_LSTM": "LSTM",
}  # fmt: skip
_FUSED = {1: "Relu", 2: "Clip", 3: "Clip", 4: "Tanh"}
_ALONG_LAST = frozenset(("SOFTMAX", "LOG_SOFTMAX", "L2_NORMALIZATION"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A tensor that can be read as an output.

    Attributes:
        tensor: The tensor.
        spec: What is known of it.
        scale: How quantized codes stand for numbers, or None.
        whole: The tensor has no axis of samples: what one run gives is one sample.
        unfit: Why it cannot be judged, or empty.
    """

    tensor: int
    spec: OutputSpec
    scale: Scale | None
    whole: bool
    unfit: str = ""


class Outputs:
    """All that can be read of a model.

    Args:
        flow: Its main subgraph.
        interface: Its inputs, and the names of its outputs.

    Attributes:
        all: Its outputs, then the inner tensors that stand for outputs behind operators that choose.
    """

    def __init__(self, flow: Flow, interface: Interface) -> None:
        self._flow = flow
        self._interface = interface
        subgraph = flow.subgraph
        tensors = tuple(dict.fromkeys(subgraph.outputs))
        stands: dict[int, list[str]] = {}
        for tensor in tensors:
            if tensor in flow.moved and not flow.judgeable(tensor):
                for source in flow.last_numbers(tensor):
                    stands.setdefault(source, []).append(interface.names[tensor])
        inner = [tensor for tensor in stands if tensor not in tensors]
        names = unique((_name(subgraph, t) for t in inner), tuple(interface.names.values()))
        self._names: Mapping[int, str] = {**interface.names, **dict(zip(inner, names, strict=True))}
        self.all = tuple(self._output(t, tuple(stands.get(t, ()))) for t in (*tensors, *inner))

    def named(self, name: str) -> Output:
        """An output, or any inner tensor of numbers.

        Raises:
            AdapterError: Nothing that could be judged is so called; lists the outputs.
        """
        known = next((output for output in self.all if output.spec.name == name), None)
        if known is not None:
            return known
        subgraph = self._flow.subgraph
        computed = (t for op in subgraph.ops for t in op.outputs if text(subgraph.tensors[t].name) == name)
        tensor = next((t for t in computed if self._flow.is_number(t)), None)
        if tensor is None:
            listed = ", ".join(output.spec.name for output in self.all)
            raise AdapterError(
                f"no output or inner tensor of numbers is called {name!r}; the outputs are {listed}"
            )
        self._names = {**self._names, tensor: name}
        return self._output(tensor, ())

    def _output(self, tensor: int, stands_for: tuple[str, ...]) -> Output:
        subgraph = self._flow.subgraph
        shape, native = subgraph.shape(tensor), self._interface.native_batch
        # Where the batch is free, the stored shapes are of any batch the converter happened to see.
        whole = not shape or (native == 1 != shape[0] and not self._interface.free_batch)
        producer, axis = self._producer(tensor)
        dims = _free(subgraph, tensor)
        batch = None if self._interface.free_batch else native
        spec = OutputSpec(
            name=self._names[tensor],
            shape=(1, *dims) if whole else (batch, *dims[1:]),
            dtype=dtype_of(subgraph, tensor),
            producer=producer,
            axis=None if axis is None else axis + whole,
            stands_for=stands_for,
        )
        return Output(
            tensor=tensor,
            spec=spec,
            scale=scale_of(subgraph, tensor),
            whole=whole,
            unfit=self._unfit(tensor, whole=whole),
        )

    def _unfit(self, tensor: int, *, whole: bool) -> str:
        flow, shape = self._flow, self._flow.subgraph.shape(tensor)
        native = self._interface.native_batch
        if tensor in flow.moved and not flow.judgeable(tensor) and (culprit := flow.culprit(tensor)):
            return f"behind {culprit}, which gives the same until it jumps"
        if not flow.is_number(tensor):
            return f"holds {flow.subgraph.dtype(tensor)}, no numbers of a scale"
        if 0 in shape:
            return "is empty"
        if native > 1 and (whole or (not self._interface.free_batch and shape[0] != native)):
            return f"its first axis is not that of the {native} samples of a run"
        return ""

    def _producer(self, tensor: int) -> tuple[str, int | None]:
        """The operator that a tensor's numbers come from, and the axis along which it normalizes."""
        subgraph = self._flow.subgraph
        axes: list[int | None] = list(range(len(subgraph.shape(tensor))))
        for _ in range(len(subgraph.ops)):
            op = subgraph.producers.get(tensor)
            if op is None:
                return "", None
            if op.name not in _MOVING:
                return _onnx_name(op), self._axis(op, axes)
            sources = self._moving(op)
            if len({_onnx_name(p) for s in sources if (p := subgraph.producers.get(s))}) > 1:
                return _onnx_name(op), None
            if not sources:
                return "", None
            axes = _axes_before(subgraph, op, sources[0], tensor, axes)
            tensor = sources[0]
        return "", None

    def _moving(self, op: Op) -> Sequence[int]:
        return [t for t in op.inputs if t in self._flow.moved] or [t for t in op.inputs[:1] if t >= 0]

    @staticmethod
    def _axis(op: Op, axes: Sequence[int | None]) -> int | None:
        """Where the last axis of an operator's result lies in the output."""
        if op.name not in _ALONG_LAST or not axes:
            return None
        return axes[-1]


def _axes_before(
    subgraph: Subgraph, op: Op, source: int, result: int, axes: Sequence[int | None]
) -> list[int | None]:
    """For every axis of an operator's input its axis in the output, from the same for its result."""
    before, after = subgraph.shape(source), subgraph.shape(result)
    if op.name == "TRANSPOSE":
        order = subgraph.constant(op.inputs[1]) if len(op.inputs) > 1 and op.inputs[1] >= 0 else None
        places = list(range(len(before)))
        if order is None or sorted(order.reshape(-1).tolist()) != places or len(axes) != len(places):
            return [None] * len(before)
        return [axes[order.reshape(-1).tolist().index(old)] for old in places]
    if len(before) == len(after) and op.name not in ("RESHAPE", "PACK", "UNPACK"):
        return list(axes)
    return [_same_axis(before, after, old, axes) for old in range(len(before))]


def _same_axis(
    before: Sequence[int], after: Sequence[int], old: int, axes: Sequence[int | None]
) -> int | None:
    """The axis of a reshaped tensor that holds what one held before: as long, with as much behind it."""
    for new, length in enumerate(after):
        if length == before[old] and np.prod(after[new + 1 :]) == np.prod(before[old + 1 :]):
            return axes[new]
    return None


def _onnx_name(op: Op) -> str:
    options = op.options
    values = {} if options is None else options.values
    fused = _FUSED.get(int(values.get("fused_activation_function", 0) or 0))
    plain = op.name.removeprefix("CUSTOM ").title().replace("_", "")
    return fused or _PRODUCERS.get(op.name, plain)


def _free(subgraph: Subgraph, tensor: int) -> tuple[int | None, ...]:
    shape, signature = subgraph.shape(tensor), subgraph.tensors[tensor].shape_signature
    if signature is None or len(signature) != len(shape):
        return shape
    return tuple(None if int(d) < 1 else int(d) for d in signature)


def _name(subgraph: Subgraph, tensor: int) -> str:
    return text(subgraph.tensors[tensor].name) or f"tensor {tensor}"
