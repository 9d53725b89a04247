"""Weights of every kind of operator, in every container, against NumPy and without delegates."""

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from tflite_models import Builder, dequantized, fixture, plan_for, relative, tensor_types

from lampq.adapters.tflite import containers, read
from lampq.core.values.errors import AdapterError

pytestmark = pytest.mark.usefixtures("weights_of_any_size")


def normal(*shape, seed=2):
    return np.random.default_rng((seed, *shape)).normal(size=shape).astype(np.float32)


def ints(*values):
    return np.array(values, np.int32)


def image(b):
    return b.tensor("x", (1, 6, 6, 8)), normal(1, 6, 6, 8)


def grouped(b, w):
    x, sample = image(b)
    y = b.tensor("y", (1, 4, 4, 12))
    bias = b.tensor("bias", (12,), np.zeros(12, np.float32))
    b.op("CONV_2D", [x, w, bias], [y], "Conv2DOptions", version=8, strideW=1, strideH=1, padding=1)
    return x, y, sample


def grouped_oracle(x, w):
    patches = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    halves = [
        np.einsum("nhwcij,oijc->nhwo", patches[..., part, :, :], w[out])
        for part, out in ((slice(0, 4), slice(0, 6)), (slice(4, 8), slice(6, 12)))
    ]
    return np.concatenate(halves, axis=-1)


def transposed(b, w):
    x, sample = image(b)
    y, size = b.tensor("y", (1, 13, 13, 5)), b.tensor("size", (4,), ints(1, 13, 13, 5), kind="INT32")
    b.op("TRANSPOSE_CONV", [size, w, x], [y], "TransposeConvOptions", strideW=2, strideH=2, padding=1)
    return x, y, sample


def transposed_oracle(x, w):
    y = np.zeros((1, 13, 13, 5))
    for i in range(6):
        for j in range(6):
            y[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] += np.einsum("nc,oabc->nabo", x[:, i, j], w)
    return y


def solid(b, w):
    x, y = b.tensor("x", (1, 4, 4, 4, 2)), b.tensor("y", (1, 3, 3, 3, 6))
    bias = b.tensor("bias", (6,), np.zeros(6, np.float32))
    ones = {f"stride{a}": 1 for a in "DHW"} | {f"dilation{a}Factor": 1 for a in "DHW"}
    b.op("CONV_3D", [x, w, bias], [y], "Conv3DOptions", padding=1, **ones)
    return x, y, normal(1, 4, 4, 4, 2)


def solid_oracle(x, w):
    patches = np.lib.stride_tricks.sliding_window_view(x, (2, 2, 2), axis=(1, 2, 3))
    return np.einsum("ndhwcijk,ijkco->ndhwo", patches, w)


def looked_up(b, w):
    x, y = b.tensor("x", (5,), kind="INT32"), b.tensor("y", (5, 16))
    b.op("EMBEDDING_LOOKUP", [x, w], [y])
    return x, y, ints(0, 29, 7, 7, 3)


def gathered(b, w):
    x, y = b.tensor("x", (1, 5), kind="INT32"), b.tensor("y", (1, 5, 16))
    b.op("GATHER", [w, x], [y], "GatherOptions")
    return x, y, ints(0, 29, 7, 7, 3)[None]


def batched(b, w):
    x, y = b.tensor("x", (3, 5, 8)), b.tensor("y", (3, 5, 6))
    b.op("BATCH_MATMUL", [x, w], [y], "BatchMatMulOptions")
    return x, y, normal(3, 5, 8)


def from_the_left(b, w):
    x, y = b.tensor("x", (1, 8, 5)), b.tensor("y", (1, 6, 5))
    b.op("BATCH_MATMUL", [w, x], [y], "BatchMatMulOptions")
    return x, y, normal(1, 8, 5)


def used_twice(b, w):
    """A table that is also the last layer, as language models have it."""
    x, e, y = b.tensor("x", (5,), kind="INT32"), b.tensor("e", (5, 16)), b.tensor("y", (5, 30))
    b.op("EMBEDDING_LOOKUP", [x, w], [e])
    b.op("FULLY_CONNECTED", [e, w, -1], [y], "FullyConnectedOptions", version=6)
    return x, y, ints(0, 29, 7, 7, 3)


def added_too(b, w):
    """A weight that an operator beside its layer reads."""
    x, y, z = b.tensor("x", (8, 8)), b.tensor("y", (8, 8)), b.tensor("z", (8, 8))
    b.op("FULLY_CONNECTED", [x, w, -1], [y], "FullyConnectedOptions", version=6)
    b.op("ADD", [y, w], [z], "AddOptions")
    return x, z, normal(8, 8)


