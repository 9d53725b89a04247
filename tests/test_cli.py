"""The command line on the bundled model: every verb, and every bad input as one line with exit code 2."""

import csv
import json
import re
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

import lampq
from lampq.cli import main
from lampq.demo_data import CALIBRATION_PATH, MODEL_PATH, VALIDATION_PATH

MODEL, CALIB, VAL = str(MODEL_PATH), str(CALIBRATION_PATH), str(VALIDATION_PATH)
PIXELS = ["--mean", "0.305", "--std", "0.376"]


def run(capfd, *words):
    code = main([str(word) for word in words])
    out, err = capfd.readouterr()
    return code, out, err


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a profile and a plan of the bundled model."""
    folder = tmp_path_factory.mktemp("work")
    words = ["--samples", "64", "--bits", "2,3,4,8", *PIXELS, "--quiet", "-o", str(folder / "profile.json")]
    assert main(["profile", MODEL, "--data", CALIB, *words]) == 0
    assert (
        main(
            [
                "plan",
                str(folder / "profile.json"),
                "--avg-bits",
                "3",
                "--quiet",
                "-o",
                str(folder / "plan.json"),
            ]
        )
        == 0
    )
    return folder


def test_profile_plan_apply_eval(work, tmp_path, capfd):
    out = tmp_path / "q.onnx"
    code, stdout, _ = run(capfd, "apply", MODEL, work / "plan.json", "-o", out)
    assert (code, stdout.strip()) == (0, str(out))
    code, stdout, _ = run(capfd, "eval", out, "--data", VAL, "--reference", MODEL, *PIXELS, "--json")
    result = json.loads(stdout)
    assert code == 0
    assert result["top1"] > 0.94
    assert 0 < result["kl"] < 0.1
    assert result["size_bytes"] == out.stat().st_size


def test_the_written_payload_is_what_the_plan_says(work, tmp_path, capfd):
    out = tmp_path / "q.onnx"
    run(capfd, "apply", MODEL, work / "plan.json", "-o", out)
    plan = lampq.Plan.read(work / "plan.json")
    stored = sum(
        onnx.numpy_helper.to_array(tensor).nbytes
        for tensor in onnx.load(out).graph.initializer
        if re.search(r"\.([124]b\d|int8|scale)$", tensor.name)
    )
    assert stored == plan.payload_bytes
    assert plan.average_bits <= 3


def test_stock_onnxruntime_runs_the_file_as_the_plan_says(work, tmp_path, capfd):
    from lampq.core.measuring.measure import quantized_weights

    out = tmp_path / "q.onnx"
    run(capfd, "apply", MODEL, work / "plan.json", "-o", out)
    model = lampq.read(MODEL)
    inputs = np.random.default_rng(0).normal(size=(5, 1, 8, 8)).astype(np.float32)
    plan = lampq.Plan.read(work / "plan.json")
    expected = model.with_weights(quantized_weights(model, plan.widths)).run(inputs)
    session = onnxruntime.InferenceSession(out.read_bytes(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: inputs})
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_quantize_does_it_all_and_keeps_the_size_budget(tmp_path, capfd):
    out = tmp_path / "q.onnx"
    code, stdout, _ = run(
        capfd, "quantize", MODEL, "--data", CALIB, "--samples", "64", "--bits", "2-4", *PIXELS, "--size", "120kB",
        "--fisher-draws", "0", "--plan-out", tmp_path / "plan.json", "--json", "--quiet", "-o", out,
    )  # fmt: skip
    result = json.loads(stdout)
    assert code == 0
    assert out.stat().st_size <= 120_000
    assert result["measured_kl"] < 0.1
    assert json.loads((tmp_path / "plan.json").read_text())["layers"] == result["layers"]


def test_quantize_by_the_published_recipe(tmp_path, capfd):
    out = tmp_path / "q.onnx"
    code, stdout, err = run(
        capfd, "quantize", MODEL, "--data", CALIB, "--samples", "48", *PIXELS, "--avg-bits", "3", "--mode", "lampq",
        "--json", "--quiet", "-o", out,
    )  # fmt: skip
    assert (code, err) == (0, "")
    result = json.loads(stdout)
    assert result["average_bits"] <= 3
    assert {
        layer["weight_bits"] for layer in result["layers"] if layer["kind"] in ("patch_embed", "head")
    } == {8}
    assert [entry for entry in result["history"] if "raised" in entry]


def test_static_activations(tmp_path, capfd):
    out = tmp_path / "q.onnx"
    code, _, err = run(
        capfd, "quantize", MODEL, "--data", CALIB, "--samples", "64", "--bits", "4,8", *PIXELS, "--avg-bits", "5",
        "--act-bits", "8", "--fisher-draws", "0", "--quiet", "-o", out,
    )  # fmt: skip
    assert (code, err) == (0, "")
    kinds = [node.op_type for node in onnx.load(out).graph.node]
    assert kinds.count("QuantizeLinear") > 10
    code, stdout, _ = run(
        capfd, "eval", out, "--data", VAL, "--reference", MODEL, *PIXELS, "--json", "--quiet"
    )
    assert json.loads(stdout)["kl"] < 0.1


def test_sweep_writes_every_budget_and_a_picture(work, tmp_path, capfd):
    code, _, _ = run(
        capfd,
        "sweep",
        work / "profile.json",
        "-o",
        tmp_path / "p.csv",
        "--plot",
        tmp_path / "p.png",
        "--quiet",
    )
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert code == 0
    assert len(rows) > 50
    assert [float(row["predicted_kl"]) for row in rows] == sorted(
        (float(r["predicted_kl"]) for r in rows), reverse=True
    )
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.size[0] > 500


@pytest.mark.parametrize("name", ["profile.json", "plan.json"])
def test_inspect_files(work, name, capfd):
    code, stdout, err = run(capfd, "inspect", work / name, "--json")
    assert (code, err) == (0, "")
    assert len(json.loads(stdout)["layers"]) == 26


def test_inspect_shows_models_as_tables(work, tmp_path, capfd):
    code, stdout, err = run(capfd, "inspect", MODEL)
    assert (code, stdout) == (0, "")
    assert "blocks.0" in err
    run(capfd, "apply", MODEL, work / "plan.json", "-o", tmp_path / "q.onnx")
    code, stdout, _ = run(capfd, "inspect", tmp_path / "q.onnx", "--json")
    assert (code, json.loads(stdout)["what"]) == (0, "quantized model")


def test_inspect_reads_the_checkpoint_of_a_factory(tmp_path, capfd):
    (tmp_path / "m.py").write_text(
        "import torch\ndef build():\n    return torch.nn.Sequential(torch.nn.Linear(48, 48), torch.nn.Linear(48, 40))\n"
    )
    torch.manual_seed(0)
    state = torch.nn.Sequential(torch.nn.Linear(48, 48), torch.nn.Linear(48, 40)).state_dict()
    state["0.weight"] *= 100
    torch.save(state, tmp_path / "w.pth")
    factory = f"{tmp_path / 'm.py'}:build"
    code, stdout, _ = run(capfd, "inspect", factory, "--weights", tmp_path / "w.pth", "--json")
    assert code == 0
    assert json.loads(stdout)["layers"][0]["std"] > 5
    code, _, err = run(capfd, "inspect", MODEL, "--weights", tmp_path / "w.pth")
    assert (code, "holds its own" in err) == (2, True)


def test_a_checkpoint_for_what_is_no_factory_is_refused(work, tmp_path, capfd):
    convert = ("convert", work / "plan.json", "--to", "json", "-o", tmp_path / "x.json", "--weights", "w.pth")
    code, _, err = run(capfd, *convert, "--model", MODEL)
    assert (code, "is no factory" in err, len(err.splitlines())) == (2, True, 1)
    code, _, err = run(capfd, *convert)
    assert (code, "goes with --model" in err, len(err.splitlines())) == (2, True, 1)
    assert not (tmp_path / "x.json").exists()


def test_the_arrays_of_a_profile_are_not_the_profile(work, capfd):
    (arrays,) = work.glob("profile.*.npz")
    code, _, err = run(capfd, "plan", arrays, "--avg-bits", "3", "-o", work / "x.json")
    assert (code, "profile.json beside it" in err) == (2, True)


def test_profile_without_data(tmp_path, capfd):
    path = tmp_path / "p.json"
    assert run(capfd, "profile", MODEL, "--no-data", "--quiet", "-o", path)[:2] == (0, f"{path}\n")
    code, _, err = run(capfd, "plan", path, "--avg-bits", "3", "-o", tmp_path / "plan.json")
    assert code == 0
    assert "without data" in " ".join(err.split())


def test_folders_of_images_work(tmp_path, capfd):
    images = np.load(CALIBRATION_PATH)
    for index in range(20):
        folder = tmp_path / "images" / str(images["y"][index])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images["x"][index]).save(folder / f"{index}.png")
    for label in range(10):
        (tmp_path / "images" / str(label)).mkdir(exist_ok=True)
    words = ["--bits", "2,4", "--fisher-draws", "0", *PIXELS, "--quiet", "-o", tmp_path / "p.json"]
    assert run(capfd, "profile", MODEL, "--data", tmp_path / "images", *words)[0] == 0
    assert lampq.Profile.read(tmp_path / "p.json").samples == 20


def test_demo(tmp_path, capfd):
    code, stdout, err = run(capfd, "demo", "-o", tmp_path / "demo", "--json")
    rows = {row["name"]: row for row in json.loads(stdout)}
    assert code == 0
    assert "LampQ 3 bits" in err
    assert rows["LampQ 3 bits"]["payload_bytes"] <= rows["uniform 3 bits"]["payload_bytes"]
    assert rows["LampQ 3 bits"]["kl"] < 0.5 * rows["uniform 3 bits"]["kl"]
    assert rows["LampQ 2.5 bits"]["top1"] > rows["uniform 2 bits"]["top1"]
    assert {"pareto.png", "profile.json", "lampq-3-bits.onnx"} <= {
        p.name for p in (tmp_path / "demo").iterdir()
    }


def test_help_has_an_example_for_every_verb(capfd):
    from lampq.console.commands import SUMMARIES

    for verb in SUMMARIES:
        with pytest.raises(SystemExit) as caught:
            main([verb, "--help"])
        assert caught.value.code == 0
        assert f"lampq {verb}" in capfd.readouterr().out.split("example:")[1]


def test_without_a_verb_help_is_shown(capfd):
    code, stdout, err = run(capfd)
    assert (code, stdout) == (2, "")
    assert "quantize" in err
    assert run(capfd, "--version")[1].strip() == lampq.__version__


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
