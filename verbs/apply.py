"""Model and plan in, quantized model out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lampq.adapters import format_named
from lampq.core.measuring.correction import with_plan_coding
from lampq.core.measuring.model import Model
from lampq.core.measuring.reference import with_examples
from lampq.core.measuring.rewriting import with_plan_rewrites
from lampq.core.values.batch import BatchLike
from lampq.core.values.errors import PlanError
from lampq.core.values.factors import factor_bytes
from lampq.core.values.fitted import Fitted
from lampq.core.values.layer import Layer
from lampq.core.values.match import Matching, left_over, match, same_names
from lampq.core.values.messages import listed
from lampq.core.values.plan import Plan
from lampq.core.values.plan_layer import PlanLayer
from lampq.core.values.rounding_kinds import form_of
from lampq.core.values.selection import KeptLayer
from lampq.verbs.formats import refuse_model_clashes, size_bytes, stored_as, unpacked_note
from lampq.verbs.placed_products import placed_products

_TABLE = "embedding"


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What was written. It stands for its path wherever one is wanted.

    Attributes:
        plan: The plan with the names and shapes that its layers have in the model, and the bytes of what was written.
        path: The file, or folder.
        size_bytes: Bytes of it.
        notes: What fitting the plan to the model gives reason to say.
        error: Largest difference of the file's outputs to what they should be, relative to their magnitude; None
            where the format checks without saying.
    """

    plan: Plan
    path: Path
    size_bytes: int
    notes: tuple[str, ...]
    error: float | None

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)


def apply(
    model: Model,
    plan: Plan,
    out: str | Path,
    *,
    partial: bool = False,
    widest: bool = False,
    by_name: bool = False,
    batch: BatchLike | None = None,
    force: bool = False,
) -> Applied:
    """Write `model` quantized by `plan`, in the model's own format, and verify the file by running it.

    Args:
        model: The float model; it may be another file or format of the model that the plan was made from.
        plan: Widths.
        out: File to write.
        partial: Accept layers without a partner on either side; those of the model stay float.
        widest: Give a fused weight the widest of its parts' widths where these differ.
        by_name: Match layers by name and size where their weights differ, as after further training.
        batch: Calibration inputs, preprocessed, samples first; needed by plans that round to the layers' inputs,
            and by formats that fix the ranges of outputs (TFLite with activation widths).
        force: Overwrite `out`.

    Raises:
        RecordError: The plan rounds to the layers' inputs, and there are none.
        PlanError: The plan is for another model; lists what does not match.
        AdapterError: The file cannot be written, or does not compute what it should; nothing is left behind.
    """
    out = Path(out)
    model = model if batch is None else with_examples(model, batch)
    model = with_plan_rewrites(model, plan)
    fitted = fit_to(model, plan, out, partial=partial, widest=widest, by_name=by_name)
    _refuse_ranks(model, fitted)
    refuse_model_clashes(model, out, force=force)
    model = with_plan_coding(model, fitted, batch)
    error = model.write(fitted, out, calibration=batch)
    written = size_bytes(out)
    return Applied(
        plan=dataclasses.replace(fitted, rest_bytes=max(written - fitted.payload_bytes, 0)),
        path=out,
        size_bytes=written,
        notes=fitted.notes[len(plan.notes) :],
        error=error,
    )


def _refuse_ranks(model: Model, plan: Plan) -> None:
    """Stop before any work where files of a model have no place for factors of low rank."""
    ranked = [layer.name for layer in plan.layers if layer.rank]
    if ranked:
        beside = format_named(model.format).low_rank(model)
        lone = next((name for name in ranked if name not in beside), None)
        if lone is not None:
            raise PlanError(
                f"{model.path.name} has no place for the factors of low rank that the plan has for {lone}: they stand "
                f"beside products with a matrix in ONNX files; leave the layer out, or judge the plan with eval --plan"
            )


