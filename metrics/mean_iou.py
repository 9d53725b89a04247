"""Mean intersection over union of the classes of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lampq.core.values.errors import RecordError
from lampq.core.values.head import CLASSES
from lampq.metrics.case import Case, samples
from lampq.metrics.metric import REFERENCE, TRUTH, Metric

IGNORED = 255
"""Class of pixels that do not count, as in PASCAL VOC."""


def mean_iou(case: Case) -> float:
    """Intersection over union of each class over all pixels, averaged over the classes that occur at all.

    Masks of another size than the outputs are met by repeating the outputs' pixels.

    Raises:
        RecordError: The outputs have no positions, or masks are missing, of no integers, or of classes that the
            model has not.
    """
    head = case.lone((CLASSES,), "miou")
    axis = head.axis if head.axis < 0 else head.axis - 1
    predicted = [row.argmax(axis=axis) for row in samples(case.outputs, head.name)]
    if not predicted[0].ndim:
        raise RecordError(f"output {head.name} names one class for each sample; metric miou is about pixels")
    classes = case.outputs.groups[0][head.name].shape[head.axis]
    if case.truth is None:
        masks: Sequence[np.ndarray] = [row.argmax(axis=axis) for row in samples(case.compared(), head.name)]
    else:
        masks = _masks(case.truth, len(predicted), classes)
    counts = np.zeros((classes, classes), np.int64)
    for mask, pixels in zip(masks, predicted, strict=True):
        known = mask != IGNORED
        pairs = mask[known].astype(np.int64) * classes + _repeated(pixels, mask.shape)[known]
        counts += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    union = counts.sum(axis=0) + counts.sum(axis=1) - counts.diagonal()
    if not union.any():
        raise RecordError("no pixel counts: all masks are of class 255")
    return float((counts.diagonal()[union > 0] / union[union > 0]).mean())


def _masks(truth: Any, count: int, classes: int) -> list[np.ndarray]:
    """Masks as integers of the model's classes.

    Raises:
        RecordError: They are not.
    """
    if not isinstance(truth, Sequence | np.ndarray) or isinstance(truth, str) or len(truth) != count:
        raise RecordError(f"metric miou takes one mask of classes for each of {count} samples as the truth")
    masks = [np.asarray(mask) for mask in truth]
    for number, mask in enumerate(masks):
        if mask.dtype.kind not in "biu" or mask.ndim < 1:
            raise RecordError(
                f"mask {number} holds {mask.dtype}{list(mask.shape)}; give a class for each pixel"
            )
        wrong = mask[(mask != IGNORED) & ((mask >= classes) | (mask < 0))]
        if wrong.size:
            raise RecordError(f"mask {number} has class {wrong[0]}, the model only {classes} classes")
    return masks


def _repeated(pixels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The nearest pixel for each one of another size."""
    if pixels.shape == shape:
        return pixels
    if pixels.ndim != len(shape):
        raise RecordError(f"outputs have pixels of shape {pixels.shape}, masks {shape}")
    places = [(np.arange(to) * side) // to for side, to in zip(pixels.shape, shape, strict=True)]
    return pixels[np.ix_(*places)]


MEAN_IOU = Metric(name="miou", measure=mean_iou, against=(TRUTH, REFERENCE))
