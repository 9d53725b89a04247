"""Models of several inputs, of inputs that are fixed, and of samples of several shapes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_graphs import make_plan, rounded
from onnx_models import graph, mlp, normal, saved
from onnx_runs import read

from lampq.adapters.onnx import inputs
from lampq.adapters.onnx.write import write
from lampq.core.values.batch import Batch
from lampq.core.values.errors import AdapterError
from lampq.verbs.formats import read_written

node, value = helper.make_node, helper.make_tensor_value_info
ROWS = 300


def text_encoder() -> onnx.ModelProto:
    """Token ids and a mask to logits for every token: a table, scores that the mask cuts off, two products."""
    nodes = [
        node("Gather", ["table", "ids"], ["e"]),
        node("Transpose", ["e"], ["turned"], perm=[0, 2, 1]),
        node("MatMul", ["e", "turned"], ["scores"]),
        node("Cast", ["mask"], ["m"], to=TensorProto.FLOAT),
        node("Sub", ["m", "one"], ["off"]),
        node("Mul", ["off", "huge"], ["low"]),
        node("Unsqueeze", ["low", "axis"], ["wide"]),
        node("Add", ["scores", "wide"], ["cut"]),
        node("Softmax", ["cut"], ["p"]),
        node("MatMul", ["p", "e"], ["mixed"]),
        node("MatMul", ["mixed", "w"], ["h"]),
        node("Tanh", ["h"], ["t"]),
        node("MatMul", ["t", "v"], ["logits"]),
    ]
    weights = {
        "table": normal(ROWS, 16) / 4,
        "w": normal(16, 16) / 4,
        "v": normal(16, 9),
        "one": np.float32(1).reshape(()),
        "huge": np.float32(1e4).reshape(()),
        "axis": np.array([1]),
    }
    shapes = {"ids": ["n", "length"], "mask": ["n", "length"]}
    built = graph(nodes, weights, inputs=shapes, outputs={"logits": ["n", "length", 9]})
    for entry in built.graph.input:
        entry.type.tensor_type.elem_type = TensorProto.INT64
    return built


def texts(samples: int, length: int, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    mask = np.ones((samples, length), np.int64)
    mask[0, length // 2 :] = 0
    return {"ids": generator.integers(0, ROWS, (samples, length)), "mask": mask}


def _reference(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    return ReferenceEvaluator(model).run(None, feeds)[0]


def test_inputs_go_in_by_name(tmp_path):
    proto = text_encoder()
    model = read(saved(proto, tmp_path))
    assert [str(spec) for spec in model.input_specs] == ["ids int64[?x?]", "mask int64[?x?]"]
    feeds = texts(5, 7)
    expected = _reference(proto, feeds)
    np.testing.assert_allclose(model.run(feeds), expected, atol=1e-5)
    new = {layer.name: model.weight(layer.name) * np.float32(0.9) for layer in model.layers()}
    for name, _, outputs in model.sweep(feeds, [(name, 0, array) for name, array in new.items()]):
        np.testing.assert_allclose(outputs, model.with_weights({name: new[name]}).run(feeds), atol=1e-5)
    taps = {name: positions for name, _, positions in model.taps(feeds)}
    assert taps == {"w": 7, "v": 7}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["ids"], r"takes ids int64\[\?x\?\], mask int64\[\?x\?\]; the batch lacks mask"),
        (["ids", "mask", "more"], "the batch also has more"),
    ],
)
def test_inputs_that_are_missing_or_unknown_are_listed(tmp_path, names, message):
    model = read(saved(text_encoder(), tmp_path))
    with pytest.raises(AdapterError, match=message):
        model.run(dict.fromkeys(names, texts(2, 4)["ids"]))
    with pytest.raises(AdapterError, match="give arrays by name"):
        model.run(texts(2, 4)["ids"])


def test_samples_of_several_lengths_are_run_group_by_group(tmp_path):
    proto = text_encoder()
    model = read(saved(proto, tmp_path))
    groups = [texts(3, 7), texts(2, 4, seed=1), texts(1, 7, seed=2)]
    new = model.with_weights({"w": model.weight("w") * np.float32(2)})
    copy = onnx.ModelProto.FromString(proto.SerializeToString())
    for tensor in copy.graph.initializer:
        if tensor.name == "w":
            tensor.CopyFrom(numpy_helper.from_array(new.weight("w"), "w"))
    for variant, truth in ((model, proto), (new, copy)):
        outputs = variant.run(Batch(groups))
        assert outputs.sizes == (3, 2, 1)
        for mine, feeds in zip(outputs.groups, groups, strict=True):
            np.testing.assert_allclose(mine["logits"], _reference(truth, feeds), atol=1e-5)


def test_made_up_inputs_are_tokens_of_the_table_and_masks_of_ones(tmp_path):
    opened = read(saved(text_encoder(), tmp_path)).variant.opened
    feeds = next(inputs.noise(opened.flow, opened.all_specs, {}))
    assert feeds["ids"].shape == feeds["mask"].shape == (2, 16)
    assert 16 < feeds["ids"].max() < ROWS
    assert (feeds["mask"] == 1).all()


def test_what_takes_several_inputs_is_written_and_checked(tmp_path):
    proto = text_encoder()
    model = read(saved(proto, tmp_path))
    written = write(model, make_plan(model, 4), tmp_path / "q.onnx")
    assert written.relative_error < 1e-5
    feeds = texts(3, 6)
    expected = model.with_weights(rounded(model, 4)).run(feeds)
    found = _reference(onnx.load(written.path), feeds)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def _scaled() -> onnx.ModelProto:
    """An image, its size, and a number for all samples."""
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("Mul", ["h", "size"], ["s"]),
        node("Mul", ["s", "rate"], ["y"]),
    ]
    built = graph(
        nodes, {"w": normal(16, 4)}, inputs={"x": ["n", 16], "size": ["n", 4]}, outputs={"y": ["n", 4]}
    )
    built.graph.input.append(value("rate", TensorProto.FLOAT, []))
    return built


def test_inputs_are_fixed_for_all_samples(tmp_path):
    path, x = saved(_scaled(), tmp_path), normal(5, 16)
    truth = x @ normal(16, 4) * [2, 3, 4, 5] * 0.5
    for size in ([2, 3, 4, 5], [[2, 3, 4, 5]], "[2, 3, 4, 5]"):
        model = read(path, constants={"size": size, "rate": "0.5"})
        assert [spec.name for spec in model.input_specs] == ["x"]
        np.testing.assert_allclose(model.run(x), truth, atol=1e-5)
        same = model.with_weights({"w": model.weight("w")})
        np.testing.assert_allclose(same.run(x), truth, atol=1e-5)
    write(model, make_plan(model, 5), tmp_path / "q.onnx")
    left = read(path, constants={"size": 2})
    assert [str(spec) for spec in left.input_specs] == ["x float32[?x16]", "rate float32[]"]
    with pytest.raises(AdapterError, match="rate is one number for all samples; fix it: --input rate=VALUE"):
        left.run({"x": x, "rate": np.ones(5, np.float32)})
    assert [layer.name for layer in left.layers()] == ["w"]


def test_what_is_written_is_read_with_the_same_inputs_fixed(tmp_path):
    model, x = read(saved(_scaled(), tmp_path), constants={"size": 2, "rate": "0.5"}), normal(5, 16)
    write(model, make_plan(model, 8), tmp_path / "q.onnx")
    np.testing.assert_allclose(
        read_written(model, tmp_path / "q.onnx").run(x), model.run(x), atol=0.02 * np.abs(model.run(x)).max()
    )


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({"sise": 1}, "has no input 'sise' to fix; its inputs are x, size, rate"),
        ({"rate": "fast"}, "the value of input rate is no float32: 'fast'"),
        ({"rate": [[1.0]]}, r"input rate float32\[\] cannot be a value of shape \(1, 1\)"),
    ],
)
def test_values_that_cannot_be_fixed_are_refused(tmp_path, constants, message):
    with pytest.raises(AdapterError, match=message):
        read(saved(_scaled(), tmp_path), constants=constants)


def test_an_input_of_unknown_rank_takes_what_fits_the_graph(tmp_path):
    proto = mlp(2)
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    model = read(saved(proto, tmp_path))
    assert [str(spec) for spec in model.input_specs] == ["x float32[...]"]
    np.testing.assert_allclose(model.run(normal(3, 16)), _reference(mlp(2), {"x": normal(3, 16)}), atol=1e-5)


def _time_major(batch) -> onnx.ModelProto:
    """(n, 16, 5) to (5, n, 4): steps come first, as CTC wants them."""
    nodes = [node("Transpose", ["x"], ["t"], perm=[2, 0, 1]), node("MatMul", ["t", "w"], ["y"])]
    return graph(nodes, {"w": normal(16, 4)}, inputs={"x": [batch, 16, 5]}, outputs={"y": [5, batch, 4]})


@pytest.mark.parametrize("batch", [1, "n"])
def test_outputs_whose_first_axis_is_not_the_samples_are_given_one_by_one(tmp_path, batch):
    proto, x = _time_major(batch), normal(3, 16, 5)
    model = read(saved(proto, tmp_path))
    truth = np.stack([_reference(proto, {"x": x[i : i + 1]}) for i in range(3)])
    assert truth.shape == (3, 5, 1, 4)
    np.testing.assert_allclose(model.run(x), truth, atol=1e-5)
    same = model.with_weights({"w": model.weight("w")})
    np.testing.assert_allclose(same.run(x), truth, atol=1e-5)
    if batch == 1:
        (spec,) = model.output_specs
        assert spec.shape == (1, 5, 1, 4)


def test_a_model_that_takes_texts_opens(tmp_path):
    nodes = [node("StringNormalizer", ["words"], ["plain"]), node("MatMul", ["x", "w"], ["y"])]
    built = graph(nodes, {"w": normal(16, 8)}, inputs={"x": ["n", 16]}, outputs={"y": ["n", 8]})
    built.graph.input.append(value("words", TensorProto.STRING, ["m"]))
    model = read(saved(built, tmp_path))
    assert [spec.name for spec in model.input_specs] == ["x", "words"]
    assert [layer.name for layer in model.layers()] == ["w"]


def test_classes_of_one_sample_without_an_axis_for_it_run_along_the_axis_behind(tmp_path):
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("Squeeze", ["h", "zero"], ["flat"]),
        node("Softmax", ["flat"], ["y"], axis=0),
    ]
    proto = graph(
        nodes, {"w": normal(16, 9), "zero": np.array([0])}, inputs={"x": [1, 16]}, outputs={"y": [9]}
    )
    model = read(saved(proto, tmp_path))
    (head,) = model.heads
    assert (head.role, head.axis, head.activated) == ("classes", -1, True)
    x = normal(3, 16)
    logits = x @ normal(16, 9)
    truth = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(model.run(x), truth, atol=1e-4)


def test_samples_of_a_shape_that_the_graph_cannot_take_are_named(tmp_path):
    """Free height and width, and a sum of two halves of what they are: odd lengths do not fit."""
    nodes = [
        node("Slice", ["x", "start", "end", "axis", "two"], ["even"]),
        node("Slice", ["x", "one", "end", "axis", "two"], ["odd"]),
        node("Add", ["even", "odd"], ["pairs"]),
        node("ReduceMean", ["pairs", "axis"], ["means"], keepdims=0),
        node("MatMul", ["means", "w"], ["y"]),
    ]
    arrays = {
        name: np.array([number]) for name, number in {"start": 0, "one": 1, "end": 99, "two": 2}.items()
    }
    weights = {**arrays, "axis": np.array([2]), "w": normal(16, 8)}
    proto = graph(nodes, weights, inputs={"x": ["n", 16, "length"]}, outputs={"y": ["n", 8]})
    model = read(saved(proto, tmp_path))
    fine, odd = normal(3, 16, 6), normal(2, 16, 5)
    np.testing.assert_allclose(
        model.run(Batch([{"x": fine}, {"x": normal(1, 16, 8)}])).groups[0]["y"],
        _reference(proto, {"x": fine}),
        atol=1e-5,
    )
    with pytest.raises(AdapterError, match=r"fails in ONNX Runtime: .* \(fed x 2x16x5\)$"):
        model.run(Batch([{"x": fine}, {"x": odd}]))
