"""What an output's description says about its meaning, as facts that rules can ask for."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lampq.core.values.input_spec import FLOATING, InputSpec
from lampq.core.values.output_spec import OutputSpec

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_WORD = re.compile(r"[a-z]+|[0-9]+")
# An axis this many times longer than another counts anchors or pixels; the other holds what is said of each.
_LONGER = 8
TOKEN_MASKS = frozenset({"attentionmask", "inputmask", "attnmask", "paddingmask"})


def words(text: str) -> frozenset[str]:
    """Lower-case words and numbers of a name, and its neighbouring words put together.

    >>> sorted(words("pred_boxes.1"))
    ['1', 'boxes', 'boxes1', 'pred', 'predboxes']
    """
    single = _WORD.findall(_CAMEL.sub(" ", text).lower())
    return frozenset(single) | {one + other for one, other in itertools.pairwise(single)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One output among its fellows.

    Attributes:
        spec: The output.
        outputs: All outputs of the model.
        inputs: All inputs.
        task: What the model was made for, letters alone in lower case, or empty.
        model: Words of the model's file name.
    """

    spec: OutputSpec
    outputs: Sequence[OutputSpec]
    inputs: Sequence[InputSpec]
    task: str
    model: frozenset[str]

    @property
    def words(self) -> frozenset[str]:
        """Words of the output's name."""
        return words(self.spec.name)

    @property
    def dims(self) -> tuple[int | None, ...] | None:
        """Its shape; two axes where one alone, but for the samples, is longer than 1; None where unknown."""
        shape = self.spec.shape
        return shape if shape is None or self._lone_axis is None else (shape[0], shape[self._lone_axis])

    @property
    def axes(self) -> int | None:
        """Number of those axes."""
        return None if self.dims is None else len(self.dims)

    @property
    def last_axis(self) -> int:
        """The last of those axes, in the output's own layout."""
        return -1 if self._lone_axis is None else self._lone_axis

    @property
    def _lone_axis(self) -> int | None:
        shape = self.spec.shape
        if shape is None or len(shape) < 3:
            return None
        long = [axis for axis, dim in enumerate(shape) if axis and dim != 1]
        return None if len(long) > 1 else (*long, len(shape) - 1)[0]

    @property
    def run_axis(self) -> int:
        """The axis that its softmax or normalization runs along; the last where the file does not say."""
        axis, shape = self.spec.axis, self.spec.shape
        if axis is None or (shape is not None and not -len(shape) <= axis < len(shape)):
            return self.last_axis
        return axis % len(shape) if shape else axis

    @property
    def others(self) -> list[OutputSpec]:
        """Its fellows that hold floating point."""
        return [other for other in self.outputs if other is not self.spec and other.dtype in FLOATING]

    def named(self, names: frozenset[str]) -> bool:
        """Whether its name has one of these words."""
        return not names.isdisjoint(self.words)

    def beside(self, names: frozenset[str]) -> bool:
        """Whether another output's name has one of these words."""
        return any(not names.isdisjoint(words(other.name)) for other in self.others)

    def made_for(self, *tasks: str) -> bool:
        """Whether the task is one of these."""
        return any(task in self.task for task in tasks)

    @property
    def channel_axis(self) -> int:
        """The axis that likely holds channels or coordinates.

        Of four axes or more the second, unless the last is the shorter one by far, or the images that go in have
        their channels last. Of three the last, unless the one before it is the shorter by far. Of two the last.
        """
        dims = self.spec.shape
        if dims is None or len(dims) < 3:
            return -1
        if len(dims) == 3:
            return 1 if _shorter(dims[1], dims[2]) and not self.reads_text else -1
        if len(dims) == 4 and self._channels_last:
            return len(dims) - 1
        return 1

    @property
    def reads_text(self) -> bool:
        """Whether tokens go in."""
        return any(not {"ids", "attention", "tokens"}.isdisjoint(words(spec.name)) for spec in self.inputs)

    @property
    def reads_tokens(self) -> bool:
        """Whether texts go in, by name, or by their numbers: whole ones, on one axis."""
        return self.reads_text or any(
            spec.dtype in ("int32", "int64") and len(spec.shape or ()) == 2 for spec in self.inputs
        )

    @property
    def _channels_last(self) -> bool:
        layouts = {spec.layout for spec in self.inputs if len(spec.shape) == 4}
        if layouts == {"NHWC"}:
            return True
        _, second, _, last = self.spec.shape or ()
        return layouts != {"NCHW"} and _shorter(last, second)

    def mask(self) -> str | None:
        """The input that says which of its tokens count, for an output (samples, tokens, features)."""
        dims = self.spec.shape
        if dims is None or len(dims) != 3 or not words("image vision pixel").isdisjoint(self.words):
            return None
        if any("past" in words(spec.name) for spec in self.inputs):
            return None  # The mask then covers the tokens of earlier runs as well.
        for spec in self._token_masks():
            if len(spec.shape) == 2 and spec.shape[1] == dims[1]:
                return spec.name
        return None

    def _token_masks(self) -> list[InputSpec]:
        masks = [spec for spec in self.inputs if not TOKEN_MASKS.isdisjoint(words(spec.name))]
        decodes = any("decoder" in words(spec.name) for spec in self.inputs) and "encoder" not in self.words
        return [spec for spec in masks if ("decoder" in words(spec.name)) == decodes]


def _shorter(one: int | None, other: int | None) -> bool:
    return one is not None and (other is None or one * _LONGER <= other)
