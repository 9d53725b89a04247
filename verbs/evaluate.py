"""How good a model is, and how far from another."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from lampq.core.measuring.divergence import kl_divergence
from lampq.core.measuring.measure import check_logits
from lampq.core.measuring.model import Model
from lampq.core.values.errors import AdapterError
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
    inputs: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    reference: Model | None = None,
    plan: Plan | None = None,
    calibration: np.ndarray | None = None,
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
    model.run(inputs[:batch_size])
    logits, seconds = [], 0.0
    expected = []
    for start in range(0, len(inputs), batch_size):
        batch = inputs[start : start + batch_size]
        began = time.perf_counter()
        logits.append(check_logits(model.run(batch), "the model"))
        seconds += time.perf_counter() - began
        if reference is not None:
            expected.append(check_logits(reference.run(batch), "the reference"))
        progress("evaluating", min(start + batch_size, len(inputs)), len(inputs))
    found = np.concatenate(logits)
    chosen = found.argmax(axis=1)
    if labels is not None and labels.max(initial=0) >= found.shape[1]:
        raise AdapterError(
            f"the data has label {int(labels.max())}, the model only {found.shape[1]} classes; "
            f"point --data at folders of the model's own classes"
        )
    kl = agreement = None
    if reference is not None:
        truth = np.concatenate(expected)
        if truth.shape != found.shape:
            raise AdapterError(f"the model has {found.shape[1]} classes, the reference {truth.shape[1]}")
        kl = float(kl_divergence(truth, found).mean())
        agreement = float((truth.argmax(axis=1) == chosen).mean())
    return Evaluation(
        samples=len(inputs),
        top1=None if labels is None else float((chosen == labels).mean()),
        kl=kl,
        agreement=agreement,
        size_bytes=model.file_bytes() if plan is None else plan.total_bytes,
        ms_per_sample=1e3 * seconds / len(inputs),
    )
