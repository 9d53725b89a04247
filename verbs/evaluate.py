"""How good a model is, and how far from another."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lampq.core.measuring.model import Model
from lampq.core.measuring.reference import Reference, input_batch, judged, with_examples
from lampq.core.readouts.comparison import HeadComparison, changed_share, compare_heads
from lampq.core.values.batch import Batch, BatchLike, join
from lampq.core.values.choices import refuse_unknown
from lampq.core.values.errors import AdapterError
from lampq.core.values.head import CLASSES
from lampq.core.values.notebook import html_table
from lampq.core.values.plan import Plan
from lampq.core.values.progress import Progress, quiet
from lampq.verbs.fake_quantize import fake_quantize
from lampq.verbs.formats import judged_alike
from lampq.verbs.task import Answers, MetricValue, measured, pieces_of, split_choices


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a model does on labelled or unlabelled data.

    Attributes:
        samples: Samples evaluated.
        top1: Fraction of samples whose largest logit is their label, or None without labels or a lone output of
            classes.
        kl: Mean damage of all outputs (KL(reference || model) of classes), nats, or None without a reference.
        agreement: Fraction of decisions (classes, yes or no) that are the same in both, averaged over the outputs that
            decide, or None without a reference.
        size_bytes: Bytes of the model's files.
        ms_per_sample: Wall-clock milliseconds per sample, the first run left out.
        heads: The judged outputs one by one; empty without a reference.
        metrics: The metrics that were asked for.
        notes: Remarks a reader should see.
    """

    samples: int
    top1: float | None
    kl: float | None
    agreement: float | None
    size_bytes: int
    ms_per_sample: float
    heads: tuple[HeadComparison, ...] = ()
    metrics: tuple[MetricValue, ...] = ()
    notes: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        """For notebooks."""
        facts = {
            "samples": self.samples,
            "top-1": None if self.top1 is None else f"{self.top1:.2%}",
            "damage to the reference, nats": self.kl,
            "bytes": self.size_bytes,
        }
        rows = [(head.name, head.role, head.kl, head.agreement) for head in self.heads]
        return html_table("evaluation", facts, ("output", "role", "nats", "same decisions"), rows)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        lists = {name: [value.to_json() for value in values[name]] for name in ("heads", "metrics")}
        return {**values, **lists, "notes": list(self.notes)}


def evaluate(
    model: Model,
    inputs: BatchLike,
    labels: np.ndarray | None = None,
    *,
    reference: Model | None = None,
    plan: Plan | None = None,
    calibration: BatchLike | None = None,
    batch_size: int = 64,
    progress: Progress = quiet,
    **choices: Any,
) -> Evaluation:
    """Run a model over data.

    Args:
        model: The model to judge.
        inputs: Preprocessed inputs, samples first.
        labels: Class indices, shape (S,), or None.
        reference: Model whose predictions count as the truth for `kl`; its outputs are judged as it says.
        plan: Judge `model` as this plan has it (see `lampq.fake_quantize`); the reference is then `model` itself
            unless another is given, and the bytes are the plan's.
        calibration: Inputs that the plan was made with, where it rounds to the layers' inputs.
        batch_size: Samples per run.
        progress: Told after every batch.
        **choices: `task`, or its fields by name: `metrics=["map"]`, `truth`, `decoder` (see `lampq.verbs.task.Task`);
            `partial=True` accepts layers without a partner on either side of model and plan, the model's stay float.

    Raises:
        AdapterError: Labels name more classes than the model has, the two models disagree in their classes, or no
            output is judged.
        RecordError: Logits are not finite, or a metric cannot be measured.
        PlanError: The plan is for another model.
    """
    partial = choices.pop("partial", False)
    task, rest = split_choices({"labels": labels, **choices})
    refuse_unknown(rest, (), "an evaluation")
    model = with_examples(model, inputs)
    reference = None if reference is None else with_examples(reference, inputs)
    if plan is not None:
        reference = model if reference is None else reference
        model = fake_quantize(model, plan, partial=partial, batch=calibration)
    if reference is not None:
        # What a file is read for may differ from the float model's where quantizing has changed its operators.
        model = judged_alike(model, reference)
    data = input_batch(model, inputs)
    task.check(data.samples)
    truth = None if reference is None else _truth(reference, data, batch_size)
    outputs, seconds = _outputs(model, data, batch_size, progress)
    if truth is not None:
        _check_alike(outputs, truth)
        truth.checked(outputs, "the model")
    decided = (truth or _alone(model, outputs, data)).readout.decisions(outputs)
    top1, notes = (None, ()) if labels is None else _accuracy(labels, model, outputs, decided)
    kl = agreement = None
    heads: tuple[HeadComparison, ...] = ()
    if truth is not None:
        kl = truth.damage(outputs)
        expected = truth.readout.decisions(truth.outputs)
        agreement = 1 - changed_share(expected, decided) if expected else None
        heads = compare_heads(truth.readout, truth.outputs, outputs)
        notes = (*notes, *truth.readout.notes)
    mine = Answers(model=model, inputs=data, outputs=outputs)
    theirs = None
    if truth is not None and reference is not None:
        theirs = Answers(model=reference, inputs=truth.inputs, outputs=truth.outputs)
    metrics = measured(task, mine, theirs, batch_size)
    return Evaluation(
        samples=data.samples,
        top1=top1,
        kl=kl,
        agreement=agreement,
        size_bytes=model.file_bytes() if plan is None else plan.total_bytes,
        ms_per_sample=1e3 * seconds / data.samples,
        heads=heads,
        metrics=metrics,
        notes=(*notes, *dict.fromkeys(note for value in metrics for note in value.notes)),
    )


