"""Codes learned block by block: what they start from, what they reach, and that files and plans have them again."""

import dataclasses
import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy_model import NumpyModel
from test_norm_rewrites import PreNorm
from torch_models import read_named, seeded

import lampq
from lampq.adapters.torch import read
from lampq.adapters.torch.blocks import block_of, blocks
from lampq.adapters.torch.refining import _from_easy_to_hard
from lampq.adapters.torch.soft_codes import SoftCodes, Straight
from lampq.cli import main
from lampq.core.measuring.correction import with_plan_coding
from lampq.core.measuring.encoding import encoder, with_rounding
from lampq.core.measuring.reference import damage, measure_reference
from lampq.core.measuring.setting import simulated
from lampq.core.quantizing.quantizer import as_rows, from_rows, quantize
from lampq.core.values.activation_grid import ActivationGrid
from lampq.demo_data import MODEL_PATH, VALIDATION_PATH


@pytest.fixture(scope="module")
def quantized():
    """A model, its inputs, and its plan at few bits, codes corrected."""
    model, batch = read_named("convolutions")
    batch = np.random.default_rng(3).normal(size=(128, *batch.shape[1:])).astype(np.float32)
    choices = {"bits": (2,), "act_bits": (4,), "rounding": "inputs", "fisher_draws": 0}
    plan = lampq.plan(lampq.profile(model, batch[:16], **choices), average_bits=2)
    return model, batch, dataclasses.replace(plan, rounding="corrected")


def test_soft_codes_start_at_the_codes_and_come_back_to_them():
    weight = np.random.default_rng(0).normal(size=(6, 3, 2, 2)).astype(np.float32)
    for axis in (0, 1):
        start = quantize(as_rows(weight, axis), 3)
        soft = SoftCodes(start, weight, axis, like=torch.from_numpy(weight))
        expected = from_rows(start.dequantized(), weight.shape, axis)
        np.testing.assert_allclose(soft.weight().detach().numpy(), expected, rtol=1e-6)
        before = soft.state()
        with torch.no_grad():
            soft.latent += 1.0
            soft.log_scale += 0.1
        moved = soft.quantized()
        assert moved.codes.max() <= 7 and (moved.codes != start.codes).any()
        np.testing.assert_allclose(moved.scale, start.scale * np.exp(0.1), rtol=1e-5)
        soft.restore(before)
        np.testing.assert_array_equal(soft.quantized().codes, start.codes)


def test_gradients_go_through_rounding_as_if_it_were_not_there():
    grid = ActivationGrid.from_range(-1.0, 1.0, 3)
    values = torch.linspace(-1, 1, 9, requires_grad=True)
    rounded = Straight(grid).apply(values)
    np.testing.assert_allclose(rounded.detach().numpy(), grid.apply(values.detach().numpy()), rtol=1e-6)
    rounded.sum().backward()
    assert (values.grad == 1).all()


def test_blocks_are_all_of_the_tape_and_each_layer_is_in_one():
    model, _ = read_named("packed")
    recording = model.variant.runtime.recording(model.variant.runtime.example, grad=True, products=True)
    parts = blocks(recording, {parameter: name for name, parameter in model.parameters.items()})
    assert parts[0].begin == 0 and parts[-1].end == len(recording.tape.operations)
    assert all(one.end == other.begin for one, other in pairwise(parts))
    names = [name for part in parts for name in part.layers]
    assert sorted(names) == sorted(model.parameters)
    first = next(part for part in parts if any("layers.0" in name for name in part.layers))
    assert all(block_of(name) == "transformer.layers.0" for name in first.layers)


def test_minibatches_come_from_easy_to_hard():
    order = list(_from_easy_to_hard(range(10), 100))
    assert max(order[:10]) < 5 and max(order[60:]) == 9


def test_learned_codes_lose_less_and_the_same_again(quantized):
    model, batch, plan = quantized
    plan = dataclasses.replace(plan, rounding="inputs")
    # Codes that have seen two samples only leave much to learn from all.
    coded, reference = with_rounding(model, "inputs", None, batch[:2]), measure_reference(model, batch)
    refined = [
        with_plan_coding(coded, dataclasses.replace(plan, refine=steps), batch) for steps in (0, 150, 150)
    ]
    before, after, again = (damage(simulated(each, plan), reference) for each in refined)
    assert after < 0.8 * before and again == after
    name, codes = next(iter(refined[1].coding.learned.items()))
    axis = next(layer.channel_axis for layer in model.layers() if layer.name == name)
    assert encoder(refined[1], name, axis)(2) is codes
    # Other widths are as they were.
    assert encoder(refined[1], name, axis)(4).bits == 4


