"""Rows of gradients against gradients by hand, against measured differences, and where neither can be trusted."""

import numpy as np
import pytest
import torch
from numpy_model import NumpyModel
from torch import nn
from torch_models import MODELS, read_named, seeded

import lampq
from lampq.adapters.torch import gradient_rows as torch_rows
from lampq.adapters.torch import read, replay
from lampq.core.measuring import candidates as candidates_module
from lampq.core.measuring import gradient_rows as rows_module
from lampq.core.measuring.candidates import Candidates
from lampq.core.measuring.gradient_check import check_gradients
from lampq.core.measuring.gradient_rows import Loader, measure_gradients, rows_of
from lampq.core.measuring.reference import measure_reference
from lampq.core.measuring.setting import rounded_weight
from lampq.core.readouts.draws import Draws
from lampq.core.values.activation_grid import ActivationGrid
from lampq.core.values.errors import NoGradientsError, RecordError
from lampq.core.values.merge import merge
from lampq.core.values.option import all_options
from lampq.core.values.shard import Shard
from lampq.verbs import damage as damage_module
from lampq.verbs.damage import MeasuredDamage

EXACT = Draws(count=3, labels="exact")


def candidates_of(model, bits=(2, 4, 8), act_bits=None, rules=None):
    layers, options = model.layers(), all_options(bits, act_bits)
    available = np.ones((len(layers), len(options)), dtype=bool)
    return Candidates(model=model, layers=layers, options=options, available=available, rules=rules)


def rows(model, batch, directions, candidates=None):
    candidates = candidates or candidates_of(model)
    reference = measure_reference(model, batch)
    loader = Loader(candidates, candidates.every())
    return rows_of(candidates, reference, directions, loader)


def vectors_of(model, batch, directions):
    reference = measure_reference(model, batch)
    return list(reference.readout.directions(reference.outputs, directions))


def assert_same_correlations(gram, expected):
    """Of what moves the outputs by more than the rounding of float32 logits."""
    own = np.diag(expected)
    moves = own > 1e-7
    assert moves.sum() > 3
    scale = np.sqrt(np.outer(own, own))[moves][:, moves]
    np.testing.assert_allclose(gram[moves][:, moves] / scale, expected[moves][:, moves] / scale, atol=0.1)


@pytest.mark.parametrize("name", MODELS)
def test_rows_are_products_of_each_samples_own_gradient_with_each_widths_error(name):
    model, batch = read_named(name)
    directions = Draws(count=2, labels="probe", seed=3)
    found = rows(model, batch, directions)
    vectors = vectors_of(model, batch, directions)
    names = [model.parameters[layer.name] for layer in model.layers()]
    tensors = dict(model.variant.tensors) | {
        key: model.variant.tensors[key].detach().requires_grad_() for key in names
    }
    for sample in range(len(batch)):
        one = torch.from_numpy(batch[sample : sample + 1])
        logits = torch.func.functional_call(model.module, tensors, (one,), tie_weights=True)[0]
        for d, vector in enumerate(vectors):
            direction = torch.from_numpy(np.asarray(vector)[sample]).float()
            gradients = torch.autograd.grad(
                (direction * logits).sum(), [tensors[key] for key in names], retain_graph=True
            )
            for i, (layer, gradient) in enumerate(zip(model.layers(), gradients, strict=True)):
                for j, bits in enumerate((2, 4, 8)):
                    error = rounded_weight(model, layer, bits) - model.weight(layer.name)
                    expected = float((gradient.double() * torch.from_numpy(error).double()).sum())
                    assert found[sample, d, i, j] == pytest.approx(expected, rel=2e-3, abs=2e-5)


@pytest.mark.parametrize("name", ["packed", "windows", "convolutions", "functional"])
def test_the_interactions_are_those_of_differences_where_errors_are_small(name):
    model, batch = read_named(name)
    grams = []
    for measure in ("gradients", "differences"):
        profile = lampq.profile(model, batch, bits=(5, 6, 7), fisher_draws=0, measure=measure)
        assert profile.provenance["measure"] == measure
        layers, options = profile.kl.shape
        grams.append(profile.array("gram").reshape(layers * options, -1))
    assert_same_correlations(*grams)


