"""How long work reports on itself."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with what is being done, steps done and steps in all."""


def rest(layer: int, layers: int) -> int:
    """Steps of a run in which a layer (by index) is the first to differ: what lies before it is computed once."""
    return layers - layer


def quiet(what: str, done: int, total: int) -> None:
    """A progress report nobody sees."""
