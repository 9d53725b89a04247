"""Widths of sites allocated with those of weights: profiles, budgets, plans, the command line."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import torch
from held_out_kl import by_quarters
from torch import nn
from torch_models import read_named, seeded

import lampq
from lampq.adapters.torch import read
from lampq.console import render
from lampq.core.allocating.limits import bit_operations, input_use, input_values
from lampq.core.planning import corrected
from lampq.core.values import journal_file
from lampq.core.values.fitted import Fitted
from lampq.core.values.journal import journal_of
from lampq.metrics import Metric
from lampq.verbs import site_rules
from lampq.verbs.sweep import write_csv

WIDTHS = (2, 4, 8)


@pytest.fixture(scope="module")
def model_and_batch():
    return read_named("packed")


@pytest.fixture(scope="module")
def profile(model_and_batch):
    model, batch = model_and_batch
    return lampq.profile(model, batch, bits=WIDTHS, act_bits=WIDTHS, sites="all", fisher_draws=1)


def test_products_are_places_behind_the_layers(profile, model_and_batch):
    model, _ = model_and_batch
    assert profile.products == model.products()
    assert len(profile.places) == len(profile.layers) + 4 == len(profile.kl)
    assert (profile.payload_bytes[len(profile.layers) :] == 0).all()
    assert profile.sizes[-1] == 0
    for site in (*profile.products[0].sites, profile.layers[0].name):
        assert [fitted.bits for fitted in profile.quantizers[site]] == list(WIDTHS)


def test_a_profile_of_sites_survives_its_file(profile, tmp_path):
    profile.write(tmp_path / "p.json")
    again = lampq.Profile.read(tmp_path / "p.json")
    assert again.products == profile.products and again.quantizers == profile.quantizers
    plan = lampq.plan(again, average_bits=4, average_input_bits=4)
    assert plan.products == lampq.plan(profile, average_bits=4, average_input_bits=4).products


def test_both_averages_count_what_they_say(profile, model_and_batch):
    _, batch = model_and_batch
    plan = lampq.plan(profile, average_bits=4, average_input_bits=4)
    assert plan.average_bits <= 4
    read = values = 0
    for layer, decision in zip(profile.layers, plan.layers, strict=True):
        count = layer.activation.count // len(batch)
        read, values = read + count * decision.activation_bits, values + count
    for decision in plan.products:
        product = decision.product
        read += product.left_values * decision.left.bits + product.right_values * decision.right.bits
        values += product.left_values + product.right_values
    assert values == input_values(profile) and read <= 4 * values
    # Nothing narrower than it must be: some site is above 2 bits.
    assert read > 2 * values


def test_products_count_in_bit_operations_and_bytes_of_activations(profile):
    option = profile.options.index(lampq.Option(weight_bits=4, activation_bits=8))
    product = profile.products[0]
    place = len(profile.layers)
    assert bit_operations(profile)[place, option] == 32 * product.macs
    assert input_use(profile)[place, option] == 4 * product.left_values + 8 * product.right_values
    most = int(bit_operations(profile).min(axis=1).sum())
    plan = lampq.plan(profile, budget=lampq.Budget(max_bops=most))
    assert {decision.left.bits for decision in plan.products} == {2}
    with pytest.raises(lampq.BudgetError):
        lampq.plan(profile, budget=lampq.Budget(max_bops=most - 1))


def test_products_are_measured_by_differences_and_plans_say_so(profile):
    assert profile.provenance["measure"] == "differences"
    (note,) = [line for line in lampq.plan(profile, average_bits=8).notes if "gradients" in line]
    assert "factors of products are measured by differences alone" in note


def test_products_can_be_pinned_and_tied_by_name_and_kind(profile):
    plan = lampq.plan(profile, average_input_bits=6, pins=["*@context=w8a4"], ties=["product"])
    assert {(d.left.bits, d.right.bits) for d in plan.products} == {(8, 4)}
    assert lampq.plan(profile, average_input_bits=8, pins=["product=w8a8"]).products[0].left.bits == 8


def test_what_a_plan_predicts_is_what_its_parts_measure(profile, model_and_batch):
    model, batch = model_and_batch
    plan = lampq.plan(profile, average_bits=8, average_input_bits=8)
    measured = lampq.evaluate(model, batch, plan=plan).kl
    assert plan.predicted_kl == pytest.approx(measured, rel=0.5, abs=1e-5)


def test_scores_of_layers_alone_refuse_products(profile):
    with pytest.raises(
        lampq.RecordError, match="mode lampq knows layers alone, and the profile has products"
    ):
        lampq.plan(profile, average_bits=4, mode="lampq")
    model, batch = read_named("packed")
    told = []
    with pytest.raises(lampq.RecordError, match="mode lampq knows layers alone; take mode superposition"):
        lampq.quantize(
            model,
            batch,
            "q.safetensors",
            average_bits=4,
            bits=WIDTHS,
            act_bits=WIDTHS,
            sites="all",
            mode="lampq",
            progress=lambda *step: told.append(step),
        )
    assert not told
    assert lampq.plan(profile, average_bits=4, mode="fisher").products
    assert lampq.plan(profile, average_bits=4, mode="kl").products


def test_quantizers_can_be_named(model_and_batch):
    model, batch = model_and_batch
    profile = lampq.profile(
        model, batch, bits=(4,), act_bits=(4, 8), quantizers=["uniform", "token"], fisher_draws=0
    )
    assert not profile.products
    assert {f.tag for some in profile.quantizers.values() for f in some} <= {"uniform", "token"}
    plan = lampq.plan(profile, average_input_bits=6)
    assert all(layer.quantizer.bits == layer.activation_bits for layer in plan.layers)


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        ({"sites": "all"}, "need the widths of activations: give --act-bits"),
        ({"sites": "all", "act_bits": 4, "act_range": "mse"}, "leave out --act-range"),
        ({"sites": "some", "act_bits": 4}, "sites 'some' is none of inputs, all"),
        (
            {"sites": "all", "act_bits": 4, "quantizers": ["sparkle"]},
            "quantizer 'sparkle' is none of uniform",
        ),
        ({"sites": "all", "act_bits": 4, "quantizers": ["log2"]}, "none of the quantizers log2 rounds input"),
        ({"sites": "all", "act_bits": 4, "measure": "gradients"}, "measured by differences alone"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(model_and_batch, choices, says):
    model, batch = model_and_batch
    with pytest.raises(lampq.LampqError, match=says):
        lampq.profile(model, batch, bits=(4,), **choices)


def test_other_formats_say_what_they_round():
    from numpy_model import NumpyModel

    batch = np.zeros((2, 8), np.float32)
    with pytest.raises(
        lampq.AdapterError, match="round layers' inputs to 8 bits on one range and no other sites"
    ):
        lampq.profile(NumpyModel.random(), batch, bits=(4,), act_bits=8, sites="all")


def test_quantize_writes_what_its_plan_says(model_and_batch, tmp_path):
    model, batch = model_and_batch
    plan = lampq.quantize(
        model,
        batch,
        tmp_path / "q.safetensors",
        average_bits=4,
        average_input_bits=4,
        bits=WIDTHS,
        act_bits=WIDTHS,
        sites="all",
        fisher_draws=0,
        rounds=1,
    )
    plan.write(tmp_path / "p.json")
    again = lampq.Plan.read(tmp_path / "p.json")

    def damage(fitted, judged):
        return lampq.evaluate(model, batch[judged], plan=again, calibration=batch[fitted]).kl

    assert by_quarters(len(batch), damage) == pytest.approx(plan.measured_kl, rel=1e-4)
    judged = lampq.evaluate(model, batch, plan=again, calibration=batch).kl
    written = read(read_named("packed")[0].module, weights=tmp_path / "q.safetensors")
    assert lampq.evaluate(written, batch, reference=model).kl == pytest.approx(judged, rel=1e-3)
    size = (tmp_path / "q.safetensors").stat().st_size
    assert again.total_bytes == size


def test_a_metric_to_keep_is_measured_with_factors_of_products_rounded(model_and_batch, tmp_path):
    model, batch = model_and_batch

    def distance(case):
        pairs = zip(case.outputs.groups, case.reference.groups, strict=True)
        return sum(float(np.abs(ours[name] - theirs[name]).sum()) for ours, theirs in pairs for name in ours)

    lost = Metric(name="sum_of_changes", measure=distance, higher_is_better=False, whole=1.0)
    choices = {"bits": (8,), "act_bits": (2,), "sites": "all", "quantizers": "uniform", "fisher_draws": 0}
    plan = lampq.quantize(
        model,
        batch,
        tmp_path / "q.safetensors",
        rounding="nearest",
        metrics=[lost],
        max_drop="1e9",
        **choices,
    )
    assert all(product.right is not None for product in plan.products)
    (value,) = lampq.evaluate(model, batch, plan=plan, metrics=[lost]).metrics
    note = next(
        note for note in plan.notes if note.startswith("sum_of_changes ") and "of the float model" in note
    )
    assert float(note.split()[1].rstrip(",")) == pytest.approx(value.value, rel=1e-3)


def test_what_was_measured_of_a_plan_is_not_told_of_one_with_other_factors(profile):
    plan = lampq.plan(profile, average_bits=4, average_input_bits=4)
    floats = tuple(dataclasses.replace(product, left=None, right=None) for product in plan.products)
    assert corrected._name(plan) != corrected._name(dataclasses.replace(plan, products=floats))


def test_a_size_is_kept_with_quantizers_described(model_and_batch, tmp_path):
    model, batch = model_and_batch
    limit = 30_000
    choices = {"bits": WIDTHS, "act_bits": WIDTHS, "sites": "all", "fisher_draws": 0, "rounds": 0}
    lampq.quantize(model, batch, tmp_path / "q.safetensors", size_bytes=limit, **choices)
    assert (tmp_path / "q.safetensors").stat().st_size <= limit


def test_a_killed_profile_chooses_quantizers_of_no_site_twice(model_and_batch, tmp_path, monkeypatch):
    model, batch = model_and_batch
    choices = {"bits": (2, 4), "act_bits": (2, 4), "sites": "all", "fisher_draws": 0}
    chosen, best = [], site_rules.best_rule
    monkeypatch.setattr(
        site_rules, "best_rule", lambda seen, *words: chosen.append(seen) or best(seen, *words)
    )
    whole = lampq.profile(model, batch, **choices)
    every = len(chosen)
    chosen.clear()

    def kill(what, done, total):
        if what == "quantizers of sites" and done == total // 2:
            raise KeyboardInterrupt

    state = {"output": tmp_path / "p.json", "owner": {"model": "m"}, "tell": lambda line: None}
    with pytest.raises(KeyboardInterrupt), journal_of(**state) as journal:
        # What is kept is written as soon as there is a file.
        monkeypatch.setattr(journal_file, "_EVERY_S", 0)
        lampq.profile(model, batch, journal=journal, progress=kill, **choices)
    assert 0 < len(chosen) < every
    with journal_of(**state) as journal:
        resumed = lampq.profile(model, batch, journal=journal, **choices)
    assert len(chosen) == every
    whole.write(tmp_path / "whole.json")
    resumed.write(tmp_path / "resumed.json")
    assert quantizers_in(tmp_path / "whole.json") == quantizers_in(tmp_path / "resumed.json")
    for name in ("kl", "joint_fisher", "payload_bytes"):
        np.testing.assert_array_equal(whole.array(name), resumed.array(name))


def quantizers_in(path):
    """As the file has them, to the last digit."""
    return json.dumps(json.loads(path.read_text())["quantizers"])


def test_version_one_plans_are_read_for_good(profile, tmp_path):
    plan = lampq.plan(profile, average_bits=4)
    old = dataclasses.replace(
        plan,
        products=(),
        layers=tuple(
            dataclasses.replace(layer, quantizer=None, activation_range=(-1.0, 2.0)) for layer in plan.layers
        ),
    ).to_json()
    old["schema"] = "lampq.plan/1"
    del old["products"]
    (tmp_path / "old.json").write_text(json.dumps(old))
    read = lampq.Plan.read(tmp_path / "old.json")
    assert read.products == () and read.layers[0].activation_range == (-1.0, 2.0)


def test_a_sweep_tells_the_widths_of_layers_and_of_factors(profile, tmp_path):
    points = lampq.sweep(profile, mode="kl")
    assert {len(point.widths) for point in points} == {len(profile.places)}
    write_csv(profile, points, tmp_path / "curve.csv")
    names, *rows = csv.reader((tmp_path / "curve.csv").read_text().splitlines())
    assert names[-len(profile.places) :] == [place.name for place in profile.places]
    assert {len(row) for row in rows} == {len(names)}


@pytest.mark.parametrize("mode", ["kl", "superposition"])
def test_a_report_shows_products_and_the_curve_around_them(profile, tmp_path, mode):
    plan = lampq.plan(profile, average_bits=4, mode=mode)
    page = lampq.report(plan, tmp_path / "report.html", profile=profile).read_text()
    for decision in plan.products:
        row = f"<b>{decision.left.bits}</b> {decision.left.tag}<td><b>{decision.right.bits}</b> {decision.right.tag}"
        assert row in page
    assert (
        f"{len(plan.layers)} layers and the {len(plan.products)} products behind them" in page or mode == "kl"
    )
    assert 'id="explorer"' in page
    alone = lampq.report(plan, tmp_path / "alone.html").read_text()
    assert "Products of activations" in alone and 'id="explorer"' not in alone


def test_a_report_and_why_refuse_a_profile_of_other_sites(profile, tmp_path):
    plan = lampq.plan(profile, average_bits=4, mode="kl")
    layers_alone = profile.part(range(len(profile.layers)))
    with pytest.raises(lampq.PlanError, match="the profile has no product transformer"):
        lampq.report(plan, tmp_path / "report.html", profile=layers_alone)
    without = dataclasses.replace(plan, products=())
    with pytest.raises(lampq.PlanError, match="the plan has no product transformer"):
        lampq.why(without, profile)
    wide = dataclasses.replace(plan.products[0], left=Fitted(tag="token", bits=7))
    strange = dataclasses.replace(plan, products=(wide, *plan.products[1:]))
    with pytest.raises(lampq.PlanError, match="no factors of 7 bits and"):
        lampq.why(strange, profile)


def test_inspect_and_why_list_products(profile, tmp_path):
    plan = lampq.plan(profile, average_bits=4, mode="kl")
    plan.write(tmp_path / "p.json")
    profile.write(tmp_path / "profile.json")
    listing = lampq.inspect(tmp_path / "p.json").to_json()
    first = plan.products[0]
    assert listing["products"][0]["left factor"] == f"{first.left.bits} bits {first.left.tag}"
    assert listing["layers"][0]["rounded by"] == plan.layers[0].quantizer.tag
    measured = lampq.inspect(tmp_path / "profile.json").to_json()["products"]
    assert [row["product"] for row in measured] == [product.name for product in profile.products]
    assert measured[0]["KL at w4a4"] == pytest.approx(profile.kl[len(profile.layers), 4])
    told = [row["name"] for row in lampq.why(plan, profile).to_json()["layers"]]
    assert {product.name for product in profile.products} <= set(told)
    assert first.name in [row["name"] for row in lampq.why(plan).to_json()["layers"]]


def test_the_table_of_a_plan_shows_factors(profile, capsys):
    render.plan(lampq.plan(profile, average_bits=4, mode="kl"))
    shown = capsys.readouterr().err
    assert "products of activations" in shown and "rounded by" in shown and "@context" in shown


class Dead(nn.Module):
    """Attention whose queries are all zero, whose probabilities are all the same, and a layer that nothing reaches."""

    def __init__(self):
        super().__init__()
        self.embed, self.q, self.v = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.zero, self.head = nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x):
        y = self.embed(x)
        v = self.v(y)
        nothing = torch.relu(v - 1e6)
        alike = torch.softmax((self.q(y) * 0) @ v.mT, -1)
        return self.head((alike @ v + self.zero(nothing)).mean(1))


def test_constant_and_all_zero_sites_are_rounded_and_cost_nothing(tmp_path):
    model = read(seeded(Dead), input_shape=(5, 8))
    batch = np.random.default_rng(0).normal(size=(16, 5, 8)).astype(np.float32)
    choices = {"bits": (2, 4), "act_bits": (2, 4), "sites": "all", "fisher_draws": 0, "rounds": 0}
    plan = lampq.quantize(
        model, batch, tmp_path / "q.safetensors", average_bits=3, average_input_bits=3, **choices
    )
    widths = {place.name: place.widths for place in plan.places}
    assert widths["zero"] == (2, 2) and widths["@scores"] == (2, 2)
    assert 0 <= plan.measured_kl < 0.1
    judged = lampq.evaluate(model, batch, plan=plan, calibration=batch).kl
    written = read(seeded(Dead), weights=tmp_path / "q.safetensors", input_shape=(5, 8))
    assert lampq.evaluate(written, batch, reference=model).kl == pytest.approx(judged, rel=1e-3)


def test_activations_without_data_are_refused(model_and_batch):
    model, _ = model_and_batch
    with pytest.raises(
        lampq.RecordError, match="activation widths need calibrated ranges; profile the model with"
    ):
        lampq.profile(model, None, bits=(4,), act_bits=(4,), sites="all")
