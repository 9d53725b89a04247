"""A search that spends a budget in bytes to the end where layers share a part of the file.

What is shared, such as the table of a width, is there once, or not at all where no layer needs it, which is no sum over
the layers. A search therefore sets aside what all options might need. Here a first search, which sets nothing aside,
tells what is needed, and a second one looks among the options that need no more.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from lampq.core.allocating.limits import BYTES
from lampq.core.allocating.shared import needed_by, with_spare, without_more
from lampq.core.allocating.smallest import limited
from lampq.core.planning.search import Best, Search

# Of a budget: so little may be set aside for widths that turn out not to be needed.
_SPARE = 1000
# How often what a plan leaves of what was set aside for it is spent on another.
_TURNS = 3


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
    narrow = _around(search, first.solution.chosen, budget.size_bytes)
    best = narrow.best(keep=keep, bound_limit_s=0)
    for _ in range(_TURNS):
        again = _around(search, best.solution.chosen, budget.size_bytes)
        if _room(again) <= _room(narrow):
            break
        better = again.best(keep=keep, bound_limit_s=0)
        if better.solution.objective >= best.solution.objective:
            break
        narrow, best = again, better
    # No plan loses less than the first search says, which had more room than there is.
    bound = min(first.solution.bound, best.solution.objective)
    return narrow, dataclasses.replace(best, solution=dataclasses.replace(best.solution, bound=bound))


def _around(search: Search, choice: np.ndarray, size_bytes: int) -> Search:
    """The search among the options that need what a choice needs; as it was where nothing fits."""
    profile, allowed, resource = search.profile, np.isfinite(search.problem.cost), _resource(search)
    parts = with_spare(profile, allowed, needed_by(profile, choice), size_bytes // _SPARE)
    narrow = without_more(profile, allowed, parts)
    problem = dataclasses.replace(search.problem, cost=np.where(narrow, search.problem.cost, np.inf))
    room = size_bytes - profile.rest_bytes - profile.shared_bytes(narrow)
    if room < int(problem.floors()[resource]):
        return search
    return dataclasses.replace(search, problem=limited(problem, room, resource))


def _room(search: Search) -> int:
    return int(search.problem.limits[_resource(search)])


def _resource(search: Search) -> int:
    return search.problem.resource_names.index(BYTES)
