"""Where the values of a graph come from: what depends on weights, and what jumps when they move.

An operator that chooses (the largest, those above a threshold, the nearest integer) gives the same for weights that
differ a little and something else for weights that differ a little more. Nothing can be learned from its results
about how much a weight matters, so the last numbers in front of it are looked at in their place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

from lampq.adapters.tflite.graph import Graph, Op, Subgraph
from lampq.adapters.tflite.interface import FLOATS, scale_of

_CHOOSING = frozenset(
    (
        *("TOPK_V2", "ARG_MAX", "ARG_MIN", "WHERE", "UNIQUE", "BUCKETIZE", "STABLEHLO_SORT"),
        *("NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5"),
        *("ROUND", "FLOOR", "CEIL", "FLOOR_DIV", "FLOOR_MOD", "SIGN"),
    )
)
# What they give tells shapes, not values.
_OF_SHAPES = frozenset(("SHAPE", "RANK", "ZEROS_LIKE"))
# Their first input says which of the others is taken; numbers on both sides mostly meet where it changes.
_SELECTING = frozenset(("SELECT", "SELECT_V2", "IF"))
_STATEFUL = (
    "VAR_HANDLE",
    "READ_VARIABLE",
    "ASSIGN_VARIABLE",
    "CALL_ONCE",
    "RANDOM",
    "MULTINOMIAL",
    "HASHTABLE",
)


class Flow:
    """The main subgraph of a model as a flow of values.

    Args:
        graph: The model.
        main: Number of the subgraph.
        weighted: Operators of it that read weights.
    """

    def __init__(self, graph: Graph, main: int, weighted: Iterable[int]) -> None:
        self.graph = graph
        self.subgraph: Subgraph = graph.subgraphs[main]
        self._weighted = frozenset(weighted)

    @cached_property
    def calls(self) -> frozenset[int]:
        """Operators that run other subgraphs."""
        options = {id(record) for record, _ in self.graph.subgraph_references()}
        return frozenset(op.index for op in self.subgraph.ops if id(op.options) in options)

    @cached_property
    def stateful(self) -> frozenset[int]:
        """Operators that read or write what outlives a run, or draw random numbers."""
        return frozenset(
            op.index
            for op in self.subgraph.ops
            if op.name.startswith(_STATEFUL)
            or any(t >= 0 and self.subgraph.tensors[t].is_variable for t in op.inputs)
        )

    @cached_property
    def moved(self) -> frozenset[int]:
        """Tensors whose values depend on weights."""
        moved: set[int] = set()
        for op in self.subgraph.ops:
            reads = op.index in self._weighted or op.index in self.calls or not moved.isdisjoint(op.inputs)
            if reads and op.name not in _OF_SHAPES:
                moved.update(op.outputs)
        return frozenset(moved)

    @cached_property
    def broken(self) -> frozenset[int]:
        """Tensors behind an operator that chooses by numbers that depend on weights."""
        broken: set[int] = set()
        for op in self.subgraph.ops:
            watched = op.inputs[1:] if op.name in _SELECTING else op.inputs
            if not broken.isdisjoint(watched) or self._chooses(op):
                broken.update(op.outputs)
        return frozenset(broken)

    def is_number(self, tensor: int) -> bool:
        """Whether a tensor holds numbers of a scale: floats, or codes that stand for them."""
        return self.subgraph.dtype(tensor) in FLOATS or scale_of(self.subgraph, tensor) is not None

    def judgeable(self, tensor: int) -> bool:
        """Whether the values of a tensor are numbers that move with the weights without jumps."""
        return self.is_number(tensor) and tensor not in self.broken

    def last_numbers(self, tensor: int) -> tuple[int, ...]:
        """The last numbers in front of the operators that a tensor is behind, in the order of the graph."""
        wanted, seen, reached = [tensor], {tensor}, set()
        while wanted:
            current = wanted.pop()
            if current != tensor and self.judgeable(current):
                reached.add(current)
                continue
            producer = self.subgraph.producers.get(current)
            for source in () if producer is None else producer.inputs:
                if source in self.moved and source not in seen:
                    seen.add(source)
                    wanted.append(source)
        return tuple(sorted(reached, key=self._place))

    def culprit(self, tensor: int) -> str:
        """Name of the operator that chooses, in front of a tensor; empty where there is none."""
        ops = (op for op in self._upstream([tensor]) if self._chooses(op))
        return next((op.name.removeprefix("CUSTOM ") for op in ops), "")

    @cached_property
    def constant(self) -> frozenset[int]:
        """Tensors that are stored, or computed from stored ones alone; absent inputs count."""
        fixed = {i for i in range(len(self.subgraph.tensors)) if self.subgraph.constant(i) is not None} | {-1}
        for op in self.subgraph.ops:
            if op.inputs and fixed.issuperset(op.inputs):
                fixed.update(op.outputs)
        return frozenset(fixed)

    def needed(self, tensors: Iterable[int], fed: Iterable[int] = ()) -> frozenset[int]:
        """Operators without which the tensors cannot be computed.

        Args:
            tensors: What is wanted.
            fed: Tensors that are given.
        """
        return frozenset(op.index for op in self._upstream(tensors, fed))

    def _upstream(self, tensors: Iterable[int], fed: Iterable[int] = ()) -> Iterator[Op]:
        """The operators in front of tensors, those next to them first."""
        sources = set(fed)
        wanted = set(tensors) - sources
        for op in reversed(self.subgraph.ops):
            if not wanted.isdisjoint(op.outputs):
                wanted.update(set(op.inputs) - sources)
                yield op

    def _chooses(self, op: Op) -> bool:
        moved = self.moved.intersection(op.inputs)
        if not moved:
            return False
        if op.name == "CAST":
            # Numbers cut to integers, or a comparison made a number.
            source = op.inputs[0]
            return self.is_number(op.outputs[0]) != self.is_number(source)
        return op.name in _CHOOSING or op.name.startswith("CUSTOM ")

    def _place(self, tensor: int) -> tuple[int, int]:
        producer = self.subgraph.producers.get(tensor)
        return (-1 if producer is None else producer.index), tensor
