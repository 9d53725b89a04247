"""A model file, read and understood: what all variants of a model share."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lampq.adapters.agreement import difference
from lampq.adapters.tflite import folding
from lampq.adapters.tflite.batches import MANY, Batches
from lampq.adapters.tflite.cuts import Cuts
from lampq.adapters.tflite.edit import Draft
from lampq.adapters.tflite.flow import Flow
from lampq.adapters.tflite.graph import Graph, Subgraph, text
from lampq.adapters.tflite.interface import Interface
from lampq.adapters.tflite.noise import trial
from lampq.adapters.tflite.outputs import Output, Outputs
from lampq.adapters.tflite.probe import probe
from lampq.adapters.tflite.runtime import Session, interpreter_module
from lampq.adapters.tflite.weights import Survey, Weight, to_float
from lampq.core.values.batch import Batch
from lampq.core.values.errors import AdapterError, RecordError
from lampq.core.values.fingerprint import Fingerprint
from lampq.core.values.layer import Layer

# Float kernels may add in another order for another batch; more than this is another function.
_SAME = 1e-3
# Outputs that are zero to rounding.
_FLOOR = 1e-6

# What axes of any length are tried with.
_LENGTHS = (64, 512, 4096, 16000)

Read = tuple[Output, ...]
"""The outputs that a session reads."""


class Opened:
    """A model file, read and understood; what is expensive is made once and shared by all its variants.

    Args:
        path: The file.
        data: Its bytes, mapped into memory.
        content: The same, or the file as it is understood and run, where that is another.
        graph: The graph of that.
        interface: Its inputs.
        survey: Its weights.
    """

    def __init__(
        self, path: Path, data: Any, content: Any, graph: Graph, interface: Interface, survey: Survey
    ) -> None:
        self.path = path
        self.data = data
        self._content = content
        self.graph = graph
        self.interface = interface
        self.survey = survey
        self.weights = {weight.name: weight for weight in survey.weights}
        self.flow = Flow(graph, interface.subgraph, survey.weighted_ops(interface.subgraph))
        self.batches = Batches(path, interface)
        self._sessions: dict[tuple[int, ...], Session] = {}
        self._resized: dict[tuple[int, ...], Session | None] = {}
        self._cuts: dict[tuple[int, ...], Cuts] = {}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def outputs(self) -> Outputs:
        """What can be read of it."""
        return Outputs(self.flow, self.interface)

    @property
    def main(self) -> Subgraph:
        """The subgraph that is run."""
        return self.graph.subgraphs[self.interface.subgraph]

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Records of the stored weights."""
        return tuple(self.measure(weight, self.values(weight)) for weight in self.survey.weights)

    @cached_property
    def weight_bytes(self) -> int:
        """Bytes of the file that hold the weights of the layers, as numbers or as codes."""
        graph = self.graph if self._content is self.data else Graph(self.data)
        buffers = {
            (subgraph.index, text(tensor.name)): graph.buffers[tensor.buffer]
            for subgraph in graph.subgraphs
            for tensor in subgraph.tensors
            if graph.buffers[tensor.buffer].size
        }
        return sum(buffers[self._place(weight)].nbytes for weight in self.survey.weights)

    def _place(self, weight: Weight) -> tuple[int, str]:
        """Subgraph and name of the first tensor that holds a weight."""
        first = weight.readings[0]
        return first.subgraph, text(self.graph.subgraphs[first.subgraph].tensors[first.stored].name)

    def values(self, weight: Weight) -> np.ndarray:
        """Stored values of a weight."""
        return to_float(weight, self.graph)

    def measure(self, weight: Weight, values: np.ndarray) -> Layer:
        """The record of a weight with given values."""
        try:
            layer = Layer.from_weight(
                weight.name, values, kind=weight.kind, channel_axis=weight.channel_axis, shares=weight.shares
            )
        except RecordError as err:
            raise AdapterError(f"{self.path}: {err}") from err
        original = folding.unfolded(self.graph, weight, values)
        return (
            layer
            if original is None
            else dataclasses.replace(layer, fingerprint=Fingerprint.from_array(original))
        )

    def cuts(self, tensors: tuple[int, ...]) -> Cuts:
        """The graph in front of some tensors, in parts."""
        return self._cuts.setdefault(tensors, Cuts(self.graph, self.flow, tensors))

    def content(self, weights: Mapping[Weight, np.ndarray], tensors: tuple[int, ...]) -> bytes:
        """The model as a file that gives some tensors and computes nothing else, with some weights replaced."""
        main = self.interface.subgraph
        cuts = self.cuts(tensors)
        whole = len(cuts.needed) == len(self.main.ops) and main == 0 and self.main.outputs == tensors
        if not weights and whole:
            return bytes(self._content)
        draft = Draft(self.graph)
        for weight, values in weights.items():
            draft.set_float(weight, values)
        if cuts.possible and len(cuts.needed) < len(self.main.ops):
            draft.keep(main, cuts.needed, self.interface.tensors, tensors)
            return draft.content()
        # What keeps a state must run, whether its results are looked at or not.
        stay = cuts.needed if cuts.possible else cuts.needed | self._kept(tensors)
        for op in self.main.ops:
            if op.index not in stay:
                draft.ops[main][op.index] = None
        draft.outputs[main] = tensors
        draft.promote(main)
        return draft.content()

    def _kept(self, tensors: tuple[int, ...]) -> frozenset[int]:
        """Operators that keep a state, with all in front of them."""
        stateful = self.flow.stateful
        sources = (t for op in self.main.ops if op.index in stateful for t in op.inputs)
        return stateful | self.flow.needed((*tensors, *sources))

    def open(self, weights: Mapping[Weight, np.ndarray], tensors: tuple[int, ...]) -> Session:
        """The model ready to give some tensors, with some weights replaced."""
        return Session(self.content(weights, tensors), reset=self._reset, free=self.interface.free)

    def session(self, tensors: tuple[int, ...]) -> Session:
        """The model as it is, after a trial run in another process.

        Raises:
            AdapterError: The trial run fails.
        """
        if tensors not in self._sessions:
            content = self.content({}, tensors)
            try:
                # Shapes of a file with free axes are those that a converter happened to see, if any.
                probe(content, interpreter_module().__name__, lenient=self.interface.free)
                self._sessions[tensors] = Session(content, reset=self._reset, free=self.interface.free)
            except AdapterError as err:
                raise AdapterError(f"{self.path} cannot be run: {err}") from err
        return self._sessions[tensors]

    def trial(self, tensors: tuple[int, ...], samples: int) -> Batch:
        """Random samples; where axes are free and the stored lengths do not run, of the first length that does."""
        for length in (None, *_LENGTHS) if self.interface.free else ():
            batch = trial(self.interface, self.main, samples, length)
            with contextlib.suppress(AdapterError):
                self.session(tensors).run(self.batches.chunks(self.batches.checked(batch))[0].feeds)
                return batch
        return trial(self.interface, self.main, samples)

    @property
    def _reset(self) -> str:
        """What a run leaves behind that the next one must not see."""
        if any(op.name == "VAR_HANDLE" for op in self.main.ops):
            return "resources"
        return "variables" if self.flow.stateful else ""

    def resized(self, read: Read) -> Session | None:
        """The model for many samples at once, if it gives what single runs give; otherwise None.

        Files declare a free number of samples more often than their operators allow one.
        """
        tensors = tuple(output.tensor for output in read)
        if tensors not in self._resized:
            free = self.interface.free_batch and not self.flow.stateful
            self._resized[tensors] = self._tried(read, tensors) if free else None
        return self._resized[tensors]

    def _tried(self, read: Read, tensors: tuple[int, ...]) -> Session | None:
        native, many = self.session(tensors), self.open({}, tensors)
        sample = self.batches.checked(self.trial(tensors, MANY))
        together, alone = self.batches.chunks(sample, many=True), self.batches.chunks(sample)
        try:
            one = self.batches.joined(read, together, [many.run(chunk.feeds) for chunk in together])
            other = self.batches.joined(read, alone, [native.run(chunk.feeds) for chunk in alone])
        except (AdapterError, ValueError):
            return None
        return (
            many
            if all(difference(one[name], other[name], floor=_FLOOR) <= _SAME for name in one.names)
            else None
        )
