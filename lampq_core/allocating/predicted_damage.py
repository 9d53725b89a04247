"""Predicted damage of every option of every layer: the costs that allocation adds up."""

from __future__ import annotations

import numpy as np

from lampq.core.allocating.scores import score
from lampq.core.values.errors import RecordError
from lampq.core.values.option_order import running_minimum
from lampq.core.values.profile import Profile
from lampq.core.values.recipe import PUBLISHED, Recipe
from lampq.core.values.score import Score


def predicted_damage(
    profile: Profile, mode: str | Score, recipe: Recipe = PUBLISHED
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Costs of a score made non-increasing in the widths of weights and inputs.

    More bits can measure slightly worse by chance; left alone, a budget that cannot be used up would then prefer
    fewer bits. The running minimum repairs that.

    Returns:
        The costs, shape (L, J), +inf where the format cannot store the option, and the names of the layers that
        were repaired.

    Raises:
        RecordError: The mode is unknown, its measurements are missing, or a score is not finite.
    """
    scores = _costs(profile, score(mode), recipe)
    available = profile.available
    smooth = running_minimum(np.where(available, scores, np.inf), profile.options)
    # Differences on the level of rounding are not worth a word.
    excess = np.where(available, scores - np.where(available, smooth, 0), 0)
    repaired = excess.max(axis=1) > 0.01 * scores.max(axis=1)
    smooth[~available] = np.inf
    return smooth, tuple(layer.name for layer, flag in zip(profile.places, repaired, strict=True) if flag)


def _costs(profile: Profile, score: Score, recipe: Recipe) -> np.ndarray:
    """What a score says, checked."""
    score.check(profile)
    costs = np.asarray(score.costs(profile, recipe), dtype=np.float64)
    if costs.shape != profile.weight_error.shape:
        raise RecordError(
            f"mode {score.name}: its costs have shape {costs.shape}, expected {profile.weight_error.shape}, layers and "
            f"options"
        )
    impossible = ~(np.isfinite(costs) & (costs >= 0))
    if impossible.any():
        bad = int(np.argwhere(impossible)[0, 0])
        raise RecordError(
            f"mode {score.name}: the score of layer {profile.places[bad].name} is not a finite damage"
        )
    return costs
