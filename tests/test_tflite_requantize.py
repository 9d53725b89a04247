"""TFLite files that compute with codes, and files of other tools, read back as the numbers that they stand for."""

import dataclasses

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from tflite_models import Builder, linear, plan_for

from lampq.adapters.tflite import read
from lampq.core.values.errors import AdapterError

KINDS = {"INT8": (-128, 127), "UINT8": (0, 255), "INT16": (-32768, 32767)}
HINT = "; --requantize takes its rounded values"


@dataclasses.dataclass(frozen=True)
class Grid:
    """Activations: numbers of a type, their step and the code of zero."""

    kind: str
    step: float
    zero: int

    def codes(self, values):
        return np.clip(np.rint(values / self.step) + self.zero, *KINDS[self.kind])

    def rounded(self, values):
        return ((self.codes(values) - self.zero) * self.step).astype(np.float32)


GRIDS = {
    "INT8": (Grid("INT8", 0.05, -3), Grid("INT8", 0.2, 5)),
    "UINT8": (Grid("UINT8", 0.05, 120), Grid("UINT8", 0.2, 131)),
    "INT16": (Grid("INT16", 2e-4, 0), Grid("INT16", 1e-3, 0)),
}


def coded(builder, name, shape, grid, data=None):
    tensor = builder.tensor(name, shape, data, kind=grid.kind, scale=grid.step)
    builder.graph.tensors[tensor].quantization.zeroPoint = np.array([grid.zero], np.int64)
    return tensor


def product(path, kind, *, activation=0, shuffled=0):
    """x (1, 32) on a grid, through one FULLY_CONNECTED of codes; its weight, bias and grids."""
    source, result = GRIDS[kind]
    rng, zero = np.random.default_rng(0), 7 if kind == "UINT8" else 0
    codes = rng.integers(-20, 21, (24, 32))
    steps = np.float32([0.03]) if kind == "UINT8" else rng.uniform(0.01, 0.05, 24).astype(np.float32)
    biases = rng.integers(-400, 401, 24)
    b = Builder()
    x, y = b.tensor("x", (1, 32)), b.tensor("y", (1, 24))
    fed, given = coded(b, "x/int", (1, 32), source), coded(b, "dense/MatMul", (1, 24), result)
    stored = (codes + 128 + zero).astype(np.uint8) if kind == "UINT8" else codes.astype(np.int8)
    w = b.tensor("dense/w", codes.shape, stored, kind="UINT8" if kind == "UINT8" else "INT8", scale=steps)
    b.graph.tensors[w].quantization.zeroPoint = np.full(len(steps), 128 + zero if kind == "UINT8" else 0)
    wide = ("INT64", np.int64) if kind == "INT16" else ("INT32", np.int32)
    v = b.tensor(
        "dense/b", (24,), biases.astype(wide[1]), kind=wide[0], scale=steps * np.float32(source.step)
    )
    b.op("QUANTIZE", [x], [fed], "QuantizeOptions", version=2 if kind == "INT16" else 1)
    b.op(
        "FULLY_CONNECTED", [fed, w, v], [given], "FullyConnectedOptions", version=11 if kind == "INT16" else 5,
        fusedActivationFunction=activation, weightsFormat=shuffled,
    )  # fmt: skip
    b.op("DEQUANTIZE", [given], [y], "DequantizeOptions", version=3 if kind == "INT16" else 2)
    weight = (codes * steps[:, None]).astype(np.float32)
    return b.write(path, [x], [y]), weight, biases * steps * np.float32(source.step)


