"""Hugging Face directories: made here from configurations, small and random."""

import json
import shutil

import numpy as np
import pytest
import torch
import torchvision_ops  # noqa: F401
import transformers
from safetensors import safe_open
from torch_models import fisher_of

import lampq.adapters.torch
from lampq import adapters
from lampq.adapters.torch import hugging_face, load_quantized
from lampq.core.allocating.allocation import build_plan
from lampq.core.measuring.measure import quantized_weights
from lampq.core.values.errors import AdapterError, OutputExistsError
from lampq.verbs.apply import apply
from lampq.verbs.profile import profile

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
IMAGES = {"image_size": 32, "patch_size": 8, "num_labels": 5}
FAMILIES = {
    "vit": (transformers.ViTForImageClassification, transformers.ViTConfig(**SMALL, **IMAGES)),
    "deit": (transformers.DeiTForImageClassification, transformers.DeiTConfig(**SMALL, **IMAGES)),
    "swin": (
        transformers.SwinForImageClassification,
        transformers.SwinConfig(
            image_size=32,
            patch_size=4,
            embed_dim=16,
            depths=[1, 1],
            num_heads=[2, 2],
            window_size=4,
            num_labels=5,
        ),
    ),
    "bert": (
        transformers.BertForSequenceClassification,
        transformers.BertConfig(**SMALL, vocab_size=50, num_labels=5, max_position_embeddings=32),
    ),
    "backbone": (transformers.ViTModel, transformers.ViTConfig(**SMALL, image_size=32, patch_size=8)),
}
KINDS = {
    "vit": {"patch_embed": 1, "q": 2, "k": 2, "v": 2, "proj": 2, "fc1": 2, "fc2": 2, "head": 1},
    "deit": {"patch_embed": 1, "q": 2, "k": 2, "v": 2, "proj": 2, "fc1": 2, "fc2": 2, "head": 1},
    "swin": {"patch_embed": 1, "q": 2, "k": 2, "v": 2, "proj": 2, "fc1": 2, "fc2": 2, "linear": 1, "head": 1},
    "bert": {"q": 2, "k": 2, "v": 2, "proj": 2, "fc1": 2, "fc2": 2, "linear": 1, "head": 1},
    "backbone": {"patch_embed": 1, "q": 2, "k": 2, "v": 2, "proj": 2, "fc1": 2, "fc2": 2, "linear": 1},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    for name, (cls, config) in FAMILIES.items():
        torch.manual_seed(0)
        with hugging_face.quietly(transformers):
            cls(config).save_pretrained(root / name)
    return root


def make_batch(name, samples=3):
    rng = np.random.default_rng(0)
    if name == "bert":
        batch = rng.integers(1, 50, (samples, 8))
        batch[0, 5:] = 0
        return batch
    return rng.normal(size=(samples, 3, 32, 32)).astype(np.float32)


def plain(path, name):
    """The library's own loading, the independent oracle."""
    with hugging_face.quietly(transformers):
        return FAMILIES[name][0].from_pretrained(path).eval()


def logits(module, name, batch):
    inputs = torch.from_numpy(batch)
    with torch.no_grad():
        if name == "bert":
            return module(input_ids=inputs, attention_mask=(inputs != 0).long()).logits.numpy()
        output = module(inputs)
        return (output.logits if "logits" in output else output.last_hidden_state).numpy()


@pytest.mark.parametrize("name", FAMILIES)
def test_directories_run_as_the_library_runs_them(folders, name):
    model = adapters.read(folders / name)
    batch = make_batch(name)
    outputs = model.run(batch)
    expected = logits(plain(folders / name, name), name, batch)
    np.testing.assert_allclose(outputs[outputs.names[0]], expected, rtol=1e-5, atol=1e-6)
    assert model.format == "torch"
    assert model.grid == "mid_tread"
    # Windows take any image, position embeddings those of their own size.
    sides = (None, None) if name == "swin" else (32, 32)
    assert model.input_spec.shape == ((None, None) if name == "bert" else (None, 3, *sides))
    kinds = [layer.kind for layer in model.layers()]
    assert {kind: kinds.count(kind) for kind in kinds} == KINDS[name]


@pytest.mark.parametrize("name", ["swin", "bert"])
def test_fisher_traces_of_windows_and_of_padded_text(folders, name):
    model = adapters.read(folders / name)
    batch = make_batch(name)
    found = fisher_of(model, batch, labels="exact", batch_size=2).traces()
    module = plain(folders / name, name)
    parameters = {layer: module.get_parameter(p) for layer, p in model.parameters.items()}
    expected = dict.fromkeys(parameters, 0.0)
    for n in range(len(batch)):
        inputs = torch.from_numpy(batch[n : n + 1])
        keywords = {"attention_mask": (inputs != 0).long()} if name == "bert" else {}
        log_p = module(inputs, **keywords).logits.double().log_softmax(-1)[0]
        for label in range(5):
            gradients = torch.autograd.grad(log_p[label], list(parameters.values()), retain_graph=True)
            for layer, gradient in zip(parameters, gradients, strict=True):
                square = float(gradient.double().square().sum())
                expected[layer] += float(log_p[label].detach().exp()) * square / len(batch)
    for layer, trace in expected.items():
        assert found[layer] == pytest.approx(trace, rel=1e-4)


def mixed_plan(model):
    measured = profile(model, bits=tuple(range(2, 9)))
    widths = np.arange(len(measured.layers)) % 7
    return build_plan(measured, widths, mode="uniform", budget={"average_bits": 5})


@pytest.mark.parametrize("name", ["vit", "swin", "bert"])
def test_a_quantized_directory_is_reloaded_by_the_library_alone(folders, tmp_path, name):
    model = adapters.read(folders / name)
    plan = mixed_plan(model)
    path = apply(model, plan, tmp_path / "quantized").path
    batch = make_batch(name)
    # A folder has no place for convolutions: they stay as they are.
    linear = {n: w for n, w in plan.widths.items() if not n.endswith("projection")}
    expected = model.with_weights(quantized_weights(model, linear)).run(batch)
    np.testing.assert_allclose(logits(plain(path, name), name, batch), expected, rtol=1e-5, atol=1e-6)
    again = adapters.read(path)
    np.testing.assert_allclose(again.run(batch), expected, rtol=1e-5, atol=1e-6)
    assert again.stored_bits() == {layer: (bits, None) for layer, bits in linear.items()}
    size = sum(file.stat().st_size for file in path.iterdir())
    assert abs(size - plan.total_bytes) < 0.1 * size
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_may_also_become_a_packed_file(folders, tmp_path):
    model = adapters.read(folders / "vit")
    plan = mixed_plan(model)
    path = apply(model, plan, tmp_path / "q.safetensors").path
    batch = make_batch("vit")
    expected = model.with_weights(quantized_weights(model, plan.widths)).run(batch)
    # The file says what it is of: the architecture is the library's own.
    np.testing.assert_allclose(adapters.read(path).run(batch), expected, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        found = load_quantized(path)(torch.from_numpy(batch)).logits.numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def edited(folders, tmp_path, **changes):
    path = tmp_path / "edited"
    shutil.copytree(folders / "vit", path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | changes))
    return path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"auto_map": {"AutoModel": "modeling.Mine"}}, "code of its own"),
        ({"architectures": ["NoSuchModel"]}, "asks for NoSuchModel"),
        ({"architectures": []}, "no architecture"),
        ({"architectures": ["ViTConfig"]}, "asks for ViTConfig"),
        ({"architectures": ["ViTForMaskedImageModeling"]}, "missing .*decoder"),
        ({"num_labels": 7, "id2label": {str(i): str(i) for i in range(7)}}, "cannot load|another shape"),
    ],
)
def test_directories_that_do_not_fit(folders, tmp_path, changes, words):
    with pytest.raises(AdapterError, match=words):
        adapters.read(edited(folders, tmp_path, **changes))


