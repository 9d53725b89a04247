"""A TFLite model as the core sees it: layers, weights, runs with weights replaced, activations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lampq.adapters.padding import without_padding
from lampq.adapters.tflite import containers
from lampq.adapters.tflite.batches import Batches
from lampq.adapters.tflite.cuts import KEPT_BYTES, Cuts, State
from lampq.adapters.tflite.graph import Graph, Subgraph
from lampq.adapters.tflite.interface import Interface
from lampq.adapters.tflite.opened import Opened
from lampq.adapters.tflite.runtime import Session
from lampq.adapters.tflite.weights import CONV, DEPTHWISE, Site, Survey, Weight
from lampq.core.measuring.encoding import coded_for
from lampq.core.measuring.traces import EMPIRICAL, TRUE, Traces
from lampq.core.quantizing.coding import Coding
from lampq.core.readouts.readout import Readout
from lampq.core.values.batch import Batch, BatchLike
from lampq.core.values.errors import AdapterError
from lampq.core.values.head import CLASSES, Head, HeadChoice
from lampq.core.values.input_spec import InputSpec, only_input
from lampq.core.values.layer import Layer
from lampq.core.values.output_spec import OutputSpec
from lampq.core.values.progress import Progress, quiet

if TYPE_CHECKING:
    from lampq.core.values.plan import Plan


OUTPUT = "logits"


class TfliteModel:
    """A model read by `lampq.adapters.tflite.read`; see `lampq.core.measuring.model.Model` for the contract.

    Attributes:
        path: The .tflite file.
        format: "tflite".
        grid: "narrow": codes are symmetric around zero, so that every kernel can multiply them.
        coding: How its weights become codes; the format stores one scale per output channel.
        skipped: (name, reason) of every weight that is left alone.
        input_specs: Shape and type of the input.
        heads: How the output is judged.
    """

    format = "tflite"
    grid = "narrow"

    def __init__(self, opened: Opened, replaced: Mapping[str, np.ndarray] | None = None) -> None:
        self._opened = opened
        self._replaced = dict(replaced or {})
        self._session: Session | None = None
        self.coding = Coding()
        self.path: Path = opened.path
        self.skipped = opened.survey.skipped
        self.input_specs = (opened.interface.spec,)
        self.heads = (Head(name=OUTPUT, role=CLASSES),)

    @property
    def survey(self) -> Survey:
        """What is known of all weights, the quantized ones included."""
        return self._opened.survey

    @property
    def graph(self) -> Graph:
        """The decoded file."""
        return self._opened.graph

    @property
    def interface(self) -> Interface:
        """What goes in and what comes out."""
        return self._opened.interface

    @property
    def batches(self) -> Batches:
        """How batches are run."""
        return self._opened.batches

    @property
    def cuts(self) -> Cuts:
        """The graph in parts."""
        return self._opened.cuts

    @property
    def weights(self) -> Mapping[str, Weight]:
        """The quantizable weights by layer name: where they lie and who uses them."""
        return self._opened.weights

    @property
    def output_specs(self) -> tuple[OutputSpec, ...]:
        """The logits."""
        return (OutputSpec(name=OUTPUT, shape=None),)

    def with_heads(self, choices: Sequence[HeadChoice]) -> TfliteModel:
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
        """SHA-256 of the file, of the stored weights whatever has been replaced."""
        return self._opened.digest

    def layers(self) -> tuple[Layer, ...]:
        """Records of the float weights in the order the model uses them, measured once.

        A weight into which the converter has folded the scale of a normalization has the fingerprint of the
        weight before that, where the scale is known; everything else is of the weight as stored.

        Raises:
            AdapterError: A weight holds NaN or infinity.
        """
        stored = self._opened.layers
        if not self._replaced:
            return stored
        return tuple(
            self._opened.measure(self._opened.weights[layer.name], self._replaced[layer.name])
            if layer.name in self._replaced
            else layer
            for layer in stored
        )

    def weight(self, name: str) -> np.ndarray:
        """The array of a layer, float32, in the shape of its record: a copy, to be kept or changed at will.

        Raises:
            AdapterError: No layer is so called.
        """
        weight = self._weight(name)
        replaced = self._replaced.get(name)
        return np.array(self._opened.values(weight) if replaced is None else replaced)

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
        from lampq.adapters.tflite.write import rest_bytes

        return rest_bytes(self._opened, fixed=activations)

    def payload_bytes(self, layer: Layer, bits: int, container: str) -> int | None:
        """Bytes of a layer's codes and scales; None where no container fits the width.

        Args:
            layer: The layer.
            bits: 2, 4 or 8, as the operator allows; with container `int8`, 2 to 8.
            container: `bitplane`, here the containers of 2, 4 and 8 bits, or `int8`.

        Raises:
            AdapterError: The layer or container is unknown.
        """
        weight = self._weight(layer.name)
        if not containers.offered(weight, bits, container):
            return None
        return containers.payload_bytes(weight, bits, container)

    def run(self, batch: BatchLike) -> Batch:
        """Logits of a batch.

        Args:
            batch: Preprocessed inputs, samples first.

        Returns:
            `logits`, float32, shape (samples, classes). Where the model ends in a softmax, what goes into it.

        Raises:
            AdapterError: The batch does not fit, the runtime fails, or the logits are not finite.
        """
        batches = self._opened.batches
        array = batches.checked(np.asarray(Batch.of(batch)))
        if self._replaced:
            if self._session is None:
                self._session = self._opened.open(self._weights({}), (self._opened.interface.logits,))
            logits = batches.run(self._session, array)
        elif self._opened.interface.spec.batch is None and self._opened.resized is not None:
            logits = batches.run_resized(self._opened.resized, self._opened.session, array)
        else:
            logits = batches.run(self._opened.session, array)
        return Batch.of(logits, name=OUTPUT)

    def with_weights(self, weights: Mapping[str, np.ndarray]) -> TfliteModel:
        """The same model with some weights replaced.

        Args:
            weights: Arrays by layer name, in the shape of the layer's record.

        Raises:
            AdapterError: A name is unknown or a shape does not fit.
        """
        model = TfliteModel(
            self._opened, {**self._replaced, **{n: self._fitting(n, a) for n, a in weights.items()}}
        )
        model.coding = self.coding
        return model

    def with_coding(self, coding: Coding) -> TfliteModel:
        """The same model with its weights turned into codes another way.

        Raises:
            AdapterError: Blocks are asked for, and the format stores one scale per output channel.
        """
        if coding.block is not None:
            raise AdapterError(
                f"{self.path}: TFLite stores one scale per output channel; plan without --block"
            )
        model = TfliteModel(self._opened, self._replaced)
        model.coding = coding
        return model

    def sweep(
        self, batch: BatchLike, candidates: Iterable[tuple[str, int, np.ndarray]]
    ) -> Iterator[tuple[str, int, Batch]]:
        """Logits with one weight replaced at a time.

        Activations in front of a layer are kept for the whole batch, where they take no more than 1 GiB, and
        advanced when a candidate of a later layer arrives: candidates in model order cost about half the full
        runs. Any order is right.

        Args:
            batch: Preprocessed inputs, samples first.
            candidates: (layer, option, array), drawn one by one.

        Yields:
            (layer, option, logits) with logits as `run` gives them, but not checked for NaN.

        Raises:
            AdapterError: The batch or a candidate does not fit, or the runtime fails.
        """
        cuts, batches = self._opened.cuts, self._opened.batches
        array = batches.checked(np.asarray(Batch.of(batch)))
        chunks = batches.chunks(array)
        _ = self._opened.session
        base = self._weights({})
        start: list[State] = [{self._opened.interface.input: chunk} for chunk in chunks]
        states, at = start, 0
        for name, option, candidate in candidates:
            weights = self._weights({name: self._fitting(name, candidate)})
            if not cuts.possible:
                yield name, option, self.with_weights({name: candidate}).run(batch)
                continue
            first = cuts.first(self._weight(name))
            if first is not None and first < at:
                states, at = start, 0
            if first is not None and first > at and cuts.live_bytes(first) * len(chunks) <= KEPT_BYTES:
                states, at = cuts.advance(states, at, first, base), first
            logits = batches.joined(cuts.finish(states, at, weights), len(array))
            yield name, option, Batch.of(logits, name=OUTPUT)

    def taps(self, batch: BatchLike) -> Iterator[tuple[str, np.ndarray, int]]:
        """Inputs of the layers, in pieces.

        Args:
            batch: Preprocessed inputs, samples first.

        Yields:
            Layer name, its input for one native batch (one piece per place it is used in), and how often a
            sample uses each weight in all places together. Layers of other signatures are not run and left
            out.

        Raises:
            AdapterError: The batch does not fit, or the runtime fails.
        """
        main, batches = self._opened.main, self._opened.batches
        places = [
            (weight, site)
            for weight in self._opened.survey.weights
            for site in weight.sites
            if site.subgraph == main.index
        ]
        sources = (main.ops[site.op].inputs[0] for _, site in places)
        tensors = tuple(dict.fromkeys(tensor for tensor in sources if tensor not in main.inputs))
        array = batches.checked(np.asarray(Batch.of(batch)))
        chunks = batches.chunks(array)
        # A model must give something.
        outputs = tensors or (self._opened.interface.logits,)
        session = self._opened.open(self._weights({}), outputs)
        for done, chunk in enumerate(chunks):
            real = min(len(chunk), len(batch) - done * len(chunk))
            values = dict(zip(outputs, session.run([chunk]), strict=True))
            values[self._opened.interface.input] = chunk
            positions: dict[str, int] = {}
            for weight, site in places:
                uses = _uses(main, site, values[main.ops[site.op].inputs[0]]) // len(chunk)
                positions[weight.name] = positions.get(weight.name, 0) + uses
            for weight, site in places:
                source = without_padding(values[main.ops[site.op].inputs[0]], real, len(chunk))
                yield weight.name, source, positions[weight.name]

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
        from lampq.adapters.tflite.gradients import fisher_traces

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

    def write(self, plan: Plan, path: Path, *, calibration: BatchLike | None = None) -> None:
        """Write the model quantized by a plan, run the file, compare it with the fake-quant reference.

        Layers whose plan gives their input no width are stored for dynamic int8 activations; where it gives 8
        bits, their inputs and outputs are quantized with fixed ranges.

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
        from lampq.adapters.tflite.write import write

        model = coded_for(self, plan)
        samples = None if calibration is None else np.asarray(Batch.of(calibration))
        write(model, self._opened, plan, Path(path), self._weights({}), samples)

    def _weight(self, name: str) -> Weight:
        weight = self._opened.weights.get(name)
        if weight is None:
            raise AdapterError(f"{self.path} has no layer {name}; `lampq inspect` lists the names")
        return weight

    def _fitting(self, name: str, array: np.ndarray) -> np.ndarray:
        shape = self._weight(name).shape
        array = np.ascontiguousarray(array, dtype=np.float32)
        if array.shape != shape:
            raise AdapterError(f"layer {name} has shape {shape}, the array given for it {array.shape}")
        return array

    def _weights(self, more: Mapping[str, np.ndarray]) -> dict[Weight, np.ndarray]:
        return {self._weight(name): array for name, array in {**self._replaced, **more}.items()}


def _uses(subgraph: Subgraph, site: Site, source: np.ndarray) -> int:
    """How often an operator uses each of its weights on an input."""
    if site.op_name in (CONV, DEPTHWISE):
        _, height, width, _ = subgraph.shape(subgraph.ops[site.op].outputs[0])
        return len(source) * height * width
    return int(source.size) // source.shape[-1]
