"""Sites of PyTorch models: found, rounded by a plan, written, and rounded again by what was written."""

import dataclasses

import numpy as np
import pytest
import torch
import torchvision_ops  # noqa: F401
from torch_models import PackedViT, read_named, seeded

import lampq
from lampq.adapters.torch import read
from lampq.adapters.torch.site_samples import site_samples
from lampq.core.measuring.reference import measure_reference
from lampq.core.measuring.setting import Setting
from lampq.core.treatments.choice import best_rule
from lampq.core.values.activation_grid import TokenGrid
from lampq.core.values.fitted import Fitted
from lampq.core.values.plan_product import PlanProduct

# isort: split
import timm
import transformers


def timm_vit():
    build = seeded(
        timm.models.VisionTransformer,
        img_size=16,
        patch_size=8,
        embed_dim=24,
        depth=2,
        num_heads=3,
        num_classes=4,
    )
    return read(build), (3, 16, 16)


def hugging_face_vit():
    config = transformers.ViTConfig(
        image_size=16,
        patch_size=8,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=48,
        num_labels=4,
        hidden_dropout_prob=0.0,
    )
    return read(seeded(transformers.ViTForImageClassification, config)), (3, 16, 16)


def images(shape, samples=6):
    return np.random.default_rng(1).normal(size=(samples, *shape)).astype(np.float32)


@pytest.mark.parametrize("make", [timm_vit, hugging_face_vit])
def test_the_products_of_attention_are_found_with_their_sizes(make):
    model, _ = make()
    products = model.products()
    assert [product.name.partition("@")[2] for product in products] == ["scores", "context"] * 2
    scores, context = products[:2]
    tokens, heads, width = 5, 3, 8
    assert scores.left_values == scores.right_values == heads * tokens * width
    assert context.left_values == heads * tokens * tokens
    assert scores.macs == context.macs == heads * tokens * tokens * width
    assert [site.partition("@")[2] for site in (*scores.sites, *context.sites)] == [
        "queries",
        "keys",
        "probabilities",
        "values",
    ]


def planned(model, batch, bits=4, quantizers=None):
    """A plan with one width everywhere, and the best quantizer of every site."""
    reference = measure_reference(model, batch)
    sites = [*model.parameters.values(), *(site for p in model.products() for site in p.sites)]
    seen = site_samples(model.variant, reference.inputs, reference.readout, sites)
    rules = {name: best_rule(one, bits, quantizers).fitted() for name, one in seen.items()}
    profile = lampq.profile(model, batch, bits=(bits,), fisher_draws=0)
    plan = lampq.plan(profile, average_bits=bits)
    layers = [
        dataclasses.replace(layer, activation_bits=bits, quantizer=rules[model.parameters[layer.name]])
        for layer in plan.layers
    ]
    products = [PlanProduct(product=p, left=rules[p.left], right=rules[p.right]) for p in model.products()]
    return dataclasses.replace(plan, layers=tuple(layers), products=tuple(products))


@pytest.mark.parametrize("make", [timm_vit, hugging_face_vit])
def test_plan_file_and_reloaded_module_compute_the_same(make, tmp_path):
    model, shape = make()
    batch = images(shape)
    plan = planned(model, batch)
    plan.write(tmp_path / "plan.json")
    plan = lampq.Plan.read(tmp_path / "plan.json")
    assert len({layer.quantizer.tag for layer in plan.layers}) >= 1 and len(plan.products) == 4
    expected = np.asarray(lampq.fake_quantize(model, plan).run(batch))
    assert np.abs(expected - np.asarray(model.run(batch))).max() > 1e-3
    lampq.apply(model, plan, tmp_path / "q.safetensors")
    again = make()[0].module
    module = lampq.load_quantized(tmp_path / "q.safetensors", again)
    assert module is again
    with torch.no_grad():
        for part in (slice(0, 6), slice(0, 1), slice(2, 5)):
            out = module(torch.from_numpy(batch[part]))
            logits = out if isinstance(out, torch.Tensor) else out.logits
            np.testing.assert_allclose(logits.numpy(), expected[part], atol=1e-5)
    evaluated = lampq.evaluate(model, batch, plan=plan).kl
    written = read(make()[0].module, weights=tmp_path / "q.safetensors")
    assert lampq.evaluate(written, batch, reference=model).kl == pytest.approx(evaluated, rel=1e-4)


