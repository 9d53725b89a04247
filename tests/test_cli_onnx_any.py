"""The whole job on ONNX models that are no classifiers of images: a detector, and an encoder of texts."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import tokenizers
from data_samples import picture, save
from held_out_kl import by_halves
from onnx import TensorProto, helper, numpy_helper
from scipy.special import rel_entr, softmax
from tokenizers import models, pre_tokenizers

import lampq
from lampq.cli import main

node = helper.make_node


def run(capfd, *words):
    code = main([str(word) for word in words])
    out, err = capfd.readouterr()
    assert (code, err) == (0, ""), err
    return out


def saved(folder, nodes, weights, inputs, outputs):
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape) / np.sqrt(np.prod(shape[1:])) for name, shape in weights.items()}
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder / "model.onnx"


@pytest.fixture
def detector(tmp_path):
    """Images of any size and a scale, to logits of classes and boxes."""
    nodes = [
        node("Conv", ["image", "stem.weight"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "body.weight"], ["c"], pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["d"]),
        node("GlobalAveragePool", ["d"], ["e"]),
        node("Flatten", ["e"], ["f"]),
        node("MatMul", ["f", "class.weight"], ["pred_logits"]),
        node("MatMul", ["f", "box.weight"], ["g"]),
        node("Sigmoid", ["g"], ["h"]),
        node("Mul", ["h", "scale"], ["pred_boxes"]),
    ]
    weights = {
        "stem.weight": (32, 3, 3, 3),
        "body.weight": (32, 32, 3, 3),
        "class.weight": (32, 8),
        "box.weight": (32, 128),
    }
    inputs = {"image": (TensorProto.FLOAT, ["n", 3, "h", "w"]), "scale": (TensorProto.FLOAT, ["n", 1])}
    return saved(tmp_path, nodes, weights, inputs, {"pred_logits": ["n", 8], "pred_boxes": ["n", 128]})


@pytest.mark.parametrize("rounding", ["nearest", "inputs"])
def test_a_detector_on_images_of_several_sizes(detector, tmp_path, capfd, rounding):
    for index, size in enumerate([(16, 16), (12, 20), (16, 16), (20, 12), (12, 20), (16, 16)]):
        save(tmp_path / "images" / f"{index}.png", picture(index, *size))
    words = [
        "--data",
        tmp_path / "images",
        "--samples",
        "6",
        "--input",
        "scale=640",
        "--output",
        "pred_boxes=values:0.5",
        "--quiet",
    ]
    plan, out = tmp_path / "plan.json", tmp_path / "q.onnx"
    run(
        capfd, "quantize", detector, *words, "--bits", "4,8", "--avg-bits", "6", "--fisher-draws", "0", "--rounds", "0",
        "--rounding", rounding, "--keep", "box", "-o", out, "--plan-out", plan,
    )  # fmt: skip
    made = lampq.Plan.read(plan)
    assert made.provenance["outputs"] == {"pred_logits": "classes", "pred_boxes": "values:0.5"}
    assert [layer.name for layer in made.kept] == ["box"]
    result = json.loads(run(capfd, "eval", out, *words, "--reference", detector, "--json"))
    if rounding == "nearest":
        assert result["kl"] == pytest.approx(made.measured_kl, rel=1e-3)
    else:
        # Plans tell what images lose that codes were not chosen for.
        assert _of_unseen_images(detector, plan, tmp_path) == pytest.approx(made.measured_kl, rel=1e-4)
    assert [head["name"] for head in result["heads"]] == ["pred_logits", "pred_boxes"]
    assert result["heads"][1]["cosine"] > 0.99


def _of_unseen_images(detector, plan, folder):
    """Mean damage of every second image by codes for the others, each run alone, the boxes' spread that of all."""
    model = lampq.read(detector)
    images = lampq.read_data(
        folder / "images", input_specs=model.input_specs, constants={"scale": 640.0}, samples=6
    ).load()
    arrays = [array for group in images.inputs.groups for array in group["image"]]

    def outputs(path):
        session = onnxruntime.InferenceSession(path)
        scale = np.full((1, 1), 640, np.float32)
        made = [
            session.run(["pred_logits", "pred_boxes"], {"image": x[None], "scale": scale}) for x in arrays
        ]
        return [np.concatenate(head).astype(np.float64) for head in zip(*made, strict=True)]

    logits, boxes = outputs(detector)
    spread = boxes.std(axis=0)
    assert spread.min() > 0.02 * spread.max()

    def damage(fitted, judged):
        half = folder / "half.onnx"
        lampq.apply(
            model,
            lampq.Plan.read(plan),
            half,
            batch=images.inputs.take(fitted.tolist()),
            force=True,
        )
        unseen_logits, unseen_boxes = (head[judged] for head in outputs(half))
        kl = rel_entr(softmax(logits[judged], axis=-1), softmax(unseen_logits, axis=-1)).sum(axis=-1)
        return np.mean(kl + 0.25 * np.square((unseen_boxes - boxes[judged]) / spread).mean(axis=-1))

    return by_halves(len(arrays), damage)


@pytest.fixture
def encoder(tmp_path):
    """Texts of any length and their mask, to classes: the masked mean of embeddings through a layer."""
    nodes = [
        node("Gather", ["words.weight", "input_ids"], ["a"]),
        node("Cast", ["attention_mask"], ["m"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["m", "last"], ["n"]),
        node("Mul", ["a", "n"], ["b"]),
        node("ReduceMean", ["b"], ["c"], axes=[1], keepdims=0),
        node("MatMul", ["c", "fc.weight"], ["d"]),
        node("Relu", ["d"], ["e"]),
        node("MatMul", ["e", "head.weight"], ["logits"]),
        node("Constant", [], ["last"], value_ints=[-1]),
    ]
    nodes.insert(0, nodes.pop())
    weights = {"words.weight": (104, 64), "fc.weight": (64, 64), "head.weight": (64, 4)}
    texts = (TensorProto.INT64, ["n", "length"])
    vocabulary = {
        word: index for index, word in enumerate(["[PAD]", "[UNK]", *(f"w{i}" for i in range(100))])
    }
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return saved(
        tmp_path, nodes, weights, {"input_ids": texts, "attention_mask": texts}, {"logits": ["n", 4]}
    )


def test_an_encoder_on_texts_of_several_lengths(encoder, tmp_path, capfd):
    rng = np.random.default_rng(0)
    lines = [" ".join(f"w{i}" for i in rng.integers(0, 100, length)) for length in rng.integers(1, 40, 20)]
    (tmp_path / "texts.txt").write_text("\n".join(lines))
    words = ["--data", tmp_path / "texts.txt", "--quiet"]
    run(
        capfd, "profile", encoder, *words, "--bits", "2,4,8", "--fisher-draws", "0", "-o", tmp_path / "p.json"
    )
    run(capfd, "plan", tmp_path / "p.json", "--avg-bits", "4", "-o", tmp_path / "plan.json", "--quiet")
    run(capfd, "apply", encoder, tmp_path / "plan.json", "-o", tmp_path / "q.onnx", "--quiet")
    result = json.loads(run(capfd, "eval", tmp_path / "q.onnx", *words, "--reference", encoder, "--json"))
    assert result["samples"] == 20
    assert 0 < result["kl"] < 0.1
