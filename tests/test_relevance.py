"""Relevance of layers: neither made nor lost on its way back, and a score of plans."""

import numpy as np
import pytest
import torch
from onnx_models import exported, module, normal
from tflite_models import fixture, inputs_for
from torch import nn
from torch_models import make_batch, seeded

import lampq
from lampq.adapters.onnx import read as read_onnx
from lampq.adapters.tflite import read as read_tflite
from lampq.adapters.torch import read
from lampq.adapters.torch.relevance import graph_relevance, propagate
from lampq.core.measuring.relevance import relative_output_error, with_relevance
from lampq.core.measuring.setting import rounded_weight
from lampq.core.values.batch import Batch
from lampq.core.values.errors import AdapterError, RecordError
from lampq.core.values.head import CLASSES, VALUES, Head
from lampq.demo_data import CALIBRATION_PATH, MODEL_PATH


class Block(nn.Module):
    """Attention, layer norms, GELU and residuals, without a class token: all relevance ends in the input."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.norms = nn.ModuleList(nn.LayerNorm(16) for _ in range(3))
        self.fc1, self.fc2, self.head = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 5)

    def forward(self, x):
        y = self.norms[0](x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.fc2(nn.functional.gelu(self.fc1(self.norms[1](x))))
        return self.head(self.norms[2](x).mean(1))


class Chain(nn.Module):
    """Two layers and a ReLU."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))


def sent_back(build, batch, role=CLASSES, alpha=1.0):
    """Relevance of the inputs, and what every operator hands on, in the order of the operators."""
    model = read(seeded(build))
    inputs = {"x": torch.from_numpy(batch)}
    recording = model.variant.runtime.recording(inputs, products=True)
    handed = {}
    heads = {model.variant.judged[0].name: Head(name=model.variant.judged[0].name, role=role)}
    told = lambda index, parts: handed.update({index: sum(float(p.sum()) for p in parts.values())})  # noqa: E731
    relevance = propagate(recording.tape, model.variant.tensors, inputs, heads, len(batch), told, alpha)
    return relevance["x"], handed


@pytest.mark.parametrize("alpha", [1.0, 2.0])
@pytest.mark.parametrize("role", [CLASSES, VALUES])
def test_relevance_is_neither_made_nor_lost(role, alpha):
    batch = make_batch((7, 16))
    relevance, handed = sent_back(Block, batch, role, alpha)
    np.testing.assert_allclose(relevance.double().sum((1, 2)), 1.0, rtol=1e-4)
    # The whole passes through the first operator that goes back, and never more than it through any.
    assert max(handed.values()) <= len(batch) * (1 + 1e-4)
    assert handed[max(handed)] == pytest.approx(len(batch), rel=1e-4)


def test_positive_parts_divide_relevance_as_the_formula_written_out():
    batch = normal(5, 6)
    relevance, _ = sent_back(Chain, batch)
    net = seeded(Chain)
    a, b = net.a.weight.detach().double().numpy(), net.b.weight.detach().double().numpy()
    for x, found in zip(batch.astype(np.float64), relevance.numpy(), strict=True):
        hidden = np.maximum(a @ x + net.a.bias.detach().numpy(), 0)
        chosen = np.argmax(b @ hidden + net.b.bias.detach().numpy())
        terms = np.maximum(b[chosen] * hidden, 0)
        middle = terms / terms.sum()
        shares = np.maximum(a * x, 0)
        np.testing.assert_allclose(found, middle @ (shares / shares.sum(1, keepdims=True)), rtol=1e-4)


def test_layers_of_one_branch_have_the_same_relevance_and_the_head_all_of_it():
    model = read(seeded(Block))
    relevance = model.relevance(Batch.of(make_batch((7, 16)), name="x"))
    assert relevance["head"] == pytest.approx(1, rel=1e-5)
    assert relevance["fc1"] == pytest.approx(relevance["fc2"], rel=1e-4)
    assert relevance["attention.in_proj"] == pytest.approx(relevance["attention.out_proj"], rel=1e-4)
    assert 0 < relevance["fc1"] < 1


