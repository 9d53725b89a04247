"""Limits on the command line: what they become, and that clashes are told before anything is measured."""

import json

import pytest
from command_line import run

import lampq
from lampq.core.allocating.limits import bit_operations
from lampq.demo_data import CALIBRATION_PATH, MODEL_PATH, calibration

PIXELS = ["--mean", "0.305", "--std", "0.376"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    model = lampq.read(MODEL_PATH)
    lampq.profile(model, calibration()[:16], bits=(2, 4, 8), fisher_draws=0).write(folder / "profile.json")
    (folder / "table.csv").write_text(
        "# limit: 2 ms\nlayer,weight_bits,latency_us\n*,2,30\n*,4,50\n*,8,90\nhead,8,1000\n"
    )
    return folder


def test_every_limit_at_once(work, tmp_path, capfd):
    profile = lampq.Profile.read(work / "profile.json")
    most = int(bit_operations(profile)[:, 1].sum())
    code, stdout, err = run(
        capfd, "plan", work / "profile.json", "--avg-bits", "4.5", "--size", "200kB", "--max-bops", f"{most}",
        "--latency", work / "table.csv", "--at-most", "6@8", "--at-most", "5@2", "--min", "head=4",
        "--max", "patch_embed=4", "--max-activation", "1MB", "--quiet", "--json", "-o", tmp_path / "plan.json",
    )  # fmt: skip
    assert (code, err) == (0, "")
    plan = lampq.Plan.from_json(json.loads(stdout))
    widths = [layer.weight_bits for layer in plan.layers]
    assert plan.average_bits <= 4.5
    assert plan.total_bytes <= 200_000
    assert widths.count(2) <= 5
    assert widths.count(8) <= 6
    latency = sum(
        1000 if (layer.kind, layer.weight_bits) == ("head", 8) else {2: 30, 4: 50, 8: 90}[layer.weight_bits]
        for layer in plan.layers
    )
    assert latency <= 2000
    assert {layer.weight_bits >= 4 for layer in plan.layers if layer.kind == "head"} == {True}
    assert {layer.weight_bits <= 4 for layer in plan.layers if layer.kind == "patch_embed"} == {True}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--latency", "{table}", "--max-latency", "0.5ms"], "latency 500 us is below the floor of 780 us"),
        (["--latency", "{table}", "--max-latency", "5 GB"], "'GB' and 'us' are no units of one kind"),
        (["--max-latency", "5ms"], "--latency table.csv"),
        (["--energy", "nowhere.csv", "--max-energy", "1mJ"], "energy table nowhere.csv"),
        (
            ["--avg-bits", "2.5", "--at-most", "4@2"],
            "average bits 2.5 and at most 4 layers at 2 bits together",
        ),
        (["--max-bops", "7"], "7 BOPs is below the floor of"),
        (["--avg-bits", "4", "--pin", "head=8", "--max", "head=4"], "leave it no option"),
        (["--avg-bits", "2.001", "--mode", "lampq"], "held at one width"),
        (["--avg-bits", "3", "--max-activation", "10"], "takes at least"),
        (["--avg-bits", "1"], "floor of 2.0000"),
    ],
)
def test_quantize_refuses_before_it_measures(work, tmp_path, capfd, monkeypatch, words, message):
    def never(*_, **__):
        raise AssertionError("a profile was made")

    monkeypatch.setattr("lampq.verbs.quantize.make_profile", never)
    words = [word.format(table=work / "table.csv") for word in words]
    code, stdout, err = run(
        capfd, "quantize", MODEL_PATH, "--data", CALIBRATION_PATH, "--samples", "16", *PIXELS, "--bits", "2,4,8",
        *words, "--quiet", "-o", tmp_path / "q.onnx",
    )  # fmt: skip
    assert (code, stdout) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words", [["--max-bops", "many"], ["--size", "5 parsecs"], ["--max-activation", "-4"]]
)
def test_nonsense_units_are_refused_by_the_parser(work, tmp_path, capfd, words):
    with pytest.raises(SystemExit) as caught:
        run(capfd, "plan", work / "profile.json", *words, "-o", tmp_path / "plan.json")
    assert caught.value.code == 2
    assert words[0] in capfd.readouterr().err


def test_quantize_keeps_bit_operations(tmp_path, capfd):
    out = tmp_path / "q.onnx"
    macs = lampq.profile(lampq.read(MODEL_PATH), calibration()[:2], bits=(2,), fisher_draws=0).layers
    most = 32 * 3 * sum(layer.macs for layer in macs)
    code, stdout, err = run(
        capfd, "quantize", MODEL_PATH, "--data", CALIBRATION_PATH, "--samples", "24", *PIXELS, "--bits", "2-4",
        "--fisher-draws", "0", "--rounds", "0", "--max-bops", most, "--json", "--quiet", "-o", out,
    )  # fmt: skip
    assert (code, err) == (0, "")
    found = {layer["name"]: layer["weight_bits"] for layer in json.loads(stdout)["layers"]}
    assert sum(32 * found[layer.name] * layer.macs for layer in macs) <= most
    assert json.loads(stdout)["budget"] == {"max_bops": most}
