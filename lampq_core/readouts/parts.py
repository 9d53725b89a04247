"""Outputs cut into parts of one head and a few samples, so that float64 temporaries stay small."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lampq.core.readouts.role import Role
from lampq.core.readouts.rows import sample_blocks, to_rows
from lampq.core.values.batch import Batch, Group
from lampq.core.values.errors import RecordError
from lampq.core.values.head import Head
from lampq.core.values.messages import listed


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """One head on a few samples of a group.

    Attributes:
        group: Number of the group of samples.
        head: The head.
        role: Its role.
        samples: Samples, counted in the group.
        mask: Mask of these samples, or None.
        shape: Shape of the head's output for the whole group.
    """

    group: int
    head: Head
    role: Role
    samples: slice
    mask: np.ndarray | None
    shape: tuple[int, ...]

    def of(self, batch: Batch) -> np.ndarray:
        """The head's output for these samples.

        Raises:
            RecordError: The batch lacks it, or it has another shape.
        """
        array = output_of(batch.groups[self.group], self.head)
        if array.shape != self.shape:
            raise RecordError(f"output {self.head.name} has shape {array.shape}; expected {self.shape}")
        return array[self.samples]


def parts_of(heads: Sequence[Head], roles: Sequence[Role], batch: Batch) -> Iterator[Part]:
    """Parts group by group, head by head, in the order of samples.

    Raises:
        RecordError: An output or a mask is missing.
    """
    for number, group in enumerate(batch.groups):
        for head, role in zip(heads, roles, strict=True):
            output, mask = output_of(group, head), mask_of(group, head)
            for samples in sample_blocks(output):
                yield Part(
                    group=number,
                    head=head,
                    role=role,
                    samples=samples,
                    mask=None if mask is None else mask[samples],
                    shape=output.shape,
                )


def output_of(group: Group, head: Head) -> np.ndarray:
    """A head's output.

    Raises:
        RecordError: There is none.
    """
    if head.name not in group:
        raise RecordError(f"no output is called {head.name!r}; there are {listed(list(group))}")
    return group[head.name]


def mask_of(group: Group, head: Head) -> np.ndarray | None:
    """The mask that a head names, shape (S, positions), or None where it names none.

    Raises:
        RecordError: It is missing, or of another shape.
    """
    if head.mask is None:
        return None
    if head.mask not in group:
        raise RecordError(f"the mask {head.mask!r} of output {head.name} is missing")
    mask, output = group[head.mask], output_of(group, head)
    samples, positions, _ = to_rows(output, head.axis).shape
    if mask.shape != (samples, positions):
        raise RecordError(
            f"mask {head.mask!r} has shape {mask.shape}; output {head.name} of shape {output.shape} "
            f"has {positions} positions"
        )
    return mask


def check_samples(batch: Batch, other: Batch) -> None:
    """See that two batches have the same groups of samples.

    Raises:
        RecordError: They have not.
    """
    if batch.sizes != other.sizes:
        raise RecordError(f"outputs of {other.samples} samples do not fit a reference of {batch.samples}")
