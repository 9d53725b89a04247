"""The contents of an .npz file, checked."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

import numpy as np

from lampq.core.values.bounded import open_regular
from lampq.core.values.errors import AdapterError
from lampq.core.values.npz import read_npz

_MOST_CLASSES = 1 << 20


def load_npz(path: Path, wanted: Container[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Arrays of an .npz file by name, and the names of all it holds. It runs no code.

    Args:
        path: The file.
        wanted: Names to read.

    Raises:
        AdapterError: The file is no .npz, needs pickle, or expands to a suspicious size.
    """
    try:
        with open_regular(path) as handle:
            return read_npz(handle, wanted)
    except FileNotFoundError as err:
        raise AdapterError(f"data {path}: no such file") from err
    except OSError as err:
        raise AdapterError(f"data {path}: cannot be read ({err.strerror})") from err
    except ValueError as err:
        raise AdapterError(f"data {path}: not a readable .npz file ({err})") from err


def class_names(names: np.ndarray | None, source: str) -> tuple[str, ...] | None:
    """Names of classes as a file holds them.

    Raises:
        AdapterError: They are no list of strings.
    """
    if names is None:
        return None
    if names.ndim != 1 or names.dtype.kind != "U" or len(names) > _MOST_CLASSES:
        raise AdapterError(f"data {source}: classes has type {names.dtype}; save a list of strings")
    return tuple(str(name) for name in names)
