"""What `quantize` and `apply` write, and what they refuse before any work is done."""

import json

import numpy as np
import pytest
from torch import nn

import lampq
from lampq.adapters.torch import read as read_torch
from lampq.cli import main
from lampq.conversions.quantized import is_rounded
from lampq.core.planning.best import beside
from lampq.core.values.fingerprint import Fingerprint
from lampq.core.values.plan import Neighbour, Plan
from lampq.core.values.profile import Profile
from lampq.demo_data import CALIBRATION_PATH, MODEL_PATH

DATA = ["--data", str(CALIBRATION_PATH), "--samples", "32", "--mean", "0.305", "--std", "0.376"]
FAST = ["--bits", "2,3,4", "--fisher-draws", "0", "--rounds", "1", "--quiet"]


def run(capfd, *words):
    code = main([str(word) for word in words])
    out, err = capfd.readouterr()
    return code, out.strip(), err.strip()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with what one run of `quantize` writes."""
    folder = tmp_path_factory.mktemp("made")
    files = ["-o", folder / "q.onnx", "--plan-out", folder / "q.json", "--profile-out", folder / "p.json"]
    # Measured so, the plan is one that correcting layers makes better.
    words = ["quantize", MODEL_PATH, *DATA, *FAST, "--measure", "differences", "--avg-bits", "3", *files]
    assert main([str(word) for word in words]) == 0
    return folder


def test_quantize_writes_the_profile_that_its_plan_was_made_from(made, tmp_path, capfd):
    profile, plan = Profile.read(made / "p.json"), Plan.read(made / "q.json")
    assert (profile.samples, profile.rounding, plan.rounding) == (32, "inputs", "corrected")
    assert [layer.name for layer in profile.layers] == [layer.name for layer in plan.layers]
    assert (
        run(capfd, "report", made / "q.json", "--profile", made / "p.json", "-o", tmp_path / "r.html")[0] == 0
    )
    code, said, _ = run(capfd, "inspect", made / "q.json", "--why", "--profile", made / "p.json", "--json")
    assert code == 0
    assert all(np.isfinite(row["damage"]) for row in json.loads(said)["layers"])


def test_neighbours_of_a_measured_plan_compare_with_it(made):
    plan = Plan.read(made / "q.json")
    if plan.cheaper is not None:
        assert plan.cheaper.average_bits < plan.average_bits
        assert plan.cheaper.predicted_kl >= plan.predicted_kl
    if plan.dearer is not None:
        assert plan.dearer.total_bytes > plan.total_bytes
        assert 0 < plan.dearer.predicted_kl < plan.predicted_kl


def test_neighbours_that_measuring_has_refuted_are_left_out(made):
    plan, size = Plan.read(made / "q.json"), Plan.read(made / "q.json").total_bytes

    def near(more_bytes, damage):
        return Neighbour(
            total_bytes=size + more_bytes, average_bits=3.0, predicted_kl=damage * plan.predicted_kl
        )

    found = beside(plan, near(-100, 3.0), near(100, 1.0), scale=0.5)
    assert found.cheaper.predicted_kl == pytest.approx(1.5 * plan.predicted_kl)
    assert found.dearer.predicted_kl == pytest.approx(0.5 * plan.predicted_kl)
    found = beside(plan, near(-100, 1.9), near(-100, 1.9), scale=0.5)
    assert (found.cheaper, found.dearer) == (None, None)


def test_a_plan_of_quantize_writes_the_same_file_again(made, tmp_path, capfd):
    again = tmp_path / "again.onnx"
    assert run(capfd, "apply", MODEL_PATH, made / "q.json", *DATA, "--quiet", "-o", again)[0] == 0
    assert again.read_bytes() == (made / "q.onnx").read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-o", "q.tflite"], "this model is written as .onnx"),
        (["-o", "q"], "this model is written as .onnx"),
        (["-o", "q.onnx", "--block", "32", "--act-bits", "8"], "leave out --block or --act-bits"),
        (["-o", "q.onnx", "--profile-out", "no/p.json"], "the folder no does not exist"),
        (["-o", "q.onnx", "--latency", "no.csv"], "latency table no.csv: no such file"),
    ],
)
def test_what_cannot_be_written_is_refused_before_measuring(words, message, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lampq.verbs.quantize.make_profile", None)
    code, out, err = run(capfd, "quantize", MODEL_PATH, *DATA, *FAST, "--avg-bits", "3", *words)
    assert (code, out) == (2, "")
    assert message in err
    assert "\n" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_model_is_never_written_over_itself(made, tmp_path, capfd):
    model = tmp_path / "model.onnx"
    model.write_bytes(MODEL_PATH.read_bytes())
    words = ["apply", model, made / "q.json", *DATA, "-o", model, "--force"]
    code, _, err = run(capfd, *words)
    assert (code, model.read_bytes()) == (2, MODEL_PATH.read_bytes())
    assert "is what is read" in err


def test_a_profile_that_stays_in_the_way_is_kept(made, tmp_path, capfd):
    files = ["-o", tmp_path / "q.onnx", "--profile-out", made / "p.json"]
    code, _, err = run(capfd, "quantize", MODEL_PATH, *DATA, *FAST, "--avg-bits", "3", *files)
    assert code == 2
    assert "p.json exists" in err
    assert list(tmp_path.iterdir()) == []


def test_bounds_are_not_negative(made):
    plan = lampq.plan(Profile.read(made / "p.json"), average_bits=8)
    assert plan.bound >= 0


def test_two_bits_from_minus_two_to_one_are_recognized_as_rounded():
    weight = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32)
    # More goes to the lower level than to the upper one, as in files whose codes run from -2 to 1.
    codes = np.clip(np.floor(weight / 0.9 + 0.3), -2, 1)
    origin, rounded = Fingerprint.from_array(weight), Fingerprint.from_array((0.9 * codes).astype(np.float32))
    assert abs(rounded.total - origin.total) > 0.1 * weight.size**0.5
    assert is_rounded(rounded, origin, 2)
    assert not is_rounded(rounded, Fingerprint.from_array(weight + 1), 2)


def test_a_file_of_quantized_weights_alone_can_be_inspected(made, capfd):
    code, said, _ = run(capfd, "inspect", made / "q.onnx", "--json")
    plan, found = Plan.read(made / "q.json"), json.loads(said)
    assert (code, found["what"]) == (0, "quantized model")
    assert {row["name"]: row["weight bits"] for row in found["layers"]} == {
        layer.name: layer.weight_bits for layer in plan.layers
    }


def test_one_profile_is_not_merged_with_itself(made, tmp_path, capfd):
    code, _, err = run(capfd, "merge", made / "p.json", made / "p.json", "-o", tmp_path / "m.json")
    assert code == 2
    assert "measured on the same samples" in err


def test_reasons_say_when_the_profile_rounds_otherwise(made, tmp_path, capfd):
    nearest = tmp_path / "nearest.json"
    words = ["profile", MODEL_PATH, *DATA, "--bits", "2,3,4", "--fisher-draws", "0", "--quiet", "-o", nearest]
    assert run(capfd, *words)[0] == 0
    for profile, told in ((nearest, True), (made / "p.json", False)):
        said = run(capfd, "inspect", made / "q.json", "--why", "--profile", profile, "--json")[1]
        assert (json.loads(said)["note"] is not None) == told


@pytest.mark.parametrize("flag", ["--batch", "--calib-samples"])
def test_counts_start_at_one(flag, capfd):
    with pytest.raises(SystemExit) as left:
        main(["eval", str(MODEL_PATH), *DATA, flag, "0"])
    assert left.value.code == 2
    assert f"argument {flag}: 0 samples: use at least 1" in capfd.readouterr().err


@pytest.mark.parametrize(("verb", "name"), [("plan", "p.json"), ("sweep", "p.json"), ("report", "q.json")])
def test_what_is_read_is_never_replaced(verb, name, made, capfd):
    before = (made / name).read_bytes()
    budget = ["--avg-bits", "3"] if verb == "plan" else []
    code, _, err = run(capfd, verb, made / name, *budget, "-o", made / name, "--force")
    assert (code, (made / name).read_bytes()) == (2, before)
    assert "is what is read" in err


def test_a_module_in_memory_is_quantized_written_and_left_as_it_was(tmp_path):
    module = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
    before = module[0].weight.detach().clone()
    x = np.random.default_rng(0).normal(size=(12, 16)).astype(np.float32)
    model = read_torch(module, input_shape=(16,))
    plan = lampq.quantize(model, x, tmp_path / "q.safetensors", average_bits=4, bits=(4,), rounding="nearest")
    assert plan.measured_kl == pytest.approx(lampq.evaluate(model, x, plan=plan).kl, rel=1e-3)
    assert (module[0].weight == before).all()
