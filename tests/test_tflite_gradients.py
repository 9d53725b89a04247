"""The interpreter in PyTorch against the runtime, operator by operator, and its Fisher traces against
differences."""

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from divergence import log_softmax
from tflite_models import Builder, fixture, inputs_for, linear, run_directly

from lampq.adapters.tflite import gradients, read
from lampq.adapters.tflite.gradients import TorchGraph
from lampq.adapters.tflite.torch_ops import OPERATORS, UnsupportedOperatorError
from lampq.core.measuring.forward_fisher import forward_fisher
from lampq.core.measuring.reference import measure_reference
from lampq.core.measuring.traces import measure_traces
from lampq.core.readouts.draws import Draws
from lampq.core.values.head import HeadChoice

pytestmark = pytest.mark.usefixtures("weights_of_any_size")


def ints(*values):
    return np.array(values, np.int32)


def floats(*shape, seed=11):
    """Normal numbers that depend on the shape and the seed alone, not on which tests ran before."""
    return np.random.default_rng((seed, *shape)).normal(size=shape).astype(np.float32)


def rebuilt(model, *samples):
    """The judged outputs of the rebuilt graph, by name."""
    fed = (torch.from_numpy(np.array(sample)) for sample in samples)
    outputs = TorchGraph(model.variant)(dict(zip((s.name for s in model.input_specs), fed, strict=True)))
    return {name: tensor.detach().numpy() for name, tensor in outputs.items()}


def only(outputs):
    (values,) = outputs.values()
    return values


def judged_as(model, role):
    """The model with its only output judged one way."""
    return model.with_heads([HeadChoice(name=model.heads[0].name, role=role)])


def fisher_traces(model, batch, **options):
    reference = measure_reference(model, batch)
    return model.fisher(reference.inputs, reference.readout, Draws(**options)).weight


