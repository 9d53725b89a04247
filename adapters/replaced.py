"""Arrays that take the place of stored weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lampq.core.values.errors import AdapterError


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
