"""A format of few words: models that are a function of named matrices, in files that hold arrays by name.

A `Network` says what such a model is; all else that lampq asks of a model follows from it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeAlias

import numpy as np

from lampq.adapters.file_model import FileModel
from lampq.adapters.replaced import named
from lampq.core.measuring.encoding import Encoded, coded_for, encoder
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
    from lampq.adapters.autograd.rebuilt import Rebuilt
    from lampq.core.values.option import Option
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
        return FileModel(_Backend(self))


NetworkModel: TypeAlias = FileModel[Arrays]


class _Backend:
    """A file that holds a network (`adapters.file_model`)."""

    grid = "auto"

    def __init__(self, network: Network) -> None:
        self.network, self.path, self.format = network, network.path, network.format
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
            self.measure(name, weight) for name, weight in matrices.items() if worth_quantizing(weight.shape)
        )

    def measure(self, name: str, weight: np.ndarray) -> Layer:
        return Layer.from_weight(name, weight, kind=self.network.kinds.get(name, "linear"), channel_axis=0)

    def judging(self, choices: Sequence[HeadChoice]) -> _Backend:
        heads = chosen_heads(choices, self.heads, self.output_specs, self.input_specs, whose=str(self.path))
        return _Backend(dataclasses.replace(self.network, heads=heads))

    def varied(self, replaced: Arrays) -> Arrays:
        return {**self.network.weights, **replaced}

    def shape(self, name: str) -> tuple[int, ...]:
        return named({layer.name: layer.shape for layer in self.layers}, name, whose=str(self.path))

    def stored(self, name: str) -> np.ndarray:
        self.shape(name)
        return np.array(self.network.weights[name], dtype=np.float32)

    def check_coding(self, coding: Coding) -> None:
        if coding.block is not None:
            raise AdapterError(f"{self.format} files keep one scale per row; leave --block out")

    def checked(self, batch: BatchLike) -> Batch:
        return checked_inputs(batch, self.input_specs, str(self.path))

    def run(self, variant: Arrays, inputs: Batch) -> Batch:
        return Batch([self._judged(variant, group, lambda name, values: None) for group in inputs])

    def _judged(self, weights: Arrays, group: Arrays, see: See) -> dict[str, np.ndarray]:
        outputs = self.network.run(weights, group, see)
        return {head.name: canonical(head, outputs[head.name]) for head in self.heads if head.judged}

    def prefix(self, variant: Arrays, inputs: Batch) -> _Whole:
        return _Whole(self, variant, inputs)

    def taps(self, variant: Arrays, inputs: Batch) -> Iterator[tuple[str, np.ndarray, int]]:
        names = {layer.name for layer in self.layers}
        for group in inputs:
            for name, values in self._inputs(variant, group):
                if name in names:
                    rows = values.reshape(-1, values.shape[-1])
                    yield name, rows, len(rows) // len(values)

    def windows(self) -> dict[str, Window]:
        return {}

    def _inputs(self, weights: Arrays, group: Arrays) -> list[tuple[str, np.ndarray]]:
        seen: list[tuple[str, np.ndarray]] = []
        self.network.run(weights, group, lambda name, values: seen.append((name, values)))
        return seen

    def walk(self, model: NetworkModel, inputs: Batch) -> Walk:
        return Passes(model, inputs)

    def rebuilt(self, model: NetworkModel, inputs: Batch) -> Rebuilt:
        raise NoGradientsError(f"{self.format} models have none here")

    def payload_bytes(self, model: NetworkModel, layer: Layer, bits: int, container: str) -> int | None:
        if container != "bitplane" or bits not in _WIDTHS:
            return None
        return payload_bytes(layer.size, bits) + _SCALE_BYTES * layer.channels

    def rest_bytes(self, model: NetworkModel, *, activations: bool) -> int:
        return self._rest(model, self.layers, _WIDTHS)

    def overhead(
        self,
        model: NetworkModel,
        layers: Sequence[Layer],
        options: Sequence[Option],
        container: str,
        steps: np.ndarray | None,
    ) -> Overhead:
        return Overhead(
            rest_bytes=self._rest(model, layers, sorted({option.weight_bits for option in options}))
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
        quantized = {layer.name: encoder(coded, layer.name, 0)(layer.weight_bits) for layer in plan.layers}
        with atomic_path(path) as temporary, temporary.open("wb") as handle:
            self.network.save(handle, self._arrays(quantized, model.replaced))
        return None

    def _arrays(self, quantized: Mapping[str, Encoded], replaced: Arrays | None = None) -> Arrays:
        """What a file holds, in the order of the model."""
        arrays: dict[str, np.ndarray] = {}
        for name, weight in self.varied(replaced or {}).items():
            arrays |= to_arrays(name, quantized[name], weight.shape) if name in quantized else {name: weight}
        return arrays


class _Whole:
    """A batch that is run from the start for every candidate (`adapters.file_model.Prefix`)."""

    def __init__(self, backend: _Backend, weights: Arrays, inputs: Batch) -> None:
        self._backend, self._weights, self._inputs = backend, weights, inputs

    def place(self, name: str) -> int:
        return 0

    def start(self) -> None:
        return None

    def advance(self, states: None, begin: int, end: int) -> None:
        return None

    def finish(self, states: None, begin: int, name: str, weight: np.ndarray) -> Batch:
        return self._backend.run({**self._weights, name: weight}, self._inputs)


def _blank(layer: Layer, bits: int, form: WeightForm | None) -> Encoded:
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
