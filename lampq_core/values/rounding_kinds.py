"""How a weight becomes a code: names that plans and profiles carry."""

from __future__ import annotations

NEAREST, INPUTS = "nearest", "inputs"
ROUNDINGS = (NEAREST, INPUTS)
"""To the nearest level, or for the least error of the layer's output on the calibration inputs."""
