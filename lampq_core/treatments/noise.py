"""A fixed noise before rounding, taken off again: for layers' inputs, whose bias takes what was added."""

from __future__ import annotations

from functools import partial

from lampq.core.treatments import noise_grid
from lampq.core.treatments.quantizer import Quantizer
from lampq.core.treatments.roles import INPUT

NOISE = Quantizer(
    name="noise",
    roles=frozenset((INPUT,)),
    candidates=partial(noise_grid.candidates, subtract=True),
    load=partial(noise_grid.load, subtract=True),
    source="Liu et al. 2023 (NoisyQuant), arXiv:2211.16056",
)
