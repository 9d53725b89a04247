"""The metrics of all heads as one linear map from differences to a column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lampq.core.readouts.role import Embedding
from lampq.core.values.batch import Batch, Group
from lampq.core.values.errors import RecordError
from lampq.core.values.head import Head


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JointEmbedding:
    """Differences of all judged outputs to one column whose squares add up to the mean damage to second order.

    Attributes:
        heads: The judged heads.
        embeddings: One per group of samples and head, scaled by weight over samples.
        shapes: Shape of each output, group by group.
        importance: How much each entry may matter, float64, shape (size,), >= 0.
    """

    heads: Sequence[Head]
    embeddings: Sequence[Sequence[Embedding]]
    shapes: Sequence[Sequence[tuple[int, ...]]]
    importance: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        weighted = [
            head.weight * embedding.importance.ravel()
            for group in self.embeddings
            for head, embedding in zip(self.heads, group, strict=True)
        ]
        object.__setattr__(self, "importance", np.concatenate(weighted))

    @property
    def size(self) -> int:
        """Entries of a column."""
        return len(self.importance)

    def __call__(self, difference: Batch) -> np.ndarray:
        """The column of a difference, float32, shape (size,).

        Raises:
            RecordError: An array has another shape than the centre's, or is not finite.
        """
        if len(difference.groups) != len(self.shapes):
            raise RecordError(f"differences in {len(difference.groups)} groups; expected {len(self.shapes)}")
        column = np.empty(self.size, dtype=np.float32)
        start = 0
        for group, shapes, embeddings in zip(difference.groups, self.shapes, self.embeddings, strict=True):
            for head, shape, embedding in zip(self.heads, shapes, embeddings, strict=True):
                array = _checked(head.name, group, shape)
                column[start : start + array.size] = embedding.apply(array).ravel()
                start += array.size
        return column


def _checked(name: str, group: Group, shape: tuple[int, ...]) -> np.ndarray:
    if name not in group:
        raise RecordError(f"no difference of output {name}")
    array = np.asarray(group[name], dtype=np.float32)
    if array.shape != shape:
        raise RecordError(f"a difference of output {name} has shape {array.shape}; expected {shape}")
    if not np.isfinite(array).all():
        sample = int(np.argwhere(~np.isfinite(array))[0, 0])
        raise RecordError(f"a difference of output {name} is not finite (first for sample {sample})")
    return array
