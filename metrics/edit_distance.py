"""Errors of what is read: symbols to change, insert or leave out, as a share of the symbols that are right."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lampq.core.values.batch import Batch
from lampq.core.values.errors import RecordError
from lampq.core.values.head import CLASSES, Head
from lampq.metrics.case import Case, samples
from lampq.metrics.metric import REFERENCE, TRUTH, Metric


def edit_distance(one: Sequence[object], other: Sequence[object]) -> int:
    """Fewest changes, insertions and deletions from one sequence to another (Levenshtein, 1966).

    >>> edit_distance("kitten", "sitting")
    3
    """
    row = list(range(len(other) + 1))
    for number, symbol in enumerate(one, start=1):
        diagonal, row[0] = row[0], number
        for place, against in enumerate(other, start=1):
            best = min(row[place] + 1, row[place - 1] + 1, diagonal + (symbol != against))
            diagonal, row[place] = row[place], best
    return row[-1]


def collapsed(path: np.ndarray, blank: int) -> list[int]:
    """What a path of connectionist temporal classification reads: repeated classes once, blanks not at all.

    >>> collapsed(np.array([0, 3, 3, 0, 3, 5]), 0)
    [3, 3, 5]
    """
    first = np.concatenate([[True], path[1:] != path[:-1]])
    symbols: list[int] = path[first & (path != blank)].tolist()
    return symbols


def ctc(*, blank: int = 0, characters: Sequence[str] | None = None) -> Metric:
    """The metric `ctc` for another blank, or for texts as the truth.

    Args:
        blank: Class that reads nothing.
        characters: Text of each class; the truth is then a text for each sample, otherwise classes.
    """
    return _reading("ctc", functools.partial(collapsed, blank=blank), characters)


def _reading(
    name: str, read: Callable[[np.ndarray], list[int]], characters: Sequence[str] | None = None
) -> Metric:
    measure = functools.partial(_rate, name=name, read=read, characters=characters)
    return Metric(name=name, measure=measure, against=(TRUTH, REFERENCE), higher_is_better=False, whole=1.0)


def _rate(
    case: Case, *, name: str, read: Callable[[np.ndarray], list[int]], characters: Sequence[str] | None
) -> float:
    """Edit distance of all samples as a share of the symbols of the truth.

    Raises:
        RecordError: The truth is of another form, or has no symbols at all.
    """
    head = case.lone((CLASSES,), name)
    symbols_read = _lines(case.outputs, head, case.inputs, read)
    lines: list[Sequence[object]] = [*symbols_read]
    if case.truth is None:
        expected: list[Sequence[object]] = [*_lines(case.compared(), head, case.inputs, read)]
    else:
        expected = _expected(case.truth, len(lines), name, texts=characters is not None)
        if characters is not None:
            lines = ["".join(characters[symbol] for symbol in line) for line in symbols_read]
    symbols = sum(map(len, expected))
    if not symbols:
        whose = "the float model reads" if case.truth is None else "the truth holds"
        raise RecordError(
            f"metric {name}: {whose} no symbol in any sample, so there is nothing to compare with"
        )
    return sum(map(edit_distance, lines, expected)) / symbols


def _lines(
    batch: Batch, head: Head, inputs: Batch, read: Callable[[np.ndarray], list[int]]
) -> list[list[int]]:
    axis = head.axis if head.axis < 0 else head.axis - 1
    masks: list[np.ndarray | None] = [None] * batch.samples
    if head.mask is not None and head.mask in inputs.names:
        masks = list(samples(inputs, head.mask))
    lines = []
    for row, mask in zip(samples(batch, head.name), masks, strict=True):
        path = row.argmax(axis=axis)
        if path.ndim != 1:
            raise RecordError(f"output {head.name} is no sequence of classes")
        lines.append(read(path if mask is None else path[mask != 0]))
    return lines


def _expected(truth: Any, count: int, name: str, *, texts: bool) -> list[Sequence[object]]:
    form = "a text" if texts else "a list of classes"
    if isinstance(truth, dict | str) or not hasattr(truth, "__len__") or len(truth) != count:
        raise RecordError(f"metric {name} takes {form} for each of {count} samples as the truth")
    lines = list(truth)
    if any(isinstance(line, str) != texts for line in lines):
        more = (
            "" if texts else "; texts need the characters of the classes: lampq.metrics.ctc(characters=...)"
        )
        raise RecordError(f"metric {name} takes {form} for each sample as the truth{more}")
    return [line if texts else list(np.asarray(line).tolist()) for line in lines]


CTC = ctc()
TOKENS = _reading("tokens", np.ndarray.tolist)
