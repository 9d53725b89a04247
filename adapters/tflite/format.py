"""What lampq knows of TFLite before it is imported."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lampq.adapters.format import OPERATORS, ModelFormat
from lampq.core.values.stored import StoredWeight

if TYPE_CHECKING:
    from lampq.core.measuring.model import Model

_IDENTIFIER = b"TFL3"


def _read(source: str | Path, **options: Any) -> Model:
    from lampq.adapters import tflite

    return tflite.read(source, **options)


def _detect(path: Path, head: bytes) -> bool:
    return head[4:8] == _IDENTIFIER


def _stored(source: str | Path) -> Iterable[StoredWeight]:
    from lampq.adapters import tflite
    from lampq.adapters.tflite.stored import stored

    return stored(tflite.read(source))


TFLITE = ModelFormat(
    name="tflite",
    title="TFLite",
    endings=(".tflite", ".lite"),
    extra="tflite",
    packages={"ai_edge_litert": "ai-edge-litert", "flatbuffers": "flatbuffers"},
    read=_read,
    detect=_detect,
    stored=_stored,
    addresses=OPERATORS,
    folds_norms=True,
)