# Name -> how it is built, shape of the weight, what NumPy makes of it, widths whose codes are multiplied themselves.
CASES = {
    "grouped": (grouped, (12, 3, 3, 4), grouped_oracle, {4, 8}),
    "transposed": (transposed, (5, 3, 3, 8), transposed_oracle, {8}),
    "solid": (solid, (2, 2, 2, 2, 6), solid_oracle, set()),
    "looked_up": (looked_up, (30, 16), lambda x, w: w[x], {2, 4, 8}),
    "gathered": (gathered, (30, 16), lambda x, w: w[x], set()),
    "batched": (batched, (3, 8, 6), lambda x, w: x @ w, set()),
    "from_the_left": (from_the_left, (1, 6, 8), lambda x, w: w @ x, set()),
    "used_twice": (used_twice, (30, 16), lambda x, w: w[x] @ w.T, {2, 4, 8}),
    "added_too": (added_too, (8, 8), lambda x, w: x @ w.T + w, set()),
}


def written(folder, build, shape):
    b = Builder()
    x, y, sample = build(b, b.tensor("net/w", shape, normal(*shape)))
    return b.write(folder / "m.tflite", [x], [y]), sample


def run(path, sample, *, delegates):
    kind = OpResolverType.AUTO if delegates else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_path=str(path), num_threads=1, experimental_op_resolver_type=kind)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], sample)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


@pytest.mark.parametrize("case", CASES)
def test_every_container_computes_what_its_codes_say(case, tmp_path):
    build, shape, oracle, multiplied = CASES[case]
    path, sample = written(tmp_path, build, shape)
    model, out = read(path), tmp_path / "q.tflite"
    (layer,), (record,) = model.layers(), model.variant.opened.weights.values()
    for bits in (2, 4, 8):
        plan, values = plan_for(model, lambda _, bits=bits: bits), weight(model, bits)
        model.write(plan, out)
        assert out.stat().st_size == plan.total_bytes
        assert f"INT{bits}" in tensor_types(out)
        assert containers.multiplied(record, bits) == (bits in multiplied)
        expected = oracle(sample.astype(np.float64) if sample.dtype.kind == "f" else sample, values)
        for delegates in (True, False):
            error = relative(run(out, sample, delegates=delegates), expected)
            assert error < (0.02 if bits in multiplied else 1e-5), (bits, delegates)
        np.testing.assert_array_equal(read(out, requantize=True).weight(layer.name), values)


def weight(model, bits):
    (values,) = dequantized(model, lambda _: bits).values()
    return values


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def recurrent(path, weights, biases):
    """One LSTM over 5 steps of 7 numbers, 6 cells, with states of its own."""
    b = Builder()
    x = b.tensor("x", (1, 5, 7))
    operands = [x, *(b.tensor(f"lstm/w{i}", w.shape, w) for i, w in enumerate(weights)), -1, -1, -1]
    operands += [*(b.tensor(f"b{i}", v.shape, v) for i, v in enumerate(biases)), -1, -1]
    for name in ("hidden", "cell"):
        operands.append(b.tensor(name, (1, 6)))
        b.graph.tensors[operands[-1]].isVariable = True
    y = b.tensor("y", (1, 5, 6))
    b.op(
        "UNIDIRECTIONAL_SEQUENCE_LSTM", [*operands, -1, -1, -1, -1], [y],
        "UnidirectionalSequenceLSTMOptions", fusedActivationFunction=4, timeMajor=False,
    )  # fmt: skip
    return b.write(path, [x], [y])


def recurrent_oracle(x, weights, biases):
    h = c = np.zeros((len(x), 6))
    steps = []
    for t in range(x.shape[1]):
        i, f, g, o = (x[:, t] @ weights[k].T + h @ weights[4 + k].T + biases[k] for k in range(4))
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        steps.append(h)
    return np.stack(steps, axis=1)


def test_all_weights_of_an_lstm_are_stored_in_few_bits_and_no_state_is_left_over(tmp_path):
    weights = [normal(6, 7, seed=i) for i in range(4)] + [normal(6, 6, seed=i) for i in range(4)]
    biases = [normal(6, seed=i) for i in range(4)]
    model = read(recurrent(tmp_path / "m.tflite", weights, biases))
    batch, out = normal(3, 5, 7), tmp_path / "q.tflite"
    assert len(model.layers()) == 8
    np.testing.assert_allclose(
        np.asarray(model.run(batch)), recurrent_oracle(batch, weights, biases), atol=1e-5
    )
    for bits in (2, 4, 8):
        model.write(plan_for(model, lambda _, bits=bits: bits), out)
        values = list(dequantized(model, lambda _, bits=bits: bits).values())
        expected = recurrent_oracle(batch, values, biases)
        np.testing.assert_allclose(np.asarray(read(out).run(batch)), expected, atol=1e-5)
        assert {bits} == {width for width, _ in read(out).stored_bits().values()}


