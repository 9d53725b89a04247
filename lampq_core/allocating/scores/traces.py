"""Fisher traces of all layers, for the scores that are made of them."""

from __future__ import annotations

import numpy as np

from lampq.core.values.profile import Profile


def traces(profile: Profile) -> np.ndarray:
    """tr(F) of every layer of a profile that has them, float64, shape (L,)."""
    return np.array([layer.fisher for layer in profile.layers], dtype=np.float64)


def missing_traces(profile: Profile) -> str:
    """The first trace that a profile lacks, as a noun; empty where it has all."""
    lacking = next((layer.name for layer in profile.layers if layer.fisher is None), None)
    return "" if lacking is None else f"a Fisher trace of layer {lacking}"


def how_to_measure(profile: Profile) -> str:
    """What gives a profile its traces, and all else that comes from data."""
    return f"profile the model {'without --fisher-draws 0' if profile.samples else 'with --data'}"
