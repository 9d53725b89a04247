"""DETR's outputs (Carion et al., ECCV 2020): a class and a box for each query, no suppression."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lampq.core.values.errors import RecordError
from lampq.metrics.boxes import Boxes, from_centres
from lampq.metrics.decoders.decoder import Decoder


def decode(outputs: Mapping[str, np.ndarray], size: tuple[int, int]) -> list[Boxes]:
    """Probabilities (N, queries, C + 1), the last class being no object, and boxes by centre, width and height.

    Probabilities that do not sum to 1 are those of yes-or-no questions (Deformable DETR, RT-DETR): all are classes.
    Boxes are parts of the image.
    """
    classes, boxes = _pair(outputs)
    if np.allclose(classes.sum(axis=-1), 1, atol=1e-3):
        classes = classes[..., :-1]
    height, width = size
    corners = from_centres(boxes.astype(np.float64)) * (width, height, width, height)
    return [
        Boxes(
            corners=place,
            scores=scores.max(axis=1),
            classes=scores.argmax(axis=1),
            known=scores.shape[1],
        )
        for place, scores in zip(corners, classes, strict=True)
    ]


def _pair(outputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Classes and boxes.

    Raises:
        RecordError: They cannot be told.
    """
    arrays = {name: array for name, array in outputs.items() if array.ndim == 3}
    box = next((name for name in arrays if "box" in name.lower()), None)
    if box is None:
        box = next((name for name, array in arrays.items() if array.shape[-1] == 4), None)
    others = [name for name in arrays if name != box]
    logits = next(
        (name for name in others if "logit" in name.lower()), others[0] if len(others) == 1 else None
    )
    if box is None or logits is None or arrays[box].shape[-1] != 4:
        shapes = ", ".join(f"{name}{list(array.shape)}" for name, array in outputs.items())
        raise RecordError(
            f"DETR gives logits (N, queries, classes) and boxes (N, queries, 4); here are {shapes}"
        )
    return arrays[logits], arrays[box]


def _fits(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    names = " ".join(name.lower() for name in shapes)
    return "logits" in names and "box" in names


DETR = Decoder(name="detr", decode=decode, fits=_fits)
