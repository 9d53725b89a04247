"""From the outputs of a detector to boxes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lampq.core.values.errors import LampqError, RecordError
from lampq.metrics.boxes import Boxes
from lampq.metrics.case import Case, image_size, probabilities

Decode = Callable[[Mapping[str, np.ndarray], tuple[int, int]], Sequence[Any]]
"""Takes outputs by name, samples first and probabilities where the file may have logits, and (height, width) of the
images; gives `Boxes`, or (corners, scores, classes), for each sample."""

MOST = 100
"""Boxes of an image that count, as in COCO."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decoder:
    """A form of outputs.

    Attributes:
        name: What the command line calls it.
        decode: From outputs to boxes.
        fits: Whether outputs of these shapes, samples first, have the form; None: never unasked.
    """

    name: str
    decode: Decode
    fits: Callable[[Mapping[str, tuple[int, ...]]], bool] | None = None


def boxes_of(decoder: Decoder, case: Case, outputs: Any) -> list[Boxes]:
    """Boxes of every sample.

    Args:
        decoder: The form.
        case: What the outputs belong to.
        outputs: A batch of outputs, of the model or of the float model.

    Raises:
        RecordError: The decoder fails, or gives no boxes in its form, or for another number of samples.
    """
    boxes: list[Boxes] = []
    for group, inputs in zip(outputs.groups, case.inputs.groups, strict=True):
        count = len(next(iter(group.values())))
        try:
            decoded = [
                _boxes(one) for one in decoder.decode(probabilities(group, case.heads), image_size(inputs))
            ]
        except LampqError:
            raise
        # The user's function may fail in any way.
        except Exception as err:
            shapes = ", ".join(f"{name}{list(array.shape)}" for name, array in group.items())
            raise RecordError(
                f"decoder {decoder.name} fails on {shapes} ({type(err).__name__}: {err})"
            ) from err
        if len(decoded) != count:
            raise RecordError(f"decoder {decoder.name} gives boxes for {len(decoded)} of {count} samples")
        boxes += [one.best(MOST) for one in decoded]
    return boxes


def _boxes(one: Any) -> Boxes:
    if isinstance(one, Boxes):
        return one
    corners, scores, classes = one
    return Boxes(corners=corners, scores=scores, classes=classes)
