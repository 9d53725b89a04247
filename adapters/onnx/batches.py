"""Batches of any length and of samples of several shapes, through a model that takes them some at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lampq.adapters.joining import canonical_outputs, joined
from lampq.core.values.batch import Batch, Group
from lampq.core.values.errors import AdapterError
from lampq.core.values.head import Head

# Multiply-accumulates per run where the model takes any number of samples: enough to fill the processor, few
# enough for its caches.
_WORK = 2e10
_FEWEST, _USUAL, _MOST = 4, 16, 32

Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Names of inputs and the shapes of their samples."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chunk:
    """Some samples of a batch.

    Attributes:
        arrays: The samples as the model wants them, by name of the input; the last sample is repeated where the
            model fixes their number.
        count: How many are real.
        group: Number of the group of the batch that they are from.
    """

    arrays: Mapping[str, np.ndarray]
    count: int
    group: int

    @property
    def size(self) -> int:
        """Samples, repeated ones included."""
        return len(next(iter(self.arrays.values())))


def chunk_size(macs: float | None, samples: int, workers: int) -> int:
    """Samples per run for a model that takes any number.

    Args:
        macs: Multiply-accumulates per sample, or None where unknown.
        samples: Samples in the batch.
        workers: Threads that share the chunks.
    """
    size = int(min(max(_WORK / macs, _FEWEST), _MOST)) if macs else _USUAL
    return max(1, min(size, -(-samples // workers)))


def sample_shapes(group: Group) -> Shapes:
    """The shapes of the samples of a group."""
    return tuple((name, tuple(array.shape[1:])) for name, array in group.items())


def split(group: Group, size: int, *, fixed: bool, number: int = 0) -> list[Chunk]:
    """Chunks of a group of samples.

    Args:
        group: Arrays by name, samples first.
        size: Samples per chunk.
        fixed: Whether the last chunk is filled up to that size.
        number: Number of the group.
    """
    chunks = []
    samples = len(next(iter(group.values())))
    for start in range(0, samples, size):
        count = min(size, samples - start)
        # The last sample again, as often as it takes.
        chosen = np.minimum(np.arange(start, start + (size if fixed else count)), samples - 1)
        exact = chosen[-1] - chosen[0] + 1 == len(chosen)
        arrays = {
            name: np.ascontiguousarray(array[start : start + count] if exact else array[chosen])
            for name, array in group.items()
        }
        chunks.append(Chunk(arrays=arrays, count=count, group=number))
    return chunks


def join(
    outputs: Sequence[Mapping[str, np.ndarray]],
    chunks: Sequence[Chunk],
    *,
    heads: Sequence[Head],
    name: str,
) -> Batch:
    """Canonical outputs of a batch from the outputs of its chunks.

    Args:
        outputs: Arrays by name for every chunk.
        chunks: The chunks.
        heads: The judged outputs.
        name: The model, for messages.

    Returns:
        Float32, samples first, in the groups of the chunks.

    Raises:
        AdapterError: An output has not one row per sample, or rows of several shapes.
    """
    parts = (
        (chunk.group, {head.name: _rows(output[head.name], chunk, head, name) for head in heads})
        for output, chunk in zip(outputs, chunks, strict=True)
    )
    return canonical_outputs(joined(parts, name), heads)


def _rows(output: np.ndarray, chunk: Chunk, head: Head, name: str) -> np.ndarray:
    """One row per real sample of a chunk."""
    if output.ndim and len(output) == chunk.size:
        return output[: chunk.count]
    if chunk.size == 1:
        # The model knows one sample and no axis for several.
        return output[None]
    raise AdapterError(
        f"{name}: output {head.name} has shape {output.shape} for {chunk.size} samples, not one row for each: "
        f"leave it out with --output {head.name}=ignore, or export with a batch of 1"
    )
