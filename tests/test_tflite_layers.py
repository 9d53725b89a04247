"""Single layers in every container against NumPy."""

import numpy as np
import pytest
from tflite_models import (
    convolution,
    dequantized,
    inputs_for,
    linear,
    matmul,
    opcodes,
    plan_for,
    ranges_of,
    relative,
    run_directly,
    tensor_types,
)

from lampq.adapters.tflite import read

pytestmark = pytest.mark.usefixtures("weights_of_any_size")

SHAPES = [(48, 64), (7, 33), (5, 3), (1, 17), (3, 1), (16, 130)]


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_linear_layers_of_every_container_compute_what_their_codes_say(tmp_path, bits, shape, static):
    rng = np.random.default_rng(7)
    weight = rng.normal(size=shape).astype(np.float32)
    bias = rng.normal(size=shape[0]).astype(np.float32)
    model = read(linear(tmp_path / "m.tflite", weight, bias))
    batch = rng.normal(size=(30, shape[1])).astype(np.float32)
    ranges = ranges_of(model, batch) if static else None
    out = tmp_path / "q.tflite"
    model.write(plan_for(model, lambda _: bits, ranges=ranges), out, calibration=batch if static else None)
    ((_, values),) = dequantized(model, lambda _: bits).items()
    expected = batch @ values.T + bias
    # Activations have 8 bits: about 1 % each; with one input a row can cancel.
    scale = max(
        np.linalg.norm(expected), 0.3 * np.linalg.norm(batch) * np.linalg.norm(values) / np.sqrt(shape[1])
    )
    for delegates in (True, False):
        found = run_directly(out, batch, delegates=delegates)
        assert np.linalg.norm(found - expected) < 0.025 * scale, delegates
    assert f"INT{bits}" in tensor_types(out)
    version = {(2, False): 14, (4, False): 12, (8, False): 12, (2, True): 14, (4, True): 10, (8, True): 6}[
        bits, static
    ]
    assert ("FULLY_CONNECTED", version) in opcodes(out)


@pytest.mark.parametrize("bits", [2, 4])
def test_fixed_output_ranges_are_those_of_the_quantized_layer(tmp_path, bits):
    """Few bits make outputs larger than the float layer's; ranges of the latter would cut them off, which
    would show as errors far beyond the rounding of inputs and outputs to 8 bits."""
    for seed in range(8):
        rng = np.random.default_rng(seed)
        model = read(linear(tmp_path / "m.tflite", rng.normal(size=(1, 17)).astype(np.float32)))
        batch = rng.normal(size=(30, 17)).astype(np.float32)
        out = tmp_path / "q.tflite"
        model.write(plan_for(model, lambda _: bits, ranges=ranges_of(model, batch)), out, calibration=batch)
        ((_, values),) = dequantized(model, lambda _: bits).items()
        expected = batch @ values.T
        steps = np.array([np.ptp(batch) * np.linalg.norm(values), np.ptp(expected)]) / 255
        rounding = np.sqrt(np.square(steps).sum() / 12 * len(batch))
        assert np.linalg.norm(run_directly(out, batch) - expected) < 1.6 * rounding


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize(("bits", "depthwise"), [(4, False), (8, False), (8, True)])
@pytest.mark.parametrize("kernel", [1, 3])
def test_convolutions_of_every_container_compute_what_their_codes_say(
    tmp_path, bits, depthwise, kernel, static
):
    rng = np.random.default_rng(7)
    channels = 5
    shape = (1, kernel, kernel, channels) if depthwise else (6, kernel, kernel, channels)
    weight = rng.normal(size=shape).astype(np.float32)
    bias = rng.normal(size=channels if depthwise else 6).astype(np.float32)
    path = convolution(tmp_path / "m.tflite", weight, bias, depthwise=depthwise, activation=1)
    model = read(path)
    batch = inputs_for(model, 6)
    ranges = ranges_of(model, batch) if static else None
    out = tmp_path / "q.tflite"
    model.write(plan_for(model, lambda _: bits, ranges=ranges), out, calibration=batch if static else None)
    values = dequantized(model, lambda _: bits)
    expected = np.maximum(patches(batch, kernel, next(iter(values.values())), depthwise) + bias, 0).mean(
        axis=(1, 2)
    )
    for delegates in (True, False):
        assert relative(run_directly(out, batch, delegates=delegates), expected) < 0.02
    versions = {(4, False): 8, (8, False): 5, (4, True): 7, (8, True): 3}
    name = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    assert (name, 6 if depthwise and not static else versions[bits, static]) in opcodes(out)


def patches(batch, kernel, weight, depthwise):
    """A convolution without padding, by its definition."""
    side = batch.shape[1] - kernel + 1
    result = 0
    for i in range(kernel):
        for j in range(kernel):
            part = batch[:, i : i + side, j : j + side]
            result = result + (part * weight[0, i, j] if depthwise else part @ weight[:, i, j].T)
    return result


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_products_with_constants_become_linear_layers(tmp_path, bits, adjoint, static):
    rng = np.random.default_rng(7)
    weight = rng.normal(size=(10, 24) if adjoint else (24, 10)).astype(np.float32)
    model = read(matmul(tmp_path / "m.tflite", weight, adjoint=adjoint))
    batch = inputs_for(model, 5)
    ranges = ranges_of(model, batch) if static else None
    out = tmp_path / "q.tflite"
    plan = plan_for(model, lambda _: bits, ranges=ranges)
    model.write(plan, out, calibration=batch if static else None)
    ((_, values),) = dequantized(model, lambda _: bits).items()
    expected = (batch @ (values.T if adjoint else values)).mean(axis=1)
    for delegates in (True, False):
        assert relative(run_directly(out, batch, delegates=delegates), expected) < 0.05
    assert "BATCH_MATMUL" not in {name for name, _ in opcodes(out)}
