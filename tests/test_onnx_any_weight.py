"""Weights of every sort of operator: found, replaced, written and run, against the standard's own implementation."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_graphs import make_plan, rounded
from onnx_models import graph, if_model, normal, saved
from onnx_runs import read

from lampq.adapters.onnx.write import write

node = helper.make_node
FLAT = {"flat": np.array([0, -1])}


def _flat(value: str) -> onnx.NodeProto:
    return node("Reshape", [value, "flat"], ["y"])


def _recurrent(op: str, gates: int, ways: int) -> onnx.ModelProto:
    how = "bidirectional" if ways == 2 else "forward"
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        node(op, ["t", "w", "r"], ["h"], hidden_size=6, direction=how),
        node("Transpose", ["h"], ["u"], perm=[2, 0, 1, 3]),
        _flat("u"),
    ]
    weights = {"w": normal(ways, gates * 6, 16) / 4, "r": normal(ways, gates * 6, 6) / 4} | FLAT
    return graph(nodes, weights, inputs={"x": ["n", 3, 16]}, outputs={"y": ["n", None]}, opset=21)


def _loop() -> onnx.ModelProto:
    """Three times the same product, with a weight of the body's own and one of the graph."""
    value, flag = helper.make_tensor_value_info, node("Identity", ["go"], ["on"])
    body = helper.make_graph(
        [
            flag,
            node("MatMul", ["h", "own"], ["m"]),
            node("MatMul", ["m", "outer"], ["k"]),
            node("Tanh", ["k"], ["o"]),
        ],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("h", TensorProto.FLOAT, ["n", 16]),
        ],
        [value("on", TensorProto.BOOL, []), value("o", TensorProto.FLOAT, ["n", 16])],
        [numpy_helper.from_array(normal(16, 16) / 4, "own")],
    )
    nodes = [node("Loop", ["three", "yes", "x"], ["y"], body=body)]
    weights = {"three": np.array(3), "yes": np.array(True), "outer": normal(16, 16, seed=1) / 4}
    return graph(nodes, weights, inputs={"x": ["n", 16]}, outputs={"y": ["n", 16]})


def _added() -> onnx.ModelProto:
    nodes = [node("Add", ["x", "table"], ["a"]), node("MatMul", ["a", "w"], ["b"]), _flat("b")]
    weights = {"table": normal(1, 256, 16), "w": normal(16, 8)} | FLAT
    return graph(nodes, weights, inputs={"x": ["n", 256, 16]}, outputs={"y": ["n", 2048]})


def _normalized() -> onnx.ModelProto:
    """A direction and a length, as weight normalization exports them."""
    nodes = [
        node("ReduceL2", ["v", "axis"], ["norm"], keepdims=1),
        node("Div", ["v", "norm"], ["unit"]),
        node("Mul", ["unit", "g"], ["w"]),
        node("MatMul", ["x", "w"], ["y"]),
    ]
    weights = {"v": normal(64, 64), "g": normal(1, 64), "axis": np.array([0])}
    return graph(nodes, weights, inputs={"x": ["n", 64]}, outputs={"y": ["n", 64]})


def _one(op: str, weight: np.ndarray, shape: list, inputs=("x", "w"), **attributes) -> onnx.ModelProto:
    nodes = [node(op, list(inputs), ["h"], **attributes), _flat("h")]
    return graph(nodes, {"w": weight} | FLAT, inputs={"x": ["n", *shape]}, outputs={"y": ["n", None]})


def _looked_up(axis: int) -> onnx.ModelProto:
    table = normal(512, 8) if axis == 0 else normal(8, 512)
    nodes = [node("Gather", ["w", "x"], ["h"], axis=axis)]
    nodes.append(node("Transpose", ["h"], ["t"], perm=[0, 1, 2] if axis == 0 else [1, 2, 0]))
    nodes.append(_flat("t"))
    return graph(
        nodes,
        {"w": table} | FLAT,
        inputs={"x": ["n", 5]},
        outputs={"y": ["n", 40]},
        input_type=TensorProto.INT64,
    )


# name: model, what its layers are: name, form, shape, channel axis
KINDS = {
    "LSTM": (
        _recurrent("LSTM", 4, 2),
        [("w", "recurrent", (2, 24, 16), 1), ("r", "recurrent", (2, 24, 6), 1)],
    ),
    "GRU": (_recurrent("GRU", 3, 1), [("w", "recurrent", (1, 18, 16), 1), ("r", "recurrent", (1, 18, 6), 1)]),
    "RNN": (_recurrent("RNN", 1, 1), [("w", "recurrent", (1, 6, 16), 1)]),
    "embedding": (_looked_up(0), [("w", "lookup", (512, 8), 0)]),
    "table looked up along its columns": (_looked_up(1), [("w", "lookup", (8, 512), 1)]),
    "table that is added": (_added(), [("table", "other", (1, 256, 16), 1), ("w", "linear", (16, 8), 1)]),
    "normalized weight": (_normalized(), [("v", "other", (64, 64), 0)]),
    "matrix per head": (_one("MatMul", normal(4, 16, 8), [4, 3, 16]), [("w", "product", (4, 16, 8), 2)]),
    "einsum": (
        _one("Einsum", normal(4, 16, 8), [3, 16], equation="nti,hio->nhto"),
        [("w", "product", (4, 16, 8), 2)],
    ),
    "depthwise conv": (
        _one("Conv", normal(8, 1, 3, 3), [8, 5, 5], group=8),
        [("w", "conv", (8, 1, 3, 3), 0)],
    ),
    "conv over three axes": (
        _one("Conv", normal(4, 2, 2, 3, 2), [2, 3, 4, 3]),
        [("w", "conv", (4, 2, 2, 3, 2), 0)],
    ),
    "transposed conv in groups": (
        _one("ConvTranspose", normal(8, 3, 2, 2), [8, 4, 4], group=2, strides=[2, 2]),
        [("w", "product", (8, 3, 2, 2), 0)],
    ),
    "loop": (_loop(), [("own", "linear", (16, 16), 1), ("outer", "linear", (16, 16), 1)]),
    "branch": (if_model(), [("w", "linear", (16, 16), 1), ("inner", "linear", (16, 12), 1)]),
}


