"""Parts of a model as models: what lies in front of a layer is computed once, what follows many times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from lampq.adapters.tflite.edit import Draft
from lampq.adapters.tflite.flow import Flow
from lampq.adapters.tflite.graph import Graph, Subgraph
from lampq.adapters.tflite.runtime import Session
from lampq.adapters.tflite.weights import Weight

# Activations of all samples that are kept at a cut.
KEPT_BYTES = 1 << 30

State = dict[int, np.ndarray]
"""Values of the tensors that lie on a cut."""


class Cuts:
    """The main subgraph of a model as a row of operators that can be cut anywhere.

    Args:
        graph: The model.
        flow: Its main subgraph.
        outputs: The tensors of interest.
    """

    def __init__(self, graph: Graph, flow: Flow, outputs: tuple[int, ...]) -> None:
        self.graph = graph
        self.flow = flow
        self.subgraph: Subgraph = flow.subgraph
        self.outputs = outputs

    @cached_property
    def possible(self) -> bool:
        """Whether the operators depend on their inputs alone: no branches, loops or variables."""
        return not (self.needed & (self.flow.calls | self.flow.stateful))

    @cached_property
    def needed(self) -> frozenset[int]:
        """The operators that the tensors of interest come from."""
        return self.flow.needed(self.outputs)

    @cached_property
    def constant_ops(self) -> frozenset[int]:
        """Operators that compute from constants alone, such as those that turn float16 into float32."""
        fixed = self.flow.constant
        return frozenset(op.index for op in self.subgraph.ops if op.outputs and fixed.issuperset(op.outputs))

    def live(self, at: int) -> tuple[int, ...]:
        """The computed tensors that operators from `at` on still need, and outputs that are there, in order."""
        made, needed = set(self.subgraph.inputs), set(self.outputs)
        for op in self.subgraph.ops:
            if op.index in self.constant_ops or op.index not in self.needed:
                continue
            if op.index < at:
                made.update(op.outputs)
            else:
                needed.update(op.inputs)
        return tuple(sorted(made & needed))

    def live_bytes(self, at: int, states: Sequence[State]) -> int:
        """Bytes of all samples on the cut at `at`, as the file has its shapes."""
        return sum(4 * int(np.prod(self.subgraph.shape(t))) for t in self.live(at)) * len(states)

    def first(self, weight: Weight) -> int | None:
        """The first needed operator that uses a weight, or None where there is none."""
        places = [site.op for site in weight.sites if site.subgraph == self.subgraph.index]
        return min((op for op in places if op in self.needed), default=None)

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
    ) -> list[list[np.ndarray]]:
        """The outputs from the values on the cut at `start`, one list per state."""
        inputs = self.live(start)
        computed = tuple(tensor for tensor in self.outputs if tensor not in inputs)
        if not computed:
            return [[state[tensor] for tensor in self.outputs] for state in states]
        session = self.session(start, len(self.subgraph.ops), inputs, computed, weights)
        finished = []
        for state in states:
            values = dict(zip(computed, session.run([state[tensor] for tensor in inputs]), strict=True))
            finished.append([values[t] if t in values else state[t] for t in self.outputs])
        return finished

    def session(
        self,
        start: int,
        stop: int,
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        weights: Mapping[Weight, np.ndarray],
    ) -> Session:
        """The needed operators from `start` to before `stop` as a model of their own.

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
        own = [op for op in range(start, stop) if op in self.needed]
        draft.keep(self.subgraph.index, [*self._constants_for(own), *own], inputs, outputs)
        # Tensors on a cut have shapes of their own where the inputs' are free.
        return Session(draft.content(), free=True)

    def _constants_for(self, ops: Sequence[int]) -> list[int]:
        """The constant operators in front of some that they need."""
        needed = {tensor for op in ops for tensor in self.subgraph.ops[op].inputs}
        indices: list[int] = []
        for op in reversed(self.subgraph.ops[: ops[0]] if ops else []):
            if op.index in self.constant_ops and needed.intersection(op.outputs):
                indices.append(op.index)
                needed.update(op.inputs)
        return indices[::-1]
