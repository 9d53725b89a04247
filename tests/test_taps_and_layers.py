"""What every model keeps to, whatever its format."""

import numpy as np
import pytest
import torch
from onnx.helper import make_node
from onnx_models import graph, normal, saved
from tflite_models import Builder
from torch_models import read_named

import lampq
from lampq.adapters.padding import without_padding
from lampq.adapters.torch import read as torch_read
from lampq.core.measuring.moments import input_moments

IN, HIDDEN = 12, 16


def weights():
    return {"w": normal(IN, HIDDEN, seed=1), "v": normal(HIDDEN, 8, seed=2)}


def onnx_model(folder, batch, *, transposed=False):
    """Two products over tokens; `transposed` puts the samples behind the tokens in front of the second."""
    middle = [make_node("Relu", ["h"], ["r"])]
    if transposed:
        middle = [make_node("Transpose", ["h"], ["t"], perm=[1, 0, 2]), make_node("Relu", ["t"], ["r"])]
    end = make_node("ReduceMean", ["z", "axes"], ["y"], keepdims=0)
    nodes = [make_node("MatMul", ["x", "w"], ["h"]), *middle, make_node("MatMul", ["r", "v"], ["z"]), end]
    constants = weights() | {"axes": np.array([0 if transposed else 1])}
    model = graph(nodes, constants, inputs={"x": [batch, 3, IN]}, outputs={"y": [batch, 8]})
    return lampq.read(saved(model, folder, f"{batch}{transposed}.onnx"))


def tflite_model(folder, batch):
    b, arrays = Builder(), weights()
    x, h = b.tensor("x", (batch, IN)), b.tensor("h", (batch, HIDDEN))
    w, v = (b.tensor(name, array.T.shape, array.T) for name, array in arrays.items())
    y = b.tensor("y", (batch, 8))
    b.op("FULLY_CONNECTED", [x, w, -1], [h], "FullyConnectedOptions", version=6)
    b.op("FULLY_CONNECTED", [h, v, -1], [y], "FullyConnectedOptions", version=6)
    return lampq.read(b.write(folder / f"{batch}.tflite", [x], [y]))


def taps(model, batch):
    """All inputs of each layer in rows, and how many elements they have."""
    rows = {}
    for name, values, _ in model.taps(batch):
        rows.setdefault(name, []).append(values.reshape(-1, values.shape[-1]))
    return {name: np.concatenate(parts) for name, parts in rows.items()}


@pytest.mark.parametrize("samples", [1, 8, 12])
@pytest.mark.parametrize("transposed", [False, True])
def test_samples_that_fill_up_a_fixed_batch_are_no_data_in_onnx(tmp_path, transposed, samples):
    batch = normal(samples, 3, IN, seed=5)
    fixed = onnx_model(tmp_path, 8, transposed=transposed)
    found, wanted = taps(fixed, batch), taps(onnx_model(tmp_path, "n", transposed=transposed), batch)
    assert {name: rows.size for name, rows in found.items()} == {
        "w": samples * 3 * IN,
        "v": samples * 3 * HIDDEN,
    }
    for name, rows in found.items():
        np.testing.assert_allclose(np.sort(rows, axis=0), np.sort(wanted[name], axis=0), atol=1e-5)


@pytest.mark.parametrize("samples", [1, 8, 12])
def test_samples_that_fill_up_a_fixed_batch_are_no_data_in_tflite(tmp_path, samples):
    batch = normal(samples, IN, seed=5)
    model, single = tflite_model(tmp_path, 8), tflite_model(tmp_path, 1)
    found, wanted = taps(model, batch), taps(single, batch)
    assert [rows.size for rows in found.values()] == [samples * IN, samples * HIDDEN]
    for rows, others in zip(found.values(), wanted.values(), strict=True):
        np.testing.assert_allclose(rows, others, rtol=1e-5, atol=1e-6)
    moments = input_moments(model, model.layers(), batch)
    np.testing.assert_allclose(
        moments[model.layers()[0].name], batch.T @ batch / samples, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("shape", [(4, 5), (4, 3, 5), (12, 5), (3, 4, 5), (2, 3, 4, 5)])
def test_padding_is_dropped_wherever_the_samples_stand(shape):
    """Four samples of which the last two are one; those of (12, 5) stand 3 x 4 or 4 x 3."""
    for axis in [axis for axis, length in enumerate(shape) if length == 4] or [0, 1]:
        inner = shape if 4 in shape else ((4, 3, 5) if axis == 0 else (3, 4, 5))
        array = normal(*inner, seed=axis)
        samples = np.moveaxis(array, axis, 0)
        samples[3] = samples[2]
        found = without_padding(array.reshape(shape), 3, 4)
        np.testing.assert_array_equal(found, np.take(array, range(3), axis).reshape(found.shape))
        assert found.size == array.size * 3 // 4
    constant = normal(3, 5)
    assert without_padding(constant, 3, 4) is constant


def models(folder):
    torch_model, batch = read_named("packed")
    yield torch_model, batch
    yield onnx_model(folder, "n"), normal(4, 3, IN)
    yield tflite_model(folder, 1), normal(4, IN)


def test_a_weight_handed_out_is_not_the_models_own(tmp_path):
    for model, batch in models(tmp_path):
        logits = model.run(batch)
        for layer in model.layers():
            before = model.weight(layer.name).copy()
            model.weight(layer.name)[...] = 0
            np.testing.assert_array_equal(model.weight(layer.name), before)
            variant = model.with_weights({layer.name: before * 2})
            variant.weight(layer.name)[...] = 0
            np.testing.assert_array_equal(variant.weight(layer.name), before * 2)
        np.testing.assert_array_equal(model.run(batch), logits)


def small_layers(folder):
    """One network of products in three formats; its second weight, 12 by 5, has less than 64 entries."""
    first, second = normal(IN, 12, seed=1), normal(12, 5, seed=2)
    nodes = [make_node("MatMul", ["x", "w"], ["h"]), make_node("MatMul", ["h", "v"], ["y"])]
    made = graph(nodes, {"w": first, "v": second}, inputs={"x": ["n", IN]}, outputs={"y": ["n", 5]})
    yield lampq.read(saved(made, folder))
    b = Builder()
    x, h, y = b.tensor("x", (1, IN)), b.tensor("h", (1, 12)), b.tensor("y", (1, 5))
    w, v = (b.tensor(name, array.T.shape, array.T) for name, array in (("w", first), ("v", second)))
    b.op("FULLY_CONNECTED", [x, w, -1], [h], "FullyConnectedOptions", version=6)
    b.op("FULLY_CONNECTED", [h, v, -1], [y], "FullyConnectedOptions", version=6)
    yield lampq.read(b.write(folder / "small.tflite", [x], [y]))
    net = torch.nn.Sequential(torch.nn.Linear(IN, 12, bias=False), torch.nn.Linear(12, 5, bias=False))
    with torch.no_grad():
        net[0].weight[:], net[1].weight[:] = torch.from_numpy(first.T), torch.from_numpy(second.T)
    yield torch_read(net.eval(), input_shape=(IN,))


def test_a_model_has_the_same_layers_in_every_format(tmp_path):
    opened = list(small_layers(tmp_path))
    plan = lampq.plan(lampq.profile(opened[0]), average_bits=4)
    for index, model in enumerate(opened):
        (layer,) = model.layers()
        assert layer.size == IN * 12
        assert [reason.split(" (")[0] for _, reason in model.skipped] == ["only 60 weights"]
        lampq.apply(model, plan, tmp_path / f"out{index}{('.onnx', '.tflite', '.safetensors')[index]}")
