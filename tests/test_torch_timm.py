"""Models of timm and torchvision, small and random."""

import numpy as np
import pytest
import torch
import torchvision_ops  # noqa: F401
from safetensors.torch import save_file

from lampq import adapters
from lampq.adapters.torch import read
from lampq.core.allocating.allocation import build_plan
from lampq.core.measuring.measure import quantized_weights
from lampq.core.values.errors import AdapterError
from lampq.verbs.apply import apply
from lampq.verbs.profile import profile

# isort: split
import timm
import torchvision

TIMM = {
    "vit": ("vit_tiny_patch16_224", {"img_size": 32, "depth": 2}),
    "deit": ("deit_tiny_distilled_patch16_224", {"img_size": 32, "depth": 2}),
    "beit": ("beit_base_patch16_224", {"img_size": 32, "depth": 2, "embed_dim": 48, "num_heads": 3}),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"img_size": 56, "depths": (2, 2), "embed_dim": 24, "num_heads": (2, 2)},
    ),
    "swinv2": (
        "swinv2_tiny_window8_256",
        {"img_size": 64, "depths": (2, 2), "embed_dim": 24, "num_heads": (2, 2)},
    ),
}
BLOCK = {"qkv": 2, "proj": 2, "fc1": 2, "fc2": 2}
KINDS = {
    "vit": {"patch_embed": 1, **BLOCK, "head": 1},
    "deit": {"patch_embed": 1, **BLOCK, "head": 2},
    "beit": {"patch_embed": 1, **BLOCK, "head": 1},
    "swin": {"patch_embed": 1, **dict.fromkeys(BLOCK, 4), "linear": 1, "head": 1},
    "swinv2": {"patch_embed": 1, **dict.fromkeys(BLOCK, 4), "linear": 1, "head": 1},
}


def build(name):
    torch.manual_seed(0)
    architecture, options = TIMM[name]
    return timm.create_model(architecture, pretrained=False, num_classes=7, **options).eval()


@pytest.mark.parametrize("name", TIMM)
def test_families_of_timm(name):
    module = build(name)
    side = TIMM[name][1]["img_size"]
    batch = np.random.default_rng(0).normal(size=(2, 3, side, side)).astype(np.float32)
    model = read(module, input_shape=(3, side, side))
    kinds = [layer.kind for layer in model.layers()]
    assert {kind: kinds.count(kind) for kind in kinds} == KINDS[name]
    linear = {
        n.removesuffix(".weight")
        for n, p in module.named_parameters()
        if n.endswith("weight") and p.dim() >= 2 and "cpb_mlp" not in n
    }
    assert {layer.name for layer in model.layers()} == linear
    with torch.no_grad():
        expected = module(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(model.run(batch), expected, rtol=1e-5, atol=1e-5)
    # One layer in the middle, replaced without repeating what comes before it.
    layer = model.layers()[len(kinds) // 2]
    weight = np.zeros(layer.shape, np.float32)
    ((_, _, logits),) = model.sweep(batch, [(layer.name, 0, weight)])
    np.testing.assert_allclose(
        logits, model.with_weights({layer.name: weight}).run(batch), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    ("make", "kinds"),
    [
        (
            lambda: torchvision.models.VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=7),
            {"patch_embed": 1, **BLOCK, "head": 1},
        ),
        (
            lambda: torchvision.models.SwinTransformer([4, 4], 24, [2, 2], [2, 2], [4, 4], num_classes=7),
            {"patch_embed": 1, **dict.fromkeys(BLOCK, 4), "linear": 1, "head": 1},
        ),
    ],
)
def test_families_of_torchvision(make, kinds):
    torch.manual_seed(0)
    module = make().eval()
    model = read(module, input_shape=(3, 32, 32))
    found = [layer.kind for layer in model.layers()]
    assert {kind: found.count(kind) for kind in found} == kinds
    batch = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(model.run(batch), expected, rtol=1e-4, atol=1e-5)


def test_names_of_timm_take_their_classes_from_the_checkpoint(tmp_path):
    torch.manual_seed(0)
    module = timm.create_model("test_vit", pretrained=False, num_classes=7).eval()
    weights = tmp_path / "weights.safetensors"
    save_file(module.state_dict(), weights)
    model = adapters.read("timm:test_vit", weights=weights)
    size = module.pretrained_cfg["input_size"]
    assert model.input_spec.shape == (None, *size)
    batch = np.random.default_rng(0).normal(size=(2, *size)).astype(np.float32)
    with torch.no_grad():
        np.testing.assert_allclose(
            model.run(batch), module(torch.from_numpy(batch)).numpy(), rtol=1e-5, atol=1e-6
        )
    measured = profile(model)
    plan = build_plan(
        measured, np.arange(len(measured.layers)) % 7, mode="uniform", budget={"average_bits": 5}
    )
    path = apply(model, plan, tmp_path / "q.safetensors").path
    expected = model.with_weights(quantized_weights(model, plan.widths)).run(batch)
    for again in (adapters.read(path), adapters.read("timm:test_vit", weights=path)):
        np.testing.assert_allclose(again.run(batch), expected, rtol=1e-5, atol=1e-6)
        assert {layer: bits for layer, (bits, _) in again.stored_bits().items()} == plan.widths


def test_names_of_timm_that_cannot_be_read(tmp_path):
    with pytest.raises(AdapterError, match="nothing is downloaded"):
        adapters.read("timm:test_vit")
    with pytest.raises(AdapterError, match="has no model no_such_vit"):
        adapters.read("timm:no_such_vit", weights=tmp_path)
