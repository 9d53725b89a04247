"""Plans and profiles that commit 4f2c9ed wrote, the last with version 1 of both files: they serve for good."""

import json
import re

import golden_cases
import numpy as np
import pytest
from golden_cases import CASES, GOLDEN, damage, digest, inputs

import lampq
from lampq.cli import main
from lampq.core.values.errors import PlanError
from lampq.core.values.plan import Plan
from lampq.core.values.profile import Profile

WRITTEN = json.loads((GOLDEN / "written.json").read_text())
# Rounding to inputs works another way since, and the search of a scale tries fewer clip points (`quantizer._COARSE`).
# How far the outputs move differs by luck on eight samples.
MOVED = {"onnx-rounded", "torch-int8"}


def plan_of(name):
    return Plan.read(GOLDEN / f"{name}.plan.json")


def profile_of(name):
    return Profile.read(GOLDEN / f"{name}.profile.json")


def written(name, folder, out):
    build, suffix, *_ = CASES[name]
    model = build(folder)
    lampq.apply(model, plan_of(name), folder / f"{out}{suffix}", batch=inputs(model))
    return model, folder / f"{out}{suffix}"


@pytest.mark.parametrize("name", sorted(set(CASES) - MOVED))
def test_an_old_plan_writes_the_same_codes_and_scales(name, tmp_path):
    _, path = written(name, tmp_path, "out")
    assert digest(path) == WRITTEN[name]["payload"]


@pytest.mark.parametrize("name", sorted(MOVED))
def test_where_codes_are_chosen_another_way_an_old_plan_costs_as_little(name, tmp_path):
    model, path = written(name, tmp_path, "out")
    assert damage(model, path, inputs(model)) <= 1.2 * WRITTEN[name]["damage"]


@pytest.mark.parametrize("name", CASES)
def test_a_plan_writes_the_same_bytes_every_time(name, tmp_path):
    _, one = written(name, tmp_path, "one")
    for _ in range(3):
        _, other = written(name, tmp_path, "other")
        assert one.read_bytes() == other.read_bytes()
        other.unlink()


@pytest.mark.parametrize("name", CASES)
def test_an_old_profile_makes_the_same_plan(name):
    old, average_bits = plan_of(name), CASES[name][-1]
    new = lampq.plan(profile_of(name), average_bits=average_bits)
    widths = [[(layer.weight_bits, layer.activation_bits) for layer in plan.layers] for plan in (old, new)]
    assert widths[0] == widths[1]
    assert new.predicted_kl == pytest.approx(old.predicted_kl, rel=1e-9)
    assert (new.total_bytes, new.container, new.block) == (old.total_bytes, old.container, old.block)


@pytest.mark.parametrize("name", CASES)
def test_old_files_survive_being_written_anew(name, tmp_path):
    profile_of(name).write(tmp_path / "profile.json")
    again, old = Profile.read(tmp_path / "profile.json"), profile_of(name)
    assert set(again.tables) == set(old.tables)
    assert all(np.array_equal(again.tables[key].array, table.array) for key, table in old.tables.items())
    plan_of(name).write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == plan_of(name)


def changed(tmp_path, kind, **fields):
    """A golden file with some fields changed."""
    data = json.loads((GOLDEN / f"torch-pairs.{kind}.json").read_text())
    for arrays in GOLDEN.glob("torch-pairs.*.npz"):
        (tmp_path / arrays.name).write_bytes(arrays.read_bytes())
    path = tmp_path / f"torch-pairs.{kind}.json"
    path.write_text(json.dumps(data | fields))
    return path


def test_unknown_fields_of_old_files_are_passed_over(tmp_path):
    data = json.loads((GOLDEN / "torch-pairs.plan.json").read_text())
    layers = [layer | {"mood": "good"} for layer in data["layers"]]
    assert Plan.read(changed(tmp_path, "plan", weather="fine", layers=layers)) == plan_of("torch-pairs")
    assert Profile.read(changed(tmp_path, "profile", weather="fine")).samples == 8


@pytest.mark.parametrize("kind", ["plan", "profile"])
@pytest.mark.parametrize("version", ["3", "10"])
def test_files_of_a_later_version_are_refused_in_one_line(kind, version, tmp_path, capfd):
    path = changed(tmp_path, kind, schema=f"lampq.{kind}/{version}")
    assert main(["inspect", str(path)]) == 2
    said = capfd.readouterr().err.strip()
    assert "\n" not in said
    assert re.search(rf"{kind}.*lampq\.{kind}/{version}.*a later lampq.*update", said), said


@pytest.mark.parametrize("schema", ["lampq.plan/0", "lampq.plan/x", "other/2", None, 2])
def test_what_is_no_version_is_refused_as_such(schema, tmp_path):
    with pytest.raises(PlanError, match=r"expected 'lampq\.plan/"):
        Plan.read(changed(tmp_path, "plan", schema=schema))


def test_the_cases_are_all_there():
    kinds = {path.name for path in GOLDEN.iterdir()} - {"written.json"}
    assert kinds == {
        f"{name}.{end}" for name in CASES for end in ("plan.json", "profile.json", "profile.npz")
    }
    assert set(WRITTEN) == set(golden_cases.CASES)
