"""Samples with their labels, and filling batches ahead of their use with several threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from lampq.core.values import batch as named
from lampq.core.values.batch import Batch

_AHEAD = 2
"""Batches being filled while one is in use."""


class Labelled(NamedTuple):
    """Samples of a model's inputs, and their labels.

    Attributes:
        inputs: Arrays by the names of the inputs, floats as float32, all else in the type of the model's input.
        labels: Class indices, int64, shape (samples,), or None.
    """

    inputs: Batch
    labels: np.ndarray | None

    @property
    def samples(self) -> int:
        """Number of samples."""
        return self.inputs.samples

    def part(self, start: int, stop: int) -> Labelled:
        """The samples from `start` to before `stop`, of which there is at least one."""
        numbers = np.arange(start, min(stop, self.samples))
        return Labelled(self.inputs.take(numbers), None if self.labels is None else self.labels[start:stop])

    def by_shape(self) -> Labelled:
        """The same samples, those of one shape side by side: a group for each shape."""
        groups: dict[tuple[Any, ...], list[int]] = {}
        for index, group in enumerate(self.inputs.groups):
            shapes = tuple((name, array.shape[1:]) for name, array in group.items())
            groups.setdefault(shapes, []).append(index)
        if len(groups) == len(self.inputs.groups):
            return self
        order = [index for members in groups.values() for index in members]
        labels = None
        if self.labels is not None:
            parts = np.split(self.labels, np.cumsum(self.inputs.sizes)[:-1])
            labels = np.concatenate([parts[index] for index in order])
        return Labelled(named.join([Batch([self.inputs.groups[index]]) for index in order]), labels)


def fill_batches(
    fill: Callable[[int, np.ndarray], None],
    count: int,
    size: int,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    threads: int,
) -> Iterator[tuple[int, np.ndarray]]:
    """Fill arrays of `size` samples, in order, while the consumer works on the previous one.

    Args:
        fill: Called as fill(index, out) from a worker thread; writes sample `index` to `out`.
        count: Number of samples.
        size: Samples per batch; the last batch may have fewer.
        shape: Of one sample.
        dtype: Of the batches.
        threads: Worker threads.

    Yields:
        Index of the first sample, and the batch. The first failing sample's error is raised in its place.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="lampq-data")
    starts = iter(range(0, count, size))
    pending: deque[tuple[int, np.ndarray, list[Future[None]]]] = deque()

    def submit() -> None:
        start = next(starts, None)
        if start is not None:
            out = np.empty((min(size, count - start), *shape), dtype=dtype)
            # `out[i]` of a one-dimensional batch would be a copy, `out[i, ...]` never is.
            jobs = [pool.submit(fill, start + i, out[i, ...]) for i in range(len(out))]
            pending.append((start, out, jobs))

    try:
        for _ in range(_AHEAD):
            submit()
        while pending:
            start, out, jobs = pending.popleft()
            for job in jobs:
                job.result()
            submit()
            yield start, out
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def rebatch(batches: Iterable[Labelled], size: int) -> Iterator[Labelled]:
    """The same samples `size` at a time; the last batch may have fewer."""
    held: list[Labelled] = []
    have = 0
    for batch in batches:
        held.append(batch)
        have += batch.samples
        if have < size:
            continue
        joined = join(held)
        full = have - have % size
        for start in range(0, full, size):
            yield joined.part(start, start + size)
        held, have = ([joined.part(full, have)], have - full) if have > full else ([], 0)
    if held:
        yield join(held)


def join(batches: list[Labelled]) -> Labelled:
    """Several batches as one; at least one must be given."""
    if len(batches) == 1:
        return batches[0]
    labels = [batch.labels for batch in batches if batch.labels is not None]
    return Labelled(
        inputs=named.join([batch.inputs for batch in batches]),
        labels=np.concatenate(labels) if labels else None,
    )
