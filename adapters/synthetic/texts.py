"""Texts for models of tokens: sampled from a decoder, or words of the vocabulary between the tokenizer's own marks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lampq.adapters.data.text_reader import IDS, MASK, TYPES, role_of
from lampq.adapters.data.tokenizer import TextEncoder, find_encoder
from lampq.core.measuring.model import Model
from lampq.core.readouts.softmax import log_softmax
from lampq.core.values.errors import AdapterError
from lampq.core.values.head import CLASSES
from lampq.core.values.input_spec import InputSpec
from lampq.core.values.progress import Progress

# Tokens of a text where neither the model nor its tokenizer sets a limit below.
_LENGTH = 32
_SHORTEST = 4
# How far logits in front of a changed token may move, relative to their largest, in a decoder.
_UNMOVED = 1e-4

Run = Callable[[np.ndarray], Mapping[str, np.ndarray]]
"""Tokens in, outputs of the model by name out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """What texts are made of.

    Attributes:
        words: Tokens that may stand anywhere.
        front: Tokens that every text begins with.
        back: Tokens that every text ends with.
        padding: The token that fills up.
        limit: The most tokens of a text.
    """

    words: tuple[int, ...]
    front: tuple[int, ...] = ()
    back: tuple[int, ...] = ()
    padding: int = 0
    limit: int = _LENGTH

    @classmethod
    def of(cls, model: Model, length: int | None) -> Vocabulary:
        """That of the tokenizer beside a model, else all tokens that its table of embeddings knows.

        Raises:
            AdapterError: Neither is there.
        """
        encoder = None
        with contextlib.suppress(AdapterError):
            encoder = find_encoder(model.path)
        if encoder is not None:
            return cls._of_tokenizer(encoder, length)
        tables = [layer.shape[0] for layer in model.layers() if layer.kind == "embedding"]
        if not tables:
            raise AdapterError(
                f"synthetic data: nothing tells the tokens of {model.path.name}; put its tokenizer.json beside it"
            )
        return cls(words=tuple(range(max(tables))), limit=length or _LENGTH)

    @classmethod
    def _of_tokenizer(cls, encoder: TextEncoder, length: int | None) -> Vocabulary:
        known = encoder.tokenizer.get_vocab_size()
        count = min(known, encoder.vocabulary or known)
        encoder.tokenizer.no_padding()
        encoded = encoder.tokenizer.encode("a")
        plain = [place for place, mark in enumerate(encoded.special_tokens_mask) if not mark]
        first, last = (plain[0], plain[-1]) if plain else (len(encoded.ids), len(encoded.ids))
        front, back = tuple(encoded.ids[:first]), tuple(encoded.ids[last + 1 :])
        added = encoder.tokenizer.get_added_tokens_decoder().items()
        marks = {encoder.padding, *front, *back, *(number for number, token in added if token.special)}
        return cls(
            words=tuple(token for token in range(count) if token not in marks),
            front=front,
            back=back,
            padding=encoder.padding,
            limit=min(value for value in (length or _LENGTH, encoder.limit) if value is not None),
        )


def token_inputs(specs: Sequence[InputSpec]) -> dict[str, str]:
    """What the inputs of a model of texts take, by name; empty where none takes tokens."""
    roles = {spec.name: role_of(spec) for spec in specs if len(spec.shape) == 2}
    named = {name: role for name, role in roles.items() if role is not None}
    return named if list(named.values()).count(IDS) == 1 else {}


