"""Reading ONNX: which weights are found, their names and channel axes, and which files are refused."""

from __future__ import annotations

import hashlib
import pickle
import zipfile

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_models import exported, graph, mlp, module, normal, saved

from lampq import adapters
from lampq.adapters.onnx import naming, read
from lampq.adapters.onnx.container import Container
from lampq.adapters.onnx.outline import outline
from lampq.core.errors import AdapterError, LampqError
from lampq.core.fingerprint import Fingerprint

node = helper.make_node

EXPORTS = [
    ("vit", "dynamo"),
    ("vit", "legacy"),
    ("encoder", "dynamo"),
    ("encoder", "legacy"),
    ("encoder_plain", "legacy"),
    ("conv", "dynamo"),
    ("conv", "legacy"),
]
_TRANSFORMER = ["patch_embed", *["qkv", "proj", "fc1", "fc2"] * 2, "head"]
KINDS = {
    "vit": _TRANSFORMER,
    "encoder": _TRANSFORMER,
    "encoder_plain": _TRANSFORMER,
    "conv": ["patch_embed", "conv", "conv", "conv", "fc1", "head"],
}


def parameters(name: str) -> dict[str, np.ndarray]:
    """Weights of a torch model by module path, the packed one of nn.MultiheadAttention as its `in_proj`."""
    return {
        key.removesuffix("weight").rstrip("._"): value.detach().numpy()
        for key, value in module(name).named_parameters()
        if value.ndim >= 2 and key.endswith("weight")
    }


# ---- exports of torch ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "exporter"), EXPORTS)
def test_exports_give_the_names_kinds_and_weights_of_the_torch_modules(name, exporter):
    model = read(exported(name, exporter))
    expected = parameters(name)
    layers = model.layers()
    assert [layer.name for layer in layers] == list(expected)
    assert [layer.kind for layer in layers] == KINDS[name]
    assert model.skipped == ()
    for layer in layers:
        weight, truth = model.weight(layer.name), expected[layer.name]
        assert weight.dtype == np.float32
        assert layer.shape == weight.shape
        if layer.name.startswith("stem"):
            continue  # Its batch normalization is folded in.
        # Channel by channel the same numbers; torch keeps channels second in a transposed convolution only.
        rows = np.moveaxis(truth, 1 if layer.name == "up" else 0, 0).reshape(layer.channels, -1)
        mine = np.moveaxis(weight, layer.channel_axis, 0).reshape(layer.channels, -1)
        np.testing.assert_array_equal(mine, rows)
        assert layer.fingerprint.matches(Fingerprint.from_array(truth))


@pytest.mark.parametrize(("name", "exporter"), [e for e in EXPORTS if e[0] != "conv"])
def test_positions_in_the_graph_tell_the_same_kinds_as_names(name, exporter):
    from lampq.adapters.onnx import roles

    opened = read(exported(name, exporter))._opened
    assert roles.positions(opened.flow, opened.sites) == KINDS[name]


