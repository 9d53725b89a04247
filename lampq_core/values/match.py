"""Which layer of a model a layer of a plan means: by fingerprint first, by name second."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lampq.core.values import fingerprint
from lampq.core.values.fingerprint import Fingerprint
from lampq.core.values.messages import listed

# Distances closer than this tell no two candidates apart.
_CLOSE = 1e-3
_MOST_PARTS = 3
# All triples of so many layers are tried; of more, only neighbours.
_MOST_COMBINED = 100
# Names of a message.


class Identified(Protocol):
    """Anything with a name and the fingerprint of a weight: a `Layer` or a `PlanLayer`."""

    @property
    def name(self) -> str:
        """Its address."""

    @property
    def fingerprint(self) -> Fingerprint:
        """Its identity."""

    @property
    def folded(self) -> Fingerprint | None:
        """Its identity with the normalization behind it folded in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Layers that hold the same weights: one and one, or one and the several it is made of.

    Attributes:
        left: Indices on the left.
        right: Indices on the right; one of the two sides has a single index.
        how: `weight`: one and one. `folded`: one and one, a normalization folded into one of them. `fused`: a single
            weight and its two or three parts. `copies`: a single weight and several equal to it. `name`: one and one
            whose names and sizes agree, not their values.
        distance: Of the fingerprints, 0 (equal) to 1 (as far apart as a bfloat16 copy may be); above for `name`.
    """

    left: tuple[int, ...]
    right: tuple[int, ...]
    how: str
    distance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """Correspondence of two lists of layers.

    Attributes:
        matches: What belongs together, in the order of the right.
        only_left: Indices on the left without a partner.
        only_right: Indices on the right without a partner.
        ambiguous: (left, right) indices of equal weights, of which the two sides hold different numbers, so that
            nothing says which is which. Those that names tell apart are among the matches, the others left over.
        renamed: How many one-to-one matches have different names.
    """

    matches: tuple[Match, ...]
    only_left: tuple[int, ...]
    only_right: tuple[int, ...]
    ambiguous: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()
    renamed: int

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """(left, right) of the one-to-one matches, in the order of the right."""
        return tuple((m.left[0], m.right[0]) for m in self.matches if len(m.left) == len(m.right) == 1)

    @property
    def complete(self) -> bool:
        """Whether nothing is left over on either side."""
        return not self.only_left and not self.only_right


def match(left: Sequence[Identified], right: Sequence[Identified], *, by_name: bool = False) -> Matching:
    """Pair layers that hold the same weight.

    A weight takes the partner whose fingerprint is nearest. Equal weights (a freshly copied block, say) are told
    apart by name, and where names say nothing by order, which keeps the k-th occurrence on one side with the k-th
    on the other. What is left is tried as a fused weight and its parts, in both directions.

    Args:
        left: Layers.
        right: Layers.
        by_name: Pair what is then left by name, where the number of weights agrees too.
    """
    search = _Search(left, right)
    search.pair_weights()
    search.pair_folded()
    search.pair_parts()
    if by_name:
        search.pair_names()
    return search.result()


def left_over(
    matching: Matching, left: Sequence[Identified], right: Sequence[Identified], *, sides: tuple[str, str]
) -> str:
    """What has no partner, for a message.

    Args:
        matching: A matching of these two.
        left: Layers.
        right: Layers.
        sides: What to call the two, for example ("the plan", "the model").

    Returns:
        A clause without a full stop; empty where nothing is left over.
    """
    parts = []
    for indices, layers, side in (
        (matching.only_left, left, sides[0]),
        (matching.only_right, right, sides[1]),
    ):
        if indices:
            names = listed([layers[i].name for i in indices])
            parts.append(f"{len(indices)} layers of {side} have no match ({names})")
    named = same_names(matching, left, right)
    if named:
        parts.append(f"{named} of them have the same name and size on both sides, and --by-name pairs these")
    unclear = [left[i].name for members, _ in matching.ambiguous for i in members]
    if unclear:
        parts.append(f"some of these hold equal weights, which nothing tells apart ({listed(unclear)})")
    return "; ".join(parts)


def same_names(matching: Matching, left: Sequence[Identified], right: Sequence[Identified]) -> int:
    """How many layers without a partner have one of the same name and size."""
    sizes = {left[i].name: left[i].fingerprint.count for i in matching.only_left}
    return sum(sizes.get(right[j].name) == right[j].fingerprint.count for j in matching.only_right)


class _Search:
    """The state of one matching: tables of both sides, what is found, what is free."""

    def __init__(self, left: Sequence[Identified], right: Sequence[Identified]) -> None:
        self.left, self.right = left, right
        self.left_table = fingerprint.to_table([layer.fingerprint for layer in left])
        self.right_table = fingerprint.to_table([layer.fingerprint for layer in right])
        self.free_left, self.free_right = dict.fromkeys(range(len(left))), dict.fromkeys(range(len(right)))
        self.found: list[Match] = []
        self.ambiguous: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def pair_weights(self) -> None:
        """Classes of equal weights, nearest first; within two classes by name, then by order."""
        for count in np.intersect1d(self.left_table[:, 0], self.right_table[:, 0]):
            lefts = _classes(self.left_table, np.flatnonzero(self.left_table[:, 0] == count))
            rights = _classes(self.right_table, np.flatnonzero(self.right_table[:, 0] == count))
            rows, columns, apart = fingerprint.close_pairs(
                self.left_table[[members[0] for members in lefts]],
                self.right_table[[members[0] for members in rights]],
            )
            used_rows, used_columns = set(), set()
            for k in np.argsort(apart, kind="stable"):
                row, column = int(rows[k]), int(columns[k])
                if row not in used_rows and column not in used_columns:
                    used_rows.add(row)
                    used_columns.add(column)
                    self._pair_classes(lefts[row], rights[column], float(apart[k]))

    def _pair_classes(self, left: list[int], right: list[int], distance: float) -> None:
        if len(left) != len(right) and 1 in (len(left), len(right)):
            self._add(tuple(left), tuple(right), "copies", distance)
            return
        names = {self.left[i].name: i for i in left}
        named = [(names[self.right[j].name], j) for j in right if self.right[j].name in names]
        for i, j in named:
            self._add((i,), (j,), "weight", distance)
        left, right = [i for i in left if i in self.free_left], [j for j in right if j in self.free_right]
        if len(left) == len(right):
            for i, j in zip(left, right, strict=True):
                self._add((i,), (j,), "weight", distance)
        elif left and right:
            self.ambiguous.append((tuple(left), tuple(right)))

    def pair_folded(self) -> None:
        """Free layers of which one is the other with the normalization behind it folded in."""
        ours = {i: mark for i in self.free_left if (mark := self.left[i].folded) is not None}
        theirs = {j: mark for j in self.free_right if (mark := self.right[j].folded) is not None}
        pairs = [
            *_close(ours, {j: self.right[j].fingerprint for j in self.free_right}),
            *_close({i: self.left[i].fingerprint for i in self.free_left}, theirs),
        ]
        for distance, i, j in sorted(pairs):
            if i in self.free_left and j in self.free_right:
                self._add((i,), (j,), "folded", distance)

    def pair_parts(self) -> None:
        """Free layers of one side that are the sum of two or three of the other."""
        unclear = (
            {i for left, _ in self.ambiguous for i in left},
            {j for _, right in self.ambiguous for j in right},
        )
        for whole in [j for j in self.free_right if j not in unclear[1]]:
            parts = _parts(self.right_table[whole], self.left_table, list(self.free_left))
            if parts is not None:
                self._add(parts[0], (whole,), "fused", parts[1])
        for whole in [i for i in self.free_left if i not in unclear[0]]:
            parts = _parts(self.left_table[whole], self.right_table, list(self.free_right))
            if parts is not None:
                self._add((whole,), parts[0], "fused", parts[1])

    def pair_names(self) -> None:
        """Free layers of equal name and size."""
        names = {self.left[i].name: i for i in self.free_left}
        for j in list(self.free_right):
            i = names.get(self.right[j].name)
            if i is not None and self.left[i].fingerprint.count == self.right[j].fingerprint.count:
                self._add((i,), (j,), "name", self.left[i].fingerprint.distance(self.right[j].fingerprint))

    def _add(self, left: tuple[int, ...], right: tuple[int, ...], how: str, distance: float) -> None:
        self.found.append(Match(left=left, right=right, how=how, distance=distance))
        for i in left:
            del self.free_left[i]
        for j in right:
            del self.free_right[j]

    def result(self) -> Matching:
        """What was found, in order."""
        return Matching(
            matches=tuple(sorted(self.found, key=lambda pair: pair.right)),
            only_left=tuple(self.free_left),
            only_right=tuple(self.free_right),
            ambiguous=tuple(self.ambiguous),
            renamed=sum(
                self.left[m.left[0]].name != self.right[m.right[0]].name
                for m in self.found
                if len(m.left) == len(m.right) == 1
            ),
        )


def _close(
    left: Mapping[int, Fingerprint], right: Mapping[int, Fingerprint]
) -> Iterator[tuple[float, int, int]]:
    """Distance and indices of all pairs that match."""
    if left and right:
        ours, theirs = list(left), list(right)
        tables = [fingerprint.to_table(list(side.values())) for side in (left, right)]
        for row, column, distance in zip(*fingerprint.close_pairs(*tables), strict=True):
            yield float(distance), ours[row], theirs[column]


def _classes(table: np.ndarray, members: np.ndarray) -> list[list[int]]:
    """Members whose weights are equal, together; in order of their first."""
    first = fingerprint.first_equals(table[members])
    order = np.argsort(first, kind="stable")
    return [part.tolist() for part in np.split(members[order], np.flatnonzero(np.diff(first[order])) + 1)]


def _parts(whole: np.ndarray, table: np.ndarray, free: Sequence[int]) -> tuple[tuple[int, ...], float] | None:
    """Indices of the free rows that add up to `whole`, and how nearly; neighbours are preferred to others."""
    for indices in _combinations(np.array([i for i in free if table[i, 0] < whole[0]], dtype=np.int64)):
        sums = table[indices].sum(axis=1)
        fitting = sums[:, 0] == whole[0]
        if not fitting.any():
            continue
        apart = fingerprint.distances(whole[None], sums[fitting])[0]
        best = float(apart.min())
        if best <= 1:
            # The first in order of those equally near.
            nearest = int(np.argmax(apart <= best + _CLOSE))
            return tuple(indices[fitting][nearest].tolist()), float(apart[nearest])
    return None


def _combinations(free: np.ndarray) -> Iterator[np.ndarray]:
    """Rows of two or three indices: neighbours first, then whatever can be combined."""
    for size in range(2, min(_MOST_PARTS, len(free)) + 1):
        yield np.lib.stride_tricks.sliding_window_view(free, size)
    if len(free) <= _MOST_COMBINED:
        for size in range(2, min(_MOST_PARTS, len(free)) + 1):
            yield np.array(list(itertools.combinations(free.tolist(), size)), dtype=np.int64)
