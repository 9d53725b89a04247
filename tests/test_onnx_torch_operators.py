"""Operators of ONNX in PyTorch, one by one, against ONNX Runtime."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper
from onnx_gradient_cases import ints, single, traced, traces_of
from onnx_models import graph, normal, saved

from lampq.adapters.onnx import read
from lampq.adapters.onnx.gradients import TorchGraph, obstacle
from lampq.adapters.onnx.torch_ops import OPERATORS
from lampq.core.measuring.reference import measure_reference
from lampq.core.measuring.traces import measure_traces
from lampq.core.readouts.draws import Draws
from lampq.core.values.errors import NoGradientsError

# Operator, shape of a sample, further inputs, attributes; the result is averaged over whatever axes it has.
CASES = [
    *((name, (7,), [normal(7)], {}) for name in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "PRelu")),
    ("Pow", (7,), [np.float32(2)], {}),
    ("Mod", (7,), [normal(7) ** 2 + 1], {"fmod": 1}),
    *(
        (name, (7,), [], {})
        for name in (
            "Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "HardSwish", "Identity", "Mish", "Neg", "Reciprocal",
            "Relu", "Sigmoid", "Sin", "Softplus", "Tanh", "Softmax", "LogSoftmax", "Dropout", "Gelu", "Elu",
            "LeakyRelu", "HardSigmoid", "Celu", "ThresholdedRelu", "Selu", "Atan", "Softsign", "Sign", "Round",
        )
    ),
    ("Gelu", (7,), [], {"approximate": "tanh"}),
    ("Softmax", (3, 4), [], {"axis": 1}),
    ("Clip", (7,), [np.float32(-0.3), np.float32(0.4)], {}),
    ("MatMul", (3, 4), [normal(4, 6)], {}),
    ("Gemm", (7,), [normal(5, 7), normal(5)], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    ("Einsum", (3, 4), [normal(4, 6)], {"equation": "bij,jk->bik"}),
    ("Conv", (4, 6, 5), [normal(6, 2, 3, 3), normal(6)], {"group": 2, "pads": [1, 0, 2, 1], "strides": [2, 1]}),
    ("Conv", (4, 6, 5), [normal(3, 4, 2, 3)], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("Conv", (4, 6, 5), [normal(3, 4, 2, 2)], {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    ("Conv", (4, 9), [normal(3, 4, 3)], {}),
    ("ConvTranspose", (4, 5, 6), [normal(4, 3, 2, 3), normal(3)], {"strides": [2, 1], "pads": [1, 0, 1, 0]}),
    ("MaxPool", (4, 6, 5), [], {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}),
    ("GlobalAveragePool", (4, 6, 5), [], {}),
    ("GlobalMaxPool", (4, 6, 5), [], {}),
    ("AveragePool", (4, 6, 5), [], {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 0]}),
    ("InstanceNormalization", (4, 6, 5), [normal(4), normal(4)], {}),
    ("GroupNormalization", (4, 6, 5), [normal(4), normal(4)], {"num_groups": 2}),
    ("LpNormalization", (3, 4), [], {"axis": 2, "p": 2}),
    ("DepthToSpace", (8, 3, 2), [], {"blocksize": 2}),
    ("DepthToSpace", (8, 3, 2), [], {"blocksize": 2, "mode": "CRD"}),
    ("SpaceToDepth", (2, 4, 6), [], {"blocksize": 2}),
    *(("Resize", (2, 5, 4), [None, np.float32([1, 1, 1.6, 2])], {"mode": mode, **more})
      for mode, more in (("nearest", {}), ("nearest", {"nearest_mode": "floor", "coordinate_transformation_mode":
      "asymmetric"}), ("linear", {}), ("cubic", {}), ("linear", {"coordinate_transformation_mode": "align_corners"}))),
    ("Resize", (2, 5, 4), [None, None, ints(1, 2, 3, 7)], {"mode": "linear"}),
    ("GatherElements", (3, 4), [ints([[[1, 0], [-1, 2]]])], {"axis": 2}),
    ("GatherND", (3, 4), [ints([[0, 1], [0, -1]])], {}),
    ("ScatterND", (3, 4), [ints([[0, 1], [0, -1]]), normal(2, 4)], {}),
    ("ScatterElements", (3, 4), [ints([[[1, 0]]]), normal(1, 1, 2)], {"axis": 2}),
    ("CumSum", (3, 4), [np.array(1)], {}),
    ("Trilu", (3, 4), [np.array(1)], {"upper": 0}),
    *((name, (3, 4), [ints(1)], {"keepdims": 0}) for name in ("ReduceL2", "ReduceProd")),
    ("LayerNormalization", (3, 4), [normal(4), normal(4)], {"axis": -1, "epsilon": 1e-3}),
    ("LayerNormalization", (3, 4), [normal(3, 4)], {"axis": 1}),
    ("BatchNormalization", (4, 6, 5), [normal(4), normal(4), normal(4), normal(4) ** 2], {"epsilon": 1e-2}),
    *((name, (3, 4), [ints(1)], {"keepdims": keep}) for name in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")
      for keep in (0, 1)),
    ("ReduceMean", (3, 4), [], {}),
    ("Reshape", (3, 4), [ints(0, 2, -1)], {}),
    ("Flatten", (3, 4), [], {"axis": 1}),
    ("Flatten", (3, 4), [], {"axis": -1}),
    ("Unsqueeze", (3, 4), [ints(-1, 1)], {}),
    ("Squeeze", (1, 4), [ints(1)], {}),
    ("Transpose", (3, 4), [], {"perm": [0, 2, 1]}),
    ("Slice", (7, 4), [ints(1, -3), ints(6, 99), ints(1, 2), ints(2, 1)], {}),
    ("Slice", (7,), [ints(-1), ints(-(1 << 62)), ints(1), ints(-2)], {}),
    ("Slice", (7,), [ints(5), ints(1), ints(1), ints(-1)], {}),
    ("Gather", (7, 4), [ints(2, -1)], {"axis": 1}),
    ("Gather", (7, 4), [np.array(3)], {"axis": 1}),
    ("Concat", (3, 4), [normal(1, 2, 4)], {"axis": 1}),
    ("Expand", (1, 4), [ints(1, 3, 1)], {}),
    ("Tile", (3, 4), [ints(1, 2, 3)], {}),
    ("Pad", (3, 4), [ints(0, 1, 2, 0, 0, 1), np.float32(0.5)], {}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "shape", "more", "attributes"), CASES, ids=[f"{c[0]}-{i}" for i, c in enumerate(CASES)]
)
def test_operators_compute_what_the_runtime_does(tmp_path, name, shape, more, attributes):
    path = single(tmp_path, name, shape, more, attributes)
    sample = normal(1, *shape, seed=5)
    (expected,) = ort.InferenceSession(path).run(None, {"x": sample})
    found = traced(read(path), sample)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


STEPS, INPUTS, HIDDEN = 4, 3, 5


@pytest.mark.parametrize(
    ("name", "gates", "more"),
    [
        ("LSTM", 4, {}),
        ("LSTM", 4, {"direction": "bidirectional"}),
        ("GRU", 3, {"direction": "reverse"}),
        ("GRU", 3, {"linear_before_reset": 1}),
        ("RNN", 1, {"direction": "bidirectional"}),
    ],
)
def test_recurrent_layers_compute_what_the_runtime_does(tmp_path, name, gates, more):
    ways = 2 if more.get("direction") == "bidirectional" else 1
    weights = {
        "w": normal(ways, gates * HIDDEN, INPUTS),
        "r": normal(ways, gates * HIDDEN, HIDDEN),
        "b": normal(ways, 2 * gates * HIDDEN),
        "h": normal(ways, 1, HIDDEN),
    }
    layer = helper.make_node(name, ["x", "w", "r", "b", "", "h"], ["y", "last"], hidden_size=HIDDEN, **more)
    shapes = {
        "inputs": {"x": [STEPS, 1, INPUTS]},
        "outputs": {"y": [STEPS, ways, 1, HIDDEN], "last": [ways, 1, HIDDEN]},
    }
    model = read(saved(graph([layer], weights, **shapes, opset=21), tmp_path))
    x = normal(STEPS, 1, INPUTS)
    expected = ort.InferenceSession(model.path).run(None, {"x": x})
    outputs = TorchGraph(model.variant)({"x": torch.from_numpy(x)})
    for value, right in zip(outputs.values(), expected, strict=True):
        np.testing.assert_allclose(value.detach().numpy().reshape(right.shape), right, atol=1e-5)


def test_indices_are_computed_too(tmp_path):
    nodes = [
        helper.make_node("TopK", ["x", "k"], ["best", "where"], axis=1),
        helper.make_node("ArgMax", ["x"], ["high"], axis=1),
        helper.make_node("ArgMin", ["x"], ["low"], axis=1),
        helper.make_node("OneHot", ["high", "depth", "values"], ["hot"]),
        helper.make_node("Greater", ["x", "zero"], ["positive"]),
        helper.make_node("NonZero", ["positive"], ["places"]),
        helper.make_node("IsNaN", ["x"], ["nan"]),
        helper.make_node("IsInf", ["x"], ["inf"]),
        helper.make_node("Xor", ["nan", "inf"], ["odd"]),
        helper.make_node("EyeLike", ["square"], ["eye"], dtype=1),
        *(
            helper.make_node("Cast", [name], [f"{name}_f"], to=TensorProto.FLOAT)
            for name in ("where", "high", "low", "places", "odd")
        ),
        *(
            helper.make_node("Reshape", [name, "flat"], [f"{name}_r"])
            for name in ("best", "where_f", "high_f", "low_f", "hot", "places_f", "odd_f", "eye")
        ),
        helper.make_node(
            "Concat",
            [
                f"{name}_r"
                for name in ("best", "where_f", "high_f", "low_f", "hot", "places_f", "odd_f", "eye")
            ],
            ["logits"],
            axis=1,
        ),
    ]
    constants = {
        "k": ints(2), "depth": ints(7), "values": np.float32([0, 1]), "zero": np.float32(0).reshape(()),
        "flat": ints(1, -1), "square": normal(3, 3),
    }  # fmt: skip
    built = graph(nodes, constants, inputs={"x": [1, 7]}, outputs={"logits": [1, None]})
    path, sample = saved(built, tmp_path), normal(1, 7)
    (expected,) = ort.InferenceSession(path).run(None, {"x": sample})
    np.testing.assert_allclose(traced(read(path), sample), expected, rtol=1e-6)


def test_shapes_and_choices_are_computed_too(tmp_path):
    """What exporters emit around dynamic shapes: integers, comparisons, and selections."""
    nodes = [
        helper.make_node("Shape", ["x"], ["all"]),
        helper.make_node("Shape", ["x"], ["rest"], start=1, end=3),
        helper.make_node("Size", ["x"], ["count"]),
        helper.make_node("Split", ["rest"], ["rows", "columns"], num_outputs=2),
        helper.make_node("Div", ["rows", "two"], ["half"]),
        helper.make_node("Mod", ["columns", "two"], ["odd"]),
        helper.make_node("Concat", ["one", "half", "minus"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
        helper.make_node(
            "ConstantOfShape", ["rest"], ["filled"], value=helper.make_tensor("v", 1, [1], [2.0])
        ),
        helper.make_node("Cast", ["odd"], ["odd_f"], to=TensorProto.FLOAT),
        helper.make_node("Greater", ["x", "filled"], ["large"]),
        helper.make_node("Not", ["large"], ["small"]),
        helper.make_node("Where", ["small", "x", "filled"], ["cut"]),
        helper.make_node("Reshape", ["cut", "target"], ["z"]),
        helper.make_node("Range", ["zero", "count_", "step"], ["steps"]),
        helper.make_node("Squeeze", ["count"], ["count_"]),
        helper.make_node("CastLike", ["steps", "x"], ["steps_f"]),
        helper.make_node("ReduceSum", ["steps_f"], ["total"]),
        helper.make_node("Mul", ["total", "odd_f"], ["scaled"]),
        helper.make_node("Add", ["y", "z"], ["sum"]),
        helper.make_node("Add", ["sum", "scaled"], ["shifted"]),
        helper.make_node("Flatten", ["shifted"], ["logits"]),
    ]
    nodes.insert(14, nodes.pop(15))
    constants = {"two": ints(2), "one": ints(1), "minus": ints(-1), "zero": np.array(0), "step": np.array(1)}
    built = graph(nodes, constants, inputs={"x": [1, 4, 3]}, outputs={"logits": [1, None]}, opset=20)
    path, sample = saved(built, tmp_path), normal(1, 4, 3) * 3
    (expected,) = ort.InferenceSession(path).run(None, {"x": sample})
    found = traced(read(path), sample)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_unknown_operators_are_named(tmp_path):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Shrink", ["y"], ["logits"])]
    built = graph(nodes, {"w": normal(16, 4)}, inputs={"x": ["n", 16]}, outputs={"logits": ["n", 4]})
    model = read(saved(built, tmp_path))
    assert obstacle(model.variant.opened.flow) == "operator Shrink has no differentiable form here"
    with pytest.raises(NoGradientsError, match="Shrink"):
        traces_of(model, normal(2, 16))
    found = measure_traces(model, measure_reference(model, normal(2, 16)))
    assert found.kind == "forward"
    assert (
        found.note
        == "no gradients (operator Shrink has no differentiable form here): traces from forward passes"
    )
    with pytest.raises(NoGradientsError, match="take the true or the forward one"):
        measure_traces(model, measure_reference(model, normal(2, 16)), Draws(truth=np.zeros(2, int)))


def test_uses_without_a_form_are_named(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Pad", ["y", "pads"], ["logits"], mode="edge"),
    ]
    weights = {"w": normal(16, 4), "pads": ints(0, 0, 0, 1)}
    built = graph(nodes, weights, inputs={"x": ["n", 16]}, outputs={"logits": ["n", None]})
    with pytest.raises(NoGradientsError, match="Pad that is not constant"):
        traces_of(read(saved(built, tmp_path)), normal(2, 16))


def test_every_operator_is_tried():
    """A table nobody runs is a table nobody can trust."""
    tried = {case[0] for case in CASES} | {
        "Shape", "Size", "Split", "ConstantOfShape", "Cast", "Greater", "Not", "Where", "Range", "CastLike",
        "Log", "Sqrt", "LSTM", "GRU", "RNN", "TopK", "ArgMax", "ArgMin", "OneHot", "NonZero", "IsNaN", "IsInf", "Xor",
        "EyeLike",
    }  # fmt: skip
    plain = {"And", "Or", "Equal", "GreaterOrEqual", "Less", "LessOrEqual", "Constant", "Upsample"}
    assert set(OPERATORS) - tried == plain


@pytest.mark.parametrize("name", ["Log", "Sqrt"])
def test_functions_of_positive_numbers(tmp_path, name):
    path = single(tmp_path, name, (7,), [], {})
    sample = np.square(normal(1, 7)) + 0.1
    (expected,) = ort.InferenceSession(path).run(None, {"x": sample})
    np.testing.assert_allclose(traced(read(path), sample), expected, rtol=1e-5)


@pytest.mark.parametrize("version", [11, 12])
def test_softmax_of_old_takes_all_later_axes_as_one(tmp_path, version):
    node = helper.make_node("Softmax", ["x"], ["y"], axis=1)
    built = graph(
        [node, helper.make_node("Flatten", ["y"], ["logits"])],
        {},
        inputs={"x": [1, 3, 4]},
        outputs={"logits": [1, 12]},
        opset=version,
    )
    path = saved(built, tmp_path)
    onnx.checker.check_model(path)
    (expected,) = ort.InferenceSession(path).run(None, {"x": normal(1, 3, 4)})
    np.testing.assert_allclose(traced(read(path), normal(1, 3, 4)), expected, rtol=1e-5)
