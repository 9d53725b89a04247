"""The tokenizer that lies beside a model, and how long a text its model takes."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lampq.core.values.bounded import MOST_JSON_BYTES, read_bytes
from lampq.core.values.errors import AdapterError, MissingExtraError, RecordError
from lampq.core.values.files import read_json
from lampq.core.values.messages import reason

FILE_NAME = "tokenizer.json"
_CONFIG, _OWN_CONFIG = "config.json", "tokenizer_config.json"
# Their table of positions begins behind the number of the padding token.
_OFFSET_POSITIONS = ("camembert", "data2vec-text", "longformer", "mpnet", "roberta", "xlm-roberta")
_PADDINGS = ("[PAD]", "<pad>", "<|pad|>", "<|endoftext|>", "</s>")
# What tokenizers say that know of no limit is larger.
_NO_LIMIT = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tokens:
    """A text as a model takes it.

    Attributes:
        ids: Numbers of its tokens.
        types: Which of two texts a token belongs to.
    """

    ids: Sequence[int]
    types: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextEncoder:
    """From a text to tokens.

    Attributes:
        path: The tokenizer's file.
        tokenizer: A `tokenizers.Tokenizer`.
        padding: Number of the token that fills up.
        limit: The most tokens of a text, or None.
        vocabulary: How many tokens the model knows, or None where that is unknown.
    """

    path: Path
    tokenizer: Any
    padding: int
    limit: int | None
    vocabulary: int | None

    def encode(self, texts: Sequence[str], *, limit: int | None = None) -> list[Tokens]:
        """Tokens of every text, cut where it is too long.

        Args:
            texts: Texts.
            limit: The most tokens that the model's input takes, where it says so.

        Raises:
            AdapterError: A text gives no token, or one that the model does not know.
        """
        most = min((value for value in (limit, self.limit) if value is not None), default=None)
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        if most is not None:
            try:
                self.tokenizer.enable_truncation(most)
            except Exception as err:
                raise AdapterError(f"{self.path}: {most} tokens are too few ({reason(err)})") from err
        encodings = self.tokenizer.encode_batch(list(texts))
        encoded = [Tokens(ids=encoding.ids, types=encoding.type_ids) for encoding in encodings]
        for number, tokens in enumerate(encoded, start=1):
            self._check(tokens, number)
        return encoded

    def _check(self, tokens: Tokens, number: int) -> None:
        if not tokens.ids:
            raise AdapterError(f"{self.path}: text {number} gives no tokens; remove it")
        if self.vocabulary is not None and max(tokens.ids) >= self.vocabulary:
            raise AdapterError(
                f"{self.path}: text {number} gives token {max(tokens.ids)}, but the model knows {self.vocabulary} "
                f"tokens; the tokenizer belongs to another model"
            )


def find_encoder(model: str | Path) -> TextEncoder:
    """The tokenizer beside a model, with what its configuration says of the model.

    Looked for in the model's folder (a checkpoint directory itself) and, for a model in a folder `onnx`, in the one
    above.

    Raises:
        AdapterError: There is none, or it is malformed.
        MissingExtraError: The library that runs it is not installed.
    """
    model = Path(model)
    folder = model if model.is_dir() else model.parent
    folders = (folder, folder.parent) if folder.resolve().name == "onnx" else (folder,)
    path = next((place / FILE_NAME for place in folders if (place / FILE_NAME).is_file()), None)
    if path is None:
        raise AdapterError(f"texts need the model's tokenizer: put its {FILE_NAME} into {folder}")
    tokenizer = _load(path)
    config = next((_config(place / _CONFIG) for place in folders if (place / _CONFIG).is_file()), {})
    padding = _padding(tokenizer, config)
    return TextEncoder(
        path=path,
        tokenizer=tokenizer,
        padding=padding,
        limit=_limit(config, _config(path.with_name(_OWN_CONFIG)), padding),
        vocabulary=_integer(config, "vocab_size"),
    )


def _load(path: Path) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as err:
        raise MissingExtraError("tokenizers", "text", err) from err
    try:
        return Tokenizer.from_buffer(read_bytes(path, MOST_JSON_BYTES))
    # The library raises bare exceptions.
    except Exception as err:
        raise AdapterError(f"{path}: no tokenizer that can be read ({reason(err)})") from err


def _config(path: Path) -> Mapping[str, Any]:
    """A configuration, or nothing where there is none; that of the text model where it has several parts."""
    config: Mapping[str, Any] = {}
    with contextlib.suppress(RecordError):
        config = read_json(path, "configuration")
    inner = config.get("text_config")
    return {**config, **inner} if isinstance(inner, dict) else config


def _padding(tokenizer: Any, config: Mapping[str, Any]) -> int:
    own = (tokenizer.padding or {}).get("pad_id")
    known = [tokenizer.token_to_id(token) for token in _PADDINGS]
    choices = (own, _integer(config, "pad_token_id"), *known)
    return next((choice for choice in choices if choice is not None and choice >= 0), 0)


def _limit(config: Mapping[str, Any], own: Mapping[str, Any], padding: int) -> int | None:
    positions = _integer(config, "max_position_embeddings") or _integer(config, "n_positions")
    if positions is not None and config.get("model_type") in _OFFSET_POSITIONS:
        positions -= padding + 1
    limits = [
        value for value in (positions, _integer(own, "model_max_length")) if value and 0 < value < _NO_LIMIT
    ]
    return min(limits, default=None)


def _integer(config: Mapping[str, Any], name: str) -> int | None:
    value = config.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
