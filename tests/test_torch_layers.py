import math

import numpy as np
import pytest
import torch
from torch_models import MODELS, Functional, make_batch, read_named, seeded

from lampq.adapters.torch import read
from lampq.adapters.torch.survey import _axis_indices, _box


def by_name(model):
    return {layer.name: layer for layer in model.layers()}


def test_packed_attention_is_one_layer():
    model, _ = read_named("packed")
    layers = by_name(model)
    parts = ("self_attn.in_proj", "self_attn.out_proj", "linear1", "linear2")
    blocks = [f"transformer.layers.{i}.{part}" for i in range(2) for part in parts]
    assert list(layers) == ["patch_embed", *blocks, "head"]
    kinds = [layer.kind for layer in layers.values()]
    assert kinds == ["patch_embed", *(["qkv", "proj", "fc1", "fc2"] * 2), "head"]
    assert layers["transformer.layers.0.self_attn.in_proj"].shape == (48, 16)
    assert all(layer.channel_axis == 0 for layer in layers.values())
    assert dict(model.skipped) == {"cls_token": "used by cat"}


def test_weights_that_no_module_owns():
    model, _ = read_named("functional")
    layers = by_name(model)
    axes = {name: layer.channel_axis for name, layer in layers.items()}
    assert axes == {"inputs_first": 1, "left": 0, "experts": 2, "packed": 0, "shared": 0}
    assert layers["shared"].shares == ("shared",)
    reasons = dict(model.skipped)
    assert reasons["unused"] == "does not influence the output"
    assert reasons["small"] == "only 36 weights"
    assert reasons["head.weight"] == "only 27 weights"
    assert reasons["table"] == "multiplies a constant"
    assert reasons["scale"] == "used by mean"


