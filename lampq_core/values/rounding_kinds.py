"""How a weight becomes a code: names that plans and profiles carry."""

from __future__ import annotations

NEAREST, INPUTS, CORRECTED = "nearest", "inputs", "corrected"
MEASURED = (NEAREST, INPUTS)
"""To the nearest level, or for the least error of the layer's output on the calibration inputs."""
ROUNDINGS = (*MEASURED, CORRECTED)
"""Plans may ask for codes that make up, layer after layer, for the layers before (`core.measuring.correction`)."""


def profiled(rounding: str) -> str:
    """The rounding that a profile for plans of another has: corrections are of whole plans."""
    return INPUTS if rounding == CORRECTED else rounding
