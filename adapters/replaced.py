"""Layers by name, and arrays that take the place of their stored weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from lampq.core.values.errors import AdapterError

Known = TypeVar("Known")


def named(layers: Mapping[str, Known], name: str, *, whose: str) -> Known:
    """What is known of a layer.

    Args:
        layers: The same of all layers, by name.
        name: The layer.
        whose: The model, for messages.

    Raises:
        AdapterError: No layer is so called.
    """
    if name not in layers:
        raise AdapterError(f"{whose} has no layer {name!r}; `lampq inspect` lists them")
    return layers[name]


def fitting(array: np.ndarray, shape: Sequence[int], *, layer: str, whose: str) -> np.ndarray:
    """A new weight of a layer, float32, C order.

    Args:
        array: What to put in the place of the stored one.
        shape: Shape of the layer's record.
        layer: The layer.
        whose: The model, for messages.

    Raises:
        AdapterError: The array is of another shape.
    """
    if np.shape(array) != tuple(shape):
        raise AdapterError(
            f"{whose}: layer {layer} has shape {tuple(shape)}, its new weight {np.shape(array)}"
        )
    return np.ascontiguousarray(array, dtype=np.float32)
