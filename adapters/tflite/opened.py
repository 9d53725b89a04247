"""A model file, read and understood: what all variants of a model share."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lampq.adapters.tflite import folding
from lampq.adapters.tflite.batches import Batches
from lampq.adapters.tflite.cuts import Cuts
from lampq.adapters.tflite.edit import Draft
from lampq.adapters.tflite.graph import Graph, Subgraph
from lampq.adapters.tflite.interface import Interface
from lampq.adapters.tflite.probe import probe
from lampq.adapters.tflite.runtime import Session, interpreter_module
from lampq.adapters.tflite.weights import Survey, Weight, to_float
from lampq.core.values.errors import AdapterError, RecordError
from lampq.core.values.fingerprint import Fingerprint
from lampq.core.values.layer import Layer


class Opened:
    """A model file, read and understood; what is expensive is made once and shared by all its variants.

    Args:
        path: The file.
        data: Its bytes, mapped into memory.
        graph: Its graph.
        interface: Its input and output.
        found: Its weights.
    """

    def __init__(self, path: Path, data: Any, graph: Graph, interface: Interface, found: Survey) -> None:
        self.path = path
        self.data = data
        self.graph = graph
        self.interface = interface
        self.survey = found
        self.weights = {weight.name: weight for weight in found.weights}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def cuts(self) -> Cuts:
        """The graph in parts."""
        return Cuts(self.graph, self.interface.subgraph, self.interface.logits)

    @cached_property
    def batches(self) -> Batches:
        """How batches are run."""
        return Batches(self.path, self.interface)

    @property
    def main(self) -> Subgraph:
        """The subgraph that is run."""
        return self.graph.subgraphs[self.interface.subgraph]

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Records of the stored weights."""
        return tuple(self.measure(weight, self.values(weight)) for weight in self.survey.weights)

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

    def content(self, weights: Mapping[Weight, np.ndarray], outputs: tuple[int, ...]) -> bytes:
        """The model as a file that gives `outputs`, with some weights replaced."""
        main = self.interface.subgraph
        if not weights and main == 0 and self.main.outputs == outputs:
            return bytes(self.data)
        draft = Draft(self.graph)
        for weight, values in weights.items():
            draft.set_float(weight, values)
        draft.outputs[main] = outputs
        draft.promote(main)
        return draft.content()

    def open(self, weights: Mapping[Weight, np.ndarray], outputs: tuple[int, ...]) -> Session:
        """The model ready to give `outputs`, with some weights replaced."""
        # The trial run guards every later one.
        _ = self.session
        return Session(self.content(weights, outputs))

    @cached_property
    def session(self) -> Session:
        """The model as it is, after a trial run in another process."""
        content = self.content({}, (self.interface.logits,))
        try:
            probe(content, interpreter_module().__name__)
        except AdapterError as err:
            raise AdapterError(f"{self.path} cannot be run: {err}") from err
        return Session(content)

    @cached_property
    def resized(self) -> Session | None:
        """The model for many samples at once, or None where it runs only as many as it was made for."""
        return self.batches.resized(bytes(self.content({}, (self.interface.logits,))), self.session)
