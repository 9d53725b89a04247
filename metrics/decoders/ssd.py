"""SSD's outputs (Liu et al., ECCV 2016): boxes and scores of all anchors, decoded in the graph, or chosen boxes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lampq.core.values.errors import RecordError
from lampq.metrics.boxes import Boxes, suppressed
from lampq.metrics.decoders.decoder import MOST, Decoder

# What TensorFlow's detection API validates with.
_LEAST_SCORE, _MOST_OVERLAP = 1e-3, 0.6
_CANDIDATES = 1000


def decode(outputs: Mapping[str, np.ndarray], size: tuple[int, int]) -> list[Boxes]:
    """Boxes of either form, corners as parts of the image.

    All anchors: boxes (N, anchors, 4) as left, top, right, bottom, and scores (N, anchors, C), class 0 being
    background. Chosen in the graph, as by TensorFlow: boxes (N, most, 4) as top, left, bottom, right, scores and
    classes (N, most), and perhaps their number (N,).
    """
    boxes = [array for array in outputs.values() if array.ndim == 3 and array.shape[-1] == 4]
    dense = [array for array in outputs.values() if array.ndim == 3 and not (boxes and array is boxes[0])]
    if boxes and len(dense) == 1:
        return [_suppressed(*pair, size) for pair in zip(boxes[0], dense[0], strict=True)]
    flat = {name: array for name, array in outputs.items() if array.ndim == 2 and array.shape[1] > 1}
    if len(boxes) != 1 or len(flat) != 2:
        shapes = ", ".join(f"{name}{list(array.shape)}" for name, array in outputs.items())
        raise RecordError(
            f"SSD gives boxes (N, anchors, 4) with scores, or with scores and classes; here are {shapes}"
        )
    return _chosen(boxes[0], flat, size)


def _chosen(boxes: np.ndarray, flat: Mapping[str, np.ndarray], size: tuple[int, int]) -> list[Boxes]:
    """Boxes that the graph has chosen; scores are told from classes by their name, or by being no integers."""
    names = sorted(flat, key=lambda name: ("class" in name.lower(), "score" not in name.lower()))
    scores, classes = (flat[name] for name in names)
    if "class" not in names[1].lower() and (scores == scores.round()).all():
        scores, classes = classes, scores
    corners = boxes[..., [1, 0, 3, 2]].astype(np.float64) * _sides(size)
    return [
        Boxes(corners=place, scores=score, classes=cls.round()).take(score > 0)
        for place, score, cls in zip(corners, scores, classes, strict=True)
    ]


def _suppressed(boxes: np.ndarray, scores: np.ndarray, size: tuple[int, int]) -> Boxes:
    """Every class of every anchor is a box of its own, as in the paper."""
    anchors, classes = np.nonzero(scores[:, 1:] >= _LEAST_SCORE)
    candidates = Boxes(
        corners=boxes[anchors].astype(np.float64) * _sides(size),
        scores=scores[anchors, classes + 1],
        classes=classes,
        known=scores.shape[1] - 1,
    )
    return suppressed(candidates.best(_CANDIDATES), most_overlap=_MOST_OVERLAP, most=MOST)


def _sides(size: tuple[int, int]) -> tuple[int, int, int, int]:
    height, width = size
    return width, height, width, height


def _fits(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    return len(shapes) > 1 and any(len(shape) == 3 and shape[-1] == 4 for shape in shapes.values())


SSD = Decoder(name="ssd", decode=decode, fits=_fits)