@pytest.mark.parametrize(("name", "exporter"), [("vit", "dynamo"), ("encoder", "legacy"), ("conv", "dynamo")])
def test_multiply_accumulates_follow_from_the_architecture(name, exporter):
    layers = {layer.name: layer for layer in read(exported(name, exporter)).layers()}
    positions = {key: layer.macs // layer.size for key, layer in layers.items()}
    if name == "conv":
        # Output pixels; the transposed convolution uses each weight once per input pixel.
        assert list(positions.values()) == [64, 64, 64, 16, 1, 1]
    else:
        tokens = 17 if name == "vit" else 16
        assert list(positions.values()) == [16, *[tokens] * 8, 1]


def test_bytes_and_digest_are_those_of_the_file():
    path = exported("vit", "dynamo")
    model = read(path)
    assert model.file_bytes() == path.stat().st_size
    assert model.digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_input_is_described():
    spec = read(exported("vit", "legacy")).input_spec
    assert (spec.name, spec.shape, spec.dtype) == ("x", (None, 3, 16, 16), "float32")


def test_kinds_can_be_set_by_pattern():
    model = read(exported("vit", "dynamo"), kinds={"blocks.*.attn.*": "linear", "head": "fc2"})
    kinds = {layer.name: layer.kind for layer in model.layers()}
    assert kinds["blocks.1.attn.qkv"] == "linear"
    assert kinds["head"] == "fc2"
    assert kinds["patch_embed.proj"] == "patch_embed"
    with pytest.raises(AdapterError, match="matches no layer"):
        read(exported("vit", "dynamo"), kinds={"nowhere": "fc1"})


# ---- names -----------------------------------------------------------------------------------------------

CALL = "pkg.torch.onnx.fx_node"
SCOPES = "pkg.torch.onnx.name_scopes"


@pytest.mark.parametrize(
    ("weight", "place", "metadata", "expected"),
    [
        ("head.weight", "", {}, "head"),
        ("attn.in_proj_weight", "", {}, "attn.in_proj"),
        ("resnet_conv0_weight", "", {}, "resnet_conv0"),
        ("onnx::MatMul_7", "/blocks/blocks.0/attn/qkv/MatMul", {}, "blocks.0.attn.qkv"),
        (
            "onnx::MatMul_7",
            "/vit/encoder/layer.3/output/dense/MatMul_1",
            {},
            "vit.encoder.layer.3.output.dense",
        ),
        ("val_3", "node_MatMul", {SCOPES: "['', 'a', 'a.b', 'linear_3']"}, "a.b"),
        (
            "val_3",
            "node_MatMul",
            {SCOPES: "['', 'linear']", CALL: "%linear(args = (%x, %p_w_weight, ))"},
            "w",
        ),
        (
            "val_3",
            "n",
            {SCOPES: "['', 'a.b', 'l']", CALL: "(args = (%x, %p_a_b_in_proj_weight, %b))"},
            "a.b.in_proj",
        ),
        ("val_3", "n", {SCOPES: "['', 'a.b', 'l']", CALL: "(args = (%x, %p_other_weight))"}, "a.b"),
        ("val_3", "n", {SCOPES: "['', \"getattr(L['self'].blocks, '0').attn\", 'linear']"}, "blocks.0.attn"),
        ("val_3", "n", {SCOPES: "['', \"L['self'].blocks._modules['0'].fc\", 'linear']"}, "blocks.0.fc"),
        ("val_3", "n", {SCOPES: "not a list"}, "n"),
        ("w_0", "", {}, "w_0"),
        ("model/dense/MatMul/ReadVariableOp:0", "model/dense/MatMul", {}, "model.dense"),
        ("val_3", "", {}, "val_3"),
    ],
)
def test_names_come_from_whatever_the_exporter_left(tmp_path, weight, place, metadata, expected):
    op = node("MatMul", ["x", weight], ["y"], name=place)
    for key, value in metadata.items():
        op.metadata_props.add(key=key, value=value)
    model = graph([op], {weight: normal(16, 12)}, inputs={"x": [2, 16]}, outputs={"y": [2, 12]})
    assert [layer.name for layer in read(saved(model, tmp_path)).layers()] == [expected]


def test_a_bias_lends_its_full_path_only_where_it_belongs(tmp_path):
    nodes, weights, value = [], {}, "x"
    for index, bias in enumerate(["patch_embed.proj.bias", "blocks.0.fc.bias"]):
        weights[f"onnx::MatMul_{index}"] = normal(16, 16, seed=index)
        weights[bias] = normal(16)
        nodes.append(node("MatMul", [value, f"onnx::MatMul_{index}"], [f"m{index}"], name="/proj/MatMul"))
        nodes.append(node("Add", [f"m{index}", bias], [f"a{index}"]))
        value = f"a{index}"
    model = graph(nodes, weights, inputs={"x": [2, 16]}, outputs={"a1": [2, 16]})
    assert [layer.name for layer in read(saved(model, tmp_path)).layers()] == ["patch_embed.proj", "proj"]


def test_equal_names_are_numbered_in_order():
    assert naming.distinguish(["a", "b", "a", "a.0", "a"]) == ["a.1", "b", "a.2", "a.0", "a.3"]
    assert naming.distinguish([]) == []


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
    opened = read(saved(model, tmp_path), output="y")
    (layer,) = opened.layers()
    (site,) = opened.sites
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
    assert opened.run(normal(2, 16)).shape == (2, 12)


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


def test_embedding_tables_only_on_request_unless_tied(tmp_path):
    nodes = [
        node("Gather", ["table", "x"], ["e"], name="/embed/Gather"),
        node("ReduceMean", ["e", "axes"], ["m"], keepdims=0),
        node("MatMul", ["m", "w"], ["y"]),
    ]
    weights = {"table": normal(30, 16), "w": normal(16, 12), "axes": np.array([1])}
    options = {"inputs": {"x": [2, 5]}, "input_type": TensorProto.INT64}
    path = saved(graph(nodes, weights, outputs={"y": [2, 12]}, **options), tmp_path)
    model = read(path)
    assert [layer.name for layer in model.layers()] == ["w"]
    assert model.skipped == (("embed", "an embedding table; ask for it with embeddings=True"),)
    asked = read(path, embeddings=True)
    assert [(la.name, la.kind, la.channel_axis, la.macs) for la in asked.layers()] == [
        ("embed", "embedding", 0, 0),
        ("w", "head", 1, 192),
    ]
    assert {name for name, _, _ in asked.taps(np.array([[1, 2, 3, 4, 5]] * 2))} == {"w"}

    nodes[2:] = [node("Transpose", ["table"], ["t"], perm=[1, 0]), node("MatMul", ["m", "t"], ["y"])]
    tied = read(saved(graph(nodes, weights, outputs={"y": [2, 30]}, **options), tmp_path))
    (layer,) = tied.layers()
    assert (layer.shape, layer.channel_axis, layer.kind, len(layer.shares)) == ((30, 16), 0, "head", 1)


def _if_model() -> onnx.ModelProto:
    def branch(name: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([node("MatMul", ["h", "inner"], [name])], name, [], [out])

    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("ReduceSum", ["x"], ["s"], keepdims=0),
        node("Greater", ["s", "zero"], ["c"]),
        node("If", ["c"], ["y"], then_branch=branch("t"), else_branch=branch("e")),
    ]
    weights = {"w": normal(16, 16), "inner": normal(16, 12), "zero": np.float32(0).reshape(())}
    return graph(nodes, weights, inputs=X, outputs={"y": [2, 12]})


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
    "inside the body of a If": _if_model(),
    "already quantized": _dequantized(
        {"i": CODES, "s": np.float32([0.1]).reshape(())}, node("DequantizeLinear", ["i", "s"], ["q"])
    ),
    "already quantized, by arithmetic": _dequantized(
        {"i": CODES, "s": normal(12)},
        node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        node("Mul", ["f", "s"], ["q"]),
    ),
    "computed by Reshape": _two(
        [node("Reshape", ["v", "s"], ["u"]), node("MatMul", ["x", "u"], ["h"])],
        {"v": normal(192), "s": np.array([16, 12])},
    ),
    "a weight of Einsum": _two(
        node("Einsum", ["x", "v"], ["h"], equation="ij,jk->ik"), {"v": normal(16, 12)}
    ),
    "a recurrent weight (GRU)": _two(
        [node("GRU", ["x", "v", "r"], ["g"], hidden_size=12), node("Squeeze", ["g", "one"], ["h"])],
        {"v": normal(1, 36, 16), "r": normal(1, 36, 12), "one": np.array([1])},
        shape=(3, 2, 8),
        inputs={"x": [3, 2, 16]},
    ),
    "a ConvTranspose with groups": _two(
        node("ConvTranspose", ["x", "v"], ["h"], group=2),
        {"v": normal(4, 8, 1, 4)},
        9,
        (2, 16, 6, 8),
        inputs=IMAGE,
    ),
    "a batched matrix": _two(
        node("MatMul", ["x", "v"], ["h"]), {"v": normal(2, 16, 12)}, 12, (2, 2, 8), inputs={"x": [2, 2, 16]}
    ),
    "only 48 weights": _two(node("MatMul", ["x", "v"], ["h"]), {"v": normal(4, 12)}, inputs={"x": [2, 4]}),
    "also used by Mul": _two(
        [node("MatMul", ["x", "v"], ["m"]), node("Mul", ["m", "v"], ["h"])],
        {"v": normal(16, 16)},
        16,
        inputs={"x": [16, 16]},
    ),
    "does not influence": graph(
        [node("MatMul", ["x", "v"], ["z"]), node("MatMul", ["x", "w"], ["logits"])],
        {"v": normal(16, 5), "w": normal(16, 8)},
        inputs=X,
        outputs={"z": [2, 5], "logits": [2, 8]},
    ),
}


