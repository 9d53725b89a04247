"""A part of the samples of a data set, for measuring on several machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lampq.core.values.errors import RecordError


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Shard:
    """Every count-th sample, beginning with number `index` (from 1).

    Attributes:
        index: Which of the shards, 1 to `count`.
        count: Shards in all.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise RecordError(f"shard {self}: write i/n with i from 1 to n, such as 2/4")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `2/4`.

        >>> Shard.parse("2/4").numbers(10).tolist()
        [1, 5, 9]

        Raises:
            RecordError: It is no such thing.
        """
        index, _, count = text.partition("/")
        if not (index.isascii() and index.isdigit() and count.isascii() and count.isdigit()):
            raise RecordError(f"shard {text!r}: write i/n with i from 1 to n, such as 2/4")
        return cls(index=int(index), count=int(count))

    def numbers(self, total: int) -> np.ndarray:
        """Numbers of the samples among `total`, from 0, int64.

        Raises:
            RecordError: There are none.
        """
        if total < self.index:
            raise RecordError(f"shard {self} of {total} samples is empty; use fewer shards or more samples")
        return np.arange(self.index - 1, total, self.count)


def original_order(shards: Sequence[Shard], samples: Sequence[int]) -> np.ndarray:
    """Order that brings the samples of shards, one shard after the other, back to that of the data set.

    Args:
        shards: All shards of a data set, in any order.
        samples: Samples of each.

    Returns:
        Indices into the samples laid end to end, int64.

    Raises:
        RecordError: A shard is missing or given twice, or they are of different divisions or data.
    """
    count = shards[0].count
    if any(shard.count != count for shard in shards):
        listed = ", ".join(str(shard) for shard in sorted(shards))
        raise RecordError(f"shards of different divisions cannot be merged: {listed}")
    indices = [shard.index for shard in shards]
    twice = next((i for i in indices if indices.count(i) > 1), None)
    if twice is not None:
        raise RecordError(f"shard {twice}/{count} is given twice")
    missing = [str(i) for i in range(1, count + 1) if i not in indices]
    if missing:
        raise RecordError(
            f"of {count} shards, number {', '.join(missing)} is missing; merge all of them at once"
        )
    total = sum(samples)
    for shard, size in zip(shards, samples, strict=True):
        if len(shard.numbers(total)) != size:
            raise RecordError(
                f"shard {shard} has {size} samples, {len(shard.numbers(total))} of {total} expected: "
                f"the shards are of different data"
            )
    return np.argsort(np.concatenate([shard.numbers(total) for shard in shards]), kind="stable")
