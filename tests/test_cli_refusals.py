"""Every bad input on the command line: one line, exit code 2, and nothing left behind."""

import json
import shutil

import numpy as np
import onnx
import pytest
from command_line import CALIB, MODEL, VAL, run, work  # noqa: F401
from PIL import Image

from lampq.cli import main
from lampq.demo_data import MODEL_PATH


def bad_model(kind, folder):
    path = folder / "bad.onnx"
    if kind == "missing":
        return folder / "nowhere.onnx"
    if kind == "truncated":
        path.write_bytes(MODEL_PATH.read_bytes()[:5000])
    elif kind == "text":
        path.write_text("hello")
    elif kind == "zip":
        path.write_bytes(b"PK\x03\x04" + bytes(100))
    elif kind in ("nan", "no layers"):
        model = onnx.load(MODEL)
        for tensor in model.graph.initializer:
            array = onnx.numpy_helper.to_array(tensor).copy()
            if kind == "nan" and array.ndim == 2 and array.dtype == np.float32 and min(array.shape) > 10:
                array.flat[3] = np.nan
                tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
                break
        if kind == "no layers":
            x = onnx.helper.make_tensor_value_info("x", 1, [None, 4])
            y = onnx.helper.make_tensor_value_info("y", 1, [None, 4])
            model = onnx.helper.make_model(
                onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
            )
        onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [("missing", "no such file"), ("truncated", "bad.onnx"), ("text", "bad.onnx"), ("zip", "ZIP"), ("nan", "NaN"),
     ("no layers", "no layer")],
)  # fmt: skip
def test_bad_models(kind, message, tmp_path, capfd):
    path, out = bad_model(kind, tmp_path), tmp_path / "out.json"
    code, stdout, err = run(capfd, "profile", path, "--no-data", "-o", out)
    assert (code, stdout) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert [p for p in tmp_path.iterdir() if p.name != "bad.onnx"] == []


def test_a_model_without_layers_can_be_looked_at(tmp_path, capfd):
    code, stdout, _ = run(capfd, "inspect", bad_model("no layers", tmp_path), "--json")
    listing = json.loads(stdout)
    assert code == 0
    assert (listing["layers"], listing["quantizable weights"]) == ([], 0)


def corrupt_images(folder):
    folder.mkdir()
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    return folder


def wrong_arrays(path):
    np.savez(path, x=np.zeros((3, 1, 9, 9), dtype=np.float32))
    return path


def test_bad_requests_are_one_line_and_leave_nothing(work, tmp_path, capfd):
    out = tmp_path / "out.json"
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken.json").write_text("mine")
    other = tmp_path / "other.json"
    data = json.loads((work / "plan.json").read_text())
    for layer in data["layers"]:
        mark = layer["fingerprint"].split(":")
        layer["fingerprint"] = ":".join([mark[0], mark[1], *("1.0" for _ in mark[2:])])
    other.write_text(json.dumps(data))
    profile = work / "profile.json"
    cases = [
        (["plan", profile, "--avg-bits", "1.5", "-o", out], "floor of 2.0000"),
        (["plan", profile, "--size", "1kB", "-o", out], "floor of"),
        (["plan", profile, "-o", out], "no budget"),
        (["plan", profile, "--avg-bits", "3", "-o", tmp_path / "taken.json"], "--force"),
        (["plan", profile, "--avg-bits", "3", "-o", tmp_path / "no" / "p.json"], "does not exist"),
        (["plan", profile, "--avg-bits", "3", "--solver", "oracle", "-o", out], "oracle"),
        (["plan", profile, "--avg-bits", "3", "--pin", "head", "-o", out], "PATTERN=BITS"),
        (["plan", tmp_path / "none.json", "--avg-bits", "3", "-o", out], "no such file"),
        (["plan", work / "plan.json", "--avg-bits", "3", "-o", out], "this is a plan"),
        (["apply", MODEL, other, "-o", out], "another model"),
        (["apply", MODEL, profile, "-o", out], "this is a profile"),
        (["profile", MODEL, "--data", tmp_path / "nowhere", "-o", out], "nowhere"),
        (["profile", MODEL, "--data", tmp_path / "empty", "-o", out], "empty"),
        (["profile", MODEL, "--data", corrupt_images(tmp_path / "corrupt"), "-o", out], "a.png"),
        (["profile", MODEL, "--data", wrong_arrays(tmp_path / "wrong.npz"), "-o", out], "wrong.npz"),
        (["profile", MODEL, "--data", CALIB, "--preset", "mars", "-o", out], "mars"),
        (["profile", MODEL, "--data", CALIB, "--image-size", "9x9", "-o", out], "9"),
        (["profile", MODEL, "--no-data", "--kind", "x=wizard", "-o", out], "wizard"),
        (["profile", MODEL, "--no-data", "--act-bits", "8", "-o", out], "--data"),
        (["eval", MODEL, "--data", CALIB, "--reference", tmp_path / "none.onnx"], "no such file"),
        (["inspect", tmp_path / "none.onnx"], "no such file"),
    ]
    before = sorted(p.name for p in tmp_path.iterdir())
    for words, message in cases:
        code, stdout, err = run(capfd, *words)
        assert (code, stdout) == (2, ""), words
        assert message in err, (words, err)
        assert err.count("\n") == 1, err
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert (tmp_path / "taken.json").read_text() == "mine"