IMAGE, ROWS, CUBE = (1, 6, 5, 4), (1, 7), (1, 3, 4)
# Operator, shape of the input, further inputs, options, values of the options. The input comes first but
# where said.
CASES = [
    *(
        (name, ROWS, [floats(1, 7)], f"{options}Options", {})
        for name, options in (
            ("ADD", "Add"), ("SUB", "Sub"), ("MUL", "Mul"), ("DIV", "Div"), ("MAXIMUM", "MaximumMinimum"),
            ("MINIMUM", "MaximumMinimum"), ("SQUARED_DIFFERENCE", "SquaredDifference"),
        )
    ),
    ("ADD", IMAGE, [floats(4)], "AddOptions", {"fusedActivationFunction": 1}),
    ("SUB", IMAGE, [floats(1, 1, 5, 1)], "SubOptions", {"fusedActivationFunction": 3}),
    ("MUL", ROWS, [floats(1, 7)], "MulOptions", {"fusedActivationFunction": 2}),
    ("POW", ROWS, [np.full((1,), 2, np.float32)], "PowOptions", {}),
    *(
        (name, ROWS, [], options, {})
        for name, options in (
            ("RELU", None), ("RELU6", None), ("RELU_N1_TO_1", None), ("ELU", None), ("TANH", None),
            ("LOGISTIC", None), ("HARD_SWISH", "HardSwishOptions"), ("EXP", "ExpOptions"), ("ABS", "AbsOptions"),
            ("NEG", "NegOptions"), ("SQUARE", "SquareOptions"), ("SIN", None), ("COS", "CosOptions"),
            ("LOG_SOFTMAX", "LogSoftmaxOptions"),
        )
    ),
    *((name, ROWS, [], None, {"positive": True}) for name in ("LOG", "SQRT", "RSQRT")),
    ("LEAKY_RELU", ROWS, [], "LeakyReluOptions", {"alpha": 0.2}),
    ("GELU", ROWS, [], "GeluOptions", {"approximate": True}),
    ("GELU", ROWS, [], "GeluOptions", {"approximate": False}),
    ("SOFTMAX", CUBE, [], "SoftmaxOptions", {"beta": 0.7}),
    ("FULLY_CONNECTED", CUBE, [floats(5, 4), floats(5)], "FullyConnectedOptions", {"keepNumDims": True, "version": 5}),
    ("FULLY_CONNECTED", CUBE, [floats(5, 4), floats(5)], "FullyConnectedOptions", {"fusedActivationFunction": 1}),
    ("FULLY_CONNECTED", CUBE, [floats(5, 12), floats(5)], "FullyConnectedOptions", {}),
    ("BATCH_MATMUL", CUBE, [floats(4, 6)], "BatchMatMulOptions", {}),
    ("BATCH_MATMUL", CUBE, [floats(1, 6, 4)], "BatchMatMulOptions", {"adjY": True}),
    ("BATCH_MATMUL", CUBE, [floats(1, 3, 6)], "BatchMatMulOptions", {"adjX": True}),
    *(
        ("CONV_2D", IMAGE, [floats(3, 3, 2, 4), floats(3)], "Conv2DOptions", values)
        for values in (
            {"strideW": 1, "strideH": 1, "padding": 0},
            {"strideW": 2, "strideH": 3, "padding": 0, "fusedActivationFunction": 1},
            {"strideW": 2, "strideH": 1, "padding": 1, "fusedActivationFunction": 3},
            {"strideW": 1, "strideH": 1, "padding": 0, "dilationWFactor": 2, "dilationHFactor": 2},
        )
    ),
    ("DEPTHWISE_CONV_2D", IMAGE, [floats(1, 3, 3, 4), floats(4)], "DepthwiseConv2DOptions",
     {"strideW": 2, "strideH": 2, "padding": 0, "depthMultiplier": 1}),
    ("DEPTHWISE_CONV_2D", IMAGE, [floats(1, 2, 3, 8), floats(8)], "DepthwiseConv2DOptions",
     {"strideW": 1, "strideH": 1, "padding": 1, "depthMultiplier": 2}),
    *(
        (name, IMAGE, [], "Pool2DOptions", {"strideW": 2, "strideH": 2, "filterWidth": 3, "filterHeight": 2, **padding})
        for name in ("AVERAGE_POOL_2D", "MAX_POOL_2D")
        for padding in ({"padding": 0}, {"padding": 1})
    ),
    *((name, IMAGE, [ints(1, 2)], "ReducerOptions", {}) for name in ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN")),
    ("MEAN", IMAGE, [ints(-1)], "ReducerOptions", {"keepDims": True}),
    ("RESHAPE", IMAGE, [ints(1, 10, -1)], "ReshapeOptions", {}),
    ("SQUEEZE", (1, 1, 6), [], "SqueezeOptions", {"squeezeDims": [1]}),
    ("EXPAND_DIMS", ROWS, [ints(1)], "ExpandDimsOptions", {}),
    ("TRANSPOSE", IMAGE, [ints(0, 3, 1, 2)], "TransposeOptions", {}),
    ("CONCATENATION", CUBE, [floats(1, 2, 4)], "ConcatenationOptions", {"axis": 1}),
    ("SLICE", IMAGE, [ints(0, 1, 2, 0), ints(1, 3, -1, 2)], "SliceOptions", {"shape": (1, 3, 3, 2)}),
    ("STRIDED_SLICE", IMAGE, [ints(0, 1, 0, 1), ints(1, 9, 4, 3), ints(1, 2, 1, 1)], "StridedSliceOptions", {}),
    ("STRIDED_SLICE", IMAGE, [ints(0, 2, 1, 0), ints(0, 3, 0, 0), ints(1, 1, 1, 1)], "StridedSliceOptions",
     {"shrinkAxisMask": 2, "beginMask": 4, "endMask": 13}),
    ("PACK", CUBE, [floats(1, 3, 4)], "PackOptions", {"axis": 1, "valuesCount": 2}),
    ("GATHER", CUBE, [ints(3, 0, 0)], "GatherOptions", {"axis": 2}),
    ("PAD", IMAGE, [np.array([[0, 0], [1, 2], [0, 3], [0, 0]], np.int32)], "PadOptions", {}),
    ("PADV2", CUBE, [np.array([[0, 0], [1, 0], [0, 2]], np.int32), np.float32([1.5])], "PadV2Options", {}),
    ("TILE", CUBE, [ints(1, 2, 3)], "TileOptions", {}),
    ("BROADCAST_TO", (1, 1, 4), [ints(1, 3, 4)], "BroadcastToOptions", {"version": 2}),
    ("RESIZE_BILINEAR", IMAGE, [ints(9, 10)], "ResizeBilinearOptions", {"halfPixelCenters": True, "version": 3}),
    ("RESIZE_BILINEAR", IMAGE, [ints(9, 10)], "ResizeBilinearOptions", {"alignCorners": True, "version": 3}),
    ("RESIZE_NEAREST_NEIGHBOR", IMAGE, [ints(12, 10)], "ResizeNearestNeighborOptions", {}),
    ("CAST", ROWS, [], "CastOptions", {"inDataType": 0, "outDataType": 0}),
    ("PRELU", IMAGE, [floats(1, 1, 4)], None, {}),
    ("L2_NORMALIZATION", ROWS, [], "L2NormOptions", {}),
    *(
        ("MIRROR_PAD", IMAGE, [ints(0, 0, 1, 2, 0, 3, 0, 0).reshape(4, 2)], "MirrorPadOptions", {"mode": mode})
        for mode in (0, 1)
    ),
    ("DEPTH_TO_SPACE", IMAGE, [], "DepthToSpaceOptions", {"blockSize": 2}),
    ("SPACE_TO_DEPTH", (1, 6, 4, 3), [], "SpaceToDepthOptions", {"blockSize": 2}),
]  # fmt: skip


def build(path, name, shape, constants, options, values, size):
    """The operator on its own, its output reshaped into one row of `size` numbers."""
    values = {key: value for key, value in values.items() if key != "positive"}
    b = Builder()
    x = b.tensor("x", shape)
    operands = [x]
    for index, constant in enumerate(constants):
        kind = "INT32" if constant.dtype == np.int32 else "FLOAT32"
        operands.append(b.tensor(f"c{index}", constant.shape, constant, kind=kind))
    # Most operators do not look at the stored shape of their output.
    y = b.tensor("y", values.pop("shape", (1, 1)))
    b.op(name, operands, [y], options, version=values.pop("version", 1), **values)
    if size is None:
        return b.write(path, [x], [y])
    z = b.tensor("z", (1, size))
    b.op("RESHAPE", [y, b.tensor("row", (2,), ints(1, size), kind="INT32")], [z], "ReshapeOptions")
    return b.write(path, [x], [z])


def row_of(path, sample):
    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], sample)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).reshape(1, -1)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_every_operator_computes_what_the_runtime_does(case, tmp_path):
    sample = floats(*case[1]) * 3
    if case[4].get("positive"):
        sample = np.abs(sample) + 0.1
    expected = row_of(build(tmp_path / "a.tflite", *case, size=None), sample)
    path = build(tmp_path / "b.tflite", *case, size=expected.shape[1])
    found = only(rebuilt(judged_as(read(path), "values"), sample))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_every_operator_has_a_case():
    several = {
        "SPLIT",
        "SPLIT_V",
        "UNPACK",
        "SELECT_V2",
        "DEQUANTIZE",
        "EMBEDDING_LOOKUP",
        "SHAPE",
        "TRANSPOSE_CONV",
    }
    several |= {"EQUAL", "NOT_EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL"}
    several |= {"LOGICAL_AND", "LOGICAL_OR", "LOGICAL_NOT", "SELECT"}
    assert {case[0] for case in CASES} | several == set(OPERATORS)


