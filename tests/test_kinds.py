from __future__ import annotations

import pytest

from lampq.adapters.kinds import infer_kind, kind_from_name, override_kinds
from lampq.core.values.errors import AdapterError

# Names as timm, transformers, torchvision and torch give them.
KNOWN = {
    "patch_embed": [
        "patch_embed.proj",
        "vit.embeddings.patch_embeddings.projection",
        "vision_model.embeddings.patch_embedding",
        "embeddings.patch_embed.proj",
        "segformer.encoder.patch_embeddings.0.proj",
        "conv_proj",
        "to_patch_embedding.2",
        "visual.conv1",
    ],
    "qkv": [
        "blocks.0.attn.qkv",
        "layers.0.blocks.1.attn.qkv",
        "features.1.0.attn.qkv",
        "transformer.layers.0.self_attn.in_proj",
        "encoder.layers.encoder_layer_0.self_attention.in_proj",
        "transformer.layers.0.0.to_qkv",
    ],
    "q": [
        "vit.encoder.layer.0.attention.attention.query",
        "swin.encoder.layers.0.blocks.0.attention.self.query",
        "vit.layers.3.attention.q_proj",
    ],
    "k": ["vit.encoder.layer.0.attention.attention.key", "vision_model.encoder.layers.0.self_attn.k_proj"],
    "v": ["vit.encoder.layer.0.attention.attention.value", "model.layer.0.attention.v_proj"],
    "proj": [
        "blocks.0.attn.proj",
        "vit.encoder.layer.0.attention.output.dense",
        "swin.encoder.layers.0.blocks.0.attention.output.dense",
        "vit.layers.3.attention.o_proj",
        "transformer.layers.0.self_attn.out_proj",
        "encoder.layers.encoder_layer_0.self_attention.out_proj",
        "transformer.layers.0.0.to_out.0",
    ],
    "fc1": [
        "blocks.11.mlp.fc1",
        "vit.encoder.layer.0.intermediate.dense",
        "encoder.layers.encoder_layer_0.mlp.0",
        "encoder.layers.encoder_layer_0.mlp.linear_1",
        "features.1.0.mlp.0",
        "transformer.layers.0.linear1",
        "model.layer.0.mlp.up_proj",
        "visual.transformer.resblocks.0.mlp.c_fc",
    ],
    "fc2": [
        "blocks.11.mlp.fc2",
        "vit.encoder.layer.0.output.dense",
        "encoder.layers.encoder_layer_0.mlp.3",
        "encoder.layers.encoder_layer_0.mlp.linear_2",
        "transformer.layers.0.linear2",
        "model.layer.0.mlp.down_proj",
        "visual.transformer.resblocks.0.mlp.c_proj",
    ],
    "head": [
        "head",
        "head.fc",
        "head_dist",
        "heads.head",
        "classifier",
        "cls_classifier",
        "distillation_classifier",
        "mlp_head",
        "mlp_head.1",
    ],
    "embedding": ["bert.embeddings.word_embeddings", "model.embed_tokens"],
}
UNKNOWN = [
    "layers.1.downsample.reduction",
    "fc",
    "layer1.0.conv1",
    "features.0.0",
    "pooler.dense",
    "net.0",
    "a",
]


@pytest.mark.parametrize(("kind", "path"), [(kind, path) for kind, paths in KNOWN.items() for path in paths])
def test_names_of_common_libraries_tell_the_kind(kind, path):
    assert kind_from_name(path) == kind
    assert kind_from_name(f"model.{path}") == kind


@pytest.mark.parametrize("path", UNKNOWN)
def test_other_names_say_nothing(path):
    assert kind_from_name(path) is None


def test_name_wins_over_position_and_position_over_operator():
    assert infer_kind("blocks.0.attn.qkv", position="fc1") == "qkv"
    assert infer_kind("a", position="fc1") == "fc1"
    assert infer_kind("a") == "linear"
    assert infer_kind("a", convolution=True) == "conv"
    assert infer_kind("stem.word_embeddings", convolution=True) == "conv"


def test_overrides_by_glob_braces_and_regular_expression():
    paths = ["blocks.0.attn.q", "blocks.1.attn.k", "blocks.1.mlp", "head"]
    kinds = override_kinds(
        paths, ["linear"] * 4, {"blocks.*": "fc1", "blocks.*.attn.{q,k}": "qkv", r"re:he\w+": "head"}
    )
    assert kinds == ["qkv", "qkv", "fc1", "head"]
    assert override_kinds(paths, kinds, None) == kinds


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"head": "top"}, "none of qkv"),
        ({"tail": "head"}, "matches no layer"),
        ({"re:(": "head"}, "malformed"),
    ],
)
def test_wrong_overrides_are_refused(overrides, message):
    with pytest.raises(AdapterError, match=message):
        override_kinds(["head"], ["linear"], overrides)
