"""ONNX models: `read` gives an `OnnxModel`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lampq.core.values.errors import MissingExtraError

if TYPE_CHECKING:
    from lampq.adapters.onnx.model import OnnxModel
    from lampq.core.values.stored import StoredWeight


def read(path: str | Path, **options: Any) -> OnnxModel:
    """Read an ONNX file; see `lampq.adapters.onnx.reader.read` for the options.

    Raises:
        MissingExtraError: onnx, onnx_ir or onnxruntime is not installed.
        AdapterError: The file cannot be read.
    """
    with _needed():
        from lampq.adapters.onnx.reader import read as read_onnx
    return read_onnx(path, **options)


def read_stored(path: str | Path) -> tuple[StoredWeight, ...]:
    """The quantized weights of an ONNX file; see `lampq.adapters.onnx.stored`.

    Raises:
        MissingExtraError: onnx, onnx_ir or onnxruntime is not installed.
        AdapterError: The file cannot be read.
    """
    with _needed():
        from lampq.adapters.onnx.stored import stored
    return stored(path)


@contextlib.contextmanager
def _needed() -> Iterator[None]:
    """Turns a missing package into the error that names its extra."""
    try:
        yield
    except ModuleNotFoundError as err:
        package = (err.name or "").partition(".")[0]
        if package not in ("onnx", "onnx_ir", "onnxruntime"):
            raise
        raise MissingExtraError(package.replace("onnx_ir", "onnx-ir"), "onnx") from err
