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


@pytest.mark.parametrize("inputs", [None, 8, 16])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_linear_layers_of_every_container_compute_what_their_codes_say(tmp_path, bits, shape, inputs):
    rng = np.random.default_rng(7)
    weight = rng.normal(size=shape).astype(np.float32)
    bias = rng.normal(size=shape[0]).astype(np.float32)
    model = read(linear(tmp_path / "m.tflite", weight, bias))
    batch = rng.normal(size=(30, shape[1])).astype(np.float32)
    out, plan = tmp_path / "q.tflite", planned(model, bits, batch, inputs)
    model.write(plan, out, calibration=batch if inputs else None)
    ((_, values),) = dequantized(model, lambda _: bits).items()
    expected = batch @ values.T + bias
    # Activations of 8 bits lose about 1 % each, those of 16 some 1e-4; with one input a row can cancel.
    scale = max(
        np.linalg.norm(expected), 0.3 * np.linalg.norm(batch) * np.linalg.norm(values) / np.sqrt(shape[1])
    )
    for delegates in (True, False):
        found = run_directly(out, batch, delegates=delegates)
        assert np.linalg.norm(found - expected) < (5e-4 if inputs == 16 else 0.025) * scale, delegates
    assert f"INT{bits}" in tensor_types(out)
    version = {None: {4: 12, 8: 12}, 8: {4: 10, 8: 6}, 16: {4: 11, 8: 11}}[inputs].get(bits, 14)
    assert ("FULLY_CONNECTED", version) in opcodes(out)


@pytest.mark.parametrize("with_bias", [False, True])
def test_int16_inputs_do_not_overflow_the_sum_of_a_long_row(tmp_path, with_bias):
    """3,072 products of 15 and 7 bits, all of one sign, are more than 32 bits hold."""
    rng = np.random.default_rng(7)
    weight = rng.uniform(0.9, 1.0, size=(8, 3072)).astype(np.float32)
    batch = rng.uniform(0.9, 1.0, size=(6, 3072)).astype(np.float32)
    bias = rng.normal(size=8).astype(np.float32) if with_bias else np.zeros(8, np.float32)
    model, out = (
        read(linear(tmp_path / "m.tflite", weight, bias if with_bias else None)),
        tmp_path / "q.tflite",
    )
    model.write(planned(model, 8, batch, 16), out, calibration=batch)
    ((_, values),) = dequantized(model, lambda _: 8).items()
    for delegates in (True, False):
        assert relative(run_directly(out, batch, delegates=delegates), batch @ values.T + bias) < 1e-4
    assert "INT64" in tensor_types(out)


def planned(model, bits, batch, inputs):
    """One width for all weights, and one for their inputs or None."""
    return plan_for(
        model, lambda _: bits, ranges=ranges_of(model, batch) if inputs else None, act_bits=inputs
    )


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


@pytest.mark.parametrize("inputs", [None, 8, 16])
@pytest.mark.parametrize(("bits", "depthwise"), [(4, False), (8, False), (8, True)])
@pytest.mark.parametrize("kernel", [1, 3])
def test_convolutions_of_every_container_compute_what_their_codes_say(
    tmp_path, bits, depthwise, kernel, inputs
):
    rng = np.random.default_rng(7)
    channels = 5
    shape = (1, kernel, kernel, channels) if depthwise else (6, kernel, kernel, channels)
    weight = rng.normal(size=shape).astype(np.float32)
    bias = rng.normal(size=channels if depthwise else 6).astype(np.float32)
    path = convolution(tmp_path / "m.tflite", weight, bias, depthwise=depthwise, activation=1)
    model = read(path)
    batch = inputs_for(model, 6)
    out = tmp_path / "q.tflite"
    model.write(planned(model, bits, batch, inputs), out, calibration=batch if inputs else None)
    values = dequantized(model, lambda _: bits)
    expected = np.maximum(patches(batch, kernel, next(iter(values.values())), depthwise) + bias, 0).mean(
        axis=(1, 2)
    )
    for delegates in (True, False):
        error = relative(run_directly(out, batch, delegates=delegates), expected)
        assert error < (3e-4 if inputs == 16 else 0.02)
    versions = {None: {4: 8, 8: 5}, 8: {4: 7, 8: 3}, 16: {4: 8, 8: 4}}
    if depthwise:
        assert ("DEPTHWISE_CONV_2D", {None: 6, 8: 3, 16: 5}[inputs]) in opcodes(out)
    else:
        assert ("CONV_2D", versions[inputs][bits]) in opcodes(out)


def patches(batch, kernel, weight, depthwise):
    """A convolution without padding, by its definition."""
    side = batch.shape[1] - kernel + 1
    result = 0
    for i in range(kernel):
        for j in range(kernel):
            part = batch[:, i : i + side, j : j + side]
            result = result + (part * weight[0, i, j] if depthwise else part @ weight[:, i, j].T)
    return result


@pytest.mark.parametrize("inputs", [None, 8, 16])
@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_products_with_constants_become_linear_layers(tmp_path, bits, adjoint, inputs):
    rng = np.random.default_rng(7)
    weight = rng.normal(size=(10, 24) if adjoint else (24, 10)).astype(np.float32)
    model = read(matmul(tmp_path / "m.tflite", weight, adjoint=adjoint))
    batch = inputs_for(model, 5)
    out = tmp_path / "q.tflite"
    model.write(planned(model, bits, batch, inputs), out, calibration=batch if inputs else None)
    ((_, values),) = dequantized(model, lambda _: bits).items()
    expected = (batch @ (values.T if adjoint else values)).mean(axis=1)
    for delegates in (True, False):
        error = relative(run_directly(out, batch, delegates=delegates), expected)
        assert error < (5e-4 if inputs == 16 else 0.05)
    assert "BATCH_MATMUL" not in {name for name, _ in opcodes(out)}
