"""YOLO's outputs, v5 to v8 and later: one array of boxes with their scores, or boxes already chosen in the graph.

Layouts as exported by Ultralytics: v5 (N, boxes, 5 + C) with centre, size, objectness and classes; v8 (N, 4 + C,
boxes) without objectness; with suppression in the graph (N, boxes, 6) with corners, score and class.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lampq.core.values.errors import RecordError
from lampq.metrics.boxes import Boxes, from_centres, suppressed
from lampq.metrics.decoders.decoder import MOST, Decoder

# What Ultralytics validates with.
_LEAST_SCORE, _MOST_OVERLAP = 0.001, 0.7
# Candidates that suppression looks at, and how many boxes a graph chooses at most.
_CANDIDATES, _CHOSEN = 1000, 1000
# Coordinates that are parts of the image lie below this, pixels above.
_PARTS = 2.0


def decode_v5(outputs: Mapping[str, np.ndarray], size: tuple[int, int]) -> list[Boxes]:
    """Boxes with an objectness, (N, boxes, 5 + C)."""
    array = _lone(outputs)
    return [_suppressed(row[:, :4], row[:, 4:5] * row[:, 5:], size) for row in array]


def decode_v8(outputs: Mapping[str, np.ndarray], size: tuple[int, int]) -> list[Boxes]:
    """Boxes without one, (N, 4 + C, boxes), or the same with the last axes exchanged."""
    array = _lone(outputs)
    if array.shape[1] < array.shape[2]:
        array = array.transpose(0, 2, 1)
    return [_suppressed(row[:, :4], row[:, 4:], size) for row in array]


def decode_chosen(outputs: Mapping[str, np.ndarray], size: tuple[int, int]) -> list[Boxes]:
    """Boxes that the graph has chosen, (N, boxes, 6); unused places have score 0."""
    chosen = []
    for row in _lone(outputs):
        used = row[row[:, 4] > 0]
        corners = _pixels(used[:, :4], size)
        chosen.append(Boxes(corners=corners, scores=used[:, 4], classes=used[:, 5].round()))
    return chosen


def decode(outputs: Mapping[str, np.ndarray], size: tuple[int, int]) -> list[Boxes]:
    """Whichever of the three the array looks like."""
    array = _lone(outputs)
    chosen = array.shape[2] == 6 and array.shape[1] <= _CHOSEN
    if chosen and (array[..., 5] == array[..., 5].round()).all():
        return decode_chosen(outputs, size)
    return (decode_v8 if array.shape[1] < array.shape[2] else decode_v5)(outputs, size)


def _lone(outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    arrays = [array for array in outputs.values() if array.ndim == 3]
    if len(arrays) != 1 or min(arrays[0].shape[1:]) < 5:
        shapes = ", ".join(f"{name}{list(array.shape)}" for name, array in outputs.items())
        raise RecordError(
            f"YOLO gives one output of boxes with scores, (N, boxes, 5 or more); here are {shapes}"
        )
    return arrays[0]


def _suppressed(centres: np.ndarray, scores: np.ndarray, size: tuple[int, int]) -> Boxes:
    best = scores.max(axis=1)
    boxes = Boxes(
        corners=_pixels(from_centres(centres.astype(np.float64)), size),
        scores=best,
        classes=scores.argmax(axis=1),
        known=scores.shape[1],
    ).best(_CANDIDATES, least=_LEAST_SCORE)
    return suppressed(boxes, most_overlap=_MOST_OVERLAP, most=MOST)


def _pixels(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Corners in pixels, from parts of the image where all of them are."""
    height, width = size
    if corners.size and np.abs(corners).max() <= _PARTS:
        return corners * (width, height, width, height)
    return corners


def _fits(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    return sum(len(shape) == 3 for shape in shapes.values()) == 1 == len(shapes)


YOLO = Decoder(name="yolo", decode=decode, fits=_fits)
YOLO_V5 = Decoder(name="yolov5", decode=decode_v5)
YOLO_V8 = Decoder(name="yolov8", decode=decode_v8)
YOLO_CHOSEN = Decoder(name="yolo-nms", decode=decode_chosen)
