"""The model of a format, once for all of them: what a format does itself is its `Backend`."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Generic

import numpy as np

from lampq.adapters.again import Reading
from lampq.adapters.backend import Backend, Gradients, Value, Variant
from lampq.adapters.sizing import Sizing
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

    from lampq.adapters.synthetic.observation import Observer
    from lampq.core.measuring.setting import RoundedLayers
    from lampq.core.measuring.walk import Walk
    from lampq.core.readouts.draws import Draws
    from lampq.core.readouts.readout import Readout
    from lampq.core.values.option import Option
    from lampq.core.values.overhead import Overhead
    from lampq.core.values.plan import Plan
    from lampq.core.values.window import Window


class BackedModel(Generic[Variant, Value]):
    """A model over what its format does; see `lampq.core.measuring.model.Model` for the contract.

    Nothing is copied or read again when weights are replaced, outputs judged another way, or codes made another way.

    Args:
        backend: The model as its format has it.
        coding: How weights become codes.

    Attributes:
        backend: The model as its format has it.
        coding: How weights become codes.
        path: Where it was read from.
        format: Name of its format.
        grid: Grid its weights are quantized on.
        read_from: What it was read from and how, where it can be read so again (`adapters.again`).
    """

    read_from: Reading | None = None

    def __init__(self, backend: Backend[Variant, Value], coding: Coding | None = None) -> None:
        self.backend, self.coding = backend, coding or Coding()
        self.path, self.format, self.grid = backend.path, backend.format, backend.grid

    @property
    def variant(self) -> Variant:
        """The same for the functions of its format."""
        return self.backend.variant

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return self.backend.name

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
        return only_input(self.input_specs, self.name)

    @property
    def output_specs(self) -> tuple[OutputSpec, ...]:
        """The outputs, and the inner tensors that are judged in place of some or beside them."""
        return self.backend.output_specs

    @property
    def heads(self) -> tuple[Head, ...]:
        """What they mean."""
        return self.backend.heads

    def with_heads(self, choices: Sequence[HeadChoice]) -> Self:
        """The same model with some outputs judged another way; a name may be that of any inner tensor."""
        return self._like(self.backend.judging(choices))

    def with_coding(self, coding: Coding) -> Self:
        """The same model with its weights turned into codes another way."""
        self.backend.check_coding(coding)
        return self._like(self.backend, coding)

    def with_weights(self, weights: Mapping[str, Value]) -> Self:
        """The same model with some layers replaced, by name: new weights in the shape of the layer's record, and where
        activations can be rounded also settings.
        """
        values = {name: self.backend.fitted(name, value) for name, value in weights.items()}
        model = self._like(self.backend.replacing(values))
        # What was read does not have them.
        model.read_from = None
        return model

    def layers(self) -> tuple[Layer, ...]:
        """Records of the quantizable weights in the order the model uses them, measured once."""
        return self._layers

    @cached_property
    def _layers(self) -> tuple[Layer, ...]:
        stored, replaced = self.backend.layers, self.backend.replaced
        return tuple(
            self.backend.measure(layer.name) if layer.name in replaced else layer for layer in stored
        )

    def weight(self, name: str) -> np.ndarray:
        """The array of a layer, float32, in the shape of its record: a copy, to be kept or changed at will."""
        return self.backend.weight(name)

    def run(self, batch: BatchLike) -> Batch:
        """The judged outputs of preprocessed inputs, float32, samples first, by name."""
        return self.backend.run(self._judged(batch))

    def sweep(
        self, batch: BatchLike, candidates: Iterable[tuple[str, int, Value]]
    ) -> Iterator[tuple[str, int, Batch]]:
        """Outputs with one layer replaced at a time: (layer, option, value) in, (layer, option, outputs) out."""
        fitted = ((name, option, self.backend.fitted(name, value)) for name, option, value in candidates)
        yield from self.backend.sweep(self._judged(batch), fitted)

    def release(self) -> None:
        """Let go of what it runs in; see `lampq.core.measuring.model.release`."""
        self.backend.release()

    def taps(self, batch: BatchLike) -> Iterator[tuple[str, np.ndarray, int]]:
        """Inputs of the layers, in pieces: name, array, and how often a sample uses each weight."""
        return self.backend.taps(self.backend.checked(batch))

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
        return self._gradients(batch).fisher(readout, draws, progress=progress)

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
        return self._gradients(batch).rows(candidates, readout, draws, progress=progress)

    def relevance(self, batch: BatchLike, *, progress: Progress = quiet) -> dict[str, float]:
        """Relevance of the layers; see `lampq.core.measuring.relevance.Relevant`."""
        return self._gradients(batch).relevance(progress=progress)

    def observer(self, batch: BatchLike) -> Observer:
        """Forward passes that show normalizations and attentions; see `lampq.adapters.synthetic.observation`."""
        return self._gradients(batch).observer(self.input_specs[0].batch)

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
        sizing = Sizing(layers=layers, options=options, container=container, steps=steps, ranges=ranges)
        return self.backend.overhead(self, sizing)

    def file_bytes(self) -> int:
        """Bytes of the file and all that belongs to it."""
        return self.backend.file_bytes()

    def stored_bits(self) -> Mapping[str, tuple[int, str | int | None]]:
        """Width and container of the weights that are quantized already, by name, where the file tells."""
        return self.backend.stored_bits()

    def write(self, plan: Plan, path: Path, *, calibration: BatchLike | None = None) -> float | None:
        """Write the model quantized by a plan, then run and verify what was written."""
        return self.backend.write(self, plan, Path(path), calibration)

    def _like(self, backend: Backend[Variant, Value], coding: Coding | None = None) -> Self:
        model = copy.copy(self)
        model.backend, model.coding = backend, coding or self.coding
        model.__dict__.pop("_layers", None)
        return model

    def _judged(self, batch: BatchLike) -> Batch:
        """Checked inputs of a model some of whose outputs are judged."""
        inputs = self.backend.checked(batch)
        judged_of(self.heads, self.name)
        return inputs

    def _gradients(self, batch: BatchLike) -> Gradients:
        return self.backend.gradients(self, self.backend.checked(batch))
