"""What lampq knows of TFLite before it is imported."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lampq.adapters.format import OPERATORS, ModelFormat
from lampq.core.measuring.model import Model
from lampq.core.values.stored import StoredWeight

if TYPE_CHECKING:
    from lampq.adapters.tflite.backend import TfliteModel

_IDENTIFIER = b"TFL3"


def read(path: str | Path, **options: Any) -> TfliteModel:
    """Read a TFLite model; see `lampq.adapters.tflite.reading.read` for the options.

    Raises:
        MissingExtraError: What reads it is not installed.
        AdapterError: The file cannot be read.
    """
    with TFLITE.importing():
        from lampq.adapters.tflite.reading import read as read_tflite
    return read_tflite(path, **options)


def _detect(path: Path, head: bytes) -> bool:
    return head[4:8] == _IDENTIFIER


def _stored(source: str | Path) -> Iterable[StoredWeight]:
    from lampq.adapters.tflite.stored import stored

    return stored(read(source))


def _weight_bytes(model: Model) -> int:
    return cast("TfliteModel", model).variant.opened.weight_bytes


TFLITE = ModelFormat(
    name="tflite",
    title="TFLite",
    endings=(".tflite", ".lite"),
    extra="tflite",
    packages={"ai_edge_litert": "ai-edge-litert", "flatbuffers": "flatbuffers"},
    read=read,
    detect=_detect,
    stored=_stored,
    weight_bytes=_weight_bytes,
    addresses=OPERATORS,
    input_bits=(8, 16),
    folds_norms=True,
)