def test_operators_with_several_outputs_or_other_inputs(tmp_path):
    b = Builder()
    x = b.tensor("x", (1, 6))
    halves = [b.tensor(f"h{i}", (1, 3)) for i in range(2)]
    b.op("SPLIT", [b.tensor("axis", (1,), ints(1), kind="INT32"), x], halves, "SplitOptions", numSplits=2)
    parts = [b.tensor("p0", (1, 1)), b.tensor("p1", (1, 2))]
    sizes = b.tensor("sizes", (2,), ints(1, 2), kind="INT32")
    one = b.tensor("one", (1,), ints(1), kind="INT32")
    b.op("SPLIT_V", [halves[0], sizes, one], parts, "SplitVOptions", numSplits=2)
    columns = [b.tensor(f"u{i}", (1,)) for i in range(3)]
    b.op("UNPACK", [halves[1]], columns, "UnpackOptions", num=3, axis=1)
    packed = b.tensor("packed", (1, 2))
    b.op("PACK", [columns[2], columns[0]], [packed], "PackOptions", axis=1, valuesCount=2)
    flag = b.tensor("flag", (1, 2), np.array([[True, False]]), kind="BOOL")
    chosen, result = b.tensor("chosen", (1, 2)), b.tensor("result", (1, 3))
    b.op("SELECT_V2", [flag, parts[1], packed], [chosen], "SelectV2Options")
    b.op("CONCATENATION", [chosen, parts[0]], [result], "ConcatenationOptions", axis=1)
    path = b.write(tmp_path / "m.tflite", [x], [result])
    sample = floats(1, 6)
    found = only(rebuilt(read(path), sample))
    np.testing.assert_allclose(found, row_of(path, sample), rtol=1e-6)


