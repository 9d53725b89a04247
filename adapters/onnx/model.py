"""An ONNX model as the core sees it: layers, weights, runs with weights replaced, activations."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from lampq.adapters.onnx import batches, flow, sites
from lampq.adapters.onnx.engine import Engine, Opened
from lampq.adapters.onnx.sites import Site
from lampq.adapters.padding import without_padding
from lampq.core.measuring.traces import EMPIRICAL, TRUE, Traces
from lampq.core.quantizing.coding import Coding
from lampq.core.readouts.readout import Readout
from lampq.core.values import packing
from lampq.core.values.batch import Batch, BatchLike
from lampq.core.values.blocks import scale_count
from lampq.core.values.errors import AdapterError
from lampq.core.values.head import CLASSES, Head, HeadChoice
from lampq.core.values.input_spec import InputSpec, only_input
from lampq.core.values.layer import Layer
from lampq.core.values.output_spec import OutputSpec
from lampq.core.values.progress import Progress, quiet

if TYPE_CHECKING:
    from lampq.core.values.plan import Plan

_SCALE_BYTES = 4
OUTPUT = "logits"


class OnnxModel:
    """A model read by `lampq.adapters.onnx.read`; see `lampq.core.measuring.model.Model` for the contract.

    Attributes:
        path: The .onnx file.
        format: "onnx".
        grid: "auto": a weight takes whichever grid suits it.
        coding: How its weights become codes.
        skipped: (name, reason) of every weight that is left alone.
        sites: Where the layers stand in the graph, for writers.
        input_specs: Shape and type of the input.
        heads: How the output is judged.
    """

    format = "onnx"
    grid = "auto"

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._engine = Engine(opened)
        self._replaced: dict[str, np.ndarray] = {}
        self.coding = Coding()
        self.path: Path = opened.container.path
        self.skipped = opened.skipped
        self.sites = opened.sites
        self.input_specs = (opened.spec,)
        self.heads = (Head(name=OUTPUT, role=CLASSES),)

    @property
    def output_specs(self) -> tuple[OutputSpec, ...]:
        """The logits."""
        return (OutputSpec(name=OUTPUT, shape=None),)

    def with_heads(self, choices: Sequence[HeadChoice]) -> OnnxModel:
        """The same model with its output judged another way."""
        raise AdapterError(f"{self.path} has no choice of outputs yet")

    @property
    def input_spec(self) -> InputSpec:
        """The only input.

        Raises:
            AdapterError: There are several.
        """
        return only_input(self.input_specs, str(self.path))

    @property
    def digest(self) -> str:
        """SHA-256 of the file and its external data, of the stored weights whatever has been replaced."""
        return self._opened.container.digest

    def layers(self) -> tuple[Layer, ...]:
        """Records of the quantizable weights in the order the model uses them, measured once.

        Raises:
            AdapterError: The model has none, or one holds NaN or infinity.
        """
        stored = self._engine.layers
        if not self._replaced:
            return stored
        return tuple(
            self._engine.measure(index, self._replaced[layer.name]) if layer.name in self._replaced else layer
            for index, layer in enumerate(stored)
        )

    def weight(self, name: str) -> np.ndarray:
        """The array of a layer, float32, in the shape of its record: a copy, to be kept or changed at will.

        Raises:
            AdapterError: No layer is so called.
        """
        self._engine.site(name)
        replaced = self._replaced.get(name)
        return self._engine.stored(name) if replaced is None else replaced.copy()

    def run(self, batch: BatchLike) -> Batch:
        """Logits of a batch.

        Args:
            batch: Preprocessed inputs, samples first.

        Returns:
            `logits`, float32, shape (samples, classes). Where the model ends in a softmax, its logarithm.

        Raises:
            AdapterError: The batch does not fit, the runtime fails, or the logits are not finite.
        """
        chunks = self._split(batch)
        if self._replaced:
            chain = self._engine.chain
            states = chain.start(chunk.array for chunk in chunks)
            logits = self._join(chain.finish(states, 0, chain.feeds(self._replaced)), chunks)
        else:
            logits = self._join(self._engine.run([chunk.array for chunk in chunks]), chunks)
        if not self._replaced:
            self._engine.check_independence(chunks[0].array, logits)
        return Batch.of(logits, name=OUTPUT)

    def with_weights(self, weights: Mapping[str, np.ndarray]) -> OnnxModel:
        """The same model with some weights replaced; nothing is copied or reloaded.

        Args:
            weights: Arrays by layer name, in the shape of the layer's record.

        Raises:
            AdapterError: A name is unknown or a shape does not fit.
        """
        model = copy.copy(self)
        model._replaced = self._replaced | {
            name: self._fitting(name, array) for name, array in weights.items()
        }
        return model

    def with_coding(self, coding: Coding) -> OnnxModel:
        """The same model with its weights turned into codes another way."""
        model = copy.copy(self)
        model.coding = coding
        return model

    def sweep(
        self, batch: BatchLike, candidates: Iterable[tuple[str, int, np.ndarray]]
    ) -> Iterator[tuple[str, int, Batch]]:
        """Logits with one weight replaced at a time.

        Activations in front of a layer's segment are kept for the whole batch and advanced when a candidate
        of a later segment arrives, so candidates in model order cost about half the full runs. Any order is
        right.

        Args:
            batch: Preprocessed inputs, samples first.
            candidates: (layer, option, array), drawn one by one.

        Yields:
            (layer, option, logits) with logits as `run` gives them, but not checked for NaN.

        Raises:
            AdapterError: The batch or a candidate does not fit, or the runtime fails.
        """
        chunks = self._split(batch)
        chain = self._engine.chain
        around = chain.feeds(self._replaced)
        states, at = chain.start(chunk.array for chunk in chunks), 0
        for name, option, array in candidates:
            weights = self._replaced | {name: self._fitting(name, array)}
            feeds = around | chain.feeds(weights, of=(name,))
            first = chain.places[name][0]
            if first < at:
                states, at = chain.start(chunk.array for chunk in chunks), 0
            for index in range(at, first):
                chain.advance(states, index, around)
            at = first
            yield name, option, Batch.of(self._join(chain.finish(states, first, feeds), chunks), name=OUTPUT)

    def taps(self, batch: BatchLike) -> Iterator[tuple[str, np.ndarray, int]]:
        """Inputs of the layers, in pieces.

        Args:
            batch: Preprocessed inputs, samples first.

        Yields:
            Layer name; some of its input, one piece per place it is used in and chunk of the batch: rows
            (R, in_features) for a linear layer, (samples, channels, ...) for a convolution; and how often a
            sample uses each weight. Embedding tables have no such input and are left out.

        Raises:
            AdapterError: The batch does not fit, or the runtime fails.
        """
        chunks = self._split(batch)
        positions = self._engine.usage(chunks[0].array.shape[1:]).positions
        chain = self._engine.chain
        states = chain.start(chunk.array for chunk in chunks)
        for site, number, index, array in chain.taps(states, chain.feeds(self._replaced)):
            chunk = chunks[index]
            array = without_padding(array, chunk.count, len(chunk.array))
            slot = site.uses[number].slot
            if slot.form == "linear":
                array = np.moveaxis(array, slot.contraction, -1).reshape(-1, slot.in_features)
            yield site.name, array, positions[site.name]

    def payload_bytes(self, layer: Layer, bits: int, container: str) -> int | None:
        """Stored bytes of a layer's codes and scales at a width; None where there is no such form."""
        if container not in ("bitplane", "int8") or not 2 <= bits <= 8:
            return None
        codes = (
            packing.payload_bytes(layer.size, bits) if container == "bitplane" and bits < 8 else layer.size
        )
        return codes + _SCALE_BYTES * scale_count(layer.shape, layer.channel_axis, self.coding.block)

    def rest_bytes(self, *, activations: bool = False) -> int:
        """Bytes of a quantized file, at most, beside the payload: what stays, and the nodes that unpack the weights."""
        from lampq.adapters.onnx import size
        from lampq.adapters.onnx.write import Recipe

        names = [site.name for site in self.sites]
        # Seven bits take the most nodes, three planes, and quantized inputs some more: a budget in bytes is kept
        # whatever the widths.
        widest = Recipe(
            bits=dict.fromkeys(names, 7),
            container="bitplane",
            block=self.coding.block,
            activations={},
            outputs={},
        )
        payload = sum(
            size.layer_bytes(
                math.prod(site.shape),
                scale_count(site.shape, site.channel_axis, self.coding.block),
                7,
                "bitplane",
            )
            for site in self.sites
        )
        inputs = sum(
            size.graph_bytes(site, 7, "bitplane", quantized_input=True)
            - size.graph_bytes(site, 7, "bitplane", quantized_input=False)
            for site in self.sites
        )
        return size.file_bytes(self, widest) - payload + inputs + size.SHARED_BYTES

    def file_bytes(self) -> int:
        """Size of the file and its external data."""
        return self._opened.container.size_bytes

    def stored_bits(self) -> dict[str, tuple[int, str]]:
        """Width and container of the weights that a file of lampq holds, by layer name; {} for others."""
        from lampq.adapters.onnx.bits import read_bits

        return read_bits(self.path)

    def fresh(self) -> tuple[ir.Model, tuple[Site, ...]]:
        """A graph of one's own to change, normalized, with its sites, named and ordered as in `sites`."""
        opened = self._opened
        graph = flow.trace(flow.normalize(opened.container.parse()), opened.flow.output.name)
        found, _ = sites.find(graph, embeddings=opened.embeddings)
        return graph.model, found

    @property
    def flow(self) -> flow.Flow:
        """The normalized graph, which nothing changes."""
        return self._opened.flow

    def fixed_batch(self, shape: tuple[int, ...]) -> int | None:
        """The number of samples per run that the graph is fixed to, or None.

        Args:
            shape: Shape of a sample.
        """
        return self._engine.fixed_batch(shape)

    def fisher(
        self,
        batch: Batch,
        readout: Readout,
        *,
        truth: np.ndarray | None = None,
        draws: int = 2,
        seed: int = 0,
        samples: np.ndarray | None = None,
        progress: Progress = quiet,
    ) -> Traces:
        """Fisher traces from gradients; see `lampq.core.measuring.traces.Differentiable`."""
        from lampq.adapters.onnx.gradients import fisher_traces

        found = fisher_traces(
            self,
            batch,
            readout,
            labels="auto" if truth is None else "data",
            draws=draws,
            seed=seed,
            truth=truth,
            samples=samples,
            progress=progress,
        )
        return Traces(kind=TRUE if truth is None else EMPIRICAL, weight=found)

    def write(self, plan: Plan, path: Path, *, calibration: BatchLike | None = None) -> float:
        """Write the model quantized by a plan as ONNX, then run and verify what was written.

        Ranges of inputs are in the plan, so calibration inputs are not looked at.

        Returns:
            The largest difference of its outputs to those of the fake-quantized model, relative to the largest one.
        """
        from lampq.adapters.onnx.write import write

        return write(self, plan, path).relative_error

    def _split(self, batch: BatchLike) -> list[batches.Chunk]:
        batch = batches.check(np.asarray(Batch.of(batch)), self.input_spec, str(self.path))
        return self._engine.split(batch)

    def _join(self, outputs: list[np.ndarray], chunks: list[batches.Chunk]) -> np.ndarray:
        return batches.join(
            outputs, chunks, log_probabilities=self._opened.flow.log_probabilities, name=str(self.path)
        )

    def _fitting(self, name: str, array: np.ndarray) -> np.ndarray:
        shape = self._engine.site(name).shape
        if tuple(array.shape) != shape:
            raise AdapterError(
                f"{self.path}: layer {name} has shape {shape}, its new weight {tuple(array.shape)}"
            )
        return np.ascontiguousarray(array, dtype=np.float32)
