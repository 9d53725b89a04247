"""What a format does itself; all else that a model does is written once, in `adapters.backed_model`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from lampq.adapters.sizing import Sizing
from lampq.core.measuring.traces import Traces
from lampq.core.quantizing.coding import Coding
from lampq.core.values.batch import Batch, BatchLike
from lampq.core.values.head import Head, HeadChoice
from lampq.core.values.input_spec import InputSpec
from lampq.core.values.layer import Layer
from lampq.core.values.output_spec import OutputSpec
from lampq.core.values.progress import Progress

if TYPE_CHECKING:
    from typing import Self

    from lampq.adapters.backed_model import BackedModel
    from lampq.adapters.synthetic.observation import Observer
    from lampq.core.measuring.setting import RoundedLayers
    from lampq.core.measuring.walk import Walk
    from lampq.core.readouts.draws import Draws
    from lampq.core.readouts.readout import Readout
    from lampq.core.values.overhead import Overhead
    from lampq.core.values.plan import Plan
    from lampq.core.values.window import Window

Variant = TypeVar("Variant")
Value = TypeVar("Value")


class Gradients(Protocol):
    """Some samples of a model, and what gradients tell of them."""

    def fisher(self, readout: Readout, draws: Draws, *, progress: Progress) -> Traces:
        """Fisher traces; see `lampq.core.measuring.traces.Differentiable`."""

    def rows(
        self, candidates: RoundedLayers, readout: Readout, draws: Draws, *, progress: Progress
    ) -> Iterator[dict[str, np.ndarray]]:
        """Changes of the outputs to first order; see `lampq.core.measuring.gradient_rows.GradientRows`."""

    def relevance(self, *, progress: Progress) -> dict[str, float]:
        """Relevance of the layers; see `lampq.core.measuring.relevance.Relevant`."""

    def observer(self, most: int | None) -> Observer:
        """Forward passes that show normalizations and attentions (`adapters.synthetic.observation`), of at most so many
        samples.
        """


class Backend(Protocol[Variant, Value]):
    """A model as its format has it, with some weights replaced and some outputs judged.

    A `Value` is what can take the place of a layer: an array, and where activations can be rounded a setting.

    Attributes:
        path: The file.
        format: Name of the format.
        grid: Grid that weights are quantized on, see `core.quantizing.quantizer`.
        variant: The same for the functions of its format.
    """

    path: Path
    format: str
    grid: str
    variant: Variant

    @property
    def name(self) -> str:
        """What it is called in messages."""

    @property
    def digest(self) -> str:
        """SHA-256 of the file, of the stored weights whatever has been replaced."""

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """(name, reason) of every weight that is left alone."""

    @property
    def input_specs(self) -> tuple[InputSpec, ...]:
        """Names, shapes and types of the inputs that must be fed."""

    @property
    def output_specs(self) -> tuple[OutputSpec, ...]:
        """The outputs, and the inner tensors that are judged in place of some or beside them."""

    @property
    def heads(self) -> tuple[Head, ...]:
        """What they mean."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Records of the stored weights, measured once."""

    @property
    def replaced(self) -> Collection[str]:
        """Layers whose weight is another than the stored one."""

    def judging(self, choices: Sequence[HeadChoice]) -> Self:
        """The same with some outputs judged another way."""

    def fitted(self, name: str, value: Value) -> Value:
        """What takes the place of a layer, as this format keeps it; refuses what has no place in it."""

    def replacing(self, values: Mapping[str, Value]) -> Self:
        """The same with some layers replaced by what is `fitted`."""

    def weight(self, name: str) -> np.ndarray:
        """The weight of a layer as it is now, float32, in the shape of its record: an array of one's own."""

    def measure(self, name: str) -> Layer:
        """The record of a layer with the weight that it has now."""

    def check_coding(self, coding: Coding) -> None:
        """Refuse codes that the format has no place for."""

    def checked(self, batch: BatchLike) -> Batch:
        """Inputs by name and of the right types; refuses what does not fit."""

    def run(self, inputs: Batch) -> Batch:
        """The judged outputs, canonical."""

    def sweep(
        self, inputs: Batch, candidates: Iterable[tuple[str, int, Value]]
    ) -> Iterator[tuple[str, int, Batch]]:
        """Outputs with one layer replaced at a time by what is `fitted`; `adapters.prefix` has the loop."""

    def release(self) -> None:
        """Let go of what it runs in and can make again at little cost, for all that share it."""

    def taps(self, inputs: Batch) -> Iterator[tuple[str, np.ndarray, int]]:
        """Inputs of the layers; see `core.measuring.model.Model.taps`."""

    def windows(self) -> Mapping[str, Window]:
        """What convolutions see, by layer, those whose weights are a kernel."""

    def walk(self, model: BackedModel[Variant, Value], inputs: Batch) -> Walk:
        """A run that stops at every layer; see `core.measuring.walk`."""

    def gradients(self, model: BackedModel[Variant, Value], inputs: Batch) -> Gradients:
        """The model with gradients, or refused where there are none."""

    def payload_bytes(
        self, model: BackedModel[Variant, Value], layer: Layer, bits: int, container: str
    ) -> int | None:
        """Bytes of codes and scales; None where there is no such form."""

    def rest_bytes(self, model: BackedModel[Variant, Value], *, activations: bool) -> int:
        """Bytes beside the payload, at most."""

    def overhead(self, model: BackedModel[Variant, Value], sizing: Sizing) -> Overhead:
        """What a file holds beside codes and scales; see `core.measuring.model.Sized`."""

    def file_bytes(self) -> int:
        """Bytes of the file and all that belongs to it."""

    def stored_bits(self) -> Mapping[str, tuple[int, str | int | None]]:
        """Width and container of the weights that are quantized already, by name."""

    def write(
        self, model: BackedModel[Variant, Value], plan: Plan, path: Path, calibration: BatchLike | None
    ) -> float | None:
        """Write the model quantized by a plan, and verify what was written."""
