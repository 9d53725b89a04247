"""Which layer of a model a layer of a plan means: by fingerprint first, by name second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lampq.core.fingerprint import Fingerprint


class Identified(Protocol):
    """Anything with a name and the fingerprint of a weight: a `Layer` or a `PlanLayer`."""

    @property
    def name(self) -> str:
        """Its address."""

    @property
    def fingerprint(self) -> Fingerprint:
        """Its identity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """Correspondence of two lists of layers.

    Attributes:
        pairs: (index on the left, index on the right), in the order of the right.
        only_left: Indices on the left without a partner.
        only_right: Indices on the right without a partner.
        renamed: How many pairs have different names.
    """

    pairs: tuple[tuple[int, int], ...]
    only_left: tuple[int, ...]
    only_right: tuple[int, ...]
    renamed: int

    @property
    def complete(self) -> bool:
        """Whether nothing is left over on either side."""
        return not self.only_left and not self.only_right


def match(left: Sequence[Identified], right: Sequence[Identified]) -> Matching:
    """Pair layers that hold the same weight.

    Equal weights (a freshly copied block, say) are told apart by name, and where names say nothing by order, which
    keeps the k-th occurrence on one side with the k-th on the other.
    """
    by_size: dict[int, list[int]] = {}
    for index, layer in enumerate(left):
        by_size.setdefault(layer.fingerprint.count, []).append(index)
    free = set(range(len(left)))
    found: dict[int, int] = {}
    candidates = {
        j: [
            i
            for i in by_size.get(layer.fingerprint.count, ())
            if left[i].fingerprint.matches(layer.fingerprint)
        ]
        for j, layer in enumerate(right)
    }
    for same_name in (True, False):
        for j, layer in enumerate(right):
            if j in found:
                continue
            for i in candidates[j]:
                if i in free and (not same_name or left[i].name == layer.name):
                    found[j] = i
                    free.discard(i)
                    break
    return Matching(
        pairs=tuple((found[j], j) for j in sorted(found)),
        only_left=tuple(sorted(free)),
        only_right=tuple(j for j in range(len(right)) if j not in found),
        renamed=sum(left[i].name != right[j].name for j, i in found.items()),
    )
