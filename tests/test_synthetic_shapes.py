"""Synthetic samples of inputs that take any length."""

import json

import numpy as np
import onnxruntime as ort
import pytest
from onnx import helper
from onnx_models import graph, normal, saved

import lampq
from lampq.adapters.synthetic.recipe import SynthesisRecipe
from lampq.adapters.synthetic.shapes import definite, lengths_of
from lampq.cli import main
from lampq.core.values.errors import AdapterError
from lampq.core.values.input_spec import InputSpec

SOUND = InputSpec(name="sound", shape=(None, None))
FRAMES = InputSpec(name="frames", shape=(None, 3, None, 160))


@pytest.fixture
def listener(tmp_path):
    """Frames of 16 values, as many as there are, averaged and classified."""
    nodes = [
        helper.make_node("MatMul", ["sound", "w"], ["a"]),
        helper.make_node("ReduceMean", ["a", "axis"], ["m"], keepdims=0),
        helper.make_node("MatMul", ["m", "v"], ["y"]),
    ]
    constants = {"w": normal(16, 24), "v": normal(24, 4), "axis": np.array([1])}
    return saved(graph(nodes, constants, inputs={"sound": ["n", "t", 16]}, outputs={"y": ["n", 4]}), tmp_path)


def test_a_shape_makes_an_input_definite_by_name_or_as_the_only_one():
    assert [lengths_of(spec) for spec in definite([FRAMES], {"": (3, 50, 160)})] == [(3, 50, 160)]
    both = definite([SOUND, FRAMES], {"frames": (3, 50, 160), "sound": (576,)})
    assert [lengths_of(spec) for spec in both] == [(576,), (3, 50, 160)]


def test_inputs_with_no_definite_length_say_how_to_choose_one():
    with pytest.raises(AdapterError, match=r"say --input-shape frames=3xNx160 with a number for N"):
        lengths_of(FRAMES)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"frames": (3, 50, 80)}, r"input frames .* takes no samples of shape 3x50x80"),
        ({"frames": (3, 50)}, r"input frames .* takes no samples of shape 3x50"),
        ({"other": (576,)}, r"no free input is called 'other'; say .* for sound, frames"),
        ({"": (576,)}, r"several inputs have a shape; say --input-shape NAME=SHAPE"),
    ],
)
def test_shapes_that_are_none_are_refused_in_one_line(shapes, message):
    with pytest.raises(AdapterError, match=message):
        definite([SOUND, FRAMES], shapes)


def test_a_model_of_any_length_is_quantized_without_data(listener, tmp_path, capfd):
    """Judged by the stock runtime at a length that was not asked for."""
    out = tmp_path / "q.onnx"
    job = [
        *("quantize", str(listener), "--data", "synthetic:8", "--avg-bits", "6", "-o", str(out)),
        *("--rounding", "nearest", "--json", "--quiet"),
    ]
    assert main(job) == 2
    assert "--input-shape sound=Nx16" in capfd.readouterr().err
    assert main([*job, "--input-shape", "sound=40x16"]) == 0
    assert json.loads(capfd.readouterr().out)["provenance"]["data"]["samples"] == 8
    sound = {"sound": np.random.default_rng(0).normal(size=(2, 7, 16)).astype(np.float32)}
    expected, result = (ort.InferenceSession(str(path)).run(None, sound)[0] for path in (listener, out))
    np.testing.assert_allclose(result, expected, atol=0.1 * np.abs(expected).max())


@pytest.fixture
def amplifier(tmp_path):
    """Sound at a gain of each sample and a rate of all, to classes."""
    nodes = [
        helper.make_node("Mul", ["sound", "gain"], ["a"]),
        helper.make_node("Mul", ["a", "rate"], ["b"]),
        helper.make_node("MatMul", ["b", "w"], ["y"]),
    ]
    inputs = {"sound": ["n", 16], "gain": ["n", 1], "rate": []}
    return saved(graph(nodes, {"w": normal(16, 4)}, inputs=inputs, outputs={"y": ["n", 4]}), tmp_path)


def test_samples_are_refined_beside_constant_inputs(amplifier):
    model = lampq.read(amplifier, constants={"rate": 0.5})
    made = lampq.synthetic(model, 4, constants={"gain": 3.0})
    assert "by classes" in made.notes[0]
    np.testing.assert_array_equal(np.asarray(made.inputs()["gain"]), np.full((4, 1), 3, np.float32))


def test_a_number_for_all_samples_is_fixed_on_the_command_line(amplifier, tmp_path, capfd):
    out = tmp_path / "q.onnx"
    common = ["--data", "synthetic:8", "--input", "gain=3", "--quiet"]
    job = ["quantize", str(amplifier), *common, "--avg-bits", "8", "--rounding", "nearest", "-o", str(out)]
    assert main(job) == 2
    assert (
        "rate float32[] is one number for all samples; fix it with --input rate=VALUE"
        in capfd.readouterr().err
    )
    assert main([*job, "--input", "rate=0.5"]) == 0
    again = ["eval", str(out), "--reference", str(amplifier), *common, "--input", "rate=0.5", "--json"]
    capfd.readouterr()
    assert main(again) == 0
    assert 0 < json.loads(capfd.readouterr().out)["kl"] < 0.01


def test_shapes_of_a_model_with_data_of_its_own_are_refused(listener, capfd):
    assert main(["inspect", str(listener), "--input-shape", "40x16"]) == 2
    assert "goes with a PyTorch model or --data synthetic" in capfd.readouterr().err


def test_samples_have_the_shape_that_was_asked_for(listener):
    made = lampq.synthetic(lampq.read(listener), 4, recipe=SynthesisRecipe(shapes=(("sound", (9, 16)),)))
    assert np.asarray(made.inputs()["sound"]).shape == (4, 9, 16)