def _outputs(model: Model, data: Batch, batch_size: int, progress: Progress) -> tuple[Batch, float]:
    """Outputs of all samples, and the seconds they took; the first run is left out."""
    pieces = pieces_of(data, batch_size)
    model.run(pieces[0])
    outputs, seconds, done = [], 0.0, 0
    for piece in pieces:
        began = time.perf_counter()
        outputs.append(model.run(piece))
        seconds += time.perf_counter() - began
        done += piece.samples
        progress("evaluating", done, data.samples)
    return join(outputs), seconds


def _truth(reference: Model, data: Batch, batch_size: int) -> Reference:
    specs = reference.input_specs
    # The only input of both, whatever each calls it.
    inputs = data.renamed({data.names[0]: specs[0].name}) if len(specs) == len(data.names) == 1 else data
    outputs, _ = _outputs(reference, inputs, batch_size, quiet)
    return judged(reference, inputs, outputs, "the reference")


def _alone(model: Model, outputs: Batch, data: Batch) -> Reference:
    return judged(model, data, outputs, "the model")


def _check_alike(outputs: Batch, truth: Reference) -> None:
    """Refuse outputs that are not those which the reference is judged by."""
    for mine, theirs in zip(outputs.groups, truth.outputs.groups, strict=True):
        for name in (head.name for head in truth.readout.heads):
            if name not in mine:
                raise AdapterError(f"the reference has output {name}, the model {', '.join(mine)}")
            if theirs[name].shape != mine[name].shape:
                raise AdapterError(
                    f"output {name} has shape {mine[name].shape}, that of the reference {theirs[name].shape}"
                )


def _accuracy(
    labels: np.ndarray, model: Model, outputs: Batch, decided: Mapping[str, np.ndarray]
) -> tuple[float | None, tuple[str, ...]]:
    """Share of samples whose class is their label, or None and why there is none.

    Raises:
        AdapterError: Labels name classes that the model does not have.
    """
    heads = [head for head in model.heads if head.role == CLASSES and head.name in decided]
    if len(heads) != 1:
        return None, (f"labels are left out: {len(heads)} outputs name classes, and labels go with one",)
    head, chosen = heads[0], decided[heads[0].name]
    if chosen.size != len(chosen):
        return None, (f"labels are left out: output {head.name} names a class for each position",)
    classes = outputs.groups[0][head.name].shape[head.axis]
    if labels.max(initial=0) >= classes:
        raise AdapterError(
            f"the data has label {int(labels.max())}, the model only {classes} classes; "
            f"point --data at folders of the model's own classes, or at images in one folder, which have no labels"
        )
    return float((chosen.reshape(len(chosen)) == labels).mean()), ()
