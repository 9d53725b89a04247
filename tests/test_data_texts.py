"""Texts as inputs of a model, by the tokenizer beside it."""

import json

import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, processors

from lampq.adapters.data import read_data
from lampq.core.values.errors import AdapterError, MissingExtraError
from lampq.core.values.input_spec import InputSpec

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{index}" for index in range(40))]


def an_input(name, length=None, dtype="int64"):
    return InputSpec(name=name, shape=(None, length), dtype=dtype)


IDS, MASK, TYPES = an_input("input_ids"), an_input("attention_mask"), an_input("token_type_ids")


@pytest.fixture
def model(tmp_path):
    """A folder with a tokenizer that knows words w0 to w39, as a model would have beside it."""
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "model.onnx"


def text(count):
    return " ".join(f"w{index}" for index in range(count))


def write(model, name, content):
    path = model.parent / name
    path.write_text(content, encoding="utf-8")
    return path


def test_lines_become_tokens_masks_and_types(model):
    path = write(model, "t.txt", f"{text(2)}\nw5 unknown\n\n")
    data = read_data(path, input_specs=[IDS, MASK, TYPES], model=model)
    (group,) = data.inputs()
    assert group["input_ids"].tolist() == [[2, 4, 5, 3], [2, 9, 1, 3]]
    assert group["attention_mask"].tolist() == [[1, 1, 1, 1]] * 2
    assert group["token_type_ids"].tolist() == [[0, 0, 0, 0]] * 2
    assert (len(data), data.kind, data.labels()) == (2, "texts", None)


def test_near_lengths_are_padded_to_the_longest_of_them(model):
    path = write(
        model, "t.jsonl", "\n".join(json.dumps({"text": text(n), "label": n}) for n in (30, 3, 9, 12))
    )
    inputs, labels = read_data(path, input_specs=[IDS, MASK], model=model).load()
    assert [group["input_ids"].shape for group in inputs] == [(3, 14), (1, 32)]
    assert labels.tolist() == [3, 9, 12, 30]
    assert inputs.groups[0]["attention_mask"].sum(axis=1).tolist() == [5, 11, 14]
    assert inputs.groups[0]["input_ids"][0].tolist() == [2, 4, 5, 6, 3] + [0] * 9


def test_without_a_mask_only_one_length_goes_together(model):
    path = write(model, "t.txt", "\n".join(text(n) for n in (3, 5, 3)))
    inputs = read_data(path, input_specs=[an_input("tokens")], model=model).inputs()
    assert [group["tokens"].shape for group in inputs] == [(2, 5), (1, 7)]


def test_a_fixed_length_cuts_and_fills(model):
    path = write(model, "t.txt", f"{text(30)}\n{text(1)}")
    specs = [an_input("input_ids", 6, "int32"), an_input("attention_mask", 6, "float32")]
    (group,) = read_data(path, input_specs=specs, model=model).inputs()
    assert group["input_ids"].tolist() == [[2, 4, 5, 6, 7, 3], [2, 4, 3, 0, 0, 0]]
    assert (group["input_ids"].dtype, group["attention_mask"].dtype) == (np.int32, np.float32)


@pytest.mark.parametrize(
    ("name", "config", "longest"),
    [
        ("config.json", {"max_position_embeddings": 8}, 8),
        ("config.json", {"max_position_embeddings": 9, "model_type": "roberta"}, 8),
        ("config.json", {"text_config": {"max_position_embeddings": 7}}, 7),
        ("tokenizer_config.json", {"model_max_length": 5}, 5),
        ("tokenizer_config.json", {"model_max_length": 10**30}, 32),
    ],
)
def test_texts_are_cut_to_what_the_model_takes(model, name, config, longest):
    write(model, name, json.dumps(config))
    path = write(model, "t.txt", text(30))
    assert read_data(path, input_specs=[IDS], model=model).inputs()["input_ids"].shape == (1, longest)


def test_a_table_with_names_for_labels(model):
    path = write(model, "t.csv", 'text,label\n"w1, w2",good\nw3,bad\nw4,good\n')
    data = read_data(path, input_specs=[IDS, MASK], model=model)
    assert data.class_names == ("bad", "good")
    assert data.labels().tolist() == [1, 0, 1]


