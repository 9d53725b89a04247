"""Which activations are rounded: names that measurements carry."""

from __future__ import annotations

INPUTS, ALL = "inputs", "all"
"""Layers' inputs; these and both factors of products of two activations."""
SITES = (INPUTS, ALL)
