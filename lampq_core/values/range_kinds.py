"""How the range of a layer's input is chosen: names that measurements and profiles carry."""

from __future__ import annotations

METHODS = ("minmax", "percentile", "mse")
"""Ways of choosing the clip points from calibration data."""
PER_TOKEN = "token"
"""Each token has a range of its own."""
RANGES = (*METHODS, PER_TOKEN)