def test_a_tied_table_counts_once_and_tables_alone_unless_refused():
    model, _ = read_named("tokens")
    (table, mix) = model.layers()
    assert (table.name, table.kind, table.shares) == ("embed", "head", ("embed",))
    assert mix.name == "mix"
    assert dict(model.skipped)["place.weight"].startswith("looked up in the same places")

    class Lookup(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Embedding(600, 8)

        def forward(self, ids):
            return self.embed(ids).mean(1)

    refused = read(seeded(Lookup), input_shape=(6,), embeddings=False)
    assert "embeddings=True" in dict(refused.skipped)["embed.weight"]
    (layer,) = read(seeded(Lookup), input_shape=(6,)).layers()
    assert (layer.name, layer.shape) == ("embed", (600, 8))


def test_layer_kinds_can_be_set():
    model, _ = read_named("windows", kinds={"reduction": "fc1", "*": "linear"})
    assert {layer.kind for layer in model.layers()} == {"linear"}
    model, _ = read_named("windows", kinds={"reduction": "fc1"})
    kinds = {layer.name: layer.kind for layer in model.layers()}
    assert kinds["reduction"] == "fc1"
    assert kinds["embed"] == "patch_embed"
    assert "head" not in kinds


@pytest.mark.parametrize("name", MODELS)
def test_replaced_weights_reach_every_use(name):
    model, batch = read_named(name)
    rng = np.random.default_rng(0)
    values = {layer.name: rng.normal(size=layer.shape).astype(np.float32) * 0.3 for layer in model.layers()}
    module = MODELS[name][0]()
    with torch.no_grad():
        for layer, value in values.items():
            module.get_parameter(model.parameters[layer]).copy_(torch.from_numpy(value))
        expected = module(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(model.with_weights(values).run(batch), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_sweep_equals_one_full_run_per_candidate(name):
    model, batch = read_named(name, batch_size=2)
    rng = np.random.default_rng(0)
    candidates = [
        (layer.name, option, model.weight(layer.name) + rng.normal(size=layer.shape).astype(np.float32) * 0.1)
        for layer in model.layers()
        for option in range(2)
    ]
    # Backwards too: any order must be right.
    for order in (candidates, candidates[::-1]):
        found = list(model.sweep(batch, iter(order)))
        assert [(n, o) for n, o, _ in found] == [(n, o) for n, o, _ in order]
        for (layer, _, weight), (_, _, logits) in zip(order, found, strict=True):
            expected = model.with_weights({layer: weight}).run(batch)
            np.testing.assert_array_equal(logits, expected)


def test_taps_are_what_hooks_on_modules_see():
    model, batch = read_named("convolutions", batch_size=2)
    seen = {}
    module = MODELS["convolutions"][0]()
    for name, child in module.named_modules():
        if isinstance(child, (torch.nn.Linear, torch.nn.modules.conv._ConvNd)):
            child.register_forward_hook(
                lambda _, args, out, name=name: seen.update({name: (args[0].clone(), out)})
            )
    with torch.no_grad():
        module(torch.from_numpy(batch))
    found = {}
    for name, values, positions in model.taps(batch):
        found.setdefault(name, []).append((values, positions))
    layers = by_name(model)
    assert set(found) == set(layers) < set(seen)
    for name, parts in found.items():
        expected, output = seen[name]
        # Sizes of batches decide how kernels add up: rounding may differ, and ReLU is applied in place.
        values = np.concatenate([values for values, _ in parts])
        np.testing.assert_allclose(values, expected.numpy(), rtol=1e-5, atol=1e-6)
        multiplications = output[0].numel() * layers[name].size // layers[name].channels
        assert {positions for _, positions in parts} == {multiplications // layers[name].size}


def test_positions_count_every_use_of_a_shared_and_of_a_partly_used_weight():
    model, batch = read_named("functional")
    positions = {name: count for name, _, count in model.taps(batch)}
    rows = 5
    assert positions == {
        "inputs_first": rows,
        "left": rows,
        "experts": rows,
        "packed": rows,
        "shared": 2 * rows,
    }


def test_linear_taps_come_as_rows():
    model, batch = read_named("packed")
    values = {name: tap for name, tap, _ in model.taps(batch)}
    assert values["transformer.layers.0.self_attn.in_proj"].shape == (5 * 5, 16)
    assert values["patch_embed"].shape == batch.shape
    model, batch = read_named("functional")
    assert {name: tap.shape[-1] for name, tap, _ in model.taps(batch)}["left"] == 16


def test_a_model_of_a_fixed_batch_size_runs_any_number_of_samples():
    from lampq.adapters.torch.model import TorchModel
    from lampq.adapters.torch.provenance import Provenance
    from lampq.adapters.torch.runtime import Runtime

    free, batch = read_named("packed")
    runtime = Runtime(MODELS["packed"][0](), input_shape=(3, 8, 8), fixed_batch=2)
    fixed = TorchModel.of(runtime, Provenance(path=free.path))
    assert fixed.input_spec.shape == (2, 3, 8, 8)
    np.testing.assert_allclose(fixed.run(batch), free.run(batch), rtol=1e-5, atol=1e-5)
    # Samples that only fill a batch up are in no tap.
    for (_, a, p), (_, b, q) in zip(_joined(fixed.taps(batch)), _joined(free.taps(batch)), strict=True):
        np.testing.assert_allclose(np.sort(a, axis=0), np.sort(b, axis=0), rtol=1e-4, atol=1e-4)
        assert p == q


def _joined(taps):
    found = {}
    for name, values, positions in taps:
        found.setdefault(name, ([], positions))[0].append(values)
    return [(name, np.concatenate(values), positions) for name, (values, positions) in found.items()]


def test_statistics_and_sizes_of_the_records():
    model, _ = read_named("packed")
    module = MODELS["packed"][0]()
    total = sum(p.numel() for p in module.parameters())
    rest = total * 4 - sum(layer.size for layer in model.layers()) * 4
    assert rest < model.rest_bytes() < rest + 500 * len(list(module.parameters()))
    assert model.file_bytes() == total * 4
    for layer in model.layers():
        weight = module.get_parameter(model.parameters[layer.name]).detach().numpy()
        np.testing.assert_array_equal(model.weight(layer.name), weight)
        assert layer.size == math.prod(weight.shape)
        assert layer.weight.mean.shape == (layer.channels,)


def test_the_digest_is_of_the_weights():
    model, _ = read_named("packed")
    again, _ = read_named("packed")
    assert model.digest == again.digest
    assert model.with_weights({"head": np.zeros((4, 16))}).digest == model.digest
    other = read(seeded(Functional), input_shape=(5, 12))
    assert other.digest != model.digest


def test_input_shapes_are_found_by_trying():
    model = read(MODELS["packed"][0]())
    # Any image will do without position embeddings; the first guess is the usual size.
    assert model.input_spec.shape == (None, 3, None, None)
    assert model.input_spec.dtype == "float32"
    assert read(MODELS["tokens"][0]()).input_spec.shape == (None, None)
    assert read(MODELS["tokens"][0]()).input_spec.dtype == "int64"
    assert make_batch((6,)).dtype == np.int64


def test_a_survey_reads_no_entry_of_a_weight_twice():
    """A weight of 2^60 entries: reading each of its indices would take years."""
    indices = _axis_indices((1 << 20,) * 3)
    assert _box(indices) == ((0, (1 << 20) - 1),) * 3
    part = [index[:, 4:6].transpose(0, 1) for index in indices]
    assert _box(part) == ((0, (1 << 20) - 1), (4, 5), (0, (1 << 20) - 1))
