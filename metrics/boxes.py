"""Boxes of one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lampq.core.values.errors import RecordError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Boxes:
    """What a detector finds in one image.

    Attributes:
        corners: Left, top, right, bottom in pixels of the model's input, shape (N, 4).
        scores: Larger is surer, shape (N,).
        classes: Class of each, int64, shape (N,).
        known: Number of classes that the model tells apart, or None.
    """

    corners: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    known: int | None = None

    def __post_init__(self) -> None:
        for name, dtype, axes in (("corners", float, 2), ("scores", float, 1), ("classes", np.int64, 1)):
            array = np.asarray(getattr(self, name))
            if array.ndim != axes and array.size:
                raise RecordError(f"boxes: {name} of shape {array.shape}; write (N, 4), (N,) and (N,)")
            if not np.isfinite(array.astype(float)).all():
                raise RecordError(f"boxes: {name} are not finite")
            object.__setattr__(self, name, array.astype(dtype))
        object.__setattr__(self, "corners", self.corners.reshape(-1, 4))
        if not len(self.corners) == len(self.scores) == len(self.classes):
            counts = f"{len(self.corners)} boxes, {len(self.scores)} scores, {len(self.classes)} classes"
            raise RecordError(f"boxes: {counts}; give one of each for every box")

    def __len__(self) -> int:
        return len(self.corners)

    def take(self, chosen: np.ndarray) -> Boxes:
        """Some of them, by a mask or by number."""
        return Boxes(
            corners=self.corners[chosen],
            scores=self.scores[chosen],
            classes=self.classes[chosen],
            known=self.known,
        )

    def best(self, most: int, *, least: float = 0.0) -> Boxes:
        """The surest ones, at most so many, with at least this score."""
        order = np.argsort(-self.scores, kind="stable")[:most]
        return self.take(order[self.scores[order] >= least])


def from_centres(boxes: np.ndarray) -> np.ndarray:
    """Corners of boxes that are given by centre, width and height, along the last axis."""
    centre, size = boxes[..., :2], boxes[..., 2:4]
    return np.concatenate([centre - size / 2, centre + size / 2], axis=-1)


def overlap(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of a box with others, corners along the last axis."""
    low, high = np.maximum(one[:2], others[:, :2]), np.minimum(one[2:], others[:, 2:])
    common = (high - low).clip(min=0).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1)
    union = (one[2:] - one[:2]).prod() + areas - common
    overlap: np.ndarray = common / np.maximum(union, np.finfo(np.float64).tiny)
    return overlap


def suppressed(boxes: Boxes, *, most_overlap: float, most: int) -> Boxes:
    """Boxes without those that a surer one of their class overlaps: non-maximum suppression, class by class."""
    boxes = boxes.best(len(boxes))
    left = np.ones(len(boxes), bool)
    for index in range(len(boxes)):
        if left[index]:
            later = np.flatnonzero(left[index + 1 :]) + index + 1
            later = later[boxes.classes[later] == boxes.classes[index]]
            left[later[overlap(boxes.corners[index], boxes.corners[later]) > most_overlap]] = False
    return boxes.take(np.flatnonzero(left)[:most])
