"""A batch of samples, and filling batches ahead of their use with several threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

_AHEAD = 2
"""Batches being filled while one is in use."""


class Batch(NamedTuple):
    """Samples of a model's input.

    Attributes:
        inputs: Shape (samples, ...), float32, or the integer type of the model's input.
        labels: Class indices, int64, shape (samples,), or None.
    """

    inputs: np.ndarray
    labels: np.ndarray | None


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


def rebatch(batches: Iterable[Batch], size: int) -> Iterator[Batch]:
    """The same samples `size` at a time; the last batch may have fewer."""
    held: list[Batch] = []
    have = 0
    for batch in batches:
        held.append(batch)
        have += len(batch.inputs)
        if have < size:
            continue
        joined = join(held)
        full = have - have % size
        for start in range(0, full, size):
            yield _slice(joined, start, start + size)
        held, have = ([_slice(joined, full, have)], have - full) if have > full else ([], 0)
    if held:
        yield join(held)


def join(batches: list[Batch]) -> Batch:
    """Several batches as one; at least one must be given."""
    if len(batches) == 1:
        return batches[0]
    labels = [batch.labels for batch in batches if batch.labels is not None]
    return Batch(
        inputs=np.concatenate([batch.inputs for batch in batches]),
        labels=np.concatenate(labels) if labels else None,
    )


def _slice(batch: Batch, start: int, stop: int) -> Batch:
    labels = None if batch.labels is None else batch.labels[start:stop]
    return Batch(inputs=batch.inputs[start:stop], labels=labels)
