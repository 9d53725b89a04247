"""Model, profile and budget in, the plan that measures best out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lampq import solvers
from lampq.core.measuring.held_out import Part
from lampq.core.measuring.model import Model
from lampq.core.measuring.reference import Reference, measure_reference
from lampq.core.planning import best
from lampq.core.values.batch import BatchLike
from lampq.core.values.budget import Budget
from lampq.core.values.journal import NOWHERE, Journal
from lampq.core.values.plan import Plan
from lampq.core.values.profile import Profile
from lampq.core.values.progress import Progress, quiet
from lampq.core.values.request import Request


def best_plan(
    model: Model,
    profile: Profile,
    batch: BatchLike,
    request: Request | Budget | None = None,
    *,
    reference: Reference | None = None,
    journal: Journal = NOWHERE,
    progress: Progress = quiet,
    **choices: Any,
) -> Plan:
    """`best_plans`, the first of them; see there."""
    plan, _ = best_plans(
        model, profile, batch, request, reference=reference, journal=journal, progress=progress, **choices
    )
    return plan


def best_plans(
    model: Model,
    profile: Profile,
    batch: BatchLike,
    request: Request | Budget | None = None,
    *,
    reference: Reference | None = None,
    parts: Sequence[Part] | None = None,
    journal: Journal = NOWHERE,
    progress: Progress = quiet,
    **choices: Any,
) -> tuple[Plan, Plan | None]:
    """`core.planning.best.best_plans` with the solvers of this package.

    Args:
        model: The float model.
        profile: Its profile, made with `batch`.
        batch: Calibration inputs, preprocessed, samples first.
        request: Limits and how to look for the plan; a budget alone is a request for it.
        reference: What counts as the truth of `batch`; None takes what `model` makes of it.
        parts: The halves of `batch` (`core.measuring.held_out`), where they are known.
        journal: Keeps what is measured, so that the same call goes on after a kill.
        progress: Told what is being done.
        **choices: Fields of `lampq.Request` and `lampq.Budget` to set, such as `rounds=1`.

    Raises:
        BudgetError: No plan fits the budget, or the request sets no limit.
        RecordError: The profile was made with other data than `batch`, or with the same in another order.
    """
    request = Request.of(request, **choices)
    return best.best_plans(
        model,
        profile,
        measure_reference(model, batch) if reference is None else reference,
        request,
        solvers.solve,
        parts=parts,
        journal=journal,
        progress=progress,
    )
