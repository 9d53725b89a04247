"""The metrics of all heads as one linear map from differences to a column."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from lampq.core.readouts.parts import Part, check_samples, output_of, parts_of
from lampq.core.readouts.role import Role
from lampq.core.values.batch import Batch
from lampq.core.values.errors import RecordError
from lampq.core.values.head import Head


class JointEmbedding:
    """Differences of all judged outputs to one column whose squares add up to the mean damage to second order.

    Args:
        heads: The judged heads.
        roles: Their roles.
        centre: Outputs with masks, around which the damage is expanded.

    Attributes:
        importance: How much each entry may matter, float64, shape (size,), >= 0.
    """

    def __init__(self, heads: Sequence[Head], roles: Sequence[Role], centre: Batch) -> None:
        self._centre = centre
        self._parts: list[tuple[Part, Callable[[np.ndarray], np.ndarray]]] = []
        self.importance = np.empty(sum(output_of(group, head).size for group in centre for head in heads))
        start = 0
        for part in parts_of(heads, roles, centre):
            scale = part.head.weight / centre.samples
            embedding = part.role.embedding(part.of(centre), part.mask, scale)
            self._parts.append((part, embedding.apply))
            entries = embedding.importance
            place = self.importance[start : start + entries.size].reshape(entries.shape)
            np.multiply(entries, part.head.weight, out=place)
            start += entries.size

    @property
    def size(self) -> int:
        """Entries of a column."""
        return len(self.importance)

    @property
    def sample(self) -> np.ndarray:
        """Which sample each entry is of, int32, shape (size,)."""
        first = np.cumsum((0, *self._centre.sizes))
        numbers = []
        for part, _ in self._parts:
            own = np.arange(part.samples.start, part.samples.stop, dtype=np.int32) + np.int32(
                first[part.group]
            )
            numbers.append(np.repeat(own, math.prod(part.shape[1:])))
        return np.concatenate(numbers)

    def __call__(self, difference: Batch) -> np.ndarray:
        """The column of a difference, float32, shape (size,).

        Raises:
            RecordError: An array is missing, has another shape than the centre's, or is not finite.
        """
        check_samples(self._centre, difference)
        column = np.empty(self.size, dtype=np.float32)
        start = 0
        for part, embed in self._parts:
            moved = part.of(difference).astype(np.float32, copy=False)
            if not np.isfinite(moved).all():
                raise RecordError(
                    f"a difference of output {part.head.name} is not finite "
                    f"(first for sample {part.samples.start + int(np.argwhere(~np.isfinite(moved))[0, 0])})"
                )
            column[start : start + moved.size].reshape(moved.shape)[...] = embed(moved)
            start += moved.size
        return column
