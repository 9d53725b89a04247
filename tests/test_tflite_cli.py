"""The command line on .tflite files: every verb, and every bad input as one line with exit code 2."""

import json
import subprocess
import sys

import numpy as np
import pytest
from tflite_models import Builder, fixture, inputs_for, relative, run_directly

from lampq.adapters.tflite import read
from lampq.cli import main
from lampq.core.values.errors import AdapterError
from lampq.core.values.plan import Plan
from lampq.core.values.profile import Profile


def run(capfd, *words):
    code = main([str(word) for word in words])
    out, err = capfd.readouterr()
    return code, out.strip(), err


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with data, and a profile and a plan of the fixture `vit`."""
    folder = tmp_path_factory.mktemp("work")
    x = inputs_for(read(fixture("vit")), 16)
    np.savez(folder / "data.npz", x=x, y=np.arange(16) % 4)
    data = ["--data", str(folder / "data.npz"), "--quiet"]
    for name, more in (("float", []), ("static", ["--act-bits", "8"])):
        profile, plan = str(folder / f"{name}-profile.json"), str(folder / f"{name}.json")
        words = ["--bits", "2,4,8", "--fisher-draws", "1", *more, "-o", profile]
        assert main(["profile", str(fixture("vit")), *data, *words]) == 0
        assert main(["plan", profile, "--avg-bits", "4", "--quiet", "-o", plan]) == 0
    return folder


def test_profile_plan_apply_eval_and_inspect(work, tmp_path, capfd):
    assert Profile.read(work / "float-profile.json").provenance["fisher"] == {"kind": "true", "note": ""}
    out, model = tmp_path / "q.tflite", fixture("vit")
    assert run(capfd, "apply", model, work / "float.json", "--quiet", "-o", out)[:2] == (0, str(out))
    plan = Plan.read(work / "float.json")
    assert out.stat().st_size == plan.total_bytes
    data = ["--data", work / "data.npz"]
    code, said, _ = run(capfd, "eval", out, *data, "--reference", model, "--json", "--quiet")
    assert code == 0
    assert 0 < json.loads(said)["kl"] < 1
    code, said, _ = run(capfd, "inspect", out, "--json")
    stored = {layer["name"]: layer["weight bits"] for layer in json.loads(said)["layers"]}
    assert (code, stored) == (0, plan.widths)


def test_fixed_int8_activations_need_data_and_take_it(work, tmp_path, capfd):
    out, words = tmp_path / "q.tflite", ["apply", fixture("vit"), work / "static.json", "--quiet"]
    code, _, err = run(capfd, *words, "-o", out)
    assert code == 2
    assert "need calibration data for the ranges of the layers' outputs; give it (--data)" in err
    assert not out.exists()
    assert run(capfd, *words, "--data", work / "data.npz", "-o", out)[0] == 0
    batch = np.load(work / "data.npz")["x"]
    assert relative(run_directly(out, batch), run_directly(fixture("vit"), batch)) < 0.5
    assert any(t.dtype == np.int8 for t in tensors(out))


def tensors(path):
    from ai_edge_litert.interpreter import Interpreter

    details = Interpreter(model_path=str(path), num_threads=1).get_tensor_details()
    return [np.empty(0, detail["dtype"]) for detail in details]


@pytest.mark.parametrize("more", [[], ["--act-bits", "8"], ["--act-bits", "16"]])
def test_quantize_does_it_all(work, tmp_path, capfd, more):
    out, data = tmp_path / "q.tflite", ["--data", work / "data.npz", "--quiet"]
    words = ["--avg-bits", "5", "--bits", "2,4,8", "--rounds", "1", "--fisher-draws", "0", *more]
    plan = tmp_path / "plan.json"
    assert run(capfd, "quantize", fixture("vit"), *data, *words, "--plan-out", plan, "-o", out)[0] == 0
    found = Plan.read(plan)
    assert out.stat().st_size == found.total_bytes
    batch = np.load(work / "data.npz")["x"]
    p = [np.exp(run_directly(path, batch).astype(np.float64)) for path in (fixture("vit"), out)]
    p = [rows / rows.sum(1, keepdims=True) for rows in p]
    assert found.measured_kl == pytest.approx((p[0] * np.log(p[0] / p[1])).sum(1).mean(), rel=0.05, abs=1e-4)


def layer(path, *, change=None):
    """Two linear layers; `change` scales the columns of the second, as a converter that folds into it."""
    b, rng = Builder(), np.random.default_rng(3)
    x, y, z = b.tensor("x", (1, 16)), b.tensor("y", (1, 24)), b.tensor("z", (1, 8))
    second = rng.normal(size=(8, 24)).astype(np.float32)
    first = b.tensor("net/fc1/MatMul", (24, 16), rng.normal(size=(24, 16)).astype(np.float32))
    changed = second if change is None else second * change.astype(np.float32)
    b.op("FULLY_CONNECTED", [x, first, -1], [y], "FullyConnectedOptions", version=6)
    b.op(
        "FULLY_CONNECTED",
        [y, b.tensor("net/fc2/MatMul", (8, 24), changed), -1],
        [z],
        "FullyConnectedOptions",
        version=6,
    )
    return b.write(path, [x], [z])  # fmt: skip


def test_weights_with_a_folded_scale_are_matched_by_name_and_said_so(tmp_path, capfd):
    plain, scale = layer(tmp_path / "plain.tflite"), np.random.default_rng(4).uniform(0.5, 1.5, 24)
    folded = layer(tmp_path / "folded.tflite", change=scale)
    profile, plan, out = (tmp_path / name for name in ("p.json", "plan.json", "q.tflite"))
    assert run(capfd, "profile", plain, "--no-data", "--bits", "2,4,8", "--quiet", "-o", profile)[0] == 0
    assert run(capfd, "plan", profile, "--avg-bits", "4", "--pin", "*fc2=8", "--quiet", "-o", plan)[0] == 0
    code, said, _ = run(capfd, "apply", folded, plan, "--json", "--quiet", "-o", out)
    assert code == 0
    (note,) = json.loads(said)["notes"]
    assert note.startswith("1 of the layers were matched by name and size")
    assert note.endswith(": net.fc2")
    assert read(out).stored_bits()["net.fc2"] == (8, "int8")
    code, said, _ = run(capfd, "apply", plain, plan, "--json", "--quiet", "--force", "-o", out)
    assert json.loads(said)["notes"] == []


def quantized(folder, capfd, work):
    out = folder / "quantized.tflite"
    assert run(capfd, "apply", fixture("vit"), work / "float.json", "--quiet", "-o", out)[0] == 0
    return out


def text_model(path):
    b = Builder()
    w = b.tensor("w", (8, 16), np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32))
    x, y, z, more = (
        b.tensor("x", (1, 16)),
        b.tensor("y", (1, 8)),
        b.tensor("z", (1, 8)),
        b.tensor("text", (1,), kind="STRING"),
    )
    b.op("FULLY_CONNECTED", [x, w, -1], [y], "FullyConnectedOptions", version=6)
    b.op("ADD", [y, y], [z], "AddOptions")
    return b.write(path, [more], [z])  # fmt: skip


def custom_model(path):
    """A linear layer, then an operator nobody here knows, with a weight of its own."""
    b, rng = Builder(), np.random.default_rng(0)
    x, y, z = (b.tensor(name, (1, 16)) for name in "xyz")
    known = b.tensor("net/fc1/MatMul", (16, 16), rng.normal(size=(16, 16)).astype(np.float32))
    strange = b.tensor("net/odd", (16, 16), rng.normal(size=(16, 16)).astype(np.float32))
    b.op("FULLY_CONNECTED", [x, known, -1], [y], "FullyConnectedOptions", version=6)
    b.op("CUSTOM", [y, strange], [z], custom="Fancy")
    return b.write(path, [x], [z])


def truncated_model(path):
    """The codes of the last weights are missing."""
    path.write_bytes(fixture("vit").read_bytes()[:-4000])
    return path


def beyond_model(path):
    """A buffer that claims to lie behind the file's end, in the way of files beyond 2 GiB."""
    from ai_edge_litert import schema_py_generated as schema

    b = Builder()
    w = b.tensor("w", (8, 16), np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32))
    x, y = b.tensor("x", (1, 16)), b.tensor("y", (1, 8))
    b.op("FULLY_CONNECTED", [x, w, -1], [y], "FullyConnectedOptions", version=6)
    entry = schema.BufferT()
    entry.offset, entry.size = 1 << 40, 512
    b.model.buffers[b.graph.tensors[w].buffer] = entry
    return b.write(path, [x], [y])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (truncated_model, "the file is damaged or cut off"),
        (beyond_model, "the file is cut off"),
    ],
)
@pytest.mark.parametrize("verb", ["profile", "quantize", "inspect", "eval"])
def test_bad_models_are_one_line_and_leave_nothing(work, make, message, verb, tmp_path, capfd):
    path, out = make(tmp_path / "bad.tflite"), tmp_path / "out.json"
    words = {
        "profile": ["--data", work / "data.npz", "-o", out],
        "quantize": ["--data", work / "data.npz", "--avg-bits", "4", "-o", out],
        "eval": ["--data", work / "data.npz"],
    }.get(verb, [])
    code, said, err = run(capfd, verb, path, *words)
    assert (code, said) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["bad.tflite"]


