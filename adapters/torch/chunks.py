"""Batches of any length and of samples of several shapes, through a module that takes some at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lampq.adapters.joining import canonical_outputs, joined
from lampq.adapters.torch.outputs import sample_rows
from lampq.core.values.batch import Batch
from lampq.core.values.head import Head


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chunk:
    """Some samples of a batch.

    Attributes:
        inputs: The samples on the device, by name; the last one is repeated where the module fixes their number.
        count: How many are real.
        group: Number of the group of the batch that they are from.
    """

    inputs: Mapping[str, torch.Tensor]
    count: int
    group: int

    @property
    def size(self) -> int:
        """Samples, repeated ones included."""
        return samples_of(self.inputs)

    def rows(self, output: torch.Tensor, name: str, model: str) -> torch.Tensor:
        """The rows of an output that belong to real samples."""
        return sample_rows(output, self.size, name, model)[: self.count]


def samples_of(inputs: Mapping[str, torch.Tensor]) -> int:
    """Samples in named tensors."""
    return len(next(iter(inputs.values())))


def split(batch: Batch, size: int) -> Iterator[tuple[int, Mapping[str, np.ndarray]]]:
    """Numbers of groups, and up to `size` samples of each at a time."""
    for number, (group, samples) in enumerate(zip(batch.groups, batch.sizes, strict=True)):
        for start in range(0, samples, size):
            yield number, {name: array[start : start + size] for name, array in group.items()}


def filled_up(inputs: Mapping[str, torch.Tensor], size: int) -> dict[str, torch.Tensor]:
    """The same samples and the last one again, as often as it takes."""
    missing = size - samples_of(inputs)
    if missing <= 0:
        return dict(inputs)
    return {name: torch.cat([t, t[-1:].expand(missing, *t.shape[1:])]) for name, t in inputs.items()}


def real_rows(
    outputs: Mapping[str, torch.Tensor], chunk: Chunk, heads: Sequence[Head], model: str
) -> dict[str, np.ndarray]:
    """Judged outputs of the real samples of a chunk as arrays, float32."""
    return {
        head.name: chunk.rows(outputs[head.name], head.name, model).float().cpu().numpy() for head in heads
    }


def join(
    outputs: Sequence[Mapping[str, np.ndarray]], groups: Sequence[int], heads: Sequence[Head], model: str
) -> Batch:
    """Canonical outputs of a batch from those of its chunks.

    Args:
        outputs: Judged outputs of every chunk, one row per sample, by name.
        groups: The group that each chunk is from.
        heads: What is judged.
        model: The model, for messages.

    Raises:
        AdapterError: Rows of one output differ in shape within a group.
    """
    return canonical_outputs(joined(zip(groups, outputs, strict=True), model), heads)