def test_rounded_inputs_are_in_the_rows():
    """Weights and input of a linear layer rounded together, by forward-mode derivatives along dY."""
    module = seeded(lambda: nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 4)))
    model = read(module, input_shape=(12,))
    batch = np.random.default_rng(0).normal(size=(6, 12)).astype(np.float32)
    grids = {bits: ActivationGrid.from_range(-3, 3, bits) for bits in (2, 4)}
    pairs = candidates_of(model, (2, 4), (2, 4), lambda layer, bits: grids[bits] if layer == 0 else None)
    directions = Draws(count=2, labels="probe")
    found = rows(model, batch, directions, pairs)
    vectors = vectors_of(model, batch, directions)
    x = torch.from_numpy(batch)
    y = module[0](x).detach()
    for j, option in enumerate(pairs.options):
        weight = torch.from_numpy(rounded_weight(model, model.layers()[0], option.weight_bits))
        given = torch.from_numpy(grids[option.activation_bits].apply(batch))
        moved = nn.functional.linear(given, weight, module[0].bias).detach() - y
        _, change = torch.func.jvp(module[1:], (y,), (moved,))
        for d, vector in enumerate(vectors):
            expected = (np.asarray(vector) * change.detach().numpy()).sum(1)
            np.testing.assert_allclose(found[:, d, 0, j], expected, rtol=1e-3, atol=1e-5)


def test_shards_merge_to_the_whole():
    model, _ = read_named("packed")
    batch = np.random.default_rng(0).normal(size=(9, 3, 8, 8)).astype(np.float32)
    choices = {"bits": (2, 3, 8), "fisher_draws": 0, "measure": "gradients", "seed": 4}
    whole = lampq.profile(model, batch, **choices)
    parts = [lampq.profile(model, batch, shard=Shard(index=i, count=2), **choices) for i in (1, 2)]
    together = merge(parts)
    for name in ("kl", "gram", "gram_square"):
        expected = whole.array(name)
        np.testing.assert_allclose(together.array(name), expected, rtol=1e-3, atol=1e-6 * expected.max())
    assert together.provenance["measured"] == whole.provenance["measured"]


def test_shards_of_different_kinds_do_not_merge():
    model, batch = read_named("packed")
    parts = [
        lampq.profile(
            model, batch, bits=(2, 8), fisher_draws=0, measure=measure, shard=Shard(index=index, count=2)
        )
        for index, measure in ((1, "gradients"), (2, "differences"))
    ]
    with pytest.raises(RecordError):
        merge([parts[0], parts[1]])


def test_rows_and_weights_in_memory_are_bounded_and_the_result_is_the_same(monkeypatch):
    model, batch = read_named("packed")
    reference, candidates = measure_reference(model, batch), candidates_of(model)
    whole = measure_gradients(candidates, reference, EXACT)
    assert len(candidates.groups(candidates.every())) == 1
    largest = max(layer.size for layer in model.layers())
    monkeypatch.setattr(candidates_module, "_MOST_BYTES", 3 * largest)
    monkeypatch.setattr(rows_module, "_SLICE_BYTES", 1)
    groups = candidates.groups(candidates.every())
    assert len(groups) > 1
    assert all(sum(model.layers()[i].size for i in group) <= largest for group in groups)
    monkeypatch.setattr(torch_rows, "_ERRORS_BYTES", 0)
    parts = measure_gradients(candidates, reference, EXACT)
    for name in ("kl", "gram", "gram_square", "weight_error"):
        expected = getattr(whole, name)
        np.testing.assert_allclose(getattr(parts, name), expected, rtol=1e-3, atol=1e-6 * expected.max())


def test_a_pass_has_as_many_samples_as_what_its_layers_give_fits_in_memory(monkeypatch):
    module = seeded(lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)))
    batch = np.random.default_rng(0).normal(size=(10, 3, 8, 8)).astype(np.float32)
    model = read(module, input_shape=(3, 8, 8))
    reference, sizes, made = measure_reference(model, batch), [], 4 * (2 * 8 * 6 * 6 + 4)
    original = replay.Pass

    def counted(*words):
        one = original(*words)
        sizes.append(one.count)
        return one

    monkeypatch.setattr(replay, "Pass", counted)
    whole = measure_gradients(candidates_of(model), reference, EXACT)
    assert sizes == [10]
    sizes.clear()
    monkeypatch.setattr(replay, "_PASS_BYTES", 3 * made)
    parts = measure_gradients(candidates_of(model), reference, EXACT)
    assert sum(sizes) == 10
    assert max(sizes) <= 3
    np.testing.assert_allclose(parts.kl, whole.kl, rtol=1e-4)
    np.testing.assert_allclose(parts.gram, whole.gram, rtol=1e-3, atol=1e-6 * whole.gram.max())