def test_files_and_plans_have_what_was_learned(quantized, tmp_path):
    model, batch, plan = quantized
    dataclasses.replace(plan, refine=150).write(tmp_path / "p.json")
    again = lampq.Plan.read(tmp_path / "p.json")
    assert again.refine == 150
    for name in ("q", "again"):
        lampq.apply(model, again, tmp_path / f"{name}.safetensors", batch=batch)
    files = [(tmp_path / f"{name}.safetensors").read_bytes() for name in ("q", "again")]
    assert files[0] == files[1]
    lampq.apply(model, plan, tmp_path / "unrefined.safetensors", batch=batch)
    assert files[0] != (tmp_path / "unrefined.safetensors").read_bytes()
    written = read(read_named("convolutions")[0].module, weights=tmp_path / "q.safetensors")
    judged = lampq.evaluate(model, batch, plan=again, calibration=batch).kl
    assert lampq.evaluate(written, batch, reference=model).kl == pytest.approx(judged, rel=1e-3)


def test_what_cannot_be_learned_is_said_in_one_line(quantized, tmp_path):
    model, _, plan = quantized
    with pytest.raises(
        lampq.AdapterError, match=r"refinement trains, which .* models cannot; leave out --refine"
    ):
        lampq.quantize(
            NumpyModel.random(), np.zeros((4, 8), np.float32), tmp_path / "q.npz", average_bits=4, refine=5
        )
    with pytest.raises(lampq.RecordError, match="starts from codes for the layers' inputs"):
        lampq.Measurement(refine=5)
    with pytest.raises(lampq.RecordError, match="-1 steps of refinement"):
        lampq.Measurement(refine=-1, rounding="corrected")
    with pytest.raises(
        lampq.RecordError, match="leave out --refine, or give a budget in place of --max-drop"
    ):
        lampq.quantize(model, np.zeros((4, 8)), tmp_path / "q.npz", metrics=["top1"], max_drop="1%", refine=5)
    with pytest.raises(lampq.RecordError, match=r"give --data"):
        lampq.fake_quantize(model, dataclasses.replace(plan, refine=5))
    text = json.dumps(dataclasses.replace(plan, refine=5, rounding="inputs").to_json())
    with pytest.raises(lampq.PlanError, match="5 steps of refinement from rounding nearest"):
        lampq.Plan.from_json(json.loads(text.replace('"rounding": "inputs"', '"rounding": "nearest"')))


def test_refinement_that_does_not_help_is_left_out(tmp_path):
    model = read(seeded(PreNorm), input_shape=(5, 8))
    x = np.random.default_rng(0).normal(size=(8, 5, 8)).astype(np.float32)
    choices = {"bits": (8,), "act_bits": (8,), "fisher_draws": 0, "rounds": 0}
    plan = lampq.quantize(model, x, tmp_path / "q.safetensors", average_bits=8, refine=1, **choices)
    assert "1 steps of refinement" in plan.notes[-1]
    assert (plan.refine == 0) == plan.notes[-1].endswith("so they were left out")


def test_codes_rounded_otherwise_than_the_plan_says_are_not_learned(tmp_path, capsys):
    plan = lampq.plan(lampq.profile(lampq.read(MODEL_PATH), bits=(4,)), average_bits=4, mode="error")
    dataclasses.replace(plan, rounding="corrected", refine=10).write(tmp_path / "p.json")
    words = ("apply", MODEL_PATH, tmp_path / "p.json", "--rounding", "nearest", "-o", tmp_path / "q.onnx")
    assert main([str(word) for word in words]) == 0, capsys.readouterr().err
    assert (tmp_path / "q.onnx").is_file()


def test_steps_that_are_no_number_are_refused_in_words(tmp_path, capsys):
    words = ("quantize", MODEL_PATH, "--data", "d", "--avg-bits", "4", "--refine", "many", "-o", "q.onnx")
    with pytest.raises(SystemExit, match="2"):
        main([str(word) for word in words])
    assert "argument --refine: 'many' steps: use a whole number from 0" in capsys.readouterr().err


def test_a_plan_is_judged_with_what_it_needs_and_without_what_it_lacks(tmp_path, capsys):
    plan = lampq.plan(lampq.profile(lampq.read(MODEL_PATH), bits=(4,)), average_bits=4, mode="error")
    dataclasses.replace(plan, layers=plan.layers[:-1]).write(tmp_path / "less.json")
    dataclasses.replace(plan, rounding="inputs").write(tmp_path / "fitted.json")
    data = ("eval", MODEL_PATH, "--data", VALIDATION_PATH, "--samples", "10", "--quiet", "--plan")
    for words, code, message in (
        ((tmp_path / "less.json",), 2, "pass --partial"),
        ((tmp_path / "less.json", "--partial"), 0, ""),
        ((tmp_path / "fitted.json",), 2, "give the samples that it was made with, --calib DATA"),
    ):
        assert main([str(word) for word in (*data, *words)]) == code
        assert message in capsys.readouterr().err
