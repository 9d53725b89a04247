"""Score `error`: relative weight error, all that a profile without data can offer."""

from __future__ import annotations

import numpy as np

from lampq.core.allocating.scores.weights_alone import refuse_input_widths
from lampq.core.values.profile import Profile
from lampq.core.values.recipe import PUBLISHED, Recipe
from lampq.core.values.score import Score

_NAME = "error"


def error_scores(profile: Profile, recipe: Recipe = PUBLISHED) -> np.ndarray:
    """Relative weight error ||dW||^2 / ||W||^2, shape (L, J).

    It is no damage in nats and ranks layers poorly (Spearman 0.2 to 0.3 with measured damage), but it never
    needs a model or data.

    Raises:
        RecordError: The profile has several input widths.
    """
    refuse_input_widths(profile, _NAME)
    power = np.array([layer.weight.count * layer.weight.second_moment.sum() for layer in profile.layers])
    return profile.weight_error / np.maximum(power, np.finfo(np.float64).tiny)[:, None]


def _notes(profile: Profile) -> tuple[str, ...]:
    why = "made without data" if profile.samples == 0 else f"mode {_NAME} uses no data"
    return (f"{why}: relative weight error stands in for damage, which it predicts poorly",)


ERROR = Score(name=_NAME, costs=error_scores, unit="relative weight error", notes=_notes)
