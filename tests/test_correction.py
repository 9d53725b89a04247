"""Weights that make up for the layers before: the regression, the walk through the model, and what is told of it."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from numpy_model import NumpyModel
from onnx_models import exported, module, normal
from torch import nn
from torch_models import seeded

import lampq
from lampq.adapters.onnx import read as read_onnx
from lampq.adapters.torch import read
from lampq.core.measuring import held_out
from lampq.core.measuring.correction import with_plan_coding
from lampq.core.measuring.encoding import with_rounding
from lampq.core.measuring.held_out import halves, held_out_plan, held_out_samples, quarters
from lampq.core.measuring.reference import damage, measure_reference
from lampq.core.measuring.setting import simulated
from lampq.core.measuring.walk import Passes
from lampq.core.planning import corrected as corrected_module
from lampq.core.planning.corrected import corrected_plan
from lampq.core.quantizing.ridge import RIDGES, Fold, corrected, judges_alone
from lampq.core.values.batch import Batch
from lampq.core.values.errors import RecordError
from lampq.core.values.journal import journal_of
from lampq.demo_data import CALIBRATION_PATH, MODEL_PATH, VALIDATION_PATH


def folds_of(exact, read_, parts):
    """Moments of parts of the rows, every so many in one."""
    pairs = [(exact[start::parts], read_[start::parts]) for start in range(parts)]
    return [Fold(own=x.T @ x, lost=(y - x).T @ x, count=len(x)) for y, x in pairs]


def case(samples, noise=0.5, seed=0, features=8):
    """Inputs, and what is left of them: a rotation a little, and noise."""
    random = np.random.default_rng(seed)
    mixing = np.eye(features) + 0.2 * random.normal(size=(features, features))
    exact = random.normal(size=(samples, features)) @ random.normal(size=(features, features))
    return exact, exact @ mixing + noise * random.normal(size=exact.shape)


def test_corrected_weights_are_those_of_ridge_regression():
    exact, given = case(400)
    rows = np.random.default_rng(3).normal(size=(5, 8)).astype(np.float32)
    found = corrected(rows, folds_of(exact, given, 4))
    own, cross = given.T @ given / 400, exact.T @ given / 400
    candidates = []
    for ridge in RIDGES:
        damping = ridge * np.trace(own) / 8 * np.eye(8)
        candidates.append(rows @ (cross + damping) @ np.linalg.inv(own + damping))
    assert min(np.abs(found - candidate).max() for candidate in candidates) < 1e-4


@pytest.mark.parametrize("noise", [0.1, 1.0, 4.0])
def test_the_ridge_is_the_one_that_loses_least_on_the_fold_left_out(noise):
    """Against all ridges tried on the rows themselves."""
    rows = np.random.default_rng(3).normal(size=(5, 8)).astype(np.float32)
    for seed in range(6):
        exact, given = case(48, noise=noise, seed=seed)
        left_out = np.arange(48) % 4 == 0
        losses = []
        for ridge in RIDGES:
            fitted = given[~left_out]
            own, lost = fitted.T @ fitted, (exact - given)[~left_out].T @ fitted
            damped = own + ridge * np.trace(own) / 8 * np.eye(8)
            change = rows @ lost @ np.linalg.inv(damped)
            losses.append(np.square(exact[left_out] @ rows.T - given[left_out] @ (rows + change).T).sum())
        own, lost = given.T @ given, (exact - given).T @ given
        damped = own + RIDGES[int(np.argmin(losses))] * np.trace(own) / 8 * np.eye(8)
        best = rows + rows @ lost @ np.linalg.inv(damped)
        np.testing.assert_allclose(corrected(rows, folds_of(exact, given, 4)), best, atol=1e-4)


def test_few_samples_move_weights_less_than_they_fit():
    """With twice as many rows as features, the fit to the samples is no guide."""
    rows = np.random.default_rng(3).normal(size=(5, 32)).astype(np.float32)
    better = 0
    for seed in range(8):
        exact, given = case(64 + 4000, noise=2.0, seed=seed, features=32)
        found = corrected(rows, folds_of(exact[:64], given[:64], 4))
        loss = [np.square(exact[64:] @ rows.T - given[64:] @ w.T).sum() for w in (rows, found)]
        better += loss[1] <= loss[0]
    assert better == 8


def test_a_fold_with_as_many_rows_as_features_chooses_the_ridge_alone():
    """The others may come together then, and with fewer rows each is left out in turn."""
    rows = np.random.default_rng(3).normal(size=(5, 8)).astype(np.float32)
    for samples, alone in ((64, True), (28, False)):
        folds = folds_of(*case(samples, noise=2.0), 4)
        together = [folds[0], Fold.of(folds[1:])]
        same = np.allclose(corrected(rows, folds), corrected(rows, together), atol=1e-6)
        assert judges_alone(folds[0]) == alone
        assert same or not alone


def test_inputs_that_lose_nothing_leave_weights_alone():
    exact, _ = case(64)
    rows = np.random.default_rng(3).normal(size=(5, 8)).astype(np.float32)
    np.testing.assert_allclose(corrected(rows, folds_of(exact, exact, 4)), rows, atol=1e-6)
    np.testing.assert_array_equal(corrected(rows, folds_of(*case(64), 1)), rows)
    assert np.isfinite(corrected(rows, folds_of(0 * exact, 0 * exact, 4))).all()


class Deep(nn.Module):
    """Layers enough that errors add up."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(24, 24) for _ in range(5))
        self.head = nn.Linear(24, 6)

    def forward(self, x):
        for layer in self.layers:
            x = x + nn.functional.gelu(layer(x))
        return self.head(x)


