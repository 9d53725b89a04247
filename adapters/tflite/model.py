"""A TFLite model as the core sees it: layers, weights, runs with weights replaced, activations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lampq.adapters.tflite import containers
from lampq.adapters.tflite.gradients import rebuilt
from lampq.adapters.tflite.graph import Graph
from lampq.adapters.tflite.heads import chosen
from lampq.adapters.tflite.variant import Variant
from lampq.adapters.tflite.weights import Survey, Weight
from lampq.adapters.tflite.write import rest_bytes, write
from lampq.core.measuring.encoding import coded_for, encoder
from lampq.core.measuring.traces import Traces
from lampq.core.quantizing.coding import Coding
from lampq.core.quantizing.quantizer import Quantized
from lampq.core.values.errors import AdapterError
from lampq.core.values.head import Head
from lampq.core.values.input_spec import InputSpec, only_input
from lampq.core.values.layer import Layer
from lampq.core.values.output_spec import OutputSpec
from lampq.core.values.progress import Progress, quiet

if TYPE_CHECKING:
    from lampq.core.measuring.setting import RoundedLayers
    from lampq.core.readouts.draws import Draws
    from lampq.core.readouts.readout import Readout
    from lampq.core.values.batch import Batch, BatchLike
    from lampq.core.values.head import HeadChoice
    from lampq.core.values.plan import Plan


class TfliteModel:
    """A model read by `lampq.adapters.tflite.read`; see `lampq.core.measuring.model.Model` for the contract.

    Attributes:
        path: The .tflite file.
        format: "tflite".
        grid: "narrow": codes are symmetric around zero, so that every kernel can multiply them.
        coding: How its weights become codes; the format stores one scale per output channel.
        skipped: (name, reason) of every weight that is left alone.
        heads: What its outputs mean.
    """

    format = "tflite"
    grid = "narrow"

    def __init__(self, variant: Variant, coding: Coding | None = None) -> None:
        self._variant = variant
        self._opened = variant.opened
        self.coding = coding or Coding()
        self.path: Path = self._opened.path
        self.skipped = self._opened.survey.skipped
        self.heads: tuple[Head, ...] = variant.judgement.heads

    @property
    def survey(self) -> Survey:
        """What is known of all weights, the quantized ones included."""
        return self._opened.survey

    @property
    def graph(self) -> Graph:
        """The decoded file."""
        return self._opened.graph

    @property
    def weights(self) -> Mapping[str, Weight]:
        """The quantizable weights by layer name: where they lie and who uses them."""
        return self._opened.weights

    @property
    def input_specs(self) -> tuple[InputSpec, ...]:
        """Names, shapes and types of the inputs; quantized ones are fed with numbers."""
        return tuple(port.spec for port in self._opened.interface.inputs)

    @property
    def output_specs(self) -> tuple[OutputSpec, ...]:
        """The outputs, and the inner tensors that are judged in place of some or beside them."""
        return tuple(output.spec for output in self._variant.judgement.outputs)

    @property
    def input_spec(self) -> InputSpec:
        """The only input.

        Raises:
            AdapterError: There are several.
        """
        return only_input(self.input_specs, str(self.path))

    def with_heads(self, choices: Sequence[HeadChoice]) -> TfliteModel:
        """The same model with some outputs judged another way; a name may be that of any inner tensor of numbers.

        Raises:
            AdapterError: No output or tensor is so called; lists the outputs.
            RecordError: The role cannot be.
        """
        variant = self._variant
        judgement = chosen(variant.judgement, self._opened.outputs, self.input_specs, choices)
        return TfliteModel(Variant(self._opened, judgement, variant.replaced), self.coding)

    @property
    def digest(self) -> str:
        """SHA-256 of the file, of the stored weights whatever has been replaced."""
        return self._opened.digest

    def layers(self) -> tuple[Layer, ...]:
        """Records of the float weights in the order the model uses them, measured once.

        A weight into which the converter has folded the scale of a normalization has the fingerprint of the
        weight before that, where the scale is known; everything else is of the weight as stored.

        Raises:
            AdapterError: A weight holds NaN or infinity.
        """
        replaced = self._variant.replaced
        return tuple(
            self._opened.measure(self._opened.weights[layer.name], replaced[layer.name])
            if layer.name in replaced
            else layer
            for layer in self._opened.layers
        )

    def weight(self, name: str) -> np.ndarray:
        """The array of a layer, float32, in the shape of its record: a copy, to be kept or changed at will.

        Raises:
            AdapterError: No layer is so called.
        """
        return np.array(self._variant.values(name))

    def stored_bits(self) -> dict[str, tuple[int, str]]:
        """Width and container of the weights that are quantized already, by name.

        The width is that of the container: codes of 3 bits in one of 4 are not told from codes of 4.
        """
        stored = self._opened.survey.stored
        return {n: (bits, containers.BYTES if bits == 8 else containers.DENSE) for n, bits in stored.items()}

    def file_bytes(self) -> int:
        """Bytes of the file."""
        return len(self._opened.data)

    def rest_bytes(self, *, activations: bool = False) -> int:
        """Bytes of a quantized file that no plan changes: graph, biases, other constants, and padding.

        Args:
            activations: Whether inputs of layers are quantized too.
        """
        return rest_bytes(self._opened, fixed=activations)

    def payload_bytes(self, layer: Layer, bits: int, container: str) -> int | None:
        """Bytes of a layer's codes and scales; None where no container fits the width.

        Where no judged output depends on a layer (it is of another signature, or behind an operator that the runtime
        lacks), nothing can tell what few bits would do to it, and it keeps 8.

        Args:
            layer: The layer.
            bits: 2, 4 or 8, as the operator allows; with container `int8`, 2 to 8.
            container: `bitplane`, here the containers of 2, 4 and 8 bits, or `int8`.

        Raises:
            AdapterError: The layer or container is unknown.
        """
        weight = self._variant.named(layer.name)
        blind = bool(self._variant.read) and not self._variant.reaches(weight)
        if not containers.offered(weight, bits, container) or (blind and bits != 8):
            return None
        return containers.payload_bytes(weight, bits, container)

    def run(self, batch: BatchLike) -> Batch:
        """The judged outputs of a batch, canonical: logits where the file ends in a softmax or sigmoid.

        Args:
            batch: Preprocessed inputs by name, samples first; a lone array goes to the only input.

        Returns:
            Float32, samples first, in the groups of the batch.

        Raises:
            AdapterError: The batch does not fit, the runtime fails, or no output is judged.
        """
        return self._variant.run(batch)

    def with_weights(self, weights: Mapping[str, np.ndarray]) -> TfliteModel:
        """The same model with some weights replaced.

        Args:
            weights: Arrays by layer name, in the shape of the layer's record.

        Raises:
            AdapterError: A name is unknown or a shape does not fit.
        """
        return TfliteModel(self._variant.with_weights(weights), self.coding)

    def with_coding(self, coding: Coding) -> TfliteModel:
        """The same model with its weights turned into codes another way.

        Raises:
            AdapterError: Blocks are asked for, and the format stores one scale per output channel.
        """
        if coding.block is not None:
            raise AdapterError(
                f"{self.path}: TFLite stores one scale per output channel; plan without --block"
            )
        return TfliteModel(self._variant, coding)

    def sweep(
        self, batch: BatchLike, candidates: Iterable[tuple[str, int, np.ndarray]]
    ) -> Iterator[tuple[str, int, Batch]]:
        """Outputs with one weight replaced at a time.

        Candidates in model order cost about half the full runs; any order is right.

        Args:
            batch: Preprocessed inputs by name, samples first.
            candidates: (layer, option, array), drawn one by one.

        Yields:
            (layer, option, outputs) with outputs as `run` gives them.

        Raises:
            AdapterError: The batch or a candidate does not fit, or the runtime fails.
        """
        return self._variant.sweep(batch, candidates)

    def taps(self, batch: BatchLike) -> Iterator[tuple[str, np.ndarray, int]]:
        """Inputs of the layers, in pieces.

        Args:
            batch: Preprocessed inputs by name, samples first.

        Yields:
            Layer name, its input for one native batch (one piece per place it is used in), and how often a
            sample uses each weight in all places together. Layers that no judged output depends on, of other
            signatures, and tables are left out.

        Raises:
            AdapterError: The batch does not fit, or the runtime fails.
        """
        return self._variant.taps(batch)

    def fisher(
        self, batch: BatchLike, readout: Readout, draws: Draws, *, progress: Progress = quiet
    ) -> Traces:
        """Fisher traces from gradients; see `lampq.core.measuring.traces.Differentiable`."""
        return rebuilt(self._variant, batch).fisher(readout, draws, progress=progress)

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
        return rebuilt(self._variant, batch).rows(candidates, readout, draws, progress=progress)

    def relevance(self, batch: BatchLike, *, progress: Progress = quiet) -> dict[str, float]:
        """Relevance of the layers; see `lampq.core.measuring.relevance.Relevant`."""
        return rebuilt(self._variant, batch).relevance(progress=progress)

    def write(self, plan: Plan, path: Path, *, calibration: BatchLike | None = None) -> None:
        """Write the model quantized by a plan, run the file, compare it with the fake-quant reference.

        Layers whose plan gives their input no width are stored for dynamic int8 activations where an operator
        multiplies codes, else as codes that are made numbers when the file is loaded; so are convolutions and products
        where rounding their inputs while running would make other outputs of it. Where the plan gives 8 bits, inputs
        and outputs are quantized with fixed ranges, as far as operators take them.

        Args:
            plan: Widths by layer name.
            path: The file to write; an existing one is replaced.
            calibration: Preprocessed inputs, samples first, that fix the ranges of the outputs; needed only
                where the plan has activation widths. Without them verification runs on random inputs.

        Raises:
            AdapterError: The file computes something else than it should, or cannot be written; nothing is
                left.
            PlanError: The plan names layers that the model has not.
        """
        model = coded_for(self, plan)

        def encoded(weight: Weight, bits: int) -> Quantized:
            return encoder(model, weight.name, weight.channel_axis)(bits)

        write(self._variant, encoded, plan, Path(path), calibration)
