"""Model, data and budget in, quantized model out: profile, plan and apply in one, checked by measurement."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lampq.adapters import format_named
from lampq.core.allocating.scores import score
from lampq.core.allocating.scores.error import ERROR
from lampq.core.allocating.scores.kl import KL
from lampq.core.allocating.scores.superposition import SUPERPOSITION
from lampq.core.measuring.encoding import with_rounding
from lampq.core.measuring.held_out import ENOUGH, Part, halves, in_quarters
from lampq.core.measuring.model import Model, release, rounds_activations
from lampq.core.measuring.reference import Reference, evenly, input_batch, measure_reference, with_examples
from lampq.core.measuring.refinement import check_trainable
from lampq.core.measuring.rewriting import check_rewritable, with_chosen_rewrites
from lampq.core.planning.corrected import corrected_plan
from lampq.core.planning.refined import refined_plan
from lampq.core.quantizing.coding import Coding
from lampq.core.values import measure_kinds
from lampq.core.values.batch import Batch, BatchLike
from lampq.core.values.budget import Budget
from lampq.core.values.choices import named, refuse_unknown
from lampq.core.values.errors import PlanError, RecordError
from lampq.core.values.measurement import Measurement
from lampq.core.values.outputs import Output
from lampq.core.values.plan import Plan
from lampq.core.values.recipe import TYPE_SCALES
from lampq.core.values.request import Request
from lampq.core.values.rewrite_kinds import NONE
from lampq.core.values.rounding_kinds import CORRECTED, NEAREST
from lampq.core.values.score import AUTO, name_of
from lampq.core.values.site_kinds import ALL
from lampq.core.values.tables import KINDS
from lampq.core.values.work import Work
from lampq.metrics.drop import Drop
from lampq.verbs.apply import apply
from lampq.verbs.best_plan import best_plans
from lampq.verbs.feasible import check_budget
from lampq.verbs.formats import (
    read_written,
    refuse_model_clashes,
    refuse_unwritable,
    stored_as,
    unpacked_note,
)
from lampq.verbs.profile import profile as make_profile
from lampq.verbs.roundable import refuse_unheld_ranks, refuse_unwritten_sites, roundable
from lampq.verbs.task import Task, split_choices
from lampq.verbs.within_drop import Guard, plan_within_drop

# Samples whose gradients are taken: the best plans by them are measured besides. With 256 of 520 images of a CIFAR-10
# ViT plans of 2.25 to 4 bits came out the same, or 2 % apart.
_MOST_SENSED = 256
# Plans by these never look at Fisher traces, which a profile that is kept has for the others.
_WITHOUT_TRACES = (AUTO, *(score.name for score in (SUPERPOSITION, KL, ERROR)))


def quantize(
    model: Model,
    batch: BatchLike,
    out: str | Path,
    request: Request | Budget | None = None,
    measurement: Measurement | None = None,
    *,
    profile_out: str | Path | None = None,
    force: bool = False,
    work: Work | None = None,
    **choices: Any,
) -> Plan:
    """Write the least damaged model that fits a budget.

    The best plans are measured on the calibration data before one is written; so is the best uniform plan of the
    budget, and the one that measures least is taken. In mode superposition it is then improved in rounds that
    measure around it, in mode lampq by the published update.

    Args:
        model: The float model.
        batch: Calibration inputs, preprocessed, samples first.
        out: File to write.
        request: Limits and how to look for the plan; a budget alone is a request for it.
        measurement: What is measured; None rounds to the layers' inputs, corrected where that measures better,
            and takes the seed of the request.
        profile_out: File for the profile that was measured, written last.
        force: Overwrite `out` and `profile_out`.
        work: How it is done.
        **choices: Fields of `lampq.Request`, `lampq.Budget`, `lampq.Measurement` and `lampq.Work` to set, such as
            `average_bits=3` or `bits=(2, 3, 4)`. With `max_drop="1%"` and the fields of `lampq.Task`, such as
            `metrics=["top1"]` and `labels`, the smallest plan that keeps a metric is taken instead of the best one
            (`lampq.verbs.within_drop`).

    Returns:
        The plan that was written, with its measured damage.

    Raises:
        LampqError: Any step's bad input; nothing is written then.
    """
    out = Path(out)
    drop, labels = choices.pop("max_drop", None), choices.get("labels")
    task, choices = split_choices(choices)
    # Measurements may want them too.
    choices = choices if labels is None else {**choices, "labels": labels}
    work = Work.of(work, **named(choices, Work.names()))
    if drop is not None:
        request = _limited_by_widths(request, measurement, choices)
    request, measurement = _chosen(request, measurement, choices)
    drop = None if drop is None else Drop.of(drop)
    if drop is not None and measurement.refine:
        raise RecordError(
            "the smallest plan that keeps a metric is measured without learned codes; leave out --refine, or give a "
            "budget in place of --max-drop"
        )
    more = () if profile_out is None else (Output.profile(Path(profile_out)),)
    refuse_model_clashes(model, out, *more, force=force)
    _refuse_blocks_with_inputs(model, measurement)
    refuse_unheld_ranks(model, measurement)
    model = with_examples(model, batch)
    source, packed = model, stored_as(model, out)
    notes = unpacked_note(model, packed)
    model, batch = packed.with_coding(Coding(block=measurement.block)), input_batch(packed, batch)
    measurement = _with_score(measurement, request)
    if profile_out is None and name_of(request.mode) in _WITHOUT_TRACES:
        measurement = dataclasses.replace(measurement, fisher_draws=0)
    guard = _guard(model, batch, drop, task)
    check_budget(model, batch, request, measurement)
    refuse_unwritable(model, out)
    stored, model = model, roundable(model, batch, measurement)
    if model is not stored:
        refuse_unwritten_sites(stored, measurement)
        work = dataclasses.replace(work, executor=None)
    # What is written is of the model's own format.
    check_rewritable(stored, measurement)
    if measurement.refine:
        check_trainable(stored)
    model = with_chosen_rewrites(model, batch, measurement, work.progress)
    model = with_rounding(model, measurement.profiled, measurement.block, batch, work.journal)
    # Workers read what is in a file, which has layers that a folder cannot hold packed.
    alike = work if packed is source else dataclasses.replace(work, executor=None)
    # What was chosen here need not be once more; workers read the model anew.
    chosen = measurement if alike.executor is not None else dataclasses.replace(measurement, rewrites=NONE)
    reference = measure_reference(model, batch)
    profile = make_profile(model, batch, chosen, work=alike, reference=reference, most_samples=_MOST_SENSED)
    uniform = None
    parts: Sequence[Part] | None = halves(model, reference) if guard is None else ()
    if guard is None:
        plan, uniform = best_plans(
            model,
            profile,
            batch,
            request,
            reference=reference,
            parts=parts,
            journal=work.journal,
            progress=work.progress,
        )
    else:
        plan = plan_within_drop(
            model, profile, batch, request, guard, out, journal=work.journal, progress=work.progress
        )
    if in_quarters(reference) and not measurement.refine:
        # Corrections are judged by others.
        parts = None
    if measurement.rounding == CORRECTED and guard is None:
        model, plan = corrected_plan(
            model, plan, reference, work.progress, parts=parts, uniform=uniform, journal=work.journal
        )
    if measurement.refine and guard is None:
        model, plan = refined_plan(model, plan, reference, measurement.refine, work.progress, parts=parts)
    plan = dataclasses.replace(plan, notes=(*plan.notes, *notes))
    if stored.format == model.format:
        stored = model
    # What was measured with, and what is written, need not be in memory together.
    release(stored)
    # As `apply` will write it from the plan alone.
    alone = stored.with_coding(stored.coding.anew(work.journal.within("written")))
    applied = apply(alone, plan, out, batch=batch, force=force)
    plan = dataclasses.replace(
        plan,
        rest_bytes=applied.size_bytes - plan.payload_bytes,
        notes=(*plan.notes, *_over(applied.size_bytes, request)),
    )
    if profile_out is not None:
        profile.write(Path(profile_out), force=force)
    return _as_written(stored, reference, plan, out)


def _limited_by_widths(
    request: Request | Budget | None, measurement: Measurement | None, choices: Mapping[str, Any]
) -> Request | Budget | None:
    """A request whose only limit, where it has none, is what the widest plan takes."""
    known = named(choices, Request.names())
    if Request.of(request, **known).budget is not None:
        return request
    # Other choices count on a rounding that is not chosen yet.
    widths = Measurement.of(measurement, **named(choices, ("bits",)))
    widest = max(option.weight_bits for option in widths.options)
    return dataclasses.replace(Request.of(request, **known), budget=Budget(average_bits=widest))


def _guard(model: Model, batch: Batch, drop: Drop | None, task: Task) -> Guard | None:
    """What a plan must keep, if anything.

    Raises:
        RecordError: There is a metric and nothing to keep, or not exactly one to keep.
    """
    if drop is None:
        if task.metrics:
            raise RecordError("metrics choose a plan together with a largest drop (--max-drop 1%)")
        return None
    inputs = batch if task.inputs is None else input_batch(model, task.inputs)
    return Guard(drop=drop, task=task, inputs=inputs)


def _over(size_bytes: int, request: Request) -> tuple[str, ...]:
    """A note where what was written takes more than was asked for, which only files of other libraries can."""
    budget = request.limits
    if budget.size_bytes is None or size_bytes <= budget.size_bytes:
        return ()
    return (
        f"what was written takes {size_bytes:,} bytes, {size_bytes - budget.size_bytes:,} more than asked for: "
        f"other libraries wrote more beside the weights than was expected; ask for as much less",
    )


def _chosen(
    request: Request | Budget | None, measurement: Measurement | None, choices: Mapping[str, Any]
) -> tuple[Request, Measurement]:
    """Both records, each with the choices that are its own."""
    refuse_unknown(choices, (*Request.names(), *Measurement.names(), *Work.names()), "quantize")
    asked = Request.of(request, **named(choices, Request.names()))
    base = measurement or Measurement(rounding=CORRECTED, seed=asked.seed)
    measurement = Measurement.of(base, **named(choices, Measurement.names()))
    if measurement.measure == measure_kinds.AUTO and asked.recipe.type_scale != TYPE_SCALES[0]:
        # Gradients do not tell which decisions change.
        measurement = Measurement.of(measurement, measure=measure_kinds.DIFFERENCES)
    return asked, measurement


def _with_score(measurement: Measurement, request: Request) -> Measurement:
    """The measurement with the tables of the score that the plan is made by.

    Raises:
        RecordError: Nothing here measures them, or the score knows nothing of sites that are measured.
    """
    if request.mode == AUTO:
        return measurement
    chosen = score(request.mode)
    if measurement.sites == ALL and not chosen.products:
        # Told before hours of measuring rather than after them.
        raise RecordError(
            f"mode {chosen.name} knows layers alone; take mode superposition, kl or fisher, or leave out --sites all"
        )
    unmeasured = next((name for name in chosen.needs if name not in KINDS), None)
    if unmeasured is not None and chosen.measure is None:
        raise RecordError(
            f"mode {chosen.name} needs the table {unmeasured}, which quantizing does not measure; profile the model, "
            f"add it with Profile.with_table, then plan and apply"
        )
    return dataclasses.replace(measurement, scores=(*measurement.scores, chosen))


def _refuse_blocks_with_inputs(model: Model, measurement: Measurement) -> None:
    if measurement.block is None or measurement.act_bits is None:
        return
    form = format_named(model.format)
    if not form.blocks_with_inputs:
        raise PlanError(
            f"in {form.label} files blocks of weights go with float inputs: integer products want one scale per "
            "channel; leave out --block or --act-bits"
        )


def _as_written(model: Model, reference: Reference, plan: Plan, out: Path) -> Plan:
    """The plan with the damage of the file as its runtime runs it, inputs quantized and all."""
    if rounds_activations(model) and any(layer.activation_bits for layer in plan.layers):
        # What was written holds the weights; with its inputs rounded the model was measured before.
        return plan
    reference = reference.take(evenly(reference.inputs.samples, ENOUGH))
    outputs = read_written(model, out).run(reference.inputs)
    written = reference.damage(reference.checked(outputs, "the written model"))
    if plan.rounding != NEAREST and plan.measured_kl is not None:
        # Codes that were fitted to the samples lose less on these than on others.
        written = max(written, plan.measured_kl)
    return dataclasses.replace(plan, measured_kl=written)