def deep(samples=256, bits=2, act_bits=None):
    model, batch = read(seeded(Deep)), np.random.default_rng(5).normal(size=(samples, 24)).astype(np.float32)
    profile = lampq.profile(model, batch, bits=(bits, 8), act_bits=act_bits, fisher_draws=0)
    pins = [f"*={bits}"] if act_bits is None else [f"*=w{bits}a{act_bits}"]
    plan = dataclasses.replace(lampq.plan(profile, average_bits=8, pins=pins), rounding="inputs")
    return model, batch, plan


@pytest.mark.parametrize("act_bits", [None, 4])
def test_correcting_loses_less_on_other_samples(act_bits):
    model, batch, plan = deep(act_bits=act_bits)
    others = np.random.default_rng(6).normal(size=(500, 24)).astype(np.float32)
    reference = measure_reference(model, others)
    losses = []
    for rounding in ("inputs", "corrected"):
        each = dataclasses.replace(plan, rounding=rounding)
        losses.append(damage(simulated(with_plan_coding(model, each, batch), each), reference))
    assert losses[1] < 0.9 * losses[0]


def test_the_plan_says_what_measures_best_and_what_others_will_lose():
    model, batch, plan = deep(256)
    fitted = with_rounding(model, "inputs", None, batch)
    reference = measure_reference(model, batch)
    coded, chosen = corrected_plan(fitted, plan, reference)
    assert chosen.rounding == "corrected" and coded.coding.targets
    on_these = damage(simulated(coded, chosen), reference)
    others = measure_reference(model, np.random.default_rng(6).normal(size=(500, 24)).astype(np.float32))
    assert on_these < damage(simulated(coded, chosen), others) < 1.5 * chosen.measured_kl


def test_what_a_killed_run_measured_of_plans_is_not_measured_again(tmp_path, monkeypatch):
    model, batch, plan = deep(32)
    fitted = with_rounding(model, "inputs", None, batch)
    reference = measure_reference(model, batch)
    measured, held_out = [], corrected_module.held_out_samples
    monkeypatch.setattr(
        corrected_module, "held_out_samples", lambda *words: measured.append(words) or held_out(*words)
    )
    with journal_of(tmp_path / "q", {"model": "m"}, fresh=False, tell=lambda line: None) as journal:
        (one, first), (other, again) = (
            corrected_plan(fitted, plan, reference, journal=journal) for _ in range(2)
        )
    assert len(measured) == 2
    assert first == again
    for name, weight in one.coding.targets.items():
        np.testing.assert_array_equal(weight, other.coding.targets[name])