def test_damaged_directories(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(AdapterError, match="not valid JSON"):
        adapters.read(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["ViTModel"], "model_type": "vit"}))
    with pytest.raises(AdapterError, match="holds no weights"):
        adapters.read(tmp_path)


def test_an_existing_folder_of_a_model_is_replaced_with_force_alone(folders, tmp_path):
    model = adapters.read(folders / "vit")
    plan = mixed_plan(model)
    out = tmp_path / "out"
    apply(model, plan, out)
    (out / "leftover.txt").write_text("of the first")
    with pytest.raises(OutputExistsError, match="pass --force"):
        apply(model, plan, out)
    assert (out / "leftover.txt").exists()
    apply(model, plan, out, force=True)
    assert not (out / "leftover.txt").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    np.testing.assert_allclose(
        adapters.read(out).run(make_batch("vit")),
        logits(plain(out, "vit"), "vit", make_batch("vit")),
        atol=1e-5,
    )


def test_other_folders_are_kept_even_with_force(folders, tmp_path):
    model, other = adapters.read(folders / "vit"), tmp_path / "photos"
    other.mkdir()
    (other / "cat.jpg").write_text("dear")
    with pytest.raises(OutputExistsError, match=r"folder without config\.json, and is kept"):
        apply(model, mixed_plan(model), other, force=True)
    assert (other / "cat.jpg").read_text() == "dear"