COMPARISONS = ("EQUAL", "NOT_EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL")


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons_choose_between_numbers(name, tmp_path):
    b = Builder()
    x, zero = b.tensor("x", (1, 7)), b.tensor("zero", (1, 7), np.float32([[0, 1, -1, 2, 0, 0.5, 3]]))
    flags = [b.tensor(f"flag{i}", (1, 7), kind="BOOL") for i in range(4)]
    b.op(name, [x, zero], [flags[0]], f"{name.title().replace('_', '')}Options")
    b.op("LOGICAL_NOT", [flags[0]], [flags[1]], "LogicalNotOptions")
    b.op("LOGICAL_OR", [flags[0], flags[1]], [flags[2]], "LogicalOrOptions")
    b.op("LOGICAL_AND", [flags[0], flags[2]], [flags[3]], "LogicalAndOptions")
    y = b.tensor("y", (1, 7))
    b.op("SELECT", [flags[3], x, zero], [y], "SelectOptions")
    path = b.write(tmp_path / "m.tflite", [x], [y])
    sample = np.float32([[0, 2, -1, 1, 0.1, -3, 3]])
    np.testing.assert_array_equal(
        only(rebuilt(judged_as(read(path), "values"), sample)), row_of(path, sample)
    )


@pytest.mark.parametrize(("padding", "side"), [(0, 10), (1, 11), (1, 12)])
def test_transposed_convolutions_and_computed_shapes(padding, side, tmp_path):
    b = Builder()
    x, y = b.tensor("x", (1, 5, 5, 3)), b.tensor("y", (1, side, side, 2))
    size = b.tensor("size", (4,), ints(1, side, side, 2), kind="INT32")
    values = {"strideW": 2, "strideH": 2, "padding": padding}
    b.op(
        "TRANSPOSE_CONV",
        [size, b.tensor("w", (2, 3, 3, 3), floats(2, 3, 3, 3)), x],
        [y],
        "TransposeConvOptions",
        **values,
    )
    shape, last = b.tensor("shape", (4,), kind="INT32"), b.tensor("last", (2,), kind="INT32")
    b.op("SHAPE", [y], [shape], "ShapeOptions", outType=2)
    begin, ends, steps = (b.tensor(n, (1,), ints(v), kind="INT32") for n, v in (("b", 2), ("e", 4), ("s", 1)))
    b.op("STRIDED_SLICE", [shape, begin, ends, steps], [last], "StridedSliceOptions")
    z = b.tensor("z", (side, side * 2))
    one = b.tensor("one", (1,), ints(-1), kind="INT32")
    target = b.tensor("target", (3,), kind="INT32")
    b.op("CONCATENATION", [one, last], [target], "ConcatenationOptions", axis=0)
    b.op("RESHAPE", [y, target], [z], "ReshapeOptions")
    path = b.write(tmp_path / "m.tflite", [x], [z])
    sample = floats(1, 5, 5, 3)
    found = only(rebuilt(judged_as(read(path), "values"), sample))
    np.testing.assert_allclose(found.reshape(1, -1), row_of(path, sample), rtol=1e-4, atol=1e-5)


WHOLE = ("vit", "vit_float16", "post_norm", "mobile_vit", "mobile_vit_nhwc", "conv_any_batch", "conv_batch_3")


@pytest.mark.parametrize("name", WHOLE)
def test_whole_models_compute_what_the_runtime_does(name):
    model = read(fixture(name))
    batch = inputs_for(model, 3 if name == "conv_batch_3" else 1)
    found = only(rebuilt(model, batch)).reshape(len(batch), -1)
    np.testing.assert_allclose(found, run_directly(fixture(name), batch), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["conv_batch_3", "conv_any_batch"])
def test_exact_traces_are_those_of_finite_differences(name):
    """tr(F) = E sum_c p_c |d log p_c / dW|^2, with the derivatives taken weight by weight by the runtime
    itself."""
    model = judged_as(read(fixture(name)), "classes")
    batch = inputs_for(model, 3)
    traces = fisher_traces(model, batch, labels="exact")
    layer = model.layers()[-1]
    weight = model.weight(layer.name)
    p = np.exp(log_softmax(np.asarray(model.run(batch))))
    step, total = 1e-2, 0.0
    candidates = []
    for index in range(weight.size):
        for sign in (1, -1):
            moved = weight.copy()
            moved.reshape(-1)[index] += sign * step
            candidates.append((layer.name, index, moved))
    rows = [log_softmax(np.asarray(outputs)) for _, _, outputs in model.sweep(batch, iter(candidates))]
    for plus, minus in zip(rows[::2], rows[1::2], strict=True):
        total += (p * ((plus - minus) / (2 * step)) ** 2).sum(axis=1).mean()
    assert traces[layer.name] == pytest.approx(total, rel=2e-2)


