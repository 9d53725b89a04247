"""Runs, sweeps and activations against the runtime used directly."""

import warnings

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from divergence import log_softmax
from tflite_models import NAMES, Builder, fixture, inputs_for, linear, matmul, run_directly

from lampq.adapters.tflite import read
from lampq.adapters.tflite.runtime import choose
from lampq.core.measuring.forward_fisher import forward_fisher
from lampq.core.measuring.measure import measure_activations, measure_damage
from lampq.core.measuring.reference import measure_reference
from lampq.core.quantizing.quantizer import as_rows, from_rows, quantize
from lampq.core.values.errors import AdapterError, MissingExtraError
from lampq.core.values.option import all_options

pytestmark = pytest.mark.usefixtures("weights_of_any_size")


def fake_quantized(model, layer, bits):
    quantized = quantize(as_rows(model.weight(layer.name), layer.channel_axis), bits, grid=model.grid)
    return from_rows(quantized.dequantized(), layer.shape, layer.channel_axis)


def patched(name, layer, weight, tmp_path):
    """The fixture with a weight's bytes overwritten in the file, found by their old value."""
    data = bytearray(fixture(name).read_bytes())
    old = read(fixture(name)).weight(layer.name).tobytes()
    at = data.index(old)
    data[at : at + len(old)] = np.ascontiguousarray(weight, np.float32).tobytes()
    path = tmp_path / "patched.tflite"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_the_runtime(name):
    model = read(fixture(name))
    batch = inputs_for(model, 7 if name == "conv_batch_3" else 5)
    padded = (
        np.concatenate([batch, batch[-1:], batch[-1:]])[: -(-len(batch) // 3) * 3]
        if name == "conv_batch_3"
        else batch
    )
    logits = np.asarray(model.run(batch))
    assert logits.dtype == np.float32
    np.testing.assert_allclose(
        logits, run_directly(fixture(name), padded)[: len(batch)], rtol=1e-5, atol=1e-6
    )


def test_many_samples_at_once_give_what_single_ones_give():
    model = read(fixture("conv_any_batch"))
    batch = inputs_for(model, 37)
    np.testing.assert_allclose(
        np.asarray(model.run(batch)), run_directly(fixture("conv_any_batch"), batch), rtol=1e-4, atol=1e-6
    )


def test_a_free_batch_that_the_operators_do_not_keep_is_not_believed(tmp_path):
    """A running sum over the samples takes any number of them, but mixes them: the declaration alone is no
    proof."""
    b = Builder()
    x, w = (
        b.tensor("x", (1, 8), signature=(-1, 8)),
        b.tensor("w", (3, 8), np.arange(24, dtype=np.float32).reshape(3, 8)),
    )
    y, z = b.tensor("y", (1, 3), signature=(-1, 3)), b.tensor("z", (1, 3), signature=(-1, 3))
    axis = b.tensor("axis", (1,), np.array([0], np.int32), kind="INT32")
    b.op("FULLY_CONNECTED", [x, w, -1], [y], "FullyConnectedOptions", version=6)
    b.op("CUMSUM", [y, axis], [z], "CumsumOptions")
    path = b.write(tmp_path / "m.tflite", [x], [z])
    batch = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    np.testing.assert_allclose(np.asarray(read(path).run(batch)), run_directly(path, batch), rtol=1e-5)


def test_a_softmax_at_the_end_is_undone(tmp_path):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(3, 8)).astype(np.float32) * 5
    b = Builder()
    x, w, y, z = (
        b.tensor("x", (1, 8)),
        b.tensor("w", (3, 8), weight),
        b.tensor("y", (1, 3)),
        b.tensor("z", (1, 3)),
    )
    b.op("FULLY_CONNECTED", [x, w, -1], [y], "FullyConnectedOptions", version=6)
    b.op("SOFTMAX", [y], [z], "SoftmaxOptions", beta=1.0)
    batch = rng.normal(size=(4, 8)).astype(np.float32)
    model = read(b.write(tmp_path / "m.tflite", [x], [z]))
    (head,) = model.heads
    assert (head.role, head.axis, head.activated) == ("classes", -1, True)
    np.testing.assert_allclose(
        np.asarray(model.run(batch)), log_softmax(batch @ weight.T), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("name", ["vit", "mobile_vit", "post_norm"])
def test_replaced_weights_count(name, tmp_path):
    model = read(fixture(name))
    batch = inputs_for(model, 3)
    for layer in (model.layers()[0], model.layers()[-2]):
        weight = fake_quantized(model, layer, 2)
        changed = model.with_weights({layer.name: weight})
        expected = run_directly(patched(name, layer, weight, tmp_path), batch)
        np.testing.assert_allclose(np.asarray(changed.run(batch)), expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(changed.weight(layer.name), weight)
        assert changed.digest == model.digest
    np.testing.assert_array_equal(np.asarray(model.run(batch)), np.asarray(read(fixture(name)).run(batch)))


def test_records_follow_replaced_weights():
    model = read(fixture("vit"))
    changed = model.with_weights({"head": np.full((10, 32), 2.0, np.float32)})
    assert changed.layers()[-1].weight.mean.tolist() == [2.0] * 10
    assert model.layers()[-1].weight.mean.tolist() != [2.0] * 10


@pytest.mark.parametrize("name", NAMES)
def test_a_sweep_gives_what_replacing_one_weight_gives(name):
    model = read(fixture(name))
    batch = inputs_for(model, 4)
    candidates = [
        (layer.name, bits, fake_quantized(model, layer, bits)) for layer in model.layers() for bits in (2, 4)
    ]
    found = list(model.sweep(batch, iter(candidates)))
    assert [(n, b) for n, b, _ in found] == [(n, b) for n, b, _ in candidates]
    for (layer, _, weight), (_, _, logits) in zip(candidates, found, strict=True):
        np.testing.assert_allclose(
            logits, np.asarray(model.with_weights({layer: weight}).run(batch)), rtol=1e-4, atol=1e-6
        )


def test_a_sweep_may_come_in_any_order_and_around_replaced_weights():
    model = read(fixture("mobile_vit"))
    batch = inputs_for(model, 2)
    base = model.with_weights(
        {"local": fake_quantized(model, next(x for x in model.layers() if x.name == "local"), 2)}
    )
    layers = list(base.layers())[::-1]
    candidates = [(layer.name, 0, fake_quantized(base, layer, 2)) for layer in layers]
    for (name, _, weight), (_, _, logits) in zip(
        candidates, base.sweep(batch, iter(candidates)), strict=True
    ):
        np.testing.assert_allclose(
            logits, np.asarray(base.with_weights({name: weight}).run(batch)), rtol=1e-4, atol=1e-6
        )


def test_a_sweep_without_room_for_activations(monkeypatch):
    monkeypatch.setattr("lampq.adapters.tflite.prefix.KEPT_BYTES", 100)
    test_a_sweep_gives_what_replacing_one_weight_gives("vit")


@pytest.mark.parametrize("name", NAMES)
def test_every_cut_gives_the_same_logits(name):
    model = read(fixture(name))
    opened, cuts = model.variant.opened, model.variant.cuts
    (port,) = opened.interface.inputs
    start = [{port.tensor: inputs_for(model, opened.interface.native_batch)}]
    ((expected,),) = cuts.finish(start, 0, {})
    for at in range(1, len(opened.main.ops), 5):
        states = cuts.advance(start, 0, at, {})
        ((found,),) = cuts.finish(states, at, {})
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_graph_with_calls_is_not_cut(tmp_path):
    b = Builder()
    rng = np.random.default_rng(0)
    w1, w2 = (rng.normal(size=(4, 4)).astype(np.float32) for _ in range(2))
    x, y, z = b.tensor("x", (1, 4)), b.tensor("y", (1, 4)), b.tensor("z", (1, 4))
    w = b.tensor("a/w", (4, 4), w1)
    b.op("FULLY_CONNECTED", [x, w, -1], [y], "FullyConnectedOptions", version=6)
    flag = b.tensor("flag", (), np.array(True), kind="BOOL")
    b.op("IF", [flag, y], [z], "IfOptions", thenSubgraphIndex=1, elseSubgraphIndex=1)
    b.graph.inputs, b.graph.outputs = np.array([x], np.int32), np.array([z], np.int32)
    main = b.graph
    b.subgraph()
    u, t, v = b.tensor("u", (1, 4)), b.tensor("b/w", (4, 4), w2), b.tensor("v", (1, 4))
    b.op("FULLY_CONNECTED", [u, t, -1], [v], "FullyConnectedOptions", version=6)
    b.graph.inputs, b.graph.outputs = np.array([u], np.int32), np.array([v], np.int32)
    b.graph = main
    model = read(b.write(tmp_path / "m.tflite", [x], [z]))
    batch = rng.normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_allclose(np.asarray(model.run(batch)), batch @ w1.T @ w2.T, rtol=1e-4)
    assert [layer.name for layer in model.layers()] == ["a.w", "b.w"]
    ((_, _, logits),) = model.sweep(batch, [("b.w", 0, np.eye(4, dtype=np.float32))])
    np.testing.assert_allclose(logits, batch @ w1.T, rtol=1e-4)


def inside(path, batch):
    """Every tensor of the first native batch, by the runtime's own debugging mode."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        interpreter = Interpreter(model_path=str(path), experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], batch)
    interpreter.invoke()
    return interpreter


@pytest.mark.parametrize("name", ["vit", "vit_float16", "mobile_vit", "post_norm", "conv_any_batch"])
def test_taps_are_the_inputs_of_the_layers(name):
    model = read(fixture(name))
    batch = inputs_for(model, 1)
    interpreter = inside(fixture(name), batch)
    main = model.variant.opened.main
    places = {weight.name: main.ops[weight.sites[0].op] for weight in model.variant.opened.survey.weights}
    found = list(model.taps(batch))
    assert [n for n, _, _ in found] == [layer.name for layer in model.layers()]
    for layer, values, positions in found:
        op = places[layer]
        np.testing.assert_allclose(values, interpreter.get_tensor(op.inputs[0]), rtol=1e-4, atol=1e-5)
        output = interpreter.get_tensor(op.outputs[0])
        channels = next(x.channels for x in model.layers() if x.name == layer)
        assert positions == output.size // channels


def test_macs_of_a_vit_are_counted():
    model = read(fixture("vit"))
    layers = {layer.name: layer for layer in measure_activations(model, model.layers(), inputs_for(model, 2))}
    assert layers["patch_embed.proj"].macs == 16 * 32 * 48
    assert layers["blocks.1.attn.qkv"].macs == 17 * 32 * 96
    assert layers["head"].macs == 32 * 10


def test_the_weight_of_a_product_is_tapped_in_rows(tmp_path):
    rng = np.random.default_rng(0)
    model = read(matmul(tmp_path / "m.tflite", rng.normal(size=(8, 3)).astype(np.float32), adjoint=False))
    batch = inputs_for(model, 2)
    found = list(model.taps(batch))
    np.testing.assert_allclose(np.concatenate([values for _, values, _ in found]), batch)
    assert [positions for _, _, positions in found] == [6, 6]


def test_a_quantized_model_runs_with_numbers_in_and_out(tmp_path):
    b = Builder()
    rng = np.random.default_rng(0)
    codes = rng.integers(-127, 128, size=(3, 8)).astype(np.int8)
    x, w = (
        b.tensor("x", (1, 8), kind="INT8", scale=0.05),
        b.tensor("w", (3, 8), codes, kind="INT8", scale=np.full(3, 0.01)),
    )
    y = b.tensor("y", (1, 3), kind="INT8", scale=0.1)
    b.op("FULLY_CONNECTED", [x, w, -1], [y], "FullyConnectedOptions", version=6)
    model = read(b.write(tmp_path / "m.tflite", [x], [y]))
    batch = rng.normal(size=(5, 8)).astype(np.float32)
    expected = np.rint(batch / 0.05) * 0.05 @ (codes * 0.01).T
    assert np.abs(np.asarray(model.run(batch)) - expected).max() <= 0.1
    assert model.layers() == ()
    assert list(model.stored_bits().values()) == [(8, "int8")]


def test_damage_and_fisher_traces_agree(tmp_path):
    """On one linear layer the Fisher trace has a closed form: tr = E |x|^2 E tr(diag(p) - p p^T)."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(5, 12)).astype(np.float32) * 0.3
    model = read(linear(tmp_path / "m.tflite", weight))
    batch = rng.normal(size=(40, 12)).astype(np.float32)
    logits = batch.astype(np.float64) @ weight.T
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    expected = ((batch**2).sum(axis=1) * (1 - (p**2).sum(axis=1))).mean()
    (trace,) = forward_fisher(model, measure_reference(model, batch), draws=30).values()
    assert trace == pytest.approx(expected, rel=0.15)
    damage = measure_damage(model, model.layers(), all_options((2, 4, 8)), batch)
    assert (np.diff(damage.kl[0]) < 0).all()


def test_the_runtime_that_is_installed_is_used():
    assert choose(["ai_edge_litert", "tflite_runtime"], "2.4.6") == "ai_edge_litert"
    assert choose(["tflite_runtime"], "1.26.4") == "tflite_runtime"
    with pytest.raises(AdapterError, match=r"fails with NumPy 2\.4\.6; run: pip install ai-edge-litert"):
        choose(["tflite_runtime"], "2.4.6")
    with pytest.raises(MissingExtraError, match=r"pip install 'lampq\[tflite\]'"):
        choose([], "2.4.6")


def test_batches_that_do_not_fit_are_refused():
    model = read(fixture("vit"))
    with pytest.raises(AdapterError, match=r"not a batch of shape \(2, 3, 8, 8\)"):
        model.run(np.zeros((2, 3, 8, 8), np.float32))
    with pytest.raises(AdapterError, match=r"not a batch of shape \(0, 3, 16, 16\)"):
        model.run(np.zeros((0, 3, 16, 16), np.float32))


def test_a_file_that_the_runtime_refuses_is_an_error(tmp_path):
    b = Builder()
    x, w, y = b.tensor("x", (1, 4)), b.tensor("w", (3, 5), np.ones((3, 5), np.float32)), b.tensor("y", (1, 3))
    b.op("FULLY_CONNECTED", [x, w, -1], [y], "FullyConnectedOptions", version=6)
    path = b.write(tmp_path / "m.tflite", [x], [y])
    with pytest.raises(AdapterError, match=r"m\.tflite cannot be run") as caught:
        read(path).run(np.ones((1, 4), np.float32))
    assert "\n" not in str(caught.value)


def test_names_that_are_no_text_are_an_error(tmp_path):
    b = Builder()
    weight = np.ones((3, 4), np.float32)
    x, w, y = b.tensor("x", (1, 4)), b.tensor("w", (3, 4), weight), b.tensor(b"\xff\x80", (1, 3))
    b.op("FULLY_CONNECTED", [x, w, -1], [y], "FullyConnectedOptions", version=6)
    model = read(b.write(tmp_path / "m.tflite", [x], [y]))
    assert [layer.shape for layer in model.layers()] == [(3, 4)]
    with pytest.raises(AdapterError, match="refuses the model"):
        model.run(np.ones((1, 4), np.float32))
