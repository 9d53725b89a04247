"""Files of ONNX Runtime's own quantizers, whose operators compute with integers, read back as floats."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import Graph, batch_for, make_plan, network, run, transformer
from onnx_models import graph, normal, saved
from onnx_runs import read
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from lampq.adapters.onnx.write import write

MODELS = {"transformer": (transformer, (4, 6, 16)), "network": (network, (4, 3, 8, 8))}


class _Samples(CalibrationDataReader):
    def __init__(self, x):
        self._left = iter([{"x": row[None]} for row in x])

    def get_next(self):
        return next(self._left, None)


def _quantized(source, target, how, x):
    logging.getLogger().setLevel(logging.ERROR)
    if how.startswith("dynamic"):
        channels = how.endswith("channel")
        kind = QuantType.QInt8 if channels else QuantType.QUInt8
        # Of types that processors without VNNI add up without overflow.
        quantize_dynamic(source, target, per_channel=channels, weight_type=kind, reduce_range=channels)
    else:
        form = QuantFormat.QDQ if how == "pairs" else QuantFormat.QOperator
        quantize_static(
            source, target, _Samples(x), quant_format=form, per_channel=how == "static by channel"
        )
    return target


@pytest.mark.parametrize("how", ["dynamic", "dynamic by channel", "static", "static by channel", "pairs"])
@pytest.mark.parametrize("name", MODELS)
def test_what_onnx_runtime_has_quantized_reads_back_as_floats_and_is_written_again(tmp_path, name, how):
    make, shape = MODELS[name]
    source, x = make(tmp_path / "float.onnx"), batch_for(*shape)
    path = _quantized(source, tmp_path / "int8.onnx", how, x)
    truth, again = read(source), read(path, requantize=True)
    shapes = sorted(sorted(layer.shape) for layer in truth.layers())
    assert sorted(sorted(layer.shape) for layer in again.layers()) == shapes
    assert not any("quantized" in reason for _, reason in again.skipped)
    for layer in again.layers():
        # The steps of 8 bits: half of one at most, on 127 or 255 over the range of a channel or the tensor.
        weight = again.weight(layer.name)
        twin = next(
            t for t in truth.layers() if sorted(t.shape) == sorted(layer.shape) and _close(truth, t, weight)
        )
        assert twin.size == layer.size
    same = again.with_weights({layer.name: again.weight(layer.name) for layer in again.layers()})
    floats, theirs = run(source, x), run(path, x)
    bound = 1.2 * np.linalg.norm(theirs - floats) + 0.01 * np.linalg.norm(floats)
    assert np.linalg.norm(np.asarray(same.run(x)) - floats) <= bound
    second = write(again, make_plan(again, 3), tmp_path / "q3.onnx")
    assert {bits for bits, _ in read(second.path).stored_bits().values()} == {3}


def _close(model, layer, weight):
    own = model.weight(layer.name)
    for candidate in (own, own.T):
        if candidate.shape == weight.shape and np.abs(candidate - weight).max() < np.abs(own).max() / 100:
            return True
    return False


def _lstm(path):
    g = Graph()
    g.weight("w", 2, 96, 16), g.weight("r", 2, 96, 24), g.weight("b", 2, 192)
    lstm = helper.make_node(
        "LSTM", ["x", "w", "r", "b"], ["y"], name="lstm", hidden_size=24, direction="bidirectional"
    )
    g.nodes.append(lstm)
    g.node("Reshape", ["y", g.tensor("shape", [0, -1], np.int64)])
    return g.save(path, [5, "n", 16])


def test_recurrent_weights_of_codes_read_back_with_their_gates_in_place(tmp_path):
    source, x = _lstm(tmp_path / "float.onnx"), batch_for(5, 3, 16)
    path = _quantized(source, tmp_path / "int8.onnx", "dynamic by channel", x)
    assert "DynamicQuantizeLSTM" in {node.op_type for node in onnx.load(path).graph.node}
    again, truth = read(path, requantize=True), read(source)
    assert [layer.shape for layer in again.layers()] == [layer.shape for layer in truth.layers()]
    for one, other in zip(again.layers(), truth.layers(), strict=True):
        np.testing.assert_allclose(again.weight(one.name), truth.weight(other.name), atol=0.02)


def test_a_table_that_is_looked_up_as_codes_reads_back(tmp_path):
    g = Graph()
    rows = g.node("Gather", [g.weight("words.weight", 300, 16), "ids"])
    g.node("Add", [g.node("ReduceMean", [rows, g.tensor("axes", [1], np.int64)], keepdims=0), "x"])
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", 5])
    source = g.save(tmp_path / "float.onnx", ["n", 16], inputs=[ids])
    path = _quantized(source, tmp_path / "int8.onnx", "dynamic", None)
    again = read(path, requantize=True)
    assert [layer.name for layer in again.layers()] == ["words"]
    np.testing.assert_allclose(again.weight("words"), read(source).weight("words"), atol=0.02)


def test_an_integer_bias_before_the_scales_stays_what_it_was(tmp_path):
    """As old quantizers wrote it: the bias in steps of both scales, added to the integer product."""
    codes = np.random.default_rng(0).integers(-100, 100, (16, 12)).astype(np.int8)
    node = helper.make_node
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        node("Mul", ["s", "w_scale"], ["scales"]),
        node("MatMulInteger", ["q", "w_quantized", "z"], ["i"], name="fc"),
        node("Add", ["i", "bias"], ["ib"]),
        node("Cast", ["ib"], ["f"], to=TensorProto.FLOAT),
        node("Mul", ["f", "scales"], ["y"]),
    ]
    bias = np.arange(12, dtype=np.int32) * 500
    weights = {"w_quantized": codes, "w_scale": np.array(0.01, np.float32), "bias": bias}
    path = saved(graph(nodes, weights, inputs={"x": ["n", 16]}, outputs={"y": ["n", 12]}), tmp_path)
    model, x = read(path, requantize=True), normal(3, 16)
    (layer,) = model.layers()
    np.testing.assert_allclose(model.weight(layer.name), codes * np.float32(0.01), rtol=1e-6)
    span = max(x.max(), 0) - min(x.min(), 0)
    expected = x @ (codes * 0.01) + bias * span / 255 * 0.01
    same = model.with_weights({layer.name: model.weight(layer.name)})
    np.testing.assert_allclose(same.run(x), expected, rtol=1e-4, atol=1e-4)


def test_products_that_are_not_understood_stay_and_say_so(tmp_path):
    """Scales that are not constants tell no weight."""
    codes = numpy_helper.to_array(numpy_helper.from_array(np.ones((16, 12), np.int8)))
    node = helper.make_node
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        node("MatMulInteger", ["q", "w", "z"], ["i"]),
        node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        node("Mul", ["f", "s"], ["y"]),
    ]
    path = saved(graph(nodes, {"w": codes}, inputs={"x": ["n", 16]}, outputs={"y": ["n", 12]}), tmp_path)
    model = read(path, requantize=True)
    assert not model.layers()
    assert [reason for _, reason in read(path).skipped] == [
        "already quantized; --requantize reads it as floats"
    ]
    assert [reason for _, reason in model.skipped] == ["already quantized in a way that is not understood"]
