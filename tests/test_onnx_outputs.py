"""Outputs of every sort: what is judged, what stands for what cannot be, and what is left alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from onnx_graphs import make_plan, rounded
from onnx_models import graph, mlp, normal, saved
from onnx_runs import read

import lampq
from lampq.adapters.onnx.write import write
from lampq.core.values.errors import AdapterError, RecordError
from lampq.core.values.head import HeadChoice

node, value = helper.make_node, helper.make_tensor_value_info


def _behind(
    nodes: list[onnx.NodeProto], outputs: dict[str, int], constants: dict | None = None
) -> onnx.ModelProto:
    """A product called `scores`, and what is made of it; types of outputs by name."""
    first = node("MatMul", ["x", "w"], ["scores"])
    built = graph(
        [first, *nodes],
        {"w": normal(16, 6)} | (constants or {}),
        inputs={"x": ["n", 16]},
        outputs={"y": None},
    )
    del built.graph.output[:]
    built.graph.output.extend(value(name, kind, None) for name, kind in outputs.items())
    return built


INT, FLOAT = TensorProto.INT64, TensorProto.FLOAT
ONE = {"one": np.array(1), "k": np.array([2]), "axes": np.array([1]), "half": np.float32(0.5).reshape(())}
# name: nodes, types of outputs, the tensors that are judged
JUMPS = {
    "ArgMax": ([node("ArgMax", ["scores"], ["y"], axis=1)], {"y": INT}, ["scores"]),
    "TopK": ([node("TopK", ["scores", "k"], ["best", "i"])], {"best": FLOAT, "i": INT}, ["scores"]),
    "NonZero": (
        [node("Greater", ["scores", "half"], ["b"]), node("NonZero", ["b"], ["y"])],
        {"y": INT},
        ["scores"],
    ),
    "Round": ([node("Round", ["scores"], ["y"])], {"y": FLOAT}, ["scores"]),
    "Cast": ([node("Cast", ["scores"], ["y"], to=INT)], {"y": INT}, ["scores"]),
    "Gather on computed indices": (
        [
            node("ArgMax", ["scores"], ["i"], axis=1, keepdims=1),
            node("Sigmoid", ["scores"], ["p"]),
            node("GatherElements", ["p", "i"], ["y"], axis=1),
        ],
        {"y": FLOAT},
        ["scores"],
    ),
    "Where on computed indices": (
        [
            node("ArgMax", ["scores"], ["i"], axis=1, keepdims=1),
            node("Equal", ["i", "one"], ["b"]),
            node("Where", ["b", "scores", "half"], ["y"]),
        ],
        {"y": FLOAT},
        ["scores"],
    ),
    "nothing but a selection by value": (
        [node("Greater", ["scores", "half"], ["b"]), node("Where", ["b", "scores", "half"], ["y"])],
        {"y": FLOAT},
        ["y"],
    ),
    "a jump beside an output that says as much": (
        [node("Softmax", ["scores"], ["p"]), node("ArgMax", ["p"], ["y"], axis=1)],
        {"p": FLOAT, "y": INT},
        ["p"],
    ),
    "weights behind the jump": (
        [
            node("ArgMax", ["scores"], ["i"], axis=1),
            node("Gather", ["table", "i"], ["e"]),
            node("MatMul", ["e", "v"], ["y"]),
        ],
        {"y": FLOAT},
        ["y"],
    ),
}


@pytest.mark.parametrize("name", JUMPS)
def test_the_last_tensors_in_front_of_a_jump_stand_for_what_is_behind_it(tmp_path, name):
    nodes, outputs, judged = JUMPS[name]
    proto = _behind(nodes, outputs, ONE | {"table": normal(8, 12), "v": normal(12, 16)})
    model = read(saved(proto, tmp_path))
    assert [head.name for head in model.heads if head.judged] == judged
    assert {head.name for head in model.heads} == {*outputs, *judged}
    standing = [spec for spec in model.output_specs if spec.stands_for]
    assert [spec.name for spec in standing] == [n for n in judged if n not in outputs]
    for spec in standing:
        assert set(spec.stands_for) == set(outputs)
    for head in model.heads:
        assert head.judged or head.reason

    x = normal(4, 16)
    result = model.run(x)
    assert result.names == tuple(judged)
    if "scores" in judged:
        np.testing.assert_allclose(result["scores"], x @ normal(16, 6), atol=1e-5)
    moved = model.with_weights({"w": 2 * model.weight("w")}).run(x)
    if "scores" in judged:
        np.testing.assert_allclose(moved["scores"], 2 * x @ normal(16, 6), atol=1e-5)
    ((_, _, swept),) = model.sweep(x, [("w", 0, 2 * model.weight("w"))])
    for head in judged:
        np.testing.assert_array_equal(swept[head], moved[head])
    assert write(model, make_plan(model, 4), tmp_path / "q.onnx").relative_error < 1e-5


def _detector() -> onnx.ModelProto:
    """Boxes and scores through NonMaxSuppression, and the boxes that are left, with a third of each in a body."""
    nodes = [
        node("MatMul", ["x", "wb"], ["flat"]),
        node("Reshape", ["flat", "to_boxes"], ["boxes"]),
        node("MatMul", ["x", "ws"], ["logits"]),
        node("Reshape", ["logits", "to_scores"], ["wide"]),
        node("Sigmoid", ["wide"], ["scores"]),
        node("NonMaxSuppression", ["boxes", "scores", "most", "overlap"], ["chosen"]),
        node("Slice", ["chosen", "two", "three", "axis"], ["index"]),
        node("Squeeze", ["index", "axis"], ["numbers"]),
        node("Squeeze", ["boxes", "zero"], ["all"]),
        node("Gather", ["all", "numbers"], ["kept"]),
    ]
    weights = {
        "wb": normal(16, 40),
        "ws": normal(16, 30),
        "to_boxes": np.array([1, 10, 4]),
        "to_scores": np.array([1, 3, 10]),
        "most": np.array([3]),
        "overlap": np.float32([0.5]),
        "zero": np.array([0]),
        "two": np.array([2]),
        "three": np.array([3]),
        "axis": np.array([1]),
    }
    built = graph(nodes, weights, inputs={"x": [1, 16]}, outputs={"kept": ["m", 4]})
    built.graph.output.append(value("chosen", INT, ["m", 3]))
    return built


def test_a_detector_is_judged_at_its_boxes_and_scores(tmp_path):
    model = read(saved(_detector(), tmp_path))
    heads = {head.name: head for head in model.heads}
    assert [name for name, head in heads.items() if head.judged] == ["boxes", "scores"]
    assert not heads["kept"].judged
    assert not heads["chosen"].judged
    assert heads["scores"].role == "probabilities"
    x = normal(5, 16)
    result = model.run(x)
    np.testing.assert_allclose(result["boxes"], (x @ normal(16, 40)).reshape(5, 10, 4), atol=1e-5)
    # The canonical form of a sigmoid is its logit.
    np.testing.assert_allclose(result["scores"], (x @ normal(16, 30)).reshape(5, 3, 10), atol=1e-2)
    assert write(model, make_plan(model, 3), tmp_path / "q.onnx").relative_error < 1e-5
    file = ort.InferenceSession(tmp_path / "q.onnx")
    assert [entry.name for entry in file.get_outputs()] == ["kept", "chosen"]


def test_any_inner_tensor_may_be_judged(tmp_path):
    model = read(saved(mlp(3), tmp_path))
    x = normal(4, 16)
    chosen = model.with_heads(
        [HeadChoice(name="r0", role="values", weight=2.0), HeadChoice(name="logits", role="ignore")]
    )
    assert [(head.name, head.role, head.weight) for head in chosen.heads] == [
        ("logits", "ignore", 1.0),
        ("r0", "values", 2.0),
    ]
    weight = model.weight("fc0")
    np.testing.assert_allclose(chosen.run(x), np.maximum(x @ weight, 0), atol=1e-5)
    # Weights behind it are layers still, and move nothing.
    assert [layer.name for layer in chosen.layers()] == ["fc0", "fc1", "fc2"]
    swept = list(chosen.sweep(x, [("fc0", 0, 2 * weight), ("fc2", 1, 5 * model.weight("fc2"))]))
    np.testing.assert_allclose(swept[0][2], np.maximum(2 * x @ weight, 0), atol=1e-5)
    np.testing.assert_allclose(swept[1][2], np.maximum(x @ weight, 0), atol=1e-5)
    assert {name for name, _, _ in chosen.taps(x)} == {"fc0", "fc1", "fc2"}
    # The model itself judges what it did.
    assert model.run(x).names == ("logits",)
    both = model.with_heads([HeadChoice(name="r0", role="values")]).run(x)
    assert both.names == ("logits", "r0")


def test_what_cannot_be_judged_is_said_in_one_line(tmp_path):
    model = read(saved(_behind([node("ArgMax", ["scores"], ["y"], axis=1)], {"y": INT}), tmp_path))
    with pytest.raises(RecordError, match="holds int64; only floating point can be judged"):
        model.with_heads([HeadChoice(name="y", role="classes")])
    with pytest.raises(AdapterError, match="has no output or tensor 'w'; its outputs are y"):
        model.with_heads([HeadChoice(name="w", role="values")])
    nothing = model.with_heads([HeadChoice(name="scores", role="ignore")])
    with pytest.raises(AdapterError, match="no output to judge"):
        nothing.run(normal(2, 16))
    assert [layer.name for layer in nothing.layers()] == ["w"]


def test_outputs_that_are_no_float_tensors_are_left_alone(tmp_path):
    """Texts, sequences and constants beside the logits; all of them stay in the written file."""
    nodes = [
        node("Identity", ["words"], ["text"]),
        node("SequenceConstruct", ["scores", "scores"], ["list"]),
        node("Identity", ["fixed"], ["constant"]),
        node("Identity", ["scores"], ["logits"]),
    ]
    words = helper.make_tensor("words", TensorProto.STRING, [2], [b"a", b"b"])
    proto = _behind(
        nodes, {"text": TensorProto.STRING, "logits": FLOAT}, {"words": words, "fixed": normal(3)}
    )
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, None))
    proto.graph.output.append(helper.make_value_info("list", kind))
    proto.graph.output.append(value("constant", FLOAT, [3]))
    model = read(saved(proto, tmp_path))
    assert {head.name: head.judged for head in model.heads} == {
        "text": False,
        "logits": True,
        "list": False,
        "constant": False,
    }
    x = normal(3, 16)
    np.testing.assert_allclose(model.run(x), x @ normal(16, 6), atol=1e-5)
    write(model, make_plan(model, 4), tmp_path / "q.onnx")
    names = [entry.name for entry in ort.InferenceSession(tmp_path / "q.onnx").get_outputs()]
    assert names == [output.name for output in proto.graph.output]


def test_all_float_outputs_are_compared_when_written(tmp_path):
    """Also one that is not judged: a wrong weight behind it alone is noticed."""
    nodes = [node("Identity", ["scores"], ["logits"]), node("MatMul", ["x", "v"], ["side"])]
    proto = _behind(nodes, {"logits": FLOAT, "side": FLOAT}, {"v": normal(16, 8)})
    model = read(saved(proto, tmp_path)).with_heads([HeadChoice(name="side", role="ignore")])
    assert model.run(normal(2, 16)).names == ("logits",)
    write(model, make_plan(model, 3), tmp_path / "q.onnx")
    x = normal(2, 16)
    found = dict(
        zip(("logits", "side"), ort.InferenceSession(tmp_path / "q.onnx").run(None, {"x": x}), strict=True)
    )
    np.testing.assert_allclose(found["side"], x @ rounded(model, 3)["v"], atol=1e-4)


def test_a_classifier_without_a_declared_shape_is_one(tmp_path):
    proto = mlp(2)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    (head,) = read(saved(proto, tmp_path)).heads
    assert (head.role, head.axis) == ("classes", -1)


@pytest.mark.parametrize("axes_as_input", [True, False])
def test_a_softmax_that_is_written_out_is_one(tmp_path, axes_as_input):
    """JAX exports exp(x - max) / sum(exp(x - max)), with reshapes between."""
    last = np.array([1])
    reduced = node("ReduceSum", ["e", *(["last"] if axes_as_input else [])], ["sum"], keepdims=0)
    if not axes_as_input:
        reduced.attribute.append(helper.make_attribute("axes", [-1]))
    nodes = [
        node("Exp", ["scores"], ["e"]),
        reduced,
        node("Unsqueeze", ["sum", *(["last"] if axes_as_input else [])], ["wide"]),
        node("Expand", ["wide", "shape"], ["whole"]),
        node("Div", ["e", "whole"], ["target"]),
    ]
    if not axes_as_input:
        nodes[2].attribute.append(helper.make_attribute("axes", [1]))
    proto = _behind(nodes, {"target": FLOAT}, {"last": last, "shape": np.array([1, 6])})
    proto.opset_import[0].version = 17 if axes_as_input else 12
    model = read(saved(proto, tmp_path))
    (head,) = model.heads
    assert (head.role, head.activated, head.axis) == ("classes", True, -1)
    x = normal(4, 16)
    logits, stock = np.asarray(model.run(x)), ort.InferenceSession(tmp_path / "model.onnx")
    np.testing.assert_allclose(np.exp(logits), stock.run(None, {"x": x})[0], atol=1e-5)


@pytest.mark.parametrize(
    ("nodes", "role"),
    [
        ([node("Sigmoid", ["one"], ["p"]), node("Mul", ["p", "half"], ["y"])], "values"),
        (
            [
                node("Sigmoid", ["one"], ["p"]),
                node("Div", ["p", "half"], ["q"]),
                node("Squeeze", ["q"], ["r"]),
                node("Add", ["half", "r"], ["y"]),
            ],
            "values",
        ),
        ([node("Sigmoid", ["one"], ["y"])], "probabilities"),
        # Neither of the two stands still.
        ([node("Sigmoid", ["one"], ["p"]), node("Mul", ["p", "one"], ["y"])], "probabilities"),
        ([node("Mul", ["one", "half"], ["y"])], "probabilities"),
    ],
)
def test_a_sigmoid_on_a_scale_of_its_own_is_a_number(tmp_path, nodes, role):
    """A rating from 1 to 5 is `4 * sigmoid(x) + 1`: no probability, and no logit."""
    first = node("ReduceMean", ["scores", "axes"], ["one"], keepdims=1)
    proto = _behind([first, *nodes], {"y": FLOAT}, {"half": ONE["half"], "axes": ONE["axes"]})
    shape = proto.graph.output[0].type.tensor_type.shape
    for dim in ("n", 1):
        shape.dim.add(**({"dim_value": dim} if isinstance(dim, int) else {"dim_param": dim}))
    (head,) = read(saved(proto, tmp_path)).heads
    assert head.role == role


def test_plans_say_what_could_not_be_judged(tmp_path):
    """A class that cannot be, and an output that never moves."""
    nodes = [
        node("Add", ["scores", "mask"], ["logits"]),
        node("Mul", ["scores", "zero"], ["still"]),
    ]
    constants = {"mask": np.array([0, 0, 0, 0, 0, -np.inf], np.float32), "zero": np.zeros(1, np.float32)}
    path = saved(_behind(nodes, {"logits": FLOAT, "still": FLOAT}, constants), tmp_path)
    heads = [HeadChoice(name="logits", role="classes"), HeadChoice(name="still", role="values")]
    model = read(path).with_heads(heads)
    data = np.random.default_rng(0).normal(size=(20, 16)).astype(np.float32)
    profile = lampq.profile(model, data, bits=(2, 8))
    assert np.isfinite(profile.kl).all()
    notes = " ".join(lampq.plan(profile, average_bits=8).notes)
    assert "output still is constant" in notes
    assert "20 of 120 values of output logits are infinite" in notes
