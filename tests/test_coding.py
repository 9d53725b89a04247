"""Rounding to the layers' inputs, from the profile to the file, in every format."""

import json

import numpy as np
import onnxruntime as ort
import pytest
import torch
from divergence import kl_divergence
from onnx_graphs import batch_for, transformer
from tflite_models import linear
from torch_models import make_batch, read_named

from lampq import adapters
from lampq.adapters.onnx.reader import read as read_onnx
from lampq.adapters.tflite import read as read_tflite
from lampq.adapters.torch import load_quantized
from lampq.cli import main
from lampq.core.measuring.correction import with_plan_coding
from lampq.core.measuring.encoding import coded_for, with_rounding
from lampq.core.measuring.measure import quantized_weights
from lampq.core.quantizing.coding import Coding
from lampq.core.values.errors import PlanError, RecordError
from lampq.core.values.merge import merge
from lampq.core.values.plan import Plan
from lampq.core.values.profile import Profile
from lampq.verbs.apply import apply
from lampq.verbs.plan import plan as make_plan
from lampq.verbs.profile import profile
from lampq.verbs.quantize import quantize


def correlated(*shape, seed=0):
    """Inputs with a mean and a few common directions, as real ones have."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(*shape[:-1], 2)) @ rng.normal(size=(2, shape[-1]))
    return (common + 0.3 * rng.normal(size=shape) + 0.5).astype(np.float32)


@pytest.fixture
def case(tmp_path):
    return read_onnx(transformer(tmp_path / "m.onnx")), correlated(64, 6, 16)


def test_onnx_files_hold_the_weights_that_were_measured(case, tmp_path):
    model, batch = case
    measured = profile(model, batch, rounding="inputs", fisher_draws=0)
    plan = make_plan(measured, average_bits=3)
    assert (measured.rounding, plan.rounding) == ("inputs", "inputs")
    out = apply(model, plan, tmp_path / "q.onnx", batch=batch).path
    coded = with_rounding(model, "inputs", None, batch)
    expected = model.with_weights(quantized_weights(coded, plan.widths)).run(batch)
    session = ort.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: batch})[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    plain = model.with_weights(quantized_weights(model, plan.widths)).run(batch)
    reference = model.run(batch)
    assert kl_divergence(reference, expected).mean() < 0.7 * kl_divergence(reference, plain).mean()


def test_quantize_rounds_to_inputs_unless_told(case, tmp_path):
    model, batch = case
    ours = quantize(model, batch, tmp_path / "a.onnx", average_bits=3, fisher_draws=0)
    plain = quantize(model, batch, tmp_path / "b.onnx", average_bits=3, fisher_draws=0, rounding="nearest")
    assert ours.rounding in ("inputs", "corrected") and plain.rounding == "nearest"
    assert ours.measured_kl < 0.7 * plain.measured_kl
    assert max(ours.average_bits, plain.average_bits) <= 3


def test_codes_of_the_profile_are_chosen_once(case, monkeypatch):
    from lampq.core.quantizing import rounding

    calls = []
    exact = rounding.InputRounding.quantize
    monkeypatch.setattr(rounding.InputRounding, "quantize", lambda *a, **k: calls.append(1) or exact(*a, **k))
    model, batch = case
    model = with_rounding(model, "inputs", None, batch)
    widths = dict.fromkeys((layer.name for layer in model.layers()), 3)
    first = quantized_weights(model, widths)
    count = len(calls)
    second = quantized_weights(model, widths)
    assert len(calls) == count > 0
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    name = next(iter(first))
    # Other weights under the same name are other codes.
    other = model.with_weights({name: 2 * model.weight(name)})
    np.testing.assert_allclose(quantized_weights(other, {name: 3})[name], 2 * first[name], rtol=1e-5)


def test_packed_files_of_torch(tmp_path):
    model, _ = read_named("packed")
    batch = make_batch((3, 8, 8), samples=32)
    plan = make_plan(profile(model, batch, rounding="inputs", fisher_draws=0), average_bits=3)
    path = apply(model, plan, tmp_path / "q.safetensors", batch=batch).path
    coded = with_rounding(model, "inputs", None, batch)
    expected = model.with_weights(quantized_weights(coded, plan.widths)).run(batch)
    module = load_quantized(path, model.module)
    with torch.no_grad():
        np.testing.assert_allclose(module(torch.from_numpy(batch)).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_tflite_files(tmp_path):
    rng = np.random.default_rng(1)
    path = linear(
        tmp_path / "m.tflite", rng.normal(size=(10, 32)).astype(np.float32), np.zeros(10, np.float32)
    )
    model, batch = read_tflite(path), correlated(64, 32)
    plans = {
        rounding: make_plan(
            profile(model, batch, bits=[4], rounding=rounding, fisher_draws=0), average_bits=4
        )
        for rounding in ("nearest", "inputs")
    }
    found = {
        rounding: adapters.read(apply(model, plan, tmp_path / f"{rounding}.tflite", batch=batch).path).run(
            batch
        )
        for rounding, plan in plans.items()
    }
    errors = {rounding: np.linalg.norm(logits.minus(model.run(batch))) for rounding, logits in found.items()}
    assert errors["inputs"] < 0.7 * errors["nearest"]


def test_plans_that_need_data_say_so(case, tmp_path):
    model, batch = case
    plan = make_plan(profile(model, batch, rounding="inputs", fisher_draws=0), average_bits=3)
    with pytest.raises(RecordError, match="needs data"):
        apply(model, plan, tmp_path / "q.onnx")
    with pytest.raises(PlanError, match="calibration data"):
        model.write(plan, tmp_path / "q.onnx")
    with pytest.raises(PlanError, match="calibration data"):
        coded_for(model, plan)
    assert not (tmp_path / "q.onnx").exists()
    with pytest.raises(RecordError, match="needs data"):
        profile(model, rounding="inputs")
    with pytest.raises(RecordError, match="is none of"):
        profile(model, batch, rounding="up")


def test_a_plan_to_nearest_ignores_what_the_model_has_seen(case):
    model, batch = case
    plan = make_plan(profile(model, batch, fisher_draws=0), average_bits=3)
    assert coded_for(with_rounding(model, "inputs", None, batch), plan).coding.moments is None


def test_files_keep_the_rounding(case, tmp_path):
    model, batch = case
    measured = profile(model, batch, rounding="inputs", fisher_draws=0)
    measured.write(tmp_path / "p.json")
    again = Profile.read(tmp_path / "p.json")
    make_plan(again, average_bits=3).write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json").rounding == "inputs"
    data = json.loads((tmp_path / "plan.json").read_text())
    (tmp_path / "plan.json").write_text(json.dumps(data | {"rounding": "up"}))
    unknown = Plan.read(tmp_path / "plan.json")
    with pytest.raises(RecordError, match="rounding 'up' is none of nearest, inputs, corrected; or install"):
        with_plan_coding(model, unknown, batch)
    with pytest.raises(RecordError, match="how weights are stored"):
        merge([again, profile(model, batch, fisher_draws=0)])


def test_on_the_command_line(tmp_path, capfd):
    path = transformer(tmp_path / "m.onnx")
    np.savez(tmp_path / "calib.npz", x=batch_for(24, 6, 16))
    data = ["--data", str(tmp_path / "calib.npz"), "--quiet"]
    quantized = [str(path), *data, "--avg-bits", "3", "-o", str(tmp_path / "a.onnx")]
    assert main(["quantize", *quantized, "--plan-out", str(tmp_path / "plan.json"), "--rounds", "0"]) == 0
    again = ["apply", str(path), str(tmp_path / "plan.json"), "-o", str(tmp_path / "b.onnx")]
    assert main(again) == 2
    assert "--data" in capfd.readouterr().err
    assert main([*again, *data]) == 0
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert main([*again[:-1], str(tmp_path / "c.onnx"), "--rounding", "nearest", "--quiet"]) == 0
    assert (
        adapters.read(tmp_path / "c.onnx").stored_bits() == adapters.read(tmp_path / "a.onnx").stored_bits()
    )


def test_codings_compare_by_what_they_are():
    assert Coding().rounding == "nearest"
    assert Coding(moments={}).rounding == "inputs"


def test_plans_of_mode_fisher_say_that_it_overestimates(case):
    model, batch = case
    plan = make_plan(
        profile(model, batch, rounding="inputs", fisher="forward"), average_bits=3, mode="fisher"
    )
    assert any("lose less than it predicts" in note for note in plan.notes)
