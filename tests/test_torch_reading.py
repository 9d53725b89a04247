import argparse
import json
import pickle
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch_models import MODELS, PackedViT, make_batch, seeded

from lampq import adapters
from lampq.adapters.torch import read
from lampq.adapters.torch.checkpoint import load_state
from lampq.adapters.torch.outputs import flatten
from lampq.core.measuring.reference import measure_reference
from lampq.core.values.errors import AdapterError, RecordError

FACTORY = """
import torch
from torch import nn
from helper import CLASSES

def build():
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, CLASSES))

def fails():
    raise ValueError("no such backbone: resnet0")

def number():
    return 7

made = build()
wide = lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 30))
deep = lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 10), nn.Linear(10, 10))
"""


@pytest.fixture
def factory(tmp_path):
    (tmp_path / "helper.py").write_text("CLASSES = 10\n")
    (tmp_path / "nets.py").write_text(FACTORY)
    return tmp_path / "nets.py"


@pytest.fixture
def state():
    torch.manual_seed(11)
    return {
        "1.weight": torch.randn(8, 12),
        "1.bias": torch.randn(8),
        "3.weight": torch.randn(10, 8),
        "3.bias": torch.randn(10),
    }


def logits_of(state, batch):
    hidden = np.maximum(
        batch.reshape(len(batch), -1) @ state["1.weight"].numpy().T + state["1.bias"].numpy(), 0
    )
    return hidden @ state["3.weight"].numpy().T + state["3.bias"].numpy()


BATCH = np.random.default_rng(0).normal(size=(4, 12)).astype(np.float32)


def check(path, factory, state):
    model = adapters.read(f"{factory}:build", weights=path, input_shape=(12,))
    np.testing.assert_allclose(model.run(BATCH), logits_of(state, BATCH), rtol=1e-5, atol=1e-5)
    return model


def test_a_factory_alone_a_module_and_a_made_module(factory):
    runs = [adapters.read(f"{factory}:{name}", input_shape=(12,)).run(BATCH) for name in ("build", "made")]
    np.testing.assert_array_equal(*runs)
    # Its folder is on the path while the file is imported, not later.
    assert str(factory.parent) not in sys.path
    torch.manual_seed(3)
    module = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(12, 8), torch.nn.ReLU(), torch.nn.Linear(8, 10)
    )
    np.testing.assert_array_equal(read(module, input_shape=(12,)).run(BATCH), runs[0])


def test_installed_modules_by_their_dotted_name():
    model = adapters.read("torch_models:PackedViT", input_shape=(3, 8, 8))
    assert model.layers()[0].name == "patch_embed"


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".safetensors"])
def test_plain_checkpoints(tmp_path, factory, state, suffix):
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    model = check(path, factory, state)
    assert model.file_bytes() == path.stat().st_size
    assert model.path == path


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"model": s, "epoch": 3, "args": argparse.Namespace(lr=0.1)},
        lambda s: {"state_dict": s, "optimizer": {"state": {0: {"step": torch.tensor(1)}}}},
        lambda s: {"checkpoint": {"model_state_dict": s}, "acc": np.float64(0.5)},
        lambda s: {"epoch": 1, "weights_of_mine": s},
        lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
        lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
        lambda s: {f"model.backbone.{k}": v for k, v in s.items()},
    ],
)
def test_checkpoints_of_training_scripts(tmp_path, factory, state, wrap):
    path = tmp_path / "weights.pth"
    torch.save(wrap(state), path)
    check(path, factory, state)


def test_the_old_format_without_a_zip_archive(tmp_path, factory, state):
    path = tmp_path / "weights.pth"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    check(path, factory, state)


def test_a_wrapped_module_takes_a_bare_checkpoint(tmp_path, factory, state):
    with factory.open("a") as file:
        file.write("\nwrapped = lambda: nn.Sequential(build())\n")
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    model = adapters.read(f"{factory}:wrapped", weights=path, input_shape=(12,))
    np.testing.assert_allclose(model.run(BATCH), logits_of(state, BATCH), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_shards(tmp_path, factory, state, suffix):
    stem = "model" if suffix == ".safetensors" else "pytorch_model"
    names = {name: f"{stem}-0000{1 + i % 2}{suffix}" for i, name in enumerate(state)}
    for shard in set(names.values()):
        part = {n: t for n, t in state.items() if names[n] == shard}
        save_file(part, tmp_path / shard) if suffix == ".safetensors" else torch.save(part, tmp_path / shard)
    index = tmp_path / f"{stem}{suffix}.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    model = check(index, factory, state)
    assert model.file_bytes() == sum((tmp_path / shard).stat().st_size for shard in set(names.values()))
    check(tmp_path, factory, state)
    (tmp_path / f"{stem}-00002{suffix}").unlink()
    with pytest.raises(AdapterError, match=f"shard {stem}-00002{suffix} is missing"):
        load_state(index)
    index.write_text(json.dumps({"weight_map": {"1.weight": f"../{stem}-00001{suffix}"}}))
    with pytest.raises(AdapterError, match="outside the folder"):
        load_state(index)


class Harm:
    ran = False

    def __reduce__(self):
        return (setattr, (Harm, "ran", True))


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
def test_pickles_that_would_run_code_are_refused_by_name(tmp_path, how):
    path = tmp_path / "weights.pth"
    content = {"weight": torch.zeros(2), "extra": Harm()}
    if how == "pickle":
        path.write_bytes(pickle.dumps(Harm()))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(AdapterError, match=r"would run code \(.*(setattr|Harm)"):
        load_state(path)
    assert not Harm.ran


def test_a_whole_module_is_refused_and_the_class_named(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(seeded(PackedViT), path)
    with pytest.raises(AdapterError, match=r"torch_models\.PackedViT.*state_dict"):
        load_state(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no readable"),
        (b"not a checkpoint at all", "no readable"),
        (b"PK\x03\x04 torn archive", "no readable"),
    ],
)
def test_damaged_checkpoints(tmp_path, content, words):
    for name in ("weights.pth", "weights.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(AdapterError, match=words if name.endswith("pth") else "no valid safetensors"):
            load_state(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "holds no state dict but a list"),
        ({"epoch": 3}, "a dict of epoch"),
        ({"a": {"x": torch.zeros(1)}, "b": {"x": torch.zeros(1)}}, "under each of a, b"),
    ],
)
def test_checkpoints_without_weights(tmp_path, content, words):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(AdapterError, match=words):
        load_state(tmp_path / "weights.pth")


