"""Images named or held by the rows of a table, with their texts and labels: as Hugging Face's folders have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lampq.adapters.data.rows import SUFFIXES, read_rows
from lampq.adapters.data.texts import FIELDS, LABEL, labels_of
from lampq.core.values.errors import AdapterError
from lampq.core.values.messages import listed

_IMAGES = ("image", "file_name", "image_path", "path")
_TEXTS = (*FIELDS, "caption")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """Rows with images.

    Attributes:
        names: File of each image, relative to the folder of the table; a name alone where the table holds the image.
        held: Content of the images that the table holds, by name.
        texts: Text of each row, or None.
        labels: Class indices, int64, or None.
        class_names: Names of the labels where the table has names, sorted; else None.
    """

    names: Sequence[str]
    held: Mapping[str, bytes]
    texts: Sequence[str] | None
    labels: np.ndarray | None
    class_names: tuple[str, ...] | None


def metadata_of(folder: Path) -> Path | None:
    """The table of a folder of images, `metadata.csv`, `.jsonl` or `.parquet`, or None."""
    paths = (folder / f"metadata{suffix}" for suffix in SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def has_images(path: Path) -> bool:
    """Whether the first row of a table names or holds an image.

    Raises:
        AdapterError: It cannot be read.
        MissingExtraError: What reads it is not installed.
    """
    first = next(read_rows(path), None)
    return first is not None and _field(first[1], _IMAGES) is not None


def read_table(path: Path) -> Table:
    """Read a table of images.

    Raises:
        AdapterError: It is malformed, has no rows, or a row no image, an empty text, or only some labels.
        MissingExtraError: What reads it is not installed.
    """
    names: list[str] = []
    held: dict[str, bytes] = {}
    texts: list[str | None] = []
    labels: list[tuple[str, Any]] = []
    for place, row in read_rows(path):
        field = _field(row, _IMAGES)
        if field is None:
            fields = listed([str(name) for name in row]) or "nothing"
            raise AdapterError(
                f"data {path}: {place} has {fields}; an image is called {' or '.join(_IMAGES)}"
            )
        name, content = _image(row[field], f"{len(names):06d}")
        if not name:
            raise AdapterError(f"data {path}: {place} names no image")
        if content is not None:
            name = f"{len(names):06d}-{Path(name).name}"
            held[name] = content
        names.append(name)
        text = row.get(_field(row, _TEXTS) or "")
        if text is not None and (not isinstance(text, str) or not text.strip()):
            raise AdapterError(f"data {path}: {place} holds an empty text, or none; remove it")
        texts.append(text)
        labels.append((place, row.get(LABEL)))
    if not names:
        raise AdapterError(f"data {path}: holds no rows")
    numbers, class_names = labels_of(labels, path)
    known = [text for text in texts if text is not None]
    if known and len(known) < len(texts):
        raise AdapterError(f"data {path}: only some rows hold a text")
    return Table(names=names, held=held, texts=known or None, labels=numbers, class_names=class_names)


def _field(row: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((name for name in names if row.get(name) not in (None, "")), None)


def _image(value: Any, fallback: str) -> tuple[str, bytes | None]:
    """Name and content of an image, which tables of Hugging Face hold as `{bytes, path}`."""
    if isinstance(value, Mapping):
        content = value.get("bytes")
        name = value.get("path") or (fallback if content else "")
        return str(name), content if isinstance(content, bytes) else None
    if isinstance(value, bytes):
        return fallback, value
    return (value if isinstance(value, str) else ""), None
