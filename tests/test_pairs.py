"""Pairs of widths against measuring every pair by itself."""

import numpy as np
import pytest
from class_outputs import logits_interaction
from divergence import kl_divergence
from numpy_model import NumpyModel

from lampq.core.measuring.candidates import Candidates
from lampq.core.measuring.pairs import measure_pairs
from lampq.core.measuring.reference import measure_reference
from lampq.core.measuring.setting import Setting, rounded_weight
from lampq.core.values.activation_grid import ActivationGrid, TokenGrid
from lampq.core.values.errors import RecordError
from lampq.core.values.option import Option, all_options, neighbours


class RoundedModel(NumpyModel):
    """Takes settings: rounds the inputs of its layers, and counts the candidates it runs."""

    def __init__(self, weights, rules=None):
        super().__init__(weights)
        self._rules = rules or {}

    def with_weights(self, settings):
        weights, rules = dict(self._weights), dict(self._rules)
        for name, setting in settings.items():
            if setting.weight is not None:
                weights[name] = setting.weight
            rules[name] = setting.activation
        return RoundedModel(weights, rules)

    def sweep(self, batch, candidates):
        for name, option, setting in candidates:
            yield name, option, self.with_weights({name: setting}).run(batch)

    def _forward(self, batch):
        values = [np.asarray(batch).astype(np.float32)]
        for name, weight in self._weights.items():
            rule = self._rules.get(name)
            given = values[-1] if rule is None else rule.apply(values[-1])
            values.append(3 * given @ weight.T if name == "head" else values[-1] + np.tanh(given @ weight.T))
        return values


def rules(layer, bits):
    return ActivationGrid.from_range(-2.5, 2.5, bits)


def setup(options):
    model = RoundedModel(NumpyModel.random(seed=4, depth=3)._weights)
    batch = np.random.default_rng(1).normal(size=(40, 8)).astype(np.float32)
    return model, model.layers(), options, batch


def measured(model, options, batch, *, rules=rules, available=None, **how):
    layers = model.layers()
    candidates = Candidates(
        model=model,
        layers=layers,
        options=options,
        available=np.ones((len(layers), len(options)), dtype=bool) if available is None else available,
        rules=rules,
    )
    return measure_pairs(candidates, measure_reference(model, batch), **how)


def exhaustive(model, layers, options, batch):
    reference = np.asarray(model.run(batch))
    delta = np.zeros((len(layers), len(options), *reference.shape))
    for i, layer in enumerate(layers):
        for j, option in enumerate(options):
            setting = Setting(
                weight=rounded_weight(model, layer, option.weight_bits),
                activation=rules(i, option.activation_bits),
            )
            delta[i, j] = np.asarray(model.with_weights({layer.name: setting}).run(batch)) - reference
    return reference, delta


def test_without_tolerance_every_pair_is_measured():
    model, layers, options, batch = setup(all_options((2, 4, 8), (2, 3, 8)))
    found = measured(model, options, batch, tolerance=0)
    reference, delta = exhaustive(model, layers, options, batch)
    assert found.measured.all()
    assert found.runs == delta.shape[0] * len(options)
    expected = logits_interaction(reference, delta).gram
    np.testing.assert_allclose(found.damage.gram, expected, rtol=1e-3, atol=1e-7)
    expected = [[kl_divergence(reference, reference + d).mean() for d in row] for row in delta]
    np.testing.assert_allclose(found.damage.kl, expected, rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("tolerance", [0.02, 0.1, 0.5])
def test_sums_stand_in_where_they_are_good(tolerance):
    model, layers, options, batch = setup(all_options(range(2, 9), range(2, 9)))
    found = measured(model, options, batch, tolerance=tolerance)
    reference, delta = exhaustive(model, layers, options, batch)
    expected = np.array([[kl_divergence(reference, reference + d).mean() for d in row] for row in delta])
    assert found.runs < (0.9 if tolerance < 0.1 else 0.6) * expected.size
    assert found.measured[:, 0].all()
    np.testing.assert_allclose(
        found.damage.kl[found.measured], expected[found.measured], rtol=1e-3, atol=1e-8
    )
    error = np.abs(found.damage.kl - expected) / np.maximum(expected, 1e-4)
    # The tolerance holds where it was checked; wider pairs are rarely much worse.
    assert np.quantile(error[~found.measured], 0.95) <= 2 * tolerance
    summary = found.summary()
    assert summary["runs"] == found.runs
    assert summary["summed"] == (~found.measured).sum()
    assert summary["largest_accepted_error"] <= tolerance


def test_a_tighter_tolerance_never_runs_less():
    model, _, options, batch = setup(all_options(range(2, 9), range(2, 9)))
    runs = [measured(model, options, batch, tolerance=t).runs for t in (0.5, 0.1, 0.02, 1e-9)]
    assert runs == sorted(runs)


def test_one_input_width_is_measured_directly():
    model, _, options, batch = setup(all_options((2, 4, 8), 8))
    found = measured(model, options, batch)
    assert found.measured.all()
    assert found.runs == found.measured.size


def test_what_the_format_cannot_store_is_left_out():
    model, layers, options, batch = setup(all_options((2, 3, 4), (4, 8)))
    available = np.ones((len(layers), len(options)), dtype=bool)
    available[1, :2] = False
    found = measured(model, options, batch, available=available, tolerance=0.1)
    assert (found.damage.kl[1, :2] == 0).all()
    assert (found.damage.kl[available] > 0).all()


def test_inputs_of_tokens_own_grids_and_of_layers_without_any():
    model, layers, options, batch = setup(all_options((2, 4, 8), (2, 3, 8)))

    def some(layer, bits):
        return None if layer == 0 else TokenGrid(bits=bits)

    found = measured(model, options, batch, rules=some, tolerance=0)
    kl = found.damage.kl.reshape(len(layers), 3, 3)
    assert np.allclose(kl[0], kl[0][:, :1])
    assert (kl[1:, :, 0] > kl[1:, :, 2]).all()


def test_logits_that_are_not_finite_name_the_layer():
    class Broken(RoundedModel):
        def sweep(self, batch, candidates):
            for name, option, logits in super().sweep(batch, candidates):
                yield name, option, logits.map(lambda a: a * np.nan) if name == "blocks.1.fc1" else logits

    model, _, options, batch = setup(all_options((2, 4), (4, 8)))
    with pytest.raises(RecordError, match=r"layer blocks\.1\.fc1 quantized"):
        measured(Broken(model._weights), options, batch)


def test_neighbours_are_one_width_away_in_weights_or_inputs():
    options = all_options((2, 4, 8), (4, 8))
    near = neighbours(options)
    for i, one in enumerate(options):
        for j, other in enumerate(options):
            steps = (
                abs((2, 4, 8).index(one.weight_bits) - (2, 4, 8).index(other.weight_bits)),
                abs((4, 8).index(one.activation_bits) - (4, 8).index(other.activation_bits)),
            )
            assert near[i, j] == (sum(steps) <= 1)
    chain = neighbours([Option(weight_bits=b) for b in (2, 3, 4, 8)], reach=2)
    place = np.arange(4)
    assert (chain == (np.abs(place[:, None] - place) <= 2)).all()
