"""Files written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from lampq.core.values.bounded import MOST_JSON_BYTES, parse_json, read_bytes
from lampq.core.values.errors import RecordError
from lampq.core.values.publishing import atomic_path

_LARGEST_INTEGER, _LONGEST_INTEGER = 2**63 - 1, 20


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, UTF-8; parts of file names that are no text are escaped."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically; NaN and infinity are refused because JSON has none."""
    write_text(path, json_text(data))


def json_text(data: Any) -> str:
    """The text of a JSON file, ASCII alone; NaN and infinity are refused."""
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def read_json(path: Path, what: str, *, bounded: bool = False) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: The file.
        what: What it should be ("plan", "profile"), for the message.
        bounded: Refuse integers beyond 64 bits, which other tools' files may hold.

    Raises:
        RecordError: It is missing, unreadable, no JSON, or no object.
    """
    try:
        text = read_bytes(Path(path), MOST_JSON_BYTES).decode("utf-8")
    except FileNotFoundError as err:
        raise RecordError(f"{what} {path}: no such file") from err
    except UnicodeDecodeError as err:
        raise RecordError(f"{what} {path}: this is no text, and so no {what}{_hint(Path(path))}") from err
    except (OSError, MemoryError) as err:
        why = getattr(err, "strerror", None) or err.__class__.__name__
        raise RecordError(f"{what} {path}: cannot be read as text ({why})") from err
    try:
        data = parse_json(text, parse_constant=_refuse_constant, parse_int=_bounded if bounded else None)
    except ValueError as err:
        raise RecordError(f"{what} {path}: not valid JSON ({err})") from err
    if not isinstance(data, dict):
        raise RecordError(f"{what} {path}: expected a JSON object")
    return data


def sha256(path: Path) -> str:
    """SHA-256 of a file, read as a stream."""
    with Path(path).open("rb") as handle:
        return (
            hashlib.file_digest(handle, "sha256").hexdigest()
            if hasattr(hashlib, "file_digest")
            else _digest(handle)
        )


def _hint(path: Path) -> str:
    """Which file to give where the arrays of a profile were given: `p.0123456789ab.npz` is beside `p.json`."""
    stem = re.sub(r"\.[0-9a-f]{12}$", "", path.stem)
    beside = path.with_name(f"{stem}.json")
    return f"; give {beside.name} beside it" if path.suffix == ".npz" and beside.is_file() else ""


def _digest(handle: Any) -> str:
    digest = hashlib.sha256()
    while block := handle.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _bounded(text: str) -> int:
    # Long ones take time that grows with the square of their length, and no array holds them.
    value = int(text) if len(text) <= _LONGEST_INTEGER else _LARGEST_INTEGER + 1
    if abs(value) > _LARGEST_INTEGER:
        raise ValueError(f"{text[:_LONGEST_INTEGER]} is beyond 64 bits")
    return value


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")
