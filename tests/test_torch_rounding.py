"""Rounded activations against forward passes written out by hand."""

import numpy as np
import pytest
import torch
import torchvision_ops  # noqa: F401
from torch.nn import functional
from torch_models import MODELS, make_batch, read_named

from lampq.adapters.torch import read
from lampq.core.measuring.setting import Setting
from lampq.core.values.activation_grid import ActivationGrid, TokenGrid
from lampq.core.values.errors import AdapterError, RecordError

# isort: split
import timm
import transformers


def apply(rule, tensor, axis=-1):
    """The rule in NumPy; a token is a line along `axis`."""
    moved = np.moveaxis(tensor.detach().numpy(), axis, -1)
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(rule.apply(moved), -1, axis)))


def packed_by_hand(module, x, rules):
    """The forward pass of `PackedViT`, rounding by name of the place; places without a rule stay float."""

    def at(name, tensor, axis=-1):
        return apply(rules[name], tensor, axis) if name in rules else tensor

    if isinstance(rules.get("patch_embed"), TokenGrid):
        x = at("patch_embed", x.flatten(1)).reshape(x.shape)
    else:
        x = at("patch_embed", x)
    x = module.patch_embed(x).flatten(2).transpose(1, 2)
    x = torch.cat([module.cls_token.expand(len(x), -1, -1), x], dim=1)
    n, t, d = x.shape
    for i, block in enumerate(module.transformer.layers):
        path = f"transformer.layers.{i}"
        attention = block.self_attn
        packed = functional.linear(
            at(f"{path}.self_attn.in_proj", x), attention.in_proj_weight, attention.in_proj_bias
        )
        q, k, v = (part.reshape(n, t, 2, d // 2).transpose(1, 2) for part in packed.chunk(3, -1))
        # The scale is shared between the factors.
        q, k = q * (d // 2) ** -0.25, k * (d // 2) ** -0.25
        scores = at(f"{path}.self_attn@queries", q) @ at(f"{path}.self_attn@keys", k).mT
        p = at(f"{path}.self_attn@probabilities", scores.softmax(-1))
        context = (p @ at(f"{path}.self_attn@values", v, -2)).transpose(1, 2).reshape(n, t, d)
        x = block.norm1(x + attention.out_proj(at(f"{path}.self_attn.out_proj", context)))
        hidden = functional.relu(block.linear1(at(f"{path}.linear1", x)))
        x = block.norm2(x + block.linear2(at(f"{path}.linear2", hidden)))
    return module.head(at("head", x[:, 0]))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("products", [False, True])
def test_a_transformer_written_out_by_hand(bits, dynamic, products):
    model, batch = read_named("packed")
    found = model.calibrate(batch, products=products)
    assert len(found) == len(model.layers()) + (8 if products else 0)
    rules = {
        name: TokenGrid(bits=bits) if dynamic else histogram.grid(bits) for name, histogram in found.items()
    }
    layers = {name: Setting(activation=rule) for name, rule in rules.items() if "@" not in name}
    rounded = model.with_weights(layers).with_products({n: r for n, r in rules.items() if "@" in n})
    with torch.no_grad():
        expected = packed_by_hand(model.module, torch.from_numpy(batch), rules)
    assert not np.allclose(model.run(batch), expected, atol=1e-3)
    np.testing.assert_allclose(rounded.run(batch), expected, atol=2e-5)
    # The model itself is as it was.
    with torch.no_grad():
        plain = packed_by_hand(model.module, torch.from_numpy(batch), {})
    np.testing.assert_allclose(model.run(batch), plain, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_sweep_of_settings_is_what_whole_runs_give(name):
    model, batch = read_named(name)
    grids = {layer: found.grid(3) for layer, found in model.calibrate(batch).items()}
    coarse = {layer: np.round(model.weight(layer), 1) for layer in model.parameters}
    base = model.with_weights({layer: Setting(activation=grid) for layer, grid in grids.items()})
    for start in (model, base):
        candidates = []
        for layer in model.parameters:
            grid = grids.get(layer)
            candidates += [
                (layer, 0, Setting(weight=coarse[layer], activation=grid)),
                (layer, 1, coarse[layer]),
                (layer, 2, Setting(activation=None)),
            ]
        swept = list(start.sweep(batch, iter(candidates)))
        assert [(layer, option) for layer, option, _ in swept] == [c[:2] for c in candidates]
        for (layer, _, logits), (_, _, change) in zip(swept, candidates, strict=True):
            np.testing.assert_allclose(
                logits, start.with_weights({layer: change}).run(batch), rtol=1e-5, atol=1e-5
            )


@pytest.mark.parametrize("name", MODELS)
def test_taps_of_a_rounded_model_are_inputs_before_their_own_rounding(name):
    model, batch = read_named(name)
    grids = {layer: found.grid(2) for layer, found in model.calibrate(batch).items()}
    rounded = model.with_weights({layer: Setting(activation=grid) for layer, grid in grids.items()})
    first, seen = next(iter(rounded.taps(batch)))[:2]
    np.testing.assert_array_equal(seen, next(iter(model.taps(batch)))[1])
    later = [values for layer, values, _ in rounded.taps(batch) if layer != first]
    plain = [values for layer, values, _ in model.taps(batch) if layer != first]
    assert any(not np.array_equal(a, b) for a, b in zip(later, plain, strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_histograms_hold_every_value_of_every_input(name):
    model, batch = read_named(name)
    found = model.calibrate(batch)
    inputs = {}
    for layer, values, _ in model.taps(batch):
        inputs.setdefault(layer, []).append(values.ravel())
    assert set(found) == set(inputs)
    for layer, parts in inputs.items():
        values = np.concatenate(parts)
        assert (found[layer].low, found[layer].high) == (values.min(), values.max())
        assert found[layer].counts.sum() == values.size


def test_attention_of_timm_fused_or_not():
    batch = np.random.default_rng(0).normal(size=(3, 3, 32, 32)).astype(np.float32)
    results, places = [], []
    for fused in (True, False):
        torch.manual_seed(0)
        module = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=7).eval()
        for block in module.blocks:
            block.attn.fused_attn = fused
        model = read(module, input_shape=(3, 32, 32))
        found = model.calibrate(batch, products=True)
        places.append(list(found))
        layers = {n: Setting(activation=h.grid(4)) for n, h in found.items() if "@" not in n}
        # The two forms share the scale between queries and keys differently; a grid does not care.
        products = {n: h.grid(4) for n, h in found.items() if "@" in n}
        results.append(model.with_weights(layers).with_products(products).run(batch))
    assert places[0] == places[1]
    assert [name for name in places[0] if "@" in name] == [
        f"blocks.{i}.attn@{role}" for i in range(2) for role in ("queries", "keys", "probabilities", "values")
    ]
    np.testing.assert_allclose(results[0], results[1], rtol=1e-3, atol=1e-3)


def test_attention_of_transformers_fused_or_not():
    config = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "image_size": 16,
        "patch_size": 8,
        "num_labels": 5,
    }
    batch = np.random.default_rng(0).normal(size=(3, 3, 16, 16)).astype(np.float32)
    results, counts = [], []
    for attention in ("sdpa", "eager"):
        torch.manual_seed(0)
        settings = transformers.ViTConfig(**config, attn_implementation=attention)
        module = transformers.ViTForImageClassification(settings).eval()
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        model = read(module, input_shape=(3, 16, 16))
        found = model.calibrate(batch, products=True)
        counts.append([name.partition("@")[2] for name in found if "@" in name])
        layers = {n: Setting(activation=TokenGrid(bits=4)) for n in found if "@" not in n}
        products = {n: TokenGrid(bits=4) for n in found if "@" in n}
        results.append(model.with_weights(layers).with_products(products).run(batch))
        assert not np.allclose(results[-1], model.run(batch), atol=1e-2)
    assert counts[0] == counts[1] == ["queries", "keys", "probabilities", "values"] * 2
    np.testing.assert_allclose(results[0], results[1], rtol=1e-3, atol=1e-3)


def test_products_of_windows_and_of_a_left_over_kind():
    model, batch = read_named("windows")
    names = [name for name in model.calibrate(batch, products=True) if "@" in name]
    assert names == ["@queries", "@keys", "@probabilities", "@values"]


def test_bad_input():
    model, _ = read_named("packed")
    grid = ActivationGrid.from_range(-1, 1, 4)
    with pytest.raises(AdapterError, match=r"no product nowhere; it has transformer"):
        model.with_products({"nowhere": grid})
    with pytest.raises(AdapterError, match="no layer 'nowhere'"):
        model.with_weights({"nowhere": Setting(activation=grid)})
    with pytest.raises(RecordError, match=r"activations at patch_embed\.weight are not finite"):
        model.calibrate(np.full_like(make_batch((3, 8, 8)), np.nan))
