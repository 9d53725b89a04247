import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch_models import MODELS, make_batch, read_named

from lampq import adapters
from lampq.adapters.torch import load_quantized, packed, read
from lampq.core.allocating.allocation import build_plan
from lampq.core.measuring.measure import quantized_weights
from lampq.core.values.errors import AdapterError
from lampq.core.values.packing import payload_bytes
from lampq.verbs.apply import apply
from lampq.verbs.profile import profile

WIDTHS = tuple(range(2, 9))


def mixed_plan(model, batch=None, container="bitplane", act_bits=None):
    """Widths 2 to 8 in turn."""
    measured = profile(model, batch, bits=WIDTHS, container=container, fisher_draws=0, act_bits=act_bits)
    return build_plan(
        measured, np.arange(len(measured.layers)) % len(WIDTHS), mode="uniform", budget={"average_bits": 5}
    )


@pytest.fixture(params=[name for name in MODELS if name != "tokens"])
def case(request, tmp_path):
    model, batch = read_named(request.param)
    plan = mixed_plan(model)
    path = apply(model, plan, tmp_path / "q.safetensors").path
    return request.param, model, batch, plan, path


def test_every_weight_takes_exactly_its_bits(case):
    _, model, _, plan, path = case
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for layer in plan.layers:
        codes = tensors[model.parameters[layer.name] + ".codes"]
        assert codes.dtype == torch.uint8
        assert codes.numel() == payload_bytes(layer.size, layer.weight_bits)
    payload = sum(t.nbytes for n, t in tensors.items() if n.endswith((".codes", ".scale")))
    assert payload == plan.payload_bytes
    size = path.stat().st_size
    assert size <= plan.total_bytes <= size + 16 * len(tensors)


def test_it_computes_what_the_plan_promised(case):
    name, model, batch, plan, path = case
    expected = model.with_weights(quantized_weights(model, plan.widths)).run(batch)
    module = load_quantized(path, MODELS[name][0])
    torch.backends.mha.set_fastpath_enabled(False)
    with torch.no_grad():
        found = module(torch.from_numpy(batch)).numpy()
    torch.backends.mha.set_fastpath_enabled(True)
    # Other weights in memory may mean other kernels.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    again = read(MODELS[name][0](), weights=path, input_shape=MODELS[name][1])
    np.testing.assert_array_equal(again.run(batch), expected)
    assert again.stored_bits() == {layer: (bits, None) for layer, bits in plan.widths.items()}
    assert again.file_bytes() == path.stat().st_size


def test_bytes_for_codes_where_asked(tmp_path):
    model, batch = read_named("packed")
    plan = mixed_plan(model, container="int8")
    path = apply(model, plan, tmp_path / "q.safetensors").path
    file = packed.read(path)
    assert {record.container for record in file.records.values()} == {"int8"}
    expected = model.with_weights(quantized_weights(model, plan.widths)).run(batch)
    np.testing.assert_array_equal(
        read(MODELS["packed"][0](), weights=path, input_shape=(3, 8, 8)).run(batch), expected
    )


@pytest.mark.parametrize(("container", "block"), [("bitplane", None), ("int8", None), ("bitplane", 8)])
def test_what_a_file_stores_is_read_back_to_the_byte(tmp_path, container, block):
    model = read(LinearNet().eval(), input_shape=(24,))
    measured = profile(model, bits=WIDTHS, container=container, block=block)
    plan = build_plan(measured, np.array([1, 3]), mode="uniform", budget={"average_bits": 5})
    path = apply(model, plan, tmp_path / "q.safetensors")
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    found = {weight.layer.name: weight for weight in adapters.stored(path)}
    assert set(found) == set(plan.widths)
    for layer in plan.layers:
        parts = (tensors[model.parameters[layer.name] + suffix] for suffix in (".codes", ".scale"))
        assert found[layer.name].payload_bytes == sum(part.nbytes for part in parts) == layer.payload_bytes
        assert (found[layer.name].container, found[layer.name].weight_bits) == (container, layer.weight_bits)


def test_partial_plans_leave_the_rest_float(tmp_path):
    model, batch = read_named("windows")
    plan = mixed_plan(model)
    part = dataclasses.replace(plan, layers=plan.layers[1:3])
    path = apply(model, part, tmp_path / "q.safetensors", partial=True).path
    found = read(MODELS["windows"][0](), weights=path, input_shape=(3, 8, 8))
    expected = model.with_weights(quantized_weights(model, part.widths)).run(batch)
    np.testing.assert_array_equal(found.run(batch), expected)
    assert set(found.stored_bits()) == set(part.widths)


class LinearNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = torch.nn.Linear(24, 32), torch.nn.Linear(32, 10, bias=False)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))


