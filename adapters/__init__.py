"""Models of every framework behind one verb: `read`. A framework is imported when its first file arrives."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lampq.core.values.bounded import open_regular
from lampq.core.values.errors import AdapterError

if TYPE_CHECKING:
    from lampq.core.measuring.model import Model
    from lampq.core.values.stored import StoredWeight

# Format -> the package whose `read` reads it.
_READERS = {
    "onnx": "lampq.adapters.onnx",
    "tflite": "lampq.adapters.tflite",
    "pt2": "lampq.adapters.torch",
    "hugging_face": "lampq.adapters.torch",
    "factory": "lampq.adapters.torch",
    "safetensors": "lampq.adapters.torch",
}


def read(path: str | Path, **options: Any) -> Model:
    """Read a model.

    Args:
        path: `x.onnx`, `x.tflite`, `x.pt2`, a Hugging Face folder, `file.py:name`, `package.module:name`,
            `timm:NAME`, or a `.safetensors` file that lampq wrote.
        options: What the format's own reader takes, for example `kinds` for all of them.

    Raises:
        AdapterError: There is no such file, its format is unknown, or it is damaged.
        MissingExtraError: The package that reads the format is not installed.
    """
    model: Model = importlib.import_module(_READERS[detect(path)]).read(path, **options)
    return model


def stored(path: str | Path) -> tuple[StoredWeight, ...]:
    """The quantized weights of a model, whichever tool quantized it: ONNX, TFLite, compressed-tensors, lampq's own.

    Args:
        path: What `read` takes.

    Raises:
        AdapterError: It cannot be read.
        MissingExtraError: The package that reads the format is not installed.
    """
    form = detect(path)
    if form == "onnx":
        found = importlib.import_module("lampq.adapters.onnx").read_stored(path)
    elif form == "tflite":
        found = importlib.import_module("lampq.adapters.tflite.stored").stored(read(path))
    else:
        found = importlib.import_module("lampq.adapters.torch.stored").stored(path)
    return tuple(found)


def detect(path: str | Path) -> str:
    """The format of a model: by its name, and where that says nothing by its first bytes.

    Returns:
        `onnx`, `tflite`, `pt2`, `hugging_face`, `factory` or `safetensors`.

    Raises:
        AdapterError: There is no such file, or nothing tells its format.
    """
    text, path = str(path), Path(path)
    named = {".onnx": "onnx", ".tflite": "tflite", ".lite": "tflite", ".pt2": "pt2"}.get(path.suffix.lower())
    if text.startswith("timm:"):
        return "factory"
    if path.is_dir():
        if (path / "config.json").is_file():
            return "hugging_face"
        raise AdapterError(
            f"{path} is a folder without config.json; name a model file or a Hugging Face folder"
        )
    if not path.exists():
        module, colon, factory = text.rpartition(":")
        if colon and factory.isidentifier() and len(module) > 1 and named is None:
            return "factory"
        raise AdapterError(f"{path}: no such file")
    if named is not None:
        return named
    try:
        with open_regular(path) as handle:
            head = handle.read(8)
    except OSError as err:
        raise AdapterError(f"{path} cannot be read: {err.strerror}") from err
    if head[4:8] == b"TFL3":
        return "tflite"
    if path.suffix.lower() == ".safetensors":
        return "safetensors"
    if path.suffix.lower() in (".pt", ".pth", ".bin", ".ckpt"):
        raise AdapterError(f"{path} holds weights only; name a factory and pass the file as --weights")
    raise AdapterError(
        f"{path} is of no known format; expected .onnx, .tflite, .pt2 or a Hugging Face folder"
    )
