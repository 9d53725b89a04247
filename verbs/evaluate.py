"""How good a model is, and how far from another."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lampq.core.measuring.measure import changed_share
from lampq.core.measuring.model import Model
from lampq.core.measuring.reference import Reference, input_batch, judged
from lampq.core.values.batch import Batch, BatchLike, join
from lampq.core.values.errors import AdapterError
from lampq.core.values.head import CLASSES, Head
from lampq.core.values.plan import Plan
from lampq.core.values.progress import Progress, quiet
from lampq.verbs.fake_quantize import fake_quantize


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a model does on labelled or unlabelled data.

    Attributes:
        samples: Samples evaluated.
        top1: Fraction of samples whose largest logit is their label, or None without labels.
        kl: Mean KL(reference || model), nats, or None without a reference.
        agreement: Fraction of samples on which both choose the same class, or None without a reference.
        size_bytes: Bytes of the model's files.
        ms_per_sample: Wall-clock milliseconds per sample, the first run left out.
    """

    samples: int
    top1: float | None
    kl: float | None
    agreement: float | None
    size_bytes: int
    ms_per_sample: float

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return dataclasses.asdict(self)


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
) -> Evaluation:
    """Run a model over data.

    Args:
        model: The model to judge.
        inputs: Preprocessed inputs, samples first.
        labels: Class indices, shape (S,), or None.
        reference: Model whose predictions count as the truth for `kl`.
        plan: Judge `model` as this plan has it (see `lampq.fake_quantize`); the reference is then `model` itself
            unless another is given, and the bytes are the plan's.
        calibration: Inputs that the plan was made with, where it rounds to the layers' inputs.
        batch_size: Samples per run.
        progress: Told after every batch.

    Raises:
        AdapterError: Labels name more classes than the model has, or the two models disagree in their classes.
        RecordError: Logits are not finite.
        PlanError: The plan is for another model.
    """
    if plan is not None:
        reference = model if reference is None else reference
        model = fake_quantize(model, plan, batch=calibration)
    data = input_batch(model, inputs)
    truth = None if reference is None else _truth(reference, data, batch_size)
    outputs, seconds = _outputs(model, data, batch_size, progress)
    decided = (truth or _alone(model, outputs, data)).readout.decisions(outputs)
    if labels is not None:
        _check_labels(labels, model, outputs)
    kl = agreement = None
    if truth is not None:
        _check_alike(outputs, truth.outputs)
        kl = truth.damage(outputs)
        expected = truth.readout.decisions(truth.outputs)
        agreement = 1 - changed_share(expected, decided) if expected else None
    return Evaluation(
        samples=data.samples,
        top1=None if labels is None else float((_chosen(decided, model) == labels).mean()),
        kl=kl,
        agreement=agreement,
        size_bytes=model.file_bytes() if plan is None else plan.total_bytes,
        ms_per_sample=1e3 * seconds / data.samples,
    )


def _outputs(model: Model, data: Batch, batch_size: int, progress: Progress) -> tuple[Batch, float]:
    """Outputs of all samples, and the seconds they took; the first run is left out."""
    pieces = _pieces(data, batch_size)
    model.run(pieces[0])
    outputs, seconds, done = [], 0.0, 0
    for piece in pieces:
        began = time.perf_counter()
        outputs.append(model.run(piece))
        seconds += time.perf_counter() - began
        done += piece.samples
        progress("evaluating", done, data.samples)
    return join(outputs), seconds


def _pieces(data: Batch, size: int) -> list[Batch]:
    return [
        data.take(range(start, min(start + size, data.samples))) for start in range(0, data.samples, size)
    ]


def _truth(reference: Model, data: Batch, batch_size: int) -> Reference:
    inputs = input_batch(reference, np.asarray(data) if len(data.names) == 1 else data)
    outputs, _ = _outputs(reference, inputs, batch_size, quiet)
    return judged(reference, inputs, outputs, "the reference")


def _alone(model: Model, outputs: Batch, data: Batch) -> Reference:
    return judged(model, data, outputs, "the model")


def _check_alike(outputs: Batch, expected: Batch) -> None:
    """Refuse a reference that gives something else."""
    for mine, theirs in zip(outputs.groups, expected.groups, strict=True):
        for name, array in mine.items():
            if name not in theirs:
                raise AdapterError(f"the reference has no output {name}; it has {', '.join(theirs)}")
            if theirs[name].shape != array.shape:
                raise AdapterError(
                    f"output {name} has shape {array.shape}, that of the reference {theirs[name].shape}"
                )


def _class_head(model: Model) -> Head:
    """The head that labels belong to: the only one that names one class for each sample.

    Raises:
        AdapterError: There is none, or several.
    """
    heads = [head for head in model.heads if head.role == CLASSES]
    if len(heads) != 1:
        raise AdapterError(
            f"the data has labels and the model {len(heads)} outputs that name classes; leave the labels out"
        )
    return heads[0]


def _check_labels(labels: np.ndarray, model: Model, outputs: Batch) -> None:
    """Refuse labels of classes that the model does not have."""
    head = _class_head(model)
    classes = outputs.groups[0][head.name].shape[head.axis]
    if labels.max(initial=0) >= classes:
        raise AdapterError(
            f"the data has label {int(labels.max())}, the model only {classes} classes; "
            f"point --data at folders of the model's own classes"
        )


def _chosen(decided: Mapping[str, np.ndarray], model: Model) -> np.ndarray:
    """The class of each sample, shape (S,)."""
    chosen = decided[_class_head(model).name]
    if chosen.size != len(chosen):
        raise AdapterError("the data has one label for each sample, the model a class for each position")
    return chosen.reshape(len(chosen))
