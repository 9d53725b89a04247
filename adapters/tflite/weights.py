"""The weights of a TFLite model that can be quantized, what they are called, and why the others cannot."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from lampq.adapters.kinds import infer_kind, override_kinds
from lampq.adapters.tflite.graph import Graph, Op, Subgraph, text
from lampq.adapters.tflite.names import module_path
from lampq.core.values.layer import worth_quantizing

FULLY_CONNECTED, CONV, DEPTHWISE, MATMUL = "FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "BATCH_MATMUL"
_WEIGHT_SLOT = 1
# Operators with weights that this program leaves alone, and where they read them.
_OTHERS = {
    "TRANSPOSE_CONV": 1, "CONV_3D": 1, "CONV_3D_TRANSPOSE": 1, "EMBEDDING_LOOKUP": 1, "GATHER": 0, "SVDF": 1,
    "RNN": 1, "LSTM": 1, "UNIDIRECTIONAL_SEQUENCE_LSTM": 1, "BIDIRECTIONAL_SEQUENCE_LSTM": 1,
    "UNIDIRECTIONAL_SEQUENCE_RNN": 1, "BIDIRECTIONAL_SEQUENCE_RNN": 1, "STABLEHLO_CONVOLUTION": 1,
    "STABLEHLO_DOT_GENERAL": 1,
}  # fmt: skip
_FLOATS = ("FLOAT32", "FLOAT16")
# Operators between the graph's input and its first convolution, or its last layer and the output.
_SHAPE_ONLY = frozenset(
    (
        *("TRANSPOSE", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "PAD", "PADV2", "MIRROR_PAD", "CAST"),
        *("QUANTIZE", "DEQUANTIZE", "SOFTMAX", "LOG_SOFTMAX", "MUL", "SUB", "ADD"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One place where a weight is used.

    Attributes:
        subgraph: Number of the subgraph.
        op: Number of the operator in it.
        op_name: FULLY_CONNECTED, CONV_2D, DEPTHWISE_CONV_2D or BATCH_MATMUL.
        tensor: The tensor the operator reads the weight from.
        stored: The constant tensor; another one where a DEQUANTIZE of float16 lies between.
    """

    subgraph: int
    op: int
    op_name: str
    tensor: int
    stored: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """A quantizable weight: one buffer, used in one or more places.

    Attributes:
        name: Unique name, a module path where the converter kept one.
        kind: Kind of the layer.
        buffer: Number of its buffer.
        shape: Its shape as stored.
        channel_axis: Axis of the output channels.
        dtype: FLOAT32 or FLOAT16.
        sites: Where it is used, in the order of execution.
        shares: Names of the further places.
    """

    name: str
    kind: str
    buffer: int
    shape: tuple[int, ...]
    channel_axis: int
    dtype: str
    sites: tuple[Site, ...]
    shares: tuple[str, ...] = ()

    @property
    def op_names(self) -> frozenset[str]:
        """The kinds of operators that use it."""
        return frozenset(site.op_name for site in self.sites)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """All weights of a model.

    Attributes:
        weights: Those that can be quantized, in the order of execution.
        skipped: (name, reason) of the others.
        stored: Name to width of those that are quantized already.
        stored_sites: Where each of these is used first.
    """

    weights: tuple[Weight, ...]
    skipped: tuple[tuple[str, str], ...]
    stored: Mapping[str, int]
    stored_sites: Mapping[str, Site]


def survey(graph: Graph, main: int, kinds: Mapping[str, str] | None = None) -> Survey:
    """Find the weights of a model.

    Args:
        graph: The model.
        main: Number of the subgraph that is run; its layers come first.
        kinds: The user's pattern -> kind, above all inference.

    Raises:
        AdapterError: A pattern of `kinds` matches nothing.
    """
    customs: list[tuple[str, str]] = []
    groups: dict[int, _Group] = {}
    order = [main, *(i for i in range(len(graph.subgraphs)) if i != main)]
    for subgraph in (graph.subgraphs[i] for i in order):
        for op in subgraph.ops:
            if op.name.startswith("CUSTOM "):
                customs.append(
                    (_name(subgraph, op, None), f"operator {op.name[7:]} is unknown here and left alone")
                )
            elif (place := _locate(subgraph, op)) is not None:
                group = groups.setdefault(
                    subgraph.tensors[place.site.stored].buffer, _Group([], [], set(), set())
                )
                group.add(place, _name(subgraph, op, place.site.tensor))
    uses = _uses(graph)
    for buffer, group in groups.items():
        conflict = None if group.reasons else _conflict(graph, buffer, group.sites, uses[buffer])
        if conflict is not None:
            group.reasons.add(conflict)
    names = _unique_names(graph, list(groups.values()))
    kept = [
        (buffer, name)
        for (buffer, group), name in zip(groups.items(), names, strict=True)
        if not group.reasons
    ]
    skipped = [
        (name, "; ".join(sorted(group.reasons)))
        for group, name in zip(groups.values(), names, strict=True)
        if group.reasons
    ]
    widths = {
        name: min(group.bits)
        for group, name in zip(groups.values(), names, strict=True)
        if group.reasons and group.bits
    }
    sites = {
        name: group.sites[0] for group, name in zip(groups.values(), names, strict=True) if name in widths
    }
    decided = override_kinds(
        [name for _, name in kept], [_kind(graph, groups[b], n, main) for b, n in kept], kinds
    )
    weights = [
        _weight(graph, buffer, groups[buffer], n, k) for (buffer, n), k in zip(kept, decided, strict=True)
    ]
    return Survey(weights=tuple(weights), skipped=tuple(skipped + customs), stored=widths, stored_sites=sites)