@pytest.mark.parametrize("name", ["post_norm", "mobile_vit"])
def test_exact_traces_agree_with_forward_passes(name):
    model = read(fixture(name))
    batch = inputs_for(model, 2)
    exact = fisher_traces(model, batch, labels="exact")
    estimated = forward_fisher(model, measure_reference(model, batch), draws=10)
    ratios = np.array([estimated[layer] / exact[layer] for layer in exact])
    assert np.exp(np.abs(np.log(ratios)).mean()) < 1.5


def test_samples_that_only_fill_up_a_batch_do_not_count():
    model = read(fixture("conv_batch_3"))
    batch = inputs_for(model, 4)
    whole = fisher_traces(model, batch, labels="exact")
    parts = [fisher_traces(model, sample[None], labels="exact") for sample in batch]
    for name, value in whole.items():
        assert value == pytest.approx(np.mean([part[name] for part in parts]), rel=1e-4)


def test_a_layer_of_another_signature_has_no_trace():
    traces = fisher_traces(
        read(fixture("two_signatures"), signature="tail"), np.ones((2, 16), np.float32), labels="exact"
    )
    assert traces["head"] > 0
    assert traces["first"] == 0


def test_unknown_operators_fall_back_to_forward_passes_and_say_so(tmp_path):
    b = Builder()
    x, w, y, z = (
        b.tensor("x", (1, 4)),
        b.tensor("w", (3, 4), floats(3, 4)),
        b.tensor("y", (1, 3)),
        b.tensor("z", (1, 3)),
    )
    b.op("FULLY_CONNECTED", [x, w, -1], [y], "FullyConnectedOptions", version=6)
    axis = b.tensor("axis", (1,), ints(1), kind="INT32")
    b.op("CUMSUM", [y, axis], [z], "CumsumOptions")
    model = read(b.write(tmp_path / "m.tflite", [x], [z]))
    assert gradients.obstacle(model.variant) == "operator CUMSUM has no differentiable form here"
    traces = measure_traces(model, measure_reference(model, floats(5, 4)))
    assert traces.kind == "forward"
    assert traces.note.startswith("no gradients (operator CUMSUM")
    assert set(traces.weight) == {"w"}


def test_quantized_operators_fall_back_too():
    model = read(fixture("vit_partly_int8"))
    traces = measure_traces(model, measure_reference(model, inputs_for(model, 2)))
    assert traces.kind == "forward"
    assert "no gradients" in traces.note


def test_an_interpreter_that_disagrees_is_not_believed(tmp_path, monkeypatch):
    model = read(linear(tmp_path / "m.tflite", floats(3, 4)))
    wrong = dict(OPERATORS)
    wrong["FULLY_CONNECTED"] = lambda call: OPERATORS_LINEAR(call) * 1.01
    monkeypatch.setattr("lampq.adapters.tflite.torch_ops.OPERATORS", wrong)
    traces = measure_traces(model, measure_reference(model, floats(3, 4)))
    assert traces.kind == "forward"
    assert "differs from the runtime's" in traces.note


OPERATORS_LINEAR = OPERATORS["FULLY_CONNECTED"]


def test_uses_without_a_form_are_named():
    from lampq.adapters.tflite.flatbuffer import Record
    from lampq.adapters.tflite.torch_call import Call

    x = torch.ones(2, 3)
    call = Call(
        "STRIDED_SLICE",
        Record("StridedSliceOptions"),
        [x],
        [None, ints(0, 0), ints(1, 1), ints(-1, 1)],
        (),
        "FLOAT32",
    )
    with pytest.raises(UnsupportedOperatorError, match="negative step"):
        OPERATORS["STRIDED_SLICE"](call)
    with pytest.raises(UnsupportedOperatorError, match="computed input 1"):
        OPERATORS["TRANSPOSE"](Call("TRANSPOSE", None, [x, x], [None, None], (), "FLOAT32"))
