"""Hugging Face folders that ask for more than their weights: refused before transformers builds anything."""

import json
import resource
import struct

import pytest
import torch
import torchvision_ops  # noqa: F401
from safetensors.torch import save_file
from torch_hostile_files import pickles

from lampq.adapters.torch import hugging_face
from lampq.core.values.errors import AdapterError

CONFIG = {
    "architectures": ["ViTForImageClassification"],
    "model_type": "vit",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "image_size": 32,
}


def make_folder(path, **changes):
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG | changes))
    save_file({"weight": torch.ones(3)}, path / "model.safetensors")
    return path


def refuse(path, words):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(AdapterError, match=words) as caught:
        hugging_face.load(path)
    assert "\n" not in str(caught.value)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < 500 << 20


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_hidden_layers": 1_000_000}, "num_hidden_layers is 1000000, more than 64"),
        ({"depths": [600, 600]}, "depths is 1200"),
        ({"vision_config": {"n_layer": 10**30}}, "n_layer is 1000"),
        ({"num_experts": 10**6}, "num_experts"),
        ({"num_labels": 10**9}, "num_labels"),
        ({"hidden_size": 10**12}, "hidden_size is 1000000000000"),
        ({"hidden_size": 10**6, "num_attention_heads": 10}, "asks for .* numbers, the files hold"),
        ({"image_size": 10**7}, "asks for .* numbers, the files hold|cannot load"),
        ({"auto_map": {"AutoModel": "x.Y"}}, "code of its own"),
        ({"vision_config": {"auto_map": {"AutoModel": "x.Y"}}}, "code of its own"),
        ({"attn_implementation": "someone/kernel"}, "code to download"),
        ({"_attn_implementation": {"": "someone/kernel"}}, "code to download"),
        ({"transformers_weights": "../other.safetensors"}, "file of weights of its own"),
        ({"quantization_config": {"quant_method": "torchao"}}, "quantized by torchao"),
    ],
)
def test_what_no_model_has_is_refused_before_it_is_built(tmp_path, changes, words):
    refuse(make_folder(tmp_path / "model", **changes), words)


def test_a_configuration_nested_without_end(tmp_path):
    path = make_folder(tmp_path / "model")
    (path / "config.json").write_text('{"a":' * 40 + "{}" + "}" * 40)
    refuse(path, "nested deeper")
    (path / "config.json").write_text('{"a":' * 100_000)
    refuse(path, "not valid JSON")
    (path / "config.json").write_text(" " * (9 << 20))
    refuse(path, "larger than 8 MiB")


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", "a/../../x", "..", "", 5])
def test_an_index_that_names_a_file_outside(tmp_path, name):
    path = make_folder(tmp_path / "model")
    save_file({"weight": torch.ones(3)}, tmp_path / "other.safetensors")
    (path / "model.safetensors").unlink()
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"weight": name}}))
    refuse(path, "outside the folder")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_link_out_of_the_folder(tmp_path, name):
    path = make_folder(tmp_path / "model")
    (path / name).rename(tmp_path / name)
    (path / name).symlink_to(tmp_path / name)
    refuse(path, "link out of its folder")


def test_a_snapshot_of_the_cache_links_to_its_blobs(tmp_path):
    (tmp_path / "models--x" / "snapshots").mkdir(parents=True)
    (tmp_path / "models--x" / "blobs").mkdir()
    path = make_folder(tmp_path / "models--x" / "snapshots" / "1a2b", architectures=["NoSuchModel"])
    (path / "model.safetensors").rename(tmp_path / "models--x" / "blobs" / "9f")
    (path / "model.safetensors").symlink_to("../../blobs/9f")
    refuse(path, "asks for NoSuchModel")


def test_an_adapter_of_another_model(tmp_path):
    path = make_folder(tmp_path / "model")
    (path / "adapter_config.json").write_text('{"base_model_name_or_path": "/other"}')
    refuse(path, "adapter of another model")


def test_a_header_without_end(tmp_path):
    path = make_folder(tmp_path / "model")
    (path / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 40) + b"{}")
    refuse(path, "a header of")


@pytest.mark.parametrize("name", ["open", "harm", "numpy.core raw memory", "bytearray", "overlong"])
def test_pickled_weights(tmp_path, name):
    path = make_folder(tmp_path / "model")
    (path / "model.safetensors").unlink()
    (path / "pytorch_model.bin").write_bytes(dict(pickles(tmp_path / "canary"))[name])
    refuse(path, "weights .*pytorch_model.bin")
    assert not (tmp_path / "canary").exists()
