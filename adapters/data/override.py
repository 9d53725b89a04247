"""The preprocessing that a command's options, the files beside the model, or neither ask for."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from lampq.adapters.data.hugging_face import find_preprocess
from lampq.adapters.data.preprocess import PRESETS, Preprocess
from lampq.core.values.errors import AdapterError
from lampq.core.values.input_spec import InputSpec


def preprocess_for(
    model: str | Path,
    spec: InputSpec,
    *,
    preset: str | None = None,
    size: str | tuple[int, int] | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> Preprocess:
    """A preset, else the file beside the model, else scaling to [0, 1]; changed by what is given explicitly.

    Args:
        model: Where the model was read from.
        spec: Its input.
        preset: Name of a preset.
        size: `224`, `HxW`, or (height, width) in pixels.
        mean: Per channel, on the scale 0..1.
        std: Per channel, on the scale 0..1.

    Raises:
        AdapterError: The preset or size makes no sense, mean comes without std, or the file cannot be used.
    """
    if preset is not None:
        base = Preprocess.preset(preset)
    else:
        # Whoever gives mean and std does not depend on a file that may be malformed.
        explicit = mean is not None and std is not None
        base = (None if explicit else find_preprocess(model, spec)) or PRESETS["none"]
    if (mean is None) != (std is None) and base.std == (1.0,):
        raise AdapterError("preprocessing: give mean and std together")
    changes: dict[str, Any] = {"size": _sides(size), "mean": mean, "std": std}
    return dataclasses.replace(base, **{name: value for name, value in changes.items() if value is not None})


def _sides(size: str | tuple[int, int] | None) -> tuple[int, int] | None:
    """(height, width) of `224` or `224x288`."""
    if size is None or isinstance(size, tuple):
        return size
    parts = size.lower().split("x")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() for part in parts):
        raise AdapterError(f"image size {size!r}: write 224, or 224x288 for height x width")
    return int(parts[0]), int(parts[-1])