@pytest.mark.parametrize("reason", SKIPPED)
def test_other_weights_are_left_alone_for_a_reason(tmp_path, reason):
    model = SKIPPED[reason]
    onnx.checker.check_model(model)
    opened = read(saved(model, tmp_path), output=model.graph.output[-1].name)
    assert [layer.name for layer in opened.layers()] == ["w"]
    assert len(opened.skipped) >= 1
    assert all(found.startswith(reason.partition(",")[0]) for _, found in opened.skipped)
    # What is left alone still runs, whole and in parts.
    x = normal(*opened.input_spec.shape)
    output = model.graph.output[-1]
    if len(output.type.tensor_type.shape.dim) != 2:
        with pytest.raises(AdapterError, match="gives an output of shape"):
            opened.run(x)
        return
    expected = ReferenceEvaluator(model).run([output.name], {"x": x})[0]
    # ONNX Runtime multiplies weights behind DequantizeLinear by inputs that it rounds to 8 bits.
    tolerance = 0.02 if reason == "already quantized" else 1e-5
    same = opened.with_weights({"w": opened.weight("w")})
    for model in (opened, same):
        assert np.linalg.norm(model.run(x) - expected) <= tolerance * np.linalg.norm(expected)


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


def test_a_model_without_layers_can_be_opened_but_has_no_records(tmp_path):
    model = graph([node("Relu", ["x"], ["y"])], {}, inputs=X, outputs={"y": [2, 16]})
    opened = read(saved(model, tmp_path))
    assert opened.run(-np.ones((2, 16), np.float32)).tolist() == np.zeros((2, 16)).tolist()
    with pytest.raises(AdapterError, match="no layer that can be quantized"):
        opened.layers()


