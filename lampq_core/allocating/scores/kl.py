"""Score `kl`: the measured damage of quantizing one layer alone."""

from __future__ import annotations

import numpy as np

from lampq.core.values.profile import Profile
from lampq.core.values.recipe import PUBLISHED, Recipe
from lampq.core.values.score import Score


def kl_scores(profile: Profile, recipe: Recipe = PUBLISHED) -> np.ndarray:
    """Measured single-layer damage of a profile with data, nats, shape (L, J)."""
    return profile.tables["kl"].array.copy()


def _remedy(profile: Profile) -> str:
    return "profile the model with --data"


KL = Score(name="kl", costs=kl_scores, needs=("kl",), remedy=_remedy, products=True)
