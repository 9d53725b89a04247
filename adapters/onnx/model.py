"""An ONNX model as the core sees it: layers, weights, runs with weights replaced, activations."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from lampq.adapters.onnx import batches, cuts, flow, probe, sites
from lampq.adapters.onnx.chain import Chain
from lampq.adapters.onnx.container import Container
from lampq.adapters.onnx.session import Runtime, to_value
from lampq.adapters.onnx.sites import Site
from lampq.core import packing
from lampq.core.errors import AdapterError, LampqError
from lampq.core.input_spec import InputSpec
from lampq.core.layer import Layer

if TYPE_CHECKING:
    import onnxruntime as ort

    from lampq.core.plan import Plan

_SCALE_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Opened:
    """A model file, read and understood.

    Attributes:
        container: The file.
        flow: Its normalized graph, which nothing changes.
        sites: Its quantizable weights.
        kinds: Their kinds, in the same order.
        skipped: (name, reason) of the weights left alone.
        spec: Its input.
        runtime: How sessions are opened.
        embeddings: Whether embedding tables count as layers.
    """

    container: Container
    flow: flow.Flow
    sites: tuple[Site, ...]
    kinds: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    spec: InputSpec
    runtime: Runtime
    embeddings: bool


class OnnxModel:
    """A model read by `lampq.adapters.onnx.read`; see `lampq.core.model.Model` for the contract.

    Attributes:
        path: The .onnx file.
        format: "onnx".
        grid: "auto": a weight takes whichever grid suits it.
        skipped: (name, reason) of every weight that is left alone.
        sites: Where the layers stand in the graph, for writers.
        input_spec: Shape and type of the input.
    """

    format = "onnx"
    grid = "auto"

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._shared = _Shared(opened)
        self._replaced: dict[str, np.ndarray] = {}
        self.path: Path = opened.container.path
        self.skipped = opened.skipped
        self.sites = opened.sites
        self.input_spec = opened.spec

    @property
    def digest(self) -> str:
        """SHA-256 of the file and its external data, of the stored weights whatever has been replaced."""
        return self._opened.container.digest

    def layers(self) -> tuple[Layer, ...]:
        """Records of the quantizable weights in the order the model uses them, measured once.

        Raises:
            AdapterError: The model has none, or one holds NaN or infinity.
        """
        stored = self._shared.layers
        if not self._replaced:
            return stored
        return tuple(
            self._shared.measure(index, self._replaced[layer.name]) if layer.name in self._replaced else layer
            for index, layer in enumerate(stored)
        )

    def weight(self, name: str) -> np.ndarray:
        """The array of a layer, float32, in the shape of its record.

        Raises:
            AdapterError: No layer is so called.
        """
        self._shared.site(name)
        replaced = self._replaced.get(name)
        return self._shared.stored(name) if replaced is None else replaced

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Logits of a batch.

        Args:
            batch: Preprocessed inputs, samples first.

        Returns:
            Float32, shape (samples, classes). Where the model ends in a softmax, its logarithm.

        Raises:
            AdapterError: The batch does not fit, the runtime fails, or the logits are not finite.
        """
        chunks = self._split(batch)
        if self._replaced:
            chain = self._shared.chain
            states = chain.start(chunk.array for chunk in chunks)
            logits = self._join(chain.finish(states, 0, chain.feeds(self._replaced)), chunks)
        else:
            logits = self._join(self._shared.run([chunk.array for chunk in chunks]), chunks)
        finite = np.isfinite(logits).all(axis=1)
        if not finite.all():
            raise AdapterError(
                f"{self.path}: the output {self._opened.flow.output.name} is NaN or infinite for sample "
                f"{int((~finite).argmax())}; check the preprocessing of the data"
            )
        if not self._replaced:
            self._shared.check_independence(chunks[0].array, logits)
        return logits

    def with_weights(self, weights: Mapping[str, np.ndarray]) -> OnnxModel:
        """The same model with some weights replaced; nothing is copied or reloaded.

        Args:
            weights: Arrays by layer name, in the shape of the layer's record.

        Raises:
            AdapterError: A name is unknown or a shape does not fit.
        """
        model = OnnxModel.__new__(OnnxModel)
        model.__dict__.update(self.__dict__)
        model._replaced = self._replaced | {
            name: self._fitting(name, array) for name, array in weights.items()
        }
        return model

    def sweep(
        self, batch: np.ndarray, candidates: Iterable[tuple[str, int, np.ndarray]]
    ) -> Iterator[tuple[str, int, np.ndarray]]:
        """Logits with one weight replaced at a time.

        Activations in front of a layer's segment are kept for the whole batch and advanced when a candidate
        of a later segment arrives, so candidates in model order cost about half the full runs. Any order is
        right.

        Args:
            batch: Preprocessed inputs, samples first.
            candidates: (layer, option, array), drawn one by one.

        Yields:
            (layer, option, logits) with logits as `run` gives them, but not checked for NaN.

        Raises:
            AdapterError: The batch or a candidate does not fit, or the runtime fails.
        """
        chunks = self._split(batch)
        chain = self._shared.chain
        around = chain.feeds(self._replaced)
        states, at = chain.start(chunk.array for chunk in chunks), 0
        for name, option, array in candidates:
            weights = self._replaced | {name: self._fitting(name, array)}
            feeds = around | chain.feeds(weights, of=(name,))
            first = chain.places[name][0]
            if first < at:
                states, at = chain.start(chunk.array for chunk in chunks), 0
            for index in range(at, first):
                chain.advance(states, index, around)
            at = first
            yield name, option, self._join(chain.finish(states, first, feeds), chunks)

    def taps(self, batch: np.ndarray) -> Iterator[tuple[str, np.ndarray, int]]:
        """Inputs of the layers, in pieces.

        Args:
            batch: Preprocessed inputs, samples first.

        Yields:
            Layer name; some of its input, one piece per place it is used in and chunk of the batch: rows
            (R, in_features) for a linear layer, (samples, channels, ...) for a convolution; and how often a
            sample uses each weight. Embedding tables have no such input and are left out. Where the model
            fixes the number of samples, the last sample fills the last chunk.

        Raises:
            AdapterError: The batch does not fit, or the runtime fails.
        """
        chunks = self._split(batch)
        positions = self._shared.usage(chunks[0].array.shape[1:]).positions
        chain = self._shared.chain
        states = chain.start(chunk.array for chunk in chunks)
        for site, number, array in chain.taps(states, chain.feeds(self._replaced)):
            slot = site.uses[number].slot
            if slot.form == "linear":
                array = np.moveaxis(array, slot.contraction, -1).reshape(-1, slot.in_features)
            yield site.name, array, positions[site.name]

    def payload_bytes(self, layer: Layer, bits: int, container: str) -> int | None:
        """Stored bytes of a layer's codes and scales at a width; None where there is no such form."""
        if container not in ("bitplane", "int8") or not 2 <= bits <= 8:
            return None
        codes = (
            packing.payload_bytes(layer.size, bits) if container == "bitplane" and bits < 8 else layer.size
        )
        return codes + _SCALE_BYTES * layer.channels

    def rest_bytes(self) -> int:
        """Bytes of a quantized file, at most, beside the payload: what stays, and the nodes that unpack the weights."""
        from lampq.adapters.onnx import size
        from lampq.adapters.onnx.write import Recipe

        names = [site.name for site in self.sites]
        # Seven bits take the most nodes, three planes, and quantized inputs some more: a budget in bytes is kept
        # whatever the widths.
        widest = Recipe(bits=dict.fromkeys(names, 7), container="bitplane", activations={}, outputs={})
        counts = [(math.prod(site.shape), site.shape[site.channel_axis]) for site in self.sites]
        payload = sum(size.layer_bytes(count, channels, 7, "bitplane") for count, channels in counts)
        inputs = sum(
            size.graph_bytes(site, 7, "bitplane", quantized_input=True)
            - size.graph_bytes(site, 7, "bitplane", quantized_input=False)
            for site in self.sites
        )
        return size.file_bytes(self, widest) - payload + inputs + size.SHARED_BYTES

    def file_bytes(self) -> int:
        """Size of the file and its external data."""
        return self._opened.container.size_bytes

    def stored_bits(self) -> dict[str, tuple[int, str]]:
        """Width and container of the weights that a file of lampq holds, by layer name; {} for others."""
        from lampq.adapters.onnx.bits import read_bits

        return read_bits(self.path)

    def fresh(self) -> tuple[ir.Model, tuple[Site, ...]]:
        """A graph of one's own to change, normalized, with its sites, named and ordered as in `sites`."""
        opened = self._opened
        graph = flow.trace(flow.normalize(opened.container.parse()), opened.flow.output.name)
        found, _ = sites.find(graph, embeddings=opened.embeddings)
        return graph.model, found

    def write(self, plan: Plan, path: Path) -> None:
        """Write the model quantized by a plan as ONNX, then run and verify what was written."""
        from lampq.adapters.onnx.write import write

        write(self, plan, path)

    def _split(self, batch: np.ndarray) -> list[batches.Chunk]:
        batch = batches.check(batch, self.input_spec, str(self.path))
        return self._shared.split(batch)

    def _join(self, outputs: list[np.ndarray], chunks: list[batches.Chunk]) -> np.ndarray:
        return batches.join(
            outputs, chunks, log_probabilities=self._opened.flow.log_probabilities, name=str(self.path)
        )

    def _fitting(self, name: str, array: np.ndarray) -> np.ndarray:
        shape = self._shared.site(name).shape
        if tuple(array.shape) != shape:
            raise AdapterError(
                f"{self.path}: layer {name} has shape {shape}, its new weight {tuple(array.shape)}"
            )
        return np.ascontiguousarray(array, dtype=np.float32)


