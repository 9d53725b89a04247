"""Where damage and interactions come from: names that measurements and profiles carry."""

from __future__ import annotations

AUTO, GRADIENTS, DIFFERENCES = "auto", "gradients", "differences"
MEASURES = (AUTO, GRADIENTS, DIFFERENCES)
"""Gradients where a model has them and they pass a check, backward passes for all options at once, and one run for
every layer and option."""
