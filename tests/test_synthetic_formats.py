"""Samples made from ONNX and TFLite models: what is seen of them, and what is done where less is seen."""

import numpy as np
import pytest
import torch
from onnx import helper
from onnx_models import exported, graph, module, normal, saved
from tflite_models import fixture

import lampq
from lampq.adapters.tflite import read as read_tflite
from lampq.core.values.batch import Batch

FEW = lampq.SynthesisRecipe(candidates=2, steps=2, batch=8)


def observed(model, inputs):
    name = model.input_specs[0].name
    return model.observer(Batch.of(inputs, name=name))({name: torch.from_numpy(inputs)})


@pytest.mark.parametrize("exporter", ["dynamo", "legacy"])
def test_normalizations_and_attentions_of_an_export_are_seen(exporter):
    inputs, results = normal(4, 3, 16, 16), []
    network = module("vit")
    norms = [part for part in network.modules() if isinstance(part, torch.nn.LayerNorm)]
    hooks = [n.register_forward_hook(lambda norm, _, result: results.append((norm, result))) for n in norms]
    with torch.no_grad():
        network(torch.from_numpy(inputs))
    for hook in hooks:
        hook.remove()
    seen = observed(lampq.read(exported("vit", exporter)), inputs)
    assert len(seen.normalized) == len(results) == 5
    for item, (norm, result) in zip(seen.normalized, results, strict=True):
        torch.testing.assert_close(item.values, result, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(item.scale, norm.weight.detach())
        torch.testing.assert_close(item.shift, norm.bias.detach())
    assert [tuple(tokens.shape) for tokens in seen.attended] == [(4, 17, 16)] * 2


@pytest.mark.usefixtures("weights_of_any_size")
def test_a_batch_normalization_of_a_graph_is_seen_and_followed(tmp_path):
    weights = {"w": normal(8, 3, 3, 3), "gamma": normal(8) + 2, "beta": normal(8, seed=1)}
    weights |= {"mean": normal(8, seed=2), "var": np.abs(normal(8, seed=3)) + 0.5, "head": normal(8, 4)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "gamma", "beta", "mean", "var"], ["n"]),
        helper.make_node("GlobalAveragePool", ["n"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "head"], ["y"]),
    ]
    made = graph(nodes, weights, inputs={"x": ("n", 3, 8, 8)}, outputs={"y": ("n", 4)})
    model = lampq.read(saved(made, tmp_path))
    (item,) = observed(model, normal(5, 3, 8, 8)).normalized
    assert item.values.shape == (5, 36, 8)
    torch.testing.assert_close(item.shift, torch.from_numpy(weights["beta"]))
    (note,) = lampq.synthetic(model, 8, recipe=FEW).notes
    assert note.endswith("scenes of shapes, selected and refined by statistics of 1 normalizations, classes")


def test_where_normalizations_are_folded_away_classes_are_left():
    model = lampq.read(exported("conv", "dynamo"))
    assert lampq.synthetic(model, 8, recipe=FEW).notes[0].endswith("selected and refined by classes")


def test_a_model_that_takes_one_sample_at_a_time_is_selected_for_alone():
    model = read_tflite(fixture("vit"))
    (note,) = lampq.synthetic(model, 4, recipe=FEW).notes
    assert "scenes of shapes, selected by" in note and "refined" not in note


def test_without_pytorch_classes_select(monkeypatch):
    monkeypatch.setattr("lampq.adapters.onnx.gradients.importlib.util.find_spec", lambda name: None)
    (note,) = lampq.synthetic(lampq.read(exported("vit", "legacy")), 6, recipe=FEW).notes
    assert note.endswith(
        "scenes of shapes, selected by the balance of the classes (PyTorch is not installed)"
    )
