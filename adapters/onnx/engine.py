"""Runs a model file, whole and in segments, for the model and all its variants of one choice of outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
import onnxruntime as ort

from lampq.adapters.onnx import batches, cuts, probe, trials
from lampq.adapters.onnx.chain import Chain
from lampq.adapters.onnx.opened import Opened
from lampq.adapters.onnx.records import Records, stored_tensor
from lampq.adapters.onnx.session import to_value
from lampq.core.values.batch import Batch
from lampq.core.values.errors import AdapterError
from lampq.core.values.head import judged_of


class Engine:
    """Runs a model file, whole and in segments.

    Sessions and segments are made when first needed.

    Args:
        opened: The file, with the outputs that are judged.
        records: What is known of its weights.
    """

    def __init__(self, opened: Opened, records: Records) -> None:
        self._opened = opened
        self._records = records
        self._independent = False
        self._pool = ThreadPoolExecutor(opened.runtime.workers, thread_name_prefix="lampq-onnx")
        # Sessions of the file as it is, by whether one run has all threads.
        self._whole: dict[bool, ort.InferenceSession] = {}
        declared = {value.name for value in opened.flow.model.graph.outputs}
        self._inner = any(value.name not in declared for value in opened.flow.outputs)

    def split(self, batch: Batch) -> list[batches.Chunk]:
        """Chunks of a checked batch, as many samples each as the graph takes or runs best with."""
        judged_of(self._opened.heads, str(self._opened.container.path))
        return [chunk for number, group in enumerate(batch.groups) for chunk in self._split(group, number)]

    def feeds(self, chunk: batches.Chunk) -> dict[str, np.ndarray]:
        """All inputs of a chunk, fixed ones included."""
        return self._opened.feeds(chunk.arrays, chunk.size)

    @cached_property
    def chain(self) -> Chain:
        """The segments of the graph."""
        opened = self._opened
        probe.infer_types(opened.flow)
        positions = self._records.positions or {}
        work = {
            site.name: float(positions.get(site.name, 1) * stored_tensor(site).size) for site in opened.sites
        }
        segments = cuts.cut(opened.flow, opened.sites, work)
        # The segments hold the weights themselves; a later run of the whole opens its session again.
        self._whole.clear()
        return Chain(opened.flow, segments, opened.runtime, self._records.stored, self._pool)

    def release(self) -> None:
        """Close all sessions; what still runs in one keeps it."""
        self._whole.clear()
        self.__dict__.pop("chain", None)

    def run(self, chunks: Sequence[batches.Chunk]) -> list[Mapping[str, np.ndarray]]:
        """The judged outputs of the file as it is, by name, for each of some chunks.

        Several chunks are divided among the threads; one alone is worked on by all, unless that would take a
        second session of the file.
        """
        if self._inner or self._in_segments:
            # The file does not give inner tensors; its segments do.
            return list(self.chain.finish(self.chain.start(map(self.feeds, chunks)), 0, {}))
        opened = self._opened
        alone = (len(chunks) == 1 or opened.runtime.workers == 1) and False not in self._whole
        if alone not in self._whole:
            threads = opened.runtime.workers if alone else 1
            self._whole[alone] = opened.runtime.open_file(opened.container.path, threads=threads)
        session = self._whole[alone]
        names = [value.name or "" for value in opened.flow.outputs]

        def run(chunk: batches.Chunk) -> dict[str, np.ndarray]:
            inputs = {name: to_value(array) for name, array in self.feeds(chunk).items()}
            try:
                results = opened.runtime.run(session, names, inputs)
            except AdapterError as err:
                # Of samples of many shapes this tells which the graph cannot take.
                sides = (f"{name} {'x'.join(map(str, array.shape))}" for name, array in chunk.arrays.items())
                raise AdapterError(f"{err} (fed {', '.join(sides)})") from err
            return {name: value.numpy() for name, value in zip(names, results, strict=True)}

        return [run(chunks[0])] if len(chunks) == 1 else list(self._pool.map(run, chunks))

    @property
    def _in_segments(self) -> bool:
        """Whether a large file has its segments: a session of the whole beside them would hold all weights again."""
        return "chain" in self.__dict__ and trials.is_large(self._opened)

    def join(self, outputs: Sequence[Mapping[str, np.ndarray]], chunks: Sequence[batches.Chunk]) -> Batch:
        """Canonical outputs of a batch from those of its chunks."""
        opened = self._opened
        return batches.join(outputs, chunks, heads=opened.judged, name=str(opened.container.path))

    def check_independence(self, chunk: batches.Chunk, outputs: Batch) -> None:
        """Once: the first sample alone gives what it gives among others.

        Raises:
            AdapterError: It does not: the exporter fixed the number of samples without saying so.
        """
        if self._independent or chunk.size == 1 or self._records.fixed_batch(_shapes(chunk)) is not None:
            return
        (first,) = batches.split({n: a[:1] for n, a in chunk.arrays.items()}, 1, fixed=False)
        alone = self.join(self.run([first]), [first])
        for name in alone.names:
            one, other = alone[name][0], outputs.groups[0][name][0]
            if _differ(one, other):
                raise AdapterError(
                    f"{self._opened.container.path}: output {name} of a sample depends on the other samples of "
                    "the batch; export the model with a batch axis that is really free"
                )
        self._independent = True

    def _split(self, group: Mapping[str, np.ndarray], number: int) -> list[batches.Chunk]:
        shapes = batches.sample_shapes(group)
        fixed = self._records.fixed_batch(shapes)
        if fixed is not None:
            return batches.split(group, fixed, fixed=True, number=number)
        samples = len(next(iter(group.values())))
        used = self._records.known_positions(shapes)
        macs = sum(positions * self._records.size(name) for name, positions in used.items())
        size = batches.chunk_size(macs, samples, self._opened.runtime.workers)
        return batches.split(group, size, fixed=False, number=number)


def _shapes(chunk: batches.Chunk) -> batches.Shapes:
    return batches.sample_shapes(chunk.arrays)


def _differ(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two outputs of a sample differ grossly.

    Dynamically quantized models scale activations by the whole batch: small differences mean nothing.
    """
    if one.shape != other.shape:
        return True
    finite = np.isfinite(one) & np.isfinite(other)
    first, second = one[finite].astype(np.float64), other[finite].astype(np.float64)
    return bool(np.linalg.norm(first - second) > 0.25 * np.linalg.norm(first) + 1e-6)
