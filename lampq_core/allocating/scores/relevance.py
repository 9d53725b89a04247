"""Score `relevance`: the share of the outputs that passes through a layer, times the error of the layer's output."""

from __future__ import annotations

import numpy as np

from lampq.core.measuring.relevance import ERROR, POWER, RELEVANCE, relative_output_error, with_relevance
from lampq.core.values.errors import RecordError
from lampq.core.values.profile import Profile
from lampq.core.values.recipe import PUBLISHED, Recipe
from lampq.core.values.score import Score


def importance(profile: Profile) -> np.ndarray:
    """Share of all layers' relevance that each layer has, shape (L,), sum 1.

    Raises:
        RecordError: No layer has any.
    """
    relevance = profile.tables[RELEVANCE].array
    if not relevance.sum() > 0:
        raise RecordError("no layer has any relevance to the outputs; use another mode")
    return relevance / relevance.sum()


def relevance_scores(profile: Profile, recipe: Recipe = PUBLISHED) -> np.ndarray:
    """Importance times the relative error of the layer's output, shape (L, J).

    Source: Ranjan and Savakis (2024), LRP-QViT, arXiv:2401.11243, which has importance alone; the error makes it a cost
    of every width.

    Raises:
        RecordError: No layer has any relevance.
    """
    return importance(profile)[:, None] * relative_output_error(profile)


RELEVANCE_SCORE = Score(
    name="relevance",
    costs=relevance_scores,
    unit="relevance x relative output error",
    needs=(RELEVANCE, ERROR, POWER),
    measure=with_relevance,
)
