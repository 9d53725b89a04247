"""A format of few words: models that are a function of named matrices, in files that hold arrays by name.

A `Network` says what such a model is; all else that lampq asks of a model follows from it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeAlias

import numpy as np

from lampq.adapters.backed_model import BackedModel
from lampq.adapters.replaced import fitting, named
from lampq.adapters.sizing import Sizing
from lampq.core.measuring.encoding import Plain, coded_for, plain_encoder
from lampq.core.measuring.walk import Passes, Walk
from lampq.core.quantizing.coding import Coding
from lampq.core.quantizing.formed import Formed, blank_parts
from lampq.core.quantizing.plain_arrays import to_arrays
from lampq.core.quantizing.quantizer import Quantized
from lampq.core.readouts.canonical import canonical
from lampq.core.readouts.choice import chosen_heads
from lampq.core.values.batch import Batch, BatchLike
from lampq.core.values.checked_inputs import checked_inputs
from lampq.core.values.errors import AdapterError, NoGradientsError
from lampq.core.values.head import Head, HeadChoice
from lampq.core.values.input_spec import InputSpec
from lampq.core.values.layer import Layer, worth_quantizing
from lampq.core.values.output_spec import OutputSpec
from lampq.core.values.overhead import Overhead
from lampq.core.values.packing import payload_bytes
from lampq.core.values.publishing import atomic_path
from lampq.core.values.weight_form import WeightForm

if TYPE_CHECKING:
    from lampq.adapters.backend import Gradients
    from lampq.core.values.plan import Plan
    from lampq.core.values.window import Window

Arrays: TypeAlias = Mapping[str, np.ndarray]
See: TypeAlias = Callable[[str, np.ndarray], None]
"""Told the input of a matrix by the matrix's name, samples first, features last, whenever it is multiplied."""

_WIDTHS = range(1, 9)
_SCALE_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Network:
    """A model as a function of its weights.

    Attributes:
        format: Name of its format.
        path: The file that it was read from.
        weights: All of them, float32, in the order they are used; matrices have output channels first.
        run: Outputs by name from the weights, inputs by name, and what is to see the inputs of the matrices.
        save: Writes arrays by name as a file of the format; a quantized matrix is several (`to_arrays`).
        input_specs: Its inputs.
        output_specs: Its outputs.
        heads: What they mean.
        kinds: Kinds of matrices by name; `linear` where none is said.
    """

    format: str
    path: Path
    weights: Arrays
    run: Callable[[Arrays, Arrays, See], Arrays]
    save: Callable[[IO[bytes], Arrays], None]
    input_specs: tuple[InputSpec, ...]
    output_specs: tuple[OutputSpec, ...]
    heads: tuple[Head, ...]
    kinds: Mapping[str, str] = field(default_factory=dict)

    def model(self) -> NetworkModel:
        """The model that lampq measures, plans for and writes."""
        return BackedModel(_Backend(self))


NetworkModel: TypeAlias = BackedModel[Arrays, np.ndarray]


