import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from lampq.core.values.activation_grid import ActivationGrid
from lampq.core.values.errors import RecordError

reals = st.floats(-1e4, 1e4, width=32)


@given(low=reals, high=reals, bits=st.integers(2, 8))
def test_the_grid_covers_the_range_and_holds_zero(low, high, bits):
    low, high = sorted((low, high))
    grid = ActivationGrid.from_range(low, high, bits)
    step = grid.scale
    # Moving the zero point to a whole code costs at most half a step at either end.
    assert grid.low <= min(low, 0) + 0.51 * step
    assert grid.high >= max(high, 0) - 0.51 * step
    assert grid.high - grid.low == pytest.approx((2**bits - 1) * step)
    assert grid.apply(np.zeros(1, np.float32))[0] == 0


@given(seed=st.integers(0, 2**32 - 1), low=st.floats(-5, 0), high=st.floats(0.01, 5))
def test_values_go_to_the_nearest_of_the_grid(seed, low, high):
    grid = ActivationGrid.from_range(low, high, 4)
    points = (np.arange(16) - grid.zero_point) * grid.scale
    values = np.random.default_rng(seed).normal(size=50).astype(np.float32) * 3
    nearest = np.abs(values[:, None] - points).min(axis=1)
    np.testing.assert_allclose(np.abs(grid.apply(values) - values), nearest, atol=1e-5)


def test_it_is_what_onnx_quantizes_to():
    grid = ActivationGrid.from_range(-1.3, 2.4)
    scale = numpy_helper.from_array(np.float32(grid.scale), "s")
    zero = numpy_helper.from_array(np.uint8(grid.zero_point), "z")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [scale, zero])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
    onnx.checker.check_model(model)
    x = np.random.default_rng(0).normal(size=1000).astype(np.float32) * 2
    np.testing.assert_array_equal(ReferenceEvaluator(model).run(None, {"x": x})[0], grid.apply(x))


def test_ranges_that_cannot_be_are_refused():
    for low, high in ((1.0, 0.0), (float("nan"), 1.0), (0.0, float("inf"))):
        with pytest.raises(RecordError, match="cannot be"):
            ActivationGrid.from_range(low, high)
    with pytest.raises(RecordError, match="choose 2 to 8"):
        ActivationGrid.from_range(0.0, 1.0, 9)
    with pytest.raises(RecordError, match="positive float32"):
        ActivationGrid(scale=-1.0, zero_point=0, bits=8)
    with pytest.raises(RecordError, match="run to 15"):
        ActivationGrid(scale=1.0, zero_point=16, bits=4)


def test_a_range_of_zero_is_a_grid_of_zero():
    grid = ActivationGrid.from_range(0.0, 0.0)
    assert grid.apply(np.array([1.0, -1.0])).tolist() == pytest.approx([0.0, 0.0], abs=1e-30)