def test_the_uniform_plan_is_taken_where_it_loses_less_once_both_are_corrected():
    model, batch, plan = deep(64)
    fitted = with_rounding(model, "inputs", None, batch)
    reference = measure_reference(model, batch)
    layers = [dataclasses.replace(layer, weight_bits=8) for layer in plan.layers]
    wider = dataclasses.replace(plan, layers=tuple(layers))
    coded, chosen = corrected_plan(fitted, plan, reference, uniform=wider)
    assert (chosen.widths, chosen.rounding) == (wider.widths, "corrected")
    assert chosen.notes[-1].startswith("no plan measured clearly less than the best uniform one")
    assert chosen.measured_kl < corrected_plan(fitted, plan, reference)[1].measured_kl
    assert set(coded.coding.targets) == set(wider.widths)
    kept = corrected_plan(fitted, wider, reference, uniform=plan)[1]
    assert (kept.widths, kept.notes) == (wider.widths, wider.notes)


def test_few_samples_are_judged_in_quarters_where_halves_would_mistake_what_correction_gains():
    model, batch, plan = deep(64, bits=4)
    fitted = with_rounding(model, "inputs", None, batch)
    reference = measure_reference(model, batch)
    others = measure_reference(model, np.random.default_rng(6).normal(size=(2000, 24)).astype(np.float32))
    plans = plan, dataclasses.replace(plan, rounding="corrected")
    told = [held_out_plan(halves(fitted, reference), each) for each in plans]
    true = [damage(simulated(with_plan_coding(fitted, each, batch), each), others) for each in plans]
    assert told[0] < told[1] and true[1] < true[0]
    chosen = corrected_plan(fitted, plan, reference)[1]
    assert chosen.rounding == "corrected"
    assert abs(chosen.measured_kl - true[1]) < abs(told[1] - true[1])


@pytest.mark.parametrize(("less", "mixed"), [(0.02, False), (0.06, False), (0.08, True)])
def test_a_plan_that_loses_less_by_chance_alone_gives_way_to_the_uniform_one(less, mixed, monkeypatch):
    model, batch, plan = deep(64)
    fitted = with_rounding(model, "inputs", None, batch)
    uniform = dataclasses.replace(
        plan, layers=tuple(dataclasses.replace(layer, weight_bits=3) for layer in plan.layers)
    )
    noise = np.random.default_rng(0).normal(size=64)
    damages = {True: np.ones(64), False: 1 - less + 0.5 * (noise - noise.mean())}
    monkeypatch.setattr(
        corrected_module,
        "held_out_samples",
        lambda parts, each, progress: damages[each.widths == uniform.widths] + (each.rounding == "inputs"),
    )
    chosen = corrected_plan(fitted, plan, measure_reference(model, batch), uniform=uniform)[1]
    assert chosen.widths == (plan if mixed else uniform).widths
    assert chosen.rounding == "corrected"


def test_halves_and_quarters_judge_every_sample_by_codes_that_have_not_seen_it():
    model, batch, plan = deep(9)
    reference = measure_reference(model, batch)
    coded = with_rounding(model, "inputs", None, batch)
    for part, sizes in ((halves, [4, 5]), (quarters, [2, 2, 2, 3])):
        parts = part(coded, reference)
        assert sorted(each.judged.inputs.samples for each in parts) == sizes
        for each in parts:
            seen, judged = np.asarray(each.fitted), np.asarray(each.judged.inputs)
            assert len(seen) + len(judged) == 9
            assert not any(np.array_equal(a, b) for a, b in itertools.product(seen, judged))
        assert held_out_plan(parts, plan) == pytest.approx(held_out_samples(parts, plan).mean())
        assert held_out_plan(parts, plan) > 0
        assert part(model, reference) == ()


def test_of_a_large_model_one_quarter_is_judged(monkeypatch):
    model, batch, plan = deep(64)
    reference, fitted = measure_reference(model, batch), with_rounding(model, "inputs", None, batch)
    whole = quarters(fitted, reference)
    monkeypatch.setattr(held_out, "_LARGE", 24 * 24)
    (part,) = quarters(fitted, reference)
    assert len(whole) == 4
    np.testing.assert_array_equal(part.judged.inputs["x"], whole[0].judged.inputs["x"])
    assert held_out_samples([part], plan).tolist() == held_out_samples(whole[:1], plan).tolist()
    chosen = corrected_plan(fitted, plan, reference)[1]
    assert chosen.measured_kl == pytest.approx(held_out_samples([part], chosen).mean())


