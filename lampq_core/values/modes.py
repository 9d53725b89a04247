"""The scores that plans are made by: names that requests and plans carry."""

from __future__ import annotations

AUTO = "auto"
"""The best that a profile allows."""
SUPERPOSITION = "superposition"
"""The mode that predicts plans as a whole (`core.measuring.interaction`); its search starts from the additive modes."""
ERROR = "error"
"""Relative weight error: no damage, and so no nats, bounds or neighbours."""
LAMPQ = "lampq"
"""The published score, with its recipe, its pins and its update."""
ADDITIVE = (LAMPQ, "fisher", "kl", ERROR)
"""Modes whose damage is a sum over the layers (`core.allocating.scores`)."""
MODES = (SUPERPOSITION, *ADDITIVE)
