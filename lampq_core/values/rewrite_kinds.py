"""How normalizations are rewritten before anything is rounded: names that measurements carry."""

from __future__ import annotations

NONE, MEASURED = "none", "measured"
"""Not at all; each in the way that measures best, which may be not at all."""
ONE_RANGE, CLIPPED = "one_range", "clipped"
"""All channels to one range; those above a threshold alone (`core.treatments.rewrites`)."""
KINDS = (ONE_RANGE, CLIPPED)
REWRITES = (NONE, MEASURED, *KINDS)