class Deceiving(nn.Module):
    """Three linear layers; gradients of the one in the middle are four times what they should be."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(10, 12), nn.Linear(12, 12), nn.Linear(12, 12)
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        x = torch.tanh(self.a(x))
        y = self.b(x)
        # The value of y, and the slope of 4 y.
        y = 4 * y - (3 * y).detach()
        return self.head(torch.tanh(self.c(torch.tanh(y + x - (y - y.detach())))))


def deceived():
    module = seeded(Deceiving)
    return module, np.random.default_rng(2).normal(size=(12, 10)).astype(np.float32)


def test_a_model_without_gradients_is_measured_by_differences():
    model, batch = NumpyModel.random(0), np.random.default_rng(1).normal(size=(6, 8)).astype(np.float32)
    reference = measure_reference(model, batch)
    with pytest.raises(NoGradientsError, match="numpy models have none here"):
        check_gradients(candidates_of(model), reference, EXACT)


def test_large_outputs_are_measured_by_differences_unless_gradients_are_asked_for(monkeypatch):
    """What leads to them is held in memory for gradients, of several samples together."""
    model, batch = read_named("packed")
    monkeypatch.setattr(damage_module, "_LARGE_BYTES", 8)
    profile = lampq.profile(model, batch, bits=(4, 8), fisher_draws=0)
    assert profile.provenance["measure"] == "differences"
    assert "much memory with outputs of 0.0 MB a sample" in str(profile.provenance)
    asked = lampq.profile(model, batch, bits=(4, 8), fisher_draws=0, measure="gradients")
    assert asked.provenance["measure"] == "gradients"


def test_a_check_takes_no_more_samples_than_directions_fit_in_memory(monkeypatch):
    model, _ = read_named("packed")
    batch = np.random.default_rng(0).normal(size=(9, 3, 8, 8)).astype(np.float32)
    reference = measure_reference(model, batch)
    monkeypatch.setattr(rows_module, "_SLICE_BYTES", 3 * 2 * 2 * rows_module.output_bytes(reference))
    check = check_gradients(candidates_of(model), reference, Draws(count=2, labels="probe"))
    assert check.samples == 3


def test_a_kind_that_is_asked_for_and_cannot_be_is_refused():
    model, batch = read_named("packed")

    def none(*_, **__):
        raise NoGradientsError("operator Magic has no differentiable form here")

    model.gradient_rows = none
    with pytest.raises(NoGradientsError, match=r"Magic .*; take --measure differences"):
        lampq.profile(model, batch, bits=(2, 8), fisher_draws=0, measure="gradients")
    profile = lampq.profile(model, batch, bits=(2, 8), fisher_draws=0)
    assert profile.provenance["measure"] == "differences"
    assert "Magic" in profile.provenance["measured"]["note"]
    (note,) = [line for line in lampq.plan(profile, average_bits=8).notes if "gradients" in line]
    assert "Magic" in note
    assert "\n" not in note


class Scaled:
    """A model whose gradients of some layers are wrong by a factor."""

    def __init__(self, model, layers, factor=3.0):
        self._model, self._layers, self._factor = model, layers, factor

    def __getattr__(self, name):
        return getattr(self._model, name)

    def gradient_rows(self, *args, **settings):
        for block in self._model.gradient_rows(*args, **settings):
            yield {
                name: values * (self._factor if name in self._layers else 1) for name, values in block.items()
            }


def test_layers_with_wrong_gradients_are_named_and_run_instead():
    model, batch = read_named("packed")
    wrong = "transformer.layers.1.linear1"
    reference = measure_reference(model, batch)
    honest = candidates_of(model, (5, 6, 7))
    lying = candidates_of(Scaled(model, [wrong]), (5, 6, 7))
    check = check_gradients(lying, reference, EXACT)
    assert [lying.layers[index].name for index in check.failing] == [wrong]
    assert check.passes
    assert check.summary(lying.layers)["measured_instead"] == [wrong]
    told = MeasuredDamage(damage=None, kind="gradients", details={"check": check.summary(lying.layers)})
    assert told.notes == (
        f"gradients do not tell what quantizing does to {wrong}, which was quantized and run instead",
    )
    found = measure_gradients(lying, reference, EXACT, run=check.failing)
    expected = measure_gradients(honest, reference, EXACT)
    np.testing.assert_allclose(found.kl, expected.kl, rtol=0.25, atol=1e-7)
    cells = expected.kl.size
    assert_same_correlations(found.gram.reshape(cells, cells), expected.gram.reshape(cells, cells))


def test_a_model_whose_gradients_are_mostly_wrong_is_measured_by_differences():
    model, batch = read_named("packed")
    reference = measure_reference(model, batch)
    names = [layer.name for layer in model.layers()]
    check = check_gradients(candidates_of(Scaled(model, names)), reference, EXACT)
    assert not check.passes
    assert names[0] in check.why_not(model.layers())


def test_a_gradient_that_jumps_over_a_layer_is_caught():
    module, batch = deceived()
    profile = lampq.profile(
        read(module, input_shape=(10,)), batch, bits=(4, 6, 8), fisher_draws=0, measure="auto"
    )
    told = profile.provenance["measured"]
    assert profile.provenance["measure"] == "differences" or "b" in told["check"]["measured_instead"]