@pytest.mark.parametrize("act_bits", [None, 8])
def test_integer_products_equal_rounding_in_float(tmp_path, act_bits):
    batch = np.random.default_rng(0).normal(size=(9, 24)).astype(np.float32)
    model = read(LinearNet().eval(), input_shape=(24,))
    plan = mixed_plan(model, batch, act_bits=act_bits)
    path = apply(model, plan, tmp_path / "q.safetensors").path
    module = load_quantized(path, LinearNet, int8=True)
    assert [type(m).__name__ for m in module.children()] == ["Int8Linear", "Int8Linear"]
    records = packed.read(path).records
    x = batch
    weights = quantized_weights(model, plan.widths)
    bias = model.module.a.bias.detach().numpy()
    for name, add in (("a", bias), ("b", 0)):
        if act_bits is None:
            scale = np.maximum(np.abs(x).max(1, keepdims=True), 1e-12) / 127
            rounded = np.rint(x / scale) * scale
        else:
            grid = records[f"{name}.weight"].activation_grid
            rounded = grid.apply(x)
        x = rounded.astype(np.float64) @ weights[name].T.astype(np.float64) + add
        x = (np.maximum(x, 0) if name == "a" else x).astype(np.float32)
    with torch.no_grad():
        found = module(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(found, x, rtol=2e-4, atol=2e-4)
    assert module.a.weight.shape == (32, 24)


def test_integer_products_leave_attention_alone(tmp_path):
    model, batch = read_named("packed")
    path = apply(model, mixed_plan(model), tmp_path / "q.safetensors").path
    module = load_quantized(path, MODELS["packed"][0], int8=True)
    assert type(module.head).__name__ == "Int8Linear"
    assert isinstance(module.transformer.layers[0].self_attn.out_proj, torch.nn.Linear)
    with torch.no_grad():
        assert torch.isfinite(module(torch.from_numpy(batch))).all()


def test_activation_widths_and_ranges_travel_with_the_file(tmp_path):
    model, batch = read_named("packed")
    path = apply(model, mixed_plan(model, batch, act_bits=6), tmp_path / "q.safetensors").path
    seen = model.calibrate(batch)
    for record in packed.read(path).records.values():
        assert record.activation_bits == 6
        assert record.activation_grid == seen[record.layer].grid(6, "mse")


def test_a_file_from_a_factory_asks_for_it_and_runs_nothing(tmp_path):
    source = tmp_path / "nets.py"
    source.write_text("from torch_models import PackedViT\n\ndef build():\n    return PackedViT()\n")
    model = adapters.read(f"{source}:build", input_shape=(3, 8, 8))
    path = apply(model, mixed_plan(model), tmp_path / "q.safetensors").path
    assert str(tmp_path) not in json.dumps(packed.read(path).origin)
    with pytest.raises(AdapterError, match=r"nets\.py:build --weights q\.safetensors"):
        adapters.read(path)
    found = adapters.read(f"{source}:build", weights=path, input_shape=(3, 8, 8))
    batch = make_batch((3, 8, 8))
    torch.backends.mha.set_fastpath_enabled(False)
    with torch.no_grad():
        expected = load_quantized(path, f"{source}:build")(torch.from_numpy(batch)).numpy()
    torch.backends.mha.set_fastpath_enabled(True)
    np.testing.assert_array_equal(found.run(batch), expected)


def test_other_formats_are_not_written(tmp_path):
    model, _ = read_named("windows")
    with pytest.raises(AdapterError, match=r"written as \.safetensors"):
        apply(model, mixed_plan(model), tmp_path / "q.pth")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_behind_where_the_check_fails(tmp_path, monkeypatch):
    model, _ = read_named("windows")
    plan = mixed_plan(model)
    pack = packed.packing.pack
    monkeypatch.setattr(packed.packing, "pack", lambda codes, bits: pack(codes ^ 1, bits))
    with pytest.raises(AdapterError, match="does not compute what it should"):
        apply(model, plan, tmp_path / "q.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(version=99), "version 99"),
        (lambda c: c["weights"]["qkv.weight"].update(bits=9), "does not fit"),
        (lambda c: c["weights"]["qkv.weight"].update(bits=5), "bytes of codes"),
        (lambda c: c["weights"]["qkv.weight"].pop("shape"), "damaged"),
        (lambda c: c["weights"].update(nowhere=c["weights"]["qkv.weight"]), "damaged"),
    ],
)
def test_damaged_files_are_told(tmp_path, change, words):
    from safetensors.torch import load_file, save_file

    model, _ = read_named("windows")
    path = apply(model, mixed_plan(model), tmp_path / "q.safetensors").path
    with safe_open(path, framework="pt") as file:
        content = json.loads(file.metadata()["lampq"])
    change(content)
    save_file(load_file(path), path, metadata={"lampq": json.dumps(content)})
    with pytest.raises(AdapterError, match=words):
        packed.read(path)