def make_texts(
    model: Model, specs: Sequence[InputSpec], count: int, seed: int, progress: Progress
) -> tuple[dict[str, np.ndarray], str]:
    """Inputs of texts by name, and how they were made.

    Args:
        model: The float model.
        specs: Its inputs for texts, as `token_inputs` knows them.
        count: How many.
        seed: Any integer from 0.
        progress: Told after every token.

    Raises:
        AdapterError: Nothing tells the vocabulary, or inputs differ in length.
    """
    roles = token_inputs(specs)
    fixed = {spec.shape[1] for spec in specs if spec.shape[1] is not None}
    if len(fixed) > 1:
        raise AdapterError(f"synthetic data: inputs for texts have different lengths ({sorted(fixed)})")
    length = next(iter(fixed), None)
    vocabulary = Vocabulary.of(model, length)
    masked = MASK in roles.values()
    tokens, mask = drawn_texts(vocabulary, count, seed, length or vocabulary.limit, varied=masked)
    how = "tokens of the vocabulary"
    alone = len(model.input_specs) == len(specs)

    def run(rows: np.ndarray) -> Mapping[str, np.ndarray]:
        return model.run(_inputs(specs, roles, rows, np.ones_like(rows))).groups[0]

    decoder = _decoder(model, run, tokens[:2], vocabulary.words) if alone else None
    if decoder is not None:
        tokens = sampled_texts(lambda rows: run(rows)[decoder], vocabulary, tokens, seed, progress)
        mask, how = np.ones_like(tokens), "texts sampled from it token by token"
    return _inputs(specs, roles, tokens, mask), how


def drawn_texts(
    vocabulary: Vocabulary, count: int, seed: int, length: int, *, varied: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Words in random order between the marks, and masks of what is no padding; int64, shape (count, length)."""
    tokens = np.full((count, length), vocabulary.padding, dtype=np.int64)
    mask = np.zeros_like(tokens)
    around = len(vocabulary.front) + len(vocabulary.back)
    words = np.asarray(vocabulary.words)
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        most = max(1, min(length, vocabulary.limit) - around)
        size = int(rng.integers(min(_SHORTEST, most), most + 1)) if varied else max(1, length - around)
        text = [*vocabulary.front, *rng.choice(words, size), *vocabulary.back][:length]
        tokens[number, : len(text)], mask[number, : len(text)] = text, 1
    return tokens, mask


def sampled_texts(
    logits: Callable[[np.ndarray], np.ndarray],
    vocabulary: Vocabulary,
    tokens: np.ndarray,
    seed: int,
    progress: Progress,
) -> np.ndarray:
    """Texts that a decoder goes on with from their first word, marks left out.

    Args:
        logits: Tokens in, logits of the next ones out, shape (samples, length, tokens).
        vocabulary: What may be sampled.
        tokens: Texts of one length, of which the front and a word stay.
        seed: Any integer from 0.
        progress: Told after every token.
    """
    texts, words = tokens.copy(), np.asarray(vocabulary.words)
    chance = np.stack([np.random.default_rng([seed, n, 1]).random(texts.shape[1]) for n in range(len(texts))])
    for place in range(min(len(vocabulary.front) + 1, texts.shape[1]), texts.shape[1]):
        rows = logits(texts)[:, place - 1]
        likely = np.exp(log_softmax(rows[:, words[words < rows.shape[1]]])).cumsum(axis=1)
        chosen = (likely < chance[:, place, None] * likely[:, -1:]).sum(axis=1)
        texts[:, place] = words[np.minimum(chosen, likely.shape[1] - 1)]
        progress("sampling texts", place + 1, texts.shape[1])
    return texts


def _decoder(model: Model, run: Run, tokens: np.ndarray, words: Sequence[int]) -> str | None:
    """The output that gives the next token at every place and looks at none behind it, or None."""
    if tokens.shape[1] < _SHORTEST:
        return None
    heads = [head.name for head in model.heads if head.role == CLASSES and head.axis in (-1, 2)]
    if len(heads) != 1:
        return None
    changed = tokens.copy()
    changed[:, -1] = np.where(tokens[:, -1] == words[0], words[-1], words[0])
    before, after = run(tokens)[heads[0]], run(changed)[heads[0]]
    if before.ndim != 3 or before.shape[1] != tokens.shape[1] or before.shape[2] <= tokens.max():
        return None
    moved = np.abs(before[:, :-1] - after[:, :-1]).max()
    itself = np.abs(before[:, -1] - after[:, -1]).max()
    return heads[0] if moved <= _UNMOVED * np.abs(before).max() < itself else None


def _inputs(
    specs: Sequence[InputSpec], roles: Mapping[str, str], tokens: np.ndarray, mask: np.ndarray
) -> dict[str, np.ndarray]:
    values = {IDS: tokens, MASK: mask, TYPES: np.zeros_like(tokens)}
    places = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    return {spec.name: values.get(roles[spec.name], places).astype(spec.dtype) for spec in specs}
