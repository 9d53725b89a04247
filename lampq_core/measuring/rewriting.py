"""Exact rewrites of normalizations: chosen by what rounding damages then, and taken over from plans."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TypeVar, cast

import numpy as np

from lampq.core.measuring.model import Model, RoundingModel, rounds_activations
from lampq.core.measuring.reference import Reference, damage, few_samples
from lampq.core.measuring.setting import Setting, rounded_weight
from lampq.core.treatments.choice import best_rule
from lampq.core.treatments.rewrites import SeenNorm, rewrite_of
from lampq.core.treatments.seen import Seen
from lampq.core.values.batch import BatchLike
from lampq.core.values.errors import AdapterError, PlanError
from lampq.core.values.measurement import Measurement
from lampq.core.values.norm_rewrite import NormRewrite
from lampq.core.values.plan import Plan
from lampq.core.values.progress import Progress, quiet
from lampq.core.values.rewrite_kinds import KINDS, MEASURED, NONE

AnyModel = TypeVar("AnyModel", bound=Model)

# Less than this much better by a few samples is chance, and the model as it is the simpler one.
_WORTH = 0.9
_SAMPLES = 32


def with_plan_rewrites(model: AnyModel, plan: Plan) -> AnyModel:
    """The model with the normalizations rewritten that a plan names; it computes the same.

    Raises:
        AdapterError: A normalization cannot be rewritten; names it.
        PlanError: The model was rewritten otherwise already.
    """
    own = model.rewrites if rounds_activations(model) else ()
    if plan.rewrites == own:
        return model
    if own:
        raise PlanError(f"{model.path.name} was rewritten otherwise than the plan says; read it anew")
    if not rounds_activations(model):
        raise AdapterError(
            f"{model.path.name}: the plan rewrites normalizations ({plan.rewrites[0].norm} first), which is done to "
            f"PyTorch models alone; apply it to that, with --to {model.format} for such a file"
        )
    return cast("AnyModel", model.with_rewrites(plan.rewrites))


def check_rewritable(model: Model, measurement: Measurement) -> None:
    """Refuse rewrites of a model that has none.

    Raises:
        AdapterError: They are wanted, and its format has none.
    """
    if measurement.rewrites != NONE and not rounds_activations(model):
        raise AdapterError(
            f"{model.path.name}: {model.format} models are not rewritten; leave out --rewrites"
        )


def with_chosen_rewrites(
    model: AnyModel, batch: BatchLike | None, measurement: Measurement, progress: Progress = quiet
) -> AnyModel:
    """The model with each normalization rewritten as the measurement has it; where it measures, as loses least.

    What is measured is the damage of rounding the layers behind the normalization, weights and inputs, at widths in
    the middle of those wanted; a rewrite must be worth it.

    Args:
        model: The float model; left as it is where it was rewritten before.
        batch: Calibration inputs, samples first; None leaves the model as it is.
        measurement: Widths, quantizers and rewrites.
        progress: Told after every normalization.

    Raises:
        AdapterError: The format has no rewrites, or one kind is wanted and fits no normalization; says why.
    """
    kind = measurement.rewrites
    if kind == NONE or batch is None or (rounds_activations(model) and model.rewrites):
        return model
    check_rewritable(model, measurement)
    assert rounds_activations(model)
    few = few_samples(model, batch, _SAMPLES)
    norms = model.norms(few.inputs)
    free = [norm for norm in norms if not norm.why_not]
    if kind != MEASURED:
        rewrites = [rewrite for norm in free if (rewrite := rewrite_of(norm, kind)) is not None]
        if not rewrites:
            raise AdapterError(
                f"{model.path.name}: no normalization can be rewritten exactly ({_reasons(norms)})"
            )
        return cast("AnyModel", model.with_rewrites(rewrites))
    chosen = []
    for number, norm in enumerate(free):
        chosen += _best(model, norm, few, measurement)
        progress("rewrites of normalizations", number + 1, len(free))
    return cast("AnyModel", model.with_rewrites(chosen) if chosen else model)


def _reasons(norms: Sequence[SeenNorm]) -> str:
    whys = [f"{norm.name}: {norm.why_not or 'its channels are even'}" for norm in norms[:3]]
    return "; ".join(whys) or "it has none"


def _best(
    model: RoundingModel, norm: SeenNorm, few: Reference, measurement: Measurement
) -> list[NormRewrite]:
    """The rewrite that loses least, or none."""
    if not (norm.high > norm.low).any():
        return []
    seen = model.site_samples(few.inputs, few.readout, norm.layers)
    best: list[NormRewrite] = []
    least = _WORTH * _damage(model, seen, few, measurement)
    for kind in KINDS:
        rewrite = rewrite_of(norm, kind)
        if rewrite is None:
            continue
        moved = {name: _moved(one, rewrite) for name, one in seen.items()}
        lost = _damage(model.with_rewrites([rewrite]), moved, few, measurement)
        if lost < least:
            best, least = [rewrite], lost
    return best


def _moved(seen: Seen, rewrite: NormRewrite) -> Seen:
    """What a layer's input is seen as behind a rewrite."""
    gradients = None if seen.gradients is None else seen.gradients * np.array(rewrite.ratio, dtype=np.float32)
    values = rewrite.of_values(seen.values).astype(np.float32)
    return dataclasses.replace(seen, values=values, gradients=gradients)


def _damage(
    model: RoundingModel, seen: Mapping[str, Seen], few: Reference, measurement: Measurement
) -> float:
    """Damage of rounding weights and inputs of some layers, nats."""
    weights, inputs = (
        widths[(len(widths) - 1) // 2] for widths in (measurement.bits, measurement.act_bits or ())
    )
    records = {layer.name: layer for layer in model.layers()}
    settings = {
        name: Setting(
            weight=rounded_weight(model, records[name], weights),
            activation=best_rule(one, inputs, measurement.quantizers),
        )
        for name, one in seen.items()
    }
    return damage(model.with_weights(settings), few)
