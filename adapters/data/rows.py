"""Rows of a table with named fields: .jsonl, .csv, and .parquet where pyarrow is installed."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lampq.core.values.bounded import parse_json, read_bytes
from lampq.core.values.errors import AdapterError, MissingExtraError
from lampq.core.values.messages import reason

MOST_BYTES, MOST_ROWS = 1 << 28, 1_000_000
# Images are in it.
_MOST_PARQUET_BYTES = 1 << 31

Row = tuple[str, Mapping[str, Any]]
"""Where in the file, and the fields."""


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a table.

    Raises:
        AdapterError: It cannot be read, or is malformed.
        MissingExtraError: It is a .parquet, and pyarrow is not installed.
    """
    return _READERS[path.suffix.lower()](path)


def read_content(path: Path) -> str:
    """A text file, UTF-8.

    Raises:
        AdapterError: It cannot be read, or holds no or too much text.
    """
    try:
        content = read_bytes(path, MOST_BYTES).decode("utf-8-sig")
    except OSError as err:
        raise AdapterError(f"data {path}: cannot be read ({err.strerror or err})") from err
    except UnicodeDecodeError as err:
        raise AdapterError(f"data {path}: no UTF-8 text ({reason(err)})") from err
    if content.count("\n") > MOST_ROWS:
        raise AdapterError(f"data {path}: more than {MOST_ROWS:,} lines; take fewer texts")
    return content


def _json_lines(path: Path) -> Iterator[Row]:
    for number, line in enumerate(read_content(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as err:
            raise AdapterError(f"data {path}: line {number} is no JSON ({reason(err)})") from err
        if not isinstance(row, dict):
            raise AdapterError(f"data {path}: line {number} is no JSON object with a text in it")
        yield f"line {number}", row


def _csv(path: Path) -> Iterator[Row]:
    reader = csv.DictReader(read_content(path).splitlines(keepends=True))
    try:
        for number, row in enumerate(reader, start=1):
            yield f"row {number}", row
    except csv.Error as err:
        raise AdapterError(f"data {path}: malformed near line {reader.line_num} ({reason(err)})") from err


def _parquet(path: Path) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as err:
        raise MissingExtraError("pyarrow", "parquet") from err
    try:
        table = parquet.ParquetFile(io.BytesIO(read_bytes(path, _MOST_PARQUET_BYTES)))
        number = 0
        for batch in table.iter_batches(batch_size=256):
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", row
    except OSError as err:
        raise AdapterError(f"data {path}: cannot be read ({err.strerror or err})") from err
    except (ArrowException, ValueError) as err:
        raise AdapterError(f"data {path}: no table in Parquet ({reason(err)})") from err


_READERS: Mapping[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _json_lines,
    ".csv": _csv,
    ".parquet": _parquet,
}
SUFFIXES = tuple(_READERS)
"""Of tables."""