def blank_images(folder, classes):
    for label in range(classes):
        place = folder / f"{label:02}"
        place.mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(place / "a.png")
    return folder


def test_labels_beyond_the_models_classes_are_refused(tmp_path, capfd):
    code, _, err = run(capfd, "eval", MODEL, "--data", blank_images(tmp_path / "images", 12))
    assert code == 2
    assert "classes" in err


def test_fewer_classes_than_outputs_are_noted(tmp_path, capfd):
    """Labels are numbers of folders then, and need not be those of the model."""
    for classes, notes in ((3, ["3 classes for 10 outputs; class i counts as output i"]), (10, [])):
        data = blank_images(tmp_path / f"of {classes}", classes)
        code, stdout, err = run(capfd, "eval", MODEL, "--data", data, "--json", "--quiet")
        assert code == 0, err
        assert [note.partition(": ")[2] for note in json.loads(stdout)["notes"]] == notes


def test_data_beside_the_model_tells_the_preprocessing(work, tmp_path, capfd):
    shutil.copy(MODEL_PATH, tmp_path / "model.onnx")
    config = {"image_mean": [0.305], "image_std": [0.376], "do_resize": False, "do_normalize": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    code, stdout, _ = run(capfd, "eval", tmp_path / "model.onnx", "--data", VAL, "--json", "--quiet")
    assert code == 0
    assert json.loads(stdout)["top1"] == pytest.approx(0.966)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nope"], "lampq: error: no verb is called 'nope'; see `lampq --help`"),
        (["quantise"], "no verb is called 'quantise'; did you mean quantize? See `lampq --help`"),
        (["plan", "p.json", "-o", "o.json", "--nope"], "no flag is called --nope; see `lampq plan --help`"),
        (["plan", "p.json", "-o", "o.json", "--avg-bit=3", "--tied=x"], "--tied; did you mean --tie"),
        (["doctor", "now", "please"], "lampq doctor: error: these words are too many: now please; see"),
        (
            ["--verison"],
            "lampq: error: no flag is called --verison; did you mean --version? See `lampq --help`",
        ),
        (["quantize", "m.onnx", "-o", "q.onnx"], "the following arguments are required: --data"),
        (
            ["quantize", "m.onnx", "--data", "d", "--sites", "some", "-o", "q.onnx"],
            "argument --sites: invalid choice",
        ),
        (["profile", "m.onnx", "--workers", "0"], "argument --workers: 0 processes: use at least 1"),
        (["plan"], "the following arguments are required"),
    ],
)
def test_wrong_words_are_one_line(words, said, capfd):
    with pytest.raises(SystemExit) as left:
        main(words)
    err = capfd.readouterr().err
    assert left.value.code == 2
    assert said in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["plan", "MODEL"], "profile {}: this is no text, and so no profile"),
        (["apply", "PLAN", "MODEL"], "plan {}: this is no text, and so no plan"),
        (["report", "PROFILE"], "plan {}: this is a profile, and no plan; `lampq plan` makes one"),
        (["plan", "PLAN"], "profile {}: this is a plan, and no profile; `lampq profile` makes one"),
    ],
)
def test_files_of_another_kind_are_called_what_they_are(words, said, work, tmp_path, capfd):
    files = {"MODEL": MODEL, "PLAN": str(work / "plan.json"), "PROFILE": str(work / "profile.json")}
    words = [files.get(word, word) for word in words]
    code, _, err = run(
        capfd, *words, *(["--avg-bits", "3"] if words[0] == "plan" else []), "-o", tmp_path / "x"
    )
    assert code == 2 and said.format(words[-1]) in err


def test_synthetic_data_take_a_number(tmp_path, capfd, monkeypatch):
    # The tests have a module of that name.
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    words = [
        "quantize",
        str(MODEL_PATH),
        "--data",
        "synthetic:abc",
        "--avg-bits",
        "3",
        "-o",
        str(tmp_path / "q.onnx"),
    ]
    assert main(words) == 2
    assert capfd.readouterr().err.endswith("'abc' is no number of samples; write synthetic:256\n")