@dataclass(frozen=True, slots=True)
class _Place:
    """A constant weight where an operator reads it, why it must stay, and its width if it is quantized."""

    site: Site
    reason: str | None = None
    bits: int | None = None


@dataclass(frozen=True, slots=True)
class _Group:
    """All places that use one buffer."""

    sites: list[Site]
    names: list[str]
    reasons: set[str]
    bits: set[int]

    def add(self, place: _Place, name: str) -> None:
        self.sites.append(place.site)
        self.names.append(name)
        self.reasons.update([place.reason] if place.reason else [])
        self.bits.update([place.bits] if place.bits else [])


def _locate(subgraph: Subgraph, op: Op) -> _Place | None:
    """The constant weight of an operator, or None where it has none."""
    slot = _OTHERS.get(op.name, _WEIGHT_SLOT)
    if op.name not in (*_OTHERS, FULLY_CONNECTED, CONV, DEPTHWISE, MATMUL) or len(op.inputs) <= slot:
        return None
    tensor = stored = op.inputs[slot]
    if tensor < 0:
        return None
    producer = subgraph.producers.get(tensor)
    if producer is not None and producer.name in ("DEQUANTIZE", "DENSIFY") and producer.inputs:
        stored = producer.inputs[0]
    data = None if stored < 0 else subgraph.constant(stored)
    if data is None:
        return None
    site = Site(subgraph=subgraph.index, op=op.index, op_name=op.name, tensor=tensor, stored=stored)
    dtype, record = subgraph.dtype(stored), subgraph.tensors[stored]
    if op.name in _OTHERS:
        if dtype not in _FLOATS or len(subgraph.shape(stored)) < 2:
            return None
        return _Place(site, f"{op.name} has no containers of 2, 4 and 8 bits here")
    if dtype in ("INT8", "UINT8", "INT4", "INT2"):
        return _Place(site, f"already quantized ({dtype})", {"INT4": 4, "INT2": 2}.get(dtype, 8))
    if dtype not in _FLOATS:
        return _Place(site, f"stored as {dtype}")
    if record.sparsity is not None or (producer is not None and producer.name == "DENSIFY"):
        return _Place(site, "stored as a sparse tensor")
    if subgraph.dtype(op.inputs[0]) != "FLOAT32":
        return _Place(site, f"its input is {subgraph.dtype(op.inputs[0])}")
    return _Place(site, _unfit(subgraph, op, subgraph.shape(stored), tensor))


def _unfit(subgraph: Subgraph, op: Op, shape: tuple[int, ...], tensor: int) -> str | None:
    """Why an operator's float weight cannot be quantized, or None."""
    options = op.options
    if math.prod(shape) == 0:
        return "it is empty"
    if not worth_quantizing(shape):
        return f"only {math.prod(shape)} weights"
    if tensor in subgraph.outputs:
        return "it is an output of the model"
    if op.name == FULLY_CONNECTED:
        if options is not None and options.weights_format != 0:
            return "its weights are stored shuffled"
        return None if len(shape) == 2 else f"a fully connected weight of shape {shape}"
    if op.name in (CONV, DEPTHWISE):
        return None if len(shape) == 4 else f"a convolution weight of shape {shape}"
    if options is not None and options.adj_x:
        return "its input is transposed in the product"
    if any(d != 1 for d in shape[:-2]) or len(shape) < 2:
        return f"a batch of weights of shape {shape} has no per-channel containers"
    if len(subgraph.shape(op.inputs[0])) != len(subgraph.shape(op.outputs[0])):
        return "its product has another rank than its input"
    return None


