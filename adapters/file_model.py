"""The model of a file format, once for all of them: what a format does itself is its `Backend`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np

from lampq.adapters.again import Reading
from lampq.adapters.replaced import fitting
from lampq.core.measuring.traces import Traces
from lampq.core.quantizing.coding import Coding
from lampq.core.quantizing.formed import formed_bytes
from lampq.core.values.batch import Batch, BatchLike
from lampq.core.values.head import Head, HeadChoice, judged_of
from lampq.core.values.input_spec import InputSpec, only_input
from lampq.core.values.layer import Layer
from lampq.core.values.output_spec import OutputSpec
from lampq.core.values.progress import Progress, quiet

if TYPE_CHECKING:
    from typing import Self

    from lampq.adapters.autograd.rebuilt import Rebuilt
    from lampq.adapters.synthetic.observation import Observer
    from lampq.core.measuring.setting import RoundedLayers
    from lampq.core.measuring.walk import Walk
    from lampq.core.readouts.draws import Draws
    from lampq.core.readouts.readout import Readout
    from lampq.core.values.option import Option
    from lampq.core.values.overhead import Overhead
    from lampq.core.values.plan import Plan
    from lampq.core.values.window import Window

Variant = TypeVar("Variant")
States = TypeVar("States")


class Prefix(Protocol[States]):
    """A batch on its way through a model: what comes before a layer is computed once for all its candidates."""

    def place(self, name: str) -> int | None:
        """Where the model first uses a layer; None where no judged output depends on it."""

    def start(self) -> States:
        """The states in front of place 0."""

    def advance(self, states: States, begin: int, end: int) -> States | None:
        """The states at `end` from those at `begin`, weights as they are; None where these are too large to keep."""

    def finish(self, states: States, begin: int, name: str, weight: np.ndarray) -> Batch:
        """The judged outputs from the states at `begin`, with one layer replaced."""


def swept(
    prefix: Prefix[States], candidates: Iterable[tuple[str, int, np.ndarray]]
) -> Iterator[tuple[str, int, Batch]]:
    """Outputs with one layer replaced at a time; candidates in model order cost least, any order is right."""
    states, at = prefix.start(), 0
    for name, option, weight in candidates:
        place = prefix.place(name)
        if place is not None and place < at:
            states, at = prefix.start(), 0
        if place is not None and place > at:
            advanced = prefix.advance(states, at, place)
            if advanced is not None:
                states, at = advanced, place
        yield name, option, prefix.finish(states, at, name, weight)


class Backend(Protocol[Variant]):
    """What a format does. A `Variant` is its file with some weights replaced, as its own functions see it.

    Attributes:
        path: The file.
        format: Name of the format.
        grid: Grid that weights are quantized on, see `core.quantizing.quantizer`.
    """

    path: Path
    format: str
    grid: str

    @property
    def digest(self) -> str:
        """SHA-256 of the file."""

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

    def judging(self, choices: Sequence[HeadChoice]) -> Self:
        """The same with some outputs judged another way."""

    def varied(self, replaced: Mapping[str, np.ndarray]) -> Variant:
        """The file with some weights replaced, by layer name."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a layer's weight; refuses names of no layer."""

    def stored(self, name: str) -> np.ndarray:
        """The stored weight of a layer, float32: an array of one's own."""

    def measure(self, name: str, weight: np.ndarray) -> Layer:
        """The record of a layer with another weight."""

    def check_coding(self, coding: Coding) -> None:
        """Refuse codes that the format has no place for."""

    def checked(self, batch: BatchLike) -> Batch:
        """Inputs by name and of the right types; refuses what does not fit."""

    def run(self, variant: Variant, inputs: Batch) -> Batch:
        """The judged outputs, canonical."""

    def prefix(self, variant: Variant, inputs: Batch) -> Prefix[Any]:
        """What a sweep goes along."""

    def taps(self, variant: Variant, inputs: Batch) -> Iterator[tuple[str, np.ndarray, int]]:
        """Inputs of the layers; see `core.measuring.model.Model.taps`."""

    def windows(self) -> Mapping[str, Window]:
        """What convolutions see, by layer, those whose weights are a kernel."""

    def walk(self, model: FileModel[Variant], inputs: Batch) -> Walk:
        """A run that stops at every layer; see `core.measuring.walk`."""

    def rebuilt(self, model: FileModel[Variant], inputs: Batch) -> Rebuilt:
        """The model in PyTorch, where gradients exist."""

    def payload_bytes(self, model: FileModel[Variant], layer: Layer, bits: int, container: str) -> int | None:
        """Bytes of codes and scales; None where there is no such form."""

    def rest_bytes(self, model: FileModel[Variant], *, activations: bool) -> int:
        """Bytes beside the payload, at most."""

    def overhead(
        self,
        model: FileModel[Variant],
        layers: Sequence[Layer],
        options: Sequence[Option],
        container: str,
        steps: np.ndarray | None,
    ) -> Overhead:
        """What a file holds beside codes and scales; see `core.measuring.model.Sized`."""

    def file_bytes(self) -> int:
        """Bytes of the file and all that belongs to it."""

    def stored_bits(self) -> Mapping[str, tuple[int, str | int | None]]:
        """Width and container of the weights that are quantized already, by name."""

    def write(
        self, model: FileModel[Variant], plan: Plan, path: Path, calibration: BatchLike | None
    ) -> float | None:
        """Write the model quantized by a plan, and verify what was written."""