def test_an_export_has_the_relevance_of_its_module():
    batch = normal(3, 3, 16, 16)
    ours = read(module("vit"), input_shape=(3, 16, 16)).relevance(Batch.of(batch, name="x"))
    theirs = read_onnx(exported("vit", "dynamo")).relevance(batch)
    assert len(ours) == len(theirs)
    np.testing.assert_allclose(sorted(theirs.values()), sorted(ours.values()), rtol=1e-3)


def test_tflite_models_have_it_too():
    model = read_tflite(fixture("vit"))
    relevance = model.relevance(inputs_for(model, 3))
    assert set(relevance) == {layer.name for layer in model.layers()}
    assert max(relevance.values()) == pytest.approx(1, rel=1e-4)


def test_an_operator_without_a_rule_is_named():
    class Odd(Chain):
        def forward(self, x):
            return super().forward(torch.cumsum(x, 1) * torch.maximum(x, x.flip(1)))

    with pytest.raises(AdapterError, match=r"relevance: no rule for aten::maximum in the model") as error:
        read(seeded(Odd)).relevance(Batch.of(normal(5, 6), name="x"))
    assert "\n" not in str(error.value)


def test_a_graph_that_branches_on_values_is_refused():
    class Graph:
        weights = {"a": torch.ones(6, 3)}

        def __call__(self, inputs):
            x = inputs["x"]
            return {"y": (x if float(x.sum()) > 1e9 else -x) @ self.weights["a"]}

    batch = Batch([{"x": normal(5, 6)}])
    with pytest.raises(AdapterError, match="decides by the values it computes"):
        graph_relevance(Graph(), [batch], [Head(name="y", role=CLASSES)], 5)


@pytest.fixture(scope="module")
def digits():
    model = lampq.read(MODEL_PATH)
    images = lampq.read_data(CALIBRATION_PATH, input_specs=model.input_specs, samples=24).inputs()
    profile = lampq.profile(model, images, bits=(2, 4, 8), fisher_draws=0, scores=["relevance"])
    return model, images, profile


def test_the_error_of_a_layers_output_is_that_of_its_products(digits):
    model, images, profile = digits
    index = next(i for i, layer in enumerate(profile.layers) if layer.kind == "fc1")
    layer, exact, change = profile.layers[index], 0.0, np.zeros(3)
    rounded = [rounded_weight(model, layer, bits) for bits in (2, 4, 8)]
    axis = layer.channel_axis
    weight = np.moveaxis(model.weight(layer.name), axis, 0)
    for name, inputs, _ in model.taps(Batch.of(images, name=model.input_specs[0].name)):
        if name == layer.name:
            exact += np.square(inputs @ weight.T).sum()
            change += [np.square(inputs @ (np.moveaxis(w, axis, 0) - weight).T).sum() for w in rounded]
    np.testing.assert_allclose(relative_output_error(profile)[index], change / exact, rtol=1e-3)


@pytest.mark.parametrize("mode", ["relevance", "mixed"])
def test_plans_are_made_by_it(digits, mode):
    profile = digits[2]
    plan = lampq.plan(profile, average_bits=4, mode=mode)
    assert plan.average_bits <= 4 and plan.predicted_kl is None
    assert {layer.weight_bits for layer in plan.layers} <= {2, 4, 8}


def test_inputs_of_other_widths_count_too():
    model, batch = read(seeded(Block)), make_batch((7, 16))
    profile = lampq.profile(model, batch, bits=(2, 4), act_bits=(2, 8), fisher_draws=0, scores=["relevance"])
    error = relative_output_error(profile)
    options = [(option.weight_bits, option.activation_bits) for option in profile.options]
    at = {pair: error[:, options.index(pair)] for pair in options}
    assert (at[2, 2] > at[2, 8]).all() and (at[2, 8] > at[4, 8]).all()


def test_a_model_that_cannot_is_refused_in_a_line():
    class Opaque:
        path, format = MODEL_PATH, "npz"

    profile = lampq.profile(lampq.read(MODEL_PATH), bits=(2, 4))
    with pytest.raises(RecordError, match="npz models have no such form here; use another mode"):
        with_relevance(Opaque(), profile, Batch.of(np.zeros((1, 2), np.float32), name="x"))