def test_a_model_of_texts_is_inspected_and_written_without_data(tmp_path, capfd):
    path, profile, plan = text_model(tmp_path / "m.tflite"), tmp_path / "p.json", tmp_path / "plan.json"
    code, said, _ = run(capfd, "inspect", path, "--json")
    assert (code, len(json.loads(said)["layers"])) == (0, 1)
    assert run(capfd, "profile", path, "--no-data", "--bits", "2,4,8", "--quiet", "-o", profile)[0] == 0
    assert run(capfd, "plan", profile, "--avg-bits", "4", "--quiet", "-o", plan)[0] == 0
    with pytest.raises(AdapterError, match=r"the input is text str.*cannot be fed"):
        read(path).run(np.array(["a"]))


def test_a_model_of_two_inputs_is_inspected_and_planned_without_data(tmp_path, capfd):
    b, rng = Builder(), np.random.default_rng(0)
    x, more, y, z = (
        b.tensor("x", (1, 16)),
        b.tensor("more", (1, 8)),
        b.tensor("y", (1, 8)),
        b.tensor("z", (1, 8)),
    )
    w = b.tensor("net/fc1/MatMul", (8, 16), rng.normal(size=(8, 16)).astype(np.float32))
    b.op("FULLY_CONNECTED", [x, w, -1], [y], "FullyConnectedOptions", version=6)
    b.op("ADD", [y, more], [z], "AddOptions")
    path, profile, out = (
        b.write(tmp_path / "m.tflite", [x, more], [z]),
        tmp_path / "p.json",
        tmp_path / "q.tflite",
    )
    code, said, _ = run(capfd, "inspect", path, "--json")
    assert (code, json.loads(said)["inputs"]) == (0, ["x float32[1x16]", "more float32[1x8]"])
    assert run(capfd, "profile", path, "--no-data", "--bits", "2,4,8", "--quiet", "-o", profile)[0] == 0
    plan = tmp_path / "plan.json"
    assert run(capfd, "plan", profile, "--avg-bits", "4", "--quiet", "-o", plan)[0] == 0
    assert run(capfd, "apply", path, plan, "--quiet", "-o", out)[0] == 0
    assert read(out).stored_bits() == {"net.fc1": (4, "bitplane")}


