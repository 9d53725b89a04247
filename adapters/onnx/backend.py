"""What a model does that is an ONNX file (`adapters.backend`)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lampq.adapters.backed_model import BackedModel
from lampq.adapters.onnx import batches, gradients, heads, size
from lampq.adapters.onnx.bits import read_bits
from lampq.adapters.onnx.chain import State
from lampq.adapters.onnx.engine import Engine
from lampq.adapters.onnx.variant import Variant
from lampq.adapters.onnx.walk import OnnxWalk, input_rows
from lampq.adapters.onnx.windows import windows
from lampq.adapters.onnx.write import write
from lampq.adapters.prefix import swept
from lampq.adapters.replaced import fitting
from lampq.adapters.sizing import Sizing
from lampq.core.quantizing.coding import Coding
from lampq.core.values.batch import Batch, BatchLike
from lampq.core.values.blocks import scale_count
from lampq.core.values.checked_inputs import checked_inputs
from lampq.core.values.head import Head, HeadChoice
from lampq.core.values.input_spec import InputSpec
from lampq.core.values.layer import Layer
from lampq.core.values.output_spec import OutputSpec
from lampq.core.values.window import Window

if TYPE_CHECKING:
    from lampq.adapters.autograd.rebuilt import Rebuilt
    from lampq.core.values.overhead import Overhead
    from lampq.core.values.plan import Plan

OnnxModel = BackedModel[Variant, np.ndarray]
"""A model read by `lampq.adapters.onnx.read`."""

_CHECKED_SAMPLES = 2


class OnnxBackend:
    """An ONNX file.

    Args:
        variant: The file, with the outputs that are judged, and what is replaced.
        engine: Runs it; None: made anew.
    """

    format = "onnx"
    grid = "auto"

    def __init__(self, variant: Variant, engine: Engine | None = None) -> None:
        self.variant, self.opened, self.records = variant, variant.opened, variant.records
        self.engine = engine or Engine(self.opened, self.records)
        self.path, self.name = variant.path, str(variant.path)

    @property
    def digest(self) -> str:
        """SHA-256 of the file and its external data."""
        return self.opened.container.digest

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """(name, reason) of every weight that is left alone."""
        return tuple((left.name, left.reason) for left in self.opened.left)

    @property
    def input_specs(self) -> tuple[InputSpec, ...]:
        """The inputs that must be fed."""
        return self.opened.specs

    @property
    def output_specs(self) -> tuple[OutputSpec, ...]:
        """The outputs, and the inner tensors that stand for those behind discontinuous operators."""
        return self.opened.outputs

    @property
    def heads(self) -> tuple[Head, ...]:
        """What they mean."""
        return self.opened.heads

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Records of the stored weights."""
        return self.records.layers

    @property
    def replaced(self) -> Collection[str]:
        """Layers with other weights."""
        return self.variant.replaced.keys()

    def judging(self, choices: Sequence[HeadChoice]) -> OnnxBackend:
        """The same file with some outputs judged another way."""
        return OnnxBackend(replace(self.variant, opened=heads.choose(self.opened, choices)))

    def fitted(self, name: str, value: np.ndarray) -> np.ndarray:
        """A weight of the right shape, float32."""
        return fitting(value, self.records.site(name).shape, layer=name, whose=self.name)

    def replacing(self, values: Mapping[str, np.ndarray]) -> OnnxBackend:
        """The same file with some weights replaced."""
        return OnnxBackend(replace(self.variant, replaced={**self.variant.replaced, **values}), self.engine)

    def weight(self, name: str) -> np.ndarray:
        """The weight of a layer, float32."""
        return self.variant.weight(name)

    def measure(self, name: str) -> Layer:
        """The record of a layer with its weight."""
        return self.records.measure(name, self.weight(name))

    def check_coding(self, coding: Coding) -> None:
        """Codes on a uniform grid, in whatever blocks."""
        coding.refuse_form("ONNX files")

    def checked(self, batch: BatchLike) -> Batch:
        """Inputs by name and of the right types."""
        return checked_inputs(batch, self.input_specs, self.name)

    def run(self, inputs: Batch) -> Batch:
        """The judged outputs."""
        engine, chunks = self.engine, self.engine.split(inputs)
        if self.variant.replaced:
            chain = engine.chain
            states = chain.start(map(engine.feeds, chunks))
            return engine.join(chain.finish(states, 0, chain.feeds(self.variant.replaced)), chunks)
        outputs = engine.join(engine.run(chunks), chunks)
        engine.check_independence(chunks[0], outputs)
        return outputs

    def sweep(
        self, inputs: Batch, candidates: Iterable[tuple[str, int, np.ndarray]]
    ) -> Iterator[tuple[str, int, Batch]]:
        """Outputs with one weight replaced at a time, a batch in front of segments of the graph."""
        prefix = _Prefix(self.engine, self.variant.replaced, self.engine.split(inputs))
        return swept(prefix, candidates)

    def release(self) -> None:
        """Close all sessions of the file."""
        self.engine.release()

    def taps(self, inputs: Batch) -> Iterator[tuple[str, np.ndarray, int]]:
        """Inputs of the layers, one piece per place that a layer is used in and chunk of the batch.

        Rows (R, in_features) for a linear layer, (samples, channels, ...) for a convolution. Tables, recurrent
        weights and those inside of bodies have no such input and are left out.
        """
        chunks = self.engine.split(inputs)
        positions = [self.records.usage(batches.sample_shapes(c.arrays)).positions for c in chunks]
        chain = self.engine.chain
        states = chain.start(map(self.engine.feeds, chunks))
        for site, number, index, array in chain.taps(states, chain.feeds(self.variant.replaced)):
            yield site.name, input_rows(site, number, array, chunks[index]), positions[index][site.name]

    def windows(self) -> dict[str, Window]:
        """What convolutions see."""
        return windows(self.opened.sites)

    def walk(self, model: OnnxModel, inputs: Batch) -> OnnxWalk:
        """A run segment by segment that stops at every layer."""
        chunks, chain = self.engine.split(inputs), self.engine.chain
        positions = [self.records.usage(batches.sample_shapes(c.arrays)).positions for c in chunks]
        states = chain.start(map(self.engine.feeds, chunks))
        return OnnxWalk(chain, states, chunks, positions, self.variant.replaced)

    def gradients(self, model: OnnxModel, inputs: Batch) -> Rebuilt:
        """The graph in PyTorch."""
        return gradients.rebuilt(model, inputs)

    def payload_bytes(self, model: OnnxModel, layer: Layer, bits: int, container: str) -> int | None:
        """Bytes of codes and scales at 2 to 8 bits."""
        if container not in ("bitplane", "int8") or not 2 <= bits <= 8:
            return None
        scales = scale_count(layer.shape, layer.channel_axis, model.coding.block)
        return size.layer_bytes(layer.size, scales, bits, container)

    def rest_bytes(self, model: OnnxModel, *, activations: bool) -> int:
        """What stays, and the nodes that unpack the weights."""
        return size.rest_bytes(model, activations=activations)

    def overhead(self, model: OnnxModel, sizing: Sizing) -> Overhead:
        """What a file holds beside codes and scales, to the byte."""
        return size.overhead(model, sizing)

    def file_bytes(self) -> int:
        """Bytes of the file and its external data."""
        return self.opened.container.size_bytes

    def stored_bits(self) -> dict[str, tuple[int, str | int | None]]:
        """Width and container of the weights that a file of lampq holds, by layer name; {} for others."""
        return dict(read_bits(self.path))

    def write(self, model: OnnxModel, plan: Plan, path: Path, calibration: BatchLike | None) -> float:
        """Ranges of inputs are in the plan: of calibration inputs two samples are looked at, to verify with."""
        few = None
        if calibration is not None:
            checked = self.checked(calibration)
            few = checked.take(range(min(_CHECKED_SAMPLES, checked.samples)))
        return write(model, plan, path, batch=few).relative_error


