"""A search that spends a budget in bytes to the end where layers share a part of the file.

What is shared, such as the table of a width, is there once, or not at all where no layer needs it, which is no sum over
the layers. A search therefore sets aside what all options might need. Here it is first found out which options are
worth what they need, by damage that adds up, and the search is left with these.
"""

from __future__ import annotations

import dataclasses
import math
import time

import numpy as np

from lampq.core.allocating.limits import BYTES
from lampq.core.allocating.shared import needed_by, without_more
from lampq.core.allocating.smallest import limited
from lampq.core.planning.search import Best, Search
from lampq.core.values.errors import RecordError

# Seconds for finding out which options to leave.
_LIMIT_S = 2.0


def settled(search: Search, *, keep: int = 1) -> tuple[Search, Best]:
    """The search to go on with, and what it found; see `Search.best`.

    Raises:
        BudgetError: No plan meets all limits together.
    """
    budget, profile = search.request.budget, search.profile
    if budget is None or budget.size_bytes is None or budget.max_kl is not None:
        return search, search.best(keep=keep)
    if not profile.shared_bytes(np.isfinite(search.problem.cost)):
        return search, search.best(keep=keep)
    first = search.within(budget.size_bytes - profile.rest_bytes, _resource(search)).best(keep=keep)
    narrow = _Widths(search, budget.size_bytes).climbed(first.solution.chosen)
    best = narrow.best(keep=keep, bound_limit_s=0)
    # No plan loses less than the first search says, which had more room than there is.
    bound = min(first.solution.bound, best.solution.objective)
    return narrow, dataclasses.replace(best, solution=dataclasses.replace(best.solution, bound=bound))


class _Widths:
    """Searches among some of the options, each with the room that what these need leaves.

    Args:
        search: The search among all options.
        size_bytes: The budget.
    """

    def __init__(self, search: Search, size_bytes: int) -> None:
        self._search, self._size = search, size_bytes
        self._allowed = np.isfinite(search.problem.cost)
        self._damages: dict[frozenset[int], float] = {}
        self._deadline = time.perf_counter() + _LIMIT_S

    def climbed(self, choice: np.ndarray) -> Search:
        """The search among the options of a choice, with one more or one less as long as damage falls."""
        columns = frozenset(range(self._allowed.shape[1]))
        best = min((frozenset(choice.tolist()), columns), key=self._damage)
        while True:
            beside = [best ^ {column} for column in columns if best != {column}]
            step = min(beside, key=self._damage, default=best)
            if self._damage(step) >= self._damage(best):
                break
            best = step
        known = math.isfinite(self._damage(best))
        return (self._among(best) if known else None) or self._search

    def _damage(self, columns: frozenset[int]) -> float:
        """Least damage among these options where it adds up; infinite where nothing fits, or time is up."""
        if columns not in self._damages:
            search, left = self._among(columns), self._deadline - time.perf_counter()
            damage = math.inf
            if search is not None and left > 0:
                damage = search.solve(search.problem, time_limit_s=left).objective
            self._damages[columns] = damage
        return self._damages[columns]

    def _among(self, columns: frozenset[int]) -> Search | None:
        """The search among the options that need no more than these do; None where nothing fits."""
        profile, search, resource = self._search.profile, self._search, _resource(self._search)
        chosen = self._allowed & np.isin(np.arange(self._allowed.shape[1]), list(columns))
        narrow = without_more(profile, self._allowed, needed_by(profile, chosen))
        if not narrow.any(axis=1).all():
            return None
        try:
            problem = dataclasses.replace(search.problem, cost=np.where(narrow, search.problem.cost, np.inf))
        except RecordError:
            # Tied layers have no option in common.
            return None
        room = self._size - profile.rest_bytes - profile.shared_bytes(narrow)
        if room < int(problem.floors()[resource]):
            return None
        return dataclasses.replace(search, problem=limited(problem, room, resource))


def _resource(search: Search) -> int:
    return search.problem.resource_names.index(BYTES)
