"""Hugging Face folders that cannot hold every weight packed, or cannot be read back at all."""

import numpy as np
import pytest
import torch
import torchvision_ops  # noqa: F401
import transformers

from lampq import adapters
from lampq.adapters.torch import compressed, hugging_face
from lampq.core.measuring.measure import quantized_weights
from lampq.core.values.errors import AdapterError
from lampq.verbs.apply import fit_to
from lampq.verbs.formats import refuse_unwritable
from lampq.verbs.quantize import quantize

TEXT = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
LLAMA = TEXT | {"intermediate_size": 64, "num_key_value_heads": 2, "tie_word_embeddings": True}
GPT2 = {"vocab_size": 99, "n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 64, "pad_token_id": 0}


def make_folder(path, cls, config):
    torch.manual_seed(0)
    with hugging_face.quietly(transformers):
        cls(config).eval().save_pretrained(path)
    return adapters.read(path)


@pytest.fixture
def ids():
    return np.random.default_rng(0).integers(1, 99, (6, 8))


def write(model, batch, out):
    return quantize(
        model, batch, out, average_bits=4, bits=(4,), rounds=0, fisher_draws=0, rounding="nearest"
    )


def test_layers_of_other_classes_stay_float_and_are_not_counted(tmp_path, ids):
    model = make_folder(
        tmp_path / "gpt2",
        transformers.GPT2ForSequenceClassification,
        transformers.GPT2Config(**GPT2, num_labels=3),
    )
    plan = write(model, ids, tmp_path / "out")
    assert list(plan.widths) == ["score"]
    assert any("4 layers of 12,288 weights stay float" in note for note in plan.notes)
    again = adapters.read(tmp_path / "out")
    for name in set(model.parameters.values()) - {"score.weight"}:
        assert torch.equal(again.module.get_parameter(name), model.module.get_parameter(name))
    # A file has a place for all of them.
    assert len(write(model, ids, tmp_path / "out.safetensors").widths) == 5


def test_a_plan_for_all_layers_says_which_a_folder_leaves_out(tmp_path, ids):
    model = make_folder(
        tmp_path / "gpt2",
        transformers.GPT2ForSequenceClassification,
        transformers.GPT2Config(**GPT2, num_labels=3),
    )
    plan = write(model, ids, tmp_path / "out.safetensors")
    fitted = fit_to(model, plan, tmp_path / "folder")
    assert list(fitted.widths) == ["score"]
    assert any("stay float" in note for note in fitted.notes)
    assert fit_to(model, fitted, tmp_path / "folder").widths == fitted.widths


def test_a_tied_table_stays_as_it_is(tmp_path, ids):
    model = make_folder(tmp_path / "llama", transformers.LlamaForCausalLM, transformers.LlamaConfig(**LLAMA))
    plan = write(model, ids, tmp_path / "out")
    assert "model.embed_tokens" not in plan.widths
    assert len(plan.widths) == 7
    again = adapters.read(tmp_path / "out")
    module = again.module
    assert module.lm_head.weight is module.model.embed_tokens.weight
    np.testing.assert_array_equal(
        module.lm_head.weight.detach().numpy(), model.module.lm_head.weight.detach().numpy()
    )


def test_a_model_without_a_weight_that_folders_pack_is_refused_at_once(tmp_path, ids):
    model = make_folder(tmp_path / "gpt2", transformers.GPT2LMHeadModel, transformers.GPT2Config(**GPT2))
    with pytest.raises(AdapterError, match=r"pack none of its weights.*\.safetensors"):
        write(model, ids, tmp_path / "out")


CLASSES = {
    "resnet": (
        transformers.ResNetForImageClassification,
        transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic", num_labels=10
        ),
    ),
    "dinov2": (
        transformers.Dinov2ForImageClassification,
        transformers.Dinov2Config(
            hidden_size=32, num_hidden_layers=1, num_attention_heads=4, patch_size=8, image_size=32
        ),
    ),
}


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_that_initializes_its_own_weights_is_refused_at_once(tmp_path, name):
    model = make_folder(tmp_path / name, *CLASSES[name])
    with pytest.raises(AdapterError, match=r"transformers initializes weights of Linear before"):
        model.for_folder()