@pytest.mark.parametrize("verb", ["profile", "quantize"])
def test_a_model_without_float_weights_says_so(work, verb, tmp_path, capfd):
    path = quantized(tmp_path, capfd, work)
    budget = ["--avg-bits", "4"] if verb == "quantize" else []
    out = tmp_path / ("out.json" if verb == "profile" else "out.tflite")
    words = ["--data", work / "data.npz", *budget, "--quiet", "-o", out]
    code, _, err = run(capfd, verb, path, *words)
    assert code == 2
    assert (
        "quantized.tflite has no layer that can be quantized (10 are quantized already; --requantize takes its rounded "
        "values)" in err
    )
    assert not out.exists()


def test_unknown_operators_are_left_alone_and_named(tmp_path, capfd):
    path = custom_model(tmp_path / "m.tflite")
    code, said, _ = run(capfd, "inspect", path, "--json")
    assert code == 0
    assert [row["name"] for row in json.loads(said)["layers"]] == ["net.fc1"]
    assert any("Fancy" in row["reason"] for row in json.loads(said)["skipped"])
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).normal(size=(4, 16)).astype(np.float32))
    # It is judged at the last numbers in front of the operator.
    words = ["--bits", "2,4,8", "--quiet", "-o", tmp_path / "p.json"]
    assert run(capfd, "profile", path, "--data", tmp_path / "x.npz", *words)[0] == 0
    assert (
        run(capfd, "plan", tmp_path / "p.json", "--avg-bits", "4", "--quiet", "-o", tmp_path / "plan.json")[0]
        == 0
    )
    assert run(capfd, "apply", path, tmp_path / "plan.json", "--quiet", "-o", tmp_path / "q.tflite")[0] == 0
    assert read(tmp_path / "q.tflite").stored_bits() == {"net.fc1": (4, "bitplane")}
    # Statistics need no runtime.
    assert run(capfd, "profile", path, "--no-data", "--quiet", "-o", tmp_path / "n.json")[0] == 0


def test_the_runtime_is_silent(tmp_path):
    """It greets on standard error, from C, when it loads its first model."""
    from lampq.demo_data import TINY_PATH

    np.savez(tmp_path / "data.npz", x=np.ones((2, 8), np.float32))
    words = ["eval", TINY_PATH, "--data", "data.npz", "--reference", TINY_PATH, "--quiet"]
    run = subprocess.run(
        [sys.executable, "-m", "lampq.cli", *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert (run.returncode, run.stderr) == (0, "")


def test_widths_that_no_layer_can_have_are_refused_before_anything_is_measured(work, tmp_path, capfd):
    words = ("--data", work / "data.npz", "--bits", "3,5", "-o", tmp_path / "p.json")
    code, _, err = run(capfd, "profile", fixture("vit"), *words)
    assert code == 2
    assert "none of the widths can be stored for layer" in err.splitlines()[-1]
