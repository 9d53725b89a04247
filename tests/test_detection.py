"""Boxes from outputs, and their average precision, against torchvision and pycocotools."""

import contextlib
import io

import numpy as np
import pytest
import torch
import torchvision_ops  # noqa: F401
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision import ops

from lampq.adapters.data import Preprocess
from lampq.core.values.batch import Batch
from lampq.core.values.errors import LampqError, RecordError
from lampq.core.values.head import Head
from lampq.metrics import Boxes, Case, metric
from lampq.metrics.boxes import suppressed
from lampq.metrics.decoders import DECODERS, decoder_of, fitting

SIZE = (80, 100)


def scene(seed=0, images=6, most=5, classes=3):
    """Boxes of some images, corners in pixels, with their classes."""
    rng = np.random.default_rng(seed)
    boxes = []
    for _ in range(images):
        count = int(rng.integers(1, most))
        low = rng.uniform(0, 50, (count, 2))
        corners = np.concatenate([low, low + rng.uniform(8, 30, (count, 2))], axis=1)
        boxes.append((corners, rng.integers(0, classes, count)))
    return boxes


def annotations(boxes, classes=3, first=1):
    entries = [
        {"image_id": image, "category_id": int(cls) + first, "bbox": [*box[:2], *(box[2:] - box[:2])]}
        for image, (corners, labels) in enumerate(boxes)
        for box, cls in zip(corners, labels, strict=True)
    ]
    images = [
        {"id": i, "file_name": f"{i}.png", "height": SIZE[0], "width": SIZE[1]} for i in range(len(boxes))
    ]
    categories = [{"id": i + first, "name": str(i)} for i in range(classes)]
    return {"images": images, "annotations": entries, "categories": categories}


def guesses(boxes, seed=1, queries=8, classes=3):
    """DETR's outputs for boxes that are nearly right, some of them wrong, others missing."""
    rng = np.random.default_rng(seed)
    logits = np.zeros((len(boxes), queries, classes + 1), np.float32)
    logits[..., -1] = 4
    found = np.full((len(boxes), queries, 4), 0.1, np.float32)
    for image, (corners, labels) in enumerate(boxes):
        centre, size = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
        near = np.concatenate([centre, size], axis=1) + rng.normal(0, 2.5, (len(corners), 4))
        count = len(corners)
        found[image, :count] = near / [SIZE[1], SIZE[0], SIZE[1], SIZE[0]]
        logits[image, np.arange(count), labels] = rng.uniform(1, 8, count)
    return {"logits": logits, "pred_boxes": found}


def detr_case(outputs, reference=None, **known):
    heads = (Head(name="logits", role="classes"), Head(name="pred_boxes", role="values"))
    count = len(outputs["logits"])
    return Case(
        outputs=Batch.of(outputs),
        reference=None if reference is None else Batch.of(reference),
        heads=heads,
        inputs=Batch.of(np.zeros((count, 3, *SIZE), np.float32), name="pixels"),
        **known,
    )