def test_float16_weights_and_biases_of_convolutions_are_stored_as_codes(tmp_path):
    """Runtimes refuse codes beside a bias that is made float32 only when the file is loaded."""
    kernel, bias = normal(6, 3, 3, 8).astype(np.float16), normal(6).astype(np.float16)
    b = Builder()
    x, sample = image(b)
    read_from = []
    for name, values in (("net/conv/Conv2D", kernel), ("net/conv/BiasAdd", bias)):
        half, whole = (
            b.tensor(name, values.shape, values, kind="FLOAT16"),
            b.tensor(f"{name}32", values.shape),
        )
        b.op("DEQUANTIZE", [half], [whole], "DequantizeOptions", version=3)
        read_from.append(whole)
    y = b.tensor("y", (1, 4, 4, 6))
    b.op("CONV_2D", [x, *read_from], [y], "Conv2DOptions", strideW=1, strideH=1, padding=1)
    model = read(b.write(tmp_path / "m.tflite", [x], [y]))
    for bits in (2, 4, 8):
        out, plan = tmp_path / f"q{bits}.tflite", plan_for(model, lambda _, bits=bits: bits)
        model.write(plan, out)
        assert out.stat().st_size == plan.total_bytes
        patches = np.lib.stride_tricks.sliding_window_view(sample, (3, 3), axis=(1, 2))
        expected = np.einsum("nhwcij,oijc->nhwo", patches, weight(model, bits)) + bias
        assert relative(run(out, sample, delegates=True), expected) < 0.02


def test_weights_that_a_graph_hands_to_its_branches_are_layers(tmp_path):
    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=(4, 4)).astype(np.float32) for _ in range(2))
    b = Builder()
    x, y, z = b.tensor("x", (1, 4)), b.tensor("y", (1, 4)), b.tensor("z", (1, 4))
    w, v = b.tensor("a/w", (4, 4), first), b.tensor("b/w", (4, 4), second)
    b.op("FULLY_CONNECTED", [x, w, -1], [y], "FullyConnectedOptions", version=6)
    flag = b.tensor("flag", (), np.array(True), kind="BOOL")
    b.op("IF", [flag, y, v], [z], "IfOptions", thenSubgraphIndex=1, elseSubgraphIndex=1)
    b.graph.inputs, b.graph.outputs = ints(x), ints(z)
    main = b.graph
    b.subgraph()
    u, t, r = b.tensor("u", (1, 4)), b.tensor("t", (4, 4)), b.tensor("r", (1, 4))
    b.op("FULLY_CONNECTED", [u, t, -1], [r], "FullyConnectedOptions", version=6)
    b.graph.inputs, b.graph.outputs = ints(u, t), ints(r)
    b.graph = main
    model, out = read(b.write(tmp_path / "m.tflite", [x], [z])), tmp_path / "q.tflite"
    assert [layer.name for layer in model.layers()] == ["a.w", "b.w"]
    model.write(plan_for(model, lambda _: 2), out)
    values = dequantized(model, lambda _: 2)
    batch = rng.normal(size=(3, 4)).astype(np.float32)
    expected = batch @ values["a.w"].T @ values["b.w"].T
    assert relative(np.asarray(read(out).run(batch)), expected) < 0.02


def test_layers_behind_an_operator_that_the_runtime_lacks_are_verified_alone(tmp_path, monkeypatch):
    b = Builder()
    x, m, y = b.tensor("x", (1, 8)), b.tensor("m", (1, 8)), b.tensor("y", (1, 6))
    b.op("CUSTOM", [x], [m], custom="Mystery")
    b.op(
        "FULLY_CONNECTED",
        [m, b.tensor("net/w", (6, 8), normal(6, 8)), -1],
        [y],
        "FullyConnectedOptions",
        version=6,
    )
    model, out = read(b.write(tmp_path / "m.tflite", [x], [y])), tmp_path / "q.tflite"
    with pytest.raises(AdapterError, match="Mystery"):
        model.run(np.zeros((1, 8), np.float32))
    plan = plan_for(model, lambda _: 4)
    model.write(plan, out)
    assert out.stat().st_size == plan.total_bytes
    wrong = containers.TENSOR_TYPES | {4: "UINT4"}
    monkeypatch.setattr(containers, "TENSOR_TYPES", wrong)
    with pytest.raises(AdapterError, match="the written model does not run"):
        model.write(plan, tmp_path / "wrong.tflite")


def test_large_constants_that_are_no_weights_are_listed(tmp_path):
    b = Builder()
    x, y = b.tensor("x", (64, 64)), b.tensor("y", (64, 64))
    b.op("ADD", [x, b.tensor("net/positions", (64, 64), normal(64, 64))], [y], "AddOptions")
    model = read(b.write(tmp_path / "m.tflite", [x], [y]))
    assert model.skipped == (("net/positions", "a constant of ADD (16,384 bytes)"),)


@pytest.mark.parametrize("name", ["vit", "mobile_vit"])
def test_fixtures_have_no_weight_left_alone(name):
    assert read(fixture(name)).skipped == ()