@pytest.mark.parametrize("activation", [0, 1], ids=["plain", "relu"])
@pytest.mark.parametrize("kind", list(GRIDS))
def test_products_of_codes_become_products_of_numbers_between_the_grids_of_the_file(
    tmp_path, kind, activation
):
    path, weight, bias = product(tmp_path / "m.tflite", kind, activation=activation)
    stays = read(path)
    assert not stays.layers()
    assert [reason.endswith(HINT) for _, reason in stays.skipped] == [True]
    model = read(path, requantize=True)
    (layer,) = model.layers()
    assert (layer.name, layer.shape, layer.channel_axis) == (stays.skipped[0][0], (24, 32), 0)
    np.testing.assert_allclose(model.weight(layer.name), weight, rtol=1e-6)
    assert (model.digest, model.file_bytes()) == (stays.digest, path.stat().st_size)
    x = np.random.default_rng(1).normal(size=(20, 32)).astype(np.float32)
    source, result = GRIDS[kind]
    for factor in (1.0, 0.7):
        changed = model.with_weights({layer.name: factor * model.weight(layer.name)})
        exact = source.rounded(x) @ (factor * weight).T + bias
        expected = result.rounded(np.maximum(exact, 0) if activation else exact)
        steps = np.abs(np.asarray(changed.run(x)) - expected) / result.step
        assert steps.max() < 1.01
        assert (steps > 0.5).mean() < 0.02
    # The file itself, as its own operators compute it.
    steps = np.abs(np.asarray(stays.run(x)) - np.asarray(model.run(x))) / result.step
    assert steps.max() < 1.01


def convolutions(path):
    """Float images through a convolution of codes, a depthwise one, and a mean."""
    rng = np.random.default_rng(2)
    grids = Grid("INT8", 0.03, 4), Grid("INT8", 0.1, -20), Grid("INT8", 0.2, 11)
    weights = rng.integers(-127, 128, (8, 3, 3, 4)), rng.integers(-127, 128, (1, 3, 3, 8))
    steps = rng.uniform(0.002, 0.01, (2, 8)).astype(np.float32)
    b = Builder()
    x = b.tensor("x", (1, 8, 8, 4))
    at = coded(b, "x/int", (1, 8, 8, 4), grids[0])
    b.op("QUANTIZE", [x], [at], "QuantizeOptions")
    for index, name in enumerate(("CONV_2D", "DEPTHWISE_CONV_2D")):
        side = 6 - 2 * index
        w = b.tensor(
            f"w{index}", weights[index].shape, weights[index].astype(np.int8), kind="INT8", scale=steps[index]
        )
        b.graph.tensors[w].quantization.quantizedDimension = 3 * index
        v = b.tensor(
            f"b{index}", (8,), rng.integers(-300, 300, 8).astype(np.int32), kind="INT32",
            scale=steps[index] * np.float32(grids[index].step),
        )  # fmt: skip
        y = coded(b, f"y{index}", (1, side, side, 8), grids[index + 1])
        options = {"strideW": 1, "strideH": 1, "padding": 1, "fusedActivationFunction": 1}
        more = {"depthMultiplier": 1} if index else {}
        kind = "DepthwiseConv2DOptions" if index else "Conv2DOptions"
        b.op(name, [at, w, v], [y], kind, version=3, **options, **more)
        at = y
    z = b.tensor("z", (1, 4, 4, 8))
    b.op("DEQUANTIZE", [at], [z], "DequantizeOptions", version=2)
    along = (8, 1, 1, 1), (1, 1, 1, 8)
    truth = [(w * s.reshape(a)).astype(np.float32) for w, s, a in zip(weights, steps, along, strict=True)]
    return b.write(path, [x], [z]), truth, grids[2].step


def test_convolutions_of_codes_read_back_and_are_written_anew(tmp_path):
    path, truth, step = convolutions(tmp_path / "m.tflite")
    model = read(path, requantize=True)
    layers = model.layers()
    assert [(layer.shape, layer.channel_axis) for layer in layers] == [((8, 3, 3, 4), 0), ((1, 3, 3, 8), 3)]
    for layer, weight in zip(layers, truth, strict=True):
        np.testing.assert_allclose(model.weight(layer.name), weight, rtol=1e-6)
    x = np.random.default_rng(3).normal(size=(6, 8, 8, 4)).astype(np.float32)
    steps = np.abs(np.asarray(model.run(x)) - np.asarray(read(path).run(x))) / step
    assert np.quantile(steps, 0.99) < 1.01
    assert steps.max() < 3.01
    out = tmp_path / "q.tflite"
    model.write(plan_for(model, lambda layer: 8), out)
    again = read(out, requantize=True)
    assert {bits for bits, _ in read(out).stored_bits().values()} == {8}
    for layer, weight in zip(layers, truth, strict=True):
        np.testing.assert_allclose(again.weight(layer.name), weight, atol=np.abs(weight).max() / 100)