def test_correction_needs_data():
    model, _, plan = deep(8)
    plan = dataclasses.replace(plan, rounding="corrected")
    with pytest.raises(RecordError, match="needs data; give --data"):
        lampq.fake_quantize(model, plan)


def test_layers_are_corrected_in_order_and_by_the_rows_they_meet():
    """The second layer's weights, from inputs of a first one that was quantized alone."""
    model = NumpyModel.random(0)
    batch = np.random.default_rng(1).normal(size=(60, 8)).astype(np.float32)
    profile = lampq.profile(model, batch, bits=(2, 8), fisher_draws=0)
    plan = dataclasses.replace(lampq.plan(profile, average_bits=8, pins=["*=2"]), rounding="corrected")
    coded = with_plan_coding(model, plan, batch)
    first, second = model.layers()[:2]
    np.testing.assert_allclose(coded.coding.targets[first.name], model.weight(first.name), atol=1e-5)
    weight = simulated(coded, dataclasses.replace(plan, layers=plan.layers[:1])).weight(first.name)
    quantized = model.with_weights({first.name: weight})
    inputs = [
        next(values for name, values, _ in each.taps(batch) if name == second.name)
        for each in (model, quantized)
    ]
    expected = corrected(model.weight(second.name), folds_of(*inputs, 4))
    np.testing.assert_allclose(coded.coding.targets[second.name], expected, rtol=1e-3, atol=1e-5)


def test_the_command_quantizes_so_and_a_plan_alone_gives_the_same_file(tmp_path):
    model = lampq.read(MODEL_PATH)
    images = lampq.read_data(CALIBRATION_PATH, input_specs=model.input_specs, samples=32).inputs()
    plan = lampq.quantize(
        model, images, tmp_path / "q.onnx", average_bits=2, bits=(2, 3), rounds=0, fisher_draws=0
    )
    assert plan.rounding == "corrected"
    applied = lampq.apply(model, plan, tmp_path / "again.onnx", batch=images)
    val = lampq.read_data(VALIDATION_PATH, input_specs=model.input_specs, samples=100).inputs()
    runs = [np.asarray(lampq.read(path).run(val)) for path in (tmp_path / "q.onnx", applied.path)]
    np.testing.assert_allclose(*runs, rtol=1e-4, atol=1e-4)


def torch_vit():
    return read(module("encoder"), input_shape=(3, 16, 16))


def onnx_vit():
    return read_onnx(exported("vit", "dynamo"))


def onnx_convolutions():
    return read_onnx(exported("conv", "dynamo"))


@pytest.mark.parametrize("build", [torch_vit, onnx_vit, onnx_convolutions])
def test_a_walk_sees_what_a_run_for_every_layer_sees(build):
    model = build()
    batch = Batch.of(normal(5, 3, 16, 16), name=model.input_specs[0].name)
    walk, passes = model.walk(batch), Passes(model, batch)
    for number, layer in enumerate(model.layers()):
        pairs = list(itertools.zip_longest(walk.inputs(layer.name), passes.inputs(layer.name)))
        for (ours, positions), (theirs, expected) in pairs:
            assert positions == expected
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
        change = model.weight(layer.name) * (1 + 0.3 * (number % 2))
        walk.replace(layer.name, change)
        passes.replace(layer.name, change)


def test_a_file_with_rounded_inputs_computes_what_was_corrected(tmp_path):
    model, batch, _ = deep(256)
    out = tmp_path / "q.safetensors"
    plan = lampq.quantize(
        model, batch, out, average_bits=3, average_input_bits=4, bits=(2, 3, 4), act_bits=(4,), rounds=0
    )
    assert plan.rounding == "corrected"
    expected = lampq.fake_quantize(model, plan, batch=batch)
    loaded = lampq.load_quantized(out, seeded(Deep))
    with torch.no_grad():
        outputs = loaded(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(outputs, np.asarray(expected.run(batch)), rtol=1e-3, atol=1e-3)