class _Prefix:
    """The chunks of a batch in front of segments of the graph, those of several layers in one.

    Args:
        engine: Runs them.
        replaced: Weights that differ from the stored.
        chunks: The batch.
    """

    def __init__(
        self, engine: Engine, replaced: Mapping[str, np.ndarray], chunks: Sequence[batches.Chunk]
    ) -> None:
        self._engine, self._replaced, self._chunks = engine, replaced, chunks
        self._chain = engine.chain
        self._around = self._chain.feeds(replaced)

    def place(self, name: str) -> int:
        """The first segment that uses a layer."""
        return self._chain.places[name][0]

    def start(self) -> list[State]:
        """The inputs."""
        return self._chain.start(map(self._engine.feeds, self._chunks))

    def advance(self, states: list[State], begin: int, end: int) -> list[State]:
        """The states in front of segment `end`; those given are no more."""
        for index in range(begin, end):
            self._chain.advance(states, index, self._around)
        return states

    def finish(self, states: list[State], begin: int, name: str, weight: np.ndarray) -> Batch:
        """The outputs from the states in front of segment `begin`."""
        own = self._chain.feeds({**self._replaced, name: weight}, of=(name,))
        outputs = self._chain.finish(states, begin, self._around | own)
        return self._engine.join(outputs, self._chunks)
