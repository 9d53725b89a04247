"""The plan that measures best: whatever is asked for holds, and the figure it reports is that of the model."""

import dataclasses

import numpy as np
import pytest
from divergence import kl_divergence
from numpy_model import NumpyModel

from lampq.core.measuring.forward_fisher import forward_fisher
from lampq.core.measuring.measure import measure_damage
from lampq.core.measuring.reference import measure_reference
from lampq.core.quantizing.quantizer import as_rows, from_rows, quantize
from lampq.core.values.budget import Budget
from lampq.core.values.option import Option, all_options
from lampq.core.values.plan import Plan
from lampq.core.values.profile import Profile
from lampq.core.values.tables import known_tables
from lampq.verbs.best_plan import best_plan

WIDTHS = (2, 3, 4, 6)
MODES = ("superposition", "kl", "fisher", "lampq", "error")


def measured_model(seed, *, missing=()):
    """A model, its images, and its profile; options (layer, width index) in `missing` cannot be stored."""
    model = NumpyModel.random(seed, depth=3)
    images = np.random.default_rng(seed).normal(size=(24, 8)).astype(np.float32)
    traces = forward_fisher(model, measure_reference(model, images), draws=2)
    layers = tuple(dataclasses.replace(layer, fisher=traces[layer.name]) for layer in model.layers())
    damage = measure_damage(model, layers, all_options(WIDTHS), images)
    payload = np.array([[bits * layer.size // 8 + 4 * layer.channels for bits in WIDTHS] for layer in layers])
    for layer, option in missing:
        payload[layer, option] = -1
    profile = Profile(
        layers=layers,
        options=tuple(Option(weight_bits=bits) for bits in WIDTHS),
        rest_bytes=10,
        tables=known_tables(
            weight_error=damage.weight_error, payload_bytes=payload, kl=damage.kl, gram=damage.gram
        ),
        samples=len(images),
    )
    return model, images, profile


def damage_of(model, images, widths):
    """Mean nats of a model whose weights are quantized one by one."""
    weights = {}
    for layer in model.layers():
        rows = quantize(as_rows(model.weight(layer.name), 0), widths[layer.name])
        weights[layer.name] = from_rows(rows.dequantized(), layer.shape, 0)
    return float(kl_divergence(model.run(images), model.with_weights(weights).run(images)).mean())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_plan_keeps_its_limits_and_measures_what_it_says(mode, seed):
    missing = [(0, 0), (2, 1)]
    model, images, profile = measured_model(seed, missing=missing)
    size = profile.rest_bytes + int(profile.payload_bytes[:, 2].sum()) - 5
    budget = Budget(average_bits=3.7, size_bytes=size)
    plan = best_plan(model, profile, images, budget, mode=mode, pins=["head=6"], ties=["blocks.{1,2}.fc1"])
    widths = plan.widths
    assert plan.average_bits <= 3.7
    assert plan.total_bytes <= size
    assert widths["head"] == 6
    assert widths["blocks.1.fc1"] == widths["blocks.2.fc1"]
    for layer, option in missing:
        assert plan.layers[layer].weight_bits != WIDTHS[option]
    assert plan.measured_kl == pytest.approx(damage_of(model, images, widths), rel=1e-5)
    assert "inf" not in " ".join(layer.why for layer in plan.layers)
    assert Plan.from_json(plan.to_json()).widths == widths


@pytest.mark.parametrize("mode", MODES)
def test_the_plan_is_never_worse_than_the_uniform_one(mode):
    for seed in range(4):
        model, images, profile = measured_model(seed)
        plan = best_plan(model, profile, images, Budget(average_bits=4), mode=mode)
        uniform = damage_of(model, images, dict.fromkeys(plan.widths, 4))
        assert plan.measured_kl <= uniform * (1 + 1e-5)
