"""The weights of a TFLite model that can be quantized, what they are called, and why the others cannot."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lampq.adapters.kinds import infer_kind, override_kinds
from lampq.adapters.tflite.decoding import decoded
from lampq.adapters.tflite.graph import Graph, Op, Subgraph, text
from lampq.adapters.tflite.interface import unique
from lampq.adapters.tflite.naming import attention_parts, operator_name, position
from lampq.adapters.tflite.operands import CONVOLUTIONS, TABLES
from lampq.adapters.tflite.places import FLOATS, Place, Site, located, stored_behind

# Entries of a constant that is worth a word.
_LARGE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A tensor that holds the numbers of a weight, whoever reads it.

    Attributes:
        subgraph: Number of the subgraph.
        stored: The constant tensor.
        tensor: The tensor with the numbers: the same, or what a DEQUANTIZE makes of it.
    """

    subgraph: int
    stored: int
    tensor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """A quantizable weight: one buffer, used in one or more places.

    Attributes:
        name: Unique name, a module path where the converter kept one.
        kind: Kind of the layer.
        buffer: Number of its buffer.
        shape: Its shape as stored.
        channel_axis: Axis of the output channels.
        dtype: Its type in the file.
        sites: Where it is used, in the order of execution.
        readings: The tensors that hold its numbers.
        behind: Its codes must be made numbers before anyone reads them: an operator has no form for codes.
        shares: Names of the further places.
    """

    name: str
    kind: str
    buffer: int
    shape: tuple[int, ...]
    channel_axis: int
    dtype: str
    sites: tuple[Site, ...]
    readings: tuple[Reading, ...]
    behind: bool = False
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
        places: (subgraph, operator) of all that read weights.
    """

    weights: tuple[Weight, ...]
    skipped: tuple[tuple[str, str], ...]
    stored: Mapping[str, int]
    stored_sites: Mapping[str, Site]
    places: frozenset[tuple[int, int]]

    def weighted_ops(self, subgraph: int) -> frozenset[int]:
        """The operators of a subgraph that read weights."""
        return frozenset(op for index, op in self.places if index == subgraph)


def survey(
    graph: Graph, main: int, kinds: Mapping[str, str] | None = None, *, requantize: bool = False
) -> Survey:
    """Find the weights of a model.

    Args:
        graph: The model.
        main: Number of the subgraph that is run; its layers come first.
        kinds: The user's pattern -> kind, above all inference.
        requantize: Whether weights that are quantized already count by their rounded values.

    Raises:
        AdapterError: A pattern of `kinds` matches nothing.
    """
    customs: list[tuple[str, str]] = []
    groups: dict[int, _Group] = {}
    for subgraph in _in_order(graph, main):
        for op in subgraph.ops:
            if op.name.startswith("CUSTOM "):
                reason = f"operator {op.name[7:]} is unknown here and left alone{_constants(subgraph, op)}"
                customs.append((operator_name(subgraph, op, None), reason))
            for place in located(subgraph, op, requantize=requantize):
                buffer = subgraph.tensors[place.site.stored].buffer
                group = groups.setdefault(buffer, _Group(buffer))
                group.add(place, operator_name(subgraph, op, place.site.tensor))
    uses = _uses(graph)
    for group in groups.values():
        group.settle(graph, uses[group.buffer])
    shapes = [graph.subgraphs[g.sites[0].subgraph].shape(g.sites[0].stored) for g in groups.values()]
    names = unique(attention_parts([group.names[0] for group in groups.values()], shapes))
    named = list(zip(groups.values(), names, strict=True))
    free = [(group, name) for group, name in named if not group.reasons]
    kinds_found = [_kind(graph, group, name, main) for group, name in free]
    decided = override_kinds([name for _, name in free], kinds_found, kinds)
    coded = [(group, name) for group, name in named if group.reasons and group.bits]
    return Survey(
        weights=tuple(
            group.weight(graph, name, kind) for (group, name), kind in zip(free, decided, strict=True)
        ),
        skipped=(*_reasons(graph, named), *customs, *_other_constants(graph, uses, frozenset(groups))),
        stored={name: min(group.bits) for group, name in coded},
        stored_sites={name: group.sites[0] for group, name in coded},
        places=frozenset((site.subgraph, site.op) for group in groups.values() for site in group.sites),
    )


def to_float(weight: Weight, graph: Graph) -> np.ndarray:
    """The stored values, float32, C-contiguous, in the weight's shape."""
    site = weight.sites[0]
    return decoded(graph.subgraphs[site.subgraph], site.stored)