def fit_to(
    model: Model,
    plan: Plan,
    out: Path | None = None,
    *,
    partial: bool = False,
    widest: bool = False,
    by_name: bool = False,
    simulated: bool = False,
) -> Plan:
    """The plan with the names and shapes that its layers have in `model`, matched by fingerprint, then by name.

    A fused weight hands its width to the parts that the model keeps apart; parts that the model keeps fused must
    agree on one. Layers that the plan keeps float stay so; layers that `out` cannot hold packed are left out, with a
    note. See `apply` for the arguments; `simulated` is for `lampq.verbs.simulate`, which rounds sites of any format.

    Raises:
        PlanError: Layers are left over on either side and `partial` is false, nothing matches at all, or the parts
            of a fused weight have different widths and `widest` is false.
    """
    model = with_plan_rewrites(model, plan)
    stored = model if out is None else stored_as(model, out)
    layers = model.layers()
    if len(stored.layers()) == len(layers):
        model = stored
    whole = model
    known: tuple[PlanLayer | KeptLayer, ...] = (*plan.layers, *plan.kept)
    matching = match(known, layers, by_name=by_name)
    notes = plan.notes
    if stored is not model and not matching.complete:
        # A plan made for what can be stored.
        model, layers = stored, stored.layers()
        matching = match(known, layers, by_name=by_name)
    if not matching.complete and not by_name and _folds_norms(model, plan):
        # Converters fold the scale of a normalization into the layer behind it, which changes its weights.
        named = match(known, layers, by_name=True)
        folded = [layers[m.right[0]].name for m in named.matches if m.how == "name"]
        if named.complete and len(folded) < len(named.matches):
            matching, notes = named, (*notes, _folded_note(folded))
    if not matching.matches:
        namesakes = same_names(matching, known, layers)
        raise PlanError(
            f"the plan was made for another model: none of its {len(plan.layers)} layers is in {model.path.name}"
            f"{_random_hint(model)}"
            f"{f'; {namesakes} have the same name and size: pass --by-name if they are the same' if namesakes else ''}"
        )
    if not matching.complete and not partial and not _tables_alone(matching, known, layers):
        raise PlanError(
            f"the plan does not fit {model.path.name}: "
            f"{left_over(matching, known, layers, sides=('the plan', 'the model'))}; "
            f"pass --partial to apply the rest"
        )
    if not matching.complete and not partial:
        left = [*(known[i].name for i in matching.only_left), *(layers[j].name for j in matching.only_right)]
        notes = (
            *notes,
            f"tables that only the plan or only the model counts stay as they are: {listed(left)}",
        )
    coding = dataclasses.replace(model.coding, block=plan.block, form=form_of(plan.rounding))
    model = model.with_coding(coding)
    decisions: dict[int, PlanLayer] = {}
    for matched in matching.matches:
        decision = _decision([known[i] for i in matched.left], layers[matched.right[0]].name, widest=widest)
        if decision is None:
            continue
        for j in matched.right:
            decisions[j] = _placed(model, layers[j], decision, plan.container)
    placed = tuple(decisions[j] for j in sorted(decisions))
    if stored is not whole:
        packed = {layer.name for layer in stored.layers()}
        notes = (*notes, *unpacked_note(whole, stored))
        placed = tuple(layer for layer in placed if layer.name in packed)
    planned, takes = plan.payload_bytes, sum(layer.payload_bytes for layer in placed)
    if matching.complete and takes > planned:
        notes = (
            *notes,
            f"the weights take {takes:,} bytes in this format, {planned:,} in that of the plan: widths it cannot "
            f"store take the next wider place",
        )
    return dataclasses.replace(
        plan,
        layers=placed,
        products=placed_products(model, plan, partial=partial, simulated=simulated),
        notes=notes,
    )


def _folds_norms(model: Model, plan: Plan) -> bool:
    """Whether a converter may have changed weights, on either side."""
    names = (model.format, str(plan.provenance.get("format", "")))
    return any(format_named(name).folds_norms for name in names if name)


def _random_hint(model: Model) -> str:
    random = format_named(model.format).random_weights(model)
    return "; its weights are random: give its checkpoint, --weights FILE" if random else ""


