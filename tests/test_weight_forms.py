"""Forms of weights of one's own: measured, counted, planned for and written like codes on a uniform grid."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from law_cases import npz_adapter
from onnx_models import mlp, saved
from plugins import install
from tflite_models import fixture

import lampq
from lampq.adapters.torch import load_quantized, read
from lampq.cli import main
from lampq.core.values.errors import AdapterError, RecordError
from lampq.core.values.weight_form import WEIGHT_FORMS, WeightForm

EXAMPLE = Path(__file__).parent.parent / "examples/custom_weights.py"


def example():
    spec = importlib.util.spec_from_file_location("custom_weights", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def no_forms(monkeypatch):
    monkeypatch.setattr(WEIGHT_FORMS, "_added", {})


def codebook():
    """Levels of a layer at quantiles of its weights, and the index of the nearest for each."""

    def encode(rows, bits, moment):
        levels = np.quantile(rows, (np.arange(1 << bits) + 0.5) / (1 << bits)).astype(np.float32)
        return {"levels": levels, "index": np.abs(rows[..., None] - levels).argmin(-1).astype(np.uint8)}

    def parts(rows, columns, bits):
        return {"levels": ((1 << bits,), "float32"), "index": ((rows, columns), "uint8")}

    return WeightForm(
        name="codebook", encode=encode, decode=lambda parts: parts["levels"][parts["index"]], parts=parts
    )


def network():
    torch.manual_seed(1)
    layers = [torch.nn.Linear(16, 24), torch.nn.ReLU(), torch.nn.Linear(24, 20), torch.nn.Linear(20, 5)]
    return torch.nn.Sequential(*layers).eval()


def module_and_batch():
    batch = np.random.default_rng(0).normal(size=(24, 16)).astype(np.float32)
    return read(network(), input_shape=(16,)), batch


@pytest.mark.parametrize("form", ["codebook", "low_rank"])
def test_a_form_is_measured_planned_written_and_read(form, no_forms, tmp_path):
    WEIGHT_FORMS.add(codebook() if form == "codebook" else example().LOW_RANK)
    model, batch = module_and_batch()
    profile = lampq.profile(model, batch, bits=(2, 3, 4), rounding=form, fisher_draws=0)
    layer = profile.layers[0]
    rows = layer.channels, layer.size // layer.channels
    assert profile.payload_bytes[0].tolist() == [
        WEIGHT_FORMS.get(form).payload_bytes(*rows, b) for b in (2, 3, 4)
    ]
    profile.write(tmp_path / "p.json")
    plan = lampq.plan(lampq.Profile.read(tmp_path / "p.json"), size_bytes=6000)
    plan.write(tmp_path / "plan.json")
    plan = lampq.Plan.read(tmp_path / "plan.json")
    assert plan.rounding == form
    applied = lampq.apply(model, plan, tmp_path / "q.safetensors", batch=batch)
    assert applied.size_bytes <= plan.total_bytes <= 6000
    # Of each weight the longest description of its arrays counts, whatever its width.
    assert plan.total_bytes - applied.size_bytes < 200 * len(plan.layers)
    loaded = read(load_quantized(tmp_path / "q.safetensors", network), input_shape=(16,))
    simulated = lampq.fake_quantize(model, plan, batch=batch)
    np.testing.assert_allclose(np.asarray(loaded.run(batch)), np.asarray(simulated.run(batch)), atol=1e-5)
    stored = lampq.adapters.stored(tmp_path / "q.safetensors")
    assert sum(weight.payload_bytes for weight in stored) == plan.payload_bytes


def arrays_and_batch(folder):
    rng = np.random.default_rng(0)
    np.savez(folder / "x.npz", first=rng.normal(size=(24, 16)), head=rng.normal(size=(4, 24)))
    return npz_adapter().read(folder / "x.npz"), rng.normal(size=(30, 16)).astype(np.float32)


def test_quantize_tells_the_damage_of_the_file(no_forms, tmp_path):
    WEIGHT_FORMS.add(codebook())
    model, batch = arrays_and_batch(tmp_path)
    plan = lampq.quantize(
        model,
        batch,
        tmp_path / "q.npznet",
        average_bits=3,
        bits=(2, 3, 4),
        rounding="codebook",
        fisher_draws=0,
    )
    written = npz_adapter().read(tmp_path / "q.npznet")
    assert lampq.evaluate(written, batch, reference=model).kl == pytest.approx(plan.measured_kl, rel=1e-3)


def test_files_of_arrays_hold_any_form(no_forms, tmp_path):
    WEIGHT_FORMS.add(codebook())
    model, batch = arrays_and_batch(tmp_path)
    plan = lampq.plan(lampq.profile(model, batch, bits=(2, 3, 4), rounding="codebook"), average_bits=3)
    size = lampq.apply(model, plan, tmp_path / "q.npznet").size_bytes
    assert size <= plan.total_bytes
    written = npz_adapter().read(tmp_path / "q.npznet").run(batch)
    simulated = lampq.fake_quantize(model, plan).run(batch)
    np.testing.assert_allclose(np.asarray(written), np.asarray(simulated), atol=1e-5)


def test_formats_without_a_place_for_forms_say_so(no_forms, tmp_path):
    WEIGHT_FORMS.add(codebook())
    for model in (lampq.read(saved(mlp(), tmp_path)), lampq.read(fixture("vit"))):
        with pytest.raises(AdapterError, match=r"codes on a uniform grid alone, not the form codebook"):
            lampq.profile(model, None, bits=(4,), rounding="codebook")


def test_choices_that_do_not_go_with_a_form_are_refused(no_forms):
    WEIGHT_FORMS.add(codebook())
    model, batch = module_and_batch()
    for choice in ({"block": 8}, {"container": "int8"}):
        with pytest.raises(
            RecordError, match=r"in the form codebook have scales of their own.*leave out --block"
        ):
            lampq.profile(model, batch, bits=(4,), rounding="codebook", **choice)
    with pytest.raises(RecordError, match=r"rounding 'sparkle' is none of nearest.*codebook.*lampq\.forms"):
        lampq.profile(model, batch, bits=(4,), rounding="sparkle")


def test_a_form_that_stores_other_arrays_than_it_says_is_refused(no_forms):
    form = codebook()
    model, batch = module_and_batch()
    WEIGHT_FORMS.add(dataclasses.replace(form, parts=lambda rows, columns, bits: {"index": ((1,), "uint8")}))
    with pytest.raises(RecordError, match="form codebook: arrays are other than it says"):
        lampq.profile(model, batch, bits=(4,), rounding="codebook")
    WEIGHT_FORMS.add(dataclasses.replace(form, decode=lambda parts: parts["levels"][parts["index"]] * np.inf))
    with pytest.raises(RecordError, match="form codebook: arrays stand for no"):
        lampq.profile(model, batch, bits=(4,), rounding="codebook")


def test_plans_and_files_of_a_form_that_is_not_here_name_it(no_forms, tmp_path, capfd):
    WEIGHT_FORMS.add(codebook())
    model, batch = module_and_batch()
    plan = lampq.plan(lampq.profile(model, batch, bits=(3,), rounding="codebook"), average_bits=3)
    plan.write(tmp_path / "plan.json")
    lampq.apply(model, plan, tmp_path / "q.safetensors")
    WEIGHT_FORMS._added.clear()
    assert main(["inspect", str(tmp_path / "plan.json")]) == 0
    capfd.readouterr()
    told = r"'codebook' is none of nearest, inputs, corrected; or install the package .*lampq\.forms"
    with pytest.raises(RecordError, match=told):
        lampq.apply(model, lampq.Plan.read(tmp_path / "plan.json"), tmp_path / "again.safetensors")
    with pytest.raises(RecordError, match=told):
        load_quantized(tmp_path / "q.safetensors", network)
    assert not (tmp_path / "again.safetensors").exists()


def test_an_announced_form_goes_through_the_command_line(no_forms, monkeypatch, tmp_path, capfd):
    source = EXAMPLE.read_text(encoding="utf-8")
    entries = {WEIGHT_FORMS.group: {"low_rank": "low_rank_plugin:LOW_RANK"}}
    install(monkeypatch, tmp_path, "lampq-low-rank", entries, {"low_rank_plugin": source})
    (tmp_path / "factory.py").write_text("from low_rank_plugin import network as build\n")
    inputs = np.random.default_rng(0).normal(size=(24, 64)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=inputs)
    torch.save(example().network().state_dict(), tmp_path / "w.pth")
    out = str(tmp_path / "profile.json")
    words = [
        "--data",
        str(tmp_path / "data.npz"),
        "--rounding",
        "low_rank",
        "--bits",
        "2,3",
        "--fisher-draws",
        "0",
    ]
    factory = [f"{tmp_path / 'factory.py'}:build", "--weights", str(tmp_path / "w.pth")]
    assert main(["profile", *factory, *words, "--quiet", "-o", out]) == 0, capfd.readouterr().err
    assert json.loads(Path(out).read_text())["rounding"] == "low_rank"
    with pytest.raises(SystemExit):
        main(["profile", *factory, *words[:3], "sparkle", "-o", out])
    assert "argument --rounding: invalid choice: 'sparkle'" in capfd.readouterr().err
