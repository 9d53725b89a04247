"""The smallest plan that keeps a largest KL."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from lampq import solvers
from lampq.core.allocating.limits import BYTES
from lampq.core.allocating.pareto import Curve, pareto
from lampq.core.allocating.smallest import first_within, limited, smallest
from lampq.core.values.errors import BudgetError
from lampq.core.values.problem import Problem
from lampq.core.values.solution import Solution

if TYPE_CHECKING:
    from lampq.verbs.plan import Search


def shrink(
    search: Search, max_kl: float, find: Callable[[Search], tuple[Solution, list[np.ndarray]]]
) -> Search:
    """The search under the smallest limit in bytes that keeps the predicted damage at `max_kl`.

    Without interactions that limit is read off the curve of all sizes, or found by bisection where other limits
    hold too. With interactions the curve gives the sizes and tells where to begin, and a few searches find the limit.

    Args:
        search: Its bytes are limited to the most that is tried.
        max_kl: Nats, > 0.
        find: Finds the best plan of a search.

    Raises:
        BudgetError: No plan keeps it, or the mode predicts no damage.
    """
    if search.mode == "error":
        raise BudgetError("a largest KL needs predictions in nats; profile the model with --data")
    problem = search.problem
    resource = problem.resource_names.index(BYTES)

    def within(limit: int) -> Search:
        return dataclasses.replace(search, problem=limited(problem, limit, resource))

    def damage(limit: int) -> float:
        try:
            return find(within(limit))[0].objective
        except BudgetError:
            # So few bytes clash with the other limits.
            return np.inf

    widest = find(search)[0].objective
    if widest > max_kl:
        raise BudgetError(
            f"largest KL {max_kl:g}: the widest plan within the limits is predicted to lose {widest:.3g} nats; "
            f"allow more or profile wider widths"
        )
    if search.interaction is None and len(problem.limits) > 1:
        best = smallest(problem, max_kl, solvers.solve, resource=resource)
        return within(int(problem.usage(best.chosen)[resource]))
    curve = pareto(_alone(problem, resource))
    if search.interaction is not None:
        found = first_within(curve.sizes.tolist(), max_kl, damage, guess=_guess(search, curve, max_kl))
        return search if found is None else within(int(curve.sizes[found]))
    if not curve.complete:
        return within(int(problem.usage(smallest(problem, max_kl, solvers.solve).chosen)[0]))
    keeps = curve.damages <= max_kl
    return within(int(curve.sizes[int(np.argmax(keeps))])) if keeps.any() else search


def _alone(problem: Problem, resource: int) -> Problem:
    """The problem without its other limits."""
    return dataclasses.replace(
        problem,
        resources=problem.resources[[resource]],
        limits=problem.limits[[resource]],
        resource_names=(problem.resource_names[resource],),
    )


def _guess(search: Search, curve: Curve, max_kl: float) -> int:
    """Where the plans of the curve, judged with interactions, first keep the damage."""
    assert search.interaction is not None
    low, high = 0, len(curve) - 1
    while low < high:
        middle = (low + high) // 2
        if search.interaction.predict(curve.choice(middle)) <= max_kl:
            high = middle
        else:
            low = middle + 1
    return low
