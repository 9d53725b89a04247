"""Whether codes that are learned lose less than those they start from, measured and told."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

from lampq.core.measuring.correction import with_plan_coding
from lampq.core.measuring.held_out import Part, halves, held_out_plan
from lampq.core.measuring.model import Model
from lampq.core.measuring.reference import Reference, damage
from lampq.core.measuring.setting import simulated
from lampq.core.values.plan import Plan
from lampq.core.values.progress import Progress, quiet

AnyModel = TypeVar("AnyModel", bound=Model)


def refined_plan(
    model: AnyModel,
    plan: Plan,
    reference: Reference,
    steps: int,
    progress: Progress = quiet,
    *,
    parts: Sequence[Part] | None = None,
) -> tuple[AnyModel, Plan]:
    """A plan whose codes are learned, where that loses less on samples not learned from.

    Args:
        model: The float model, its coding the plan's.
        plan: Its plan, whose rounding is to the layers' inputs.
        reference: What the float model makes of the samples.
        steps: For each block.
        progress: Told how far it is.
        parts: The halves of the samples, where they are known.

    Returns:
        The model with the coding that the plan now asks for, and the plan with its damage: on samples that its codes
        were not fitted to, where there are two to part.

    Raises:
        AdapterError: The model cannot be trained.
    """
    trial = dataclasses.replace(plan, refine=steps)
    parts = halves(model, reference) if parts is None else parts
    refined = with_plan_coding(model, trial, reference.inputs, progress)
    if parts:
        before, after = (held_out_plan(parts, each) for each in (plan, trial))
    else:
        before, after = (
            damage(simulated(model, plan), reference),
            damage(simulated(refined, trial), reference),
        )
    helps = after < before
    note = f"{steps} steps of refinement a block: {after:.4g} nats where there were {before:.4g}"
    model, plan = (refined, trial) if helps else (model, plan)
    notes = (*plan.notes, note if helps else f"{note}, so they were left out")
    return model, dataclasses.replace(plan, measured_kl=after if helps else before, notes=notes)
