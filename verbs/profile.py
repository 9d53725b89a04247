"""Model and data in, profile out."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import lampq
from lampq.adapters import format_named
from lampq.core.allocating.scores import score as score_named
from lampq.core.measuring.candidates import Candidates
from lampq.core.measuring.encoding import with_rounding
from lampq.core.measuring.measure import measure_activations, measure_weight_error
from lampq.core.measuring.model import Model, rounds_activations
from lampq.core.measuring.reference import Reference, evenly, measure_reference, with_examples
from lampq.core.measuring.rewriting import with_chosen_rewrites
from lampq.core.measuring.traces import Traces, measure_traces
from lampq.core.readouts.draws import Draws
from lampq.core.values.batch import BatchLike
from lampq.core.values.choices import named, refuse_unknown
from lampq.core.values.errors import AdapterError, RecordError
from lampq.core.values.factors import factor_bytes, takes_rank
from lampq.core.values.fisher_kinds import EMPIRICAL
from lampq.core.values.head import summary
from lampq.core.values.layer import Layer
from lampq.core.values.measurement import Measurement
from lampq.core.values.messages import listed
from lampq.core.values.option import Option
from lampq.core.values.profile import Profile
from lampq.core.values.score import Score
from lampq.core.values.selection import KeptLayer, Selection
from lampq.core.values.shard import Shard
from lampq.core.values.tables import known_tables
from lampq.core.values.work import Work
from lampq.verbs.damage import MeasuredDamage, measured_damage
from lampq.verbs.input_ranges import InputRanges, JointFisher, input_ranges, measure_joint
from lampq.verbs.overhead import file_overhead
from lampq.verbs.parts import profile_by_parts
from lampq.verbs.roundable import refuse_unheld_ranks, roundable
from lampq.verbs.site_rules import SiteRules, site_rules


def profile(
    model: Model,
    batch: BatchLike | None = None,
    measurement: Measurement | None = None,
    *,
    shard: Shard | None = None,
    work: Work | None = None,
    reference: Reference | None = None,
    most_samples: int | None = None,
    **choices: Any,
) -> Profile:
    """Measure all that allocation needs.

    With data, what every width of every layer does to the outputs is told by a few backward passes, or else by
    quantizing one layer at a time (damage, and how the changes of layers act together where that fits in memory),
    activations get their statistics, and Fisher traces come from gradients where the model has them. Without data
    there are weight statistics and errors only.

    Args:
        model: A readable model (`lampq.read`).
        batch: Calibration inputs, preprocessed, samples first; None profiles without data.
        measurement: What is measured, and how.
        shard: Measure this part of `batch` alone; `lampq.merge` makes one profile of all parts.
        work: How it is done.
        reference: What the model makes of `batch`, where that is known.
        most_samples: Samples that gradients and statistics of activations are taken of, evenly over all; None: all.
        **choices: Fields of `lampq.Measurement` and `lampq.Work` to set, such as `bits=(2, 3, 4)`.

    Raises:
        RecordError: Weights, activations or outputs are not finite (names the layer), or a choice is unknown.
        AdapterError: The model's format has no such input widths or ranges, or none of its outputs is judged.
        PlanError: The layers to keep leave none, or a pattern of them matches nothing.
    """
    work = Work.of(work, **named(choices, Work.names()))
    journal, progress = work.journal, work.progress
    refuse_unknown(choices, (*Measurement.names(), *Work.names()), "a measurement")
    measurement = Measurement.of(measurement, **named(choices, Measurement.names()))
    refuse_unheld_ranks(model, measurement)
    if work.executor is not None and batch is not None:
        if shard is not None:
            raise RecordError(f"shard {shard} of shared work: leave out the shard, or the workers")
        return profile_by_parts(profile, model, batch, measurement, work.executor, work)
    if measurement.act_bits is not None and batch is None:
        raise RecordError("activation widths need calibrated ranges; profile the model with --data")
    model = model if batch is None else with_examples(model, batch)
    model = roundable(model, batch, measurement)
    model = with_chosen_rewrites(model, batch, measurement, progress)
    # Shards choose the same codes and ranges: those for all samples.
    model = with_rounding(model, measurement.profiled, measurement.block, batch, journal)
    (layers, kept), options = quantizable(model, measurement.selection), measurement.options
    own = [score for score in map(score_named, measurement.scores) if score.measure is not None]
    if own and batch is None:
        raise RecordError(f"mode {own[0].name} is measured on data; profile the model with --data")
    if reference is None and batch is not None:
        reference = measure_reference(model, batch)
    sites = (
        site_rules(model, layers, reference, measurement, journal=journal, progress=progress)
        if reference is not None and measurement.chooses_quantizers
        else None
    )
    ranges: InputRanges | SiteRules | None = sites
    if reference is not None and sites is None:
        ranges = input_ranges(model, layers, options, reference.inputs, measurement.act_range)
    numbers, whole = None, reference
    if shard is not None:
        if reference is None:
            raise RecordError(f"shard {shard} of no data: profile with --data, or without a shard")
        numbers = shard.numbers(reference.inputs.samples)
        reference, measurement = reference.take(numbers), _of_samples(measurement, numbers)
    payload = stored_bytes(model, layers, options, measurement.container)
    notes: tuple[str, ...] = ()
    if sites is not None:
        payload = np.concatenate([payload, np.where(sites.available(options), 0, -1)])
    if reference is None:
        damage = measure_weight_error(model, layers, options, journal=journal, progress=progress)
        sense, told = _Sensitivity(), {}
    else:
        candidates = Candidates(
            model=model,
            layers=layers,
            options=options,
            available=payload >= 0,
            rules=None if ranges is None else ranges.rule,
            products=() if sites is None else sites.products,
            left=None if sites is None else sites.left,
        )
        measured = measured_damage(
            candidates,
            measurement,
            reference,
            whole or reference,
            numbers,
            most=most_samples,
            journal=journal,
            progress=progress,
        )
        damage, told = measured.damage, _told(measured, ranges)
        notes = (*reference.readout.notes, *measured.notes)
        some = evenly(reference.inputs.samples, most_samples or reference.inputs.samples)
        layers = measure_activations(model, layers, reference.inputs.take(some))
        sense = _sensitivity(model, layers, reference, measurement, ranges, numbers, measured.joint, work)
        layers = tuple(_with_traces(layer, sense.traces) for layer in layers)
    heads = () if reference is None else reference.readout.heads
    table = None if ranges is None else ranges.table
    # Parts of the data must agree, and ranges that are read off the data differ from part to part.
    alike = layers if shard is None or ranges is not None else tuple(map(_without_input, layers))
    overhead = file_overhead(model, alike, kept, measurement, damage.steps[: len(layers)], table)
    joint = sense.joint.table
    if sites is not None:
        overhead = overhead.with_places(sites.file_bytes(options))
        joint = None if joint is None else np.concatenate([joint, sites.second_order(options)])
    result = Profile(
        layers=layers,
        options=options,
        rest_bytes=overhead.rest_bytes,
        kept=kept,
        container=measurement.container,
        block=measurement.block,
        rounding=measurement.profiled,
        tables=known_tables(
            weight_error=damage.weight_error,
            payload_bytes=payload,
            **overhead.tables(),
            kl=damage.kl,
            changed=damage.changed,
            gram=damage.gram,
            gram_square=damage.gram_square,
            joint_fisher=joint,
            activation_range=table,
            signature=None if reference is None else reference.readout.signature(reference.outputs),
        ),
        per_token=ranges is not None and ranges.per_token,
        products=() if sites is None else sites.products,
        quantizers={} if sites is None else sites.quantizers(),
        rewrites=model.rewrites if rounds_activations(model) else (),
        heads=heads,
        samples=0 if reference is None else reference.inputs.samples,
        shard=shard,
        provenance={
            "model": model.path.name,
            "format": model.format,
            "digest": model.digest,
            "data": dict(measurement.data_summary),
            "seed": measurement.seed,
            **({"outputs": summary(heads)} if len(heads) > 1 else {}),
            **({"notes": list(notes)} if notes else {}),
            **sense.provenance(measurement),
            **told,
            "versions": {
                "lampq": lampq.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
        },
    )
    return result if reference is None else _with_own_tables(result, own, model, reference)


def _with_own_tables(
    profile: Profile, scores: Sequence[Score], model: Model, reference: Reference
) -> Profile:
    """The profile with the tables that scores measure themselves.

    Raises:
        RecordError: One gives back something else than a profile.
    """
    for score in scores:
        if score.measure is not None:
            profile = score.measure(model, profile, reference.inputs)
        if not isinstance(profile, Profile):
            raise RecordError(
                f"mode {score.name}: `measure` gave {type(profile).__name__}; it gives the profile back"
            )
    return profile


def _told(measured: MeasuredDamage, ranges: InputRanges | SiteRules | None) -> dict[str, Any]:
    """What the provenance says of how damage was measured, and of rounded inputs."""
    inputs = {} if ranges is None else {"activations": {"range": ranges.method, **measured.pairs}}
    return {"measure": measured.kind, "measured": dict(measured.details), **inputs}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Sensitivity:
    """Fisher information, as far as it was asked for and could be measured."""

    traces: Traces | None = None
    joint: JointFisher = field(default_factory=JointFisher)

    def provenance(self, measurement: Measurement) -> dict[str, Any]:
        """What the provenance says of it."""
        traces = self.traces
        return {
            "fisher": None if traces is None else {"kind": traces.kind, "note": traces.note},
            "fisher_draws": 0 if traces is None else measurement.fisher_draws,
            **({"joint_fisher": {"note": self.joint.note}} if self.joint.note else {}),
        }


def _sensitivity(
    model: Model,
    layers: Sequence[Layer],
    reference: Reference,
    measurement: Measurement,
    ranges: InputRanges | SiteRules | None,
    numbers: np.ndarray | None,
    joint: np.ndarray | None,
    work: Work,
) -> _Sensitivity:
    """Traces of all layers, and the joint score where inputs are rounded; `joint` is it, where it is known."""
    if not measurement.fisher_draws:
        return _Sensitivity()
    traces = measure_traces(
        model,
        reference,
        Draws(
            count=measurement.fisher_draws, seed=measurement.seed, samples=numbers, truth=measurement.labels
        ),
        kind=measurement.fisher,
        journal=work.journal,
        progress=work.progress,
    )
    if ranges is None:
        return _Sensitivity(traces=traces)
    if joint is not None and measurement.fisher != EMPIRICAL:
        return _Sensitivity(traces=traces, joint=JointFisher(table=joint))
    kept = work.journal.get("joint", {"table": (len(layers), None)})
    if kept is not None:
        return _Sensitivity(traces=traces, joint=JointFisher(table=kept["table"]))
    score = measure_joint(
        model, layers, reference, measurement, ranges, samples=numbers, progress=work.progress
    )
    if score.table is not None:
        work.journal.put("joint", table=score.table)
    return _Sensitivity(traces=traces, joint=score)


def _of_samples(measurement: Measurement, numbers: np.ndarray) -> Measurement:
    """The measurement with the labels of some samples."""
    if measurement.labels is None:
        return measurement
    return dataclasses.replace(measurement, labels=measurement.labels[numbers])


def quantizable(model: Model, selection: Selection) -> tuple[tuple[Layer, ...], tuple[KeptLayer, ...]]:
    """The layers of a model that are to be quantized, of which there must be some, and those kept float.

    Raises:
        AdapterError: The model has no layers.
        PlanError: The selection leaves none, or a pattern of it matches nothing.
    """
    layers = model.layers()
    if not layers:
        stored, skipped = len(model.stored_bits()), {reason for _, reason in model.skipped}
        already = [f"{stored} are quantized already"] if stored else []
        reasons = [*already, *sorted({_beside(reason) for reason in skipped} if stored else skipped)]
        why = f" ({listed(reasons, separator='; ')})" if reasons else ""
        raise AdapterError(
            f"{model.path.name} has no layer that can be quantized{why}; `lampq inspect` tells more"
        )
    return selection.split(layers)


def _beside(reason: str) -> str:
    """What a reason says beside that a weight is quantized already."""
    what, _, hint = reason.partition("; ")
    return hint if hint and what.startswith("already quantized") else reason


def _without_input(layer: Layer) -> Layer:
    return dataclasses.replace(layer, activation=None)


def _with_traces(layer: Layer, traces: Traces | None) -> Layer:
    if traces is None:
        return layer
    return dataclasses.replace(
        layer, fisher=traces.weight[layer.name], activation_fisher=traces.activation.get(layer.name)
    )


def stored_bytes(
    model: Model, layers: Sequence[Layer], options: Sequence[Option], container: str
) -> np.ndarray:
    """Bytes of codes, scales and factors of every layer at every option, int64, shape (L, J); -1 where it cannot be
    stored, or its inputs are not known, which factors are cut to.

    Raises:
        RecordError: A layer can be stored at none of them; names it.
    """
    widths, moments = {option.weight_bits for option in options}, model.coding.moments
    table = {
        (layer.name, width): model.payload_bytes(layer, width, container)
        for layer in layers
        for width in widths
    }
    ranked = any(option.rank for option in options)
    beside = set(format_named(model.format).low_rank(model)) if ranked else set()
    beside &= beside if moments is None else moments.keys()

    def stored(layer: Layer, option: Option) -> int:
        size = table[layer.name, option.weight_bits]
        held = not option.rank or (layer.name in beside and takes_rank(layer.shape, option.rank))
        return -1 if size is None or not held else size + factor_bytes(layer.shape, option.rank)

    sizes = np.array([[stored(layer, option) for option in options] for layer in layers], dtype=np.int64)
    stuck = np.flatnonzero((sizes < 0).all(axis=1))
    if len(stuck):
        name = layers[stuck[0]].name
        raise RecordError(
            f"{model.path.name}: none of the widths can be stored for layer {name}; profile others"
        )
    return sizes
