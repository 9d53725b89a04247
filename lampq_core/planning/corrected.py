"""Whether codes that make up for the layers before lose less than those that do not, measured and told."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

from lampq.core.measuring.correction import with_correction
from lampq.core.measuring.held_out import halves, held_out_plan
from lampq.core.measuring.model import Model
from lampq.core.measuring.reference import Reference, damage
from lampq.core.measuring.setting import simulated
from lampq.core.values.journal import NOWHERE, Journal
from lampq.core.values.plan import Plan
from lampq.core.values.progress import Progress, quiet
from lampq.core.values.rounding_kinds import CORRECTED

AnyModel = TypeVar("AnyModel", bound=Model)


# Where a plan has more than this share of the damage of the uniform one, correction may turn their order.
_DOUBTFUL = 0.75


def corrected_plan(
    model: AnyModel,
    plan: Plan,
    reference: Reference,
    progress: Progress = quiet,
    *,
    uniform: Plan | None = None,
    journal: Journal = NOWHERE,
) -> tuple[AnyModel, Plan]:
    """A plan that rounds to inputs, corrected layer after layer where that loses less on samples not corrected for.

    Args:
        model: The float model, its coding fitted to all samples.
        plan: Its plan, with rounding `inputs`.
        reference: What the float model makes of the samples.
        progress: Told how far it is.
        uniform: The best uniform plan of the same limits, which is taken where it loses less once both are corrected;
            this is measured where it may be.
        journal: Keeps what is measured.

    Returns:
        The model with the coding that the plan now asks for, and the plan with its damage: on samples that its codes
        were not fitted to, where there are two to part.
    """
    own, parts = journal.within("corrected"), halves(model, reference)

    def lost_by(each: Plan) -> float:
        return float(own.array(_name(each), (), lambda: held_out_plan(parts, each)))

    if not parts:
        return _by_all_samples(model, plan, reference, progress)
    told = [(lost_by(each), each) for each in (plan, _corrected(plan))]
    if uniform is not None and told[0][0] > _DOUBTFUL * lost_by(uniform):
        note = "the best uniform plan of the budget measured least, corrected"
        rival = dataclasses.replace(_corrected(uniform), notes=(*uniform.notes, note))
        told.append((lost_by(rival), rival))
    lost, best = min(told, key=lambda pair: pair[0])
    if best.rounding == CORRECTED:
        model = with_correction(model, best, reference.inputs, progress)
    return model, dataclasses.replace(best, measured_kl=lost)


def _name(plan: Plan) -> str:
    """A plan as journals know it."""
    widths = ("/".join(str(bits or "") for bits in place.widths) for place in plan.places)
    return f"{plan.rounding} {' '.join(widths)}"


def _corrected(plan: Plan) -> Plan:
    return dataclasses.replace(plan, rounding=CORRECTED)


def _by_all_samples(
    model: AnyModel, plan: Plan, reference: Reference, progress: Progress
) -> tuple[AnyModel, Plan]:
    """The better of both by the samples that codes are fitted to."""
    corrected = with_correction(model, plan, reference.inputs, progress)
    lost, less = (damage(simulated(each, plan), reference) for each in (model, corrected))
    if less < lost:
        return corrected, dataclasses.replace(_corrected(plan), measured_kl=less)
    return model, dataclasses.replace(plan, measured_kl=lost)
