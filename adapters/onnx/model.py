"""An ONNX model as the core sees it: layers, weights, runs with weights replaced, activations."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lampq.adapters.onnx import batches, heads
from lampq.adapters.onnx.engine import Engine
from lampq.adapters.onnx.opened import Opened
from lampq.adapters.onnx.records import Records
from lampq.adapters.onnx.variant import Variant
from lampq.adapters.padding import without_padding
from lampq.adapters.replaced import fitting
from lampq.core.measuring.traces import Traces
from lampq.core.quantizing.coding import Coding
from lampq.core.values import packing
from lampq.core.values.batch import Batch, BatchLike
from lampq.core.values.blocks import scale_count
from lampq.core.values.checked_inputs import checked_inputs
from lampq.core.values.head import HeadChoice
from lampq.core.values.input_spec import InputSpec, only_input
from lampq.core.values.layer import Layer
from lampq.core.values.progress import Progress, quiet

if TYPE_CHECKING:
    from lampq.core.measuring.setting import RoundedLayers
    from lampq.core.readouts.draws import Draws
    from lampq.core.readouts.readout import Readout
    from lampq.core.values.option import Option
    from lampq.core.values.overhead import Overhead
    from lampq.core.values.plan import Plan

_SCALE_BYTES = 4
_CHECKED_SAMPLES = 2


class OnnxModel:
    """A model read by `lampq.adapters.onnx.read`; see `lampq.core.measuring.model.Model` for the contract.

    Attributes:
        path: The .onnx file.
        format: "onnx".
        grid: "auto": a weight takes whichever grid suits it.
        coding: How its weights become codes.
        skipped: (name, reason) of every weight that is left alone.
        skipped_bytes: What they take in the file, by name.
        sites: Where the layers stand in the graph, for writers.
        input_specs: Names, shapes and types of the inputs that must be fed.
        output_specs: The outputs, and the inner tensors that stand for those behind discontinuous operators.
        heads: What they mean.
    """

    format = "onnx"
    grid = "auto"

    def __init__(self, opened: Opened) -> None:
        self._records = Records(opened)
        self._replaced: dict[str, np.ndarray] = {}
        self.coding = Coding()
        self.path: Path = opened.container.path
        self.skipped = tuple((left.name, left.reason) for left in opened.left)
        self.skipped_bytes = {left.name: left.size_bytes for left in opened.left}
        self.sites = opened.sites
        self.input_specs = opened.specs
        self._judge(opened)

    def _judge(self, opened: Opened) -> None:
        self._opened = opened
        self._engine = Engine(opened, self._records)
        self.output_specs = opened.outputs
        self.heads = opened.heads

    def with_heads(self, choices: Sequence[HeadChoice]) -> OnnxModel:
        """The same model with some outputs judged another way; a name may be that of any inner tensor.

        Raises:
            AdapterError: No output or tensor is so called, or it cannot be judged.
        """
        model = copy.copy(self)
        model._judge(heads.choose(self._opened, choices))
        return model

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
            AdapterError: One holds NaN or infinity.
        """
        stored = self._records.layers
        if not self._replaced:
            return stored
        return tuple(
            self._records.measure(index, self._replaced[layer.name])
            if layer.name in self._replaced
            else layer
            for index, layer in enumerate(stored)
        )

    def weight(self, name: str) -> np.ndarray:
        """The array of a layer, float32, in the shape of its record: a copy, to be kept or changed at will.

        Raises:
            AdapterError: No layer is so called.
        """
        return self.variant.weight(name)

    def run(self, batch: BatchLike) -> Batch:
        """The judged outputs of a batch, by name.

        Args:
            batch: Preprocessed inputs by name, samples first; a lone array goes to the only input.

        Returns:
            Float32, samples first, in the groups of the batch; logits where the file ends in a softmax or sigmoid.

        Raises:
            AdapterError: The batch does not fit, no output is judged, or the runtime fails.
        """
        chunks = self._split(batch)
        if self._replaced:
            chain = self._engine.chain
            states = chain.start(map(self._engine.feeds, chunks))
            return self._engine.join(chain.finish(states, 0, chain.feeds(self._replaced)), chunks)
        outputs = self._engine.join(self._engine.run(chunks), chunks)
        self._engine.check_independence(chunks[0], outputs)
        return outputs

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
        """Outputs with one weight replaced at a time.

        Activations in front of a layer's segment are kept for the whole batch and advanced when a candidate
        of a later segment arrives, so candidates in model order cost about half the full runs. Any order is
        right.

        Args:
            batch: Preprocessed inputs by name, samples first.
            candidates: (layer, option, array), drawn one by one.

        Yields:
            (layer, option, outputs) with outputs as `run` gives them.

        Raises:
            AdapterError: The batch or a candidate does not fit, or the runtime fails.
        """
        chunks = self._split(batch)
        chain = self._engine.chain
        around = chain.feeds(self._replaced)
        states, at = chain.start(map(self._engine.feeds, chunks)), 0
        for name, option, array in candidates:
            weights = self._replaced | {name: self._fitting(name, array)}
            feeds = around | chain.feeds(weights, of=(name,))
            first = chain.places[name][0]
            if first < at:
                states, at = chain.start(map(self._engine.feeds, chunks)), 0
            for index in range(at, first):
                chain.advance(states, index, around)
            at = first
            yield name, option, self._engine.join(chain.finish(states, first, feeds), chunks)

    def taps(self, batch: BatchLike) -> Iterator[tuple[str, np.ndarray, int]]:
        """Inputs of the layers, in pieces.

        Args:
            batch: Preprocessed inputs by name, samples first.

        Yields:
            Layer name; some of its input, one piece per place it is used in and chunk of the batch: rows
            (R, in_features) for a linear layer, (samples, channels, ...) for a convolution; and how often a
            sample uses each weight. Tables, recurrent weights and those inside of bodies have no such input and
            are left out.

        Raises:
            AdapterError: The batch does not fit, or the runtime fails.
        """
        chunks = self._split(batch)
        positions = [self._records.usage(batches.sample_shapes(c.arrays)).positions for c in chunks]
        chain = self._engine.chain
        states = chain.start(map(self._engine.feeds, chunks))
        for site, number, index, array in chain.taps(states, chain.feeds(self._replaced)):
            array = without_padding(array, chunks[index].count, chunks[index].size)
            slot = site.uses[number].slot
            if slot.form == "linear":
                array = np.moveaxis(array, slot.contraction, -1).reshape(-1, slot.in_features)
            yield site.name, array, positions[index][site.name]

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

        return size.rest_bytes(self, activations=activations)

    def overhead(
        self,
        layers: Sequence[Layer],
        options: Sequence[Option],
        container: str,
        *,
        steps: np.ndarray | None = None,
        ranges: np.ndarray | None = None,
    ) -> Overhead:
        """What a file holds beside codes and scales; see `lampq.core.measuring.model.Sized`."""
        from lampq.adapters.onnx import size

        return size.overhead(self, layers, options, container, steps=steps)

    def file_bytes(self) -> int:
        """Size of the file and its external data."""
        return self._opened.container.size_bytes

    def stored_bits(self) -> dict[str, tuple[int, str]]:
        """Width and container of the weights that a file of lampq holds, by layer name; {} for others."""
        from lampq.adapters.onnx.bits import read_bits

        return read_bits(self.path)

    @property
    def variant(self) -> Variant:
        """The file and the weights that differ from it, for the other files of this folder."""
        return Variant(opened=self._opened, records=self._records, replaced=self._replaced)

    def fisher(
        self, batch: BatchLike, readout: Readout, draws: Draws, *, progress: Progress = quiet
    ) -> Traces:
        """Fisher traces from gradients; see `lampq.core.measuring.traces.Differentiable`."""
        from lampq.adapters.onnx.gradients import rebuilt

        return rebuilt(self, batch).fisher(readout, draws, progress=progress)

    def gradient_rows(
        self,
        batch: BatchLike,
        candidates: RoundedLayers,
        readout: Readout,
        draws: Draws,
        *,
        progress: Progress = quiet,
    ) -> Iterator[dict[str, np.ndarray]]:
        """Changes of the outputs to first order; see `lampq.core.measuring.gradient_rows.GradientRows`."""
        from lampq.adapters.onnx.gradients import rebuilt

        return rebuilt(self, batch).rows(candidates, readout, draws, progress=progress)

    def relevance(self, batch: BatchLike, *, progress: Progress = quiet) -> dict[str, float]:
        """Relevance of the layers; see `lampq.core.measuring.relevance.Relevant`."""
        from lampq.adapters.onnx.gradients import rebuilt

        return rebuilt(self, batch).relevance(progress=progress)

    def write(self, plan: Plan, path: Path, *, calibration: BatchLike | None = None) -> float:
        """Write the model quantized by a plan as ONNX, then run and verify what was written.

        Ranges of inputs are in the plan: of calibration inputs two samples are looked at, to verify with.

        Returns:
            The largest difference of its outputs to those of the fake-quantized model, relative to the largest one.
        """
        from lampq.adapters.onnx.write import write

        few = None
        if calibration is not None:
            checked = checked_inputs(calibration, self.input_specs, str(self.path))
            few = checked.take(range(min(_CHECKED_SAMPLES, checked.samples)))
        return write(self, plan, path, batch=few).relative_error

    def _split(self, batch: BatchLike) -> list[batches.Chunk]:
        return self._engine.split(checked_inputs(batch, self.input_specs, str(self.path)))

    def _fitting(self, name: str, array: np.ndarray) -> np.ndarray:
        return fitting(array, self._records.site(name).shape, layer=name, whose=str(self.path))
