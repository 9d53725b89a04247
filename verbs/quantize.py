"""Model, data and budget in, quantized model out: profile, plan and apply in one, checked by measurement."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lampq.core.allocating.allocation import build_plan, uniform_choice
from lampq.core.allocating.limits import Budget
from lampq.core.allocating.scores import SUPERPOSITION, lampq_scores
from lampq.core.measuring.encoding import with_rounding
from lampq.core.measuring.model import Model, rounds_activations
from lampq.core.measuring.reference import Reference, input_batch, measure_reference
from lampq.core.measuring.setting import profile_rule, profile_setting
from lampq.core.quantizing.coding import Coding
from lampq.core.searching.lampq_update import update
from lampq.core.searching.recentre import refine
from lampq.core.values.batch import BatchLike
from lampq.core.values.errors import BudgetError, PlanError, RecordError
from lampq.core.values.option import neighbours as near_options
from lampq.core.values.outputs import Output
from lampq.core.values.plan import Neighbour, Plan
from lampq.core.values.profile import Profile
from lampq.core.values.progress import Progress, quiet
from lampq.core.values.recipe import PUBLISHED, Recipe
from lampq.core.values.rounding_kinds import INPUTS
from lampq.verbs.apply import apply
from lampq.verbs.feasible import check_budget
from lampq.verbs.formats import (
    read_written,
    refuse_model_clashes,
    refuse_unwritable,
    stored_as,
    unpacked_note,
)
from lampq.verbs.neighbours import neighbours
from lampq.verbs.plan import equal_widths, find, joined_budget, prepare, to_plan
from lampq.verbs.profile import profile as make_profile

# Plans that look good enough to be measured.
_TRIES = 8
# With fewer samples, codes chosen for their inputs fit them noticeably better than others.
_FEW_SAMPLES = 256


def quantize(
    model: Model,
    batch: BatchLike,
    out: str | Path,
    *,
    average_bits: float | None = None,
    size_bytes: int | None = None,
    max_kl: float | None = None,
    budget: Budget | None = None,
    mode: str = "auto",
    solver: str = "auto",
    pins: Sequence[str] = (),
    ties: Sequence[str] = (),
    time_limit_s: float | None = None,
    recipe: Recipe = PUBLISHED,
    rounds: int = 3,
    rounding: str = INPUTS,
    block: int | None = None,
    seed: int = 0,
    force: bool = False,
    profile_out: str | Path | None = None,
    progress: Progress = quiet,
    **measurement: Any,
) -> Plan:
    """Write the least damaged model that fits a budget.

    The best plans are measured on the calibration data before one is written; so is the best uniform plan of the
    budget, and the one that measures least is taken. In mode superposition it is then improved in rounds that
    measure around it, in mode lampq by the published update.

    Args:
        model: The float model.
        batch: Calibration inputs, preprocessed, samples first.
        out: File to write.
        average_bits: See `lampq.plan`, as the other search arguments.
        size_bytes: See `lampq.plan`.
        max_kl: See `lampq.plan`.
        budget: See `lampq.plan`.
        mode: See `lampq.plan`.
        solver: See `lampq.plan`.
        pins: See `lampq.plan`.
        ties: See `lampq.plan`.
        time_limit_s: See `lampq.plan`.
        recipe: See `lampq.plan`; its update follows unless `rounds` is 0.
        rounds: The most rounds of measuring around the plan; 0 leaves out the update of mode lampq too.
        rounding: `inputs` chooses codes for the least error of the layers' outputs on the calibration inputs,
            `nearest` rounds.
        block: See `lampq.profile`.
        seed: Of every random choice.
        force: Overwrite `out` and `profile_out`.
        profile_out: File for the profile that was measured, written last.
        progress: Told what is being done and how far it is.
        **measurement: Passed on to `lampq.profile`.

    Returns:
        The plan that was written, with its measured damage.

    Raises:
        LampqError: Any step's bad input; nothing is written then.
    """
    out = Path(out)
    more = () if profile_out is None else (Output.profile(Path(profile_out)),)
    refuse_model_clashes(model, out, *more, force=force)
    if block is not None and measurement.get("act_bits") is not None and model.format == "onnx":
        raise PlanError(
            "in ONNX files blocks of weights go with float inputs: integer products want one scale per channel; "
            "leave out --block or --act-bits"
        )
    budget = joined_budget(budget, average_bits=average_bits, size_bytes=size_bytes, max_kl=max_kl)
    packed = stored_as(model, out)
    notes = unpacked_note(model, packed)
    model, batch = packed.with_coding(Coding(block=block)), input_batch(packed, batch)
    check_budget(model, batch, budget, mode=mode, pins=pins, ties=ties, **measurement)
    refuse_unwritable(model, out)
    model = with_rounding(model, rounding, block, batch)
    found = make_profile(
        model, batch, rounding=rounding, block=block, seed=seed, progress=progress, **measurement
    )
    chosen = best_plan(
        model,
        found,
        batch,
        budget,
        mode=mode,
        solver=solver,
        pins=pins,
        ties=ties,
        time_limit_s=time_limit_s,
        recipe=recipe,
        rounds=rounds,
        seed=seed,
        progress=progress,
    )
    chosen = dataclasses.replace(chosen, notes=(*chosen.notes, *notes))
    apply(model, chosen, out, batch=batch, force=force)
    if profile_out is not None:
        found.write(Path(profile_out), force=force)
    if rounds_activations(model) and any(layer.activation_bits for layer in chosen.layers):
        # What was written holds the weights; with its inputs rounded the model was measured before.
        return chosen
    # What counts is the file as its runtime runs it, inputs quantized and all.
    reference = measure_reference(model, batch)
    outputs = reference.checked(read_written(model, out).run(batch), "the written model")
    return dataclasses.replace(chosen, measured_kl=reference.damage(outputs))


def best_plan(
    model: Model,
    profile: Profile,
    batch: BatchLike,
    budget: Budget,
    *,
    mode: str = "auto",
    solver: str = "auto",
    pins: Sequence[str] = (),
    ties: Sequence[str] = (),
    time_limit_s: float | None = None,
    recipe: Recipe = PUBLISHED,
    rounds: int = 3,
    reference: Reference | None = None,
    seed: int = 0,
    progress: Progress = quiet,
) -> Plan:
    """The plan within a budget that measures best on the calibration data; never worse than the best uniform plan.

    Args:
        model: The float model.
        profile: Its profile, made with `batch`.
        batch: Calibration inputs, preprocessed, samples first.
        budget: Limits.
        mode: See `lampq.plan`, as the other search arguments.
        solver: See `lampq.plan`.
        pins: See `lampq.plan`.
        ties: See `lampq.plan`.
        time_limit_s: See `lampq.plan`.
        recipe: See `lampq.plan`; its update follows unless `rounds` is 0.
        rounds: See `quantize`.
        reference: What counts as the truth of `batch`; None takes what `model` makes of it. Another is wanted where
            `model` is not the float one, having the factors of its attention rounded already, for example.
        seed: Of every random choice.
        progress: Told what is being done.

    Returns:
        The plan with its damage measured; inputs of layers are rounded where the model can do that before it is
        written.

    Raises:
        RecordError: The profile was made with other data than `batch`, or with the same in another order.
    """
    model = with_rounding(model, profile.rounding, profile.block, batch)
    reference = measure_reference(model, batch) if reference is None else reference
    _check_same_data(profile, reference)
    search = prepare(profile, budget, mode=mode, pins=pins, ties=ties, recipe=recipe, seed=seed)
    profile = search.profile
    rounds_inputs = rounds_activations(model) and profile.options[0].activation_bits is not None
    solution, plans = find(search, solver=solver, time_limit_s=time_limit_s, seed=seed, keep=_TRIES)
    predicted = to_plan(search, solution)
    if rounds_inputs and search.mode == SUPERPOSITION:
        plans += _equal_plans(profile, budget, pins=pins, ties=ties, seed=seed)
    widths = profile.weight_bits.tolist()
    problem = search.problem
    history: list[dict[str, Any]] = []
    if search.mode == "lampq" and rounds > 0 and widths == list(range(widths[0], widths[-1] + 1)):
        swapped = update(
            model,
            profile.layers,
            widths,
            problem,
            batch,
            plans[0],
            table=recipe.table,
            importance=lampq_scores(profile, recipe)[:, 0] if recipe.weighted else None,
            most_swaps=recipe.most_swaps,
            rules=functools.partial(profile_rule, profile) if rounds_inputs else None,
            reference=reference,
            progress=progress,
        )
        history += [dataclasses.asdict(swap) for swap in swapped.swaps]
        plans = [swapped.choice]
    uniform = uniform_choice(profile, problem)
    refined = refine(
        model,
        profile.layers,
        widths,
        problem,
        batch,
        plans if uniform is None else [*plans, uniform],
        rounds=rounds if search.mode == SUPERPOSITION else 0,
        near=near_options(profile.options),
        quantizer=functools.partial(profile_setting, model, profile) if rounds_inputs else None,
        seed=seed,
        reference=reference,
        progress=progress,
    )
    history += [_finite(dataclasses.asdict(entry)) for entry in refined.rounds]
    notes = list(predicted.notes)
    if uniform is not None and (refined.choice == uniform).all():
        notes.append("the best uniform plan of the budget measured least on the calibration data")
    if profile.rounding == INPUTS and reference.inputs.samples < _FEW_SAMPLES:
        notes.append(
            f"codes were chosen for {reference.inputs.samples} samples: expect more damage on others than was "
            "measured on these"
        )
    # A round predicts from where the plan is, which is nearer the truth; the bound is of the first prediction.
    recentred = math.isfinite(refined.predicted)
    known = predicted.predicted_kl is not None
    expected = refined.predicted if recentred else search.predict(refined.choice)
    found = build_plan(
        profile,
        refined.choice,
        mode=search.mode,
        budget=predicted.budget,
        cost=search.cost if known else None,
        predicted_kl=expected if known else None,
        bound=None if recentred else predicted.bound,
        measured_kl=refined.kl,
        solver=predicted.solver,
        history=history,
        notes=notes,
        why=search.why(refined.choice),
    )
    cheaper, dearer = neighbours(search, refined.choice, seed=seed)
    first = search.predict(refined.choice)
    return _beside(found, cheaper, dearer, scale=expected / first if first > 0 else 1.0)


def _beside(plan: Plan, cheaper: Neighbour | None, dearer: Neighbour | None, *, scale: float) -> Plan:
    """The plan with its neighbours, their damage in proportion to what is expected of it.

    They are predicted from the first profile, the plan from a measurement around itself; unscaled the figures would
    not compare. Where the first profile takes a smaller plan for the better one, measuring has told otherwise, and it
    has nothing to say of neighbours.
    """

    def scaled(near: Neighbour | None) -> Neighbour | None:
        return None if near is None else dataclasses.replace(near, predicted_kl=near.predicted_kl * scale)

    cheaper, dearer = scaled(cheaper), scaled(dearer)
    if plan.predicted_kl is None or (cheaper is not None and cheaper.predicted_kl < plan.predicted_kl):
        cheaper = None
    if dearer is not None and dearer.total_bytes <= plan.total_bytes:
        dearer = None
    return dataclasses.replace(plan, cheaper=cheaper, dearer=dearer)


def _equal_plans(
    profile: Profile, budget: Budget, *, pins: Sequence[str], ties: Sequence[str], seed: int
) -> list[np.ndarray]:
    """Good plans that have one width for weights and input of a layer, worth measuring beside those of pairs.

    Where errors are large predictions are not exact, and in so much smaller a space fewer plans look good by mistake.
    """
    try:
        narrow = equal_widths(profile)
        if narrow is profile:
            return []
        search = prepare(narrow, budget, mode=SUPERPOSITION, pins=pins, ties=ties, seed=seed)
        _, plans = find(search, seed=seed, keep=_TRIES // 2, bound_limit_s=0)
    except (BudgetError, PlanError, RecordError):
        # Pins, rules or the budget leave no plan of this kind; there are the others.
        return []
    columns = np.array([profile.options.index(option) for option in narrow.options])
    return [columns[plan] for plan in plans]


def _check_same_data(profile: Profile, reference: Reference) -> None:
    """Predictions and measurements compare only on the same samples in the same order."""
    profiled, found = profile.array("signature"), reference.readout.signature(reference.outputs)
    if profiled is None:
        profiled, found = profile.array("logits"), np.asarray(reference.outputs)
    if profiled is None:
        return
    same = profiled.shape == found.shape
    if not same or np.linalg.norm(profiled - found) > 0.01 * np.linalg.norm(found):
        raise RecordError(
            "the profile was made with other calibration data, or in another order; profile again"
        )


def _finite(entry: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN and no infinity."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in entry.items()
    }
