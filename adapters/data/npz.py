"""The contents of an .npz file, checked."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from lampq.core.values.errors import AdapterError
from lampq.core.values.messages import printable, reason

_MAX_RATIO = 300
_MAX_EXPANDED_BYTES = 1 << 31

# What damaged archives and array headers can raise.
_DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    TypeError,
    AttributeError,
    SyntaxError,
    RuntimeError,
    MemoryError,
    OverflowError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def load_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name. It runs no code.

    Raises:
        AdapterError: The file is no .npz, needs pickle, or expands to a suspicious size.
    """
    try:
        _refuse_bomb(path)
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except AdapterError:
        raise
    except FileNotFoundError as err:
        raise AdapterError(f"data {path}: no such file") from err
    except _DAMAGE as err:
        why = reason(err)
        if "allow_pickle" in why:
            why = "it holds Python objects, which are not loaded; save plain arrays"
        raise AdapterError(f"data {path}: not a readable .npz file ({why})") from err
    for name, value in arrays.items():
        # A member that is no array comes back as bytes.
        if not isinstance(value, np.ndarray):
            raise AdapterError(f"data {path}: {printable(name)} is no array")
    return arrays


def class_names(names: np.ndarray | None, source: str) -> tuple[str, ...] | None:
    """Names of classes as a file holds them.

    Raises:
        AdapterError: They are no list of strings.
    """
    if names is None:
        return None
    if names.ndim != 1 or names.dtype.kind != "U":
        raise AdapterError(f"data {source}: classes has type {names.dtype}; save a list of strings")
    return tuple(str(name) for name in names)


def _refuse_bomb(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        expanded = sum(entry.file_size for entry in archive.infolist())
    if expanded > _MAX_EXPANDED_BYTES and expanded > _MAX_RATIO * path.stat().st_size:
        raise AdapterError(f"data {path}: expands to {expanded >> 20} MB; use np.savez if that is right")
