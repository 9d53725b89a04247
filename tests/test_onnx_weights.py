"""Every way a weight may stand in an ONNX graph: which are found, their channel axes, and which are left alone."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_models import graph, normal, saved

from lampq.adapters.onnx import read

node = helper.make_node


# ---- every way a weight may stand ------------------------------------------------------------------------


def _function() -> onnx.FunctionProto:
    return helper.make_function(
        "local",
        "Linear",
        ["a", "w"],
        ["r"],
        [node("MatMul", ["a", "w"], ["r"])],
        [helper.make_opsetid("", 20)],
    )


def _constant(name: str, value: np.ndarray) -> onnx.NodeProto:
    return node("Constant", [], [name], value=numpy_helper.from_array(value, name))


def _bfloat16(name: str, value: np.ndarray) -> onnx.TensorProto:
    return helper.make_tensor(name, TensorProto.BFLOAT16, value.shape, value.ravel().tolist())


X = {"x": [2, 16]}
IMAGE = {"x": [2, 4, 6, 6]}
# name: nodes, weights, inputs, outputs, stored shape, channel axis, weights per output, positions
FOUND = {
    "matmul": ([node("MatMul", ["x", "w"], ["y"])], {"w": normal(16, 12)}, X, [2, 12], (16, 12), 1, 16, 1),
    "matmul of rank 3": (
        [node("MatMul", ["x", "w"], ["y"])],
        {"w": normal(1, 16, 12)},
        {"x": [2, 5, 16]},
        [2, 5, 12],
        (1, 16, 12),
        2,
        16,
        5,
    ),
    "matmul, weight on the left": (
        [node("MatMul", ["w", "x"], ["y"])],
        {"w": normal(12, 16)},
        {"x": [2, 16, 5]},
        [2, 12, 5],
        (12, 16),
        0,
        16,
        5,
    ),
    "gemm": ([node("Gemm", ["x", "w"], ["y"])], {"w": normal(16, 12)}, X, [2, 12], (16, 12), 1, 16, 1),
    "gemm transB": (
        [node("Gemm", ["x", "w", "b"], ["y"], transB=1, alpha=0.5)],
        {"w": normal(12, 16), "b": normal(12)},
        X,
        [2, 12],
        (12, 16),
        0,
        16,
        1,
    ),
    "gemm transA": (
        [node("Gemm", ["x", "w"], ["y"], transA=1)],
        {"w": normal(2, 32)},
        {"x": [2, 5]},
        [5, 32],
        (2, 32),
        1,
        2,
        2,
    ),
    "gemm, weight on the left": (
        [node("Gemm", ["w", "x"], ["y"], transB=1)],
        {"w": normal(12, 16)},
        X,
        [12, 2],
        (12, 16),
        0,
        16,
        1,
    ),
    "gemm, turned weight on the left": (
        [node("Gemm", ["w", "x"], ["y"], transA=1, transB=1)],
        {"w": normal(16, 12)},
        X,
        [12, 2],
        (16, 12),
        1,
        16,
        1,
    ),
    "conv": (
        [node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])],
        {"w": normal(3, 4, 3, 3)},
        IMAGE,
        [2, 3, 6, 6],
        (3, 4, 3, 3),
        0,
        36,
        36,
    ),
    "grouped conv": (
        [node("Conv", ["x", "w"], ["y"], group=2)],
        {"w": normal(6, 2, 3, 3)},
        IMAGE,
        [2, 6, 4, 4],
        (6, 2, 3, 3),
        0,
        18,
        16,
    ),
    "conv of one axis": (
        [node("Conv", ["x", "w"], ["y"])],
        {"w": normal(6, 4, 3)},
        {"x": [2, 4, 9]},
        [2, 6, 7],
        (6, 4, 3),
        0,
        12,
        7,
    ),
    "conv of three axes": (
        [node("Conv", ["x", "w"], ["y"])],
        {"w": normal(4, 2, 2, 2, 2)},
        {"x": [2, 2, 3, 3, 3]},
        [2, 4, 2, 2, 2],
        (4, 2, 2, 2, 2),
        0,
        16,
        8,
    ),
    "transposed conv": (
        [node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2])],
        {"w": normal(4, 5, 2, 2)},
        IMAGE,
        [2, 5, 12, 12],
        (4, 5, 2, 2),
        1,
        16,
        36,
    ),
    "behind a transpose": (
        [node("Transpose", ["w"], ["t"], perm=[1, 0]), node("MatMul", ["x", "t"], ["y"])],
        {"w": normal(12, 16)},
        X,
        [2, 12],
        (12, 16),
        0,
        16,
        1,
    ),
    "behind identity and a default transpose": (
        [node("Identity", ["w"], ["i"]), node("Transpose", ["i"], ["t"]), node("Gemm", ["x", "t"], ["y"])],
        {"w": normal(12, 16)},
        X,
        [2, 12],
        (12, 16),
        0,
        16,
        1,
    ),
    "conv behind a transpose": (
        [node("Transpose", ["w"], ["t"], perm=[3, 2, 0, 1]), node("Conv", ["x", "t"], ["y"])],
        {"w": normal(3, 3, 4, 5)},
        IMAGE,
        [2, 5, 4, 4],
        (3, 3, 4, 5),
        3,
        36,
        16,
    ),
    "float16 behind a cast": (
        [node("Cast", ["w"], ["c"], to=TensorProto.FLOAT), node("MatMul", ["x", "c"], ["y"])],
        {"w": normal(16, 12, dtype=np.float16)},
        X,
        [2, 12],
        (16, 12),
        1,
        16,
        1,
    ),
    "bfloat16 behind a cast": (
        [node("Cast", ["w"], ["c"], to=TensorProto.FLOAT), node("MatMul", ["x", "c"], ["y"])],
        {"w": _bfloat16("w", normal(16, 12))},
        X,
        [2, 12],
        (16, 12),
        1,
        16,
        1,
    ),
    "double behind a cast": (
        [node("Cast", ["w"], ["c"], to=TensorProto.FLOAT), node("MatMul", ["x", "c"], ["y"])],
        {"w": normal(16, 12, dtype=np.float64)},
        X,
        [2, 12],
        (16, 12),
        1,
        16,
        1,
    ),
    "constant node": (
        [_constant("w", normal(16, 12)), node("MatMul", ["x", "w"], ["y"])],
        {},
        X,
        [2, 12],
        (16, 12),
        1,
        16,
        1,
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_a_weight_is_found_and_its_channel_axis_is_right(tmp_path, name):
    nodes, weights, inputs, shape, stored, axis, in_features, positions = FOUND[name]
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
