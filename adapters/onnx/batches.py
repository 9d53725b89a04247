"""Batches of any length and of samples of several shapes, through a model that takes them some at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lampq.core.readouts.canonical import canonical
from lampq.core.values.batch import Batch, BatchLike, Group
from lampq.core.values.errors import AdapterError
from lampq.core.values.head import Head
from lampq.core.values.input_spec import InputSpec

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


def check(batch: BatchLike, specs: Sequence[InputSpec], name: str) -> Batch:
    """The batch with every array of its input's type.

    Args:
        batch: Samples first; a lone array is that of the only input, whatever it is called.
        specs: The inputs of the model.
        name: The model, for messages.

    Raises:
        AdapterError: An input is missing or unknown, or a shape or type does not fit.
    """
    wanted = [spec.name for spec in specs]
    if isinstance(batch, np.ndarray | list | tuple):
        if len(specs) != 1:
            raise AdapterError(f"{name} takes {_listed(specs)}: give arrays by name")
        batch = np.asarray(batch)
        if not batch.ndim or not len(batch):
            raise AdapterError(f"{name} takes {_listed(specs)}, not a batch of shape {batch.shape}")
    batch = Batch.of(batch, name=wanted[0] if wanted else "x")
    if len(specs) == 1 and len(batch.names) == 1 and batch.names[0] != wanted[0]:
        batch = Batch([{wanted[0]: next(iter(group.values()))} for group in batch.groups])
    missing = [n for n in wanted if n not in batch.names]
    unknown = [n for n in batch.names if n not in wanted]
    if missing or unknown:
        what = f"lacks {', '.join(missing)}" if missing else f"also has {', '.join(unknown)}"
        raise AdapterError(f"{name} takes {_listed(specs)}; the batch {what}")
    return Batch([{spec.name: _fit(group[spec.name], spec, name) for spec in specs} for group in batch])


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
    groups: dict[int, dict[str, list[np.ndarray]]] = {}
    for output, chunk in zip(outputs, chunks, strict=True):
        rows = groups.setdefault(chunk.group, {head.name: [] for head in heads})
        for head in heads:
            rows[head.name].append(_rows(output[head.name], chunk, head, name))
    return Batch([dict(_joined(rows, heads, name)) for rows in groups.values()])


def _joined(
    rows: Mapping[str, Sequence[np.ndarray]], heads: Sequence[Head], name: str
) -> Iterator[tuple[str, np.ndarray]]:
    for head in heads:
        shapes = sorted({piece.shape[1:] for piece in rows[head.name]})
        if len(shapes) > 1:
            raise AdapterError(
                f"{name}: the shape of output {head.name} depends on what is in a sample ({shapes[0]}, "
                f"{shapes[1]}): leave it out with --output {head.name}=ignore"
            )
        array = np.concatenate(rows[head.name]).astype(np.float32, copy=False)
        yield head.name, canonical(head, array)


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


def _fit(array: np.ndarray, spec: InputSpec, name: str) -> np.ndarray:
    if not spec.shape and not spec.any_rank:
        raise AdapterError(
            f"{name}: input {spec.name} is one number for all samples; fix it: --input {spec.name}=VALUE"
        )
    if not spec.accepts(array.shape):
        raise AdapterError(
            f"{name} takes {spec}, not a batch of shape {tuple(array.shape)}; check the image size and the layout"
        )
    wanted = np.dtype(spec.dtype)
    if not np.can_cast(array.dtype, wanted, "same_kind"):
        raise AdapterError(f"{name} takes {spec}, not {array.dtype}; convert the data")
    return array.astype(wanted, copy=False)


def _listed(specs: Sequence[InputSpec]) -> str:
    return ", ".join(str(spec) for spec in specs) or "no inputs"
