"""The ONNX graph in PyTorch, operator by operator and whole, against ONNX Runtime; its traces against those of
the module it was exported from."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper
from onnx_models import exported, graph, mlp, module, normal, saved
from torch_models import fisher_of

from lampq.adapters.autograd.batched import Batched
from lampq.adapters.onnx import read
from lampq.adapters.onnx.gradients import TorchGraph, obstacle
from lampq.adapters.onnx.torch_ops import OPERATORS
from lampq.adapters.torch.model import TorchModel
from lampq.adapters.torch.provenance import Provenance
from lampq.adapters.torch.runtime import Runtime
from lampq.core.measuring.reference import measure_reference
from lampq.core.measuring.traces import measure_traces
from lampq.core.readouts.draws import Draws
from lampq.core.readouts.readout import Readout
from lampq.core.values.batch import Batch
from lampq.core.values.errors import NoGradientsError
from lampq.core.values.head import HeadChoice


def traced(model, sample):
    """The only judged output of a model as the interpreter gives it, not brought into canonical form."""
    (head,) = model.heads
    plain = model.with_heads([HeadChoice(name=head.name, role="values")])
    (output,) = TorchGraph(plain.variant)({"x": torch.from_numpy(sample)}).values()
    return output.detach().numpy()


def traces_of(model, batch, **options):
    return model.fisher(batch, fitted(model, batch), Draws(**options)).weight


def fitted(model, batch):
    return Readout.fit(model.heads, model.run(batch), None)


def ints(*values):
    array = np.array(values, np.int64)
    return array[0] if array.ndim > 1 else array


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


def single(tmp_path, name, shape, more, attributes):
    """One operator between an input of one sample and one output."""
    weights = {f"c{index}": np.asarray(value) for index, value in enumerate(more) if value is not None}
    names = ["" if value is None else f"c{index}" for index, value in enumerate(more)]
    node = helper.make_node(name, ["x", *names], ["y"], **attributes)
    flat = helper.make_node("Flatten", ["y"], ["logits"], axis=0)
    built = graph([node, flat], weights, inputs={"x": [1, *shape]}, outputs={"logits": [1, None]}, opset=22)
    return saved(built, tmp_path)


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


def test_gradients_reach_the_weights_of_every_head_through_every_input(tmp_path):
    """Two inputs, two heads, each product in closed form: a head of numbers on the scale of its own spread."""
    nodes = [
        helper.make_node("MatMul", ["a", "w"], ["left"]),
        helper.make_node("MatMul", ["b", "v"], ["right"]),
        helper.make_node("Sigmoid", ["right"], ["chances"]),
    ]
    weights = {"w": normal(16, 4), "v": normal(8, 8)}
    shapes = {"inputs": {"a": ["n", 16], "b": ["n", 8]}, "outputs": {"left": ["n", 4], "chances": ["n", 8]}}
    model = read(saved(graph(nodes, weights, **shapes), tmp_path))
    model = model.with_heads([HeadChoice(name="left", role="classes")])
    batch = Batch.of({"a": normal(5, 16), "b": normal(5, 8)})
    reference = measure_reference(model, batch)
    traces = model.fisher(batch, reference.readout, Draws(count=400, seed=1)).weight
    logits = batch["a"].astype(np.float64) @ weights["w"]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    left = ((batch["a"] ** 2).sum(1) * (p * (1 - p)).sum(1)).mean()
    chances = 1 / (1 + np.exp(-batch["b"].astype(np.float64) @ weights["v"]))
    right = ((batch["b"] ** 2).sum(1) * (chances * (1 - chances)).sum(1)).mean()
    assert traces["w"] == pytest.approx(left, rel=0.1)
    assert traces["v"] == pytest.approx(right, rel=0.1)


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


@pytest.mark.parametrize(("name", "exporter"), [("vit", "dynamo"), ("encoder", "legacy"), ("conv", "dynamo")])
def test_whole_models_have_the_traces_of_their_module(name, exporter):
    model = read(exported(name, exporter))
    batch = normal(3, 3, 16, 16, seed=2)
    found = traces_of(model, batch, labels="exact")
    runtime = Runtime(module(name), name=name, input_shape=(3, 16, 16))
    original = TorchModel.of(runtime, Provenance(path=exported(name, exporter)))
    expected = fisher_of(original, batch, labels="exact").traces()
    if name == "conv":
        # The exporter has folded a normalization into the stem, and `up` is no layer of the module.
        found, expected = (
            {n: v for n, v in t.items() if n not in ("stem.0", "up")} for t in (found, expected)
        )
    assert len(found) == len(expected)
    np.testing.assert_allclose(sorted(found.values()), sorted(expected.values()), rtol=1e-3)


def test_a_fixed_batch_is_filled_up_and_its_filling_does_not_count():
    model, batch = read(exported("conv", "dynamo", batch=2)), normal(3, 3, 16, 16, seed=2)
    free = traces_of(read(exported("conv", "dynamo")), batch, labels="exact")
    found = traces_of(model, batch, labels="exact")
    np.testing.assert_allclose(list(found.values()), list(free.values()), rtol=1e-4)


def test_float16_weights_and_probabilities_as_output(tmp_path):
    """The leaf of a narrow weight is float32; a softmax at the end changes no prediction."""
    weight = normal(16, 5).astype(np.float16)
    nodes = [
        helper.make_node("Cast", ["w"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "wide"], ["y"]),
    ]
    ends = [helper.make_node("Identity", ["y"], ["logits"]), helper.make_node("Softmax", ["y"], ["logits"])]
    found = []
    for index, end in enumerate(ends):
        built = graph([*nodes, end], {"w": weight}, inputs={"x": ["n", 16]}, outputs={"logits": ["n", 5]})
        model = read(saved(built, tmp_path, f"{index}.onnx"))
        found.append(traces_of(model, normal(4, 16), labels="exact"))
    # In closed form: the gradient of log p_c in W is x (e_c - p)^T.
    x, logits = normal(4, 16).astype(np.float64), normal(4, 16) @ weight.astype(np.float32)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = ((x**2).sum(1) * (1 - (p**2).sum(1))).mean()
    for traces in found:
        assert list(traces.values()) == [pytest.approx(expected, rel=1e-4)]


def test_samples_draw_the_same_in_any_shard(tmp_path):
    model, batch = read(saved(mlp(), tmp_path)), normal(5, 16)
    whole = traces_of(model, batch, count=1, labels="probe", seed=3)
    parts = [
        traces_of(model, batch[i::2], count=1, labels="probe", seed=3, samples=np.arange(5)[i::2])
        for i in range(2)
    ]
    for name, value in whole.items():
        assert value == pytest.approx((3 * parts[0][name] + 2 * parts[1][name]) / 5, rel=1e-6)


def test_labels_of_the_data_give_the_empirical_traces(tmp_path):
    model, batch = read(saved(mlp(layers=1), tmp_path)), normal(4, 16)
    truth = np.array([0, 3, 1, 1])
    found = measure_traces(model, measure_reference(model, batch), Draws(truth=truth))
    logits = np.asarray(model.run(batch)).astype(np.float64)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    residual = np.eye(4)[truth] - p
    expected = ((batch.astype(np.float64) ** 2).sum(1) * (residual**2).sum(1)).mean()
    assert found.kind == "empirical"
    assert list(found.weight.values()) == [pytest.approx(expected, rel=1e-4)]


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


def test_an_interpreter_that_disagrees_is_not_believed(tmp_path, monkeypatch):
    model = read(saved(mlp(), tmp_path))
    monkeypatch.setitem(OPERATORS, "Relu", lambda call: call.tensor(0).clamp_min(-0.1))
    found = measure_traces(model, measure_reference(model, normal(2, 16)))
    assert found.kind == "forward"
    assert "from the runtime's" in found.note


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


def rows_of_every_layer(model, batch):
    """Rows of random changes of every layer, which a model either takes by batches or sample by sample."""
    rng = np.random.default_rng(3)
    changed = {
        layer.name: ([model.weight(layer.name) + rng.normal(size=layer.shape).astype(np.float32)], [None])
        for layer in model.layers()
    }
    draws = Draws(labels="exact", count=3)
    blocks = list(model.gradient_rows(batch, changed, fitted(model, batch), draws))
    return {name: np.concatenate([block[name] for block in blocks]) for name in changed}


def check_batches(model, batch, monkeypatch):
    """Batches are taken, and give what single samples give."""
    ways, batched = [], Batched.of
    monkeypatch.setattr(Batched, "of", lambda *args: ways.append(batched(*args)) or ways[-1])
    together = rows_of_every_layer(model, batch)
    assert ways[-1] is not None
    monkeypatch.setattr(Batched, "of", lambda *_: None)
    alone = rows_of_every_layer(model, batch)
    for layer, expected in alone.items():
        np.testing.assert_allclose(
            together[layer], expected, atol=2e-5 * np.abs(expected).max(), err_msg=layer
        )


@pytest.mark.parametrize(("name", "exporter"), [("vit", "dynamo"), ("encoder", "legacy"), ("conv", "dynamo")])
def test_batches_give_the_gradients_of_single_samples(name, exporter, monkeypatch):
    model = read(exported(name, exporter))
    check_batches(model, Batch.of(normal(5, 3, 16, 16, seed=2), name=model.input_specs[0].name), monkeypatch)


def test_samples_of_several_lengths_come_by_batches_too(tmp_path, monkeypatch):
    weights = {"w": normal(8, 32), "v": normal(32, 16, seed=1), "second": np.array([1])}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Tanh", ["h"], ["a"]),
        helper.make_node("ReduceMean", ["a", "second"], ["pooled"], keepdims=0),
        helper.make_node("MatMul", ["pooled", "v"], ["logits"]),
    ]
    made = graph(nodes, weights, inputs={"x": ["batch", "length", 8]}, outputs={"logits": ["batch", 16]})
    groups = [{"x": normal(3, 5, 8, seed=2)}, {"x": normal(2, 7, 8, seed=3)}]
    check_batches(read(saved(made, tmp_path)), Batch(groups), monkeypatch)


def test_samples_that_mix_are_taken_one_at_a_time(tmp_path):
    weights = {"w": normal(8, 32), "v": normal(32, 16, seed=1), "first": np.array([0])}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("ReduceMean", ["h", "first"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["h", "mean"], ["centred"]),
        helper.make_node("Tanh", ["centred"], ["a"]),
        helper.make_node("MatMul", ["a", "v"], ["logits"]),
    ]
    made = graph(nodes, weights, inputs={"x": ["batch", 8]}, outputs={"logits": ["batch", 16]})
    model, batch = read(saved(made, tmp_path)), Batch.of(normal(4, 8, seed=2), name="x")
    assert len(model.layers()) == 2
    assert Batched.of(TorchGraph(model.variant), model.heads, batch, None) is None


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
