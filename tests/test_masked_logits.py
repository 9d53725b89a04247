"""Classes that a model rules out with minus infinity, and infinities of its own in other outputs, are no damage."""

import numpy as np
import onnx
import pytest
from divergence import kl_divergence, unmasked
from held_out_kl import by_quarters
from onnx import TensorProto, helper, numpy_helper

import lampq
from lampq import adapters
from lampq.adapters.agreement import difference

INF = np.inf


def test_a_class_that_both_rule_out_counts_for_nothing():
    reference, other = np.array([[1.0, 2.0, 0.5]]), np.array([[1.5, 1.0, 0.0]])
    masked = [unmasked(np.insert(logits, 1, -INF, axis=1)) for logits in (reference, other)]
    assert kl_divergence(*masked) == pytest.approx(kl_divergence(reference, other), abs=1e-12)
    assert (masked[0] - masked[1])[0, 1] == 0


@pytest.mark.parametrize(
    ("written", "expected", "relative"),
    [
        ([1, -INF, np.nan, 2], [1, -INF, np.nan, 2], 0),
        ([1, -INF, 3], [1, -INF, 2], 0.5),
        ([1, INF], [1, -INF], INF),
        ([1, np.nan], [1, 2], INF),
        ([1, 2], [1, np.nan], INF),
    ],
)
def test_equal_infinities_are_equal(written, expected, relative):
    pair = (np.array(values, np.float32) for values in (written, expected))
    assert difference(*pair) == relative


def test_a_model_with_masked_classes_and_an_undefined_second_output_is_quantized(tmp_path):
    rng = np.random.default_rng(0)
    mask = np.zeros(10, np.float32)
    mask[[2, 7]] = -INF
    arrays = {
        "first": rng.standard_normal((16, 32)),
        "last": rng.standard_normal((32, 10)),
        "mask": mask,
        "zero": 0.0,
    }
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "last"], ["c"]),
        helper.make_node("Add", ["c", "mask"], ["logits"]),
        helper.make_node("Mul", ["c", "zero"], ["nothing"]),
        helper.make_node("Div", ["nothing", "nothing"], ["undefined"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 10])
            for name in ("logits", "undefined")
        ],
        [numpy_helper.from_array(np.float32(value), name) for name, value in arrays.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "m.onnx")
    model = adapters.read(tmp_path / "m.onnx")
    x = rng.standard_normal((16, 16)).astype(np.float32)
    plan = lampq.quantize(model, x, tmp_path / "q.onnx", average_bits=6)
    assert 0 <= plan.measured_kl < 0.1

    def damage(fitted, judged):
        file = lampq.apply(model, plan, tmp_path / "half.onnx", batch=x[fitted], force=True)
        return lampq.evaluate(adapters.read(file.path), x[judged], reference=model).kl

    assert by_quarters(len(x), damage) == pytest.approx(plan.measured_kl, rel=1e-3)