class FileModel(Generic[Variant]):
    """A model that was read from a file; see `lampq.core.measuring.model.Model` for the contract.

    Nothing is copied or read again when weights are replaced, outputs judged another way, or codes made another way.

    Args:
        backend: The file.
        replaced: Weights in place of the stored ones, by layer name.
        coding: How weights become codes.

    Attributes:
        backend: The file.
        replaced: Weights in place of the stored ones, by layer name.
        coding: How weights become codes.
        path: Where it was read from.
        format: Name of its format.
        grid: Grid its weights are quantized on.
        read_from: What it was read from and how, where it can be read so again (`adapters.again`).
    """

    read_from: Reading | None = None

    def __init__(
        self,
        backend: Backend[Variant],
        replaced: Mapping[str, np.ndarray] | None = None,
        coding: Coding | None = None,
    ) -> None:
        self.backend, self.replaced, self.coding = backend, dict(replaced or {}), coding or Coding()
        self.path, self.format, self.grid = backend.path, backend.format, backend.grid

    @cached_property
    def variant(self) -> Variant:
        """The file with the weights that differ from it, for the functions of its format."""
        return self.backend.varied(self.replaced)

    @property
    def digest(self) -> str:
        """SHA-256 of the file, of the stored weights whatever has been replaced."""
        return self.backend.digest

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """(name, reason) of every weight that is left alone."""
        return self.backend.skipped

    @property
    def input_specs(self) -> tuple[InputSpec, ...]:
        """Names, shapes and types of the inputs that must be fed."""
        return self.backend.input_specs

    @property
    def input_spec(self) -> InputSpec:
        """The only input.

        Raises:
            AdapterError: There are several.
        """
        return only_input(self.input_specs, str(self.path))

    @property
    def output_specs(self) -> tuple[OutputSpec, ...]:
        """The outputs, and the inner tensors that are judged in place of some or beside them."""
        return self.backend.output_specs

    @property
    def heads(self) -> tuple[Head, ...]:
        """What they mean."""
        return self.backend.heads

    def with_heads(self, choices: Sequence[HeadChoice]) -> FileModel[Variant]:
        """The same model with some outputs judged another way; a name may be that of any inner tensor."""
        return self._like(self.backend.judging(choices), self.coding)

    def with_coding(self, coding: Coding) -> FileModel[Variant]:
        """The same model with its weights turned into codes another way."""
        self.backend.check_coding(coding)
        return self._like(self.backend, coding)

    def with_weights(self, weights: Mapping[str, np.ndarray]) -> FileModel[Variant]:
        """The same model with some weights replaced, by layer name, in the shape of the layer's record."""
        checked = {name: self._fitting(name, array) for name, array in weights.items()}
        return FileModel(self.backend, self.replaced | checked, self.coding)

    def layers(self) -> tuple[Layer, ...]:
        """Records of the quantizable weights in the order the model uses them, measured once."""
        return self._layers

    @cached_property
    def _layers(self) -> tuple[Layer, ...]:
        if not self.replaced:
            return self.backend.layers
        return tuple(
            self.backend.measure(layer.name, self.replaced[layer.name])
            if layer.name in self.replaced
            else layer
            for layer in self.backend.layers
        )

    def weight(self, name: str) -> np.ndarray:
        """The array of a layer, float32, in the shape of its record: a copy, to be kept or changed at will."""
        replaced = self.replaced.get(name)
        return self.backend.stored(name) if replaced is None else replaced.copy()

    def run(self, batch: BatchLike) -> Batch:
        """The judged outputs of preprocessed inputs, float32, samples first, by name."""
        judged_of(self.heads, str(self.path))
        return self.backend.run(self.variant, self.backend.checked(batch))

    def sweep(
        self, batch: BatchLike, candidates: Iterable[tuple[str, int, np.ndarray]]
    ) -> Iterator[tuple[str, int, Batch]]:
        """Outputs with one weight replaced at a time: (layer, option, array) in, (layer, option, outputs) out."""
        judged_of(self.heads, str(self.path))
        checked = ((name, option, self._fitting(name, array)) for name, option, array in candidates)
        yield from swept(self.backend.prefix(self.variant, self.backend.checked(batch)), checked)

    def taps(self, batch: BatchLike) -> Iterator[tuple[str, np.ndarray, int]]:
        """Inputs of the layers, in pieces: name, array, and how often a sample uses each weight."""
        return self.backend.taps(self.variant, self.backend.checked(batch))

    def windows(self) -> Mapping[str, Window]:
        """What convolutions see; see `lampq.core.measuring.model.windows_of`."""
        return self.backend.windows()

    def walk(self, batch: BatchLike) -> Walk:
        """One run that stops at every layer; see `lampq.core.measuring.walk.Walking`."""
        return self.backend.walk(self, self.backend.checked(batch))

    def fisher(
        self, batch: BatchLike, readout: Readout, draws: Draws, *, progress: Progress = quiet
    ) -> Traces:
        """Fisher traces from gradients; see `lampq.core.measuring.traces.Differentiable`."""
        return self._rebuilt(batch).fisher(readout, draws, progress=progress)

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
        return self._rebuilt(batch).rows(candidates, readout, draws, progress=progress)

    def relevance(self, batch: BatchLike, *, progress: Progress = quiet) -> dict[str, float]:
        """Relevance of the layers; see `lampq.core.measuring.relevance.Relevant`."""
        return self._rebuilt(batch).relevance(progress=progress)

    def observer(self, batch: BatchLike) -> Observer:
        """Forward passes that show normalizations and attentions; see `lampq.adapters.synthetic.observation`."""
        graph = self._rebuilt(batch).graph
        from lampq.adapters.torch.observer import graph_observer

        return graph_observer(graph, self.input_specs[0].batch)

    def payload_bytes(self, layer: Layer, bits: int, container: str) -> int | None:
        """Stored bytes of a layer's codes and scales at a width; None where there is no such form."""
        if self.coding.form is not None:
            return formed_bytes(self.coding.form, layer, bits, container)
        return self.backend.payload_bytes(self, layer, bits, container)

    def rest_bytes(self, *, activations: bool = False) -> int:
        """Bytes of a quantized file, at most, beside the payload."""
        return self.backend.rest_bytes(self, activations=activations)

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
        return self.backend.overhead(self, layers, options, container, steps)

    def file_bytes(self) -> int:
        """Bytes of the file and all that belongs to it."""
        return self.backend.file_bytes()

    def stored_bits(self) -> Mapping[str, tuple[int, str | int | None]]:
        """Width and container of the weights that are quantized already, by name, where the file tells."""
        return self.backend.stored_bits()

    def write(self, plan: Plan, path: Path, *, calibration: BatchLike | None = None) -> float | None:
        """Write the model quantized by a plan, then run and verify what was written."""
        return self.backend.write(self, plan, Path(path), calibration)

    def _like(self, backend: Backend[Variant], coding: Coding) -> FileModel[Variant]:
        model = FileModel(backend, self.replaced, coding)
        model.read_from = self.read_from
        return model

    def _fitting(self, name: str, array: np.ndarray) -> np.ndarray:
        return fitting(array, self.backend.shape(name), layer=name, whose=str(self.path))

    def _rebuilt(self, batch: BatchLike) -> Rebuilt:
        return self.backend.rebuilt(self, self.backend.checked(batch))
