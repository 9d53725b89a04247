"""Layers with quantized inputs: what kernels ONNX Runtime makes of them, and what they compute."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_graphs import Graph, batch_for, make_plan, network, optimized_ops, rounded, run, transformer

from lampq.adapters.onnx.bits import read_bits
from lampq.adapters.onnx.reader import read
from lampq.adapters.onnx.write import write
from lampq.core.values.activation_grid import ActivationGrid
from lampq.core.values.errors import PlanError


@pytest.mark.parametrize("batch_axis", ["n", 2])
@pytest.mark.parametrize(
    ("bits", "container"), [((2, 3, 4, 5, 6), "bitplane"), ((8,) * 5, "bitplane"), ((3,) * 5, "int8")]
)
def test_every_layer_with_quantized_inputs_becomes_an_integer_kernel(tmp_path, batch_axis, bits, container):
    model = read(transformer(tmp_path / "float.onnx", batch=batch_axis, opset=20))
    names = [layer.name for layer in model.layers()]
    plan = make_plan(model, dict(zip(names, bits, strict=True)), 8, container=container)
    written = write(model, plan, tmp_path / "q.onnx")
    assert written.integer_layers == tuple(names)
    ops = optimized_ops(written.path, tmp_path)
    assert ops.count("MatMulIntegerToFloat") == 5
    assert not {"DequantizeLinear", "Cast", "BitwiseOr", "Reshape"} & set(ops)
    batch = batch_for(2, 6, 16)
    found = run(written.path, batch)
    reference = ReferenceEvaluator(str(written.path)).run(None, {"x": batch})[0]
    np.testing.assert_allclose(found, reference, rtol=1e-4, atol=1e-5)
    # Against the float model with rounded weights the rounded inputs show, but not much of them.
    weights = {n: rounded(model, b)[n] for n, b in zip(names, bits, strict=True)}
    expected = model.with_weights(weights).run(batch)
    assert 1e-5 < np.abs(found - expected).max() / np.abs(expected).max() < 0.2
    stored = {
        n: (b, "int8" if b == 8 or container == "int8" else "bitplane")
        for n, b in zip(names, bits, strict=True)
    }
    assert read_bits(written.path) == stored


@pytest.mark.parametrize("activation_bits", range(2, 9))
def test_inputs_take_any_width(tmp_path, activation_bits):
    """Oracle: the same product in NumPy with inputs on the grid."""
    g = Graph()
    weight = g.weight("fc.weight", 16, 10)
    g.node("Gemm", ["x", weight, g.weight("fc.bias", 10)])
    model = read(g.save(tmp_path / "float.onnx", ["n", 16]))
    plan = make_plan(model, 4, activation_bits, ranges={"fc": (-1.5, 2.0)})
    written = write(model, plan, tmp_path / "q.onnx")
    batch = batch_for(50, 16)
    grid = ActivationGrid.from_range(-1.5, 2.0, activation_bits)
    values = grid.apply(batch)
    assert 2 ** (activation_bits - 1) < len(np.unique(values)) <= 2**activation_bits
    bias = numpy_helper.to_array(g.tensors[1])
    expected = values @ rounded(model, 4)["fc"] + bias
    np.testing.assert_allclose(run(written.path, batch), expected, rtol=1e-4, atol=1e-5)
    assert "MatMulIntegerToFloat" in optimized_ops(written.path, tmp_path)


def test_tables_have_no_input_to_round(tmp_path):
    g = Graph()
    added = g.node("Add", ["x", g.weight("table", 64, 64)])
    product = g.node("MatMul", [added, g.weight("fc.weight", 64, 4)])
    g.node("Reshape", [product, g.tensor("flat", (0, -1), np.int64)])
    model = read(g.save(tmp_path / "float.onnx", ["n", 64, 64]))
    table, fc = (layer.name for layer in model.layers())
    plan = make_plan(model, 4, {table: 8, fc: 8}, ranges={table: None, fc: (-3.0, 3.0)})
    written = write(model, plan, tmp_path / "q.onnx")
    assert written.integer_layers == (fc,)
    batch = batch_for(5, 64, 64)
    stored = rounded(model, 4)
    inputs = ActivationGrid.from_range(-3.0, 3.0, 8).apply(batch + stored[table])
    expected = (inputs @ stored[fc]).reshape(5, -1)
    np.testing.assert_allclose(run(written.path, batch), expected, rtol=1e-3, atol=1e-3)
    unknown = make_plan(model, 4, {table: 8, fc: 8}, ranges={table: None, fc: None})
    with pytest.raises(PlanError, match=f"layer {fc}: the plan quantizes its input but holds no range"):
        write(model, unknown, tmp_path / "q.onnx")


def test_layers_that_read_one_tensor_share_its_quantization(tmp_path):
    g = Graph()
    parts = [g.node("MatMul", ["x", g.weight(f"{n}.weight", 16, 16)]) for n in ("q", "k", "v")]
    g.node("Gather", [g.node("Sum", parts), g.tensor("first", 0, np.int64)], axis=1)
    model = read(g.save(tmp_path / "float.onnx", ["n", 4, 16], opset=17))
    written = write(model, make_plan(model, {"q": 2, "k": 3, "v": 4}, 8), tmp_path / "q.onnx")
    assert [n.op_type for n in onnx.load(written.path).graph.node].count("QuantizeLinear") == 1
    assert optimized_ops(written.path, tmp_path).count("MatMulIntegerToFloat") == 3
    uneven = make_plan(model, 4, 8, ranges={"q": (-1.0, 1.0)})
    written = write(model, uneven, tmp_path / "uneven.onnx")
    assert [n.op_type for n in onnx.load(written.path).graph.node].count("QuantizeLinear") == 2
    assert optimized_ops(written.path, tmp_path).count("MatMulIntegerToFloat") == 3


def test_convolutions_need_a_quantized_output(tmp_path):
    model = read(network(tmp_path / "float.onnx"))
    names = [layer.name for layer in model.layers()]
    assert names == ["stem", "mid", "out", "head"]
    batch = batch_for(2, 3, 8, 8)
    plan = make_plan(model, {"stem": 8, "mid": 5, "out": 3, "head": 4}, 8)
    written = write(model, plan, tmp_path / "q.onnx")
    # `mid` is read by nothing but `out`, so that the grid of that one's input is that of its own output.
    assert written.integer_layers == ("mid", "head")
    written = write(model, plan, tmp_path / "q.onnx", output_ranges={"out": (-3.0, 3.0)})
    assert written.integer_layers == ("mid", "out", "head")
    ops = optimized_ops(written.path, tmp_path)
    assert (ops.count("QLinearConv"), ops.count("MatMulIntegerToFloat")) == (2, 1)
    ranges = {"stem": (-3.0, 4.0), "out": (-3.0, 3.0)}
    written = write(model, plan, tmp_path / "q.onnx", output_ranges=ranges, batch=batch)
    assert written.integer_layers == tuple(names)
    ops = optimized_ops(written.path, tmp_path)
    assert (ops.count("QLinearConv"), ops.count("MatMulIntegerToFloat")) == (3, 1)
    assert not {"Conv", "FusedConv", "Relu"} & set(ops)
    expected = model.with_weights(
        {n: rounded(model, {"stem": 8, "mid": 5, "out": 3, "head": 4}[n])[n] for n in names}
    )
    expected = expected.run(batch)
    assert np.abs(run(written.path, batch) - expected).max() < 0.1 * np.abs(expected).max()


def test_the_input_of_every_convolution_is_rounded_though_its_kernel_may_be_a_float_one(tmp_path):
    model = read(network(tmp_path / "float.onnx"))
    batch = batch_for(2, 3, 8, 8)
    alone = make_plan(model, 8, {"stem": 8})
    written = write(model, alone, tmp_path / "q.onnx", batch=batch)
    nodes = onnx.load(written.path).graph.node
    assert [node.op_type for node in nodes if "x" in node.input] == ["QuantizeLinear"]
    assert written.integer_layers == ()
    (stem,) = (layer for layer in alone.layers if layer.name == "stem")
    on_grid = ActivationGrid.from_range(*stem.activation_range).apply(batch)
    assert np.abs(on_grid - batch).max() > 1e-3
    expected = model.with_weights(rounded(model, 8)).run(on_grid)
    np.testing.assert_allclose(run(written.path, batch), expected, atol=1e-5)


@pytest.mark.parametrize("activations", [None, 8])
def test_shared_weights_are_stored_once(tmp_path, activations):
    g = Graph()
    shared = g.weight("shared.weight", 64, 64)
    hidden = "x"
    for _ in range(2):
        hidden = g.node("Relu", [g.node("MatMul", [hidden, shared])])
    hidden = g.node("Gemm", [hidden, shared], transB=1)
    g.node("Softmax", [hidden])
    model = read(g.save(tmp_path / "float.onnx", ["n", 64]))
    (layer,) = model.layers()
    assert len(layer.shares) == 2
    written = write(model, make_plan(model, 5, activations), tmp_path / "q.onnx")
    planes = [i for i in onnx.load(written.path).graph.initializer if i.data_type == TensorProto.UINT8]
    assert sum(len(i.raw_data) for i in planes if len(i.raw_data) > 256) == 64 * 64 * 5 // 8
    if activations:
        # The transposed use has its channels along the other axis, which integer kernels cannot scale.
        assert optimized_ops(written.path, tmp_path).count("MatMulIntegerToFloat") == 2
        assert written.integer_layers == ()
    batch = batch_for(4, 64)
    expected = model.with_weights(rounded(model, 5)).run(batch)
    found = np.log(run(written.path, batch))
    assert np.abs(found - expected).max() < (0.2 if activations else 1e-5)


@pytest.mark.parametrize("activations", [None, 8])
def test_half_precision(tmp_path, activations):
    path = transformer(tmp_path / "float.onnx", dtype=TensorProto.FLOAT16, opset=17)
    model = read(path)
    written = write(
        model, make_plan(model, {layer.name: 4 for layer in model.layers()}, activations), tmp_path / "q.onnx"
    )
    batch = batch_for(2, 6, 16, dtype=np.float16)
    found = run(written.path, batch)
    assert found.dtype == np.float16
    weights = {name: array.astype(np.float16) for name, array in rounded(model, 4).items()}
    expected = model.with_weights(weights).run(batch)
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert error < (0.1 if activations else 2e-3)
    if activations:
        assert optimized_ops(written.path, tmp_path).count("MatMulIntegerToFloat") == 5


def _followed(op, rank, gemm):
    """A layer, then `op`, then another layer."""
    g = Graph(5)
    inputs = ["x", g.weight("a.weight", 16, 16)]
    product = g.node("Gemm", [*inputs, g.weight("a.bias", 16)]) if gemm else g.node("MatMul", inputs)
    operands = {
        "Relu": [],
        "Sigmoid": [],
        "Clip": [g.tensor("low", 0.0), g.tensor("high", 6.0)],
        "Mul": [g.tensor("scalar", 0.125)],
        "Div": [g.weight("channels", 16)],
        "Add": [g.node("Identity", [g.weight("hidden.bias", 16)])],
        "Sum": ["x"],
        "BatchNormalization": [g.tensor(n, 0.5 + g.random.random(16)) for n in ("s", "b", "m", "v")],
    }[op]
    hidden = g.node("Add" if op == "Sum" else op, [product, *operands])
    if rank == 3:
        hidden = g.node("Gather", [hidden, g.tensor("first", 0, np.int64)], axis=1)
    g.node("MatMul", [hidden, g.weight("b.weight", 16, 10)])
    return g


@pytest.mark.parametrize("op", ["Relu", "Sigmoid", "Clip", "Mul", "Div", "Add", "Sum", "BatchNormalization"])
@pytest.mark.parametrize(("rank", "gemm"), [(3, False), (2, False), (2, True)])
@pytest.mark.parametrize("batch_axis", ["n", 2])
def test_no_follower_is_fused_before_the_integers_are_seen(tmp_path, op, rank, gemm, batch_axis):
    if op == "BatchNormalization" and rank == 3:
        rank = 2  # Its channels are the second axis.
    shape = [batch_axis, 4, 16] if rank == 3 else [batch_axis, 16]
    model = read(_followed(op, rank, gemm).save(tmp_path / "float.onnx", shape, opset=17))
    written = write(model, make_plan(model, 4, 8), tmp_path / "q.onnx")
    ops = optimized_ops(written.path, tmp_path)
    assert ops.count("MatMulIntegerToFloat") + ops.count("QLinearMatMul") == 2
    assert "Gemm" not in ops
    assert written.relative_error < 1e-3
