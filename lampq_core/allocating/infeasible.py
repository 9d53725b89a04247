"""Why no choice meets all limits together, and what the nearest limits are that one does meet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from lampq.core.values.problem import Problem
from lampq.core.values.solution import Solution, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Clash:
    """Limits that cannot be met together.

    Attributes:
        limits: The resources whose limits clash: without any one of them the others can be met.
        nearest: For each of these, the least limit that can be met while all others of the problem are kept,
            or None where none can, because the others clash too, or no solver could tell.
        message: The same in one line.
    """

    limits: tuple[str, ...]
    nearest: dict[str, int | None]
    message: str


def explain_infeasible(problem: Problem, solve: Callable[[Problem], Solution]) -> Clash | None:
    """Find a smallest set of limits that clash, and the nearest feasible value of each.

    Args:
        problem: Any problem.
        solve: A solver for problems with ties and pins, for instance `lampq.solvers.solve`.

    Returns:
        None where the limits can be met, or where the solver could not tell.
    """
    resources = list(range(len(problem.limits)))
    if not _clashes(problem, resources, solve):
        return None
    clashing = resources
    for resource in resources:
        rest = [other for other in clashing if other != resource]
        if _clashes(problem, rest, solve):
            clashing = rest
    names = tuple(problem.resource_names[resource] for resource in clashing)
    nearest = {
        problem.resource_names[resource]: _least_use(
            problem, resource, [other for other in resources if other != resource], solve
        )
        for resource in clashing
    }
    limits = dict(zip(problem.resource_names, problem.limits.tolist(), strict=True))
    asked = " and ".join(f"{name} {limits[name]}" for name in names)
    ways = [f"{name} {value}" for name, value in nearest.items() if value is not None]
    advice = f"raise one of them to at least {' or '.join(ways)}" if ways else "raise several of them"
    return Clash(
        limits=names, nearest=nearest, message=f"no choice meets the limits {asked} together; {advice}"
    )


def _clashes(problem: Problem, resources: list[int], solve: Callable[[Problem], Solution]) -> bool:
    """Whether no choice meets the kept limits; a solver that cannot tell counts as no."""
    if not resources:
        return False
    return solve(_using(problem, resources[0], resources)).status is Status.INFEASIBLE


def _least_use(
    problem: Problem, resource: int, resources: list[int], solve: Callable[[Problem], Solution]
) -> int | None:
    """The least use of a resource that any choice within the kept limits has."""
    solution = solve(_using(problem, resource, resources))
    if solution.choice is None or solution.status is not Status.OPTIMAL:
        return None
    return int(problem.usage(solution.choice)[resource])


def _using(problem: Problem, resource: int, resources: list[int]) -> Problem:
    """The problem of using as little of a resource as the kept limits allow."""
    use = problem.resources[resource].astype(np.float64)
    largest = float(use.max(initial=0.0))
    scale = largest / 1000 if largest else 1.0
    return replace(
        problem,
        cost=np.where(np.isfinite(problem.cost), use / scale, np.inf),
        scale=scale,
        resources=problem.resources[resources],
        limits=problem.limits[resources],
        resource_names=tuple(problem.resource_names[k] for k in resources),
    )
