"""What a quantized file is asked to hold, before there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lampq.core.values.layer import Layer
from lampq.core.values.option import Option


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sizing:
    """L layers at each of J options; see `core.measuring.model.Sized`.

    Attributes:
        layers: The layers that are quantized, with the statistics of their inputs where these are; others stay float.
        options: Those of widths that cannot be stored take nothing.
        container: `bitplane` or `int8`.
        steps: Distance of neighbouring integers, shape (L, J), which tells grids apart; None where it is not known.
        ranges: Ends of the grids of inputs, shape (L, J, 2), where they are not those of the statistics; or None.
    """

    layers: Sequence[Layer]
    options: Sequence[Option]
    container: str
    steps: np.ndarray | None = None
    ranges: np.ndarray | None = None
