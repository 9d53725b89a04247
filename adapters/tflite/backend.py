"""What a model does that is a TFLite file (`adapters.backend`)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lampq.adapters.backed_model import BackedModel
from lampq.adapters.prefix import swept
from lampq.adapters.replaced import fitting
from lampq.adapters.sizing import Sizing
from lampq.adapters.tflite import containers, gradients
from lampq.adapters.tflite.heads import chosen
from lampq.adapters.tflite.integers import BYTE
from lampq.adapters.tflite.prefix import Prefix
from lampq.adapters.tflite.variant import Variant
from lampq.adapters.tflite.weights import Weight
from lampq.adapters.tflite.windows import windows
from lampq.adapters.tflite.write import rest_bytes, write
from lampq.core.measuring.encoding import coded_for, uniform_encoder
from lampq.core.measuring.walk import Passes
from lampq.core.quantizing.coding import Coding
from lampq.core.quantizing.quantizer import Quantized
from lampq.core.values.batch import Batch, BatchLike
from lampq.core.values.errors import AdapterError
from lampq.core.values.head import Head, HeadChoice
from lampq.core.values.input_spec import InputSpec
from lampq.core.values.layer import Layer
from lampq.core.values.output_spec import OutputSpec
from lampq.core.values.overhead import Overhead
from lampq.core.values.window import Window

if TYPE_CHECKING:
    from lampq.adapters.autograd.rebuilt import Rebuilt
    from lampq.core.values.plan import Plan

TfliteModel = BackedModel[Variant, np.ndarray]
"""A model read by `lampq.adapters.tflite.read`."""

_FLOAT_BYTES = 4


class TfliteBackend:
    """A TFLite file.

    Codes are symmetric around zero ("narrow"), so that every kernel can multiply them.

    Args:
        variant: The file, with the outputs that are judged, and what is replaced.
    """

    format = "tflite"
    grid = "narrow"

    def __init__(self, variant: Variant) -> None:
        self.variant, self.opened = variant, variant.opened
        self.path, self.name = variant.opened.path, str(variant.opened.path)

    @property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return self.opened.digest

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """(name, reason) of every weight that is left alone."""
        return self.opened.survey.skipped

    @property
    def input_specs(self) -> tuple[InputSpec, ...]:
        """The inputs; quantized ones are fed with numbers."""
        return tuple(port.spec for port in self.opened.interface.inputs)

    @property
    def output_specs(self) -> tuple[OutputSpec, ...]:
        """The outputs, and the inner tensors that are judged in place of some or beside them."""
        return tuple(output.spec for output in self.variant.judgement.outputs)

    @property
    def heads(self) -> tuple[Head, ...]:
        """What they mean."""
        return self.variant.judgement.heads

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Records of the float weights.

        A weight into which the converter has folded the scale of a normalization has the fingerprint of the weight
        before that, where the scale is known; everything else is of the weight as stored.
        """
        return self.opened.layers

    @property
    def replaced(self) -> Collection[str]:
        """Layers with other weights."""
        return self.variant.replaced.keys()

    def judging(self, choices: Sequence[HeadChoice]) -> TfliteBackend:
        """The same file with some outputs judged another way."""
        variant = self.variant
        judgement = chosen(variant.judgement, self.opened.outputs, self.input_specs, choices)
        return TfliteBackend(Variant(self.opened, judgement, variant.replaced))

    def fitted(self, name: str, value: np.ndarray) -> np.ndarray:
        """A weight of the right shape, float32."""
        return fitting(value, self.variant.named(name).shape, layer=name, whose=self.name)

    def replacing(self, values: Mapping[str, np.ndarray]) -> TfliteBackend:
        """The same file with some weights replaced."""
        return TfliteBackend(self.variant.replacing(values))

    def weight(self, name: str) -> np.ndarray:
        """The weight of a layer, float32."""
        return np.array(self.variant.values(name))

    def measure(self, name: str) -> Layer:
        """The record of a layer with its weight."""
        return self.opened.measure(self.variant.named(name), self.variant.values(name))

    def check_coding(self, coding: Coding) -> None:
        """Refuse blocks and forms: the format stores codes and one scale per output channel."""
        coding.refuse_form("TFLite files")
        if coding.block is not None:
            raise AdapterError(
                f"{self.name}: TFLite stores one scale per output channel; plan without --block"
            )

    def checked(self, batch: BatchLike) -> Batch:
        """Inputs by name and of the right types."""
        return self.opened.batches.checked(batch)

    def run(self, inputs: Batch) -> Batch:
        """The judged outputs."""
        return self.variant.run(inputs)

    def sweep(
        self, inputs: Batch, candidates: Iterable[tuple[str, int, np.ndarray]]
    ) -> Iterator[tuple[str, int, Batch]]:
        """Outputs with one weight replaced at a time, a batch in front of operators."""
        return swept(Prefix(self.variant, inputs), candidates)

    def release(self) -> None:
        """Nothing: interpreters read weights where they are, and new ones are tried in another process first."""

    def taps(self, inputs: Batch) -> Iterator[tuple[str, np.ndarray, int]]:
        """Inputs of the layers."""
        return self.variant.taps(inputs)

    def windows(self) -> dict[str, Window]:
        """What convolutions see."""
        return windows(self.opened.survey.weights, self.opened.main)

    def walk(self, model: TfliteModel, inputs: Batch) -> Passes:
        """The runtime stops nowhere: a run for every layer."""
        return Passes(model, inputs)

    def gradients(self, model: TfliteModel, inputs: Batch) -> Rebuilt:
        """The graph in PyTorch."""
        return gradients.rebuilt(self.variant, inputs)

    def payload_bytes(self, model: TfliteModel, layer: Layer, bits: int, container: str) -> int | None:
        """Bytes of codes and scales, in containers of 2, 4 and 8 bits as the operator allows.

        Where no judged output depends on a layer (it is of another signature, or behind an operator that the runtime
        lacks), nothing can tell what few bits would do to it, and it keeps 8.
        """
        weight = self.variant.named(layer.name)
        blind = bool(self.variant.read) and not self.variant.reaches(weight)
        if not containers.offered(weight, bits, container) or (blind and bits != 8):
            return None
        return containers.payload_bytes(weight, bits, container)

    def rest_bytes(self, model: TfliteModel, *, activations: bool) -> int:
        """Graph, biases, other constants, and padding."""
        return rest_bytes(self.opened, BYTE if activations else None)

    def overhead(self, model: TfliteModel, sizing: Sizing) -> Overhead:
        """The same for all plans; layers that are not among these stay float."""
        quantized = {layer.name for layer in sizing.layers}
        floats = sum(_FLOAT_BYTES * layer.size for layer in self.layers if layer.name not in quantized)
        fixed = max((option.activation_bits or 0 for option in sizing.options), default=0) or None
        return Overhead(rest_bytes=rest_bytes(self.opened, fixed) + floats)

    def file_bytes(self) -> int:
        """Bytes of the file."""
        return len(self.opened.data)

    def stored_bits(self) -> dict[str, tuple[int, str | int | None]]:
        """Width and container of the weights that are quantized already, by name.

        The width is that of the container: codes of 3 bits in one of 4 are not told from codes of 4.
        """
        stored = self.opened.survey.stored
        return {n: (bits, containers.BYTES if bits == 8 else containers.DENSE) for n, bits in stored.items()}

    def write(self, model: TfliteModel, plan: Plan, path: Path, calibration: BatchLike | None) -> None:
        """Write the model, run the file, compare it with the fake-quant reference.

        Layers whose plan gives their input no width are stored for dynamic int8 activations where an operator
        multiplies codes, else as codes that are made numbers when the file is loaded; so are convolutions and products
        where rounding their inputs while running would make other outputs of it. Where the plan gives 8 or 16 bits,
        inputs and outputs are quantized with fixed ranges, as far as operators take them. Calibration inputs fix the
        ranges of the outputs; without them verification runs on random inputs.
        """
        coded = coded_for(model, plan)

        def encoded(weight: Weight, bits: int) -> Quantized:
            return uniform_encoder(coded, weight.name, weight.channel_axis)(bits)

        write(self.variant, encoded, plan, path, calibration)