def _inputs(model: onnx.ModelProto, samples: int = 2) -> np.ndarray:
    value = model.graph.input[0].type.tensor_type
    shape = [samples, *(d.dim_value for d in value.shape.dim[1:])]
    if value.elem_type == TensorProto.INT64:
        return np.random.default_rng(0).integers(0, 512, shape)
    return normal(*shape, seed=4)


def _with(model: onnx.ModelProto, weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """A copy with other numbers in some initializers, those of bodies included."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    graphs = [copy.graph, *(a.g for n in copy.graph.node for a in n.attribute if a.HasField("g"))]
    for tensor in (t for g in graphs for t in g.initializer):
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name].astype(np.float32), tensor.name))
    return copy


def _reference(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    if any(n.op_type == "ConvTranspose" for n in model.graph.node):
        # Which onnx's own implementation cannot compute in groups.
        return ort.InferenceSession(model.SerializeToString()).run(["y"], {"x": x})[0]
    return ReferenceEvaluator(model).run(["y"], {"x": x})[0]


@pytest.mark.parametrize("name", KINDS)
def test_weights_of_every_kind_are_found_replaced_and_written(tmp_path, name):
    proto, expected = KINDS[name]
    onnx.checker.check_model(proto)
    model = read(saved(proto, tmp_path))
    sites = [
        (site.weight.name, site.form, site.shape, site.channel_axis) for site in model.variant.opened.sites
    ]
    assert sites == expected
    x = _inputs(proto)
    np.testing.assert_allclose(model.run(x), _reference(proto, x), atol=2e-5)

    stored = {site.name: site.weight.name for site in model.variant.opened.sites}
    new = {layer.name: model.weight(layer.name) * np.float32(1.5) for layer in model.layers()}
    swept = model.sweep(x, [(layer, 0, array) for layer, array in new.items()])
    for layer, _, outputs in swept:
        right = _reference(_with(proto, {stored[layer]: new[layer]}), x)
        np.testing.assert_allclose(outputs, right, atol=1e-4)
    tapped = {layer for layer, _, _ in model.taps(x)}
    assert tapped == {
        site.name
        for site in model.variant.opened.sites
        if site.form in ("linear", "conv", "conv_transpose") and name not in ("loop", "branch")
    } | ({"w"} if name == "branch" else set())

    plan = make_plan(model, 3)
    written = write(model, plan, tmp_path / "q.onnx")
    assert written.relative_error < 1e-5
    whole = _with(proto, {stored[layer]: array for layer, array in rounded(model, 3).items()})
    loaded = onnx.load(tmp_path / "q.onnx")
    np.testing.assert_allclose(_reference(loaded, x), _reference(whole, x), atol=1e-4)
    payload = sum(model.payload_bytes(layer, 3, "bitplane") for layer in model.layers())
    assert written.size_bytes <= payload + model.rest_bytes()
    assert written.size_bytes < (tmp_path / "model.onnx").stat().st_size or payload < 2000


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_narrow_floats_are_written_back_in_their_own_type(tmp_path, kind):
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    weight = (normal(16, 12) / 4).astype(dtype)
    stored = helper.make_tensor("w", kind, weight.shape, weight.tobytes(), raw=True)
    nodes = [
        node("Cast", ["w"], ["wide"], to=TensorProto.FLOAT),
        node("MatMul", ["x", "wide"], ["y"]),
    ]
    proto = graph(nodes, {"w": stored}, inputs={"x": ["n", 16]}, outputs={"y": ["n", 12]})
    model = read(saved(proto, tmp_path))
    written = write(model, make_plan(model, 4), tmp_path / "q.onnx")
    assert written.relative_error < 1e-5
    x = normal(3, 16)
    (layer,) = model.layers()
    narrow = rounded(model, 4)[layer.name].astype(dtype).astype(np.float32)
    again = read(tmp_path / "q.onnx")
    np.testing.assert_allclose(again.run(x), x @ narrow, atol=1e-5)
    (cast,) = [
        n
        for n in onnx.load(tmp_path / "q.onnx").graph.node
        if n.op_type == "Cast" and n.attribute[0].i == kind
    ]
    assert cast.output
