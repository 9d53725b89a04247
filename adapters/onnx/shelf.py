"""Codes of quantized weights, kept on disk between quantizing, writing and checking.

A model's codes take a quarter of its float weights, and with 8 bits as much again in the file: beside the runtime that
checks the file they need not lie in memory, where one layer at a time is looked at.
"""

from __future__ import annotations

import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lampq.core.quantizing.quantizer import Codes, Quantized

# Codes of small models stay in memory.
_MEMORY_BYTES = 1 << 26


class Shelf:
    """Codes in a file without a name, which goes when the shelf is closed.

    Args:
        folder: Where the file is made.
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES, dir=str(folder))  # noqa: SIM115
        self._lock = threading.Lock()
        self._end = 0

    def __enter__(self) -> Shelf:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def put(self, quantized: Codes) -> Shelved:
        """Lay codes down."""
        with self._lock:
            start = self._end
            self._file.seek(start)
            self._file.write(np.ascontiguousarray(quantized.codes).data)
            self._end += quantized.codes.nbytes
        return Shelved(
            shelf=self,
            place=start,
            shape=(quantized.codes.shape[0], quantized.codes.shape[1]),
            scale=quantized.scale,
            step=quantized.step,
            offset=quantized.offset,
            bits=quantized.bits,
        )

    def read(self, start: int, count: int) -> np.ndarray:
        """`count` bytes from `start`."""
        with self._lock:
            self._file.seek(start)
            return np.frombuffer(self._file.read(count), dtype=np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shelved:
    """A quantized weight whose codes are read when they are asked for.

    Attributes:
        shelf: Where the codes lie.
        place: Their first byte there.
        shape: Their shape, (C, N).
        scale: See `core.quantizing.quantizer.Quantized`, as what follows.
        step: See there.
        offset: See there.
        bits: See there.
    """

    shelf: Shelf
    place: int
    shape: tuple[int, int]
    scale: np.ndarray
    step: int
    offset: int
    bits: int

    @property
    def codes(self) -> np.ndarray:
        """uint8, shape (C, N), read anew each time."""
        rows, columns = self.shape
        return self.shelf.read(self.place, rows * columns).reshape(self.shape)

    def dequantized(self) -> np.ndarray:
        """The values the codes stand for, float32, shape (C, N)."""
        whole = Quantized(
            codes=self.codes,
            scale=self.scale,
            step=self.step,
            offset=self.offset,
            bits=self.bits,
            squared_error=np.zeros(len(self.scale)),
        )
        return whole.dequantized()
