"""Whether codes that make up for the layers before lose less than those that do not, measured and told."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from lampq.core.measuring.correction import with_correction
from lampq.core.measuring.held_out import Part, held_out_samples, in_quarters, quarters
from lampq.core.measuring.model import Model
from lampq.core.measuring.reference import Reference, damage
from lampq.core.measuring.setting import simulated
from lampq.core.values.journal import NOWHERE, Journal
from lampq.core.values.plan import Plan
from lampq.core.values.progress import Progress, quiet
from lampq.core.values.rounding_kinds import CORRECTED

AnyModel = TypeVar("AnyModel", bound=Model)


# Where a plan has more than this share of the damage of the uniform one, correction may turn their order: of a small
# CLIP 0.6 became 1.1.
_DOUBTFUL = 1 / 3
# Standard errors of a difference that is no chance: about one, and two of this many samples, whose spread is itself
# hardly known. Of 64 images of CIFAR-10, two errors would give up plans that lose a fifth less on others; of eight
# samples, one error let a plan through that loses a tenth more.
_UNKNOWN_SPREAD = 8


def corrected_plan(
    model: AnyModel,
    plan: Plan,
    reference: Reference,
    progress: Progress = quiet,
    *,
    parts: Sequence[Part] | None = None,
    uniform: Plan | None = None,
    journal: Journal = NOWHERE,
) -> tuple[AnyModel, Plan]:
    """A plan that rounds to inputs, corrected layer after layer unless that loses more on samples not corrected for.

    Codes for all samples are better than those that are measured, for some of them, and corrected ones gain most by
    that: they are given up only where they lose more, and not by chance.

    Args:
        model: The float model, its coding fitted to all samples.
        plan: Its plan, with rounding `inputs`.
        reference: What the float model makes of the samples.
        progress: Told how far it is.
        parts: The halves of the samples, where they are known.
        uniform: The best uniform plan of the same limits, which is taken where the plan does not lose less by more
            than chance: a plan is the best of many on the samples, and looks better on these than it is. This is
            measured where it may be so.
        journal: Keeps what is measured.

    Returns:
        The model with the coding that the plan now asks for, and the plan with its damage: on samples that its codes
        were not fitted to, where there are two to part.
    """
    if parts is None or in_quarters(reference):
        parts = quarters(model, reference)
    if not parts:
        return _by_all_samples(model, plan, reference, progress)
    own = journal.within(f"corrected, {len(parts)} parts")
    samples = sum(part.judged.inputs.samples for part in parts)
    known: dict[str, np.ndarray] = {}

    def lost_by(each: Plan) -> np.ndarray:
        name = _name(each)
        if name not in known:
            known[name] = own.array(name, (samples,), lambda: held_out_samples(parts, each, progress))
        return known[name]

    def in_best_rounding(each: Plan) -> Plan:
        return each if _clearly_less(lost_by(each), lost_by(_corrected(each))) else _corrected(each)

    best = in_best_rounding(plan)
    if uniform is not None and lost_by(plan).mean() > _DOUBTFUL * lost_by(uniform).mean():
        rival = in_best_rounding(uniform)
        if not _clearly_less(lost_by(best), lost_by(rival)):
            note = "no plan measured clearly less than the best uniform one of the budget, codes chosen alike"
            best = dataclasses.replace(rival, notes=(*rival.notes, note))
    if best.rounding == CORRECTED:
        model = with_correction(model, best, reference.inputs, progress)
    return model, dataclasses.replace(best, measured_kl=float(lost_by(best).mean()))


def _clearly_less(lost: np.ndarray, rival: np.ndarray) -> bool:
    """Whether the mean of damages is below that of others of the same samples, and not by chance."""
    less = rival - lost
    errors = 1 + _UNKNOWN_SPREAD / len(less)
    return bool(less.mean() > errors * less.std(ddof=1) / np.sqrt(len(less)))


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