# ---- files -----------------------------------------------------------------------------------------------


def test_the_outline_holds_no_large_tensor_and_gives_back_every_byte():
    data = exported("vit", "dynamo").read_bytes()
    short = outline(memoryview(data), "me")
    assert len(short) < len(data)
    original, rest = onnx.ModelProto.FromString(data), onnx.ModelProto.FromString(short)
    for tensor in rest.graph.initializer:
        truth = next(t for t in original.graph.initializer if t.name == tensor.name)
        if tensor.data_location == TensorProto.EXTERNAL:
            entries = {e.key: e.value for e in tensor.external_data}
            start, size = int(entries["offset"]), int(entries["length"])
            assert entries["location"] == "me"
            assert data[start : start + size] == truth.raw_data
            tensor.raw_data = truth.raw_data
            del tensor.external_data[:]
            tensor.ClearField("data_location")
        else:
            assert len(truth.raw_data) < 1024
    assert rest == original


@pytest.mark.parametrize("field", ["raw", "float_data", "int32_data"])
def test_tensors_are_read_whatever_field_holds_them(tmp_path, field):
    model, weight = mlp(1), normal(16, 100)
    if field == "raw":
        tensor = numpy_helper.from_array(weight, "fc0.weight")
    elif field == "float_data":
        tensor = helper.make_tensor("fc0.weight", TensorProto.FLOAT, weight.shape, weight.ravel().tolist())
        assert tensor.float_data
    else:
        weight = weight.astype(np.float16)
        tensor = helper.make_tensor("fc0.weight", TensorProto.FLOAT16, weight.shape, weight.ravel().tolist())
        assert tensor.int32_data
        cast = node("Cast", ["x"], ["c"], to=TensorProto.FLOAT16)
        back = node("Cast", ["z"], ["logits"], to=TensorProto.FLOAT)
        del model.graph.node[:]
        model.graph.node.extend([cast, node("MatMul", ["c", "fc0.weight"], ["z"]), back])
    model.graph.initializer[0].CopyFrom(tensor)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 100
    opened = read(saved(model, tmp_path))
    np.testing.assert_array_equal(opened.weight("fc0"), weight.astype(np.float32))


