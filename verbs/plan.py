"""Profile in, plan out."""

from __future__ import annotations

import dataclasses
from typing import Any

from lampq import solvers
from lampq.core.planning.room import settled
from lampq.core.planning.search import Search
from lampq.core.values.budget import Budget
from lampq.core.values.plan import Plan
from lampq.core.values.profile import Profile
from lampq.core.values.request import Request


def plan(profile: Profile, request: Request | Budget | None = None, **choices: Any) -> Plan:
    """Choose the width of every layer so that the predicted damage is least and every limit holds.

    Args:
        profile: Measurements of the model.
        request: Limits and how to look for the plan; a budget alone is a request for it.
        **choices: Fields of `lampq.Request` and `lampq.Budget` to set, such as `average_bits=3` or `mode="kl"`.

    Raises:
        BudgetError: No plan fits the budget; names the limits that clash and the nearest feasible values.
        PlanError: A pattern matches nothing.
        RecordError: The profile lacks what the mode needs, or a choice is unknown.
    """
    request = Request.of(request, **choices)
    request = dataclasses.replace(request, budget=request.limits)
    wide = Search.of(profile, request, solvers.solve)
    search, best = settled(wide)
    cheaper, dearer = wide.neighbours(best.solution.chosen)
    return dataclasses.replace(search.plan(best.solution), cheaper=cheaper, dearer=dearer)
