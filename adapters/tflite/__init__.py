"""TFLite models: read, run, measured and written with weights of 2, 4 and 8 bits, without TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lampq.adapters.tflite.format import TFLITE

if TYPE_CHECKING:
    from lampq.adapters.tflite.backend import TfliteModel


def read(path: str | Path, **options: Any) -> TfliteModel:
    """Read a TFLite model; see `lampq.adapters.tflite.reading.read` for the options.

    Raises:
        MissingExtraError: What reads it is not installed.
        AdapterError: The file cannot be read.
    """
    with TFLITE.importing():
        from lampq.adapters.tflite.reading import read as read_tflite
    return read_tflite(path, **options)
