"""What a reader of a plan should know of its score and its limits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lampq.core.allocating.limits import limits_of
from lampq.core.values.budget import Budget
from lampq.core.values.messages import listed
from lampq.core.values.problem import Problem
from lampq.core.values.profile import Profile
from lampq.core.values.score import Score


def remarks(
    profile: Profile, score: Score, repaired: Sequence[str], budget: Budget | None, problem: Problem
) -> tuple[str, ...]:
    """Notes of a plan that come from its measurements, its score and its limits, one sentence each.

    Args:
        profile: Measurements of the model.
        score: What is minimized.
        repaired: Layers whose damage does not fall with every bit.
        budget: Limits, which may have been rounded.
        problem: What was built from them.
    """
    # Interactions are taken as measured: a plan's damage is no sum that a running minimum could repair.
    repair = "" if score.uses_interactions else ": running minimum taken"
    notes = [f"damage of {listed(repaired)} does not fall with every bit{repair}"] if repaired else []
    limits = limits_of(profile, budget, np.isfinite(problem.cost))
    told = profile.provenance.get("notes")
    measured = [str(note) for note in told] if isinstance(told, list) else []
    return (*measured, *notes, *score.notes(profile), *(limit.note for limit in limits if limit.note))
