"""Limits that clash, told in the units of the user."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lampq.core.allocating.infeasible import explain_infeasible
from lampq.core.allocating.limits import limits_of
from lampq.core.values.budget import Budget
from lampq.core.values.errors import BudgetError
from lampq.core.values.problem import Problem
from lampq.core.values.profile import Profile
from lampq.core.values.solution import Solution


def refuse_clash(
    profile: Profile, budget: Budget | None, problem: Problem, solve: Callable[[Problem], Solution]
) -> None:
    """Stop where no plan meets all limits together; one limit alone is checked when the problem is built.

    Args:
        profile: What the problem was built from.
        budget: The same.
        problem: From `core.allocating.allocation.build_problem`.
        solve: A solver, for instance `lampq.solvers.solve` with a time limit.

    Raises:
        BudgetError: The limits clash; names those that do and the nearest feasible value of each.
    """
    if len(problem.limits) < 2 or _some_choice_fits(problem):
        return
    clash = explain_infeasible(problem, solve)
    if clash is None:
        return
    limits = {limit.name: limit for limit in limits_of(profile, budget, np.isfinite(problem.cost))}
    asked = " and ".join(limits[name].asked for name in clash.limits)
    ways = [limits[name].show(value) for name, value in clash.nearest.items() if value is not None]
    advice = f"allow at least {' or '.join(ways)}" if ways else "relax several of them"
    held = " with these pins and ties" if problem.pins or problem.ties else ""
    raise BudgetError(f"no plan keeps {asked} together{held}; {advice}")


def _some_choice_fits(problem: Problem) -> bool:
    """Whether taking the option that uses least of all resources together keeps every limit; False tells nothing."""
    small = problem.reduced().problem
    share = small.resources / np.maximum(small.limits, 1)[:, None, None]
    least = np.where(np.isfinite(small.cost), share.sum(axis=0), np.inf).argmin(axis=1)
    return bool((small.usage(least) <= small.limits).all())
