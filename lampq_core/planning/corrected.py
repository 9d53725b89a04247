"""Whether codes that make up for the layers before lose less than those that do not, measured and told."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

from lampq.core.measuring.correction import with_correction
from lampq.core.measuring.held_out import halves, held_out_plan
from lampq.core.measuring.model import Model
from lampq.core.measuring.reference import Reference, damage
from lampq.core.measuring.setting import simulated
from lampq.core.values.plan import Plan
from lampq.core.values.progress import Progress, quiet
from lampq.core.values.rounding_kinds import CORRECTED, INPUTS

AnyModel = TypeVar("AnyModel", bound=Model)


def corrected_plan(
    model: AnyModel, plan: Plan, reference: Reference, progress: Progress = quiet
) -> tuple[AnyModel, Plan]:
    """A plan that rounds to inputs, corrected layer after layer where that loses less on samples not corrected for.

    Args:
        model: The float model, its coding fitted to all samples.
        plan: Its plan, with rounding `inputs`.
        reference: What the float model makes of the samples.
        progress: Told how far it is.

    Returns:
        The model with the coding that the plan now asks for, and the plan with its damage: on samples that its codes
        were not fitted to, where there are two to part.
    """
    trial = dataclasses.replace(plan, rounding=CORRECTED)
    parts = halves(model, reference)
    told = {}
    for each in (plan, trial):
        if parts:
            told[each.rounding] = held_out_plan(parts, each)
    corrected = with_correction(model, plan, reference.inputs, progress)
    if not parts:
        told = {
            INPUTS: damage(simulated(model, plan), reference),
            CORRECTED: damage(simulated(corrected, plan), reference),
        }
    best = trial if told[CORRECTED] < told[INPUTS] else plan
    return corrected if best is trial else model, dataclasses.replace(best, measured_kl=told[best.rounding])