def _external(folder, **changes: str):
    """An MLP with its data beside it, and the entries of its first tensor changed."""
    path = folder / "model.onnx"
    onnx.save_model(
        mlp(2),
        path,
        save_as_external_data=True,
        location="data.bin",
        size_threshold=0,
        convert_attribute=False,
    )
    model = onnx.load(path, load_external_data=False)
    for key, value in changes.items():
        entries = [e for e in model.graph.initializer[0].external_data if e.key == key]
        (entries or [model.graph.initializer[0].external_data.add(key=key)])[0].value = value
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_is_read_hashed_and_counted(tmp_path):
    path = _external(tmp_path)
    model = read(path)
    plain = mlp(2)
    for tensor in plain.graph.initializer:
        stem = tensor.name.removesuffix(".weight")
        np.testing.assert_array_equal(model.weight(stem), numpy_helper.to_array(tensor))
    data = (tmp_path / "data.bin").read_bytes()
    assert model.digest == hashlib.sha256(path.read_bytes() + data).hexdigest()
    assert model.file_bytes() == path.stat().st_size + len(data)
    x = normal(3, 16)
    np.testing.assert_allclose(model.run(x), ReferenceEvaluator(plain).run(None, {"x": x})[0], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"location": "gone.bin"}, "missing"),
        ({"location": "../data.bin"}, "outside the model's folder"),
        ({"location": "a/../../data.bin"}, "outside the model's folder"),
        ({"location": "/etc/hostname"}, "outside the model's folder"),
        ({"location": "C:\\data.bin"}, "outside the model's folder"),
        ({"location": ""}, "outside the model's folder"),
        ({"location": "link.bin"}, "link that leaves"),
        ({"location": "folder"}, "no file"),
        ({"location": "nul\0.bin"}, "missing"),
        ({"offset": "1000000"}, "needs 1024 bytes, but only 0"),
        ({"offset": "-4"}, "non-negative|impossible offset"),
        ({"length": "1000"}, "needs 1024 bytes, but only 1000"),
        ({"offset": "many"}, "no valid ONNX"),
    ],
)
def test_external_data_elsewhere_or_too_short_is_refused(tmp_path, changes, message):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "data.bin").write_bytes(bytes(5000))
    (folder / "link.bin").symlink_to(tmp_path / "data.bin")
    (folder / "folder").mkdir()
    path = _external(folder, **changes)
    with pytest.raises(AdapterError, match=message) as caught:
        read(path)
    _assert_readable(caught.value, path)


def test_a_data_file_cut_off_after_opening_is_noticed(tmp_path):
    model = read(_external(tmp_path))
    (tmp_path / "data.bin").write_bytes(b"")
    with pytest.raises(AdapterError, match="cut off while in use"):
        model.layers()


def test_a_replaced_file_does_not_change_an_open_model(tmp_path):
    path = saved(mlp(2), tmp_path)
    model = read(path)
    other = tmp_path / "other"
    other.write_bytes(b"something else")
    other.replace(path)
    assert model.layers()[0].size == 256
    assert model.digest == hashlib.sha256(mlp(2).SerializeToString()).hexdigest()


def _assert_readable(err: LampqError, path) -> None:
    assert str(path) in str(err)
    assert "\n" not in str(err)
    assert len(str(err)) < 400