def test_a_packed_vit_rounds_by_position_alike_in_tapes_and_modules(tmp_path):
    model, batch = read_named("packed")
    plan = planned(model, batch, quantizers=["noise", "dither", "log2"])
    tags = {layer.quantizer.tag for layer in plan.layers}
    assert "noise" in tags
    lampq.apply(model, plan, tmp_path / "q.safetensors")
    expected = np.asarray(lampq.fake_quantize(model, plan).run(batch))
    module = lampq.load_quantized(tmp_path / "q.safetensors", seeded(PackedViT))
    with torch.no_grad():
        np.testing.assert_allclose(module(torch.from_numpy(batch)).numpy(), expected, atol=1e-5)
        np.testing.assert_allclose(module(torch.from_numpy(batch[1:3])).numpy(), expected[1:3], atol=1e-5)


def test_gradients_predict_the_damage_of_rounding_one_site():
    model, batch = read_named("packed")
    reference = measure_reference(model, batch)
    for product in model.products():
        seen = site_samples(model.variant, reference.inputs, reference.readout, product.sites)
        for side, site in zip(("left", "activation"), product.sites, strict=True):
            rule = TokenGrid(bits=8)
            rounded = model.with_weights({product.name: Setting(**{side: rule})})
            damage = reference.damage(rounded.run(batch))
            assert seen[site].loss(rule) == pytest.approx(damage, rel=0.25, abs=1e-9)


def test_a_sweep_of_products_is_what_whole_runs_give():
    model, batch = read_named("packed")
    base = model.with_weights({"head": Setting(activation=TokenGrid(bits=4))})
    settings = [
        (product.name, bits, Setting(left=TokenGrid(bits=bits), activation=TokenGrid(bits=2)))
        for product in model.products()
        for bits in (2, 5)
    ]
    for name, bits, outputs in base.sweep(batch, settings):
        setting = next(s for n, b, s in settings if (n, b) == (name, bits))
        whole = base.with_weights({name: setting}).run(batch)
        np.testing.assert_allclose(outputs, whole, atol=1e-5)


def test_what_cannot_be_is_said_in_one_line(tmp_path):
    model, batch = read_named("packed")
    plan = planned(model, batch)
    product = plan.products[0]
    other = dataclasses.replace(product, product=dataclasses.replace(product.product, name="b@scores"))
    with pytest.raises(lampq.PlanError, match=r"it lacks the products b@scores; pass --partial"):
        lampq.fake_quantize(model, dataclasses.replace(plan, products=(other,)))
    partial = lampq.fake_quantize(model, dataclasses.replace(plan, products=(other,)), partial=True)
    assert not partial.variant.rounding.products
    unknown = dataclasses.replace(product, left=Fitted(tag="sparkle", bits=3))
    with pytest.raises(lampq.RecordError, match="quantizer 'sparkle' is none of"):
        lampq.fake_quantize(model, dataclasses.replace(plan, products=(unknown,)))
    with pytest.raises(lampq.PlanError, match="a quantizer of 3 bits for 4 activation bits"):
        dataclasses.replace(plan.layers[0], quantizer=Fitted(tag="token", bits=3))


def test_other_formats_name_what_they_cannot_round():
    from numpy_model import NumpyModel

    model = NumpyModel.random()
    batch = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    plan = lampq.plan(lampq.profile(model, batch, bits=(4,), fisher_draws=0), average_bits=4)
    packed, _ = read_named("packed")
    product = PlanProduct(product=packed.products()[0], left=Fitted(tag="token", bits=4))
    with pytest.raises(
        lampq.AdapterError,
        match=r"cannot round .*@queries \(token of 4 bits\).*layers' inputs to 8 bits on one range",
    ):
        lampq.fake_quantize(model, dataclasses.replace(plan, products=(product,)))
