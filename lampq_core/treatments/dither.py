"""A fixed noise before rounding that stays: for factors, whose other factor is no constant."""

from __future__ import annotations

from functools import partial

from lampq.core.treatments import noise_grid
from lampq.core.treatments.quantizer import Quantizer
from lampq.core.treatments.roles import FACTORS

DITHER = Quantizer(
    name="dither",
    roles=FACTORS,
    candidates=partial(noise_grid.candidates, subtract=False),
    load=partial(noise_grid.load, subtract=False),
    source="Liu et al. 2023 (NoisyQuant), arXiv:2211.16056",
)