class _Group:
    """All places that use one buffer."""

    def __init__(self, buffer: int) -> None:
        self.buffer = buffer
        self.sites: list[Site] = []
        self.names: list[str] = []
        self.reasons: set[str] = set()
        self.bits: set[int] = set()
        self.behind = False
        self.readings: tuple[Reading, ...] = ()

    def add(self, place: Place, name: str) -> None:
        """Count a place in."""
        self.sites.append(place.site)
        self.names.append(name)
        self.reasons.update([place.reason] if place.reason else [])
        self.bits.update([place.bits] if place.bits else [])
        self.behind |= place.behind

    def settle(self, graph: Graph, uses: list[tuple[int, int]]) -> None:
        """Look at everyone else who reads the buffer: they need numbers, and some cannot be given any."""
        if self.reasons:
            return
        shapes = {graph.subgraphs[s].shape(t) for s, t in uses}
        types = {graph.subgraphs[s].dtype(t) for s, t in uses}
        if len(shapes) > 1 or len(types) > 1:
            self.reasons.add("used with several shapes" if len(shapes) > 1 else "used with several types")
            return
        self.readings = tuple(reading for s, t in uses for reading in _readings(graph.subgraphs[s], t))
        for subgraph, tensor in uses:
            reason = _stuck(graph.subgraphs[subgraph], tensor)
            self.reasons.update([reason] if reason else [])
        mine = {(site.subgraph, site.op, site.tensor) for site in self.sites}
        others = any(
            (r.subgraph, op.index, r.tensor) not in mine
            for r in self.readings
            for op, _ in graph.subgraphs[r.subgraph].consumers.get(r.tensor, [])
        )
        is_output = any(r.tensor in graph.subgraphs[r.subgraph].outputs for r in self.readings)
        self.behind |= others or is_output or len({site.axis for site in self.sites}) > 1

    def size(self, graph: Graph) -> str:
        """Bytes of a weight of numbers, for a message."""
        return "" if self.bits else f" ({graph.buffers[self.buffer].size:,} bytes)"

    def weight(self, graph: Graph, name: str, kind: str) -> Weight:
        """The record."""
        site = self.sites[0]
        subgraph = graph.subgraphs[site.subgraph]
        further = zip(self.sites[1:], self.names[1:], strict=True)
        return Weight(
            name=name,
            kind=kind,
            buffer=self.buffer,
            shape=subgraph.shape(site.stored),
            channel_axis=site.axis,
            dtype=subgraph.dtype(site.stored),
            sites=tuple(self.sites),
            readings=self.readings,
            behind=self.behind,
            shares=tuple(f"{other} ({place.op_name})" for place, other in further),
        )


def _in_order(graph: Graph, main: int) -> Iterator[Subgraph]:
    yield graph.subgraphs[main]
    yield from (subgraph for i, subgraph in enumerate(graph.subgraphs) if i != main)


def _readings(subgraph: Subgraph, stored: int) -> list[Reading]:
    """The tensors that hold the numbers of a stored one."""
    unpacked = [
        Reading(subgraph=subgraph.index, stored=stored, tensor=op.outputs[0])
        for op, _ in subgraph.consumers.get(stored, [])
        if op.name == "DEQUANTIZE"
    ]
    return unpacked or [Reading(subgraph=subgraph.index, stored=stored, tensor=stored)]


def _stuck(subgraph: Subgraph, stored: int) -> str | None:
    """Why those who read a tensor cannot be given other numbers, or None."""
    readers = subgraph.consumers.get(stored, [])
    unpacking = [op.name == "DEQUANTIZE" for op, _ in readers]
    if stored in subgraph.inputs or (any(unpacking) and stored in subgraph.outputs):
        return "it is part of the model's interface"
    packed = subgraph.dtype(stored) != "FLOAT32" and any(not u for u in unpacking)
    if (any(unpacking) and not all(unpacking)) or (packed and subgraph.dtype(stored) == "FLOAT16"):
        names = sorted({op.name for op, _ in readers if op.name != "DEQUANTIZE"})
        return f"also used by {', '.join(names)}"
    return None


def _uses(graph: Graph) -> dict[int, list[tuple[int, int]]]:
    """Buffer -> (subgraph, tensor) of all tensors that lie in it."""
    uses: dict[int, list[tuple[int, int]]] = {}
    for subgraph in graph.subgraphs:
        for index, tensor in enumerate(subgraph.tensors):
            uses.setdefault(tensor.buffer, []).append((subgraph.index, index))
    return uses


def _reasons(graph: Graph, named: Sequence[tuple[_Group, str]]) -> Iterator[tuple[str, str]]:
    """Name and reason of every weight that must stay."""
    for group, name in named:
        if group.reasons:
            yield name, "; ".join(sorted(group.reasons)) + group.size(graph)


def _other_constants(
    graph: Graph, uses: Mapping[int, list[tuple[int, int]]], known: frozenset[int]
) -> Iterator[tuple[str, str]]:
    """Name and reason of the large constants of numbers that are no weights."""
    for buffer, places in uses.items():
        index, tensor = places[0]
        subgraph = graph.subgraphs[index]
        shape = subgraph.shape(tensor)
        if buffer in known or subgraph.dtype(tensor) not in FLOATS or not graph.buffers[buffer].size:
            continue
        if math.prod(shape) >= _LARGE:
            readers = sorted(
                {op.name for s, t in places for op, _ in graph.subgraphs[s].consumers.get(t, [])}
            )
            reason = f"a constant of {', '.join(readers) or 'nothing'} ({graph.buffers[buffer].size:,} bytes)"
            yield text(subgraph.tensors[tensor].name) or f"tensor {tensor}", reason


def _kind(graph: Graph, group: _Group, name: str, main: int) -> str:
    site = group.sites[0]
    if site.op_name in TABLES:
        return infer_kind(name, position="embedding")
    place = position(graph.subgraphs[main], site.op, site.stored) if site.subgraph == main else None
    return infer_kind(name, convolution=site.op_name in CONVOLUTIONS, position=place)


def _constants(subgraph: Subgraph, op: Op) -> str:
    """Bytes of the numbers that an operator reads, for a message."""
    stored = {stored_behind(subgraph, t)[0] for t in op.inputs if t >= 0}
    sizes = [c.nbytes for t in stored if t >= 0 and (c := subgraph.constant(t)) is not None]
    return f" ({sum(sizes):,} bytes)" if sizes else ""