class _Backend:
    """A file that holds a network, with some matrices replaced (`adapters.backend`)."""

    grid = "auto"

    def __init__(self, network: Network, replaced: Arrays | None = None) -> None:
        self.network, self.path, self.format = network, network.path, network.format
        self.name, self._replaced = str(network.path), dict(replaced or {})
        self.variant: Arrays = {**network.weights, **self._replaced}
        self.input_specs, self.output_specs = network.input_specs, network.output_specs
        self.heads = network.heads
        self.skipped: tuple[tuple[str, str], ...] = ()

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        matrices = {name: weight for name, weight in self.network.weights.items() if weight.ndim == 2}
        return tuple(
            self._record(name, weight) for name, weight in matrices.items() if worth_quantizing(weight.shape)
        )

    def measure(self, name: str) -> Layer:
        return self._record(name, self.variant[name])

    def _record(self, name: str, weight: np.ndarray) -> Layer:
        return Layer.from_weight(name, weight, kind=self.network.kinds.get(name, "linear"), channel_axis=0)

    @property
    def replaced(self) -> Collection[str]:
        return self._replaced.keys()

    def judging(self, choices: Sequence[HeadChoice]) -> _Backend:
        heads = chosen_heads(choices, self.heads, self.output_specs, self.input_specs, whose=self.name)
        return _Backend(dataclasses.replace(self.network, heads=heads), self._replaced)

    def fitted(self, name: str, value: np.ndarray) -> np.ndarray:
        return fitting(value, self._known(name).shape, layer=name, whose=self.name)

    def replacing(self, values: Arrays) -> _Backend:
        return _Backend(self.network, {**self._replaced, **values})

    def weight(self, name: str) -> np.ndarray:
        self._known(name)
        return np.array(self.variant[name], dtype=np.float32)

    def _known(self, name: str) -> Layer:
        return named({layer.name: layer for layer in self.layers}, name, whose=self.name)

    def check_coding(self, coding: Coding) -> None:
        if coding.block is not None:
            raise AdapterError(f"{self.format} files keep one scale per row; leave --block out")

    def checked(self, batch: BatchLike) -> Batch:
        return checked_inputs(batch, self.input_specs, self.name)

    def run(self, inputs: Batch) -> Batch:
        return Batch([self._judged(group) for group in inputs])

    def _judged(self, group: Arrays) -> dict[str, np.ndarray]:
        outputs = self.network.run(self.variant, group, lambda name, values: None)
        return {head.name: canonical(head, outputs[head.name]) for head in self.heads if head.judged}

    def sweep(
        self, inputs: Batch, candidates: Iterable[tuple[str, int, np.ndarray]]
    ) -> Iterator[tuple[str, int, Batch]]:
        for name, option, weight in candidates:
            yield name, option, self.replacing({name: weight}).run(inputs)

    def release(self) -> None:
        """Nothing: matrices are all there is."""

    def taps(self, inputs: Batch) -> Iterator[tuple[str, np.ndarray, int]]:
        names = {layer.name for layer in self.layers}
        for group in inputs:
            for name, values in self._inputs(group):
                if name in names:
                    rows = values.reshape(-1, values.shape[-1])
                    yield name, rows, len(rows) // len(values)

    def windows(self) -> dict[str, Window]:
        return {}

    def _inputs(self, group: Arrays) -> list[tuple[str, np.ndarray]]:
        seen: list[tuple[str, np.ndarray]] = []
        self.network.run(self.variant, group, lambda name, values: seen.append((name, values)))
        return seen

    def walk(self, model: NetworkModel, inputs: Batch) -> Walk:
        return Passes(model, inputs)

    def gradients(self, model: NetworkModel, inputs: Batch) -> Gradients:
        raise NoGradientsError(f"{self.format} models have none here")

    def payload_bytes(self, model: NetworkModel, layer: Layer, bits: int, container: str) -> int | None:
        if container != "bitplane" or bits not in _WIDTHS:
            return None
        return payload_bytes(layer.size, bits) + _SCALE_BYTES * layer.channels

    def rest_bytes(self, model: NetworkModel, *, activations: bool) -> int:
        return self._rest(model, self.layers, _WIDTHS)

    def overhead(self, model: NetworkModel, sizing: Sizing) -> Overhead:
        return Overhead(
            rest_bytes=self._rest(
                model, sizing.layers, sorted({option.weight_bits for option in sizing.options})
            )
        )

    def _rest(self, model: NetworkModel, layers: Sequence[Layer], widths: Sequence[int]) -> int:
        """Bytes of a file beside its payload, at most: written on trial with all layers at every width."""
        rests = []
        for bits in widths:
            file = io.BytesIO()
            form = model.coding.form
            blank = {layer.name: _blank(layer, bits, form) for layer in layers}
            self.network.save(file, self._arrays(blank))
            payload = [model.payload_bytes(layer, bits, "bitplane") or 0 for layer in layers]
            rests.append(file.tell() - sum(payload))
        return max(rests)

    def file_bytes(self) -> int:
        return self.path.stat().st_size

    def stored_bits(self) -> dict[str, tuple[int, str | int | None]]:
        return {}

    def write(
        self, model: NetworkModel, plan: Plan, path: Path, calibration: BatchLike | None
    ) -> float | None:
        coded = coded_for(model, plan)
        quantized = {
            layer.name: plain_encoder(coded, layer.name, 0)(layer.weight_bits) for layer in plan.layers
        }
        with atomic_path(path) as temporary, temporary.open("wb") as handle:
            self.network.save(handle, self._arrays(quantized))
        return None

    def _arrays(self, quantized: Mapping[str, Plain]) -> Arrays:
        """What a file holds, in the order of the model."""
        arrays: dict[str, np.ndarray] = {}
        for name, weight in self.variant.items():
            arrays |= to_arrays(name, quantized[name], weight.shape) if name in quantized else {name: weight}
        return arrays


def _blank(layer: Layer, bits: int, form: WeightForm | None) -> Plain:
    rows = layer.channels
    if form is not None:
        parts = blank_parts(form, rows, layer.size // rows, bits)
        return Formed(form=form, parts=parts, bits=bits, squared_error=np.zeros(rows))
    return Quantized(
        codes=np.zeros((rows, layer.size // rows), np.uint8),
        scale=np.ones(rows, np.float32),
        step=1,
        offset=0,
        bits=bits,
        squared_error=np.zeros(rows),
    )
