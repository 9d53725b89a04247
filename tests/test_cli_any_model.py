"""The command line on a model of several inputs and outputs: flags, and bad input as one line."""

import json

import numpy as np
import onnx
import pytest
from command_line import run
from two_inputs_model import TwoInputsModel, samples

import lampq
from lampq.adapters import MODEL_FORMATS, ModelFormat, register
from lampq.cli import main
from lampq.demo_data import CALIBRATION_PATH, MODEL_PATH

MODEL, CALIB = str(MODEL_PATH), str(CALIBRATION_PATH)
PIXELS = ["--mean", "0.305", "--std", "0.376"]


@pytest.fixture
def model(monkeypatch, tmp_path):
    """The name of a file that reads as the model of two inputs, data for it beside."""
    options = []

    def read(path, **given):
        options.append(given)
        return TwoInputsModel()

    monkeypatch.setattr(MODEL_FORMATS, "_added", {})
    register(ModelFormat(name="numpy", endings=(".numpy",), read=read))
    monkeypatch.chdir(tmp_path)
    batch = samples()
    np.savez("both.npz", pixels=batch["pixels"], text=batch["text"])
    np.savez("pixels.npz", x=batch["pixels"])
    np.save("text.npy", batch["text"][0])
    (tmp_path / "model.numpy").write_text("weights")
    read.options = options
    return read


PROFILE = ["profile", "model.numpy", "--bits", "2,4,8", "--fisher-draws", "0", "-o", "p.json", "--quiet"]


def test_profiles_by_roles_and_layers_that_flags_name(model, capfd):
    flags = ["--output", "pred_boxes=values:0.5", "--output", "text_embeds=ignore", "--keep", "head"]
    assert run(capfd, *PROFILE, "--data", "both.npz", *flags) == (0, "p.json\n", "")
    profile = lampq.Profile.read("p.json")
    assert profile.provenance["outputs"] == {"logits": "classes", "pred_boxes": "values:0.5"}
    assert [layer.name for layer in profile.kept] == ["head"]
    _, out, _ = run(capfd, "inspect", "p.json", "--json")
    assert [head["name"] for head in json.loads(out)["heads"]] == ["logits", "pred_boxes"]


def test_an_input_is_fixed_to_what_a_file_or_numbers_say(model, capfd):
    for value in ("text.npy", "1,2,3,4", "0.5"):
        words = [*PROFILE, "--data", "pixels.npz", "--input", f"text={value}", "--force"]
        assert run(capfd, *words)[0] == 0
    assert lampq.Profile.read("p.json").provenance["data"]["constants"] == {"text": [0.5] * 4}


def test_requantize_is_passed_on_only_when_asked_for(model, capfd):
    run(capfd, *PROFILE, "--no-data")
    run(capfd, *PROFILE, "--no-data", "--requantize", "--force")
    assert [given.get("requantize") for given in model.options] == [None, True]


def test_eval_and_inspect_show_every_output(model, capfd):
    words = ["eval", "model.numpy", "--data", "both.npz", "--reference", "model.numpy"]
    code, out, err = run(capfd, *words, "--output", "logits=ignore")
    assert code == 0
    assert "head name=pred_boxes role=values kl=0.0 cosine=" in out
    assert "text_embeds" in err
    code, out, err = run(capfd, "inspect", "model.numpy", "--output", "text_embeds=values")
    assert (code, out) == (0, "")
    assert "text float32" in err
    assert "as asked for" in err
    assert "coordinates or sizes by name" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "pixels.npz"], "holds x but no pixels, text; the model's inputs are pixels float32"),
        (
            ["--data", "both.npz", "--input", "text=1"],
            "no input is called text; the model's inputs are pixels",
        ),
        (["--data", "both.npz", "--input", "text"], "not of the form NAME=VALUE"),
        (["--data", "pixels.npz", "--input", "size=1"], "no input is called size"),
        (["--data", "pixels.npz", "--input", "text=1,2"], "cannot be fixed to an array of shape (2,)"),
        (["--data", "pixels.npz", "--input", "text=none.npy"], "none.npy cannot be read"),
        (["--data", "both.npz", "--output", "logits"], "not of the form NAME=ROLE[:WEIGHT]"),
        (["--data", "both.npz", "--output", "logits=boxes"], "role 'boxes' is none of"),
        (["--data", "both.npz", "--output", "logits=classes:0"], "weight 0.0 is not above 0"),
        (["--data", "both.npz", "--output", "boxes=values"], "has no output 'boxes'; it has logits"),
        (["--data", "both.npz", "--output", "count=values"], "holds int64"),
        (["--data", "both.npz", "--keep", "tail"], "pattern 'tail' matches no layer"),
        (["--data", "both.npz", "--only", "head", "--keep", "head"], "all 5 layers are kept float"),
        (["--data", "both.npz", "--size", "224x224"], "the size of images is --image-size 224x224"),
        (["--data", "both.npz", "--fisher", "empirical", "--fisher-draws", "1"], "needs labelled data"),
    ],
)
def test_bad_requests_are_one_line(model, capfd, words, message):
    code, out, err = run(capfd, *PROFILE, *words)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err


def test_a_size_of_images_is_no_budget(capfd):
    with pytest.raises(SystemExit):
        main(["plan", "p.json", "--size", "224x224", "-o", "plan.json"])
    assert "the size of images is --image-size 224x224" in capfd.readouterr().err


def test_a_layer_that_is_kept_stays_float_in_the_written_file(tmp_path, capfd):
    out = tmp_path / "q.onnx"
    code, _, err = run(
        capfd, "quantize", MODEL, "--data", CALIB, "--samples", "32", "--bits", "2-4", *PIXELS, "--avg-bits", "3",
        "--rounds", "0", "--fisher-draws", "0", "--keep", "head", "--quiet", "-o", out,
        "--plan-out", tmp_path / "p.json",
    )  # fmt: skip
    assert (code, err) == (0, "")
    plan = lampq.Plan.read(tmp_path / "p.json")
    (kept,) = plan.kept
    floats = [
        tensor
        for tensor in onnx.load(out).graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and np.prod(tensor.dims) == kept.size
    ]
    assert len(floats) == 1
    assert out.stat().st_size <= plan.total_bytes
    code, stdout, _ = run(
        capfd, "apply", MODEL, tmp_path / "p.json", "--rounding", "nearest", "-o", tmp_path / "again.onnx"
    )
    assert (code, stdout.strip()) == (0, str(tmp_path / "again.onnx"))