def test_missing_weights(tmp_path):
    with pytest.raises(AdapterError, match="no such file"):
        load_state(tmp_path / "nothing.pth")
    with pytest.raises(AdapterError, match="holds none of"):
        load_state(tmp_path)


def test_keys_that_do_not_fit_are_all_listed_with_a_remedy(tmp_path, factory, state):
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    with pytest.raises(AdapterError) as wide:
        read(f"{factory}:wide", weights=path)
    assert "3.weight (10, 8) for (30, 8)" in str(wide.value)
    assert "3.bias (10,) for (30,)" in str(wide.value)
    assert "build the model with 10 outputs of 3 instead of 30" in str(wide.value)
    with pytest.raises(AdapterError) as deep:
        read(f"{factory}:deep", weights=path)
    assert "2 missing from the file (4.weight, 4.bias)" in str(deep.value)
    assert "the file has 2 numbered blocks, the model 3" in str(deep.value)
    save_file({"features.weight": torch.zeros(3, 3), "features.bias": torch.zeros(3)}, path)
    with pytest.raises(AdapterError, match=r"4 missing .*2 unknown .*another architecture"):
        read(f"{factory}:build", weights=path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fails", r"ValueError: no such backbone: resnet0 \(nets.py, line 11\)"),
        ("number", "returned a int"),
        ("nowhere", "has no nowhere; it has build, fails, number"),
        ("CLASSES", "name a function"),
    ],
)
def test_factories_that_fail(factory, name, words):
    with pytest.raises(AdapterError, match=words):
        adapters.read(f"{factory}:{name}")


def test_factories_that_cannot_be_imported(tmp_path):
    (tmp_path / "broken.py").write_text("import no_such_package\n")
    with pytest.raises(AdapterError, match="ModuleNotFoundError: No module named 'no_such_package'"):
        adapters.read(f"{tmp_path}/broken.py:build")
    with pytest.raises(AdapterError, match="no file"):
        adapters.read(f"{tmp_path}/missing.py:build")
    with pytest.raises(AdapterError, match="cannot be imported: ModuleNotFoundError"):
        adapters.read("no_such_package.module:build")


def test_weights_do_not_go_with_what_brings_its_own(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(AdapterError, match="leave --weights out"):
        adapters.read(tmp_path, weights=tmp_path / "weights.pth")


def test_plain_safetensors_ask_for_a_factory(tmp_path, state):
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(AdapterError, match=r"FACTORY --weights weights\.safetensors"):
        adapters.read(tmp_path / "weights.safetensors")


class Output(dict):
    def __init__(self, **kwargs):
        super().__init__(kwargs)
        self.__dict__.update(kwargs)


A, B = torch.arange(6.0).reshape(2, 3), torch.arange(24.0).reshape(2, 4, 3)


@pytest.mark.parametrize(
    ("output", "names"),
    [
        (A, ["output"]),
        ((A, B), ["output_0", "output_1"]),
        ({"aux": B, "logits": A}, ["aux", "logits"]),
        (Output(loss=None, logits=A), ["logits"]),
        ({"part": Output(pooled=A, last_hidden_state=B)}, ["part.pooled", "part.last_hidden_state"]),
        ([None, (A, {"x": B})], ["output_1.0", "output_1.1.x"]),
        ({"one": A, "again": A}, ["one"]),
        ({"logits": A, "hidden_states": (A, B), "past_key_values": object()}, ["logits"]),
        ({"text": "x"}, []),
    ],
)
def test_every_tensor_of_an_output_has_a_name(output, names):
    assert list(flatten(output)) == names


def test_inputs_that_do_not_fit_say_what_the_model_objects_to():
    model = read(MODELS["packed"][0](), input_shape=(3, 8, 8))
    with pytest.raises(AdapterError, match=r"shape x \(5, 4, 8, 8\).*channels"):
        model.run(make_batch((4, 8, 8)))
    with pytest.raises(AdapterError, match="does not take samples of shape 3x2x2"):
        read(MODELS["packed"][0](), input_shape=(3, 2, 2)).layers()
    with pytest.raises(AdapterError, match="pass input_shape"):
        read(seeded(torch.nn.Identity)).layers()


def test_logits_that_are_not_finite():
    model = read(MODELS["packed"][0](), input_shape=(3, 8, 8))
    batch = make_batch((3, 8, 8))
    batch[2] = np.inf
    with pytest.raises(RecordError, match=r"output output .* \(first for sample 2"):
        measure_reference(model, batch)


def test_a_model_without_weights_to_quantize():
    model = read(seeded(torch.nn.Linear, 4, 4), input_shape=(4,))
    assert np.asarray(model.run(np.zeros((2, 4), np.float32))).shape == (2, 4)
    assert model.layers() == ()
