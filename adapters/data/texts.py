"""Texts and their labels: one a line, or a field of .jsonl or a column of .csv."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lampq.adapters.data.arrays import check_labels
from lampq.adapters.data.rows import SUFFIXES as TABLES
from lampq.adapters.data.rows import Row, read_content, read_rows
from lampq.core.values.errors import AdapterError
from lampq.core.values.messages import listed

FIELDS = ("text", "sentence", "content")
"""What the field or column of a text is called, best first."""
LABEL = "label"


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
    """Read a .txt, .jsonl, .csv or .parquet file, UTF-8. Empty lines at the end of a .txt count for nothing.

    Raises:
        AdapterError: It cannot be read, holds no or an empty text, has no field for texts, or only some labels.
    """
    records = _lines(path) if path.suffix.lower() == ".txt" else _fields(read_rows(path), path)
    if not records:
        raise AdapterError(f"data {path}: holds no texts")
    texts = []
    for place, text, _ in records:
        if not text.strip():
            raise AdapterError(f"data {path}: {place} holds an empty text; remove it")
        texts.append(text)
    labels, names = labels_of([(place, label) for place, _, label in records], path)
    return Texts(texts=texts, labels=labels, class_names=names)


Records = list[tuple[str, str, Any]]
"""Where in the file, text, label or None."""


def _lines(path: Path) -> Records:
    lines = read_content(path).split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return [(f"line {number}", line.rstrip("\r"), None) for number, line in enumerate(lines, start=1)]


def _fields(rows: Iterator[Row], path: Path) -> Records:
    records: Records = []
    for place, row in rows:
        field = next((name for name in FIELDS if name in row), None)
        if field is None:
            names = listed([str(name) for name in row]) or "nothing"
            raise AdapterError(f"data {path}: {place} has {names}; a text is called {' or '.join(FIELDS)}")
        text = row[field]
        if not isinstance(text, str):
            raise AdapterError(f"data {path}: {field} of {place} is no text")
        records.append((place, text, row.get(LABEL)))
    return records


def labels_of(
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


SUFFIXES = (".txt", *TABLES)
"""Of files of texts."""