def test_weights_that_runtimes_have_in_an_order_of_their_own_stay(tmp_path):
    path, *_ = product(tmp_path / "m.tflite", "UINT8", shuffled=1)
    model = read(path, requantize=True)
    assert not model.layers()
    assert [reason for _, reason in model.skipped] == ["already quantized (UINT8)"]


def blockwise(path, scales):
    """x (1, 64) through a FULLY_CONNECTED of 4 bits, 32 of which share a scale in a tensor of its own."""
    codes = np.random.default_rng(4).integers(-7, 8, (16, 64))
    packed = (codes[:, 0::2] & 15 | (codes[:, 1::2] & 15) << 4).astype(np.uint8)
    b = Builder()
    x, y = b.tensor("x", (1, 64)), b.tensor("y", (1, 16))
    s = b.tensor("s", scales.shape, scales, kind="FLOAT16")
    w = b.tensor("w", codes.shape, packed, kind="INT4")
    parameters = b.graph.tensors[w].quantization = schema.QuantizationParametersT()
    parameters.detailsType = schema.QuantizationDetails.BlockwiseQuantization
    parameters.details = schema.BlockwiseQuantizationT()
    parameters.details.scales, parameters.details.blockSize = s, 32
    b.op("FULLY_CONNECTED", [x, w], [y], "FullyConnectedOptions", version=13)
    return b.write(path, [x], [y]), codes


def test_scales_of_blocks_read_back(tmp_path):
    scales = np.random.default_rng(5).uniform(0.01, 0.1, (16, 2)).astype(np.float16)
    path, codes = blockwise(tmp_path / "m.tflite", scales)
    model = read(path, requantize=True)
    (layer,) = model.layers()
    truth = codes * np.repeat(scales.astype(np.float32), 32, axis=1)
    np.testing.assert_allclose(model.weight(layer.name), truth, rtol=1e-6)
    x = np.random.default_rng(6).normal(size=(5, 64)).astype(np.float32)
    np.testing.assert_allclose(np.asarray(model.run(x)), x @ truth.T, rtol=1e-4, atol=1e-4)
    with pytest.raises(AdapterError, match="16 scales of blocks of 32 do not fit weight w of shape"):
        read(blockwise(tmp_path / "m.tflite", scales[:, :1])[0], requantize=True)


@pytest.mark.parametrize("told", [True, False])
def test_biases_have_the_steps_of_products_and_others_are_refused(tmp_path, told):
    path, _, bias = product(tmp_path / "m.tflite", "INT8")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(path.read_bytes(), 0))
    record = next(tensor for tensor in model.subgraphs[0].tensors if tensor.name == b"dense/b")
    record.quantization.scale = record.quantization.scale[:7] if told else None
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    if told:
        with pytest.raises(AdapterError, match=r"7 scales do not fit bias dense/b of \(24,\)"):
            read(path, requantize=True)
        return
    again = read(path, requantize=True)
    (layer,) = again.layers()
    nothing = again.with_weights({layer.name: np.zeros((24, 32), np.float32)})
    np.testing.assert_allclose(np.asarray(nothing.run(np.zeros((1, 32), np.float32)))[0], bias, atol=0.11)


def test_a_file_of_numbers_is_read_as_it_is(tmp_path):
    path = linear(tmp_path / "m.tflite", np.ones((16, 8), np.float32))
    once, again = (read(path, requantize=anew) for anew in (False, True))
    assert once.digest == again.digest
    assert [layer.name for layer in once.layers()] == [layer.name for layer in again.layers()]
    assert once.rest_bytes() == again.rest_bytes()