def test_masks_of_the_data_count_and_are_guessed_from_padding_where_there_are_none(folders):
    model = adapters.read(folders / "bert")
    batch = make_batch("bert")
    mask = (batch != 0).astype(np.int64)
    given = {"input_ids": batch, "attention_mask": mask}
    fed = model.with_examples(given)
    np.testing.assert_allclose(np.asarray(fed.run(given)), np.asarray(model.run(batch)), rtol=1e-5, atol=1e-6)
    assert [spec.name for spec in model.input_specs if not spec.optional] == ["input_ids"]
    assert [spec.name for spec in fed.input_specs if not spec.optional] == ["input_ids", "attention_mask"]
    # One tape serves masks with and without padding.
    assert fed.variant.runtime.obstacle is None
    module = transformers.BertModel(transformers.BertConfig(**SMALL, vocab_size=50)).eval()
    heads = lampq.adapters.torch.read(module).with_examples(given).heads
    assert {head.name: head.mask for head in heads} == {
        "last_hidden_state": "attention_mask",
        "pooler_output": None,
    }


def test_a_text_and_image_model_takes_both(folders):
    common = SMALL | {"projection_dim": 16}
    config = transformers.CLIPConfig(
        text_config=common | {"vocab_size": 50, "eos_token_id": 2, "bos_token_id": 0, "pad_token_id": 1},
        vision_config=common | {"image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    torch.manual_seed(0)
    module = transformers.CLIPModel(config).eval()
    ids = np.random.default_rng(0).integers(3, 49, (3, 8))
    ids[:, -1] = 49
    given = {"input_ids": ids, "pixel_values": make_batch("vit"), "attention_mask": np.ones((3, 8), np.int64)}
    model = lampq.adapters.torch.read(module).with_examples(given)
    outputs = model.run(given)
    assert {head.name for head in model.heads if head.role == "direction"} == {"text_embeds", "image_embeds"}
    assert set(outputs.names) == {"text_embeds", "image_embeds"}
    with torch.no_grad():
        expected = module(**{name: torch.from_numpy(array) for name, array in given.items()})
    np.testing.assert_allclose(outputs["text_embeds"], expected.text_embeds, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(outputs["image_embeds"], expected.image_embeds, rtol=1e-4, atol=1e-5)


def test_half_precision_stays_on_disk(folders, tmp_path):
    source = tmp_path / "half"
    plain(folders / "vit", "vit").to(torch.bfloat16).save_pretrained(source)
    model = adapters.read(source)
    path = apply(model, mixed_plan(model), tmp_path / "quantized").path
    with safe_open(next(path.glob("*.safetensors")), framework="pt") as file:
        types = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    assert types["classifier.bias"] == "BF16"
    assert types["vit.embeddings.position_embeddings"] == "BF16"
