"""What widths a written model holds, read from its graph."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx_ir as ir

from lampq.adapters.onnx.container import Container
from lampq.adapters.onnx.unpack import INT8_NAME, PART, PLANE_NAME
from lampq.core.values.errors import AdapterError

PLAN_KEY = "lampq.plan"
"""Under which a file notes the widths that it was written with."""


def read_bits(path: str | Path) -> dict[str, tuple[int, str]]:
    """Width and container of every quantized weight of a file that lampq wrote, by layer name.

    Packed codes tell their width by the planes they are stored in. Integers stored whole do not: there the
    file's note of the plan counts, and without it the fewest bits that hold them.

    Raises:
        AdapterError: The file is no ONNX model, or holds planes that do not fit together.
    """
    model = Container(Path(path)).parse()
    noted = _noted(model)
    planes: dict[str, list[tuple[int, int, int]]] = {}
    stored: dict[str, tuple[int, str]] = {}
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if not value.uses() or tensor is None:
            continue
        if tensor.dtype == ir.DataType.UINT8 and (match := PLANE_NAME.fullmatch(name)):
            plane = int(match["low"]), int(match["width"]), tensor.size
            planes.setdefault(match["layer"], []).append(plane)
            stored.setdefault(match["layer"], (0, "bitplane"))
        elif tensor.dtype == ir.DataType.INT8 and (match := INT8_NAME.fullmatch(name)):
            layer = match["layer"]
            whole = PART.sub("", layer)
            stored[layer] = (noted.get(layer) or noted.get(whole) or _fewest_bits(tensor.numpy()), "int8")
    for layer, parts in planes.items():
        parts.sort()
        ends = [low + width for low, width, _ in parts]
        lengths = {8 * size // width for _, width, size in parts}
        if [low for low, _, _ in parts] != [0, *ends[:-1]] or len(lengths) != 1:
            raise AdapterError(
                f"{path}: the packed codes of layer {layer} are incomplete; the file is damaged"
            )
        stored[layer] = (ends[-1], "bitplane")
    return stored


def _noted(model: ir.Model) -> dict[str, int]:
    """Widths by layer as the metadata state them; nothing where they are missing or unreadable."""
    try:
        layers = json.loads(model.metadata_props[PLAN_KEY])["layers"]
        matches = {name: re.fullmatch(r"w([1-8])(?:a[2-8])?", text) for name, text in layers.items()}
        return {name: int(match[1]) for name, match in matches.items() if match}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _fewest_bits(integers: np.ndarray) -> int:
    """The fewest bits whose grid holds all of these: odd numbers in mid-rise, any in mid-tread."""
    low, high = int(integers.min()), int(integers.max())
    if (integers & 1).all() and low > -128:
        return max(-low, high).bit_length()
    return max((-low - 1).bit_length(), high.bit_length()) + 1
