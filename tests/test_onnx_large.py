"""Weights too large to be unpacked at load are stored in parts; here "too large" is a few kilobytes."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import make_plan, run

from lampq import adapters
from lampq.adapters.onnx import large
from lampq.adapters.onnx.write import write
from lampq.verbs.convert import read_quantized


@pytest.fixture(autouse=True)
def small_limits(monkeypatch):
    monkeypatch.setattr(large, "_LIMIT_BYTES", 4 * 64 * 40)
    monkeypatch.setattr(large, "_MOST_BYTES", 4 * 64 * 20)


def network(path):
    """x -> MatMul 64 x 52 -> Gemm with transB 64 x 52 and a bias -> MatMul 64 x 10."""
    rng = np.random.default_rng(0)
    arrays = {"first": (64, 52), "second": (64, 52), "bias": (64,), "last": (64, 10)}
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Gemm", ["b", "second", "bias"], ["c"], transB=1),
        helper.make_node("MatMul", ["c", "last"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 10])],
        [
            numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32) / 8, name)
            for name, shape in arrays.items()
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("bits", "container"), [(4, "bitplane"), (3, "bitplane"), (8, "bitplane"), (5, "int8")]
)
def test_a_large_weight_is_stored_in_parts_and_computes_the_same(bits, container, tmp_path):
    model = adapters.read(network(tmp_path / "m.onnx"))
    names = [layer.name for layer in model.layers()]
    plan = make_plan(model, dict.fromkeys(names, bits), container=container)
    written = write(model, plan, tmp_path / "q.onnx")
    assert written.relative_error < 1e-5
    products = [
        node for node in onnx.load(tmp_path / "q.onnx").graph.node if node.op_type in ("MatMul", "Gemm")
    ]
    assert len(products) == 3 + 4 + 1
    found = read_quantized(tmp_path / "q.onnx")
    assert {layer.weight_bits for layer in found.layers} == {bits}
    assert sum(layer.size for layer in found.layers) == 64 * 52 * 2 + 640
    payload = sum(model.payload_bytes(layer, bits, container) for layer in model.layers())
    assert found.payload_bytes == payload
    x = np.random.default_rng(1).standard_normal((5, 64)).astype(np.float32)
    assert run(tmp_path / "q.onnx", x).shape == (5, 10)


def test_the_parts_are_recognised_as_the_layer(tmp_path):
    model = adapters.read(network(tmp_path / "m.onnx"))
    names = [layer.name for layer in model.layers()]
    write(model, make_plan(model, dict(zip(names, (4, 6, 8), strict=True))), tmp_path / "q.onnx")
    found = read_quantized(tmp_path / "q.onnx", model)
    assert {layer.name: layer.weight_bits for layer in found.layers} == dict(
        zip(names, (4, 6, 8), strict=True)
    )


def test_the_parts_keep_the_budget_in_bytes(tmp_path):
    model = adapters.read(network(tmp_path / "m.onnx"))
    plan = make_plan(model, {layer.name: 4 for layer in model.layers()})
    written = write(model, plan, tmp_path / "q.onnx")
    payload = sum(model.payload_bytes(layer, 4, "bitplane") for layer in model.layers())
    assert written.size_bytes <= payload + model.rest_bytes()