def test_balanced_samples_of_texts(model):
    lines = [json.dumps({"sentence": text(n + 1), "label": n % 2}) for n in range(10)]
    path = write(model, "t.jsonl", "\n".join(lines))
    data = read_data(path, input_specs=[IDS, MASK], model=model, samples=4)
    assert sorted(data.labels().tolist()) == [0, 0, 1, 1]
    assert (
        data.summary()["digest"]
        == read_data(path, input_specs=[IDS, MASK], model=model, samples=4).summary()["digest"]
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.txt", "", "holds no texts"),
        ("t.txt", "w1\n  \nw2", "line 2 holds an empty text"),
        ("t.jsonl", '{"text": "w1"}\n{"text"', "line 2 is no JSON"),
        ("t.jsonl", "[1]", "line 1 is no JSON object"),
        (
            "t.jsonl",
            '{"question": "w1"}',
            "line 1 has question; a text is called text or sentence or content",
        ),
        ("t.jsonl", '{"text": 3}', "text of line 1 is no text"),
        ("t.jsonl", '{"text": "w1", "label": 1}\n{"text": "w1"}', "label of line 2 is None"),
        ("t.jsonl", '{"text": "w1", "label": -1}', "-1 is negative"),
        ("t.csv", "words\nw1\n", "row 1 has words"),
        ("t.csv", 'text\nw1\n""\n', "row 2 holds an empty text"),
    ],
)
def test_texts_that_are_refused(model, name, content, message):
    path = write(model, name, content)
    with pytest.raises(AdapterError, match=message) as caught:
        read_data(path, input_specs=[IDS], model=model)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_texts_beyond_all_bounds(model):
    for name, content, message in [
        ("t.txt", "w1\n" * 1_000_001, "more than 1,000,000 lines"),
        ("t.jsonl", "[" * 100_000, "line 1 is no JSON"),
    ]:
        with pytest.raises(AdapterError, match=message) as caught:
            read_data(write(model, name, content), input_specs=[IDS], model=model)
        assert len(str(caught.value)) < 500


def test_a_file_that_is_no_text(model):
    (model.parent / "t.txt").write_bytes(b"\xff\xfe\xfa\xfb\x80")
    with pytest.raises(AdapterError, match="no UTF-8 text"):
        read_data(model.parent / "t.txt", input_specs=[IDS], model=model)


def test_a_tokenizer_that_is_absent_broken_or_of_another_model(model, monkeypatch):
    path = write(model, "t.txt", "w39")
    write(model, "config.json", json.dumps({"vocab_size": 20}))
    with pytest.raises(AdapterError, match="gives token 43, but the model knows 20"):
        read_data(path, input_specs=[IDS], model=model)
    write(model, "tokenizer.json", "{}")
    with pytest.raises(AdapterError, match=r"tokenizer\.json: no tokenizer that can be read"):
        read_data(path, input_specs=[IDS], model=model)
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(MissingExtraError, match=r"lampq\[text\]"):
        read_data(path, input_specs=[IDS], model=model)
    (model.parent / "tokenizer.json").unlink()
    with pytest.raises(AdapterError, match=r"put its tokenizer\.json into"):
        read_data(path, input_specs=[IDS], model=model)
    with pytest.raises(AdapterError, match="say where the model is"):
        read_data(path, input_specs=[IDS])


def test_inputs_that_texts_do_not_give(model):
    path = write(model, "t.txt", text(3))
    pixels = InputSpec(name="pixel_values", shape=(None, 3, 4, 4))
    with pytest.raises(
        AdapterError, match=r"texts give nothing for pixel_values.*--input pixel_values=VALUE"
    ):
        read_data(path, input_specs=[IDS, pixels], model=model)
    data = read_data(path, input_specs=[IDS, pixels], model=model, constants={"pixel_values": 0})
    assert data.inputs()["pixel_values"].shape == (1, 3, 4, 4)
    with pytest.raises(AdapterError, match="one input of tokens, not 2"):
        read_data(path, input_specs=[IDS, an_input("decoder_input_ids")], model=model)


def test_a_model_in_a_folder_onnx_has_its_tokenizer_above(model):
    path = write(model, "t.txt", text(3))
    (model.parent / "onnx").mkdir()
    data = read_data(path, input_specs=[IDS], model=model.parent / "onnx" / "model.onnx")
    assert len(data) == 1
