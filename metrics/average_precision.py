"""Mean average precision of a detector, by annotations or by the float model's own boxes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from lampq.core.values.errors import RecordError
from lampq.metrics.boxes import Boxes
from lampq.metrics.case import Case, image_size
from lampq.metrics.coco import Annotations, average_precision, detections
from lampq.metrics.decoders import fitting
from lampq.metrics.decoders.decoder import boxes_of
from lampq.metrics.metric import REFERENCE, TRUTH, Measured, Metric

_SURE = 0.5


def mean_average_precision(case: Case, *, name: str, least_score: float = _SURE) -> Measured:
    """COCO's mean average precision: `map` over overlaps .50 to .95, `map50` at .50.

    Args:
        case: The truth, where there is one, is the content of a COCO annotation file.
        name: `map` or `map50`.
        least_score: Without annotations: boxes of the float model that count as right have at least this score.

    Raises:
        RecordError: There is no box that counts as right, or annotations are malformed or for other classes.
        MissingExtraError: pycocotools is not installed.
    """
    decoder = case.decoder or fitting(case.outputs)
    boxes = boxes_of(decoder, case, case.outputs)
    images: Sequence[Any]
    notes: tuple[str, ...] = ()
    if case.truth is None:
        right = [own.best(len(own), least=least_score) for own in boxes_of(decoder, case, case.compared())]
        classes = _classes([*boxes, *right])
        truth = _truth(right, classes, case)
        images, categories, preprocess = truth["images"], list(range(classes)), None
    else:
        annotations = Annotations.of(case.truth, case.names, len(boxes))
        known = next((own.known for own in boxes), None)
        categories = annotations.category_ids(known, _classes(boxes))
        truth, images, notes = annotations.truth(), annotations.images, annotations.notes
        preprocess = case.preprocess
    detected: list[dict[str, Any]] = []
    start = 0
    for group, size in zip(case.inputs.groups, case.inputs.sizes, strict=True):
        part = slice(start, start + size)
        detected += detections(boxes[part], images[part], categories, image_size(group), preprocess)
        start += size
    if not detected:
        notes = (*notes, f"decoder {decoder.name} finds no box in any image: {name} is 0")
    value = average_precision(truth, detected)[0 if name == "map" else 1]
    return Measured(value=value, notes=notes)


def _truth(right: Sequence[Boxes], classes: int, case: Case) -> dict[str, Any]:
    """The float model's boxes as COCO has them.

    Raises:
        RecordError: There are none.
    """
    if not any(map(len, right)):
        raise RecordError(
            f"the float model finds no box of score {_SURE} or more in any image, so there is nothing to compare with; "
            f"see that decoder and preprocessing are the model's, or give annotations (--truth)"
        )
    images: list[dict[str, Any]] = []
    for group, size in zip(case.inputs.groups, case.inputs.sizes, strict=True):
        height, width = image_size(group)
        images += [{"id": len(images) + 1 + n, "width": width, "height": height} for n in range(size)]
    entries = []
    for own, image in zip(right, images, strict=True):
        for (left, top, low, bottom), cls in zip(own.corners.tolist(), own.classes.tolist(), strict=True):
            box = [left, top, low - left, bottom - top]
            entries.append({"image_id": image["id"], "category_id": cls, "bbox": box})
    return {"images": images, "annotations": entries, "categories": [{"id": i} for i in range(classes)]}


def _classes(boxes: Sequence[Boxes]) -> int:
    """Classes up to the largest that is named."""
    return max((int(own.classes.max()) + 1 for own in boxes if len(own)), default=0)


MAP, MAP50 = (
    Metric(
        name=name,
        measure=functools.partial(mean_average_precision, name=name),
        against=(TRUTH, REFERENCE),
        final=True,
    )
    for name in ("map", "map50")
)
