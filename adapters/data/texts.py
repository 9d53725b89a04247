"""Texts and their labels: one a line, or a field of .jsonl or a column of .csv."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lampq.adapters.data.arrays import check_labels
from lampq.core.values.bounded import parse_json, read_bytes
from lampq.core.values.errors import AdapterError
from lampq.core.values.messages import listed, reason

FIELDS = ("text", "sentence", "content")
"""What the field or column of a text is called, best first."""
_LABEL = "label"
_MOST_BYTES, _MOST_TEXTS = 1 << 28, 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Texts:
    """Texts of a file.

    Attributes:
        texts: In the order of the file; none is empty.
        labels: Class indices, int64, or None.
        class_names: Names of the labels where the file has names, sorted; else None.
    """

    texts: Sequence[str]
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None


def read_texts(path: Path) -> Texts:
    """Read a .txt, .jsonl or .csv file, UTF-8. Empty lines at the end of a .txt count for nothing.

    Raises:
        AdapterError: It cannot be read, holds no or an empty text, has no field for texts, or only some labels.
    """
    try:
        content = read_bytes(path, _MOST_BYTES).decode("utf-8-sig")
    except OSError as err:
        raise AdapterError(f"data {path}: cannot be read ({err.strerror or err})") from err
    except UnicodeDecodeError as err:
        raise AdapterError(f"data {path}: no UTF-8 text ({reason(err)})") from err
    if content.count("\n") > _MOST_TEXTS:
        raise AdapterError(f"data {path}: more than {_MOST_TEXTS:,} lines; take fewer texts")
    records = _READERS[path.suffix.lower()](content, path)
    if not records:
        raise AdapterError(f"data {path}: holds no texts")
    texts = []
    for place, text, _ in records:
        if not text.strip():
            raise AdapterError(f"data {path}: {place} holds an empty text; remove it")
        texts.append(text)
    labels, names = _labels([(place, label) for place, _, label in records], path)
    return Texts(texts=texts, labels=labels, class_names=names)


Records = list[tuple[str, str, Any]]
"""Where in the file, text, label or None."""


def _lines(content: str, path: Path) -> Records:
    lines = content.split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return [(f"line {number}", line.rstrip("\r"), None) for number, line in enumerate(lines, start=1)]


def _json_lines(content: str, path: Path) -> Records:
    def rows() -> Iterator[tuple[str, Mapping[str, Any]]]:
        for number, line in enumerate(content.split("\n"), start=1):
            if not line.strip():
                continue
            try:
                row = parse_json(line)
            except ValueError as err:
                raise AdapterError(f"data {path}: line {number} is no JSON ({reason(err)})") from err
            if not isinstance(row, dict):
                raise AdapterError(f"data {path}: line {number} is no JSON object with a text in it")
            yield f"line {number}", row

    return _fields(rows(), path)


def _csv(content: str, path: Path) -> Records:
    def rows() -> Iterator[tuple[str, Mapping[str, Any]]]:
        reader = csv.DictReader(content.splitlines(keepends=True))
        try:
            for number, row in enumerate(reader, start=1):
                yield f"row {number}", row
        except csv.Error as err:
            raise AdapterError(f"data {path}: malformed near line {reader.line_num} ({reason(err)})") from err

    return _fields(rows(), path)


def _fields(rows: Iterator[tuple[str, Mapping[str, Any]]], path: Path) -> Records:
    records: Records = []
    for place, row in rows:
        field = next((name for name in FIELDS if name in row), None)
        if field is None:
            names = listed([str(name) for name in row]) or "nothing"
            raise AdapterError(f"data {path}: {place} has {names}; a text is called {' or '.join(FIELDS)}")
        text = row[field]
        if not isinstance(text, str):
            raise AdapterError(f"data {path}: {field} of {place} is no text")
        records.append((place, text, row.get(_LABEL)))
    return records


def _labels(
    values: Sequence[tuple[str, Any]], path: Path
) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    """Labels as class indices: numbers as they are, names by their place among all names."""
    if all(label in (None, "") for _, label in values):
        return None, None
    for place, label in values:
        if label in (None, "") or isinstance(label, float | bool | list | dict):
            raise AdapterError(
                f"data {path}: the label of {place} is {label!r}; give a class index or a name"
            )
    texts = [str(label) for _, label in values]
    if all(text.lstrip("-").isascii() and text.lstrip("-").isdigit() and len(text) < 10 for text in texts):
        return check_labels(np.array([int(text) for text in texts]), len(texts), str(path)), None
    names = sorted(set(texts))
    places = {name: index for index, name in enumerate(names)}
    return np.array([places[text] for text in texts], dtype=np.int64), tuple(names)


_READERS: Mapping[str, Callable[[str, Path], Records]] = {".txt": _lines, ".jsonl": _json_lines, ".csv": _csv}
SUFFIXES = tuple(_READERS)
"""Of files of texts."""
