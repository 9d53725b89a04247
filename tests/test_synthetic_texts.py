"""Texts made from a model alone."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, processors

from lampq.adapters.synthetic.texts import Vocabulary, make_texts, token_inputs
from lampq.core.values.batch import Batch
from lampq.core.values.errors import AdapterError
from lampq.core.values.head import CLASSES, DIRECTION, Head
from lampq.core.values.input_spec import InputSpec
from lampq.core.values.progress import quiet

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{index}" for index in range(40))]
IDS = InputSpec(name="input_ids", shape=(None, None), dtype="int64")
MASK = InputSpec(name="attention_mask", shape=(None, None), dtype="int64")
TYPES = InputSpec(name="token_type_ids", shape=(None, None), dtype="int32")


@dataclasses.dataclass
class Counting:
    """A model whose next token is the one after the last; with `ahead` it looks at the last token everywhere."""

    path: Path
    input_specs: tuple = (IDS,)
    heads: tuple = (Head(name="logits", role=CLASSES),)
    ahead: bool = False
    words: int = len(WORDS)

    def layers(self):
        return ()

    def run(self, batch):
        tokens = batch["input_ids"]
        logits = 50.0 * np.eye(self.words)[(tokens + 1) % self.words]
        return Batch(
            [{"logits": (logits + self.ahead * tokens[:, -1:, None] * np.arange(self.words)).astype("f")}]
        )


@pytest.fixture
def folder(tmp_path):
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def made(model, count=6, seed=0):
    return make_texts(model, model.input_specs, count, seed, quiet)


def test_words_stand_between_the_marks_of_the_tokenizer(folder):
    model = Counting(
        folder / "m.onnx", input_specs=(IDS, MASK, TYPES), heads=(Head(name="e", role=DIRECTION),)
    )
    inputs, how = made(model, 20)
    assert how == "tokens of the vocabulary"
    tokens, mask = inputs["input_ids"], inputs["attention_mask"]
    assert tokens.shape == mask.shape == (20, 32) and inputs["token_type_ids"].dtype == np.int32
    lengths = mask.sum(1)
    assert len(set(lengths)) > 5
    for text, length in zip(tokens, lengths, strict=True):
        assert text[0] == 2 and text[length - 1] == 3 and not text[length:].any()
        assert (text[1 : length - 1] >= 4).all()


def test_a_decoder_goes_on_from_a_word_and_nothing_else_does(folder):
    inputs, how = made(Counting(folder / "m.onnx"))
    assert how == "texts sampled from it token by token"
    steps = np.diff(inputs["input_ids"][:, 1:], axis=1)
    # The last word is followed by a mark, which is never sampled.
    assert np.mean(steps == 1) > 0.8 and inputs["input_ids"][:, 1:].min() >= 4
    assert made(Counting(folder / "m.onnx", ahead=True))[1] == "tokens of the vocabulary"


def test_texts_depend_on_the_seed_alone(folder):
    model = Counting(folder / "m.onnx")
    first, again, other = (made(model, seed=seed)[0]["input_ids"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(made(model, 3)[0]["input_ids"], first[:3])


def test_lengths_follow_the_model_and_its_configuration(folder):
    (folder / "config.json").write_text('{"max_position_embeddings": 12, "vocab_size": 30}')
    vocabulary = Vocabulary.of(Counting(folder / "m.onnx"), None)
    assert vocabulary.limit == 12 and max(vocabulary.words) == 29
    fixed = tuple(dataclasses.replace(spec, shape=(None, 7)) for spec in (IDS, MASK))
    assert made(Counting(folder / "m.onnx", input_specs=fixed))[0]["input_ids"].shape == (6, 7)


def test_what_makes_no_text_is_one_line(tmp_path):
    with pytest.raises(
        AdapterError, match=r"nothing tells the tokens of m.onnx; put its tokenizer.json beside it"
    ):
        made(Counting(tmp_path / "m.onnx"))
    pixels = InputSpec(name="pixels", shape=(None, 3, 8, 8))
    assert token_inputs([pixels, IDS, MASK]) == {"input_ids": "ids", "attention_mask": "mask"}
    assert token_inputs([pixels]) == token_inputs([IDS, dataclasses.replace(IDS, name="other_ids")]) == {}
