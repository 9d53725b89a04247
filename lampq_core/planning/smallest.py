"""The smallest limit under which the best plan keeps a largest damage."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from lampq.core.allocating.pareto import Curve, pareto
from lampq.core.allocating.smallest import first_within, smallest
from lampq.core.measuring.interaction import Interaction
from lampq.core.planning.solve import Solve
from lampq.core.values.problem import Problem


def smallest_limit(
    problem: Problem,
    resource: int,
    max_kl: float,
    *,
    interaction: Interaction | None,
    solve: Solve,
    damage: Callable[[int], float],
) -> int | None:
    """The smallest limit on a resource that keeps the predicted damage at `max_kl`; None: it is best not limited.

    Without interactions that limit is read off the curve of all sizes, or found by bisection where other limits
    hold too. With interactions the curve gives the sizes and tells where to begin, and a few searches find the limit.

    Args:
        problem: Its limit on the resource is the most that is tried.
        resource: Index of the resource to use least of.
        max_kl: Nats, > 0; the widest plan keeps it.
        interaction: Damage of whole plans, or None: it is the sum over the layers.
        solve: A solver.
        damage: Damage of the best plan found within a limit, with interactions.

    Raises:
        BudgetError: No plan keeps it.
    """

    def by_bisection() -> int:
        best = smallest(problem, max_kl, solve, resource=resource)
        return int(problem.usage(best.chosen)[resource])

    if interaction is None and len(problem.limits) > 1:
        return by_bisection()
    curve = pareto(_alone(problem, resource))
    if interaction is not None:
        begin = _first_on_curve(interaction, curve, max_kl)
        index = first_within(curve.sizes.tolist(), max_kl, damage, guess=begin)
        return None if index is None else int(curve.sizes[index])
    if not curve.complete:
        return by_bisection()
    keeps = curve.damages <= max_kl
    return int(curve.sizes[keeps.argmax()]) if keeps.any() else None


def _alone(problem: Problem, resource: int) -> Problem:
    """The problem without its other limits."""
    return dataclasses.replace(
        problem,
        resources=problem.resources[[resource]],
        limits=problem.limits[[resource]],
        resource_names=(problem.resource_names[resource],),
    )


def _first_on_curve(interaction: Interaction, curve: Curve, max_kl: float) -> int:
    """Where the plans of the curve, judged with interactions, first keep the damage."""
    low, high = 0, len(curve) - 1
    while low < high:
        middle = (low + high) // 2
        if interaction.predict(curve.choice(middle)) <= max_kl:
            high = middle
        else:
            low = middle + 1
    return low
