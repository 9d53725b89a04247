"""The ONNX graph in PyTorch as a whole: its traces and rows of gradients against those of the module it came from."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx_gradient_cases import fitted, traces_of
from onnx_models import exported, graph, mlp, module, normal, saved
from torch_models import fisher_of

from lampq.adapters.autograd.batched import Batched
from lampq.adapters.onnx import read
from lampq.adapters.onnx.gradients import TorchGraph
from lampq.adapters.onnx.torch_ops import OPERATORS
from lampq.adapters.torch.model import TorchModel
from lampq.adapters.torch.provenance import Provenance
from lampq.adapters.torch.runtime import Runtime
from lampq.core.measuring.reference import measure_reference
from lampq.core.measuring.traces import measure_traces
from lampq.core.readouts.draws import Draws
from lampq.core.values.batch import Batch
from lampq.core.values.head import HeadChoice


def test_gradients_reach_the_weights_of_every_head_through_every_input(tmp_path):
    """Two inputs, two heads, each product in closed form: a head of numbers on the scale of its own spread."""
    nodes = [
        helper.make_node("MatMul", ["a", "w"], ["left"]),
        helper.make_node("MatMul", ["b", "v"], ["right"]),
        helper.make_node("Sigmoid", ["right"], ["chances"]),
    ]
    weights = {"w": normal(16, 4), "v": normal(8, 8)}
    shapes = {"inputs": {"a": ["n", 16], "b": ["n", 8]}, "outputs": {"left": ["n", 4], "chances": ["n", 8]}}
    model = read(saved(graph(nodes, weights, **shapes), tmp_path))
    model = model.with_heads([HeadChoice(name="left", role="classes")])
    batch = Batch.of({"a": normal(5, 16), "b": normal(5, 8)})
    reference = measure_reference(model, batch)
    traces = model.fisher(batch, reference.readout, Draws(count=400, seed=1)).weight
    logits = batch["a"].astype(np.float64) @ weights["w"]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    left = ((batch["a"] ** 2).sum(1) * (p * (1 - p)).sum(1)).mean()
    chances = 1 / (1 + np.exp(-batch["b"].astype(np.float64) @ weights["v"]))
    right = ((batch["b"] ** 2).sum(1) * (chances * (1 - chances)).sum(1)).mean()
    assert traces["w"] == pytest.approx(left, rel=0.1)
    assert traces["v"] == pytest.approx(right, rel=0.1)


@pytest.mark.parametrize(("name", "exporter"), [("vit", "dynamo"), ("encoder", "legacy"), ("conv", "dynamo")])
def test_whole_models_have_the_traces_of_their_module(name, exporter):
    model = read(exported(name, exporter))
    batch = normal(3, 3, 16, 16, seed=2)
    found = traces_of(model, batch, labels="exact")
    runtime = Runtime(module(name), name=name, input_shape=(3, 16, 16))
    original = TorchModel.of(runtime, Provenance(path=exported(name, exporter)))
    expected = fisher_of(original, batch, labels="exact").traces()
    if name == "conv":
        # The exporter has folded a normalization into the stem, and `up` is no layer of the module.
        found, expected = (
            {n: v for n, v in t.items() if n not in ("stem.0", "up")} for t in (found, expected)
        )
    assert len(found) == len(expected)
    np.testing.assert_allclose(sorted(found.values()), sorted(expected.values()), rtol=1e-3)


def test_a_fixed_batch_is_filled_up_and_its_filling_does_not_count():
    model, batch = read(exported("conv", "dynamo", batch=2)), normal(3, 3, 16, 16, seed=2)
    free = traces_of(read(exported("conv", "dynamo")), batch, labels="exact")
    found = traces_of(model, batch, labels="exact")
    np.testing.assert_allclose(list(found.values()), list(free.values()), rtol=1e-4)


def test_float16_weights_and_probabilities_as_output(tmp_path):
    """The leaf of a narrow weight is float32; a softmax at the end changes no prediction."""
    weight = normal(16, 5).astype(np.float16)
    nodes = [
        helper.make_node("Cast", ["w"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "wide"], ["y"]),
    ]
    ends = [helper.make_node("Identity", ["y"], ["logits"]), helper.make_node("Softmax", ["y"], ["logits"])]
    found = []
    for index, end in enumerate(ends):
        built = graph([*nodes, end], {"w": weight}, inputs={"x": ["n", 16]}, outputs={"logits": ["n", 5]})
        model = read(saved(built, tmp_path, f"{index}.onnx"))
        found.append(traces_of(model, normal(4, 16), labels="exact"))
    # In closed form: the gradient of log p_c in W is x (e_c - p)^T.
    x, logits = normal(4, 16).astype(np.float64), normal(4, 16) @ weight.astype(np.float32)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = ((x**2).sum(1) * (1 - (p**2).sum(1))).mean()
    for traces in found:
        assert list(traces.values()) == [pytest.approx(expected, rel=1e-4)]


def test_samples_draw_the_same_in_any_shard(tmp_path):
    model, batch = read(saved(mlp(), tmp_path)), normal(5, 16)
    whole = traces_of(model, batch, count=1, labels="probe", seed=3)
    parts = [
        traces_of(model, batch[i::2], count=1, labels="probe", seed=3, samples=np.arange(5)[i::2])
        for i in range(2)
    ]
    for name, value in whole.items():
        assert value == pytest.approx((3 * parts[0][name] + 2 * parts[1][name]) / 5, rel=1e-6)


def test_labels_of_the_data_give_the_empirical_traces(tmp_path):
    model, batch = read(saved(mlp(layers=1), tmp_path)), normal(4, 16)
    truth = np.array([0, 3, 1, 1])
    found = measure_traces(model, measure_reference(model, batch), Draws(truth=truth))
    logits = np.asarray(model.run(batch)).astype(np.float64)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    residual = np.eye(4)[truth] - p
    expected = ((batch.astype(np.float64) ** 2).sum(1) * (residual**2).sum(1)).mean()
    assert found.kind == "empirical"
    assert list(found.weight.values()) == [pytest.approx(expected, rel=1e-4)]


def test_an_interpreter_that_disagrees_is_not_believed(tmp_path, monkeypatch):
    model = read(saved(mlp(), tmp_path))
    monkeypatch.setitem(OPERATORS, "Relu", lambda call: call.tensor(0).clamp_min(-0.1))
    found = measure_traces(model, measure_reference(model, normal(2, 16)))
    assert found.kind == "forward"
    assert "from the runtime's" in found.note


def rows_of_every_layer(model, batch):
    """Rows of random changes of every layer, which a model either takes by batches or sample by sample."""
    rng = np.random.default_rng(3)
    changed = {
        layer.name: ([model.weight(layer.name) + rng.normal(size=layer.shape).astype(np.float32)], [None])
        for layer in model.layers()
    }
    draws = Draws(labels="exact", count=3)
    blocks = list(model.gradient_rows(batch, changed, fitted(model, batch), draws))
    return {name: np.concatenate([block[name] for block in blocks]) for name in changed}


def check_batches(model, batch, monkeypatch):
    """Batches are taken, and give what single samples give."""
    ways, batched = [], Batched.of
    monkeypatch.setattr(Batched, "of", lambda *args: ways.append(batched(*args)) or ways[-1])
    together = rows_of_every_layer(model, batch)
    assert ways[-1] is not None
    monkeypatch.setattr(Batched, "of", lambda *_: None)
    alone = rows_of_every_layer(model, batch)
    for layer, expected in alone.items():
        np.testing.assert_allclose(
            together[layer], expected, atol=2e-5 * np.abs(expected).max(), err_msg=layer
        )


@pytest.mark.parametrize(("name", "exporter"), [("vit", "dynamo"), ("encoder", "legacy"), ("conv", "dynamo")])
def test_batches_give_the_gradients_of_single_samples(name, exporter, monkeypatch):
    model = read(exported(name, exporter))
    check_batches(model, Batch.of(normal(5, 3, 16, 16, seed=2), name=model.input_specs[0].name), monkeypatch)


def test_samples_of_several_lengths_come_by_batches_too(tmp_path, monkeypatch):
    weights = {"w": normal(8, 32), "v": normal(32, 16, seed=1), "second": np.array([1])}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Tanh", ["h"], ["a"]),
        helper.make_node("ReduceMean", ["a", "second"], ["pooled"], keepdims=0),
        helper.make_node("MatMul", ["pooled", "v"], ["logits"]),
    ]
    made = graph(nodes, weights, inputs={"x": ["batch", "length", 8]}, outputs={"logits": ["batch", 16]})
    groups = [{"x": normal(3, 5, 8, seed=2)}, {"x": normal(2, 7, 8, seed=3)}]
    check_batches(read(saved(made, tmp_path)), Batch(groups), monkeypatch)


def test_samples_that_mix_are_taken_one_at_a_time(tmp_path):
    weights = {"w": normal(8, 32), "v": normal(32, 16, seed=1), "first": np.array([0])}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("ReduceMean", ["h", "first"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["h", "mean"], ["centred"]),
        helper.make_node("Tanh", ["centred"], ["a"]),
        helper.make_node("MatMul", ["a", "v"], ["logits"]),
    ]
    made = graph(nodes, weights, inputs={"x": ["batch", 8]}, outputs={"logits": ["batch", 16]})
    model, batch = read(saved(made, tmp_path)), Batch.of(normal(4, 8, seed=2), name="x")
    assert len(model.layers()) == 2
    assert Batched.of(TorchGraph(model.variant), model.heads, batch, None) is None
