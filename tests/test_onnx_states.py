"""Inputs whose samples do not come first: states of recurrent models, (2, samples, width)."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import lampq
from lampq.adapters.onnx import read
from lampq.core.values.batch import Batch
from lampq.core.values.errors import RecordError

WIDTH = 24


def weights():
    rng = np.random.default_rng(0)
    return {
        "w": rng.normal(size=(16, WIDTH)).astype(np.float32) / 4,
        "u": rng.normal(size=(WIDTH, WIDTH)).astype(np.float32) / 5,
        "v": rng.normal(size=(WIDTH, 4)).astype(np.float32) / 3,
    }


def step(arrays, x, state):
    """One step of the model, samples first: the result, and the state (2, samples, width) after it."""
    cell = np.tanh(x @ arrays["w"] + state[:, 0] @ arrays["u"]) + state[:, 1]
    return cell @ arrays["v"], np.stack([cell, cell])


def recurrent(path, first, second, *, state_first=False):
    """y = (tanh(x w + h u) + c) v with (h, c) the state; the axes of samples are called `first` and `second`."""
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Gather", ["state", "zero"], ["h"], axis=0),
        node("Gather", ["state", "one"], ["c"], axis=0),
        node("MatMul", ["h", "u"], ["b"]),
        node("Add", ["a", "b"], ["sum"]),
        node("Tanh", ["sum"], ["t"]),
        node("Add", ["t", "c"], ["cell"]),
        node("MatMul", ["cell", "v"], ["y"]),
        node("Unsqueeze", ["cell", "axis"], ["row"]),
        node("Concat", ["row", "row"], ["stateN"], axis=0),
    ]
    constants = {**weights(), "zero": np.array(0), "one": np.array(1), "axis": np.array([0])}
    info = helper.make_tensor_value_info
    inputs = [
        info("x", TensorProto.FLOAT, [first, 16]),
        info("state", TensorProto.FLOAT, [2, second, WIDTH]),
    ]
    outputs = [
        info("y", TensorProto.FLOAT, [first, 4]),
        info("stateN", TensorProto.FLOAT, [2, second, WIDTH]),
    ]
    graph = helper.make_graph(
        nodes, "vad", inputs[::-1] if state_first else inputs, outputs,
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def samples(count=37):
    rng = np.random.default_rng(1)
    shapes = {"x": (count, 16), "state": (count, 2, WIDTH)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("state_first", [False, True])
@pytest.mark.parametrize("axes", [("n", "n"), (None, None), (1, 1), ("n", 1)], ids=str)
def test_states_are_given_samples_first_and_fed_as_the_graph_has_them(tmp_path, axes, state_first):
    """An axis of samples that is free in name alone, with the state of one sample, is such too."""
    model = read(recurrent(tmp_path / "m.onnx", *axes, state_first=state_first))
    first, second = (1 if axis == 1 else None for axis in axes)
    assert {spec.name: spec.shape for spec in model.input_specs} == {
        "x": (first, 16),
        "state": (second, 2, WIDTH),
    }
    batch = samples()
    expected, _ = step(weights(), **batch)
    np.testing.assert_allclose(np.asarray(model.run(batch)), expected, atol=1e-5)
    changed = {name: 0.5 * array for name, array in weights().items()}
    expected, _ = step(changed, **batch)
    np.testing.assert_allclose(np.asarray(model.with_weights(changed).run(batch)), expected, atol=1e-5)
    for name, value in changed.items():
        expected, _ = step({**weights(), name: value}, **batch)
        ((_, _, outputs),) = model.sweep(Batch.of(batch), iter([(name, 0, value)]))
        np.testing.assert_allclose(np.asarray(outputs), expected, atol=1e-5)


def test_the_state_that_a_step_gives_is_not_judged_and_says_why(tmp_path):
    model = read(recurrent(tmp_path / "m.onnx", "n", "n"))
    heads = {head.name: head for head in model.heads}
    assert heads["y"].role == "classes"
    assert (heads["stateN"].role, heads["stateN"].reason) == (
        "ignore",
        "the next state, whose first axis is not that of the samples",
    )
    # Nor does anything stand for it.
    assert [spec.name for spec in model.output_specs] == ["y", "stateN"]


def test_a_model_with_a_state_is_quantized_by_gradients_and_judged_by_the_runtime(tmp_path):
    path, batch = recurrent(tmp_path / "m.onnx", "n", "n"), samples(64)
    model = read(path)
    profile = lampq.profile(model, batch, bits=(2, 4, 8), fisher_draws=0, measure="gradients")
    direct = lampq.profile(model, batch, bits=(2, 4, 8), fisher_draws=0, measure="differences")
    np.testing.assert_allclose(profile.kl, direct.kl, rtol=0.3, atol=1e-6)
    plan = lampq.quantize(model, batch, tmp_path / "q.onnx", average_bits=4)
    feed = {"x": batch["x"], "state": np.ascontiguousarray(batch["state"].transpose(1, 0, 2))}
    stock = ort.InferenceSession(str(tmp_path / "q.onnx"))
    written = stock.run(["y"], feed)[0]
    np.testing.assert_allclose(np.asarray(read(tmp_path / "q.onnx").run(batch)), written, atol=1e-4)
    assert 0 < plan.measured_kl < 0.1


def test_one_number_fills_a_state_and_other_forms_are_refused_in_one_line(tmp_path):
    path, batch = recurrent(tmp_path / "m.onnx", "n", "n"), samples(6)
    model = read(path, constants={"state": 0.25})
    state = np.full((6, 2, WIDTH), 0.25, np.float32)
    expected, _ = step(weights(), batch["x"], state)
    np.testing.assert_allclose(np.asarray(model.run({"x": batch["x"]})), expected, atol=1e-5)
    with pytest.raises(RecordError, match=r"samples and .state. 2; samples come first"):
        read(path).run({**batch, "state": batch["state"].transpose(1, 0, 2)})