def _folded_note(names: Sequence[str]) -> str:
    return (
        f"{len(names)} of the layers were matched by name and size, because a converter has changed their weights, "
        f"as it does where it folds a normalization into them: {listed(names)}"
    )


def _decision(parts: Sequence[PlanLayer | KeptLayer], name: str, *, widest: bool) -> PlanLayer | None:
    """What a plan says of one weight of the model, which it may know in parts; None where it stays float.

    Raises:
        PlanError: Its parts have different widths and `widest` is false, or only some of them stay float.
    """
    quantized = [part for part in parts if isinstance(part, PlanLayer)]
    if not quantized:
        return None
    if len(quantized) < len(parts):
        raise PlanError(
            f"layer {name} is one weight in the model, and the plan keeps only some of its parts float; keep all "
            f"of them or none when profiling"
        )
    return quantized[0] if len(parts) == 1 else _joined(quantized, name, widest=widest)


def _joined(parts: Sequence[PlanLayer], name: str, *, widest: bool) -> PlanLayer:
    """One decision for a weight that the plan knows in parts.

    Raises:
        PlanError: Their widths differ and `widest` is false.
    """
    widths = {(part.weight_bits, part.activation_bits, part.rank) for part in parts}
    if len(widths) > 1 and not widest:
        listed = ", ".join(f"{part.name} {part.weight_bits} bits" for part in parts)
        raise PlanError(
            f"layer {name} is one weight in the model, and the plan gives its parts different widths ({listed}); "
            f"pass --widest to take the widest, or tie the parts when planning"
        )
    # No width means float, which is the widest.
    activations = [part.activation_bits for part in parts]
    ranges = [part.activation_range for part in parts if part.activation_range is not None]
    damages = [part.predicted_kl for part in parts if part.predicted_kl is not None]
    return dataclasses.replace(
        parts[0],
        weight_bits=max(part.weight_bits for part in parts),
        activation_bits=None if None in activations else max(a for a in activations if a is not None),
        activation_range=_union(ranges) if len(ranges) == len(parts) else None,
        quantizer=_common_quantizer(parts, name),
        payload_bytes=sum(part.payload_bytes for part in parts),
        rank=max(part.rank for part in parts),
        predicted_kl=sum(damages) if len(damages) == len(parts) and len(widths) == 1 else None,
    )


def _common_quantizer(parts: Sequence[PlanLayer], name: str) -> Fitted | None:
    """How all parts have their input rounded.

    Raises:
        PlanError: They differ.
    """
    if any(part.quantizer != parts[0].quantizer for part in parts):
        raise PlanError(
            f"layer {name} is one weight in the model, and the plan rounds the input of its parts in different ways; "
            f"tie the parts when planning"
        )
    return parts[0].quantizer


def _union(ranges: Iterable[tuple[float, float]]) -> tuple[float, float]:
    lows, highs = zip(*ranges, strict=True)
    return min(lows), max(highs)


def _tables_alone(
    matching: Matching, known: Sequence[PlanLayer | KeptLayer], layers: Sequence[Layer]
) -> bool:
    """Whether all that is left over are tables: formats differ in which of those that are added count as layers."""
    left = [*(known[i] for i in matching.only_left), *(layers[j] for j in matching.only_right)]
    return all(not isinstance(layer, KeptLayer) and layer.kind == _TABLE for layer in left)


def _placed(model: Model, layer: Layer, decision: PlanLayer, container: str) -> PlanLayer:
    """A decision under the name, kind and shape of a layer of the model."""
    stored = model.payload_bytes(layer, decision.weight_bits, container)
    if stored is not None:
        stored += factor_bytes(layer.shape, decision.rank)
    whole = layer.size == decision.size
    return dataclasses.replace(
        decision,
        name=layer.name,
        kind=layer.kind,
        shape=layer.shape,
        size=layer.size,
        fingerprint=layer.fingerprint,
        folded=layer.folded,
        payload_bytes=decision.payload_bytes * layer.size // decision.size if stored is None else stored,
        # How the damage of a fused weight divides among its parts is not known.
        predicted_kl=decision.predicted_kl if whole else None,
        why=decision.why if whole else f"part of {decision.name}",
    )
