"""Batches that a function of the user's yields."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lampq.adapters.data.arrays import check_labels
from lampq.adapters.data.function import last_line
from lampq.adapters.data.labelled import Labelled, join, rebatch
from lampq.adapters.data.named_arrays import LONE, array_reader, fed, match_inputs, prepare_inputs, takes
from lampq.adapters.data.preprocess import Preprocess
from lampq.core.values.errors import AdapterError, LampqError
from lampq.core.values.input_spec import InputSpec


@dataclass(slots=True, kw_only=True, eq=False)
class FunctionReader:
    """The batches of a function, called anew for every pass.

    Attributes:
        function: Returns an iterable of x or (x, y), with x an array or arrays by name; must give the same samples
            each time.
        source: Its name, for messages.
        specs: The model's inputs, without those that are fixed.
        preprocess: For uint8 images; floats are taken as they are.
        limit: Samples to take from the beginning, or None for all.
        threads: Worker threads for images.
    """

    function: Callable[[], Any]
    source: str
    specs: Sequence[InputSpec]
    preprocess: Preprocess
    limit: int | None
    threads: int
    labels: None = None
    _count: int | None = field(default=None, init=False)
    _digest: str | None = field(default=None, init=False)

    def count(self) -> int:
        """Number of samples; takes a pass over them if none was made yet."""
        if self._count is None:
            for _ in self._pass():
                pass
        return self._count or 0

    def digest(self) -> str:
        """SHA-256 over the samples and labels as the model gets them; may take a pass like `count`."""
        self.count()
        return self._digest or ""

    def batches(self, size: int) -> Iterator[Labelled]:
        """Samples in the function's order, `size` at a time whatever the size of its own batches."""
        return rebatch(self._pass(), size)

    def _pass(self) -> Iterator[Labelled]:
        """One pass; the first complete one counts and hashes, later ones must agree in number."""
        # Apart by array, so that the function may change the size of its batches.
        hashes: dict[str, Any] | None = {} if self._digest is None else None
        seen = 0
        labelled: bool | None = None
        for item in self._items():
            batch = self._batch(item)
            if batch is None:
                continue
            if self.limit is not None:
                rest = self.limit - seen
                batch = batch.part(0, rest)
            if labelled not in (None, batch.labels is not None):
                raise AdapterError(f"data {self.source}: yields labels with some batches and not with others")
            labelled = batch.labels is not None
            if hashes is not None:
                _take_in(batch, hashes)
            seen += batch.samples
            yield batch
            if seen == self.limit:
                break
        if not seen:
            raise AdapterError(f"data {self.source}: yields no samples")
        if self._count not in (None, seen):
            raise AdapterError(
                f"data {self.source}: {seen} samples now, {self._count} before; yield the same at every call"
            )
        self._count = seen
        if hashes is not None:
            self._digest = hashlib.sha256(b"".join(part.digest() for part in hashes.values())).hexdigest()

    def _items(self) -> Iterator[Any]:
        """What the function yields, its own errors turned into ours."""
        try:
            yield from self.function()
        except LampqError:
            raise
        except Exception as err:
            raise AdapterError(f"data {self.source}: the function fails ({last_line(err)})") from err

    def _batch(self, item: Any) -> Labelled | None:
        """What was yielded as samples; None where there are none in it."""
        pair = item if isinstance(item, tuple | list) else (item,)
        if isinstance(item, str | bytes) or len(pair) not in (1, 2):
            raise AdapterError(
                f"data {self.source}: yields {type(item).__name__}; yield x, or (x, y), with x an array, or a dict of "
                f"arrays by name"
            )
        arrays = match_inputs(self._arrays(pair[0]), self.specs, self.source)
        inputs, transforms, _ = prepare_inputs(arrays, self.specs, self.preprocess, self.source)
        count = len(next(iter(inputs.values())))
        labels = None if len(pair) == 1 else check_labels(self._array(pair[1]), count, self.source)
        if not count:
            return None
        reader = array_reader(inputs, labels, np.arange(count), transforms, self.threads, self.source)
        return join(list(reader.batches(count)))

    def _arrays(self, samples: Any) -> dict[str, np.ndarray]:
        if isinstance(samples, Mapping):
            return {str(name): self._array(array) for name, array in samples.items()}
        if len(fed(self.specs, [LONE])) > 1:
            raise AdapterError(
                f"data {self.source}: yields a lone array; yield a dict of arrays by name: {takes(self.specs)}"
            )
        return {LONE: self._array(samples)}

    def _array(self, part: Any) -> np.ndarray:
        try:
            return np.asarray(part)
        except Exception as err:
            raise AdapterError(f"data {self.source}: yields no arrays ({last_line(err)})") from err


def _take_in(batch: Labelled, hashes: dict[str, Any]) -> None:
    """Hash the samples of a batch, each input and the labels on their own."""
    for group in batch.inputs.groups:
        for name, array in group.items():
            hashes.setdefault(name, hashlib.sha256()).update(np.ascontiguousarray(array).data)
    labels = b"" if batch.labels is None else batch.labels.astype("<i8").tobytes()
    hashes.setdefault("", hashlib.sha256()).update(labels)
