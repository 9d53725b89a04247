"""Parts of a model as models: what lies in front of a layer is computed once, what follows many times."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from lampq.adapters.tflite.edit import Draft
from lampq.adapters.tflite.graph import Graph, Subgraph
from lampq.adapters.tflite.runtime import Session
from lampq.adapters.tflite.weights import Weight

# Activations of all samples that are kept at a cut.
KEPT_BYTES = 1 << 30
_STATEFUL = (
    "VAR_HANDLE",
    "READ_VARIABLE",
    "ASSIGN_VARIABLE",
    "CALL_ONCE",
    "RANDOM",
    "MULTINOMIAL",
    "HASHTABLE",
)

State = dict[int, np.ndarray]
"""Values of the tensors that lie on a cut."""


class Cuts:
    """The main subgraph of a model as a row of operators that can be cut anywhere.

    Args:
        graph: The model.
        main: Number of the subgraph.
        logits: The tensor of interest.
    """

    def __init__(self, graph: Graph, main: int, logits: int) -> None:
        self.graph = graph
        self.subgraph: Subgraph = graph.subgraphs[main]
        self.logits = logits

    @cached_property
    def possible(self) -> bool:
        """Whether the operators depend on their inputs alone: no branches, loops or variables."""
        ops = self.subgraph.ops
        if any(record.is_variable for record in self.subgraph.tensors):
            return False
        if any(op.name.startswith(_STATEFUL) for op in ops):
            return False
        calls = {id(options) for options, _ in self.graph.subgraph_references()}
        return not any(id(op.options) in calls for op in ops)

    @cached_property
    def constant_ops(self) -> frozenset[int]:
        """Operators that compute from constants alone, such as those that turn float16 into float32."""
        found: set[int] = set()
        fixed = {i for i in range(len(self.subgraph.tensors)) if self.subgraph.constant(i) is not None} | {-1}
        for op in self.subgraph.ops:
            if op.inputs and fixed.issuperset(op.inputs):
                found.add(op.index)
                fixed.update(op.outputs)
        return frozenset(found)

    @cached_property
    def _end(self) -> int:
        producer = self.subgraph.producers.get(self.logits)
        return len(self.subgraph.ops) if producer is None else producer.index + 1

    def live(self, at: int) -> tuple[int, ...]:
        """The computed tensors that operators from `at` on still need, in order."""
        made = set(self.subgraph.inputs)
        needed = {self.logits} if at >= self._end else set()
        for op in self.subgraph.ops[: self._end]:
            if op.index in self.constant_ops:
                continue
            if op.index < at:
                made.update(op.outputs)
            else:
                needed.update(op.inputs)
        return tuple(sorted(made & needed))

    def live_bytes(self, at: int) -> int:
        """Bytes of one native batch on the cut at `at`."""
        return sum(4 * int(np.prod(self.subgraph.shape(t))) for t in self.live(at))

    def first(self, weight: Weight) -> int | None:
        """The first operator that uses a weight, or None where only other subgraphs do."""
        places = [site.op for site in weight.sites if site.subgraph == self.subgraph.index]
        return min(places, default=None)

    def advance(
        self, states: list[State], start: int, stop: int, weights: Mapping[Weight, np.ndarray]
    ) -> list[State]:
        """The values on the cut at `stop` from those on the cut at `start`."""
        inputs, wanted = self.live(start), self.live(stop)
        computed = tuple(tensor for tensor in wanted if tensor not in inputs)
        if not computed:
            return [{tensor: state[tensor] for tensor in wanted} for state in states]
        session = self.session(start, stop, inputs, computed, weights)
        advanced = []
        for state in states:
            values = dict(zip(computed, session.run([state[tensor] for tensor in inputs]), strict=True))
            advanced.append(
                {tensor: values[tensor] if tensor in values else state[tensor] for tensor in wanted}
            )
        return advanced

    def finish(
        self, states: list[State], start: int, weights: Mapping[Weight, np.ndarray]
    ) -> list[np.ndarray]:
        """The logits from the values on the cut at `start`, one array per state."""
        inputs = self.live(start)
        session = self.session(start, self._end, inputs, (self.logits,), weights)
        return [session.run([state[tensor] for tensor in inputs])[0] for state in states]

    def session(
        self,
        start: int,
        stop: int,
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        weights: Mapping[Weight, np.ndarray],
    ) -> Session:
        """The operators from `start` to before `stop` as a model of their own.

        Args:
            start: First operator.
            stop: The operator after the last.
            inputs: Tensors it is fed.
            outputs: Tensors it gives.
            weights: Weights replaced, float32.
        """
        draft = Draft(self.graph)
        for weight, values in weights.items():
            draft.set_float(weight, values)
        draft.keep(
            self.subgraph.index, [*self._constants_for(start, stop), *range(start, stop)], inputs, outputs
        )
        return Session(draft.content())

    def _constants_for(self, start: int, stop: int) -> list[int]:
        """The constant operators that those from `start` to before `stop` need."""
        needed = {tensor for op in self.subgraph.ops[start:stop] for tensor in op.inputs}
        found = []
        for op in reversed(self.subgraph.ops[:start]):
            if op.index in self.constant_ops and needed.intersection(op.outputs):
                found.append(op.index)
                needed.update(op.inputs)
        return found[::-1]
