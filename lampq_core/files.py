"""Files written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lampq.core.bounded import MOST_JSON_BYTES, parse_json, read_bytes
from lampq.core.errors import LampqError, RecordError


class OutputExistsError(LampqError, FileExistsError):
    """An output file is already there and overwriting was not asked for."""


def refuse_existing(
    path: Path, *, force: bool, marker: str | None = None, source: Path | None = None
) -> None:
    """Stop before any work when an output could not be written.

    Args:
        path: The output.
        force: Whether it may replace what is there.
        marker: Where the output is a folder, a file that tells such folders: one without it is never replaced.
        source: A file that is read, and so never replaced.

    Raises:
        OutputExistsError: The output is `source`, or exists and `force` is false, or is a folder that it may not
            replace, or its folder does not exist.
    """
    if source is not None and path.exists() and path.resolve() == source.resolve():
        raise OutputExistsError(f"{path} is what is read; name another file")
    if path.exists() and not force:
        raise OutputExistsError(f"{path} exists; pass --force (force=True) to overwrite it")
    if path.is_dir() and marker is None:
        raise OutputExistsError(f"{path} is a folder; name a file")
    if path.is_dir() and marker is not None and any(path.iterdir()) and not (path / marker).is_file():
        raise OutputExistsError(f"{path} is a folder without {marker}, and is kept; name another")
    if not path.parent.is_dir():
        raise OutputExistsError(f"the folder {path.parent} does not exist; create it first")


def refuse_existing_pair(path: Path, *, force: bool) -> None:
    """`refuse_existing` for a profile: JSON and the arrays beside it."""
    refuse_existing(path, force=force)
    refuse_existing(path.with_suffix(".npz"), force=force)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of `path` that becomes `path` when the block ends without an error."""
    path = Path(path)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically; NaN and infinity are refused because JSON has none."""
    write_text(path, json.dumps(data, indent=1, allow_nan=False) + "\n")


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: The file.
        what: What it should be ("plan", "profile"), for the message.

    Raises:
        RecordError: It is missing, unreadable, no JSON, or no object.
    """
    try:
        text = read_bytes(Path(path), MOST_JSON_BYTES).decode("utf-8")
    except FileNotFoundError as err:
        raise RecordError(f"{what} {path}: no such file") from err
    except (OSError, UnicodeDecodeError) as err:
        beside = Path(path).with_suffix(".json")
        hint = f"; give {beside.name} beside it" if Path(path).suffix == ".npz" and beside.is_file() else ""
        why = getattr(err, "strerror", None) or err.__class__.__name__
        raise RecordError(f"{what} {path}: cannot be read as text ({why}){hint}") from err
    try:
        data = parse_json(text, parse_constant=_refuse_constant)
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


def _digest(handle: Any) -> str:
    digest = hashlib.sha256()
    while block := handle.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")
