"""Files that nobody vouches for, read within bounds: no pipe or device, no more bytes or values than were agreed."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

# Of a JSON text. Each bound holds what the parsed values can take, whatever the text, to a few hundred megabytes.
MOST_JSON_BYTES = 1 << 27
_MOST_CONTAINERS = 1 << 19
_MOST_VALUES = 5_000_000
_MOST_DEPTH = 64


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading, unless it is a pipe, device or folder: those may never end, or never begin.

    Raises:
        OSError: It cannot be opened, or is no regular file.
    """
    # Opening a pipe waits for a writer unless told not to; what was opened cannot be swapped afterwards.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
            raise OSError(code, "a folder, no file" if stat.S_ISDIR(mode) else "no regular file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: Path, most: int) -> bytes:
    """The content of a regular file.

    Args:
        path: The file.
        most: Bytes that it may have.

    Raises:
        OSError: It cannot be read, is no regular file, or is larger.
    """
    with open_regular(path) as handle:
        content = handle.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"larger than {most >> 20} MiB", str(path))
    return content


def parse_json(text: str, **options: Any) -> Any:
    """The value of a JSON text.

    Args:
        text: The text.
        options: As `json.loads` takes them.

    Raises:
        ValueError: It is no JSON, or has more values than any file of lampq or another tool.

    >>> parse_json('{"bits": 4}')
    {'bits': 4}
    """
    if text.count("[") + text.count("{") > _MOST_CONTAINERS or text.count(",") > _MOST_VALUES:
        raise ValueError(f"more than {_MOST_CONTAINERS:,} lists and objects, or {_MOST_VALUES:,} values")
    try:
        value = json.loads(text, **options)
    except RecursionError as err:
        raise ValueError(f"nested more than {_MOST_DEPTH} deep") from err
    _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(_MOST_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise ValueError(f"nested more than {_MOST_DEPTH} deep")
