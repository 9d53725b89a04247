"""Reading ONNX exports: names, kinds, weights and costs of their layers, and the common entrance."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from onnx import helper
from onnx_models import exported, graph, mlp, module, normal, saved

from lampq import adapters
from lampq.adapters.onnx import naming, read
from lampq.adapters.onnx.container import Container
from lampq.core.values.errors import AdapterError
from lampq.core.values.fingerprint import Fingerprint

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

    opened = read(exported(name, exporter)).variant.opened
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
    (spec,) = read(exported("vit", "legacy")).input_specs
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


# ---- the common entrance ---------------------------------------------------------------------------------


def test_formats_are_told_apart(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "x.tflite").write_bytes(b"\0\0\0\0TFL3")
    (tmp_path / "lite").write_bytes(b"\0\0\0\0TFL3")
    (tmp_path / "x.pt2").write_bytes(b"PK")
    assert adapters.format_of(exported("vit", "legacy")).name == "onnx"
    assert {adapters.format_of(tmp_path / name).name for name in ("x.tflite", "lite")} == {"tflite"}
    sources = (tmp_path, tmp_path / "x.pt2", "package.module:build", "timm:vit")
    assert {adapters.format_of(source).name for source in sources} == {"torch"}
    for name, message in {"x.pth": "weights only", "x.jpg": "no known format"}.items():
        (tmp_path / name).write_bytes(b"\0" * 20)
        with pytest.raises(AdapterError, match=message):
            adapters.format_of(tmp_path / name)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(AdapterError, match=r"without config\.json"):
        adapters.format_of(empty)
    with pytest.raises(AdapterError, match="no such file"):
        adapters.format_of(tmp_path / "gone.onnx")


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