def by_pycocotools(truth, outputs, first=1):
    """COCO's average precisions, from DETR's outputs by torch and torchvision."""
    found = []
    chances = torch.tensor(outputs["logits"]).softmax(-1)[..., :-1]
    corners = ops.box_convert(torch.tensor(outputs["pred_boxes"]).double(), "cxcywh", "xywh")
    for image in range(len(chances)):
        scores, labels = chances[image].max(-1)
        boxes = corners[image] * torch.tensor([SIZE[1], SIZE[0]] * 2)
        found += [
            {"image_id": image, "category_id": int(c) + first, "bbox": b.tolist(), "score": float(s)}
            for b, s, c in zip(boxes, scores, labels, strict=True)
        ]
    with contextlib.redirect_stdout(io.StringIO()):
        right = COCO()
        right.dataset = {
            **truth,
            "info": {},
            "annotations": [
                {**entry, "id": n + 1, "iscrowd": 0, "area": entry["bbox"][2] * entry["bbox"][3]}
                for n, entry in enumerate(truth["annotations"])
            ],
        }
        right.createIndex()
        judge = COCOeval(right, right.loadRes(found), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge.stats[:2]


@pytest.mark.parametrize("first", [0, 1, 7])
def test_average_precision_is_that_of_pycocotools(first, capsys):
    boxes = scene()
    truth, outputs = annotations(boxes, first=first), guesses(boxes)
    known = detr_case(outputs, truth=truth, names=[f"{i}.png" for i in range(6)])
    expected = by_pycocotools(truth, outputs, first)
    capsys.readouterr()
    found = [metric(name)(known).value for name in ("map", "map50")]
    assert 0.2 < found[0] < found[1] < 1
    assert found == pytest.approx(expected)
    assert capsys.readouterr() == ("", "")


def test_boxes_of_the_float_model_are_right_where_there_are_no_annotations():
    outputs = guesses(scene())
    assert metric("map")(detr_case(outputs, outputs)).value == pytest.approx(1)
    worse = {**outputs, "pred_boxes": outputs["pred_boxes"] * 1.05}
    assert 0 < metric("map")(detr_case(worse, outputs)).value < 0.9


def test_boxes_are_compared_where_they_were_before_the_image_was_resized_and_cropped():
    record = Preprocess(size=(80, 80), resize="shortest", crop_pct=0.8, channels=3, layout="NCHW")
    # 200x100 becomes 200x100 at the side of 100, of which the 80x80 in the middle are seen.
    truth = annotations([(np.array([[80.0, 30, 110, 60]]), [0])], classes=1)
    truth["images"][0] |= {"width": 200, "height": 100}
    boxes = Boxes(corners=np.array([[20.0, 20, 50, 50]]), scores=[1.0], classes=[0])
    decoder = decoder_of(lambda outputs, size: [boxes])
    known = Case(
        outputs=Batch.of({"y": np.zeros((1, 2, 3))}),
        reference=None,
        heads=(Head(name="y", role="values"),),
        inputs=Batch.of(np.zeros((1, 3, 80, 80))),
        truth=truth,
        names=("0.png",),
        decoder=decoder,
        preprocess=record,
    )
    assert metric("map")(known).value == pytest.approx(1)


def test_images_without_annotation_are_left_out_and_said():
    boxes = scene()
    truth, outputs = annotations(boxes), guesses(boxes)
    names = [f"{i}.png" for i in range(5)] + ["new.png"]
    measured = metric("map")(detr_case(outputs, truth=truth, names=names))
    assert measured.notes == ("1 images are not in the annotations and were left out",)
    first = {name: array[:5] for name, array in outputs.items()}
    assert measured.value == pytest.approx(by_pycocotools(annotations(boxes[:5]), first)[0])
    with pytest.raises(RecordError, match=r"none of the images .* is in the annotations"):
        metric("map")(detr_case(outputs, truth=truth, names=[f"{i}.jpg" for i in range(6)]))


def test_no_box_at_all_is_said_and_not_perfect():
    outputs = guesses(scene())
    nothing = decoder_of(lambda arrays, size: [([], [], [])] * len(arrays["logits"]))
    with pytest.raises(RecordError, match=r"the float model finds no box .* nothing to compare with"):
        metric("map")(detr_case(outputs, outputs, decoder=nothing))
    truth = annotations(scene())
    names = [f"{i}.png" for i in range(6)]
    measured = metric("map")(detr_case(outputs, truth=truth, names=names, decoder=nothing))
    assert measured.value == 0
    assert "finds no box in any image" in measured.notes[0]
    with pytest.raises(RecordError, match="no box on any of the images"):
        metric("map")(detr_case(outputs, truth={**truth, "annotations": []}, names=names))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"categories": [{"id": 1}, {"id": 2}]}, "the annotations have 2 categories, the model 3 classes"),
        ({"categories": "none"}, "COCO annotations are a JSON object"),
        ({"images": [{"id": 0}]}, "annotations of 1 images for 6 samples"),
        ({"annotations": [{"image_id": 0}]}, "malformed annotations|bbox"),
    ],
)
def test_annotations_that_cannot_be_are_refused(change, message):
    boxes = scene()
    with pytest.raises(LampqError, match=message) as caught:
        metric("map")(detr_case(guesses(boxes), truth={**annotations(boxes), **change}))
    assert "\n" not in str(caught.value)