def _conflict(graph: Graph, buffer: int, sites: list[Site], uses: list[tuple[int, int]]) -> str | None:
    """Why a weight cannot be quantized for all who use its buffer, or None."""
    mine = {(site.subgraph, site.stored) for site in sites}
    readers = {(site.subgraph, site.tensor, site.op) for site in sites}
    for index, tensor in uses:
        subgraph = graph.subgraphs[index]
        if (index, tensor) not in mine:
            return f"also used by {_users(subgraph, tensor, set())}"
        # A float16 weight is read by the operators that turn it into float32, and those by the layers.
        through = {s.tensor for s in sites if (s.subgraph, s.stored) == (index, tensor)}
        allowed = {op for s, t, op in readers if s == index and t in through}
        allowed |= {subgraph.producers[t].index for t in through if t != tensor}
        for read in {tensor, *through}:
            others = _users(subgraph, read, allowed)
            if others:
                return f"also used by {others}"
    layouts = {(graph.subgraphs[s.subgraph].shape(s.stored), channel_axis(graph, s)) for s in sites}
    return None if len(layouts) == 1 else "used with several shapes"


def _users(subgraph: Subgraph, tensor: int, allowed: set[int]) -> str:
    """The operators that read a tensor, but not as an allowed layer's weight; empty if none does."""
    names = {
        op.name
        for op, slot in subgraph.consumers.get(tensor, [])
        if op.index not in allowed or (slot != _WEIGHT_SLOT and op.name != "DEQUANTIZE")
    }
    if tensor in (*subgraph.outputs, *subgraph.inputs):
        names.add("the model's interface")
    return ", ".join(sorted(names)) or ("" if allowed else "another tensor")


def channel_axis(graph: Graph, site: Site) -> int:
    """The axis of a weight that holds the output channels."""
    shape = graph.subgraphs[site.subgraph].shape(site.stored)
    if site.op_name == DEPTHWISE:
        return 3
    if site.op_name != MATMUL:
        return 0
    options = graph.subgraphs[site.subgraph].ops[site.op].options
    return len(shape) - (2 if options is not None and options.adj_y else 1)


def _uses(graph: Graph) -> dict[int, list[tuple[int, int]]]:
    """Buffer -> (subgraph, tensor) of all tensors that lie in it."""
    uses: dict[int, list[tuple[int, int]]] = {}
    for subgraph in graph.subgraphs:
        for index, tensor in enumerate(subgraph.tensors):
            uses.setdefault(tensor.buffer, []).append((subgraph.index, index))
    return uses


def _unique_names(graph: Graph, groups: list[_Group]) -> list[str]:
    shapes = [graph.subgraphs[group.sites[0].subgraph].shape(group.sites[0].stored) for group in groups]
    return list(_unique(_attention_parts([group.names[0] for group in groups], shapes)))


def _kind(graph: Graph, group: _Group, name: str, main: int) -> str:
    site = group.sites[0]
    position = _position(graph.subgraphs[main], site) if site.subgraph == main else None
    return infer_kind(name, convolution=site.op_name in (CONV, DEPTHWISE), position=position)


def _weight(graph: Graph, buffer: int, group: _Group, name: str, kind: str) -> Weight:
    site = group.sites[0]
    subgraph = graph.subgraphs[site.subgraph]
    return Weight(
        name=name,
        kind=kind,
        buffer=buffer,
        shape=subgraph.shape(site.stored),
        channel_axis=channel_axis(graph, site),
        dtype=subgraph.dtype(site.stored),
        sites=tuple(group.sites),
        shares=tuple(
            f"{other} ({place.op_name})"
            for place, other in zip(group.sites[1:], group.names[1:], strict=True)
        ),
    )


def _name(subgraph: Subgraph, op: Op, tensor: int | None) -> str:
    tensors = [*([] if tensor is None else [tensor]), *op.outputs]
    path = module_path(text(subgraph.tensors[i].name) for i in tensors)
    return path or f"{subgraph.name}.{op.name.lower().replace(' ', '_')}_{op.index}"


def _attention_parts(names: list[str], shapes: list[tuple[int, ...]]) -> list[str]:
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


def _unique(names: list[str]) -> Iterator[str]:
    taken = set(names)
    seen: set[str] = set()
    for name in names:
        chosen, number = name, 2
        while chosen in seen or (chosen != name and chosen in taken):
            chosen = f"{name}#{number}"
            number += 1
        seen.add(chosen)
        yield chosen


def _position(subgraph: Subgraph, site: Site) -> str | None:
    """The kind of a layer as its place tells it: the first cut into patches, or the last layer."""
    op = subgraph.ops[site.op]
    if site.op_name == CONV:
        options, shape = op.options, subgraph.shape(site.stored)
        patches = options is not None and (options.stride_h, options.stride_w) == shape[1:3] != (1, 1)
        return "patch_embed" if patches and _reaches_input(subgraph, op.inputs[0]) else None
    if site.op_name in (FULLY_CONNECTED, MATMUL) and _reaches_output(subgraph, op.outputs[0]):
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


def to_float(weight: Weight, graph: Graph) -> np.ndarray:
    """The stored values, float32, C-contiguous, in the weight's shape."""
    site = weight.sites[0]
    values = graph.subgraphs[site.subgraph].constant(site.stored)
    return np.ascontiguousarray(values, dtype=np.float32)
