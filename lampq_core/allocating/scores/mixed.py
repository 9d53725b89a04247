"""Score `mixed`: importance by relevance times sensitivity by measured damage."""

from __future__ import annotations

import numpy as np

from lampq.core.allocating.scores.kl import kl_scores
from lampq.core.allocating.scores.relevance import importance
from lampq.core.measuring.relevance import RELEVANCE, with_relevance
from lampq.core.values.profile import Profile
from lampq.core.values.recipe import PUBLISHED, Recipe
from lampq.core.values.score import Score


def mixed_scores(profile: Profile, recipe: Recipe = PUBLISHED) -> np.ndarray:
    """Importance times the measured damage of quantizing the layer alone, shape (L, J).

    Source: Ranjan and Savakis (2025), Mix-QViT, arXiv:2501.06357.

    Raises:
        RecordError: No layer has any relevance.
    """
    return importance(profile)[:, None] * kl_scores(profile)


MIXED = Score(
    name="mixed",
    costs=mixed_scores,
    unit="relevance x nats",
    needs=("kl", RELEVANCE),
    measure=with_relevance,
)
