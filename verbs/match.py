"""Which layers of two models, profiles or plans hold the same weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lampq.core.values.match import Matching, left_over
from lampq.core.values.match import match as match_layers
from lampq.verbs.sources import Source, layers_of, read_source


@dataclass(frozen=True, slots=True, kw_only=True)
class Correspondence:
    """A matching with the names of both sides.

    Attributes:
        left: Names of the layers on the left, in order.
        right: Names of the layers on the right, in order.
        matching: Indices into both.
        remainder: What has no match, as a sentence; empty where nothing is left over.
    """

    left: tuple[str, ...]
    right: tuple[str, ...]
    matching: Matching
    remainder: str

    @property
    def complete(self) -> bool:
        """Whether nothing is left over on either side."""
        return self.matching.complete

    def rows(self) -> list[tuple[str, str, str, float]]:
        """(left names, right names, how, distance) of every match, in the order of the right."""
        return [
            (
                " + ".join(self.left[i] for i in pair.left),
                " + ".join(self.right[j] for j in pair.right),
                pair.how,
                pair.distance,
            )
            for pair in self.matching.matches
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        matching = self.matching
        return {
            "complete": self.complete,
            "matches": [
                {
                    "left": [self.left[i] for i in m.left],
                    "right": [self.right[j] for j in m.right],
                    "how": m.how,
                    "distance": m.distance,
                }
                for m in matching.matches
            ],
            "only_left": [self.left[i] for i in matching.only_left],
            "only_right": [self.right[j] for j in matching.only_right],
            "ambiguous": [
                {"left": [self.left[i] for i in ours], "right": [self.right[j] for j in theirs]}
                for ours, theirs in matching.ambiguous
            ],
            "renamed": matching.renamed,
        }


def match(left: Source | str | Path, right: Source | str | Path, *, by_name: bool = False) -> Correspondence:
    """Pair the layers of any two of models, profiles and plans, in any formats.

    Args:
        left: A model, profile or plan, or the path of one.
        right: Another.
        by_name: Pair what weights do not by name and size.

    Raises:
        LampqError: One cannot be read.
    """
    sides = [read_source(side) if isinstance(side, str | Path) else side for side in (left, right)]
    ours, theirs = map(layers_of, sides)
    matching = match_layers(ours, theirs, by_name=by_name)
    return Correspondence(
        left=tuple(layer.name for layer in ours),
        right=tuple(layer.name for layer in theirs),
        matching=matching,
        remainder=left_over(matching, ours, theirs, sides=("the first", "the second")),
    )
