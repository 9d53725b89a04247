"""The problem that a request makes of a profile, refused where nothing solves it."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from lampq.core.allocating.allocation import build_problem
from lampq.core.allocating.clash import refuse_clash
from lampq.core.planning.solve import Solve
from lampq.core.values.problem import Problem
from lampq.core.values.profile import Profile
from lampq.core.values.request import Request

# For each question asked to find out which limits clash.
_CLASH_LIMIT_S = 10.0


def feasible_problem(
    profile: Profile, cost: np.ndarray, request: Request, solve: Solve, *, default_pins: Sequence[str]
) -> tuple[Problem, Sequence[str]]:
    """Limits, ties and pins of a request on a profile.

    Args:
        profile: L layers, J options.
        cost: Predicted damage, nats, shape (L, J).
        request: What is asked for; its score is not looked at.
        solve: A solver, asked which limits clash.
        default_pins: Pins that the score brings along; those of the user come after them and so override them.

    Returns:
        The problem, and all pins of it, those of the score first.

    Raises:
        BudgetError: The limits cannot be met; names those that clash and the nearest feasible values.
        PlanError: A pattern matches nothing, or pins a width that was not profiled.
    """
    pins = (*default_pins, *request.pins)
    problem = build_problem(profile, cost, request.budget, pins=pins, ties=request.ties)
    refuse_clash(profile, request.budget, problem, functools.partial(solve, time_limit_s=_CLASH_LIMIT_S))
    return problem, pins
