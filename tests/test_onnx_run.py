"""Running ONNX: whole, and looked into."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_models import exported, graph, mlp, module, normal, saved
from onnx_runs import EXPORTS, changed, images, read, reference, rewritten, run

from lampq.adapters import onnx as adapter
from lampq.adapters.onnx import batches
from lampq.adapters.onnx.session import Runtime, to_value
from lampq.core.values.errors import AdapterError
from lampq.core.values.head import HeadChoice

node = helper.make_node


# ---- whole models ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "exporter"), EXPORTS)
def test_logits_are_those_of_torch_and_of_the_reference(name, exporter):
    path, x = exported(name, exporter), images(5)
    logits = run(read(path), x)
    assert (logits.dtype, logits.shape) == (np.float32, (5, 5 if name == "conv" else 10))
    with torch.no_grad():
        expected = module(name)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(logits, expected, atol=2e-5)
    np.testing.assert_allclose(logits, reference(path, x), atol=2e-5)


@pytest.mark.parametrize("count", [1, 3, 32, 33, 70])
def test_batches_of_any_length(count):
    model, x = read(exported("vit", "dynamo")), images(count)
    logits = run(model, x)
    assert len(logits) == count
    np.testing.assert_allclose(logits[-1:], run(model, x[-1:]), atol=1e-5)


@pytest.mark.parametrize("count", [1, 4, 5, 9])
def test_a_fixed_number_of_samples_is_filled_up(count):
    fixed, free, x = read(exported("vit", "legacy", batch=4)), read(exported("vit", "legacy")), images(count)
    assert fixed.input_specs[0].batch == 4
    np.testing.assert_allclose(run(fixed, x), run(free, x), atol=1e-5)
    new = changed(free)
    np.testing.assert_allclose(run(fixed.with_weights(new), x), run(free.with_weights(new), x), atol=1e-5)
    assert [layer.macs for layer in fixed.layers()] == [layer.macs for layer in free.layers()]


def _frozen(samples: int) -> onnx.ModelProto:
    """An MLP that says its batch axis is free, and reshapes to a fixed number of samples inside."""
    model = mlp(2)
    model.graph.initializer.append(numpy_helper.from_array(np.array([samples, 16]), "shape"))
    model.graph.node.insert(0, node("Reshape", ["x", "shape"], ["fixed"]))
    model.graph.node[1].input[0] = "fixed"
    return model


@pytest.mark.parametrize("samples", [1, 2, 8])
def test_a_number_of_samples_that_tracing_fixed_is_found_out(tmp_path, samples):
    model, x = read(saved(_frozen(samples), tmp_path)), normal(11, 16)
    assert model.input_specs[0].batch is None
    plain = saved(mlp(2), tmp_path, "plain.onnx")
    np.testing.assert_allclose(run(model, x), reference(plain, x), atol=1e-5)
    assert [layer.macs for layer in model.layers()] == [16 * 16, 16 * 4]


def test_a_model_that_mixes_samples_is_refused(tmp_path):
    model = mlp(2)
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "axis"))
    model.graph.node.insert(0, node("ReduceMean", ["x", "axis"], ["mean"]))
    model.graph.node.insert(1, node("Sub", ["mean", "x"], ["mixed"]))
    model.graph.node[2].input[0] = "mixed"
    opened = read(saved(model, tmp_path))
    with pytest.raises(AdapterError, match="depends on the other samples"):
        run(opened, normal(6, 16))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (normal(2, 3, 16, 8), r"takes x float32\[\?x3x16x16\], not a batch of shape \(2, 3, 16, 8\)"),
        (normal(3, 16, 16), "not a batch of shape"),
        (np.zeros((0, 3, 16, 16), np.float32), "not a batch of shape"),
        (images(2).astype(np.complex64), "not complex64"),
    ],
)
def test_batches_that_do_not_fit_are_refused(batch, message):
    with pytest.raises(AdapterError, match=message):
        run(read(exported("vit", "dynamo")), batch)


def test_batches_are_cast_to_the_input_type(tmp_path):
    model, x = read(exported("vit", "dynamo")), images(2)
    np.testing.assert_array_equal(run(model, x.astype(np.float64)), run(model, x))
    integers = np.random.default_rng(0).integers(0, 9, (2, 3, 16, 16))
    np.testing.assert_array_equal(run(model, integers), run(model, integers.astype(np.float32)))


def test_the_logarithm_of_probabilities_stands_for_logits(tmp_path):
    model = mlp(2)
    model.graph.node[-1].output[0] = "scores"
    model.graph.node.append(node("Softmax", ["scores"], ["logits"]))
    opened, x = read(saved(model, tmp_path)), normal(3, 16)
    scores = reference(saved(mlp(2), tmp_path, "plain.onnx"), x)
    truth = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(run(opened, x), truth, atol=1e-5)
    np.testing.assert_allclose(run(opened.with_weights(changed(opened, 0.0)), x), truth, atol=1e-5)


def _outputs(*names: str, shape=("batch", 4), **kwargs) -> onnx.ModelProto:
    model = mlp(2)
    del model.graph.output[:]
    for name in names:
        if name != "logits":
            model.graph.node.append(node("Neg", ["logits"], [name]))
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    return model


def test_every_output_is_judged_unless_it_is_said_otherwise(tmp_path):
    x, plain = normal(3, 16), reference(saved(mlp(2), tmp_path, "plain.onnx"), normal(3, 16))
    model = read(saved(_outputs("other", "logits"), tmp_path))
    assert [head.name for head in model.heads] == ["other", "logits"]
    both = model.run(x)
    np.testing.assert_allclose(both["logits"], plain, atol=1e-5)
    np.testing.assert_allclose(both["other"], -plain, atol=1e-5)
    alone = model.with_heads([HeadChoice(name="logits", role="ignore")])
    np.testing.assert_allclose(run(alone, x), -plain, atol=1e-5)
    assert [head.role for head in alone.heads] == [model.heads[0].role, "ignore"]
    with pytest.raises(AdapterError, match="no output or tensor 'third'; its outputs are other, logits"):
        model.with_heads([HeadChoice(name="third", role="values")])


@pytest.mark.parametrize(
    ("kind", "dtype"), [(TensorProto.FLOAT16, np.float16), (TensorProto.DOUBLE, np.float64)]
)
def test_models_of_other_float_types(tmp_path, kind, dtype):
    model = mlp(2)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = kind
    opened, x = read(saved(model, tmp_path)), normal(3, 16)
    assert opened.input_specs[0].dtype == np.dtype(dtype).name
    plain = reference(saved(mlp(2), tmp_path, "plain.onnx"), x)
    tolerance = 2e-2 if dtype is np.float16 else 1e-5
    assert run(opened, x).dtype == np.float32
    np.testing.assert_allclose(run(opened, x), plain, atol=tolerance)
    new = changed(opened)
    initializers = {f"{key}.weight": value for key, value in new.items()}
    other = read(rewritten(saved(model, tmp_path), tmp_path, initializers))
    tolerance = 5e-3 if dtype is np.float16 else 1e-5
    np.testing.assert_allclose(run(opened.with_weights(new), x), run(other, x), atol=tolerance)


def test_a_file_that_the_runtime_cannot_run_says_so(tmp_path):
    custom = node("Unheard", ["x"], ["h"], domain="com.microsoft")
    model = graph(
        [custom, node("MatMul", ["h", "w"], ["y"])],
        {"w": normal(16, 12)},
        inputs={"x": [2, 16]},
        outputs={"y": [2, 12]},
    )
    opened = read(saved(model, tmp_path))
    assert [(layer.name, layer.macs) for layer in opened.layers()] == [("w", None)]
    with pytest.raises(AdapterError, match=r"cannot be loaded by ONNX Runtime: .*Unheard") as caught:
        run(opened, normal(2, 16))
    assert "\n" not in str(caught.value)


def test_unknown_image_sizes_are_measured_with_the_data(tmp_path):
    pooled = [
        node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        node("ReduceMean", ["c", "axes"], ["m"], keepdims=0),
        node("MatMul", ["m", "v"], ["y"]),
    ]
    weights = {"w": normal(8, 3, 3, 3), "v": normal(8, 8), "axes": np.array([2, 3])}
    model = graph(pooled, weights, inputs={"x": ["n", 3, "h", "w_"]}, outputs={"y": ["n", 8]})
    opened = read(saved(model, tmp_path))
    assert [layer.macs for layer in opened.layers()] == [None, None]
    assert run(opened, normal(3, 3, 5, 7)).shape == (3, 8)
    assert {name: positions for name, _, positions in opened.taps(normal(3, 3, 5, 7))} == {"w": 35, "v": 1}


# ---- activations -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "exporter"), EXPORTS)
def test_taps_are_the_inputs_of_the_layers(name, exporter):
    path, x = exported(name, exporter), images(3)
    model = read(path)
    taps: dict[str, list[np.ndarray]] = {}
    for key, array, positions in model.taps(x):
        taps.setdefault(key, []).append(array)
        record = next(layer for layer in model.layers() if layer.name == key)
        assert positions * record.size == record.macs
    assert list(taps) == [layer.name for layer in model.layers()]
    values = {site.name: site.uses[0].activation.name for site in model.variant.opened.sites}
    inner = onnx.load(path)
    inner = onnx.shape_inference.infer_shapes(inner)
    for value in values.values():
        if value != "x":
            inner.graph.output.append(helper.make_tensor_value_info(value, TensorProto.FLOAT, None))
    found = dict(zip(values, ReferenceEvaluator(inner).run(list(values.values()), {"x": x}), strict=True))
    for site in model.variant.opened.sites:
        truth = found[site.name]
        if site.form == "linear":
            truth = truth.reshape(-1, site.in_features)
        np.testing.assert_allclose(np.concatenate(taps[site.name]), truth, atol=1e-5)


def test_taps_of_a_variant_are_those_of_its_weights(tmp_path):
    path, x = exported("vit", "dynamo"), images(3)
    model = read(path)
    new = changed(model)
    other = read(
        rewritten(path, tmp_path, {site.weight.name: new[site.name] for site in model.variant.opened.sites})
    )
    pairs = zip(model.with_weights(new).taps(x), other.taps(x), strict=True)
    for (name, mine, positions), (same, truth, count) in pairs:
        assert (name, positions) == (same, count)
        np.testing.assert_allclose(mine, truth, atol=1e-4)


def test_taps_turn_the_summed_axis_last(tmp_path):
    nodes = [node("MatMul", ["w", "x"], ["h"]), node("ReduceMean", ["h", "axes"], ["logits"], keepdims=0)]
    weights = {"w": normal(12, 16), "axes": np.array([2])}
    model = graph(nodes, weights, inputs={"x": ["n", 16, 5]}, outputs={"logits": ["n", 12]})
    x = normal(2, 16, 5)
    ((name, rows, positions),) = read(saved(model, tmp_path)).taps(x)
    assert (name, positions) == ("w", 5)
    np.testing.assert_array_equal(rows, np.moveaxis(x, 1, 2).reshape(-1, 16))


# ---- manners ---------------------------------------------------------------------------------------------


def test_nothing_is_printed():
    code = (
        "import sys, numpy as np\n"
        "from lampq.adapters.onnx import read\n"
        "model = read(sys.argv[1])\n"
        "x = np.zeros((2, 3, 16, 16), np.float32)\n"
        "model.run(x)\n"
        "list(model.sweep(x, [(l.name, 0, model.weight(l.name)) for l in model.layers()]))\n"
        "list(model.taps(x))\n"
    )
    command = [sys.executable, "-c", code, str(exported("conv", "dynamo"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_chunks_follow_the_work_per_sample_and_the_threads():
    assert batches.chunk_size(None, 1000, 1) == 16
    assert [batches.chunk_size(macs, 1000, 4) for macs in (1e6, 1e9, 4.2e9, 1e12)] == [32, 20, 4, 4]
    assert [batches.chunk_size(1e6, samples, 4) for samples in (1, 4, 9, 40, 400)] == [1, 1, 3, 10, 32]


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_changes_nothing(threads):
    x = images(40)
    model, other = read(exported("vit", "dynamo")), adapter.read(exported("vit", "dynamo"), threads=threads)
    new = changed(model)
    np.testing.assert_allclose(run(other.with_weights(new), x), run(model.with_weights(new), x), atol=1e-5)
    candidates = [(name, 0, array) for name, array in new.items()]
    for (_, _, mine), (_, _, theirs) in zip(
        model.sweep(x, candidates), other.sweep(x, candidates), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    rows = [np.concatenate([a for n, a, _ in m.taps(x) if n == "head"]) for m in (model, other)]
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-5)


def test_a_graph_to_change_is_ones_own():
    model = read(exported("vit", "legacy"))
    mine, sites = model.variant.fresh()
    assert [site.name for site in sites] == [site.name for site in model.variant.opened.sites]
    assert [site.channel_axis for site in sites] == [site.channel_axis for site in model.variant.opened.sites]
    sites[0].weight.const_value = None
    assert model.variant.fresh()[0] is not mine
    assert model.weight(sites[0].name).shape == sites[0].shape


def test_a_run_that_fails_tells_the_sizes_that_came_and_were_expected():
    started = ort.InferenceSession(mlp(2).SerializeToString(), providers=["CPUExecutionProvider"])
    (given,), (result,) = started.get_inputs(), started.get_outputs()
    with pytest.raises(
        AdapterError, match=r"^m\.onnx fails in ONNX Runtime: .*Got: 3 Expected: 16"
    ) as caught:
        Runtime(name="m.onnx").run(
            started, [result.name], {given.name: to_value(np.ones((1, 3), np.float32))}
        )
    assert "\n" not in str(caught.value)
