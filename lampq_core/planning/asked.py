"""The request behind a plan, as far as the plan tells it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from lampq.core.allocating.scores import SCORES, score
from lampq.core.values.budget import Budget
from lampq.core.values.errors import BudgetError
from lampq.core.values.plan import Plan
from lampq.core.values.profile import Profile
from lampq.core.values.request import Request
from lampq.core.values.score import AUTO, Score


def asked(plan: Plan, profile: Profile | None = None) -> Request:
    """What a plan was asked to be: its limits, its score, its pins and ties, and the recipe of its score.

    Plans that were made by hand or by other tools may tell little of it; what they do not tell is left open. Who
    solves it, and how long that may take, is a matter of the machine at hand and left open too.

    Args:
        plan: The plan.
        profile: What it is to be judged by. Where that does not know how layers act together, the score of a
            plan that did is left open.

    Raises:
        RecordError: The package of its score cannot be loaded.
    """
    request = plan.request
    if request is None:
        request = Request(pins=_texts(plan.budget, "pins"), ties=_texts(plan.budget, "ties"))
    return dataclasses.replace(
        request, mode=_mode(plan, profile), budget=_budget(plan.budget), solver=AUTO, time_limit_s=None
    )


def _mode(plan: Plan, profile: Profile | None) -> str | Score:
    """The score of a plan, or `auto`: it has none, or one that is not to be had here or with this profile."""
    mode = AUTO if plan.request is None else plan.request.mode
    if not isinstance(mode, Score) or mode.name != plan.mode:
        mode = plan.mode
        if mode not in SCORES:
            return AUTO
    interactions_lost = profile is not None and not profile.interacts and score(mode).uses_interactions
    return AUTO if interactions_lost else mode


def without_largest_kl(request: Request) -> Request:
    """The request without its limit on the damage, and without a budget where that was all."""
    if request.budget is None or request.budget.max_kl is None:
        return request
    limits = {name: limit for name, limit in request.budget.to_json().items() if name != "max_kl"}
    return dataclasses.replace(request, budget=_budget(limits))


def _budget(limits: Mapping[str, Any]) -> Budget | None:
    try:
        return Budget.from_json(limits)
    except BudgetError:
        # Plans made by hand or by other tools need not state a limit.
        return None


def _texts(limits: Mapping[str, Any], name: str) -> tuple[str, ...]:
    texts = limits.get(name, ())
    return tuple(map(str, texts)) if isinstance(texts, list | tuple) else ()
