import numpy as np
import pytest
import torch
from divergence import kl_divergence
from torch import nn
from torch_models import MODELS, read_named, seeded

from lampq.adapters.torch import read
from lampq.adapters.torch.joint_fisher import joint_fisher
from lampq.core.measuring.reference import measure_reference
from lampq.core.measuring.setting import Setting, rounded_weight
from lampq.core.readouts.draws import Draws
from lampq.core.values.activation_grid import TokenGrid
from lampq.verbs.profile import profile


def candidates_of(model, batch, widths, inputs):
    seen = model.calibrate(batch)
    return {
        layer.name: (
            [rounded_weight(model, layer, bits) for bits in widths],
            [seen[layer.name].grid(bits) if bits and layer.name in seen else None for bits in inputs],
        )
        for layer in model.layers()
    }


def joint_of(model, batch, candidates, *, batch_size=16, **draws):
    reference = measure_reference(model, batch)
    return joint_fisher(
        model.variant, reference.inputs, candidates, reference.readout, Draws(**draws), batch_size=batch_size
    )


class Net(nn.Module):
    """Tokens through two linear layers; the output of the first can be moved."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(12, 16), nn.Linear(16, 5)

    def rest(self, y):
        return self.b(torch.tanh(y)).mean(1)

    def forward(self, x):
        return self.rest(self.a(x))


@pytest.mark.parametrize("token", [False, True])
def test_it_is_the_squared_derivative_along_the_difference(token):
    """By forward-mode derivatives of log p along dY, sample by sample, over all labels."""
    module = seeded(Net)
    batch = np.random.default_rng(0).normal(size=(6, 7, 12)).astype(np.float32)
    model = read(module, input_shape=(7, 12))
    candidates = candidates_of(model, batch, (2, 4), (None, 2, 3))
    if token:
        weights, _ = candidates["a"]
        candidates = {"a": (weights, [None, TokenGrid(bits=2), TokenGrid(bits=3)])}
    found = joint_of(model, batch, candidates, count=4, batch_size=4)
    weights, rules = candidates["a"]
    x = torch.from_numpy(batch)
    y = module.a(x).detach()
    for i, weight in enumerate(weights):
        for j, rule in enumerate(rules):
            rounded = x if rule is None else torch.from_numpy(rule.apply(batch))
            moved = nn.functional.linear(rounded, torch.from_numpy(weight.copy()), module.a.bias).detach()
            log_p, slope = torch.func.jvp(lambda y: module.rest(y).log_softmax(-1), (y,), (moved - y,))
            expected = (log_p.exp() * slope.square()).sum(-1).mean().detach() / 2
            assert found["a"][i, j] == pytest.approx(float(expected), rel=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_measured_damage_where_the_error_is_small(name):
    """Every layout of weights, several uses, convolutions: at 8 bits second order is all there is."""
    model, batch = read_named(name)
    candidates = candidates_of(model, batch, (6, 8), (None, 8))
    found = joint_of(model, batch, candidates, count=50, batch_size=3)
    reference = np.asarray(model.run(batch), np.float64)
    for layer, (weights, rules) in candidates.items():
        for i, weight in enumerate(weights):
            for j, rule in enumerate(rules):
                if rule is not None and any(use.form == "lookup" for use in model.variant.uses(layer)):
                    # The table moves the output layer's input, which then rounds to other codes.
                    continue
                logits = model.with_weights({layer: Setting(weight=weight, activation=rule)}).run(batch)
                measured = kl_divergence(reference, np.asarray(logits, np.float64)).mean()
                assert found[layer][i, j] == pytest.approx(measured, rel=0.25, abs=2e-7)


def test_shards_average_to_the_whole():
    model, batch = read_named("packed")
    candidates = candidates_of(model, batch, (2,), (3,))
    whole = joint_of(model, batch, candidates, count=2, seed=3)
    one = joint_of(model, batch[::2], candidates, count=2, seed=3, samples=[0, 2, 4])
    two = joint_of(model, batch[1::2], candidates, count=2, seed=3, samples=[1, 3])
    for layer, value in whole.items():
        np.testing.assert_allclose(0.6 * one[layer] + 0.4 * two[layer], value, rtol=1e-3)


def test_a_profile_of_pairs_has_it():
    model, batch = read_named("packed")
    found = profile(model, batch, bits=(2, 8), act_bits=(3, 8), fisher_draws=3, measure="differences")
    direct = joint_of(model, batch, candidates_of(model, batch, (2, 8), (3, 8)), count=3)
    for index, layer in enumerate(found.layers):
        np.testing.assert_allclose(found.joint_fisher[index], direct[layer.name].ravel(), rtol=1e-5)
    assert profile(model, batch, bits=(2, 8), act_bits=(3, 8), fisher_draws=0).joint_fisher is None
