"""The bytes that a plan promises are those of the file, and a budget in bytes is kept and spent."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torchvision_ops  # noqa: F401
import transformers
from onnx import TensorProto
from onnx_graphs import network, transformer
from onnx_models import exported, mlp, saved
from test_onnx_any_weight import KINDS
from test_onnx_large import network as large_network
from test_torch_hugging_face import FAMILIES
from tflite_models import NAMES, fixture
from torch_models import MODELS, read_named

import lampq
from lampq.adapters.onnx import large, save
from lampq.adapters.torch import hugging_face
from lampq.core.allocating.allocation import build_plan
from lampq.core.values.errors import BudgetError
from lampq.core.values.shard import Shard
from lampq.verbs.best_plan import best_plan
from lampq.verbs.formats import size_bytes, stored_as

SIZES_ALONE = {"fisher_draws": 0, "rounding": "nearest"}
# name: what makes the file, fields of the measurement
ONNX = {
    "packed": (transformer, {}),
    "bytes": (transformer, {"container": "int8"}),
    "blocks": (transformer, {"block": 8}),
    "quantized inputs": (transformer, {"act_bits": 8}),
    "inputs of 16 bits": (lambda path: transformer(path, opset=21), {"act_bits": 16}),
    "quantized inputs, bytes": (transformer, {"act_bits": 8, "container": "int8"}),
    "without bitwise operators": (lambda path: transformer(path, opset=13), {}),
    "half precision": (lambda path: transformer(path, dtype=TensorProto.FLOAT16), {"act_bits": 8}),
    "convolutions": (network, {}),
    "convolutions of quantized inputs": (network, {"act_bits": 8}),
    "layers that stay float": (transformer, {"keep": ("mlp.fc1",)}),
    "export of dynamo": (lambda path: exported("vit", "dynamo"), {}),
    "export of the old exporter": (lambda path: exported("conv", "legacy"), {"act_bits": 8}),
}


def noise(model, samples=4):
    (spec,) = model.input_specs
    shape = [samples, *(side if isinstance(side, int) else 3 for side in spec.shape[1:])]
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def choices(profile, seed=0):
    """The narrowest and the widest options, and some at random."""
    rng, options = np.random.default_rng(seed), len(profile.options)
    drawn = [np.zeros(len(profile.layers), int), *rng.integers(0, options, (2, len(profile.layers)))]
    for wanted in (*drawn, np.full(len(profile.layers), options - 1)):
        steps = profile.available * (1 + options - abs(np.arange(options) - wanted[:, None]))
        yield steps.argmax(axis=1)


def written(model, profile, out, batch=None):
    """Bytes that plans promise, and those of what is written."""
    for choice in choices(profile):
        plan = build_plan(profile, choice, mode="uniform", budget={})
        applied = lampq.apply(model, plan, out, batch=batch, force=True)
        assert applied.plan.total_bytes == applied.size_bytes == size_bytes(out)
        yield plan.total_bytes, applied.size_bytes


@pytest.mark.parametrize("name", ONNX)
def test_the_size_of_an_onnx_file_is_known_to_the_byte(name, tmp_path):
    make, fields = ONNX[name]
    model = lampq.read(make(tmp_path / "float.onnx"))
    batch = noise(model) if "act_bits" in fields else None
    profile = lampq.profile(model, batch, **SIZES_ALONE, **fields)
    for promised, real in written(model, profile, tmp_path / "q.onnx", batch):
        assert promised == real


@pytest.mark.parametrize("name", KINDS)
def test_so_it_is_with_weights_of_every_kind(name, tmp_path):
    model = lampq.read(saved(KINDS[name][0], tmp_path))
    profile = lampq.profile(model, **SIZES_ALONE)
    for promised, real in written(model, profile, tmp_path / "q.onnx"):
        assert promised == real


@pytest.mark.parametrize("container", ["bitplane", "int8"])
def test_so_it_is_with_weights_in_parts(container, tmp_path, monkeypatch):
    monkeypatch.setattr(large, "_LIMIT_BYTES", 4 * 64 * 40)
    monkeypatch.setattr(large, "_MOST_BYTES", 4 * 64 * 20)
    model = lampq.read(large_network(tmp_path / "float.onnx"))
    profile = lampq.profile(model, container=container, **SIZES_ALONE)
    for promised, real in written(model, profile, tmp_path / "q.onnx"):
        assert promised == real


def test_a_file_of_two_parts_is_no_larger_than_promised(tmp_path, monkeypatch):
    monkeypatch.setattr(save, "LARGEST_SINGLE_FILE", 1000)
    monkeypatch.setattr(save, "_EXTERNAL_FROM", 100)
    monkeypatch.setattr(save.staged.__wrapped__, "__kwdefaults__", {"single_file_bytes": 1000})
    model = lampq.read(transformer(tmp_path / "float.onnx"))
    profile = lampq.profile(model, **SIZES_ALONE)
    for promised, real in written(model, profile, tmp_path / "q.onnx"):
        assert len(list(tmp_path.glob("q.onnx.*.data"))) == 1
        assert promised - 20 * save.PLACE_BYTES < real <= promised


def test_the_file_beside_the_payload_is_no_larger_than_a_model_says(tmp_path):
    model = lampq.read(transformer(tmp_path / "float.onnx"))
    whole = model.overhead(model.layers(), lampq.profile(model, bits=(7,), **SIZES_ALONE).options, "bitplane")
    assert model.rest_bytes() == whole.rest_bytes + whole.overhead_bytes.sum() + whole.shared_bytes.sum()


@pytest.mark.parametrize("container", ["bitplane", "int8"])
@pytest.mark.parametrize("name", NAMES)
def test_the_size_of_a_tflite_file_is_known_to_the_byte(name, container, tmp_path):
    model = lampq.read(fixture(name))
    profile = lampq.profile(model, bits=(2, 4, 8), container=container, **SIZES_ALONE)
    for promised, real in written(model, profile, tmp_path / "q.tflite"):
        assert promised == real


@pytest.mark.parametrize("fields", [{}, {"container": "int8"}, {"act_bits": (4, 8)}], ids=str)
@pytest.mark.parametrize("name", [name for name in MODELS if name != "tokens"])
def test_a_packed_file_is_no_larger_than_promised_and_hardly_smaller(name, fields, tmp_path):
    model, batch = read_named(name)
    profile = lampq.profile(model, batch, bits=(2, 3, 8), **SIZES_ALONE, **fields)
    for promised, real in written(model, profile, tmp_path / "q.safetensors"):
        assert promised - 100 < real <= promised


@pytest.mark.parametrize("out", ["folder", "file.safetensors"])
@pytest.mark.parametrize("name", ["vit", "bert"])
def test_so_are_folders_and_files_made_of_them(name, out, tmp_path):
    cls, config = FAMILIES[name]
    torch.manual_seed(0)
    with hugging_face.quietly(transformers):
        cls(config).eval().save_pretrained(tmp_path / "float")
    model = stored_as(lampq.read(tmp_path / "float"), tmp_path / out)
    profile = lampq.profile(model, bits=(2, 4, 8), **SIZES_ALONE)
    for promised, real in written(model, profile, tmp_path / out):
        assert promised - 2000 < real <= promised


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    path = saved(mlp(layers=8, width=64), tmp_path_factory.mktemp("mlp"))
    model = lampq.read(path)
    batch = noise(model, 24)
    return model, batch, lampq.profile(model, batch, fisher_draws=0)


def bounds(profile):
    """Bytes of the plans whose layers each take least, and most, for themselves."""
    return [profile.total_bytes(pick(profile.stored_bytes, axis=1)) for pick in (np.argmin, np.argmax)]


def smallest_step(profile, plan):
    """Least bytes that a wider option of one layer takes more, other layers as they are."""
    at = np.array([profile.weight_bits.tolist().index(layer.weight_bits) for layer in plan.layers])
    more = []
    for layer, option in enumerate(at):
        for wider in range(option + 1, len(profile.options)):
            changed = at.copy()
            changed[layer] = wider
            more.append(profile.total_bytes(changed) - plan.total_bytes)
    return min((step for step in more if step > 0), default=0)


@pytest.mark.parametrize("mode", ["kl", "superposition"])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.4, 0.6, 0.8])
def test_a_budget_in_bytes_is_kept_and_spent(measured, mode, share, tmp_path):
    model, _, profile = measured
    low, high = bounds(profile)
    size_limit = round(low + share * (high - low))
    plan = lampq.plan(profile, size_bytes=size_limit, mode=mode)
    assert size_limit - smallest_step(profile, plan) - 400 < plan.total_bytes <= size_limit
    real = lampq.apply(model, plan, tmp_path / "q.onnx").size_bytes
    # The length of the graph is one byte longer from 16 kB on, and that byte counts for all.
    assert plan.total_bytes - 1 <= real <= plan.total_bytes
    assert plan.bound <= plan.predicted_kl * (1 + 1e-9)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_reasons_hold_plans_against_the_bytes_of_their_files(measured, share, tied):
    """What layers share counts as the changed plan needs it, and no plan breaks what it was made for."""
    _, _, profile = measured
    low, high = bounds(profile)
    size_limit = round(low + share * (high - low))
    ties = ["{" + ",".join(layer.name for layer in profile.layers) + "}"] if tied else []
    plan = lampq.plan(profile, size_bytes=size_limit, mode="kl", ties=ties)
    reasons = lampq.why(plan, profile)
    assert reasons.facts["limits the plan breaks"] == []
    widths = profile.weight_bits.tolist()
    at = [widths.index(layer.weight_bits) for layer in plan.layers]
    names = [layer.name for layer in plan.layers]
    for name, _, _, instead, *_, fits in reasons.rows:
        changed, option = np.array(at), widths.index(int(instead.split()[0]))
        changed[... if tied else names.index(name)] = option
        assert fits == (profile.total_bytes(changed) <= size_limit), (name, instead)
    over = dataclasses.replace(plan, budget={"size_bytes": plan.total_bytes - 1, "ties": ties})
    if plan.total_bytes > low:  # Below, nothing fits.
        assert lampq.why(over, profile).facts["limits the plan breaks"] == ["bytes"]


def test_what_is_not_needed_is_not_set_aside(measured):
    _, _, profile = measured
    # Room for each layer at four bits, and no other width.
    choice = np.full(len(profile.layers), profile.weight_bits.tolist().index(4))
    size_limit = profile.total_bytes(choice)
    assert size_limit < profile.rest_bytes + profile.stored_bytes[:, 2].sum() + profile.shared_bytes(
        profile.available
    )
    plan = lampq.plan(profile, size_bytes=size_limit, mode="kl")
    assert size_limit - 400 < plan.total_bytes <= size_limit


def test_the_uniform_plan_of_the_same_bytes_is_told_measured_and_taken_where_it_loses_least(measured):
    """It needs the table of one width; a search that sets all tables aside has no room for it."""
    model, batch, profile = measured
    four = profile.weight_bits.tolist().index(4)
    size_limit = profile.total_bytes(np.full(len(profile.layers), four))
    kl = profile.kl.copy()
    # Two bits look harmless where they are not.
    kl[::2, 0] = 1e-9
    misled = profile.with_tables(kl=kl)
    plan = lampq.plan(misled, size_bytes=size_limit, mode="kl")
    assert set(plan.widths.values()) != {4}
    assert any(note.startswith("uniform 4 bits within the same limits") for note in plan.notes)
    best = best_plan(model, misled, batch, size_bytes=size_limit, mode="kl")
    assert set(best.widths.values()) == {4}
    assert best.total_bytes <= size_limit
    assert "the best uniform plan of the budget measured least on the calibration data" in best.notes


def test_the_floor_that_is_named_can_be_met(measured):
    _, _, profile = measured
    with pytest.raises(BudgetError) as refused:
        lampq.plan(profile, size_bytes=1000)
    floor = int(str(refused.value).partition("floor of ")[2].partition(" bytes")[0].replace(",", ""))
    assert lampq.plan(profile, size_bytes=floor).total_bytes <= floor
    with pytest.raises(BudgetError):
        lampq.plan(profile, size_bytes=floor - 1)


@pytest.mark.parametrize("fields", [{}, {"act_bits": 8}, {"container": "int8", "act_bits": 8}], ids=str)
def test_quantize_writes_as_many_bytes_as_its_plan_says(measured, fields, tmp_path):
    model, batch, _ = measured
    size_limit = 41_000 if fields else 25_000
    plan = lampq.quantize(
        model, batch, tmp_path / "q.onnx", size_bytes=size_limit, fisher_draws=0, rounds=1, **fields
    )
    assert size_bytes(tmp_path / "q.onnx") == plan.total_bytes <= size_limit
    again = lampq.apply(model, plan, tmp_path / "again.onnx", batch=batch)
    assert again.size_bytes == plan.total_bytes


def test_profiles_keep_what_files_take(measured, tmp_path):
    _, _, profile = measured
    profile.write(tmp_path / "p.json")
    read = lampq.Profile.read(tmp_path / "p.json")
    for choice in choices(profile):
        assert read.total_bytes(choice) == profile.total_bytes(choice)
    with pytest.raises(lampq.RecordError, match="go together"):
        profile.with_tables(shares=None)
    with pytest.raises(lampq.RecordError, match="parts"):
        profile.with_tables(shared_bytes=profile.array("shared_bytes")[1:])


def test_parts_of_the_data_agree_on_what_files_take(tmp_path):
    model = lampq.read(transformer(tmp_path / "float.onnx"))
    batch, options = noise(model, 8), {"act_bits": 8, "fisher_draws": 0}
    parts = [lampq.profile(model, batch, shard=Shard.parse(f"{k}/2"), **options) for k in (1, 2)]
    whole = lampq.merge(parts)
    for promised, real in written(model, whole, tmp_path / "q.onnx", batch):
        assert real <= promised + 100


def test_ties_and_pins_hold_where_widths_are_chosen(measured):
    _, _, profile = measured
    low, high = bounds(profile)
    size_limit = round(0.6 * low + 0.4 * high)
    plan = lampq.plan(
        profile, size_bytes=size_limit, mode="kl", pins=("fc3=3",), ties=("fc{0,1,2}", "fc{6,7}")
    )
    assert size_limit - 2500 < plan.total_bytes <= size_limit
    assert plan.widths["fc3"] == 3
    assert len({plan.widths[name] for name in ("fc0", "fc1", "fc2")}) == 1
    assert plan.widths["fc6"] == plan.widths["fc7"]
