"""ONNX models: `read` gives an `OnnxModel`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lampq.core.errors import MissingExtraError

if TYPE_CHECKING:
    from lampq.adapters.onnx.model import OnnxModel


def read(path: str | Path, **options: Any) -> OnnxModel:
    """Read an ONNX file; see `lampq.adapters.onnx.reader.read` for the options.

    Raises:
        MissingExtraError: onnx, onnx_ir or onnxruntime is not installed.
        AdapterError: The file cannot be read.
    """
    try:
        from lampq.adapters.onnx.reader import read as read_onnx
    except ModuleNotFoundError as err:
        package = (err.name or "").partition(".")[0]
        if package not in ("onnx", "onnx_ir", "onnxruntime"):
            raise
        raise MissingExtraError(package.replace("onnx_ir", "onnx-ir"), "onnx") from err
    return read_onnx(path, **options)
