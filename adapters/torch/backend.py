"""What a model does that is a PyTorch module (`adapters.backend`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from lampq.adapters.backed_model import BackedModel
from lampq.adapters.replaced import fitting
from lampq.adapters.sizing import Sizing
from lampq.adapters.torch import compressed, packed_records, size, writing
from lampq.adapters.torch.chunks import join, real_rows
from lampq.adapters.torch.module_gradients import ModuleGradients
from lampq.adapters.torch.sweep import Change, forward, sweep
from lampq.adapters.torch.taps import taps
from lampq.adapters.torch.variant import Variant
from lampq.adapters.torch.walk import TorchWalk
from lampq.adapters.torch.windows import windows
from lampq.core.measuring.setting import Setting
from lampq.core.measuring.walk import Passes, Walk
from lampq.core.quantizing.coding import Coding
from lampq.core.values.batch import Batch, BatchLike
from lampq.core.values.blocks import scale_count
from lampq.core.values.head import Head, HeadChoice
from lampq.core.values.input_spec import InputSpec
from lampq.core.values.layer import Layer
from lampq.core.values.output_spec import OutputSpec
from lampq.core.values.window import Window

if TYPE_CHECKING:
    from lampq.core.values.overhead import Overhead
    from lampq.core.values.plan import Plan

Value: TypeAlias = np.ndarray | Setting
AnyTorchModel: TypeAlias = BackedModel[Variant, Value]


class TorchBackend:
    """A PyTorch module.

    Args:
        variant: The module, and what differs from it.
    """

    format = "torch"

    def __init__(self, variant: Variant) -> None:
        self.variant = variant
        self.path = variant.provenance.path
        # The form of Hugging Face directories has whole numbers alone.
        self.grid = "mid_tread" if variant.provenance.hugging_face else "auto"

    @property
    def name(self) -> str:
        """The text it was read with."""
        return self.variant.runtime.name

    @property
    def digest(self) -> str:
        """SHA-256 of names, types, shapes and values of all tensors as read."""
        return self.variant.runtime.digest

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """(parameter, reason) of every weight of two or more axes that stays as it is."""
        return tuple(self.variant.runtime.survey.skipped.items())

    @property
    def input_specs(self) -> tuple[InputSpec, ...]:
        """The inputs, those that data may leave out last."""
        return self.variant.input_specs

    @property
    def output_specs(self) -> tuple[OutputSpec, ...]:
        """The outputs, and the inner tensors that are judged."""
        return self.variant.runtime.specs.outputs

    @property
    def heads(self) -> tuple[Head, ...]:
        """What they mean."""
        return self.variant.heads

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Records of the weights as read."""
        return self.variant.records.layers

    @property
    def replaced(self) -> Collection[str]:
        """Layers with other weights."""
        stored, tensors = self.variant.runtime.weights, self.variant.tensors
        return {name for name, own in self.variant.parameters.items() if tensors[own] is not stored[own]}

    def judging(self, choices: Sequence[HeadChoice]) -> TorchBackend:
        """The same module with some outputs judged another way."""
        return TorchBackend(self.variant.judging(choices))

    def fitted(self, name: str, value: Value) -> Value:
        """A weight of the right shape, alone or in a setting of a layer; or a setting of a product."""
        if not isinstance(value, Setting):
            return self._weight(name, value)
        if "@" in name:
            self.variant.records.product(name)
        elif value.weight is not None:
            return dataclasses.replace(value, weight=self._weight(name, value.weight))
        return value

    def _weight(self, name: str, array: np.ndarray) -> np.ndarray:
        return fitting(array, self.variant.tensor(name).shape, layer=name, whose=self.name)

    def replacing(self, values: Mapping[str, Value]) -> TorchBackend:
        """The same module with some layers and products changed."""
        return TorchBackend(self.variant.replacing(values))

    def weight(self, name: str) -> np.ndarray:
        """The weight of a layer, float32."""
        return self.variant.weight(name)

    def measure(self, name: str) -> Layer:
        """The record of a layer with its weight."""
        return self.variant.records.measure(name, self.weight(name))

    def check_coding(self, coding: Coding) -> None:
        """A folder keeps codes on a uniform grid, a packed file whatever there is."""
        if self.variant.in_folder:
            coding.refuse_form("Hugging Face folders")

    def checked(self, batch: BatchLike) -> Batch:
        """Inputs by name, a lone array the main one; the first of them tell what the module is fed."""
        inputs = Batch.of(batch, name=self.variant.runtime.signature.main)
        self.variant.runtime.learn(inputs)
        return inputs

    def run(self, inputs: Batch) -> Batch:
        """The judged outputs."""
        variant, heads = self.variant, self.variant.judged
        chunks = list(variant.runtime.chunks(inputs))
        outputs = [
            real_rows(
                forward(variant.runtime, variant.tensors, variant.rounding, chunk.inputs),
                chunk,
                heads,
                self.name,
            )
            for chunk in chunks
        ]
        return join(outputs, [chunk.group for chunk in chunks], heads, self.name)

    def sweep(
        self, inputs: Batch, candidates: Iterable[tuple[str, int, Value]]
    ) -> Iterator[tuple[str, int, Batch]]:
        """Outputs with one layer or product changed at a time, each mini-batch in front of operators."""
        variant = self.variant
        changes = (((name, option), variant.change(name, value)) for name, option, value in candidates)
        swept = sweep(variant.runtime, variant.tensors, inputs, changes, variant.judged, variant.rounding)
        for (name, option), outputs in swept:
            yield name, option, outputs

    def release(self) -> None:
        """Nothing: the module is the model."""

    def taps(self, inputs: Batch) -> Iterator[tuple[str, np.ndarray, int]]:
        """Inputs of the layers, as they are before they are rounded themselves."""
        return taps(self.variant, inputs)

    def windows(self) -> dict[str, Window]:
        """What convolutions see."""
        shapes = {name: self.variant.tensors[own].shape for name, own in self.variant.parameters.items()}
        return windows({name: self.variant.uses(name) for name in shapes}, shapes)

    def walk(self, model: AnyTorchModel, inputs: Batch) -> Walk:
        """One pass that stops at every layer, where no batch takes a course of its own."""
        variant = self.variant
        if variant.runtime.obstacle is not None:
            return Passes(model, inputs)

        def change(name: str, value: Value) -> Change:
            return variant.change(name, self.fitted(name, value))

        return TorchWalk(variant, list(variant.runtime.chunks(inputs)), change)

    def gradients(self, model: AnyTorchModel, inputs: Batch) -> ModuleGradients:
        """The module itself."""
        return ModuleGradients(variant=self.variant, inputs=inputs)

    def payload_bytes(self, model: AnyTorchModel, layer: Layer, bits: int, container: str) -> int | None:
        """Bytes of codes and scales."""
        if self.variant.in_folder:
            return compressed.stored_bytes(model, layer, bits)
        scales = scale_count(layer.shape, layer.channel_axis, model.coding.block)
        return packed_records.payload_bytes(layer.size, scales, bits, container)

    def rest_bytes(self, model: AnyTorchModel, *, activations: bool) -> int:
        """All other tensors, names and descriptions."""
        return size.rest_bytes(model, activations=activations)

    def overhead(self, model: AnyTorchModel, sizing: Sizing) -> Overhead:
        """What a file or folder holds beside codes and scales."""
        return size.overhead(model, sizing)

    def file_bytes(self) -> int:
        """Bytes of the files that hold the weights, or of all tensors where they come from no file."""
        stored = self.variant.provenance.file_bytes()
        return sum(t.nbytes for t in self.variant.runtime.weights.values()) if stored is None else stored

    def stored_bits(self) -> Mapping[str, tuple[int, int | None]]:
        """Widths of the weights that are stored quantized, and of their inputs, by name."""
        return dict(self.variant.provenance.stored)

    def write(self, model: AnyTorchModel, plan: Plan, path: Path, calibration: BatchLike | None) -> float:
        """Write a packed file or a folder. Ranges of inputs are in the plan: calibration inputs are not looked at."""
        return writing.write(model, plan, path)
