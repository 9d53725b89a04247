"""What lampq knows of ONNX before it is imported."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lampq.adapters.format import NODES, ModelFormat
from lampq.core.values.errors import LampqError
from lampq.core.values.stored import StoredWeight

if TYPE_CHECKING:
    from lampq.core.measuring.model import Model


def _read(source: str | Path, **options: Any) -> Model:
    from lampq.adapters import onnx

    return onnx.read(source, **options)


def _stored(source: str | Path) -> Iterable[StoredWeight]:
    from lampq.adapters import onnx

    return onnx.read_stored(source)


def _external_data(path: Path) -> tuple[Path, ...]:
    # What keeps the model from being read is said when it is.
    with contextlib.suppress(LampqError, ImportError):
        from lampq.adapters.onnx.container import Container

        return tuple(file.path for file in Container(path).files.values())
    return ()


ONNX = ModelFormat(
    name="onnx",
    title="ONNX",
    endings=(".onnx",),
    extra="onnx",
    packages={"onnx": "onnx", "onnx_ir": "onnx-ir", "onnxruntime": "onnxruntime"},
    read=_read,
    stored=_stored,
    beside=_external_data,
    addresses=NODES,
    # Integer products want one scale per channel.
    blocks_with_inputs=False,
)
