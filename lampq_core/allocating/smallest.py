"""The smallest plan whose damage stays within a limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from lampq.core.values.errors import BudgetError, RecordError
from lampq.core.values.problem import Problem
from lampq.core.values.solution import Solution

_ROUNDING = 1e-12


def smallest(
    problem: Problem, most_damage: float, solve: Callable[[Problem], Solution], *, resource: int = 0
) -> Solution:
    """The choice that uses least of a resource while its damage stays within `most_damage` nats.

    The least damage within a limit falls as the limit rises, so bisection finds the limit: about as many
    solves as the sizes have bits, and no curve.

    Args:
        problem: Its limits hold, that of the resource is the most that is tried. Ties and pins hold.
        most_damage: Nats, >= 0.
        solve: A solver, for instance `lampq.solvers.solve`.
        resource: Index of the resource to use least of.

    Returns:
        The solution at the smallest limit that allows the damage.

    Raises:
        RecordError: The problem has no such resource.
        BudgetError: No choice within the limits keeps to the damage; names the least possible.
    """
    if not 0 <= resource < len(problem.limits):
        raise RecordError(f"no resource {resource} to use least of; the problem has {len(problem.limits)}")
    if math.isnan(most_damage) or most_damage < 0:
        raise BudgetError(f"largest damage {most_damage}: must be at least 0 nats")
    best = solve(problem)
    if best.choice is None:
        raise BudgetError(f"no choice keeps the limits of {', '.join(problem.resource_names)}")
    # A figure read off a curve may differ from the sum by its rounding.
    allowed = most_damage * (1 + _ROUNDING)
    if best.objective > allowed:
        raise BudgetError(
            f"largest damage {most_damage:g} nats: no choice loses less than {best.objective:.3g}; "
            f"allow that much, or offer wider options"
        )
    low, high = int(problem.floors()[resource]) - 1, int(problem.usage(best.choice)[resource])
    # The damage is too large at `low` and small enough at `high`.
    while high - low > 1:
        middle = (low + high) // 2
        trial = solve(limited(problem, middle, resource))
        if trial.choice is not None and trial.objective <= allowed:
            best, high = trial, int(problem.usage(trial.choice)[resource])
        else:
            low = middle
    return best


def first_within(
    limits: Sequence[int], most_damage: float, damage_at: Callable[[int], float], *, guess: int
) -> int | None:
    """Index of the least limit at which a search keeps to the damage, or None if not even the largest does.

    For searches that are too slow to try every limit: steps away from a good guess double until the damage turns,
    then the interval is halved.

    Args:
        limits: Rising; more never costs more damage, up to what the search misses.
        most_damage: Nats.
        damage_at: Damage of the best plan found within a limit.
        guess: Index to begin with.

    >>> tried = []
    >>> first_within([1, 2, 3, 5, 8, 13], 0.3, lambda limit: tried.append(limit) or 1 / limit, guess=4)
    3
    >>> tried
    [8, 5, 2, 3]
    """

    def within(index: int) -> bool:
        return damage_at(int(limits[index])) <= most_damage * (1 + _ROUNDING)

    high = min(max(guess, 0), len(limits) - 1)
    low, step = -1, 1
    if within(high):
        while high > 0:
            middle = max(high - step, 0)
            if not within(middle):
                low = middle
                break
            high, step = middle, 2 * step
    else:
        while True:
            if high == len(limits) - 1:
                return None
            low, high, step = high, min(high + step, len(limits) - 1), 2 * step
            if within(high):
                break
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if within(middle) else (middle, high)
    return high


def limited(problem: Problem, limit: int, resource: int = 0) -> Problem:
    """The same problem with another limit on one resource."""
    limits = np.array(problem.limits)
    limits[resource] = limit
    return replace(problem, limits=limits)
