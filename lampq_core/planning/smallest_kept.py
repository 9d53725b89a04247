"""The smallest plan that keeps what can only be measured, with few measurements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lampq.core.planning.search import Search
from lampq.core.planning.tradeoff import unbeaten
from lampq.core.values.errors import BudgetError
from lampq.core.values.progress import Progress, quiet

# Sizes below the smallest plan known to keep it that are tried once bisection has ended, as parts of its size.
_LOWER = (0.99, 0.98, 0.96, 0.92)
# How often a smaller plan found there may start this anew.
_RESTARTS = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SmallestKept:
    """What was found.

    Attributes:
        choice: The smallest plan among those measured that keeps it, shape (L,).
        measured: Plans measured.
        curve: Plans on the curve they were taken from.
    """

    choice: np.ndarray
    measured: int
    curve: int


def smallest_kept(
    search: Search, keeps: Callable[[np.ndarray], bool], *, progress: Progress = quiet
) -> SmallestKept:
    """Bisect the curve of plans that no other beats in bytes and predicted damage, measuring as it goes.

    What is measured need not fall with the size. So the plan returned is one that was measured and keeps it, and some
    smaller ones are tried after the bisection; still smaller ones that keep it by chance may be missed.

    Args:
        search: Its limits are kept by every plan.
        keeps: Measures a plan, shape (L,), and says whether it keeps what it must.
        progress: Told after every measurement.

    Raises:
        BudgetError: Not even the widest plan of the curve keeps it.
    """
    choices, sizes, _ = unbeaten(search, "bytes")
    known: dict[int, bool] = {}
    most = len(choices).bit_length() + len(_LOWER)

    def kept(index: int) -> bool:
        if index not in known:
            known[index] = keeps(choices[index])
            progress("measuring plans", min(len(known), most), most)
        return known[index]

    if not kept(len(choices) - 1):
        raise BudgetError(
            "the widest plan within the limits loses more already; allow more, or profile wider widths"
        )
    best = _bisected(kept, len(choices) - 1)
    for _ in range(_RESTARTS):
        lower = _lower(sizes, best, kept)
        if lower is None:
            break
        best = _bisected(kept, lower)
    return SmallestKept(choice=choices[best], measured=len(known), curve=len(choices))


def _bisected(kept: Callable[[int], bool], high: int) -> int:
    """An index that is kept, from one that is: the smallest were it so that smaller ones are kept less."""
    low = -1
    while high - low > 1:
        middle = (low + high) // 2
        if kept(middle):
            high = middle
        else:
            low = middle
    return high


def _lower(sizes: Sequence[int] | np.ndarray, best: int, kept: Callable[[int], bool]) -> int | None:
    """A smaller plan that is kept, or None."""
    wanted = [int(np.searchsorted(sizes, part * sizes[best], side="right")) - 1 for part in _LOWER]
    return next((index for index in dict.fromkeys(wanted) if 0 <= index < best and kept(index)), None)
