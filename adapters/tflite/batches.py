"""Batches of samples for models that run a fixed number at once, mostly one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lampq.adapters.joining import joined
from lampq.adapters.tflite.graph import DTYPES
from lampq.adapters.tflite.interface import Interface
from lampq.adapters.tflite.outputs import Output
from lampq.core.values.batch import Batch, BatchLike
from lampq.core.values.checked_inputs import checked_inputs
from lampq.core.values.errors import AdapterError

# Samples at once where the model takes any number.
MANY = 16

Values = Sequence[np.ndarray]
"""One array for each input, or for each output, of a run."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chunk:
    """The samples of one run.

    Attributes:
        feeds: What each input gets.
        samples: How many of them there are.
        size: How many the run takes; the last sample is repeated where there are fewer.
        group: Number of the group of the batch that they are of.
    """

    feeds: Values
    samples: int
    size: int
    group: int


class Batches:
    """How the samples of a batch go through a model.

    Args:
        path: The model's file, for messages.
        interface: Its inputs.
    """

    def __init__(self, path: Path, interface: Interface) -> None:
        self.path = path
        self.interface = interface

    def checked(self, batch: BatchLike) -> Batch:
        """A batch by the names and in the types of the inputs.

        Raises:
            AdapterError: It is empty, names are missing or unknown, or an array is of another shape or kind.
        """
        specs = [port.spec for port in self.interface.inputs]
        for spec in specs:
            if spec.dtype not in DTYPES.values():
                raise AdapterError(f"{self.path}: the input is {spec}; that cannot be fed here")
        return checked_inputs(batch, specs, str(self.path))

    def chunks(self, batch: Batch, *, many: bool = False) -> list[Chunk]:
        """The samples of each group in native batches; the last sample of a group fills up its last one.

        Args:
            batch: Checked samples.
            many: Whether to take `MANY` at once as long as there are as many.
        """
        return [
            self._chunk(group, number, slice(start, start + size), size)
            for number, group in enumerate(batch.groups)
            for start, size in self._places(batch.sizes[number], many=many)
        ]

    def _places(self, samples: int, *, many: bool) -> Iterator[tuple[int, int]]:
        native = self.interface.native_batch
        whole = samples // MANY * MANY if many else 0
        yield from ((start, MANY) for start in range(0, whole, MANY))
        yield from ((start, native) for start in range(whole, samples, native))

    def _chunk(self, group: Mapping[str, np.ndarray], number: int, place: slice, size: int) -> Chunk:
        feeds, samples = [], 0
        for port in self.interface.inputs:
            array = group[port.spec.name][place]
            samples = len(array)
            if samples < size:
                array = np.concatenate([array, np.repeat(array[-1:], size - samples, axis=0)])
            feeds.append(port.feed(array))
        return Chunk(feeds=feeds, samples=samples, size=size, group=number)

    def joined(self, outputs: Sequence[Output], chunks: Sequence[Chunk], results: Sequence[Values]) -> Batch:
        """The outputs of the chunks as numbers, float32, in the groups of the batch.

        Raises:
            AdapterError: An output does not have the samples of a run along its first axis, or other shapes from
                sample to sample.
        """
        parts = (
            (
                chunk.group,
                {o.spec.name: self._samples(o, v, chunk) for o, v in zip(outputs, values, strict=True)},
            )
            for chunk, values in zip(chunks, results, strict=True)
        )
        return joined(parts, str(self.path))

    def _samples(self, output: Output, values: np.ndarray, chunk: Chunk) -> np.ndarray:
        numbers = values if output.scale is None else output.scale.dequantized(values)
        rows = np.asarray(numbers, dtype=np.float32)
        rows = rows[None] if output.whole else rows
        if rows.ndim == 0 or len(rows) != chunk.size:
            raise AdapterError(
                f"{self.path}: output {output.spec.name} has shape {values.shape}; its first axis should hold "
                f"the {chunk.size} samples of a run; judge others (--output)"
            )
        return rows[: chunk.samples]
