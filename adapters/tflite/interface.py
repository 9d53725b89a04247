"""What goes into a TFLite model and what comes out: one input, batch first, one row of logits per sample."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lampq.adapters.tflite.graph import DTYPES, Graph, Subgraph, label, text
from lampq.core.values.errors import AdapterError
from lampq.core.values.input_spec import InputSpec

_QUANTIZED = ("INT8", "UINT8", "INT16")
_ACCEPTED = ("FLOAT32", "INT32", "INT64", *_QUANTIZED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How a quantized input or output stands for numbers: value = scale * (code - zero_point)."""

    scale: float
    zero_point: int
    dtype: str

    def quantized(self, values: np.ndarray) -> np.ndarray:
        """Codes of an array."""
        limits = np.iinfo(self.dtype)
        codes = np.rint(values / np.float32(self.scale)) + self.zero_point
        return np.clip(codes, limits.min, limits.max).astype(self.dtype)

    def dequantized(self, codes: np.ndarray) -> np.ndarray:
        """Values of codes, float32."""
        return (codes.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """The interface of a model.

    Attributes:
        subgraph: Number of the subgraph that is run.
        input: Its input tensor.
        logits: The tensor that is read as logits: where the model ends in a softmax, what goes into it.
        native_batch: Samples the model runs at once as it is.
        spec: The input as the core describes it; its batch is None where the model declares any number.
        input_scale: How a quantized input stands for numbers, or None.
        output_scale: The same for the logits.
    """

    subgraph: int
    input: int
    logits: int
    native_batch: int
    spec: InputSpec
    input_scale: Scale | None
    output_scale: Scale | None


# Operators that compute something else at every run; damage could not be told from that.
_RANDOM = ("RANDOM_STANDARD_NORMAL", "RANDOM_UNIFORM", "MULTINOMIAL", "STABLEHLO_RNG_BIT_GENERATOR")


def find(graph: Graph, signature: str | None = None) -> Interface:
    """The interface of a model.

    Args:
        graph: The model.
        signature: Key of the signature to run; None takes `serving_default`, else the first.

    Raises:
        AdapterError: There is no such signature, the input or output is not of a kind that can be used, or the model
            draws random numbers.
    """
    subgraph = graph.subgraphs[_subgraph(graph, signature)]
    if len(subgraph.inputs) != 1:
        names = ", ".join(label(subgraph.tensors[i]) for i in subgraph.inputs[:4])
        raise AdapterError(
            f"the model has {len(subgraph.inputs)} inputs ({names}); only models with one are supported"
        )
    drawn = next((op.name for part in graph.subgraphs for op in part.ops if op.name in _RANDOM), None)
    if drawn is not None:
        raise AdapterError(f"the model is random: {drawn} draws random numbers; convert it without")
    source = subgraph.inputs[0]
    logits, shape = _logits(subgraph)
    spec, native = _input_spec(subgraph, source)
    # Where the batch is free, the stored shapes are of any batch the converter happened to see.
    if (shape[0] != native and spec.batch is not None) or sum(d != 1 for d in shape[1:]) > 1:
        raise AdapterError(
            f"output {label(subgraph.tensors[logits])} of shape {shape} is no row of logits per sample"
        )
    return Interface(
        subgraph=subgraph.index,
        input=source,
        logits=logits,
        native_batch=native,
        spec=spec,
        input_scale=_scale(subgraph, source),
        output_scale=_scale(subgraph, logits),
    )


def _subgraph(graph: Graph, signature: str | None) -> int:
    definitions = {text(d.signature_key): d.subgraph_index for d in graph.record.signature_defs or []}
    if signature is not None:
        if signature not in definitions:
            known = ", ".join(definitions) or "none"
            raise AdapterError(f"the model has no signature {signature!r}; it has {known}")
        return int(definitions[signature])
    return int(definitions.get("serving_default", next(iter(definitions.values()), 0)))


def _input_spec(subgraph: Subgraph, tensor: int) -> tuple[InputSpec, int]:
    record, shape, dtype = subgraph.tensors[tensor], subgraph.shape(tensor), subgraph.dtype(tensor)
    name = text(record.name) or "input"
    if dtype not in _ACCEPTED:
        raise AdapterError(
            f"the input {label(record)} is of type {dtype}; only {', '.join(_ACCEPTED)} are supported"
        )
    declared = shape if record.shape_signature is None else tuple(int(d) for d in record.shape_signature)
    if (
        not shape
        or len(declared) != len(shape)
        or any(d < 1 for d in declared[1:])
        or any(d < 1 for d in shape)
    ):
        raise AdapterError(
            f"the input {label(record)} has the dynamic shape {declared}; "
            f"export the model with a fixed input size"
        )
    dynamic = declared[0] < 1
    # A quantized input is fed with numbers: the scale belongs to the model.
    kind = "float32" if dtype in _QUANTIZED else DTYPES[dtype]
    return InputSpec(name=name, shape=(None if dynamic else shape[0], *shape[1:]), dtype=kind), shape[0]


def _logits(subgraph: Subgraph) -> tuple[int, tuple[int, ...]]:
    usable = [
        t for t in subgraph.outputs if subgraph.dtype(t) in ("FLOAT32", *_QUANTIZED) and subgraph.shape(t)
    ]
    usable.sort(key=lambda t: len(subgraph.shape(t)) != 2)
    if not usable:
        raise AdapterError("the model has no output of numbers")
    tensor = usable[0]
    producer = subgraph.producers.get(tensor)
    if producer is not None and producer.name == "DEQUANTIZE":
        before = subgraph.producers.get(producer.inputs[0])
        producer = before if before is not None and before.name == "SOFTMAX" else None
    if producer is not None and producer.name == "SOFTMAX" and producer.inputs[0] >= 0:
        options = producer.options
        if options is None or options.beta == 1:
            tensor = producer.inputs[0]
    return tensor, subgraph.shape(tensor)


def _scale(subgraph: Subgraph, tensor: int) -> Scale | None:
    dtype = subgraph.dtype(tensor)
    if dtype not in _QUANTIZED:
        return None
    quantization = subgraph.tensors[tensor].quantization
    scale = None if quantization is None else quantization.scale
    zero = None if quantization is None else quantization.zero_point
    if scale is None or zero is None or len(scale) != 1 or len(zero) != 1 or not math.isfinite(scale[0]):
        raise AdapterError(
            f"tensor {label(subgraph.tensors[tensor])} is {dtype} without one scale and zero point"
        )
    return Scale(scale=float(scale[0]), zero_point=int(zero[0]), dtype=DTYPES[dtype])
