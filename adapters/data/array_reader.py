"""Chosen samples of arrays held in memory, read batch by batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from lampq.adapters.data.images import ImageTransform
from lampq.adapters.data.labelled import Labelled, fill_batches
from lampq.core.values.batch import Batch
from lampq.core.values.errors import AdapterError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ArrayReader:
    """Chosen samples of arrays held in memory.

    Attributes:
        inputs: Preprocessed samples by name of the input, or images as (N, H, W, C) where a transform is given.
        labels: Labels of the chosen samples in their order, int64, or None.
        chosen: Indices into `inputs` in the order of the samples.
        transforms: From pixels to a sample, for the inputs that are images.
        threads: Worker threads of the transforms.
        source: Name of the data, for messages.
    """

    inputs: Mapping[str, np.ndarray]
    labels: np.ndarray | None
    chosen: np.ndarray
    transforms: Mapping[str, ImageTransform]
    threads: int
    source: str

    def count(self) -> int:
        """Number of samples."""
        return len(self.chosen)

    def batches(self, size: int) -> Iterator[Labelled]:
        """Samples in order, `size` at a time."""
        arrays = zip(*(self._arrays(name, size) for name in self.inputs), strict=True)
        for start, parts in zip(range(0, len(self.chosen), size), arrays, strict=True):
            labels = None if self.labels is None else self.labels[start : start + size]
            yield Labelled(Batch([dict(zip(self.inputs, parts, strict=True))]), labels)

    def digest(self) -> str:
        """SHA-256 over type, shape and content of the chosen samples and their labels."""
        total = hashlib.sha256()
        for name, array in self.inputs.items():
            # A lone input hashes alike whatever a model calls it.
            called = f"{name}:" if len(self.inputs) > 1 else ""
            total.update(f"{called}{array.dtype.str}{array.shape[1:]}".encode())
            for index in self.chosen:
                total.update(np.ascontiguousarray(array[index]).data)
        if self.labels is not None:
            total.update(self.labels.astype("<i8").data)
        return total.hexdigest()

    def _arrays(self, name: str, size: int) -> Iterator[np.ndarray]:
        array, transform = self.inputs[name], self.transforms.get(name)
        if transform is None:
            for start in range(0, len(self.chosen), size):
                yield np.ascontiguousarray(array[self.chosen[start : start + size]])
            return

        def fill(index: int, out: np.ndarray) -> None:
            sample = int(self.chosen[index])
            try:
                transform.from_pixels(array[sample], out)
            except ValueError as err:
                raise AdapterError(f"data {self.source}: sample {sample} of {name}: {err}") from err

        shape, dtype = transform.sample_shape, transform.dtype
        for _, out in fill_batches(fill, len(self.chosen), size, shape, dtype, self.threads):
            yield out
