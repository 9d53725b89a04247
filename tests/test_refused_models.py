"""Models whose damage cannot be measured are refused in a line that says why."""

import dataclasses

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save
from records import make_profile
from tflite_models import linear

import lampq
from lampq import adapters
from lampq.core.values.errors import LampqError, RecordError


def network(path, middle=(), classes=10, training=None):
    """x -> 16 x 32 -> Relu -> nodes that turn `b` into `c` -> 32 x classes."""
    rng = np.random.default_rng(0)
    arrays = {
        "first": rng.standard_normal((16, 32)),
        "last": rng.standard_normal((32, classes)),
        "ratio": 0.3,
    }
    constants = [numpy_helper.from_array(np.float32(value), name) for name, value in arrays.items()]
    if training is not None:
        constants.append(numpy_helper.from_array(np.array(training), "on"))
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        *(middle or [helper.make_node("Identity", ["b"], ["c"])]),
        helper.make_node("MatMul", ["c", "last"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", classes])],
        constants,
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


NOISE = [helper.make_node("RandomNormalLike", ["b"], ["r"]), helper.make_node("Add", ["b", "r"], ["c"])]
CONSTANT_NOISE = [
    helper.make_node("RandomUniform", [], ["r"], shape=[32]),
    helper.make_node("Add", ["b", "r"], ["c"]),
]


@pytest.mark.parametrize("middle", [NOISE, CONSTANT_NOISE])
def test_an_onnx_model_that_draws_random_numbers_is_refused(middle, tmp_path):
    with pytest.raises(LampqError, match=r"the model is random: Random.* draws random numbers"):
        adapters.read(network(tmp_path / "m.onnx", middle))


def test_dropout_in_training_mode_is_refused_and_switched_off_is_read(tmp_path):
    def dropout(*more):
        return [helper.make_node("Dropout", ["b", "ratio", *more], ["c"], name="drop")]

    with pytest.raises(LampqError, match="the model is random: Dropout drop is in training mode"):
        adapters.read(network(tmp_path / "on.onnx", dropout("on"), training=True))
    constant = helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True)))
    with pytest.raises(LampqError, match="in training mode"):
        adapters.read(network(tmp_path / "constant.onnx", [constant, *dropout("yes")]))
    assert len(adapters.read(network(tmp_path / "off.onnx", dropout("on"), training=False)).layers()) == 2
    assert len(adapters.read(network(tmp_path / "absent.onnx", dropout())).layers()) == 2


def test_randomness_that_the_output_does_not_depend_on_is_nobodys_business(tmp_path):
    middle = [helper.make_node("RandomNormalLike", ["b"], ["r"]), helper.make_node("Identity", ["b"], ["c"])]
    assert len(adapters.read(network(tmp_path / "m.onnx", middle)).layers()) == 2


def test_one_output_a_sample_is_yes_or_no_in_onnx(tmp_path):
    model = adapters.read(network(tmp_path / "m.onnx", classes=1))
    x = np.random.default_rng(1).standard_normal((8, 16)).astype(np.float32)
    assert [head.role for head in model.heads] == ["probabilities"]
    profile = lampq.profile(model, x, bits=(2, 8), fisher_draws=0)
    assert profile.kl[0, 0] > profile.kl[0, 1] > 0
    assert lampq.evaluate(model, x, np.zeros(8, int)).top1 is None


def test_one_output_a_sample_is_yes_or_no_in_tflite(tmp_path):
    linear(tmp_path / "m.tflite", np.random.default_rng(0).standard_normal((1, 64)).astype(np.float32))
    model = adapters.read(tmp_path / "m.tflite")
    assert [head.role for head in model.heads] == ["probabilities"]
    x = np.random.default_rng(1).standard_normal((8, 64)).astype(np.float32)
    profile = lampq.profile(model, x, bits=(2, 8), fisher_draws=0)
    assert profile.kl[0, 0] > profile.kl[0, 1] > 0


def test_a_mode_without_data_says_whether_there_were_any():
    (note,) = (n for n in lampq.plan(make_profile(), average_bits=4, mode="error").notes if "stands in" in n)
    assert note.startswith("mode error uses no data")
    (note,) = (n for n in lampq.plan(make_profile(data=False), average_bits=4).notes if "stands in" in n)
    assert note.startswith("made without data")


def test_inputs_whose_squares_overflow_are_refused_in_one_line(tmp_path):
    model = adapters.read(network(tmp_path / "m.onnx"))
    x = np.full((4, 16), 1e30, np.float32)
    with pytest.raises(
        RecordError, match=r"input of layer \S+ reaches 1e\+30, whose square is beyond float32"
    ):
        lampq.profile(model, x, bits=(4,), fisher_draws=0, rounding="inputs")


def test_a_mode_without_traces_says_how_to_get_them():
    layers = tuple(dataclasses.replace(layer, fisher=None) for layer in make_profile().layers)
    with pytest.raises(RecordError, match="without --fisher-draws 0"):
        lampq.plan(dataclasses.replace(make_profile(), layers=layers), average_bits=4, mode="fisher")