class _Shared:
    """What a model and its variants with replaced weights have in common, made when first needed."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._sites = {site.name: site for site in opened.sites}
        self._independent = False
        self._usage: dict[tuple[int, ...], probe.Usage] = {}
        self._fixed: dict[tuple[int, ...], int | None] = {}
        self._pool = ThreadPoolExecutor(opened.runtime.workers, thread_name_prefix="lampq-onnx")
        # Sessions of the file as it is, by whether one run has all threads.
        self._whole: dict[bool, ort.InferenceSession] = {}

    def site(self, name: str) -> Site:
        """The site of a layer."""
        site = self._sites.get(name)
        if site is None:
            raise AdapterError(
                f"{self._opened.container.path} has no layer {name!r}; `lampq inspect` lists them"
            )
        return site

    def stored(self, name: str) -> np.ndarray:
        """The stored array of a layer, float32, read from the file."""
        array = np.asarray(_tensor(self._sites[name]).numpy()).astype(np.float32, copy=False)
        # Small tensors lie in the outline, which nobody may change.
        return array if array.flags.writeable else array.copy()

    def measure(self, index: int, weight: np.ndarray) -> Layer:
        """The record of a layer with this weight."""
        site = self._opened.sites[index]
        positions = None if self.positions is None else self.positions[site.name]
        try:
            return Layer.from_weight(
                site.name,
                weight,
                kind=self._opened.kinds[index],
                channel_axis=site.channel_axis,
                macs=None if positions is None else positions * weight.size,
                shares=site.shares,
            )
        except LampqError as err:
            raise AdapterError(f"{self._opened.container.path}: {err}") from err

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Records of the stored weights."""
        if not self._opened.sites:
            reasons = sorted({reason for _, reason in self._opened.skipped})
            why = f" (left alone: {'; '.join(reasons)})" if reasons else ""
            raise AdapterError(f"{self._opened.container.path} has no layer that can be quantized{why}")
        return tuple(
            self.measure(index, self.stored(site.name)) for index, site in enumerate(self._opened.sites)
        )

    @cached_property
    def positions(self) -> Mapping[str, int] | None:
        """Positions of every layer, or None where the input's shape or the runtime keeps them unknown."""
        shape = self._opened.spec.shape[1:]
        if None in shape:
            return None
        try:
            return self.usage(tuple(d for d in shape if d is not None)).positions
        except AdapterError:
            return None

    def usage(self, shape: tuple[int, ...]) -> probe.Usage:
        """What the graph does with samples of this shape.

        Raises:
            AdapterError: The runtime cannot run the graph.
        """
        if shape not in self._usage:
            opened = self._opened
            spec = dataclasses.replace(opened.spec, shape=(opened.spec.batch, *shape))
            self._usage[shape] = probe.measure_usage(opened.flow, opened.sites, opened.runtime, spec)
        return self._usage[shape]

    def split(self, batch: np.ndarray) -> list[batches.Chunk]:
        """Chunks of a checked batch, as many samples each as the graph takes or runs best with."""
        fixed = self.fixed_batch(batch.shape[1:])
        if fixed is not None:
            return batches.split(batch, fixed, fixed=True)
        used = self._usage[batch.shape[1:]].positions if batch.shape[1:] in self._usage else {}
        macs = sum(positions * _tensor(self._sites[name]).size for name, positions in used.items())
        size = batches.chunk_size(macs, len(batch), self._opened.runtime.workers)
        return batches.split(batch, size, fixed=False)

    def fixed_batch(self, shape: tuple[int, ...]) -> int | None:
        """The number of samples per run that the graph is fixed to, said or unsaid, or None."""
        if self._opened.spec.batch is not None:
            return self._opened.spec.batch
        if shape not in self._fixed:
            self._fixed[shape] = None
            # Blank samples may break what real ones do not.
            with contextlib.suppress(AdapterError):
                self._fixed[shape] = self.usage(shape).batch
        return self._fixed[shape]

    @cached_property
    def chain(self) -> Chain:
        """The segments of the graph."""
        opened = self._opened
        probe.infer_types(opened.flow)
        positions = self.positions or dict.fromkeys(self._sites, 1)
        work = {site.name: float(positions[site.name] * _tensor(site).size) for site in opened.sites}
        segments = cuts.cut(opened.flow, opened.sites, work)
        # The segments hold the weights themselves; a later run of the whole opens its session again.
        self._whole.clear()
        return Chain(opened.flow, segments, opened.runtime, self.stored, self._pool)

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The chosen output of the file as it is, for each of some chunks.

        Several chunks are divided among the threads; one alone is worked on by all, unless that would take a
        second session of the file.
        """
        opened = self._opened
        alone = (len(arrays) == 1 or opened.runtime.workers == 1) and False not in self._whole
        if alone not in self._whole:
            threads = opened.runtime.workers if alone else 1
            self._whole[alone] = opened.runtime.open_file(opened.container.path, threads=threads)
        session, output = self._whole[alone], opened.flow.output.name or ""

        def run(array: np.ndarray) -> np.ndarray:
            return opened.runtime.run(session, [output], {opened.spec.name: to_value(array)})[0].numpy()

        return [run(arrays[0])] if len(arrays) == 1 else list(self._pool.map(run, arrays))

    def check_independence(self, array: np.ndarray, logits: np.ndarray) -> None:
        """Once: the first sample alone gives what it gives among others.

        Raises:
            AdapterError: It does not: the exporter fixed the number of samples without saying so.
        """
        if self._independent or len(array) == 1 or self.fixed_batch(array.shape[1:]) is not None:
            return
        (alone,) = self.run([array[:1]])
        first = alone.reshape(len(alone), -1)[0].astype(np.float64)
        if self._opened.flow.log_probabilities:
            first = np.log(np.maximum(first, np.finfo(np.float32).tiny))
        # Dynamically quantized models scale activations by the whole batch: only gross differences count.
        if np.linalg.norm(first - logits[0]) > 0.25 * np.linalg.norm(first) + 1e-6:
            raise AdapterError(
                f"{self._opened.container.path}: a sample's logits depend on the other samples of the batch; "
                "export the model with a batch axis that is really free"
            )
        self._independent = True


def _tensor(site: Site) -> ir.TensorProtocol:
    tensor = site.weight.const_value
    assert tensor is not None  # A site is an initializer with data.
    return tensor
