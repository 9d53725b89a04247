"""What a TFLite model is fed: named inputs, samples first, whatever axes its tensors have."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lampq.adapters.tflite.graph import DTYPES, Graph, Subgraph, label, text
from lampq.core.values.errors import AdapterError
from lampq.core.values.input_spec import InputSpec

QUANTIZED = ("INT8", "UINT8", "INT16")
FLOATS = ("FLOAT32", "FLOAT16", "FLOAT64")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How a quantized input or output stands for numbers: value = scale * (code - zero_point)."""

    scale: float
    zero_point: int
    dtype: str

    def quantized(self, values: np.ndarray) -> np.ndarray:
        """Codes of an array."""
        limits = np.iinfo(self.dtype)
        unbounded = np.rint(values / np.float32(self.scale)) + self.zero_point
        codes: np.ndarray = np.clip(unbounded, limits.min, limits.max)
        return codes.astype(self.dtype)

    def dequantized(self, codes: np.ndarray) -> np.ndarray:
        """Values of codes, float32."""
        return (codes.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """An input of a model.

    Attributes:
        tensor: Its tensor.
        spec: The input as the core describes it; its batch is None where the model declares any number of samples.
        scale: How quantized codes stand for numbers, or None.
        whole: The tensor has no axis of samples: a run takes one sample, which is all of it.
        fallback: The shape it is stored with, samples first: what free axes are tried with.
    """

    tensor: int
    spec: InputSpec
    scale: Scale | None
    whole: bool
    fallback: tuple[int, ...]

    def feed(self, samples: np.ndarray) -> np.ndarray:
        """The samples of one run as the tensor takes them."""
        codes = samples if self.scale is None else self.scale.quantized(samples)
        return np.ascontiguousarray(codes[0] if self.whole else codes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """The interface of a model.

    Attributes:
        subgraph: Number of the subgraph that is run.
        inputs: Its inputs.
        native_batch: Samples the model runs at once as it is.
        names: Name of every input and output tensor, as the signature has them where there is one.
    """

    subgraph: int
    inputs: tuple[Port, ...]
    native_batch: int
    names: Mapping[int, str]

    @property
    def tensors(self) -> tuple[int, ...]:
        """Tensors of the inputs."""
        return tuple(port.tensor for port in self.inputs)

    @property
    def free_batch(self) -> bool:
        """Whether the model declares that it runs any number of samples at once."""
        return bool(self.inputs) and all(port.spec.batch is None for port in self.inputs)

    @property
    def free(self) -> bool:
        """Whether any axis of an input may have any length."""
        return any(None in port.spec.shape for port in self.inputs)


# Operators that compute something else at every run; damage could not be told from that.
_RANDOM = ("RANDOM_STANDARD_NORMAL", "RANDOM_UNIFORM", "MULTINOMIAL", "STABLEHLO_RNG_BIT_GENERATOR")


def find(graph: Graph, signature: str | None = None) -> Interface:
    """The interface of a model.

    Args:
        graph: The model.
        signature: Key of the signature to run; None takes `serving_default`, else the first.

    Raises:
        AdapterError: There is no such signature, or the model draws random numbers.
    """
    drawn = next((op.name for part in graph.subgraphs for op in part.ops if op.name in _RANDOM), None)
    if drawn is not None:
        raise AdapterError(f"the model is random: {drawn} draws random numbers; convert it without")
    number, names = _signature(graph, signature)
    subgraph = graph.subgraphs[number]
    tensors = tuple(dict.fromkeys(subgraph.inputs))
    every = (*tensors, *(t for t in subgraph.outputs if t not in tensors))
    labels = unique(names.get(t) or text(subgraph.tensors[t].name) or f"tensor {t}" for t in every)
    named = dict(zip(every, labels, strict=True))
    native, whole = _samples(subgraph, tensors)
    # One input of a fixed number of samples fixes it for all.
    free = all(t not in whole and _declared(subgraph, t)[0] < 1 for t in tensors)
    ports = [_port(subgraph, t, named[t], whole=t in whole, batch=None if free else native) for t in tensors]
    return Interface(subgraph=number, inputs=tuple(ports), native_batch=native, names=named)


def unique(names: Iterable[str], used: Sequence[str] = ()) -> list[str]:
    """Names with a number behind those that are there already.

    >>> unique(["x", "y", "x"])
    ['x', 'y', 'x#2']
    """
    result: list[str] = []
    for name in names:
        chosen, number = name, 2
        while chosen in result or chosen in used:
            chosen, number = f"{name}#{number}", number + 1
        result.append(chosen)
    return result


def scale_of(subgraph: Subgraph, tensor: int) -> Scale | None:
    """How the codes of a tensor stand for numbers, where it says so for the whole tensor."""
    dtype, quantization = subgraph.dtype(tensor), subgraph.tensors[tensor].quantization
    if dtype not in QUANTIZED or quantization is None:
        return None
    scale, zero = quantization.scale, quantization.zero_point
    if scale is None or zero is None or len(scale) != 1 or len(zero) != 1:
        return None
    if not math.isfinite(scale[0]) or scale[0] == 0:
        raise AdapterError(f"tensor {label(subgraph.tensors[tensor])} has a scale of {scale[0]}")
    return Scale(scale=float(scale[0]), zero_point=int(zero[0]), dtype=DTYPES[dtype])


def dtype_of(subgraph: Subgraph, tensor: int) -> str:
    """NumPy name of what a tensor is read and fed as: numbers where it is quantized."""
    if scale_of(subgraph, tensor) is not None:
        return "float32"
    kind = subgraph.dtype(tensor)
    return DTYPES.get(kind, "str" if kind == "STRING" else kind.lower())


def _signature(graph: Graph, key: str | None) -> tuple[int, dict[int, str]]:
    """Number of the subgraph to run, and the names that its signature gives to tensors."""
    definitions = {text(d.signature_key): d for d in graph.record.signature_defs or []}
    if key is not None and key not in definitions:
        raise AdapterError(f"the model has no signature {key!r}; it has {', '.join(definitions) or 'none'}")
    first = next(iter(definitions.values()), None)
    chosen = definitions.get("serving_default", first) if key is None else definitions[key]
    if chosen is None:
        return 0, {}
    entries = [*(chosen.inputs or []), *(chosen.outputs or [])]
    return int(chosen.subgraph_index), {int(entry.tensor_index): text(entry.name) for entry in entries}


def _declared(subgraph: Subgraph, tensor: int) -> tuple[int, ...]:
    """Shape of a tensor with -1 where any length is possible."""
    signature, shape = subgraph.tensors[tensor].shape_signature, subgraph.shape(tensor)
    if signature is None or len(signature) != len(shape):
        return shape
    return tuple(int(d) for d in signature)


def _samples(subgraph: Subgraph, tensors: Sequence[int]) -> tuple[int, frozenset[int]]:
    """Samples of a run, and the inputs without an axis for them.

    Where the first axes do not agree on a number, or no output has as many, one run is one sample: so it is with
    scalars, waveforms, and images beside a vector of settings.
    """
    ranked = [t for t in tensors if subgraph.shape(t)]
    sizes = {subgraph.shape(t)[0] for t in ranked}
    scalars = frozenset(tensors) - frozenset(ranked)
    if 1 in sizes or not sizes:
        waveform = len(tensors) == 1 and _is_waveform(subgraph, tensors[0], ranked)
        return 1, frozenset(tensors) if waveform else scalars | {
            t for t in ranked if subgraph.shape(t)[0] != 1
        }
    number = next(iter(sizes))
    results = {shape[0] for shape in map(subgraph.shape, subgraph.outputs) if shape}
    free = all(_declared(subgraph, t)[0] < 1 for t in ranked) and not _is_waveform(
        subgraph, tensors[0], ranked
    )
    if len(sizes) > 1 or scalars or (number not in results and not free):
        return 1, frozenset(tensors)
    return max(1, number), frozenset()


def _is_waveform(subgraph: Subgraph, tensor: int, ranked: Sequence[int]) -> bool:
    return tensor in ranked and len(subgraph.shape(tensor)) == 1 and _declared(subgraph, tensor)[0] < 1


def _port(subgraph: Subgraph, tensor: int, name: str, *, whole: bool, batch: int | None) -> Port:
    declared, shape = _declared(subgraph, tensor), subgraph.shape(tensor)
    dims = tuple(None if d < 1 else d for d in (declared if whole else declared[1:]))
    return Port(
        tensor=tensor,
        spec=InputSpec(name=name, shape=(1 if whole else batch, *dims), dtype=dtype_of(subgraph, tensor)),
        scale=scale_of(subgraph, tensor),
        whole=whole,
        fallback=tuple(max(1, d) for d in ((1, *shape) if whole else shape)),
    )
