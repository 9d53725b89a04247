"""Scores that are not lampq's own: passed as records, announced by packages, made of tables of their own."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from plugins import install
from records import make_profile, pair_profile

import lampq
from lampq.cli import main
from lampq.core.allocating.scores import SCORES, score
from lampq.core.planning.asked import asked
from lampq.core.values.errors import BudgetError, RecordError
from lampq.core.values.merge import merge
from lampq.core.values.score import Score
from lampq.core.values.shard import Shard
from lampq.core.values.tables import TableKind
from lampq.demo_data import CALIBRATION_PATH, MODEL_PATH
from lampq.verbs.report import surroundings
from lampq.verbs.why import why

KIND = TableKind(axes=("layers", "options"), merge="mean", unit="nats", least=0)
SMALL = {"kinds": ("qkv", "fc1", "head"), "widths": (2, 4, 8)}
SOURCE = """
from lampq import Score

def costs(profile, recipe):
    return profile.tables["saliency"].array

SALIENCY = Score(name="saliency", costs=costs, needs=("saliency",))
"""
GROUP = "lampq.scores"


def costs(profile, recipe):
    return profile.tables["saliency"].array


SALIENCY = Score(name="saliency", costs=costs, needs=("saliency",))


def measured(seed=0, **choices):
    """A profile whose saliency is not in the order of its damage."""
    profile = make_profile(seed, **{**SMALL, **choices})
    table = profile.kl[::-1] * np.arange(1, 4)[:, None]
    return profile.with_table("saliency", table, KIND)


def announce(monkeypatch, folder, package="lampq-saliency", module="saliency_score", source=SOURCE):
    entries = {GROUP: {"saliency": f"{module}:SALIENCY"}}
    install(monkeypatch, folder, package, entries, {module: source})


def test_a_plan_by_a_record_minimizes_its_costs():
    profile = measured()
    plan = lampq.plan(profile, average_bits=5, mode=SALIENCY)
    table = profile.array("saliency")
    sizes = profile.sizes
    choices = [
        choice
        for choice in np.ndindex(3, 3, 3)
        if (sizes * profile.weight_bits[list(choice)]).sum() <= 5 * sizes.sum()
    ]
    best = min(table[range(3), choice].sum() for choice in choices)
    assert plan.mode == "saliency"
    assert plan.predicted_kl == pytest.approx(best)
    assert plan.widths != lampq.plan(profile, average_bits=5, mode="kl").widths


def test_the_record_stays_with_its_plan_until_it_is_written(tmp_path):
    profile = measured()
    plan = lampq.plan(profile, average_bits=4, mode=SALIENCY)
    assert asked(plan).mode is SALIENCY
    assert why(plan, profile).facts["mode"] == "saliency"
    assert surroundings(plan, profile).here.damage == pytest.approx(plan.predicted_kl)
    plan.write(tmp_path / "plan.json")
    read = lampq.Plan.read(tmp_path / "plan.json")
    assert read.to_json() == plan.to_json()
    # Nothing here knows the name, so what explains the plan takes the best score of the profile.
    assert (read.mode, read.request.mode, asked(read).mode) == ("saliency", "saliency", "auto")


def test_a_score_that_counts_something_else_predicts_no_damage():
    profile = measured()
    other = dataclasses.replace(SALIENCY, unit="share of saliency")
    plan = lampq.plan(profile, average_bits=4, mode=other)
    assert (plan.predicted_kl, plan.bound, plan.cheaper, plan.dearer) == (None, None, None, None)
    assert why(plan, profile).facts["share of saliency"] > 0
    assert surroundings(plan, profile).unit == "share of saliency"
    with pytest.raises(BudgetError, match="needs predictions in nats"):
        lampq.plan(profile, max_kl=0.1, mode=other)


def test_pins_notes_and_the_part_that_a_score_sees_are_its_own():
    profile = pair_profile()
    pinned = dataclasses.replace(
        score("kl"),
        name="pinned",
        default_pins=lambda profile: ("head=8",),
        view=lambda profile: profile.narrowed([0, 2, 4]),
        notes=lambda profile: (f"{profile.samples} samples",),
    )
    plan = lampq.plan(profile, average_bits=6, mode=pinned)
    assert plan.widths["blocks.3.head"] == 8
    assert {layer.activation_bits for layer in plan.layers} == {4}
    assert f"{profile.samples} samples" in plan.notes


@pytest.mark.parametrize("mode", [SALIENCY, dataclasses.replace(SALIENCY, improved_by="around")])
def test_a_score_without_its_table_says_what_to_measure(mode):
    with pytest.raises(RecordError, match=r"mode saliency needs the table saliency.*with_table") as caught:
        lampq.plan(make_profile(**SMALL), average_bits=4, mode=mode)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (lambda shape: np.zeros(shape[1]), r"shape \(3,\), expected \(3, 3\)"),
        (lambda shape: np.full(shape, -1.0), "score of layer blocks.0.qkv is not a finite damage"),
        (lambda shape: np.full(shape, np.nan), "score of layer blocks.0.qkv is not a finite damage"),
    ],
)
def test_costs_that_cannot_be_are_refused(table, message):
    profile = make_profile(**SMALL)
    wrong = Score(name="wrong", costs=lambda profile, recipe: table(profile.weight_error.shape))
    with pytest.raises(RecordError, match=message):
        lampq.plan(profile, average_bits=4, mode=wrong)


@pytest.mark.parametrize(
    "change", [{"name": "auto"}, {"name": "uniform"}, {"name": "two words"}, {"improved_by": "luck"}]
)
def test_scores_that_cannot_be_are_refused(change):
    with pytest.raises(RecordError):
        dataclasses.replace(SALIENCY, **change)


def test_a_score_of_a_package_is_found_by_its_name(monkeypatch, tmp_path, capsys):
    announce(monkeypatch, tmp_path)
    profile = measured()
    assert "saliency" in SCORES.names()
    # Listing names imports nothing.
    assert "saliency_score" not in sys.modules
    by_name = lampq.plan(profile, average_bits=4, mode="saliency")
    assert by_name.widths == lampq.plan(profile, average_bits=4, mode=SALIENCY).widths
    profile.write(tmp_path / "profile.json")
    words = ["plan", tmp_path / "profile.json", "--avg-bits", "4", "--mode", "saliency", "--quiet"]
    assert main([str(word) for word in [*words, "-o", tmp_path / "plan.json"]]) == 0
    read = lampq.Plan.read(tmp_path / "plan.json")
    assert read.widths == by_name.widths
    assert asked(read).mode == "saliency"


def test_a_name_of_no_score_lists_all(monkeypatch, tmp_path, capsys):
    announce(monkeypatch, tmp_path)
    message = "mode 'magic' is none of superposition, lampq, fisher, kl, error, relevance, mixed, saliency"
    with pytest.raises(RecordError, match=message):
        lampq.plan(measured(), average_bits=4, mode="magic")
    with pytest.raises(SystemExit):
        main(["plan", "profile.json", "--mode", "magic", "-o", "plan.json"])
    assert message in capsys.readouterr().err


def test_a_package_that_fails_to_import_is_named_and_the_others_work(monkeypatch, tmp_path):
    announce(monkeypatch, tmp_path)
    broken = {GROUP: {"broken": "broken_score:BROKEN"}}
    install(monkeypatch, tmp_path, "lampq-broken", broken, {"broken_score": "import not_there"})
    profile = measured()
    assert lampq.plan(profile, average_bits=4, mode="saliency").mode == "saliency"
    assert lampq.plan(profile, average_bits=4, mode="kl").mode == "kl"
    with pytest.raises(
        RecordError, match=r"'broken' of lampq-broken 1\.0 cannot be loaded.*not_there"
    ) as caught:
        lampq.plan(profile, average_bits=4, mode="broken")
    assert "\n" not in str(caught.value)
    records, failures = SCORES.announced()
    assert [record.name for record in records] == ["saliency"]
    assert len(failures) == 1 and "lampq-broken" in failures[0]


def test_two_packages_with_one_name_are_refused_where_it_is_asked(monkeypatch, tmp_path):
    announce(monkeypatch, tmp_path)
    announce(monkeypatch, tmp_path, package="another-saliency", module="another_score")
    with pytest.raises(RecordError, match=r"announced by .*another-saliency 1\.0.* uninstall all but one"):
        lampq.plan(measured(), average_bits=4, mode="saliency")
    assert lampq.plan(measured(), average_bits=4, mode="kl").mode == "kl"


def test_names_of_lampq_cannot_be_taken_over(monkeypatch, tmp_path):
    entries = {GROUP: {"kl": "stolen_score:KL"}}
    install(monkeypatch, tmp_path, "lampq-stolen", entries, {"stolen_score": "raise RuntimeError"})
    assert score("kl") is SCORES.get("kl")
    assert SCORES.names().count("kl") == 1
    with pytest.raises(RecordError, match="'kl' is one of lampq; choose another name"):
        SCORES.add(dataclasses.replace(SALIENCY, name="kl"))


@pytest.mark.parametrize("source", ["SALIENCY = 3", SOURCE.replace('name="saliency"', 'name="irsaliency"')])
def test_what_is_announced_must_be_a_score_of_that_name(monkeypatch, tmp_path, source):
    announce(monkeypatch, tmp_path, source=source)
    with pytest.raises(RecordError, match="saliency_score:SALIENCY is no Score of this name"):
        score("saliency")


def test_importing_and_planning_ask_no_package():
    code = (
        "import importlib.metadata as m; m.entry_points = None\n"
        "import sys; sys.path.insert(0, 'tests'); import lampq; from records import make_profile\n"
        "lampq.plan(make_profile(), average_bits=4, mode='kl')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_table_of_ones_own_is_written_and_read(tmp_path):
    profile = measured()
    profile.write(tmp_path / "profile.json")
    read = lampq.Profile.read(tmp_path / "profile.json")
    np.testing.assert_array_equal(read.array("saliency"), profile.array("saliency"))
    assert read.tables["saliency"].kind == KIND
    assert read.narrowed([0, 2]).array("saliency").shape == (3, 2)
    assert read.part([1]).array("saliency").shape == (1, 3)


def test_tables_of_ones_own_merge_as_their_kind_says(tmp_path):
    shards = [
        dataclasses.replace(measured(), samples=6, shard=Shard(index=index, count=2)) for index in (1, 2)
    ]
    shards[1] = shards[1].with_table("saliency", shards[1].array("saliency") * 3, KIND)
    shards[0].write(tmp_path / "first.json")
    shards[0] = lampq.Profile.read(tmp_path / "first.json")
    both = merge(shards)
    np.testing.assert_allclose(both.array("saliency"), shards[0].array("saliency") * 2)
    with pytest.raises(RecordError, match="only some have saliency"):
        merge([shards[0], dataclasses.replace(make_profile(**SMALL), shard=Shard(index=2, count=2))])


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("kl", np.zeros((3, 3)), "'kl' is measured by lampq"),
        ("file", np.zeros((3, 3)), "none of file, allow_pickle"),
        ("../x", np.zeros((3, 3)), "a name begins with a letter"),
        ("saliency", np.zeros((3, 2)), r"saliency has shape \(3, 2\), expected \(3, 3\)"),
        ("saliency", np.full((3, 3), -1), "saliency is negative at layer blocks.0.qkv"),
    ],
)
def test_tables_that_cannot_be_are_refused(name, array, message):
    with pytest.raises(RecordError, match=message):
        make_profile(**SMALL).with_table(name, array, dataclasses.replace(KIND, unit="saliency"))


QUICK = {"bits": (2, 4), "fisher_draws": 0}


def refuse_progress(*_):
    raise AssertionError("measured")


def measure(model, profile, inputs):
    """A table that says how many samples there were."""
    table = np.full(profile.weight_error.shape, float(inputs.samples))
    return profile.with_table("saliency", table / profile.weight_bits, KIND)


@pytest.fixture(scope="module")
def demo():
    model = lampq.read(MODEL_PATH)
    return model, lampq.read_data(CALIBRATION_PATH, input_specs=model.input_specs, samples=12).inputs()


def test_what_a_score_measures_itself_is_in_the_profile(demo):
    model, images = demo
    own = dataclasses.replace(SALIENCY, measure=measure)
    profile = lampq.profile(model, images, scores=own, **QUICK)
    layers = len(profile.layers)
    np.testing.assert_array_equal(profile.array("saliency"), np.full((layers, 2), 12.0) / [2, 4])
    parts = [
        lampq.profile(model, images, scores=[own], **QUICK, shard=Shard(index=index, count=2))
        for index in (1, 2)
    ]
    np.testing.assert_array_equal(merge(parts).array("saliency"), np.full((layers, 2), 6.0) / [2, 4])
    assert "saliency" not in lampq.profile(model, images, **QUICK).tables


def test_a_score_that_is_measured_needs_data_and_gives_a_profile_back(demo):
    model, images = demo
    own = dataclasses.replace(SALIENCY, measure=measure)
    with pytest.raises(RecordError, match="mode saliency is measured on data; profile the model with --data"):
        lampq.profile(model, scores=[own])
    with pytest.raises(RecordError, match="`measure` gave NoneType"):
        lampq.profile(model, images, scores=[dataclasses.replace(own, measure=lambda *_: None)], **QUICK)
    with pytest.raises(RecordError, match="profile the model with data and --score saliency"):
        lampq.plan(lampq.profile(model, images, **QUICK), average_bits=4, mode=own)
    with pytest.raises(RecordError, match="'magic' is none of superposition"):
        lampq.profile(model, images, scores=["magic"])


def test_quantizing_by_a_score_measures_its_tables_or_refuses_before_measuring(demo, tmp_path):
    model, images = demo
    own = dataclasses.replace(SALIENCY, measure=measure)
    asked_for = {"average_bits": 4, "bits": (2, 4, 8), "rounding": "nearest", "fisher_draws": 0}
    plan = lampq.quantize(model, images, tmp_path / "q.onnx", mode=own, **asked_for)
    assert plan.mode == "saliency"
    assert plan.measured_kl > 0
    with pytest.raises(RecordError, match="needs the table saliency, which quantizing does not measure"):
        lampq.quantize(
            model, images, tmp_path / "r.onnx", mode=SALIENCY, progress=refuse_progress, **asked_for
        )


def test_the_command_line_measures_and_plans_by_an_announced_score(monkeypatch, tmp_path):
    example = Path(__file__).parent.parent / "examples/custom_score.py"
    entries = {GROUP: {"output-error": "own_output_error:OUTPUT_ERROR"}}
    install(monkeypatch, tmp_path, "lampq-own", entries, {"own_output_error": example.read_text()})
    profile, plan = (str(tmp_path / name) for name in ("profile.json", "plan.json"))
    data = ["--data", str(CALIBRATION_PATH), "--samples", "16", "--fisher-draws", "0", "--bits", "2,4,8"]
    words = ["profile", str(MODEL_PATH), *data, "--score", "output-error", "--quiet", "-o", profile]
    assert main(words) == 0
    assert main(["plan", profile, "--avg-bits", "4", "--mode", "output-error", "--quiet", "-o", plan]) == 0
    assert lampq.Plan.read(plan).mode == "output-error"
