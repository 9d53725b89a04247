"""What a reader of a plan should know of its score and its limits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lampq.core.allocating.limits import limits_of
from lampq.core.values.budget import Budget
from lampq.core.values.messages import listed
from lampq.core.values.modes import ERROR, SUPERPOSITION
from lampq.core.values.problem import Problem
from lampq.core.values.profile import Profile
from lampq.core.values.rounding_kinds import INPUTS


def remarks(
    profile: Profile, mode: str, repaired: Sequence[str], budget: Budget | None, problem: Problem
) -> tuple[str, ...]:
    """Notes of a plan that come from its score and its limits, one sentence each.

    Args:
        profile: Measurements of the model.
        mode: The score.
        repaired: Layers whose damage does not fall with every bit.
        budget: Limits, which may have been rounded.
        problem: What was built from them.
    """
    # Interactions are taken as measured: a plan's damage is no sum that a running minimum could repair.
    repair = "" if mode == SUPERPOSITION else ": running minimum taken"
    notes = [f"damage of {listed(repaired)} does not fall with every bit{repair}"] if repaired else []
    if mode == "fisher" and profile.rounding == INPUTS and profile.joint_fisher is None:
        notes.append(
            "mode fisher counts errors of weights; codes chosen for the layers' inputs lose less than it predicts"
        )
    if mode == ERROR:
        why = "made without data" if profile.samples == 0 else "mode error uses no data"
        notes.append(f"{why}: relative weight error stands in for damage, which it predicts poorly")
    limits = limits_of(profile, budget, np.isfinite(problem.cost))
    return (*notes, *(limit.note for limit in limits if limit.note))