def test_suppression_leaves_what_no_surer_box_of_the_class_overlaps():
    rng = np.random.default_rng(3)
    low = rng.uniform(0, 40, (60, 2))
    corners = np.concatenate([low, low + rng.uniform(5, 40, (60, 2))], axis=1)
    scores, classes = rng.random(60), rng.integers(0, 3, 60)
    shared = ops.box_iou(torch.tensor(corners), torch.tensor(corners)).numpy()
    left = []
    for index in np.argsort(-scores):
        if all(classes[index] != classes[i] or shared[index, i] <= 0.5 for i in left):
            left.append(index)
    found = suppressed(Boxes(corners=corners, scores=scores, classes=classes), most_overlap=0.5, most=100)
    assert 10 < len(left) < 55
    assert np.array_equal(found.corners, corners[left])


BOX = np.array([[10.0, 20, 30, 60]])  # left, top, right, bottom of one box
CENTRE = np.array([20.0, 40, 20, 40])
PARTS = CENTRE / [100, 80, 100, 80]


def one_box(form):
    """Outputs of one sample with one box of class 1, in every form."""
    if form == "yolov5":
        array = np.zeros((1, 30, 8))
        array[0, 7] = [*CENTRE, 0.9, 0.1, 0.8, 0.1]
        return {"output": array}, 0.72
    if form == "yolov8":
        array = np.zeros((1, 7, 30))
        array[0, :, 7] = [*CENTRE, 0.1, 0.8, 0.1]
        return {"output": array}, 0.8
    if form == "yolo-nms":
        array = np.zeros((1, 10, 6))
        array[0, 0] = [*BOX[0], 0.7, 1]
        return {"output": array}, 0.7
    if form == "detr":
        logits = np.tile([0.0, 0, 0, 1], (1, 5, 1))
        logits[0, 2] = [0.1, 0.8, 0.1, 0]
        boxes = np.full((1, 5, 4), 0.5)
        boxes[0, 2] = PARTS
        return {"logits": logits, "pred_boxes": boxes}, 0.8
    corners = BOX / [100, 80, 100, 80]
    if form == "ssd":
        scores = np.tile([1.0, 0, 0, 0], (1, 5, 1))
        scores[0, 3] = [0.3, 0, 0.7, 0]
        boxes = np.full((1, 5, 4), 0.5)
        boxes[0, 3] = corners
        return {"boxes": boxes, "scores": scores}, 0.7
    boxes, scores, classes = np.zeros((1, 5, 4)), np.zeros((1, 5)), np.zeros((1, 5))
    boxes[0, 0], scores[0, 0], classes[0, 0] = corners[0, [1, 0, 3, 2]], 0.6, 1
    return {"detection_boxes": boxes, "detection_classes": classes, "detection_scores": scores}, 0.6


@pytest.mark.parametrize("form", ["yolov5", "yolov8", "yolo-nms", "detr", "ssd", "ssd chosen"])
@pytest.mark.parametrize("asked", [True, False])
def test_every_form_gives_the_same_box(form, asked):
    outputs, score = one_box(form)
    decoder = decoder_of(form.split()[0]) if asked else fitting(Batch.of(outputs))
    (boxes,) = decoder.decode(outputs, SIZE)
    best = boxes.best(1)
    np.testing.assert_allclose(best.corners, BOX)
    assert (best.scores[0], best.classes[0]) == (pytest.approx(score), 1)


def test_boxes_as_parts_of_the_image_are_told():
    outputs, _ = one_box("yolov8")
    outputs["output"][0, :4, 7] = PARTS
    (boxes,) = decoder_of("yolo").decode(outputs, SIZE)
    np.testing.assert_allclose(boxes.best(1).corners, BOX)


@pytest.mark.parametrize("name", DECODERS.loaded)
def test_outputs_of_another_form_are_refused_in_a_line(name):
    with pytest.raises(RecordError, match=r"here are y\[2, 3\]"):
        decoder_of(name).decode({"y": np.zeros((2, 3))}, SIZE)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda outputs, size: 1 / 0, r"fails on logits\[6, 8, 4\].*ZeroDivisionError"),
        (lambda outputs, size: [], "gives boxes for 0 of 6 samples"),
        (lambda outputs, size: [(np.zeros((2, 4)), [1.0], [0])] * 6, "2 boxes, 1 scores, 1 classes"),
        (lambda outputs, size: [([[np.nan] * 4], [1.0], [0])] * 6, "corners are not finite"),
    ],
)
def test_functions_that_give_no_boxes_are_refused(function, message):
    with pytest.raises(RecordError, match=message) as caught:
        metric("map")(detr_case(guesses(scene()), guesses(scene()), decoder=decoder_of(function)))
    assert "\n" not in str(caught.value)
