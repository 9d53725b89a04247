"""Arrays by name that lie on disk where they are too many for memory, read one at a time.

The moments of the inputs of a large model take more than its weights, and every stage has its own; only one layer's is
looked at at a time.
"""

from __future__ import annotations

import tempfile
import threading
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

# What one mapping keeps in memory; later arrays go to disk.
_MEMORY_BYTES = 1 << 26


class ShelvedArrays(Mapping[str, np.ndarray]):
    """A mapping that never changes; `with_array` gives one with more, which shares what is on disk.

    Args:
        arrays: What it holds.
        memory_bytes: What is kept in memory.

    >>> shelved = ShelvedArrays({"a": np.ones(2)}, memory_bytes=0).with_array("b", np.zeros(3))
    >>> sorted(shelved), shelved["b"].tolist()
    (['a', 'b'], [0.0, 0.0, 0.0])
    """

    def __init__(
        self, arrays: Mapping[str, np.ndarray] | None = None, *, memory_bytes: int = _MEMORY_BYTES
    ) -> None:
        self._room = memory_bytes
        self._file: _File | None = None
        self._entries: dict[str, np.ndarray | _Place] = {}
        for name, array in (arrays or {}).items():
            self._put(name, array)

    def __getitem__(self, name: str) -> np.ndarray:
        """An array: that in memory itself, or a new one from disk."""
        entry = self._entries[name]
        return entry if isinstance(entry, np.ndarray) else entry.read()

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __reduce__(self) -> tuple[Any, ...]:
        """Other processes get the arrays themselves."""
        return type(self), (dict(self),)

    def with_array(self, name: str, array: np.ndarray) -> ShelvedArrays:
        """The same with another array, or another one of that name."""
        other = ShelvedArrays()
        other._room, other._file, other._entries = self._room, self._file, dict(self._entries)
        replaced = other._entries.get(name)
        other._room += replaced.nbytes if isinstance(replaced, np.ndarray) else 0
        other._put(name, array)
        return other

    def _put(self, name: str, array: np.ndarray) -> None:
        if array.nbytes <= self._room:
            self._room -= array.nbytes
            self._entries[name] = array
            return
        self._file = self._file or _File()
        self._entries[name] = self._file.add(array)


class _File:
    """A file without a name, which goes when the last that knows a place in it goes."""

    def __init__(self) -> None:
        # Closed with the object: places in it outlive whoever made it.
        self._handle = tempfile.TemporaryFile()  # noqa: SIM115
        weakref.finalize(self, self._handle.close)
        self._lock, self._end = threading.Lock(), 0

    def add(self, array: np.ndarray) -> _Place:
        """Lay an array down."""
        with self._lock:
            start = self._end
            self._handle.seek(start)
            self._handle.write(np.ascontiguousarray(array).data)
            self._end += array.nbytes
        return _Place(self, start, array.shape, array.dtype)

    def read(self, start: int, into: np.ndarray) -> None:
        """Fill an array from a place."""
        with self._lock:
            self._handle.seek(start)
            self._handle.readinto(into.reshape(-1).view(np.uint8).data)


class _Place:
    """Where an array lies in a file, its shape and type."""

    def __init__(self, file: _File, start: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._file, self._start, self._shape, self._dtype = file, start, shape, dtype

    def read(self) -> np.ndarray:
        """The array."""
        array = np.empty(self._shape, dtype=self._dtype)
        self._file.read(self._start, array)
        return array
