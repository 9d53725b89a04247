"""Rounding to inputs knows what kernels see: overlapping, strided, dilated, grouped and depthwise convolutions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import helper
from onnx_graphs import Graph
from onnx_models import graph, saved
from onnx_runs import read
from tflite_models import convolution, inputs_for
from torch.nn import functional

import lampq
from lampq.adapters.tflite import read as read_tflite
from lampq.core.measuring.encoding import encoder, with_rounding
from lampq.core.measuring.reference import with_examples
from lampq.core.quantizing.quantizer import as_rows, from_rows
from lampq.core.quantizing.rounding import InputRounding
from lampq.core.values.errors import RecordError
from lampq.core.values.window import Window

FORMS = {
    "overlapping": ((6, 4, 3, 3), {"pads": [1, 1, 1, 1]}),
    "strided, pads unlike": ((6, 4, 3, 2), {"pads": [0, 1, 2, 0], "strides": [2, 3]}),
    "dilated": ((6, 4, 3, 3), {"dilations": [2, 1], "pads": [2, 0, 2, 1]}),
    "grouped": ((6, 2, 3, 3), {"group": 2, "pads": [1, 1, 1, 1]}),
    "depthwise": ((4, 1, 5, 5), {"group": 4, "pads": [2, 2, 2, 2]}),
    "two channels of each": ((8, 1, 3, 3), {"group": 4}),
    "as many as strides": ((6, 4, 3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "without pads": ((6, 4, 3, 3), {"auto_pad": "VALID"}),
    "of one axis": ((6, 4, 3), {"pads": [1, 1]}),
}


def _images(rank, samples=5, channels=4):
    """Smooth, and far from zero on average, as the inputs of first layers are."""
    sides = (9, 8)[:rank]
    noise = np.random.default_rng(0).normal(size=(samples, channels, *sides)).astype(np.float32)
    for axis in range(2, 2 + rank):
        noise = noise + np.roll(noise, 1, axis)
    return noise + np.float32(2)


def _model(tmp_path, shape, attributes, x):
    weight = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", **attributes)
    sides = {"x": ["n", *x.shape[1:]]}
    return read(
        saved(
            graph(
                [node],
                {"w": weight},
                inputs=sides,
                outputs={"y": ["n", shape[0], *[None] * (len(shape) - 2)]},
            ),
            tmp_path,
        )
    )


@pytest.mark.parametrize("form", FORMS)
def test_a_moment_of_inputs_tells_the_error_of_a_convolutions_output(tmp_path, form):
    """What the runtime computes with the error of the weights in their place, squared, is the error."""
    shape, attributes = FORMS[form]
    x = _images(len(shape) - 2)
    model = _model(tmp_path, shape, attributes, x)
    told, seen = _told_and_seen(model, x, attributes.get("group", 1))
    np.testing.assert_allclose(told, seen, rtol=1e-5)


@pytest.mark.parametrize("form", ["overlapping", "grouped", "depthwise", "strided, pads unlike"])
def test_codes_of_a_convolution_are_chosen_for_what_its_kernel_sees(tmp_path, form):
    shape, attributes = FORMS[form]
    x = _images(2)
    model = _model(tmp_path, shape, attributes, x)
    (layer,) = model.layers()
    exact = np.asarray(model.run(x))

    def lost(rounding):
        coded = with_rounding(model, rounding, None, x)
        codes = encoder(coded, layer.name, 0, (3, 4))(4)
        weight = from_rows(codes.dequantized(), layer.shape, 0)
        return np.square(np.asarray(model.with_weights({layer.name: weight}).run(x)) - exact).sum()

    assert lost("inputs") < 0.75 * lost("nearest")


def _told_and_seen(model, x, groups=1):
    """Squared error of the output by the moment of the inputs, and by what the runtime computes, for random errors."""
    (layer,) = model.layers()
    moment = with_rounding(model, "inputs", None, x).coding.moments[layer.name]
    delta = np.random.default_rng(2).normal(size=layer.shape).astype(np.float32)
    outputs = np.asarray(model.with_weights({layer.name: delta}).run(x))
    rows = as_rows(delta, layer.channel_axis).reshape(groups, layer.channels // groups, -1)
    moments = moment.reshape(groups, *moment.shape[-2:])
    told = np.einsum("gcn,gnm,gcm->", rows, moments, rows, dtype=np.float64)
    return told, np.square(outputs, dtype=np.float64).sum() / (outputs.size / layer.channels)


@pytest.mark.parametrize(("shape", "depthwise"), [((6, 3, 3, 4), False), ((1, 3, 3, 8), True)])
def test_images_with_channels_last_tell_the_same_in_tflite(tmp_path, shape, depthwise):
    weight = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    channels = shape[3] if depthwise else shape[0]
    path = tmp_path / "m.tflite"
    none = np.zeros(channels, np.float32)
    convolution(path, weight, none, depthwise=depthwise, stride=2)
    (window,) = read_tflite(path).windows().values()
    assert (window.kernel, window.strides, window.pads) == ((3, 3), (2, 2), ((0, 0), (0, 0)))
    # One place: what follows is a mean over them.
    convolution(path, weight, none, depthwise=depthwise, side=3)
    model = read_tflite(path)
    told, seen = _told_and_seen(model, inputs_for(model, 4), groups=8 if depthwise else 1)
    np.testing.assert_allclose(told, seen, rtol=1e-4)


FACTORY = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, padding=1, dilation=2, groups=2, bias=False), nn.Flatten(2))
"""


