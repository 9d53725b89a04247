"""Models of every framework behind one verb: `read`. A framework is imported when its first file arrives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lampq.adapters.again import Reading
from lampq.adapters.format import ModelFolder, ModelFormat
from lampq.adapters.formats import MODEL_FORMATS, format_named, format_of, register

if TYPE_CHECKING:
    from lampq.core.measuring.model import Model
    from lampq.core.values.stored import StoredWeight

__all__ = [
    "MODEL_FORMATS",
    "ModelFolder",
    "ModelFormat",
    "format_named",
    "format_of",
    "read",
    "register",
    "stored",
]


def read(path: str | Path, **options: Any) -> Model:
    """Read a model.

    Args:
        path: `x.onnx`, `x.tflite`, `x.pt2`, a Hugging Face folder, `file.py:name`, `package.module:name`,
            `timm:NAME`, a `.safetensors` file that lampq wrote, or a file of a format that was registered or that an
            installed package announces.
        options: What the format's own reader takes, for example `kinds` for all of lampq's.

    Raises:
        AdapterError: There is no such file, its format is unknown, or it is damaged.
        MissingExtraError: The package that reads the format is not installed.
    """
    model = format_of(path).read(path, **options)
    Reading(source=path, options=options).remember(model)
    return model


def stored(path: str | Path) -> tuple[StoredWeight, ...]:
    """The quantized weights of a model, whichever tool quantized it: ONNX, TFLite, compressed-tensors, lampq's own.

    Args:
        path: What `read` takes.

    Raises:
        AdapterError: It cannot be read.
        MissingExtraError: The package that reads the format is not installed.
    """
    return tuple(format_of(path).stored(path))
