"""The command line on the bundled model: every verb."""

import csv
import json
import re

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from command_line import CALIB, MODEL, PIXELS, VAL, run, work  # noqa: F401
from PIL import Image

import lampq
from lampq.cli import main
from lampq.demo_data import CALIBRATION_PATH


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
