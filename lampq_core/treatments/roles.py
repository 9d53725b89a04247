"""What the values of a site are in the model."""

from __future__ import annotations

INPUT = "input"
"""The input of a layer."""
QUERIES, KEYS, PROBABILITIES, VALUES = "queries", "keys", "probabilities", "values"
"""Factors of attention; probabilities are what a softmax gives."""
LEFT, RIGHT = "left", "right"
"""Factors of other products of two activations."""

ROLES = frozenset((INPUT, QUERIES, KEYS, PROBABILITIES, VALUES, LEFT, RIGHT))
FACTORS = ROLES - {INPUT}
SPREAD = ROLES - {PROBABILITIES}
"""Those that take either sign."""


def role_of(site: str) -> str:
    """The role that the name of a site says.

    >>> role_of("blocks.0.attn@keys#2"), role_of("blocks.0.fc1")
    ('keys', 'input')
    """
    _, at, role = site.rpartition("@")
    return role.partition("#")[0] if at else INPUT
