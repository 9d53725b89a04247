"""`lampq eval --metric`: names, functions, truths, and what is refused."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

import lampq
from lampq.cli import main
from lampq.demo_data import CALIBRATION_PATH, MODEL_PATH, PREPROCESS

SIDE, PATCH, CLASSES = 16, 4, 3


def build(path, seed=0, scale=1.0):
    """A model of images with two outputs as DETR has them, a token for each patch."""
    rng = np.random.default_rng(seed)
    dim, queries = 96, (SIDE // PATCH) ** 2

    def constant(name, array):
        return onnx.numpy_helper.from_array(array.astype(np.float32), name)

    weights = [
        constant("patch", rng.normal(size=(dim, 3, PATCH, PATCH)) / 7),
        constant("classes", scale * rng.normal(size=(dim, CLASSES + 1)) / 3),
        constant("boxes", rng.normal(size=(dim, 4)) / 10),
        onnx.numpy_helper.from_array(np.array([0, dim, -1]), "flat"),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "patch"], ["map"], strides=[PATCH, PATCH]),
        helper.make_node("Reshape", ["map", "flat"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["tokens"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["tokens", "classes"], ["logits"]),
        helper.make_node("MatMul", ["tokens", "boxes"], ["raw"]),
        helper.make_node("Sigmoid", ["raw"], ["pred_boxes"]),
    ]

    def value(name, *shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])

    outputs = [value("logits", queries, CLASSES + 1), value("pred_boxes", queries, 4)]
    graph = helper.make_graph(nodes, "g", [value("x", 3, SIDE, SIDE)], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A detector, images, and annotations of them."""
    folder = tmp_path_factory.mktemp("detector")
    build(folder / "d.onnx")
    (folder / "images").mkdir()
    rng = np.random.default_rng(1)
    names = [f"{number}.png" for number in range(4)]
    for name in names:
        pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / name)
    content = {
        "images": [
            {"id": i, "file_name": name, "width": SIDE, "height": SIDE} for i, name in enumerate(names)
        ],
        "annotations": [{"image_id": i, "category_id": 1, "bbox": [2, 2, 8, 8]} for i in range(4)],
        "categories": [{"id": i + 1, "name": str(i)} for i in range(CLASSES)],
    }
    (folder / "truth.json").write_text(json.dumps(content))
    return folder


def run(capsys, *words):
    code = main([str(word) for word in [*words, "--quiet"]])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_metrics_are_measured_by_annotations_and_by_the_float_model(place, capsys):
    words = ("eval", place / "d.onnx", "--data", place / "images", "--metric", "map", "--json")
    code, out, _ = run(capsys, *words, "--truth", place / "truth.json")
    (found,) = json.loads(out)["metrics"]
    assert (code, found["name"], found["against"], found["float_value"]) == (0, "map", "truth", None)
    assert 0 <= found["value"] < 0.5
    code, out, _ = run(capsys, *words, "--reference", place / "d.onnx")
    (found,) = json.loads(out)["metrics"]
    assert (code, found["against"], found["value"], found["float_value"]) == (0, "reference", 1.0, 1.0)
    assert "own outputs" in found["notes"][0]


def test_a_line_for_each_metric_where_no_json_is_asked(place, capsys):
    words = ("eval", place / "d.onnx", "--data", place / "images", "--reference", place / "d.onnx")
    code, out, _ = run(capsys, *words, "--metric", "map", "--metric", "map50")
    lines = [line for line in out.splitlines() if line.startswith("metric ")]
    assert code == 0
    assert [line.split()[1:3] for line in lines] == [["map", "value=1.0"], ["map50", "value=1.0"]]


def test_metrics_and_decoders_may_be_functions_of_a_file(place, capsys):
    (place / "own.py").write_text(
        "import numpy as np\n"
        "def share(case):\n    return len(case.names) / 8\n"
        "def broken(case):\n    return float('nan')\n"
        "def silent(outputs, size):\n    return [([], [], [])] * len(outputs['logits'])\n"
    )
    words = ("eval", place / "d.onnx", "--data", place / "images", "--json")
    code, out, _ = run(capsys, *words, "--metric", f"{place}/own.py:share")
    assert (code, json.loads(out)["metrics"][0]["value"]) == (0, 0.5)
    code, _, err = run(capsys, *words, "--metric", f"{place}/own.py:broken")
    assert code == 2
    assert "a metric is one finite number" in err
    silent = ("--metric", "map", "--decoder", f"{place}/own.py:silent", "--truth", place / "truth.json")
    code, out, _ = run(capsys, *words, *silent)
    assert (code, json.loads(out)["metrics"][0]["value"]) == (0, 0.0)
    assert any("finds no box in any image" in note for note in json.loads(out)["notes"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--metric", "magic"), "metric 'magic' is none of top1"),
        (("--metric", "map"), "needs what is right (--truth) or the float model (--reference)"),
        (("--metric", "map", "--truth", "none.json"), "none.json: cannot be read"),
        (("--metric", "map", "--truth", "images"), "no mask 0.png"),
        (("--metric", "map", "--decoder", "ssdx", "--truth", "truth.json"), "decoder 'ssdx' is none of detr"),
        (("--metric", "own_metrics:nothing"), "own_metrics cannot be imported"),
        (("--truth", "truth.json"), "--truth and --decoder go with --metric"),
    ],
)
def test_what_cannot_be_measured_is_told_in_a_line(place, capsys, monkeypatch, words, message):
    monkeypatch.chdir(place)
    (place / "masks").mkdir(exist_ok=True)
    words = ["masks" if word == "images" else word for word in words]
    code, out, err = run(capsys, "eval", "d.onnx", "--data", "images", *words)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_metrics_of_classes_agree_with_top1():
    model = lampq.read(MODEL_PATH)
    data = lampq.read_data(CALIBRATION_PATH, input_specs=model.input_specs, preprocess=PREPROCESS, samples=40)
    inputs, labels = data.inputs(), data.labels()
    found = lampq.evaluate(model, inputs, labels, metrics=["top1", "top5"])
    assert [value.value for value in found.metrics] == [found.top1, pytest.approx(1.0, abs=0.05)]
    with pytest.raises(lampq.RecordError, match="'metric' is no choice of an evaluation"):
        lampq.evaluate(model, inputs, metric="top1")
    with pytest.raises(lampq.RecordError, match="3 labels for 40 samples"):
        lampq.evaluate(model, inputs, labels[:3], metrics=["top1"])
