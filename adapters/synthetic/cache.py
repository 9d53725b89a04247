"""Samples that were made before: an .npz named by all that decides them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lampq.core.values.bounded import open_regular
from lampq.core.values.npz import read_npz
from lampq.core.values.publishing import atomic_path

_TOLD = "told"
"""Array of the key and the notes, beside those of the samples."""


def cached_path(folder: Path, key: str) -> Path:
    """The file of the samples with a key."""
    return folder / f"synthetic-{key[:16]}.npz"


def load(path: Path, key: str) -> tuple[dict[str, np.ndarray], tuple[str, ...]] | None:
    """Samples and notes, or None where there are none of this key or the file is damaged."""
    try:
        with open_regular(path) as handle:
            arrays, _ = read_npz(handle)
    except (OSError, ValueError):
        return None
    told = arrays.pop(_TOLD, None)
    if told is None or told.dtype.kind != "U" or told.ndim != 1 or not len(told) or told[0] != key:
        return None
    return arrays, tuple(str(note) for note in told[1:])


def save(path: Path, key: str, samples: Mapping[str, np.ndarray], notes: tuple[str, ...]) -> None:
    """Write samples whole or not at all.

    Raises:
        OutputError: They cannot be written.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        arrays: dict[str, Any] = {**samples, _TOLD: np.array([key, *notes])}
        np.savez_compressed(handle, **arrays)
