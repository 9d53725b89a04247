"""Every way a weight may stand in an ONNX graph: which are found, their channel axes, and which are left alone."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_models import graph, normal, saved
from onnx_weight_cases import STANDING, X

from lampq.adapters.onnx import read

node = helper.make_node


def _function() -> onnx.FunctionProto:
    return helper.make_function(
        "local",
        "Linear",
        ["a", "w"],
        ["r"],
        [node("MatMul", ["a", "w"], ["r"])],
        [helper.make_opsetid("", 20)],
    )


@pytest.mark.parametrize("name", STANDING)
def test_a_weight_is_found_and_its_channel_axis_is_right(tmp_path, name):
    nodes, weights, inputs, shape, stored, axis, in_features, positions = STANDING[name]
    model = graph(nodes, weights, inputs=inputs, outputs={"y": shape})
    opened = read(saved(model, tmp_path))
    (layer,) = opened.layers()
    (site,) = opened.variant.opened.sites
    assert (layer.shape, layer.channel_axis, site.in_features) == (stored, axis, in_features)
    assert layer.macs == positions * layer.size
    assert layer.channels * in_features == layer.size or "grouped" in name

    # The oracle: zeroing one channel of the stored array changes the output at one channel and nowhere else.
    x = normal(*inputs["x"])
    changed = []
    for channel in range(2):
        weight = opened.weight(layer.name).copy()
        np.moveaxis(weight, axis, 0)[channel] += 1.0
        copy = onnx.ModelProto.FromString(model.SerializeToString())
        _replace(copy, "w", weight)
        before, after = (ReferenceEvaluator(m).run(None, {"x": x})[0] for m in (model, copy))
        changed.append(before != after)
    assert changed[0].any()
    assert changed[1].any()
    assert not (changed[0] & changed[1]).any()


def _replace(model: onnx.ModelProto, name: str, weight: np.ndarray) -> None:
    """Put another array in the place of an initializer or Constant, in its own type."""
    tensors = [t for t in model.graph.initializer if t.name == name]
    tensors += [n.attribute[0].t for n in model.graph.node if n.op_type == "Constant" and n.output[0] == name]
    (tensor,) = tensors
    new = helper.make_tensor(name, tensor.data_type, weight.shape, weight.ravel().tolist())
    tensor.CopyFrom(new)


def test_weights_of_functions_are_found(tmp_path):
    model = graph(
        [node("Linear", ["x", "w"], ["y"], domain="local")],
        {"w": normal(16, 12)},
        inputs=X,
        outputs={"y": [2, 12]},
        functions=[_function()],
    )
    opened = read(saved(model, tmp_path))
    assert [(layer.name, layer.channel_axis) for layer in opened.layers()] == [("w", 1)]
    x = normal(2, 16)
    np.testing.assert_allclose(opened.run(x), ReferenceEvaluator(model).run(None, {"x": x})[0], atol=1e-5)


def test_microsoft_operators(tmp_path):
    fused = node("FusedMatMul", ["x", "w"], ["y"], domain="com.microsoft", transB=1, alpha=0.5)
    model = graph([fused], {"w": normal(12, 16)}, inputs=X, outputs={"y": [2, 12]})
    opened = read(saved(model, tmp_path))
    (layer,) = opened.layers()
    assert (layer.channel_axis, layer.macs) == (0, layer.size)
    x = normal(2, 16)
    np.testing.assert_allclose(opened.run(x), 0.5 * x @ opened.weight("w").T, rtol=1e-4, atol=1e-5)

    attention = node("Attention", ["x", "w", "b"], ["h"], domain="com.microsoft", num_heads=2)
    pooled = node("ReduceMean", ["h", "axes"], ["y"], keepdims=0)
    weights = {"w": normal(16, 48), "b": normal(48), "axes": np.array([1])}
    model = graph([attention, pooled], weights, inputs={"x": [2, 5, 16]}, outputs={"y": [2, 16]})
    (layer,) = read(saved(model, tmp_path)).layers()
    assert (layer.kind, layer.channel_axis, layer.macs) == ("qkv", 1, 5 * layer.size)


def test_initializers_that_are_inputs_too_are_weights(tmp_path):
    model = graph(
        [node("MatMul", ["x", "w"], ["y"])],
        {"w": normal(16, 12)},
        inputs={"x": [2, 16], "w": [16, 12]},
        outputs={"y": [2, 12]},
        ir_version=3,
        opset=8,
    )
    opened = read(saved(model, tmp_path))
    assert [layer.name for layer in opened.layers()] == ["w"]
    assert np.asarray(opened.run(normal(2, 16))).shape == (2, 12)


def test_a_shared_weight_is_one_layer(tmp_path):
    nodes = [
        node("MatMul", ["x", "w"], ["a"], name="/first/MatMul"),
        node("Relu", ["a"], ["r"]),
        node("MatMul", ["r", "w"], ["y"], name="/second/MatMul"),
    ]
    weights = {"w": normal(16, 16)}
    (layer,) = read(saved(graph(nodes, weights, inputs=X, outputs={"y": [2, 16]}), tmp_path)).layers()
    assert layer.shares == ("second",)
    assert layer.macs == 2 * layer.size


def test_embedding_tables_are_layers_unless_they_are_not_asked_for_or_small(tmp_path):
    nodes = [
        node("Gather", ["table", "x"], ["e"], name="/embed/Gather"),
        node("ReduceMean", ["e", "axes"], ["m"], keepdims=0),
        node("MatMul", ["m", "w"], ["y"]),
    ]
    weights = {"table": normal(300, 16), "w": normal(16, 12), "axes": np.array([1])}
    options = {"inputs": {"x": [2, 5]}, "input_type": TensorProto.INT64}
    path = saved(graph(nodes, weights, outputs={"y": [2, 12]}, **options), tmp_path)
    model = read(path)
    assert [(la.name, la.kind, la.channel_axis, la.macs) for la in model.layers()] == [
        ("embed", "embedding", 0, 0),
        ("w", "head", 1, 192),
    ]
    assert {name for name, _, _ in model.taps(np.array([[1, 2, 3, 4, 5]] * 2))} == {"w"}
    without = read(path, embeddings=False)
    assert [layer.name for layer in without.layers()] == ["w"]
    assert without.skipped == (("embed", "an embedding table, which was not asked for"),)
    small = weights | {"table": normal(30, 16)}
    few = read(saved(graph(nodes, small, outputs={"y": [2, 12]}, **options), tmp_path, "few.onnx"))
    assert few.skipped == (("embed", "a table of only 480 numbers"),)

    nodes[2:] = [node("Transpose", ["table"], ["t"], perm=[1, 0]), node("MatMul", ["m", "t"], ["y"])]
    tied = read(saved(graph(nodes, small, outputs={"y": [2, 30]}, **options), tmp_path, "tied.onnx"))
    (layer,) = tied.layers()
    assert (layer.shape, layer.channel_axis, layer.kind, len(layer.shares)) == ((30, 16), 0, "head", 1)


def _dequantized(weights: dict, *extra: onnx.NodeProto) -> onnx.ModelProto:
    nodes = [*extra, node("MatMul", ["x", "q"], ["h"]), node("MatMul", ["h", "w"], ["y"])]
    return graph(nodes, {"w": normal(12, 6)} | weights, inputs=X, outputs={"y": [2, 6]}, opset=21)


def _two(first, weights: dict, width: int = 12, shape=("a", 8), **options) -> onnx.ModelProto:
    """Something left alone, one node or several, then a layer."""
    nodes = [*(first if isinstance(first, list) else [first]), node("MatMul", ["h", "w"], ["y"])]
    options.setdefault("inputs", X)
    return graph(nodes, weights | {"w": normal(width, 8)}, outputs={"y": shape}, **options)


CODES = np.arange(192, dtype=np.int8).reshape(16, 12)
SKIPPED = {
    "already quantized": _dequantized(
        {"i": CODES, "s": np.float32([0.1]).reshape(())}, node("DequantizeLinear", ["i", "s"], ["q"])
    ),
    "already quantized, by arithmetic": _dequantized(
        {"i": CODES, "s": normal(12)},
        node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        node("Mul", ["f", "s"], ["q"]),
    ),
    "only 48 weights": _two(node("MatMul", ["x", "v"], ["h"]), {"v": normal(4, 12)}, inputs={"x": [2, 4]}),
    "a mask": _two(
        [node("Add", ["x", "v"], ["a"]), node("ReduceMean", ["a", "axes"], ["h"], keepdims=0)],
        {"v": np.full((1, 512, 16), -1e9, np.float32), "axes": np.array([1])},
        16,
        (2, 8),
        inputs={"x": [2, 512, 16]},
    ),
    "a bias or scale": _two(
        [node("Add", ["x", "v"], ["a"]), node("Slice", ["a", "zero", "end", "axis"], ["h"])],
        {"v": normal(4096), "zero": np.array([0]), "end": np.array([16]), "axis": np.array([1])},
        16,
        (2, 8),
        inputs={"x": [2, 4096]},
    ),
    "does not influence": graph(
        [node("MatMul", ["x", "v"], ["z"]), node("MatMul", ["x", "w"], ["logits"])],
        {"v": normal(16, 5), "w": normal(16, 8)},
        inputs=X,
        outputs={"logits": [2, 8]},
    ),
}


@pytest.mark.parametrize("reason", SKIPPED)
def test_other_weights_are_left_alone_for_a_reason(tmp_path, reason):
    model = SKIPPED[reason]
    onnx.checker.check_model(model)
    opened = read(saved(model, tmp_path))
    assert [layer.name for layer in opened.layers()] == ["w"]
    assert len(opened.skipped) >= 1
    assert set({left.name: left.size_bytes for left in opened.variant.opened.left}) == {
        name for name, _ in opened.skipped
    }
    if reason in ("a mask", "a bias or scale", "does not influence"):
        (tensor,) = (t for t in model.graph.initializer if t.name == "v")
        assert (
            sum({left.name: left.size_bytes for left in opened.variant.opened.left}.values())
            == numpy_helper.to_array(tensor).nbytes
        )
    assert all(found.startswith(reason.partition(",")[0]) for _, found in opened.skipped)
    # What is left alone still runs, whole and in parts.
    x = normal(*opened.input_specs[0].shape)
    expected = ReferenceEvaluator(model).run(None, {"x": x})[0]
    # ONNX Runtime multiplies weights behind DequantizeLinear by inputs that it rounds to 8 bits.
    tolerance = 0.02 if reason == "already quantized" else 1e-5
    same = opened.with_weights({"w": opened.weight("w")})
    for model in (opened, same):
        outputs = np.asarray(model.run(x))
        assert np.linalg.norm(outputs - expected) <= tolerance * np.linalg.norm(expected)


def test_constants_that_are_no_weights_are_not_mentioned(tmp_path):
    nodes = [
        node("Add", ["x", "position"], ["a"]),
        node("MatMul", ["x", "a"], ["p"]),
        node("Softmax", ["p"], ["s"]),
        node("Where", ["mask", "s", "position"], ["m"]),
        node("MatMul", ["m", "w"], ["y"]),
    ]
    weights = {"position": normal(1, 16), "mask": np.ones((16, 16), dtype=bool), "w": normal(16, 12)}
    model = read(saved(graph(nodes, weights, inputs={"x": [16, 16]}, outputs={"y": [16, 12]}), tmp_path))
    assert [layer.name for layer in model.layers()] == ["w"]
    assert model.skipped == ()


def test_a_model_without_layers_can_be_opened_and_has_no_records(tmp_path):
    model = graph([node("Relu", ["x"], ["y"])], {}, inputs=X, outputs={"y": [2, 16]})
    opened = read(saved(model, tmp_path))
    assert np.asarray(opened.run(-np.ones((2, 16), np.float32))).tolist() == np.zeros((2, 16)).tolist()
    assert opened.layers() == ()