def _zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", b"x" * 100)


STRANGERS = {
    "empty": (lambda p: p.write_bytes(b""), "empty"),
    "text": (lambda p: p.write_text("this is some text\n" * 10), "is text"),
    "lfs": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "zip": (_zip, "ZIP"),
    "pickle": (lambda p: p.write_bytes(pickle.dumps({"a": [1.0] * 50})), "pickle"),
    "tflite": (lambda p: p.write_bytes(b"\x1c\0\0\0TFL3" + bytes(100)), "TFLite"),
    "gzip": (lambda p: p.write_bytes(b"\x1f\x8b" + bytes(100)), "gzip"),
    "zeros": (lambda p: p.write_bytes(bytes(1000)), "no ONNX"),
    "garbage": (lambda p: p.write_bytes(np.random.default_rng(1).bytes(5000)), "no ONNX"),
    "folder": (lambda p: p.mkdir(), "folder"),
    "missing": (lambda p: None, "no such file"),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_other_files_are_refused_in_one_line(tmp_path, name):
    path = tmp_path / "model.onnx"
    make, message = STRANGERS[name]
    make(path)
    with pytest.raises(AdapterError, match=message) as caught:
        read(path)
    _assert_readable(caught.value, path)


def _broken(**changes) -> onnx.ModelProto:
    model = mlp(2)
    for name, value in changes.items():
        if name == "op":
            model.graph.node[0].op_type = value
        elif name == "input":
            model.graph.node[0].input[0] = value
        elif name == "dims":
            model.graph.initializer[0].dims[:] = value
        elif name == "extra":
            model.graph.input.append(helper.make_tensor_value_info(value, TensorProto.FLOAT, [1]))
        elif name == "order":
            first = model.graph.node.pop(0)
            model.graph.node.append(first)
        elif name == "no_output":
            del model.graph.output[:]
        elif name == "no_shape":
            model.graph.input[0].type.tensor_type.ClearField("shape")
        elif name == "no_graph":
            model.ClearField("graph")
        elif name == "integers":
            model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
        elif name == "constant":
            model.graph.output[0].name = "fc0.weight"
    return model


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"op": "Nonsense"}, "no valid ONNX"),
        ({"input": "nowhere"}, "no valid ONNX"),
        ({"dims": [16, 17]}, "no valid ONNX|needs 1088 bytes"),
        ({"dims": [-16, 16]}, "impossible shape"),
        ({"dims": [1 << 40, 1 << 40]}, "needs"),
        ({"extra": "second"}, "needs 2 inputs"),
        ({"order": True}, "no valid ONNX"),
        ({"no_output": True}, "no output"),
        ({"no_shape": True}, "no shape|no valid"),
        ({"no_graph": True}, "no ONNX"),
        ({"integers": True}, "no output looks like logits"),
        ({"constant": True}, "does not depend|no valid|cannot be understood"),
    ],
)
def test_damaged_graphs_are_refused_in_one_line(tmp_path, changes, message):
    path = saved(_broken(**changes), tmp_path)
    with pytest.raises(AdapterError, match=message) as caught:
        read(path)
    _assert_readable(caught.value, path)


def test_a_weight_that_is_not_finite_is_named(tmp_path):
    model = mlp(2)
    weight = normal(16, 4)
    weight[3, 3] = np.nan
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(weight, "fc1.weight"))
    with pytest.raises(AdapterError, match="layer fc1: the values hold NaN"):
        read(saved(model, tmp_path)).layers()


def test_names_of_layers_are_checked(tmp_path):
    model = read(saved(mlp(2), tmp_path))
    with pytest.raises(AdapterError, match="no layer 'fc9'"):
        model.weight("fc9")
    with pytest.raises(AdapterError, match="no layer 'fc9'"):
        model.with_weights({"fc9": normal(16, 4)})
    with pytest.raises(AdapterError, match="has shape \\(16, 4\\)"):
        model.with_weights({"fc1": normal(4, 16)})


