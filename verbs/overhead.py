"""What a quantized file takes beside codes and scales."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lampq.core.measuring.model import Model, is_sized
from lampq.core.values.layer import Layer
from lampq.core.values.measurement import Measurement
from lampq.core.values.overhead import Overhead
from lampq.core.values.selection import KeptLayer


def file_overhead(
    model: Model,
    layers: Sequence[Layer],
    kept: Sequence[KeptLayer],
    measurement: Measurement,
    steps: np.ndarray | None = None,
    ranges: np.ndarray | None = None,
) -> Overhead:
    """What a quantized file takes beside codes and scales, by option where the format tells.

    Args:
        model: The float model.
        layers: The L layers that are quantized.
        kept: Those that stay float.
        measurement: Options and container.
        steps: See `core.measuring.model.Sized.overhead`.
        ranges: See there.
    """
    if is_sized(model):
        options, container = measurement.options, measurement.container
        return model.overhead(layers, options, container, steps=steps, ranges=ranges)
    floats = sum(layer.float_bytes for layer in kept)
    return Overhead(rest_bytes=model.rest_bytes(activations=measurement.act_bits is not None) + floats)
