"""Files whose weights are quantized already, read back as the floats that they stand for."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx_graphs import batch_for, make_plan, network, rounded, run, transformer
from onnx_models import graph, normal, saved
from onnx_runs import read

from lampq.adapters.onnx.write import write

node = helper.make_node


@pytest.mark.parametrize("container", ["bitplane", "int8"])
@pytest.mark.parametrize("activations", [None, 8])
def test_a_file_of_lampq_reads_back_as_what_it_stands_for(tmp_path, container, activations):
    model = read(transformer(tmp_path / "float.onnx"))
    first = write(model, make_plan(model, 5, activations, container), tmp_path / "q.onnx")
    assert not read(first.path).variant.opened.sites
    assert {reason for _, reason in read(first.path).skipped} == {
        "already quantized; --requantize reads it as floats"
    }
    again = read(first.path, requantize=True)
    truth = rounded(model, 5)
    assert {layer.name for layer in again.layers()} == set(truth)
    axes = {layer.name: layer.channel_axis for layer in model.layers()}
    if activations:
        # An integer product has no alpha: its weight does.
        truth["head"] = truth["head"] * np.float32(0.5)
    for layer in again.layers():
        # Integer products keep their weights turned.
        mine = np.moveaxis(again.weight(layer.name), layer.channel_axis, 0)
        np.testing.assert_allclose(mine, np.moveaxis(truth[layer.name], axes[layer.name], 0), atol=1e-6)
    x = batch_for(2, 6, 16)
    same = again.with_weights({layer.name: again.weight(layer.name) for layer in again.layers()})
    np.testing.assert_allclose(same.run(x), run(first.path, x), atol=2e-2 if activations else 1e-5)

    second = write(again, make_plan(again, 3), tmp_path / "q3.onnx")
    assert {bits for bits, _ in read(second.path).stored_bits().values()} == {3}


def test_convolutions_read_back_too(tmp_path):
    model = read(network(tmp_path / "float.onnx"))
    written = write(model, make_plan(model, 4), tmp_path / "q.onnx")
    again = read(written.path, requantize=True)
    for name, weight in rounded(model, 4).items():
        np.testing.assert_allclose(again.weight(name), weight, atol=1e-6)


def _qdq(kind: type) -> onnx.ModelProto:
    codes = np.random.default_rng(0).integers(-7, 8, (16, 12)).astype(kind)
    nodes = [
        node("DequantizeLinear", ["w_quantized", "w_scale"], ["w"], axis=1),
        node("MatMul", ["x", "w"], ["y"]),
    ]
    weights = {"w_quantized": codes, "w_scale": np.abs(normal(12)) + np.float32(0.1)}
    return graph(nodes, weights, inputs={"x": ["n", 16]}, outputs={"y": ["n", 12]}, opset=21)


def test_dequantized_constants_of_other_tools_read_back(tmp_path):
    proto = _qdq(np.int8)
    model = read(saved(proto, tmp_path), requantize=True)
    (layer,) = model.layers()
    assert (layer.name, layer.shape, layer.channel_axis) == ("w", (16, 12), 1)
    codes, scale = (onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer)
    np.testing.assert_allclose(model.weight("w"), codes * scale, rtol=1e-6)
    new = model.weight("w") * np.float32(2)
    x = normal(3, 16)
    np.testing.assert_allclose(model.with_weights({"w": new}).run(x), x @ new, atol=1e-4)
    write(model, make_plan(model, 2), tmp_path / "q.onnx")
    expected = x @ rounded(model, 2)["w"]
    written = ReferenceEvaluator(onnx.load(tmp_path / "q.onnx")).run(None, {"x": x})[0]
    np.testing.assert_allclose(written, expected, atol=1e-4)


def test_packed_products_read_back(tmp_path):
    """MatMulNBits: 4 bits, blocks of 16 inputs, two codes a byte, the zero at 8."""
    generator = np.random.default_rng(1)
    codes = generator.integers(0, 16, (8, 2, 16)).astype(np.uint8)
    scales = (generator.random((8, 2)) + 0.5).astype(np.float32)
    packed = codes[..., 0::2] | codes[..., 1::2] << 4
    product = node(
        "MatMulNBits",
        ["x", "b", "s"],
        ["y"],
        name="/fc/MatMul_Q4",
        domain="com.microsoft",
        K=32,
        N=8,
        bits=4,
        block_size=16,
    )
    weights = {"b": packed, "s": scales.reshape(-1)}
    path = saved(graph([product], weights, inputs={"x": ["n", 32]}, outputs={"y": ["n", 8]}), tmp_path)
    model = read(path, requantize=True)
    (layer,) = model.layers()
    truth = ((codes.astype(np.float32) - 8) * scales[..., None]).reshape(8, 32).T
    np.testing.assert_allclose(model.weight(layer.name), truth, atol=1e-5)
    x = normal(3, 32)
    same = model.with_weights({layer.name: model.weight(layer.name)})
    np.testing.assert_allclose(same.run(x), x @ truth, rtol=1e-4, atol=1e-4)
    write(model, make_plan(model, 3), tmp_path / "q.onnx")
    written = ReferenceEvaluator(onnx.load(tmp_path / "q.onnx")).run(None, {"x": x})[0]
    np.testing.assert_allclose(written, x @ rounded(model, 3)[layer.name], rtol=1e-4, atol=1e-3)