def test_convolutions_of_pytorch_models_tell_the_same(tmp_path):
    (tmp_path / "factory.py").write_text(FACTORY)
    x = _images(2)
    model = with_examples(lampq.read(f"{tmp_path / 'factory.py'}:build"), x)
    told, seen = _told_and_seen(model, x, groups=2)
    np.testing.assert_allclose(told, seen, rtol=1e-5)


def test_channels_last_see_the_same_in_their_own_order():
    x = torch.randn(2, 7, 6, 4, generator=torch.Generator().manual_seed(0))
    window = Window(
        kernel=(3, 3), strides=(1, 2), dilations=(1, 1), pads=((1, 1), (1, 1)), groups=2, channels_last=True
    )
    weight = torch.randn(6, 3, 3, 2, generator=torch.Generator().manual_seed(1))
    expected = functional.conv2d(
        x.permute(0, 3, 1, 2), weight.permute(0, 3, 1, 2), stride=(1, 2), padding=1, groups=2
    )
    rows = window.rows(x.numpy())
    own = np.einsum("gpn,gcn->pgc", rows, weight.numpy().reshape(2, 3, -1)).reshape(2, -1, 6)
    np.testing.assert_allclose(own, expected.flatten(2).swapaxes(1, 2).numpy(), atol=1e-5)


def test_large_images_give_some_places_spread_evenly():
    window = Window(kernel=(3, 3), strides=(1, 1), dilations=(1, 1), pads=None)
    rows = window.rows(np.ones((2, 64, 300, 300), np.float32))
    assert rows.shape == (1, 2 * 910, 576)


@pytest.mark.parametrize(
    ("values", "window"),
    [
        (np.ones((2, 4, 2, 2), np.float32), {}),
        (np.ones((2, 3, 8, 8), np.float32), {"groups": 2}),
        (np.ones((2, 4, 8), np.float32), {}),
        (np.ones((0, 4, 8, 8), np.float32), {}),
    ],
)
def test_values_that_no_kernel_fits_give_no_rows(values, window):
    base = {"kernel": (3, 3), "strides": (1, 1), "dilations": (1, 1), "pads": ((0, 0), (0, 0))}
    assert Window(**base | window).rows(values) is None


@pytest.mark.parametrize(
    "window",
    [{"strides": (1,)}, {"strides": (0, 1)}, {"pads": ((0, 0),)}, {"pads": ((0, -1), (0, 0))}],
)
def test_windows_that_cannot_be_are_refused(window):
    base = {"kernel": (3, 3), "strides": (1, 1), "dilations": (1, 1), "pads": ((0, 0), (0, 0))}
    with pytest.raises(RecordError, match="a kernel"):
        Window(**base | window)


def test_groups_round_as_each_of_them_alone():
    random = np.random.default_rng(3)
    rows = random.normal(size=(6, 9)).astype(np.float32)
    x = random.normal(size=(2, 50, 9)).astype(np.float32) + 1
    moments = x.swapaxes(1, 2) @ x / 50
    together = InputRounding(moments).quantize(rows, (3,), grid="mid_tread")[0]
    for group in range(2):
        own = slice(3 * group, 3 * group + 3)
        alone = InputRounding(moments[group]).quantize(rows[own], (3,), grid="mid_tread")[0]
        np.testing.assert_array_equal(together.codes[own], alone.codes)
        np.testing.assert_array_equal(together.scale[own], alone.scale)
    with pytest.raises(RecordError, match="5 channels are no 2 groups"):
        InputRounding(moments).quantize(rows[:5], (3,))


def test_a_shared_kernel_that_moves_in_two_ways_has_no_window(tmp_path):
    g = Graph()
    shared = g.weight("w", 4, 4, 3, 3)
    first = g.node("Conv", ["x", shared], pads=[1] * 4)
    second = g.node("Conv", [first, shared], dilations=[2, 2], pads=[2] * 4)
    g.node("Flatten", [g.node("GlobalAveragePool", [second])])
    model = read(g.save(tmp_path / "m.onnx", ["n", 4, 8, 8]))
    assert not model.windows()
