"""Texts as the integer inputs of a model, in groups of one length."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lampq.adapters.data.arrays import as_integers
from lampq.adapters.data.labelled import Labelled
from lampq.adapters.data.named_arrays import takes
from lampq.adapters.data.tokenizer import TextEncoder, Tokens
from lampq.core.values.batch import Batch
from lampq.core.values.errors import AdapterError
from lampq.core.values.input_spec import FLOATING, InputSpec

IDS, MASK, TYPES, POSITIONS = "ids", "mask", "types", "positions"
# Lengths that are this far apart at most are padded to one.
_STEP = 16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextReader:
    """Tokens of chosen texts, those of one length side by side.

    Attributes:
        groups: Inputs by name, a group for each length.
        labels: Labels of the samples in their order, int64, or None.
        order: Which of the chosen texts each sample is.
    """

    groups: Sequence[Mapping[str, np.ndarray]]
    labels: np.ndarray | None
    order: np.ndarray

    def count(self) -> int:
        """Number of samples."""
        return Batch(self.groups).samples

    def batches(self, size: int) -> Iterator[Labelled]:
        """Samples of one length in order, `size` at a time."""
        first = 0
        for group in self.groups:
            count = len(next(iter(group.values())))
            for start in range(0, count, size):
                part = {name: array[start : start + size] for name, array in group.items()}
                here = slice(first + start, first + min(start + size, count))
                yield Labelled(Batch([part]), None if self.labels is None else self.labels[here])
            first += count

    def by_length(self) -> Iterator[TextReader]:
        """A reader for each length."""
        first = 0
        for group in self.groups:
            here = slice(first, first + len(next(iter(group.values()))))
            labels = None if self.labels is None else self.labels[here]
            yield TextReader(groups=[group], labels=labels, order=self.order[here])
            first = here.stop

    def digest(self) -> str:
        """SHA-256 over the tokens and labels."""
        total = hashlib.sha256()
        for group in self.groups:
            for name, array in group.items():
                total.update(f"{name}{array.dtype.str}{array.shape}".encode())
                total.update(np.ascontiguousarray(array).data)
        if self.labels is not None:
            total.update(self.labels.astype("<i8").data)
        return total.hexdigest()


def read_tokens(
    texts: Sequence[str],
    labels: np.ndarray | None,
    specs: Sequence[InputSpec],
    encoder: TextEncoder,
    source: str,
) -> TextReader:
    """Encode texts for a model.

    Where the model has an input for a mask, lengths near each other are padded to the longest of them; where it has
    none, only texts of one length go together. A model of fixed length has all of them padded to it.

    Args:
        texts: Chosen texts.
        labels: Their labels, or None.
        specs: The model's inputs, without those that are fixed.
        encoder: The tokenizer.
        source: Of the data, for messages.

    Raises:
        AdapterError: An input is none that texts give, or a text is not fit for the model.
    """
    roles = text_inputs(specs, source)
    lengths = {spec.shape[1] for spec in specs if spec.shape[1] is not None}
    if len(lengths) > 1:
        raise AdapterError(f"data {source}: the inputs for texts have different lengths; {takes(specs)}")
    fixed = next(iter(lengths), None)
    tokens = encoder.encode(texts, limit=fixed)
    by_length: dict[int, list[int]] = {}
    for index, text in enumerate(tokens):
        step = _STEP if MASK in roles.values() else 1
        length = fixed or -(-len(text.ids) // step)
        by_length.setdefault(length, []).append(index)
    order = [by_length[length] for length in sorted(by_length)]
    groups = [
        _group([tokens[index] for index in members], specs, roles, encoder.padding, fixed, source)
        for members in order
    ]
    everything = np.concatenate([np.array(members) for members in order])
    return TextReader(groups=groups, labels=None if labels is None else labels[everything], order=everything)


def text_inputs(specs: Sequence[InputSpec], source: str) -> dict[str, str]:
    """What each input of a model of texts takes, by name: `ids`, `mask`, `types` or `positions`.

    Raises:
        AdapterError: One takes none of these, or not exactly one takes the tokens themselves.
    """
    roles = {spec.name: role_of(spec) for spec in specs}
    strange = [spec for spec in specs if roles[spec.name] is None or len(spec.shape) != 2]
    if strange:
        raise AdapterError(
            f"data {source}: texts give nothing for {strange[0]}; fix it with --input {strange[0].name}=VALUE"
        )
    ids = [name for name, role in roles.items() if role == IDS]
    if len(ids) != 1:
        raise AdapterError(
            f"data {source}: texts go into one input of tokens, not {len(ids)}; {takes(specs)}"
        )
    return {name: role for name, role in roles.items() if role is not None}


def role_of(spec: InputSpec) -> str | None:
    """What an input of a model of texts takes, by its name and type, or None."""
    name = spec.name.lower()
    if "mask" in name:
        return MASK
    if spec.dtype in FLOATING or spec.dtype == "bool":
        return None
    if "type" in name or "segment" in name:
        return TYPES
    return POSITIONS if "position" in name else IDS


def _group(
    tokens: Sequence[Tokens],
    specs: Sequence[InputSpec],
    roles: Mapping[str, str],
    padding: int,
    fixed: int | None,
    source: str,
) -> dict[str, np.ndarray]:
    """Inputs of texts that are padded to one length."""
    length = fixed or max(len(text.ids) for text in tokens)
    values = {
        IDS: np.full((len(tokens), length), padding, dtype=np.int64),
        MASK: np.zeros((len(tokens), length), dtype=np.int64),
        TYPES: np.zeros((len(tokens), length), dtype=np.int64),
        POSITIONS: np.tile(np.arange(length, dtype=np.int64), (len(tokens), 1)),
    }
    for row, text in enumerate(tokens):
        values[IDS][row, : len(text.ids)] = text.ids
        values[MASK][row, : len(text.ids)] = 1
        values[TYPES][row, : len(text.types)] = text.types
    return {spec.name: _typed(values[roles[spec.name]], spec, source) for spec in specs}


def _typed(values: np.ndarray, spec: InputSpec, source: str) -> np.ndarray:
    if spec.dtype in FLOATING:
        return values.astype(np.float32)
    return as_integers(values, spec, source, spec.name)
