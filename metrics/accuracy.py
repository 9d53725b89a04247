"""The share of samples whose class is among the first few."""

from __future__ import annotations

import functools

import numpy as np

from lampq.core.values.errors import RecordError
from lampq.core.values.head import CLASSES
from lampq.metrics.case import Case, samples
from lampq.metrics.metric import LABELS, REFERENCE, Metric


def accuracy(case: Case, *, most: int) -> float:
    """Share of samples whose label, or the float model's class, is among the `most` largest logits.

    Of equal logits the first counts, as `argmax` has it.

    Raises:
        RecordError: The model names a class for each position, or the data a class that the model has not.
    """
    head = case.lone((CLASSES,), f"top{most}")
    logits = [row.ravel() for row in samples(case.outputs, head.name)]
    classes = case.outputs.groups[0][head.name].shape[head.axis]
    if any(row.size != classes for row in logits):
        raise RecordError(
            f"output {head.name} names a class for each position; metrics miou and tokens do that"
        )
    if case.labels is not None:
        expected = case.labels
    else:
        expected = np.array([row.argmax() for row in samples(case.compared(), head.name)])
    if expected.max(initial=0) >= classes:
        raise RecordError(f"the data has label {int(expected.max())}, the model only {classes} classes")
    # A stable order, so that the first of equal logits leads.
    hits = [
        label in np.argsort(-row, kind="stable")[:most] for row, label in zip(logits, expected, strict=True)
    ]
    return float(np.mean(hits))


TOP1, TOP5 = (
    Metric(name=f"top{most}", measure=functools.partial(accuracy, most=most), against=(LABELS, REFERENCE))
    for most in (1, 5)
)