def test_truncated_files_are_refused_wherever_they_end(tmp_path):
    data = exported("vit", "legacy").read_bytes()
    path = tmp_path / "model.onnx"
    for end in [1, 7, 100, 1000, *np.linspace(2000, len(data) - 1, 25).astype(int)]:
        path.write_bytes(data[:end])
        with pytest.raises(AdapterError) as caught:
            read(path)
        _assert_readable(caught.value, path)


def test_mutated_files_never_crash(tmp_path):
    """Every damaged file is either refused with an AdapterError or read as the model that it now is."""
    rng = np.random.default_rng(5)
    path = tmp_path / "model.onnx"
    whole = [
        mlp(3).SerializeToString(),
        exported("vit", "legacy").read_bytes(),
        _if_model().SerializeToString(),
    ]
    heads = [np.flatnonzero(_structure(data)) for data in whole]
    read_count = 0
    for turn in range(300):
        kind = turn % 3
        data = bytearray(whole[kind])
        for _ in range(int(rng.integers(1, 4))):
            # Mutate structure rather than the numbers of a weight.
            at = int(rng.choice(heads[kind]))
            how = int(rng.integers(4))
            if how == 0:
                data[at] = int(rng.integers(256))
            elif how == 1:
                data[at] ^= 1 << int(rng.integers(8))
            elif how == 2:
                del data[at : at + int(rng.integers(1, 20))]
            else:
                data[at:at] = rng.bytes(int(rng.integers(1, 20)))
            heads[kind] = heads[kind][heads[kind] < len(data) - 1]
        path.write_bytes(data)
        try:
            model = read(path)
            records = model.layers()
        except LampqError as err:
            assert "\n" not in str(err)
            continue
        read_count += 1
        names = [record.name for record in records]
        assert len(set(names)) == len(names)
        for record in records:
            assert model.weight(record.name).shape == record.shape
    assert 0 < read_count < 300


def _structure(data: bytes) -> np.ndarray:
    """Bytes of a model that are not the numbers of a large tensor."""
    keep = np.ones(len(data), dtype=bool)
    model = onnx.ModelProto.FromString(data)
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) > 64:
            start = data.find(tensor.raw_data)
            keep[start : start + len(tensor.raw_data)] = False
    return keep


# ---- the common entrance ---------------------------------------------------------------------------------


def test_formats_are_told_apart(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "x.tflite").write_bytes(b"\0\0\0\0TFL3")
    (tmp_path / "lite").write_bytes(b"\0\0\0\0TFL3")
    (tmp_path / "x.pt2").write_bytes(b"PK")
    assert adapters.detect(exported("vit", "legacy")) == "onnx"
    assert adapters.detect(tmp_path) == "hugging_face"
    assert adapters.detect(tmp_path / "x.tflite") == adapters.detect(tmp_path / "lite") == "tflite"
    assert adapters.detect(tmp_path / "x.pt2") == "pt2"
    assert adapters.detect("package.module:build") == "factory"
    for name, message in {"x.pth": "weights only", "x.jpg": "no known format"}.items():
        (tmp_path / name).write_bytes(b"\0" * 20)
        with pytest.raises(AdapterError, match=message):
            adapters.detect(tmp_path / name)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(AdapterError, match=r"without config\.json"):
        adapters.detect(empty)
    with pytest.raises(AdapterError, match="no such file"):
        adapters.detect(tmp_path / "gone.onnx")


def test_the_common_entrance_reads_onnx(tmp_path):
    model = adapters.read(saved(mlp(2), tmp_path), kinds={"fc0": "fc1"})
    assert model.format == "onnx"
    assert model.layers()[0].kind == "fc1"


def test_reading_leaves_the_weights_in_the_file(tmp_path):
    container = Container(exported("vit", "dynamo"))
    model = container.parse()
    tensor = model.graph.initializers["head.weight"].const_value
    assert tensor.numpy() is not tensor.numpy()
    assert np.array_equal(tensor.numpy(), module("vit").head.weight.detach().numpy()) or tensor.size < 256
