"""What a quantized layer computes with: its rounded weights, and how its input is rounded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lampq.core.activation_grid import ActivationRule


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Setting:
    """A layer as a quantized model has it.

    Attributes:
        weight: Dequantized weights in the shape of the layer's record, or None: as they are.
        activation: How the layer's input is rounded, or None: it stays float.
    """

    weight: np.ndarray | None = None
    activation: ActivationRule | None = None
