"""What stays the same however the weights of a model are replaced: records, sessions, segments."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from lampq.adapters.onnx import batches, cuts, probe
from lampq.adapters.onnx.chain import Chain
from lampq.adapters.onnx.container import Container
from lampq.adapters.onnx.flow import Flow
from lampq.adapters.onnx.session import Runtime, to_value
from lampq.adapters.onnx.sites import Site
from lampq.core.measuring.divergence import unmasked
from lampq.core.values.errors import AdapterError, LampqError
from lampq.core.values.input_spec import InputSpec
from lampq.core.values.layer import Layer


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
    flow: Flow
    sites: tuple[Site, ...]
    kinds: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    spec: InputSpec
    runtime: Runtime
    embeddings: bool


class Engine:
    """Measures and runs a model file, whole and in segments, for the model and all its variants.

    Records, sessions and segments are made when first needed.
    """

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
        array = np.asarray(stored_tensor(self._sites[name]).numpy()).astype(np.float32, copy=False)
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
        macs = sum(positions * stored_tensor(self._sites[name]).size for name, positions in used.items())
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
        work = {site.name: float(positions[site.name] * stored_tensor(site).size) for site in opened.sites}
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
        first = unmasked(alone.reshape(len(alone), -1)[0].astype(np.float64))
        if self._opened.flow.log_probabilities:
            first = np.log(np.maximum(first, np.finfo(np.float32).tiny))
        # Dynamically quantized models scale activations by the whole batch: only gross differences count.
        if np.linalg.norm(first - unmasked(logits[0])) > 0.25 * np.linalg.norm(first) + 1e-6:
            raise AdapterError(
                f"{self._opened.container.path}: a sample's logits depend on the other samples of the batch; "
                "export the model with a batch axis that is really free"
            )
        self._independent = True


def stored_tensor(site: Site) -> ir.TensorProtocol:
    """The tensor that a site stores."""
    tensor = site.weight.const_value
    assert tensor is not None  # A site is an initializer with data.
    return tensor