def test_tables_that_transformers_initializes_stay_float(tmp_path):
    model = make_folder(
        tmp_path / "bert", transformers.BertModel, transformers.BertConfig(**TEXT | {"vocab_size": 200})
    )
    ids = np.random.default_rng(0).integers(1, 200, (6, 8))
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    plan = write(model, inputs, tmp_path / "out")
    table = "embeddings.word_embeddings"
    assert table in {layer.name for layer in model.layers()}
    assert table not in plan.widths
    assert any("stay float" in note and table in note for note in plan.notes)
    again = adapters.read(tmp_path / "out").module
    assert torch.equal(
        again.embeddings.word_embeddings.weight, model.module.embeddings.word_embeddings.weight
    )
    assert table in write(model, inputs, tmp_path / "out.safetensors").widths


def test_what_cannot_be_read_back_is_refused_before_measuring(tmp_path, monkeypatch):
    monkeypatch.setattr(compressed, "_left_uninitialized", lambda *_: True)
    model = make_folder(tmp_path / "resnet", *CLASSES["resnet"])
    with pytest.raises(AdapterError) as refusal:
        refuse_unwritable(model.for_folder(), tmp_path / "out")
    assert str(refusal.value).startswith(
        f"{tmp_path / 'out'}: as a folder the quantized model cannot be read"
    )
    assert "/." not in str(refusal.value)
    assert not (tmp_path / "out").exists()


def test_images_without_a_size_in_the_configuration(tmp_path):
    model = make_folder(
        tmp_path / "poolformer",
        transformers.PoolFormerForImageClassification,
        transformers.PoolFormerConfig(hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], num_labels=10),
    )
    batch = np.random.default_rng(0).normal(size=(4, 3, 64, 64)).astype(np.float32)
    plan = write(model, batch, tmp_path / "out")
    again = adapters.read(tmp_path / "out", input_shape=(3, 64, 64))
    assert list(plan.widths) == ["classifier"]
    assert np.asarray(again.run(batch)).shape == (4, 10)


def test_a_folder_that_was_quantized_is_quantized_anew_from_what_it_stands_for(tmp_path, ids):
    config = transformers.BertConfig(**TEXT, intermediate_size=64, num_labels=3)
    first = make_folder(tmp_path / "bert", transformers.BertForSequenceClassification, config)
    plan = write(first, ids, tmp_path / "q")
    again = adapters.read(tmp_path / "q", requantize=True)
    assert not again.stored_bits()
    assert {layer.name for layer in again.layers()} == {layer.name for layer in first.layers()}
    expected = first.with_weights(quantized_weights(first, plan.widths))
    np.testing.assert_allclose(again.run(ids), expected.run(ids), atol=1e-5)
    second = quantize(again, ids, tmp_path / "q3", average_bits=3, bits=(3,), rounds=0, fisher_draws=0)
    assert set(adapters.read(tmp_path / "q3").stored_bits().values()) == {(3, None)}
    assert set(second.widths) == set(plan.widths)


def test_requantize_is_nothing_to_models_that_hold_floats(tmp_path, ids):
    config = transformers.BertConfig(**TEXT, intermediate_size=64, num_labels=3)
    model = make_folder(tmp_path / "bert", transformers.BertForSequenceClassification, config)
    same = adapters.read(tmp_path / "bert", requantize=True)
    np.testing.assert_array_equal(same.run(ids), model.run(ids))
    write(model, ids, tmp_path / "q.safetensors")
    packed = adapters.read(tmp_path / "q.safetensors", requantize=True)
    assert not packed.stored_bits()
    assert packed.layers()


def test_a_folder_holds_the_normalizations_that_a_plan_rewrites(tmp_path):
    config = transformers.ViTConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
    )
    model = make_folder(tmp_path / "vit", transformers.ViTForImageClassification, config)
    images = np.random.default_rng(0).normal(size=(6, 3, 8, 8)).astype(np.float32)
    plan = quantize(
        model,
        images,
        tmp_path / "out",
        average_bits=8,
        bits=(8,),
        act_bits=8,
        rewrites="one_range",
        rounds=0,
        fisher_draws=0,
        rounding="nearest",
    )
    norm = plan.rewrites[0].norm
    before, after = (
        each.module.get_submodule(norm).weight for each in (model, adapters.read(tmp_path / "out"))
    )
    assert not torch.equal(before, after)
