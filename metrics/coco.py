"""COCO annotations held against the samples of some data, and what pycocotools makes of them."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from lampq.adapters.data.images import ImageTransform
from lampq.adapters.data.preprocess import Preprocess
from lampq.core.values.errors import MissingExtraError, RecordError
from lampq.core.values.messages import listed
from lampq.metrics.boxes import Boxes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Annotations:
    """Annotated images in the order of the samples.

    Attributes:
        content: As COCO has it: `images`, `annotations`, `categories`.
        images: Entry of the image of each sample, or None where it has none.
    """

    content: Mapping[str, Any]
    images: Sequence[Mapping[str, Any] | None]

    @classmethod
    def of(cls, content: Any, names: Sequence[str], samples: int) -> Annotations:
        """Annotations for samples, matched by the names of their files; without names, by their order.

        Raises:
            RecordError: They are malformed, or of none of the images.
        """
        fields = ("images", "annotations", "categories")
        if not isinstance(content, Mapping) or not all(
            isinstance(content.get(field), list) for field in fields
        ):
            raise RecordError(
                "COCO annotations are a JSON object with the lists images, annotations and categories"
            )
        entries = content["images"]
        if not names:
            if len(entries) != samples:
                raise RecordError(
                    f"annotations of {len(entries)} images for {samples} samples without file names"
                )
            return cls(content=content, images=entries)
        by_name = {str(entry.get("file_name")): entry for entry in entries}
        by_last = {PurePosixPath(name).name: entry for name, entry in by_name.items()}
        images = [by_name.get(name) or by_last.get(PurePosixPath(name).name) for name in names]
        if not any(images):
            raise RecordError(
                f"none of the images ({listed(names)}) is in the annotations ({listed(list(by_name))}); "
                f"they belong to other data"
            )
        return cls(content=content, images=images)

    @property
    def notes(self) -> tuple[str, ...]:
        """Which samples do not count."""
        missing = sum(image is None for image in self.images)
        return (f"{missing} images are not in the annotations and were left out",) if missing else ()

    def category_ids(self, known: int | None, seen: int) -> list[int]:
        """Category of each class of the model.

        Args:
            known: Classes that the model tells apart, or None.
            seen: Classes up to the largest that it named.

        Raises:
            RecordError: The annotations are for other classes.
        """
        ids = sorted(int(category["id"]) for category in self.content["categories"])
        count = seen if known is None else known
        if known == len(ids) or (known is None and count <= len(ids)):
            return ids
        gaps = ids and ids[-1] - ids[0] + 1 > len(ids)
        if gaps and known is not None and ids[-1] < known:
            # Models of DETR's family name categories by their numbers, gaps included.
            return list(range(known))
        raise RecordError(
            f"the annotations have {len(ids)} categories, the model {'' if known else 'at least '}{count} classes; "
            f"they are for other classes"
        )

    def truth(self) -> dict[str, Any]:
        """What is right, of the samples alone.

        Raises:
            RecordError: No box is annotated.
        """
        images = [image for image in self.images if image is not None]
        ids = {image["id"] for image in images}
        chosen = [entry for entry in self.content["annotations"] if entry.get("image_id") in ids]
        if not chosen:
            raise RecordError(
                "the annotations have no box on any of the images, so there is nothing to compare with"
            )
        return {"images": images, "annotations": chosen, "categories": self.content["categories"]}


def detections(
    boxes: Sequence[Boxes],
    images: Sequence[Mapping[str, Any] | None],
    categories: Sequence[int],
    size: tuple[int, int],
    preprocess: Preprocess | None,
) -> list[dict[str, Any]]:
    """Boxes as COCO has them, in pixels of the images as they were before preprocessing.

    Args:
        boxes: Of each sample, in pixels of the model's input.
        images: Entries of the images, None for those that do not count.
        categories: Category of each class.
        size: (height, width) of the model's input.
        preprocess: What was done to the images; None where they were scaled to that size.
    """
    entries = []
    for own, image in zip(boxes, images, strict=True):
        if image is None:
            continue
        corners = _original(own.corners, image, size, preprocess)
        for (left, top, right, bottom), score, cls in zip(
            corners.tolist(), own.scores, own.classes, strict=True
        ):
            entries.append(
                {
                    "image_id": image["id"],
                    "category_id": categories[int(cls)],
                    "bbox": [left, top, right - left, bottom - top],
                    "score": float(score),
                }
            )
    return entries


def _original(
    corners: np.ndarray, image: Mapping[str, Any], size: tuple[int, int], preprocess: Preprocess | None
) -> np.ndarray:
    """Corners in an image as it was before it was resized, and cropped where that was done."""
    width, height = int(image.get("width", size[1])), int(image.get("height", size[0]))
    if preprocess is None or None in (preprocess.size, preprocess.channels, preprocess.layout):
        across, down, left, top = size[1], size[0], 0, 0
    else:
        across, down, left, top = ImageTransform.from_preprocess(preprocess).placement(width, height)
    scale = np.array([width / across, height / down] * 2)
    placed: np.ndarray = (corners + np.array([left, top, left, top])) * scale
    return placed


def average_precision(truth: Mapping[str, Any], detected: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Mean average precision over overlaps .50 to .95, and at .50, as COCO defines them.

    Raises:
        MissingExtraError: pycocotools is not installed.
        RecordError: It cannot make anything of the annotations.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as err:
        raise MissingExtraError("pycocotools", "detection") from err
    if not detected:
        return 0.0, 0.0
    # It reports on standard output, which belongs to results.
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            right = COCO()
            right.dataset = {"info": {}, **_complete(truth)}
            right.createIndex()
            judge = COCOeval(right, right.loadRes(list(detected)), "bbox")
            judge.evaluate()
            judge.accumulate()
            judge.summarize()
        except (KeyError, TypeError, ValueError, IndexError, AssertionError) as err:
            raise RecordError(f"malformed annotations ({type(err).__name__}: {err})") from err
    return float(judge.stats[0]), float(judge.stats[1])


def _complete(truth: Mapping[str, Any]) -> dict[str, Any]:
    """The annotations with the fields that pycocotools asks for and others leave out."""
    entries = [
        {"iscrowd": 0, "area": entry["bbox"][2] * entry["bbox"][3], **entry, "id": number}
        for number, entry in enumerate(truth["annotations"], start=1)
    ]
    return {**truth, "annotations": entries}
