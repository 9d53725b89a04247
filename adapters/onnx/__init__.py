"""ONNX models: `read` gives a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lampq.adapters.onnx.format import ONNX

if TYPE_CHECKING:
    from lampq.adapters.onnx.backend import OnnxModel
    from lampq.core.values.stored import StoredWeight


def read(path: str | Path, **options: Any) -> OnnxModel:
    """Read an ONNX file; see `lampq.adapters.onnx.reader.read` for the options.

    Raises:
        MissingExtraError: onnx, onnx_ir or onnxruntime is not installed.
        AdapterError: The file cannot be read.
    """
    with ONNX.importing():
        from lampq.adapters.onnx.reader import read as read_onnx
    return read_onnx(path, **options)


def read_stored(path: str | Path) -> tuple[StoredWeight, ...]:
    """The quantized weights of an ONNX file; see `lampq.adapters.onnx.stored`.

    Raises:
        MissingExtraError: onnx, onnx_ir or onnxruntime is not installed.
        AdapterError: The file cannot be read.
    """
    with ONNX.importing():
        from lampq.adapters.onnx.stored import stored
    return stored(path)
