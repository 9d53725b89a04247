"""One layer replaced at a time, without repeating what comes before it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

import numpy as np

from lampq.core.values.batch import Batch

States = TypeVar("States")


class Prefix(Protocol[States]):
    """A batch on its way through a model: what comes before a layer is computed once for all its candidates."""

    def place(self, name: str) -> int | None:
        """Where the model first uses a layer; None where no judged output depends on it."""

    def start(self) -> States:
        """The states in front of place 0."""

    def advance(self, states: States, begin: int, end: int) -> States | None:
        """The states at `end` from those at `begin`, weights as they are; None where these are too large to keep."""

    def finish(self, states: States, begin: int, name: str, weight: np.ndarray) -> Batch:
        """The judged outputs from the states at `begin`, with one layer replaced."""


def swept(
    prefix: Prefix[States], candidates: Iterable[tuple[str, int, np.ndarray]]
) -> Iterator[tuple[str, int, Batch]]:
    """Outputs with one layer replaced at a time; candidates in model order cost least, any order is right."""
    states, at = prefix.start(), 0
    for name, option, weight in candidates:
        place = prefix.place(name)
        if place is not None and place < at:
            states, at = prefix.start(), 0
        if place is not None and place > at:
            advanced = prefix.advance(states, at, place)
            if advanced is not None:
                states, at = advanced, place
        yield name, option, prefix.finish(states, at, name, weight)
